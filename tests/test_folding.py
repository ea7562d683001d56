"""A normalisation folded into the weights next to it: against the two layers run one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rewrite.backends.torch.folding import FoldError, fold_ahead, fold_behind

CONVOLUTIONS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "plain 1d": (lambda **k: nn.Conv1d(4, 6, 3, padding=1, **k), 1),
    "plain 2d": (lambda **k: nn.Conv2d(4, 6, 3, padding=1, stride=2, **k), 2),
    "plain 3d": (lambda **k: nn.Conv3d(4, 6, 3, padding=1, **k), 3),
    "grouped": (lambda **k: nn.Conv2d(4, 6, 3, groups=2, **k), 2),
    "depthwise": (lambda **k: nn.Conv2d(4, 4, 3, groups=4, **k), 2),
    "dilated": (lambda **k: nn.Conv2d(4, 6, 3, dilation=2, padding="same", **k), 2),
    "reflecting": (lambda **k: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", **k), 2),
    "transposed 1d": (lambda **k: nn.ConvTranspose1d(4, 6, 3, **k), 1),
    "transposed 2d": (lambda **k: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, **k), 2),
    "transposed 3d": (lambda **k: nn.ConvTranspose3d(4, 6, 3, **k), 3),
    "transposed, grouped": (
        lambda **k: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2, dilation=2, **k),
        2,
    ),
}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def norm_of(channels: int, rank: int, *, affine: bool = True, bias: bool = True, eps: float = 1e-3) -> nn.Module:
    norm = NORMS[rank](channels, eps=eps, affine=affine)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 3)
        if affine:
            norm.weight.normal_()
            norm.bias.normal_()
    if not bias:
        norm.register_parameter("bias", None)
    return norm.eval()


def with_weights(layer: nn.Module, folded: object) -> nn.Module:
    layer.weight = nn.Parameter(folded.weight)  # type: ignore[attr-defined]
    layer.bias = nn.Parameter(folded.bias)  # type: ignore[attr-defined]
    return layer


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", ["both", "weight", "none"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_behind_a_convolution(name: str, affine: str, bias: bool) -> None:
    make, rank = CONVOLUTIONS[name]
    layer = make(bias=bias).double()
    x = torch.randn(2, 4, *[7] * rank, dtype=torch.float64)
    channels = layer(x).shape[1]
    norm = norm_of(channels, rank, affine=affine != "none", bias=affine == "both").double()
    with torch.no_grad():
        expected = norm(layer(x))
        assert error(with_weights(layer, fold_behind(layer, norm))(x), expected) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
def test_around_a_linear(bias: bool) -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        layer, norm = nn.Linear(4, 6, bias=bias).double(), norm_of(6, 1).double()
        expected = norm(layer(x))
        assert error(with_weights(layer, fold_behind(layer, norm))(x), expected) < 1e-12
        layer, norm = nn.Linear(4, 6, bias=bias).double(), norm_of(4, 1).double()
        expected = layer(norm(x))
        assert error(with_weights(layer, fold_ahead(layer, norm))(x), expected) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("make", "rank"),
    [
        (lambda **k: nn.Conv1d(4, 6, 3, **k), 1),
        (lambda **k: nn.Conv2d(4, 6, 3, groups=2, dilation=2, **k), 2),
        (lambda **k: nn.Conv2d(4, 6, 3, padding="valid", **k), 2),
        (lambda **k: nn.Conv2d(4, 6, 1, padding="same", **k), 2),
        (lambda **k: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", **k), 2),
        (lambda **k: nn.Conv3d(4, 6, 3, **k), 3),
        (lambda **k: nn.ConvTranspose2d(4, 6, 1, groups=2, **k), 2),
    ],
)
def test_in_front_of_a_convolution(make: Callable[..., nn.Module], rank: int, bias: bool) -> None:
    layer, norm = make(bias=bias).double(), norm_of(4, rank).double()
    x = torch.randn(2, 4, *[7] * rank, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(norm(x))
        assert error(with_weights(layer, fold_ahead(layer, norm))(x), expected) < 1e-12


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.ConvTranspose2d(4, 6, 2, stride=2),
        nn.ConvTranspose2d(4, 6, 1, stride=2),
    ],
)
def test_borders_are_no_place_for_a_shift(layer: nn.Module) -> None:
    with pytest.raises(FoldError) as found:
        fold_ahead(layer, norm_of(4, 2))
    assert found.value.diagnostic.code == "RW317"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
def test_other_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    layer, norm = nn.Conv2d(4, 6, 3).to(dtype), norm_of(6, 2).to(dtype)
    x = torch.randn(2, 4, 7, 7).to(dtype)
    with torch.no_grad():
        expected = norm(layer(x))
        folded = fold_behind(layer, norm)
        assert folded.weight.dtype == folded.bias.dtype == dtype
        assert error(with_weights(layer, folded)(x), expected) < tolerance


class Scaled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


@pytest.mark.parametrize(
    ("layer", "norm", "code"),
    [
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), "RW318"),
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(5), "RW317"),
        (nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), "RW320"),
        (nn.Embedding(4, 6), nn.BatchNorm1d(6), "RW320"),
        (Scaled(4, 6, 3), nn.BatchNorm2d(6), "RW320"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), nn.BatchNorm2d(6), "RW320"),
    ],
)
def test_what_cannot_be_folded(layer: nn.Module, norm: nn.Module, code: str) -> None:
    with pytest.raises(FoldError) as found:
        fold_behind(layer, norm)
    assert found.value.diagnostic.code == code
    assert found.value.diagnostic.help
