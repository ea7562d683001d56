"""The algebra of folding: a normalisation with fixed statistics is a scale and a shift, and so are weights and bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rewrite.backends.torch.recipes import base_of
from rewrite.backends.torch.spellings import keeps_forward
from rewrite.errors import Diagnostic

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Folded:
    """New weights of a layer, in the dtype of the old ones."""

    weight: Tensor
    bias: Tensor


class FoldError(Exception):
    """Carries the diagnostic, without a place."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch normalisation with fixed statistics does to each channel, as `x * scale + shift`, in float64.

    With mean m, variance v, weight g (1 without one) and bias b (0 without one) it gives g (x - m) / sqrt(v + eps) + b:
    scale = g / sqrt(v + eps), and shift = b - m scale.

    Shape: `(channels,)` each.

    Source: Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 2, lines 10 and 11.
    """
    _check_norm(norm)
    mean, variance = _number(norm._buffers["running_mean"]), _number(norm._buffers["running_var"])
    weight, bias = norm._parameters.get("weight"), norm._parameters.get("bias")
    scale = torch.rsqrt(variance + norm.eps)  # type: ignore[operator]
    if weight is not None:
        scale = scale * _number(weight)
    shift = -mean * scale
    return scale, shift if bias is None else shift + _number(bias)


def fold_behind(layer: nn.Module, norm: nn.Module) -> Folded:
    """Weights with which a layer does what it and the normalisation behind it do.

    s (W x + c) + t = (s W) x + (s c + t), with s and t per output channel. The output channels of W are its first axis;
    those of a transposed convolution of G groups are its second, for each G-th part of the first.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference" (2018), section 3.2, equation 14.

    Raises:
        FoldError: RW320 a layer computes otherwise than its class says, RW318 no statistics, RW317 sizes differ.

    """
    weight = _weight_of(layer)
    scale, shift = scale_and_shift(norm)
    old = layer._parameters.get("bias")
    if isinstance(layer, _TRANSPOSED):
        groups = layer.groups
        _check_sizes(weight.shape[1] * groups, scale, "channels come out of it")
        split = _by_group(_number(weight), groups)
        per_channel = scale.view(groups, 1, -1, *[1] * (weight.dim() - 2))
        new = (split * per_channel).flatten(0, 1)
    else:
        _check_sizes(weight.shape[0], scale, "channels come out of it")
        new = _number(weight) * scale.view(-1, *[1] * (weight.dim() - 1))
    bias = shift if old is None else _number(old) * scale + shift
    return Folded(new.to(weight.dtype), bias.to(weight.dtype))


def fold_ahead(layer: nn.Module, norm: nn.Module) -> Folded:
    """Weights with which a layer does what it and the normalisation in front of it do.

    W (s x + t) + c = (W s) x + (W t + c), with s and t per input channel. Exact where every output is made of as many
    inputs as the weight has: zeros around the input are zeros in front of the normalisation, and t behind it.

    Raises:
        FoldError: RW320 a layer computes otherwise than its class says, RW318 no statistics, RW317 sizes differ, or
            the layer puts zeros around its input.

    """
    weight = _weight_of(layer)
    scale, shift = scale_and_shift(norm)
    _check_borders(layer)
    old = layer._parameters.get("bias")
    numbers = _number(weight)
    if isinstance(layer, _TRANSPOSED):
        _check_sizes(weight.shape[0], scale, "channels go into it")
        new = numbers * scale.view(-1, *[1] * (weight.dim() - 1))
        shifted = numbers * shift.view(-1, *[1] * (weight.dim() - 1))
        bias = _by_group(shifted.flatten(2).sum(2), layer.groups).sum(1).flatten()
    else:
        groups = 1 if isinstance(layer, nn.Linear) else int(layer.groups)  # type: ignore[arg-type]
        _check_sizes(weight.shape[1] * groups, scale, "channels go into it")
        split = _by_group(numbers, groups)
        shape = (groups, 1, -1, *[1] * (weight.dim() - 2))
        new = (split * scale.view(shape)).flatten(0, 1)
        bias = (split * shift.view(shape)).flatten(2).sum(2).flatten()
    if old is not None:
        bias = bias + _number(old)
    return Folded(new.to(weight.dtype), bias.to(weight.dtype))


def _number(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "checked before"
    return tensor.detach().to(torch.float64)


def _by_group(tensor: Tensor, groups: int) -> Tensor:
    """`(groups * n, ...) -> (groups, n, ...)`."""
    return tensor.reshape(groups, -1, *tensor.shape[1:])


def _weight_of(layer: nn.Module) -> Tensor:
    kinds = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)
    if not isinstance(layer, kinds):
        raise FoldError(
            Diagnostic(
                "RW320",
                f"a {base_of(type(layer)).__name__} has no weights that take a scale and a shift over",
                help="fold into a convolution or a `Linear`",
            )
        )
    weight = layer._parameters.get("weight")
    if parametrize.is_parametrized(layer) or weight is None:
        raise FoldError(
            Diagnostic(
                "RW320",
                "its weight is computed from other parameters",
                notes=("it is parametrized: weight_norm, spectral_norm, pruning or the like",),
                help="make it plain first, with `torch.nn.utils.parametrize.remove_parametrizations`",
            )
        )
    cls: Any = type(layer)
    if not keeps_forward(cls):
        raise FoldError(_own_forward(layer))
    return weight


def _check_norm(norm: nn.Module) -> None:
    if not isinstance(norm, _NORMS):
        raise FoldError(
            Diagnostic(
                "RW320",
                f"a {base_of(type(norm)).__name__} is not the same scale and shift for every input",
                help="only a BatchNorm can be folded: its statistics are fixed in eval mode",
            )
        )
    if norm.running_mean is None or norm.running_var is None:
        raise FoldError(
            Diagnostic(
                "RW318",
                "it keeps no statistics",
                notes=("`track_running_stats=False`: it takes mean and variance from each batch",),
                help="leave it out with `except`",
            )
        )
    cls: Any = type(norm)
    if not keeps_forward(cls):
        raise FoldError(_own_forward(norm))


def _own_forward(layer: nn.Module) -> Diagnostic:
    name = base_of(type(layer)).__name__
    return Diagnostic(
        "RW320",
        f"`{name}` has a forward of its own, which may do more than its base class",
        help=f"leave it out with `except {name}`",
    )


def _check_sizes(channels: int, scale: Tensor, what: str) -> None:
    if channels != scale.numel():
        raise FoldError(
            Diagnostic(
                "RW317",
                f"{channels} {what}, and the normalisation has {scale.numel()}",
                notes=("it works along another axis, or something stands between the two",),
                help="leave it out with `except`",
            )
        )


def _puts_zeros(layer: Any) -> bool:
    return layer.padding_mode == "zeros" and any(layer._reversed_padding_repeated_twice)


def _check_borders(layer: nn.Module) -> None:
    """Only where every output takes in the same inputs can the shift go into the bias."""
    why = ""
    if isinstance(layer, _TRANSPOSED):
        plain = math.prod(layer.kernel_size) == 1 and math.prod(layer.stride) == 1
        if not plain or any(layer.padding) or any(layer.output_padding):
            why = "a transposed convolution makes its outputs of different numbers of inputs"
    elif isinstance(layer, _CONVOLUTIONS) and _puts_zeros(layer):
        why = "it puts zeros around its input, which the normalisation in front of it does not see"
    if why:
        raise FoldError(
            Diagnostic(
                "RW317",
                "the result would differ along the borders",
                notes=(why,),
                help="fold it into the layer in front of it, or leave it out with `except`",
            )
        )
