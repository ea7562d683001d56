"""An optimizer for the parameters of a changed model, with what one of the given model has gathered."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from rewrite.backends.torch.modules import memory_of

_SHOWN = 5

AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


def over(optimizer: Any, old: nn.Module, new: nn.Module, keys: Mapping[str, str]) -> Any:
    """The optimizer for `new`.

    Args:
        optimizer: over parameters of `old`; it is not changed.
        old: the given model.
        new: the changed one.
        keys: key in `new` -> the key that it had in `old`, of what rules kept as far as is known.

    Raises:
        TypeError: it is no optimizer.
        ValueError: the optimizer holds parameters that are not in `old`, or cannot hold those of `new`.

    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a torch.optim.Optimizer is needed, not a {type(optimizer).__name__}")
    groups = {parameter: number for number, group in enumerate(optimizer.param_groups) for parameter in group["params"]}
    _check_all_known(groups, old)
    origins = _origins(old, new, keys)
    homes = _homes(groups, old, new, origins)
    members: list[dict[nn.Parameter, str]] = [{} for _ in optimizer.param_groups]
    for parameter, number in sorted(homes.items(), key=_in_old_order(groups, origins)):
        members[number][parameter] = ""
    for name, parameter in new.named_parameters():
        if parameter in homes:
            members[homes[parameter]][parameter] = name
    made = _made_like(optimizer, members)
    kept = [(origins[one], one) for names in members for one in names if origins.get(one) in groups]
    if isinstance(optimizer, torch.optim.LBFGS) and not _are_all(kept, groups, homes):
        kept = []
    for before, after in kept:
        if before in optimizer.state:
            made.state[after] = _copied(optimizer.state[before])
    return made


def _are_all(
    kept: Sequence[tuple[nn.Parameter, nn.Parameter]],
    groups: Mapping[nn.Parameter, int],
    homes: Mapping[nn.Parameter, int],
) -> bool:
    """Whether the parameters are the same as before: LBFGS gathers for all in one vector, kept beside the first."""
    return len(kept) == len(homes) == len(groups) and all(
        one is other for (one, _), other in zip(kept, groups, strict=True)
    )


def _check_all_known(groups: Mapping[nn.Parameter, int], old: nn.Module) -> None:
    known = set(old.parameters())
    strange = [parameter for parameter in groups if parameter not in known]
    if not strange:
        return
    shapes = ", ".join(str(tuple(parameter.shape)) for parameter in strange[:_SHOWN])
    raise ValueError(
        f"{len(strange)} of the {len(groups)} parameters of the optimizer are not in the model as it was; shapes: "
        f"{shapes}{', ...' if len(strange) > _SHOWN else ''}. Give the model that the optimizer was made for first, "
        "and the rewritten one behind it"
    )


def _origins(old: nn.Module, new: nn.Module, keys: Mapping[str, str]) -> dict[nn.Parameter, nn.Parameter]:
    """Parameter of the changed model -> what it was in the given one; what is new has none.

    The same tensor, or another one over the same numbers, such as what `freeze` makes. Else the key decides: that of a
    copy of the model, or of one on another device.
    """
    given = dict(old.named_parameters(remove_duplicate=False))
    known = set(given.values())
    by_memory = {memory_of(parameter): parameter for parameter in reversed(given.values())}
    found: dict[nn.Parameter, nn.Parameter] = {}
    for key, parameter in new.named_parameters(remove_duplicate=False):
        before = parameter if parameter in known else by_memory.get(memory_of(parameter))
        if before is None:
            before = given.get(keys.get(key, ""))
        if before is not None and before.shape == parameter.shape:
            found.setdefault(parameter, before)
    return found


@dataclass(frozen=True)
class _Place:
    """A parameter of the changed model that was there before, as others look for their nearest."""

    module: int
    """how many modules with parameters stand in front of its own"""
    path: tuple[str, ...]
    """of its module"""
    is_vector: bool
    group: int | None
    """None: it learns, and the optimizer does not hold it"""

    def nearness(self, new: _Place) -> tuple[int, bool, int, bool]:
        """Larger is nearer to a new parameter: a deep module in common, in front, few modules between, alike."""
        both = zip(self.path, new.path, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
        return (
            common,
            self.module <= new.module,
            -abs(self.module - new.module),
            self.is_vector == new.is_vector,
        )


def _homes(
    groups: Mapping[nn.Parameter, int],
    old: nn.Module,
    new: nn.Module,
    origins: Mapping[nn.Parameter, nn.Parameter],
) -> dict[nn.Parameter, int]:
    """Parameter of the changed model -> number of its group; others are left out."""
    under_key = dict(old.named_parameters(remove_duplicate=False))
    modules: dict[tuple[str, ...], int] = {}
    known: list[_Place] = []
    unknown: list[tuple[_Place, nn.Parameter]] = []
    homes: dict[nn.Parameter, int] = {}
    for key, parameter in new.named_parameters():
        path = tuple(key.split(".")[:-1])
        before = origins.get(parameter, under_key.get(key))
        group = groups.get(before) if before is not None else None
        place = _Place(modules.setdefault(path, len(modules)), path, parameter.dim() < 2, group)
        if group is not None:
            homes[parameter] = group
        if before is not None and (group is not None or before.requires_grad):
            known.append(place)
        elif parameter not in origins:
            unknown.append((place, parameter))
    for place, parameter in unknown:
        nearest = max(known, key=partial(_Place.nearness, new=place), default=None)
        group = nearest.group if nearest is not None else 0
        if group is not None:
            homes[parameter] = group
    return homes


def _in_old_order(groups: Mapping[nn.Parameter, int], origins: Mapping[nn.Parameter, nn.Parameter]) -> Any:
    """Kept parameters first, as they stood in their groups."""
    places = {parameter: place for place, parameter in enumerate(groups)}
    return lambda home: places.get(origins.get(home[0], home[0]), len(places))


def _made_like(optimizer: AnyOptimizer, members: Iterable[Mapping[nn.Parameter, str]]) -> AnyOptimizer:
    """One of the same class with the same options, over other parameters."""
    groups = []
    for group, names in zip(optimizer.param_groups, members, strict=True):
        options = {name: _copied(value) for name, value in group.items() if name not in ("params", "param_names")}
        named = [(name, parameter) for parameter, name in names.items()]
        groups.append({**options, "params": named if "param_names" in group else list(names)})
    accepted = inspect.signature(type(optimizer)).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    defaults = {name: _copied(value) for name, value in optimizer.defaults.items() if takes_all or name in accepted}
    try:
        made = type(optimizer)(groups, **defaults)
    except Exception as error:
        raise ValueError(
            f"no {type(optimizer).__name__} can be made for the parameters of the rewritten model: {error}. "
            "Make one by hand, and give it the state of the parameters that it shares with the other"
        ) from error
    return made


def _copied(value: Any) -> Any:
    """A copy of state or options that shares no memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(one) for one in value)
    return copy.deepcopy(value)
