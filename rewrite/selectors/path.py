"""By module path: globs with `*` (one segment), `**` (any number, none included) and `{a,b}`."""

from __future__ import annotations

from collections.abc import Iterator

from rewrite.globs import compiled
from rewrite.graph import Node
from rewrite.pattern import Path


def explain(path: Path, node: Node) -> str | None:
    """None if the path of the call (or another path of the same layer) fits the glob, else why not."""
    pattern = compiled(path.glob)
    if any(pattern.fullmatch(name) for name in names(node)):
        return None
    return f'its path {node.name!r} does not fit "{path.glob}"'


def names(node: Node) -> Iterator[str]:
    """Every path by which a call is known."""
    yield node.name
    if node.layer is not None:
        yield from node.layer.aliases
