"""Graphs written as text, without any framework: what the matcher is tried on.

    a=Conv2d(x); b=BatchNorm2d(a); s=add(a, b)

One call a statement, in order of execution; what is not a call before it is an input of the model. More of it:

    c=Conv2d(x | groups=1, bias=none)    attributes of the call
    g=chunk(x); r=ReLU(g.0)              one of several outputs
    blk=Block(a > blk.r); blk.c=Conv2d(a); blk.r=ReLU(blk.c)    a call with parts: what goes in > out
    far=Block(a !); far.c=Conv2d()       one whose forward could not be captured
    -> s, a                              what the model returns; without it the last call
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from rewrite import parser, resolver
from rewrite.graph import Graph, Layer, Node, Operand, Value
from rewrite.matcher import Context, Found, Match, Matcher
from rewrite.rule import Clause
from rewrite.source import Source
from rewrite.vocabulary import OPERATIONS

_CALL = re.compile(r"([\w.]+)\s*=\s*(\w+)\(([^|>!]*)(?:>([^|!]*))?(!)?\s*(?:\|(.*))?\)")
_MERGES = ("add", "cat", "mul", "sub", "matmul")


def graph(text: str, name: str = "Net") -> Graph:
    """The graph that a text describes."""
    nodes: dict[str, Node] = {}
    layers: dict[str, Layer] = {"": Layer("", "my.Net", ("my.Net",), None, {}, ())}
    returned: dict[str, list[str]] = {}
    opaque: dict[str, str] = {}
    outputs: list[str] | None = None
    for statement in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        if statement.startswith("->"):
            outputs = _names(statement[2:])
            continue
        match = _CALL.fullmatch(statement)
        assert match is not None, f"not a call: {statement}"
        own, operation, taken, gives, closed, attributes = match.groups()
        composite = gives is not None or closed is not None
        scope = own.rpartition(".")[0]
        owner = nodes.get(scope)
        linked = not any(scope == path or scope.startswith(f"{path}.") for path in opaque)
        values = [_value(item, nodes, returned) for item in _names(taken)] if linked else []
        is_function = operation in OPERATIONS and operation[0].islower()
        numbered = operation in _MERGES or len(values) > 1
        layer = None
        if not is_function:
            given = {key: ast.literal_eval(value) for key, value in _pairs(attributes)}
            known = operation if operation in OPERATIONS else None
            layer = Layer(own, f"torch.nn.{operation}", (f"torch.nn.{operation}",), known, given, ())
            layers[own] = layer
        nodes[own] = Node(
            index=len(nodes),
            name=own,
            scope=scope,
            local=own.rpartition(".")[2],
            operation=operation if operation in OPERATIONS else None,
            spelling=f"torch.{operation}" if is_function else f"nn.{operation}",
            layer=layer,
            inputs=tuple(Operand(str(n) if numbered else "input", n, value) for n, value in enumerate(values)),
            attributes={key: ast.literal_eval(value) for key, value in _pairs(attributes)},
            owner=owner,
            linked=linked,
            composite=composite,
            outputs=0 if operation in ("chunk", "split") else 1,
        )
        if gives is not None:
            returned[own] = _names(gives)
        if closed:
            opaque[own] = "a Python branch on a value of the data"
    if outputs is None:
        outputs = [next(name for name in reversed(nodes) if "." not in name)] if nodes else []
    return Graph(
        name,
        tuple(nodes.values()),
        layers,
        tuple(_value(item, nodes, returned) for item in outputs),
        opaque=opaque,
    )


def clause(rule: str) -> Clause:
    """The one clause of a rule text."""
    (found,) = resolver.resolve(parser.parse(Source("<rules>", rule))).clauses
    return found


def sites(text: str | Graph, rule: str) -> tuple[list[Match], Found]:
    """The matches of a rule in a graph, as the matcher gives them."""
    built = graph(text) if isinstance(text, str) else text
    return Matcher(built, Context({}, {})).sites(clause(rule))


def matches(text: str | Graph, pattern: str) -> list[str]:
    """The calls of each match of `match PATTERN`, in the order of the links: `["a b", "a c"]`."""
    found, _ = sites(text, f"match {pattern}: expect any matches")
    return [" ".join(node.name for node in match.nodes) for match in found]


def captures(text: str | Graph, pattern: str) -> list[dict[str, str | None]]:
    """What the captures of each match stand for."""
    found, _ = sites(text, f"match {pattern}: expect any matches")
    return [{name: None if node is None else node.name for name, node in match.names.items()} for match in found]


def _names(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _pairs(text: str | None) -> Sequence[tuple[str, str]]:
    found = []
    for pair in re.split(r",\s*(?=\w+=)", text.strip()) if text else ():
        key, _, value = pair.partition("=")
        words = {"true": "True", "false": "False", "none": "None"}
        found.append((key.strip(), words.get(value.strip(), value.strip())))
    return found


def _value(item: str, nodes: Mapping[str, Node], returned: Mapping[str, Sequence[str]]) -> Value:
    """The value that a name stands for."""
    name: str = item
    part: tuple[int, ...] = ()
    head, _, last = item.rpartition(".")
    if last.isdigit() and item not in nodes:
        name, part = head, (int(last),)
    node = nodes.get(name)
    if node is None:
        return Value(None)
    if name in returned:
        given = returned[name]
        inner = _value(given[part[0] if part else 0], nodes, returned)
        return Value(inner.producer, inner.index, (*inner.carriers, node))
    return Value(node, part)
