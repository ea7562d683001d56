"""Grammar rules to syntax nodes: one method per rule or alias of `grammar/rewrite.lark`, called while parsing.

The parser calls these bottom-up, so that no step here recurses, however deep the text is nested. Every token of a rule
is handed over, keywords too; an optional part that is missing is None.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Literal

from rewrite import expression, syntax
from rewrite.errors import Diagnostic
from rewrite.source import Source, Span

MOST_ERRORS = 100  # of one file; the rest would not be read anyway

_LONGEST_NUMBER = 18  # digits of an integer; fits 64 bits and keeps `int()` away from absurd work
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t"}
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "none": None}

Children = list[Any]
Units = tuple[syntax.Unit, ...]


class Builder:
    """Makes the syntax nodes of one chunk after another; `errors` is what the grammar cannot say."""

    def __init__(self) -> None:
        self.start_chunk(Source("", ""), 1)

    def start_chunk(self, source: Source, line: int) -> None:
        """Before each chunk, whose first line is `line` of `source`."""
        self.source, self.first_line = source, line
        self.errors: list[Diagnostic] = []

    # ---- places

    def place(self, line: int, column: int, length: int = 1) -> Span:
        """A place given within the chunk, as a place in the source."""
        return Span(self.source, line + self.first_line - 1, column, max(length, 1))

    def span(self, children: Children) -> Span:
        """From the first child to the last one on its line."""
        spans = [self.token_span(child) if isinstance(child, str) else child.span for child in children if child]
        first = spans[0]
        end = max(span.column + span.length for span in spans if span.line == first.line)
        return Span(self.source, first.line, first.column, end - first.column)

    def token_span(self, token: Any) -> Span:
        return self.place(token.line, token.column, len(token))

    def word(self, token: Any) -> syntax.Word:
        return syntax.Word(str(token), self.token_span(token))

    def wrong(self, code: str, message: str, span: Span, label: str = "", help_text: str = "") -> None:
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(Diagnostic(code, message, span, label, help=help_text))

    # ---- lines and clauses

    def start(self, children: Children) -> tuple[syntax.Line, ...]:
        return tuple(self.suite(children))

    def line(self, children: Children) -> list[syntax.Line]:
        return self.items(children)

    def suite(self, children: Children) -> list[syntax.Line]:
        """Lines come as lists of statements and clauses, which the reader of a body does not care about."""
        lines: list[syntax.Line] = []
        for child in self.items(children):
            lines += child if isinstance(child, list) else [child]
        return lines

    def clause(self, children: Children) -> syntax.Clause:
        header, body = children
        return syntax.Clause(header, tuple(body), header.span)

    def _position(self, children: Children) -> syntax.Position:
        keyword, selector, where = children
        return syntax.Position(str(keyword), self._where(selector, where), self.span(children))  # type: ignore[arg-type]

    after = before = at = _position

    def match(self, children: Children) -> syntax.Position:
        keyword, *chains, scope, where = children
        selector = self._where(self._selector(tuple(chains[::2]), scope), where)
        return syntax.Position("match", selector, self.span([keyword, selector]))

    def between(self, children: Children) -> syntax.Position:
        _, first, _, second, where = children
        return syntax.Position("between", self._where(first, where), self.span(children), second)

    def within(self, children: Children) -> syntax.Within:
        return syntax.Within(children[1], self.span([children[0], *children[1]]))

    def rule(self, children: Children) -> syntax.Rule:
        _, name, title = children
        return syntax.Rule(self.word(name), self._text(title) if title else "", self.span(children))

    def repeat(self, children: Children) -> syntax.Repeat:
        most = self._int(children[2]) if children[1] else None
        return syntax.Repeat(most, self.span(children))

    def test_header(self, children: Children) -> syntax.RuleTest:
        _, name, title = children
        return syntax.RuleTest(self.word(name), self._text(title) if title else "", self.span(children))

    # ---- selectors

    def _where(self, selector: syntax.Selector, where: expression.Expression | None) -> syntax.Selector:
        return selector if where is None else selector._replace(where=where)

    def where(self, children: Children) -> expression.Expression:
        found: expression.Expression = children[1]
        return found

    def selector(self, children: Children) -> syntax.Selector:
        chain, scope = children
        return self._selector((chain,), scope)

    def _selector(self, chains: tuple[tuple[syntax.Link, ...], ...], scope: Any) -> syntax.Selector:
        scopes, excluded, spans = scope or ((), (), [])
        span = self.span([*(link for chain in chains for link in chain), *spans])
        return syntax.Selector(chains, span, scopes, excluded)

    def chain(self, children: Children) -> tuple[syntax.Link, ...]:
        arrows = ["", *(str(arrow) for arrow in children[1::2])]
        return tuple(link._replace(arrow=arrow) for link, arrow in zip(children[::2], arrows, strict=True))

    def link(self, children: Children) -> syntax.Link:
        alternatives, question, capture = children
        span = self.span([*alternatives, question, capture])
        return syntax.Link(alternatives, span, "", question is not None, capture)

    def alternatives(self, children: Children) -> tuple[syntax.Unit, ...]:
        return tuple(children[::2])

    def unit(self, children: Children) -> syntax.Unit:
        pick, base, tests, port = children
        ends = [syntax.Word("", tests[1])] if tests else []
        return syntax.Unit(base, self.span([pick, base, *ends, port]), tests[0] if tests else (), pick, port)

    def pick(self, children: Children) -> syntax.Pick:
        number = self._int(children[2]) if len(children) > 1 else 1
        if number < 1:
            self.wrong(
                "RW106", f"`{children[0]}` counts from 1", self.token_span(children[2]), help_text=f"{children[0]}(1)"
            )
        return syntax.Pick(str(children[0]), number, self.span(children))  # type: ignore[arg-type]

    def path(self, children: Children) -> syntax.Path:
        return syntax.Path(self._text(children[0]), self.span(children))

    def anything(self, children: Children) -> syntax.Anything:
        return syntax.Anything(self.span(children))

    def filter(self, children: Children) -> tuple[tuple[syntax.Test, ...], Span]:
        return tuple(children[1:-1:2]), self.span(children)

    def test(self, children: Children) -> syntax.Test:
        name, operator, value = children
        operator = None if operator is None else "==" if operator == "=" else str(operator)
        return syntax.Test(str(name), operator, value, self.span(children))

    def port(self, children: Children) -> syntax.Port:
        value = children[1]
        return syntax.Port(self._int(value) if value.type == "INT" else str(value), self.span(children))

    def capture(self, children: Children) -> syntax.Word:
        return self.word(children[1])

    def scope(self, children: Children) -> tuple[tuple[Units, ...], Units, list[syntax.Unit]]:
        """What `in` and `except` say, and all that they name."""
        inside = [child[0] for child in children if isinstance(child, list)]
        excluded = children[-1] if isinstance(children[-1], tuple) else ()
        return tuple(inside), excluded, [unit for units in (*inside, excluded) for unit in units]

    def inside(self, children: Children) -> list[Units]:
        return [children[1]]  # a list, to be told from what is behind `except`

    # ---- statements

    def insert(self, children: Children) -> syntax.Insert:
        keyword, stages, per = children
        return syntax.Insert(stages, self.span([keyword, *stages]), per)

    def replace(self, children: Children) -> syntax.Replace:
        keyword, selector, where, _, stages, per = children
        span = self.span([keyword, selector, where, *stages])
        return syntax.Replace(self._where(selector, where), stages, span, per)

    def per(self, children: Children) -> syntax.Per:
        return "call" if children[1] == "call" else "layer"

    def wrap(self, children: Children) -> syntax.Wrap:
        keyword, selector, where, _, stage = children
        return syntax.Wrap(self._where(selector, where), stage, self.span([keyword, selector, where, stage]))

    def fold(self, children: Children) -> syntax.Fold:
        keyword, selector, _, into, where = children
        return syntax.Fold(self._where(selector, where), into, self.span([keyword, selector, into, where]))

    def move(self, children: Children) -> syntax.Move:
        keyword, moved, side, anchor = children
        return syntax.Move(moved, str(side), anchor, self.span([keyword, moved, anchor]))  # type: ignore[arg-type]

    def target(self, children: Children) -> syntax.Target:
        root, *attributes = (str(name) for name in children[::2])
        return syntax.Target(root, tuple(attributes), self.span(children))

    def tap(self, children: Children) -> syntax.Tap:
        keyword, name, _, selector, where = children
        return syntax.Tap(self.word(name), self._where(selector, where), self.span([keyword, selector, where]))

    def remove(self, children: Children) -> syntax.Remove:
        return syntax.Remove(self._where(children[1], children[2]), self.span(children))

    def set(self, children: Children) -> syntax.Set:
        return syntax.Set(tuple(children[1::2]), self.span(children))

    def _freeze(self, children: Children) -> syntax.Freeze:
        keyword, what, selector, where = children
        span = self.span([keyword, selector, where])
        return syntax.Freeze(keyword == "freeze", what or "all", self._where(selector, where), span)

    freeze = unfreeze = _freeze

    def what(self, children: Children) -> Literal["params", "stats"]:
        return "params" if children[0] == "params" else "stats"

    def reset(self, children: Children) -> syntax.Reset:
        _, selector, where, _, initialiser = children
        return syntax.Reset(self._where(selector, where), initialiser, self.span(children))

    def initialiser(self, children: Children) -> syntax.Initialiser:
        name, arguments = children
        values, keywords = (arguments.values, arguments.keywords) if arguments else ((), ())
        return syntax.Initialiser(str(name), values, keywords, self.span(children))

    def expect_count(self, children: Children) -> syntax.ExpectCount:
        low, high = children[1]
        return syntax.ExpectCount(low, high, self.span([children[0], children[2]]))

    def count(self, children: Children) -> tuple[int, int | None]:
        first, *rest = (child for child in children if child is not None)
        if first.type == "ANY":
            return 0, None
        if first.type == "DOTDOT":
            return 0, self._int(rest[0])
        low = self._int(first)
        return low, low if not rest else self._int(rest[1]) if len(rest) > 1 else None

    def expect_output(self, children: Children) -> syntax.ExpectOutput:
        return syntax.ExpectOutput(children[2], self.span(children))

    def expect_equivalent(self, children: Children) -> syntax.ExpectEquivalent:
        return syntax.ExpectEquivalent(self.span(children))

    def leaf(self, children: Children) -> syntax.Leaf:
        return syntax.Leaf(children[1], self.span([children[0], *children[1]]))

    def include(self, children: Children) -> syntax.Include:
        return syntax.Include(self._text(children[1]), self.span(children))

    def use(self, children: Children) -> syntax.Use:
        _, module, _, alias = children
        if isinstance(module, str):
            module = syntax.Path(self._text(module), self.token_span(module))
        return syntax.Use(module, self.span(children), self.word(alias) if alias else None)

    def use_names(self, children: Children) -> syntax.Use:
        names = tuple(self.word(name) for name in children[3:-1:2])
        return syntax.Use(children[1], self.span(children), None, names)

    def given(self, children: Children) -> syntax.Given:
        return syntax.Given(tuple(children[1::2]), self._flows_span(children))

    def want(self, children: Children) -> syntax.Want:
        return syntax.Want(tuple(children[1::2]), self._flows_span(children))

    def _flows_span(self, children: Children) -> Span:
        return self.span([children[0], *(stage for flow in children[1::2] for stage in flow)])

    def unchanged(self, children: Children) -> syntax.Unchanged:
        return syntax.Unchanged(self.span(children))

    def model(self, children: Children) -> syntax.Model:
        return syntax.Model(children[1], children[3], self.span([children[0], children[1]]))

    def param(self, children: Children) -> syntax.Param:
        keyword, name, _, value = children
        return syntax.Param(self.word(name), value, keyword == "param", self.span(children))

    let = param

    def version(self, children: Children) -> syntax.Version:
        return syntax.Version(self._int(children[1]), self.span(children))

    def flow(self, children: Children) -> tuple[syntax.Stage, ...]:
        return tuple(children[::2])

    def stage(self, children: Children) -> syntax.Stage:
        name, arguments, capture = children
        values, keywords = (arguments.values, arguments.keywords) if arguments else ((), ())
        return syntax.Stage(name, values, keywords, self.span(children), capture)

    def assign(self, children: Children) -> syntax.Assign:
        target, _, value = children
        return syntax.Assign(target, value, self.span(children))

    def reference(self, children: Children) -> syntax.Reference:
        root, *attributes = (str(name) for name in children[::2])
        return syntax.Reference(root, tuple(attributes), self.span(children))

    def dotted(self, children: Children) -> syntax.Dotted:
        return syntax.Dotted(tuple(str(name) for name in children[::2]), self.span(children))

    # ---- expressions

    def binary(self, children: Children) -> expression.Binary:
        left, operator, right = children
        return expression.Binary(str(operator), left, right, self.span(children))

    def not_in(self, children: Children) -> expression.Binary:
        return expression.Binary("not in", children[0], children[3], self.span(children))

    def unary(self, children: Children) -> expression.Unary:
        return expression.Unary(str(children[0]), children[1], self.span(children))

    def is_a(self, children: Children) -> expression.Is:
        value, word, negated, pattern = children
        return expression.Is(value, negated is not None, pattern, self.span([value, word, *pattern]))

    def attribute(self, children: Children) -> expression.Attribute:
        return expression.Attribute(children[0], str(children[2]), self.span(children))

    def index(self, children: Children) -> expression.Index:
        return expression.Index(children[0], children[2], self.span(children))

    def call(self, children: Children) -> expression.Call:
        function, arguments = children
        keywords = tuple((keyword.name.text, keyword.value) for keyword in arguments.keywords)
        return expression.Call(function, arguments.values, keywords, self.span(children))

    def name(self, children: Children) -> expression.Name:
        return expression.Name(str(children[0]), self.span(children))

    def integer(self, children: Children) -> expression.Literal:
        return expression.Literal(self._int(children[0]), self.span(children))

    def number(self, children: Children) -> expression.Literal:
        value = float(children[0])
        if not math.isfinite(value):
            self.wrong("RW017", "this number is too large", self.span(children), "larger than 1.7e308")
        return expression.Literal(value, self.span(children))

    def string(self, children: Children) -> expression.Literal:
        return expression.Literal(self._text(children[0]), self.span(children))

    def constant(self, children: Children) -> expression.Literal:
        return expression.Literal(_CONSTANTS[children[0]], self.span(children))

    def relation(self, children: Children) -> expression.Relation:
        *subject, name, _, pattern, end = children
        first = subject[0] if subject else None
        return expression.Relation(str(name), pattern, self.span([first, name, end]), first)

    def group(self, children: Children) -> expression.Expression:
        inner: expression.Expression = children[1]
        # The place of a number stays, because a file that is formatted keeps numbers as they are written.
        return inner if isinstance(inner, expression.Literal) else replace(inner, span=self.span(children))

    def sequence(self, children: Children) -> expression.Sequence:
        rest = next((child for child in children if isinstance(child, list)), [])
        first = [child for child in children[1:2] if not isinstance(child, str | list | None)]
        kind: type = tuple if children[0] == "(" else list
        return expression.Sequence(kind, (*first, *rest), self.span([children[0], children[-1]]))

    def items(self, children: Children) -> Children:
        return [child for child in children if child is not None and not isinstance(child, str)]

    def arguments(self, children: Children) -> syntax.Arguments:
        values: list[expression.Expression] = []
        keywords: list[syntax.Keyword] = []
        for child in self.items(children):
            if isinstance(child, syntax.Keyword):
                keywords.append(child)
            else:
                values.append(child)
                if keywords:
                    message = "an argument without a name stands behind one with a name"
                    self.wrong("RW106", message, child.span, help_text="put the arguments with names last")
        return syntax.Arguments(tuple(values), tuple(keywords), self.span([children[0], children[-1]]))

    def argument(self, children: Children) -> expression.Expression:
        value: expression.Expression = children[0]
        return value

    def star(self, children: Children) -> expression.Star:
        return expression.Star(children[1], self.span(children))

    def keyword(self, children: Children) -> syntax.Keyword:
        return syntax.Keyword(self.word(children[0]), children[2], self.span(children))

    # ---- words and numbers

    def _int(self, token: Any) -> int:
        if len(token) > _LONGEST_NUMBER:
            self.wrong("RW017", f"an integer of more than {_LONGEST_NUMBER} digits", self.token_span(token))
            return 1
        return int(token)

    def _text(self, token: Any) -> str:
        def character(match: re.Match[str]) -> str:
            found = _ESCAPES.get(match[1])
            if found is None and len(self.errors) < MOST_ERRORS:
                place = self.place(token.line, token.column + 1 + match.start(), 2)
                self.wrong("RW001", f"unknown escape `{match[0]}`", place, help_text="write `\\\\` for a backslash")
            return found or ""

        return re.sub(r"\\(.)", character, token[1:-1])
