"""`probe` finds inputs that models take; each is tried by running the model on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo
from torch import Tensor, nn

from rewrite import Rules, apply_rules, probe
from rewrite.cli import main

VISION = ("resnet18", "vit_b_16", "r3d_18", "raft_small", "inception_v3", "ssdlite320_mobilenet_v3_large")


class TwoImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 3)

    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return self.conv(left) + scale * self.conv(right)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x)[0]
        return out


class Picky(nn.Module):
    """Takes no tensor at all."""

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return x["image"]


class Counting(nn.Module):
    """Its shapes depend on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)[x.sum(1) > 0]


SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "image": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1)), (2, 1, 64, 64)),
    "image of one size": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2 * 24 * 24, 2)),
        (2, 1, 28, 28),
    ),
    "two images": (TwoImages, (2, 4, 64, 64)),
    "video": (lambda: nn.Conv3d(3, 2, 3), (2, 3, 8, 64, 64)),
    "sound": (lambda: nn.Conv1d(3, 2, 3), (2, 3, 64)),
    "vector": (lambda: nn.Sequential(nn.Linear(7, 3), nn.BatchNorm1d(3)), (2, 7)),
    "digits": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), (2, 784)),
    "tokens": (lambda: nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2)), (2, 8)),
    "steps": (Sequence, (2, 8, 5)),
    "numbers": (Counting, (2, 6)),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name: str) -> None:
    make, shape = SMALL[name]
    model = make()
    found = probe(model)
    assert found.inputs is not None, found.tried
    args, keywords = found.inputs
    assert args[0].shape == shape
    model(*args, **keywords)


def test_the_batch_can_be_chosen() -> None:
    found = probe(nn.Linear(3, 2), batch=5)
    assert found.inputs is not None
    assert found.inputs[0][0].shape == (5, 3)


def test_no_inputs_are_told_with_reasons() -> None:
    found = probe(nn.Sequential(Picky(), nn.Linear(2, 2)))
    assert found.inputs is None
    assert found.tried
    assert all(arguments and why for arguments, why in found.tried)


def test_nothing_is_changed_and_nothing_drawn() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert probe(model).inputs is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


def test_without_numbers() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    found = probe(model)
    assert found.inputs is not None
    assert found.inputs[0][0].is_meta
    with torch.device("meta"):
        asks = Counting()
    assert "its shapes depend on numbers, and it has none" in probe(asks).tried[0][1]


@pytest.mark.parametrize("name", VISION)
def test_torchvision(name: str) -> None:
    pytest.importorskip("torchvision")
    model = zoo.build(f"torchvision:{name}")
    with zoo.boxes_without_compiled_code(), torch.no_grad():
        found = probe(model, batch=1)
        assert found.inputs is not None, found.tried
        args, keywords = found.inputs
        model(*args, **keywords)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_convnext", "csatv2", "naflexvit_base_patch16_gap"])
def test_timm(name: str) -> None:
    pytest.importorskip("timm")
    from rewrite.saved.builder import build_without_numbers

    assert probe(build_without_numbers(f"timm:{name}").eval()).inputs is not None


class TestCommand:
    def test_plan_with_probe(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("torchvision")
        words = ["plan", "-e", "after ReLU: insert Dropout(0.1)", "torchvision:squeezenet1_1", "--json", "--probe"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)["report"]
        assert report["output"] == "unchanged: (2, 1000) float32, checked by a run on shapes"

    def test_none_found(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "net.pt"
        torch.save(nn.Sequential(nn.Bilinear(2, 2, 2), nn.ReLU()), path)
        assert main(["plan", "-e", "after ReLU: insert Dropout(0.1)", str(path), "--probe"]) == 0
        assert "note: no inputs were found that the model takes" in capsys.readouterr().err


class Windowed(nn.Module):
    """Calls a function that changes the list it is given, and that a graph holds as one call."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * fitted([9, 2], x)[0]


@torch.fx.wrap
def fitted(sizes: list[int], x: Tensor) -> list[int]:
    for axis, size in enumerate(x.shape):
        if sizes[axis] > size:
            sizes[axis] = size
    return sizes


def test_an_example_runs_through_functions_that_change_their_lists() -> None:
    model, x = Windowed(), torch.ones(2, 8)
    result = apply_rules(model, Rules("after Linear: insert Identity"), example_inputs=x)
    assert torch.equal(result(x), model(x))
