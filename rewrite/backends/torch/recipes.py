"""What a rewritten module does differently from its class, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx, nn

from rewrite.backends.torch.scopes import Structure
from rewrite.errors import Diagnostic

_PART = re.compile(r"[A-Za-z0-9_-]{1,200}")


Argument = int | str
"""which argument of a call: its number, or its keyword"""

RECEIVER: Argument = -1
"""what a method is called on"""


@dataclass(frozen=True)
class CodeChange:
    """What is different about one call of a function in the code of a forward."""

    takes: tuple[Argument, ...]
    """the arguments that are the values which the call is about"""
    ahead: tuple[tuple[Argument, tuple[str, ...]], ...] = ()
    """argument -> children that it passes first"""
    arguments: tuple[tuple[Argument, object], ...] = ()
    """argument -> plain value that is passed for it"""
    instead: tuple[str, ...] | None = None
    """children that are called in its place, one behind the other; none of them: its input goes on"""
    behind: tuple[str, ...] = ()
    """children that the result passes"""
    overwrites: bool = False
    """it writes its result over its input: where nothing takes the result, the name of the input does"""


@dataclass(frozen=True)
class MethodChanges:
    """What is different about the code of one method."""

    digest: str
    """of the text that the numbers count in"""
    calls: Mapping[int, CodeChange]
    """number of the call in that text -> what is different"""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a generated class does differently from its base."""

    bodies: Mapping[str, fx.Graph] = field(default_factory=dict)
    """`""`, or `train` and `eval`: the forward; none: the base's own"""
    arguments: Mapping[str, Structure] = field(default_factory=dict)
    """parameter of forward -> what the graphs take for it"""
    settings: Mapping[str, object] = field(default_factory=dict)
    """plain attribute of the module -> the value that the graphs take for granted"""
    code: Mapping[str, MethodChanges] = field(default_factory=dict)
    """method -> what is different in its code, for a forward that no graph was made of"""
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
