"""The calls of a captured forward: their names, their arguments and their tensor inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from torch import fx, nn

from rewrite.backends.torch.code_calls import Code, CodeCall
from rewrite.backends.torch.code_places import WAY, place_in, places_of
from rewrite.backends.torch.scopes import Constant, Container, Placeholder, Scope, Structure, forward_signature
from rewrite.backends.torch.spellings import call_parameters, node_operation
from rewrite.graph import Operand, Value
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation, parse_signature


class _Scalar:
    """Marks a value that is a number or a size, not a tensor."""


SCALAR = _Scalar()
"""a value that is no tensor"""


@dataclass
class Calls:
    """The calls of one scope under one name each, whichever of its bodies make them."""

    nodes: dict[str, dict[str, fx.Node]] = field(default_factory=dict)
    """name -> body -> fx node"""
    names: dict[fx.Node, str] = field(default_factory=dict)
    slots: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """name -> operand number -> place among all values in the call's arguments"""
    code: dict[str, CodeCall] = field(default_factory=dict)
    """name -> where the call stands in the code of a forward that has no graph, or none that holds for every call"""
    settings: Mapping[str, object] = field(default_factory=dict)
    """plain attribute of the module -> the value for which these are the calls in its code"""
    same: dict[str, str] = field(default_factory=dict)
    """name -> the name of the first call that stands at the same place in the code: a loop makes several"""


def name_calls(scope: Scope) -> Calls:
    """Pairs the calls that both of a scope's bodies make, by aligning the two sequences of calls."""
    calls = Calls()
    current = scope.body
    for node in current.graph.nodes:
        calls.nodes[node.name] = {scope.current: node}
        calls.names[node] = node.name
    for mode, body in scope.bodies.items():
        if mode == scope.current:
            continue
        ours, theirs = list(current.graph.nodes), list(body.graph.nodes)
        matcher = SequenceMatcher(None, [_key(n) for n in ours], [_key(n) for n in theirs], autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            for offset in range(size):
                name = ours[a + offset].name
                calls.nodes[name][mode] = theirs[b + offset]
                calls.names[theirs[b + offset]] = name
        for node in theirs:
            if node not in calls.names:
                name = node.name
                while name in calls.nodes:
                    name = f"{name}_{mode}"
                calls.nodes[name] = {mode: node}
                calls.names[node] = name
    return calls


def place_calls(calls: Calls, scope: Scope, code: Code) -> None:
    """Finds where the calls of a captured forward stand in its code."""
    known = {(call.method, call.number): call for call in code.calls}
    places = places_of(type(scope.module)) if known else {}
    first: dict[tuple[str, int], str] = {}
    for name, nodes in calls.nodes.items():
        place, *others = {place_in(places, node.meta.get(WAY, ())) for node in nodes.values()}
        if place not in known or others:
            continue
        call = known[place]
        if node_operation(next(iter(nodes.values())), None)[1] != call.spelling:
            continue
        if place in first:
            calls.same[name] = first[place]
        else:
            first[place] = name
            calls.code[name] = call
    if not scope.assumed:  # its graph tells the calls of a loop apart
        for name in calls.same.values():
            calls.code.pop(name, None)
        calls.same = {}


def _key(node: fx.Node) -> tuple[str, object]:
    return node.op, node.target


def call_attributes(node: fx.Node, operation: Operation | None) -> dict[str, object]:
    """Plain arguments of a function call by parameter name."""
    return {name: value for name, value in bind_call(node, operation).items() if not _holds_node(value)}


def bind_call(node: fx.Node, operation: Operation | None) -> dict[str, object]:
    """Arguments of a function or method call by parameter name, defaults included."""
    text = call_parameters(node, operation) if operation is not None else None
    if text is None:
        return dict(node.kwargs)
    parameters = parse_signature(text)
    found: dict[str, object] = {p.name: p.default for p in parameters if not p.required}
    for place, (parameter, value) in enumerate(zip(parameters, node.args, strict=False)):
        found[parameter.name] = tuple(node.args[place:]) if parameter.variadic else value
    found.update(node.kwargs)
    return found


def _holds_node(value: object) -> bool:
    if isinstance(value, fx.Node):
        return True
    return isinstance(value, tuple | list) and any(_holds_node(item) for item in value)


def occurrences(node: fx.Node) -> list[tuple[str | int, fx.Node]]:
    """Every value in a call's arguments, in order and with repeats: (parameter name or position, fx node)."""
    found: list[tuple[str | int, fx.Node]] = []

    def visit(name: str | int, value: object) -> None:
        if isinstance(value, fx.Node):
            found.append((name, value))
        elif isinstance(value, tuple | list):
            for item in value:
                visit(name, item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(name, item)
        elif isinstance(value, slice):
            for item in (value.start, value.stop, value.step):
                visit(name, item)

    for position, value in enumerate(node.args):
        visit(position, value)
    for key, value in node.kwargs.items():
        visit(key, value)
    return found


def replace_occurrence(node: fx.Node, place: int, value: fx.Node) -> None:
    """Puts `value` in the place of the n-th value in a call's arguments, and of that one only."""
    count = -1

    def visit(item: Any) -> Any:
        nonlocal count
        if isinstance(item, fx.Node):
            count += 1
            return value if count == place else item
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*(visit(part) for part in item))
        if isinstance(item, tuple | list):
            return type(item)(visit(part) for part in item)
        if isinstance(item, dict):
            return {key: visit(part) for key, part in item.items()}
        if isinstance(item, slice):
            return slice(visit(item.start), visit(item.stop), visit(item.step))
        return item

    args = tuple(visit(item) for item in node.args)
    kwargs = {key: visit(item) for key, item in node.kwargs.items()}
    node.args, node.kwargs = args, kwargs


def set_argument(call: fx.Node, operation: str | None, name: str, value: object) -> None:
    """Gives a recorded function call, of an operation of the vocabulary, another value for one of its parameters."""
    text = call_parameters(call, OPERATIONS[operation]) if operation is not None else None
    names = [parameter.name for parameter in parse_signature(text)] if text else []
    if name in names and names.index(name) < len(call.args):
        call.update_arg(names.index(name), value)  # type: ignore[arg-type]
    else:
        call.update_kwarg(name, value)  # type: ignore[arg-type]


def operands_of(
    node: fx.Node, operation: Operation | None, module: nn.Module | None, env: Mapping[fx.Node, Any]
) -> tuple[tuple[Operand, ...], tuple[int, ...]]:
    """The tensor inputs of a call, and where each stands among all values in its arguments."""
    names: tuple[str, ...] = operation.ports if operation is not None else ()
    if operation is None and module is not None:
        names = tuple(forward_signature(module).parameters)[1:]
    found: list[Operand] = []
    slots: list[int] = []
    for place, (key, source) in enumerate(occurrences(node)):
        value = env[source]
        if value is SCALAR:
            continue
        if operation is not None and operation.ports:
            # A single tensor may be followed by weights and flags, which are no inputs of the operation.
            if isinstance(key, int) and key >= len(names):
                continue
            if isinstance(key, str) and key not in names and module is None:
                continue
        name = key if isinstance(key, str) else names[key] if key < len(names) else str(len(found))
        if operation is not None and not operation.ports:
            name = str(len(found))
        parts = list(leaves_of(value))
        found.append(Operand(name, len(found), parts[0] if parts else Value(None)))
        slots.append(place)
    return tuple(found), tuple(slots)


def bind_placeholders(arguments: Mapping[str, Structure], node: fx.Node, module: nn.Module) -> dict[str, Any]:
    """What a recorded call passes for each placeholder of the callee's graph: placeholder name -> fx node."""
    return bind_values(arguments, forward_signature(module), node.args, node.kwargs)


def bind_values(
    arguments: Mapping[str, Structure], signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by placeholder name; `signature` is that of the class's forward, `self` included."""
    bound = signature.bind(None, *args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}

    def pair(structure: Structure, value: Any) -> None:
        match structure:
            case Placeholder(name):
                found[name] = value
            case Container(_, items):
                for key, item in items:
                    pair(item, value[key])
            case Constant():
                pass

    for name, structure in arguments.items():
        pair(structure, bound.arguments[name])
    return found


def leaves_of(result: Any) -> Iterator[Value]:
    if isinstance(result, Value):
        yield result
    elif isinstance(result, dict):
        for item in result.values():
            yield from leaves_of(item)
    elif isinstance(result, tuple | list):
        for item in result:
            yield from leaves_of(item)
