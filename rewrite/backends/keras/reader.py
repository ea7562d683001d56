"""From a Keras model to the neutral graph: layers by their paths, calls in order of execution."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from rewrite.backends.keras.in_code import parts
from rewrite.backends.keras.spellings import (
    activation_operation,
    activation_spelling,
    bases,
    function_attributes,
    function_operation,
    functional_class,
    fused_activation,
    layer_operation,
    qualified,
)
from rewrite.backends.names_in_code import OPERATORS, names_in_code
from rewrite.backends.weight_reads import Framework, read_children
from rewrite.graph import Graph, Layer, Node, Operand, TensorType, Value
from rewrite.vocabulary import OPERATIONS

_KERAS = Framework(
    keras.Layer,
    frozenset(["layers", "_layers", "get_layer", "_flatten_layers", "__dict__"]),
    frozenset(["__init__", "build", "build_from_config", "get_config", "from_config", "compute_output_shape"]),
)
_WEIGHTS = frozenset(["kernel", "bias", "embeddings", "gamma", "beta", "scale"])
"""attributes of layers that are variables"""

ACTIVATION = ":activation"
"""how the call of a fused activation is named behind the call of its layer"""


def graph_of(layer: object) -> Any:
    """The functional model behind a model, whose calls can be read; None where there is none."""
    if isinstance(layer, keras.Model) and type(layer).call not in (keras.Sequential.call, functional_class().call):
        return None  # a class may be made of inputs and outputs, and compute something else
    if isinstance(layer, keras.Sequential):
        return layer._functional if layer.built else None
    return layer if isinstance(layer, functional_class()) else None


def children_of(layer: keras.Layer) -> list[keras.Layer]:
    """The direct parts of a layer that are layers of their own for rules."""
    if isinstance(layer, keras.Sequential):
        return list(layer.layers)
    if graph_of(layer) is not None:
        return [child for child in layer.layers if not isinstance(child, keras.layers.InputLayer)]
    row = OPERATIONS.get(layer_operation(layer, None, -1)[0] or "")
    if row is not None and not row.wraps:
        return []
    return list(parts(layer))


def read_only(container: keras.Layer) -> set[int]:
    """Identities of the layers whose variables the code of a class reads, and which it never calls."""
    held = {**vars(container), **vars(container).get("_modules", {})}
    layers = {name: value for name, value in held.items() if isinstance(value, keras.Layer)}
    return {id(layers[name]) for name in read_children(type(container), dict.fromkeys(layers, _WEIGHTS), _KERAS)}


def walk(model: keras.Layer, path: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Every layer with its path, parents first; a layer that stands at several places comes at each of them."""
    yield path, model
    used: Counter[str] = Counter()
    for child in children_of(model):
        used[child.name] += 1
        name = child.name if used[child.name] == 1 else f"{child.name}_{used[child.name] - 1}"
        yield from walk(child, f"{path}.{name}" if path else name)


def locals_of(functional: Any) -> list[tuple[Any, str]]:
    """The calls of a functional model in order, each with its name in it: the layer's, numbered if called again."""
    nodes = [
        node
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
        if node.operation is not None and not node.is_input
    ]
    seen: Counter[int] = Counter()
    found = []
    for node in nodes:
        seen[id(node.operation)] += 1
        number = seen[id(node.operation)]
        name = node.operation.name
        found.append((node, name if number == 1 else f"{name}#{number}"))
    return found


def input_shape(layer: keras.Layer) -> tuple[int | None, ...] | None:
    """Shape of the first input at the first call, if it was called."""
    for node in layer._inbound_nodes:
        if node.arguments.keras_tensors:
            return tuple(node.arguments.keras_tensors[0].shape)
    return None


def learning(layer: keras.Layer) -> Iterator[tuple[Any, bool]]:
    """The layer's own parameters, and whether they learn as far as they say; statistics are none.

    A flag of a layer is handed on to what it has when the flag is set, and asked for of a model that is trained only.
    """
    for variable in layer._trainable_variables:
        yield variable, bool(variable.trainable)


def call_name(node: Node) -> str:
    """How a call is found again among those of its scope; a call in code has no name, and is found by its layer."""
    return node.local or (f":{node.layer.path}" if node.layer is not None else "")


class KerasReading:
    """A model as it was read."""

    def __init__(self, model: keras.Model, name: str, leaves: frozenset[str]) -> None:
        self.model = model
        self.name = name or model.name
        self.leaves = leaves
        self.channels = _channels(model)

    @functools.cached_property
    def places(self) -> Mapping[str, keras.Layer]:
        """Path -> layer, each layer once."""
        found: dict[str, keras.Layer] = {}
        seen: set[int] = set()
        for path, layer in walk(self.model):
            if id(layer) not in seen:
                seen.add(id(layer))
                found[path] = layer
        return found

    @functools.cached_property
    def paths(self) -> Mapping[int, str]:
        """Identity of a layer -> its first path."""
        return {id(layer): path for path, layer in self.places.items()}

    @functools.cached_property
    def layers(self) -> Graph:
        """All layers, no calls."""
        return Graph(self.name, (), self._layers)

    @functools.cached_property
    def reads(self) -> Mapping[str, set[int]]:
        """Path of what has code -> identities of the layers of which that code only reads weights."""
        return {
            path: read_only(layer)
            for path, layer in self.places.items()
            if graph_of(layer) is None and children_of(layer)
        }

    @functools.cached_property
    def _only_read(self) -> Mapping[int, str]:
        """Identity of a layer that no graph calls, and code only reads the weights of -> the path of that code."""
        found: dict[int, str] = {}
        called: set[int] = set()
        for path, read in self.reads.items():
            found |= dict.fromkeys(read, path)
            called |= {id(child) for child in children_of(self.places[path])} - read
        called |= {key for key in found if self.places[self.paths[key]]._inbound_nodes}
        return {key: path for key, path in found.items() if key not in called}

    @functools.cached_property
    def _layers(self) -> dict[str, Layer]:
        aliases: dict[int, list[str]] = {}
        for path, layer in walk(self.model):
            if path != self.paths[id(layer)]:
                aliases.setdefault(id(layer), []).append(path)
        return {
            path: self._layer(path, layer, tuple(aliases.get(id(layer), ()))) for path, layer in self.places.items()
        }

    def _layer(self, path: str, layer: keras.Layer, aliases: tuple[str, ...]) -> Layer:
        shape = input_shape(layer)
        children = () if path in self.leaves and path else tuple(self._paths_of(path, layer))
        operation, attributes = layer_operation(layer, shape, self.channels)
        within = [layer] if children else list(layer._flatten_layers())
        own = [(v, learns and self.model.trainable) for part in within for v, learns in learning(part)]
        row = OPERATIONS.get(operation or "")
        statistics = row is not None and row.statistics
        return Layer(
            path=path,
            kind=qualified(type(layer)),
            bases=bases(type(layer)),
            operation=operation,
            attributes=attributes,
            children=children,
            wrapped=self.paths.get(id(getattr(layer, "base_layer", None)), "") if children else "",
            parameters=sum(_size(variable) for variable, _ in own),
            trainable=sum(_size(variable) for variable, learns in own if learns),
            statistics=statistics,
            still=statistics and (not layer.trainable or getattr(layer, "frozen", "") == "stats"),
            training=False,
            aliases=aliases,
            activation="activation" if fused_activation(layer) is not None else None,
            exact=qualified(type(layer)).startswith("keras."),
            uncallable=f"`{self._only_read[id(layer)] or self.name}` reads its weights without calling it"
            if id(layer) in self._only_read
            else "",
        )

    def _paths_of(self, path: str, layer: keras.Layer) -> Iterator[str]:
        for child in children_of(layer):
            yield self.paths[id(child)]

    @functools.cached_property
    def graph(self) -> Graph:
        """All layers and calls."""
        return _Flattener(self).run()

    @property
    def other(self) -> Graph | None:
        """None: a Keras model makes the same calls in either mode."""
        return None


def _channels(model: keras.Model) -> int:
    formats = {getattr(layer, "data_format", None) for layer in model._flatten_layers()}
    formats.discard(None)
    if not formats:
        formats = {keras.config.image_data_format()}
    return 1 if "channels_first" in formats else -1


def _size(variable: Any) -> int:
    size = 1
    for extent in variable.shape:
        size *= int(extent)
    return size


class _Flattener:
    def __init__(self, reading: KerasReading) -> None:
        self.reading = reading
        self.layers = reading._layers
        self.nodes: list[Node] = []
        self.types: dict[tuple[int, tuple[int | str, ...]], TensorType] = {}
        self.opaque: dict[str, str] = {}
        self.mentioned: dict[str, frozenset[str]] = {}

    def run(self) -> Graph:
        model = self.reading.model
        functional = graph_of(model)
        outputs: Sequence[Value] = ()
        if functional is None:
            self._open(model, "", None)
        else:
            given = [Value(None, input=tensor.name) for tensor in functional.inputs]
            outputs = self._expand(functional, "", given, None)
        return Graph(
            self.reading.name,
            tuple(self.nodes),
            self.layers,
            tuple(outputs),
            types=self.types,
            opaque=self.opaque,
            mentioned=self.mentioned,
        )

    def _expand(self, functional: Any, path: str, given: Sequence[Value], owner: Node | None) -> list[Value]:
        env: dict[int, Value] = {id(t): value for t, value in zip(functional.inputs, given, strict=True)}
        for node, local in locals_of(functional):
            made = self._call(node, local, path, env, owner)
            env.update((id(tensor), value) for tensor, value in zip(node.outputs, made, strict=True))
        return [env[id(tensor)] for tensor in functional.outputs]

    def _call(self, call: Any, local: str, path: str, env: Mapping[int, Value], owner: Node | None) -> list[Value]:
        operation = call.operation
        layer = None
        if isinstance(operation, keras.Layer):
            layer = self.layers[self.reading.paths[id(operation)]]
            row, attributes, spelling = layer.operation, layer.attributes, layer.kind
            name = layer.path
        else:
            found = function_operation(operation)
            row, attributes = (found.name if found is not None else None), function_attributes(operation)
            spelling = qualified(type(operation))
            name = f"{path}.{local}" if path else local
        known = OPERATIONS.get(row or "")
        numbered = known is None or known.is_merge
        ports = known.ports if known is not None else ()
        values = [env[id(tensor)] for tensor in call.arguments.keras_tensors]
        operands = tuple(
            Operand(ports[n] if not numbered and n < len(ports) else ("input" if not n else str(n)), n, value)
            if not numbered
            else Operand(str(n), n, value)
            for n, value in enumerate(values)
        )
        inner = graph_of(operation) if layer is not None and layer.path not in self.reading.leaves else None
        node = Node(
            index=len(self.nodes),
            name=name,
            scope=path,
            local=local,
            operation=row,
            spelling=spelling,
            layer=layer,
            inputs=operands,
            attributes=attributes,
            owner=owner,
            composite=inner is not None or bool(layer is not None and layer.children),
            outputs=len(call.outputs) if inner is None or len(call.outputs) == 1 else 0,
        )
        self.nodes.append(node)
        tensors = call.arguments.keras_tensors
        if tensors:
            self.types[node.index, ("input",)] = self._type(tensors[0])
        if inner is not None:
            assert layer is not None, "a model is a layer"
            given = values if len(values) == len(inner.inputs) else [Value(None)] * len(inner.inputs)
            made = self._expand(inner, layer.path, given, node)
            return [Value(v.producer, v.index, (*v.carriers, node), v.known, v.input) for v in made]
        if layer is not None and layer.children:
            self._open(operation, layer.path, node)
        several = len(call.outputs) > 1
        made = [Value(node, (n,) if several else ()) for n in range(len(call.outputs))]
        for value, tensor in zip(made, call.outputs, strict=True):
            self.types[node.index, value.index] = self._type(tensor)
        function = fused_activation(operation)
        return made if function is None else [self._fused(node, function, made[0])]

    def _fused(self, node: Node, function: object, value: Value) -> Value:
        """The activation that a layer applies itself, right behind it."""
        row, attributes = activation_operation(function)
        act = Node(
            index=len(self.nodes),
            name=f"{node.name}.activation",
            scope=node.scope,
            local=f"{call_name(node)}{ACTIVATION}",
            operation=row,
            spelling=activation_spelling(function),
            layer=None,
            inputs=(Operand("input", 0, value),),
            attributes=attributes,
            owner=node.owner,
            linked=node.linked,
        )
        self.nodes.append(act)
        if (node.index, value.index) in self.types:
            self.types[act.index, ()] = self.types[act.index, ("input",)] = self.types[node.index, value.index]
        return Value(act, known=node.linked)

    def _open(self, container: keras.Layer, path: str, owner: Node | None, why: str = "") -> None:
        """Calls of layers inside of code that is no graph: that they are made is known, and nothing of their place."""
        why = why or f"{type(container).__name__} has a `call` of its own, which is code and no graph"
        self.opaque[path] = why
        if not qualified(type(container)).startswith(("keras.", "rewrite.")):
            names = names_in_code(type(container).call)
            # A bare `conv` is an attribute as a rule, and a function of Keras' own seldom: they are told apart.
            operators = names.intersection(OPERATORS.values())
            self.mentioned[path] = operators.union(f"keras.ops.{name}" for name in names)
        read = self.reading.reads.get(self.reading.paths[id(container)], set())
        for child in children_of(container):
            layer = self.layers[self.reading.paths[id(child)]]
            if id(child) in read and not layer.uncallable:  # it is called elsewhere
                continue
            inner = graph_of(child) if layer.path not in self.reading.leaves else None
            node = Node(
                index=len(self.nodes),
                name=layer.path,
                scope=path,
                local="",
                operation=layer.operation,
                spelling=layer.kind,
                layer=layer,
                inputs=(Operand("input", 0, Value(None, known=False)),),
                attributes=layer.attributes,
                owner=owner,
                linked=False,
                composite=bool(layer.children),
                on_layer=True,
            )
            self.nodes.append(node)
            self._type_in_code(node, child)
            if inner is not None:
                self._expand(inner, layer.path, [Value(None, known=False)] * len(inner.inputs), node)
            elif layer.children:
                self._open(child, layer.path, node, why)
            function = fused_activation(child)
            if function is not None:
                self._fused(node, function, Value(node, known=False))

    def _type_in_code(self, node: Node, layer: keras.Layer) -> None:
        """What is known of a layer that code calls: the axes and channels of that for which it was built."""
        built_for = getattr(layer, "_build_shapes_dict", None)
        if not layer.built or not built_for:
            return
        shapes: dict[tuple[int | str, ...], Any] = {("input",): next(iter(built_for.values()))}
        with contextlib.suppress(Exception):  # a class of the user's may not tell, or for other arguments only
            shapes[()] = layer.compute_output_shape(*built_for.values())
        for port, shape in shapes.items():
            if isinstance(shape, tuple | list) and all(size is None or isinstance(size, int) for size in shape):
                axis = self.reading.channels
                known = {1: shape[axis], -1: shape[-1]} if len(shape) > 1 else {}
                sizes = {place: size for place, size in known.items() if size is not None}
                self.types[node.index, port] = TensorType(sizes, rank=len(shape), channels=axis)

    def _type(self, tensor: Any) -> TensorType:
        shape = tuple(tensor.shape)
        return TensorType(rank=len(shape), shape=shape, channels=self.reading.channels)
