"""The ways to rebuild a Keras model that are timed beside each other make the same model, where they make one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers as L  # noqa: E402

from benchmarks.keras_rebuild import APPROACHES, by_loop, by_rules, kinds, normalisations, same  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras' own, of numpy

IMAGE = np.random.default_rng(0).random((1, 8, 8, 3), dtype="float32")


def network(branch: bool = False) -> Any:
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="c")(image)
    y = L.DepthwiseConv2D(3, padding="same", name="d")(x)
    y = L.Add(name="sum")([x, y]) if branch else y
    return keras.Model(image, L.Dense(2, name="head")(L.Flatten(name="f")(y)))


@pytest.mark.parametrize("approach", APPROACHES)
def test_a_chain_comes_out_the_same(approach: str) -> None:
    model = network()
    result = APPROACHES[approach](model)
    new = ["Conv2D", "BatchNormalization", "Activation", "DepthwiseConv2D", "BatchNormalization", "Flatten", "Dense"]
    assert kinds(result) == ["InputLayer", *new]
    assert same(result, by_rules(model), IMAGE)
    assert not same(model, by_rules(model), IMAGE)


def test_branches_come_out_the_same_but_the_loop_has_none() -> None:
    model = network(branch=True)
    assert [normalisations(APPROACHES[name](model)) for name in ("clone", "rewrite")] == [2, 2]
    assert same(APPROACHES["clone"](model), by_rules(model), IMAGE)
    with pytest.raises(ValueError, match="list of inputs"):
        by_loop(model)


def test_other_weights_are_seen() -> None:
    model = network()
    result = by_rules(model)
    result.get_layer("head").kernel.assign(np.ones(tuple(model.get_layer("head").kernel.shape), "float32"))
    assert not same(result, by_rules(model), IMAGE)
