"""What a forward does besides computing: contexts that it enters, numbers that it draws, state that it changes."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from torch import nn

from rewrite.backends.torch.modules import is_plain_object


def context() -> tuple[object, ...]:
    """What a `with` block around some lines of a forward would change, and a graph would lose."""
    return (
        torch.is_grad_enabled(),
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


def deep_state(module: nn.Module) -> dict[str, object]:
    """As `state_of`, and what stands in the containers and plain objects that a module holds."""
    found: dict[str, object] = dict(state_of(module))
    for name, value in module.__dict__.items():
        if isinstance(value, dict):
            found[f"{name}[]"] = [(key, id(item)) for key, item in value.items()]
        elif isinstance(value, list | set):
            found[f"{name}[]"] = [id(item) for item in value]
        elif is_plain_object(value):
            found[f"{name}."] = [(key, id(item)) for key, item in vars(value).items()]
    return found
