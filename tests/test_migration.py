"""Old checkpoints in rewritten models: which keys moved, and a state_dict that loads under the new ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewrite import Rules, apply_rules, get_report, migrate


class Scaled(nn.Module):
    """A wrapper with a weight of its own, under the very key that the layer's weight had."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.weight


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.fc.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(self.body(x)))


MODULES = {"my.Scaled": Scaled}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "wrap": (
        'wrap "fc" with LoRA(rank=1)',
        {"fc.weight": "fc.base_layer.weight", "fc.bias": "fc.base_layer.bias"},
    ),
    "wrap twice": (
        'wrap "body.0" with LoRA(rank=1)\nwrap "body.0" with LoRA(rank=2)',
        {f"body.0.{name}": f"body.0.base_layer.base_layer.{name}" for name in ("weight", "bias")},
    ),
    "wrap, then freeze": (
        'wrap "fc" with LoRA(rank=1)\nfreeze any except LoRA',
        {"fc.weight": "fc.base_layer.weight", "fc.bias": "fc.base_layer.bias"},
    ),
    "wrap with a weight of its own": (
        'wrap "fc" with my.Scaled',
        {"fc.weight": "fc.inner.weight", "fc.bias": "fc.inner.bias"},
    ),
    "wrap statistics": (
        "wrap BatchNorm1d with my.Scaled",
        {
            f"body.1.{name}": f"body.1.inner.{name}"
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        },
    ),
    "wrap one of two tied": ('wrap "head" with LoRA(rank=1)', {"head.weight": "head.base_layer.weight"}),
    "insert": ("after Linear: insert Dropout(0.1)", {}),
    "insert with weights": ("before Linear: insert LayerNorm", {}),
    "move": ("match Linear -> BatchNorm1d as b -> ReLU as r: move r before b", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_old_checkpoint_loads(name: str) -> None:
    rules, moved = CASES[name]
    checkpoint = {key: torch.randn_like(value.float()) for key, value in Net().state_dict().items()}
    checkpoint["body.1.running_var"].abs_()
    checkpoint["head.weight"] = checkpoint["fc.weight"]
    result = apply_rules(Net().eval(), Rules(rules), modules=MODULES)
    report = get_report(result)
    assert report.moved_keys == moved
    assert set(moved) <= set(report.removed_keys) | set(result.state_dict())
    renamed = migrate(checkpoint, report)
    assert list(checkpoint) == list(Net().state_dict())
    result.load_state_dict(result.state_dict() | renamed, strict=True)
    wanted = Net().eval()
    wanted.load_state_dict(checkpoint)
    x = torch.randn(3, 4)
    loaded = dict(result.state_dict())
    for key, value in wanted.state_dict().items():
        assert torch.equal(loaded[moved.get(key, key)], value)
    if "LayerNorm" not in rules and "move" not in rules:
        assert torch.equal(result(x), wanted(x))


def test_what_has_another_shape_or_is_gone_is_left_out() -> None:
    model = Net().eval()
    result = apply_rules(model, Rules('replace "fc" with Linear(out_features=6) -> Linear(out_features=4)'))
    report = get_report(result)
    assert set(migrate(model.state_dict(), report)) == {key for key in model.state_dict() if not key.startswith("fc.")}
    result = apply_rules(
        nn.Sequential(nn.Linear(4, 2)), Rules("replace Linear with Linear(out_features=3)\nexpect output (_, 3)")
    )
    report = get_report(result)
    assert report.resized_keys == ("0.weight", "0.bias")
    assert migrate({"0.weight": torch.zeros(2, 4), "0.bias": torch.zeros(2)}, report) == {}


def test_what_is_drawn_anew_or_computed_is_left_out() -> None:
    model = Net().eval()
    reset = apply_rules(model, Rules('reset "body.0" | "body.1"'))
    report = get_report(reset)
    assert set(report.renewed_keys) == {key for key in model.state_dict() if key.startswith("body.")}
    begun = {key: value.clone() for key, value in reset.state_dict().items()}
    reset.load_state_dict(reset.state_dict() | migrate(Net().state_dict(), report))
    assert torch.equal(reset.body[0].weight, begun["body.0.weight"])
    assert not torch.equal(reset.fc.weight, begun["fc.weight"])

    folded = apply_rules(model, Rules("fold BatchNorm1d into Linear"))
    report = get_report(folded)
    assert report.renewed_keys == ("body.0.weight", "body.0.bias")
    wanted = model(torch.ones(2, 4))
    folded.load_state_dict(folded.state_dict() | migrate(model.state_dict(), report))
    torch.testing.assert_close(folded(torch.ones(2, 4)), wanted)


class Counting(nn.Module):
    """State beside the tensors, and no tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def get_extra_state(self) -> int:
        return 3

    def set_extra_state(self, state: int) -> None:
        pass


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_is_not_told_as_drawn_anew(name: str) -> None:
    for wrapped in (Net(), nn.Sequential(WithState(4, 4), Counting(), Net())):
        rules = CASES[name][0].replace('"fc"', '"**.fc" | "fc"').replace('"head"', '"**.head" | "head"')
        rules = rules.replace('"body.0"', '"**.body.0" | "body.0"')
        assert get_report(apply_rules(wrapped.eval(), Rules(rules), modules=MODULES)).renewed_keys == ()


def test_the_report_tells_it() -> None:
    report: Any = get_report(apply_rules(Net(), Rules('wrap "fc" with LoRA(rank=1)')))
    assert "moved keys of the state_dict: 2\n  fc.weight -> fc.base_layer.weight" in str(report)
    assert "removed keys" not in str(report)
    assert report.as_json()["moved_keys"]["fc.bias"] == "fc.base_layer.bias"


def test_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        model = Net()
    report = get_report(apply_rules(model, Rules('wrap "fc" with LoRA(rank=1)')))
    assert report.moved_keys == CASES["wrap"][1]


class WithState(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"n": getattr(self, "n", 3)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.n = state["n"]


def test_state_beside_the_tensors_moves_along() -> None:
    model = nn.Sequential(WithState(4, 4))
    result = apply_rules(model, Rules("wrap Linear with LoRA(rank=1)"))
    report = get_report(result)
    assert report.moved_keys["0._extra_state"] == "0.base_layer._extra_state"
    assert set(report.new_keys) == set(result.state_dict()) - set(model.state_dict())
    checkpoint = model.state_dict() | {"0._extra_state": {"n": 7}}
    result.load_state_dict(result.state_dict() | migrate(checkpoint, report), strict=True)
    assert result[0].base_layer.n == 7
