"""Models inside of wrappers: taken out before rules are applied, and wrapped again in the same way.

A compiled model and one of `DataParallel` only hold the module that they run, so the changed module can take its place
in a wrapper of its own. What binds itself to parameters or to code (DDP, FSDP, scripts, traces) is refused instead, by
`rewrite.backends.torch.modules.find_wrapper`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rewrite.backends.torch.modules import shallow_copy

_HELD = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
}
"""class of a wrapper -> name of the child that it runs"""


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside of all wrappers that can be put around another one."""
    while (name := _held(model)) is not None:
        child = model._modules[name]
        assert child is not None, "a wrapper holds a module"
        model = child
    return model


def wrap_like(given: nn.Module, written: nn.Module) -> nn.Module:
    """`written` in the wrappers that `given` has, with their options; a compiled model is compiled anew when called."""
    name = _held(given)
    if name is None:
        return written
    child = given._modules[name]
    assert child is not None, "a wrapper holds a module"
    inner = wrap_like(child, written)
    if name == "_orig_mod":
        wrapper: Any = type(given)
        compiled: nn.Module = wrapper(inner, given.dynamo_ctx)  # the options of `torch.compile` are in it
        return compiled
    twin = shallow_copy(given)
    twin._modules[name] = inner
    return twin


def _held(model: nn.Module) -> str | None:
    cls = type(model)
    return _HELD.get(f"{cls.__module__}.{cls.__qualname__}")
