"""Small facts about `torch.nn` modules, and the copy on write that leaves the given model as it was."""

from __future__ import annotations

import types

import torch
from torch import nn

_OWNED = (
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
)
"""the tables of a module that belong to it alone, and so are copied with it"""


def is_sequential(module: nn.Module) -> bool:
    """Whether calling `module` runs its children in order: the forward is `nn.Sequential`'s own."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module of the same class over the same children, parameters and buffers.

    The copy has tables of its own, so that a child, a parameter or a hook given to it does not reach the original.
    """
    cls = type(module)
    copy: nn.Module = cls.__new__(cls)
    state = dict(module.__dict__)
    for name in _OWNED:
        if name in state:
            state[name] = state[name].copy()
    for name, value in state.items():
        if isinstance(value, types.MethodType) and value.__self__ is module:
            state[name] = types.MethodType(value.__func__, copy)
    copy.__dict__.update(state)
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
