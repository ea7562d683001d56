"""The four ways to do one job: bare trace, trace and hand edit, `replace_pattern`, and `apply_rules`.

Each `Job` is one rule and what somebody would write with `torch.fx` instead. The hand edits are written with care:
they know every spelling of the operation, and give each site a layer of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from rewrite import Rules, apply_rules

RELU_FUNCTIONS = {F.relu, torch.relu, torch.relu_, F.relu_}
RELU_METHODS = {"relu", "relu_"}


@dataclass(frozen=True)
class Job:
    """One rule, the same change by hand, and how to count its places."""

    title: str
    rules: Rules
    by_hand: Callable[[nn.Module], fx.GraphModule]
    by_pattern: Callable[[nn.Module], fx.GraphModule] | None
    """None where `replace_pattern` cannot say it: it compares a module call by its path, so that no one pattern means
    "a Conv2d" """
    functions: frozenset[Callable[..., object]]
    """calls of these are the sites that really exist, whichever module or function makes them"""
    inserted: type[nn.Module]


def trace(model: nn.Module) -> fx.GraphModule:
    """The measure of all: what `torch.fx` needs to see a model at all."""
    return fx.symbolic_trace(model)


def rewritten(model: nn.Module, rules: Rules) -> nn.Module:
    """The whole of `apply_rules`: parse, read, match, plan, write, verify, report."""
    return apply_rules(model, rules)


def put_behind(graph_module: fx.GraphModule, node: fx.Node, layer: nn.Module, name: str) -> None:
    """`layer` behind `node`, for all its consumers."""
    graph_module.add_submodule(name, layer)
    with node.graph.inserting_after(node):
        new = node.graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def batchnorm_by_hand(model: nn.Module) -> fx.GraphModule:
    """BatchNorm2d behind every Conv2d, the way the fx documentation teaches it."""
    graph_module = fx.symbolic_trace(model)
    modules = dict(graph_module.named_modules())
    for number, node in enumerate(list(graph_module.graph.nodes)):
        layer = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d):
            new = nn.BatchNorm2d(layer.out_channels, device=layer.weight.device, dtype=layer.weight.dtype)
            put_behind(graph_module, node, new.train(layer.training), f"batchnorm_{number}")
    graph_module.recompile()
    return graph_module


def dropout_by_hand(model: nn.Module) -> fx.GraphModule:
    """Dropout behind every ReLU: module, function and method."""
    graph_module = fx.symbolic_trace(model)
    modules = dict(graph_module.named_modules())
    for number, node in enumerate(list(graph_module.graph.nodes)):
        is_relu = (
            (node.op == "call_module" and isinstance(modules[node.target], nn.ReLU))
            or (node.op == "call_function" and node.target in RELU_FUNCTIONS)
            or (node.op == "call_method" and node.target in RELU_METHODS)
        )
        if is_relu:
            put_behind(graph_module, node, nn.Dropout(0.1).train(model.training), f"dropout_{number}")
    graph_module.recompile()
    return graph_module


class ReluDropout(nn.Module):
    """The replacement. `replace_pattern` copies its layer into the model by name, unless the model has that name
    already, as Inception v3 has `dropout`; hence a name that no model has."""

    def __init__(self, inplace: bool | None) -> None:
        super().__init__()
        self.inplace = inplace
        self.replacement_dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.replacement_dropout(F.relu(x) if self.inplace is None else F.relu(x, inplace=self.inplace))


def dropout_by_pattern(model: nn.Module) -> fx.GraphModule:
    """One pattern per way to write the arguments: they have to agree, and modules cannot be matched by type."""
    graph_module = fx.symbolic_trace(model)
    fx.replace_pattern(graph_module, lambda x: F.relu(x), fx.symbolic_trace(ReluDropout(None)))
    fx.replace_pattern(graph_module, lambda x: F.relu(x, inplace=True), fx.symbolic_trace(ReluDropout(True)))
    return graph_module.train(model.training)


BATCHNORM = Job(
    title="after Conv2d: insert BatchNorm2d",
    rules=Rules("after Conv2d: insert BatchNorm2d"),
    by_hand=batchnorm_by_hand,
    by_pattern=None,
    functions=frozenset({torch.conv2d}),
    inserted=nn.BatchNorm2d,
)
DROPOUT = Job(
    title="after ReLU: insert Dropout(0.1)",
    rules=Rules("after ReLU: insert Dropout(0.1)"),
    by_hand=dropout_by_hand,
    by_pattern=dropout_by_pattern,
    functions=frozenset({*RELU_FUNCTIONS, torch.Tensor.relu, torch.Tensor.relu_}),
    inserted=nn.Dropout,
)


class Counter(TorchFunctionMode):
    """Counts the calls of some functions. `nn.ReLU` calls `F.relu`, so modules are counted by what they compute."""

    def __init__(self, functions: frozenset[Callable[..., object]]) -> None:
        super().__init__()
        self.functions = functions
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function in self.functions
        return function(*args, **(kwargs or {}))


def existing_sites(model: nn.Module, job: Job, example: torch.Tensor) -> int:
    """How many places the job really has: one forward pass of the unchanged model, its calls counted."""
    with torch.no_grad(), Counter(job.functions) as counter:
        model(example)
    return counter.count


def covered_sites(changed: nn.Module, original: nn.Module, job: Job, example: torch.Tensor) -> int:
    """How many of the inserted layers' calls one forward pass of the changed model makes."""
    known = dict(original.named_modules(remove_duplicate=False))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    new = [module for path, module in changed.named_modules() if isinstance(module, job.inserted) and path not in known]
    handles = [module.register_forward_hook(count) for module in new]
    with torch.no_grad():
        changed(example)
    for handle in handles:
        handle.remove()
    return calls
