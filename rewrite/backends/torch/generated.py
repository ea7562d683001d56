"""Classes made for rewritten modules: a subclass of the module's own class, with another forward.

What such a class does is data (`Recipe`): the graph of its forward, or the layers that extend the call of a leaf, or
that its statistics stand still. Pickling stores that data and the state, never source text and never a class; loading
checks the data against what a captured forward can hold, and generates the class again.
"""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import itertools
import keyword
import linecache
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import inplace_methods, magic_methods

from rewrite.backends.torch.scopes import Constant, Container, Placeholder, Structure
from rewrite.errors import Diagnostic

_PART = re.compile(r"[A-Za-z0-9_-]{1,200}")
_serial = itertools.count(1)

_NAMED_FUNCTIONS = (
    "torchvision.ops.stochastic_depth.stochastic_depth",
    "torchvision.models.swin_transformer._get_relative_position_bias",
    "torchvision.models.swin_transformer.shifted_window_attention",
    "torchvision.models.swin_transformer._patch_merging_pad",
    "torchvision.models.maxvit._get_relative_position_bias",
)
"""functions outside torch that compute on tensors only and that fx keeps whole; loaded by name"""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a generated class does differently from its base."""

    bodies: Mapping[str, fx.Graph] = field(default_factory=dict)
    """`""`, or `train` and `eval`: the forward; none: the base's own"""
    arguments: Mapping[str, Structure] = field(default_factory=dict)
    """parameter of forward -> what the graphs take for it"""
    sure: bool = True
    """whether the kinds of arguments are certain; else the forward checks them"""
    before: tuple[str, ...] = ()
    """children that the first input passes before the base's forward"""
    after: tuple[str, ...] = ()
    """children that the main output passes behind it"""
    still: bool = False
    """stays in eval mode through `train()`: moving statistics do not move"""


def recipe_of(module: nn.Module) -> Recipe:
    """The recipe of a module's class; an empty one for a class that was not generated."""
    found: Recipe = getattr(type(module), "_rewrite_recipe", _EMPTY)
    return found


def base_of(cls: type[nn.Module]) -> type[nn.Module]:
    """The class that a generated class stands for; any other class is its own."""
    found: type[nn.Module] = cls.__dict__.get("_rewrite_base", cls)
    return found


_EMPTY = Recipe()
_classes: dict[object, type[nn.Module]] = {}


def generate_class(base: type[nn.Module], recipe: Recipe) -> type[nn.Module]:
    """The subclass of `base` that follows `recipe`; `base` itself when the recipe is empty.

    Equal recipes give the same class, so fifty equal blocks share one.
    """
    if not (recipe.bodies or recipe.before or recipe.after or recipe.still):
        return base
    key = (
        base,
        tuple((mode, _shape_of(graph)) for mode, graph in recipe.bodies.items()),
        repr(sorted(recipe.arguments.items(), key=lambda item: item[0])),
        recipe.sure,
        recipe.before,
        recipe.after,
        recipe.still,
    )
    if key in _classes:
        return _classes[key]
    sources: dict[str, tuple[str, dict[str, Any]]] = {}
    for mode, graph in recipe.bodies.items():
        code = graph.python_code("self")
        sources[mode] = (_keyword_names(graph, code.src), {k: v for k, v in code.globals.items() if v is not None})
    members: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__reduce_ex__": _reduce,
        "_rewrite_base": base,
        "_rewrite_recipe": recipe,
    }
    if "__deepcopy__" not in dir(base):
        members["__deepcopy__"] = _deepcopy
    forward = base.forward
    if recipe.bodies:
        forward = _captured_forward(base, recipe, sources)
    if recipe.before or recipe.after:
        forward = _extended_forward(forward, recipe)
    if forward is not base.forward:
        members["forward"] = forward
    if recipe.still:
        members["train"] = _still_train(base)
    made = type(base.__name__, (base,), members)
    _classes[key] = made
    return made


def _shape_of(graph: fx.Graph) -> tuple[object, ...]:
    """Equal for graphs that give the same code."""
    return tuple((node.op, node.name, node.target, repr(node.args), repr(node.kwargs)) for node in graph.nodes)


# ---- forwards


def _captured_forward(
    base: type[nn.Module], recipe: Recipe, sources: Mapping[str, tuple[str, dict[str, Any]]]
) -> Callable[..., Any]:
    functions = {}
    for mode, (source, names) in sources.items():
        functions[mode] = _compile(source, dict(names), f"{base.__name__}.forward{' ' + mode if mode else ''}")
    original = base.forward
    signature = inspect.signature(original)
    parameters = list(signature.parameters.values())[1:]
    plain = len(functions) == 1 and all(
        isinstance(given := recipe.arguments.get(p.name), Placeholder)
        and given.name == p.name
        and p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and p.default is inspect.Parameter.empty
        for p in parameters
    )
    if plain and recipe.sure:
        forward: Callable[..., Any] = next(iter(functions.values()))
        forward.__annotations__ = dict(getattr(original, "__annotations__", {}))
        return forward
    return _checked_forward(base, recipe, functions, signature)


def _checked_forward(
    base: type[nn.Module],
    recipe: Recipe,
    functions: Mapping[str, Callable[..., Any]],
    signature: inspect.Signature,
) -> Callable[..., Any]:
    """A forward with the original signature: checks what the capture took for granted, then runs the graph."""
    parameters = list(signature.parameters.values())[1:]
    # Names of their own for all that the source uses: a parameter may be called `len` or `dict`.
    names: dict[str, Any] = {
        "_refuse": functools.partial(_refuse, base.__qualname__),
        "_is": isinstance,
        "_length": len,
        "_Tensor": torch.Tensor,
        "_sequence": (list, tuple),
        "_mapping": dict,
        "_others": (bool, str, list, tuple, dict),
    }
    me = next(iter(signature.parameters))
    lines: list[str] = []
    passed: list[str] = []

    def unpack(structure: Structure, text: str, what: str) -> None:
        match structure:
            case Placeholder(name, tensor):
                if not tensor and not recipe.sure:
                    lines.append(f"if {text} is None or _is({text}, _others): _refuse({what!r}, 'a value', {text})")
                if tensor and not recipe.sure:
                    lines.append(f"if not _is({text}, _Tensor): _refuse({what!r}, 'a tensor', {text})")
                if name != text:
                    lines.append(f"{name} = {text}")
                passed.append(name)
            case Constant(value):
                names[constant := f"_constant_{len(names)}"] = value
                same = "is" if value is None or isinstance(value, bool) else "=="
                lines.append(f"if not ({text} {same} {constant}): _refuse({what!r}, {value!r:.60}, {text})")
            case Container(kind, items):
                expected = f"{kind.__name__} of {len(items)}"
                test = "_mapping" if kind is dict else "_sequence"
                lines.append(
                    f"if not _is({text}, {test}) or _length({text}) != {len(items)}: "
                    f"_refuse({what!r}, {expected!r}, {text})"
                )
                for key, item in items:
                    unpack(item, f"{text}[{key!r}]", f"{what}[{key!r}]")

    for parameter in parameters:
        if parameter.name in recipe.arguments:
            unpack(recipe.arguments[parameter.name], parameter.name, parameter.name)
    call = f"({', '.join([me, *passed])})"
    names.update({f"_forward_{mode}": function for mode, function in functions.items()})
    if len(functions) == 1:
        lines.append(f"return _forward_{next(iter(functions))}{call}")
    else:
        lines += [f"if {me}.training:", f"    return _forward_train{call}", f"return _forward_eval{call}"]
    shown = signature.replace(
        parameters=[
            p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else None)
            for p in signature.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    source = f"def forward{shown}:\n" + "".join(f"    {line}\n" for line in lines)
    forward: Any = _compile(source, names, f"{base.__name__}.forward")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    forward.__defaults__ = tuple(p.default for p in positional if p.default is not p.empty) or None
    forward.__kwdefaults__ = {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    } or None
    forward.__annotations__ = dict(getattr(base.forward, "__annotations__", {}))
    made: Callable[..., Any] = forward
    return made


def _refuse(where: str, what: str, expected: object, given: object) -> None:
    shown = "a tensor" if isinstance(given, torch.Tensor) else repr(given)[:60]
    raise Diagnostic(
        "RW207",
        f"the rewritten forward of `{where}` was captured with `{what}` = {expected} and is called with {shown}",
        notes=("a forward that treats the two differently would now compute the wrong thing",),
        help="rewrite the model with `example_inputs=` that use this argument, "
        "or with rules that name layers only, which need no captured forward",
    ).error()


def _extended_forward(original: Callable[..., Any], recipe: Recipe) -> Callable[..., Any]:
    """A forward with more layers around it, for a layer whose surrounding forward is left alone."""
    before, after = recipe.before, recipe.after

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if before:
            if args:
                value, args = args[0], args[1:]
            else:
                first = next(iter(kwargs))
                value = kwargs.pop(first)
            for name in before:
                value = self._modules[name](value)  # type: ignore[misc]
            args = (value, *args)
        output = original(self, *args, **kwargs)
        main = output[0] if isinstance(output, tuple) else output
        for name in after:
            main = self._modules[name](main)  # type: ignore[misc]
        return (main, *output[1:]) if isinstance(output, tuple) else main

    return forward


def _still_train(base: type[nn.Module]) -> Callable[..., nn.Module]:
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        """Stays in eval mode: its statistics are frozen."""
        return base.train(self, False)

    return train


def _compile(source: str, names: dict[str, Any], title: str) -> Any:
    """The function `forward` of `source`; tracebacks show its lines."""
    filename = f"<rewrite {title} {next(_serial)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    # fx writes torch's own functions with their full names
    names.setdefault("torch", torch)
    # No `__name__`: torch.compile would import a module of that name to look the globals up in it.
    exec(compile(source, filename, "exec"), names)
    return names["forward"]


def _keyword_names(graph: fx.Graph, source: str) -> str:
    """Attributes named like a Python keyword (`self.for`) as `getattr` calls, which fx leaves out."""
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        parts = str(node.target).split(".")
        check_name(str(node.target))
        if any(keyword.iskeyword(part) for part in parts):
            written, safe = "self", "self"
            for part in parts:
                written = f"{written}.{part}" if part.isidentifier() else f'getattr({written}, "{part}")'
                plain = part.isidentifier() and not keyword.iskeyword(part)
                safe = f"{safe}.{part}" if plain else f'getattr({safe}, "{part}")'
            source = re.sub(re.escape(written) + r"(?![A-Za-z0-9_.])", lambda _, safe=safe: safe, source)  # type: ignore[misc]
    return source


def check_name(path: str) -> None:
    """Refuses a module or tensor path that could not stand in generated source as itself."""
    for part in path.split("."):
        if not _PART.fullmatch(part):
            raise Diagnostic(
                "RW320",
                f"the name {part!r} cannot be written into a generated forward",
                notes=(f"it is part of the path {path!r}",),
                help="names of letters, digits, `_` and `-` are safe; rename the module",
            ).error()


# ---- copies


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    cls = type(self)
    twin: nn.Module = cls.__new__(cls)
    memo[id(self)] = twin
    twin.__setstate__(copy.deepcopy(_state(self), memo))  # type: ignore[no-untyped-call]
    return twin


def _state(module: nn.Module) -> Any:
    """What the class itself would pickle: recurrent layers leave their weak references out."""
    return module.__getstate__()  # type: ignore[no-untyped-call]


def _reduce(self: nn.Module, protocol: object) -> tuple[Any, ...]:
    cls = type(self)
    # The state comes third, behind the module itself, so that it may refer back to the module.
    return rebuild, (cls._rewrite_base, pack(cls._rewrite_recipe)), _state(self)  # type: ignore[attr-defined]


def rebuild(base: type[nn.Module], packed: dict[str, Any]) -> nn.Module:
    """What unpickling a rewritten module calls, before it hands the module its state.

    Args:
        base: the module's own class.
        packed: the recipe as `pack` gives it.

    Raises:
        SafetyError: the data holds what no captured forward holds.

    """
    if not (isinstance(base, type) and issubclass(base, nn.Module)):
        raise _unsafe(f"{base!r} is no module class")
    cls = generate_class(base, unpack(packed))
    if rebuild in torch.serialization.get_safe_globals():
        # A restricted unpickler gives a state only to classes that it knows, and this one is made as we speak.
        torch.serialization.add_safe_globals([(cls, f"rewrite.generated.{next(_serial)}")])
    return cls.__new__(cls)


SAFE_GLOBALS: tuple[Any, ...] = (rebuild,)
"""what a restricted unpickler must know to load a rewritten module"""


# ---- recipes as plain data


def pack(recipe: Recipe) -> dict[str, Any]:
    """A recipe as nested tuples, lists and dicts of plain values; functions of torch by name."""
    return {
        "bodies": {mode: _pack_graph(graph) for mode, graph in recipe.bodies.items()},
        "arguments": {name: _pack_structure(structure) for name, structure in recipe.arguments.items()},
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
            sure=bool(packed["sure"]),
            before=tuple(packed["before"]),
            after=tuple(packed["after"]),
            still=bool(packed["still"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise _unsafe(f"its recipe is malformed ({type(problem).__name__}: {problem})") from problem


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
                    raise _unsafe(f"it reads `{target}`")
            case "call_method":
                if target.startswith("_") or not hasattr(torch.Tensor, target):
                    raise _unsafe(f"it calls the method `{target}`, which tensors do not have")
            case "call_function":
                target = _function(target)
                if target is getattr:
                    _check_getattr(args)
            case "output":
                pass
            case _:
                raise _unsafe(f"it holds a {op!r}")
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
        raise _unsafe("it reads an attribute whose name is computed")
    if name.startswith("_") or not name.isidentifier():
        raise _unsafe(f"it reads the attribute `{name}`")


def _identifier(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise _unsafe(f"{name!r} is no name")
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
                raise _unsafe(f"`torch.{name}` is no dtype")
            return found
        case ("device", name):
            return torch.device(name)
        case ("value", None | bool() | int() | float() | str() | complex() as value):
            return value
        case ("ellipsis",):
            return Ellipsis
    raise _unsafe(f"it holds a value of the kind {packed[0]!r}")


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
        case ("container", "list" | "tuple" | "dict" as kind, items):
            kinds: dict[str, type] = {"list": list, "tuple": tuple, "dict": dict}
            if not all(isinstance(key, int | str) for key, _ in items):
                raise _unsafe("an argument has a key that is no name")
            return Container(kinds[kind], tuple((key, _unpack_structure(item)) for key, item in items))
    raise _unsafe(f"it holds an argument of the kind {packed[0]!r}")


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
        import importlib

        return getattr(importlib.import_module(module), attribute)
    try:
        return _known_functions()[name]
    except KeyError:
        raise _unsafe(f"it calls `{name}`") from None


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
    from rewrite.backends.torch.spellings import resolve
    from rewrite.vocabulary import OPERATIONS

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


def _unsafe(why: str) -> Exception:
    return Diagnostic(
        "RW502",
        f"the file holds a rewritten module that cannot be trusted: {why}",
        help="apply the rules again to the original model, and save that",
    ).error()
