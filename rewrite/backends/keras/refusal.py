"""What this backend does not do is refused by name."""

from __future__ import annotations

from rewrite.errors import Diagnostic
from rewrite.source import Span


def cannot(message: str, span: Span | None = None, *notes: str, help: str = "") -> Exception:
    """RW320: what this backend does not do."""
    return Diagnostic("RW320", message, span, notes=notes, help=help).error()
