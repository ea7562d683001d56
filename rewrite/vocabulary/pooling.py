"""Pooling and its inverse.

The functions that return indices as well (`F.max_pool2d_with_indices`, `torch.adaptive_max_pool1d`) are not spellings
of these rows: they return a pair.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_MAX = "kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False"
_MAX_CALL = "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False"
_MAX_NATIVE_CALL = "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False"
_AVG1 = "kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True"
_AVG = "kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None"
_LP = "norm_type, kernel_size, stride=None, ceil_mode=False"
_FRACTIONAL = "kernel_size, output_size=None, output_ratio=None, return_indices=False, _random_samples=None"
_UNPOOL = "kernel_size, stride=None, padding=0"
_UNPOOL_CALL = "input, indices, kernel_size, stride=None, padding=0, output_size=None"

POOLING = (
    Operation(
        "MaxPool1d",
        family="pool",
        signature=_MAX,
        shape=Shape.CHANNELS,
        rank=3,
        module="torch.nn.MaxPool1d",
        functions={"torch.nn.functional.max_pool1d": _MAX_CALL, "torch.max_pool1d": _MAX_NATIVE_CALL},
    ),
    Operation(
        "MaxPool2d",
        family="pool",
        signature=_MAX,
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.MaxPool2d",
        functions={"torch.nn.functional.max_pool2d": _MAX_CALL, "torch.max_pool2d": _MAX_NATIVE_CALL},
    ),
    Operation(
        "MaxPool3d",
        family="pool",
        signature=_MAX,
        shape=Shape.CHANNELS,
        rank=5,
        module="torch.nn.MaxPool3d",
        functions={"torch.nn.functional.max_pool3d": _MAX_CALL, "torch.max_pool3d": _MAX_NATIVE_CALL},
    ),
    Operation(
        "AvgPool1d",
        family="pool",
        signature=_AVG1,
        shape=Shape.CHANNELS,
        rank=3,
        module="torch.nn.AvgPool1d",
        functions={"torch.nn.functional.avg_pool1d": f"input, {_AVG1}", "torch.avg_pool1d": f"input, {_AVG1}"},
    ),
    Operation(
        "AvgPool2d",
        family="pool",
        signature=_AVG,
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.AvgPool2d",
        functions={"torch.nn.functional.avg_pool2d": f"input, {_AVG}"},
    ),
    Operation(
        "AvgPool3d",
        family="pool",
        signature=_AVG,
        shape=Shape.CHANNELS,
        rank=5,
        module="torch.nn.AvgPool3d",
        functions={"torch.nn.functional.avg_pool3d": f"input, {_AVG}"},
    ),
    Operation(
        "AdaptiveAvgPool1d",
        family="pool",
        signature="output_size",
        shape=Shape.CHANNELS,
        rank=3,
        module="torch.nn.AdaptiveAvgPool1d",
        functions={
            "torch.nn.functional.adaptive_avg_pool1d": "input, output_size",
            "torch.adaptive_avg_pool1d": "input, output_size",
        },
    ),
    Operation(
        "AdaptiveAvgPool2d",
        family="pool",
        signature="output_size",
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.AdaptiveAvgPool2d",
        functions={"torch.nn.functional.adaptive_avg_pool2d": "input, output_size"},
    ),
    Operation(
        "AdaptiveAvgPool3d",
        family="pool",
        signature="output_size",
        shape=Shape.CHANNELS,
        rank=5,
        module="torch.nn.AdaptiveAvgPool3d",
        functions={"torch.nn.functional.adaptive_avg_pool3d": "input, output_size"},
    ),
    Operation(
        "AdaptiveMaxPool1d",
        family="pool",
        signature="output_size, return_indices=False",
        shape=Shape.CHANNELS,
        rank=3,
        module="torch.nn.AdaptiveMaxPool1d",
        functions={"torch.nn.functional.adaptive_max_pool1d": "input, output_size, return_indices=False"},
    ),
    Operation(
        "AdaptiveMaxPool2d",
        family="pool",
        signature="output_size, return_indices=False",
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.AdaptiveMaxPool2d",
        functions={"torch.nn.functional.adaptive_max_pool2d": "input, output_size, return_indices=False"},
    ),
    Operation(
        "AdaptiveMaxPool3d",
        family="pool",
        signature="output_size, return_indices=False",
        shape=Shape.CHANNELS,
        rank=5,
        module="torch.nn.AdaptiveMaxPool3d",
        functions={"torch.nn.functional.adaptive_max_pool3d": "input, output_size, return_indices=False"},
    ),
    Operation(
        "FractionalMaxPool2d",
        family="pool",
        signature=_FRACTIONAL,
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.FractionalMaxPool2d",
        functions={"torch.nn.functional.fractional_max_pool2d": f"input, {_FRACTIONAL}"},
    ),
    Operation(
        "FractionalMaxPool3d",
        family="pool",
        signature=_FRACTIONAL,
        shape=Shape.CHANNELS,
        rank=5,
        module="torch.nn.FractionalMaxPool3d",
        functions={"torch.nn.functional.fractional_max_pool3d": f"input, {_FRACTIONAL}"},
    ),
    Operation(
        "LPPool1d",
        family="pool",
        signature=_LP,
        shape=Shape.CHANNELS,
        rank=3,
        module="torch.nn.LPPool1d",
        functions={"torch.nn.functional.lp_pool1d": f"input, {_LP}"},
    ),
    Operation(
        "LPPool2d",
        family="pool",
        signature=_LP,
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.LPPool2d",
        functions={"torch.nn.functional.lp_pool2d": f"input, {_LP}"},
    ),
    Operation(
        "LPPool3d",
        family="pool",
        signature=_LP,
        shape=Shape.CHANNELS,
        rank=5,
        module="torch.nn.LPPool3d",
        functions={"torch.nn.functional.lp_pool3d": f"input, {_LP}"},
    ),
    # One number for each channel, and no axes behind it: layers of Keras, which PyTorch writes in two steps.
    Operation("GlobalAvgPool1d", family="pool", signature="", rank=3),
    Operation("GlobalAvgPool2d", family="pool", signature="", rank=4),
    Operation("GlobalAvgPool3d", family="pool", signature="", rank=5),
    Operation("GlobalMaxPool1d", family="pool", signature="", rank=3),
    Operation("GlobalMaxPool2d", family="pool", signature="", rank=4),
    Operation("GlobalMaxPool3d", family="pool", signature="", rank=5),
    # An unpooling undoes a pooling, it is none: `replace pool with ...` must not reach it.
    Operation(
        "MaxUnpool1d",
        signature=_UNPOOL,
        shape=Shape.CHANNELS,
        rank=3,
        ports=("input", "indices"),
        module="torch.nn.MaxUnpool1d",
        functions={"torch.nn.functional.max_unpool1d": _UNPOOL_CALL},
    ),
    Operation(
        "MaxUnpool2d",
        signature=_UNPOOL,
        shape=Shape.CHANNELS,
        rank=4,
        ports=("input", "indices"),
        module="torch.nn.MaxUnpool2d",
        functions={"torch.nn.functional.max_unpool2d": _UNPOOL_CALL},
    ),
    Operation(
        "MaxUnpool3d",
        signature=_UNPOOL,
        shape=Shape.CHANNELS,
        rank=5,
        ports=("input", "indices"),
        module="torch.nn.MaxUnpool3d",
        functions={"torch.nn.functional.max_unpool3d": _UNPOOL_CALL},
    ),
)
