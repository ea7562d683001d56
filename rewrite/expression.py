"""Expressions of the language: arguments, right-hand sides, `where`.

A closed set of nodes and an evaluator that walks them: no Python is evaluated, no attribute of a Python object is
followed, no function is called but the fixed few of the language.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewrite.source import Span


@dataclass(frozen=True)
class Literal:
    """A number, a string, `true`, `false` or `none`."""

    value: int | float | str | bool | None
    span: Span


@dataclass(frozen=True)
class Name:
    """A bare word: a capture, a parameter, `prev`/`next`/`self`, or the name of an operation."""

    name: str
    span: Span


@dataclass(frozen=True)
class Attribute:
    """`value.name`."""

    value: Expression
    name: str
    span: Span


@dataclass(frozen=True)
class Index:
    """`value[index]`."""

    value: Expression
    index: Expression
    span: Span


@dataclass(frozen=True)
class Call:
    """`function(arguments)`; in a `where` also the relations `has_next(T)`, `has_prev(T)`, `only_next(T)`."""

    function: Expression
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...]
    span: Span


@dataclass(frozen=True)
class Unary:
    """`-x`, `not x`."""

    operator: str
    operand: Expression
    span: Span


@dataclass(frozen=True)
class Binary:
    """`+ - * / // %`, comparisons, `and`, `or`, `in`, `not in`."""

    operator: str
    left: Expression
    right: Expression
    span: Span


@dataclass(frozen=True)
class Is:
    """`x is T`, `x is not T`; `pattern` is a tuple of `rewrite.pattern.Unit`."""

    value: Expression
    negated: bool
    pattern: tuple[object, ...]
    span: Span


@dataclass(frozen=True)
class Sequence:
    """`(a, b)` or `[a, b]`."""

    kind: type[tuple[object, ...]] | type[list[object]]
    items: tuple[Expression, ...]
    span: Span


Expression = Literal | Name | Attribute | Index | Call | Unary | Binary | Is | Sequence
