"""`insert X`, `insert X -> Y`: new layers on the dataflow edge that the clause selects."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.actions.action import LayerSpec
from rewrite.source import Span


@dataclass(frozen=True)
class Insert:
    """New layers at a position, the first one nearest to the producer."""

    layers: tuple[LayerSpec, ...]
    span: Span
