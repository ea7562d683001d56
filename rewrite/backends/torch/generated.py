"""Classes made for rewritten modules: a subclass of the module's own class, with another forward.

What such a class does is data (`Recipe`): the graph of its forward, or the layers that extend the call of a leaf, or
that its statistics stand still. Pickling stores that data and the state, never source text and never a class; loading
checks the data against what a captured forward can hold, and generates the class again.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import keyword
import linecache
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch.code_changes import changed_methods
from rewrite.backends.torch.packed import pack, unpack, unsafe
from rewrite.backends.torch.recipes import Recipe, check_name
from rewrite.backends.torch.scopes import Constant, Container, Placeholder, Structure
from rewrite.errors import Diagnostic

_serial = itertools.count(1)

_classes: dict[object, type[nn.Module]] = {}


def generate_class(base: type[nn.Module], recipe: Recipe) -> type[nn.Module]:
    """The subclass of `base` that follows `recipe`; `base` itself when the recipe is empty.

    Equal recipes give the same class, so fifty equal blocks share one.
    """
    if not (recipe.bodies or recipe.code or recipe.before or recipe.after or recipe.still):
        return base
    key = (
        base,
        base.forward,
        tuple((mode, _shape_of(graph)) for mode, graph in recipe.bodies.items()),
        repr(sorted(recipe.arguments.items(), key=lambda item: item[0])),
        repr(sorted(recipe.settings.items())),
        repr(sorted(recipe.code.items())),
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
    members |= changed_methods(base, recipe.code, str(next(_serial)))
    forward = members.get("forward", base.forward)
    if recipe.bodies:
        forward = _captured_forward(base, recipe, sources)
    if recipe.before or recipe.after:
        forward = _extended_forward(forward, recipe)
    if forward is not base.forward:
        members["forward"] = forward
    if recipe.settings:
        members["__setattr__"] = _settled(base, recipe.settings)
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
                test = "_mapping" if issubclass(kind, dict) else "_sequence"
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

    # Not `functools.wraps`: TorchScript would follow it to the source of the original and leave the new layers out.
    forward.__name__, forward.__qualname__ = original.__name__, original.__qualname__
    forward.__module__, forward.__doc__ = original.__module__, original.__doc__
    forward.__annotations__ = dict(getattr(original, "__annotations__", {}))
    forward.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    forward._rewrite_original = original  # type: ignore[attr-defined]
    return forward


def _settled(base: type[nn.Module], settings: Mapping[str, object]) -> Callable[..., None]:
    """Refuses another value where it would not be looked at: what the forward read stands in its graph now."""

    def __setattr__(self: nn.Module, name: str, value: Any) -> None:
        if name in settings and (type(value) is not type(settings[name]) or value != settings[name]):
            raise Diagnostic(
                "RW207",
                f"`{name}` of `{base.__qualname__}` was {settings[name]!r:.60} when its forward was captured, and "
                f"another value, {value!r:.60}, would not be looked at",
                help=f"set `{name}` in the model as it was, and apply the rules to that",
            ).error()
        base.__setattr__(self, name, value)

    return __setattr__


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
        raise unsafe(f"{base!r} is no module class")
    cls = generate_class(base, unpack(packed))
    if rebuild in torch.serialization.get_safe_globals():
        # A restricted unpickler gives a state only to classes that it knows, and this one is made as we speak.
        torch.serialization.add_safe_globals([(cls, f"rewrite.generated.{next(_serial)}")])
    return cls.__new__(cls)


SAFE_GLOBALS: tuple[Any, ...] = (rebuild,)
"""what a restricted unpickler must know to load a rewritten module"""
