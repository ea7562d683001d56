"""Recipes as plain data, for pickles: packed by name, and checked in every detail when they are unpacked.

A file may come from a stranger. What it holds is compared with what a captured forward can hold: calls of children, of
functions and methods that compute on tensors, sizes, plain values.
"""

from __future__ import annotations

import collections
import functools
import importlib
import keyword
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.graph import inplace_methods, magic_methods

from rewrite.backends.torch.recipes import Argument, CodeChange, MethodChanges, Recipe, check_name
from rewrite.backends.torch.scopes import Constant, Container, Placeholder, Structure
from rewrite.backends.torch.spellings import resolve
from rewrite.errors import Diagnostic
from rewrite.vocabulary import OPERATIONS

_NAMED_FUNCTIONS = (
    "torchvision.ops.stochastic_depth.stochastic_depth",
    "torchvision.models.swin_transformer._get_relative_position_bias",
    "torchvision.models.swin_transformer.shifted_window_attention",
    "torchvision.models.swin_transformer._patch_merging_pad",
    "torchvision.models.maxvit._get_relative_position_bias",
)
"""functions outside torch that compute on tensors only and that fx keeps whole; loaded by name"""


def pack(recipe: Recipe) -> dict[str, Any]:
    """A recipe as nested tuples, lists and dicts of plain values; functions of torch by name."""
    return {
        "bodies": {mode: _pack_graph(graph) for mode, graph in recipe.bodies.items()},
        "arguments": {name: _pack_structure(structure) for name, structure in recipe.arguments.items()},
        "settings": dict(recipe.settings),
        "code": {method: _pack_changes(changes) for method, changes in recipe.code.items()},
        "sure": recipe.sure,
        "before": recipe.before,
        "after": recipe.after,
        "still": recipe.still,
    }


def unpack(packed: Mapping[str, Any]) -> Recipe:
    """The inverse of `pack`; everything is checked, since it may come from a stranger's file."""
    try:
        for name in (*packed["before"], *packed["after"]):
            check_name(name)
        return Recipe(
            bodies={str(mode): _unpack_graph(nodes) for mode, nodes in packed["bodies"].items()},
            arguments={_identifier(n): _unpack_structure(item) for n, item in packed["arguments"].items()},
            settings={_identifier(n): _unpack_setting(item) for n, item in packed.get("settings", {}).items()},
            code={_method(name): _unpack_changes(changes) for name, changes in packed.get("code", {}).items()},
            sure=bool(packed["sure"]),
            before=tuple(packed["before"]),
            after=tuple(packed["after"]),
            still=bool(packed["still"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise unsafe(f"its recipe is malformed ({type(problem).__name__}: {problem})") from problem


def _pack_graph(graph: fx.Graph) -> list[tuple[Any, ...]]:
    return [
        (
            node.op,
            _function_name(node.target) if node.op == "call_function" else node.target,
            [_pack_value(item) for item in node.args],
            {key: _pack_value(item) for key, item in node.kwargs.items()},
            node.name,
            bool(node.meta.get("is_wrapped")),
        )
        for node in graph.nodes
    ]


def _unpack_graph(nodes: list[tuple[Any, ...]]) -> fx.Graph:
    graph = fx.Graph()
    graph._graph_namespace.create_name("self", None)
    made: dict[str, fx.Node] = {}
    for op, target, args, kwargs, name, wrapped in nodes:
        match op:
            case "placeholder":
                _identifier(target)
            case "call_module" | "get_attr":
                check_name(target)
                if any(part.startswith("__") for part in target.split(".")):
                    raise unsafe(f"it reads `{target}`")
            case "call_method":
                if target.startswith("_") or not hasattr(torch.Tensor, target):
                    raise unsafe(f"it calls the method `{target}`, which tensors do not have")
            case "call_function":
                target = _function(target)
                if target is getattr:
                    _check_getattr(args)
            case "output":
                pass
            case _:
                raise unsafe(f"it holds a {op!r}")
        values = tuple(_unpack_value(item, made) for item in args)
        keywords = {_identifier(key): _unpack_value(item, made) for key, item in kwargs.items()}
        node = graph.create_node(op, target, values, keywords, _identifier(name))
        if wrapped:
            node.meta["is_wrapped"] = True
        made[name] = node
    return graph


def _check_getattr(args: list[Any]) -> None:
    kind, name = args[1]
    if len(args) != 2 or kind != "value" or not isinstance(name, str):
        raise unsafe("it reads an attribute whose name is computed")
    if name.startswith("_") or not name.isidentifier():
        raise unsafe(f"it reads the attribute `{name}`")


def _identifier(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise unsafe(f"{name!r} is no name")
    return name


def _pack_value(value: Any) -> tuple[Any, ...]:
    match value:
        case fx.Node():
            return ("node", value.name)
        case tuple() if hasattr(value, "_fields"):
            return ("named", type(value), [_pack_value(item) for item in value])
        case tuple():
            return ("tuple", [_pack_value(item) for item in value])
        case list():
            return ("list", [_pack_value(item) for item in value])
        case dict():
            return ("dict", {key: _pack_value(item) for key, item in value.items()})
        case slice():
            return ("slice", _pack_value(value.start), _pack_value(value.stop), _pack_value(value.step))
        case torch.dtype() | torch.layout() | torch.memory_format():
            return ("torch", str(value).removeprefix("torch."))
        case torch.device():
            return ("device", str(value))
        case None | bool() | int() | float() | str() | complex():
            return ("value", value)
        case _ if value is Ellipsis:
            return ("ellipsis",)
    return ("object", value)


def _unpack_value(packed: tuple[Any, ...], made: Mapping[str, fx.Node]) -> Any:
    match packed:
        case ("node", name):
            return made[name]
        case ("named", cls, items) if isinstance(cls, type) and issubclass(cls, tuple):
            return cls(*(_unpack_value(item, made) for item in items))
        case ("tuple", items):
            return tuple(_unpack_value(item, made) for item in items)
        case ("list", items):
            return [_unpack_value(item, made) for item in items]
        case ("dict", items):
            return {key: _unpack_value(item, made) for key, item in items.items()}
        case ("slice", start, stop, step):
            return slice(*(_unpack_value(item, made) for item in (start, stop, step)))
        case ("torch", name):
            found = getattr(torch, _identifier(name))
            if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
                raise unsafe(f"`torch.{name}` is no dtype")
            return found
        case ("device", name):
            return torch.device(name)
        case ("value", None | bool() | int() | float() | str() | complex() as value):
            return value
        case ("ellipsis",):
            return Ellipsis
    raise unsafe(f"it holds a value of the kind {packed[0]!r}")


def _pack_changes(changes: MethodChanges) -> tuple[Any, ...]:
    calls = {
        number: (call.takes, call.ahead, call.arguments, call.instead, call.behind, call.overwrites)
        for number, call in changes.calls.items()
    }
    return changes.digest, calls


def _unpack_changes(packed: tuple[Any, ...]) -> MethodChanges:
    digest, calls = packed
    return MethodChanges(str(digest), {int(number): _unpack_call(*call) for number, call in calls.items()})


def _unpack_call(takes: Any, ahead: Any, arguments: Any, instead: Any, behind: Any, overwrites: Any) -> CodeChange:
    for name in (*(name for _, names in ahead for name in names), *(instead or ()), *behind):
        check_name(name)
    return CodeChange(
        tuple(map(_argument, takes)),
        tuple((_argument(argument), tuple(names)) for argument, names in ahead),
        tuple((_argument(argument), _unpack_plain(value)) for argument, value in arguments),
        None if instead is None else tuple(instead),
        tuple(behind),
        bool(overwrites),
    )


def _argument(argument: Any) -> Argument:
    return argument if type(argument) is int else _identifier(argument)


def _method(name: Any) -> str:
    if _identifier(name).startswith("__"):
        raise unsafe(f"it changes the method `{name}`")
    return str(name)


def _unpack_plain(value: Any) -> object:
    if type(value) is tuple:
        return tuple(_unpack_plain(item) for item in value)
    return _unpack_setting(value)


def _unpack_setting(value: Any) -> object:
    if value is not None and type(value) not in (bool, int, float, str):
        raise unsafe(f"it takes a {type(value).__name__} for an attribute of a module")
    return value


def _pack_structure(structure: Structure) -> tuple[Any, ...]:
    match structure:
        case Placeholder(name, tensor):
            return ("placeholder", name, tensor)
        case Constant(value):
            return ("constant", _pack_value(value))
        case Container(kind, items):
            return ("container", kind.__name__, [(key, _pack_structure(item)) for key, item in items])


def _unpack_structure(packed: tuple[Any, ...]) -> Structure:
    match packed:
        case ("placeholder", name, tensor):
            return Placeholder(_identifier(name), bool(tensor))
        case ("constant", value):
            return Constant(_unpack_value(value, {}))
        case ("container", "list" | "tuple" | "dict" | "OrderedDict" as kind, items):
            kinds: dict[str, type] = {
                "list": list,
                "tuple": tuple,
                "dict": dict,
                "OrderedDict": collections.OrderedDict,
            }
            if not all(isinstance(key, int | str) for key, _ in items):
                raise unsafe("an argument has a key that is no name")
            return Container(kinds[kind], tuple((key, _unpack_structure(item)) for key, item in items))
    raise unsafe(f"it holds an argument of the kind {packed[0]!r}")


def _function_name(function: Any) -> Any:
    """The name that `_function` finds the function by; the function itself where there is none."""
    name = _function_names().get(id(function))
    if name is not None:
        return name
    dotted = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    return dotted if dotted in _NAMED_FUNCTIONS else function


def _function(name: Any) -> Any:
    if callable(name):  # pickled by reference: an unpickler with an allow-list has refused it before this
        return name
    if name in _NAMED_FUNCTIONS:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)
    try:
        return _known_functions()[name]
    except KeyError:
        raise unsafe(f"it calls `{name}`") from None


@functools.cache
def _known_functions() -> Mapping[str, Any]:
    """Every function that can stand in a captured forward: torch's own on tensors, operators, a few of Python's."""
    found: dict[str, Any] = {"getattr": getattr, "OrderedDict": collections.OrderedDict, "torch._assert": torch._assert}
    for name in (*magic_methods, *inplace_methods, "getitem", "contains", "is_", "is_not"):
        if hasattr(operator, name):
            found[f"operator.{name}"] = getattr(operator, name)
    for name in dir(math):
        if not name.startswith("_") and callable(getattr(math, name)):
            found[f"math.{name}"] = getattr(math, name)
    for space, functions in torch.overrides.get_overridable_functions().items():
        prefix = {torch: "torch", torch.nn.functional: "torch.nn.functional", torch.functional: "torch.functional"}.get(
            space, None if space is torch.Tensor else getattr(space, "__name__", None)
        )
        if prefix is None:
            continue
        for function in functions:
            name = getattr(function, "__name__", "")
            if name and getattr(space, name, None) is function:
                found[f"{prefix}.{name}"] = function
    for operation in OPERATIONS.values():
        for dotted in operation.functions:
            found.setdefault(dotted, resolve(dotted))
    return found


@functools.cache
def _function_names() -> Mapping[int, str]:
    names: dict[int, str] = {}
    for name, function in _known_functions().items():
        names.setdefault(id(function), name)
    return names


def unsafe(why: str) -> Exception:
    return Diagnostic(
        "RW502",
        f"the file holds a rewritten module that cannot be trusted: {why}",
        help="apply the rules again to the original model, and save that",
    ).error()
