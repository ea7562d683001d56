"""Two models on the same real numbers: how far their outputs are apart."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from rewrite.backends.backend import Difference, Example
from rewrite.backends.torch.modules import copy_tree
from rewrite.backends.torch.recipes import base_of
from rewrite.errors import Diagnostic

TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-10,
    torch.complex128: 1e-10,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 1e-2,
}
"""dtype -> what rounding may do to an output, as a part of the largest number in it. Each is some hundred times the
rounding of one operation or more (2e-16, 1e-7, 1e-3, 8e-3), since errors of many layers add up; a wrong layer is off by
a part near 1. Integers must be equal."""

_SMALLEST = 1e-3
"""stands for the largest number of an output where all are smaller still: they are what is left of larger ones"""


def compare(model: nn.Module, written: nn.Module, example: Example) -> Difference:
    """Runs copies of both in eval mode; the modules, their modes and buffers are left alone.

    Raises:
        SiteError: a model has no numbers, or does not run (RW203).

    """
    for one in (model, written):
        _check_numbers(one, example)
    was, now = (pytree.tree_flatten_with_path(_output(one, example)) for one in (model, written))
    if was[1] != now[1]:
        return Difference(math.inf, 0.0, reason="the outputs are nested differently")
    worst = Difference(0.0, 0.0)
    for (path, one), (_, other) in zip(was[0], now[0], strict=True):
        found = _difference(one, other, pytree.keystr(path))
        if found.reason:
            return found
        if _excess(found) > _excess(worst):
            worst = found
    return worst


def _excess(found: Difference) -> float:
    if found.error == 0:
        return found.allowed * 1e-30  # nothing differs: the one that says what would be allowed
    return found.error / found.allowed if found.allowed else math.inf


def _difference(one: Any, other: Any, place: str) -> Difference:
    if type(one) is not type(other) and not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        kinds = f"a {type(one).__name__} has become a {type(other).__name__}"
        return Difference(math.inf, 0.0, place, kinds)
    if not isinstance(one, torch.Tensor):
        plain = isinstance(one, int | float | str | bool | type(None))
        return Difference(0.0 if not plain or one == other else math.inf, 0.0, place)
    if one.shape != other.shape:
        return Difference(math.inf, 0.0, place, f"the shape {tuple(one.shape)} has become {tuple(other.shape)}")
    if one.dtype != other.dtype:
        return Difference(math.inf, 0.0, place, f"{one.dtype} has become {other.dtype}")
    if not one.numel():
        return Difference(0.0, 0.0, place)
    wide = torch.complex128 if one.is_complex() else torch.float64
    left, right = one.detach().to("cpu", wide), other.detach().to("cpu", wide)
    same = (left == right) | (left.isnan() & right.isnan())
    apart = torch.where(same, 0.0, (left - right).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
    finite = left.abs()[left.isfinite()]
    largest = float(finite.max()) if finite.numel() else 0.0
    allowed = TOLERANCES.get(one.dtype, 0.0) * max(largest, _SMALLEST)
    return Difference(float(apart.max()), allowed, place)


def _output(model: nn.Module, example: Example) -> Any:
    """What a copy of the model returns in eval mode: shared parameters, buffers and attributes of its own."""
    twin = copy_tree(model, {}, [])
    buffers: dict[torch.Tensor, torch.Tensor] = {}
    for module in twin.modules():
        module.training = False
        for name, buffer in module._buffers.items():
            if buffer is not None:
                if buffer not in buffers:
                    buffers[buffer] = buffer.clone()
                module._buffers[name] = buffers[buffer]
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (example.args, dict(example.kwargs)))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return twin(*args, **kwargs)
    except Exception as problem:
        text = (str(problem).strip() or repr(problem)).splitlines()[0]
        raise Diagnostic(
            "RW203",
            f"`{base_of(type(model)).__name__}` does not run on the example input: {text}",
            help="give inputs that the model takes: one tensor, a tuple of arguments, or a dict of keywords",
        ).error() from problem


def _check_numbers(model: nn.Module, example: Example) -> None:
    tensors = [*model.parameters(), *model.buffers(), *pytree.tree_leaves((example.args, dict(example.kwargs)))]
    if any(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in tensors):
        raise Diagnostic(
            "RW203",
            f"`{base_of(type(model)).__name__}` cannot be compared by a run: it is on the meta device",
            notes=("there are shapes and no numbers",),
            help="load the weights first, or leave the comparison out",
        ).error()
