"""Models by the name of what builds them: `torchvision:resnet50`, `timm:vit_tiny_patch16_224`, and with weights
`torchvision:resnet50@FILE`. Builders are called so that none of them fetches anything.
"""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from rewrite.errors import Diagnostic, SafetyError, nearest
from rewrite.saved import unreadable
from rewrite.saved.content import Content, content_of, damaged
from rewrite.saved.output import reason
from rewrite.saved.safetensors_file import read_safetensors
from rewrite.saved.unpickle import unpickle

if TYPE_CHECKING:
    from types import ModuleType

FAMILIES = ("torchvision", "timm")
"""the libraries whose models can be named"""

_FETCHING = ("weights", "pretrained", "checkpoint", "cache", "url", "model_name", "hf_")
"""how arguments of builders begin that name files or addresses, or another model"""

_SHOWN = 5


def is_builder(spec: str) -> bool:
    """Whether `spec` names a builder (`family:name`) and not a file."""
    family, colon, _ = spec.partition(":")
    # One letter is a drive on Windows.
    return bool(colon) and len(family) > 1 and family.isidentifier() and not os.path.exists(spec)


def build(spec: str, *, seed: int = 0) -> torch.nn.Module:
    """The model of `family:name`, or of `family:name@weights`.

    Args:
        spec: as above; the weights are a state_dict in a file of torch.save or of safetensors.
        seed: of the first weights, where no weights are given.

    Raises:
        SafetyError: RW505 no such builder, RW504 the weights cannot be read or do not fit, RW502 they hold code.

    """
    family, _, rest = spec.partition(":")
    name, at, weights = rest.partition("@")
    _check_family(family)
    state = read_weights(weights) if at else None
    model = make(family, name, seed=seed)
    if state is not None:
        _load(model, state, f"{family}:{name}", weights)
    return model


def build_without_numbers(spec: str, *, seed: int = 0) -> torch.nn.Module:
    """The model of `family:name`; its tensors have shapes and no numbers, where its builder can do that.

    Raises:
        SafetyError: RW505 no such builder, RW504 it cannot be built.

    """
    family, _, name = spec.partition(":")
    _check_family(family)
    return make(family, name, seed=seed, without_numbers=True)


def find_builders(pattern: str, *, every: bool = False) -> list[str]:
    """The builders that a pattern means: `torchvision:resnet*`, `timm:*`, or one by its name.

    Args:
        pattern: `family:name`, in which `*` stands for any number of characters.
        every: whether `timm:*` is all models; else it is a small one of each family of architectures.

    Raises:
        SafetyError: RW505 it means none.

    """
    family, colon, glob = pattern.partition(":")
    if not colon:
        raise Diagnostic(
            "RW505", f"`{pattern}` names no builders", help="write `torchvision:*` or `timm:vit_*`"
        ).error()
    _check_family(family)
    if family == "timm" and glob == "*" and not every:
        return [f"timm:{name}" for name in _one_of_each_family()]
    known = _torchvision().models.list_models() if family == "torchvision" else _timm().list_models()
    found = [name for name in known if fnmatch.fnmatchcase(name, glob)]
    if not found:
        raise _unknown(family, glob, known).error()
    return [f"{family}:{name}" for name in found]


_SMALL = (
    "atto", "femto", "pico", "nano", "xxsmall", "xxs", "xxtiny", "xtiny", "tiny", "xsmall", "xs", "small", "mini", "s0",
    "m0", "b0", "lite", "s",
)  # fmt: skip
"""what names of models call small sizes, the smallest first"""
_LARGE = ("large", "l", "xlarge", "xl", "xxl", "huge", "giant", "gigantic", "enormous")


def _one_of_each_family() -> list[str]:
    """The name of a small model for each module of timm, as far as names tell the size."""
    timm = _timm()

    def order(module: str, name: str) -> tuple[object, ...]:
        words = re.split(r"[_.]", name)
        sizes = [_SMALL.index(word) for word in words if word in _SMALL]
        sizes += [len(_SMALL) + 1 + _LARGE.index(word) for word in words if word in _LARGE]
        numbers = [int(number) for number in re.findall(r"\d+", name)]
        return (
            name.startswith("test_"),  # made for timm's own tests
            not name.startswith(module.partition("_")[0]),
            min(sizes, default=len(_SMALL)),
            len(words),
            numbers,
            name,
        )

    families = [(module, timm.list_models(module=module)) for module in timm.list_modules()]
    return [min(names, key=functools.partial(order, module)) for module, names in families if names]


def make(
    family: str,
    name: str,
    arguments: Mapping[str, object] | None = None,
    *,
    seed: int = 0,
    without_numbers: bool = False,
) -> torch.nn.Module:
    """A model of a library, with first weights.

    Args:
        family: `torchvision` or `timm`.
        name: what the library calls it.
        arguments: further arguments of its builder, plain values.
        seed: of the weights.
        without_numbers: whether its tensors may be without numbers (on the `meta` device), which takes no time; where
            the builder cannot do that they have some.

    Raises:
        SafetyError: RW505 no such model, or an argument that would have weights or other files read; RW504 it cannot be
            built.

    """
    refused = [key for key in arguments or {} if key.startswith(_FETCHING)]
    if refused:
        raise Diagnostic(
            "RW505",
            f"`{refused[0]}` would have the builder of `{name}` read weights",
            notes=("models are built with first weights, and nothing is fetched",),
            help=f"leave `{refused[0]}` out",
        ).error()
    keywords, builder = (_of_torchvision if family == "torchvision" else _of_timm)(name)
    keywords |= dict(arguments or {})
    if without_numbers:
        try:
            with torch.device("meta"):
                return call_builder(builder, f"{family}:{name}", (), keywords, seed=seed)
        except SafetyError:
            pass  # some builders look at the numbers that they draw
    return call_builder(builder, f"{family}:{name}", (), keywords, seed=seed)


def call_builder(
    builder: Callable[..., object],
    name: str,
    arguments: Sequence[object],
    keywords: Mapping[str, object],
    *,
    seed: int = 0,
) -> torch.nn.Module:
    """The model that something makes, the global random generator left as it was.

    Raises:
        SafetyError: RW504 it raises something, or makes no module.

    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = builder(*arguments, **keywords)
        except Exception as error:
            raise unreadable(f"`{name}` cannot be built: {reason(error)}").error() from error
    if not isinstance(model, torch.nn.Module):
        raise unreadable(f"`{name}` makes a {type(model).__name__}, not a module").error()
    return model


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """The state_dict in the file at `path`.

    Raises:
        SafetyError: RW504 there is none, or none alone; RW502 the file holds code.

    """
    if content_of(path) is Content.SAFETENSORS:
        return read_safetensors(path)
    found = unpickle(path, modules=False)
    if not isinstance(found, dict):
        raise unreadable(f"`{path}` holds a value of type {type(found).__name__}, no state_dict").error()
    others = [str(key) for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if others:
        keys = ", ".join(f"`{key}`" for key in others[:_SHOWN])
        raise unreadable(
            f"`{path}` holds more than a state_dict",
            f"these are no tensors: {keys}{', ...' if len(others) > _SHOWN else ''}",
            help="save the state_dict by itself: torch.save(model.state_dict(), ...)",
        ).error()
    return found


def _check_family(family: str) -> None:
    if family not in FAMILIES:
        listed = " and ".join(f"`{known}:NAME`" for known in FAMILIES)
        raise Diagnostic("RW505", f"there is no family of builders `{family}`", help=f"builders are {listed}").error()


def _of_torchvision(name: str) -> tuple[dict[str, object], Callable[..., object]]:
    """A builder, and the arguments with which it neither downloads weights nor warns."""
    find = getattr(_torchvision().models, "get_model_builder")  # noqa: B009  (no types are there)
    try:
        builder: Callable[..., object] = find(name)
    except ValueError:
        raise _unknown("torchvision", name, _torchvision().models.list_models()).error() from None
    keywords: dict[str, object] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        keywords["weights_backbone"] = None  # else pretrained ones are fetched, whatever `weights` says
    if name.endswith(("googlenet", "inception_v3")):
        keywords["init_weights"] = False  # left open, it warns and spends seconds in a truncated normal of its own
    return keywords, builder


def _of_timm(name: str) -> tuple[dict[str, object], Callable[..., object]]:
    """A builder; a name that timm does not list could be an address that it fetches a model from."""
    timm = _timm()
    if not timm.is_model(name) or ":" in name or "/" in name:
        raise _unknown("timm", name, timm.list_models()).error()
    return {"model_name": name, "pretrained": False}, timm.create_model


def _torchvision() -> ModuleType:
    from rewrite.backends.torch import torchvision_schemas

    try:
        torchvision_schemas.declare()
    except ImportError:
        raise Diagnostic(
            "RW505", "torchvision is not installed", help="`pip install 'rewrite-fx[vision]'` installs it"
        ).error() from None
    import torchvision

    module: ModuleType = torchvision
    return module


def _timm() -> ModuleType:
    from rewrite.backends.torch import torchvision_schemas

    try:
        torchvision_schemas.declare()  # timm imports it
        import timm
    except ImportError:
        raise Diagnostic("RW505", "timm is not installed", help="`pip install timm` installs it").error() from None
    module: ModuleType = timm
    return module


def _unknown(family: str, name: str, known: Sequence[str]) -> Diagnostic:
    close = nearest(name, known)
    if close:
        helps = "did you mean " + ", ".join(f"`{family}:{one}`" for one in close) + "?"
    else:
        helps = f"there are {len(known)}, from `{family}:{known[0]}` to `{family}:{known[-1]}`"
    return Diagnostic("RW505", f"{family} has no builder `{name}`", help=helps)


def _load(model: torch.nn.Module, state: Mapping[str, torch.Tensor], spec: str, path: str) -> None:
    """Puts all of `state` into `model`, or says everything that does not fit."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"`{key}` is {tuple(state[key].shape)} in the file and {tuple(own[key].shape)} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    notes = [
        f"{title} {len(keys)}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for title, keys in (
            ("keys that the file lacks,", [f"`{key}`" for key in missing]),
            ("keys that the model lacks,", [f"`{key}`" for key in unexpected]),
            ("other shapes,", shapes),
        )
        if keys
    ]
    if notes:
        raise unreadable(
            f"weights `{path}` do not fit `{spec}`", *notes, help="give the weights of a model that this builder made"
        ).error()
    if not hasattr(state, "_metadata"):
        # Versions of the layers' own formats: a file that lost them fits the layers as they are, by the check above.
        own.update(state)
        state = own
    try:
        model.load_state_dict(state)
    except Exception as error:
        raise damaged(path, reason(error)).error() from error
