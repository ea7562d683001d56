"""Small facts about `torch.nn` modules, and the copy on write that leaves the given model as it was."""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

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
        stack += [(prefix + name, child) for name, child in reversed([*module._modules.items()]) if child is not None]
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
    twin: nn.Module = cls.__new__(cls)
    state = twin.__dict__
    state.update(module.__dict__)
    if state.get("_compiled_call_impl") is not None:
        state["_compiled_call_impl"] = None  # it is the compiled call of the original
    for name, value in module.__dict__.items():
        if name in _OWNED:
            state[name] = value.copy() if value else type(value)()
        elif type(value) is types.MethodType and value.__self__ is module:
            state[name] = types.MethodType(value.__func__, twin)
    return twin


def same_storage(parameter: nn.Parameter, learns: bool) -> nn.Parameter:
    """A parameter over the same numbers that does or does not learn."""
    twin: nn.Parameter = torch.Tensor._make_subclass(type(parameter), parameter.detach(), learns)
    twin.__dict__.update(parameter.__dict__)
    return twin


def memory_of(tensor: torch.Tensor) -> object:
    """What recognises the numbers of a tensor, on the meta device too; equal for a second tensor over them."""
    try:
        storage = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a sparse tensor, or one of a class with storage of its own
        return id(tensor)
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def computed_tensor(module: nn.Module) -> str | None:
    """Name of a tensor that a layer computes from other parameters: parametrized, normed the old way, or pruned."""
    if parametrize.is_parametrized(module):
        return str(next(iter(module._modules["parametrizations"]._modules)))  # type: ignore[union-attr]
    for name, value in module.__dict__.items():
        if isinstance(value, torch.Tensor) and ({f"{name}_orig", f"{name}_v"} & module._parameters.keys()):
            return name
    return None


def parent_of(path: str) -> tuple[str, str]:
    """`a.b.c` -> (`a.b`, `c`)."""
    head, _, name = path.rpartition(".")
    return head, name


def is_plain_object(value: object) -> bool:
    """Whether a value is an object with attributes of its own that a forward might change: a configuration."""
    if isinstance(value, nn.Module | torch.Tensor | type | types.FunctionType | types.MethodType | types.ModuleType):
        return False
    return isinstance(getattr(value, "__dict__", None), dict)


_INERT = frozenset({int, float, bool, str, bytes, tuple, type(None), types.FunctionType, torch.dtype, torch.device})
"""types of attributes that nothing can be set on"""


def copy_tree(
    model: nn.Module, originals: dict[nn.Module, nn.Module], held: list[tuple[nn.Module, str, object]]
) -> nn.Module:
    """A shallow copy of every module, with copies of the containers and plain objects that they hold.

    Args:
        model: the root.
        originals: filled with copy -> original.
        held: filled with (copy, attribute, copied container or object).

    """
    copies: dict[nn.Module, nn.Module] = {}
    objects: dict[int, object] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module in copies:
            return copies[module]
        twin = shallow_copy(module)
        copies[module] = twin
        originals[twin] = module
        for name, value in module.__dict__.items():
            if type(value) in _INERT or name in _OWNED:
                continue
            if isinstance(value, list | dict | set) or is_plain_object(value):
                if id(value) not in objects:
                    try:
                        objects[id(value)] = copy.copy(value)
                    except Exception:  # what cannot be copied is shared
                        objects[id(value)] = value
                twin.__dict__[name] = objects[id(value)]
                held.append((twin, name, objects[id(value)]))
        for name, child in twin._modules.items():
            if child is not None:
                twin._modules[name] = visit(child)
        return twin

    return visit(model)


def _rebind(model: nn.Module, given: nn.Module) -> None:
    """Hooks and attributes that are methods of a module of `given` become those of its counterpart in `model`."""
    ours = dict(walk(model))
    twins = {module: ours[path] for path, module in walk(given) if path in ours}

    def rebound(value: object) -> object:
        if type(value) is types.MethodType and value.__self__ in twins:
            return types.MethodType(value.__func__, twins[value.__self__])
        return value

    for module in ours.values():
        for name, value in module.__dict__.items():
            if name in _OWNED and name.endswith("_hooks") and value:
                for key, hook in value.items():
                    value[key] = rebound(hook)
            elif type(value) is types.MethodType:
                module.__dict__[name] = rebound(value)


_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "apply the rules to `model._orig_mod`, and compile the result",
    "torch.nn.parallel.data_parallel.DataParallel": "apply the rules to `model.module`, and wrap the result",
    "torch.nn.parallel.distributed.DistributedDataParallel": "apply the rules to `model.module`, and wrap the result",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "apply the rules before sharding",
    "torch.jit._script.ScriptModule": "apply the rules to the module that was scripted, and script the result",
    "torch.fx.graph_module.GraphModule": "apply the rules to the module that was traced, and trace the result",
    "torch.ao.nn.quantized.modules.utils.WeightedQuantizedModule": "apply the rules first, and quantize the result",
    "torch.ao.nn.quantized.modules.Quantize": "apply the rules first, and quantize the result",
    "torch.ao.nn.quantized.modules.DeQuantize": "apply the rules first, and quantize the result",
}
"""class of a module that runs code which no rule can reach -> what to do instead"""


def find_wrapper(model: nn.Module) -> tuple[str, str, str] | None:
    """(path, class, remedy) of the first module that only wraps or replaces the code of another one."""
    for path, module in walk(model):
        cls: Any = type(module)
        found = _wrapper_class(cls)
        if found is not None:
            return (path, *found)
    return None


def find_lazy(model: nn.Module) -> str | None:
    """Path of the first module whose weights have no shape before its first call; None: all have."""
    for path, module in walk(model):
        tensors = (*module._parameters.values(), *module._buffers.values())
        if any(tensor is not None and is_lazy(tensor) for tensor in tensors):
            return path
    return None


@functools.cache
def _wrapper_class(cls: Any) -> tuple[str, str] | None:
    for base in cls.__mro__:
        remedy = _WRAPPERS.get(f"{base.__module__}.{base.__qualname__}")
        if remedy is not None:
            return base.__qualname__, remedy
    return None


def separate(model: nn.Module, given: nn.Module) -> nn.Module:
    """Copies every module that `model` still has in common with `given`; parameters and buffers stay shared.

    So `train()`, hooks and attributes of the one do not reach the other.
    """
    theirs = set(given.modules())
    copies: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module in copies:
            return copies[module]
        own = shallow_copy(module) if module in theirs else module
        copies[module] = own
        for name, child in own._modules.items():
            if child is not None:
                own._modules[name] = visit(child)
        return own

    result = visit(model)
    _rebind(result, given)
    return result
