"""`verify="run"`: original and rewritten on real numbers, in eval mode and in one step of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewrite import PlanError, Rules, SiteError, apply_rules, get_report, plan_rules
from rewrite.backends.backend import Example
from rewrite.backends.torch.backend import TorchBackend
from rewrite.backends.torch.comparison import compare_training
from rewrite.cli import main

SAME = "outputs, gradients and buffers of one step are the same; the largest difference is 0"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.drop(self.relu(self.bn(self.conv(x))).mean((2, 3))))
        return out


def image() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def runs(model: nn.Module, rules: str, **options: Any) -> tuple[str, ...]:
    report = get_report(apply_rules(model, Rules(rules), verify="run", **options))
    assert report is not None
    return report.runs


@pytest.mark.parametrize(
    "rules",
    [
        "after ReLU: insert Dropout(0.5)",
        "after Conv2d: insert Identity",
        "tap inner = last ReLU",
        "wrap Linear with LoRA(rank=2)",
        'freeze params "conv"',
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_keeps_the_numbers(rules: str, training: bool) -> None:
    for options in ({}, {"example_inputs": image()}):
        found = runs(Net().train(training), rules, **options)
        assert found == ("eval mode: outputs are the same; the largest difference is 0", f"training mode: {SAME}")


def test_folding_holds_in_eval_mode_only() -> None:
    evaluated, trained = runs(Net().eval(), "match Conv2d as c >> BatchNorm2d as b: fold b into c")
    assert evaluated.startswith("eval mode: outputs are the same")
    assert trained.startswith("training mode: runs; the rules may change numbers")


def test_what_may_change_numbers_is_told() -> None:
    evaluated, trained = runs(Net(), "after Conv2d: insert Tanh")
    assert evaluated.startswith("eval mode: runs; the rules may change numbers, and outputs differ by up to ")
    assert trained.startswith("training mode: runs; the rules may change numbers, and outputs, gradients")


def test_nothing_is_changed_by_the_runs() -> None:
    model = Net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    runs(model, "after ReLU: insert Dropout(0.5)")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def wrong_output(model: Any) -> None:
    model.fc.register_forward_hook(lambda module, args, output: output * 1.01)


def wrong_gradient(model: Any) -> None:
    model.fc.register_forward_hook(lambda module, args, output: output.detach() + 0 * output)


def wrong_statistics(model: Any) -> None:
    model.bn.momentum = 0.2


def wrong_mode(model: Any) -> None:
    """An original dropout that is off in training."""
    model.drop.p = 0.0


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (wrong_output, "eval mode: it is off by"),
        (wrong_gradient, "training mode: it is off by .* at the gradient of `.*`"),
        (wrong_statistics, "training mode: it is off by .* at the buffer `bn.running_.*` after one step"),
        (wrong_mode, "training mode: it is off by .* at "),
    ],
)
def test_a_wrong_rewrite_is_found(spoil: Callable[[Any], None], place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = TorchBackend.write

    def spoiled(self: TorchBackend, *arguments: Any) -> Any:
        written = write(self, *arguments)
        written.model = self.separate(written.model, arguments[0].model)
        spoil(written.model)
        return written

    monkeypatch.setattr(TorchBackend, "write", spoiled)
    apply_rules(Net(), Rules("after ReLU: insert Dropout(0.5)"))
    with pytest.raises(PlanError, match=f"RW317.*{place}"):
        runs(Net(), "after ReLU: insert Dropout(0.5)")


def test_a_model_that_never_does_the_same_twice() -> None:
    class Restless(Net):
        count = 0

        def forward(self, x: Tensor) -> Tensor:
            Restless.count += 1
            return super().forward(x) * Restless.count

    with pytest.raises(SiteError, match="does not do the same twice in training mode"):
        compare_training(Restless(), Restless(), Example((image(),)))


def test_without_numbers() -> None:
    with torch.device("meta"):
        model = Net()
    with pytest.raises(SiteError, match="cannot be compared by a run: it is on the meta device"):
        runs(model, "after ReLU: insert Dropout(0.5)")


def test_without_inputs() -> None:
    model = nn.Sequential(nn.Bilinear(2, 2, 2), nn.ReLU())
    with pytest.raises(SiteError, match="no input was found that the model takes"):
        runs(model, "after ReLU: insert Dropout(0.5)")


def test_plans_run_too() -> None:
    assert len(plan_rules(Net(), Rules("after ReLU: insert Dropout(0.5)"), verify="run").report.runs) == 2
    assert not plan_rules(Net(), Rules("after ReLU: insert Dropout(0.5)")).report.runs


def test_another_word() -> None:
    with pytest.raises(ValueError, match='verify=\'walk\' is neither "shapes" nor "run"'):
        apply_rules(Net(), Rules("after ReLU: insert Dropout(0.5)"), verify="walk")  # type: ignore[arg-type]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), path)
    assert main(["plan", "-e", "after ReLU: insert Dropout(0.5)", str(path), "--verify", "run"]) == 0
    assert capsys.readouterr().out.endswith(f"run: training mode: {SAME}\n")
