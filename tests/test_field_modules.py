"""Modules, parameters and their state, in cases that were met in the field.

| case | test |
| --- | --- |
| a module called several times: per call, per layer, untied first | here; `test_traps` on `shared_layer` |
| a module under two names of one parent or of two | here; `test_traps` on `two_paths` |
| a module that is normalised on one way and not on another | here |
| tied weights: either side, two modules, recurrent | here; `test_traps` on `tied_weights` |
| registered and never called; None; called in one mode only | here; `test_traps` on `auxiliary_head` |
| Sequential, ModuleList, ModuleDict, ParameterList | here; `test_traps` on `nested_sequential`, `indexed_sequential` |
| keys, strict loading, non-persistent buffers, plain tensors | here; moved keys: `test_migration` |
| device, dtype, memory format, mode, whether it learns | here |
| group norm that does not divide, axes of a normalisation | here |
| a bias in front of a normalisation | here |
| freezing: three steps, train(), part of a model, back | here; `test_worked_rules` |
| new weights: attention, no `reset_parameters`, seeded, tied, computed | here; `test_site_errors` |
| a new head on each attribute path | here; `test_torchvision` |
| the optimizer's state | here (kept parameters are the same objects) |
| hooks on leaf, container and root | here |
| attributes and methods | here |
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from counting import count_calls, order_of_calls
from field import assert_same, conv, image, refused, report_of, rewritten, sites, warned
from torch import Tensor, nn
from torch.nn.utils import prune


class Shared(nn.Module):
    """As in ResNet: one ReLU for two calls; and a convolution for two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.last = conv(), nn.ReLU(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        return self.last(self.relu(self.conv(x)))


def test_a_module_that_is_called_twice() -> None:
    model, x = Shared().eval(), image()
    result = rewritten(model, "after ReLU: insert Dropout(0.1)")
    drops = [module for module in result.modules() if isinstance(module, nn.Dropout)]
    assert len(sites(result)) == len(drops) == count_calls(result, x, "Dropout") == 2
    result = rewritten(model, "after ReLU: insert Dropout(0.1) per layer")
    drops = [module for module in result.modules() if isinstance(module, nn.Dropout)]
    assert len(drops) == 1
    assert count_calls(result, x, "Dropout") == 2
    result = rewritten(model, "replace ReLU with GELU")
    assert isinstance(result.relu, nn.GELU)
    assert count_calls(result, x, "GELU") == 2
    result = rewritten(model, "replace last ReLU with GELU")
    assert order_of_calls(result, x, ("ReLU", "GELU")) == ["ReLU", "GELU"]
    assert isinstance(result.relu, nn.ReLU)
    refused("RW313", model, "replace first Conv2d with Conv2d(kernel_size=1)", "`conv`", "2 times")
    result = rewritten(model, "after Conv2d: insert BatchNorm2d per layer")
    assert sum(isinstance(module, nn.BatchNorm2d) for module in result.modules()) == 2
    assert count_calls(result, x, "BatchNorm2d") == 3


class OneParent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = conv()
        self.b = self.a
        self.c = nn.Sequential(conv(), self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


def test_a_module_under_several_names_is_one() -> None:
    model, x = OneParent().eval(), image()
    result = rewritten(model, "after Conv2d: insert Identity")
    assert result.a is result.b is result.c._modules["1"]
    assert list(model.state_dict()) == list(result.state_dict())
    assert_same(model, result, x)
    result = rewritten(model, "replace Conv2d with Conv2d(bias=false)")
    assert result.a is result.b is result.c[1]
    assert result.a.bias is None
    result = rewritten(model, 'wrap "a" with LoRA(rank=1)')
    assert result.a is result.b is result.c[1]
    assert_same_outputs(model, result, x)
    assert sum(1 for key in result.state_dict() if key.endswith("lora_A")) == 3
    result = rewritten(model, 'freeze "a"')
    assert not result.b.weight.requires_grad
    assert result.c[0].weight.requires_grad
    assert result.a.weight is result.b.weight is result.c[1].weight


def assert_same_outputs(model: nn.Module, result: nn.Module, x: Tensor) -> None:
    assert torch.equal(model(x), result(x))


class Normed(nn.Module):
    """pytorch#197539: one convolution, normalised on one way only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.conv(x * 2)


def test_a_module_that_is_normalised_on_one_way_only() -> None:
    model, x = Normed().eval(), image()
    error = refused("RW313", model, "fold BatchNorm2d into Conv2d", "called 2 times")
    assert "`conv`" in str(error)
    result = rewritten(model, "after Conv2d where not has_next(BatchNorm2d): insert BatchNorm2d(eps=0)")
    assert count_calls(result, x, "BatchNorm2d") == 2
    assert torch.allclose(result(x), model(x), atol=1e-6)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(7, 4), nn.LSTM(4, 4), nn.Linear(4, 7, bias=False)
        self.other = nn.LSTM(4, 4)
        self.head.weight = self.embed.weight
        self.other.weight_hh_l0 = self.mix.weight_hh_l0
        self.scale = nn.Parameter(torch.ones(1))
        self.part = nn.Module()
        self.part.scale = self.scale

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(self.mix(self.embed(x))[0])[0]
        return self.head(y) * self.scale + self.part.scale


def ties(model: Any) -> tuple[bool, bool, bool]:
    return (
        model.head.weight is model.embed.weight,
        model.other.weight_hh_l0 is model.mix.weight_hh_l0,
        model.scale is model.part.scale,
    )


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("freeze Embedding", (True, True, True)),
        ('freeze "head"', (True, True, True)),
        ("freeze any", (True, True, True)),
        ("reset Embedding", (True, True, True)),
        ('reset "head"', (True, True, True)),
        ("reset LSTM", (True, True, True)),
        ("after Linear: insert Dropout(0.1)", (True, True, True)),
        ("after LSTM: insert Dropout(0.1)", (True, True, True)),
        ('replace "head" with Linear(bias=true)', (False, True, True)),
        ("freeze LSTM\nreset Embedding\nafter Linear: insert Identity", (True, True, True)),
    ],
)
def test_tied_weights(rule: str, kept: tuple[bool, bool, bool]) -> None:
    model, x = Tied().eval(), torch.arange(6).view(3, 2)
    result = rewritten(model, rule)
    assert ties(result) == kept
    assert ties(copy.deepcopy(result)) == kept
    assert result(x).shape == model(x).shape
    if "reset" in rule:
        assert rewritten(Tied().eval(), rule).head.weight.equal(result.head.weight) or "LSTM" in rule
    if rule.startswith("freeze"):
        frozen = {key for key, value in result.named_parameters(remove_duplicate=False) if not value.requires_grad}
        assert frozen
        assert ("embed.weight" in frozen) == ("head.weight" in frozen)
    assert all(value.requires_grad for value in model.parameters())


class Sparse(nn.Module):
    """What is registered and never called, what is None, what is called in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.never = nn.Sequential(conv(), nn.ReLU())
        self.nothing = None
        self.add_module("gone", None)
        self.aux = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        if self.training:
            return x, self.aux(x.mean((2, 3)))
        return x


def test_what_is_never_called() -> None:
    model, x = Sparse().eval(), image()
    result = rewritten(model, "after Conv2d | Linear: insert Dropout(0.5)")
    assert "conv" in sites(result)
    assert [site.path for site in report_of(result).clauses[0].other_mode] == ["aux"]
    assert model.state_dict().keys() == result.state_dict().keys()
    assert "gone" in result._modules
    assert result._modules["gone"] is None
    assert count_calls(result.train(), x, "Dropout") == 2
    result = rewritten(model, 'freeze "never.**"')
    assert not any(value.requires_grad for value in result.never.parameters())
    result = rewritten(model, "reset Conv2d")
    assert not torch.equal(result.never[0].weight, model.never[0].weight)


class Containers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Sequential(conv(), nn.Sequential(nn.ReLU(), conv()), nn.ReLU())
        self.blocks = nn.ModuleList([conv(), conv()])
        self.named = nn.ModuleDict({"b": conv(), "a": nn.ReLU()})
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(1)), nn.Parameter(torch.full((1,), 2.0))])
        self.shifts = nn.ParameterDict({"x": nn.Parameter(torch.zeros(1))})

    def forward(self, x: Tensor) -> Tensor:
        x = self.stack(x)
        for number, block in enumerate(self.blocks):
            x = block(x) * self.scales[number]
        for name in self.named:
            x = self.named[name](x)
        return x + self.shifts["x"]


def test_containers_stay_what_they_are() -> None:
    model, x = Containers().eval(), image()
    result = rewritten(model, "after Conv2d: insert Identity\nafter ReLU: insert Dropout(0.1)")
    for name in ("stack", "blocks", "named", "scales", "shifts"):
        assert isinstance(getattr(result, name), type(getattr(model, name))), name
    assert len(result.blocks) == len(model.blocks)
    assert list(result.named) == list(model.named)
    assert [type(module).__name__ for module in result.stack] == ["Conv2d", "Identity", "Sequential", "ReLU", "Dropout"]
    assert_same(model, result, x)
    result = rewritten(model, "replace ReLU with GELU\nremove last Conv2d")
    assert isinstance(result.stack[1][0], nn.GELU)
    assert list(result.named)[-1] == "a"


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.register_buffer("kept", torch.ones(1))
        self.register_buffer("lost", torch.full((1,), 3.0), persistent=False)
        self.plain = torch.full((1,), 0.5)
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)) * self.kept + self.lost - self.plain


def test_keys_stay_and_old_checkpoints_load() -> None:
    model, x = Buffers().eval(), image()
    checkpoint = Buffers().state_dict()
    for value in checkpoint.values():
        value.normal_()
    result = rewritten(model, "after ReLU: insert Dropout(0.1)\nafter Conv2d: insert Identity")
    assert list(result.state_dict()) == ["kept", "conv.weight", "conv.bias"]
    assert result._non_persistent_buffers_set == {"lost"}
    assert "plain" in vars(result)
    result.load_state_dict(checkpoint, strict=True)
    assert torch.equal(result(x), torch.relu(model.conv(x)) * model.kept + 3.0 - 0.5)
    assert torch.equal(model.kept, checkpoint["kept"])  # one tensor: what is loaded into one is in the other
    result = rewritten(model, "after Conv2d: insert BatchNorm2d")
    assert set(result.state_dict()) - set(checkpoint) == set(report_of(result).new_keys)
    missing, unexpected = result.load_state_dict(checkpoint, strict=False)
    assert not unexpected
    assert set(missing) | {"conv_batchnorm2d.num_batches_tracked"} == set(report_of(result).new_keys)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_a_new_layer_is_like_its_place(dtype: torch.dtype, training: bool) -> None:
    model = nn.Sequential(conv(), nn.ReLU(), nn.Linear(6, 6)).to(dtype).train(training)
    result = rewritten(model, "after Conv2d: insert BatchNorm2d\nafter Linear: insert Linear -> Dropout(0.1)")
    for module in result.modules():
        assert module.training is training
    floats = [value for value in result.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {dtype}
    assert result(image().to(dtype)).dtype == dtype


def test_mixed_devices_and_dtypes() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv().to("meta"), nn.Sequential(conv().double(), nn.ReLU()))
    model[0].half()
    result = rewritten(model, "after Conv2d: insert BatchNorm2d")
    norms = [module for module in result.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(n.weight.device.type, n.weight.dtype) for n in norms] == [
        ("cpu", torch.float16),
        ("meta", torch.float32),
        ("cpu", torch.float64),
    ]


def test_a_model_without_numbers() -> None:
    with torch.device("meta"):
        model = Shared()
    result = rewritten(model, "after ReLU: insert Dropout(0.1)\nafter Conv2d: insert BatchNorm2d\nfreeze Conv2d")
    assert {value.device.type for value in result.state_dict().values()} == {"meta"}
    assert not result.conv.weight.requires_grad
    assert model.conv.weight.requires_grad


def test_the_order_of_memory_stays() -> None:
    model = Shared().eval().to(memory_format=torch.channels_last)
    x = image().to(memory_format=torch.channels_last)
    result = rewritten(model, "after Conv2d: insert BatchNorm2d\nfreeze Conv2d")
    assert result.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert result.conv.weight.data_ptr() == model.conv.weight.data_ptr()
    assert result(x).is_contiguous(memory_format=torch.channels_last)


def test_what_is_frozen_stays_frozen_and_new_layers_learn() -> None:
    model = Shared()
    model.conv.requires_grad_(False)
    result = rewritten(model, "after Conv2d: insert BatchNorm2d")
    assert not result.conv.weight.requires_grad
    assert all(m.weight.requires_grad for m in result.modules() if isinstance(m, nn.BatchNorm2d))
    result = rewritten(model, "replace last Conv2d with Conv2d(kernel_size=3, padding=1)")
    assert result.last.weight.requires_grad


def test_normalisations_that_do_not_fit() -> None:
    model = nn.Sequential(conv(4, 6), nn.ReLU(), nn.Flatten(2), nn.Linear(36, 6))
    error = refused("RW106", model, "after Conv2d: insert GroupNorm(num_groups=4)", "num_groups")
    assert "divisible" in str(error)
    # Linear behind a map of three axes has its features last: LayerNorm takes them there, BatchNorm1d does not
    result = rewritten(model, "after Linear: insert LayerNorm", example_inputs=image())
    assert [m.normalized_shape for m in result.modules() if isinstance(m, nn.LayerNorm)] == [(6,)]
    assert result(image()).shape == (2, 6, 6)


def test_a_bias_in_front_of_a_normalisation() -> None:
    model = nn.Sequential(conv(), nn.ReLU())
    result = rewritten(model, "after Conv2d: insert BatchNorm2d")
    assert result[0].bias is not None
    result = rewritten(model, "after Conv2d:\n    insert BatchNorm2d\n    set prev.bias=none")
    assert result[0].bias is None
    assert "0.bias" in report_of(result).removed_keys
    assert model[0].bias is not None
    result(image()).sum().backward()


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(), nn.BatchNorm2d(4, momentum=0.5), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def train(model: nn.Module, steps: int = 3) -> dict[str, Tensor]:
    model.train()
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], 0.1)
    for step in range(steps):
        optimizer.zero_grad()
        model(image() + step).square().sum().backward()
        optimizer.step()
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("rule", "still"),
    [
        ('freeze "body"', ("body.0.weight", "body.1.weight", "body.1.running_mean")),
        ('freeze params "body"', ("body.0.weight", "body.1.weight")),
        ('freeze stats "body"', ("body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked")),
        ('freeze any except "head.**"', ("body.0.weight", "body.1.weight", "body.1.running_mean")),
    ],
)
def test_what_is_frozen_is_still_after_three_steps(rule: str, still: tuple[str, ...]) -> None:
    model = Norms()
    result = copy.deepcopy(rewritten(model, rule))
    before = {key: value.clone() for key, value in result.state_dict().items()}
    after = train(result)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not moved & set(still)
    assert {"head.0.weight", "head.1.running_mean"} <= moved
    assert ("body.1.running_mean" in moved) == ("running" not in " ".join(still))
    assert result.body[3].training  # dropout is no statistic
    back = rewritten(result, rule.replace("freeze", "unfreeze"))
    assert all(module.training for module in back.modules())
    assert all(value.requires_grad for value in back.parameters())
    assert not torch.equal(train(back)["body.1.running_mean"], after["body.1.running_mean"])


def test_a_part_that_was_frozen_before_stays_so() -> None:
    model = Norms()
    model.body[0].weight.requires_grad_(False)
    result = rewritten(model, 'freeze "head"\nunfreeze "head"')
    assert not result.body[0].weight.requires_grad
    assert sum(value.requires_grad for value in result.parameters()) == 7


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0] * self.weight + self.fc(x)


def test_new_weights() -> None:
    model = Own()
    rule = "reset MultiheadAttention | Linear"
    one = rewritten(model, rule)
    torch.randn(3)  # what is drawn in between is no matter
    two = rewritten(model, rule)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key
    for key in ("attention.in_proj_weight", "attention.out_proj.weight", "fc.weight"):
        assert not torch.equal(one.state_dict()[key], model.state_dict()[key])
    other = rewritten(model, rule, seed=1)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    refused("RW320", model, "reset any", "has no `reset_parameters`")
    result = rewritten(model, "reset any with zeros")
    assert not any(value.any() for value in result.parameters())


@pytest.mark.parametrize("norm", [torch.nn.utils.spectral_norm, torch.nn.utils.parametrizations.spectral_norm])
def test_a_frozen_spectral_norm_stands_still(norm: Callable[[nn.Module], nn.Module]) -> None:
    """In training it goes on looking for the largest singular value, and its weight with it."""
    model, x = nn.Sequential(norm(nn.Linear(4, 4)), nn.ReLU()), torch.randn(2, 4)
    result = rewritten(model, "freeze any").train()
    before = copy.deepcopy(result.state_dict())
    first = result(x)
    assert torch.equal(result(x), first)
    assert all(torch.equal(value, before[key]) for key, value in result.state_dict().items())
    assert warned(rewritten(model, "freeze params any")) == ["RW406"]
    moving = rewritten(result, "unfreeze any").train()
    moving(x)
    assert not all(torch.equal(value, before[key]) for key, value in moving.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(
    "norm",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
    ids=["parametrized", "weight norm of old", "spectral norm of old", "pruned"],
)
def test_new_weights_that_others_are_computed_from(norm: Callable[[nn.Module], nn.Module]) -> None:
    """`reset_parameters` draws the computed weight: what it is computed from would hold whatever was in memory."""
    model, x = nn.Sequential(norm(nn.Linear(4, 4))).eval(), torch.randn(2, 4)
    refused("RW320", model, "reset Linear", "Linear) computes its weight from other parameters")
    result = rewritten(model, "reset Linear with uniform(a=0.5, b=1)")
    assert all(value.min() >= 0.5 and value.max() <= 1 for value in result.parameters())
    assert result(x).isfinite().all()
    with torch.no_grad():
        wanted = model(x)
    result = rewritten(model, "wrap Linear with LoRA(rank=1)\nfreeze any except LoRA")
    assert torch.equal(result(x), wanted)
    result = rewritten(model, "replace Linear with Linear(bias=false)")
    assert list(result.state_dict()) == ["0.weight"]
    folded = nn.Sequential(model[0], nn.BatchNorm1d(4)).eval()
    refused("RW320", folded, "fold BatchNorm1d into Linear", "computed from other parameters")


HEADS: dict[str, Callable[[], nn.Module]] = {
    "fc": lambda: nn.Linear(4, 5),
    "classifier": lambda: nn.Linear(4, 5),
    "classifier.6": lambda: nn.Sequential(*[nn.Identity()] * 6, nn.Linear(4, 5)),
    "classifier.1": lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 5)),
    "heads.head": lambda: nn.Sequential(),
    "head": lambda: nn.Linear(4, 5),
    "head.fc": lambda: nn.Sequential(),
    "last_linear": lambda: nn.Linear(4, 5),
}


@pytest.mark.parametrize("path", HEADS)
@pytest.mark.parametrize("classes", [5, 10])
def test_a_new_head_wherever_it_hangs(path: str, classes: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)
            name, _, inner = path.partition(".")
            head = HEADS[path]()
            if inner and not len(head):
                head.add_module(inner, nn.Linear(4, 5))
            setattr(self, name, head)
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            return getattr(self, self.name)(self.body(x).relu())

    model = Net().eval()
    result = rewritten(model, f"replace last Linear with Linear(out_features={classes})\nexpect output (_, {classes})")
    head = result.get_submodule(path)
    assert (head.in_features, head.out_features) == (4, classes)
    assert result(torch.randn(2, 4)).shape == (2, classes)
    assert torch.equal(head.weight, model.get_submodule(path).weight) == (classes == 5)
    assert set(result.state_dict()) == set(model.state_dict())


def test_a_head_that_is_a_convolution_and_two_heads() -> None:
    squeeze = nn.Sequential(
        conv(), nn.Sequential(nn.Dropout(), conv(4, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), nn.Flatten()
    )
    result = rewritten(
        squeeze, "replace last Conv2d with Conv2d(out_channels=3)\nexpect output (_, 3)", example_inputs=image()
    )
    assert result[1][1].kernel_size == (1, 1)
    assert result.eval()(image()).shape == (2, 3)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.body(x)
            return self.a(x), self.b(x)

    result = rewritten(Two(), 'replace "{a,b}" with Linear(out_features=3)\nexpect output (_, 3)')
    assert [tuple(y.shape) for y in result(torch.randn(2, 4))] == [(2, 3), (2, 3)]


def test_an_optimizer_goes_on_with_the_parameters_that_are_kept() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv())
    optimizer = torch.optim.Adam(model.parameters())
    model(image()).sum().backward()
    optimizer.step()
    result = rewritten(model, "after Conv2d: insert BatchNorm2d\nreplace last Conv2d with Conv2d(bias=false)")
    kept = [value for value in result.parameters() if value in optimizer.state]
    assert [key for key, value in result.named_parameters() if value in optimizer.state] == ["0.weight", "0.bias"]
    new = [value for value in result.parameters() if value not in optimizer.state]
    optimizer.param_groups[0]["params"] = kept
    optimizer.add_param_group({"params": new})
    result(image()).sum().backward()
    optimizer.step()
    assert {int(optimizer.state[value]["step"]) for value in kept} == {2}


class Listens(nn.Module):
    """Hooks its own method to a child, and uses what that hears."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.heard: Tensor | None = None
        self.inner.register_forward_hook(self.hear)

    def hear(self, _: nn.Module, inputs: object, output: Tensor) -> None:
        self.heard = output

    def forward(self, x: Tensor) -> Tensor:
        x, heard, self.heard = self.inner(x), self.heard, None
        assert heard is not None
        return x + heard


@pytest.mark.parametrize("rule", ["freeze any", "after Linear: insert Identity"])
def test_a_hook_hears_its_own_model_while_the_result_is_checked(rule: str) -> None:
    model, x = Listens(), torch.ones(2, 4)
    assert torch.equal(rewritten(model, rule, example_inputs=x)(x), model(x))


def test_hooks_fire_as_often_as_before() -> None:
    fired: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: fired.append(name)

    model = nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv()).eval()
    for path, module in [("root", model), ("inner", model[0]), ("leaf", model[0][0]), ("last", model[1])]:
        module.register_forward_hook(note(f"{path} behind"))
        module.register_forward_pre_hook(note(f"{path} ahead"))
        module.register_full_backward_hook(note(f"{path} back"))
    model._register_state_dict_hook(lambda *_: fired.append("state"))
    text = "after Conv2d: insert Identity\nafter ReLU: insert Tanh\nfreeze Conv2d\nunfreeze Conv2d"
    result = rewritten(model, text)
    assert fired.count("leaf ahead") == 0
    fired.clear()
    model(image().requires_grad_()).sum().backward()
    model.state_dict()
    wanted = list(fired)
    fired.clear()
    result(image().requires_grad_()).sum().backward()
    result.state_dict()
    assert sorted(fired) == sorted(wanted)
    handle = result[0].register_forward_hook(note("new"))
    fired.clear()
    model(image())
    assert "new" not in fired
    handle.remove()


class Custom(nn.Module):
    kind = "custom"

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.config = {"width": width}
        self.transform_input = False
        self.conv, self.fc = conv(width, width), nn.Linear(width, 3)
        self.labels = ("a", "b", "c")

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))

    def predict(self, x: Tensor) -> list[str]:
        return [self.labels[number] for number in self(x).argmax(1).tolist()]

    @property
    def width(self) -> int:
        return self.config["width"]


def test_attributes_and_methods() -> None:
    model, x = Custom().eval(), image()
    result = rewritten(model, "after Conv2d: insert Dropout(0.1)\nafter Linear: insert Tanh")
    assert isinstance(result, Custom)
    assert type(result).__name__ == "Custom"
    assert (result.config, result.labels, result.width, result.kind) == (model.config, model.labels, 4, "custom")
    assert result.transform_input is False
    assert result.predict(x) == model.predict(x)
    assert sites(result) == ["conv"]
    result.config["width"] = 5
    assert warned(result) == []
