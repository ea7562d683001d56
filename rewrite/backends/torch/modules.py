"""Small facts about `torch.nn` modules, and the copy on write that leaves the given model as it was."""

from __future__ import annotations

import types

import torch
from torch import nn

_OWNED = {
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
}
"""the tables of a module that belong to it alone, and so are copied with it"""


def walk(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every (path, module), parents first; a module with several paths comes once for each."""
    found: list[tuple[str, nn.Module]] = []
    stack: list[tuple[str, nn.Module]] = [("", model)]
    while stack:
        path, module = stack.pop()
        found.append((path, module))
        prefix = f"{path}." if path else ""
        stack += [(prefix + name, child) for name, child in reversed(module._modules.items()) if child is not None]
    return found


def all_paths(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Every path that leads to each module; the first one is its name."""
    paths: dict[nn.Module, tuple[str, ...]] = {}
    for path, module in walk(model):
        paths[module] = (*paths[module], path) if module in paths else (path,)
    return paths


def is_sequential(module: nn.Module) -> bool:
    """Whether calling `module` runs its children in order: the forward is `nn.Sequential`'s own."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module of the same class over the same children, parameters and buffers.

    The copy has tables of its own, so that a child, a parameter or a hook given to it does not reach the original.
    """
    cls = type(module)
    copy: nn.Module = cls.__new__(cls)
    state = copy.__dict__
    state.update(module.__dict__)
    for name, value in module.__dict__.items():
        if name in _OWNED:
            state[name] = value.copy() if value else type(value)()
        elif type(value) is types.MethodType and value.__self__ is module:
            state[name] = types.MethodType(value.__func__, copy)
    return copy


def parent_of(path: str) -> tuple[str, str]:
    """`a.b.c` -> (`a.b`, `c`)."""
    head, _, name = path.rpartition(".")
    return head, name


def separate(model: nn.Module, given: nn.Module) -> nn.Module:
    """Copies every module that `model` still has in common with `given`; parameters and buffers stay shared.

    So `train()`, hooks and attributes of the one do not reach the other.
    """
    theirs = set(given.modules())
    copies: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module in copies:
            return copies[module]
        # a compiled module has no tables of its own that could be copied
        own = shallow_copy(module) if module in theirs and not isinstance(module, torch.jit.ScriptModule) else module
        copies[module] = own
        for name, child in own._modules.items():
            if child is not None:
                own._modules[name] = visit(child)
        return own

    return visit(model)
