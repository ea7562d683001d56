"""Two models on the same real numbers: how far their outputs are apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from rewrite.backends.backend import Difference, Example
from rewrite.backends.torch.modules import copy_tree, walk
from rewrite.backends.torch.recipes import base_of
from rewrite.backends.torch.run import opened
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
    was, now = (pytree.tree_flatten_with_path(opened(_output(one, example))) for one in (model, written))
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
    twin = _twin(model)
    for module in twin.modules():
        module.training = False
    with torch.no_grad():
        return _run(twin, model, example)


def _twin(model: nn.Module) -> nn.Module:
    """A copy that shares the parameters and has buffers and attributes of its own."""
    twin = copy_tree(model, {}, [])
    buffers: dict[torch.Tensor, torch.Tensor] = {}
    for module in twin.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                if buffer not in buffers:
                    buffers[buffer] = buffer.clone()
                module._buffers[name] = buffers[buffer]
    return twin


def _run(twin: nn.Module, model: nn.Module, example: Example) -> Any:
    """Runs a copy of `model` on a copy of the example, with the same random numbers each time.

    Raises:
        SiteError: it does not run (RW203).

    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (example.args, dict(example.kwargs)))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
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


# ---- one step of training


@dataclass
class _Step:
    """What one step of training computes."""

    output: list[tuple[Any, Any]]
    """(place, value)"""
    structure: Any
    gradients: dict[nn.Parameter, torch.Tensor | None]
    buffers: dict[torch.Tensor, torch.Tensor]
    """buffer of the model -> what it has become in the copy"""


def compare_training(model: nn.Module, written: nn.Module, example: Example) -> Difference:
    """Runs one step of both in training mode: outputs, gradients of shared parameters, buffers behind it.

    Layers that are in `written` only stay in eval mode, where what an insertion adds does nothing. Nothing is changed.

    Raises:
        SiteError: a model has no numbers, or does not run (RW203); the given one does not do the same thing twice
            (RW203).

    """
    for one in (model, written):
        _check_numbers(one, example)
    shared = set(written.parameters())
    learning = [one for one in model.parameters() if one.requires_grad and one in shared]
    old = {path for path, _ in walk(model)}
    was, again = (_step(model, example, learning, old) for _ in range(2))
    if not _worst(was, again, model, learning).is_rounding:
        raise Diagnostic(
            "RW203",
            f"`{base_of(type(model)).__name__}` does not do the same twice in training mode, with the same random seed",
            notes=("so two models cannot be compared in it",),
        ).error()
    return _worst(was, _step(written, example, learning, old), model, learning)


def _step(model: nn.Module, example: Example, learning: Sequence[nn.Parameter], old: Set[str]) -> _Step:
    twin = _twin(model)
    twin.train()
    for path, module in walk(twin):
        if path not in old:
            module.training = False
    with torch.enable_grad():
        flat, structure = pytree.tree_flatten_with_path(opened(_run(twin, model, example)))
        loss = _loss([value for _, value in flat])
        found = torch.autograd.grad(loss, learning, allow_unused=True) if loss.requires_grad and learning else ()
    mine, theirs = dict(model.named_buffers()), dict(twin.named_buffers())
    gradients: dict[nn.Parameter, torch.Tensor | None] = dict.fromkeys(learning)
    gradients.update(zip(learning, found, strict=False))
    return _Step(
        [(path, value.detach() if isinstance(value, torch.Tensor) else value) for path, value in flat],
        structure,
        gradients,
        {buffer: theirs[name] for name, buffer in mine.items()},
    )


def _loss(values: Sequence[Any]) -> torch.Tensor:
    """One number that depends on every number of the output, on each in another way."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.requires_grad:
            weights = torch.rand(value.shape, generator=generator).to(value.device, value.dtype)
            total = total.to(value.device) + (value * weights).sum()
    return total


def _worst(was: _Step, now: _Step, model: nn.Module, learning: Sequence[nn.Parameter]) -> Difference:
    if was.structure != now.structure:
        return Difference(math.inf, 0.0, reason="the outputs are nested differently")
    found = [
        _difference(one, other, f"output{pytree.keystr(path)}")
        for (path, one), (_, other) in zip(was.output, now.output, strict=True)
    ]
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter in learning:
        place = f"the gradient of `{names[parameter]}`"
        found.append(_difference(was.gradients[parameter], now.gradients[parameter], place))
    for name, buffer in model.named_buffers():
        if buffer in was.buffers and buffer in now.buffers:
            found.append(_difference(was.buffers[buffer], now.buffers[buffer], f"the buffer `{name}` after one step"))
    for one in found:
        if one.reason:
            return one
    return max(found, key=_excess, default=Difference(0.0, 0.0))


def _check_numbers(model: nn.Module, example: Example) -> None:
    tensors = [*model.parameters(), *model.buffers(), *pytree.tree_leaves((example.args, dict(example.kwargs)))]
    if any(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in tensors):
        raise Diagnostic(
            "RW203",
            f"`{base_of(type(model)).__name__}` cannot be compared by a run: it is on the meta device",
            notes=("there are shapes and no numbers",),
            help="load the weights first, or leave the comparison out",
        ).error()
