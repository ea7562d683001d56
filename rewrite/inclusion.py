"""`include`: the lines of other files in the place of the line that names them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from rewrite import containment, parser, syntax
from rewrite.builder import MOST_ERRORS
from rewrite.errors import Diagnostic, RewriteError, RuleError
from rewrite.layout import MOST_CHARACTERS
from rewrite.source import Source, Span

MOST_FILES = 64  # that one file may include, directly and through others
DEEPEST = 16  # includes in includes
MOST_LINES = 10_000  # statements and clauses of a file and all that it includes

_NO_RULES = (syntax.Param, syntax.Use, syntax.Leaf, syntax.Version, syntax.ExpectOutput, syntax.ExpectEquivalent)
"""statements that an `expect 3 matches` behind them does not speak of"""


def expand(file: syntax.File, folder: str | None) -> syntax.File:
    """The file with each `include` at its top level replaced by the lines of the file that it names.

    A path is relative to the file that it stands in and stays in `folder` or below (`containment` has the rules). Each
    line keeps its own source, so that what is said about it shows the file that it stands in.

    Each file is included once: another `include` of it, from whatever file and through whatever link, adds nothing.
    So two files may both include the parameters that they share, and no way of including can make a text grow. A file
    that includes itself, directly or through others, is an error. The line `rw 1` at the start of an included file
    is checked and dropped; its `test` blocks are its own and dropped too. An `expect ... matches` does not reach
    across: what it counts stands in its own file, behind any `include`.

    An `include` in a block is left where it is; it is not allowed there.

    Args:
        file: what the parser read.
        folder: of that file; None for rules that are given as text, which can include nothing.

    Raises:
        RuleError: RW111 a path that leads out or to no file, or files that include each other; RW010 and RW012 a file
            that cannot be read or is too large; RW015 too many files, or too deep; RW016 too many lines or characters
            in all of them; and whatever the parser has to say about their text.

    """
    if not any(isinstance(line, syntax.Include) for line in file.lines):
        return file
    if folder is None:
        raise RuleError([_no_folder(line) for line in file.lines if isinstance(line, syntax.Include)])
    expansion = _Expansion(file, folder)
    if expansion.problems:
        raise RuleError(expansion.problems[:MOST_ERRORS])
    return syntax.File(file.source, tuple(expansion.lines))


class _Open(NamedTuple):
    """A file whose lines are being read: one of the chain of includes."""

    path: str
    """real path, relative to the folder of the rules"""
    name: str
    """what diagnostics call it"""
    include: Span | None
    """the line that includes it"""


class _Expansion:
    """The expansion of one file."""

    def __init__(self, file: syntax.File, folder: str) -> None:
        self.folder = folder
        self.lines: list[syntax.Line] = []
        self.problems: list[Diagnostic] = []
        self.count = _count(file.lines)
        self.characters = len(file.source.text)
        self.included: set[str] = set()
        start = os.path.realpath(folder).rstrip(os.sep) + os.sep
        path = os.path.realpath(file.source.name).removeprefix(
            start
        )  # absolute where the name is a link into elsewhere
        self.chain = [_Open(path, file.source.name, None)]
        self.add(file.lines)

    def add(self, lines: tuple[syntax.Line, ...]) -> None:
        """The lines of the innermost file, with what they include."""
        countable = len(self.chain) == 1  # whether an `expect 3 matches` has something of its own file to count
        for line in lines:
            match line:
                case syntax.Include():
                    countable = False
                    self.include(line)
                    continue
                case syntax.ExpectCount() if not countable:
                    self.problems.append(_expects_nothing(line))
                case syntax.Clause() | syntax.ExpectCount():
                    countable = True
                case _ if not isinstance(line, _NO_RULES):
                    countable = True
            self.lines.append(line)

    def include(self, line: syntax.Include) -> None:
        """The lines of another file, unless they are there already; a mistake in it is noted and left out."""
        try:
            path = self.find(line)
            if path in self.included:
                return
            self.included.add(path)
            self.check_number(line)
            source = self.read(path, line)
        except RewriteError as error:
            if error.code in ("RW015", "RW016"):
                raise
            self.problems += error.diagnostics
            return
        self.chain.append(_Open(path, source.name, line.span))
        try:
            lines = _without_own(parser.parse(source).lines)
        except RuleError as error:
            trail = ", ".join(str(file.include) for file in self.chain if file.include is not None)
            self.problems += [replace(one, notes=(*one.notes, f"included at {trail}")) for one in error.diagnostics]
        else:
            self.count += _count(lines) - 1
            if self.count > MOST_LINES:
                raise _too_much(f"the rules and what they include have more than {MOST_LINES} lines", line.span)
            self.add(lines)
        self.chain.pop()

    def find(self, line: syntax.Include) -> str:
        """The real path of what a line includes, which is none of the files that it stands in."""
        within = os.path.dirname(self.chain[-1].path) if len(self.chain) > 1 else ""
        path = containment.contained(line.path, within, self.folder, line.span)
        known = [file.path for file in self.chain]
        if path in known:
            around = [file.name for file in self.chain[known.index(path) :]]
            chain = " -> ".join(f"`{name}`" for name in [*around, around[0]])
            message = "this file includes itself" if len(around) == 1 else "these files include each other"
            raise Diagnostic("RW111", message, line.span, notes=(chain,), help="take one `include` out").error()
        return path

    def check_number(self, line: syntax.Include) -> None:
        """Refuses one file more than there may be."""
        if len(self.included) > MOST_FILES:
            message = f"more than {MOST_FILES} included files"
        elif len(self.chain) > DEEPEST:
            message = f"files included in files, more than {DEEPEST} deep"
        else:
            return
        raise Diagnostic("RW015", message, line.span, help="put what belongs together in one file").error()

    def read(self, path: str, line: syntax.Include) -> Source:
        """The text of an included file."""
        name = os.path.join(self.folder, path)
        data = containment.read(path, line.path, self.folder, MOST_CHARACTERS, line.span)
        if len(data) > MOST_CHARACTERS:
            raise Diagnostic("RW012", f"`{name}` has more than {MOST_CHARACTERS} bytes", line.span).error()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = data.count(b"\n", 0, error.start) + 1
            message = f"`{name}` is not UTF-8 text: byte {data[error.start]:#04x} in line {number}"
            raise Diagnostic("RW010", message, line.span, help="save the file as UTF-8").error() from None
        self.characters += len(text)
        if self.characters > MOST_CHARACTERS:
            message = f"the rules and what they include have more than {MOST_CHARACTERS} characters"
            raise _too_much(message, line.span)
        return Source(name, text)


def _without_own(lines: tuple[syntax.Line, ...]) -> tuple[syntax.Line, ...]:
    """The lines of an included file that mean something to the file that includes it."""
    if isinstance(lines[0], syntax.Version):
        lines = lines[1:]
    return tuple(
        line for line in lines if not (isinstance(line, syntax.Clause) and isinstance(line.header, syntax.RuleTest))
    )


def _count(lines: tuple[syntax.Line, ...]) -> int:
    """Statements and clauses, those in blocks included; does not recurse."""
    number, left = 0, list(lines)
    while left:
        line = left.pop()
        number += 1
        if isinstance(line, syntax.Clause):
            left += line.body
    return number


def _no_folder(line: syntax.Include) -> Diagnostic:
    return Diagnostic(
        "RW111",
        f"`{line.path}` cannot be included here",
        line.span,
        "rules given as text have no folder",
        help="put the rules in a file",
    )


def _expects_nothing(line: syntax.ExpectCount) -> Diagnostic:
    message = "there is no rule of this file in front of this `expect`"
    help_text = "put it behind the rule whose matches it counts, in the same file"
    return Diagnostic("RW009", message, line.span, "does not count what an `include` brings", help=help_text)


def _too_much(message: str, span: Span) -> RewriteError:
    return Diagnostic("RW016", message, span, help="leave out what these rules do not need").error()
