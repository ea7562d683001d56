"""`has_next`, `has_prev`, `only_next`: what stands beside a call, across module borders."""

from __future__ import annotations

from collections.abc import Callable

from rewrite.graph import Graph, Node, Value


def consumers(graph: Graph, node: Node) -> list[Node]:
    """Calls that take a value of `node` directly, outer calls that only pass it on into themselves included."""
    found: dict[int, Node] = {}
    for producer in sources_inside(graph, node):
        for consumer, operand in graph.uses.get(producer.index, ()):
            if producer is node or node in operand.value.carriers:
                found.setdefault(consumer.index, consumer)
    return list(found.values())


def sources_inside(graph: Graph, node: Node) -> list[Node]:
    """The calls that make what `node` returns: itself, or those at the end of the forward that it is."""
    inner = [value.producer for value in graph.inner_outputs.get(node.index, ()) if value.producer is not None]
    return [node, *inner]


def producers(value: Value) -> list[Node]:
    """The call that made a value, and the outer calls through whose end it came."""
    return [*([value.producer] if value.producer is not None else []), *value.carriers]


def leaf_consumers(graph: Graph, node: Node) -> list[Node]:
    """The innermost calls that take a value of `node`."""
    return [consumer for consumer in consumers(graph, node) if not consumer.composite]


def has_next(graph: Graph, node: Node, fits: Callable[[Node], bool]) -> bool:
    """Whether some consumer fits."""
    return any(fits(consumer) for consumer in consumers(graph, node))


def has_prev(graph: Graph, node: Node, fits: Callable[[Node], bool]) -> bool:
    """Whether some producer of an input fits."""
    return any(fits(producer) for operand in node.inputs for producer in producers(operand.value))


def only_next(graph: Graph, node: Node, fits: Callable[[Node], bool]) -> bool:
    """Whether there are consumers, all of them fit, and the value is no output of the model."""
    leaves = leaf_consumers(graph, node)
    inside = {producer.index for producer in sources_inside(graph, node)}
    if any(value.producer is not None and value.producer.index in inside for value in graph.outputs):
        return False
    return bool(leaves) and all(fits(leaf) or _fits_around(leaf, fits) for leaf in leaves)


def _fits_around(node: Node, fits: Callable[[Node], bool]) -> bool:
    outer = node.owner
    while outer is not None:
        if fits(outer):
            return True
        outer = outer.owner
    return False


def other_users(graph: Graph, source: Node, target: Node) -> list[str]:
    """Who takes a value of `source` beside `target` and what is in it: names in backticks, or the model's output."""
    found: dict[str, None] = {}
    inside = {node.index for node in sources_inside(graph, source)} if source.composite else {source.index}
    for number in inside:
        for user, operand in graph.uses.get(number, ()):
            if source.composite and source.index != number and source not in operand.value.carriers:
                continue
            if user is target or (user.composite and user.name not in graph.opaque):
                continue  # the calls in an outer call are users themselves
            if not _is_inside(user, target):
                found[f"`{user.name}`"] = None
    for value in graph.outputs:
        made = value.producer is not None and value.producer.index in inside
        if made and (not source.composite or source in value.carriers or value.producer is source):
            found["the output of the model"] = None
    return list(found)


def _is_inside(node: Node, outer: Node) -> bool:
    owner = node.owner
    while owner is not None:
        if owner is outer:
            return True
        owner = owner.owner
    return False
