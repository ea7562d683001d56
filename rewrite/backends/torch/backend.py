"""The PyTorch backend: `torch.nn.Module`s read, written and run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rewrite.backends.backend import Difference, Example, Probe, Ran, Reading, Size, Written
from rewrite.backends.torch.assembly import assemble
from rewrite.backends.torch.calls import Calls
from rewrite.backends.torch.capture import capture
from rewrite.backends.torch.comparison import compare, compare_training
from rewrite.backends.torch.layers import Builder, trial
from rewrite.backends.torch.module_reader import read_layers
from rewrite.backends.torch.modules import all_paths, find_lazy, find_wrapper, memory_of, separate, walk
from rewrite.backends.torch.own_layers import taps
from rewrite.backends.torch.probing import probe
from rewrite.backends.torch.reader import flatten
from rewrite.backends.torch.run import observed_arguments, record_types, run_on_shapes
from rewrite.backends.torch.scopes import Capture, Scope
from rewrite.backends.torch.spellings import is_leaf, qualified
from rewrite.backends.torch.wrapping import unwrap, wrap_like
from rewrite.backends.torch.writer import Writer
from rewrite.edit import Edit, NewLayer
from rewrite.errors import Diagnostic
from rewrite.graph import Graph
from rewrite.sketch import Sketch

_HISTORY = "_rewrite_history"


class TorchReading:
    """A model whose forwards are captured when a call in them is first asked for."""

    def __init__(
        self,
        model: nn.Module,
        example: Example | None,
        name: str,
        before: TorchReading | None,
        leaves: frozenset[str],
    ) -> None:
        self.model = model
        self.leaves = leaves
        self.example = example
        self.name = name or type(model).__name__
        self.before = before

    @functools.cached_property
    def layers(self) -> Graph:
        """All layers, no calls."""
        return Graph(self.name, (), read_layers(self.model, {}, self.leaves))

    @functools.cached_property
    def capture(self) -> Capture:
        """Every forward."""
        known: dict[nn.Module, Scope] = {}
        if self.before is not None:
            if "capture" in self.before.__dict__ and self.before.leaves == self.leaves:
                known = dict(self.before.capture.scopes)
            self.before = None  # one step back is enough, and the model before need not be kept alive
        examples = observed_arguments(self.model, self.example) if self.example is not None else None
        return capture(self.model, known, examples, self.leaves)

    @functools.cached_property
    def _flat(self) -> tuple[Graph, Graph | None, dict[nn.Module, Calls]]:
        layers = read_layers(self.model, self.capture.read_only, self.leaves)
        graph, other, calls = flatten(self.capture, layers, self.name)
        if self.example is not None:
            graph = replace(graph, types=record_types(self.capture, calls, graph, other, self.example))
        return graph, other, calls

    @property
    def graph(self) -> Graph:
        """All layers and calls, in the model's present mode."""
        return self._flat[0]

    @property
    def other(self) -> Graph | None:
        """The same in the other mode, where there is a difference."""
        return self._flat[1]

    @property
    def calls(self) -> dict[nn.Module, Calls]:
        """The calls of each captured scope by name; empty as long as none was asked for."""
        return self._flat[2] if "_flat" in self.__dict__ else {}

    @property
    def known(self) -> Capture:
        """What is captured so far; without captures the paths of the modules are enough for edits of layers."""
        if "capture" in self.__dict__:
            return self.capture
        return Capture(self.model, all_paths(self.model), {}, {})


class TorchBackend:
    """See `rewrite.backends.backend.Backend`."""

    name = "torch"

    def handles(self, model: object) -> bool:
        """Whether it is a module."""
        return isinstance(model, nn.Module)

    def unwrap(self, model: nn.Module) -> nn.Module:
        return unwrap(model)

    def wrap_like(self, given: nn.Module, written: nn.Module) -> nn.Module:
        return wrap_like(given, written)

    def class_names(self, model: nn.Module) -> frozenset[str]:
        """Bare names of the classes of all layers and their bases."""
        classes = {type(module) for module in model.modules()}
        return frozenset(base.__name__ for cls in classes for base in cls.__mro__ if base not in (nn.Module, object))

    def dotted_name(self, cls: object) -> str:
        """Dotted name of a class."""
        return qualified(cls) if isinstance(cls, type) else ""

    def read(
        self,
        model: nn.Module,
        *,
        example: Example | None = None,
        name: str = "",
        before: Reading | None = None,
        leaves: frozenset[str] = frozenset(),
    ) -> TorchReading:
        """A reading; forwards are captured on demand.

        Raises:
            SafetyError: a part of the model is compiled, scripted, traced or wrapped or still
                without weights (RW504).

        """
        wrapper = find_wrapper(model) if before is None else None
        if wrapper is not None:
            path, kind, remedy = wrapper
            where = f"`{path}` is" if path else "the model is"
            raise Diagnostic("RW504", f"{where} a {kind}, whose code no rule can reach", help=f"{remedy}").error()
        lazy = find_lazy(model) if before is None else None
        if lazy is not None:
            who = f"`{lazy}` ({type(model.get_submodule(lazy)).__name__})"
            raise Diagnostic(
                "RW504",
                f"the weights of {who} have no shape yet",
                notes=("a lazy layer makes them at its first call, and that call would reach the given model as well",),
                help="call the model once on an example input, then apply the rules",
            ).error()
        return TorchReading(model, example, name, before if isinstance(before, TorchReading) else None, leaves)

    def taps(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        return taps(model)

    def find(self, model: nn.Module, path: str) -> nn.Module:
        return model.get_submodule(path)

    def write(
        self, reading: Reading, edits: Sequence[Edit], modules: Mapping[str, Callable[..., Any]], seed: int
    ) -> Written:
        """A changed copy. The reading is used up by it: its graphs have become those of the copy."""
        assert isinstance(reading, TorchReading), "a reading is written by the backend that made it"
        writer = Writer(reading.known, reading.calls, Builder(modules, seed))
        model, names = writer.run(edits)
        for module in writer.changed_scopes():
            reading.known.scopes.pop(module, None)
        return Written(model, names)

    def separate(self, model: nn.Module, given: nn.Module) -> nn.Module:
        """Copies the modules that are still shared."""
        return separate(model, given)

    def trial(
        self, layers: Sequence[NewLayer], shapes: Sequence[tuple[int, ...]], modules: Mapping[str, Callable[..., Any]]
    ) -> tuple[int, ...] | str:
        """Runs new layers on the meta device."""
        return trial(layers, shapes, Builder(modules, 0))

    def size(self, model: nn.Module) -> Size:
        """Counts of a model; a parameter that is used twice counts once."""
        layers = 0
        keys: list[str] = []
        numbers: dict[nn.Parameter, tuple[int, bool]] = {}
        by_key: dict[str, tuple[int, tuple[int, ...], bool]] = {}
        memory: dict[str, object] = {}
        inside: set[nn.Module] = set()
        for path, module in walk(model):
            prefix = f"{path}." if path else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    keys.append(prefix + name)
                    size, learns = parameter.numel(), parameter.requires_grad
                    numbers[parameter] = (size, learns)
                    by_key[prefix + name] = (size, tuple(parameter.shape), learns)
                    memory[prefix + name] = memory_of(parameter)
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent_buffers_set:
                    keys.append(prefix + name)
                    memory[prefix + name] = memory_of(buffer)
            if type(module).get_extra_state is not nn.Module.get_extra_state:
                keys.append(prefix + "_extra_state")
                own = next((value for value in module._parameters.values() if value is not None), None)
                memory[prefix + "_extra_state"] = ("extra", memory_of(own) if own is not None else id(module))
            if is_leaf(module) and module not in inside:
                layers += 1
                if module._modules:
                    inside.update(module.modules())  # an attention layer's projections are parts of it
        parameters = sum(number for number, _ in numbers.values())
        trainable = sum(number for number, learns in numbers.values() if learns)
        return Size(layers, parameters, trainable, tuple(keys), by_key, memory)

    def run(self, model: nn.Module, example: Example) -> Ran:
        """Runs a model on fake tensors."""
        return run_on_shapes(model, example)

    def probe(self, model: nn.Module, batch: int) -> Probe:
        """Tries what the names of its arguments and its first layers suggest."""
        return probe(model, batch)

    def compare(self, model: nn.Module, written: nn.Module, example: Example) -> Difference:
        """Runs copies of both on real numbers."""
        return compare(model, written, example)

    def compare_training(self, model: nn.Module, written: nn.Module, example: Example) -> Difference:
        """Runs one step of copies of both in training mode."""
        return compare_training(model, written, example)

    def assemble(self, sketch: Sketch, modules: Mapping[str, Callable[..., Any]]) -> nn.Module:
        """A module whose children are the layers of the sketch."""
        return assemble(sketch, Builder(modules, 0))

    def history(self, model: nn.Module) -> tuple[str, ...]:
        """Marks on the root module, which travel with copies and pickles of it."""
        found: tuple[str, ...] = model.__dict__.get(_HISTORY, ())
        return found

    def set_history(self, model: nn.Module, marks: tuple[str, ...]) -> None:
        """Sets the marks on a fresh root."""
        model.__dict__[_HISTORY] = marks
