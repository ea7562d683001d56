"""Rule text and places in it: `Source`, `Span`, and the caret drawing of every diagnostic."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from functools import cached_property

_WIDEST_LINE = 200  # columns; a longer line is cut where it is shown, never where it is read


@dataclass(frozen=True)
class Source:
    """One text of rules and where it came from.

    Args:
        name: what a diagnostic shows in front of line and column, a path or `<rules>`.
        text: the text itself, with its line ends as they are in the file.

    """

    name: str
    text: str = field(repr=False)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        r"""The lines without their ends; `\r\n`, `\r` and `\n` each end one."""
        return tuple(self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


@dataclass(frozen=True)
class Span:
    """A stretch of a source on one line: 1-based line and column, and how many characters.

    A construct over several lines is pointed at by its first line.
    """

    source: Source = field(repr=False, compare=False)
    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a file cannot drive the terminal that shows it."""
    return "".join(
        character if unicodedata.category(character)[0] != "C" else repr(character)[1:-1] for character in text
    )


def draw(span: Span, label: str = "") -> list[str]:
    """The line of `span` and a line of carets under it, as `rustc` draws them."""
    lines = span.source.lines
    line = lines[span.line - 1] if 0 < span.line <= len(lines) else ""
    line = line.replace("\t", " ")  # one column per character keeps the carets under their word
    shown = printable(line[:_WIDEST_LINE]) + ("..." if len(line) > _WIDEST_LINE else "")
    number = str(span.line)
    start = min(span.column - 1, _WIDEST_LINE)
    length = max(1, min(span.length, max(len(line) - start, 1), _WIDEST_LINE - start))
    pad = " " * len(printable(line[:start]))
    carets = "^" * length
    return [f"{number} | {shown}", f"{' ' * len(number)} | {pad}{carets}{' ' + label if label else ''}".rstrip()]
