"""`insert X`, `insert X -> Y`: new layers on the dataflow edge that the clause selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rewrite.actions.action import LayerSpec
from rewrite.errors import Diagnostic
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Insert:
    """New layers at a position, the first one nearest to the producer.

    What it does: each site gets layers of its own. Arguments that follow from the site are filled in.
    What can go wrong: RW202 an argument cannot be inferred, RW310 the shape would change.
    """

    layers: tuple[LayerSpec, ...]
    span: Span
    per: Literal["call", "layer"] | None = None
    """one new layer for each call (None too), or one for all calls of a layer"""
    subject: str | None = None
    """capture next to which they stand; None: at the position that the clause selects"""
    ahead: bool = False
    """in front of that capture, at its input `port`"""
    port: int | str | None = None

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return all(spec.preserves for spec in self.layers)

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return self.preserves

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """Adds a chain to each site."""
        for site in sites:
            node = site.node
            if site.operand is None and node.outputs == 0:
                raise Diagnostic(
                    "RW205",
                    f"`{node.name}` returns several values; which one is meant?",
                    self.span,
                    help="name the call that takes one of them: `before ...`, or `between ... and ...`",
                ).error()
            if node.on_layer and site.operand is not None and site.operand.number != 0:
                raise Diagnostic(
                    "RW320",
                    f"only the first input of `{node.name}` can be reached",
                    self.span,
                    notes=("the forward around it is left as it is: it could not be captured with certainty",),
                ).error()
            incoming = desk.incoming(site, self.layers)
            for chain in site.inserts if site.operand is None else ():
                for layer in chain:
                    incoming = desk.behind_layer(layer, incoming)
            made = desk.chain(self.layers, site, incoming)
            if self.per == "layer" and node.layer is not None:
                shared = [f"{desk.text}\0{node.layer.path}\0{number}" for number in range(len(made))]
                made = [replace(layer, share=text, seed=text) for layer, text in zip(made, shared, strict=True)]
            desk.check_inserted(site, made, incoming)
            site.inserts.append(made)
            site.names = {**site.names, "self": made[-1]}
            for spec, layer in zip(self.layers, made, strict=True):
                if spec.capture:
                    site.names = {**site.names, spec.capture: layer}
