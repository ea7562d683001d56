"""Names in the code of a class and of what that may call elsewhere: what is told where it cannot be followed."""

from __future__ import annotations

import collections
import dis
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from rewrite.backends.names_in_code import mentions_in_code
from rewrite.backends.torch.written import content_of, plain


def mentions_of(cls: type, methods: Iterable[str]) -> collections.Counter[str]:
    """Names in methods of a class, in those of its bases that they may call, and in helpers; each text once."""
    waiting = [inspect.getattr_static(cls, method) for method in methods]
    if inspect.getattr_static(cls, "__call__") is not inspect.getattr_static(nn.Module, "__call__"):
        waiting.append(inspect.getattr_static(cls, "__call__"))
    bases = [base for base in cls.__mro__ if issubclass(base, nn.Module) and base is not nn.Module]
    upwards = {"super", *(base.__name__ for base in bases)}
    found: collections.Counter[str] = collections.Counter()
    seen: set[Any] = set()
    written = {plain(one) for one in waiting}
    while waiting:
        one = waiting.pop()
        for function in (*_functions_behind(plain(one)), *_functions_behind(one)):
            if function in seen:
                continue
            seen.add(function)
            names = mentions_in_code(function)
            found += names
            for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
                found.update(_functions_in(value))
            if upwards & names.keys() or function not in written:
                own = [name for name in names if any(name in vars(base) for base in bases)]
                methods_above = [vars(base).get(name) for base in bases for name in {"forward", *own}]
                waiting += [method for method in methods_above if callable(plain(method))]
    return found


def held_functions(module: nn.Module, names: Iterable[str]) -> collections.Counter[str]:
    """Names of functions that attributes of a module hold, by themselves or in a list or table.

    Args:
        module: any.
        names: of attributes that its code mentions.

    """
    return collections.Counter(function for name in names for function in _functions_in(module.__dict__.get(name)))


def set_from_outside(classes: Iterable[type]) -> frozenset[str]:
    """Attributes that forwards of these classes, and methods that they use, set on anything else than the module."""
    return frozenset().union(*map(_set_on_others, classes))


@functools.lru_cache(maxsize=1024)
def _set_on_others(cls: type) -> frozenset[str]:
    found: set[str] = set()
    methods = ["__call__", "forward"]
    for method in methods:  # grows while it is walked
        function = plain(inspect.getattr_static(cls, method, None))
        if not isinstance(function, types.FunctionType) or _is_of_library(function.__module__):
            continue
        codes = [function.__code__]
        me = codes[0].co_varnames[0] if codes[0].co_argcount else ""
        while codes:
            code = codes.pop()
            methods += [name for name in code.co_names if name not in methods and hasattr(cls, name)]
            codes += [item for item in code.co_consts if isinstance(item, types.CodeType)]
            if _STORE in code.co_code[::2]:
                for before, step in itertools.pairwise(dis.get_instructions(code)):
                    if step.opcode == _STORE and not (before.opname.startswith("LOAD_") and before.argval == me):
                        found.add(step.argval)
    return frozenset(found)


_STORE = dis.opmap["STORE_ATTR"]

_MOST_ITEMS = 100
"""a table of functions has fewer items; a longer list is data"""


def _functions_in(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        if depth < 3 and len(value) <= _MOST_ITEMS:
            for item in value:
                yield from _functions_in(item, depth + 1)
    elif isinstance(value, functools.partial):
        yield from _functions_in(value.func, depth)
    elif callable(value) and not isinstance(value, nn.Module | type):
        yield getattr(value, "__name__", "")


def _functions_behind(function: Any) -> Iterator[Any]:
    """A function and those that it may call, outside of libraries: helpers, what decorators hold, defaults."""
    waiting, seen = [function], set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, types.FunctionType) or one in seen or _is_of_library(one.__module__):
            continue
        seen.add(one)
        yield one
        held = [
            *map(content_of, one.__closure__ or ()),
            *(one.__defaults__ or ()),
            *(one.__kwdefaults__ or {}).values(),
        ]
        codes: list[types.CodeType] = [one.__code__]
        names: list[str] = []
        while codes:
            code = codes.pop()
            names += code.co_names
            codes += [item for item in code.co_consts if isinstance(item, types.CodeType)]
        held += [one.__globals__.get(name) for name in names]
        waiting += [called for value in _with_contents(held, names) for called in _called_on(value, names)]


def _with_contents(values: Iterable[Any], names: Iterable[str]) -> Iterator[Any]:
    """Values, and for a module of Python, as in `helpers.act(x)`, what it holds under these names."""
    waiting, seen = list(values), set()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, types.ModuleType):
            yield value
        elif value.__name__ not in seen and not _is_of_library(value.__name__):
            seen.add(value.__name__)
            waiting += [vars(value)[name] for name in names if name in vars(value)]


def _called_on(value: Any, names: Iterable[str]) -> Iterator[Any]:
    """The functions that a value may come to where these names are called on it, or it is called itself."""
    if isinstance(value, types.FunctionType | types.MethodType):
        yield plain(value)
        return
    cls = value if isinstance(value, type) else type(value)
    if _is_of_library(cls.__module__) or issubclass(cls, nn.Module):  # modules are read by themselves
        return
    called = {"__call__", *names}
    if issubclass(cls, torch.autograd.Function) and "apply" in called:
        called.add("forward")
    for name in called:
        yield plain(inspect.getattr_static(cls, name, None))


def _is_of_library(module: str | None) -> bool:
    room = (module or "").partition(".")[0]
    return room in ("builtins", "numpy", "torch", "rewrite") or room in sys.stdlib_module_names - {"__main__"}
