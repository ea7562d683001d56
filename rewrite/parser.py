"""Rule text to syntax tree. The only user of lark."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import lark
import lark.lexer

from rewrite.builder import MOST_ERRORS as MOST_ERRORS
from rewrite.builder import Builder
from rewrite.errors import Diagnostic, RuleError, nearest
from rewrite.expression import Expression
from rewrite.hints import CHARACTERS, Slip, hint
from rewrite.layout import DEEPEST, MOST_CHARACTERS, Blocks, Chunk, LayoutError, LimitError, over_limit, split
from rewrite.source import Source, Span
from rewrite.syntax import File, Line

VERSION = 1
"""the language version that this parser reads"""

_HERE = os.path.dirname(__file__)
_GRAMMARS = (os.path.join(_HERE, "grammar", "rewrite.lark"), os.path.join(_HERE, "..", "grammar", "rewrite.lark"))
"""where the grammar is in an installation, and in a checkout"""

WORDS: dict[str, str] = {
    "$END": "the end of the line",
    "_NL": "the end of the line",
    "_INDENT": "an indented block",
    "_DEDENT": "the end of the block",
    "_CONT": "the end of the line",
    "_COMMENT": "a comment",
    "_SPACE": "a space",
    "NAME": "a name",
    "INT": "a number",
    "FLOAT": "a number",
    "STRING": "a string",
    "RELATION": "a question such as `has_next`",
    "CMP": "a comparison",
    "PLUS": "an operator",
    "MINUS": "an operator",
    "STAR": "`*`",
    "DIVIDE": "an operator",
    "ARROW": "`->`",
    "SOLE": "`>>`",
    "QUESTION": "`?`",
    "TILDE": "`~`",
    "AT": "`@`",
    "AT_WORD": "`at`",
    "BAR": "`|`",
    "COLON": "`:`",
    "COMMA": "`,`",
    "DOT": "`.`",
    "DOTDOT": "`..`",
    "EQUAL": "`=`",
    "LBRACE": "`{`",
    "LPAR": "`(`",
    "LSQB": "`[`",
    "RBRACE": "`}`",
    "RPAR": "`)`",
    "RSQB": "`]`",
    "SEMICOLON": "`;`",
} | {
    word.upper(): f"`{word}`"
    for word in (
        *("after", "and", "any", "as", "before", "between", "call", "equivalent", "every", "except", "expect"),
        *("false", "first", "fold", "freeze", "given", "in", "include", "input", "insert", "into", "is", "last"),
        *("layer", "leaf", "let", "match", "matches", "max", "model", "move", "none", "not", "nth", "or", "output"),
        *("param", "params", "per", "remove", "repeat", "replace", "reset", "rule", "rw", "set", "stats", "tap"),
        *("test", "true", "unchanged", "unfreeze", "use", "want", "where", "with", "within", "wrap"),
    )
}
"""every terminal of the grammar in plain words"""

_LAYOUT = frozenset(("$END", "_NL", "_DEDENT"))
_KEYWORDS = frozenset(kind for kind, word in WORDS.items() if word[1:-1].isidentifier()) | {"RELATION"}
_VALUE = frozenset(("NAME", "INT", "FLOAT", "STRING", "TRUE", "FALSE", "NONE", "RELATION", "LPAR", "LSQB", "MINUS"))
_OPERATOR = frozenset(["PLUS", "MINUS", "STAR", "DIVIDE", "CMP", "TILDE", "IN", "NOT", "IS", "AND", "OR"])
_SELECTOR = frozenset(["NAME", "STRING", "ANY", "FIRST", "LAST", "NTH", "EVERY"])
_CLAUSE = frozenset(["AFTER", "BEFORE", "BETWEEN", "AT_WORD", "MATCH", "WITHIN", "RULE", "REPEAT", "TEST"])
_STATEMENT = frozenset(
    (
        *("INSERT", "REPLACE", "REMOVE", "WRAP", "SET", "FOLD", "MOVE", "TAP", "FREEZE", "UNFREEZE", "RESET", "EXPECT"),
        *("LEAF", "PARAM", "LET", "INCLUDE", "USE", "RW", "GIVEN", "WANT", "UNCHANGED", "MODEL"),
    )
)
_GROUPS = (
    (_CLAUSE | _STATEMENT, "a rule or a statement"),
    (_STATEMENT, "a statement"),
    (_SELECTOR, "an operation, a path or `any`"),
    (_VALUE, "a value"),
    (_OPERATOR, "an operator"),
)
"""sets of terminals that are spoken of as one, the larger ones first"""


def read(path: str | os.PathLike[str]) -> Source:
    """The text of a rule file.

    Raises:
        RuleError: the file is missing, unreadable, too large or not UTF-8 text (RW010, RW012).

    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_CHARACTERS + 1)
    except OSError as error:
        why = error.strerror or str(error)
        raise RuleError([Diagnostic("RW010", f"cannot read `{name}`: {why}", help="check the path")]) from None
    except ValueError as error:  # a NUL in the path
        raise RuleError([Diagnostic("RW010", f"cannot read `{name}`: {error}", help="check the path")]) from None
    return decode(name, data)


def decode(name: str, data: bytes) -> Source:
    """The text of a rule file that was read elsewhere; of a longer one, one byte more than it may have is enough.

    Raises:
        RuleError: it is too large or not UTF-8 text (RW010, RW012).

    """
    if len(data) > MOST_CHARACTERS:
        raise RuleError([over_limit("RW012", f"`{name}` has more than {MOST_CHARACTERS} bytes", None).diagnostic])
    try:
        return Source(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"`{name}` is not UTF-8 text: byte {data[error.start]:#04x} in line {line}"
        raise RuleError([Diagnostic("RW010", message, help="save the file as UTF-8")]) from None


def parse(source: Source) -> File:
    """The syntax tree of a rule text.

    Raises:
        RuleError: with every error of the text, in its order.

    """
    source = Source(source.name, source.text.removeprefix("\ufeff"))
    lines: list[Line] = []
    try:
        _check_characters(source)
        chunks, errors = split(source)
        _check_version(source, chunks)
        with _LOCK:
            for chunk in chunks:
                found, wrong = _parse_chunk(source, chunk)
                lines += found
                errors += wrong
                if len(errors) >= MOST_ERRORS:
                    break
    except LimitError as error:
        raise RuleError([error.diagnostic]) from None
    if not lines and not errors:
        help_text = "a rule looks like `after Conv2d: insert BatchNorm2d`"
        errors = [Diagnostic("RW011", f"there is no rule in `{source.name}`", help=help_text)]
    if errors:
        raise RuleError(sorted(errors, key=_in_order)[:MOST_ERRORS])
    return File(source, tuple(lines))


def _in_order(error: Diagnostic) -> tuple[int, int]:
    return (error.span.line, error.span.column) if error.span else (0, 0)


def _check_characters(source: Source) -> None:
    """Refuses text that is no text."""
    offset = source.text.find("\0")
    if offset >= 0:
        before = Source("", source.text[:offset]).lines
        span = Span(source, len(before), len(before[-1]) + 1)
        raise RuleError([Diagnostic("RW010", "the text holds a NUL character", span, help="is it a binary file?")])


def _check_version(source: Source, chunks: list[Chunk]) -> None:
    """Refuses text for another version of the language before anything else is said about it."""
    found = re.match(r"rw[ \t]+([0-9]+)", chunks[0].text) if chunks else None
    if found is not None and found[1].lstrip("0") != str(VERSION):
        span = Span(source, chunks[0].line, found.start(1) + 1, len(found[1]))
        message = f"language version {found[1]} is not supported"
        raise RuleError(
            [Diagnostic("RW008", message, span, f"this program reads version {VERSION}", help="write `rw 1`")]
        )


# ---- one chunk ----------------------------------------------------------------------------------------------------

_LOCK = threading.Lock()  # the builder and the block finder keep the state of one chunk


class _Words(lark.lexer.Lexer):
    """Reads words and signs; a keyword is one only where the grammar allows it, and an ordinary name elsewhere.

    That is what the contextual lexer of lark is for, which makes a scanner for each state of the parser. Here one
    scanner does, because nothing but a word depends on its place, and a short command starts 20 ms earlier.
    """

    __future_interface__ = 2  # of lark: a lexer that is given the state of the parser

    def __init__(self, conf: Any) -> None:
        self.basic = lark.lexer.BasicLexer(conf)

    def lex(self, lexer_state: Any, parser_state: Any) -> Iterator[lark.Token]:
        """The tokens of a text, each read when the parser has taken the one before it."""
        states = parser_state.parse_conf.states
        while True:
            try:
                token = self.basic.next_token(lexer_state, parser_state)
            except EOFError:
                return
            accepted = states[parser_state.position]
            if token.type not in accepted and token.type in _KEYWORDS and "NAME" in accepted:
                token.type = "NAME"
            yield token


class _Parser:
    """The lark parser with the two objects it calls back."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.blocks: Blocks[lark.Token] = Blocks(lambda kind, token: lark.Token.new_borrow_pos(kind, "", token))
        self.lark = _load({"transformer": self.builder, "postlex": self.blocks})


@functools.cache
def _parser() -> _Parser:
    return _Parser()


def _load(callbacks: dict[str, Any]) -> lark.Lark:
    """The parser for the grammar file, from the saved table if there is one.

    Making the table takes far longer than all else that a short command does, so it is kept beside the byte code of
    this module, under a name that changes with the grammar. lark itself checks that table and version fit.
    """
    with open(next(filter(os.path.exists, _GRAMMARS)), encoding="utf-8") as file:
        text = file.read()
    options: dict[str, Any] = {
        "parser": "lalr",
        "lexer": _Words,
        "maybe_placeholders": True,
        "keep_all_tokens": True,
        **callbacks,
    }
    folder = os.path.join(_HERE, "__pycache__")
    name = f"grammar-{zlib.crc32(text.encode()):08x}-{lark.__version__}.{sys.implementation.cache_tag}.table"
    table = os.path.join(folder, name)
    if os.path.exists(table):
        return lark.Lark(text, cache=table, **options)
    partial = f"{table}.{os.getpid()}"  # written whole before it gets its name: other processes may start now
    try:
        os.makedirs(folder, exist_ok=True)
        with open(partial, "wb"):
            pass
    except OSError:  # an installation that may not be written to
        return lark.Lark(text, **options)
    built = lark.Lark(text, cache=partial, **options)
    os.replace(partial, table)
    return built


def _parse_chunk(source: Source, chunk: Chunk) -> tuple[tuple[Line, ...], list[Diagnostic]]:
    """The lines of a chunk, or what is wrong with it."""
    parser = _parser()
    builder = parser.builder
    builder.start_chunk(source, chunk.line)
    parser.blocks.start(builder.place)
    try:
        lines: Any = parser.lark.parse(chunk.text)
    except lark.exceptions.UnexpectedInput as error:
        return (), [_explain(error, parser)]
    except LayoutError as error:
        return (), [error.diagnostic]
    _check_depth(lines)
    return lines, builder.errors


def _check_depth(lines: Iterable[Line]) -> None:
    """Refuses nesting that later steps, which recurse, should not have to bear; does not recurse itself."""
    stack: list[tuple[Any, int, Span | None]] = [(line, 0, None) for line in lines]
    while stack:
        node, depth, span = stack.pop()
        if not isinstance(node, tuple | Expression):
            continue
        if hasattr(node, "span"):  # a node; else a plain tuple of nodes
            span, depth = node.span, depth + 1
        if depth > DEEPEST:
            raise over_limit("RW014", f"nested deeper than {DEEPEST} levels", span, "split it with `let`")
        children = node if isinstance(node, tuple) else vars(node).values()
        stack += [(child, depth, span) for child in children]


# ---- what is wrong ------------------------------------------------------------------------------------------------


def _explain(error: lark.exceptions.UnexpectedInput, parser: _Parser) -> Diagnostic:
    """A syntax error in the words of the language."""
    builder = parser.builder
    state: Any = error.interactive_parser
    accepted = frozenset(state.accepts())
    if isinstance(error, lark.exceptions.UnexpectedCharacters):
        place = builder.place(error.line, error.column)
        return Diagnostic(
            "RW001",
            f"unexpected character `{error.char}`",
            place,
            f"expected {in_words(accepted)}",
            help=CHARACTERS.get(error.char, ""),
        )
    assert isinstance(error, lark.exceptions.UnexpectedToken)
    stack: list[Any] = state.parser_state.value_stack
    before = frozenset(getattr(part, "type", "") for part in stack)
    previous = getattr(stack[-1], "type", "") if stack else ""
    token, kind, text = error.token, error.token.type, str(error.token)
    place = builder.place(token.line, token.column, len(text))
    last: Any = parser.blocks.last
    behind = place if last is None else builder.place(last.line, last.column + len(last))
    if kind in _LAYOUT:
        place = behind
    elif kind == "_INDENT":
        place = builder.place(token.end_line, token.end_column)

    if ("_INDENT" in accepted and kind in _LAYOUT) or (previous == "LBRACE" and kind == "RBRACE"):
        example = "indent what belongs to it, or write it on the same line: `after Conv2d: insert BatchNorm2d`"
        return Diagnostic("RW007", "this block is empty", place, "expected a statement", help=example)
    if {"COLON", "LBRACE"} <= accepted and kind in _LAYOUT | _STATEMENT | _CLAUSE | {"_INDENT"}:
        example = "write `:` between where and what: `after Conv2d: insert BatchNorm2d`"
        if kind in _LAYOUT or kind == "_INDENT":
            return Diagnostic("RW005", "missing `:` or `{`", behind, "expected here", help=example)
        return Diagnostic("RW005", "missing `:` or `{`", place, "expected in front of this", help=example)
    if kind == "_INDENT":
        help_text = "a block starts on a new line behind its `:`, or stays on one line with `;` in between"
        message = "this line is indented, but no block is open here"
        return Diagnostic("RW003", message, place, "starts too far in", help=help_text)
    if kind == "NAME" and "INSERT" in accepted:
        return _unknown_keyword(text, place, "AFTER" in accepted)
    shown = f"`{text}`" if kind not in _LAYOUT else "end of the block" if kind == "_DEDENT" else "end of the line"
    return Diagnostic(
        "RW001",
        f"unexpected {shown}",
        place,
        f"expected {in_words(accepted)}",
        help=hint(Slip(kind, text, accepted, before, previous, kind in _STATEMENT, kind in _CLAUSE)),
    )


def _unknown_keyword(word: str, place: Span, line_start: bool) -> Diagnostic:
    label = "a statement starts with insert, replace, remove, wrap, set, fold, move, freeze, ..."
    if line_start:
        label = "a rule starts with after, before, between, at, match, within, rule, replace, ..."
    known = sorted(_STATEMENT | (_CLAUSE if line_start else frozenset()))
    close = nearest(word, [WORDS[kind].strip("`") for kind in known], 1)
    help_text = f"did you mean `{close[0]}`?" if close else ""
    if word in ("if", "for", "foreach", "while", "when", "unless"):
        help_text = "which places are meant is told by `where`: `after Conv2d where prev.out_channels > 64: ...`"
    if word in ("import", "from"):
        help_text = "Python comes in with `use`: `use my_package.layers as my`"
    return Diagnostic("RW002", f"unknown keyword `{word}`", place, label, help=help_text)


def in_words(accepted: frozenset[str]) -> str:
    """`a, b or c` for a set of terminals."""
    rest, phrases = set(accepted), []
    for group, phrase in _GROUPS:
        if group <= rest:
            rest -= group | ({"NOT"} if group is _VALUE else frozenset())
            phrases.append(phrase)
    if "PLUS" in rest:  # behind a value, where a selector or a line may end as well
        rest -= _OPERATOR
        phrases.append("an operator")
    phrases += sorted({WORDS[kind] for kind in rest - {"_INDENT"}})
    if len(phrases) > 1:
        return ", ".join(phrases[:-1]) + " or " + phrases[-1]
    return phrases[0] if phrases else "nothing more"
