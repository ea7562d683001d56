"""What a compiled Keras model has learnt about learning, after a rewrite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from rewrite import Rules, apply_rules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

L = keras.layers
VALUE = np.random.default_rng(0).standard_normal((8, 3)).astype("float32")
WANTED = np.random.default_rng(1).standard_normal((8, 2)).astype("float32")

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, centered=True),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "muon": lambda: keras.optimizers.Muon(0.01),
}


def trained(optimizer: Any) -> Any:
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, "relu", name="a"), L.Dense(2, name="b")])
    model.compile(optimizer, "mse")
    for _ in range(3):
        model.train_on_batch(VALUE, WANTED)
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_it_would_have(name: str) -> None:
    model = trained(OPTIMIZERS[name]())
    result = apply_rules(model, Rules("after ReLU: insert Identity"))
    assert int(result.optimizer.iterations) == 3
    for _ in range(2):
        model.train_on_batch(VALUE, WANTED)
        result.train_on_batch(VALUE, WANTED)
    for was, now in zip(model.weights, result.weights, strict=True):
        assert np.allclose(keras.ops.convert_to_numpy(was), keras.ops.convert_to_numpy(now), atol=1e-6)


def test_what_is_new_or_drawn_anew_begins_without() -> None:
    model = trained(OPTIMIZERS["adam"]())
    model.optimizer.learning_rate = 0.5
    result = apply_rules(model, Rules('reset "b"\nafter ReLU: insert BatchNorm1d'))
    assert float(result.optimizer.learning_rate) == 0.5
    momenta = dict(zip((v.path for v in result.trainable_variables), result.optimizer._momentums, strict=True))
    moving = {path for path, momentum in momenta.items() if keras.ops.convert_to_numpy(momentum).any()}
    assert moving == {"a/kernel", "a/bias"}
    result.train_on_batch(VALUE, WANTED)


def test_a_model_that_was_never_trained_is_compiled_and_no_more() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="b")])
    model.compile("adam", "mse")
    result = apply_rules(model, Rules("after Linear: insert Dropout"))
    assert result.compiled
    assert int(result.optimizer.iterations) == 0


def test_training_the_result_leaves_the_given_model_as_it_was() -> None:
    model = trained(OPTIMIZERS["adam"]())
    weights = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    outputs = keras.ops.convert_to_numpy(model(VALUE)).copy()
    result = apply_rules(model, Rules("after ReLU: insert BatchNorm"))
    for _ in range(3):
        result.train_on_batch(VALUE, WANTED)
    assert all(
        np.array_equal(keras.ops.convert_to_numpy(now), was) for now, was in zip(model.weights, weights, strict=True)
    )
    assert np.array_equal(keras.ops.convert_to_numpy(model(VALUE)), outputs)
    model.train_on_batch(VALUE, WANTED)
    assert np.isfinite(keras.ops.convert_to_numpy(result(VALUE))).all()
