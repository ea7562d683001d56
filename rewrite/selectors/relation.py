"""`has_next`, `has_prev`, `only_next`: what stands beside a call, across module borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rewrite.graph import Graph, Node, Value


def consumers(graph: Graph, node: Node) -> list[Node]:
    """Calls that take a value of `node` directly, outer calls that only pass it on into themselves included."""
    return list(dict.fromkeys(consumer for consumer, _ in graph.taken.get(node.index, ())))


def sources_inside(graph: Graph, node: Node) -> list[Node]:
    """The calls that make what `node` returns: itself, or those at the end of the forward that it is."""
    inner = [value.producer for value in graph.inner_outputs.get(node.index, ()) if value.producer is not None]
    return [node, *inner]


def producers(value: Value) -> list[Node]:
    """The call that made a value, and the outer calls through whose end it came."""
    return [*([value.producer] if value.producer is not None else []), *value.carriers]


def outputs(graph: Graph, node: Node) -> list[Value]:
    """The values of a call that the model returns."""
    return [value for value in graph.outputs if node in producers(value)]


def is_outer(graph: Graph, node: Node) -> bool:
    """Whether a call is the sum of calls inside it that are known, so that those say where values go."""
    return node.composite and (node.layer is None or node.layer.path not in graph.opaque)


def leaf_consumers(graph: Graph, node: Node) -> list[Node]:
    """The innermost calls that take a value of `node`."""
    return [consumer for consumer in consumers(graph, node) if not is_outer(graph, consumer)]


def has_next(graph: Graph, node: Node, fits: Callable[[Node], bool]) -> bool:
    """Whether some consumer fits."""
    return any(fits(consumer) for consumer in consumers(graph, node))


def has_prev(graph: Graph, node: Node, fits: Callable[[Node], bool]) -> bool:
    """Whether some producer of an input fits."""
    return any(fits(producer) for operand in node.inputs for producer in producers(operand.value))


def only_next(graph: Graph, node: Node, fits: Callable[[Node], bool]) -> bool:
    """Whether there are consumers, all of them fit, and the value is no output of the model."""
    if outputs(graph, node):
        return False
    leaves = leaf_consumers(graph, node)
    return bool(leaves) and all(fits(leaf) or _fits_around(leaf, fits) for leaf in leaves)


def _fits_around(node: Node, fits: Callable[[Node], bool]) -> bool:
    outer = node.owner
    while outer is not None:
        if fits(outer):
            return True
        outer = outer.owner
    return False


def other_users(graph: Graph, source: Node, target: Node) -> Iterator[str]:
    """Who takes a value of `source` beside `target` and what is in it: names in backticks, or the model's output."""
    told: set[int] = set()
    for user, _ in graph.taken.get(source.index, ()):
        if user is target or user.index in told or is_outer(graph, user) or is_inside(user, target):
            continue  # the calls in an outer call are users themselves
        told.add(user.index)
        yield f"`{user.name}`"
    if outputs(graph, source):
        yield "the output of the model"


def is_inside(node: Node, outer: Node) -> bool:
    """Whether a call is a part of an outer call."""
    owner = node.owner
    while owner is not None:
        if owner is outer:
            return True
        owner = owner.owner
    return False
