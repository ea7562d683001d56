"""Small models from sketches: modules whose forward is read like any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rewrite.backends.torch.layers import Builder, Place
from rewrite.backends.torch.recipes import check_name
from rewrite.backends.torch.spellings import resolve
from rewrite.errors import Diagnostic
from rewrite.sketch import Sketch, Step
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import parse_signature

_METHOD = "torch.Tensor."


class Sketched(nn.Module):
    """A model that was assembled; each sketch has a subclass with a forward of its own."""


def assemble(sketch: Sketch, builder: Builder) -> Sketched:
    """The model of a sketch, on the CPU, in float32 and eval mode; its weights follow from the names of the steps.

    What a layer of moving statistics multiplies by, adds and remembers is drawn as well, as if it had learned: a fresh
    one does next to nothing, and nobody would see where it stands.
    """
    _check_names(sketch)
    functions = {step.name: _function_of(step) for step in sketch.steps if step.layer is None}
    cls = type("Sketched", (Sketched,), {"forward": _forward_of(sketch, functions), "__module__": Sketched.__module__})
    model: Sketched = cls()
    place = Place(torch.device("cpu"), torch.float32, training=False)
    shared: dict[str, nn.Module] = {}
    with builder.own_randomness():
        for step in sketch.steps:
            if step.layer is None:
                continue
            layer = shared.get(step.layer.share) if step.layer.share else None
            if layer is None:
                layer = builder.build(replace(step.layer, seed=f"{step.layer.seed}\0{step.name}"), place)
                builder.seed_for(f"{step.layer.seed}\0{step.name}\0statistics")
                _spread(layer)
            if step.layer.share:
                shared[step.layer.share] = layer
            model.add_module(step.name, layer)
    return model.eval()


def _spread(layer: nn.Module) -> None:
    """Draws scale, shift and moving statistics of a layer that has such."""
    if not isinstance(layer._buffers.get("running_mean"), torch.Tensor):
        return
    with torch.no_grad():
        for name, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            if tensor is not None and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if name in ("weight", "running_var") else tensor.normal_()


def _forward_of(sketch: Sketch, functions: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    def forward(self: nn.Module, *values: Any) -> Any:
        known = dict(zip(sketch.inputs, values, strict=True))
        for step in sketch.steps:
            call = functions[step.name] if step.layer is None else self._modules[step.name]
            assert call is not None, "every step has its layer"
            known[step.name] = call(*[known[name] for name in step.inputs])
        made = tuple(known[name] for name in sketch.outputs)
        return made[0] if len(made) == 1 else made

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *sketch.inputs)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


def _function_of(step: Step) -> Callable[..., Any]:
    """A function that calls an operation in one spelling, on values and with the arguments of the step."""
    operation = OPERATIONS.get(step.operation or "")
    spelling = step.spelling
    if operation is not None and not spelling:
        spelling = next(iter(operation.functions), "") or _METHOD + next(iter(operation.methods), "")
    keywords = dict(step.keywords)
    if operation is not None and spelling in operation.functions:
        function = resolve(spelling)
        parameters = parse_signature(operation.functions[spelling])
        names = {parameter.name for parameter in parameters}
        if parameters[0].name == "tensors":  # along the channels, where there is a choice and none is made
            if "dim" in names and not step.arguments:
                keywords.setdefault("dim", 1)
            return lambda *values: function(list(values), *step.arguments, **keywords)
        if "training" in names:
            keywords.setdefault("training", False)
        given = len(step.inputs) + len(step.arguments)
        if not any(p.required and not p.variadic and p.name not in keywords for p in parameters[given:]):
            return lambda *values: function(*values, *step.arguments, **keywords)
    elif operation is not None and spelling.removeprefix(_METHOD) in operation.methods:
        method = spelling.removeprefix(_METHOD)
        return lambda first, *values: getattr(first, method)(*values, *step.arguments, **keywords)
    raise Diagnostic(
        "RW106",
        f"`{step.name}` cannot be a call of `{step.operation}` on {len(step.inputs)} values alone",
        help="write it as a layer with its arguments",
    ).error()


def _check_names(sketch: Sketch) -> None:
    seen = set()
    for name in (*sketch.inputs, *(step.name for step in sketch.steps)):
        check_name(name)
        if "." in name or not name.isidentifier() or name in seen or hasattr(nn.Module, name):
            raise Diagnostic(
                "RW109" if name in seen else "RW320",
                f"{name!r} cannot be the name of a call",
                notes=("two calls have it",) if name in seen else (),
                help="give each call a name of its own, of letters, digits and `_`",
            ).error()
        seen.add(name)
    known = set(sketch.inputs)
    for step in sketch.steps:
        unknown = [name for name in step.inputs if name not in known]
        if unknown:
            raise Diagnostic(
                "RW103", f"`{step.name}` takes `{unknown[0]}`, which is not made by then", help="write that call first"
            ).error()
        known.add(step.name)
    unknown = [name for name in sketch.outputs if name not in known]
    if unknown or not sketch.outputs:
        name = unknown[0] if unknown else ""
        raise Diagnostic("RW103", f"the output `{name}` is not made", help="name one of the calls").error()
