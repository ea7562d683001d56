"""New layers: a row of the vocabulary and its arguments as a layer of Keras, weights drawn from a seed of their own."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from rewrite.backends.keras.own_layers import Tap
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic, RewriteError
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS

MOST_NUMBERS = 1 << 30
"""how many numbers one new layer may hold; a typing slip of three zeros should not fill the memory"""

_IGNORED = frozenset(["inplace"])
"""arguments without a meaning here"""


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

    def build(self, new: NewLayer, name: str, around: Any = None) -> Any:
        """One new layer; it gets its weights when it is first called.

        Args:
            new: what it is.
            name: its name in the model.
            around: the layer that it wraps.

        Raises:
            RuleError: its class refuses the arguments (RW106), or it would be larger than `MOST_NUMBERS` (RW112).
            PlanError: Keras has no such layer (RW320).

        """
        self.seed_for(new.seed)
        try:
            if new.operation is not None:
                layer = self._make(new, name)
            else:
                first = () if around is None else (around,)
                layer = self.modules[new.external or ""](*first, *new.arguments, **new.keywords)
        except RewriteError:
            raise
        except Exception as problem:
            text = str(problem).strip().splitlines()
            raise Diagnostic(
                "RW106", f"`{new}` cannot be built: {text[0] if text else type(problem).__name__}", new.span
            ).error() from problem
        if not isinstance(layer, keras.Layer):
            raise Diagnostic(
                "RW106",
                f"`{new.name}` makes a {type(layer).__name__}, not a layer",
                new.span,
                help="`modules=` maps a name to a subclass of keras.Layer or to a function that returns a layer",
            ).error()
        layer.name = name
        return layer

    def _make(self, new: NewLayer, name: str) -> Any:
        row = OPERATIONS[new.operation or ""]
        given = {p.name: p.default for p in row.parameters if not p.required}
        given |= dict(zip((p.name for p in row.parameters), new.arguments, strict=False))
        given |= new.keywords
        check_size(new, given)
        make = _MAKERS.get(row.name)
        if make is None and row.family == "activation" and row.keras is not None and row.keras.activations:
            odd = [p.name for p in row.parameters if given.get(p.name) != p.default and p.name not in _IGNORED]
            if odd:
                raise cannot(f"Keras' `{row.keras.activations[0]}` has no `{odd[0]}`", new.span)
            return keras.layers.Activation(row.keras.activations[0], name=name)
        if make is None:
            raise cannot(f"`{row.name}` cannot be made as a layer of Keras", new.span)
        return make(given, self.channels, new.span)


def cannot(message: str, span: Span | None = None, *notes: str, help: str = "") -> Exception:
    """RW320: what this backend does not do."""
    return Diagnostic("RW320", message, span, notes=notes, help=help).error()


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


def padding_for(padding: object, kernel: object, stride: object, dilation: object, span: Span | None) -> str:
    """`valid` or `same`, which is all that Keras has, for a padding in numbers.

    Raises:
        PlanError: it is neither (RW320).

    """
    if isinstance(padding, str):
        return padding
    axes = max(len(v) for v in (padding, kernel, stride, dilation, (0,)) if isinstance(v, tuple | list))
    pads, kernels, strides, dilations = (
        tuple(v) if isinstance(v, tuple | list) else (v,) * axes for v in (padding, kernel, stride, dilation)
    )
    if not any(pads):
        return "valid"
    rows = zip(pads, kernels, strides, dilations, strict=True)
    if all(s == 1 and 2 * p == d * (k - 1) for p, k, s, d in rows):
        return "same"
    raise cannot(
        f"padding {padding!r} with a kernel of {kernel!r} and a stride of {stride!r} is neither `valid` nor `same`",
        span,
        "a convolution or pooling of Keras pads in one of these ways",
        help='put a `ZeroPad2d` in front of it, or write `padding="same"`',
    )


def _conv(cls: Any, transposed: bool) -> Any:
    def make(given: Mapping[str, Any], channels: int, span: Span) -> Any:
        if given["padding_mode"] != "zeros":
            raise cannot(f"Keras pads with zeros, not with {given['padding_mode']!r}", span)
        options: dict[str, Any] = {}
        if transposed:
            kernel, stride, pad = given["kernel_size"], given["stride"], given["padding"]
            if given["groups"] != 1 or given["output_padding"] not in (0, (0, 0)):
                raise cannot("a transposed convolution of Keras has no `groups`, and its padding fixes the size", span)
            whole = all(isinstance(v, int) for v in (kernel, stride, pad))
            if isinstance(pad, str) or not pad:
                padding = pad or "valid"
            elif whole and 2 * pad == kernel - stride:
                padding = "same"
            else:
                raise cannot(f"a padding of {pad!r} is neither `valid` nor `same` here", span)
        else:
            options["groups"] = given["groups"]
            padding = padding_for(given["padding"], given["kernel_size"], given["stride"], given["dilation"], span)
        return cls(
            given["out_channels"],
            given["kernel_size"],
            strides=given["stride"],
            padding=padding,
            dilation_rate=given["dilation"],
            use_bias=bool(given["bias"]),
            data_format=_format(channels),
            **options,
        )

    return make


def _format(channels: int) -> str:
    return "channels_first" if channels == 1 else "channels_last"


def _pool(cls: Any) -> Any:
    def make(given: Mapping[str, Any], channels: int, span: Span) -> Any:
        kernel = given["kernel_size"]
        stride = given["stride"] if given["stride"] is not None else kernel
        odd = [name for name in ("return_indices", "ceil_mode") if given.get(name)]
        if odd or given.get("dilation", 1) not in (1, (1, 1)):
            raise cannot(f"a pooling of Keras has no `{odd[0] if odd else 'dilation'}`", span)
        padding = padding_for(given["padding"], kernel, stride, 1, span)
        return cls(kernel, strides=stride, padding=padding, data_format=_format(channels))

    return make


def _norm(cls: Any, *, groups: bool = False) -> Any:
    def make(given: Mapping[str, Any], channels: int, span: Span) -> Any:
        options: dict[str, Any] = {"epsilon": given["eps"]} if given["eps"] is not None else {}
        if groups:
            options |= {"groups": given["num_groups"], "axis": channels}
        elif isinstance(given["normalized_shape"], tuple | list) and len(given["normalized_shape"]) > 1:
            raise cannot("over several axes is not made here", span, help="give the class by `modules=`")
        if not given.get("affine", given.get("elementwise_affine", True)):
            options |= {"scale": False, "center": False}
        return cls(**options)

    return make


def _dropout(cls: Any) -> Any:
    return lambda given, channels, span: cls(given["p"])


def _batch_norm(given: Mapping[str, Any], channels: int, span: Span) -> Any:
    if given["momentum"] is None or not given["track_running_stats"]:
        raise cannot("a BatchNormalization of Keras keeps statistics, and they have a momentum", span)
    affine = bool(given["affine"])
    return keras.layers.BatchNormalization(
        axis=channels,
        momentum=round(1 - given["momentum"], 12),
        epsilon=given["eps"],
        center=affine and bool(given["bias"]),
        scale=affine,
    )


def _zero_pad(cls: Any, axes: int) -> Any:
    def make(given: Mapping[str, Any], channels: int, span: Span) -> Any:
        padding = given["padding"]
        if isinstance(padding, tuple | list):
            if len(padding) != 2 * axes:
                raise cannot(f"`padding` has {2 * axes} numbers or one, the last axis first", span)
            pairs = tuple((padding[2 * n], padding[2 * n + 1]) for n in reversed(range(axes)))
        else:
            pairs = ((padding, padding),) * axes
        options = {} if axes == 1 else {"data_format": _format(channels)}
        return cls(pairs if axes > 1 else pairs[0], **options)

    return make


def _upsample(given: Mapping[str, Any], channels: int, span: Span) -> Any:
    if given["size"] is not None or given["scale_factor"] is None:
        raise cannot("an up-sampling of Keras is told a `scale_factor`", span)
    return keras.layers.UpSampling2D(given["scale_factor"], interpolation=given["mode"], data_format=_format(channels))


_MAKERS: Mapping[str, Callable[[Mapping[str, Any], int, Span], Any]] = {
    "Conv1d": _conv(keras.layers.Conv1D, False),
    "Conv2d": _conv(keras.layers.Conv2D, False),
    "Conv3d": _conv(keras.layers.Conv3D, False),
    "ConvTranspose1d": _conv(keras.layers.Conv1DTranspose, True),
    "ConvTranspose2d": _conv(keras.layers.Conv2DTranspose, True),
    "ConvTranspose3d": _conv(keras.layers.Conv3DTranspose, True),
    "Linear": lambda given, channels, span: keras.layers.Dense(given["out_features"], use_bias=bool(given["bias"])),
    "Identity": lambda given, channels, span: keras.layers.Identity(),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), _batch_norm),
    "GroupNorm": _norm(keras.layers.GroupNormalization, groups=True),
    "LayerNorm": _norm(keras.layers.LayerNormalization),
    "RMSNorm": _norm(keras.layers.RMSNormalization),
    "ReLU": lambda given, channels, span: keras.layers.ReLU(),
    "ReLU6": lambda given, channels, span: keras.layers.ReLU(max_value=6.0),
    "LeakyReLU": lambda given, channels, span: keras.layers.LeakyReLU(given["negative_slope"]),
    "ELU": lambda given, channels, span: keras.layers.ELU(given["alpha"]),
    "Softmax": lambda given, channels, span: keras.layers.Softmax(-1 if given["dim"] is None else given["dim"]),
    "MaxPool1d": _pool(keras.layers.MaxPooling1D),
    "MaxPool2d": _pool(keras.layers.MaxPooling2D),
    "MaxPool3d": _pool(keras.layers.MaxPooling3D),
    "AvgPool1d": _pool(keras.layers.AveragePooling1D),
    "AvgPool2d": _pool(keras.layers.AveragePooling2D),
    "AvgPool3d": _pool(keras.layers.AveragePooling3D),
    "Dropout": _dropout(keras.layers.Dropout),
    "Dropout1d": _dropout(keras.layers.SpatialDropout1D),
    "Dropout2d": _dropout(keras.layers.SpatialDropout2D),
    "Dropout3d": _dropout(keras.layers.SpatialDropout3D),
    "AlphaDropout": _dropout(keras.layers.AlphaDropout),
    "Embedding": lambda given, channels, span: keras.layers.Embedding(given["num_embeddings"], given["embedding_dim"]),
    "Flatten": lambda given, channels, span: keras.layers.Flatten(),
    "ZeroPad1d": _zero_pad(keras.layers.ZeroPadding1D, 1),
    "ZeroPad2d": _zero_pad(keras.layers.ZeroPadding2D, 2),
    "ZeroPad3d": _zero_pad(keras.layers.ZeroPadding3D, 3),
    "Upsample": _upsample,
    "Tap": lambda given, channels, span: Tap(given["name"]),
}
"""operation -> what makes a layer of its arguments"""


def makeable() -> tuple[str, ...]:
    """Operations that can be inserted into a Keras model."""
    return tuple(
        row.name
        for row in OPERATIONS.values()
        if row.name in _MAKERS or (row.family == "activation" and row.keras is not None and row.keras.activations)
    )


def trial(layers: Sequence[NewLayer], shapes: Sequence[tuple[int | None, ...]], builder: Builder) -> Any:
    """Shape that a chain of new layers gives for inputs of `shapes`; a text says why it gives none."""
    try:
        with builder.own_randomness():
            values: Any = [keras.KerasTensor(shape) for shape in shapes]
            for new in layers:
                if new.wraps:
                    return f"the shape that `{new.name}` gives is up to the layer that it wraps"
                layer = builder.build(new, "trial")
                given = values[0] if len(values) == 1 else values
                if new.operation is not None:
                    shape = layer.compute_output_shape(given.shape)
                    values = [keras.KerasTensor(tuple(shape))]
                else:
                    values = [layer(given)]
    except RewriteError:
        raise
    except Exception as problem:
        text = str(problem).strip().splitlines()
        return text[0] if text else type(problem).__name__
    value = values[0]
    return tuple(value.shape) if isinstance(value, keras.KerasTensor) else f"it returns a {type(value).__name__}"
