"""The oracle: what a model really calls, found by running it, without any part of the package under test.

Calls of layers are seen where all of them pass, in `nn.Module.__call__`; calls of functions, methods and operators by a
`TorchFunctionMode`. A function that a known layer calls in its own forward is a part of that layer's call and counts
once. Every value that a call returns is given a fresh tensor object over the same storage, so that who made an operand
is known by identity even where an operation returns the very tensor that it was given.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""one tensor, positional arguments, or keyword arguments"""


@dataclass(frozen=True)
class Spellings:
    """The ways in which PyTorch writes one operation."""

    modules: tuple[str, ...] = ()
    """names in `torch.nn`"""
    functions: tuple[str, ...] = ()
    """dotted names under `torch`"""
    methods: tuple[str, ...] = ()
    """names in `torch.Tensor`; operators arrive as methods (`a + b` as `add`)"""


def _activation(module: str, function: str, plain: bool = False) -> Spellings:
    """Module, `F.x` and, where `plain`, also `torch.x`, `torch.x_`, `Tensor.x`, `Tensor.x_`."""
    functions = (f"nn.functional.{function}",)
    if not plain:
        return Spellings((module,), functions)
    return Spellings((module,), (*functions, function, f"{function}_"), (function, f"{function}_"))


TABLE: dict[str, Spellings] = {
    "Conv1d": Spellings(("Conv1d",), ("nn.functional.conv1d",)),
    "Conv2d": Spellings(("Conv2d",), ("nn.functional.conv2d",)),
    "Conv3d": Spellings(("Conv3d",), ("nn.functional.conv3d",)),
    "ConvTranspose1d": Spellings(("ConvTranspose1d",), ("nn.functional.conv_transpose1d",)),
    "ConvTranspose2d": Spellings(("ConvTranspose2d",), ("nn.functional.conv_transpose2d",)),
    "ConvTranspose3d": Spellings(("ConvTranspose3d",), ("nn.functional.conv_transpose3d",)),
    "Linear": Spellings(("Linear",), ("nn.functional.linear",)),
    "Embedding": Spellings(("Embedding",), ("nn.functional.embedding",)),
    "BatchNorm1d": Spellings(("BatchNorm1d",)),
    "BatchNorm2d": Spellings(("BatchNorm2d",)),
    "BatchNorm3d": Spellings(("BatchNorm3d",)),
    "GroupNorm": Spellings(("GroupNorm",), ("nn.functional.group_norm",)),
    "LayerNorm": Spellings(("LayerNorm",), ("nn.functional.layer_norm",)),
    "ReLU": _activation("ReLU", "relu", plain=True),
    "ReLU6": _activation("ReLU6", "relu6"),
    "GELU": _activation("GELU", "gelu"),
    "SiLU": _activation("SiLU", "silu"),
    "Mish": _activation("Mish", "mish"),
    "ELU": _activation("ELU", "elu"),
    "LeakyReLU": _activation("LeakyReLU", "leaky_relu"),
    "Hardswish": _activation("Hardswish", "hardswish"),
    "Hardsigmoid": _activation("Hardsigmoid", "hardsigmoid"),
    "Sigmoid": Spellings(
        ("Sigmoid",), ("nn.functional.sigmoid", "sigmoid", "sigmoid_", "special.expit"), ("sigmoid", "sigmoid_")
    ),
    "Tanh": _activation("Tanh", "tanh", plain=True),
    "Softmax": Spellings(("Softmax",), ("nn.functional.softmax", "softmax"), ("softmax",)),
    "MaxPool2d": Spellings(("MaxPool2d",), ("nn.functional.max_pool2d", "max_pool2d")),
    "MaxPool1d": Spellings(("MaxPool1d",), ("nn.functional.max_pool1d", "max_pool1d")),
    "MaxPool3d": Spellings(("MaxPool3d",), ("nn.functional.max_pool3d", "max_pool3d")),
    "AvgPool1d": Spellings(("AvgPool1d",), ("nn.functional.avg_pool1d",)),
    "AvgPool3d": Spellings(("AvgPool3d",), ("nn.functional.avg_pool3d",)),
    "AdaptiveAvgPool1d": Spellings(("AdaptiveAvgPool1d",), ("nn.functional.adaptive_avg_pool1d",)),
    "AdaptiveAvgPool3d": Spellings(("AdaptiveAvgPool3d",), ("nn.functional.adaptive_avg_pool3d",)),
    "PReLU": Spellings(("PReLU",), ("nn.functional.prelu", "prelu"), ("prelu",)),
    "AvgPool2d": Spellings(("AvgPool2d",), ("nn.functional.avg_pool2d",)),
    "AdaptiveAvgPool2d": Spellings(("AdaptiveAvgPool2d",), ("nn.functional.adaptive_avg_pool2d",)),
    "Dropout": Spellings(("Dropout",), ("nn.functional.dropout", "dropout")),
    "Dropout2d": Spellings(("Dropout2d",), ("nn.functional.dropout2d",)),
    "Identity": Spellings(("Identity",)),
    "Flatten": Spellings(("Flatten",), ("flatten",), ("flatten",)),
    "LSTM": Spellings(("LSTM",)),
    "MultiheadAttention": Spellings(("MultiheadAttention",), ("nn.functional.multi_head_attention_forward",)),
    "add": Spellings((), ("add",), ("add", "add_")),
    "sub": Spellings((), ("sub", "subtract"), ("sub", "sub_")),
    "mul": Spellings((), ("mul", "multiply"), ("mul", "mul_")),
    "matmul": Spellings((), ("matmul",), ("matmul",)),
    "cat": Spellings((), ("cat", "concat", "concatenate")),
}


@dataclass(frozen=True)
class Operand:
    """One tensor that a call takes."""

    producer: Call | None
    """the call that made it; None: an input, a parameter, or a value of an operation outside the table"""
    part: tuple[int | str, ...]
    """which part, where the producer returns several"""


@dataclass(frozen=True, eq=False)
class Call:
    """One real call of an operation of the table."""

    operation: str
    path: str
    """the layer's path; for a function the path of the module whose forward calls it"""
    spelling: str
    """`nn.ReLU`, `F.relu`, `torch.relu`, `Tensor.relu_`; for a class outside `torch.nn` its plain name"""
    is_module: bool
    operands: tuple[Operand, ...]


def calls(model: nn.Module, inputs: Inputs, extra: Mapping[type, str] | None = None) -> list[Call]:
    """Every call in one run of `model`, in order of execution.

    The run is made on a copy that shares the parameters, in the mode that each module is in, without gradients, and
    leaves the global random generator as it was.

    Args:
        model: what is run.
        inputs: what it is run on.
        extra: further classes to see as layers, with the name to count them under.
    """
    parameters: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    twin = copy.deepcopy(model, parameters)
    args, kwargs = arguments(inputs)
    watch = _Watch(twin, extra or {})
    with torch.random.fork_rng(devices=[]), torch.no_grad(), watch.listening():
        twin(*args, **kwargs)
    return watch.calls


def count_calls(model: nn.Module, inputs: Inputs, operation: str) -> int:
    """How often one run of `model` calls `operation`, in every spelling."""
    if operation not in TABLE:
        raise KeyError(operation)
    return sum(call.operation == operation for call in calls(model, inputs))


def order_of_calls(model: nn.Module, inputs: Inputs, only: Iterable[str] = ()) -> list[str]:
    """Names of the operations that one run executes, in order; `only` leaves out all others."""
    wanted = set(only) or set(TABLE)
    return [call.operation for call in calls(model, inputs) if call.operation in wanted]


def edges(found: Sequence[Call], producer: str, consumer: str) -> list[tuple[Call, Call, int]]:
    """Every (producer, consumer, operand number) where a value goes straight from one operation to the other."""
    return [
        (operand.producer, call, number)
        for call in found
        if call.operation == consumer
        for number, operand in enumerate(call.operands)
        if operand.producer is not None and operand.producer.operation == producer
    ]


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`inputs` as positional and keyword arguments."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs), {}


class _Watch(TorchFunctionMode):
    """Writes down the calls of one run."""

    def __init__(self, model: nn.Module, extra: Mapping[type, str]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._paths = {id(module): path for path, module in reversed(list(model.named_modules(remove_duplicate=False)))}
        self._stack: list[tuple[nn.Module, bool]] = []
        """the modules that are running, outermost first, and whether each is a known layer"""
        self._made: dict[int, tuple[Tensor, Operand]] = {}
        """id of a tensor -> the tensor, kept alive so that the id stays its own, and who made it"""
        self._classes = dict(extra)
        self._functions: dict[Any, str] = {}
        self._spellings: dict[Any, str] = {}
        for name, spellings in TABLE.items():
            self._classes.update({getattr(nn, module): name for module in spellings.modules})
            for text in spellings.methods:
                self._enter(getattr(Tensor, text), name, f"Tensor.{text}")
            for text in reversed(spellings.functions):  # the first one names a function that has several names
                short = text.replace("nn.functional.", "F.")
                self._enter(_resolve(torch, text), name, short if short != text else f"torch.{text}")

    def _enter(self, function: Any, operation: str, spelling: str) -> None:
        self._functions[function] = operation
        self._spellings[function] = spelling

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Calls are written down while this lasts."""
        plain = nn.Module.__call__

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._through(plain, module, args, kwargs)

        nn.Module.__call__ = watched
        try:
            with self:
                yield
        finally:
            nn.Module.__call__ = plain

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        module, is_known = self._stack[-1]
        operation = None if is_known else self._functions.get(function)
        if operation is None:
            return function(*args, **kwargs)
        operands, versions = self._operands((args, kwargs)), _versions((args, kwargs))
        result = function(*args, **kwargs)
        call = Call(operation, self._paths.get(id(module), ""), self._spellings[function], False, operands)
        self.calls.append(call)
        self._overwrite(versions, call)
        return self._mark(result, call)

    def _through(self, plain: Any, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call of `module`, written down if it is a known layer."""
        operation = next((self._classes[kind] for kind in type(module).__mro__ if kind in self._classes), None)
        call = None
        if operation is not None:
            operands = self._operands((args, kwargs))
            kind = type(module)
            spelling = f"nn.{kind.__name__}" if getattr(nn, kind.__name__, None) is kind else kind.__name__
            call = Call(operation, self._paths.get(id(module), ""), spelling, True, operands)
            self.calls.append(call)
        versions = _versions((args, kwargs))
        self._stack.append((module, call is not None))
        try:
            result = plain(module, *args, **kwargs)
        finally:
            self._stack.pop()
        if call is None:
            return result
        with torch._C.DisableTorchFunction():
            self._overwrite(versions, call)
            return self._mark(result, call)

    def _operands(self, values: Any) -> tuple[Operand, ...]:
        return tuple(
            self._made[id(value)][1] if id(value) in self._made else Operand(None, ()) for _, value in tensors(values)
        )

    def _overwrite(self, versions: list[tuple[Tensor, int]], call: Call) -> None:
        """What a call has updated in place was made by it, for those who read it later."""
        for tensor, version in versions:
            if tensor._version != version and not isinstance(tensor, nn.Parameter) and id(tensor) in self._made:
                self._made[id(tensor)] = (tensor, Operand(call, ()))

    def _mark(self, value: Any, call: Call | None, part: tuple[int | str, ...] = ()) -> Any:
        """`value` with each tensor in it as a tensor object of its own, so that `is` tells who made it."""
        match value:
            case nn.Parameter():
                return value
            case Tensor():
                fresh = value.view_as(value)
                self._made[id(fresh)] = (fresh, Operand(call, part))
                return fresh
            case tuple() if hasattr(value, "_fields"):
                return type(value)(*(self._mark(item, call, (*part, number)) for number, item in enumerate(value)))
            case tuple() | list():
                return type(value)(self._mark(item, call, (*part, number)) for number, item in enumerate(value))
            case _:
                return value


def tensors(value: Any, place: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    """Every tensor in a nest of tuples, lists and mappings, with its place."""
    match value:
        case Tensor():
            yield place, value
        case Mapping():
            for key, item in value.items():
                yield from tensors(item, (*place, key))
        case tuple() | list():
            for number, item in enumerate(value):
                yield from tensors(item, (*place, number))
        case _ if is_dataclass(value):
            for one in fields(value):
                yield from tensors(getattr(value, one.name), (*place, one.name))
        case _:
            return


def _versions(values: Any) -> list[tuple[Tensor, int]]:
    with torch._C.DisableTorchFunction():
        return [(tensor, tensor._version) for _, tensor in tensors(values)]


def _resolve(root: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        root = getattr(root, part)
    return root
