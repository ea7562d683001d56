"""The layers that PyTorch does not have."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewrite import RuleError
from rewrite.backends.torch.own_layers import DropPath, LoRA, Tap, taps
from rewrite.backends.torch.spellings import class_operation, is_leaf, keeps_forward
from rewrite.saved.unpickle import unpickle

LAYERS = {
    "DropPath": (lambda: DropPath(0.3), (2, 4)),
    "LoRA of a Linear": (lambda: LoRA(nn.Linear(4, 5), rank=2, dropout=0.1), (2, 4)),
    "LoRA of a Conv2d": (lambda: LoRA(nn.Conv2d(4, 5, 3, padding=1), rank=2), (2, 4, 6, 6)),
    "Tap": (lambda: Tap("x"), (2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_they_live_on(name: str, tmp_path: Path) -> None:
    make, shape = LAYERS[name]
    model = nn.Sequential(make()).eval()
    x = torch.randn(shape)
    expected = model(x)
    torch.save(model, tmp_path / "model.pt")
    loaded = unpickle(str(tmp_path / "model.pt"), modules=True)
    assert isinstance(loaded, nn.Module)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(twin(x), expected)
        assert not twin.training


def test_drop_path_drops_whole_samples() -> None:
    x = torch.randn(1000, 3, 2)
    layer = DropPath(0.25)
    y = layer(x)
    dropped = (y == 0).flatten(1).all(1)
    assert 150 < dropped.sum() < 350
    torch.testing.assert_close(y[~dropped], x[~dropped] / 0.75)
    assert layer.eval()(x) is x
    assert not DropPath(1.0)(x).any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        DropPath(1.5)


def test_drop_path_has_other_spellings() -> None:
    pytest.importorskip("torchvision")
    from torchvision.ops import StochasticDepth

    row = class_operation(StochasticDepth)
    assert row is not None
    assert row.name == "DropPath"
    assert keeps_forward(StochasticDepth)
    assert is_leaf(StochasticDepth(0.1, "row"))


@pytest.mark.parametrize(
    ("base", "shape"),
    [
        (nn.Linear(4, 5), (2, 3, 4)),
        (nn.Linear(4, 5, bias=False).double(), (2, 4)),
        (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), (2, 4, 9, 9)),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (2, 4, 9, 9)),
        (nn.Conv3d(4, 6, 1), (2, 4, 3, 3, 3)),
        (LoRA(nn.Linear(4, 5), rank=1), (2, 4)),
    ],
)
def test_lora_begins_as_its_base(base: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=base.weight.dtype)
    layer = LoRA(base, rank=2, alpha=4)
    assert torch.equal(layer(x), base(x))
    assert layer.weight is base.weight
    assert layer.bias is base.bias
    assert layer.lora_A.dtype == base.weight.dtype
    with torch.no_grad():
        layer.lora_B.normal_()
    assert layer(x).shape == base(x).shape
    assert not torch.equal(layer(x), base(x))
    assert {"base_layer", "lora_dropout"} == set(dict(layer.named_children()))
    layer.reset_parameters()
    assert torch.equal(layer(x), base(x))


def test_lora_is_the_formula() -> None:
    base, x = nn.Linear(4, 5), torch.randn(2, 4)
    layer = LoRA(base, rank=2, alpha=3)
    nn.init.normal_(layer.lora_B)
    expected = x @ (base.weight + 1.5 * layer.lora_B @ layer.lora_A).T + base.bias
    torch.testing.assert_close(layer(x), expected)
    assert (layer.in_features, layer.out_features) == (4, 5)
    with pytest.raises(AttributeError):
        _ = layer.stride


def test_lora_refuses_by_name() -> None:
    with pytest.raises(TypeError, match="not a Embedding"):
        LoRA(nn.Embedding(4, 5))
    with pytest.raises(ValueError, match="at least 1"):
        LoRA(nn.Linear(4, 5), rank=0)


def test_taps_collect_what_was_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Tap("a"), nn.ReLU(), Tap("b"))
    assert taps(model) == {}
    x = torch.randn(2, 4)
    y = model(x)
    seen = taps(model)
    assert list(seen) == ["a", "b"]
    assert seen["b"] is y
    assert torch.equal(seen["a"], model[0](x))
    seen["a"].sum().backward()
    assert model[0].weight.grad is not None
    assert taps(copy.deepcopy(model)) == {}
    assert taps(pickle.loads(pickle.dumps(model))) == {}
    assert len(model.state_dict()) == 2
    model.append(Tap("a"))
    with pytest.raises(RuleError, match="two taps are named `a`"):
        taps(model)


def test_taps_compile() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Tap("a"), nn.ReLU(), LoRA(nn.Linear(4, 4)), DropPath(0.1)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x: Tensor = torch.randn(2, 4)
    assert torch.equal(compiled(x), model(x))
    compiled(2 * x)
    assert torch.equal(taps(model)["a"], model[0](2 * x))
