"""Layers and calls that stay, and of which something changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from rewrite.backends.torch.calls import set_argument
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.folding import FoldError, fold_ahead, fold_behind
from rewrite.backends.torch.modules import memory_of, parent_of, same_storage, walk
from rewrite.backends.torch.recipes import recipe_of
from rewrite.edit import Initialiser, NewLayer, Update
from rewrite.errors import Diagnostic
from rewrite.graph import Layer, Node
from rewrite.source import Span


def update(draft: Draft, edit: Update) -> None:
    """Makes each change in turn."""
    target = edit.target
    if isinstance(target, Node):
        _update_call(draft, target, edit.changes)
        return
    for key, value in edit.changes.items():
        if key == "trainable":
            _set_trainable(draft, target.path, bool(value))
        elif key == "statistics":
            _set_statistics(draft, target, value == "frozen")
        elif key == "reset":
            assert value is None or isinstance(value, Initialiser)
            _reset(draft, edit, target.path, value)
        elif key in ("fold", "fold_ahead"):
            assert isinstance(value, Layer)
            _fold(draft, target, value, key == "fold_ahead", edit.span)
        else:
            _set_attribute(draft, target.path, key.removeprefix("."), value)


def _set_trainable(draft: Draft, path: str, learns: bool) -> None:
    for parameter in draft.module(path)._parameters.values():
        if parameter is None or draft.parameters.get(parameter, parameter).requires_grad == learns:
            continue
        if not (parameter.is_floating_point() or parameter.is_complex()):
            continue
        draft.parameters[parameter] = same_storage(parameter, learns)


def _set_statistics(draft: Draft, layer: Layer, still: bool) -> None:
    module = draft.mutable(layer.path)
    recipe = recipe_of(module)
    if recipe.still != still:
        draft.follow(module, replace(recipe, still=still))
    module.training = False if still else draft.module(parent_of(layer.path)[0]).training


def _reset(draft: Draft, edit: Update, path: str, initialiser: Initialiser | None) -> None:
    module = draft.mutable(path)
    _own_parameters(draft, module)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.clone()
    for inner_path, inner in list(module.named_modules()):
        if inner_path and inner._parameters:  # MultiheadAttention draws its projection's weights itself
            _own_parameters(draft, draft.mutable(f"{path}.{inner_path}".lstrip(".")))
    draft.builder.reset(module, initialiser, edit.seed, path, edit.span)


def _own_parameters(draft: Draft, module: nn.Module) -> None:
    """Puts parameters into the module's table that are over other numbers than the given model's; ties stay."""
    for name, parameter in list(module._parameters.items()):
        if parameter is None:
            continue
        own = draft.parameters.get(parameter, parameter)
        if memory_of(own) == memory_of(parameter):
            own = draft.parameters[parameter] = nn.Parameter(parameter.detach().clone(), own.requires_grad)
        module._parameters[name] = own


def _set_attribute(draft: Draft, path: str, name: str, value: object) -> None:
    module = draft.mutable(path)
    draft.slow_path(path)
    if name in module._parameters and value is None:
        module._parameters[name] = None
    elif name in module._modules or callable(module.__dict__.get(name)):  # the activation of a module
        layer: nn.Module = nn.Identity().train(module.training)
        if isinstance(value, NewLayer):
            layer = draft.build(value, draft.place_at(path, module.training))
        module.__dict__.pop(name, None)
        module._modules[name] = layer
        draft.fresh.update(layer.modules())
    else:
        setattr(module, name, value)
        if name == "padding" and hasattr(module, "_reversed_padding_repeated_twice"):
            # a convolution keeps its padding in the form that F.pad takes as well
            module._reversed_padding_repeated_twice = [p for pad in reversed(value) for p in (pad, pad)]  # type: ignore[call-overload,assignment]


def _update_call(draft: Draft, node: Node, changes: Mapping[str, object]) -> None:
    scope = draft.scope(node)
    assert scope is not None, "a function that is a node stands in a scope"
    if draft.is_in_code(scope):
        places = draft.calls[scope.module].code[node.local].arguments
        names = {key.removeprefix("."): value for key, value in changes.items()}
        given = tuple((places.get(name, name), value) for name, value in names.items())
        draft.recode(node, scope, lambda now: replace(now, arguments=(*now.arguments, *given)))
        return
    draft.touch(scope)
    for call in draft.calls_of(node, scope).values():
        for key, value in changes.items():
            set_argument(call, node.operation, key.removeprefix("."), value)


# ---- fold


def _fold(draft: Draft, target: Layer, norm: Layer, ahead: bool, span: Span | None) -> None:
    """Gives a layer of its own the weights that a normalisation next to it is taken into."""
    layer, statistics = draft.module(target.path), draft.module(norm.path)
    _check_untied(draft, target, layer, span)
    try:
        folded = (fold_ahead if ahead else fold_behind)(layer, statistics)
    except FoldError as problem:
        found = problem.diagnostic
        message = f"cannot fold `{norm.path}` into `{target.path}`: {found.message}"
        raise replace(found, span=span, message=message).error() from None
    module = draft.mutable(target.path)
    weight = module._parameters["weight"]
    assert weight is not None, "checked by the algebra"
    bias = module._parameters.get("bias")
    learns = draft.parameters.get(weight, weight).requires_grad
    module._parameters["weight"] = nn.Parameter(folded.weight, learns)
    if bias is not None:
        learns = draft.parameters.get(bias, bias).requires_grad
    module._parameters["bias"] = nn.Parameter(folded.bias, learns)


def _check_untied(draft: Draft, target: Layer, layer: nn.Module, span: Span | None) -> None:
    own = {parameter for parameter in layer._parameters.values() if parameter is not None}
    others = {
        path
        for path, module in walk(draft.root)
        if module is not layer and any(parameter in own for parameter in module._parameters.values())
    }
    if others:
        raise Diagnostic(
            "RW313",
            f"the weights of `{target.path}` are those of `{min(others)}` too",
            span,
            notes=("what is folded into them would change that layer as well",),
            help="leave it out with `except`, or untie the two first: `replace` one of them",
        ).error()
