"""Small facts about `torch.nn` modules, and the copy on write that leaves the given model as it was."""

from __future__ import annotations

import types

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
