"""`fold B into A`: a normalisation with fixed statistics becomes part of the weights next to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rewrite import edit
from rewrite.errors import Diagnostic
from rewrite.graph import Node
from rewrite.selectors import relation
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site

_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")


@dataclass(frozen=True)
class Fold:
    """Scale and shift of a BatchNorm go into the weights of the convolution or linear layer next to it.

    What it does: the layer gets new weights and, if it had none, a bias; the normalisation is bypassed. In eval mode
    the outputs stay what they were, to rounding.
    What can go wrong: RW318 the statistics still move, RW312 the value between the two is used elsewhere too.
    """

    norm: str
    """capture of the normalisation"""
    into: str
    """capture of the layer that takes it over"""
    span: Span

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return True

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return False

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """An update of the layer and a bypass of the normalisation, for each match."""
        for site in sites:
            norm, layer = site.names[self.norm], site.names[self.into]
            assert isinstance(norm, Node), "captures of a match are calls"
            assert isinstance(layer, Node), "captures of a match are calls"
            ahead = self._check(norm, layer, desk)
            assert norm.layer is not None, "checked"
            assert layer.layer is not None, "checked"
            key = "fold_ahead" if ahead else "fold"
            desk.edits.append(edit.Update(layer.layer, {key: norm.layer}, span=self.span))
            desk.edits.append(edit.Remove(norm))
            site.changes.append(f"fold `{norm.name}` into `{layer.name}`")
            site.operations -= 1

    def _check(self, norm: Node, layer: Node, desk: Desk) -> bool:
        """Whether the normalisation stands in front of the layer; refuses what cannot be folded."""
        row = OPERATIONS.get(layer.operation or "")
        if norm.operation not in _NORMS or norm.layer is None:
            raise self._wrong(f"`{norm.name}` ({norm.spelling}) is no BatchNorm layer, whose statistics can be fixed")
        if row is None or row.family not in ("conv", "linear") or layer.layer is None or row.name == "Bilinear":
            raise self._wrong(f"`{layer.name}` ({layer.spelling}) has no weights that could take a normalisation over")
        if not norm.layer.statistics or norm.training:
            what = "is in training mode" if norm.layer.statistics else "keeps no moving statistics"
            raise Diagnostic(
                "RW318",
                f"`{norm.name}` {what}, so it has no fixed scale and shift to fold",
                self.span,
                help="put the model in eval mode first: `model.eval()` or `--eval`; or choose: `where not b.training`"
                if norm.layer.statistics
                else "leave it out with `except`",
            ).error()
        first, second = (layer, norm)
        ahead = not any(layer in relation.producers(operand.value) for operand in norm.inputs)
        if ahead:
            first, second = norm, layer
        if not any(first in relation.producers(operand.value) for operand in second.inputs):
            raise self._wrong(f"no value goes from `{layer.name}` to `{norm.name}` or back")
        users = relation.leaf_consumers(desk.graph, first)
        others = [f"`{user.name}`" for user in users if user is not second]
        leaves = any(value.producer is first for value in desk.graph.outputs)
        if others or leaves:
            alone = sum(self._is_alone(call, desk) for call in desk.graph.nodes if call.operation == first.operation)
            also = ", ".join([*others[:4], *(["the output of the model"] if leaves else [])])
            raise Diagnostic(
                "RW312",
                f"cannot fold: `{second.name}` is not the only user of `{first.name}`",
                self.span,
                notes=(f"also used by {also}",),
                help=f"`>>` matches only calls with a single user; {alone} of the {first.operation} calls have one",
            ).error()
        rank = desk.inference.rank(desk.inference.main_output(first)) if layer.operation == "Linear" else 2
        if rank not in (None, 2):
            raise self._wrong(f"`{norm.name}` normalises another axis than the one that `{layer.name}` makes")
        for node in (layer, norm):
            calls = desk.calls.get(node.layer.path, ()) if node.layer is not None else ()
            if len(calls) > 1:
                raise Diagnostic(
                    "RW313",
                    f"`{node.name}` is called {len(calls)} times, and folding would change all of these calls",
                    self.span,
                    help=f'leave it out: `except "{node.name}"`',
                ).error()
        return ahead

    @staticmethod
    def _is_alone(node: Node, desk: Desk) -> bool:
        return len(relation.leaf_consumers(desk.graph, node)) == 1

    def _wrong(self, message: str) -> Exception:
        return Diagnostic(
            "RW320",
            message,
            self.span,
            help="folded is a BatchNorm1d, 2d or 3d into a convolution or Linear next to it",
        ).error()
