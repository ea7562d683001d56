"""Keras: layers that the code of a class calls, in its `call` and not in a graph."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from rewrite import RewriteError, Rules, apply_rules, explain_rules, get_report, get_taps  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
"""Keras on torch hands arrays over in an old way, and warns where a file holds layers that were not built"""

from rewrite.backends.keras.own_layers import LoRA  # noqa: E402

L = keras.layers


@keras.saving.register_keras_serializable("in_code")
class Block(L.Layer):  # type: ignore[misc]
    """A block of a transformer: a layer called by keyword, a list, a model inside, activations that layers apply."""

    def __init__(self, width: int = 8, **options: Any) -> None:
        super().__init__(**options)
        self.width = width
        self.attention = L.MultiHeadAttention(2, width // 2, name="attention")
        self.feed = keras.Sequential(
            [L.Dense(16, activation="relu", name="up"), L.Dense(width, name="down")], name="feed"
        )
        self.norms = [L.LayerNormalization(name="first"), L.LayerNormalization(name="second")]
        self.drops = {"attention": L.Dropout(0.0, name="drop")}
        self.last = L.Dense(width, activation="gelu", name="last")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        found = self.attention(query=inputs, value=inputs, training=training)
        hidden = self.norms[0](inputs + self.drops["attention"](found, training=training))
        return self.norms[1](hidden + self.last(self.feed(hidden)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("in_code")
class Late(L.Layer):  # type: ignore[misc]
    """Makes its layers in `build`, calls one of them twice, and reads an attribute of it."""

    def build(self, shape: Any) -> None:
        self.dense = L.Dense(shape[-1], activation="tanh", name="dense")
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.dense(self.dense(inputs)) + keras.ops.sum(self.dense.kernel)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@keras.saving.register_keras_serializable("in_code")
class Outer(keras.Model):  # type: ignore[misc]
    """A model with a `call` of its own, and a block in a block."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.blocks = tuple(Block(name=f"block{number}") for number in range(2))
        self.late = Late(name="late")
        self.lstm = L.LSTM(4, return_sequences=True, return_state=True, name="lstm")
        self.head = L.Dense(3, name="head")

    def call(self, inputs: Any) -> Any:
        for block in self.blocks:
            inputs = block(inputs)
        found, _, cell = self.lstm(self.late(inputs))
        return self.head(found[:, -1] + cell)


def around() -> Any:
    given = keras.Input((5, 8))
    value = L.Dense(8, name="stem")(given)
    value = Late(name="late")(Block(name="two")(Block(name="one")(value)))
    return keras.Model(given, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(value)))


def outer() -> Any:
    model = Outer()
    model(values())
    return model


def values() -> Any:
    return np.random.default_rng(0).standard_normal((4, 5, 8)).astype("float32")


def numbers(model: Any) -> Any:
    return keras.ops.convert_to_numpy(model(values(), training=False))


@contextlib.contextmanager
def counted(cls: type) -> Iterator[Counter[str]]:
    """How often layers of a class really compute, by name."""
    seen: Counter[str] = Counter()
    original = cls.call

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen[self.name] += 1
        return original(self, *args, **kwargs)

    cls.call = call
    try:
        yield seen
    finally:
        cls.call = original


def check(make: Callable[[], Any], text: str, *, same: bool = True) -> tuple[Any, Any]:
    """Applies a rule, and holds what comes back against what must always be so; the result and its report."""
    model = make()
    was = numbers(model)
    result = apply_rules(model, Rules(text))
    assert isinstance(result, type(model))
    assert np.array_equal(numbers(model), was)
    now = numbers(result)
    assert now.shape == was.shape
    assert np.allclose(now, was, atol=1e-4) == same
    result.compile("sgd", "sparse_categorical_crossentropy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result.compile("sgd", loss)
    history = result.fit(values(), np.arange(4) % 3, epochs=2, verbose=0).history["loss"]
    assert all(np.isfinite(history))
    assert np.array_equal(numbers(model), was)
    return result, get_report(result)


def loaded(model: Any, path: Path) -> Any:
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


INSERTED = [
    ("after Linear: insert Dropout(0.5)", 9, 10),
    ("after ReLU: insert Dropout(0.5)", 2, 2),
    ("after GELU: insert Dropout(0.5)", 2, 2),
    ("after Tanh: insert Dropout(0.5)", 1, 2),
    ("before LayerNorm: insert Dropout(0.5)", 4, 4),
    ("after MultiHeadAttention: insert Dropout(0.5)", 2, 2),
    ('after "**.feed": insert Dropout(0.5)', 2, 2),
    ("after Block: insert Dropout(0.5)", 2, 2),
    ("between Dense and ReLU: insert Dropout(0.5)", 2, 2),
    ("after Dropout: insert Dropout(0.5)", 2, 2),
    ("replace Dropout with Dropout(0.5)", 2, 0),
]


@pytest.mark.parametrize("make", [around, outer])
@pytest.mark.parametrize(("text", "sites", "calls"), INSERTED)
def test_what_is_inserted_runs(make: Callable[[], Any], text: str, sites: int, calls: int) -> None:
    model = make()
    with counted(L.Dropout) as before:
        numbers(model)
    result, report = check(make, text)
    if make is outer and "Linear" in text:  # it has no `stem`
        sites, calls = sites - 1, calls - 1
    assert report.sites == sites
    with counted(L.Dropout) as after:
        numbers(result)
    assert after.total() == before.total() + calls
    rates = [layer.rate for layer in result._flatten_layers() if isinstance(layer, L.Dropout)]
    assert rates.count(0.5) == sites


CHANGED = [
    ("replace LayerNorm with RMSNorm", 4),
    ("replace GELU with SiLU", 2),
    ('replace "**.last" with Dense(16) -> Dense(8)', 2),
    ("before LayerNorm: insert BatchNorm1d(num_features=8)", 4),
    ('after "**.last": insert BatchNorm; set prev.activation=identity', 2),
    ("after MultiHeadAttention: insert LayerNorm", 2),
    ("remove GELU", 2),
    ('reset "**.last"', 2),
]


@pytest.mark.parametrize("make", [around, outer])
@pytest.mark.parametrize(("text", "sites"), CHANGED)
def test_what_changes_numbers(make: Callable[[], Any], text: str, sites: int, tmp_path: Path) -> None:
    # A BatchNorm that has seen nothing yet hands on what it gets, but for its epsilon in front of a norm.
    result, report = check(make, text, same="BatchNorm;" in text or "BatchNorm1d" in text)
    assert report.sites == sites
    again = loaded(result, tmp_path)
    assert np.array_equal(numbers(again), numbers(result))
    assert type(again.layers[1 if make is outer else 2]).__name__ in ("Block", "Late")


@pytest.mark.parametrize("make", [around, outer])
@pytest.mark.parametrize("text", ["after Dense: insert LayerNorm", "wrap Dense with LoRA(rank=2)", "remove Dropout"])
def test_files_keep_it(make: Callable[[], Any], text: str, tmp_path: Path) -> None:
    result = apply_rules(make(), Rules(text))
    for variable in result.weights:
        if "seed" not in variable.name:
            variable.assign(variable + 0.01)
    wanted = numbers(result)
    again = loaded(result, tmp_path)
    assert np.array_equal(numbers(again), wanted)
    assert [tuple(v.shape) for v in again.weights] == [tuple(v.shape) for v in result.weights]
    twice = apply_rules(again, Rules("after LayerNorm: insert Dropout(0.5)\nafter Dropout: insert Identity"))
    assert np.array_equal(numbers(twice), wanted)
    once_more = loaded(twice, tmp_path)
    numbers(once_more)  # a Dropout from a file is built by its first call
    with counted(L.Dropout) as first, counted(L.Identity) as second:
        assert np.array_equal(numbers(once_more), wanted)
    assert first.total() == second.total() >= get_report(twice).sites // 2 > 0


@pytest.mark.parametrize("make", [around, outer])
def test_lora_learns_and_nothing_else(make: Callable[[], Any]) -> None:
    model = make()
    result = apply_rules(model, Rules('wrap "**.last" with LoRA(rank=2)\nfreeze any except LoRA'))
    assert np.array_equal(numbers(result), numbers(model))
    before = {id(v): keras.ops.convert_to_numpy(v) for v in result.weights}
    assert {v.name for v in result.trainable_weights} == {"lora_A", "lora_B"}
    result.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    result.fit(values(), np.arange(4) % 3, epochs=2, verbose=0)
    for variable in result.non_trainable_weights:
        if "seed" not in variable.name:
            assert np.array_equal(keras.ops.convert_to_numpy(variable), before[id(variable)])
    assert any(not np.array_equal(keras.ops.convert_to_numpy(v), before[id(v)]) for v in result.trainable_weights)


def test_taps_and_attributes() -> None:
    result, _ = check(around, 'tap inside = "one.last"\nat Dropout: set self.p = 0.25')
    numbers(result)
    assert get_taps(result)["inside"].shape == (4, 5, 8)
    assert {layer.rate for layer in result._flatten_layers() if layer.name == "drop"} == {0.25}


@pytest.mark.parametrize(
    ("layer", "text", "sites"),
    [
        (lambda: L.TimeDistributed(L.Dense(3, activation="relu")), "after Linear: insert LayerNorm", 1),
        (lambda: L.TimeDistributed(keras.Sequential([L.Dense(3)])), "after Linear: insert Dropout(0.5)", 1),
        (lambda: L.Bidirectional(L.LSTM(3, return_sequences=True)), "after LSTM: insert Dropout(0.5)", 2),
        (lambda: L.SpectralNormalization(L.Dense(3)), "after Linear: insert Dropout(0.5)", 1),
        (lambda: LoRA(L.Dense(3), rank=2), "after Linear: insert Dropout(0.5)", 1),
        (lambda: LoRA(L.Dense(3), rank=2), "wrap Linear with LoRA(rank=1)", 1),
    ],
)
def test_layers_around_layers(layer: Callable[[], Any], text: str, sites: int, tmp_path: Path) -> None:
    model = through(layer())
    was = numbers(model)
    result = apply_rules(model, Rules(text))
    assert get_report(result).sites == sites
    assert np.array_equal(numbers(result), was) == ("LayerNorm" not in text)
    assert np.array_equal(numbers(loaded(result, tmp_path)), numbers(result))
    assert np.array_equal(numbers(model), was)
    result.compile("sgd", "mse")
    assert np.isfinite(result.fit(values(), numbers(result) + 1, verbose=0).history["loss"][0])


def test_copies_of_the_result() -> None:
    result = apply_rules(around(), Rules("after Dense: insert LayerNorm"))
    clone = keras.models.clone_model(result)
    clone.set_weights(result.get_weights())
    assert np.array_equal(numbers(clone), numbers(result))


def test_paths_of_what_is_inserted() -> None:
    result = apply_rules(around(), Rules("after GELU: insert LayerNorm"))
    assert "one.last_layernorm" in str(get_report(result))
    frozen = apply_rules(result, Rules('freeze "one.last_layernorm"'))
    assert len(frozen.trainable_weights) == len(result.trainable_weights) - 2
    assert "two.last_layernorm" in str(explain_rules(result, Rules("after LayerNorm: insert Dropout")))


@keras.saving.register_keras_serializable("in_code")
class Hidden(L.Layer):  # type: ignore[misc]
    """Keeps a layer where no attribute leads to it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        dense = L.Dense(8, name="dense")
        self._layers.append(dense)
        self.apply = lambda x: dense(x)

    def call(self, inputs: Any) -> Any:
        return self.apply(inputs)


class WithoutConfig(L.Layer):  # type: ignore[misc]
    def __init__(self, function: Any, **options: Any) -> None:
        super().__init__(**options)
        self.function = function
        self.dense = L.Dense(8, name="dense")

    def call(self, inputs: Any) -> Any:
        return self.function(self.dense(inputs))


class WithFunctions(L.Layer):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = L.Dense(8, name="dense")

    def call(self, inputs: Any) -> Any:
        return keras.ops.relu(self.dense(inputs)) + inputs


def through(layer: Any) -> Any:
    given = keras.Input((5, 8))
    return keras.Model(given, L.ReLU()(layer(given)))


@pytest.mark.parametrize(
    ("make", "text", "words"),
    [
        (lambda: through(Hidden(name="odd")), "after Linear: insert Dropout", "is held by no attribute of `odd`"),
        (lambda: through(WithoutConfig(abs, name="odd")), "after Linear: insert Dropout", "cannot be copied"),
        (lambda: through(Block(name="odd")), "before MultiHeadAttention@1: insert Dropout", "RW206"),
        (lambda: through(Block(name="odd")), 'replace "odd.last" with Dense(9)', "changes the size of its last axis"),
        (lambda: through(Block(name="odd")), "after LayerNorm -> Linear: insert Dropout", "RW301"),
    ],
)
def test_refusals(make: Callable[[], Any], text: str, words: str) -> None:
    model = make()
    was = numbers(model)
    with pytest.raises(RewriteError, match=words):
        apply_rules(model, Rules(text))
    assert np.array_equal(numbers(model), was)


def test_functions_in_code_are_told() -> None:
    model = through(WithFunctions(name="own"))
    report = get_report(apply_rules(model, Rules("after ReLU: insert Dropout(0.5)")))
    assert report.sites == 1
    assert any(d.code == "RW405" and "`keras.ops.relu` in the forward of `own`" in d.message for d in report.warnings)
    report = get_report(apply_rules(model, Rules("after Linear: insert Dropout(0.5)")))
    assert not report.warnings


@keras.saving.register_keras_serializable("in_code")
class Normed(L.Layer):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense, self.norm = L.Dense(8, name="dense"), L.BatchNormalization(name="norm")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.norm(self.dense(inputs), training=training)


@pytest.mark.parametrize(("text", "learns", "moves"), [("freeze stats", True, False), ("freeze params", False, True)])
def test_half_of_a_norm_in_code_is_frozen(text: str, learns: bool, moves: bool, tmp_path: Path) -> None:
    model = through(Normed(name="odd"))
    result = apply_rules(model, Rules(f"{text} BatchNorm"))
    for version in (result, loaded(result, tmp_path), apply_rules(result, Rules("after ReLU: insert Dropout(0.0)"))):
        norm = next(layer for layer in version._flatten_layers() if layer.name == "norm")
        before = [keras.ops.convert_to_numpy(v) for v in (norm.gamma, norm.moving_mean)]
        version.compile("sgd", "mse")
        version.fit(values(), values() + 3, epochs=1, verbose=0)
        now = [keras.ops.convert_to_numpy(v) for v in (norm.gamma, norm.moving_mean)]
        assert [not np.array_equal(a, b) for a, b in zip(before, now, strict=True)] == [learns, moves]
    thawed = apply_rules(result, Rules("unfreeze BatchNorm"))
    assert all(v.trainable for v in thawed.layers[1].trainable_variables)
    assert len(thawed.trainable_variables) == len(model.trainable_variables)


def test_a_plain_freeze_changes_no_class() -> None:
    model = through(Normed(name="odd"))
    assert type(apply_rules(model, Rules("freeze BatchNorm")).layers[1]) is Normed
    changed = apply_rules(model, Rules("after Linear: insert Dropout")).layers[1]
    assert isinstance(changed, Normed)
    assert (type(changed).__name__, type(changed).__module__) == (Normed.__name__, Normed.__module__)


@keras.saving.register_keras_serializable("in_code")
class Reads(L.Layer):  # type: ignore[misc]
    """Reads the kernel of one layer, and calls another one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.read, self.called = L.Dense(8, name="read"), L.Dense(8, name="called")

    def build(self, shape: Any) -> None:
        self.read.build(shape)
        self.called.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.called(keras.ops.matmul(inputs, self.read.kernel))


def test_a_layer_whose_weights_code_only_reads_is_no_site() -> None:
    model = through(Reads(name="odd"))
    assert get_report(apply_rules(model, Rules("after Linear: insert Dropout"))).sites == 1
    with pytest.raises(RewriteError, match=r"(?s)RW301.*`odd` reads its weights without calling it"):
        apply_rules(model, Rules('after "odd.read": insert Dropout'))
    frozen = apply_rules(model, Rules('freeze "odd.read"'))
    assert [v.path.split("/")[-2] for v in frozen.trainable_variables] == ["called", "called"]
