"""`in` and `except`: whether a call lies inside the modules that another selector names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rewrite.globs import compiled
from rewrite.graph import Graph, Layer, Node
from rewrite.pattern import Anything, Kind, Path, Unit
from rewrite.selectors import kind
from rewrite.vocabulary import short


def enclosing(graph: Graph, node: Node) -> Iterator[tuple[str, Layer | None]]:
    """(path, layer) of the call itself and of every module around it, innermost first."""
    paths = [node.name]
    if node.layer is not None:
        paths += node.layer.aliases
    for path in paths:
        where = path
        while where:
            yield where, graph.layers.get(where, node.layer if where == node.name else None)
            where = where.rpartition(".")[0]
    yield "", graph.layers.get("")
    if node.owner is not None and node.layer is None:
        # the forward of a module under several names makes this call under each of them
        owner = node.owner.layer
        for alias in owner.aliases if owner is not None else ():
            yield alias, owner


def is_inside(graph: Graph, node: Node, units: Sequence[Unit], classes: Mapping[str, str]) -> bool:
    """Whether the call is one of `units` or lies inside one of them."""
    return any(_fits(unit, graph, node, classes) for unit in units)


def _fits(unit: Unit, graph: Graph, node: Node, classes: Mapping[str, str]) -> bool:
    base = unit.base
    if isinstance(base, Anything):
        return True
    if isinstance(base, Path):
        pattern = compiled(base.glob)
        return any(pattern.fullmatch(path) for path, _ in enclosing(graph, node))
    assert isinstance(base, Kind), "captures are calls, not places"
    if kind.explain(base, node, classes) is None:
        return True
    for _, layer in enclosing(graph, node):
        if layer is None or layer is node.layer or is_wrapped(node.name, layer):
            continue
        if _layer_is(base, layer, classes):
            return True
    return False


def is_wrapped(path: str, layer: Layer) -> bool:
    """Whether a path lies in what a layer is built around: `except LoRA` leaves out its own weights, not those."""
    return bool(layer.wrapped) and (path == layer.wrapped or path.startswith(f"{layer.wrapped}."))


def _layer_is(base: Kind, layer: Layer, classes: Mapping[str, str]) -> bool:
    return kind.explain(base, as_node(layer), classes) is None


def as_node(layer: Layer) -> Node:
    """A layer in the form of a call of it, for the tests that look at layers only."""
    return Node(
        index=-1,
        name=layer.path,
        scope=layer.path.rpartition(".")[0],
        local="",
        operation=layer.operation,
        spelling=short(layer.kind),
        layer=layer,
        inputs=(),
        attributes=layer.attributes,
        owner=None,
        linked=False,
        composite=bool(layer.children) and layer.operation is None,
        training=layer.training,
    )
