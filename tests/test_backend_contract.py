"""What every backend must hold: reading is stable, writing never touches the given model, edits do what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rewrite import RewriteError, Rules, apply_rules, get_report, plan_rules
from rewrite.backends import backend_for
from rewrite.backends.backend import Backend, Example
from rewrite.edit import Insert, NewLayer, Remove, Replace, Update
from rewrite.graph import Graph
from rewrite.source import Source, Span

pytestmark = pytest.mark.filterwarnings("ignore")

SPAN = Span(Source("<contract>", " "), 1, 1, 1)


def in_torch() -> tuple[Any, Any]:
    model = nn.Sequential()
    model.add_module("c1", nn.Conv2d(3, 4, 3, padding=1))
    model.add_module("r1", nn.ReLU())
    model.add_module("p", nn.MaxPool2d(2))
    model.add_module("c2", nn.Conv2d(4, 6, 3, padding=1))
    model.add_module("bn", nn.BatchNorm2d(6))
    model.add_module("r2", nn.ReLU())
    model.add_module("f", nn.Flatten())
    model.add_module("d", nn.Linear(96, 5))
    return model.eval(), torch.rand(2, 3, 8, 8)


def in_keras() -> tuple[Any, Any]:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)  # by chance an activation has nothing to cut off, and its removal changes nothing
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same", name="c1"),
            layers.ReLU(name="r1"),
            layers.MaxPooling2D(name="p"),
            layers.Conv2D(6, 3, padding="same", name="c2"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="r2"),
            layers.Flatten(name="f"),
            layers.Dense(5, name="d"),
        ]
    ), torch.rand(2, 8, 8, 3)


Make = Callable[[], tuple[Any, Any]]
both = pytest.mark.parametrize("make", [in_torch, in_keras], ids=["torch", "keras"])


def shape_of(graph: Graph) -> list[Any]:
    return [
        (
            n.name,
            n.operation,
            n.scope,
            n.local,
            [(o.name, o.value.producer and o.value.producer.name) for o in n.inputs],
        )
        for n in graph.nodes
    ]


def operations(backend: Backend, model: Any) -> Counter[str | None]:
    return Counter(node.operation for node in backend.read(model).graph.nodes if not node.composite)


def new(operation: str, **keywords: object) -> NewLayer:
    return NewLayer(operation, None, (), keywords, "seed", SPAN)


def node_of(graph: Graph, name: str) -> Any:
    return next(node for node in graph.nodes if node.name == name)


@both
def test_reading_is_stable(make: Make) -> None:
    model, _ = make()
    backend = backend_for(model)
    one, other = backend.read(model).graph, backend.read(model).graph
    assert shape_of(one) == shape_of(other)
    assert [node.index for node in one.nodes] == list(range(len(one.nodes)))
    assert list(one.layers) == list(backend.read(model).layers.layers)
    assert [(n.name, n.operation) for n in one.nodes if n.name] == [
        ("c1", "Conv2d"), ("r1", "ReLU"), ("p", "MaxPool2d"), ("c2", "Conv2d"), ("bn", "BatchNorm2d"), ("r2", "ReLU"),
        ("f", "Flatten"), ("d", "Linear"),
    ]  # fmt: skip


@both
def test_an_empty_plan_changes_nothing(make: Make) -> None:
    model, value = make()
    backend = backend_for(model)
    written = backend.write(backend.read(model), [], {}, 0).model
    assert backend.compare(model, written, Example((value,))).error == 0
    assert backend.size(written) == backend.size(model)
    assert operations(backend, written) == operations(backend, model)


@both
@pytest.mark.parametrize("edit", ["behind", "ahead", "replace", "remove", "trainable", "reset", "attribute"])
def test_an_edit_does_what_it_says_to_a_copy(make: Make, edit: str) -> None:
    model, value = make()
    backend, example = backend_for(model), Example((value,))
    size, had = backend.size(model), operations(backend, model)
    kept = backend.write(backend.read(model), [], {}, 0).model
    reading = backend.read(model)
    graph = reading.graph
    expected, names = Counter(had), 0
    match edit:
        case "behind":
            made: Any = Insert(node_of(graph, "r1"), None, (new("Dropout", p=0.5), new("Identity")))
            expected.update(["Dropout", "Identity"])
            names = 2
        case "ahead":
            made = Insert(node_of(graph, "c2"), 0, (new("Dropout2d", p=0.5),))
            expected.update(["Dropout2d"])
            names = 1
        case "replace":
            layer = graph.layers["r2"]
            made = Replace(layer, (new("GELU"),), graph.calls["r2"])
            expected.update(["GELU"])
            expected.subtract(["ReLU"])
            names = 1
        case "remove":
            made = Remove(node_of(graph, "r1"))
            expected.subtract(["ReLU"])
        case "trainable":
            made = Update(graph.layers["c1"], {"trainable": False})
        case "reset":
            made = Update(graph.layers["d"], {"reset": None}, seed="seed", span=SPAN)
        case _:
            made = Update(graph.layers["bn"], {".eps": 0.5})
    written = backend.write(reading, [made], {}, 0)
    result = written.model
    assert len(written.names.get(0, ())) == names
    assert all(path in backend.read(result).layers.layers for path in written.names.get(0, ()))
    assert operations(backend, result) == +expected
    assert backend.size(model) == size
    assert operations(backend, model) == had
    assert backend.compare(model, kept, example).error == 0
    ran = backend.run(result, example)
    assert ran.leaves == backend.run(model, example).leaves
    assert all(ran.calls.get(path) for path in written.names.get(0, ()))
    found = backend.compare(model, result, example)
    assert (found.error == 0) == (edit in ("behind", "ahead", "trainable"))
    if edit == "trainable":
        assert backend.size(result).trainable == size.trainable - graph.layers["c1"].parameters
    assert backend.history(result) == ()
    backend.set_history(result, ("mark",))
    assert backend.history(result) == ("mark",)
    assert backend.history(model) == ()


@both
def test_one_rule_means_one_thing(make: Make) -> None:
    model, value = make()
    text = (
        "after Conv2d: insert BatchNorm2d(eps=0.01)\nreplace ReLU with GELU\n"
        "replace last Linear with Linear(out_features=7)\nexpect output (_, 7)"
    )
    for example in (None, value):
        planned = plan_rules(model, Rules(text), example_inputs=example).report
        report = get_report(apply_rules(model, Rules(text), example_inputs=example))
        assert [len(clause.sites) for clause in report.clauses] == [2, 2, 1]
        assert report.sites == planned.sites
        assert report.after.parameters - report.before.parameters == 2 * (4 + 6) + 2 * 97


@both
def test_what_is_wrong_is_refused_in_one_way(make: Make) -> None:
    model, _ = make()
    for text, code in (
        ("after Conv3d: insert Dropout", "RW301"),
        ("after MaxPool2d: insert Conv2d(out_channels=9, kernel_size=1)", "RW310"),
        ("remove Linear", "RW310"),
        ('freeze "nothing"', "RW201"),
        ("at Conv2d: set self.out_channels = 3", "RW106"),
    ):
        with pytest.raises(RewriteError) as caught:
            apply_rules(model, Rules(text))
        assert caught.value.code == code
