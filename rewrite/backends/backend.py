"""What a framework's backend can do: the protocol, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rewrite.edit import Edit, NewLayer
from rewrite.errors import Diagnostic
from rewrite.graph import Graph
from rewrite.sketch import Sketch


@dataclass(frozen=True)
class Example:
    """Arguments of one call of a model."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """The search for arguments that a model takes."""

    example: Example | None
    """arguments that it runs on; None: none were found"""
    tried: tuple[tuple[str, str], ...] = ()
    """(arguments in words, why the model does not take them), in the order in which they were tried"""

    @property
    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments as `apply_rules(example_inputs=...)` takes them."""
        return (self.example.args, dict(self.example.kwargs)) if self.example is not None else None


@dataclass(frozen=True)
class Size:
    """What a model holds."""

    layers: int
    parameters: int
    trainable: int
    keys: tuple[str, ...]
    """of its state_dict, in order"""
    tensors: Mapping[str, tuple[int, tuple[int, ...], bool]]
    """key of each parameter -> how many numbers, shape, whether they learn"""
    numbers: Mapping[str, object] = field(default_factory=dict)
    """key -> what recognises the numbers in it, equal for the same ones under another name"""


@dataclass(frozen=True)
class Ran:
    """What a model did on an example input, computed on shapes only."""

    structure: object
    """how the output is nested; equal for equal nesting"""
    leaves: Sequence[tuple[tuple[int, ...], str] | str]
    """the values in it: (shape, dtype) of a tensor, the class name of anything else"""
    calls: Mapping[str, int]
    """layer path -> how often it was called"""


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two models are apart on real numbers."""

    error: float
    """the largest absolute difference, of the value that is furthest from what is allowed; infinite: NaN on one side"""
    allowed: float
    """the largest difference that rounding explains there"""
    place: str = ""
    """which value of the output that is; empty: the output is one tensor"""
    reason: str = ""
    """why the outputs cannot be compared number by number: structure, shape or dtype; empty: they can"""

    @property
    def is_rounding(self) -> bool:
        """Whether the outputs are the same up to rounding."""
        return not self.reason and self.error <= self.allowed


@dataclass
class Written:
    """What a write made."""

    model: Any
    names: Mapping[int, Sequence[str]]
    """number of the edit -> paths of the layers that it made"""
    warnings: Sequence[Diagnostic] = ()
    """what of the given model is not in the result"""


class Reading(Protocol):
    """A model as it was read; calls are read from its forwards when they are first asked for."""

    @property
    def layers(self) -> Graph:
        """All layers, no calls: nothing is captured for it."""
        ...

    @property
    def graph(self) -> Graph:
        """All layers and calls, in the model's present mode."""
        ...

    @property
    def other(self) -> Graph | None:
        """The same in the other of train and eval mode, where some forward asks which it is."""
        ...


class Backend(Protocol):
    """One framework: it reads, writes and runs models."""

    name: str

    def handles(self, model: object) -> bool:
        """Whether `model` is of this framework."""
        ...

    def unwrap(self, model: Any) -> Any:
        """The model inside of wrappers that only run it, such as a compiled one; any other model is its own."""
        ...

    def wrap_like(self, given: Any, written: Any) -> Any:
        """What was made of the inside of `given`, in the same wrappers."""
        ...

    def class_names(self, model: Any) -> frozenset[str]:
        """Bare names of the classes of all layers and their bases."""
        ...

    def dotted_name(self, cls: object) -> str:
        """Dotted name of a class that the caller gave."""
        ...

    def read(
        self,
        model: Any,
        *,
        example: Example | None = None,
        name: str = "",
        before: Reading | None = None,
        leaves: frozenset[str] = frozenset(),
    ) -> Reading:
        """Reads a model; it is not changed and none of its layers is run.

        Args:
            model: the model.
            example: arguments that the forwards are read with and exact shapes come from.
            name: what reports call the model.
            before: an earlier reading, whose unchanged parts are taken over.
            leaves: paths of modules that are one call each, whatever they are made of.

        """
        ...

    def write(
        self, reading: Reading, edits: Sequence[Edit], modules: Mapping[str, Callable[..., Any]], seed: int
    ) -> Written:
        """A changed copy of the model; what is not edited is shared with it."""
        ...

    def separate(self, model: Any, given: Any) -> Any:
        """`model` with no module in common with `given`, so that using the one does not reach the other."""
        ...

    def trial(
        self, layers: Sequence[NewLayer], shapes: Sequence[tuple[int, ...]], modules: Mapping[str, Callable[..., Any]]
    ) -> tuple[int, ...] | str:
        """Shape that new layers make of values of some shapes, or why they do not take them."""
        ...

    def find(self, model: Any, path: str) -> object:
        """The module at a path: what functions of the caller are handed for a call of it."""
        ...

    def taps(self, model: Any) -> Mapping[str, Any]:
        """What each tap of a model has seen last, by its name.

        Raises:
            RuleError: two taps have one name (RW109).

        """
        ...

    def size(self, model: Any) -> Size:
        """Counts of a model."""
        ...

    def run(self, model: Any, example: Example) -> Ran:
        """Runs a model on shapes only, in its present mode.

        Raises:
            SiteError: it does not run on this example (RW203).

        """
        ...

    def probe(self, model: Any, batch: int) -> Probe:
        """Looks for arguments that a model takes: guessed from its signature and its layers, and tried on shapes."""
        ...

    def compare(self, model: Any, written: Any, example: Example) -> Difference:
        """Runs two models on real numbers, in eval mode and with the same random numbers; neither is changed.

        Raises:
            SiteError: one of them has no numbers, or does not run on this example (RW203).

        """
        ...

    def compare_training(self, model: Any, written: Any, example: Example) -> Difference:
        """Runs one step of training of copies of both, with the same random numbers, layers of the second only at rest.

        Compared are outputs, gradients of shared parameters, and buffers behind the step.

        Raises:
            SiteError: one of them has no numbers, does not run on this example, or does not do the same twice (RW203).

        """
        ...

    def assemble(self, sketch: Sketch, modules: Mapping[str, Callable[..., Any]]) -> Any:
        """A small model from a description of its calls, in eval mode; the same one every time.

        Raises:
            RuleError: a layer cannot be built (RW106).

        """
        ...

    def history(self, model: Any) -> tuple[str, ...]:
        """Marks of the clauses that were applied to this model before."""
        ...

    def set_history(self, model: Any, marks: tuple[str, ...]) -> None:
        """Leaves the marks on a model that a write has made."""
        ...
