"""`fold`: scale and shift of a normalisation with fixed statistics, taken into the weights of the layer next to it.

A BatchNormalization computes `s * x + t` on each channel, where `s = gamma / sqrt(variance + epsilon)` and
`t = beta - mean * s`. Behind a layer `y = W x + b` that is `(s W) x + (s b + t)`; in front of one,
`(W s) x + (W t + b)`.
"""

from __future__ import annotations

from typing import Any

import keras

from rewrite.backends.keras.refusal import cannot
from rewrite.backends.keras.spellings import bases, fused_activation
from rewrite.source import Span


def fold(old: Any, new: Any, norm: Any, ahead: bool, span: Span | None) -> None:
    """Writes the weights of `new`, the copy of `old`.

    Raises:
        PlanError: the algebra does not hold for these two (RW320).

    """
    import numpy as np

    kinds = {base.removeprefix("keras.layers.") for base in bases(type(old))}
    if fused_activation(old) is not None and not ahead:
        raise cannot(f"`{old.name}` applies its activation in front of `{norm.name}`", span)
    separable = any(kind.startswith("Separable") for kind in kinds)
    if separable and ahead:
        raise cannot(f"`{norm.name}` in front of the separable `{old.name}` is not folded", span)
    last = "pointwise_kernel" if separable else "kernel"
    kernel = keras.ops.convert_to_numpy(getattr(old, last)).astype("float64")
    scale, shift = (array.astype("float64") for array in _affine(norm, np))
    bias = keras.ops.convert_to_numpy(old.bias).astype("float64") if old.use_bias else np.zeros(1)
    if kinds & {"DepthwiseConv1D", "DepthwiseConv2D"}:
        lanes = kernel.shape[-2:]
        if ahead and (getattr(old, "padding", "valid") != "valid"):
            raise _padded(old, norm, span)
        if ahead:
            folded = kernel * scale[:, None]
            bias = bias + (kernel * shift[:, None]).sum(axis=tuple(range(kernel.ndim - 2))).reshape(-1)
        else:
            folded = kernel * scale.reshape(lanes)
            bias = bias * scale + shift
    elif any(kind.endswith("Transpose") for kind in kinds):
        if ahead:
            raise cannot(f"`{norm.name}` in front of the transposed `{old.name}` is not folded", span)
        folded = kernel * scale[:, None]
        bias = bias * scale + shift
    elif ahead:
        if old.__class__.__name__ != "Dense" and old.padding != "valid":
            raise _padded(old, norm, span)
        if getattr(old, "groups", 1) != 1:
            raise cannot(f"`{norm.name}` in front of `{old.name}`, which has groups, is not folded", span)
        folded = kernel * scale[:, None]
        bias = bias + (kernel * shift[:, None]).reshape(-1, kernel.shape[-1]).sum(axis=0)
    else:
        folded = kernel * scale
        bias = bias * scale + shift
    dtype = str(getattr(old, last).dtype)
    getattr(new, last).assign(folded.astype(dtype))
    new.bias.assign(np.broadcast_to(bias, tuple(new.bias.shape)).astype(dtype))


def _affine(norm: Any, np: Any) -> tuple[Any, Any]:
    mean, variance = (keras.ops.convert_to_numpy(v).astype("float64") for v in (norm.moving_mean, norm.moving_variance))
    gamma = keras.ops.convert_to_numpy(norm.gamma).astype("float64") if norm.scale else 1.0
    beta = keras.ops.convert_to_numpy(norm.beta).astype("float64") if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _padded(old: Any, norm: Any, span: Span | None) -> Exception:
    return cannot(
        f"cannot fold `{norm.name}` into `{old.name}`: it pads with zeros",
        span,
        "at the border the shift would be counted where there is no input",
    )
