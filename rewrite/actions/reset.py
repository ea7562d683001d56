"""`reset S`, `reset S with kaiming_normal(nonlinearity="relu")`: weights drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rewrite import edit
from rewrite.edit import Initialiser
from rewrite.errors import Diagnostic
from rewrite.expression import Expression
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site

INITIALISERS: dict[str, tuple[str, ...]] = {
    "constant": ("val",),
    "dirac": ("groups",),
    "eye": (),
    "kaiming_normal": ("a", "mode", "nonlinearity"),
    "kaiming_uniform": ("a", "mode", "nonlinearity"),
    "normal": ("mean", "std"),
    "ones": (),
    "orthogonal": ("gain",),
    "sparse": ("sparsity", "std"),
    "trunc_normal": ("mean", "std", "a", "b"),
    "uniform": ("a", "b"),
    "xavier_normal": ("gain",),
    "xavier_uniform": ("gain",),
    "zeros": (),
}
"""name as rules write it (that of `torch.nn.init` without its underscore) -> the arguments it takes"""


@dataclass(frozen=True)
class Reset:
    """The layer's own initialisation, or the named one.

    What it does: draws new weights for the matched layers, the same ones on every run with the same seed. A matched
    module is meant with all that is in it.
    What can go wrong: RW320 a class without `reset_parameters` needs a named initialiser.
    """

    initialiser: str | None
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...]
    span: Span
    subject: str | None = None
    """capture that it is about; None: what the clause selects"""
    on_layers: ClassVar[bool] = True

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return False

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return False

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One update for each layer with weights."""
        done = 0
        for site in sites:
            layer = site.node.layer
            if layer is None or not layer.parameters:
                continue
            initialiser = None
            if self.initialiser is not None:
                names = INITIALISERS[self.initialiser]
                keywords = dict(zip(names, desk.values(self.arguments, site), strict=False))
                keywords |= {key: desk.value(item, site) for key, item in self.keywords}
                initialiser = Initialiser(self.initialiser, keywords)
            seed = f"{desk.text}\0{layer.path}"
            desk.edits.append(edit.Update(layer, {"reset": initialiser}, seed=seed, span=self.span))
            site.changes.append(f"reset ({layer.parameters:,} numbers)")
            done += 1
        if sites and not done:
            listed = ", ".join(f"`{site.node.name}`" for site in sites[:8])
            raise Diagnostic(
                "RW301",
                "none of the matched layers has weights to reset",
                self.span,
                notes=(f"matched: {listed}" + (f", and {len(sites) - 8} more" if len(sites) > 8 else ""),),
                help="name what holds the weights: a class such as `Linear`, or a path",
            ).error()
