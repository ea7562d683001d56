"""What this backend does not do is refused by name."""

from __future__ import annotations

import re

from rewrite.errors import Diagnostic
from rewrite.source import Span


def cannot(message: str, span: Span | None = None, *notes: str, help: str = "") -> Exception:
    """RW320: what this backend does not do."""
    return Diagnostic("RW320", message, span, notes=notes, help=help).error()


def told(problem: Exception) -> str:
    """What an exception of Keras says, in a line: it stands behind what Keras was doing, and is printed bold."""
    text = re.split(r"E(?:xception|rror) encountered:", re.sub(r"\x1b\[\d+m", "", str(problem)))[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        return lines[1]
    return lines[0] if lines else type(problem).__name__
