"""The worked rules of the language on networks that have what they are about: the sites, and what really runs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchvision")
pytest.importorskip("timm")

from counting import calls

from benchmarks.worked_rules import WORKED, Worked, run

CHANGED: dict[int, dict[str, int]] = {
    1: {"BatchNorm2d": 13},
    2: {"BatchNorm2d": 20},
    3: {"BatchNorm2d": 13},
    4: {"BatchNorm2d": 13},
    5: {"Dropout": 57},
    6: {"Dropout": 13},
    7: {"Dropout": -2},
    8: {"ReLU6": -35, "GELU": 35},
    10: {"ReLU": -1, "Linear": -1, "Dropout": -1},
    14: {"LoRA": 4},
    15: {"BatchNorm2d": -20},
    16: {"BatchNorm2d": -52},
    17: {"Tap": 1},
    18: {"SEBlock": 8},
    19: {"DropPath": 11},
    20: {"LayerScale": 8},
    21: {"BatchNorm2d": 12},
    22: {"Conv2d": 3},
    23: {"SEBlock": 15},
    25: {"BatchNorm2d": -20, "GroupNorm": 20},
    27: {"Conv2d": 10, "Sequential": 10},
    28: {"FusedAdd": 2},
    29: {"Probe": 13},
    30: {"Normalize": 1},
    31: {"FakeQuant": 16},
    32: {"ReLU": -2},
}
"""number of a rule -> by how many executed calls of each kind the network grows; none: it calls what it called"""

INSIDE = ("Conv1d", "Sigmoid", "mul", "sub", "add", "Identity", "Sequential", "Linear", "ReLU")
"""what the layers of one's own, and adapters, call in their own forwards"""


def executed(model: nn.Module, image: Tensor) -> Counter[str]:
    """Calls in one run: operations as the oracle sees them, and layers of other classes by their class."""
    found = Counter(call.operation for call in calls(model, image))
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: seen.update([type(module).__name__]))
        for module in model.modules()
    ]
    seen: Counter[str] = Counter()
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return found + Counter({name: count for name, count in seen.items() if name not in found})


@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: f"{worked.number}-{worked.network}")
def test_sites_and_what_runs(worked: Worked) -> None:
    model, result, report = run(worked)
    assert tuple(len(clause.sites) for clause in report.clauses) == worked.sites
    assert isinstance(result, type(model))
    image = torch.randn(worked.shape, generator=torch.Generator().manual_seed(1))
    before, after = executed(model, image), executed(result, image)
    wanted = CHANGED.get(worked.number, {})
    changed = {name: after[name] - before[name] for name in before | after if after[name] != before[name]}
    own_layers = any(name not in before and name in CHANGED.get(worked.number, {}) for name in after)
    changed = {name: count for name, count in changed.items() if name in wanted or not (own_layers and name in INSIDE)}
    assert changed == wanted


def test_statistics_of_frozen_layers_stand_still() -> None:
    """Rule 11: five steps of training move nothing but the head."""
    worked = next(worked for worked in WORKED if worked.number == 11)
    _, result, _ = run(worked)
    kept = {key: value.clone() for key, value in result.state_dict().items() if not key.startswith("fc.")}
    result.train()
    optimizer = torch.optim.SGD([p for p in result.parameters() if p.requires_grad], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        result(torch.randn(worked.shape)).square().mean().backward()
        optimizer.step()
    state = result.state_dict()
    assert all(torch.equal(state[key], value) for key, value in kept.items())


def test_the_order_of_the_careful_form() -> None:
    """Rule 4: convolution, normalisation, activation, as they are executed."""
    worked = next(worked for worked in WORKED if worked.number == 4)
    _, result, _ = run(worked)
    kinds = [call.operation for call in calls(result, torch.randn(worked.shape))]
    behind = [tuple(kinds[place : place + 3]) for place, kind in enumerate(kinds) if kind == "Conv2d"]
    assert behind == [("Conv2d", "BatchNorm2d", "ReLU")] * 13
