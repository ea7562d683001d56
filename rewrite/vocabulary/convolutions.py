"""Convolutions and transposed convolutions."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation

_CONV = (
    "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, padding_mode='zeros'"
)
_TRANSPOSED = (
    "in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True, dilation=1, "
    "padding_mode='zeros'"
)
_SEPARABLE = "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, depth_multiplier=1, bias=True"
_CONV_CALL = "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1"
_TRANSPOSED_CALL = "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1"
_READS = {"in_channels": 1}
_WRITES = {"out_channels": 1}
_DEFAULTS = {"out_channels": "in_channels"}

CONVOLUTIONS = (
    Operation(
        "Conv1d",
        family="conv",
        signature=_CONV,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=3,
        module="torch.nn.Conv1d",
        functions={"torch.nn.functional.conv1d": _CONV_CALL, "torch.conv1d": _CONV_CALL},
    ),
    Operation(
        "Conv2d",
        family="conv",
        signature=_CONV,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=4,
        module="torch.nn.Conv2d",
        functions={"torch.nn.functional.conv2d": _CONV_CALL, "torch.conv2d": _CONV_CALL},
    ),
    Operation(
        "Conv3d",
        family="conv",
        signature=_CONV,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=5,
        module="torch.nn.Conv3d",
        functions={"torch.nn.functional.conv3d": _CONV_CALL, "torch.conv3d": _CONV_CALL},
    ),
    Operation(
        "ConvTranspose1d",
        family="conv",
        signature=_TRANSPOSED,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=3,
        module="torch.nn.ConvTranspose1d",
        functions={
            "torch.nn.functional.conv_transpose1d": _TRANSPOSED_CALL,
            "torch.conv_transpose1d": _TRANSPOSED_CALL,
        },
    ),
    Operation(
        "ConvTranspose2d",
        family="conv",
        signature=_TRANSPOSED,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=4,
        module="torch.nn.ConvTranspose2d",
        functions={
            "torch.nn.functional.conv_transpose2d": _TRANSPOSED_CALL,
            "torch.conv_transpose2d": _TRANSPOSED_CALL,
        },
    ),
    Operation(
        "ConvTranspose3d",
        family="conv",
        signature=_TRANSPOSED,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=5,
        module="torch.nn.ConvTranspose3d",
        functions={
            "torch.nn.functional.conv_transpose3d": _TRANSPOSED_CALL,
            "torch.conv_transpose3d": _TRANSPOSED_CALL,
        },
    ),
    # Layers of Keras: a convolution of each channel, and one across the channels behind it, in one.
    Operation(
        "SeparableConv1d",
        family="conv",
        signature=_SEPARABLE,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=3,
        akin="Conv1d",
    ),
    Operation(
        "SeparableConv2d",
        family="conv",
        signature=_SEPARABLE,
        reads=_READS,
        writes=_WRITES,
        defaults=_DEFAULTS,
        rank=4,
        akin="Conv2d",
    ),
)
