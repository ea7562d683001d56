"""Lines and blocks of rule text: limits, brackets and chunks before parsing, indentation while parsing.

A *chunk* is a stretch of lines that begins in column 0 outside any bracket. Chunks are parsed one by one, so that an
error in one never hides or causes one in another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rewrite.errors import Diagnostic
from rewrite.source import Source, Span

MOST_CHARACTERS = 1 << 20  # one MiB
MOST_TOKENS = 30_000  # of a file of 3,000 rules; reading more takes seconds
DEEPEST = 64  # brackets in brackets, blocks in blocks, operators in operators
MOST_UNCLOSED = 20  # after so many the search for more errors ends: each one costs a walk to the end of the text

KEYWORDS = frozenset(
    (
        *("after", "at", "before", "between", "match", "repeat", "rule", "test", "within"),
        *("expect", "fold", "freeze", "include", "insert", "leaf", "let", "move", "param", "remove", "replace"),
        *("reset", "rw", "set", "tap", "unfreeze", "use", "wrap", "given", "model", "unchanged", "want"),
    )
)
"""words that a line may start with"""

_CONTINUING = frozenset(
    ("where", "and", "or", "in", "except", "with", "->", ">>", "|", "{")
)  # starts no line of its own
_JOINING = frozenset(("and", "or", "->", ">>", ",", "|"))  # a line that ends so goes on
_JOINING_TOKENS = frozenset(("AND", "OR", "ARROW", "SOLE", "COMMA", "BAR"))
_PARTNER = {")": "(", "]": "[", "}": "{"}
PARTS = re.compile(
    r"""(?P<newline>\n)
      | (?P<space>[ \t]+|\#[^\n]*)
      | (?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')
      | (?P<quote>["'][^\n]*)
      | (?P<open>[(\[{])
      | (?P<close>[)\]}])
      | (?P<word>\w+)
      | (?P<sign>->|>>|[^\w\s])
      | (?P<other>.)""",
    re.VERBOSE,
)
"""every part of a text, however wrong: line ends, spaces and comments, strings, brackets, words, signs"""


@dataclass(frozen=True)
class Chunk:
    """A stretch of the text that is parsed on its own, without blank or comment lines at its end."""

    text: str
    line: int
    """1-based number of its first line"""


class LimitError(Exception):
    """The text is over a limit; nothing more is read."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


class LayoutError(Exception):
    """Indentation that fits no block."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


def over_limit(code: str, message: str, span: Span | None, help_text: str = "") -> LimitError:
    """The error for text over a limit: RW012 its size, RW013 its words, RW014 its nesting."""
    return LimitError(Diagnostic(code, message, span, help=help_text))


def split(source: Source) -> tuple[list[Chunk], list[Diagnostic]]:
    """The chunks of a text that can be parsed, and what is wrong with the brackets, strings and indents of the others.

    Raises:
        LimitError: the text is too long or its brackets too deep.

    """
    if len(source.text) > MOST_CHARACTERS:
        raise over_limit("RW012", f"rule text of more than {MOST_CHARACTERS} characters", None)
    text = "\n".join(source.lines)
    chunks: list[Chunk] = []
    errors: list[Diagnostic] = []
    start: tuple[int, int] | None = (0, 1)
    for _ in range(MOST_UNCLOSED):
        if start is None:
            break
        walk = _Walk(source, text)
        start = walk.run(*start)
        chunks += walk.chunks
        errors += walk.errors
    return chunks, errors


class _Walk:
    """One walk over the parts of a text."""

    def __init__(self, source: Source, text: str) -> None:
        self.source, self.text = source, text
        self.chunks: list[Chunk] = []
        self.errors: list[Diagnostic] = []
        self.begin = self.end = self.begin_line = 0  # the open chunk; `end` is behind its last word or sign
        self.sound = False  # whether the open chunk is worth parsing
        self.opened: list[tuple[str, int, int]] = []  # bracket, offset, line
        self.previous = ""

    def run(self, start: int, line: int) -> tuple[int, int] | None:
        """Walks to the end of the text; returns where to walk again because a bracket there never closed."""
        resume: tuple[int, int] | None = None
        tokens = 0
        for match in PARTS.finditer(self.text, start):
            kind, offset, part = match.lastgroup, match.start(), match.group()
            if kind == "newline":
                line += 1
            if kind in ("newline", "space"):
                continue
            tokens += 1
            if tokens > MOST_TOKENS:
                raise over_limit("RW013", f"more than {MOST_TOKENS} words and signs", self.span(offset, line))
            if offset == 0 or self.text[offset - 1] == "\n":  # column 0
                if part in KEYWORDS and any(bracket != "{" for bracket, *_ in self.opened):
                    self.unclosed()  # a statement in column 0 ends any `(` and `[` in front of it
                if not self.opened and not self.continues(part):
                    self.close_chunk()
                    self.begin, self.begin_line, self.sound, resume = offset, line, True, None
                elif self.opened and resume is None and kind == "word":
                    resume = (offset, line)
            elif not self.begin_line:
                self.begin_line = line
                self.wrong(
                    "RW003", "this line is indented, but no block is open here", offset, line, "starts too far in"
                )
            self.end, self.previous = match.end(), part
            self.bracket(kind, part, offset, line)
        if self.opened:
            self.unclosed()
        else:
            resume = None
        self.close_chunk()
        return resume

    def bracket(self, kind: str | None, part: str, offset: int, line: int) -> None:
        """Keeps count of brackets, and of strings without an end."""
        if kind == "open":
            self.opened.append((part, offset, line))
            if len(self.opened) > DEEPEST:
                where = self.span(offset, line)
                raise over_limit("RW014", f"brackets nested deeper than {DEEPEST}", where, "split it with `let`")
        elif kind == "close" and self.opened:
            if self.opened[-1][0] == _PARTNER[part]:
                self.opened.pop()
            else:
                self.unclosed()
        elif kind == "quote":
            help_text = f"close it with {part[0]} on the same line"
            self.wrong("RW006", "this string has no end", offset, line, "opened here", help_text)

    def continues(self, part: str) -> bool:
        """Whether a line that starts with `part` in column 0 belongs to the line before it."""
        return bool(self.begin_line) and (part in _CONTINUING or self.previous in _JOINING)

    def close_chunk(self) -> None:
        if self.sound:
            self.chunks.append(Chunk(self.text[self.begin : self.end], self.begin_line))

    def unclosed(self) -> None:
        """The innermost open bracket has no end, which makes the others of this chunk unsure."""
        bracket, offset, line = self.opened[-1]
        closer = next(closer for closer, opener in _PARTNER.items() if opener == bracket)
        self.wrong("RW006", f"`{bracket}` is not closed", offset, line, "opened here", f"add the missing `{closer}`")
        self.opened.clear()

    def wrong(self, code: str, message: str, offset: int, line: int, label: str, help_text: str = "") -> None:
        """One error for the open chunk, which then is not parsed; the first one counts."""
        if self.sound or (not self.chunks and not self.errors):
            self.errors.append(Diagnostic(code, message, self.span(offset, line), label, help=help_text))
        self.sound = False

    def span(self, offset: int, line: int) -> Span:
        return Span(self.source, line, offset - self.text.rfind("\n", 0, offset))


class Token(Protocol):
    """What is needed of a token of the lexer; its text is `str(token)`."""

    type: str
    line: Any  # lark's own are optional, which those of a text never are
    column: Any
    end_line: Any
    end_column: Any


T = TypeVar("T", bound=Token)


class Blocks(Generic[T]):
    """Marks the ends of lines and blocks among the tokens of a chunk: `_NL`, `_INDENT`, `_DEDENT`.

    Args:
        make: makes a token of the given type at the place of the given one.

    """

    always_accept = ("_NL",)  # a line end inside brackets reaches this class whatever the grammar says there

    def __init__(self, make: Callable[[str, T], T]) -> None:
        self.make = make
        self.start(lambda line, column: None)

    def start(self, place: Callable[[int, int], Span | None]) -> None:
        """Before each chunk; `place` turns line and column within it into a place in the source."""
        self.place = place
        self.last: T | None = None
        """the last word or sign"""
        self.frames = [0]  # width of each open block, -1 for an open `{`
        self.width = 0  # of the current line
        self.indented_with = ""

    def process(self, stream: Iterable[T]) -> Iterator[T]:
        """The tokens of `stream` with the ends of blocks put in.

        Nothing is read ahead, because the lexer asks the parser which words are keywords where it stands.

        Raises:
            LayoutError: a line's indentation fits no open block, or mixes tabs and spaces.
            LimitError: blocks nested too deep.

        """
        enclosed = 0  # depth of `(` and `[`
        for token in stream:
            if token.type == "_NL":
                if enclosed or (self.last is not None and self.last.type in _JOINING_TOKENS):
                    continue
                yield from self.line_end(token)
                continue
            if token.type in ("LPAR", "LSQB"):
                enclosed += 1
            elif token.type in ("RPAR", "RSQB"):
                enclosed -= 1
            elif token.type == "LBRACE":
                self.push(-1, token.line, token.column)
            elif token.type == "RBRACE" and -1 in self.frames:
                while self.frames.pop() != -1:
                    yield self.make("_DEDENT", token)
            self.last = token
            yield token
        while self.last is not None and self.frames.pop():
            yield self.make("_DEDENT", self.last)

    def line_end(self, token: T) -> Iterator[T]:
        """What the end of a line is: the end of a statement, and the start or end of blocks."""
        indent = str(token).rpartition("\n")[2]
        outer, self.width = self.width, len(indent)
        after = self.last.type if self.last is not None else ""
        opens = after == "COLON" and self.width > outer
        if self.frames[-1] != -1 or opens:
            self.check_indent(indent, token)
        if after == "LBRACE":
            return
        if opens or -1 != self.frames[-1] < self.width:
            self.push(self.width, token.end_line, token.end_column)
            yield self.make("_INDENT", token)
            return
        dedented = False
        while self.frames[-1] > self.width:
            self.frames.pop()
            dedented = True
            yield self.make("_DEDENT", token)
        if dedented and -1 != self.frames[-1] < self.width:
            raise LayoutError(
                Diagnostic(
                    "RW003",
                    "this line fits no block",
                    self.place(token.end_line, token.end_column),
                    "indented less than the block above, more than the one around it",
                    help="indent it as far as the lines that it belongs to",
                )
            )
        yield token

    def check_indent(self, indent: str, token: T) -> None:
        """Tabs or spaces: what a chunk began with."""
        kinds = set(indent)
        self.indented_with = self.indented_with or indent[:1]
        if kinds and kinds != {self.indented_with}:
            names = {" ": "spaces", "\t": "tabs"}
            place = self.place(token.end_line, 1)
            raise LayoutError(
                Diagnostic(
                    "RW004",
                    "tabs and spaces are mixed in the indentation of one block",
                    place and Span(place.source, place.line, 1, len(indent)),
                    f"the block began with {names[self.indented_with]}",
                    help=f"use {names[self.indented_with]} only",
                )
            )

    def push(self, width: int, line: int, column: int) -> None:
        """Opens a block."""
        self.frames.append(width)
        if len(self.frames) > DEEPEST:
            raise over_limit("RW014", f"blocks nested deeper than {DEEPEST}", self.place(line, column))
