"""A `Graph` as a tree in text, and as JSON.

One line per layer and per call of a function. What stands in quotes is a path, what stands behind it is a name, and
both mean in a rule what they mean here:

    "layer1.0"            BasicBlock
      "layer1.0.conv1"    Conv2d(in_channels=64, out_channels=64, kernel_size=(3, 3), padding=(1, 1))   36,864
      layer1.0.add        add
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from rewrite.formatter import literal
from rewrite.graph import Graph, Layer, Node
from rewrite.source import printable
from rewrite.vocabulary import OPERATIONS

Scopes = Mapping[str, Mapping[str, Node]]
"""path of a module -> the calls that its forward makes"""

_INDENT = "  "
_WIDEST_PATH = 60
"""columns; a longer path pushes only its own line to the right"""


def tree(graph: Graph, other: Graph | None = None) -> list[str]:
    """The lines of the tree.

    Args:
        graph: the model in its present mode.
        other: the model in the other of train and eval mode, where that makes other calls.

    """
    scopes: dict[str, dict[str, Node]] = {}
    for node in _all_calls(graph, other):
        # A module that is called twice makes each call of its forward twice; it is one line of that forward.
        scopes.setdefault(node.scope, {}).setdefault(node.local or node.name, node)
    rows = [(_INDENT * depth + first, second) for depth, first, second in _rows(graph, scopes, "", 0)]
    width = max((len(first) for first, _ in rows if len(first) <= _WIDEST_PATH), default=0)
    lines = [f"{first:<{width}}  {second}".rstrip() for first, second in rows]
    if graph.opaque:
        lines += [
            "",
            "forwards that were not captured; layers and named functions in them are still reached:",
        ]
        lines += [f"{_INDENT}{_quoted(path) if path else '(the model)'}  {why}" for path, why in graph.opaque.items()]
    return [*map(printable, [_title(graph), "", *lines])]


def as_json(graph: Graph, other: Graph | None = None) -> dict[str, object]:
    """All of both graphs that rules can name."""
    return {
        "name": graph.name,
        "class": graph.layers[""].kind,
        "parameters": sum(layer.parameters for layer in graph.layers.values()),
        "trainable": sum(layer.trainable for layer in graph.layers.values()),
        "layers": [
            {
                "path": layer.path,
                "class": layer.kind,
                "operation": layer.operation,
                "attributes": dict(layer.attributes),
                "parameters": layer.parameters,
                "trainable": layer.trainable,
                "training": layer.training,
                "calls": len(graph.calls.get(layer.path, ())),
                "aliases": list(layer.aliases),
                "uncallable": layer.uncallable,
            }
            for layer in graph.layers.values()
        ],
        "calls": [
            {
                "name": node.name,
                "scope": node.scope,
                "operation": node.operation,
                "spelling": node.spelling,
                "layer": node.layer.path if node.layer is not None else None,
                "mode": node.mode,
            }
            for node in _all_calls(graph, other)
        ],
        "opaque": [{"path": path, "reason": why} for path, why in graph.opaque.items()],
    }


def _all_calls(graph: Graph, other: Graph | None) -> Iterator[Node]:
    """The calls in the present mode, then those that the other mode alone makes."""
    yield from graph.nodes
    if other is not None:
        yield from (node for node in other.nodes if node.mode)


def _title(graph: Graph) -> str:
    numbers = sum(layer.parameters for layer in graph.layers.values())
    learning = sum(layer.trainable for layer in graph.layers.values())
    root = graph.layers[""]
    title = f"{root.class_name}, {numbers:,} parameters"
    if learning != numbers:
        title += f", {learning:,} of them trainable"
    mode = "train" if root.training else "eval"
    return f"{graph.name}: {title}, {mode} mode" if graph.name else f"{title}, {mode} mode"


def _rows(graph: Graph, scopes: Scopes, path: str, depth: int) -> Iterator[tuple[int, str, str]]:
    """What the forward at `path` calls, in that order, then the children that it does not call."""
    left = dict.fromkeys(graph.layers[path].children)
    for node in scopes.get(path, {}).values():
        if node.layer is None:
            yield depth, node.name, " ".join([node.spelling, *_marks_of_call(node)])
            continue
        # A forward may reach into a container, `self.features[0](x)`: that container stands here, with all it holds.
        child = next((one for one in left if _within(node.layer.path, one)), None)
        if child is not None:
            del left[child]
            yield from _layer_rows(graph, scopes, child, depth)
    for child in left:
        yield from _layer_rows(graph, scopes, child, depth)


def _layer_rows(graph: Graph, scopes: Scopes, path: str, depth: int) -> Iterator[tuple[int, str, str]]:
    layer = graph.layers.get(path)
    if layer is None:
        owner = next((one.path for one in graph.layers.values() if path in one.aliases), "")
        yield depth, _quoted(path), f"the same layer as {_quoted(owner)}"
        return
    yield depth, _quoted(path), "  ".join([_described(layer), *_marks(graph, layer)])
    yield from _rows(graph, scopes, path, depth + 1)


def _described(layer: Layer) -> str:
    """The name for rules, with the arguments that were not left at their defaults."""
    name = layer.operation or layer.class_name
    if layer.operation is None:
        return name
    arguments = [
        f"{key}={literal(value)}" for key, value in layer.attributes.items() if not _is_default(layer, key, value)
    ]
    kind = f" as {layer.class_name}" if layer.class_name != layer.operation else ""
    return f"{name}({', '.join(arguments)}){kind}"


def _is_default(layer: Layer, name: str, value: object) -> bool:
    parameters = _defaults(layer.operation or "")
    if name not in parameters:
        return False
    default = parameters[name]
    # `stride=1` is kept by the layer as (1, 1).
    return value == default or (isinstance(value, tuple) and all(part == default for part in value))


@cache
def _defaults(operation: str) -> dict[str, object]:
    return {one.name: one.default for one in OPERATIONS[operation].parameters if not one.required}


def _marks(graph: Graph, layer: Layer) -> Iterator[str]:
    if layer.parameters:
        yield f"{layer.parameters:,}" if layer.trainable else f"{layer.parameters:,} frozen"
    calls = len(graph.calls.get(layer.path, ()))
    if calls > 1:
        yield f"[{calls} calls]"
    if layer.path in graph.opaque:
        yield "[not captured]"
    if layer.uncallable:
        yield f"[{layer.uncallable}]"


def _marks_of_call(node: Node) -> Iterator[str]:
    if node.operation is not None and node.operation.lower() != node.spelling.rpartition(".")[2].lower():
        yield f"({node.operation})"
    if node.mode:
        yield f"[{node.mode} mode only]"


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _quoted(path: str) -> str:
    return f'"{path}"'
