"""The Keras backend: `keras.Model`s read, written and run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from rewrite import vocabulary
from rewrite.backends.backend import Difference, Example, Probe, Ran, Reading, Size, Written
from rewrite.backends.keras.layers import Builder, trial
from rewrite.backends.keras.own_layers import Tap
from rewrite.backends.keras.reader import KerasReading, children_of, learning, walk
from rewrite.backends.keras.run import compare, run_on_shapes
from rewrite.backends.keras.spellings import bases, qualified
from rewrite.backends.keras.writer import Writer
from rewrite.edit import Edit, NewLayer
from rewrite.errors import Diagnostic, RewriteError
from rewrite.sketch import Sketch

_HISTORY = "_rewrite_history"
_OPEN_EXTENT = 64
"""for axes of an input whose size is left open"""


class KerasBackend:
    """See `rewrite.backends.backend.Backend`."""

    name = "keras"

    def __init__(self) -> None:
        self.channels = -1
        """the axis of the channels in the model that was read last"""

    def handles(self, model: object) -> bool:
        """Whether it is a model of Keras."""
        return isinstance(model, keras.Model)

    def unwrap(self, model: keras.Model) -> keras.Model:
        """Keras wraps no models."""
        return model

    def wrap_like(self, given: keras.Model, written: keras.Model) -> keras.Model:
        """Keras wraps no models."""
        return written

    def class_names(self, model: keras.Model) -> frozenset[str]:
        """Bare names of the classes of all layers and their bases, those aside that are names of the vocabulary."""
        names = {base for _, layer in walk(model) for base in bases(type(layer))}
        return frozenset(
            name.rpartition(".")[2]
            for name in names
            if not (name.startswith("keras.layers.") and vocabulary.keras_alias(name.rpartition(".")[2]))
        )

    def dotted_name(self, cls: object) -> str:
        """Dotted name of a class."""
        return qualified(cls) if isinstance(cls, type) else ""

    def read(
        self,
        model: keras.Model,
        *,
        example: Example | None = None,
        name: str = "",
        before: Reading | None = None,
        leaves: frozenset[str] = frozenset(),
    ) -> KerasReading:
        """A reading; shapes are those that the model was built with."""
        reading = KerasReading(model, name, leaves)
        self.channels = reading.channels
        return reading

    def taps(self, model: keras.Model) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for _, layer in walk(model):
            if isinstance(layer, Tap):
                if layer.tap in found:
                    raise Diagnostic("RW109", f"the model has two taps called `{layer.tap}`").error()
                found[layer.tap] = layer.__dict__.get("seen")
        return found

    def find(self, model: keras.Model, path: str) -> object:
        return next(layer for where, layer in walk(model) if where == path)

    def write(
        self, reading: Reading, edits: Sequence[Edit], modules: Mapping[str, Callable[..., Any]], seed: int
    ) -> Written:
        """A changed copy, with variables of its own."""
        assert isinstance(reading, KerasReading), "a reading is written by the backend that made it"
        return Writer(reading, Builder(modules, seed, reading.channels), edits).run()

    def separate(self, model: keras.Model, given: keras.Model) -> keras.Model:
        """Nothing is shared with what a write has made."""
        return model

    def trial(
        self, layers: Sequence[NewLayer], shapes: Sequence[tuple[int, ...]], modules: Mapping[str, Callable[..., Any]]
    ) -> tuple[int, ...] | str:
        """Asks new layers for the shapes that they would make."""
        found: tuple[int, ...] | str = trial(layers, shapes, Builder(modules, 0, self.channels))
        return found

    def size(self, model: keras.Model) -> Size:
        """Counts of a model; a variable that is used twice counts once."""
        graph = KerasReading(model, "", frozenset()).layers
        places = dict(walk(model))
        keys: list[str] = []
        tensors: dict[str, tuple[int, tuple[int, ...], bool]] = {}
        layers = parameters = trainable = 0
        for path, layer in graph.layers.items():
            layers += not layer.children
            parameters += layer.parameters
            trainable += layer.trainable
            parts = [places[path]] if children_of(places[path]) else list(places[path]._flatten_layers())
            known: Counter[str] = Counter()
            for part in parts:
                owned = [(v, learns, True) for v, learns in learning(part)]
                owned += [(v, False, False) for v in part._non_trainable_variables]
                for variable, learns, parameter in owned:
                    known[variable.name] += 1
                    number = known[variable.name]
                    name = variable.name if number == 1 else f"{variable.name}_{number - 1}"
                    key = f"{path}.{name}" if path else name
                    keys.append(key)
                    if parameter:
                        shape = tuple(int(size) for size in variable.shape)
                        count = 1
                        for size in shape:
                            count *= size
                        tensors[key] = (count, shape, learns and layer.trainable > 0)
        return Size(layers, parameters, trainable, tuple(keys), tensors)

    def run(self, model: keras.Model, example: Example) -> Ran:
        """Runs a model on shapes."""
        return run_on_shapes(model, example)

    def probe(self, model: keras.Model, batch: int) -> Probe:
        """Arguments for a model that states its inputs, with small extents where those are left open."""
        try:
            inputs = model.inputs
        except AttributeError:  # a subclassed model that was never called
            return Probe(None, (("nothing", "the model states no inputs"),))
        generator = np.random.default_rng(0)
        made = []
        for tensor in inputs:
            sizes = [batch, *(_OPEN_EXTENT if size is None else size for size in tensor.shape[1:])]
            whole = "int" in str(tensor.dtype)
            drawn = generator.integers(0, 2, sizes) if whole else generator.standard_normal(sizes)
            made.append(drawn.astype(str(tensor.dtype)))
        example = Example(tuple(made))
        try:
            self.run(model, example)
        except RewriteError as problem:
            return Probe(None, (("the inputs that it states", problem.diagnostics[0].message),))
        return Probe(example)

    def compare_training(self, model: keras.Model, written: keras.Model, example: Example) -> Difference:
        """Not done: gradients of Keras models depend on the framework below."""
        raise Diagnostic(
            "RW320",
            "steps of training are not compared on Keras",
            help="`expect equivalent` compares what the models compute",
        ).error()

    def compare(self, model: keras.Model, written: keras.Model, example: Example) -> Difference:
        """Runs both in inference mode."""
        return compare(model, written, example)

    def assemble(self, sketch: Sketch, modules: Mapping[str, Callable[..., Any]]) -> keras.Model:
        """Not done: the models of rule tests are made in PyTorch."""
        raise Diagnostic("RW320", "the small models of rule tests are not made in Keras").error()

    def history(self, model: keras.Model) -> tuple[str, ...]:
        """Marks on the model in memory; a file does not keep them."""
        found: tuple[str, ...] = model.__dict__.get(_HISTORY, ())
        return found

    def set_history(self, model: keras.Model, marks: tuple[str, ...]) -> None:
        """Sets the marks on a fresh model."""
        model.__dict__[_HISTORY] = marks
