"""New layers: a row of the vocabulary and its arguments as a layer of Keras, weights drawn from a seed of their own."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from rewrite.backends.keras.makers import MAKERS, Place, activation, is_activation
from rewrite.backends.keras.own_layers import LoRA
from rewrite.backends.keras.refusal import cannot
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic, RewriteError
from rewrite.vocabulary import OPERATIONS

MOST_NUMBERS = 1 << 30
"""how many numbers one new layer may hold; a typing slip of three zeros should not fill the memory"""


class Builder:
    """Builds the new layers of one write.

    Args:
        modules: classes that the caller gave, by the name that rules use.
        seed: the caller's seed.
        channels: the axis of the channels in the model, 1 or -1.

    """

    def __init__(self, modules: Mapping[str, Callable[..., Any]], seed: int, channels: int) -> None:
        self.modules = modules
        self.seed = seed
        self.channels = channels
        self.policy: Any = None
        """the policy of numbers for what is made next; None: Keras' own"""

    @contextlib.contextmanager
    def own_policy(self) -> Iterator[None]:
        """Lets Keras make layers of the policy of their place, and leaves its own as it was."""
        before = keras.config.dtype_policy()
        try:
            keras.config.set_dtype_policy(self.policy or before)
            yield
        finally:
            keras.config.set_dtype_policy(before)

    @contextlib.contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Leaves the generator that Keras draws its seeds from as it was."""
        state = random.getstate()
        try:
            self.seed_for("")
            yield
        finally:
            random.setstate(state)

    def seed_for(self, name: str) -> None:
        """Seeds what is drawn next, so that it does not depend on what was drawn before."""
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        random.seed(int.from_bytes(digest[:7], "big"))

    def build(self, new: NewLayer, rank: int, around: Any = None) -> list[Any]:
        """One new layer, the last in the list, and what Keras needs in front of it; weights come with the first call.

        Args:
            new: what it is.
            rank: number of axes of its input.
            around: the layer that it wraps.

        Raises:
            RuleError: its class refuses the arguments (RW106), or it would be larger than `MOST_NUMBERS` (RW112).
            PlanError: Keras has no such layer (RW320).

        """
        self.seed_for(new.seed)
        try:
            with self.own_policy():
                if new.operation is not None:
                    layers = self._make(new, Place(self.channels, rank), around)
                else:
                    first = () if around is None else (around,)
                    layers = [self.modules[new.external or ""](*first, *new.arguments, **new.keywords)]
        except RewriteError:
            raise
        except Exception as problem:
            text = str(problem).strip().splitlines()
            raise Diagnostic(
                "RW106", f"`{new}` cannot be built: {text[0] if text else type(problem).__name__}", new.span
            ).error() from problem
        if not isinstance(layers[-1], keras.Layer):
            raise Diagnostic(
                "RW106",
                f"`{new.name}` makes a {type(layers[-1]).__name__}, not a layer",
                new.span,
                help="`modules=` maps a name to a subclass of keras.Layer or to a function that returns a layer",
            ).error()
        return layers

    @staticmethod
    def arguments(new: NewLayer) -> dict[str, Any]:
        """All arguments of a new layer by their names in the vocabulary, defaults among them."""
        row = OPERATIONS[new.operation or ""]
        given = {p.name: p.default for p in row.parameters if not p.required}
        given |= dict(zip((p.name for p in row.parameters), new.arguments, strict=False))
        return {**given, **new.keywords}

    def _make(self, new: NewLayer, place: Place, around: Any) -> list[Any]:
        row, given = OPERATIONS[new.operation or ""], self.arguments(new)
        check_size(new, given)
        if around is not None:
            return [LoRA(around, **given)]
        make = MAKERS.get(row.name)
        if make is None and is_activation(row):
            return [activation(row, given, new.span)]
        if make is None:
            raise cannot(f"`{row.name}` cannot be made as a layer of Keras", new.span)
        made = make(given, place, new.span)
        return made if isinstance(made, list) else [made]


def check_size(new: NewLayer, given: Mapping[str, Any]) -> None:
    """Refuses a layer that would fill the memory."""
    number = 1
    for key in ("in_features", "out_features", "in_channels", "out_channels", "num_embeddings", "embedding_dim"):
        size = given.get(key)
        number *= size if isinstance(size, int) and size > 0 else 1
    kernel = given.get("kernel_size", 1)
    for size in kernel if isinstance(kernel, tuple | list) else (kernel,):
        number *= size if isinstance(size, int) and size > 0 else 1
    if number > MOST_NUMBERS:
        raise Diagnostic(
            "RW112",
            f"`{new}` would hold {number:,} numbers",
            new.span,
            notes=(f"one new layer may hold {MOST_NUMBERS:,}",),
            help="check the sizes for a slip; a layer as large as this is made in Python and given by `modules=`",
        ).error()


def makeable() -> tuple[str, ...]:
    """Operations of which new layers are made in a Keras model."""
    return tuple(row.name for row in OPERATIONS.values() if row.name in MAKERS or is_activation(row) or row.wraps)


def trial(layers: Sequence[NewLayer], shapes: Sequence[tuple[int | None, ...]], builder: Builder) -> Any:
    """Shape that a chain of new layers gives for inputs of `shapes`; a text says why it gives none."""
    try:
        with builder.own_randomness():
            values: Any = [keras.KerasTensor(shape) for shape in shapes]
            for new in layers:
                if new.wraps:
                    return f"the shape that `{new.name}` gives is up to the layer that it wraps"
                for layer in builder.build(new, len(values[0].shape)):
                    given = values[0] if len(values) == 1 else values
                    if new.operation is not None:
                        values = [keras.KerasTensor(tuple(layer.compute_output_shape(given.shape)))]
                    else:
                        values = [layer(given)]
    except RewriteError:
        raise
    except Exception as problem:
        text = str(problem).strip().splitlines()
        return text[0] if text else type(problem).__name__
    value = values[0]
    return tuple(value.shape) if isinstance(value, keras.KerasTensor) else f"it returns a {type(value).__name__}"
