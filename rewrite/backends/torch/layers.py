"""New layers: arguments checked before memory is touched, weights drawn from a seed of their own."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rewrite.backends.torch.modules import computed_tensor, copy_tree, shallow_copy
from rewrite.backends.torch.recipes import base_of
from rewrite.backends.torch.spellings import resolve
from rewrite.edit import Initialiser, NewLayer
from rewrite.errors import Diagnostic, RewriteError
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS

MOST_BYTES = 4 << 30
"""what one new layer may take; a typing slip of three zeros should not fill the memory"""


@dataclass(frozen=True)
class Place:
    """Where a new layer will live."""

    device: torch.device
    dtype: torch.dtype
    training: bool


class Builder:
    """Builds the new layers of one write.

    Args:
        modules: classes that the caller gave, by the name that rules use.
        seed: the caller's seed; every layer draws from a generator seeded by it and by its site.

    """

    def __init__(self, modules: Mapping[str, Callable[..., nn.Module]], seed: int) -> None:
        self.modules = modules
        self.seed = seed
        self.templates: dict[object, nn.Module] = {}
        """layers whose first weights are no matter of chance, by class, arguments and place"""

    @contextlib.contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Leaves the global generators as they were, whatever is drawn inside."""
        devices = list(range(torch.cuda.device_count())) if _cuda_in_use() else []
        with torch.random.fork_rng(devices=devices):
            yield

    def seed_for(self, name: str) -> None:
        """Seeds the generators for one layer, so that its weights do not depend on what was drawn before."""
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        number = int.from_bytes(digest[:7], "big")
        if _cuda_in_use():
            torch.manual_seed(number)
        else:
            torch.default_generator.manual_seed(number)

    def build(self, new: NewLayer, place: Place) -> nn.Module:
        """One new layer.

        Raises:
            RuleError: its class refuses the arguments (RW106), or it would be larger than `MOST_BYTES` (RW112).

        """
        make = self._maker(new)
        key = (make, new.arguments, tuple(new.keywords.items()), place) if new.operation is not None else None
        template = self.templates.get(key) if key is not None and _is_hashable(key) else None
        if template is not None:
            return duplicate(template)
        check(make, new)
        self.seed_for(new.seed)
        before = torch.default_generator.get_state()
        if place.device == _DEFAULT_DEVICE == torch.get_default_device():
            layer = make(*new.arguments, **new.keywords)
        elif new.operation is not None and _takes_device(make):
            layer = make(*new.arguments, **new.keywords, device=place.device)
        else:
            with torch.device(place.device):
                layer = make(*new.arguments, **new.keywords)
        tensors = [*layer.parameters(), *layer.buffers()]
        if any(t.is_floating_point() and t.dtype != place.dtype for t in tensors) and place.dtype.is_floating_point:
            layer = layer.to(place.dtype)
        if layer.training != place.training:
            layer.train(place.training)
        by_chance = place.device.type not in ("cpu", "meta") or not torch.equal(
            before, torch.default_generator.get_state()
        )
        if _is_hashable(key) and not by_chance and _is_plain(layer):
            self.templates[key] = duplicate(layer)
        return layer

    def wrap(self, new: NewLayer, standing: nn.Module, place: Place) -> nn.Module:
        """A new layer around one that is there, whose tensors and modes stay as they are.

        Args:
            new: the layer that wraps.
            standing: what it takes as its first argument; a copy whose tables may be changed.
            place: device, dtype and mode of all that is new in it.

        Raises:
            RuleError: its class refuses the layer or the arguments, or it would be larger than `MOST_BYTES` (RW112).
            PlanError: its constructor overwrites the weights of the layer (RW320).

        """
        make = self._maker(new)
        check_wrapper(make, new, standing)
        self.seed_for(new.seed)
        kept: set[object] = {*standing.parameters(), *standing.buffers()}
        inside = set(standing.modules())
        with torch.device(place.device):
            made = make(standing, *new.arguments, **new.keywords)
        for module in made.modules():
            if module not in inside:
                module.training = place.training
            for table in (module._parameters, module._buffers):
                _cast(table, place, kept)
        return made

    def _maker(self, new: NewLayer) -> Callable[..., nn.Module]:
        if new.operation is not None:
            dotted = OPERATIONS[new.operation].module
            if dotted is None:
                raise Diagnostic(
                    "RW320",
                    f"`{new.operation}` is a layer of Keras, and PyTorch has none like it",
                    new.span,
                    help="write it as the layers that it is made of, such as `AdaptiveAvgPool2d(1) -> Flatten`",
                ).error()
            found: Callable[..., nn.Module] = resolve(dotted)
            return found
        return self.modules[new.external or ""]

    def reset(
        self, module: nn.Module, initialiser: Initialiser | None, name: str, path: str, span: Span | None
    ) -> None:
        """Draws the module's own parameters anew, in place; the module must own them alone by now."""
        self.seed_for(name)
        if initialiser is None:
            computed = computed_tensor(module)
            if computed is not None:
                raise Diagnostic(
                    "RW320",
                    f"`{path}` ({base_of(type(module)).__name__}) computes its {computed} from other parameters",
                    span,
                    notes=("its `reset_parameters` draws what is computed, not what it is computed from",),
                    help="name an initialiser, `reset ... with normal(std=0.02)`, or remove the norm or the mask",
                ).error()
            own = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if own is None:
                who = f"`{path}`" if path else "the model"
                raise Diagnostic(
                    "RW320",
                    f"{who} ({base_of(type(module)).__name__}) has no `reset_parameters`",
                    span,
                    notes=("how its own weights begin is known to its constructor only",),
                    help="name an initialiser, `reset ... with normal(std=0.02)`, or name the layers that are meant",
                ).error()
            with torch.no_grad():
                own()
            if module._buffers.get("running_mean") is not None:
                module.reset_running_stats()  # type: ignore[operator]
            return
        try:
            self._initialise(module, initialiser)
        except (ValueError, TypeError, RuntimeError) as problem:
            raise Diagnostic(
                "RW106",
                f"`{initialiser.name}` does not fit a weight of `{type(module).__name__}`: {problem}",
                help="name another initialiser, or select only the layers whose weights it fits",
            ).error() from problem

    @staticmethod
    def _initialise(module: nn.Module, initialiser: Initialiser) -> None:
        function = getattr(nn.init, f"{initialiser.name}_")
        with torch.no_grad():
            for key, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if parameter.dim() < 2 and initialiser.name not in ("constant", "normal", "ones", "uniform", "zeros"):
                    # These initialisers need a fan-in; a bias starts at zero as in their papers, a scale at one.
                    nn.init.zeros_(parameter) if "bias" in key else nn.init.ones_(parameter)
                else:
                    function(parameter, **initialiser.keywords)


def _cast(table: dict[str, Any], place: Place, kept: set[object]) -> None:
    """Gives the new tensors of a module the dtype of their site; what was there before stays."""
    for name, tensor in table.items():
        if tensor is None or tensor in kept or not tensor.is_floating_point() or not place.dtype.is_floating_point:
            continue
        if tensor.dtype != place.dtype:
            cast = tensor.detach().to(place.dtype)
            table[name] = nn.Parameter(cast, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else cast


def duplicate(layer: nn.Module) -> nn.Module:
    """A layer like `layer`, with weights of its own; much cheaper than building one."""
    twin = shallow_copy(layer)
    for name, parameter in layer._parameters.items():
        if parameter is not None:
            twin._parameters[name] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
    for name, buffer in layer._buffers.items():
        if buffer is not None:
            twin._buffers[name] = buffer.clone()
    return twin


def _is_plain(layer: nn.Module) -> bool:
    """Whether all of a layer's tensors stand in its own tables: recurrent layers keep a second list of theirs."""
    return not layer._modules and not any(isinstance(value, list) and value for value in layer.__dict__.values())


def _is_hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:  # an argument given as a list
        return False
    return key is not None


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


_DEFAULT_DEVICE = torch.device("cpu")


@functools.cache
def _takes_device(make: Callable[..., nn.Module]) -> bool:
    return "device" in inspect.signature(make).parameters


_checked: dict[object, None] = {}


def check(make: Callable[..., nn.Module], new: NewLayer) -> None:
    """Builds the layer without memory first, so that a wrong argument costs nothing."""
    key = (make, repr(new))
    if key in _checked:
        return
    layer = _without_memory(make, new, ())
    _check_size(new, layer, set())
    _checked[key] = None


def check_wrapper(make: Callable[..., nn.Module], new: NewLayer, standing: nn.Module) -> None:
    """The same for a layer around another one, with a stand-in that has shapes and no numbers."""
    double = stand_in(standing)
    tensors = [*double.parameters(), *double.buffers()]
    versions = [tensor._version for tensor in tensors]
    layer = _without_memory(make, new, (double,))
    _check_size(new, layer, set(tensors))
    if [tensor._version for tensor in tensors] != versions:
        raise Diagnostic(
            "RW320",
            f"`{new.name}` overwrites the weights of the layer that it wraps",
            new.span,
            notes=("they are the given model's as well, which stays as it is",),
            help="let its constructor make new tensors from the layer's, or write them in `forward`",
        ).error()


def stand_in(layer: nn.Module) -> nn.Module:
    """A copy of a layer, modules and all, over tensors without memory."""
    double = copy_tree(layer, {}, [])
    tensors: dict[torch.Tensor, torch.Tensor] = {}
    for module in double.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if tensor not in tensors:
                    empty = torch.empty_like(tensor, device="meta")
                    learns = tensor.requires_grad
                    tensors[tensor] = nn.Parameter(empty, learns) if isinstance(tensor, nn.Parameter) else empty
                table[name] = tensors[tensor]  # type: ignore[assignment]
    return double


def _without_memory(make: Callable[..., nn.Module], new: NewLayer, first: tuple[nn.Module, ...]) -> nn.Module:
    """The layer on the meta device; its constructor's complaint as a diagnostic."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = make(*first, *new.arguments, **new.keywords)
    except RewriteError:
        raise
    except Exception as problem:
        around = f" around a {base_of(type(first[0])).__name__}" if first else ""
        raise Diagnostic(
            "RW106",
            f"`{new}` cannot be built{around}: "
            f"{str(problem).splitlines()[0] if str(problem) else type(problem).__name__}",
            new.span,
            help=_signature_help(new),
        ).error() from problem
    if not isinstance(layer, nn.Module):
        raise Diagnostic(
            "RW106",
            f"`{new.name}` makes a {type(layer).__name__}, not a module",
            new.span,
            help="`modules=` maps a name to a subclass of nn.Module or to a function that returns a module",
        ).error()
    return layer


def _check_size(new: NewLayer, layer: nn.Module, given: set[torch.Tensor]) -> None:
    tensors = [tensor for tensor in (*layer.parameters(), *layer.buffers()) if tensor not in given]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > MOST_BYTES:
        raise Diagnostic(
            "RW112",
            f"`{new}` would take {size / 2**30:,.1f} GiB",
            new.span,
            notes=(f"one new layer may take {MOST_BYTES >> 30} GiB",),
            help="check the sizes for a slip; a layer as large as this is made in Python and given by `modules=`",
        ).error()


def _signature_help(new: NewLayer) -> str:
    operation = OPERATIONS.get(new.operation or "")
    return f"`{operation.name}({operation.signature})`" if operation is not None else ""


def trial(layers: Sequence[NewLayer], shapes: Sequence[tuple[int, ...]], builder: Builder) -> tuple[int, ...] | str:
    """Shape that a chain of new layers gives for inputs of `shapes`; a text says why it gives none.

    The layers live on the meta device for it: they have shapes and no numbers.
    """
    place = Place(torch.device("meta"), torch.float32, training=False)
    try:
        with builder.own_randomness(), torch.no_grad():
            values = [torch.empty(shape, device="meta") for shape in shapes]
            value: Any = values[0]
            for number, new in enumerate(layers):
                if new.wraps:
                    return f"the shape that `{new.name}` gives is up to the layer that it wraps"
                value = builder.build(new, place)(*([value] if number else values))
    except RewriteError:
        raise
    except Exception as problem:
        return str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    if isinstance(value, tuple):
        value = value[0]
    return tuple(value.shape) if isinstance(value, torch.Tensor) else f"it returns a {type(value).__name__}"
