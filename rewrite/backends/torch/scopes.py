"""What a capture consists of: scopes, the bodies of their forwards, and the structures of arguments and results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch.modules import is_sequential

SIMPLE = (int, float, bool, str, type(None), torch.dtype, torch.device)
"""types of values that a graph holds as they are"""


class Unfaithful(Exception):
    """A graph of this forward would not mean what the forward means."""


@dataclass(frozen=True)
class Placeholder:
    """Leaf of an argument structure: a value that the caller supplies; `name` is that of its fx placeholder."""

    name: str
    tensor: bool = True
    """False for a value that may be a number, such as a size"""


@dataclass(frozen=True)
class Constant:
    """Leaf of an argument structure: a plain value that the capture took for granted."""

    value: object


@dataclass(frozen=True)
class Container:
    """Inner node of an argument structure: list, tuple or dict of further structures."""

    kind: type
    items: tuple[tuple[object, Structure], ...]
    """(position or key, what stands there)"""


Structure = Placeholder | Constant | Container


@dataclass
class Body:
    """One captured forward."""

    graph: fx.Graph
    arguments: dict[str, Structure]
    """parameter of `forward` -> what was passed for it"""
    result: object
    """what it returns: nested containers with `Slot` leaves for values and constants as they are"""
    children: dict[fx.Node, nn.Module]
    """module calls in the graph"""
    settings: dict[str, object] = field(default_factory=dict)
    """plain attribute of the module -> its value when the forward read it"""


@dataclass(frozen=True)
class Slot:
    """Leaf of a result: the n-th value that a call returns."""

    path: tuple[int | str, ...]
    tensor: bool = True
    """False for a value that may be a number, such as a size"""


@dataclass(frozen=True)
class Record:
    """Inner node of a result: an object of a dataclass, which a call of its class makes of its fields."""

    kind: type
    fields: Mapping[str, object]


def fields_of(value: object) -> dict[str, Any] | None:
    """The fields of an object of a dataclass that its class makes of them again; None for any other object.

    A class whose constructor does more with its fields than keep them is not among these.
    """
    if not is_dataclass(value) or isinstance(value, type):
        return None
    if not all(one.init for one in fields(value)):
        return None
    found = {one.name: getattr(value, one.name) for one in fields(value)}
    if not set(getattr(value, "__dict__", found)) <= set(found):
        return None
    kind: Any = type(value)
    again = kind(**found)
    return found if all(getattr(again, name) is item for name, item in found.items()) else None


@dataclass
class Scope:
    """One module's forward."""

    module: nn.Module
    path: str
    sure: bool = True
    """nothing was assumed about the arguments beyond what the captured caller fixes"""
    assumed: str = ""
    """the argument that was taken to have its default although nobody knows how the module is called"""
    bodies: dict[str, Body] = field(default_factory=dict)
    """`""`: one graph for both modes; else `train` and `eval`"""
    reason: str = ""
    """why the forward could not be captured; empty: it could"""
    called: bool = True
    """whether it is called, as far as that is known: with an example input, whether that calls it"""
    reached: bool = False
    """a Sequential that others index, iterate or measure, so its entries may not shift"""
    branches: bool = False
    """the forward asks `self.training` in Python"""
    current: str = ""
    """which mode of the bodies is the module's present one"""

    @property
    def kind(self) -> str:
        """`opaque`, `list` or `graph`."""
        if self.reason:
            return "opaque"
        return "list" if is_sequential(self.module) and not self.reached else "graph"

    @property
    def body(self) -> Body:
        """The forward in the module's present mode."""
        return self.bodies[self.current]


@dataclass
class Capture:
    """Every scope of a model."""

    root: nn.Module
    paths: dict[nn.Module, tuple[str, ...]]
    """module -> all paths it is reached by, the first one its name"""
    scopes: dict[nn.Module, Scope]
    read_only: dict[str, str]
    """path of a layer whose tensors are read without calling it -> path of the module that reads them"""
    whole: frozenset[nn.Module] = frozenset()
    """modules of layers that were asked to be read as one call each"""


_signatures: dict[object, inspect.Signature] = {}


def forward_signature(module: nn.Module) -> inspect.Signature:
    """Signature of the class's forward, `self` included; cached by function."""
    function = type(module).forward
    if function not in _signatures:
        _signatures[function] = inspect.signature(function)
    return _signatures[function]


def call_forward(function: Any, module: nn.Module, passed: dict[str, Any], signature: inspect.Signature) -> Any:
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    has_rest = any(p.kind is p.VAR_POSITIONAL and passed.get(p.name) for p in signature.parameters.values())
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.name not in passed:
            continue
        value = passed[parameter.name]
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                positional += value
            case inspect.Parameter.VAR_KEYWORD:
                keywords.update(value)
            case inspect.Parameter.KEYWORD_ONLY:
                keywords[parameter.name] = value
            case _ if parameter.default is not inspect.Parameter.empty and not has_rest:
                keywords[parameter.name] = value  # decorators look for options among the keywords
            case _:
                positional.append(value)
    return function(module, *positional, **keywords)
