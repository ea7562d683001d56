"""`remove S`: the matched calls are bypassed."""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.source import Span


@dataclass(frozen=True)
class Remove:
    """The input of each match goes on in the place of its output."""

    span: Span
