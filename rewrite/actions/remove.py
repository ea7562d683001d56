"""`remove S`: the matched calls are bypassed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rewrite import edit
from rewrite.errors import Diagnostic
from rewrite.graph import Node
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Shape

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Remove:
    """The input of each match goes on in the place of its output.

    What it does: a layer goes from the module tree with the last of its calls.
    What can go wrong: RW204 it has several inputs, RW310 its output has another shape than its input.
    """

    span: Span
    subject: str | None = None
    """capture that it is about; None: what the clause selects"""

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return False

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return False

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One edit for each call, or for each layer whose surroundings are left alone."""
        done = set()
        for site in sites:
            node = site.node
            if len(node.inputs) > 1:
                raise Diagnostic(
                    "RW204",
                    f"`{node.name}` has {len(node.inputs)} inputs, so removing it leaves open which one goes on",
                    self.span,
                    help="replace it, or remove what feeds one of its inputs",
                ).error()
            if node.outputs != 1:
                raise Diagnostic(
                    "RW205",
                    f"`{node.name}` returns several values, so it cannot be bypassed",
                    self.span,
                    help="replace it with a layer that returns what its callers take",
                ).error()
            self._check_shape(site, desk)
            site.changes.append("remove")
            site.operations -= desk.inner_calls(node) if node.composite else 1
            if site.key not in done:
                done.add(site.key)
                desk.edits.append(edit.Remove(node))

    def _check_shape(self, site: Site, desk: Desk) -> None:
        node = site.node
        operation = OPERATIONS.get(node.operation or "")
        if operation is not None and operation.shape is Shape.SAME:
            return
        before, after = desk.input_of(node), desk.inference.behind(node)
        if before.shape is not None and before.shape == after.shape:
            return
        if operation is not None and _keeps_shape(node):
            return
        facts = [f"{before.shape} goes in, {after.shape} comes out"] if before.shape and after.shape else []
        if not facts and before.size(1) != after.size(1) and None not in (before.size(1), after.size(1)):
            facts = [f"{before.size(1)} channels go in, {after.size(1)} come out"]
        desk.shape_changes.append(
            Diagnostic(
                "RW310",
                f"removing `{node.name}` ({node.spelling}) may change the shape there",
                self.span,
                notes=tuple(facts),
                help="only what keeps the shape can be removed; with an example input the output is checked by a run",
            )
        )


def _keeps_shape(node: Node) -> bool:
    """Whether a convolution or a linear layer has as many channels behind as in front, and every extent stays."""
    a = node.attributes
    if node.operation == "Linear":
        return a.get("in_features") == a.get("out_features")
    if a.get("in_channels") is None or a.get("in_channels") != a.get("out_channels"):
        return False
    if a.get("padding") == "same":
        return True
    sizes = [a.get(name) for name in ("kernel_size", "stride", "padding", "dilation")]
    if not all(isinstance(size, tuple) for size in sizes):
        return False
    return all(s == 1 and 2 * p == d * (k - 1) for k, s, p, d in zip(*sizes, strict=True))
