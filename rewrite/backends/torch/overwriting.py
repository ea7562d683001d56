"""What overwrites its input in place may do so only where nothing else needs that input.

An edit that takes a call away, or puts one elsewhere, can bring an in-place operation together with a value that others
still read, that the caller owns, or that its producer keeps for the backward pass. There the operation no longer
overwrites it: the numbers are the same, and they stand in memory of their own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from torch import fx, nn

from rewrite.backends.torch.calls import set_argument
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.in_place import overwrites
from rewrite.backends.torch.scopes import Scope
from rewrite.backends.torch.spellings import class_operation, node_operation
from rewrite.errors import Diagnostic
from rewrite.source import Span

_KEEPS_INPUT_ONLY = frozenset(["conv", "linear", "norm"])
"""families whose output is new memory that their own backward pass does not read"""

_PLAIN_OPERATORS = {
    getattr(operator, f"i{name}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
} | {operator.iand: operator.and_, operator.ior: operator.or_, operator.ixor: operator.xor}
"""augmented assignment -> the operator that makes a new value"""


def may_overwrite(draft: Draft, scope: Scope, value: fx.Node, reader: fx.Node) -> bool:
    """Whether `reader` may overwrite a value: it is a fresh result, and nobody else reads it."""
    if len(value.users) != 1 or reader not in value.users or value.op not in ("call_module", "call_function"):
        return False
    operation, _ = node_operation(value, draft.called(value, scope))
    if operation is None:
        return False
    return operation.family in _KEEPS_INPUT_ONLY or operation.name in ("add", "cat", "stack")


def keep_values(draft: Draft, scope: Scope, source: fx.Node, gone: fx.Node, readers: Iterable[fx.Node]) -> None:
    """After a call was bypassed: its readers overwrite its input only if that is safe, or the call did so itself."""
    if overwrites(gone, draft.called(gone, scope) if gone.op == "call_module" else None):
        return
    for reader in readers:
        writes = overwrites(reader, draft.called(reader, scope)) and _overwritten(reader) is source
        if writes and not may_overwrite(draft, scope, source, reader):
            make_new(draft, scope, reader, None)


def keep_values_in_list(draft: Draft, path: str, name: str) -> None:
    """The same for an entry of a Sequential that has got another one in front of it."""
    owner = draft.mutable(path)
    layer = owner._modules[name]
    if not getattr(layer, "inplace", False):
        return
    names = draft.ordered(owner)
    place = names.index(name)
    before = owner._modules[names[place - 1]] if place else None
    cls: object = type(before)
    operation = class_operation(cls) if before is not None else None
    if operation is None or operation.family not in _KEEPS_INPUT_ONLY:
        draft.mutable(f"{path}.{name}".lstrip(".")).inplace = False  # type: ignore[assignment]


def make_new(draft: Draft, scope: Scope, call: fx.Node, span: Span | None) -> None:
    """Lets a call make a new value instead of overwriting its input."""
    if call.op == "call_module":
        path = f"{scope.path}.{call.target}".lstrip(".")
        if getattr(draft.called(call, scope), "inplace", False):
            _own(draft, path).inplace = False  # type: ignore[assignment]
            return
    elif call.op == "call_method":
        plain = str(call.target).removesuffix("_")
        if hasattr(torch.Tensor, plain):
            call.target = plain
            return
    elif call.op == "call_function":
        target: object = call.target
        if target in _PLAIN_OPERATORS:
            call.target = _PLAIN_OPERATORS[target]
            return
        name = getattr(target, "__name__", "")
        for space in (torch, nn.functional):
            if name.endswith("_") and getattr(space, name, None) is target and hasattr(space, name[:-1]):
                call.target = getattr(space, name[:-1])
                return
        operation, _ = node_operation(call, None)
        if operation is not None or "inplace" in call.kwargs:
            set_argument(call, operation.name if operation is not None else None, "inplace", False)
            if not overwrites(call, None):
                return
    raise Diagnostic(
        "RW320",
        f"`{call.name}` overwrites a value that is read elsewhere, and cannot be told to make a new one",
        span,
        notes=("the edit would let it change what others read",),
        help="write the model's forward without the in-place operation there",
    ).error()


def _own(draft: Draft, path: str) -> nn.Module:
    """A called module, to be changed; a new one is at its path already."""
    found = draft.root.get_submodule(draft.now(path))
    return found if found in draft.fresh else draft.mutable(path)


def _overwritten(call: fx.Node) -> object:
    return call.args[0] if call.args else next(iter(call.kwargs.values()), None)
