"""New layers in Keras models, as Keras itself computes them, and as PyTorch does where it has the same operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

keras = pytest.importorskip("keras")

from keras import layers as L  # noqa: E402

from rewrite import RewriteError, Rules, apply_rules, get_report  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras' own, of numpy and of its saving

IMAGE = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")


def chain() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, padding="same", activation="relu", name="c"),
            L.BatchNormalization(name="bn"),
            L.ReLU(name="r"),
            L.GlobalAveragePooling2D(name="g"),
            L.Dense(5, activation="softmax", name="d"),
        ]
    )


def passing(shape: tuple[int, ...] = (8, 8, 3)) -> Any:
    """A model that does nothing, for what is inserted behind it."""
    return keras.Sequential([keras.Input(shape), L.Identity(name="i")])


def numbers(model: Any, value: Any, training: bool = False) -> Any:
    return keras.ops.convert_to_numpy(model(value, training=training))


def learning(model: Any) -> list[str]:
    return [variable.path for variable in model.trainable_variables]


def saved(model: Any, folder: Path) -> Any:
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def as_torch(model: Any, layer: torch.nn.Module, value: Any) -> Any:
    """What PyTorch computes with the weights of the last layer of a model; channels in front for it."""
    made = model.layers[-1]
    kernel = keras.ops.convert_to_numpy(made.kernel)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))  # type: ignore[operator]
        layer.bias.zero_()  # type: ignore[operator]
        return layer(torch.from_numpy(value.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)


# ---- LoRA


def texts() -> Any:
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            L.Embedding(20, 8, mask_zero=True, name="e"),
            L.EinsumDense("abc,cd->abd", output_shape=(None, 4), activation="tanh", name="einsum"),
            L.Conv1D(4, 3, padding="causal", dilation_rate=2, name="c"),
            L.Dense(3, activation="relu", name="d"),
        ]
    )


@pytest.mark.parametrize("path", ["e", "einsum", "c", "d"])
def test_lora(path: str, tmp_path: Path) -> None:
    model, value = texts(), np.random.default_rng(0).integers(0, 20, (4, 6))
    rules = Rules(f'wrap "{path}" with LoRA(rank=2, alpha=6)\nfreeze any except LoRA')
    result = apply_rules(model, rules)
    assert np.allclose(numbers(model, value), numbers(result, value), atol=1e-6)
    assert learning(result) == [f"{path}/lora_A", f"{path}/lora_B"]
    # What is added is what a layer with the product in its weights computes.
    layer = result.get_layer(path)
    draw = np.random.default_rng(1)
    layer.lora_B.assign(draw.standard_normal(layer.lora_B.shape))
    both = 3 * keras.ops.matmul(layer.lora_A, layer.lora_B)
    merged = model.get_layer(path)
    weight = merged.embeddings if path == "e" else merged.kernel
    weight.assign(weight + both)
    assert np.allclose(numbers(model, value), numbers(result, value), atol=1e-5)
    assert not np.allclose(numbers(model, value), numbers(apply_rules(texts(), rules), value), atol=1e-3)
    again = saved(result, tmp_path)
    assert np.array_equal(numbers(again, value), numbers(result, value))
    assert [variable.name for variable in again.trainable_variables] == ["lora_A", "lora_B"]
    result.compile("sgd", "mse")
    still = keras.ops.convert_to_numpy(layer.base_layer.weights[0]).copy()
    result.train_on_batch(value, np.ones((4, 6, 3), "float32"))
    assert np.array_equal(still, keras.ops.convert_to_numpy(layer.base_layer.weights[0]))


@pytest.mark.parametrize("groups", [1, 2])
def test_lora_around_a_convolution(groups: int) -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 4)), L.Conv2D(6, 3, strides=2, groups=groups, activation="relu", name="c")]
    )
    value = np.random.default_rng(0).standard_normal((2, 8, 8, 4)).astype("float32")
    result = apply_rules(model, Rules("wrap Conv2d with LoRA(rank=2, alpha=2, dropout=0.5)"))
    layer = result.get_layer("c")
    layer.lora_B.assign(np.ones(layer.lora_B.shape))
    kernel = model.get_layer("c").kernel
    kernel.assign(kernel + keras.ops.matmul(layer.lora_A, layer.lora_B))
    assert np.allclose(numbers(model, value), numbers(result, value), atol=1e-5)


def test_rules_look_into_a_lora(tmp_path: Path) -> None:
    model = apply_rules(chain(), Rules("wrap Conv2d | Linear with LoRA(rank=2)\nfreeze any"))
    assert learning(model) == learning(saved(model, tmp_path)) == []
    woken = apply_rules(model, Rules("unfreeze LoRA"))
    assert {variable.name for variable in woken.trainable_variables} >= {"lora_A", "lora_B"}
    base = apply_rules(model, Rules("unfreeze Conv2d"))
    assert [variable.name for variable in base.trainable_variables] == ["kernel", "bias"]
    drawn = apply_rules(model, Rules("reset LoRA"))
    assert not np.array_equal(*(keras.ops.convert_to_numpy(m.get_layer("c").lora_A) for m in (model, drawn)))
    assert np.array_equal(*(keras.ops.convert_to_numpy(m.get_layer("c").base_layer.kernel) for m in (model, drawn)))
    behind = apply_rules(model, Rules("after LoRA: insert Dropout(0.1); expect 2 matches"))
    assert [layer.name for layer in behind.layers][:3] == ["c", "c_dropout", "c_activation"]
    with pytest.raises(RewriteError, match="LoRA wraps a"):
        apply_rules(model, Rules("wrap BatchNorm with LoRA"))


# ---- further layers


def test_drop_path_is_the_dropout_of_keras_that_drops_samples(tmp_path: Path) -> None:
    model = apply_rules(passing(), Rules("after Identity: insert DropPath(0.5)"))
    assert type(model.layers[-1]) is L.Dropout
    value = np.ones((64, 8, 8, 3), "float32")
    seen = numbers(model, value, training=True).reshape(64, -1)
    assert all(len(set(row)) == 1 for row in seen)
    assert set(seen[:, 0]) == {0.0, 2.0}
    again = apply_rules(saved(model, tmp_path), Rules("at DropPath: set self.drop_prob = 0.25"))
    assert again.layers[-1].rate == 0.25


@pytest.mark.parametrize(("arguments", "shape"), [("", (1, 1, 1)), ("num_parameters=3", (1, 1, 3))])
def test_prelu(arguments: str, shape: tuple[int, ...]) -> None:
    model = apply_rules(passing(), Rules(f"after Identity: insert PReLU({arguments})"))
    assert tuple(model.layers[-1].alpha.shape) == shape
    assert np.allclose(numbers(model, IMAGE), np.where(IMAGE > 0, IMAGE, 0.25 * IMAGE))


F = torch.nn.functional

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "LogSoftmax": lambda x: F.log_softmax(x, -1),
    "LogSoftmax(dim=1)": lambda x: F.log_softmax(x, 1),
    "GELU": F.gelu,
    'GELU("tanh")': lambda x: F.gelu(x, approximate="tanh"),
    "CELU(0.5)": lambda x: F.celu(x, 0.5),
    "ELU(0.5)": lambda x: F.elu(x, 0.5),
    "LeakyReLU": F.leaky_relu,
    "LeakyReLU(0.3)": lambda x: F.leaky_relu(x, 0.3),
    "Hardshrink(0.2)": lambda x: F.hardshrink(x, 0.2),
    "Softshrink(0.2)": lambda x: F.softshrink(x, 0.2),
    "Threshold(0.1, 20)": lambda x: F.threshold(x, 0.1, 20),
    "Softplus": F.softplus,
}


@pytest.mark.parametrize("text", ACTIVATIONS)
def test_activations_and_their_arguments(text: str, tmp_path: Path) -> None:
    model = apply_rules(passing(), Rules(f"after Identity: insert {text}"))
    wanted = ACTIVATIONS[text](torch.from_numpy(IMAGE)).numpy()
    assert np.allclose(numbers(model, IMAGE), wanted, atol=1e-5)
    again = saved(model, tmp_path)
    assert np.array_equal(numbers(again, IMAGE), numbers(model, IMAGE))
    name = text.partition("(")[0]
    gone = apply_rules(again, Rules(f"remove {name}"))
    assert np.array_equal(numbers(gone, IMAGE), IMAGE)


@pytest.mark.parametrize("text", [text for text in ACTIVATIONS if not text.startswith("LogSoftmax")])
def test_activations_that_a_layer_carries(text: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(3, "relu", kernel_initializer="identity", name="d")])
    result = apply_rules(model, Rules(f"at Linear: set self.activation = {text}"))
    assert [layer.name for layer in result.layers] == ["d"]
    value = IMAGE[0, 0]
    assert np.allclose(numbers(result, value), ACTIVATIONS[text](torch.from_numpy(value)).numpy(), atol=1e-5)
    assert np.array_equal(numbers(saved(result, tmp_path), value), numbers(result, value))


def test_arguments_of_a_new_activation_are_set() -> None:
    model = apply_rules(passing(), Rules("after Identity: insert CELU(0.5)"))
    result = apply_rules(model, Rules("at CELU: set self.alpha = 2"))
    assert np.allclose(numbers(result, IMAGE), F.celu(torch.from_numpy(IMAGE), 2).numpy(), atol=1e-5)


def test_arguments_of_a_function_are_set(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.ops.softmax(keras.ops.leaky_relu(inputs, 0.1), axis=1))
    rules = Rules("at LeakyReLU: set self.negative_slope = 0.3\nat Softmax: set self.dim = 2")
    result = apply_rules(model, rules, example_inputs=IMAGE)
    wanted = F.softmax(F.leaky_relu(torch.from_numpy(IMAGE), 0.3), 2).numpy()
    assert np.allclose(numbers(result, IMAGE), wanted, atol=1e-6)
    assert np.array_equal(numbers(saved(result, tmp_path), IMAGE), numbers(result, IMAGE))
    fused = keras.Sequential([keras.Input((3,)), L.Dense(3, "leaky_relu")])
    with pytest.raises(RewriteError, match="RW320"):
        apply_rules(fused, Rules("at LeakyReLU: set self.negative_slope = 0.3"))


@pytest.mark.parametrize(
    ("text", "oracle"),
    [
        ("AdaptiveAvgPool2d(4)", torch.nn.AdaptiveAvgPool2d(4)),
        ("AdaptiveMaxPool2d((2, 4))", torch.nn.AdaptiveMaxPool2d((2, 4))),
        ("GlobalAvgPool2d", lambda x: x.mean((2, 3))),
        ("GlobalMaxPool2d", lambda x: x.amax((2, 3))),
        ("AvgPool2d(3, stride=1, padding=1)", torch.nn.AvgPool2d(3, 1, 1)),
        ("AvgPool2d(3, stride=1, padding=1, count_include_pad=false)", torch.nn.AvgPool2d(3, 1, 1, False, False)),
        ("AvgPool2d(3, stride=2, padding=(1, 0))", torch.nn.AvgPool2d(3, 2, (1, 0))),
        ("MaxPool2d(3, stride=1, padding=1)", torch.nn.MaxPool2d(3, 1, 1)),
    ],
)
def test_poolings(text: str, oracle: Callable[[Any], Any]) -> None:
    wanted = oracle(torch.from_numpy(IMAGE.transpose(0, 3, 1, 2).copy())).numpy()
    wanted = wanted.transpose(0, 2, 3, 1) if wanted.ndim == 4 else wanted
    rules = Rules(f"replace Identity with {text}; expect output {wanted.shape}")
    model = apply_rules(passing(), rules, example_inputs=IMAGE)
    assert np.allclose(numbers(model, IMAGE), wanted, atol=1e-6)


def test_a_layer_of_keras_alone_is_refused_on_pytorch() -> None:
    with pytest.raises(RewriteError, match="RW320"):
        apply_rules(torch.nn.Sequential(torch.nn.ReLU()), Rules("after ReLU: insert GlobalAvgPool2d"))


@pytest.mark.parametrize("options", ["stride=2, padding=1", "padding=(2, 0)", "padding=3, dilation=2"])
def test_a_convolution_pads_as_it_is_told(options: str, tmp_path: Path) -> None:
    oracle = eval(f"torch.nn.Conv2d(3, 5, 3, {options})")
    size = oracle(torch.zeros(2, 3, 8, 8)).shape[2:]
    rules = Rules(f"after Identity: insert Conv2d(3, 5, 3, {options}); expect output (2, {size[0]}, {size[1]}, 5)")
    model = apply_rules(passing(), rules, example_inputs=IMAGE)
    assert [layer.name for layer in model.layers] == ["i", "i_conv2d_pad", "i_conv2d"]
    assert np.allclose(numbers(model, IMAGE), as_torch(model, oracle, IMAGE), atol=1e-5)
    assert np.array_equal(numbers(saved(model, tmp_path), IMAGE), numbers(model, IMAGE))


@pytest.mark.parametrize(("name", "kind"), [("RNN", L.SimpleRNN), ("LSTM", L.LSTM), ("GRU", L.GRU)])
def test_recurrent_layers_hand_on_every_step(name: str, kind: type, tmp_path: Path) -> None:
    value = IMAGE[:, 0]
    model = apply_rules(passing((8, 3)), Rules(f"after Identity: insert {name}"), example_inputs=value)
    assert type(model.layers[-1]) is kind
    assert model.output_shape == (None, 8, 3)
    assert np.array_equal(numbers(saved(model, tmp_path), value), numbers(model, value))
    both = Rules(f"after Identity: insert {name}(hidden_size=4, bidirectional=true); expect output (_, 8, 8)")
    assert type(apply_rules(passing((8, 3)), both).layers[-1]) is L.Bidirectional


# ---- separable convolutions


def separable() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, name="c"),
            L.SeparableConv2D(6, 3, activation="relu", name="s"),
            L.BatchNormalization(name="bn"),
            L.SeparableConv2D(4, 3, name="t"),
            L.BatchNormalization(name="bt"),
        ]
    )


def test_a_separable_convolution_is_told_of_where_conv2d_is_named() -> None:
    result = apply_rules(separable(), Rules("after Conv2d: insert BatchNorm2d; expect 1 matches"))
    (warning,) = [w for w in get_report(result).warnings if w.code == "RW405"]
    assert warning.message == "`SeparableConv2d` is no `Conv2d`, and 2 of them are left out"
    both = apply_rules(separable(), Rules("after Conv2d | SeparableConv2d: insert BatchNorm2d; expect 3 matches"))
    assert not [w for w in get_report(both).warnings if w.code == "RW405"]
    assert [layer.name for layer in both.layers][2:5] == ["s", "s_batchnorm2d", "s_activation"]
    left = apply_rules(separable(), Rules("after Conv2d except SeparableConv2d: insert BatchNorm2d"))
    assert not [w for w in get_report(left).warnings if w.code == "RW405"]


def test_a_new_separable_convolution() -> None:
    text = "after SeparableConv2D[filters==6]: insert SeparableConv2D(kernel_size=3, padding=1)"
    result = apply_rules(separable(), Rules(text))
    assert type(result.get_layer("s_separableconv2d")) is L.SeparableConv2D


def test_fold_into_a_separable_convolution() -> None:
    model = separable()
    draw = np.random.default_rng(1)
    for variable in model.get_layer("bt").weights:
        variable.assign(draw.random(variable.shape) + 0.5)
    result = apply_rules(model, Rules("fold BatchNorm into SeparableConv2d; expect equivalent"), example_inputs=IMAGE)
    assert [layer.name for layer in result.layers][-1] == "t"
    assert result.get_layer("t").use_bias
    assert np.allclose(numbers(model, IMAGE), numbers(result, IMAGE), atol=1e-4)


# ---- half frozen


@pytest.mark.parametrize(("what", "moves"), [("params", {"mean", "variance"}), ("stats", {"gamma", "beta"})])
def test_half_of_a_normalisation_is_frozen(what: str, moves: set[str], tmp_path: Path) -> None:
    model = chain()
    result = apply_rules(model, Rules(f"freeze {what} BatchNorm2d"))
    assert np.array_equal(numbers(model, IMAGE), numbers(result, IMAGE))
    for trained in (result, saved(result, tmp_path)):
        trained.trainable = True  # waking the whole model wakes what is not frozen by a rule
        layer = trained.get_layer("bn")
        before = {v.name: keras.ops.convert_to_numpy(v).copy() for v in layer.variables}
        trained.compile("sgd", "mse")
        trained.train_on_batch(IMAGE, np.ones((2, 5), "float32"))
        now = {v.name: keras.ops.convert_to_numpy(v) for v in layer.variables}
        moved = {name for name in now if not np.array_equal(now[name], before[name])}
        assert {name.removeprefix("moving_") for name in moved} == moves
    woken = apply_rules(result, Rules(f"unfreeze {what} BatchNorm2d"))
    assert type(woken.get_layer("bn")) is L.BatchNormalization
    assert woken.get_layer("bn").trainable
    stopped = apply_rules(result, Rules("freeze BatchNorm2d"))
    assert not stopped.get_layer("bn").trainable
    assert not learning(apply_rules(result, Rules("freeze any")))


# ---- layers inside of code


class Block(L.Layer):  # type: ignore[misc]
    """A layer with a `call` of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = L.Dense(3, activation="relu", name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        super().build(shape)

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs)


def test_layers_inside_of_code() -> None:
    model = keras.Sequential([keras.Input((3,)), Block(name="block"), L.Dense(2, name="d")])
    value = IMAGE[0, 0]
    frozen = apply_rules(model, Rules('freeze "block.inner"'))
    assert [variable.trainable for variable in frozen.get_layer("block").inner.weights] == [False, False]
    drawn = apply_rules(model, Rules('reset "block.inner"'))
    kernels = [keras.ops.convert_to_numpy(m.get_layer("block").inner.kernel) for m in (model, drawn, frozen)]
    assert not np.array_equal(kernels[0], kernels[1])
    assert np.array_equal(kernels[0], kernels[2])
    assert np.allclose(numbers(model, value), numbers(frozen, value), atol=1e-6)
    for text in ('at "block.inner": set self.activation = GELU', 'after "block.inner": insert Dropout'):
        assert get_report(apply_rules(model, Rules(text))).sites == 1


def test_what_is_frozen_stays_so_inside_of_an_attention() -> None:
    value = keras.Input((6, 4))
    model = keras.Model(value, L.Dense(2, name="d")(L.MultiHeadAttention(2, 2, name="mha")(value, value)))
    model.get_layer("mha").trainable = False
    assert learning(apply_rules(model, Rules("after Linear: insert Dropout"))) == ["d/kernel", "d/bias"]
    model.get_layer("mha").trainable = True
    model.get_layer("mha").query_dense.trainable = False
    assert len(learning(apply_rules(model, Rules("after Linear: insert Dropout")))) == len(learning(model)) == 8


def test_a_layer_that_is_half_frozen_wakes_nothing_in_it() -> None:
    class Scaled(L.Layer):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense, self.norm = L.Dense(4, name="dense"), L.LayerNormalization(name="norm")

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight((4,), name="scale")
            self.dense.build(shape)
            self.norm.build(shape)

        def call(self, x: Any) -> Any:
            return self.norm(self.dense(x) * self.scale)

    model = keras.Sequential([keras.Input((4,)), Scaled(name="s")])
    assert learning(apply_rules(model, Rules("freeze any except Dense"))) == ["s/dense/kernel", "s/dense/bias"]
    assert learning(apply_rules(model, Rules("freeze any"))) == []


def test_layers_inside_of_a_frozen_model_learn_where_they_say_so() -> None:
    base = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.Dense(3, name="b")], name="base")
    base.trainable = False
    base.get_layer("b").trainable = True
    given = keras.Input((4,))
    model = keras.Model(given, L.Dense(2, name="top")(base(given)))
    assert len(learning(model)) == 4
    assert len(learning(apply_rules(model, Rules("after last Linear: insert Dropout")))) == 4
    assert learning(apply_rules(model, Rules("freeze any"))) == []


def test_new_layers_compute_in_the_numbers_of_their_place() -> None:
    half = keras.DTypePolicy("mixed_bfloat16")
    given = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="relu", name="c", dtype=half)(given)
    x = keras.ops.tanh(x)
    model = keras.Model(given, L.Dense(2, name="d", dtype="float32")(L.Flatten(name="f", dtype=half)(x)))
    text = (
        "before Conv2d: insert Identity\nafter Conv2d: insert BatchNorm2d\nafter Tanh: insert Dropout\n"
        "after Linear: insert Sigmoid\nwrap Linear with LoRA"
    )
    result = apply_rules(model, Rules(text))
    found = {layer.name: layer.dtype_policy.name for layer in result.layers if not isinstance(layer, L.InputLayer)}
    assert {name for name, policy in found.items() if policy == "float32"} == {"d", "d_sigmoid"}
    assert len(found) == 8
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_layers(mode: str) -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, activation="relu", name="a"), L.Dense(8, name="b")])
    model.quantize(mode)
    row = np.random.default_rng(0).random((2, 8)).astype("float32")
    for text in ("after ReLU: insert Dropout", "freeze any\nwrap Linear with LoRA(rank=2)"):
        assert np.allclose(numbers(model, row), numbers(apply_rules(model, Rules(text)), row), atol=1e-5)


def test_a_lora_around_a_layer_whose_activation_is_a_layer() -> None:
    shared = L.Dense(4, activation=L.LeakyReLU(negative_slope=0.3), name="a")
    given = keras.Input((4,))
    model = keras.Model(given, shared(shared(given)))
    result = apply_rules(model, Rules("wrap Linear with LoRA"))
    row = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    assert np.allclose(numbers(model, row), numbers(result, row), atol=1e-6)


def test_weights_that_a_copy_does_not_have_are_not_lost_without_a_word() -> None:
    class Grown(L.Layer):  # type: ignore[misc]
        size = 4

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight((self.size,), name="scale")

        def call(self, x: Any) -> Any:
            return x * self.scale[:4]

    model = keras.Sequential([keras.Input((4,)), Grown(name="g"), L.ReLU(name="r")])
    Grown.size = 5
    with pytest.raises(RewriteError, match=r"`g` \(Grown\) cannot be copied: its weights are not those"):
        apply_rules(model, Rules("after ReLU: insert Dropout"))


def test_weights_without_a_name_of_their_own_are_kept() -> None:
    class Scaled(L.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.scale, self.shift = self.add_weight((4,)), self.add_weight((4,))

        def call(self, x: Any) -> Any:
            return x * self.scale + self.shift

    model = keras.Sequential([keras.Input((4,)), Scaled(name="s"), L.ReLU(name="r")])
    for number, variable in enumerate(model.weights):
        variable.assign(keras.ops.arange(4) + number)
    result = apply_rules(model, Rules("after ReLU: insert Dropout"))
    for was, now in zip(model.weights, result.weights, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(was), keras.ops.convert_to_numpy(now))
