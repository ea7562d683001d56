"""`freeze S`, `unfreeze S`: whether parameters learn and moving statistics move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rewrite.source import Span


@dataclass(frozen=True)
class Freeze:
    """Parameters stop learning, statistics stop moving (`frozen`), or both go on again."""

    frozen: bool
    what: Literal["all", "params", "stats"]
    span: Span
