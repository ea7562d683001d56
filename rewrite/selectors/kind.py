"""By operation, family, spelling or class."""

from __future__ import annotations

from collections.abc import Mapping

from rewrite.graph import Layer, Node
from rewrite.pattern import Kind
from rewrite.vocabulary import OPERATIONS, expand, short


def explain(kind: Kind, node: Node, classes: Mapping[str, str]) -> str | None:
    """None if the call is of this kind, else why not.

    Args:
        kind: what the rule names.
        node: the call.
        classes: names given by the caller (`modules=`) -> dotted name of the class.

    """
    if kind.operation is not None:
        chosen = node.operation == kind.operation or node.operation in OPERATIONS[kind.operation].by_rank.values()
    elif kind.family is not None:
        operation = OPERATIONS.get(node.operation or "")
        chosen = operation is not None and operation.family == kind.family
    elif kind.dotted is not None:
        chosen = is_spelled(classes.get(kind.dotted, kind.dotted), node)
    else:
        chosen = node.layer is not None and is_class(kind.class_name or "", node.layer)
    if chosen:
        return None
    own = node.spelling if kind.dotted is not None or node.operation is None else node.operation
    return f"it is {own}, not {kind.text}"


def is_spelled(dotted: str, node: Node) -> bool:
    """Whether a call has exactly this spelling; a subclass has that of each of its bases."""
    full = expand(dotted)
    if node.layer is None:
        return node.spelling == short(full)
    return any(base == full or short(base) == short(full) or base.endswith(f".{full}") for base in node.layer.bases)


def is_class(name: str, layer: Layer) -> bool:
    """Whether a layer is of a class with this bare name, or of a subclass."""
    return any(base.rpartition(".")[2] == name for base in layer.bases)
