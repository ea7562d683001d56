"""Which calls a rule means, in cases that were met in the field.

| case | test |
| --- | --- |
| six spellings of one activation | here, and `test_traps` on `six_relus` |
| ReLU6 is no ReLU; mixed activations; real networks full of functions | here; `test_torchvision` |
| a subclass with a forward of its own, a composite of torchvision's kind | here; `test_traps` |
| Conv1d to 3d, transposed, lazy, depthwise, 1x1 | here |
| parametrized (weight norm, spectral norm, old and new) and pruned layers | here |
| globs: `layers.1` and `layers.10`, dots, odd names, keywords | here; `test_traps` on `odd_names` |
| nothing matches, one of two, only a part | here |
| first, last, n-th, not in, only in, nested | here |
| overlapping rules, order, exclusion | here |
| overlapping matches of a pattern | here |
| commuted operands, positional and keyword arguments, `add` in all its forms | here |
| a pattern whose middle value is used elsewhere | here |
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import count_calls, order_of_calls
from field import assert_same, conv, image, refused, report_of, rewritten, sites, warned
from torch import Tensor, nn
from torch.nn.utils import prune

from rewrite import Rules, explain_rules


class Spelled(nn.Module):
    """One operation in six spellings, in two modes of overwriting."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.overwriting = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.overwriting(self.layer(x) - 0.1) - 0.1
        x = F.relu(x) - 0.1
        x = torch.relu(x) - 0.1
        x = x.relu() - 0.1
        x = F.relu(x, inplace=True) - 0.1
        return x.relu_()


def explained(model: nn.Module, text: str) -> str:
    return str(explain_rules(model, Rules(text)))


def test_every_spelling_is_one_operation() -> None:
    model, x = Spelled(), image()
    result = rewritten(model, "replace ReLU with GELU")
    assert count_calls(model, x, "ReLU") == 7
    assert (count_calls(result, x, "GELU"), count_calls(result, x, "ReLU")) == (7, 0)


@pytest.mark.parametrize(
    ("spelling", "count"), [("nn.ReLU", 2), ("F.relu", 2), ("torch.relu", 1), ("Tensor.relu", 1), ("Tensor.relu_", 1)]
)
def test_a_spelling_means_that_one_only_and_the_others_are_told(spelling: str, count: int) -> None:
    result = rewritten(Spelled(), f"after {spelling}: insert Tanh")
    assert len(sites(result)) == count_calls(result, image(), "Tanh") == count
    assert "RW405" in warned(result)


def test_a_relative_of_the_operation_is_a_near_miss() -> None:
    model = nn.Sequential(conv(), nn.ReLU6())
    refused("RW301", model, "after ReLU: insert Dropout(0.1)", "ReLU6")
    mixed = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Hardswish(), c=nn.ReLU6(), d=nn.ReLU()))
    result = rewritten(mixed, "after ReLU: insert Dropout(0.1)")
    assert sites(result) == ["a", "d"]
    assert "ReLU6" in explained(mixed, "after ReLU: insert Dropout(0.1)")
    assert sites(rewritten(mixed, "after activation: insert Dropout(0.1)")) == ["a", "b", "c", "d"]


class SamePadding(nn.Conv2d):
    """As timm writes it: a convolution that pads in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Composite(nn.Sequential):
    """As torchvision writes it: a Sequential that makes its own children."""

    def __init__(self, channels: int) -> None:
        super().__init__(conv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.out_channels = channels


def test_a_subclass_with_a_forward_of_its_own_is_one_site() -> None:
    model = nn.Sequential(SamePadding(4, 4, 3), nn.ReLU(), conv()).eval()
    result = rewritten(model, "after Conv2d: insert Identity")
    assert sites(result) == ["0", "2"]
    assert type(result[0]) is SamePadding
    assert_same(model, result, image())
    assert sites(rewritten(model, "after SamePadding: insert Identity")) == ["0"]
    assert sites(rewritten(model, "after nn.Conv2d: insert Identity")) == ["0", "2"]
    assert ".SamePadding)" in explained(model, "after Conv2d: insert Identity")


def test_a_composite_that_makes_its_own_children_stays_what_it_is() -> None:
    model = nn.Sequential(Composite(4), Composite(4)).eval()
    result = rewritten(model, "after Conv2d: insert Identity\nafter Composite: insert Identity")
    assert [len(sites(result, clause)) for clause in (0, 1)] == [2, 2]
    assert isinstance(result[0], Composite)
    assert result[0].out_channels == 4
    assert_same(model, result, image())


class Kinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(36, 36, 3, padding=1)
        self.depthwise = conv(4, 4, 3, groups=4)
        self.pointwise = conv(4, 4, 1)
        self.strided = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.volume = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.strided(self.pointwise(self.depthwise(x))))
        x = self.volume(x.unsqueeze(1)).squeeze(1)
        return self.one(x.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("Conv1d", ["one"]),
        ("Conv2d", ["depthwise", "pointwise", "strided"]),
        ("Conv3d", ["volume"]),
        ("ConvTranspose2d", ["up"]),
        ("conv", ["depthwise", "pointwise", "strided", "up", "volume", "one"]),
        ("Conv2d[kernel_size==1]", ["pointwise"]),
        ("Conv2d[groups>1]", ["depthwise"]),
        ("Conv2d[stride==(2,2), out_channels>=8]", ["strided"]),
        ("conv[kernel_size==3, groups==1]", ["strided", "volume", "one"]),
    ],
)
def test_kinds_and_attributes_of_convolutions(selector: str, found: list[str]) -> None:
    assert sites(rewritten(Kinds(), f"after {selector}: insert Identity")) == found


def test_depthwise_by_a_comparison_of_two_attributes() -> None:
    result = rewritten(Kinds(), "after Conv2d as c where c.groups == c.in_channels and c.groups > 1: insert Identity")
    assert sites(result) == ["depthwise"]


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_layer_is_refused_until_it_has_weights() -> None:
    model = nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 3, padding=1))
    refused("RW504", model, "after ReLU: insert Dropout(0.1)", "`1` (LazyConv2d)", "call the model once")
    model(image(3))
    assert sites(rewritten(model, "after Conv2d: insert BatchNorm2d")) == ["1"]


NORMED: dict[str, Any] = {
    "weight norm": torch.nn.utils.parametrizations.weight_norm,
    "spectral norm": torch.nn.utils.parametrizations.spectral_norm,
    "spectral norm of old": torch.nn.utils.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "orthogonal": torch.nn.utils.parametrizations.orthogonal,
}


@pytest.mark.parametrize("kind", NORMED)
def test_a_layer_whose_weight_is_computed_is_still_that_layer(kind: str) -> None:
    model = nn.Sequential(NORMED[kind](conv()), nn.ReLU(), conv()).eval()
    with torch.no_grad():
        model(image())
    result, x = rewritten(model, "after Conv2d: insert Identity"), image()
    assert sites(result) == ["0", "2"]
    assert list(model.state_dict()) == list(result.state_dict())
    assert torch.equal(model(x), result(x))
    for one in (model, result):
        one.zero_grad()
        one(x).square().sum().backward()
        found = [value.grad.clone() for value in one.parameters()]
        one.zero_grad()
    assert len(found) == len(list(model.parameters()))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_weight_norm_of_old_is_still_that_layer() -> None:
    model = nn.Sequential(torch.nn.utils.weight_norm(conv()), nn.ReLU()).eval()
    result = rewritten(model, "after Conv2d: insert Identity")
    assert sites(result) == ["0"]
    assert torch.equal(model(image()), result(image()))
    x = image()
    with torch.no_grad():
        result[0].weight_g.mul_(2)  # the norm is one tensor, whoever computes with it
    assert torch.equal(model(x), result(x))


@pytest.mark.parametrize("kind", ["weight norm", "pruned", "spectral norm of old"])
def test_freezing_what_a_weight_is_computed_from(kind: str) -> None:
    model = nn.Sequential(NORMED[kind](conv()), nn.ReLU(), conv())
    result = rewritten(model, 'freeze "0.**"')
    assert [key for key, value in result.named_parameters() if value.requires_grad] == ["2.weight", "2.bias"]
    assert all(value.requires_grad for value in model.parameters())


class Numbered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(OrderedDict(fc=nn.Linear(2, 2))) for _ in range(11))
        self.weights_fc = nn.Linear(2, 2)
        self.add_module("layersX1", nn.Linear(2, 2))
        self.add_module("1x-1", nn.Linear(2, 2))
        self.add_module("class", nn.Linear(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        x = getattr(self, "class")(getattr(self, "1x-1")(self.layersX1(x)))
        return self.weights_fc(x)


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("layers.1.*", ["layers.1.fc"]),
        ("layers.1*.fc", ["layers.1.fc", "layers.10.fc"]),
        ("layers.{1,10}.*", ["layers.1.fc", "layers.10.fc"]),
        ("*weight*", ["weights_fc"]),
        ("1x-1", ["1x-1"]),
        ("class", ["class"]),
    ],
)
def test_globs_by_whole_parts_with_dots_as_dots(glob: str, found: list[str]) -> None:
    result = rewritten(Numbered(), f'after "{glob}": insert Tanh')
    assert sites(result) == found
    assert count_calls(result, torch.randn(1, 2), "Tanh") == len(found)


def test_a_rule_that_matches_nothing_or_not_all() -> None:
    model = nn.Sequential(OrderedDict(a=conv(), b=nn.ReLU(), c=conv()))
    refused("RW301", model, "after GELU: insert Dropout(0.1)", "GELU")
    refused("RW201", model, 'after "layer4.conv": insert Dropout(0.1)', "layer4.conv")
    result = rewritten(model, "after ReLU | GELU: insert Dropout(0.1)")
    assert sites(result) == ["b"]
    assert "RW302" in warned(result)
    refused("RW303", model, "after Conv2d:\n    insert BatchNorm2d\n    expect 3 matches", "2 matches", "`a`", "`c`")
    assert sites(rewritten(model, "after GELU:\n    insert Dropout(0.1)\n    expect any matches")) == []
    text = "after Conv2d where has_next(ReLU): insert BatchNorm2d"
    assert sites(rewritten(model, text)) == ["a"]
    assert "c (nn.Conv2d)  where: `has_next(ReLU)` does not hold" in explained(model, text)


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv()
        self.layer3 = nn.Sequential(
            OrderedDict(conv1=conv(), downsample=nn.Sequential(OrderedDict(conv=conv())), conv2=conv())
        )
        self.layer4 = nn.Sequential(OrderedDict(conv1=conv(), downsample=nn.Sequential(OrderedDict(conv=conv()))))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.stem(x)))


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("first Conv2d", ["stem"]),
        ("last Conv2d", ["layer4.downsample.conv"]),
        ("nth(2) Conv2d", ["layer3.conv1"]),
        ("every(2) Conv2d", ["layer3.conv1", "layer3.conv2", "layer4.downsample.conv"]),
        (
            'Conv2d except "layer4.downsample.conv"',
            ["stem", "layer3.conv1", "layer3.downsample.conv", "layer3.conv2", "layer4.conv1"],
        ),
        ('Conv2d except "**.downsample.**"', ["stem", "layer3.conv1", "layer3.conv2", "layer4.conv1"]),
        ('Conv2d in "layer3.**"', ["layer3.conv1", "layer3.downsample.conv", "layer3.conv2"]),
        ('last Conv2d in "layer3.**" except "**.downsample.**"', ["layer3.conv2"]),
        ('Conv2d in "layer3.**" in "**.downsample.**"', ["layer3.downsample.conv"]),
    ],
)
def test_picks_and_places(selector: str, found: list[str]) -> None:
    assert sites(rewritten(Stages(), f"after {selector}: insert Identity")) == found


def test_nested_places_count_anew() -> None:
    result = rewritten(
        Stages(), 'within "layer3" | "layer4": after last Conv2d except "**.downsample.**": insert Identity'
    )
    assert sites(result) == ["layer3.conv2", "layer4.conv1"]
    result = rewritten(Stages(), 'within "layer3": within "layer3.downsample": after first Conv2d: insert Identity')
    assert sites(result) == ["layer3.downsample.conv"]


def test_overlapping_rules_go_in_order() -> None:
    model = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.ReLU()))
    result = rewritten(model, 'replace "a" with Tanh\nreplace ReLU with GELU')
    assert order_of_calls(result, image()) == ["Tanh", "GELU"]
    refused("RW301", model, "replace ReLU with GELU\nreplace ReLU with Tanh", "before the earlier rules")
    result = rewritten(model, 'replace ReLU except "a" with GELU\nreplace ReLU with Tanh')
    assert order_of_calls(result, image()) == ["Tanh", "GELU"]
    result = rewritten(model, "after ReLU: insert Tanh\nafter ReLU: insert Sigmoid")
    assert order_of_calls(result, image()) == ["ReLU", "Sigmoid", "Tanh"] * 2  # the later one is nearer


class Repeated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.relu(torch.relu(torch.relu(x))))


def test_matches_of_a_pattern_do_not_share_a_call() -> None:
    result = rewritten(Repeated(), "replace ReLU -> ReLU with Tanh")
    assert order_of_calls(result, image()) == ["Tanh", "Tanh"]
    assert "RW314" in warned(result)
    result = rewritten(Repeated(), "after ReLU -> ReLU: insert Tanh")
    assert order_of_calls(result, image()) == ["ReLU", *["ReLU", "Tanh"] * 3]


class Commuted(nn.Module):
    """One sum in five forms."""

    def forward(self, x: Tensor) -> Tensor:
        a = x + torch.sigmoid(x)
        b = torch.sigmoid(a) + a
        c = torch.add(b, torch.sigmoid(b))
        d = torch.add(input=torch.sigmoid(c), other=c)
        e = torch.sigmoid(d).add_(d)
        return torch.cat([e, torch.sigmoid(e)], 1) + torch.cat(tensors=(e, torch.sigmoid(e)), dim=1)


def test_operands_in_either_order_and_every_form() -> None:
    model, x = Commuted(), image()
    result = rewritten(model, "between Sigmoid and add: insert Tanh")
    assert len(sites(result)) == count_calls(result, x, "Tanh") == 5
    pinned = rewritten(model, "between Sigmoid and add@1: insert Tanh")
    assert len(sites(pinned)) == 2
    result = rewritten(model, "between Sigmoid and cat: insert Tanh")
    assert len(sites(result)) == 2
    assert sites(rewritten(model, "after cat[dim==1]: insert Tanh")) == ["cat", "cat_1"]


class Literal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x.relu(), x, alpha=2) + F.leaky_relu(x, 0.2) + F.leaky_relu(x, negative_slope=0.01)


def test_literal_arguments_are_attributes() -> None:
    result = rewritten(Literal(), "after LeakyReLU[negative_slope==0.2]: insert Tanh")
    assert len(sites(result)) == 1
    assert sites(rewritten(Literal(), "after LeakyReLU[negative_slope<0.1]: insert Tanh")) == ["leaky_relu_1"]


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(), nn.BatchNorm2d(4), conv()
        self.d = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.d(self.c(self.b(y))) + y


def test_a_value_in_the_middle_that_is_used_elsewhere() -> None:
    model = UsedTwice().eval()
    assert sites(rewritten(model, "after Conv2d -> BatchNorm2d: insert Identity")) == ["a -> b", "c -> d"]
    text = "after Conv2d >> BatchNorm2d: insert Identity"
    assert sites(rewritten(model, text)) == ["c -> d"]
    assert "add" in explained(model, text)
    refused("RW312", model, "replace Conv2d -> BatchNorm2d with Conv2d(kernel_size=1)", "a")
    result = rewritten(model, "replace Conv2d >> BatchNorm2d with Identity")
    assert len(report_of(result).clauses[0].sites) == 1
    assert torch.allclose(result(image()), model.b(model.a(image())) + model.a(image()))
