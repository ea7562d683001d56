"""Two rule files on all networks of `keras.applications`; the checks that are made there can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers as L  # noqa: E402

from benchmarks.keras_applications import (  # noqa: E402
    CLASSES,
    KERAS_OWN,
    TASKS,
    applications,
    build,
    examine,
    expected_sites,
    facts,
    free,
    image_for,
)
from rewrite import Rules, apply_rules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras' own, of numpy and of its saving

BATCHNORM, DROPOUT = TASKS


def hold_on(name: str) -> None:
    try:
        model = build(name)
    except ValueError as problem:
        if "not available with the" not in str(problem):
            raise
        pytest.skip(str(problem))
    for task in TASKS:
        outcome = examine(model, task)
        assert not outcome.broken
        assert outcome.sites == outcome.expected > 0
        free()


@pytest.mark.long
@pytest.mark.parametrize("name", applications())
def test_both_files_on(name: str) -> None:
    hold_on(name)


def test_both_files_on_small_ones() -> None:
    hold_on("MobileNetV3Small")  # two kinds of activations, branches
    hold_on("VGG16")  # activations that the convolutions apply themselves


def residual(skip: str = "r", classes: int = CLASSES, name: str = "residual") -> Any:
    """A fused activation, one of its own, one in a nested model, and a sum."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    taken = {"c": L.Conv2D(4, 3, padding="same", activation="relu", name="c")(image)}
    taken["d"] = L.DepthwiseConv2D(3, padding="same", name="d")(taken["c"])
    taken["r"] = L.ReLU(6.0, name="r")(taken["d"])
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 1, name="i"), L.Activation("silu")], name="inner")
    x = L.GlobalAveragePooling2D(name="g")(inner(taken["r"]) + taken[skip])
    return keras.Model(image, L.Dense(classes, activation="softmax", name="head")(x), name=name)


def assigned(value: float) -> Callable[[Any, Any], Any]:
    def spoil(model: Any, result: Any) -> Any:
        kernel = result.get_layer("c").kernel
        kernel.assign(np.full(tuple(kernel.shape), value, "float32"))
        return result

    return spoil


def by_rules(text: str) -> Callable[[Any, Any], Any]:
    return lambda model, result: apply_rules(model, Rules(text))


FAULTS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "none inserted": ("placed", lambda model, result: residual()),
    "one left out": ("placed", by_rules("after ReLU | ReLU6: insert Dropout(0.01)")),
    "another rate": ("placed", by_rules("after activation: insert Dropout(0.02)")),
    "in front": ("placed", by_rules("before activation: insert Dropout(0.01)")),
    "one too many": ("placed", by_rules("after activation | add: insert Dropout(0.01)")),
    "a layer lost": ("layers", by_rules("remove ReLU6")),
    "another skip": ("wired", lambda model, result: apply_rules(residual("d"), DROPOUT.path)),
    "another shape": ("shape", lambda model, result: apply_rules(residual(classes=9), DROPOUT.path)),
    "a weight changed": ("weights", assigned(0.5)),
    "other numbers": ("numbers", assigned(0.5)),
    "no number": ("finite outputs", assigned(np.nan)),
    "nothing learns": ("weights move", lambda model, result: apply_rules(result, Rules("freeze any"))),
    "no finite loss": ("finite losses", assigned(np.inf)),
    "layers shared": ("given model", lambda model, result: keras.Model(model.inputs, model.outputs)),
}
"""what goes wrong -> the fact that tells it, and the wrong result"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str) -> None:
    fact, spoil = FAULTS[fault]
    model = residual()
    image = image_for(model)
    result = apply_rules(model, DROPOUT.path)
    wrong = spoil(model, result)
    found: list[str] = []
    for stated in facts(model, wrong, DROPOUT, image):
        found += [] if stated.holds else [stated.name]
        if fact in found:
            break
    assert fact in found


def test_no_fault_where_there_is_none() -> None:
    model = residual()
    assert [expected_sites(model, task) for task in TASKS] == [3, 3]
    assert not any(examine(model, task).broken for task in TASKS)


def test_losses_that_were_not_finite_before_are_told_as_such() -> None:
    model = residual()
    assigned(np.nan)(None, model)
    *_, last = facts(model, apply_rules(model, DROPOUT.path), DROPOUT, image_for(model))
    assert last == ("finite losses", True, KERAS_OWN)
