"""`move b after r`, `move prev.activation after self`: the same call at another place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rewrite import edit
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic
from rewrite.graph import Node
from rewrite.inference import Inference
from rewrite.selectors import relation
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Shape

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Move:
    """A matched call is made behind or in front of another one, by the same layer with the same weights.

    What it does: the call is bypassed where it stood. `x.activation` is the activation that a layer carries itself, or
    none: then it stands behind the position already, and nothing is left to move.
    What can go wrong: RW204 it has several inputs, RW310 the shape would change, RW315 the value would feed itself.
    """

    moved: tuple[str, ...]
    """name and attributes: `("b",)`, `("prev", "activation")`"""
    side: Literal["after", "before"]
    anchor: tuple[str, ...]
    span: Span

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return False

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return False

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One edit for each match that is not as it should be already."""
        for site in sites:
            if self.moved[1:]:
                self._move_activation(site, desk)
                continue
            moved, anchor = site.names[self.moved[0]], site.names[self.anchor[0]]
            if not isinstance(moved, Node) or not isinstance(anchor, Node):
                raise Diagnostic(
                    "RW009",
                    "what this rule inserts stands where it was inserted",
                    self.span,
                    help="insert it at the place that is meant",
                ).error()
            self._move(moved, anchor, site, desk)

    def _move(self, moved: Node, anchor: Node, site: Site, desk: Desk) -> None:
        if moved is anchor:
            raise Diagnostic("RW315", f"`{moved.name}` cannot be moved next to itself", self.span).error()
        if len(moved.inputs) != 1 or moved.outputs != 1:
            count = len(moved.inputs)
            raise Diagnostic(
                "RW204",
                f"`{moved.name}` takes {count} values, so moving it leaves open which one goes on in its place",
                self.span,
                help="only a call with one input and one output can be moved",
            ).error()
        if self.side == "before" and len(anchor.inputs) != 1:
            raise Diagnostic(
                "RW204",
                f"`{anchor.name}` has {len(anchor.inputs)} inputs; in front of which one is not said",
                self.span,
                help="move it behind the call that makes that input",
            ).error()
        if self._is_there(moved, anchor, desk):
            site.changes.append(f"`{moved.name}` is {self.side} `{anchor.name}` already")
            return
        self._check_shape(moved, anchor, desk)
        desk.edits.append(edit.Move(moved, self.side, anchor, span=self.span))
        site.changes.append(f"move `{moved.name}` {self.side} `{anchor.name}`")

    def _is_there(self, moved: Node, anchor: Node, desk: Desk) -> bool:
        first, second = (anchor, moved) if self.side == "after" else (moved, anchor)
        if not any(first in relation.producers(operand.value) for operand in second.inputs):
            return False
        return relation.only_next(desk.graph, first, lambda node: node is second)

    def _check_shape(self, moved: Node, anchor: Node, desk: Desk) -> None:
        row = OPERATIONS.get(moved.operation or "")
        if row is None or row.shape is not Shape.SAME:
            desk.shape_changes.append(
                Diagnostic(
                    "RW310",
                    f"`{moved.name}` ({moved.spelling}) may change the shape where it is moved to",
                    self.span,
                    help="with an example input the output is checked by a run",
                )
            )
            return
        inference: Inference = desk.inference
        there = inference.behind(anchor) if self.side == "after" else desk.input_of(anchor)
        for name, axis in row.reads.items():
            own, found = moved.attributes.get(name), there.size(axis)
            own = own[-1] if isinstance(own, tuple) and own else own
            if isinstance(own, int) and found is not None and own != found:
                raise Diagnostic(
                    "RW310",
                    f"`{moved.name}` has {name} = {own}, and the value {self.side} `{anchor.name}` has {found} there",
                    self.span,
                    help="insert a new layer there instead, whose sizes follow from its place",
                ).error()

    def _move_activation(self, site: Site, desk: Desk) -> None:
        target = site.names.get(self.moved[0])
        slot = target.layer.activation if isinstance(target, Node) and target.layer is not None else None
        own = isinstance(target, Node) and target.layer is not None and target.layer.operation is not None
        if slot is None or own or not isinstance(target, Node) or target.layer is None:
            site.changes.append("activation stands behind, by construction")
            return
        inner = desk.graph.layers.get(f"{target.layer.path}.{slot}".lstrip("."))
        row = OPERATIONS.get(inner.operation or "") if inner is not None else None
        if inner is None or row is None or row.signature is None:
            raise Diagnostic(
                "RW320",
                f"the activation of `{target.name}` is no layer of the vocabulary: it cannot be made again elsewhere",
                self.span,
                help=f"take it away and insert another: `set {self.moved[0]}.activation = identity; insert ReLU`",
            ).error()
        known = {p.name: inner.attributes[p.name] for p in row.parameters if p.name in inner.attributes}
        seed = f"{desk.text}\0{site.node.name}\0activation"
        desk.edits.append(edit.Update(target.layer, {f".{slot}": None}, seed=seed))
        desk.insert_behind(site, [NewLayer(row.name, None, (), known, seed, self.span)])
        site.changes.append(f"move the activation of `{target.name}` behind what is inserted")
