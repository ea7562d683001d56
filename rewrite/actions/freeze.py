"""`freeze S`, `unfreeze S`: whether parameters learn and moving statistics move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from rewrite import edit
from rewrite.errors import Diagnostic
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Freeze:
    """Parameters stop learning, statistics stop moving (`frozen`), or both go on again.

    What it does: a matched module is meant with all that is in it. Frozen statistics stay so through `model.train()`.
    What can go wrong: RW406 `freeze params` alone leaves statistics moving.
    """

    frozen: bool
    what: Literal["all", "params", "stats"]
    span: Span
    subject: str | None = None
    """capture that it is about; None: what the clause selects"""
    on_layers: ClassVar[bool] = True

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return True

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return self.what == "params"

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One update for each layer that has something to freeze."""
        moving = 0
        for site in sites:
            layer = site.node.layer
            if layer is None:
                continue  # a function in a chain has nothing that learns
            changes: dict[str, object] = {}
            already = 0 if self.frozen else layer.parameters
            if self.what != "stats" and layer.trainable != already:
                changes["trainable"] = not self.frozen
            if self.what != "params" and layer.statistics and layer.still is not self.frozen:
                changes["statistics"] = "frozen" if self.frozen else "moving"
            moving += self.what == "params" and self.frozen and layer.statistics
            if changes:
                desk.edits.append(edit.Update(layer, changes))
                site.changes.append(("freeze" if self.frozen else "unfreeze") + f" ({layer.parameters:,} numbers)")
        if moving:
            layers = "layer" if moving == 1 else "layers"
            desk.warnings.append(
                Diagnostic(
                    "RW406",
                    f"the statistics of {moving} normalisation {layers} still move in training",
                    self.span,
                    help="`freeze` without `params` stops them as well",
                )
            )
