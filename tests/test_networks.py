"""The tests' own material, held against plain torch: the tiny models, the oracle, the random networks."""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from counting import arguments, calls, count_calls, edges, order_of_calls, tensors
from models import MODELS, Trap
from random_rules import rules
from strategies import Network, networks, write_network
from torch import Tensor, nn


@pytest.mark.parametrize("case", MODELS.values(), ids=str)
def test_model_calls_what_its_row_says(case: Trap) -> None:
    counted = Counter(call.operation for call in calls(case.build(), case.inputs()))
    assert counted == dict(case.calls)


@pytest.mark.parametrize("case", MODELS.values(), ids=str)
def test_model_is_the_same_every_time_and_leaves_the_generator_alone(case: Trap) -> None:
    state = torch.random.get_rng_state()
    one, two = case.build(), case.build()
    args, kwargs = arguments(case.inputs())
    assert torch.equal(state, torch.random.get_rng_state())
    assert _same(one(*args, **kwargs), two(*args, **kwargs))
    assert all(not module.training for module in one.modules())


def test_the_ignored_in_place_result_matters() -> None:
    case = MODELS["ignored_in_place_result"]
    (x,) = case.inputs()
    assert (case.build()(x) >= 0).all()


def test_the_auxiliary_head_runs_in_training_only() -> None:
    case = MODELS["auxiliary_head"]
    args = case.inputs()
    assert count_calls(case.build(), args, "Linear") == 1
    assert count_calls(case.build(training=True), args, "Linear") == 2


class TestOracle:
    """What a run is said to call is what its source says."""

    def test_a_function_inside_a_layer_counts_once(self) -> None:
        assert order_of_calls(nn.Sequential(nn.ReLU(), nn.Linear(3, 3)), torch.ones(2, 3)) == ["ReLU", "Linear"]

    def test_spellings_and_paths(self) -> None:
        args = MODELS["six_relus"].inputs()
        found = calls(MODELS["six_relus"].build(), args)
        relus = [(call.spelling, call.path) for call in found if call.operation == "ReLU"]
        assert relus == [
            ("nn.ReLU", "act"),
            ("F.relu", ""),
            ("torch.relu", ""),
            ("Tensor.relu", ""),
            ("F.relu", ""),
            ("Tensor.relu_", ""),
        ]

    def test_a_number_is_no_operand_but_the_call_counts(self) -> None:
        class Shift(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x + 1) * 2 + x

        found = calls(Shift(), torch.ones(2))
        assert [(call.operation, len(call.operands)) for call in found] == [("add", 1), ("mul", 1), ("add", 2)]

    def test_edges_keep_operands_apart(self) -> None:
        args = MODELS["same_value_twice"].inputs()
        found = calls(MODELS["same_value_twice"].build(), args)
        assert [number for _, _, number in edges(found, "Conv2d", "add")] == [0, 1]
        assert [number for _, _, number in edges(found, "Conv2d", "cat")] == [0, 1, 2, 2]
        assert [number for _, _, number in edges(found, "cat", "add")] == [0, 1]

    def test_edges_survive_layers_that_return_their_input(self) -> None:
        class Skip(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc, self.same = nn.Linear(3, 3), nn.Identity()

            def forward(self, x: Tensor) -> Tensor:
                y = self.fc(x)
                return F.relu(self.same(y)) + y

        found = calls(Skip().eval(), torch.ones(2, 3))
        assert len(edges(found, "Identity", "ReLU")) == 1
        assert len(edges(found, "Linear", "ReLU")) == 0
        assert len(edges(found, "Linear", "add")) == 1

    def test_an_update_in_place_makes_the_value(self) -> None:
        args = MODELS["in_place_behind_branch"].inputs()
        found = calls(MODELS["in_place_behind_branch"].build(), args)
        assert [number for _, _, number in edges(found, "ReLU", "add")] == [0, 1]

    def test_a_layer_inside_a_layer_counts_as_well(self) -> None:
        class Padded(nn.Linear):
            def __init__(self) -> None:
                super().__init__(3, 3)
                self.act = nn.ReLU()

            def forward(self, input: Tensor) -> Tensor:
                return self.act(super().forward(input))

        assert order_of_calls(Padded(), torch.ones(2, 3)) == ["Linear", "ReLU"]

    def test_a_run_changes_nothing(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
        before = copy.deepcopy(model.state_dict())
        state = torch.random.get_rng_state()
        plain = nn.Module.__call__
        calls(model, torch.ones(2, 3))
        assert nn.Module.__call__ is plain
        assert torch.equal(state, torch.random.get_rng_state())
        assert _same(before, model.state_dict())


@hypothesis.settings(max_examples=80)
@hypothesis.given(networks(), networks(traps=True))
def test_networks_run_and_call_what_they_write(plain: Network, trapped: Network) -> None:
    assert not plain.traps
    for network in (plain, trapped):
        model = network.build()
        found = calls(model, network.inputs())
        assert {call.operation for call in found} <= network.operations
        args, kwargs = arguments(network.inputs())
        outputs = _seeded(model, *args, **kwargs)
        again, keywords = arguments(network.inputs())
        assert _same(outputs, _seeded(copy.deepcopy(model), *again, **keywords))
        assert _same(outputs, _seeded(pickle.loads(pickle.dumps(network.build())), *again, **keywords))
        model.train()
        trained = [value for _, value in tensors(model(*args, **kwargs))]
        loss = torch.stack([value.sum() for value in trained]).sum()
        if loss.requires_grad:
            loss.backward()


def test_networks_cover_what_they_are_for() -> None:
    """Without this they could shrink to chains unnoticed."""
    seen: Counter[str] = Counter()
    kinds = {"no_grad", "branch", "state", "ignored", "items", "checkpoint", "drawn"}
    for index in range(600):
        network = write_network(random.Random(f"cover/{index}").randint, traps=True)
        seen.update(network.traps)
        seen.update(network.operations)
        text = network.source
        marks = {
            "in place": network.in_place,
            "several outputs": ", " in text.rpartition("return ")[2],
            "dict": '"out"' in text,
            "keyword inputs": network.by_keyword,
            "nested": "nn.Sequential(nn.Sequential(" in text,
            "chunk": "chunk(" in text,
            "split": "split(" in text,
            "shared relu": max(text.count("self.relu("), text.count("self.relu_(")) > 1,
            "blocks": "self.block" in text,
            "functional dropout": "F.dropout" in text,
            "updates": " += " in text or ".add_(" in text,
            "dataclass": "return Output(" in text,
            "tied": ".weight = self." in text,
            "loop": "for layer in self." in text,
            "dictionary of layers": "nn.ModuleDict(" in text,
            "list of parameters": "nn.ParameterList(" in text,
            "attention": "scaled_dot_product_attention" in text or "MultiheadAttention" in text,
            "recurrent": "nn.LSTM(" in text,
            "weights given to a function": "F.linear(" in text,
            "subclass of a layer": "self.fc0 = OwnLinear(" in text,
            "one axis": "nn.Conv1d(" in text,
            "three axes": "nn.Conv3d(" in text,
        }
        kinds |= set(marks)
        seen.update(name for name, held in marks.items() if held)
    rare = {name: number for name, number in seen.items() if number < 3}
    assert not rare
    assert kinds <= set(seen)


@hypothesis.settings(max_examples=40)
@hypothesis.given(hypothesis.strategies.data())
def test_rules_are_short_text_with_an_expectation(data: Any) -> None:
    network = data.draw(networks())
    rule = data.draw(rules(network))
    found = calls(network.build(), network.inputs())
    assert set(map(id, rule.sites(found))) <= set(map(id, found))
    assert "\n" not in rule.text


def _seeded(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return model(*args, **kwargs)


def _same(one: Any, other: Any) -> bool:
    left, right = list(tensors(one)), list(tensors(other))
    return [place for place, _ in left] == [place for place, _ in right] and all(
        torch.equal(a, b) for (_, a), (_, b) in zip(left, right, strict=True)
    )
