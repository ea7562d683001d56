"""What one write of a Keras model has made so far, and how it makes new layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from rewrite.backends.keras.attributes import activation_for
from rewrite.backends.keras.edits import sorted_edits
from rewrite.backends.keras.layers import Builder
from rewrite.backends.keras.own_layers import HalfFrozenBatchNormalization, computing_policy
from rewrite.backends.keras.reader import KerasReading, graph_of
from rewrite.backends.keras.spellings import FUSED, bases, fused_activation
from rewrite.edit import Edit, NewLayer, Update
from rewrite.errors import Diagnostic
from rewrite.graph import Layer

NORMS = (keras.layers.BatchNormalization, HalfFrozenBatchNormalization)
"""classes that take each other's place where halves of them are frozen"""


@dataclass(frozen=True)
class Pair:
    """A layer, and the one that has its numbers in the copy."""

    old: keras.Layer
    new: keras.Layer
    whole: bool = True
    """with all that is in it; else its own variables alone"""


class Making:
    """The state of one write; `Writer` is the whole of it.

    Args:
        reading: the model.
        builder: makes new layers.
        edits: what changes.

    """

    def __init__(self, reading: KerasReading, builder: Builder, edits: Sequence[Edit]) -> None:
        self.reading = reading
        self.builder = builder
        self.edits = sorted_edits(edits)
        self.edits.remade |= {path for path in self.edits.updates if self._changes_halves(path)}
        self.names: dict[int, list[str]] = {number: [] for number in range(len(edits))}
        self.copies: dict[int, Any] = {}
        """identity of an operation of the given model -> its copy"""
        self.chains: dict[str, list[Any]] = {}
        """path of a replaced layer -> what stands there now"""
        self.shared: dict[str, list[Any]] = {}
        self.acts: dict[str, Any] = {}
        """path of a layer -> the layer that its activation has become"""
        self.bare: set[str] = set()
        """paths of layers whose activation is applied by the layer that wraps them"""
        self.taken: dict[str, set[str]] = {}
        """path of a model -> the names in it"""
        self.configured: set[str] = set()
        """paths of layers that were made by their own configuration"""
        self.pairs: list[Pair] = []
        """layers and their copies, whose variables are filled when all are built"""
        self.warnings: list[Diagnostic] = []
        self.beside: Any = None
        """the operation around whose call new layers come to stand"""

    def _copy(self, operation: Any) -> Any:
        """The copy of an operation of the given model, made once."""
        raise NotImplementedError

    def _changes_halves(self, path: str) -> bool:
        """Whether a BatchNormalization is half frozen before or after, but not both times in the same way."""
        layer = self.reading.places[path]
        if type(layer) not in NORMS:
            return False
        learns, moves = wanted_training(self.reading._layers[path], self.edits.updates[path])
        return getattr(layer, "frozen", None) != (None if learns == moves else "params" if moves else "stats")

    # ---- new layers

    def _line(
        self,
        layers: Sequence[NewLayer],
        number: int,
        stem: str,
        path: str,
        rank: int,
        *,
        own: str | None = None,
        old: Any = None,
        function: Any = None,
    ) -> list[Any]:
        """New layers that are not called yet; the arguments are those of a chain."""
        made: list[Any] = []
        for new in layers:
            name = own if new is layers[-1] else None
            around = self._around(old, new) if new.wraps else None
            for layer in self._new(new, stem, name, path, number, rank, around):
                if old is not None and type(layer) is type(old):
                    self.pairs.append(Pair(old, layer))  # equal shapes keep the weights
                made.append(layer)
                if new is layers[-1]:
                    _take_activation(layer, function)
        return made

    def _new(
        self, new: NewLayer, stem: str, name: str | None, path: str, number: int, rank: int, around: Any
    ) -> list[Any]:
        if new.share and new.share in self.shared:
            return self.shared[new.share]
        name = name or self._name(f"{stem}_{new.stem}", path)
        *ahead, layer = self.builder.build(new, rank, around)
        layer.name = name
        for one in ahead:
            one.name = self._name(f"{name}_pad", path)
        self.names[number].append(f"{path}.{name}" if path else name)
        if new.share:
            self.shared[new.share] = [*ahead, layer]
        return [*ahead, layer]

    def _around(self, old: Any, new: NewLayer) -> Any:
        """The layer that a new one is made around; a LoRA applies its activation itself."""
        if new.operation is not None and fused_activation(old) is not None:
            self.bare.add(self.reading.paths[id(old)])
        copy = self._copy(old)
        if new.operation is not None:
            copy.name = "base_layer"
        return copy

    def _name(self, name: str, path: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        taken, found, number = self.taken[path], name, 0
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        taken.add(found)
        return found

    # ---- activations that layers apply themselves

    def _function(self, own: str, operation: Any) -> Any:
        """The activation that a layer applies itself, after a `set`; None: the identity."""
        for update in reversed(self.edits.updates.get(own, ())):
            if ".activation" in update.changes:
                found = activation_for(update.changes[".activation"], self.builder)
                return None if found == "linear" else keras.activations.get(found)
        return fused_activation(operation)

    def _activation(self, own: str, function: Any, path: str) -> Any:
        if own not in self.acts:
            name = self._name(f"{own.rpartition('.')[2]}_activation", path)
            if isinstance(function, keras.Layer):
                layer = type(function).from_config({**function.get_config(), "name": name})
                self.pairs.append(Pair(function, layer))
            else:
                layer = keras.layers.Activation(function, name=name, dtype=policy(self.reading.places[own]))
            self.acts[own] = layer
        return self.acts[own]

    def _keeps_own(self, own: str) -> bool:
        """Whether a layer goes on inside of a class of the caller's, where it applies its activation as before."""
        return any(new.wraps and new.operation is None for new in self.edits.layers[own][1].layers)

    def _took(self, own: str) -> bool:
        """Whether what stands in the place of a layer applies its activation itself."""
        last = self.chains[own][-1]
        return any(base in FUSED for base in bases(type(last)))


def wanted_training(layer: Layer, updates: Sequence[Update]) -> tuple[bool, bool]:
    """Whether the parameters of a layer learn and whether its statistics move, after all updates."""
    learns, moves = layer.trainable > 0, not layer.still
    for update in updates:
        learns = bool(update.changes.get("trainable", learns))
        if "statistics" in update.changes:
            moves = update.changes["statistics"] == "moving"
    return (learns if layer.parameters else moves), moves


def policy(*beside: Any) -> Any:
    """The policy of numbers at a place: that of the first layer, or of the layer behind the first value, that has one.

    None: it is nowhere told, as behind an input.
    """
    for origin in beside:
        if isinstance(origin, keras.KerasTensor):
            origin = origin._keras_history.operation
        if isinstance(origin, keras.layers.InputLayer) or origin is None:
            continue
        functional = graph_of(origin)
        if functional is not None:
            found = policy(*functional.outputs)
        elif isinstance(origin, keras.Layer):
            found = computing_policy(origin)
        else:
            found = policy(*origin._inbound_nodes[0].arguments.keras_tensors)
        if found is not None:
            return found
    return None


def _take_activation(layer: Any, function: Any) -> None:
    """What was fused stays fused where the new layer can."""
    if function is not None and any(base in FUSED for base in bases(type(layer))):
        if isinstance(function, keras.Layer):
            function = type(function).from_config(function.get_config())
        layer.activation = function
