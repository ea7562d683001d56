"""The vocabulary's Keras column: which classes and functions of Keras 3 are which operation.

Rules may write either spelling: `Dense(units=10)` is `Linear(out_features=10)`. What is built is always the row, with
the row's defaults, so that one rule makes one network in every framework.
"""

from __future__ import annotations

from collections.abc import Mapping

from rewrite.vocabulary.operation import KerasSpelling

_CONV = {
    "out_channels": "filters",
    "stride": "strides",
    "dilation": "dilation_rate",
    "bias": "use_bias",
}
_CONV_CALL = ("filters", "kernel_size", "strides", "padding")
_NORM = {"eps": "epsilon"}
_POOL = {"kernel_size": "pool_size", "stride": "strides"}
_POOL_CALL = ("pool_size", "strides", "padding")
_RATE = {"p": "rate"}
_UPSAMPLE = {"scale_factor": "size", "mode": "interpolation"}
_RECURRENT = {"hidden_size": "units", "bias": "use_bias"}


def _layer(
    *classes: str,
    names: Mapping[str, str] | None = None,
    call: tuple[str, ...] = (),
    functions: tuple[str, ...] = (),
    activations: tuple[str, ...] = (),
    values: Mapping[str, object] | None = None,
) -> KerasSpelling:
    return KerasSpelling(
        classes=tuple(f"keras.layers.{name}" for name in classes),
        functions=tuple(f"keras.ops.{name}" for name in functions),
        activations=activations,
        names=names or {},
        values=values or {},
        arguments=call,
    )


def _activation(
    *names: str,
    layer: str = "",
    attributes: Mapping[str, str] | None = None,
    values: Mapping[str, object] | None = None,
) -> KerasSpelling:
    """An activation: its names among `keras.activations`, which are those among `keras.ops` as well."""
    return _layer(*([layer] if layer else []), names=attributes, functions=names, activations=names, values=values)


def _own(name: str) -> KerasSpelling:
    """A layer of ours."""
    return KerasSpelling(classes=(f"rewrite.backends.keras.own_layers.{name}",))


KERAS: Mapping[str, KerasSpelling] = {
    "Conv1d": _layer("Conv1D", "DepthwiseConv1D", names=_CONV, call=_CONV_CALL),
    "Conv2d": _layer("Conv2D", "DepthwiseConv2D", names=_CONV, call=_CONV_CALL),
    "Conv3d": _layer("Conv3D", names=_CONV, call=_CONV_CALL),
    "ConvTranspose1d": _layer("Conv1DTranspose", names=_CONV, call=_CONV_CALL),
    "ConvTranspose2d": _layer("Conv2DTranspose", names=_CONV, call=_CONV_CALL),
    "ConvTranspose3d": _layer("Conv3DTranspose", names=_CONV, call=_CONV_CALL),
    "SeparableConv1d": _layer("SeparableConv1D", names=_CONV, call=_CONV_CALL),
    "SeparableConv2d": _layer("SeparableConv2D", names=_CONV, call=_CONV_CALL),
    "Linear": _layer("Dense", names={"out_features": "units", "bias": "use_bias"}, call=("units",)),
    "Identity": _layer("Identity", activations=("linear",)),
    "BatchNorm": _layer("BatchNormalization", names=_NORM),
    "BatchNorm1d": KerasSpelling(names=_NORM),
    "BatchNorm2d": KerasSpelling(names=_NORM),
    "BatchNorm3d": KerasSpelling(names=_NORM),
    "GroupNorm": _layer("GroupNormalization", names={**_NORM, "num_groups": "groups"}, call=("groups",)),
    "LayerNorm": _layer("LayerNormalization", names=_NORM, functions=("layer_normalization",)),
    "RMSNorm": _layer("RMSNormalization", names=_NORM, functions=("rms_normalization",)),
    "ReLU": _activation("relu", layer="ReLU"),
    "ReLU6": _activation("relu6"),
    "LeakyReLU": _activation("leaky_relu", layer="LeakyReLU"),
    "PReLU": _layer("PReLU"),
    "ELU": _activation("elu", layer="ELU"),
    "SELU": _activation("selu"),
    "CELU": _activation("celu"),
    "GELU": _activation("gelu", values={"none": False, "tanh": True}),
    "SiLU": _activation("silu", "swish"),
    "Mish": _activation("mish"),
    "Hardswish": _activation("hard_silu", "hard_swish"),
    "Hardsigmoid": _activation("hard_sigmoid"),
    "Hardtanh": _activation("hard_tanh"),
    "Hardshrink": _activation("hard_shrink", attributes={"lambd": "threshold"}),
    "Sigmoid": _activation("sigmoid"),
    "LogSigmoid": _activation("log_sigmoid"),
    "Tanh": _activation("tanh"),
    "Tanhshrink": _activation("tanh_shrink"),
    "Softplus": _activation("softplus"),
    "Softshrink": _activation("soft_shrink", attributes={"lambd": "threshold"}),
    "Softsign": _activation("softsign"),
    "Threshold": _activation("threshold", attributes={"value": "default_value"}),
    "GLU": _activation("glu", attributes={"dim": "axis"}),
    "Softmax": _activation("softmax", layer="Softmax", attributes={"dim": "axis"}),
    "LogSoftmax": _activation("log_softmax", attributes={"dim": "axis"}),
    "MaxPool1d": _layer("MaxPooling1D", names=_POOL, call=_POOL_CALL),
    "MaxPool2d": _layer("MaxPooling2D", names=_POOL, call=_POOL_CALL),
    "MaxPool3d": _layer("MaxPooling3D", names=_POOL, call=_POOL_CALL),
    "AvgPool1d": _layer("AveragePooling1D", names=_POOL, call=_POOL_CALL),
    "AvgPool2d": _layer("AveragePooling2D", names=_POOL, call=_POOL_CALL),
    "AvgPool3d": _layer("AveragePooling3D", names=_POOL, call=_POOL_CALL),
    "AdaptiveAvgPool1d": _layer("AdaptiveAveragePooling1D"),
    "AdaptiveAvgPool2d": _layer("AdaptiveAveragePooling2D"),
    "AdaptiveAvgPool3d": _layer("AdaptiveAveragePooling3D"),
    "AdaptiveMaxPool1d": _layer("AdaptiveMaxPooling1D"),
    "AdaptiveMaxPool2d": _layer("AdaptiveMaxPooling2D"),
    "AdaptiveMaxPool3d": _layer("AdaptiveMaxPooling3D"),
    "GlobalAvgPool1d": _layer("GlobalAveragePooling1D"),
    "GlobalAvgPool2d": _layer("GlobalAveragePooling2D"),
    "GlobalAvgPool3d": _layer("GlobalAveragePooling3D"),
    "GlobalMaxPool1d": _layer("GlobalMaxPooling1D"),
    "GlobalMaxPool2d": _layer("GlobalMaxPooling2D"),
    "GlobalMaxPool3d": _layer("GlobalMaxPooling3D"),
    "Dropout": _layer("Dropout", names=_RATE, call=("rate",)),
    "Dropout1d": _layer("SpatialDropout1D", names=_RATE, call=("rate",)),
    "Dropout2d": _layer("SpatialDropout2D", names=_RATE, call=("rate",)),
    "Dropout3d": _layer("SpatialDropout3D", names=_RATE, call=("rate",)),
    "AlphaDropout": _layer("AlphaDropout", names=_RATE, call=("rate",)),
    "Embedding": _layer("Embedding", names={"num_embeddings": "input_dim", "embedding_dim": "output_dim"}),
    "ZeroPad1d": _layer("ZeroPadding1D", call=("padding",)),
    "ZeroPad2d": _layer("ZeroPadding2D", call=("padding",)),
    "ZeroPad3d": _layer("ZeroPadding3D", call=("padding",)),
    "Upsample": _layer("UpSampling2D", "UpSampling1D", "UpSampling3D", names=_UPSAMPLE, call=("size",)),
    "RNN": _layer("SimpleRNN", names=_RECURRENT),
    "LSTM": _layer("LSTM", names=_RECURRENT),
    "GRU": _layer("GRU", names=_RECURRENT),
    "MultiheadAttention": _layer("MultiHeadAttention"),
    "add": _layer("Add", functions=("add",)),
    "sub": _layer("Subtract", functions=("subtract",)),
    "mul": _layer("Multiply", functions=("multiply",)),
    "div": _layer(functions=("divide", "true_divide")),
    "matmul": _layer(functions=("matmul",)),
    "cat": _layer("Concatenate", functions=("concatenate",), names={"dim": "axis"}),
    "stack": _layer(functions=("stack",), names={"dim": "axis"}),
    "Flatten": _layer("Flatten"),
    "reshape": _layer("Reshape", functions=("reshape",)),
    "permute": _layer("Permute", functions=("transpose",)),
    "transpose": _layer(functions=("swapaxes",)),
    "squeeze": _layer(functions=("squeeze",)),
    "unsqueeze": _layer(functions=("expand_dims",)),
    "mean": _layer(functions=("mean",)),
    "sum": _layer(functions=("sum",)),
    "split": _layer(functions=("split",)),
    "unbind": _layer(functions=("unstack",)),
    "getitem": _layer(functions=("get_item",)),
    "pad": _layer(functions=("pad",)),
    "DropPath": KerasSpelling(names={"drop_prob": "rate"}),
    "LoRA": _own("LoRA"),
    "Tap": _own("Tap"),
}
"""name of a row -> how Keras spells it"""
