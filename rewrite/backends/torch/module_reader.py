"""From the modules of a model to its layers; no forward is run for it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from rewrite.backends.torch.lazy import LazyMapping
from rewrite.backends.torch.modules import walk
from rewrite.backends.torch.recipes import recipe_of
from rewrite.backends.torch.spellings import class_operation, class_spelling, is_leaf, keeps_forward, qualified
from rewrite.graph import Layer
from rewrite.vocabulary.operation import Operation

_ACTIVATION_NAMES = ("activation", "act", "act_layer", "act_fn", "activation_fn", "nonlinearity", "non_linearity")
_PLAIN = (int, float, str, bool, type(None), torch.dtype)


_WRAPPED = "base_layer"
"""what adapters call the layer that they are built around: ours, and those of PEFT"""


def _attributes(module: nn.Module, operation: Operation | None) -> dict[str, object]:
    """Constructor arguments that a module still carries; the plain attributes of a class outside the vocabulary."""
    if operation is not None:
        names = [parameter.name for parameter in operation.parameters]
    else:
        names = [name for name in module.__dict__ if not name.startswith("_")]
    found: dict[str, object] = {}
    for name in names:
        value = getattr(module, name, _PLAIN)
        if name == "bias" and (value is None or isinstance(value, torch.Tensor)):
            found[name] = value is not None
        elif isinstance(value, _PLAIN) or (
            isinstance(value, tuple | list) and all(isinstance(item, _PLAIN) for item in value)
        ):
            found[name] = tuple(value) if isinstance(value, torch.Size | list) else value
    return found


def _iterates(module: nn.Module) -> bool:
    """Whether a spectral norm comes closer to its weight's largest singular value with every call in training."""
    hooks = module._forward_pre_hooks.values()
    return isinstance(module, _SpectralNorm) or any(isinstance(hook, SpectralNorm) for hook in hooks)


@functools.cache
def _bases(cls: Any) -> tuple[str, ...]:
    return tuple(qualified(base) for base in cls.__mro__ if base is not object)


def read_layers(
    model: nn.Module, read_only: Mapping[str, str], leaves: frozenset[str] = frozenset()
) -> dict[str, Layer]:
    """Every module of `model` by its first path; no forward is run.

    Args:
        model: the root.
        read_only: path of a layer whose weights are read without a call -> who reads them.
        leaves: paths of modules that are read as one call each.

    """
    layers: dict[str, Layer] = {}
    first: dict[nn.Module, str] = {}
    aliases: dict[str, list[str]] = {}
    inside: dict[nn.Module, str] = {}
    hidden: dict[nn.Module, str] = {}
    for path, module in walk(model):
        if path in leaves:
            hidden.update((child, hidden.get(child, path)) for child in module.modules() if child is not module)
        if module in first:
            aliases.setdefault(first[module], []).append(path)
            continue
        first[module] = path
        if module._modules and is_leaf(module):
            recipe = recipe_of(module)
            for name, part in module._modules.items():
                if part is not None and name not in (*recipe.before, *recipe.after):
                    for child in part.modules():
                        inside.setdefault(child, path)
    for module, path in first.items():
        cls: Any = type(module)
        operation = class_operation(cls)
        numbers = [(p.numel(), p.requires_grad) for p in module._parameters.values() if p is not None]
        uncallable = ""
        if path in read_only:
            uncallable = f"`{read_only[path] or type(model).__name__}` reads its weights without calling it"
        elif module in inside:
            uncallable = f"`{inside[module]}` reads its weights without calling it"
        elif module in hidden:
            uncallable = f"`{hidden[module]}` is a leaf, whose inside is not looked into"
        layers[path] = Layer(
            path=path,
            kind=qualified(cls),
            bases=_bases(cls),
            operation=operation.name if operation is not None else None,
            attributes=LazyMapping(functools.partial(_attributes, module, operation)),
            children=tuple(f"{path}.{name}".lstrip(".") for name, c in module._modules.items() if c is not None),
            parameters=sum(number for number, _ in numbers),
            trainable=sum(number for number, learns in numbers if learns),
            statistics=module._buffers.get("running_mean") is not None or _iterates(module),
            still=recipe_of(module).still,
            training=module.training,
            aliases=tuple(aliases.get(path, ())),
            activation=_activation_slot(module, operation),
            wrapped=f"{path}.{_WRAPPED}".lstrip(".") if module._modules.get(_WRAPPED) is not None else "",
            uncallable=uncallable,
            exact=operation is None or keeps_forward(cls),
        )
    return layers


def _activation_slot(module: nn.Module, operation: Operation | None) -> str | None:
    if operation is not None:
        return None
    for name in _ACTIVATION_NAMES:
        if callable(module._modules.get(name)) or callable(module.__dict__.get(name)):
            return name
    return None


def node_spelling(module: nn.Module) -> str:
    """How rules spell a module's class: `nn.Conv2d`."""
    cls: Any = type(module)
    spelling: str = class_spelling(cls)
    return spelling
