"""The values that stand for tensors while a forward is captured, and what the model's code learns of them."""

from __future__ import annotations

import collections
import dis
import functools
import operator
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch.scopes import SIMPLE, Constant, Container, Placeholder, Structure, Unfaithful

IN_PLACE = {
    getattr(operator, name)
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "imatmul")
}
"""augmented assignments"""


SETTINGS = frozenset([bool, int, float, str, type(None)])
"""types of attributes that a forward takes another way for, or computes with, and a graph holds as they are"""

_MODULES_OWN = frozenset(vars(nn.Module()))
"""attributes that every module has"""


class TrainingFlag(fx.Proxy):
    """`self.training` during a capture: a value in the graph until Python wants to know it."""

    def __bool__(self) -> bool:
        return self.tracer.branch_on_training()  # type: ignore[attr-defined,no-any-return]


class OtherMode:
    """`self.child.training` during a capture: a forward that asks for it changes with a mode that is not its own."""

    def __init__(self, refuse: Callable[[str], object]) -> None:
        self.refuse = refuse

    def __bool__(self) -> bool:
        self.refuse("depends on the mode of another module")
        return False

    def __eq__(self, other: object) -> bool:
        return bool(self)

    __hash__ = object.__hash__


class ScopeProxy(fx.Proxy):
    """A value during a capture.

    Augmented assignment stays in place, as it is in eager code. Code of the model that asks what the value is gets the
    answer that a tensor gives (`model_isinstance`); where it is not known to be one, the capture is refused. It may
    not claim so by its `__class__`: torch's own code in C would take it for a tensor and read memory that is not there.
    """

    tracer: Any

    def is_tensor(self) -> bool:
        """Whether the value is a tensor for certain: not a size, nor what an opaque forward returns."""
        return bool(self.tracer.is_tensor(self.node))

    def __getattr__(self, k: str) -> Any:
        if not hasattr(torch.Tensor, k) and self.is_tensor() and _asks_as_model(sys._getframe(1)):
            raise AttributeError(f"'Tensor' object has no attribute {k!r}")
        frame = sys._getframe(1)
        if frame.f_lasti in _compared_by_identity(frame.f_code) and _asks_as_model(frame):
            self.tracer.refuse("a Python branch on a value of the data")
        return ScopeAttribute(self, k)

    def _to_number(self, *_: object) -> Any:
        self.tracer.refuse("a Python number is made of a value of the data")

    __int__ = __float__ = __index__ = __len__ = __complex__ = __round__ = _to_number

    def __hash__(self) -> int:
        # Tensors are keys by identity, and so is what stands for them; a size or a dtype is looked up by what it is.
        if _asks_as_model(sys._getframe(1)) and not self.is_tensor():
            self.tracer.refuse("a value of the data is looked up in a dictionary or set")
        return object.__hash__(self)

    def __format__(self, _: str = "") -> str:
        frame = sys._getframe(1)
        if _asks_as_model(frame) and not _is_dropped(frame):
            self.tracer.refuse("text is made of a value of the data")
        return repr(self)

    __str__ = __format__


class ScopeAttribute(ScopeProxy, fx.proxy.Attribute):
    """An attribute of a value, which is read where it is used: asking what it is, or telling its name, is no use."""

    def __init__(self, root: ScopeProxy, name: str) -> None:
        fx.proxy.Attribute.__init__(self, root, name)

    def is_tensor(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"{self.root!r}.{self.attr}"


class _TypeOfClasses(type):
    """The class of `ModelType`: calls and questions are those of `type`, but for what stands for a tensor."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], ScopeProxy):
            if not args[0].is_tensor():
                args[0].tracer.refuse("asks for the type of a value that is not known to be a tensor")
            return torch.Tensor
        return type(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, type)


class ModelType(metaclass=_TypeOfClasses):
    """`type` as the model's code knows it during a capture."""


def model_isinstance(value: object, kinds: Any) -> bool:
    """`isinstance` as the model's code calls it during a capture."""
    if not isinstance(value, ScopeProxy):
        return isinstance(value, kinds)
    if not value.is_tensor():
        value.tracer.refuse("asks for the type of a value that is not known to be a tensor")
    return issubclass(torch.Tensor, kinds)


def model_jit_isinstance(plain: Callable[..., bool], value: object, kinds: Any) -> bool:
    """`torch.jit.isinstance` during a capture."""
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, ScopeProxy):
                item.tracer.refuse("asks for the type of a container of values")
    return plain(torch.empty(0), kinds) if model_isinstance(value, torch.Tensor) else plain(value, kinds)


def model_is_tensor(value: object) -> bool:
    """`torch.is_tensor` during a capture."""
    return model_isinstance(value, torch.Tensor)


def _asks_as_model(frame: types.FrameType) -> bool:
    """Whether a question about a value comes from the model's code and not from the tracer's."""
    name = str(frame.f_globals.get("__name__", ""))
    return not name.startswith(("torch.fx", "torch.utils", "torch._", "torch.overrides", "rewrite.", "inspect", "copy"))


@functools.cache
def _compared_by_identity(code: types.CodeType) -> frozenset[int]:
    """Where code takes an attribute and asks at once whether it `is` something, which no stand-in can answer."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    if not any(step.opname == "IS_OP" or step.opname.endswith("_NONE") for step in steps):
        return frozenset()
    return frozenset(
        step.offset
        for number, step in enumerate(steps)
        if step.opname == "LOAD_ATTR"
        and (taker := _taker(steps[number + 1 :])) is not None
        and (taker.opname == "IS_OP" or taker.opname.endswith("_NONE"))
    )


def _taker(steps: Iterable[dis.Instruction]) -> dis.Instruction | None:
    """The step that takes the value which lies uppermost in front of these."""
    above = 0
    for step in steps:
        effect = dis.stack_effect(step.opcode, step.arg)
        above += effect
        if effect < 0 and above <= 0:
            return step
    return None


def _is_dropped(frame: types.FrameType) -> bool:
    """Whether the text that a frame is making is for readers alone: it goes into calls whose result nobody takes.

    Such as `torch._assert(h == self.h, f"{h} is not {self.h}")`, which says nothing to the rest of the forward.
    """
    steps = [step for step in dis.get_instructions(frame.f_code) if step.offset > frame.f_lasti]
    while (taker := _taker(steps)) is not None:
        if not taker.opname.startswith(("BUILD_STRING", "BINARY_OP", "PRECALL", "CALL")):
            return taker.opname in ("POP_TOP", "RAISE_VARARGS")
        steps = steps[steps.index(taker) + 1 :]
    return False


def _in_place_operator(function: Callable[..., Any]) -> Callable[..., Any]:
    def record(self: fx.Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for _function in IN_PLACE:
    setattr(ScopeProxy, f"__{_function.__name__}__", _in_place_operator(_function))


_traced_classes: dict[type[nn.Module], type[nn.Module]] = {}


def traced_class(cls: type[nn.Module]) -> type[nn.Module]:
    """A subclass whose `training` is recorded instead of read, and that tells of the plain values that are read.

    It is used for the copies that captures run on.
    """
    if cls not in _traced_classes:

        def get(self: nn.Module) -> object:
            return self.__dict__["_rewrite_capturer"].training_flag(self)

        def put(self: nn.Module, value: object) -> None:
            raise Unfaithful("sets `self.training` in forward")

        def read(self: nn.Module, name: str) -> object:
            value = cls.__getattribute__(self, name)
            if type(value) in SETTINGS and name not in _MODULES_OWN:
                cls.__getattribute__(self, "__dict__")["_rewrite_capturer"].note_setting(self, name, value)
            return value

        members = {"training": property(get, put), "__getattribute__": read, "__module__": cls.__module__}
        _traced_classes[cls] = type(cls.__name__, (cls,), members)
    return _traced_classes[cls]


def structure_of(value: object, name: str) -> Structure:
    """Argument structure of one value that a captured caller passes."""
    if isinstance(value, fx.Proxy):
        return Placeholder(name, isinstance(value, ScopeProxy) and value.is_tensor())
    if isinstance(value, torch.Tensor):
        return Placeholder(name)
    if type(value) in (list, tuple):
        items = tuple((n, structure_of(item, f"{name}__{n}")) for n, item in enumerate(value))  # type: ignore[arg-type,var-annotated]
        return Container(type(value), items)
    if type(value) in (dict, collections.OrderedDict):
        entries: dict[Any, object] = value  # type: ignore[assignment]
        if not all(isinstance(key, str) for key in entries):
            raise Unfaithful("is called with a dictionary whose keys are not strings")
        items = tuple((key, structure_of(item, f"{name}__{n}")) for n, (key, item) in enumerate(entries.items()))
        return Container(type(value), items)
    if isinstance(value, SIMPLE):
        return Constant(value)
    raise Unfaithful(f"is called with a {type(value).__module__}.{type(value).__qualname__}")


def structure_of_example(value: object, name: str) -> Structure:
    try:
        return structure_of(value, name)
    except Unfaithful:
        return Constant(value)
