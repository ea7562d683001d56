"""Expressions of the language: arguments, right-hand sides, `where`.

A closed set of nodes and an evaluator that walks them: no Python is evaluated, no attribute of a Python object is
followed, no function is called but the fixed few of the language.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rewrite import globs
from rewrite.errors import Diagnostic, RewriteError
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
    """`function(arguments)`: `min`, `max`, `abs`; behind `set x.activation =` also an activation, `GELU(...)`."""

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
class Relation:
    """`has_next(T)`, `reaches(T)` and their kin, of the call that the clause selects, or `c.has_next(T)`.

    `pattern` as in `Is`.
    """

    name: str
    pattern: tuple[object, ...]
    span: Span
    subject: Expression | None = None


@dataclass(frozen=True)
class Sequence:
    """`(a, b)` or `[a, b]`."""

    kind: type[tuple[object, ...]] | type[list[object]]
    items: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Star:
    """`*value` among arguments: its items, one by one."""

    value: Expression
    span: Span


SELECTED: Final = object()
"""what a question without a subject is asked of: the call that the clause selects"""

Expression = Star | Literal | Name | Attribute | Index | Call | Unary | Binary | Is | Relation | Sequence

ReadAttribute = Callable[[object, str, Span], object]
"""(value, name, span) -> the attribute, or a `RewriteError` that says why there is none"""

Relate = Callable[[str, object, tuple[object, ...], Span], bool]
"""(`is` or `has_next` and its kin, the value in front of it or `SELECTED`, units, span) -> whether it holds"""

CallFunction = Callable[[object, list[object], Mapping[str, object], Span], object]
"""(function, arguments, keywords, span) -> what it returns; for functions that the caller of the rules supplies"""

MISSING = object()
"""stands for a value that is in error, so that the error is not reported again"""

FUNCTIONS = ("abs", "max", "min")
"""every function of the language"""

LARGEST = 10**18
"""integers stay below this, as in the grammar"""

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def names_in(expression: Expression) -> set[str]:
    """The bare words of an expression, those of functions included."""
    match expression:
        case Name(name):
            return {name}
        case Attribute(value) | Star(value) | Is(value):
            return names_in(value)
        case Index(value, index):
            return names_in(value) | names_in(index)
        case Call(function, arguments, keywords):
            parts = (function, *arguments, *(value for _, value in keywords))
            return set().union(*map(names_in, parts))
        case Unary(_, operand):
            return names_in(operand)
        case Binary(_, left, right):
            return names_in(left) | names_in(right)
        case Relation(subject=subject):
            return names_in(subject) if subject is not None else set()
        case Sequence(_, items):
            return set().union(*map(names_in, items))
        case Literal():
            return set()


def no_attribute(value: object, name: str, span: Span) -> object:
    """The `attribute` of constants: there is none."""
    raise _wrong(f"{describe(value)} has no attribute `{name}`", span)


def no_relation(name: str, value: object, pattern: tuple[object, ...], span: Span) -> bool:
    """The `relation` of expressions that belong to no call."""
    raise _wrong(f"`{name}` is only known in a `where`", span)


def no_function(function: object, arguments: list[object], keywords: Mapping[str, object], span: Span) -> object:
    """The `call` of expressions without functions from outside."""
    raise _wrong("only `min`, `max` and `abs` can be called here", span)


def evaluate(
    expression: Expression,
    names: Mapping[str, object],
    attribute: ReadAttribute = no_attribute,
    relation: Relate = no_relation,
    call: CallFunction = no_function,
) -> object:
    """The value of an expression.

    Values are `int`, `float`, `str`, `bool`, `None`, and tuples and lists of them. Anything else that `names` or
    `attribute` hands in (a call of a model) is only ever handed back to `attribute` and `relation`, or returned.

    Args:
        expression: a resolved expression.
        names: what its names stand for.
        attribute: reads `value.name`; nothing is read from a Python object otherwise.
        relation: answers `is`, `has_next` and its kin.
        call: calls a function that is none of the language's own.

    Raises:
        RewriteError: with the place in the rule; no other exception, unless a callback raises one.

    """

    def spread(arguments: tuple[Expression, ...]) -> list[object]:
        """The values of arguments, those behind `*` one by one."""
        found: list[object] = []
        for argument in arguments:
            if isinstance(argument, Star):
                found += _items(value_of(argument.value), argument.span)
            else:
                found.append(value_of(argument))
        return found

    def value_of(node: Expression) -> object:
        match node:
            case Literal(value):
                return value
            case Name(name):
                if name not in names:
                    raise Diagnostic("RW103", f"`{name}` is not known here", node.span).error()
                return names[name]
            case Attribute(inner, name):
                return attribute(value_of(inner), name, node.span)
            case Index(inner, index):
                return _item(value_of(inner), value_of(index), node.span)
            case Call(Name(name), arguments) if name in FUNCTIONS:
                return _call(name, spread(arguments), node)
            case Call(Name(name), _) if name not in names:
                raise _wrong("only `min`, `max` and `abs` can be called here", node.span)
            case Call(function, arguments, keywords):
                given = {key: value_of(item) for key, item in keywords}
                return call(value_of(function), spread(arguments), given, node.span)
            case Star(inner):
                raise _wrong("`*` stands among arguments only", node.span)
            case Relation(name, pattern, _, subject):
                return relation(name, SELECTED if subject is None else value_of(subject), pattern, node.span)
            case Is(inner, negated, pattern):
                return relation("is", value_of(inner), pattern, node.span) is not negated
            case Sequence(kind, items):
                return kind([value_of(item) for item in items])
            case Unary("not", operand):
                return not truth(value_of(operand), operand.span)
            case Unary(_, operand):
                return _limited(-_number(value_of(operand), operand.span), node.span)
            case Binary("and", left, right):
                return truth(value_of(left), left.span) and truth(value_of(right), right.span)
            case Binary("or", left, right):
                return truth(value_of(left), left.span) or truth(value_of(right), right.span)
            case Binary(sign, left, right) if sign in _ARITHMETIC:
                return _arithmetic(
                    sign, _number(value_of(left), left.span), _number(value_of(right), right.span), node.span
                )
            case Binary(sign, left, right):
                return compare(sign, value_of(left), value_of(right), node.span)

    return value_of(expression)


def truth(value: object, span: Span) -> bool:
    """Whether a value counts as true: `none`, `false`, 0 and what is empty do not."""
    if value is None or isinstance(value, bool | int | float | str | tuple | list):
        return bool(value)
    raise _wrong(f"{describe(value)} is neither true nor false", span)


def compare(sign: str, left: object, right: object, span: Span) -> bool:
    """`left == right` and its kin, `in`, `not in` and `~`.

    A number compared with a tuple is compared with each of its items, and all must agree: `kernel_size == 3` holds for
    (3, 3). Tuples and lists are alike. Only numbers have an order.

    Raises:
        RewriteError: the two cannot be compared.

    """
    if sign == "==":
        return _equal(left, right, span)
    if sign == "!=":
        return not _equal(left, right, span)
    if sign == "~":
        if isinstance(left, str) and isinstance(right, str):
            return globs.compiled(right).fullmatch(left) is not None
        raise _wrong(f"`~` compares a text with a glob, not {describe(left)} with {describe(right)}", span)
    if sign in ("in", "not in"):
        if isinstance(left, str) and isinstance(right, str):
            found = left in right
        elif isinstance(right, tuple | list):
            found = any(_equal(left, item, span) for item in right)
        else:
            raise _wrong(f"nothing can be in {describe(right)}", span)
        return found is (sign == "in")
    lefts = left if isinstance(left, tuple | list) else (left,)
    rights = right if isinstance(right, tuple | list) else (right,)
    if (lefts is left and rights is right) or not lefts or not rights:
        raise _wrong(f"{describe(left)} and {describe(right)} have no order", span)
    return all(_ORDER[sign](_number(a, span), _number(b, span)) for a in lefts for b in rights)


def _equal(left: object, right: object, span: Span) -> bool:
    for value in (left, right):
        if not (value is None or isinstance(value, bool | int | float | str | tuple | list)):
            raise _wrong(f"{describe(value)} cannot be compared", span)
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(_equal(a, b, span) for a, b in zip(left, right, strict=True))
    if isinstance(left, tuple | list):
        left, right = right, left
    if isinstance(right, tuple | list):
        is_number = isinstance(left, int | float) and not isinstance(left, bool)
        return is_number and bool(right) and all(_equal(left, item, span) for item in right)
    return left == right


def _number(value: object, span: Span) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _wrong(f"{describe(value)} is not a number", span)


def _arithmetic(sign: str, left: float, right: float, span: Span) -> float:
    try:
        if sign == "/" and isinstance(left, int) and isinstance(right, int) and left % right == 0:
            return left // right  # half of 64 channels is a number of channels
        return _limited(_ARITHMETIC[sign](left, right), span)
    except ZeroDivisionError:
        raise _wrong("division by zero", span) from None
    except OverflowError:
        raise _too_large(span) from None


def _limited(value: float, span: Span) -> float:
    if (isinstance(value, int) and abs(value) >= LARGEST) or (isinstance(value, float) and not math.isfinite(value)):
        raise _too_large(span)
    return value


def _item(value: object, index: object, span: Span) -> object:
    if not isinstance(value, tuple | list):
        raise _wrong(f"{describe(value)} has no items", span)
    if not isinstance(index, int) or isinstance(index, bool):
        raise _wrong(f"{describe(index)} is not the number of an item", span)
    if not -len(value) <= index < len(value):
        raise _wrong(f"there is no item {index} of {len(value)}", span)
    found: object = value[index]
    return found


def _items(value: object, span: Span) -> list[object]:
    if not isinstance(value, tuple | list):
        raise _wrong(f"{describe(value)} has no items", span)
    return list(value)


def _call(name: str, arguments: list[object], node: Call) -> object:
    if node.keywords:
        raise _wrong(f"`{name}` takes no argument with a name", node.span)
    spans = [argument.span for argument in node.arguments]
    spans += [node.span] * (len(arguments) - len(spans))
    numbers = [_number(value, span) for value, span in zip(arguments, spans, strict=False)]
    if not numbers or (name == "abs" and len(numbers) != 1):
        raise _wrong(f"`{name}` takes {'one number' if name == 'abs' else 'one number or more'}", node.span)
    if name == "abs":
        return abs(numbers[0])
    return min(numbers) if name == "min" else max(numbers)


def describe(value: object) -> str:
    """A value in a message: itself if it is small, else what it is."""
    match value:
        case None | bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"the number {value}" if abs(value) < LARGEST else "a number"
        case str():
            return f'the text "{value}"' if len(value) <= 40 else "a text"
        case tuple() | list():
            return f"a {type(value).__name__}"
    return "this"


def _wrong(message: str, span: Span) -> RewriteError:
    return Diagnostic("RW106", message, span).error()


def _too_large(span: Span) -> RewriteError:
    return Diagnostic("RW017", "this number is too large", span).error()
