"""Rules on Keras 3 models. What a model is made of is told here by Keras itself, never by the reader under test."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

keras = pytest.importorskip("keras")

from keras import layers as L  # noqa: E402

from rewrite import RewriteError, Rules, apply_rules, get_report, get_taps, plan_rules  # noqa: E402
from rewrite.backends import backend_for  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras' own, of numpy and of its saving

BN = "rule bn:\n    after Conv2d:\n        insert BatchNorm2d\n        set prev.activation=identity\n"
DROP = "after ReLU | ReLU6 | SiLU: insert Dropout(0.01)\n"


def chain() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, padding="same", activation="relu", name="c1"),
            L.MaxPooling2D(name="p"),
            L.Conv2D(6, 3, padding="same", name="c2"),
            L.BatchNormalization(name="bn"),
            L.ReLU(name="r"),
            L.Flatten(name="f"),
            L.Dropout(0.5, name="drop"),
            L.Dense(5, activation="softmax", name="d"),
        ],
        name="chain",
    )


def branches() -> Any:
    """A shared layer, operation layers, a nested model and two named outputs."""
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="c1")(image)
    shared = L.Dense(4, activation="relu", name="shared")
    x = keras.ops.relu(shared(shared(x))) + x
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), L.Conv2D(4, 1, name="ic"), L.BatchNormalization(name="ibn"), L.ReLU(name="ir")],
        name="inner",
    )
    x = L.GlobalAveragePooling2D(name="g")(inner(x))
    return keras.Model(image, [L.Dense(2, name="a")(x), L.Dense(3, activation="sigmoid", name="b")(x)], name="branches")


def image(size: int = 8, batch: int = 2) -> Any:
    return np.random.default_rng(0).random((batch, size, size, 3)).astype("float32")


def numbers(model: Any, value: Any) -> list[Any]:
    return [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(model(value, training=False))]


def weights(model: Any) -> dict[str, Any]:
    """Path -> numbers, as Keras has them; the state of random generators aside."""
    found = {}
    for layer in layers_of(model):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            found[f"{layer.name}/{variable.name}"] = keras.ops.convert_to_numpy(variable).copy()
    return found


def layers_of(model: Any) -> Iterator[Any]:
    yield from model._flatten_layers()


def count(model: Any, kind: type, **attributes: object) -> int:
    return sum(
        isinstance(layer, kind) and all(getattr(layer, k) == v for k, v in attributes.items())
        for layer in layers_of(model)
    )


def behind(layer: Any) -> list[Any]:
    return [node.operation for node in layer._outbound_nodes]


def flags(model: Any) -> list[tuple[str, bool]]:
    return [(layer.name, layer.trainable) for layer in layers_of(model)]


def changed(build: Callable[[], Any] | Any, text: str, value: Any = None, **options: Any) -> tuple[Any, Any]:
    """The given model and the changed one; that the given one is as it was is checked here."""
    model = build() if not isinstance(build, keras.Model) else build
    value = image() if value is None else value
    config, stated, out, learns = model.get_config(), weights(model), numbers(model, value), flags(model)
    state = random.getstate()
    result = apply_rules(model, Rules(text), **options)
    assert random.getstate() == state
    assert model.get_config() == config
    assert flags(model) == learns
    assert all(np.array_equal(a, b) for a, b in zip(out, numbers(model, value), strict=True))
    assert all(np.array_equal(stated[key], now) for key, now in weights(model).items())
    assert not {id(layer) for layer in layers_of(model)} & {id(layer) for layer in layers_of(result)}
    return model, result


def kept(model: Any, result: Any) -> bool:
    now = weights(result)
    return all(np.array_equal(value, now[key]) for key, value in weights(model).items())


def same(model: Any, result: Any, value: Any = None) -> bool:
    value = image() if value is None else value
    pairs = list(zip(numbers(model, value), numbers(result, value), strict=True))
    return all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in pairs)


def train(model: Any, value: Any, steps: int = 5) -> list[float]:
    """Steps of gradient descent by Keras; the losses."""
    targets = [np.zeros(out.shape, "float32") for out in numbers(model, value)]
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse" if len(targets) == 1 else ["mse"] * len(targets))
    wanted = targets[0] if len(targets) == 1 else targets
    return [float(np.ravel(model.train_on_batch(value, wanted))[0]) for _ in range(steps)]


def round_trip(model: Any, folder: Path, value: Any) -> Any:
    path = folder / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert all(np.array_equal(a, b) for a, b in zip(numbers(model, value), numbers(loaded, value), strict=True))
    return loaded


# ---- the cases of the article


def vgg() -> Any:
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3), pooling="avg")
    return keras.Model(base.input, L.Dense(10, activation="softmax", name="predictions")(base.output), name="vgg")


def test_vgg_batchnorm_behind_every_convolution_and_the_activation_behind_that(tmp_path: Path) -> None:
    model, result = changed(vgg, BN + "        expect 13 matches\n", image(64))
    convolutions = [layer for layer in result.layers if isinstance(layer, L.Conv2D)]
    assert len(convolutions) == 13
    for layer in convolutions:
        assert keras.activations.serialize(layer.activation) == "linear"
        (norm,) = behind(layer)
        assert isinstance(norm, L.BatchNormalization)
        assert norm.axis in (-1, 3)
        (activation,) = behind(norm)
        assert keras.activations.serialize(activation.activation) == "relu"
    assert kept(model, result)
    assert result.output_shape == (None, 10)
    assert result.output_names == model.output_names
    assert [layer.name for layer in model.layers] == [
        layer.name for layer in result.layers if not layer.name.endswith(("_batchnorm2d", "_activation"))
    ]
    round_trip(result, tmp_path, image(64))
    assert all(map(math.isfinite, train(result, image(64))))


def test_mobilenet_dropout_behind_its_27_activations() -> None:
    model = keras.applications.MobileNet(weights=None, input_shape=(64, 64, 3), classes=10)
    with pytest.raises(RewriteError) as caught:
        apply_rules(model, Rules("after ReLU: insert Dropout(0.01)"))
    assert "`ReLU6` (27)" in str(caught.value)
    _, result = changed(model, "after ReLU6: insert Dropout(0.01); expect 27 matches", image(64))
    assert count(result, L.Dropout, rate=0.01) == 27
    assert all(
        any(isinstance(after, L.Dropout) for after in behind(layer))
        for layer in result.layers
        if isinstance(layer, L.ReLU)
    )
    assert same(model, result, image(64))


APPLICATIONS = {
    "ResNet50": (53, 49),
    "InceptionV3": (94, 94),
    "DenseNet121": (120, 121),
    "EfficientNetB0": (81, 49),
}


@pytest.mark.long
@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_same_two_files_on_networks_with_branches(name: str, tmp_path: Path) -> None:
    size = 75 if name == "InceptionV3" else 64
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(size, size, 3), classes=10)
    convolutions, activations = APPLICATIONS[name]
    # counted by Keras' own layers: a fused activation (EfficientNet's squeeze) is one too
    assert count(model, L.Conv2D) + count(model, L.DepthwiseConv2D) == convolutions
    fused = [
        layer
        for layer in layers_of(model)
        if isinstance(layer, L.Activation | L.Conv2D | L.DepthwiseConv2D)
        and keras.activations.serialize(layer.activation) in ("relu", "relu6", "silu")
    ]
    assert len(fused) + count(model, L.ReLU) == activations
    for text, number, kind in ((BN, convolutions, L.BatchNormalization), (DROP, activations, L.Dropout)):
        _, result = changed(model, text, image(size))
        assert count(result, kind) - count(model, kind) == number
        assert kept(model, result)
        assert result.output_shape == model.output_shape
        round_trip(result, tmp_path, image(size))
        _, frozen = changed(result, f'freeze Conv2d in "{next(iter(convolution_names(result)))}"', image(size))
        before = weights(frozen)
        assert all(map(math.isfinite, train(frozen, image(size))))
        still = [layer for layer in layers_of(frozen) if not layer.trainable]
        assert still
        now = weights(frozen)
        assert all(
            np.array_equal(before[f"{layer.name}/{v.name}"], now[f"{layer.name}/{v.name}"])
            for layer in still
            for v in layer.weights
        )


def convolution_names(model: Any) -> Iterator[str]:
    return (layer.name for layer in layers_of(model) if isinstance(layer, L.Conv2D))


def test_one_rule_in_both_frameworks() -> None:
    """The plans on torchvision's and on Keras' VGG16: the same sites in the same order."""
    torchvision = pytest.importorskip("torchvision")
    text = Rules("after Conv2d: insert BatchNorm2d")
    ours = plan_rules(vgg(), text).report
    with torch.device("meta"):
        other = plan_rules(torchvision.models.vgg16(weights=None), text).report
    sizes = [[site.changes for site in report.clauses[0].sites] for report in (ours, other)]
    assert len(sizes[0]) == len(sizes[1]) == 13
    assert [str(a).partition(" as ")[0] for a in sizes[0]] == [str(b).partition(" as ")[0] for b in sizes[1]]


# ---- names of Keras


def test_either_spelling_means_the_same() -> None:
    _, ours = changed(
        chain,
        'after Conv2d[out_channels=4]: insert BatchNorm2d(eps=0.01); replace "d" with Linear(9)'.partition(";")[0],
    )
    _, theirs = changed(chain, "after Conv2D[filters=4]: insert BatchNormalization(epsilon=0.01)")
    shown = [[(type(layer), layer.get_config()) for layer in model.layers] for model in (ours, theirs)]
    for a, b in zip(*shown, strict=True):
        assert a[0] is b[0]
        assert json.dumps(a[1], default=str) == json.dumps(b[1], default=str)


def test_a_momentum_is_that_of_the_name_it_stands_under() -> None:
    _, ours = changed(chain, "after Conv2d: insert BatchNorm2d(momentum=0.01)")
    _, theirs = changed(chain, "after Conv2D: insert BatchNormalization(momentum=0.99)")
    assert ours.get_layer("c1_batchnorm2d").momentum == theirs.get_layer("c1_batchnorm2d").momentum == 0.99


def test_arguments_stand_in_the_order_of_the_name() -> None:
    _, result = changed(chain, "replace last Dense with Dense(7); expect output (_, 7)")
    assert result.get_layer("d").units == 7
    assert keras.activations.serialize(result.get_layer("d").activation) == "softmax"


def test_batchnorm_is_that_for_the_axes_of_the_site() -> None:
    _, result = changed(chain, "after Flatten: insert BatchNormalization\nafter MaxPool2d: insert BatchNorm")
    assert {"f_batchnorm1d", "p_batchnorm2d"} <= {layer.name for layer in result.layers}
    _, gone = changed(chain, "remove BatchNormalization")
    assert count(gone, L.BatchNormalization) == 0


def test_names_of_keras_on_a_torch_model() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    result = apply_rules(
        model,
        Rules("after Conv2D where prev.filters == 4: insert BatchNormalization"),
        example_inputs=torch.zeros(1, 3, 8, 8),
    )
    assert [type(layer).__name__ for layer in result] == ["Conv2d", "BatchNorm2d", "ReLU"]


# ---- places


@pytest.mark.parametrize("build", [chain, branches])
@pytest.mark.parametrize(
    "text",
    [
        "after conv: insert Identity",
        "before Conv2d: insert Dropout2d",
        "after any: insert Dropout(0.3)",
        "between Conv2d and ReLU | BatchNorm2d: insert Dropout",
        "after Linear: insert Dropout(rate=0.2)",
        "tap t = first Conv2d",
    ],
)
def test_what_hands_values_on_changes_no_number(build: Callable[[], Any], text: str, tmp_path: Path) -> None:
    model, result = changed(build, text, example_inputs=image())
    assert type(result) is type(model)
    assert kept(model, result)
    assert same(model, result)
    assert getattr(result, "output_names", None) == getattr(model, "output_names", None)
    assert [tensor.name for tensor in result.inputs] == [tensor.name for tensor in model.inputs]
    round_trip(result, tmp_path, image())
    assert all(map(math.isfinite, train(result, image())))


def test_a_shared_layer_has_a_site_at_each_call() -> None:
    _, result = changed(branches, "after Linear: insert Dropout(0.3); expect 4 matches")
    assert count(result, L.Dropout) == 4
    _, one = changed(branches, 'after first Linear in "shared": insert Dropout per layer'.replace(" per layer", ""))
    assert count(one, L.Dropout) == 1
    assert len([layer for layer in one.layers if layer.name == "shared"]) == 1


def test_operations_are_sites() -> None:
    _, result = changed(branches, "after add: insert Dropout(0.1)\nbefore add@1: insert Dropout(0.2)")
    assert {layer.rate for layer in layers_of(result) if isinstance(layer, L.Dropout)} == {0.1, 0.2}


def test_a_nested_model_is_changed_inside() -> None:
    model, result = changed(branches, 'after Conv2d in "inner": insert Dropout(0.1)')
    assert [layer.name for layer in result.get_layer("inner").layers] == ["ic", "ic_dropout", "ibn", "ir"]
    assert [layer.name for layer in result.layers] == [layer.name for layer in model.layers]


def test_outputs_keep_their_names_behind_an_insertion() -> None:
    model = branches()
    model.compile(optimizer="sgd", loss={"a": "mse", "b": "mse"})
    result = apply_rules(model, Rules("after Linear: insert Dropout(0.1)"))
    assert result.output_names == ["a", "b"]
    assert result.compiled
    wanted = {"a": np.zeros((2, 2), "float32"), "b": np.zeros((2, 3), "float32")}
    assert np.isfinite(np.ravel(result.train_on_batch(image(), wanted))).all()


# ---- actions


def test_replace_in_place_of_a_fused_activation() -> None:
    _, result = changed(chain, "replace ReLU with GELU; expect 2 matches")
    assert keras.activations.serialize(result.get_layer("c1").activation) == "linear"
    assert [layer.name for layer in result.layers][1] == "c1_gelu"


def test_set_an_activation() -> None:
    _, result = changed(chain, "at first Conv2d: set self.activation = GELU")
    assert keras.activations.serialize(result.get_layer("c1").activation) == "gelu"
    assert len(result.layers) == len(chain().layers)
    _, none = changed(chain, "at first Conv2d: set self.activation = identity")
    assert keras.activations.serialize(none.get_layer("c1").activation) == "linear"
    assert "RW402" in {warning.code for warning in get_report(none).warnings}


def test_set_prev_activation_holds_by_construction_and_warns_of_nothing() -> None:
    _, result = changed(chain, BN)
    assert "RW402" not in {warning.code for warning in get_report(result).warnings}


def test_set_attributes_by_either_name() -> None:
    _, result = changed(
        chain, "at Dropout: set self.rate = 0.2\nat BatchNorm2d: set self.eps = 0.01, self.momentum = 0.25"
    )
    assert result.get_layer("drop").rate == 0.2
    assert (result.get_layer("bn").epsilon, result.get_layer("bn").momentum) == (0.01, 0.75)


def test_freeze_stops_statistics_too() -> None:
    _, result = changed(chain, 'freeze any except "d"')
    assert [layer.name for layer in result.layers if layer.trainable and layer.weights] == ["d"]
    before = weights(result)
    train(result, image())
    now = weights(result)
    moved = {key for key in now if not np.array_equal(now[key], before[key])}
    assert moved == {"d/kernel", "d/bias"}
    _, woken = changed(result, "unfreeze BatchNorm")
    assert woken.get_layer("bn").trainable
    assert not woken.get_layer("c1").trainable


def test_freeze_params_leaves_statistics_moving() -> None:
    _, result = changed(chain, "freeze params BatchNorm2d")
    before = weights(result)
    train(result, image())
    now = weights(result)
    assert np.array_equal(before["bn/gamma"], now["bn/gamma"])
    assert not np.array_equal(before["bn/moving_mean"], now["bn/moving_mean"])


def test_unfreeze_in_a_frozen_model_wakes_only_what_is_named() -> None:
    model = branches()
    model.trainable = False
    _, result = changed(model, 'unfreeze "a"')
    assert {variable.path for variable in result.trainable_variables} == {"a/kernel", "a/bias"}


def test_reset_draws_the_same_numbers_every_time() -> None:
    model = chain()
    _, one = changed(model, "reset Linear")
    _, other = changed(model, "reset Linear")
    _, named = changed(model, 'reset Conv2d with kaiming_normal(nonlinearity="relu")')
    assert np.array_equal(weights(one)["d/kernel"], weights(other)["d/kernel"])
    assert not np.array_equal(weights(one)["d/kernel"], weights(model)["d/kernel"])
    assert not np.array_equal(weights(named)["c2/kernel"], weights(model)["c2/kernel"])
    assert not weights(named)["c2/bias"].any()
    assert np.array_equal(weights(named)["d/kernel"], weights(model)["d/kernel"])


FOLDED: dict[str, Callable[[], list[Any]]] = {
    "conv": lambda: [L.Conv2D(6, 3, use_bias=False), L.BatchNormalization()],
    "grouped": lambda: [L.Conv2D(6, 3, groups=3), L.BatchNormalization()],
    "depthwise": lambda: [L.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), L.BatchNormalization()],
    "transposed": lambda: [L.Conv2DTranspose(6, 3, strides=2), L.BatchNormalization()],
    "dense": lambda: [L.Flatten(), L.Dense(6), L.BatchNormalization()],
    "ahead": lambda: [L.BatchNormalization(), L.Conv2D(6, 3)],
    "ahead of depthwise": lambda: [L.BatchNormalization(), L.DepthwiseConv2D(3, depth_multiplier=2)],
    "ahead of dense": lambda: [L.Flatten(), L.BatchNormalization(), L.Dense(6)],
    "without scale": lambda: [L.Conv2D(6, 3), L.BatchNormalization(scale=False, center=False)],
}


@pytest.mark.parametrize("name", FOLDED)
def test_fold(name: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), *FOLDED[name]()])
    draw = np.random.default_rng(1)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(draw.random(variable.shape) + 0.5)
    text = "match BatchNorm as b >> Conv2d | Linear as c: fold b into c"
    if not name.startswith("ahead"):
        text = "fold BatchNorm into Conv2d | ConvTranspose2d | Linear"
    _, result = changed(model, f"{text}; expect equivalent", example_inputs=image())
    assert count(result, L.BatchNormalization) == 0
    assert same(model, result)


def test_move() -> None:
    _, result = changed(chain, "match BatchNorm2d as b -> ReLU as r: move b after r")
    assert [layer.name for layer in result.layers][2:6] == ["c2", "r", "bn", "f"]


def test_tap() -> None:
    _, result = changed(chain, "tap middle = first ReLU")
    result(image())
    assert tuple(get_taps(result)["middle"].shape) == (2, 8, 8, 4)


def test_a_class_of_ones_own() -> None:
    _, result = changed(
        chain, "after BatchNorm2d: insert Noise(0.1)", modules={"Noise": L.GaussianNoise}, example_inputs=image()
    )
    assert [layer.name for layer in result.layers][4] == "bn_noise"


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("after MaxPool2d: insert MaxPool2d(kernel_size=3, stride=1, padding=(1, 0))", "RW320"),
        ("after MaxPool2d: insert ReflectionPad2d(1)", "RW320"),
        ("after MaxPool2d: insert Softplus(beta=2)", "RW320"),
        ("after MaxPool2d: insert Conv2d(out_channels=9, kernel_size=1)", "RW310"),
        ("after MaxPool2d: insert Conv2d(out_channels=100000, kernel_size=9999)", "RW112"),
        ("after Conv3d: insert Dropout", "RW301"),
    ],
)
def test_refusals(text: str, code: str) -> None:
    model = chain()
    before = model.get_config()
    with pytest.raises(RewriteError) as caught:
        apply_rules(model, Rules(text))
    assert caught.value.code == code
    assert model.get_config() == before


class Own(keras.Model):  # type: ignore[misc]
    """A model with a `call` of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = L.Dense(4, activation="relu", name="first")
        self.second = L.Dense(2, name="second")

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))


def test_a_subclassed_model_is_its_layers() -> None:
    model = Own()
    value = np.ones((2, 3), "float32")
    _, result = changed_own(model, value, 'freeze "first"')
    assert [layer.trainable for layer in result.layers] == [False, True]
    inserted = apply_rules(model, Rules("after Linear: insert Dropout"))
    assert [layer.name for layer in inserted.first.layers] == ["first", "first_dropout", "first_activation"]


def changed_own(model: Any, value: Any, text: str) -> tuple[Any, Any]:
    out = numbers(model, value)
    result = apply_rules(model, Rules(text))
    assert np.array_equal(out[0], numbers(result, value)[0])
    assert all(layer.trainable for layer in model.layers)
    return model, result


def test_applied_again_changes_nothing() -> None:
    _, result = changed(chain, BN)
    again = apply_rules(result, Rules(BN))
    assert [clause.skipped for clause in get_report(again).clauses] == [True]
    assert len(again.layers) == len(result.layers)


def test_the_backend_is_found() -> None:
    assert backend_for(chain()).name == "keras"
    assert backend_for(torch.nn.ReLU()).name == "torch"


# ---- classes that make their network of arguments of their own


class Net(keras.Model):  # type: ignore[misc]
    """As the backbones of KerasHub are written."""

    def __init__(self, units: int, **options: Any) -> None:
        given = keras.Input((4,), name="given")
        x = L.Dropout(0.5, name="drop")(L.Dense(units, activation="relu", name="a")(given))
        super().__init__(inputs=given, outputs={"y": L.Dense(2, name="b")(x)}, **options)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units, "name": self.name}


class Pair(keras.Sequential):  # type: ignore[misc]
    def __init__(self, units: int = 3, **options: Any) -> None:
        super().__init__([keras.Input((4,)), L.Dense(units, activation="relu", name="a")], **options)


def test_a_class_that_makes_its_own_network_becomes_a_plain_model(tmp_path: Path) -> None:
    row = np.random.default_rng(0).random((2, 4)).astype("float32")
    for build, plain in ((lambda: Net(3), keras.Model), (Pair, keras.Sequential)):
        model, result = changed(build(), "after ReLU: insert Dropout(0.1)", row)
        assert isinstance(result, plain)
        assert type(result) is not type(model)
        report = get_report(result)
        assert report is not None
        assert [w.code for w in report.warnings] == ["RW411"]
        assert getattr(result, "output_names", None) == getattr(model, "output_names", None)
        assert kept(model, result)
        assert same(model, result, row)
        result.save(tmp_path / "m.keras")
        assert same(result, keras.saving.load_model(tmp_path / "m.keras"), row)


LOST = """
warning[RW411]: `net` is a plain `keras.Model` in the result, no Net
  = note: its constructor takes arguments of its own, which say nothing of a change
  = help: let its constructor take what `keras.Model` takes, and hand it on
"""


def test_what_is_said_of_a_class_that_is_lost() -> None:
    report = get_report(apply_rules(Net(3, name="net"), Rules("after ReLU: insert Dropout(0.1)")))
    assert [warning.render() for warning in report.warnings] == [LOST.strip()]


def test_such_a_class_inside_of_a_model() -> None:
    given = keras.Input((4,))
    model, result = changed(
        keras.Model(given, L.Dense(1, name="top")(Net(3, name="net")(given)["y"])),
        "remove Dropout",
        np.zeros((2, 4), "float32"),
    )
    assert [layer.name for layer in result.get_layer("net").layers] == ["given", "a", "b"]
    assert kept(model, result)


def test_a_step_of_training_of_its_own_is_not_lost_without_a_word() -> None:
    class Steps(Net):
        def train_step(self, *args: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(RewriteError, match=r"its `train_step` would be lost"):
        apply_rules(Steps(3), Rules("remove Dropout"))


def test_a_class_that_computes_something_else_than_its_graph_is_code() -> None:
    class Twice(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any, **options: Any) -> Any:
            return 2 * super().call(inputs, **options)

    given = keras.Input((4,))
    model = Twice(given, L.Dense(2, activation="relu", name="a")(given))
    with pytest.raises(RewriteError) as found:
        apply_rules(model, Rules("after Linear: insert Dropout"))
    assert found.value.code == "RW320"
    _, result = changed(model, 'freeze "a"', np.ones((2, 4), "float32"))
    assert same(model, result, np.ones((2, 4), "float32"))
    assert not result.trainable_variables


class Weighted(L.Layer):  # type: ignore[misc]
    def call(self, x: Any, low: Any = None, high: Any = None) -> Any:
        return 2 * x + 3 * low + 5 * high


def test_arguments_keep_their_places_in_whatever_order_they_were_named() -> None:
    x, a, b = (keras.Input((4,), name=name) for name in "xab")
    inner = keras.Model({"second": a, "first": b}, a - 2 * b, name="inner")
    value = Weighted()(x, low=inner({"second": x, "first": a}), high=Weighted()(x, high=a, low=b))
    given = [np.random.default_rng(n).random((2, 4)).astype("float32") for n in range(3)]
    model, result = changed(keras.Model([x, a, b], L.Dense(2)(value)), "after Linear: insert Dropout", given)
    assert same(model, result, given)


# ---- code that is no graph


class Mixed(L.Layer):  # type: ignore[misc]
    """Leaves the names of its layers to Keras, as people do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(4)])

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x)


def mixed() -> Any:
    return keras.Sequential([keras.Input((4,)), Mixed(name="mixed"), L.ReLU(name="r"), L.Dense(2, name="d")])


def test_an_activation_that_a_layer_in_code_applies_is_not_passed_over() -> None:
    for text in ("after ReLU: insert Dropout", "replace ReLU with GELU", "remove ReLU"):
        assert get_report(apply_rules(mixed(), Rules(text))).sites == 2
    _, result = changed(mixed(), 'replace ReLU except "mixed.**" with GELU', np.ones((2, 4), "float32"))
    assert [layer.name for layer in result.layers] == ["mixed", "r", "d"]


def test_what_stands_behind_a_change_and_does_not_fit_is_told() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(12, name="d"), L.Reshape((3, 4), name="shape")])
    text = "replace Linear with Linear(out_features=5); expect output (_, 3, 4)"
    with pytest.raises(
        RewriteError, match=r"(?s)RW310.*RW310\]: `shape` does not take what comes to it after the change: The total"
    ):
        apply_rules(model, Rules(text))


def test_why_a_layer_cannot_be_made_again_is_told() -> None:
    class Odd(L.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "odd": 1}

    model = keras.Sequential([keras.Input((4,)), Odd(name="o"), L.ReLU(name="r")])
    with pytest.raises(RewriteError, match=r"`o` \(Odd\) cannot be copied: .*odd"):
        apply_rules(model, Rules("after ReLU: insert Dropout"))


def test_layers_in_code_keep_their_names() -> None:
    model = mixed()
    names = [layer.name for layer in layers_of(model) if not isinstance(layer, L.InputLayer)]
    path = f"mixed.{model.layers[0].inner.name}.{model.layers[0].inner.layers[1].name}"
    text = f'after "d": insert Dropout\nfreeze "{path}"'
    _, result = changed(model, text, np.ones((2, 4), "float32"))
    now = [layer.name for layer in layers_of(result) if not isinstance(layer, L.InputLayer)]
    assert sorted(now) == sorted([*names, "d_dropout"])
    assert kept(model, result)
    assert not result.layers[0].inner.layers[1].trainable


def test_a_graph_inside_of_code_is_told_to_be_a_model_by_itself() -> None:
    class Around(keras.Model):  # type: ignore[misc]
        def __init__(self, inner: Any, **options: Any) -> None:
            super().__init__(**options)
            self.inner = inner

        def call(self, x: Any) -> Any:
            return self.inner(x)

    model = Around(chain())
    model(image())
    with pytest.raises(RewriteError, match="cannot be copied") as found:
        apply_rules(model, Rules("after Conv2d: insert BatchNorm2d"))
    assert "apply the rules to `chain`" in found.value.diagnostics[0].help


def test_a_layer_that_code_shares_with_the_graph_does_not_come_apart() -> None:
    class Tied(L.Layer):  # type: ignore[misc]
        def __init__(self, table: Any, **options: Any) -> None:
            super().__init__(**options)
            self.table = table

        def call(self, x: Any) -> Any:
            return keras.ops.matmul(x, keras.ops.transpose(self.table.embeddings))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "table": keras.saving.serialize_keras_object(self.table)}

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            return cls(**{**config, "table": keras.saving.deserialize_keras_object(config["table"])})

    table = L.Embedding(9, 4, name="table")
    given = keras.Input((3,), dtype="int32")
    model = keras.Model(given, Tied(table, name="tied")(L.Dropout(0.5)(table(given))))
    tokens = np.array([[1, 2, 3]])
    for text in ("remove Dropout", "wrap Embedding with LoRA(rank=2)", "after Embedding: insert LayerNorm"):
        was = numbers(model, tokens)
        result = apply_rules(model, Rules(text))
        assert np.array_equal(numbers(result, tokens)[0], was[0]) == ("LayerNorm" not in text)
        tables = [layer for layer in result._flatten_layers() if isinstance(layer, L.Embedding)]
        assert [id(layer) for layer in tables] == [id(result.get_layer("tied").table)]
        assert tables[0] is not table
        again = apply_rules(result, Rules("after Embedding: insert Identity"))
        assert sum(isinstance(layer, L.Embedding) for layer in again._flatten_layers()) == 1
        assert np.array_equal(numbers(again, tokens)[0], numbers(result, tokens)[0])
