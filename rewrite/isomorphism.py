"""Whether two small models are built alike, and where they are not: graphs compared as structures, and as lines.

Alike are two graphs whose calls can be paired so that each pair is the same operation with the attributes that are
asked for and takes the same values at the same inputs (at any input, where the operation is commutative), and whose
outputs are the same values in the same order. Only calls count that hold no other calls; which module a call stands in
does not.
"""

from __future__ import annotations

import difflib
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rewrite import literals
from rewrite.errors import RewriteError
from rewrite.expression import compare
from rewrite.graph import Graph, Node, Value
from rewrite.selectors import kind
from rewrite.source import Source, Span
from rewrite.vocabulary import OPERATIONS, expand
from rewrite.vocabulary.operation import Operation, Parameter, parse_signature

if TYPE_CHECKING:
    import networkx

Taken = tuple[str, tuple[int | str, ...]]
"""a value: the call or the input that it comes from, and which part of what that returns"""

_NOWHERE = Span(Source("", ""), 1, 1)
_NONE = object()


@dataclass(frozen=True)
class Call:
    """One call, of a literal or of a model."""

    name: str
    operation: Operation | None
    inputs: tuple[Taken, ...]
    wanted: literals.Call | None = None
    """what it stands for in a literal; None: a call of a model"""
    node: Node | None = None
    """what it stands for in a model"""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """of a literal: those that count; of a model: all"""

    @property
    def label(self) -> str:
        """What two calls must have in common to be told as one that has changed."""
        if self.operation is not None:
            return self.operation.name
        return self.wanted.kind.text if self.wanted is not None else self.node.spelling if self.node is not None else ""

    @property
    def commutes(self) -> bool:
        """Whether the order of its inputs does not matter."""
        return self.operation is not None and self.operation.commutative


@dataclass(frozen=True)
class Outline:
    """A model as a structure: its calls in an order in which they are made."""

    inputs: tuple[str, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Taken, ...]


def of_literal(
    literal: literals.Literal, inputs: Sequence[str], externals: Mapping[str, object] | None = None
) -> Outline:
    """The outline of a literal.

    Args:
        literal: what is wanted.
        inputs: names of the inputs of the model that it is held against: the literal's own inputs are these, by name,
            or by order where they have other names.
        externals: the caller's classes by name, whose signatures tell what an argument without a name is.

    """
    own = literal.inputs
    names = dict(zip(own, own, strict=True)) if set(own) <= set(inputs) else dict(zip(own, inputs, strict=False))
    known: dict[str, Taken] = {name: (names.get(name, name), ()) for name in own}
    several = {call.name for call in literal.calls if call.operation is not None and call.operation.outputs != 1}
    calls = []
    for call in literal.calls:
        taken = tuple(known[name] for name in call.inputs)
        part = call.attributes.get("b")
        if call.operation is not None and call.operation.name == "getitem" and isinstance(part, int | str):
            source, index = taken[0]
            if source in several and not index:
                known[call.name] = (source, (part,))
                continue
        known[call.name] = (call.name, ())
        attributes = call.attributes if call.operation is not None else _bound(call, externals or {})
        calls.append(Call(call.name, call.operation, taken, call, None, attributes))
    return Outline(tuple(known[name][0] for name in own), tuple(calls), tuple(known[name] for name in literal.outputs))


def of_graph(graph: Graph) -> Outline:
    """The outline of a model."""
    nodes = [node for node in graph.nodes if not node.composite]
    names: dict[int, str] = {}
    used: Counter[str] = Counter()
    for node in nodes:
        used[node.name] += 1
        names[node.index] = node.name if used[node.name] == 1 else f"{node.name} ({used[node.name]})"
    inputs: dict[str, None] = {}

    def taken(value: Value) -> Taken:
        if value.producer is not None:
            return names.get(value.producer.index, value.producer.name), value.index
        if value.input:
            inputs.setdefault(value.input)
        return value.input or "?", ()

    calls = tuple(
        Call(
            names[node.index],
            OPERATIONS.get(node.operation or ""),
            tuple(taken(operand.value) for operand in node.inputs),
            None,
            node,
            dict(node.attributes),
        )
        for node in nodes
    )
    outputs = tuple(taken(value) for value in graph.outputs)
    return Outline(tuple(inputs), calls, outputs)


def is_same(found: Outline, wanted: Outline, classes: Mapping[str, str] | None = None) -> bool:
    """Whether two models are built alike.

    Args:
        found: the outline of a model.
        wanted: that of a literal, or of another model.
        classes: names given by the caller -> dotted name of the class.

    """
    if len(found.calls) != len(wanted.calls) or len(found.outputs) != len(wanted.outputs):
        return False

    def fits(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        mine, theirs = one["call"], other["call"]
        if mine is None or theirs is None:
            return bool(one["title"] == other["title"])
        return fits_call(mine, theirs, classes or {})

    for call in wanted.calls:  # cheap, and enough for most pairs that differ
        if not any(fits_call(other, call, classes or {}) for other in found.calls):
            return False
    from networkx.algorithms import isomorphism

    matcher: Any = isomorphism.DiGraphMatcher(
        _digraph(found), _digraph(wanted), node_match=fits, edge_match=lambda one, other: one == other
    )
    return bool(matcher.is_isomorphic())


def fits_call(found: Call, wanted: Call, classes: Mapping[str, str]) -> bool:
    """Whether a call of a model is a wanted one, its inputs aside.

    A layer of the vocabulary carries its arguments; one of the caller's classes is asked for those that it has kept as
    an attribute of the same name.
    """
    assert found.node is not None, "what is found is a model"
    if wanted.wanted is None:
        assert wanted.node is not None, "a call of a literal or of a model"
        same = (found.node.operation, found.node.spelling) == (wanted.node.operation, wanted.node.spelling)
        return same and bool(found.attributes == wanted.attributes)
    if kind.explain(wanted.wanted.kind, found.node, classes) is not None:
        return False
    return all(
        _equal(found.attributes[name], value, name) if name in found.attributes else wanted.operation is None
        for name, value in wanted.attributes.items()
    )


def _equal(found: object, wanted: object, name: str) -> bool:
    """`found == wanted` as rules mean it; a `bias` is there or is not, and `none` says that it is not."""
    if name == "bias" and isinstance(wanted, bool | None):
        return bool(found) == bool(wanted)
    if isinstance(found, str | int | float | bool | tuple | list | None):
        try:
            return compare("==", found, wanted, _NOWHERE)
        except RewriteError:
            return False
    return str(found) == wanted  # a dtype or the like, by its name


def _digraph(outline: Outline) -> networkx.DiGraph[str]:
    """Calls, inputs and the end of the model as nodes; on an edge: which parts go into which inputs."""
    import networkx  # 0.3 s, and only a test whose graph is compared pays for it

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    edges: dict[tuple[str, str], Counter[tuple[int, tuple[int | str, ...]]]] = {}
    for call in outline.calls:
        graph.add_node(f"call {call.name}", call=call)
    for name in (*outline.inputs, "?"):
        graph.add_node(f"input {name}", call=None, title=f"input {name}")
    graph.add_node("end", call=None, title="end")
    known = {call.name for call in outline.calls}

    def add(taken: Taken, target: str, number: int) -> None:
        source = f"call {taken[0]}" if taken[0] in known else f"input {taken[0]}"
        if source not in graph:
            graph.add_node(source, call=None, title=source)
        edges.setdefault((source, target), Counter())[number, taken[1]] += 1

    for call in outline.calls:
        for number, taken in enumerate(call.inputs):
            add(taken, f"call {call.name}", -1 if call.commutes else number)
    for number, taken in enumerate(outline.outputs):
        add(taken, "end", number)
    for (source, target), takes in edges.items():
        graph.add_edge(source, target, takes=takes)
    graph.remove_nodes_from([node for node in list(graph) if node.startswith("input ") and not graph.degree(node)])
    return graph


def _bound(call: literals.Call, externals: Mapping[str, object]) -> dict[str, object]:
    """The arguments for a class of the caller by name, as far as its signature tells."""
    make = externals.get(call.kind.text)
    if not callable(make):
        return dict(call.keywords)
    try:
        return dict(inspect.signature(make).bind_partial(*call.arguments, **call.keywords).arguments)
    except (TypeError, ValueError):
        return dict(call.keywords)


# ---- as lines -----------------------------------------------------------------------------------------------------


def difference(
    wanted: Outline, found: Outline, classes: Mapping[str, str] | None = None, titles: tuple[str, str] = ("want", "got")
) -> list[str]:
    """A unified diff of two outlines, one call per line, `-` for the first and `+` for the second.

    Calls of both that are likely the same have one name and show the same arguments, so that a line differs only where
    the call does.
    """
    pairs = _paired(wanted.calls, found.calls)
    names = {call.name: call.name for call in (*wanted.calls,)}
    names |= {name: name for name in wanted.inputs}
    theirs: dict[str, str] = {name: name for name in found.inputs}
    used = set(names)
    for number, call in enumerate(found.calls):
        partner = pairs.get(number)
        name = partner.name if partner is not None else call.name
        while partner is None and name in used:
            name += "_"
        used.add(name)
        theirs[call.name] = name
    before = [_line(call, _text(call, None, classes or {}), names, None) for call in wanted.calls]
    after = []
    for number, call in enumerate(found.calls):
        partner = pairs.get(number)
        order = [names.get(name, name) + _index(part) for name, part in partner.inputs] if partner is not None else None
        after.append(_line(call, _text(call, partner, classes or {}), theirs, order))
    before.append("return " + ", ".join(names.get(name, name) + _index(part) for name, part in wanted.outputs))
    after.append("return " + ", ".join(theirs.get(name, name) + _index(part) for name, part in found.outputs))
    lines = list(difflib.unified_diff(before, after, *titles, lineterm="", n=4))
    return [line for line in lines if not line.startswith("@@")]


def _paired(wanted: Sequence[Call], found: Sequence[Call]) -> dict[int, Call]:
    """Number of a found call -> the wanted call that it is likely to be."""
    labels = [call.label for call in wanted], [call.label for call in found]
    pairs: dict[int, Call] = {}
    taken: set[int] = set()
    for first, second, size in difflib.SequenceMatcher(None, *labels, autojunk=False).get_matching_blocks():
        for offset in range(size):
            pairs[second + offset] = wanted[first + offset]
            taken.add(first + offset)
    for number, call in enumerate(found):
        left = (place for place, other in enumerate(wanted) if place not in taken and other.label == call.label)
        place = next(left, None) if number not in pairs else None
        if place is not None:
            pairs[number] = wanted[place]
            taken.add(place)
    return pairs


def _line(call: Call, text: str, names: Mapping[str, str], order: Sequence[str] | None) -> str:
    values = [names.get(name, name) + _index(part) for name, part in call.inputs]
    if order is not None and call.commutes and Counter(order) == Counter(values):
        values = list(order)
    return f"{names[call.name]} = {text}({', '.join(values)})"


def _index(part: Iterable[int | str]) -> str:
    return "".join(f"[{item}]" for item in part)


def _text(call: Call, partner: Call | None, classes: Mapping[str, str]) -> str:
    """What is called: as a literal writes it, with the arguments that its partner shows, or with those that matter."""
    if call.wanted is not None:
        return call.wanted.text
    assert call.node is not None, "a call of a literal or of a model"
    if partner is None or partner.wanted is None:
        return f"{call.operation.name if call.operation is not None else call.node.spelling}({_arguments(call)})"
    wanted = partner.wanted
    if fits_call(call, partner, classes):
        return wanted.text
    name = wanted.kind.text if kind.explain(wanted.kind, call.node, classes) is None else call.node.spelling
    shown = []
    for number, (key, value) in enumerate(partner.attributes.items()):
        found = call.attributes.get(key, value if call.operation is None else _NONE)
        word = "?" if found is _NONE else _value(value if _equal(found, value, key) else found)
        shown.append(word if number < len(wanted.arguments) else f"{key}={word}")
    return f"{name}({', '.join(shown)})"


def _arguments(call: Call) -> str:
    """The arguments of a call of a model that are not what they are by default."""
    node, row = call.node, call.operation
    assert node is not None, "a call of a model"
    parameters = {parameter.name: parameter for parameter in _parameters(node, row)}
    shown: list[str] = []
    for number, (key, value) in enumerate(call.attributes.items()):
        parameter = parameters.get(key)
        if parameter is not None and parameter.required and number == len(shown):
            shown.append(_value(value))
        elif row is None or (parameter is not None and not _equal(value, parameter.default, key)):
            shown.append(f"{key}={_value(value)}")
    return ", ".join(shown)


def _parameters(node: Node, row: Operation | None) -> tuple[Parameter, ...]:
    if row is None:
        return ()
    if node.layer is not None:
        return row.parameters
    full = expand(node.spelling)
    text = row.functions.get(full, row.methods.get(full.rpartition(".")[2], ""))
    return parse_signature(text)


def _value(value: object) -> str:
    """A value as rules write it; `(3, 3)` as 3."""
    if isinstance(value, tuple) and len(value) > 1 and len(set(map(repr, value))) == 1:
        return _value(value[0])
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
