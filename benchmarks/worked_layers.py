"""Layers and functions that the worked rules take from Python: what a user would have in a `layers.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SEBlock(nn.Module):
    """Squeeze and excitation (Hu et al. 2018), with convolutions over the channel axis so that any width will do."""

    def __init__(self, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(1, reduction, 3, padding=1)
        self.excite = nn.Conv1d(reduction, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` in and out."""
        gate = x.mean((2, 3)).unsqueeze(1)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(gate)))).squeeze(1)
        return x * gate[:, :, None, None]


class LayerScale(nn.Module):
    """One learned factor (Touvron et al. 2021)."""

    def __init__(self, init: float = 1e-4) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class FakeQuant(nn.Module):
    """Rounds to the steps of a signed integer of `bits` bits over the range of the value; gradients pass."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.steps = 2 ** (bits - 1) - 1

    def forward(self, x: Tensor) -> Tensor:
        scale = x.detach().abs().amax().clamp_min(1e-8) / self.steps
        return x + (torch.round(x / scale) * scale - x).detach()


class Probe(nn.Module):
    """Keeps the mean of what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Normalize(nn.Module):
    """Subtracts means and divides by deviations, one of each per channel."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class FusedAdd(nn.Module):
    """The sum of two values in one call."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.add(a, b)


def prunable(layer: nn.Module) -> bool:
    """Whether a convolution is large enough to be worth splitting."""
    return isinstance(layer, nn.Conv2d) and layer.weight.numel() > 100_000
