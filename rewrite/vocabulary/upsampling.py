"""Up-sampling, and the shuffles that trade channels for resolution."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

UPSAMPLING = (
    Operation(
        "Upsample",
        signature="size=None, scale_factor=None, mode='nearest', align_corners=None, recompute_scale_factor=None",
        shape=Shape.CHANNELS,
        module="torch.nn.Upsample",
        functions={
            "torch.nn.functional.interpolate": "input, size=None, scale_factor=None, mode='nearest', "
            "align_corners=None, recompute_scale_factor=None, antialias=False",
            "torch.nn.functional.upsample": "input, size=None, scale_factor=None, mode='nearest', align_corners=None",
        },
    ),
    Operation(
        "UpsamplingNearest2d",
        signature="size=None, scale_factor=None",
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.UpsamplingNearest2d",
        functions={"torch.nn.functional.upsample_nearest": "input, size=None, scale_factor=None"},
    ),
    Operation(
        "UpsamplingBilinear2d",
        signature="size=None, scale_factor=None",
        shape=Shape.CHANNELS,
        rank=4,
        module="torch.nn.UpsamplingBilinear2d",
        functions={"torch.nn.functional.upsample_bilinear": "input, size=None, scale_factor=None"},
    ),
    Operation(
        "PixelShuffle",
        signature="upscale_factor",
        module="torch.nn.PixelShuffle",
        functions={
            "torch.nn.functional.pixel_shuffle": "input, upscale_factor",
            "torch.pixel_shuffle": "input, upscale_factor",
        },
    ),
    Operation(
        "PixelUnshuffle",
        signature="downscale_factor",
        module="torch.nn.PixelUnshuffle",
        functions={
            "torch.nn.functional.pixel_unshuffle": "input, downscale_factor",
            "torch.pixel_unshuffle": "input, downscale_factor",
        },
    ),
    Operation(
        "ChannelShuffle",
        signature="groups",
        shape=Shape.SAME,
        module="torch.nn.ChannelShuffle",
        functions={
            "torch.nn.functional.channel_shuffle": "input, groups",
            "torch.channel_shuffle": "input, groups",
        },
    ),
)
