"""The tiny models under the plainest rules, and what is particular to each trap."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from contract import hold, outputs, same
from counting import calls, count_calls, order_of_calls
from models import MODELS, Trap
from random_rules import MERGES, Rule, Selector
from torch import nn

from rewrite import RewriteError, Rules, SiteError, apply_rules, get_report

CASES = [(case, operation) for case in MODELS.values() for operation in case.calls if case.name != "encoder_layer"]
"""the encoder layer calls its children or reads their weights, depending on who looks; it has tests of its own"""
IDS = [f"{case}-{operation}" for case, operation in CASES]


@pytest.mark.parametrize(("case", "operation"), CASES, ids=IDS)
def test_dropout_behind(case: Trap, operation: str) -> None:
    insert(case, f"after {operation}", operation)


@pytest.mark.parametrize(("case", "operation"), CASES, ids=IDS)
def test_dropout_in_front(case: Trap, operation: str) -> None:
    if operation in ("LSTM", "MultiheadAttention", "Embedding"):
        pytest.skip("several inputs, or none that is a floating-point tensor")
    insert(case, f"before {operation}{'@0' if operation in MERGES else ''}", operation)


def insert(case: Trap, position: str, operation: str) -> None:
    """Dropout changes nothing in eval mode, whatever the model does."""
    rule = Rule(
        f"{position}: insert Dropout(0.125)",
        "insert",
        Selector((operation,)).chosen,
        inserted=("Dropout",),
        preserves=True,
    )
    outcome = hold(case, rule)
    reachable = [call for call in calls(case.build(), case.inputs()) if call.operation == operation and call.is_module]
    assert outcome == "applied" or (case.traps and not reachable)


@pytest.mark.parametrize("case", [case for case in MODELS.values() if "ReLU" in case.calls], ids=str)
def test_another_activation(case: Trap) -> None:
    rule = Rule("replace ReLU with GELU", "replace", Selector(("ReLU",)).chosen, inserted=("GELU",), removed="ReLU")
    assert hold(case, rule) in ("applied", "RW206", "RW301", "RW320")


@pytest.mark.parametrize("case", MODELS.values(), ids=str)
def test_frozen(case: Trap) -> None:
    result = apply_rules(case.build(), Rules("freeze any"))
    assert not any(value.requires_grad for value in result.parameters())
    assert same(outputs(case.build(), case), outputs(result, case), rounding=1e-6)


def test_a_shared_layer_is_two_sites() -> None:
    case = MODELS["shared_layer"]
    result = apply_rules(case.build(), Rules("after Conv2d: insert BatchNorm2d"))
    assert get_report(result).sites == 2
    norms = [module for module in result.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == len(set(map(id, norms))) == 2


def test_tied_weights_stay_tied() -> None:
    case = MODELS["tied_weights"]
    for text in ("after Linear: insert Dropout(0.5)", "freeze any", "reset Embedding"):
        result = apply_rules(case.build(), Rules(text))
        assert result.head.weight is result.embed.weight, text


@pytest.mark.parametrize("text", ["reset Linear", "reset Linear with normal(std=0.1)", "freeze Linear\nreset Linear"])
def test_a_tie_between_two_that_are_drawn_anew(text: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = apply_rules(model, Rules(text))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "the given one is changed"
    assert result[0].weight is result[1].weight
    assert not torch.equal(result[0].weight, before["0.weight"])


def test_a_frozen_tie_is_frozen_on_both_sides() -> None:
    result = apply_rules(MODELS["tied_weights"].build(), Rules("freeze Embedding"))
    assert not result.head.weight.requires_grad
    assert result.mix.weight.requires_grad


def test_a_forward_captured_for_one_use_refuses_the_other() -> None:
    case = MODELS["none_default"]
    model = case.build()
    result = apply_rules(model, Rules("after sub: insert Identity"))
    (x,) = case.inputs()
    assert torch.equal(model(x), result(x))
    with pytest.raises(SiteError, match="`mask` = None"):
        result(x, mask=x)
    result = apply_rules(model, Rules("after sub: insert Identity"), example_inputs={"x": x, "mask": x})
    assert torch.equal(model(x, mask=x), result(x, mask=x))
    result = apply_rules(model, Rules("after Conv2d: insert Identity"), example_inputs={"x": x, "mask": x})
    assert torch.equal(model(x, mask=x), result(x, mask=x))


def test_a_layer_behind_a_branch_that_was_not_taken() -> None:
    case = MODELS["untraceable"]
    result = apply_rules(case.build(), Rules("after Conv2d: insert Tanh"))
    assert get_report(result).sites == 3
    assert order_of_calls(result, case.inputs(), ("Conv2d", "Tanh")) == ["Conv2d", "Tanh"] * 2
    (x,) = case.inputs()
    assert order_of_calls(result, x + 1e9, ("Conv2d", "Tanh")) == ["Conv2d", "Tanh"] * 2


def test_functional_dropout_follows_the_mode() -> None:
    case = MODELS["training_flag"]
    for training in (False, True):
        result = apply_rules(case.build(training=training), Rules("after ReLU: insert Identity"))
        (x,) = case.inputs()
        assert torch.equal(result.eval()(x), result(x))
        assert torch.equal(result(x), case.build()(x))
        result.train()
        torch.manual_seed(0)
        now = result(x)
        torch.manual_seed(0)
        assert torch.equal(now, case.build(training=True)(x))


def test_a_sequential_stays_one_and_keeps_its_length_for_those_who_index() -> None:
    case = MODELS["indexed_sequential"]
    model = case.build()
    result = apply_rules(model, Rules("after ReLU: insert Identity"))
    assert isinstance(result.features, nn.Sequential)
    assert len(result.features) == len(model.features)
    assert result.features[0].weight is model.features[0].weight


def test_a_nested_sequential_keeps_its_class() -> None:
    case = MODELS["nested_sequential"]
    result = apply_rules(case.build(), Rules("after Conv2d: insert Identity"))
    assert isinstance(result.body, nn.Sequential)
    assert type(result.body[0][0]).__name__ == "Unit"
    assert [path for path, module in result.named_modules() if isinstance(module, nn.Identity)]


def test_an_auxiliary_head_is_edited_for_training() -> None:
    case = MODELS["auxiliary_head"]
    result = apply_rules(case.build(), Rules("after Linear: insert Tanh"))
    (clause,) = get_report(result).clauses
    assert [site.path for site in clause.sites] == ["fc"]
    assert [site.path for site in clause.other_mode] == ["aux"]
    assert count_calls(result, case.inputs(), "Tanh") == 1
    assert count_calls(result.train(), case.inputs(), "Tanh") == 2


def test_no_gradient_where_there_was_none() -> None:
    case = MODELS["no_grad_block"]
    result = apply_rules(case.build(), Rules("after Conv2d: insert Identity"))
    assert get_report(result).sites == 2
    result(*case.inputs()).sum().backward()
    assert result.frozen.weight.grad is None
    assert result.conv.weight.grad is not None


def test_state_goes_on() -> None:
    case = MODELS["state_update"]
    model = case.build()
    result = apply_rules(model, Rules("after Conv2d: insert Identity"))
    one, two = [result(*case.inputs()) for _ in range(2)]
    wanted = case.build()
    assert torch.equal(one, wanted(*case.inputs()))
    assert torch.equal(two, wanted(*case.inputs()))
    assert result.seen == 2
    assert model.seen == 0


def test_one_module_under_two_names_stays_one() -> None:
    case = MODELS["two_paths"]
    result = apply_rules(case.build(), Rules("replace Conv2d with Conv2d(bias=false)"))
    assert result.first is result.again[1]
    assert result.first.bias is None


def test_a_weight_that_is_read_is_no_call() -> None:
    result = apply_rules(MODELS["attention_layer"].build(), Rules("after Linear: insert Dropout(0.1)"))
    (clause,) = get_report(result).clauses
    assert [site.path for site in clause.sites] == ["fc"]
    assert any("attention.out_proj" in miss for miss in clause.misses)


@pytest.mark.parametrize("training", [False, True])
def test_an_encoder_layer_means_the_same_on_either_path(training: bool) -> None:
    """Nothing that was inserted may be left out on one of the two paths."""
    case = MODELS["encoder_layer"]
    model = case.build(training=training)
    (x,) = case.inputs()
    try:
        result = apply_rules(model, Rules("after Linear: insert Tanh"))
    except RewriteError as error:
        if error.code not in ("RW301", "RW320"):
            raise
        return
    result.eval()
    with torch.no_grad():
        fast = result(x)
    slow = result(x)
    assert torch.allclose(fast, slow, atol=1e-6)


def test_odd_names_stay() -> None:
    case = MODELS["odd_names"]
    model = case.build()
    result = apply_rules(model, Rules("after Linear: insert Tanh"))
    assert set(model.state_dict()) == set(result.state_dict())
    assert order_of_calls(result, case.inputs(), ("Linear", "Tanh")) == ["Linear", "Tanh"] * 5


def test_a_subclass_counts_and_keeps_its_class() -> None:
    case = MODELS["subclassed_conv"]
    result = apply_rules(case.build(), Rules("after Conv2d: insert BatchNorm2d"))
    assert get_report(result).sites == 2
    assert Counter(order_of_calls(result, case.inputs())) == {"Conv2d": 2, "BatchNorm2d": 2, "ReLU": 1}
