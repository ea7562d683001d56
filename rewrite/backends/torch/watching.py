"""What a forward does besides computing: contexts that it enters, numbers that it draws, state that it changes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_is_grad_enabled = torch.is_grad_enabled
"""torch's own: a capture listens to who asks"""


def context() -> tuple[object, ...]:
    """What a `with` block around some lines of a forward would change, and a graph would lose."""
    return (
        _is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch._C._autograd._top_saved_tensors_default_hooks(True) is not None,
    )


def draws_now() -> tuple[Any, ...]:
    """The state of the random generators that a forward can draw from unseen."""
    numpy: Any = sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy is not None else ()
    return torch.default_generator.get_state(), random.getstate(), state


def drawn_since(before: tuple[Any, ...]) -> bool:
    """Whether anything was drawn after `before` was taken."""
    now = draws_now()
    plain = [[part.tobytes() if hasattr(part, "tobytes") else part for part in state[2]] for state in (before, now)]
    return before[1] != now[1] or plain[0] != plain[1] or not torch.equal(before[0], now[0])


def restore_generators(before: tuple[Any, ...]) -> None:
    """Sets the generators back to where they were."""
    torch.default_generator.set_state(before[0])
    random.setstate(before[1])
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and before[2]:
        numpy.random.set_state(before[2])


def state_of(module: nn.Module) -> dict[str, int]:
    """Identity of everything that a forward could set on its module."""
    found = {name: id(value) for name, value in module.__dict__.items()}
    for table in (module._parameters, module._buffers, module._modules):
        found.update({f"{id(table)}.{name}": id(value) for name, value in table.items()})
    return found


State = dict[object, tuple[object, ...]]
"""what can be changed -> the identities of what stands there"""


def state_of_all(modules: Iterable[nn.Module], held: Iterable[tuple[nn.Module, str, object]]) -> State:
    """Identities of the attributes of all modules, and of what their containers and plain objects hold."""
    found: State = {}
    for module in modules:
        found[module] = tuple(map(id, module.__dict__.values()))
        for table in (module._parameters, module._buffers, module._modules):
            if table:
                found[module, id(table)] = tuple(map(id, table.values()))
    for module, name, value in held:
        if isinstance(value, dict):
            content: Iterable[object] = value.values()
        elif isinstance(value, list | set):
            content = value
        else:
            content = vars(value).values()
        found[module, name] = tuple(map(id, content))
    return found


def changed_keys(before: State, now: State) -> set[object]:
    """The keys under which two states differ."""
    return {key for key in {**before, **now} if before.get(key) != now.get(key)}
