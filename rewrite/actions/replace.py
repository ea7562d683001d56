"""`replace S with X`, `replace S with X -> Y`: other layers in the place of the matched ones."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.actions.action import LayerSpec
from rewrite.source import Span


@dataclass(frozen=True)
class Replace:
    """New layers in the place of each match."""

    layers: tuple[LayerSpec, ...]
    span: Span
