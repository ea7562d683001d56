"""`set ref.attribute = value`: attributes of a layer or of a call; `activation` is the activation behind it."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.actions.action import Assignment
from rewrite.source import Span


@dataclass(frozen=True)
class Set:
    """Assignments, in order."""

    assignments: tuple[Assignment, ...]
    span: Span
