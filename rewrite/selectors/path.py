"""By module path: globs with `*` (one segment), `**` (any number, none included) and `{a,b}`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

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


@functools.lru_cache(maxsize=512)
def compiled(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression; dots are literal, and no part of it can take more than linear time."""
    out: list[str] = []
    parts = _segments(glob)
    for number, part in enumerate(parts):
        if part == "**":
            # `a.**` is a itself and all below it; `**.a` is a at any depth
            if number == 0:
                out.append(r"(?:[^.]+\.)*" if len(parts) > 1 else r".*")
            else:
                out.append(r"(?:\.[^.]+)*")
            continue
        if number > 0 and not (number == 1 and parts[0] == "**"):
            out.append(r"\.")
        out.append(_segment(part))
    return re.compile("".join(out))


def _segments(glob: str) -> list[str]:
    """The glob cut at its dots, those inside braces aside; neighbouring `**` are one."""
    parts, depth, current = [], 0, ""
    for character in glob:
        depth += (character == "{") - (character == "}")
        if character == "." and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    parts.append(current)
    return [part for number, part in enumerate(parts) if part != "**" or number == 0 or parts[number - 1] != "**"]


def _segment(part: str) -> str:
    out, rest = "", part
    while rest:
        if rest[0] == "{" and "}" in rest:
            inner, _, rest = rest[1:].partition("}")
            out += f"(?:{'|'.join(_segment(item) for item in inner.split(','))})"
            continue
        out += "[^.]*" if rest[0] == "*" else re.escape(rest[0])
        rest = rest[1:]
    return out
