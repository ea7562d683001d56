"""An optimizer follows a model through rules: groups, options, and the state of what was kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rewrite import Rules, apply_rules, get_report, migrate_optimizer

Make = Callable[[nn.Module], Optimizer]


class Net(nn.Module):
    """`fc` and `head` share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.fc.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(self.body(x)))


def two_groups(model: nn.Module) -> list[dict[str, Any]]:
    body = [parameter for name, parameter in model.named_parameters() if name.startswith("body.")]
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("body.")]
    return [{"params": body, "lr": 0.01, "note": ["slow"]}, {"params": rest, "weight_decay": 0.3}]


OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "SGD without momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9), amsgrad=True),
    "AdamW, a tensor as lr": lambda model: torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1), foreach=False),
    "AdamW, two groups": lambda model: torch.optim.AdamW(two_groups(model), lr=0.1),
    "SGD, two groups": lambda model: torch.optim.SGD(two_groups(model), lr=0.1, momentum=0.9),
    "Adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=0.1),
    "RMSprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=0.1, momentum=0.5, centered=True),
    "NAdam": lambda model: torch.optim.NAdam(model.parameters(), lr=0.1),
    "Adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=0.1),
    "Rprop": lambda model: torch.optim.Rprop(model.parameters(), lr=0.1),
}
RULES = {
    "insert": "after ReLU: insert LayerNorm",
    "wrap": "wrap Linear with LoRA(rank=1)",
    "wrap one of two tied": 'wrap "head" with LoRA(rank=1)',
    "replace": 'replace "body.2" with Linear(out_features=4, bias=false)',
    "remove": "remove ReLU",
    "freeze": 'freeze "body.0"',
    "grow": 'replace "head" with Linear(out_features=6)\nexpect output (_, 6)',
}


def trained(make: Make, steps: int = 3) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = Net()
    optimizer = make(model)
    for _ in range(steps):
        give_gradients(model.parameters())
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def give_gradients(parameters: Iterator[nn.Parameter]) -> None:
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))


def origins(model: nn.Module, result: nn.Module) -> dict[str, str]:
    """Key in the result -> key in the model, of the parameters over the same numbers."""
    memory = {parameter.data_ptr(): key for key, parameter in model.named_parameters()}
    keys = {key: memory.get(parameter.data_ptr()) for key, parameter in result.named_parameters()}
    return {key: before for key, before in keys.items() if before is not None}


def groups_of(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_the_step_of_the_old_one(name: str, rules: str) -> None:
    model, optimizer = trained(OPTIMIZERS[name])
    result = apply_rules(model, Rules(RULES[rules]), example_inputs=torch.ones(2, 4))
    state = copy.deepcopy(optimizer.state_dict())
    new = migrate_optimizer(optimizer, model, result)
    assert type(new) is type(optimizer)
    same_values(optimizer.state_dict(), state)
    kept = origins(model, result)
    assert kept

    old_values = copy.deepcopy(model.state_dict())
    given = {key: torch.randn(parameter.shape) for key, parameter in model.named_parameters()}
    for key, parameter in model.named_parameters():
        parameter.grad = given[key].clone()
    optimizer.step()
    wanted = copy.deepcopy(model.state_dict())
    model.load_state_dict(old_values)  # what was kept is the same tensor in both
    after_old = copy.deepcopy(optimizer.state_dict())

    optimizer.zero_grad()
    for key, parameter in result.named_parameters():
        if parameter.requires_grad:
            parameter.grad = given[kept[key]].clone() if key in kept else torch.ones_like(parameter)
    new.step()
    same_values(optimizer.state_dict(), after_old)
    held = {parameter for group in new.param_groups for parameter in group["params"]}
    for key, parameter in result.named_parameters():
        assert parameter in held
        if key in kept and parameter.requires_grad:
            assert torch.equal(parameter, wanted[kept[key]]), key


def same_values(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            same_values(value, other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            same_values(a, b)
    else:
        assert one == other


def test_groups_and_options_stay() -> None:
    model, optimizer = trained(OPTIMIZERS["AdamW, two groups"])
    result = apply_rules(model, Rules('wrap Linear in "body.*" | "fc" with LoRA(rank=1)'))
    new = migrate_optimizer(optimizer, model, result)
    body, rest = groups_of(new, result)
    base = [f"body.{number}.base_layer.{name}" for number in (0, 2) for name in ("weight", "bias")]
    assert body == [*base, "body.0.lora_A", "body.0.lora_B", "body.2.lora_A", "body.2.lora_B"]
    assert rest == ["fc.base_layer.weight", "fc.base_layer.bias", "fc.lora_A", "fc.lora_B"]
    for before, after in zip(optimizer.param_groups, new.param_groups, strict=True):
        assert {**before, "params": 0} == {**after, "params": 0}
    assert new.defaults == optimizer.defaults
    new.param_groups[0]["note"].append("more")
    assert optimizer.param_groups[0]["note"] == ["slow"]


def test_what_is_new_goes_by_the_nearest_module_in_front() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 4)
            self.act = nn.ReLU()
            self.head = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.stem(x)))

    model = Split()
    groups = [
        {"params": list(model.head.parameters())},
        {"params": [model.stem.bias], "weight_decay": 0.0},
        {"params": [model.stem.weight]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    result = apply_rules(
        model, Rules("after ReLU: insert LayerNorm -> Linear(out_features=4)\nbefore ReLU: insert PReLU")
    )
    new = groups_of(migrate_optimizer(optimizer, model, result), result)
    assert new[0] == ["head.weight", "head.bias"]
    assert new[1][0] == "stem.bias"
    assert len(new[1]) == 5  # the vectors: LayerNorm's two, a bias, the slope of PReLU
    assert new[2][0] == "stem.weight"
    assert len(new[2]) == 2


def test_what_is_left_out_stays_left_out() -> None:
    model = Net()
    model.body.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    result = apply_rules(model, Rules('wrap "body.0" with LoRA(rank=1)\nunfreeze "body.2"'))
    assert groups_of(migrate_optimizer(optimizer, model, result), result) == [
        ["fc.weight", "fc.bias", "body.0.lora_A", "body.0.lora_B"]
    ]


def test_two_optimizers_share_what_is_new() -> None:
    model = Net()
    body = torch.optim.SGD(model.body.parameters(), lr=0.1)
    rest = torch.optim.AdamW(model.fc.parameters(), lr=0.1)
    result = apply_rules(model, Rules('after ReLU: insert LayerNorm\nwrap "fc" with LoRA(rank=1)'))
    bodies = groups_of(migrate_optimizer(body, model, result), result)[0]
    rests = groups_of(migrate_optimizer(rest, model, result), result)[0]
    assert sorted(bodies + rests) == sorted(name for name, _ in result.named_parameters())
    assert {name.split(".")[0] for name in rests} == {"fc"}


def test_what_is_drawn_anew_begins_without_state() -> None:
    model, optimizer = trained(OPTIMIZERS["AdamW, two groups"])
    result = apply_rules(model, Rules('reset "body.2"'))
    new = migrate_optimizer(optimizer, model, result)
    assert sorted(groups_of(new, result)[0]) == sorted(groups_of(optimizer, model)[0])
    assert {name for name, parameter in result.named_parameters() if parameter not in new.state} == {
        "body.2.weight",
        "body.2.bias",
    }


def test_what_has_another_shape_or_is_gone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    groups = [{"params": list(layer.parameters()), "lr": 0.1} for layer in model]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    give_gradients(model.parameters())
    optimizer.step()
    rules = Rules('replace "1" with Linear(out_features=6, bias=false)\nexpect output (_, 6)')
    result = apply_rules(model, rules)
    new = migrate_optimizer(optimizer, model, result)
    assert groups_of(new, result) == [["0.weight", "0.bias"], ["1.weight"]]
    assert list(new.state) == list(model[0].parameters())


def test_a_group_that_loses_all_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    groups = [{"params": list(model[1].parameters())}, {"params": list(model[0].parameters())}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    result = apply_rules(model, Rules("remove LayerNorm"))
    assert groups_of(migrate_optimizer(optimizer, model, result), result) == [[], ["0.weight", "0.bias"]]


def test_names_follow() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    result = apply_rules(model, Rules("wrap Linear with LoRA(rank=1)"))
    new = migrate_optimizer(optimizer, model, result)
    assert new.param_groups[0]["param_names"] == ["0.base_layer.weight", "0.base_layer.bias", "0.lora_A", "0.lora_B"]
    assert optimizer.param_groups[0]["param_names"] == ["0.weight", "0.bias"]


def test_a_copy_goes_by_keys() -> None:
    model, optimizer = trained(OPTIMIZERS["AdamW"])
    result = copy.deepcopy(apply_rules(model, Rules("after ReLU: insert LayerNorm")))
    assert get_report(result) is None
    new = migrate_optimizer(optimizer, model, result)
    assert len(new.state) == len(optimizer.state)
    for key, parameter in model.named_parameters():
        for name, value in optimizer.state[parameter].items():
            other = new.state[result.get_parameter(key)][name]
            assert torch.equal(other, value)
            assert other.data_ptr() != value.data_ptr()


def test_in_wrappers() -> None:
    inside, optimizer = trained(OPTIMIZERS["AdamW"])
    model = nn.DataParallel(inside)
    result = apply_rules(model, Rules('wrap "fc" with LoRA(rank=1)'))
    new = migrate_optimizer(optimizer, model, result)
    assert len(new.state) == len(optimizer.state)
    assert len(new.param_groups[0]["params"]) == len(optimizer.state) + 2


def test_lbfgs_keeps_what_it_has_gathered_only_for_the_same_parameters() -> None:
    model = Net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = model(torch.ones(2, 4)).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    same = migrate_optimizer(optimizer, model, apply_rules(model, Rules("after ReLU: insert Dropout(0.1)")))
    assert len(same.state) == 1
    more = migrate_optimizer(optimizer, model, apply_rules(model, Rules("after ReLU: insert LayerNorm")))
    assert not more.state


def test_another_models_optimizer_is_told() -> None:
    model = Net()
    result = apply_rules(model, Rules("after ReLU: insert LayerNorm"))
    with pytest.raises(ValueError, match=r"5 of the 5 parameters .* shapes: \(4, 4\).*the model that the optimizer"):
        migrate_optimizer(torch.optim.SGD(list(Net().parameters())[:5], lr=0.1), model, result)
    new = torch.optim.SGD(result.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"2 of the 8 parameters"):
        migrate_optimizer(new, model, result)


def test_a_class_that_cannot_hold_what_is_new_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    result = apply_rules(model, Rules("after Linear: insert LayerNorm"))
    with pytest.raises(ValueError, match="no Muon can be made for the parameters of the rewritten model: Muon only"):
        migrate_optimizer(torch.optim.Muon(model.parameters()), model, result)


def test_what_is_no_optimizer_is_told() -> None:
    model = Net()
    scheduler: Any = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(model.parameters(), lr=0.1), 1)
    with pytest.raises(TypeError, match="needed, not a StepLR"):
        migrate_optimizer(scheduler, model, apply_rules(model, Rules("after ReLU: insert LayerNorm")))
