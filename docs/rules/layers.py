"""Layers that the rule files beside this one insert: `use "layers.py" as my` makes them known as `my.SEBlock` and so.

Rules that come with Python run it, so they need permission: `--allow-code`, or `allow_code=True`. Whoever passes the
module itself, `modules={"my": layers}`, has imported it already and needs none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SEBlock(nn.Module):
    """Squeeze and excite: each channel is scaled by a number between 0 and 1 that follows from all channels.

    Args:
        channels: of the value that it takes, >= 1.
        reduction: by how much the layer in the middle is narrower.

    Shape:
        `(batch, channels, height, width)`, and the same comes out.

    Source:
        Hu et al., "Squeeze-and-Excitation Networks" (2018), section 3.

    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, input: Tensor) -> Tensor:
        return input * self.gate(self.squeeze(input))


class GatedAdd(nn.Module):
    """The sum of two values, the second one scaled by a number that is learned and starts with 1."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.tensor(start))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + self.gate * second


class Scaled(nn.Module):
    """Another layer, its output multiplied by a fixed number: what `wrap` can put a layer into."""

    def __init__(self, layer: nn.Module, by: float = 1.0) -> None:
        super().__init__()
        self.layer = layer
        self.by = by

    def forward(self, input: Tensor) -> Tensor:
        return self.layer(input) * self.by


def is_wide(layer: nn.Conv2d) -> bool:
    """Whether a convolution has 64 output channels or more: a function for a `where`."""
    return layer.out_channels >= 64
