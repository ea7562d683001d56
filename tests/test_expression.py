"""The evaluator: what expressions are worth, and that nothing but a diagnostic ever comes out of a bad one."""

from __future__ import annotations

import random

import pytest

from rewrite import parser
from rewrite.errors import Diagnostic, RewriteError
from rewrite.expression import SELECTED, Expression, compare, evaluate
from rewrite.source import Source, Span
from rewrite.syntax import Param, Remove

NAMES: dict[str, object] = {"n": 12, "r": 0.5, "t": "relu", "k": (3, 3), "none_": None, "node": object()}


def expression(text: str) -> Expression:
    (line,) = parser.parse(Source("<test>", f"let x = {text}")).lines
    assert isinstance(line, Param)
    return line.value


def read(value: object, name: str, span: Span) -> object:
    assert value is NAMES["node"]
    return {"groups": 4, "kernel_size": (3, 5), "training": True, "big": 10**400}[name]


def value(text: str) -> object:
    return evaluate(expression(text), NAMES, read)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 // 2 - 7 % 4", 0),
        ("-n / 8", -1.5),
        ("1e-3", 0.001),
        ("min(32, n)", 12),
        ("max(1, r, 3)", 3),
        ("abs(-3)", 3),
        ("(1, 2)[1]", 2),
        ("[1, 2][-1]", 2),
        ("k[0]", 3),
        ("()", ()),
        ("(1,)", (1,)),
        ("[1, 'a', true, none]", [1, "a", True, None]),
        ("node.groups * 2", 8),
        ("node.kernel_size[1]", 5),
        ("n == 12 and not r > 1", True),
        ("n == 1 or t == 'relu'", True),
        ("k == 3", True),
        ("3 == k", True),
        ("k != 3", False),
        ("k == (3, 3) and k == [3, 3]", True),
        ("k > 2", True),
        ("node.kernel_size > 3", False),
        ("n in (1, 12)", True),
        ("n not in [1, 2]", True),
        ("'el' in t", True),
        ("none_ == none", True),
        ("true == (1 == 1)", True),
        ("t == 3", False),
    ],
)
def test_value(text: str, expected: object) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("1 / 0", "RW106", "division by zero"),
        ("1 // 0", "RW106", "division by zero"),
        ("1.0 % 0", "RW106", "division by zero"),
        ("'a' + 'b'", "RW106", 'the text "a" is not a number'),
        ("'a' * 1000000000", "RW106", 'the text "a" is not a number'),
        ("[0] * 1000000000", "RW106", "a list is not a number"),
        ("true + 1", "RW106", "`true` is not a number"),
        ("-none", "RW106", "`none` is not a number"),
        ("1 < 'a'", "RW106", 'the text "a" is not a number'),
        ("k < (1, 2)", "RW106", "a tuple and a tuple have no order"),
        ("() < 1", "RW106", "a tuple and the number 1 have no order"),
        ("1 in 2", "RW106", "nothing can be in the number 2"),
        ("not node", "RW106", "this is neither true nor false"),
        ("node == node", "RW106", "this cannot be compared"),
        ("n[0]", "RW106", "the number 12 has no items"),
        ("k[2]", "RW106", "there is no item 2 of 2"),
        ("k['a']", "RW106", 'the text "a" is not the number of an item'),
        ("k[true]", "RW106", "`true` is not the number of an item"),
        ("max()", "RW106", "`max` takes one number or more"),
        ("abs(1, 2)", "RW106", "`abs` takes one number"),
        ("min('a')", "RW106", 'the text "a" is not a number'),
        ("len(k)", "RW106", "only `min`, `max` and `abs` can be called here"),
        ("node.groups()", "RW106", "only `min`, `max` and `abs` can be called here"),
        ("unbound", "RW103", "`unbound` is not known here"),
        ("999999999999999999 * 2", "RW017", "this number is too large"),
        ("1e308 * 10", "RW017", "this number is too large"),
        ("1e308 - -1e308", "RW017", "this number is too large"),
        ("node.big * 1.5", "RW017", "this number is too large"),
        ("node.big / 3", "RW017", "this number is too large"),
        ("has_next(ReLU)", "RW106", "`has_next` is only known in a `where`"),
        ("n is ReLU", "RW106", "`is` is only known in a `where`"),
    ],
)
def test_failure(text: str, code: str, message: str) -> None:
    with pytest.raises(RewriteError) as caught:
        value(text)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == (code, message)
    assert diagnostic.span is not None


def test_attributes_come_from_the_callback_only() -> None:
    with pytest.raises(RewriteError, match="the number 12 has no attribute `real`"):
        evaluate(expression("n.real"), NAMES)


def test_relations_come_from_the_callback_only() -> None:
    asked: list[tuple[str, object, int]] = []

    def relation(name: str, subject: object, units: tuple[object, ...], span: Span) -> bool:
        asked.append((name, subject, len(units)))
        return True

    (line,) = parser.parse(Source("<test>", "remove X where has_next(ReLU | GELU) and node is not any")).lines
    assert isinstance(line, Remove)
    assert line.selector.where is not None
    assert evaluate(line.selector.where, NAMES, read, relation) is False
    assert asked == [("has_next", SELECTED, 2), ("is", NAMES["node"], 1)]


def test_and_or_look_no_further_than_needed() -> None:
    assert value("false and 1 / 0 == 1") is False
    assert value("true or 1 / 0 == 1") is True


def test_a_failure_points_at_its_part() -> None:
    with pytest.raises(RewriteError) as caught:
        value("1 + (2 / 0)")
    assert caught.value.diagnostics[0].span == Span(Source("", ""), 1, 13, 7)


def test_compare_of_lists_within_lists() -> None:
    span = Span(Source("", "x"), 1, 1)
    assert compare("==", [(1, 2), [3]], ((1, 2), (3,)), span)
    assert not compare("==", (), 3, span)


PIECES = (
    "1",
    "0",
    "2.5",
    "'a'",
    "true",
    "none",
    "k",
    "n",
    "node",
    "node.groups",
    "t",
    "(1, 2)",
    "[]",
    "999999999999999999",
)
SIGNS = ("+", "-", "*", "/", "//", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in")


def test_no_python_exception_comes_out() -> None:
    """Random expressions: a value of the language, or a diagnostic with its place."""
    draw = random.Random(1)

    def made(depth: int) -> str:
        if depth == 0 or draw.random() < 0.2:
            return draw.choice(PIECES)
        return draw.choice(
            (
                f"({made(depth - 1)} {draw.choice(SIGNS)} {made(depth - 1)})",
                f"-{made(depth - 1)}",
                f"(not {made(depth - 1)})",
                f"{draw.choice(('min', 'max', 'abs'))}({made(depth - 1)}, {made(depth - 1)})",
                f"({made(depth - 1)})[{made(depth - 1)}]",
                f"({made(depth - 1)}, {made(depth - 1)})",
            )
        )

    diagnostics: list[Diagnostic] = []
    for _ in range(600):
        try:
            evaluate(expression(made(4)), NAMES, read)
        except RewriteError as error:
            diagnostics += error.diagnostics
    assert len(diagnostics) > 100
    assert all(diagnostic.span is not None for diagnostic in diagnostics)
