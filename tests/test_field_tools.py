"""What goes wrong in existing tools: each is shown there, where that is cheap, and does not happen here."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import count_calls
from field import assert_same, conv, image, rewritten, sites, warned
from torch import Tensor, fx, nn
from torch.fx import replace_pattern
from torch.utils.checkpoint import checkpoint


class Single(nn.Module):
    def __init__(self, layer: nn.Module, name: str = "conv") -> None:
        super().__init__()
        self.add_module(name, layer)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


def matches(model: nn.Module, pattern: Any, replacement: Any) -> int:
    return len(replace_pattern(fx.symbolic_trace(model), pattern, replacement))


def test_patterns_by_attribute_name_alone() -> None:
    """`replace_pattern` compares names: a Linear named `conv` is the pattern's Conv2d, a Conv2d named `a` is not."""
    pattern = fx.symbolic_trace(Single(conv()))
    assert matches(Single(nn.Linear(6, 6)), pattern, pattern) == 1
    assert matches(Single(conv(), "a"), pattern, pattern) == 0
    refused = pytest.raises(Exception, match="RW301")
    with refused:
        rewritten(Single(nn.Linear(6, 6)), "after Conv2d: insert Identity")
    assert sites(rewritten(Single(conv(), "a"), "after Conv2d: insert Identity")) == ["a"]


def test_patterns_blind_to_arguments() -> None:
    drop = fx.symbolic_trace(Single(nn.Dropout(0.1), "drop"))
    assert matches(Single(nn.Dropout(0.5), "drop"), drop, drop) == 1
    model = nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.5))
    assert sites(rewritten(model, "after Dropout[p==0.1]: insert Identity")) == ["0"]


class TwoSites(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(torch.relu(self.a(x))))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.new = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.new(x)


def test_one_instance_for_all_matches() -> None:
    traced = fx.symbolic_trace(TwoSites())
    assert len(replace_pattern(traced, lambda x: torch.relu(x), fx.symbolic_trace(Scaled()))) == 2
    assert sum(isinstance(module, nn.PReLU) for module in traced.modules()) == 1
    result = rewritten(TwoSites(), "replace ReLU with PReLU")
    assert sum(isinstance(module, nn.PReLU) for module in result.modules()) == 2
    weights = [value for key, value in result.named_parameters() if value.numel() == 1]
    assert len(weights) == 2


class Forms(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([x, x.sin()], dim=1)
        z = x + torch.sin(x)
        return y, z, torch.cat([x, x, x.sin()], 1)


def test_forms_of_one_call() -> None:
    assert matches(Forms(), lambda x, y: torch.cat([x, y], 1), lambda x, y: torch.cat([x, y], 1)) == 0
    assert matches(Forms(), lambda x: torch.sin(x) + x, lambda x: x) == 0
    assert matches(Forms(), lambda x, y: torch.add(x, y), lambda x, y: torch.mul(x, y)) == 0
    result = rewritten(Forms(), "after cat[dim==1]: insert Identity\nafter add: insert Tanh")
    assert [len(sites(result, clause)) for clause in (0, 1)] == [2, 1]


class SecondConsumer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return torch.relu(y) + y


def test_a_second_consumer_is_told() -> None:
    class Pattern(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.a(x))

    pattern = fx.symbolic_trace(Pattern())
    assert matches(SecondConsumer(), pattern, pattern) == 0  # without a word
    with pytest.raises(Exception, match="RW312"):
        rewritten(SecondConsumer(), "replace Conv2d -> ReLU with Conv2d(kernel_size=1)")


class Dropped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(torch.relu(x), 0.5, training=self.training)


def test_a_flag_for_the_mode() -> None:
    x = image()
    traced = fx.symbolic_trace(Dropped().train()).eval()
    assert not torch.equal(traced(x), traced(x))
    result = rewritten(Dropped().train(), "after ReLU: insert Identity").eval()
    assert torch.equal(result(x), x.relu())


class Tensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.ones(1), persistent=False)
        self.plain = torch.full((1,), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * self.hidden + self.plain


def test_tensors_that_are_not_saved() -> None:
    traced = fx.symbolic_trace(Tensors())
    assert len(traced.state_dict()) == 2
    result = rewritten(Tensors(), "after ReLU: insert Identity")
    assert list(result.state_dict()) == []
    assert isinstance(vars(result)["plain"], Tensor)


class Silent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()
        self.counter = 0


class Guard(Silent):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.a(x)
        return self.b(x) + y


class Saved(Silent):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.a, x, use_reentrant=False) + self.b(x)


class Drawn(Silent):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) + torch.rand(4, 1, 1)


class Counted(Silent):
    def forward(self, x: Tensor) -> Tensor:
        self.counter += 1
        return self.b(self.a(x)) * self.counter


class Aliased(Silent):
    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        z = y
        z += 1
        return y


def differs(model: nn.Module, other: nn.Module, x: Tensor) -> bool:
    """Whether two calls of each give other outputs or other gradients."""
    found = []
    for one in (model, other):
        twin = copy.deepcopy(one)
        torch.manual_seed(1)
        outs = [twin(x) for _ in range(2)]
        sum(out.square().sum() for out in outs).backward()  # type: ignore[union-attr]
        grads = {key: value.grad for key, value in twin.named_parameters()}
        found.append((outs, grads))
    (outs, grads), (others, theirs) = found
    if not all(torch.equal(a, b) for a, b in zip(outs, others, strict=True)):
        return True
    return any((theirs[key] is None) != (grad is None) for key, grad in grads.items())


@pytest.mark.parametrize("kind", [Guard, Drawn, Counted, Aliased])
def test_what_a_trace_changes_without_a_word(kind: type[Silent]) -> None:
    model, x = kind().eval(), image()
    assert differs(model, fx.symbolic_trace(kind().eval().requires_grad_()), x) or kind is Guard
    traced = kind().eval()
    traced.load_state_dict(model.state_dict())
    assert differs(model, fx.symbolic_trace(traced), x)
    result = rewritten(model, "after Conv2d: insert Identity")
    assert sites(result) == ["a", "b"]
    assert not differs(kind_like(kind, model), result, x)


def kind_like(kind: type[Silent], model: nn.Module) -> nn.Module:
    fresh = kind().eval()
    fresh.load_state_dict(model.state_dict())
    return fresh


def test_a_checkpoint_goes_missing_in_a_trace() -> None:
    x, runs = image(), []

    def counted(module: nn.Module) -> int:
        runs.clear()
        twin = copy.deepcopy(module)
        twin.a.register_forward_pre_hook(lambda *_: runs.append(1))
        twin(x).sum().backward()
        return len(runs)

    assert counted(Saved()) == 2  # once on the way, once more when gradients are made
    assert counted(rewritten(Saved(), "after Conv2d: insert Identity")) == 2
    traced = fx.symbolic_trace(Saved())
    runs.clear()
    traced.get_submodule("a").register_forward_pre_hook(lambda *_: runs.append(1))
    traced(x).sum().backward()
    assert len(runs) == 1


def test_a_default_that_is_none() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            x = torch.relu(x)
            return x * mask if mask is not None else x

    x = image()
    traced = fx.symbolic_trace(Masked())
    with pytest.raises(TypeError):
        traced(x)
    assert torch.equal(rewritten(Masked(), "after ReLU: insert Identity")(x), x.relu())


def test_hooks_on_containers_and_the_root() -> None:
    fired: list[str] = []

    def hooked() -> nn.Module:
        model = nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv())
        for path, module in [("root", model), ("container", model[0]), ("leaf", model[1])]:
            module.register_forward_hook(lambda *_, path=path: fired.append(path))
        return model

    traced = fx.symbolic_trace(hooked())
    assert "container" in fired  # on proxies, while it was traced
    fired.clear()
    traced(image())
    assert fired == ["leaf"]
    fired.clear()
    result = rewritten(hooked(), "after ReLU: insert Tanh\nafter Conv2d: insert Identity")
    assert fired == []
    result(image())
    assert fired == ["container", "leaf", "root"]


class Mine(nn.Conv2d):
    """Of a module outside of torch.nn, so a trace looks into it."""


def test_subclasses_and_parametrized_layers() -> None:
    mine = nn.Sequential(Mine(4, 4, 1))
    assert not any(node.op == "call_module" for node in fx.symbolic_trace(mine).graph.nodes)
    assert sites(rewritten(mine, "after Conv2d: insert Identity")) == ["0"]
    normed = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(conv()))
    assert type(normed[0]) is not nn.Conv2d
    assert sites(rewritten(normed, "after Conv2d: insert Identity")) == ["0"]


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux = conv(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.conv(x))
        return (x, self.aux(x.mean((2, 3)))) if self.training else x


def test_auxiliary_heads_keep_their_weights() -> None:
    model = Auxiliary().eval()
    assert not [key for key in fx.symbolic_trace(model).state_dict() if key.startswith("aux")]
    result = rewritten(model, "after ReLU: insert Identity")
    assert result.state_dict().keys() == model.state_dict().keys()
    assert len(result.train()(image())) == 2


def test_names_that_are_keywords() -> None:
    model = nn.Sequential()
    model.add_module("for", conv())
    model.add_module("class", nn.Sequential(nn.ReLU()))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("for", conv())

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(getattr(self, "for")(x))

    with pytest.raises(SyntaxError):
        fx.symbolic_trace(Net())
    for one in (model.eval(), Net().eval()):
        result = rewritten(one, "after Conv2d: insert Identity\nafter ReLU: insert Tanh")
        assert "for" in dict(result.named_children())
        assert torch.equal(result(image()), one(image()).tanh())


def test_one_module_under_two_names_of_one_parent() -> None:
    model = nn.Sequential(conv(), nn.ReLU())
    model.add_module("again", model[0])
    assert len(list(model.named_children())) == 2  # a loop over them meets the first name only
    result = rewritten(model, "replace Conv2d with Conv2d(bias=false)")
    assert result[0] is result.again
    assert result.again.bias is None


def test_a_new_layer_is_in_the_mode_of_its_place() -> None:
    model = nn.Sequential(conv(), nn.ReLU()).eval()
    hand = nn.Sequential(model[0], nn.Dropout(0.5), model[1])  # in training mode, as every new layer
    assert not torch.equal(hand(image()), model(image()))
    result = rewritten(model, "after Conv2d: insert Dropout(0.5)")
    assert_same(model, result, image())
    model[0].train()
    assert rewritten(model, "after Conv2d: insert Dropout(0.5)").get_submodule("0_dropout").training
    assert not rewritten(model, "after ReLU: insert Dropout(0.5)").get_submodule("1_dropout").training


def test_a_new_normalisation_is_no_identity_and_is_not_called_one() -> None:
    model, x = nn.Sequential(conv(), nn.ReLU()).eval(), image() * 100
    result = rewritten(model, "after Conv2d: insert BatchNorm2d")
    difference = (result(x) - model(x)).abs().max()
    assert 0 < difference < 1e-2
    with pytest.raises(Exception, match="RW317"):
        rewritten(model, "after Conv2d: insert BatchNorm2d(eps=1e-3)\nexpect equivalent", example_inputs=x)
    rewritten(model, "after Conv2d: insert Dropout(0.5)\nexpect equivalent", example_inputs=x)


def test_what_hands_its_input_on_is_overwritten_by_none_that_was_not() -> None:
    """A Dropout in eval mode is its input: a ReLU in place behind it would overwrite what Sigmoid keeps."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.drop = conv(), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.drop(torch.sigmoid(self.conv(x)).mul(2)), inplace=True)

    model, x = Net().eval(), image()
    result = rewritten(model, "after Sigmoid: insert Dropout(0.5)")
    assert_same(model, result, x)
    assert count_calls(result, x, "Dropout") == 2
    assert warned(result) == []
