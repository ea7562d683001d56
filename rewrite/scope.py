"""What the names in one rule stand for (captures, constants, `self`, `prev`, `next`), and expressions with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from rewrite import expression as nodes
from rewrite import lookup, vocabulary
from rewrite.errors import Diagnostic, nearest
from rewrite.expression import Expression
from rewrite.source import Span
from rewrite.syntax import Dotted, Word
from rewrite.vocabulary.operation import Operation

RESERVED = ("self", "prev", "next", "_")

_PYTHON = {"True": "true", "False": "false", "None": "none", "inf": "", "nan": ""}


@dataclass
class Scope:
    """The names of one clause, filled while its parts are read from left to right."""

    position: Literal["after", "before", "between", "at", "match", None]
    """the header; None for a statement on its own"""
    constants: Mapping[str, object]
    modules: frozenset[str]
    report: Callable[[Diagnostic], None]
    pattern: Callable[[tuple[object, ...], Collection[str]], tuple[object, ...]]
    """resolves the selector behind `is` and in `has_next(...)`, given the names of captures"""
    captures: dict[str, Word] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    rows: dict[str, list[Operation]] = field(default_factory=dict)
    """name -> the operations that it may be, where that is known before a model is"""
    inserted: bool = False
    in_where: bool = False
    single: bool = True
    """whether a match is one call, which `self` and `has_next(...)` then mean"""

    # ---- captures

    def capture(self, word: Word | None, rows: list[Operation]) -> str | None:
        """Binds a capture, and says what is wrong with its name."""
        if word is None:
            return None
        name = word.text
        problem = hidden(name, self.modules)
        if problem:
            help_text = f"choose another name, such as `{name[:1].lower()}`"
            self.report(Diagnostic("RW105", f"capture `{name}` hides {problem}", word.span, help=help_text))
        elif name in self.captures or name in self.constants:
            what = "capture" if name in self.captures else "constant"
            self.report(Diagnostic("RW109", f"the name `{name}` stands twice", word.span, f"already a {what}"))
        self.captures[name] = word
        self.rows[name] = rows
        return name

    def unused(self) -> list[Diagnostic]:
        """A warning for each capture that nothing refers to."""
        return [
            Diagnostic("RW104", f"capture `{name}` is not used", word.span, help=f"drop `as {name}`")
            for name, word in self.captures.items()
            if name not in self.used
        ]

    # ---- names

    def known(self, name: str, span: Span) -> bool:
        """Whether a name in an expression or a reference is bound, reported if it is not."""
        if name in self.captures:
            self.used.add(name)
            return True
        if name in self.constants:
            return True
        if name == "self":
            if self.inserted or (self.position in ("at", "match", None) and self.single):
                return True
            if not self.single and self.position not in ("after", "before", "between"):
                help_text = "give the one that is meant a name: `Conv2d as c -> ReLU`"
                message = "`self` is one call, and this pattern has several"
                self.report(Diagnostic("RW103", message, span, help=help_text))
                return False
            message = "`self` is the layer inserted last, and nothing is inserted yet"
            help_text = "put an `insert` in front of it, or write `prev` or `next`"
            self.report(Diagnostic("RW107", message, span, help=help_text))
            return False
        if name in ("prev", "next"):
            if self.position in ("after", "before", "between"):
                return True
            help_text = f"in a `where`, `has_{name}(ReLU)` asks about the neighbours"
            message = f"`{name}` is only known in `after`, `before` and `between`"
            self.report(Diagnostic("RW103", message, span, "this rule has no position", help=help_text))
            return False
        self.report(Diagnostic("RW103", f"`{name}` is not known here", span, help=self._help(name)))
        return False

    def _help(self, name: str) -> str:
        if name in _PYTHON:
            return f"write `{_PYTHON[name]}`" if _PYTHON[name] else "numbers are finite"
        close = nearest(name, [*self.captures, *self.constants], 1)
        if close:
            return f"did you mean `{close[0]}`?"
        if vocabulary.find(name) is not None:
            return f"the name of an operation stands behind `is`: `x is {name}`"
        return f'bind it with `as {name}` or `let {name} = ...`; a text is written in quotes: "{name}"'

    # ---- expressions

    def where(self, expression: Expression | None) -> Expression | None:
        """The expression behind `where`, resolved."""
        if expression is None:
            return None
        self.in_where = True
        resolved = self.expression(expression)
        self.in_where = False
        return resolved

    def expression(self, node: Expression) -> Expression:
        """The expression with every name checked and every selector in it resolved."""
        match node:
            case nodes.Literal():
                pass
            case nodes.Name(name, span):
                self.known(name, span)
            case nodes.Attribute(value, name, span):
                value = self.expression(value)
                if isinstance(value, nodes.Name):
                    self.attribute(value.name, name, span)
                return replace(node, value=value)
            case nodes.Index(value, index):
                return replace(node, value=self.expression(value), index=self.expression(index))
            case nodes.Unary(_, operand):
                return replace(node, operand=self.expression(operand))
            case nodes.Binary(_, left, right):
                return replace(node, left=self.expression(left), right=self.expression(right))
            case nodes.Sequence(_, items):
                return replace(node, items=tuple(map(self.expression, items)))
            case nodes.Call():
                function = self._function(node)
                arguments = tuple(map(self.expression, node.arguments))
                keywords = tuple((key, self.expression(value)) for key, value in node.keywords)
                return replace(node, function=function, arguments=arguments, keywords=keywords)
            case nodes.Star(value):
                return replace(node, value=self.expression(value))
            case nodes.Is(value, _, pattern, span):
                self._only_in_where("is", span)
                return replace(node, value=self.expression(value), pattern=self._units(pattern))
            case nodes.Relation(name, pattern, span, subject):
                self._only_in_where(name, span)
                if subject is not None:
                    subject = self.expression(subject)
                elif not self.single:
                    help_text = f"name it: `c.{name}(...)`, where `c` is a capture"
                    message = f"`{name}` asks about one call, and this pattern has several"
                    self.report(Diagnostic("RW103", message, span, help=help_text))
                return replace(node, pattern=self._units(pattern), subject=subject)
        return node

    def attribute(self, root: str, name: str, span: Span) -> None:
        """Checks `root.name` where it is known what the root is."""
        problem = lookup.check_attribute(name, self.rows.get(root, []), span)
        if problem is not None:
            self.report(problem)

    def _only_in_where(self, word: str, span: Span) -> None:
        if not self.in_where:
            help_text = f"it asks about a call: `after Conv2d where {word}(ReLU): ...`" if word != "is" else ""
            self.report(Diagnostic("RW009", f"`{word}` stands only in a `where`", span, help=help_text))

    def _units(self, pattern: tuple[object, ...]) -> tuple[object, ...]:
        """The selector behind `is` or in a question, which may name captures."""
        for unit in pattern:
            base = getattr(unit, "base", None)
            if isinstance(base, Dotted) and base.text in self.captures:
                self.used.add(base.text)
        return self.pattern(pattern, self.captures)

    def _function(self, node: nodes.Call) -> Expression:
        """What is called: a function of the language, or one that the caller gave, under its whole name."""
        function = node.function
        name = dotted(function)
        if name in nodes.FUNCTIONS and name not in self.modules:
            for keyword, value in node.keywords:
                message = f"`{name}` has no argument `{keyword}`"
                self.report(Diagnostic("RW106", message, value.span, help=f"{name}(a, b, ...)"))
            return function
        if name in self.modules:
            return nodes.Name(name, function.span)
        help_text = "expressions call `min`, `max`, `abs`, and functions that come with `use` or `modules=`"
        self.report(Diagnostic("RW103", "this is not a function of the language", function.span, help=help_text))
        return function


def dotted(expression: Expression) -> str:
    """`my.prunable` for a name with attributes; empty for any other expression."""
    match expression:
        case nodes.Name(name):
            return name
        case nodes.Attribute(value, name):
            outer = dotted(value)
            return f"{outer}.{name}" if outer else ""
    return ""


def hidden(name: str, modules: frozenset[str]) -> str:
    """What a new name would hide, in words; empty if nothing."""
    if name in RESERVED:
        return "a word of the language"
    if name in nodes.FUNCTIONS:
        return "a function of the language"
    if name in modules:
        return "a class given as `modules=`"
    operation = vocabulary.find(name)
    return f"the operation `{operation.name}`" if operation is not None else ""
