"""Keras models run: on shapes, and two of them on the same numbers."""

from __future__ import annotations

import math
from typing import Any

import keras

from rewrite.backends.backend import Difference, Example, Ran
from rewrite.backends.keras.reader import KerasReading
from rewrite.errors import Diagnostic

TOLERANCES = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-2}
"""dtype -> what rounding may do to an output, as a part of the largest number in it; see the PyTorch backend's"""

_SMALLEST = 1e-3


def given(example: Example) -> Any:
    """What the model is called with: Keras has one argument, which may be a list or a dict of tensors."""
    if example.kwargs and not example.args:
        return dict(example.kwargs)
    return example.args[0] if len(example.args) == 1 else list(example.args)


def run_on_shapes(model: keras.Model, example: Example) -> Ran:
    """Computes the shapes of the outputs.

    Raises:
        SiteError: the model does not take the example (RW203).

    """
    inputs = keras.tree.map_structure(_as_shape, given(example))
    try:
        outputs = model.compute_output_spec(inputs)
    except Exception as problem:
        raise _does_not_run(model, problem) from problem
    leaves = [
        (tuple(leaf.shape), str(leaf.dtype)) if isinstance(leaf, keras.KerasTensor) else type(leaf).__name__
        for leaf in keras.tree.flatten(outputs)
    ]
    structure = repr(keras.tree.map_structure(lambda leaf: "_", outputs))
    graph = KerasReading(model, "", frozenset()).graph
    calls = {path: len(nodes) for path, nodes in graph.calls.items()}
    return Ran(structure, leaves, calls)


def _as_shape(value: Any) -> Any:
    if isinstance(value, keras.KerasTensor) or not hasattr(value, "shape"):
        return value
    return keras.KerasTensor(tuple(value.shape), dtype=keras.backend.standardize_dtype(value.dtype))


def compare(model: keras.Model, written: keras.Model, example: Example) -> Difference:
    """Runs both in inference mode.

    Raises:
        SiteError: one of them does not run (RW203).

    """
    was, now = (_output(one, example) for one in (model, written))
    if len(was) != len(now):
        return Difference(math.inf, 0.0, reason="the outputs are nested differently")
    worst = Difference(0.0, 0.0)
    for number, (one, other) in enumerate(zip(was, now, strict=True)):
        place = f"[{number}]" if len(was) > 1 else ""
        if one.shape != other.shape:
            return Difference(math.inf, 0.0, place, f"the shape {one.shape} has become {other.shape}")
        if not one.size:
            continue
        left, right = one.astype("float64"), other.astype("float64")
        apart = abs(left - right)
        apart[(left != left) & (right != right)] = 0.0
        error = float(apart.max())
        error = math.inf if error != error else error
        allowed = TOLERANCES.get(str(one.dtype), 0.0) * max(float(abs(left).max()), _SMALLEST)
        if worst.allowed == 0.0 or error / (allowed or 1e-30) > worst.error / worst.allowed:
            worst = Difference(error, allowed, place)
    return worst


def _output(model: keras.Model, example: Example) -> list[Any]:
    try:
        outputs = model(given(example), training=False)
    except Exception as problem:
        raise _does_not_run(model, problem) from problem
    return [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(outputs)]


def _does_not_run(model: keras.Model, problem: Exception) -> Exception:
    text = (str(problem).strip() or repr(problem)).splitlines()[0]
    return Diagnostic(
        "RW203",
        f"`{model.name}` does not run on the example input: {text}",
        help="give inputs that the model takes: one array, a tuple of arrays, or a dict of them by name",
    ).error()
