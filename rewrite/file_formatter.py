"""A whole rule file in its one canonical form.

* A clause stands on one line, `after Conv2d: insert BatchNorm2d; set prev.activation = identity`, if its body is at
  most three statements, or one clause that stands on one line, and the line fits. `rule` and `test` never do.
* Any other body is an indented block with one statement or clause on each line.
* An `expect` about the statement in front of it joins its line if it fits there and neither an empty line nor a
  comment is between them.
* A line that is too long is broken, see `rewrite.line_breaks`.
* Empty lines between the lines of a block stay, one in a row, and none at its start or end.
* Comments stay, see `rewrite.comments`; a body with a comment in it is a block.
* Numbers stay as they are written; everything else is spelled as `rewrite.formatter` spells it.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any, TypeVar

from rewrite import formatter, parser, syntax
from rewrite.comments import Body, Comment, Item, attach
from rewrite.expression import Expression, Literal
from rewrite.line_breaks import INDENT, WIDTH, break_line
from rewrite.source import Source

_MOST_INLINE = 3  # statements
_NUMBER = re.compile(r"[0-9]+\.[0-9]+(e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+")
_ABOUT_THE_FILE = (
    syntax.Version,
    syntax.Param,
    syntax.Include,
    syntax.Use,
    syntax.Leaf,
)  # an `expect` is not about these
_EXPECTS = (syntax.ExpectCount, syntax.ExpectOutput, syntax.ExpectEquivalent)

Node = TypeVar("Node")


def format_source(source: Source) -> str:
    """The canonical form of a rule text: a text with the same syntax tree and the same comments.

    Raises:
        RuleError: with every error of the text, in its order.

    """
    body = attach(parser.parse(source))
    return "\n".join([*_lines(body, 0, joins=True), ""])


def _lines(body: Body, indent: int, *, joins: bool) -> list[str]:
    """The lines of a block; `joins` tells whether an `expect` in it is about the statement in front of it."""
    lines: list[str] = []
    open_line = False  # whether the last line is a statement that an `expect` may join
    for item in body.items:
        if open_line and isinstance(item.line, _EXPECTS) and not item.leading and not item.apart:
            joined = f"{lines[-1]}; {_text(item)}"
            if len(joined) <= WIDTH:
                lines[-1] = joined + _behind(item)
                open_line = not item.trailing
                continue
        lines += _own_lines(item.leading, indent, first=not lines)
        if item.apart and lines:
            lines.append("")
        found = _item(item, indent)
        lines += found
        acts = item.body is None and not isinstance(item.line, _ABOUT_THE_FILE)
        open_line = joins and acts and len(found) == 1 and not item.trailing
    return lines + _own_lines(body.closing, indent, first=not lines)


def _own_lines(comments: list[Comment], indent: int, *, first: bool) -> list[str]:
    lines: list[str] = []
    for comment in comments:
        if comment.apart and (lines or not first):
            lines.append("")
        lines.append(" " * indent + comment.text)
    return lines


def _item(item: Item, indent: int) -> list[str]:
    """The lines of a statement or clause, without the comments in front of it."""
    inline = _inline(item)
    if inline is not None and (item.body is None or indent + len(inline) <= WIDTH):
        lines = break_line(inline, indent)
        last = item
        while last.body is not None:
            last = last.body.items[-1]
        lines[-1] += _behind(last)
        return lines
    assert item.body is not None
    assert isinstance(item.line, syntax.Clause)
    lines = break_line(f"{_head(item)}:", indent, 2 * INDENT)  # further in than the body
    lines[-1] += _behind(item)
    joins = not isinstance(item.line.header, syntax.Position | syntax.RuleTest)
    return lines + _lines(item.body, indent + INDENT, joins=joins)


def _inline(item: Item) -> str | None:
    """A statement or clause on one line; None if it cannot stand there."""
    if item.body is None:
        return _text(item)
    assert isinstance(item.line, syntax.Clause)
    items = item.body.items
    single = len(items) == 1 or (len(items) <= _MOST_INLINE and all(one.body is None for one in items))
    commented = item.trailing or item.body.closing or any(one.leading for one in items)
    if not single or commented or any(one.trailing for one in items[:-1]):
        return None
    if isinstance(item.line.header, syntax.Rule | syntax.RuleTest):
        return None
    texts = [_inline(one) for one in items]
    found = [text for text in texts if text is not None]
    return f"{_head(item)}: {'; '.join(found)}" if len(found) == len(texts) else None


def _behind(item: Item) -> str:
    return f"  {item.trailing}" if item.trailing else ""


def _text(item: Item) -> str:
    return formatter.statement(_as_written(item.line))


def _head(item: Item) -> str:
    assert isinstance(item.line, syntax.Clause)
    return formatter.head(_as_written(item.line.header))


class _Written(float):
    """A number that is shown as it stands in the text."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _as_written(node: Node) -> Node:
    """The same syntax with its numbers as they are written."""
    found: Any = node
    match node:
        case Literal(float(), span):
            text = span.source.lines[span.line - 1][span.column - 1 :][: span.length].lower()
            if _NUMBER.fullmatch(text):
                number = _Written(text)
                number.text = text
                found = Literal(number, span)
        case tuple():
            parts = map(_as_written, node)
            found = node._make(parts) if hasattr(node, "_make") else tuple(parts)
        case _ if isinstance(node, Expression):
            found = replace(node, **{one.name: _as_written(getattr(node, one.name)) for one in fields(node)})
    return found  # type: ignore[no-any-return]
