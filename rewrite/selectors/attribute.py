"""`[attribute tests]`: arguments of a call or its layer compared with values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rewrite.errors import Diagnostic, nearest
from rewrite.expression import Expression
from rewrite.graph import Node
from rewrite.pattern import AttributeTest
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS

Uses = Callable[[Node], int]
"""how often the value of a call is taken"""


def explain(test: AttributeTest, node: Node, evaluate: Callable[[Expression], object], uses: Uses) -> str | None:
    """None if the call passes the test, else why not."""
    value = _attributes(node).get(own_name(node, test.name), _attributes) if test.name != "uses" else uses(node)
    if value is _attributes:
        return f"it has no `{test.name}`"
    if test.operator is None or test.value is None:
        return None if value else f"its {test.name} is {value!r}"
    wanted = evaluate(test.value)
    if compare(value, test.operator, wanted):
        return None
    return f"its {test.name} is {value!r}"


def read(node: Node, name: str, span: Span, uses: Uses) -> object:
    """`node.name` in an expression.

    Raises:
        RuleError: the call has no such attribute (RW102).

    """
    if name == "uses":
        return uses(node)
    attributes = _attributes(node)
    if (own := own_name(node, name)) in attributes:
        return attributes[own]
    close = nearest(name, attributes)
    raise Diagnostic(
        "RW102",
        f"`{node.name}` ({node.spelling}) has no attribute `{name}`",
        span,
        notes=(f"it has {', '.join(f'`{known}`' for known in attributes)}",),
        help=f"did you mean `{close[0]}`?" if close else "",
    ).error()


def own_name(node: Node, name: str) -> str:
    """The vocabulary's name for an attribute of a call, which a rule may write as Keras does (`filters`)."""
    row = OPERATIONS.get(node.operation or "")
    if name in node.attributes or row is None or row.keras is None:
        return name
    return next((own for own, theirs in row.keras.names.items() if theirs == name), name)


def _attributes(node: Node) -> Mapping[str, object]:
    return {**node.attributes, "training": node.training, "path": node.name}


def compare(value: object, operator: str, wanted: object) -> bool:
    """A comparison of the language; `3` fits `(3, 3)`, since constructors take both for one thing."""
    if isinstance(value, tuple) and isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return (
            all(compare(item, operator, wanted) for item in value)
            if operator != "!="
            else value != ((wanted,) * len(value))
        )
    if isinstance(wanted, list):
        wanted = tuple(wanted)
    match operator:
        case "==" | "=":
            return value == wanted
        case "!=":
            return value != wanted
    if isinstance(value, str) or isinstance(wanted, str):
        return False
    try:
        match operator:
            case "<":
                return bool(value < wanted)  # type: ignore[operator]
            case "<=":
                return bool(value <= wanted)  # type: ignore[operator]
            case ">":
                return bool(value > wanted)  # type: ignore[operator]
            case _:
                return bool(value >= wanted)  # type: ignore[operator]
    except TypeError:
        return False
