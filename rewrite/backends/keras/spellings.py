"""What a layer, a function or an activation of Keras is in the vocabulary, and its attributes by neutral names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from rewrite import vocabulary
from rewrite.vocabulary.operation import Operation

FUSED = frozenset(
    f"keras.layers.{name}"
    for name in (
        "Conv1D",
        "Conv2D",
        "Conv3D",
        "Conv1DTranspose",
        "Conv2DTranspose",
        "Conv3DTranspose",
        "DepthwiseConv1D",
        "DepthwiseConv2D",
        "SeparableConv1D",
        "SeparableConv2D",
        "Dense",
        "EinsumDense",
    )
) | {"rewrite.backends.keras.own_layers.LoRA"}
"""classes that apply their activation to what they have computed, last of all"""

_NORM_KINDS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}


def qualified(cls: type) -> str:
    """The public dotted name of a class: `keras.layers.Conv2D`."""
    module = cls.__module__
    if module.startswith("keras.src.layers."):
        return f"keras.layers.{cls.__name__}"
    if module.startswith("keras.src.models."):
        return f"keras.{cls.__name__}"
    if module.startswith("keras.src.ops."):
        return f"keras.ops.{snake(cls.__name__)}"
    return f"{module}.{cls.__qualname__}"


def snake(name: str) -> str:
    """`LogSoftmax` -> `log_softmax`: the function that makes an operation of this class."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name).lower()


def bases(cls: type) -> tuple[str, ...]:
    """Dotted names of a class and of all classes behind it that say what it is."""
    return tuple(qualified(base) for base in cls.__mro__ if issubclass(base, keras.Layer) and base is not keras.Layer)


def functional_class() -> Any:
    """The class of a model that was made of its inputs and outputs; Keras gives it no public name."""
    from keras.src.models.functional import Functional

    return Functional


def activation_name(function: object) -> str:
    """The name of a function among `keras.activations`; empty if it is none of them."""
    name = getattr(function, "__name__", "")
    return name if getattr(keras.activations, name, None) is function else ""


def fused_activation(layer: object) -> object | None:
    """The activation that a layer applies last, as an operation of its own; None: the identity, or none."""
    if not any(base in FUSED for base in bases(type(layer))):
        return None
    function: object = getattr(layer, "activation", None)
    if function is None or activation_name(function) == "linear":
        return None
    return function


def activation_operation(function: object) -> tuple[str | None, Mapping[str, object]]:
    """The operation of an activation, given as a function or as a layer, and its attributes."""
    if isinstance(function, keras.Layer):
        return layer_operation(function, None, -1)
    return _called_activation(activation_name(function), {})


def _called_activation(name: str, arguments: Mapping[str, object]) -> tuple[str | None, dict[str, object]]:
    """The operation of a function of `keras.activations` with these arguments, and all its attributes."""
    row = vocabulary.by_keras_activation(name)
    if row is None:
        return None, {}
    assert row.keras is not None, "it was found by it"
    own = {theirs: key for key, theirs in row.keras.names.items()}
    words = {value: word for word, value in row.keras.values.items()}
    parameters = list(inspect.signature(getattr(keras.activations, name)).parameters.values())[1:]
    given = {p.name: arguments.get(p.name, p.default) for p in parameters}
    known = {parameter.name for parameter in row.parameters}
    found = {own.get(key, key): value for key, value in given.items() if own.get(key, key) in known}
    return row.name, {key: words.get(value, value) if words else value for key, value in found.items()}


def activation_spelling(function: object) -> str:
    """How people write an activation."""
    if isinstance(function, keras.Layer):
        return qualified(type(function))
    name = activation_name(function)
    return f"keras.activations.{name}" if name else getattr(function, "__name__", type(function).__name__)


def function_operation(operation: object) -> Operation | None:
    """The row of an operation layer (`keras.ops.add`, `x + y`)."""
    return vocabulary.by_keras_function(qualified(type(operation)))


def function_attributes(operation: object) -> dict[str, object]:
    """Arguments of an operation layer that are plain values."""
    row = function_operation(operation)
    own = {theirs: name for name, theirs in row.keras.names.items()} if row is not None and row.keras else {}
    if row is not None and row.name in ("mean", "sum", "squeeze", "split", "getitem"):
        own["axis"] = "dim"
    return {own.get(key, key): value for key, value in _plain(vars(operation)) if not key.startswith("_")}


def layer_operation(
    layer: keras.Layer, shape: tuple[int | None, ...] | None, channels: int
) -> tuple[str | None, dict[str, object]]:
    """The operation of a layer and its attributes, named as in the vocabulary.

    Args:
        layer: the layer.
        shape: of its first input; None: not known.
        channels: the axis of the channels in the model.

    """
    config = _config(layer)
    for base in bases(type(layer)):
        read = _READERS.get(base)
        if read is not None:
            name, found = read(layer, config, shape, channels)
        else:
            row = vocabulary.by_keras_class(base)
            name, found = (row.name if row is not None else None), {}
        if name is None and read is None:
            continue
        names = vocabulary.OPERATIONS[name].keras if name is not None else None
        theirs = {k: v for v, k in names.names.items()} if names is not None else {}
        for key, value in config.items():
            found.setdefault(theirs.get(key, key), value)
        return name, found
    return None, config


def _config(layer: keras.Layer) -> dict[str, object]:
    try:
        config = layer.get_config()
    except Exception:  # a class of the user's that never wrote one
        return {}
    return {k: v for k, v in _plain(config) if k not in ("name", "trainable", "dtype", "activation")}


def _plain(values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, list):
            value = tuple(value)
        items = value if isinstance(value, tuple) else (value,)
        if all(item is None or isinstance(item, bool | int | float | str) for item in items):
            yield key, value


# ---- classes whose attributes need more than a new name

_Read = Callable[[Any, dict[str, object], "tuple[int | None, ...] | None", int], "tuple[str | None, dict[str, object]]"]


def _conv(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    rank = layer.rank
    name = f"Conv{rank}d"
    kernel = tuple(layer.kernel.shape) if layer.built else None
    found: dict[str, object] = {"padding": _padding(config, rank)}
    kind = qualified(type(layer))
    if any("Depthwise" in base for base in bases(type(layer))):
        if kernel is not None:
            found |= {"in_channels": kernel[-2], "out_channels": kernel[-2] * kernel[-1], "groups": kernel[-2]}
    elif any("Transpose" in base for base in bases(type(layer))) or kind.endswith("Transpose"):
        name = f"ConvTranspose{rank}d"
        found |= {"in_channels": kernel[-1]} if kernel is not None else {}
        found["groups"] = 1
    elif kernel is not None:
        found["in_channels"] = kernel[-2] * layer.groups
    return name, found


def _padding(config: dict[str, object], rank: int) -> object:
    return (0,) * rank if config.get("padding") == "valid" else config.get("padding")


def _separable(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    found: dict[str, object] = {"padding": _padding(config, layer.rank)}
    if layer.built:
        found["in_channels"] = int(layer.depthwise_kernel.shape[-2])
    return f"SeparableConv{layer.rank}d", found


def _dropout(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    """One draw for each sample drops whole samples."""
    noise = layer.noise_shape
    whole = noise is not None and noise[0] is None and all(size == 1 for size in noise[1:])
    return "DropPath" if whole else "Dropout", {}


def _function(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    return _called_activation(layer.function, layer.arguments)


def _dense(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    return "Linear", {"in_features": int(layer.kernel.shape[0])} if layer.built else {}


def _batch_norm(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    rank = len(shape) if shape is not None else 4
    found: dict[str, object] = {
        "momentum": round(1 - layer.momentum, 12),
        "affine": bool(layer.center and layer.scale),
        "track_running_stats": True,
    }
    if layer.built:
        found["num_features"] = int(layer.moving_mean.shape[0])
    return _NORM_KINDS.get(rank, "BatchNorm2d"), found


def _layer_norm(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    sizes = [variable.shape for variable in layer.variables]
    name = "RMSNorm" if "RMS" in type(layer).__name__ else "LayerNorm"
    return name, {"normalized_shape": tuple(int(size) for size in sizes[0])} if sizes else {}


def _group_norm(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    size = shape[layer.axis] if shape is not None else None
    return "GroupNorm", {"num_channels": size} if size is not None else {}


def _relu(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    slope, most, threshold = (config.get(name) or 0 for name in ("negative_slope", "max_value", "threshold"))
    if threshold:
        return None, {}
    if slope:
        return (None, {}) if most else ("LeakyReLU", {"negative_slope": slope})
    name = "ReLU" if most == 0 else "ReLU6" if most == 6 else None
    return name, {}


def _activation(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    name, found = activation_operation(layer.activation)
    return name, dict(found)


def _pool(layer: Any, config: dict[str, object], shape: tuple[int | None, ...] | None, channels: int) -> Any:
    row = next(row for base in bases(type(layer)) if (row := vocabulary.by_keras_class(base)) is not None)
    rank = (row.rank or 4) - 2
    return row.name, {"padding": _padding(config, rank)}


_READERS: Mapping[str, _Read] = {
    **{f"keras.layers.{kind}": _conv for kind in ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D")},
    **{f"keras.layers.Conv{rank}DTranspose": _conv for rank in (1, 2, 3)},
    "keras.layers.SeparableConv1D": _separable,
    "keras.layers.SeparableConv2D": _separable,
    "keras.layers.Dropout": _dropout,
    "keras.layers.Dense": _dense,
    "keras.layers.BatchNormalization": _batch_norm,
    "keras.layers.LayerNormalization": _layer_norm,
    "keras.layers.RMSNormalization": _layer_norm,
    "keras.layers.GroupNormalization": _group_norm,
    "keras.layers.ReLU": _relu,
    "keras.layers.Activation": _activation,
    "rewrite.backends.keras.own_layers.FunctionLayer": _function,
    **{f"keras.layers.{kind}Pooling{rank}D": _pool for kind in ("Max", "Average") for rank in (1, 2, 3)},
}
