"""Globs of module paths: `*` is one segment, `**` any number, `{a,b}` either; dots are literal."""

from __future__ import annotations

import functools
import re


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
