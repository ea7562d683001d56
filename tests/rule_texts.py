"""Random rule files: syntax trees over the whole grammar, and the same trees as text in any layout.

A tree and its words are made together; the words are then written down in a layout that means the same. Nothing here
uses the parser or the formatter, so that both can be held against it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rewrite import expression as nodes
from rewrite import syntax
from rewrite.layout import KEYWORDS
from rewrite.source import Source, Span

SPAN = Span(Source("", ""), 1, 1)

NAMES = (
    "Conv2d",
    "BatchNorm2d",
    "ReLU",
    "linear",
    "x",
    "c",
    "é",
    "_",
    "in_channels",
    "F",
    "nn",
    "after_all",
    "notable",
)
SOFT = (
    *(
        "after",
        "and",
        "any",
        "as",
        "at",
        "before",
        "call",
        "except",
        "expect",
        "first",
        "in",
        "input",
        "insert",
        "into",
    ),
    *("is", "last", "layer", "matches", "max", "or", "output", "per", "rule", "set", "stats", "test", "where", "with"),
)
"""keywords that are names wherever they cannot be keywords"""
RELATIONS = ("has_next", "has_prev", "only_next", "reaches", "reached_from", "dominates", "in_branch")
CHARACTERS = "ab.*{},#:;'\"\\\n\t é|->()\u2028\x0c"
CONTINUING = frozenset(("where", "and", "or", "in", "except", "with", "->", ">>", "|", "{"))
JOINING = frozenset(("and", "or", ",", "->", ">>", "|"))

Words = list[str]
Made = tuple[Any, Words]


class Key(str):
    """A keyword, where the same word could be a name."""

    __slots__ = ()


def bare(node: Any) -> Any:
    """A tree without its places, and with types told apart that compare equal."""
    if isinstance(node, tuple):
        if hasattr(node, "_fields"):
            return (
                type(node).__name__,
                *(bare(part) for name, part in zip(node._fields, node, strict=True) if name != "span"),
            )
        return tuple(map(bare, node))
    if isinstance(node, nodes.Expression):
        return (type(node).__name__, *(bare(getattr(node, one.name)) for one in fields(node) if one.name != "span"))
    return (type(node).__name__, node) if isinstance(node, bool | int | float) else node


@dataclass
class Line:
    """A statement, or a clause with its body, in words."""

    words: Words
    body: list[Line] | None = None


class Trees:
    """Makes trees and their words."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    # ---- choices

    def maybe(self, chance: float = 0.3) -> bool:
        return self.draw.random() < chance

    def several(self, make: Callable[[], Made], separator: str, most: int = 3) -> tuple[list[Any], Words]:
        found = [make() for _ in range(self.count(most))]
        words = list(found[0][1])
        for _, more in found[1:]:
            words += [Key(separator), *more]
        return [tree for tree, _ in found], words

    def count(self, most: int = 3) -> int:
        return 1 if self.maybe(0.6) else self.draw.randint(1, most)

    def name(self, soft: Sequence[str] = ()) -> str:
        return self.draw.choice(soft) if soft and self.maybe(0.1) else self.draw.choice(NAMES)

    def any_name(self) -> str:
        return self.name((*SOFT, "not", "true", "none"))

    def word(self) -> Made:
        name = self.any_name()
        return syntax.Word(name, SPAN), [name]

    def integer(self, least: int = 0) -> Made:
        number = self.draw.choice((least, 1, 2, 3, 64, 10**15))
        return number, [("00" if self.maybe(0.05) else "") + str(number)]

    def string(self) -> tuple[str, str]:
        text = "".join(self.draw.choices(CHARACTERS, k=self.draw.randint(0, 6)))
        if self.maybe(0.5):
            text = self.draw.choice(("features.**", "layer{1,2}.*.conv", "", "stem"))
        quote = self.draw.choice("'\"")
        written = ""
        for character in text:
            if character in "\\\n" or character == quote:
                written += "\\" + ("n" if character == "\n" else character)
            elif character == "\t":
                written += self.draw.choice(("\\t", "\t"))
            elif character in "'\"":
                written += self.draw.choice(("", "\\")) + character
            else:
                written += character
        return text, quote + written + quote

    def dotted(self) -> Made:
        soft = ("layer", "call", "input", "max", "with", "after", "into", "in", "as", "or")
        parts = [self.name(soft), *(self.any_name() for _ in range(self.count() - 1))]
        words = [parts[0]]
        for part in parts[1:]:
            words += [".", part]
        return syntax.Dotted(tuple(parts), SPAN), words

    # ---- selectors

    def unit(self, depth: int = 2) -> Made:
        pick, words = None, []
        if self.maybe(0.2):
            kind = self.draw.choice(("first", "last", "nth", "every"))
            number, digits = self.integer(1) if kind in ("nth", "every") else (1, [])
            pick = syntax.Pick(kind, number, SPAN)  # type: ignore[arg-type]
            words = [kind, "(", *digits, ")"] if digits else [kind]
        base: Any
        match self.draw.randrange(4):
            case 0:
                glob, written = self.string()
                base, more = syntax.Path(glob, SPAN), [written]
            case 1 if self.maybe(0.5):
                base, more = syntax.Anything(SPAN), ["any"]
            case _:
                base, more = self.dotted()
        words += more
        tests: list[Any] = []
        if self.maybe(0.2):
            tests, more = self.several(lambda: self.test(depth - 1), ",")
            words += ["[", *more, "]"]
        port = None
        if self.maybe(0.2):
            value, more = self.draw.choice((self.integer(), ("*", ["*"]), (self.word()[0].text, None)))
            port = syntax.Port(value, SPAN)
            words += ["@", *(more or [str(value)])]
        return syntax.Unit(base, SPAN, tuple(tests), pick, port), words

    def test(self, depth: int) -> Made:
        name = self.any_name()
        if self.maybe(0.3):
            return syntax.Test(name, None, None, SPAN), [name]
        operator = self.draw.choice(("==", "!=", "<=", ">=", "<", ">", "="))
        value, words = self.expression(depth, 5)
        return syntax.Test(name, "==" if operator == "=" else operator, value, SPAN), [name, operator, *words]

    def units(self, depth: int = 2) -> Made:
        found, words = self.several(lambda: self.unit(depth), "|")
        return tuple(found), words

    def link(self, arrow: str) -> Made:
        alternatives, words = self.units()
        optional, capture = self.maybe(0.1), None
        words += ["?"] * optional
        if self.maybe(0.2):
            capture, more = self.word()
            words += ["as", *more]
        return syntax.Link(alternatives, SPAN, arrow, optional, capture), words  # type: ignore[arg-type]

    def chain(self) -> Made:
        first, words = self.link("")
        links = [first]
        for _ in range(self.count() - 1):
            arrow = self.draw.choice(("->", ">>"))
            link, more = self.link(arrow)
            links.append(link)
            words += [arrow, *more]
        return tuple(links), words

    def selector(self, where: bool = False, chains: int = 1) -> Made:
        found, words = self.several(self.chain, ",", chains)
        scopes, excluded, condition = [], (), None
        for _ in range(self.draw.choice((0, 0, 0, 1, 2))):
            scope, more = self.units()
            scopes.append(scope)
            words += [Key("in"), *more]
        if self.maybe(0.15):
            excluded, more = self.units()
            words += [Key("except"), *more]
        if where and self.maybe():
            condition, more = self.expression()
            words += [Key("where"), *more]
        return syntax.Selector(tuple(found), SPAN, tuple(scopes), excluded, condition), words

    # ---- expressions; the strength of a place is that of `rewrite.formatter.value`: 1 `or` ... 8 behind it `.a [i] ()`

    def expression(self, depth: int = 3, strength: int = 1) -> Made:
        tree, own, words = self._expression(depth)
        if own < strength or self.maybe(0.05):
            words = ["(", *words, ")"]
        return tree, words

    def _expression(self, depth: int) -> tuple[Any, int, Words]:
        if depth <= 0 or self.maybe(0.3):
            return self._atom()
        draw, inner = self.draw, depth - 1
        match draw.randrange(13):
            case 0:
                return self._binary(draw.choice(("or", "and")), depth)
            case 1:
                operand, words = self.expression(inner, 3)
                return nodes.Unary("not", operand, SPAN), 3, ["not", *words]
            case 2:
                operator = draw.choice(("==", "!=", "<=", ">=", "<", ">", "in", "~", "not in"))
                return self._binary(operator, depth)
            case 3:
                value, words = self.expression(inner, 5)
                negated = self.maybe()
                pattern, more = self.units(inner)
                return nodes.Is(value, negated, pattern, SPAN), 4, [*words, "is", *["not"] * negated, *more]
            case 4:
                return self._binary(draw.choice(("+", "-", "*", "/", "//", "%")), depth)
            case 5:
                operand, words = self.expression(inner, 7)
                return nodes.Unary("-", operand, SPAN), 7, ["-", *words]
            case 6 | 7:
                value, words = self.expression(inner, 8)
                name = self.any_name()
                return nodes.Attribute(value, name, SPAN), 8, [*words, ".", name]
            case 8:
                value, words = self.expression(inner, 8)
                index, more = self.expression(inner)
                return nodes.Index(value, index, SPAN), 8, [*words, "[", *more, "]"]
            case 9 | 10:
                function, words = self.expression(inner, 8)
                values, keywords, more = self.arguments(inner)
                pairs = tuple((keyword.name.text, keyword.value) for keyword in keywords)
                return nodes.Call(function, values, pairs, SPAN), 8, [*words, *more]
            case 11:
                subject, words = self.expression(inner, 8) if self.maybe(0.5) else (None, [])
                name = draw.choice(RELATIONS)
                pattern, more = self.units(inner)
                words = [*words, *["."] * (subject is not None), name, "(", *more, ")"]
                return nodes.Relation(name, pattern, SPAN, subject), 8, words
            case _:
                return self._sequence(inner)

    def _binary(self, operator: str, depth: int) -> tuple[Any, int, Words]:
        own = {"or": 1, "and": 2, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}.get(operator, 4)
        left, words = self.expression(depth - 1, 5 if own == 4 else own)
        right, more = self.expression(depth - 1, own + 1)
        return nodes.Binary(operator, left, right, SPAN), own, [*words, *map(Key, operator.split()), *more]

    def _sequence(self, depth: int) -> tuple[Any, int, Words]:
        kind: Any = self.draw.choice((tuple, list))
        found = [self.expression(depth) for _ in range(self.draw.randint(0, 3))]
        words: Words = []
        for _, more in found:
            words += [*more, ","]
        if kind is list or len(found) > 1:
            words = words if self.maybe(0.2) else words[:-1]
        ends = ("(", ")") if kind is tuple else ("[", "]")
        return nodes.Sequence(kind, tuple(tree for tree, _ in found), SPAN), 9, [ends[0], *words, ends[1]]

    def _atom(self) -> tuple[Any, int, Words]:
        value: Any
        match self.draw.randrange(7):
            case 0:
                value, words = self.integer()
            case 1:
                text = self.draw.choice(("1e-3", "0.50", "1E5", "2.5e+10", "0.1", "00.1", "1e-05", "12345678.9"))
                value, words = float(text), [text]
            case 2:
                value, text = self.string()
                words = [text]
            case 3:
                text = self.draw.choice(("true", "false", "none"))
                value, words = {"true": True, "false": False, "none": None}[text], [text]
            case _:
                name = self.name(SOFT)
                return nodes.Name(name, SPAN), 9, [name]
        return nodes.Literal(value, SPAN), 9, words

    def arguments(self, depth: int = 2) -> tuple[tuple[Any, ...], tuple[Any, ...], Words]:
        values: list[Any] = []
        keywords: list[Any] = []
        words: Words = []
        for _ in range(self.draw.choice((0, 1, 1, 2))):
            value, more = self.expression(depth)
            if self.maybe(0.1):
                value, more = nodes.Star(value, SPAN), ["*", *more]
            values.append(value)
            words += [*more, ","]
        for _ in range(self.draw.choice((0, 0, 1, 2))):
            name = self.name(SOFT)
            value, more = self.expression(depth)
            keywords.append(syntax.Keyword(syntax.Word(name, SPAN), value, SPAN))
            words += [name, "=", *more, ","]
        words = words if self.maybe(0.1) else words[:-1]
        return tuple(values), tuple(keywords), ["(", *words, ")"]

    # ---- statements

    def stage(self) -> Made:
        name, words = self.dotted()
        values, keywords, more = self.arguments() if self.maybe(0.5) else ((), (), [])
        words += more
        capture = None
        if self.maybe(0.15):
            capture, more = self.word()
            words += ["as", *more]
        return syntax.Stage(name, values, keywords, SPAN, capture), words

    def flow(self) -> Made:
        stages, words = self.several(self.stage, "->")
        return tuple(stages), words

    def flows(self) -> Made:
        found, words = self.several(self.flow, ",")
        return tuple(found), words

    def per(self) -> Made:
        if self.maybe(0.7):
            return None, []
        per = self.draw.choice(("call", "layer"))
        return per, ["per", per]

    def reference(self, kind: type = syntax.Reference) -> Made:
        least = 1 if kind is syntax.Reference else 0
        attributes = [self.any_name() for _ in range(self.draw.randint(least, 2))]
        root = self.name()
        words = [root]
        for name in attributes:
            words += [".", name]
        return kind(root, tuple(attributes), SPAN), words

    def insert(self) -> Made:
        stages, words = self.flow()
        per, more = self.per()
        return syntax.Insert(stages, SPAN, per), ["insert", *words, *more]

    def replace(self) -> Made:
        chosen, words = self.selector(where=True)
        stages, more = self.flow()
        per, last = self.per()
        return syntax.Replace(chosen, stages, SPAN, per), ["replace", *words, Key("with"), *more, *last]

    def remove(self) -> Made:
        chosen, words = self.selector(where=True)
        return syntax.Remove(chosen, SPAN), ["remove", *words]

    def wrap(self) -> Made:
        chosen, words = self.selector(where=True)
        stage, more = self.stage()
        return syntax.Wrap(chosen, stage, SPAN), ["wrap", *words, Key("with"), *more]

    def set(self) -> Made:
        def assign() -> Made:
            target, words = self.reference()
            value, more = self.expression()
            return syntax.Assign(target, value, SPAN), [*words, "=", *more]

        assigns, words = self.several(assign, ",")
        return syntax.Set(tuple(assigns), SPAN), ["set", *words]

    def fold(self) -> Made:
        chosen, words = self.selector()
        into, more = self.selector()
        condition, last = None, []
        if self.maybe():
            condition, last = self.expression()
            last = [Key("where"), *last]
        return syntax.Fold(chosen._replace(where=condition), into, SPAN), ["fold", *words, "into", *more, *last]

    def move(self) -> Made:
        moved, words = self.reference(syntax.Target)
        anchor, more = self.reference(syntax.Target)
        side = self.draw.choice(("after", "before"))
        return syntax.Move(moved, side, anchor, SPAN), ["move", *words, side, *more]  # type: ignore[arg-type]

    def tap(self) -> Made:
        name, words = self.word()
        chosen, more = self.selector(where=True)
        return syntax.Tap(name, chosen, SPAN), ["tap", *words, "=", *more]

    def freeze(self) -> Made:
        frozen, what = self.maybe(0.5), self.draw.choice(("all", "params", "stats"))
        chosen, words = self.selector(where=True)
        start = ["freeze" if frozen else "unfreeze", *[what] * (what != "all")]
        return syntax.Freeze(frozen, what, chosen, SPAN), [*start, *words]  # type: ignore[arg-type]

    def reset(self) -> Made:
        chosen, words = self.selector(where=True)
        initialiser = None
        if self.maybe(0.5):
            name = self.any_name()
            values, keywords, more = self.arguments() if self.maybe(0.5) else ((), (), [])
            initialiser = syntax.Initialiser(name, values, keywords, SPAN)
            words += [Key("with"), name, *more]
        return syntax.Reset(chosen, initialiser, SPAN), ["reset", *words]

    def expect(self) -> Made:
        low, first = self.integer()
        high, second = self.integer()
        tree: Any
        match self.draw.randrange(7):
            case 0:
                value, words = self.expression()
                return syntax.ExpectOutput(value, SPAN), ["expect", "output", *words]
            case 1:
                return syntax.ExpectEquivalent(SPAN), ["expect", "equivalent"]
            case 2:
                tree, words = (low, low), first
            case 3:
                tree, words = (low, None), [*first, ".."]
            case 4:
                tree, words = (low, high), [*first, "..", *second]
            case 5:
                tree, words = (0, high), ["..", *second]
            case _:
                tree, words = (0, None), ["any"]
        return syntax.ExpectCount(*tree, SPAN), ["expect", *words, "matches"]

    def leaf(self) -> Made:
        units, words = self.units()
        return syntax.Leaf(units, SPAN), ["leaf", *words]

    def param(self) -> Made:
        settable = self.maybe(0.5)
        name, words = self.word()
        value, more = self.expression()
        return syntax.Param(name, value, settable, SPAN), ["param" if settable else "let", *words, "=", *more]

    def include(self) -> Made:
        text, written = self.string()
        return syntax.Include(text, SPAN), ["include", written]

    def use(self) -> Made:
        module, words = self.dotted()
        if self.maybe(0.3):
            names, more = self.several(self.word, ",")
            return syntax.Use(module, SPAN, None, tuple(names)), ["use", *words, "(", *more, ")"]
        if self.maybe(0.5):
            text, written = self.string()
            module, words = syntax.Path(text, SPAN), [written]
        alias = None
        if self.maybe(0.5):
            alias, more = self.word()
            words = [*words, "as", *more]
        return syntax.Use(module, SPAN, alias), ["use", *words]

    def version(self) -> Made:
        number, words = self.integer()
        return syntax.Version(number, SPAN), ["rw", *words]

    def given(self) -> Made:
        flows, words = self.flows()
        kind, word = self.draw.choice(((syntax.Given, "given"), (syntax.Want, "want")))
        return kind(flows, SPAN), [word, *words]

    def unchanged(self) -> Made:
        return syntax.Unchanged(SPAN), ["unchanged"]

    def model(self) -> Made:
        builder, words = self.expression()
        example = None
        if self.maybe(0.5):
            example, more = self.expression()
            words = [*words, "input", *more]
        return syntax.Model(builder, example, SPAN), ["model", *words]

    STATEMENTS = (
        *(insert, replace, remove, wrap, set, fold, move, tap, freeze, reset, expect, expect, leaf, param, include),
        *(use, version, given, unchanged, model),
    )

    # ---- clauses

    def header(self) -> Made:
        tree: Any
        title = ""
        match self.draw.randrange(9):
            case 0 | 1 | 2:
                word = self.draw.choice(("after", "before", "at"))
                chosen, words = self.selector(where=True)
                return syntax.Position(word, chosen, SPAN), [word, *words]  # type: ignore[arg-type]
            case 3:
                first, words = self.selector()
                second, more = self.selector(where=True)
                tree = syntax.Position("between", first._replace(where=second.where), SPAN, second._replace(where=None))
                return tree, ["between", *words, Key("and"), *more]
            case 4 | 5:
                chosen, words = self.selector(where=True, chains=3)
                return syntax.Position("match", chosen, SPAN), ["match", *words]
            case 6:
                units, words = self.units()
                return syntax.Within(units, SPAN), ["within", *words]
            case 7:
                most, words = self.integer() if self.maybe(0.5) else (None, [])
                return syntax.Repeat(most, SPAN), ["repeat", *["max"] * (most is not None), *words]
            case _:
                kind, word = self.draw.choice(((syntax.Rule, "rule"), (syntax.RuleTest, "test")))
                name, words = self.word()
                if self.maybe(0.5):
                    title, written = self.string()
                    words = [*words, written]
                return kind(name, title, SPAN), [word, *words]

    def lines(self, most: int = 4, depth: int = 3) -> tuple[tuple[Any, ...], list[Line]]:
        trees, lines = [], []
        for _ in range(self.draw.randint(1, most)):
            if depth and self.maybe(0.4):
                header, words = self.header()
                body, below = self.lines(3, depth - 1)
                trees.append(syntax.Clause(header, body, SPAN))
                lines.append(Line(words, below))
            else:
                tree, words = self.draw.choice(self.STATEMENTS)(self)
                trees.append(tree)
                lines.append(Line(words))
        return tuple(trees), lines


@dataclass
class Layout:
    """Writes lines down: one random layout of the many that mean the same."""

    draw: random.Random
    plain: bool = False
    """no comments, no continuation lines, one space between words"""
    comments: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    tab: str = " "

    def chance(self, probability: float) -> bool:
        return not self.plain and self.draw.random() < probability

    def file(self, lines: Sequence[Line]) -> str:
        self.tab = self.draw.choice("   \t")
        self.gap(0)
        self.lines(lines, 0, braced=False)
        if self.chance(0.9):
            self.line_end(0)
        text = "".join(self.parts)
        end = self.draw.choice(("\n", "\n", "\n", "\r\n", "\r"))
        return ("\ufeff" if self.chance(0.05) else "") + text.replace("\n", end)

    def lines(self, lines: Sequence[Line], indent: int, *, braced: bool) -> None:
        """The lines of a file or block; the first is written where the pen stands."""
        number = 0
        while number < len(lines):
            if number:
                self.line_end(indent)
                self.indent(self.free(indent) if braced else indent)
            line = lines[number]
            number += 1
            self.words(line.words)
            if line.body is not None:
                self.suite(line.body, indent)
                continue
            while number < len(lines) and lines[number].body is None and self.chance(0.2):
                self.parts.append(self.draw.choice((";", "; ", " ; ")))
                self.words(lines[number].words)
                number += 1
            if self.chance(0.1):
                self.parts.append(";")

    def free(self, indent: int) -> int:
        """How far in a line in braces may stand: blocks in it are indented from where it should stand."""
        return self.draw.randint(0, indent) if self.chance(0.3) else indent

    def suite(self, body: Sequence[Line], indent: int) -> None:
        simple = all(line.body is None for line in body)
        kinds = ["block", "braces", *["inline"] * (2 * simple), *["nested"] * (2 * (not simple and len(body) == 1))]
        kind = self.draw.choice(kinds)
        if kind != "braces":
            self.parts.append(self.draw.choice((":", " :")))
        match kind:
            case "inline":
                self.parts.append(self.draw.choice(("", " ")))
                for number, line in enumerate(body):
                    self.parts.append("; " if number else "")
                    self.words(line.words)
                self.parts.append(";" * self.chance(0.1))
            case "nested":
                self.parts.append(" ")
                self.words(body[0].words)
                self.suite(body[0].body or [], indent)
            case "block":
                inner = indent + self.draw.choice((1, 2, 4, 8))
                self.line_end(inner)
                self.indent(inner)
                self.lines(body, inner, braced=False)
            case _:
                if self.chance(0.1):
                    self.line_end(indent)
                self.parts.append(" {")
                inner = indent + self.draw.choice((0, 2, 4))
                if self.chance(0.5):
                    self.line_end(inner)
                    self.indent(inner)
                else:
                    self.parts.append(" ")
                self.lines(body, inner, braced=True)
                if self.chance(0.5):
                    self.line_end(inner)
                    self.indent(self.draw.choice((0, indent)))
                self.parts.append("}")

    def indent(self, width: int) -> None:
        self.parts.append(self.tab * width)

    def line_end(self, indent: int) -> None:
        """The end of a line, with a comment behind it and lines without words under it."""
        if self.chance(0.15):
            self.parts.append(self.draw.choice(("", " ", "   ")))
            self.comment()
        elif self.chance(0.05):
            self.parts.append(" ")
        self.parts.append("\n")
        self.gap(indent)

    def gap(self, indent: int) -> None:
        while self.chance(0.15):
            if self.chance(0.6):
                self.indent(self.draw.choice((0, indent, indent, indent + 3, max(indent - 2, 0))))
                self.comment()
            elif self.chance(0.2):
                self.indent(2)
            self.parts.append("\n")

    def comment(self) -> None:
        text = self.draw.choice(("#", "# why", "#x", "# { ( [", "# don't", "# -> where", '#"', "# after X: insert Y"))
        self.comments.append(f"{text}{len(self.comments)}")
        self.parts.append(self.comments[-1])

    def words(self, words: Words) -> None:
        depth = 0
        previous = ""
        for word in words:
            if previous:
                self.between(previous, word, depth)
            self.parts.append(word)
            depth += (word in ("(", "[")) - (word in (")", "]"))
            previous = word

    def between(self, previous: str, word: str, depth: int) -> None:
        joins = previous in JOINING and (isinstance(previous, Key) or not previous.isidentifier())
        if (depth or joins or word in CONTINUING) and self.chance(0.04):
            self.line_end(4)
            self.indent(self.draw.choice((1, 4, 7)) if word in KEYWORDS else self.draw.choice((0, 2, 4)))
            return
        touching = self.parts[-1][-1], word[0]
        needed = all(one.isalnum() or one == "_" for one in touching)
        self.parts.append(
            self.draw.choice((" ", "  ", "\t"))
            if self.chance(0.1)
            else " "
            if needed or self.draw.random() < 0.5
            else ""
        )


@dataclass(frozen=True)
class RuleText:
    """A tree, one text of it, and the comments in that text."""

    tree: tuple[Any, ...]
    text: str
    comments: tuple[str, ...]


def rule_text(draw: random.Random, most: int = 4) -> RuleText:
    """A random rule file of up to `most` lines and their bodies."""
    trees = Trees(draw)
    tree, lines = trees.lines(most)
    while lines[0].words[0] == "rw":  # another version of the language is another language
        tree, lines = trees.lines(most)
    if trees.maybe(0.2):
        tree = (syntax.Version(1, SPAN), *tree)
        lines = [Line(["rw", "1"]), *lines]
    layout = Layout(draw, plain=trees.maybe(0.1))
    text = layout.file(lines)
    return RuleText(tree, text, tuple(layout.comments))
