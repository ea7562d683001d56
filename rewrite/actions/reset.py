"""`reset S`, `reset S with kaiming_normal(nonlinearity="relu")`: weights drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.expression import Expression
from rewrite.source import Span

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
    """The layer's own initialisation, or the named one."""

    initialiser: str | None
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...]
    span: Span
