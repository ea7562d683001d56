"""A layer of Keras for each operation of the vocabulary, made of the arguments that the vocabulary gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from rewrite.backends.keras.own_layers import FunctionLayer, Tap
from rewrite.backends.keras.refusal import cannot
from rewrite.source import Span
from rewrite.vocabulary.operation import Operation

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a new layer comes to stand, as far as it depends on that what it is."""

    channels: int
    """the axis of the channels in the model, 1 or -1"""
    rank: int
    """number of axes of its input"""

    @property
    def format(self) -> str:
        """The order of the axes in Keras' words."""
        return "channels_first" if self.channels == 1 else "channels_last"


Make = Callable[[Arguments, Place, Span], Any]
"""makes a layer, or a list of layers of which the last is the one that is meant"""


# ---- convolutions and poolings


def padding_for(padding: object, kernel: object, stride: object, dilation: object) -> str | None:
    """`valid` or `same`, which is all that Keras has, for a padding in numbers; None: it is neither."""
    if isinstance(padding, str):
        return padding
    axes = max(len(v) for v in (padding, kernel, stride, dilation, (0,)) if isinstance(v, tuple | list))
    pads, kernels, strides, dilations = (_each(v, axes) for v in (padding, kernel, stride, dilation))
    if not any(pads):
        return "valid"
    rows = zip(pads, kernels, strides, dilations, strict=True)
    return "same" if all(s == 1 and 2 * p == d * (k - 1) for p, k, s, d in rows) else None


def _each(value: Any, axes: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * axes


def _padding_layer(padding: Any, place: Place) -> Any:
    """Zeros around the axes behind the channels: a number, one for each axis, or a pair for each axis."""
    axes = place.rank - 2
    pairs = tuple(side if isinstance(side, tuple) else (side, side) for side in _each(padding, axes))
    if axes == 1:
        return keras.layers.ZeroPadding1D(pairs[0], data_format=place.format)
    cls = keras.layers.ZeroPadding2D if axes == 2 else keras.layers.ZeroPadding3D
    return cls(pairs, data_format=place.format)


def _conv(cls: Any, own: str = "groups") -> Make:
    """A convolution; `own` is the argument that this kind has and others have not."""

    def make(given: Arguments, place: Place, span: Span) -> Any:
        if given.get("padding_mode", "zeros") != "zeros":
            raise cannot(f"Keras pads with zeros, not with {given['padding_mode']!r}", span)
        padding = padding_for(given["padding"], given["kernel_size"], given["stride"], given["dilation"])
        layer = cls(
            given["out_channels"],
            given["kernel_size"],
            strides=given["stride"],
            padding=padding or "valid",
            dilation_rate=given["dilation"],
            use_bias=bool(given["bias"]),
            data_format=place.format,
            **{own: given[own]},
        )
        return layer if padding else [_padding_layer(given["padding"], place), layer]

    return make


def _transposed(cls: Any) -> Make:
    def make(given: Arguments, place: Place, span: Span) -> Any:
        kernel, stride, pad = given["kernel_size"], given["stride"], given["padding"]
        if given["padding_mode"] != "zeros":
            raise cannot(f"Keras pads with zeros, not with {given['padding_mode']!r}", span)
        if given["groups"] != 1 or any(_each(given["output_padding"], 1)):
            raise cannot("a transposed convolution of Keras has no `groups`, and its padding fixes the size", span)
        whole = all(isinstance(v, int) for v in (kernel, stride, pad))
        if isinstance(pad, str) or not any(_each(pad, 1)):
            padding = pad if isinstance(pad, str) else "valid"
        elif whole and 2 * pad == kernel - stride:
            padding = "same"
        else:
            raise cannot(
                f"a padding of {pad!r} is neither `valid` nor `same` here",
                span,
                help="leave `padding` out, and take the border away behind it",
            )
        return cls(
            given["out_channels"],
            kernel,
            strides=stride,
            padding=padding,
            dilation_rate=given["dilation"],
            use_bias=bool(given["bias"]),
            data_format=place.format,
        )

    return make


def _pool(cls: Any, *, averages: bool) -> Make:
    def make(given: Arguments, place: Place, span: Span) -> Any:
        kernel = given["kernel_size"]
        stride = given["stride"] if given["stride"] is not None else kernel
        odd = [name for name in ("return_indices", "ceil_mode", "divisor_override") if given.get(name)]
        if odd or any(size != 1 for size in _each(given.get("dilation", 1), 1)):
            raise cannot(f"a pooling of Keras has no `{odd[0] if odd else 'dilation'}`", span)
        padding = padding_for(given["padding"], kernel, stride, 1)
        # A padding of zeros counts in the mean, unless it is told not to; `same` never counts.
        counts = averages and padding == "same" and not isinstance(given["padding"], str) and given["count_include_pad"]
        if padding is not None and not counts:
            return cls(kernel, strides=stride, padding=padding, data_format=place.format)
        if not averages or not given["count_include_pad"]:
            raise cannot(
                f"padding {given['padding']!r} with a window of {kernel!r} and a stride of {stride!r} is neither "
                "`valid` nor `same`",
                span,
                "a pooling of Keras pads in one of these ways, with what does not count",
                help='write `padding="same"`, or put a `ZeroPad2d` in front where zeros may count',
            )
        return [
            _padding_layer(given["padding"], place),
            cls(kernel, strides=stride, padding="valid", data_format=place.format),
        ]

    return make


def _adaptive(cls: Any) -> Make:
    def make(given: Arguments, place: Place, span: Span) -> Any:
        sizes = _each(given["output_size"], place.rank - 2)
        if given.get("return_indices") or any(size is None for size in sizes):
            what = "`return_indices`" if given.get("return_indices") else "an `output_size` of none"
            raise cannot(f"an adaptive pooling of Keras has no {what}", span)
        return cls(sizes if len(sizes) > 1 else sizes[0], data_format=place.format)

    return make


def _global(cls: Any) -> Make:
    return lambda given, place, span: cls(data_format=place.format)


def _zero_pad(given: Arguments, place: Place, span: Span) -> Any:
    padding, axes = given["padding"], place.rank - 2
    if isinstance(padding, tuple | list):
        if len(padding) != 2 * axes:
            raise cannot(f"`padding` has {2 * axes} numbers or one, the last axis first", span)
        padding = tuple((padding[2 * n], padding[2 * n + 1]) for n in reversed(range(axes)))
    return _padding_layer(padding, place)


def _upsample(given: Arguments, place: Place, span: Span) -> Any:
    if given["size"] is not None or given["scale_factor"] is None:
        raise cannot("an up-sampling of Keras is told a `scale_factor`", span)
    return keras.layers.UpSampling2D(given["scale_factor"], interpolation=given["mode"], data_format=place.format)


# ---- normalisations


def _norm(cls: Any, *, groups: bool = False) -> Make:
    def make(given: Arguments, place: Place, span: Span) -> Any:
        options: dict[str, Any] = {"epsilon": given["eps"]} if given["eps"] is not None else {}
        if groups:
            options |= {"groups": given["num_groups"], "axis": place.channels}
        elif isinstance(given["normalized_shape"], tuple | list) and len(given["normalized_shape"]) > 1:
            raise cannot("over several axes is not made here", span, help="give the class by `modules=`")
        if not given.get("affine", given.get("elementwise_affine", True)):
            options |= {"scale": False, "center": False}
        return cls(**options)

    return make


def _batch_norm(given: Arguments, place: Place, span: Span) -> Any:
    if given["momentum"] is None or not given["track_running_stats"]:
        raise cannot("a BatchNormalization of Keras keeps statistics, and they have a momentum", span)
    affine = bool(given["affine"])
    return keras.layers.BatchNormalization(
        axis=place.channels,
        momentum=round(1 - given["momentum"], 12),
        epsilon=given["eps"],
        center=affine and bool(given["bias"]),
        scale=affine,
    )


# ---- activations and dropouts


def is_activation(row: Operation) -> bool:
    """Whether a function of `keras.activations` is made a layer for it."""
    return row.keras is not None and bool(row.keras.activations) and row.name != "Identity"


def activation(row: Operation, given: Arguments, span: Span | None) -> Any:
    """The layer that applies an activation; with arguments where Keras' defaults are others.

    Raises:
        PlanError: Keras' function does not have an argument that is not at its default (RW320).

    """
    assert row.keras is not None, "checked by `is_activation`"
    name = row.keras.activations[0]
    defaults = {p.name: p.default for p in row.parameters}
    theirs = {p.name: p.default for p in inspect.signature(getattr(keras.activations, name)).parameters.values()}
    wanted = {}
    for key, value in given.items():
        own = row.keras.names.get(key, key)
        if own in theirs:
            wanted[own] = row.keras.values.get(value, value) if isinstance(value, str) else value
        elif key != "inplace" and value != defaults.get(key):
            raise cannot(f"Keras' `{name}` has no `{key}`", span)
    wanted = {key: value for key, value in wanted.items() if value is not None and value != theirs[key]}
    return FunctionLayer(name, wanted) if wanted else keras.layers.Activation(name)


def _every_sample(given: Arguments, place: Place, span: Span) -> Any:
    """Drops whole samples: one draw for all axes but the first."""
    return keras.layers.Dropout(given["drop_prob"], noise_shape=(None, *[1] * (place.rank - 1)))


def _dropout(cls: Any) -> Make:
    return lambda given, place, span: cls(given["p"])


def _prelu(given: Arguments, place: Place, span: Span) -> Any:
    """One slope for all, or one for each channel."""
    channels = place.channels % place.rank
    shared = [axis for axis in range(1, place.rank) if given["num_parameters"] == 1 or axis != channels]
    return keras.layers.PReLU(keras.initializers.Constant(given["init"]), shared_axes=shared)


# ---- recurrent layers


def _recurrent(cls: Any) -> Make:
    def make(given: Arguments, place: Place, span: Span) -> Any:
        odd = [name for name in ("proj_size", "dropout") if given.get(name)]
        if odd or given["num_layers"] != 1:
            raise cannot(f"one recurrent layer of Keras has no `{odd[0] if odd else 'num_layers'}`", span)
        options = {"activation": given["nonlinearity"]} if "nonlinearity" in given else {}
        layer = cls(given["hidden_size"], use_bias=bool(given["bias"]), return_sequences=True, **options)
        return keras.layers.Bidirectional(layer) if given["bidirectional"] else layer

    return make


_LAYERS = keras.layers

MAKERS: Mapping[str, Make] = {
    "Conv1d": _conv(_LAYERS.Conv1D),
    "Conv2d": _conv(_LAYERS.Conv2D),
    "Conv3d": _conv(_LAYERS.Conv3D),
    "ConvTranspose1d": _transposed(_LAYERS.Conv1DTranspose),
    "ConvTranspose2d": _transposed(_LAYERS.Conv2DTranspose),
    "ConvTranspose3d": _transposed(_LAYERS.Conv3DTranspose),
    "SeparableConv1d": _conv(_LAYERS.SeparableConv1D, "depth_multiplier"),
    "SeparableConv2d": _conv(_LAYERS.SeparableConv2D, "depth_multiplier"),
    "Linear": lambda given, place, span: _LAYERS.Dense(given["out_features"], use_bias=bool(given["bias"])),
    "Identity": lambda given, place, span: _LAYERS.Identity(),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), _batch_norm),
    "GroupNorm": _norm(_LAYERS.GroupNormalization, groups=True),
    "LayerNorm": _norm(_LAYERS.LayerNormalization),
    "RMSNorm": _norm(_LAYERS.RMSNormalization),
    "ReLU": lambda given, place, span: _LAYERS.ReLU(),
    "ReLU6": lambda given, place, span: _LAYERS.ReLU(max_value=6.0),
    "LeakyReLU": lambda given, place, span: _LAYERS.LeakyReLU(given["negative_slope"]),
    "PReLU": _prelu,
    "ELU": lambda given, place, span: _LAYERS.ELU(given["alpha"]),
    "Softmax": lambda given, place, span: _LAYERS.Softmax(-1 if given["dim"] is None else given["dim"]),
    "MaxPool1d": _pool(_LAYERS.MaxPooling1D, averages=False),
    "MaxPool2d": _pool(_LAYERS.MaxPooling2D, averages=False),
    "MaxPool3d": _pool(_LAYERS.MaxPooling3D, averages=False),
    "AvgPool1d": _pool(_LAYERS.AveragePooling1D, averages=True),
    "AvgPool2d": _pool(_LAYERS.AveragePooling2D, averages=True),
    "AvgPool3d": _pool(_LAYERS.AveragePooling3D, averages=True),
    **{f"AdaptiveAvgPool{n}d": _adaptive(getattr(_LAYERS, f"AdaptiveAveragePooling{n}D")) for n in (1, 2, 3)},
    **{f"AdaptiveMaxPool{n}d": _adaptive(getattr(_LAYERS, f"AdaptiveMaxPooling{n}D")) for n in (1, 2, 3)},
    **{f"GlobalAvgPool{n}d": _global(getattr(_LAYERS, f"GlobalAveragePooling{n}D")) for n in (1, 2, 3)},
    **{f"GlobalMaxPool{n}d": _global(getattr(_LAYERS, f"GlobalMaxPooling{n}D")) for n in (1, 2, 3)},
    "Dropout": _dropout(_LAYERS.Dropout),
    "Dropout1d": _dropout(_LAYERS.SpatialDropout1D),
    "Dropout2d": _dropout(_LAYERS.SpatialDropout2D),
    "Dropout3d": _dropout(_LAYERS.SpatialDropout3D),
    "AlphaDropout": _dropout(_LAYERS.AlphaDropout),
    "DropPath": _every_sample,
    "Embedding": lambda given, place, span: _LAYERS.Embedding(given["num_embeddings"], given["embedding_dim"]),
    "Flatten": lambda given, place, span: _LAYERS.Flatten(),
    **dict.fromkeys(("ZeroPad1d", "ZeroPad2d", "ZeroPad3d"), _zero_pad),
    "Upsample": _upsample,
    "RNN": _recurrent(_LAYERS.SimpleRNN),
    "LSTM": _recurrent(_LAYERS.LSTM),
    "GRU": _recurrent(_LAYERS.GRU),
    "Tap": lambda given, place, span: Tap(given["name"]),
}
"""operation -> what makes a layer of its arguments"""
