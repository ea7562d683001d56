"""A model as rules see it: `Graph` of `Node`s (one call each) and `Layer`s (what is called). Frozen, framework-free.

A backend reads a model into this. Nodes of calls inside a module that is itself called are kept beside the node of
that outer call (`Node.owner`), and values know both who made them and through which outer calls they left, so that
matching sees the whole model as one graph while every edit stays within one scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, slots=True)
class TensorType:
    """What is known of a tensor: sizes by axis (None: not known), dtype name, and the rank if it is known.

    Without an example input only single axes are known: `sizes` maps an axis (1, or -1 for the last) to a size.
    """

    sizes: Mapping[int, int] = field(default_factory=dict)
    rank: int | None = None
    shape: tuple[int | None, ...] | None = None
    """the whole shape, from an example input or from the model itself; None stands for an axis of any size"""
    channels: int = 1
    """the axis of `shape` that holds the channels: -1 where they come last"""

    def size(self, axis: int) -> int | None:
        """Size of `axis`, counted as in the vocabulary (1: channels, -1: last)."""
        if self.shape is not None:
            axis = self.channels if axis == 1 and len(self.shape) > 1 else axis
            return self.shape[axis] if -len(self.shape) <= axis < len(self.shape) else None
        if axis in self.sizes:
            return self.sizes[axis]
        if self.rank is not None:
            return self.sizes.get(axis - self.rank if axis >= 0 else axis + self.rank)
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One module of the model, called or not."""

    path: str
    """dotted path from the root; the root is the empty string"""
    kind: str
    """dotted name of its class"""
    bases: tuple[str, ...]
    """dotted names of its class and all base classes"""
    operation: str | None
    """name in the vocabulary; None for a container and for a class that the vocabulary does not know"""
    attributes: Mapping[str, object]
    """constructor arguments as far as the layer still carries them, plain values only"""
    children: tuple[str, ...]
    """paths of its direct children"""
    parameters: int = 0
    """how many numbers its own parameters hold, children not included"""
    trainable: int = 0
    """how many of those receive gradients"""
    statistics: bool = False
    """keeps moving statistics"""
    still: bool = False
    """its statistics are frozen"""
    training: bool = False
    aliases: tuple[str, ...] = ()
    """further paths of the very same module"""
    activation: str | None = None
    """name of the child or attribute that is its activation, for a class outside the vocabulary"""
    exact: bool = True
    """computes just what its operation computes; False for a subclass with a forward of its own"""
    wrapped: str = ""
    """path of the child that this layer is built around (LoRA); that one is a layer of its own, not a part of this"""
    uncallable: str = ""
    """why a call of this layer cannot be extended (its weights are read without calling it); empty: it can"""

    @property
    def class_name(self) -> str:
        """The class without its module."""
        return self.kind.rpartition(".")[2]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What a call returns, or one part of it."""

    producer: Node | None
    """the innermost call that made it; None: an input of the model, or not known"""
    index: tuple[int | str, ...] = ()
    """which part, where the producer returns several"""
    carriers: tuple[Node, ...] = ()
    """outer calls through whose end the value left on its way to the consumer, innermost first"""
    known: bool = True
    """False: made where the forward could not be captured"""
    input: str = ""
    """name of the input of the model that this is; empty: it is none, or not known"""


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """One tensor input of a call."""

    name: str
    """the parameter that takes it (`input`, `query`), or its number for a merge"""
    number: int
    """position among the tensor inputs, from 0"""
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One call. Two nodes may share a layer."""

    index: int
    """order of execution"""
    name: str
    """what people are shown: the layer's path, or the scope's path and the function's name"""
    scope: str
    """path of the module whose forward makes the call"""
    local: str
    """name of the call within that forward; empty where the forward could not be captured"""
    operation: str | None
    spelling: str
    """`nn.ReLU`, `F.relu`, `Tensor.relu_`"""
    layer: Layer | None
    inputs: tuple[Operand, ...]
    attributes: Mapping[str, object]
    owner: Node | None
    """the outer call that this call is a part of"""
    linked: bool = True
    """False: the forward around it could not be captured, so its neighbours are not known"""
    composite: bool = False
    """whether calls inside this one are nodes as well"""
    outputs: int = 1
    """how many values it returns; 0: several, how many is not fixed"""
    mode: str = ""
    """`train` or `eval` for a call that is made in that mode only"""
    training: bool = False
    """mode of the layer, or of the module around a function"""
    on_layer: bool = False
    """an edit around this call extends the layer itself: what calls it is left as it is"""
    assumed: str = ""
    """the argument that the forward around it was read without, although nobody knows who calls that forward and how"""
    extended: bool = False
    """the call of this layer was extended before"""


@dataclass(frozen=True, eq=False)
class Graph:
    """All calls of a model in order of execution, and all its layers."""

    name: str
    nodes: tuple[Node, ...]
    layers: Mapping[str, Layer]
    outputs: tuple[Value, ...] = ()
    """values that the model returns, flattened"""
    types: Mapping[tuple[int, tuple[int | str, ...]], TensorType] = field(default_factory=dict)
    """exact types from an example input: (node index, part) -> type"""
    opaque: Mapping[str, str] = field(default_factory=dict)
    """path of each module whose forward could not be captured -> why"""
    closed: Mapping[str, str] = field(default_factory=dict)
    """path of each captured module that calls a function whose inside is not seen -> which"""
    guessed: Mapping[str, str] = field(default_factory=dict)
    """path of each captured module that was read without an argument which its callers may give -> which"""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """way in which forwards are edited (`list`, `graph`, `opaque`) -> how many modules are"""
    mentioned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """path of each of these -> the names in code that was not seen, among them those of functions that it may call"""

    @cached_property
    def uses(self) -> Mapping[int, tuple[tuple[Node, Operand], ...]]:
        """Node index -> every (consumer, operand) that takes a value of that node, outer calls included."""
        found: dict[int, list[tuple[Node, Operand]]] = {}
        for node in self.nodes:
            for operand in node.inputs:
                if operand.value.producer is not None:
                    found.setdefault(operand.value.producer.index, []).append((node, operand))
        return {index: tuple(uses) for index, uses in found.items()}

    @cached_property
    def taken(self) -> Mapping[int, tuple[tuple[Node, Operand], ...]]:
        """As `uses`, and for an outer call every (consumer, operand) whose value left through its end."""
        found: dict[int, list[tuple[Node, Operand]]] = {}
        for node in self.nodes:
            for operand in node.inputs:
                made = operand.value.producer
                for source in (*([made] if made is not None else []), *operand.value.carriers):
                    found.setdefault(source.index, []).append((node, operand))
        return {index: tuple(uses) for index, uses in found.items()}

    @cached_property
    def inner_outputs(self) -> Mapping[int, tuple[Value, ...]]:
        """Index of an outer call -> the values inside it that it returns, as far as anything takes them."""
        found: dict[int, dict[tuple[int, tuple[int | str, ...]], Value]] = {}
        taken = [operand.value for node in self.nodes for operand in node.inputs]
        for value in (*taken, *self.outputs):
            if value.producer is None:
                continue
            for carrier in value.carriers:
                found.setdefault(carrier.index, {})[value.producer.index, value.index] = value
        return {index: tuple(values.values()) for index, values in found.items()}

    @cached_property
    def runs(self) -> Mapping[tuple[str, str], tuple[Node, ...]]:
        """(scope, local name) -> the calls that this one place in a forward makes; several if its module runs again."""
        found: dict[tuple[str, str], list[Node]] = {}
        for node in self.nodes:
            found.setdefault((node.scope, node.local), []).append(node)
        return {place: tuple(nodes) for place, nodes in found.items()}

    @cached_property
    def calls(self) -> Mapping[str, tuple[Node, ...]]:
        """Layer path -> the calls of that layer."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.layer is not None:
                found.setdefault(node.layer.path, []).append(node)
        return {path: tuple(nodes) for path, nodes in found.items()}
