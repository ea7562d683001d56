"""Layers that PyTorch does not have and rules name: `DropPath`, `LoRA` and `Tap`."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite.errors import Diagnostic


class DropPath(nn.Module):
    """Drops whole samples of a batch in training mode, and scales the others up; in eval mode its input as it is.

    Put at the end of a residual branch it skips the branch for some samples: stochastic depth.

    Args:
        drop_prob: chance that a sample is dropped, in [0, 1].

    Shape:
        `(batch, ...) -> (batch, ...)`

    Source:
        Huang et al., "Deep Networks with Stochastic Depth" (2016), equation 2; scaled by 1 / (1 - drop_prob) while
        training instead of by 1 - drop_prob afterwards, so that eval mode is the identity.

    """

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        if not 0 <= drop_prob <= 1:
            raise ValueError(f"drop_prob is a chance, between 0 and 1, not {drop_prob}")
        self.drop_prob = drop_prob

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return input
        kept = 1 - self.drop_prob
        mask = input.new_empty(input.shape[0], *[1] * (input.dim() - 1)).bernoulli_(kept)
        return input * (mask / kept if kept else mask)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


class LoRA(nn.Module):
    """A layer beside which a product of two small matrices learns what is to be added to its output.

    `lora_B` begins with zeros, so that nothing changes at first. The layer itself is left as it is: freeze it, and only
    `lora_A` and `lora_B` learn. What code reads of the layer (`weight`, `in_features`, `stride`) it reads here as well.

    Args:
        base_layer: a `Linear` or a `Conv1d`, `Conv2d`, `Conv3d`, or a `LoRA` of one.
        rank: inner size of the product, >= 1.
        alpha: scale; `alpha / rank` is what the product is multiplied by.
        dropout: chance that an input of the product is dropped in training mode.

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), equation 3 and section 4.1. Names as in
        the PEFT library.

    """

    def __init__(self, base_layer: nn.Module, rank: int = 8, alpha: float = 16, dropout: float = 0.0) -> None:
        super().__init__()
        inner = innermost(base_layer)
        if not isinstance(inner, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise TypeError(f"LoRA wraps a Linear or a convolution, not a {type(inner).__name__}")
        if rank < 1:
            raise ValueError(f"rank is at least 1, not {rank}")
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.base_layer = base_layer
        self.lora_dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        weight = inner.weight
        like: dict[str, Any] = {"device": weight.device}
        if weight.is_floating_point():
            like["dtype"] = weight.dtype
        if isinstance(inner, nn.Linear):
            down, up = (rank, inner.in_features), (inner.out_features, rank)
        else:
            extent = inner.kernel_size
            down, up = (rank, inner.in_channels, *extent), (inner.out_channels, rank, *[1] * len(extent))  # type: ignore[assignment]
        self.lora_A = nn.Parameter(torch.empty(down, **like))
        self.lora_B = nn.Parameter(torch.empty(up, **like))
        self.reset_parameters()
        self.training = self.lora_dropout.training = base_layer.training

    def reset_parameters(self) -> None:
        """Begins anew: A as a `Linear` begins, B with zeros; the base layer stays as it is."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, input: Tensor) -> Tensor:
        output = cast(Tensor, self.base_layer(input))
        return output + self.added(self.lora_dropout(input)) * (self.alpha / self.rank)

    def added(self, input: Tensor) -> Tensor:
        """B A x."""
        # not by the base layer's class: one that was quantized since is no `Linear` any more
        if self.lora_A.dim() == 2:
            return functional.linear(functional.linear(input, self.lora_A), self.lora_B)
        inner: Any = innermost(self.base_layer)
        convolve = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[self.lora_A.dim()]
        padding = inner.padding
        if inner.padding_mode != "zeros":
            input = functional.pad(input, inner._reversed_padding_repeated_twice, mode=inner.padding_mode)
            padding = 0
        inside = convolve(input, self.lora_A, None, inner.stride, padding, inner.dilation)
        return convolve(inside, self.lora_B)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}"


def _reads_base(name: str) -> property:
    """An attribute that is the base layer's."""

    def read(self: nn.Module) -> Any:
        return getattr(self.base_layer, name)

    return property(read, doc=f"`{name}` of the base layer.")


for _name in (
    *("weight", "bias", "in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride"),
    *("padding", "padding_mode", "dilation", "groups", "transposed", "output_padding"),
):
    setattr(LoRA, _name, _reads_base(_name))


def innermost(layer: nn.Module) -> nn.Module:
    """What a chain of `LoRA` around `LoRA` wraps in the end."""
    while isinstance(layer, LoRA):
        layer = layer.base_layer
    return layer


class Tap(nn.Module):
    """Hands its input on and remembers it; `taps` collects what was remembered.

    The value is remembered as it is, with its history, so that a loss can be made of it. It is the very tensor that
    goes on: where the next layer overwrites its input in place, the remembered value is overwritten too. Copies and
    pickles of the layer remember nothing.

    Args:
        name: what `taps` calls the value.

    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.last: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        self.last = input
        return input

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "last": None}

    def extra_repr(self) -> str:
        return repr(self.name)


def taps(model: nn.Module) -> dict[str, Tensor]:
    """What each `Tap` of a model saw last, by its name; taps that have seen nothing are left out.

    Raises:
        RuleError: two taps have one name (RW109).

    """
    found: dict[str, Tensor] = {}
    owners: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, Tap):
            continue
        if module.name in owners:
            raise Diagnostic(
                "RW109",
                f"two taps are named `{module.name}`",
                notes=(f"they stand at `{owners[module.name]}` and `{path}`",),
                help="give each tap a name of its own",
            ).error()
        owners[module.name] = path
        if module.last is not None:
            found[module.name] = module.last
    return found


OWN_LAYERS: tuple[type[nn.Module], ...] = (DropPath, LoRA, Tap)
"""all of them; a model file may hold them"""
