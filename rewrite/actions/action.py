"""Parts that several actions share: `LayerSpec`, what a rule says about a new layer."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.expression import Expression
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS


@dataclass(frozen=True)
class LayerSpec:
    """A layer as a rule writes it: `BatchNorm2d(eps=1e-3)`.

    `operation` is a name of the vocabulary; `external` a class given through `modules=`; exactly one is set.
    """

    span: Span
    operation: str | None = None
    external: str | None = None
    arguments: tuple[Expression, ...] = ()
    keywords: tuple[tuple[str, Expression], ...] = ()
    capture: str | None = None
    inputs: tuple[str, ...] = ()
    """captures whose values it takes, in this order: `my.Add(p, q)`; none: the value that flows there"""

    @property
    def name(self) -> str:
        """The name as the rule writes it."""
        return self.operation or self.external or ""

    @property
    def preserves(self) -> bool:
        """Whether the layer hands its input on as it is in eval mode."""
        row = OPERATIONS.get(self.operation or "")
        return row is not None and (row.family == "dropout" or row.name in ("Identity", "Tap", "LoRA"))


@dataclass(frozen=True)
class Reference:
    """The left side of `set`: `prev.activation` is root `prev`, attributes `("activation",)`."""

    root: str
    attributes: tuple[str, ...]
    span: Span


@dataclass(frozen=True)
class Assignment:
    """`prev.activation = identity`."""

    target: Reference
    value: Expression
