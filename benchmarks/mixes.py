"""Synthetic dataflow of any length, and the three forms in which matchers take it.

`residual_mix` is a unit of 24 calls over and over, so that the number of sites of a pattern is known for any length.
`relu_chain` is one operation in a row, the worst case for a matcher that starts everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each form is built in a process of its own, which imports what it needs and nothing else
    import networkx
    from torch import fx

    from rewrite.graph import Graph

INPUT = -1
"""the model's input, where the number of a call would stand"""
NORM_DEFAULTS = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-05}


@dataclass(frozen=True)
class Call:
    """One call: its operation, and the numbers of the calls whose values it takes."""

    operation: str
    inputs: tuple[int, ...]


# Inputs are counted back from the call itself: 1 is the call before it.
UNIT: tuple[tuple[str, tuple[int, ...]], ...] = (
    # a plain block, whose activation has two users: the skip begins there
    ("Conv2d", (1,)),
    ("BatchNorm2d", (1,)),
    ("ReLU", (1,)),
    # a residual block
    ("Conv2d", (1,)),
    ("BatchNorm2d", (1,)),
    ("ReLU", (1,)),
    ("Conv2d", (1,)),
    ("BatchNorm2d", (1,)),
    ("add", (1, 6)),
    ("ReLU", (1,)),
    ("Dropout", (1,)),
    # a convolution with two users
    ("Conv2d", (1,)),
    ("BatchNorm2d", (1,)),
    ("ReLU", (1,)),
    ("add", (1, 3)),
    # two convolutions of one input
    ("Conv2d", (1,)),
    ("Conv2d", (2,)),
    ("add", (2, 1)),
    ("ReLU", (1,)),
    ("Dropout", (1,)),
    # no normalisation
    ("Conv2d", (1,)),
    ("ReLU", (1,)),
    ("Dropout", (1,)),
    ("Dropout", (1,)),
)


def residual_mix(size: int) -> list[Call]:
    """As many whole units as fit into `size` calls, at least one."""
    count = max(size // len(UNIT), 1) * len(UNIT)
    return [
        Call(operation, tuple(max(number - back, INPUT) for back in backs))
        for number, (operation, backs) in zip(range(count), UNIT * (count // len(UNIT)), strict=True)
    ]


def relu_chain(size: int) -> list[Call]:
    return [Call("ReLU", (number - 1,)) for number in range(size)]


def users(calls: Sequence[Call]) -> list[int]:
    """How many uses each call's value has; that of the last one is the model's output."""
    found = [0] * len(calls)
    for call in calls:
        for source in call.inputs:
            if source != INPUT:
                found[source] += 1
    found[-1] += 1
    return found


# ---- as rules see it


def as_graph(calls: Sequence[Call]) -> Graph:
    """The neutral graph, with a layer of its own for each call of one."""
    from rewrite.graph import Graph, Layer, Node, Operand, Value

    layers = {"": Layer("", "torch.nn.Module", ("torch.nn.Module",), None, {}, ())}
    nodes: list[Node] = []
    for number, call in enumerate(calls):
        layer = None
        name = f"{call.operation.lower()}_{number}"
        if call.operation != "add":
            kind = f"torch.nn.{call.operation}"
            layer = Layer(name, kind, (kind, "torch.nn.Module"), call.operation, {}, ())
            layers[name] = layer
        ports = ("0", "1") if layer is None else ("input",)
        operands = tuple(
            Operand(port, place, Value(nodes[source] if source != INPUT else None))
            for place, (port, source) in enumerate(zip(ports, call.inputs, strict=True))
        )
        spelling = "operator.add" if layer is None else f"nn.{call.operation}"
        nodes.append(Node(number, name, "", name, call.operation, spelling, layer, operands, {}, None))
    return Graph("Mix", tuple(nodes), layers, (Value(nodes[-1]),))


# ---- for networkx


def as_networkx(calls: Sequence[Call]) -> networkx.DiGraph:
    """A node per call with its operation and its number of uses; the input is a node of its own."""
    import networkx

    graph = networkx.DiGraph()
    graph.add_node(INPUT, operation="input", uses=1)
    for number, (call, uses) in enumerate(zip(calls, users(calls), strict=True)):
        graph.add_node(number, operation=call.operation, uses=uses)
        graph.add_edges_from((source, number) for source in call.inputs)
    return graph


# ---- for torch.fx


def as_functions(calls: Sequence[Call]) -> fx.GraphModule:
    """Functions only, since `torch.fx` compares functions by identity and layers by their path.

    All convolutions take one weight and all normalisations the same statistics, inputs of the graph: so it has a node
    per call, and five more. Keywords are those that tracing writes down, as `torch.fx` compares them too.
    """
    import torch
    import torch.nn.functional as F
    from torch import fx

    graph = fx.Graph()
    x, weight, mean, variance = (graph.placeholder(name) for name in ("x", "weight", "mean", "variance"))
    nodes: list[fx.Node] = []
    for call in calls:
        inputs = tuple(nodes[source] if source != INPUT else x for source in call.inputs)
        match call.operation:
            case "Conv2d":
                nodes.append(graph.call_function(F.conv2d, (*inputs, weight)))
            case "BatchNorm2d":
                nodes.append(graph.call_function(F.batch_norm, (*inputs, mean, variance), NORM_DEFAULTS))
            case "ReLU":
                nodes.append(graph.call_function(F.relu, inputs, {"inplace": False}))
            case "Dropout":
                nodes.append(graph.call_function(F.dropout, inputs))
            case _:
                nodes.append(graph.call_function(torch.add, inputs))
    graph.output(nodes[-1])
    return fx.GraphModule(torch.nn.Module(), graph)


def as_layers(calls: Sequence[Call]) -> fx.GraphModule:
    """Layers, each called by a name of its own; the layers of one kind are one object, which spares memory."""
    import torch
    from torch import fx, nn

    with torch.device("meta"):
        kinds = {
            "Conv2d": nn.Conv2d(8, 8, 3),
            "BatchNorm2d": nn.BatchNorm2d(8),
            "ReLU": nn.ReLU(),
            "Dropout": nn.Dropout(),
        }
    root = nn.Module()
    graph = fx.Graph()
    x = graph.placeholder("x")
    nodes: list[fx.Node] = []
    for number, call in enumerate(calls):
        inputs = tuple(nodes[source] if source != INPUT else x for source in call.inputs)
        if call.operation == "add":
            nodes.append(graph.call_function(torch.add, inputs))
            continue
        name = f"{call.operation.lower()}_{number}"
        root.add_module(name, kinds[call.operation])
        nodes.append(graph.call_module(name, inputs))
    graph.output(nodes[-1])
    return fx.GraphModule(root, graph)
