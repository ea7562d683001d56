"""Comments, and the statement or block that each belongs to: what the syntax tree leaves out of a rule file.

A comment behind something on its line stays with that. One on a line of its own belongs to the line below, or closes
the block that it stands in: its column tells, and in braces the `}`. One in the middle of a statement that goes over
several lines is taken for one in front of it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rewrite.layout import PARTS
from rewrite.source import Source
from rewrite.syntax import Clause, File, Line


class Comment(NamedTuple):
    """A comment with a line of its own."""

    text: str
    apart: bool
    """whether an empty line stands in front of it"""


@dataclass
class Body:
    """The lines of a file or clause."""

    items: list[Item]
    closing: list[Comment] = field(default_factory=list)
    """behind the last of them"""
    column: int = 1
    """where its lines begin: 0 in braces, where that is free, and -1 where they stand behind the `:` of their header"""


@dataclass
class Item:
    """A statement, or a clause with its body, and the comments around it."""

    line: Line
    body: Body | None = None
    apart: bool = False
    """whether an empty line stands in front of it"""
    leading: list[Comment] = field(default_factory=list)
    trailing: str = ""
    """behind the statement or the header, on its last line"""


class _Part(NamedTuple):
    line: int
    column: int
    text: str
    apart: bool

    @property
    def is_comment(self) -> bool:
        return self.text.startswith("#")


def attach(file: File) -> Body:
    """The lines of a file with all its comments."""
    root = _body(file.lines)
    entries = list(_entries(root, (root,)))
    parts = list(_parts(file.source))
    starts = [bisect.bisect_left(parts, (*_start(item.line), "")) for item, _ in entries]
    ends = [*starts[1:], len(parts)]
    waiting = [Comment(part.text, part.apart) for part in parts[: starts[0]]]  # for the next item
    for number, (item, bodies) in enumerate(entries):
        own = parts[starts[number] : ends[number]]
        item.apart = own[0].apart
        item.leading, waiting = waiting, []
        following = _take_own(item, own)
        if item.body is not None:
            waiting = _behind_header(item, following, _start(entries[number + 1][0].line))
            continue
        next_depth = len(entries[number + 1][1]) - 1 if number + 1 < len(entries) else 0
        for depth, comment in _behind_statement(item, following, bodies, next_depth):
            if depth > next_depth or number + 1 == len(entries):
                bodies[depth].closing.append(comment)
            else:
                waiting.append(comment)
    return root


def _body(lines: Iterable[Line]) -> Body:
    return Body([Item(line, _body(line.body) if isinstance(line, Clause) else None) for line in lines])


def _entries(body: Body, around: tuple[Body, ...]) -> Iterator[tuple[Item, tuple[Body, ...]]]:
    """Every item in the order of the text, with the bodies that it lies in, the file first."""
    for item in body.items:
        yield item, around
        if item.body is not None:
            yield from _entries(item.body, (*around, item.body))


def _start(line: Line) -> tuple[int, int]:
    return line.span.line, line.span.column


def _parts(source: Source) -> Iterator[_Part]:
    """The words, signs and comments of a text."""
    line, begin, previous = 1, 0, 1
    for match in PARTS.finditer("\n".join(source.lines)):
        if match.lastgroup == "newline":
            line, begin = line + 1, match.end()
        elif match.lastgroup != "space" or match[0].startswith("#"):
            yield _Part(line, match.start() - begin + 1, match[0].rstrip(), line - previous > 1)
            previous = line


def _take_own(item: Item, own: list[_Part]) -> list[_Part]:
    """Moves the comments inside of an item in front of it; returns its last word or sign and what is behind that."""
    words = [number for number, part in enumerate(own) if not part.is_comment]
    if item.body is not None:
        words.pop()  # `:` or `{`
    while own[words[-1]].text in (";", "}"):
        words.pop()
    inside = [part.text for part in own[: words[-1]] if part.is_comment]
    if inside:
        item.leading += [Comment(text, item.apart and not number) for number, text in enumerate(inside)]
        item.apart = False
    return own[words[-1] :]


def _behind_header(item: Item, parts: list[_Part], first: tuple[int, int]) -> list[Comment]:
    """What is behind a header: one comment stays there, the others belong to the first line of the body."""
    assert item.body is not None
    opener = next(part for part in parts[1:] if not part.is_comment)
    inline = opener.line == first[0]
    item.body.column = 0 if opener.text == "{" else -1 if inline else first[1]
    rest: list[Comment] = []
    for part in parts:
        if part.is_comment:
            if not item.trailing and not rest and part.line in (parts[0].line, opener.line):
                item.trailing = part.text
            else:
                rest.append(Comment(part.text, part.apart))
    return rest


def _behind_statement(
    item: Item, parts: list[_Part], bodies: tuple[Body, ...], next_depth: int
) -> Iterator[tuple[int, Comment]]:
    """What is behind a statement: each comment that does not stay there, with the number of blocks that it lies in."""
    deepest = len(bodies) - 1
    closed = 0  # line of the last `}`
    for part in parts[1:]:
        if part.text == "}":
            deepest = max(depth for depth in range(deepest + 1) if bodies[depth].column == 0) - 1
            closed = part.line
        elif part.is_comment and part.line == parts[0].line:
            item.trailing = part.text
        elif part.is_comment:
            comment = Comment(part.text, part.apart)
            if part.line == closed:
                yield deepest + 1, comment
                continue
            while deepest > next_depth and not 0 <= bodies[deepest].column <= part.column:
                deepest -= 1
            yield deepest, comment
