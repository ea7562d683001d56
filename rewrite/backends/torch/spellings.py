"""From PyTorch's modules, functions and methods to operations of the vocabulary, and back."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch import own_layers
from rewrite.vocabulary import OPERATIONS, by_method, by_module, short
from rewrite.vocabulary.operation import Operation

_PLAIN_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)

VIEWS = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "transpose",
        "permute",
        "t",
        "T",
        "mT",
        "expand",
        "expand_as",
        "narrow",
        "select",
        "chunk",
        "split",
        "unbind",
        "getitem",
        "view_as",
        "swapaxes",
        "movedim",
        "unfold",
        "as_strided",
        "contiguous",
        "detach",
        "diagonal",
        "tensor_split",
    ]
)
"""functions and methods whose result may share memory with their first input"""


_NO_TENSORS = frozenset(
    [
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "storage_offset",
        "storage",
        "data_ptr",
        "element_size",
        "get_device",
        "has_names",
        "item",
        "tolist",
        "numpy",
        "equal",
        "allclose",
        "backward",
        "register_hook",
    ]
)
"""methods of a tensor that give something else"""


def gives_no_tensor(name: str) -> bool:
    """Whether a method of a tensor, or a function of the same name, gives something else than tensors."""
    return name in _NO_TENSORS or name.startswith("is_")


def qualified(thing: Any) -> str:
    """Dotted name of a class or function, as `import` would find it."""
    return f"{thing.__module__}.{thing.__qualname__}"


@functools.cache
def class_operation(cls: Any) -> Operation | None:
    """The operation of a module class: that of the nearest class in its bases which the vocabulary lists."""
    for base in cls.__mro__:
        found = by_module(qualified(base))
        if found is not None:
            return found
    return None


@functools.cache
def keeps_forward(cls: Any) -> bool:
    """Whether `cls` computes what its operation computes: it is a listed class, or inherits its forward."""
    found = class_operation(cls)
    if found is None or found.module is None:
        return False
    own = cls.__dict__.get("_rewrite_base", cls)  # a rewritten class computes what its base does, and then some
    listed = next((base for base in cls.__mro__ if qualified(base) in found.also), None)
    if listed is None:
        listed = resolve(found.module)
    return bool(own.forward is listed.forward)


@functools.cache
def resolve(dotted: str) -> Any:
    """The object behind a dotted name of the vocabulary (`torch.nn.ReLU`, `_operator.add`); never one from a rule."""
    room, _, own = dotted.rpartition(".")
    if room == own_layers.__name__:
        return getattr(own_layers, own)
    head, *rest = dotted.split(".")
    thing: Any = {"torch": torch, "operator": operator, "_operator": operator}[head]
    for name in rest:
        thing = getattr(thing, name)
    return thing


def is_leaf(module: nn.Module) -> bool:
    """Whether a call of `module` is one operation, whose inside no rule looks into."""
    cls: Any = type(module)
    operation = class_operation(cls)
    if operation is not None and operation.wraps:
        return False  # rules look into it: what it wraps is a layer like any other
    if module._modules and operation is not None and not keeps_forward(cls):
        # A layer of layers, such as a BatchNorm2d that calls its own activation: rules look into it. What an earlier
        # rewrite hung behind the call is no part of it.
        recipe = getattr(cls, "_rewrite_recipe", None)
        around = (*recipe.before, *recipe.after) if recipe is not None else ()
        return all(name in around for name in module._modules)
    return _is_leaf_class(cls)


@functools.cache
def _is_leaf_class(cls: Any) -> bool:
    if class_operation(cls) is not None:
        return True
    if issubclass(cls, nn.Sequential | _PLAIN_CONTAINERS[0] | _PLAIN_CONTAINERS[1]):
        return False
    # torch.nn layers outside the vocabulary (losses and the like) that are not built from other layers
    return cls.__module__.startswith("torch.nn.modules") and "transformer" not in cls.__module__


@functools.cache
def _functions() -> Mapping[int, tuple[Operation, str, Callable[..., Any]]]:
    found: dict[int, tuple[Operation, str, Callable[..., Any]]] = {}
    for operation in OPERATIONS.values():
        for dotted in operation.functions:
            function = resolve(dotted)
            found.setdefault(id(function), (operation, dotted, function))
    return found


def function_operation(function: Callable[..., Any]) -> tuple[Operation | None, str]:
    """Operation and dotted spelling of a function that fx recorded."""
    entry = _functions().get(id(function))
    if entry is not None:
        return entry[0], entry[1]
    module = getattr(function, "__module__", None) or "torch"
    return None, f"{module}.{getattr(function, '__qualname__', getattr(function, '__name__', repr(function)))}"


def node_operation(node: fx.Node, child: nn.Module | None) -> tuple[Operation | None, str]:
    """Operation and spelling (`nn.ReLU`, `F.relu`, `Tensor.relu_`) of one recorded call."""
    if node.op == "call_module":
        cls: Any = type(child)
        return class_operation(cls), class_spelling(cls)
    if node.op == "call_method":
        return by_method(str(node.target)), f"Tensor.{node.target}"
    operation, dotted = function_operation(node.target)  # type: ignore[arg-type]
    return None if is_of_sequences(node) else operation, _short(dotted)


def is_of_sequences(node: fx.Node) -> bool:
    """Whether a recorded operator is one of tuples or lists, as in `(x,) + others`, for one of its sides is one."""
    of_python = getattr(node.target, "__module__", "") == "_operator" and node.target is not operator.getitem
    return of_python and any(isinstance(side, tuple | list) for side in node.args)


@functools.cache
def class_spelling(cls: Any) -> str:
    """How rules spell a class of modules: `nn.Conv2d`."""
    return short(qualified(cls))


_short = functools.cache(short)


def call_parameters(node: fx.Node, operation: Operation) -> str | None:
    """Parameter text of the spelling that `node` uses, tensors included."""
    if node.op == "call_method":
        text = operation.methods.get(str(node.target))
        return None if text is None else f"input, {text}" if text else "input"
    entry = _functions().get(id(node.target))
    return None if entry is None else operation.functions[entry[1]]


def returns_view(node: fx.Node) -> bool:
    """Whether the result of a recorded function or method may share memory with its first input."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in VIEWS
