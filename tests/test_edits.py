"""Each edit by itself, without a rule: what the written model computes, holds and is called."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewrite.backends.backend import Difference, Example
from rewrite.backends.torch.backend import TorchBackend, TorchReading
from rewrite.backends.torch.own_layers import LoRA
from rewrite.edit import Edit, Insert, Move, NewLayer, Remove, Replace, Update
from rewrite.errors import RewriteError
from rewrite.graph import Layer, Node
from rewrite.sketch import Sketch, Step
from rewrite.source import Source, Span

BACKEND = TorchBackend()
SPAN = Span(Source("<rules>", "here"), 1, 1, 4)


def new(operation: str, *arguments: object, share: str = "", wraps: bool = False, **keywords: object) -> NewLayer:
    return NewLayer(operation, None, arguments, keywords, operation, SPAN, wraps=wraps, share=share)


def given(name: str, *arguments: object, wraps: bool = False) -> NewLayer:
    return NewLayer(None, name, arguments, {}, name, SPAN, wraps=wraps)


class Model:
    """A model as it was read, with its calls and layers by name."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        self.model = model
        self.reading: TorchReading = BACKEND.read(model, **options)
        self.state = {key: value.clone() for key, value in model.state_dict().items()}
        self.facts = [(path, id(module), type(module), module.training) for path, module in model.named_modules()]
        self.learns = [parameter.requires_grad for parameter in model.parameters()]

    def call(self, name: str, which: int = 0) -> Node:
        return [node for node in self.reading.graph.nodes if name in (node.name, node.local)][which]

    def layer(self, path: str) -> Layer:
        return self.reading.graph.layers[path]

    def write(self, *edits: Edit, modules: dict[str, Callable[..., nn.Module]] | None = None) -> nn.Module:
        written = BACKEND.write(self.reading, edits, modules or {}, 0)
        self.names = written.names
        self.check_untouched()
        local = any("<locals>" in type(module).__qualname__ for module in self.model.modules())
        twins = [copy.deepcopy(written.model)]
        if not local and not modules:
            twins.append(pickle.loads(pickle.dumps(written.model)))
        assert all(list(twin.state_dict()) == list(written.model.state_dict()) for twin in twins)
        return written.model  # type: ignore[no-any-return]

    def refuse(self, code: str, *edits: Edit, modules: dict[str, Callable[..., nn.Module]] | None = None) -> str:
        with pytest.raises(RewriteError) as found:
            BACKEND.write(self.reading, edits, modules or {}, 0)
        self.check_untouched()
        (diagnostic,) = found.value.diagnostics
        assert diagnostic.code == code, diagnostic.render()
        assert diagnostic.help
        assert diagnostic.message[0].islower() or diagnostic.message[0] == "`"
        return diagnostic.render()

    def check_untouched(self) -> None:
        model = self.model
        assert self.facts == [(path, id(m), type(m), m.training) for path, m in model.named_modules()]
        assert self.learns == [parameter.requires_grad for parameter in model.parameters()]
        for key, value in model.state_dict().items():
            assert torch.equal(value, self.state[key])


def keys(model: nn.Module) -> list[str]:
    return list(model.state_dict())


class Residual(nn.Module):
    """conv -> bn -> relu -> conv2, added to the first value, then relu by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        nn.init.uniform_(self.bn.running_mean)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv(x)
        y = self.conv2(self.act(self.bn(first)))
        return F.relu(y + first)


def list_model() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
    nn.init.uniform_(model[1].running_mean)
    return model.eval()


X = torch.linspace(-2, 2, 2 * 4 * 5 * 5).view(2, 4, 5, 5)


# ---- wraps


class Scaled(nn.Module):
    """A wrapper of a stranger, with manners of its own."""

    def __init__(self, inner: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.inner = inner
        self.factor = nn.Parameter(torch.tensor(factor))
        for parameter in inner.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor


def test_a_layer_is_wrapped_at_its_path() -> None:
    model = Model(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).double().eval())
    written = model.write(Replace(model.layer("0"), (new("LoRA", rank=2, wraps=True),)))
    assert keys(written) == ["0.lora_A", "0.lora_B", "0.base_layer.weight", "0.base_layer.bias"]
    assert model.names[0] == ["0"]
    assert written[0].base_layer.weight is model.model[0].weight
    assert written[0].lora_A.dtype == torch.float64
    assert not written[0].training
    x = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(written(x), model.model(x))


def test_a_wrapped_layer_keeps_mode_dtype_and_whether_it_learns() -> None:
    net = nn.Sequential(nn.Linear(4, 4).half(), nn.ReLU())
    net.eval()
    net[0].training = True
    model = Model(net)
    written = model.write(Replace(model.layer("0"), (given("Scaled", 2.0, wraps=True),)), modules={"Scaled": Scaled})
    assert written[0].inner.weight.dtype == written[0].factor.dtype == torch.float16
    assert written[0].inner.training
    assert not written[0].inner.weight.requires_grad, "as its constructor says"
    assert net[0].weight.requires_grad, "the given model is as it was"


def test_wrapping_twice() -> None:
    model = Model(nn.Sequential(nn.Linear(3, 3)))
    wrap = Replace(model.layer("0"), (new("LoRA", rank=1, wraps=True),))
    written = model.write(wrap, wrap)
    assert isinstance(written[0].base_layer, LoRA)
    assert written[0].base_layer.base_layer.weight is model.model[0].weight
    again = Model(written)
    thrice = again.write(Replace(again.layer("0"), (new("LoRA", rank=1, wraps=True),)))
    x = torch.randn(2, 3)
    assert torch.equal(thrice(x), model.model(x))


def test_a_wrapped_alias_is_one_wrapper() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    model = Model(Tied())
    written = model.write(Replace(model.layer("a"), (new("LoRA", rank=1, wraps=True),)))
    assert written.a is written.b
    assert torch.equal(written(X[..., :3]), model.model(X[..., :3]))


def test_what_lies_in_a_wrapped_block_is_still_reached() -> None:
    model = Model(nn.Sequential(Residual().eval()))
    written = model.write(
        Replace(model.layer("0"), (given("Scaled", 1.0, wraps=True),)),
        Insert(model.call("0.bn"), None, (new("Identity"),)),
        Update(model.layer("0.conv2"), {"trainable": False}),
        modules={"Scaled": Scaled},
    )
    assert "0.inner.bn_identity" in dict(written.named_modules())
    assert model.names[1] == ["0.inner.bn_identity"]
    assert not written[0].inner.conv2.weight.requires_grad
    assert torch.equal(written(X), model.model(X))


def test_a_wrapper_may_return_what_it_was_given() -> None:
    model = Model(nn.Sequential(nn.Linear(3, 3)))
    written = model.write(
        Replace(model.layer("0"), (given("norm", wraps=True),)),
        modules={"norm": nn.utils.parametrizations.weight_norm},
    )
    assert "0.parametrizations.weight.original0" in keys(written)
    torch.testing.assert_close(written(X[..., :3]), model.model(X[..., :3]))


def test_what_cannot_be_wrapped() -> None:
    def overwrites(inner: nn.Module) -> nn.Module:
        with torch.no_grad():
            inner.weight.zero_()  # type: ignore[operator,union-attr]
        return inner

    model = Model(Residual())
    text = model.refuse(
        "RW320", Replace(model.call("relu"), (given("Scaled", wraps=True),)), modules={"Scaled": Scaled}
    )
    assert "cannot be wrapped" in text
    assert "<rules>:1:1" in text
    text = model.refuse("RW106", Replace(model.layer("act"), (new("LoRA", wraps=True),)))
    assert "not a ReLU" in text
    edit = Replace(model.layer("conv"), (given("overwrites", wraps=True),))
    model.refuse("RW320", edit, modules={"overwrites": overwrites})
    model.refuse("RW320", Replace(model.layer(""), (given("Scaled", wraps=True),)), modules={"Scaled": Scaled})


def test_wrapping_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = Model(nn.Sequential(nn.Linear(4, 4)))
    written = BACKEND.write(model.reading, [Replace(model.layer("0"), (new("LoRA", wraps=True),))], {}, 0).model
    assert written[0].lora_A.is_meta


# ---- share


def test_shared_layers_are_one_layer() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = Residual(), Residual()

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    model = Model(Two())
    adapter = new("Linear", 5, 5, share="adapter")
    places = ["left.conv", "left.conv2", "right.conv"]
    written = model.write(*(Insert(model.call(place), None, (adapter,)) for place in places))
    assert written.left.conv_linear is written.right.conv_linear
    assert [model.names[n] for n in range(3)] == [["left.conv_linear"], ["left.conv_linear"], ["right.conv_linear"]]
    assert not hasattr(written.left, "conv2_linear")
    seen: list[object] = []
    written.left.conv_linear.register_forward_hook(lambda *_: seen.append(1))
    written(X)
    assert len(seen) == 3


def test_shared_layers_in_a_list_are_entries_of_one_layer() -> None:
    model = Model(list_model())
    adapter = new("Conv2d", 4, 4, 1, share="one")
    edits = [Insert(model.call("0"), None, (adapter,)), Insert(model.call("3"), 0, (adapter,))]
    written = model.write(*edits, Replace(model.call("2"), (new("PReLU", share="two"),)))
    assert list(dict(written.named_children())) == ["0", "0_conv2d", "1", "2", "3"]
    assert list(written._modules) == ["0", "0_conv2d", "1", "2", "before_3_conv2d", "3"]
    assert written._modules["0_conv2d"] is written._modules["before_3_conv2d"]


# ---- replaced parts


def test_a_part_is_replaced_by_its_inputs() -> None:
    model = Model(Residual().eval())
    calls = [model.call(name) for name in ("conv", "bn", "act", "conv2")]
    edit = Replace(calls[3], (new("Conv2d", 4, 4, 1),), inputs=(calls[0],), unused=tuple(calls[1:3]))
    written = model.write(edit)
    assert list(written._modules) == ["conv", "conv2_conv2d"]
    first = written.conv(X)
    assert torch.equal(written(X), F.relu(written.conv2_conv2d(first) + first))


def test_what_is_used_elsewhere_stays() -> None:
    model = Model(Residual().eval())
    calls = [model.call(name) for name in ("conv", "bn", "act", "conv2", "add", "relu")]
    edit = Replace(calls[3], (new("Identity"),), inputs=(calls[1],), unused=(calls[0], calls[1], calls[2]))
    written = model.write(edit)
    assert list(written._modules) == ["conv", "bn", "conv2_identity"]
    first = written.conv(X)
    assert torch.equal(written(X), F.relu(written.bn(first) + first))


def test_a_part_with_several_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - 2 * b

    model = Model(Residual().eval())
    names = ("conv", "conv2", "add", "relu")
    conv, conv2, add, relu = (model.call(name) for name in names)
    edit = Replace(relu, (given("Sum"), new("Identity")), inputs=(conv2, conv), unused=(add,))
    written = model.write(edit, modules={"Sum": Sum})
    old = model.model
    first = old.conv(X)
    assert torch.equal(written(X), old.conv2(F.relu(old.bn(first))) - 2 * first)


def test_a_layer_takes_other_inputs_at_its_path() -> None:
    model = Model(Residual().eval())
    conv, bn, act, conv2 = (model.call(name) for name in ("conv", "bn", "act", "conv2"))
    edit = Replace(model.layer("conv2"), (new("Conv2d", 4, 4, 3, padding=1),), (conv2,), (conv,), (bn, act))
    written = model.write(edit)
    assert list(written._modules) == ["conv", "conv2"]
    assert written.conv2.weight is model.model.conv2.weight
    first = written.conv(X)
    assert torch.equal(written(X), F.relu(written.conv2(first) + first))


def test_a_value_that_leaves_an_inner_module() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
            self.bn = nn.BatchNorm2d(4)
            self.last = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.bn(self.stem(x)))

    model = Model(Outer().eval())
    inner, last, bn = model.call("stem.1"), model.call("last"), model.call("bn")
    written = model.write(Replace(last, (new("Identity"),), inputs=(inner,), unused=(bn,)))
    assert torch.equal(written(X), model.model.stem(X))
    model = Model(Outer().eval())
    text = model.refuse("RW320", Replace(model.call("last"), (new("Identity"),), inputs=(model.call("stem.0"),)))
    assert "not at hand" in text


def test_a_part_within_a_list() -> None:
    model = Model(list_model())
    conv, bn, relu, last = (model.call(str(n)) for n in range(4))
    written = model.write(Replace(relu, (new("GELU"),), inputs=(conv,), unused=(bn,)))
    assert list(written._modules) == ["0", "2", "3"]
    assert torch.equal(written(X), model.model[3](F.gelu(model.model[0](X))))
    model = Model(list_model())
    conv, bn, relu, last = (model.call(str(n)) for n in range(4))
    model.refuse("RW320", Replace(last, (new("GELU"),), inputs=(conv,), unused=(relu,)))
    model.refuse("RW320", Replace(last, (new("GELU"),), inputs=(conv, bn), unused=(relu,)))


def test_a_value_that_comes_later_is_refused() -> None:
    model = Model(Residual())
    edit = Replace(model.call("act"), (new("Identity"),), inputs=(model.call("conv2"),))
    assert "made behind it" in model.refuse("RW315", edit)


def test_layers_read_without_a_call_stay() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.b(self.a(x)), self.a.weight)

    model = Model(Reads())
    written = model.write(Replace(model.call("b"), (new("Identity"),), unused=()), Remove(model.call("a")))
    assert list(written._modules) == ["a", "b_identity"]
    x = torch.randn(2, 4)
    assert torch.equal(written(x), F.linear(x, model.model.a.weight))


# ---- remove


def test_the_input_that_goes_on() -> None:
    model = Model(Residual().eval())
    conv = model.model.conv
    assert torch.equal(model.write(Remove(model.call("add"), 1))(X), F.relu(conv(X)))
    model = Model(Residual().eval())
    old = model.model
    expected = F.relu(old.conv2(F.relu(old.bn(old.conv(X)))))
    assert torch.equal(model.write(Remove(model.call("add"), 0))(X), expected)


def test_a_bypass_lets_nobody_overwrite_what_is_read() -> None:
    model = Model(Residual().eval())
    written = model.write(Remove(model.call("bn")))
    first = model.model.conv(X)
    assert torch.equal(written(X), F.relu(model.model.conv2(F.relu(first)) + first))
    assert not written.act.inplace
    written(X).sum().backward()
    assert model.model.act.inplace


def test_what_is_gone_takes_no_edit() -> None:
    for make, name in ((Residual, "bn"), (list_model, "1")):
        model = Model(make())
        text = model.refuse("RW320", Remove(model.call(name)), Insert(model.call(name), None, (new("Identity"),)))
        assert "no longer there" in text


# ---- move


def expected_move(model: nn.Module) -> Tensor:
    first = model.conv(X)
    return F.relu(model.bn(model.conv2(F.relu(first))) + first)


@pytest.mark.parametrize(
    "edit",
    [
        lambda model: Move(model.call("bn"), "after", model.call("conv2")),
        lambda model: Move(model.call("bn"), "before", model.call("add"), 0),
    ],
)
def test_a_call_moves_in_a_graph(edit: Callable[[Model], Edit]) -> None:
    model = Model(Residual().eval())
    written = model.write(edit(model))
    assert keys(written) == keys(model.model)
    assert torch.equal(written(X), expected_move(model.model))
    assert not written.act.inplace, "what it would overwrite is added later"


def test_a_function_moves_with_its_arguments() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = nn.Conv2d(4, 4, 1), nn.Parameter(torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return F.leaky_relu(torch.mul(y, self.scale), 0.2)

    model = Model(Scales())
    conv = model.model.conv
    written = model.write(Move(model.call("leaky_relu"), "before", model.call("conv")))
    assert torch.equal(written(X), conv(F.leaky_relu(X, 0.2)) * 3)
    model = Model(Scales())
    written = model.write(Move(model.call("mul"), "before", model.call("conv")))
    assert torch.equal(written(X), F.leaky_relu(model.model.conv(X * 3), 0.2))


def test_a_move_to_where_it_is_changes_nothing() -> None:
    for side, anchor in (("after", "bn"), ("before", "conv2")):
        model = Model(Residual().eval())
        written = model.write(Move(model.call("act"), side, model.call(anchor)))
        assert type(written) is Residual
        assert written.act.inplace


def test_an_activation_moves_behind_what_was_inserted() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.pool = nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.pool(self.conv(x)))

    model = Model(Plain().eval())
    insert = Insert(model.call("conv"), None, (new("BatchNorm2d", 4, affine=False),))
    written = model.write(insert, Move(model.call("act"), "after", model.call("conv")))
    assert torch.equal(written(X), written.pool(F.relu(written.conv_batchnorm2d(written.conv(X)))))


@pytest.mark.parametrize("inplace", ["module", "method", "function", "flag"])
def test_what_moves_overwrites_nothing_that_is_read(inplace: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.sigmoid(x)
            z = self.conv(y)
            if inplace == "module":
                z = self.act(z)
            elif inplace == "method":
                z = z.relu_()
            elif inplace == "function":
                z = torch.relu_(z)
            else:
                z = F.relu(z, True)
            return z + y

    model = Model(Net().eval())
    act = next(node for node in model.reading.graph.nodes if node.operation == "ReLU")
    written = model.write(Move(act, "before", model.call("conv")))
    x, y = X - 0.5, torch.sigmoid(X - 0.5)
    assert torch.equal(written(x), model.model.conv(F.relu(y)) + y)
    written(x.requires_grad_()).sum().backward()


def test_entries_of_a_list_move() -> None:
    model = Model(list_model())
    written = model.write(Move(model.call("2"), "before", model.call("1")))
    assert list(written._modules) == ["0", "2", "1", "3"]
    old = model.model
    assert torch.equal(written(X), old[3](old[1](F.relu(old[0](X)))))
    model = Model(list_model())
    insert = Insert(model.call("0"), None, (new("Identity"),))
    written = model.write(insert, Move(model.call("2"), "after", model.call("0")))
    assert list(written._modules) == ["0", "0_identity", "2", "1", "3"]
    model = Model(list_model())
    insert = Insert(model.call("2"), None, (new("Identity"),))
    written = model.write(insert, Move(model.call("2"), "before", model.call("0")))
    assert list(written._modules) == ["2", "0", "1", "2_identity", "3"]
    x = X.clone()
    written(x)
    assert torch.equal(x, X), "the first entry leaves the model's input alone"


def test_what_cannot_move() -> None:
    model = Model(nn.Sequential(Residual(), nn.ReLU()))
    text = model.refuse("RW320", Move(model.call("0.bn"), "after", model.call("1"), span=SPAN))
    assert "in that of" in text
    model = Model(Residual())
    # the sum needs a value that is made from the anchor's
    text = model.refuse("RW315", Move(model.call("add"), "before", model.call("conv"), span=SPAN))
    assert "made only later" in text


# ---- fold


def test_a_normalisation_is_folded() -> None:
    model = Model(list_model().double())
    edit = Update(model.layer("0"), {"fold": model.layer("1")}, span=SPAN)
    written = model.write(edit, Remove(model.call("1")))
    x = X.double()
    torch.testing.assert_close(written(x), model.model(x), rtol=1e-12, atol=1e-12)
    assert list(written._modules) == ["0", "2", "3"]


def test_a_fold_keeps_what_learns() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    net[0].weight.requires_grad_(False)
    model = Model(net)
    written = model.write(Update(model.layer("0"), {"fold": model.layer("1")}), Remove(model.call("1")))
    assert [value.requires_grad for value in written.parameters()] == [False, False]
    torch.testing.assert_close(written(X), net(X))


def test_what_a_fold_refuses() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)).eval()
    net[2].weight = net[0].weight
    model = Model(net)
    text = model.refuse("RW313", Update(model.layer("0"), {"fold": model.layer("1")}, span=SPAN))
    assert "those of `2` too" in text
    model = Model(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)))
    text = model.refuse("RW317", Update(model.layer("1"), {"fold_ahead": model.layer("0")}, span=SPAN))
    assert "cannot fold `0` into `1`" in text
    assert "<rules>:1:1" in text


# ---- leaves


def test_a_leaf_is_one_call() -> None:
    model = Model(nn.Sequential(Residual(), Residual()), leaves=frozenset({"0"}))
    names = [node.name for node in model.reading.graph.nodes]
    assert "0.conv" not in names
    assert "1.conv" in names
    call = model.call("0")
    assert not call.composite
    assert "is a leaf" in model.layer("0.conv").uncallable
    written = model.write(Insert(call, None, (new("Identity"),)))
    assert list(written._modules) == ["0", "0_identity", "1"]
    again = BACKEND.read(written, before=model.reading, leaves=frozenset({"0"}))
    assert "0.conv" not in [node.name for node in again.graph.nodes]
    plain = BACKEND.read(written, before=again)
    assert "0.conv" in [node.name for node in plain.graph.nodes]


def test_a_leaf_in_a_graph_is_replaced() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.conv = Residual(), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.block(x)) + x

    model = Model(Outer().eval(), leaves=frozenset({"block"}))
    written = model.write(Replace(model.layer("block"), (new("Identity"),), (model.call("block"),)))
    assert torch.equal(written(X), model.model.conv(X) + X)
    model = Model(Residual(), leaves=frozenset({""}))
    assert [node.name for node in model.reading.graph.nodes] == [""]


def test_lora_is_looked_into() -> None:
    model = Model(nn.Sequential(LoRA(nn.Linear(4, 4), rank=2, dropout=0.1)))
    found = {node.name: node.operation for node in model.reading.graph.nodes}
    assert found["0"] == "LoRA"
    assert found["0.base_layer"] == "Linear"
    assert list(found.values()).count("Linear") == 1, "its own products are not layers"
    layer = model.layer("0")
    assert (layer.parameters, layer.trainable) == (16, 16)
    assert layer.children == ("0.base_layer", "0.lora_dropout")
    written = model.write(Insert(model.call("0.base_layer"), None, (new("Identity"),)))
    x = torch.randn(2, 4)
    assert torch.equal(written.eval()(x), model.model.eval()(x))


# ---- compare, assemble


def compared(one: nn.Module, other: nn.Module, *args: Any) -> Difference:
    return BACKEND.compare(one, other, Example(args))


def test_equal_models_compare_equal() -> None:
    model = Residual()
    model.bn.eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    found = compared(model, copy.deepcopy(model), X)
    assert found.is_rounding
    assert found.error == 0
    assert found.allowed > 0
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_rounding_is_told_from_a_difference() -> None:
    for dtype, small, large in ((torch.float64, 1e-13, 1e-6), (torch.float32, 1e-6, 1e-2), (torch.bfloat16, 0, 0.5)):
        model = nn.Linear(4, 4).to(dtype)
        near, far = copy.deepcopy(model), copy.deepcopy(model)
        with torch.no_grad():
            near.bias += small
            far.bias += large
        x = torch.ones(2, 4, dtype=dtype)
        assert compared(model, near, x).is_rounding
        assert not compared(model, far, x).is_rounding


class Returns(nn.Module):
    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.seen += 1
        return self.make(x)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda x: {"a": x, "b": (x, 1)}, ""),
        (lambda x: {"a": x, "b": (x,)}, "nested differently"),
        (lambda x: {"a": x[:1], "b": (x, 1)}, "shape"),
        (lambda x: {"a": x.double(), "b": (x, 1)}, "float64"),
        (lambda x: {"a": x, "b": (x, "1")}, "a int has become a str"),
    ],
)
def test_structure_counts(other: Callable[[Tensor], Any], reason: str) -> None:
    model, written = Returns(lambda x: {"a": x, "b": (x, 1)}), Returns(other)
    written.seen = model.seen
    found = compared(model, written, torch.tensor([1.0, float("nan"), float("inf")]))
    assert reason in found.reason
    assert found.is_rounding == (not reason)
    assert model.seen == 0


def test_nan_on_one_side_is_a_difference() -> None:
    found = compared(Returns(lambda x: x), Returns(lambda x: x / 0 * 0), torch.ones(2))
    assert found.error == float("inf")


def test_random_numbers_are_the_same() -> None:
    model = Returns(lambda x: torch.rand_like(x))
    before = torch.random.get_rng_state()
    assert compared(model, copy.deepcopy(model), torch.ones(3)).error == 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_numbers_no_comparison() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 4)
    for one, args in ((model, (torch.ones(2, 4),)), (nn.Linear(4, 4), (torch.ones(2, 3),))):
        with pytest.raises(RewriteError) as found:
            compared(one, one, *args)
        assert found.value.code == "RW203"


def sketch(steps: Sequence[Step], *outputs: str) -> Sketch:
    return Sketch(("x",), tuple(steps), outputs)


def test_a_sketch_becomes_a_model() -> None:
    drawn = sketch(
        [
            Step("conv", new("Conv2d", 4, 4, 3, padding=1), None, ("x",)),
            Step("relu", None, "ReLU", ("conv",)),
            Step("add", None, "add", ("relu", "x")),
            Step("cat", None, "cat", ("add", "conv")),
            Step("drop", None, "Dropout", ("cat",)),
        ],
        "drop",
    )
    model, twin = BACKEND.assemble(drawn, {}), BACKEND.assemble(drawn, {})
    first = model.conv(X)
    assert torch.equal(model(X), torch.cat([F.relu(first) + X, first], 1))
    assert torch.equal(model(X), twin(X))
    read = Model(model)
    assert not read.reading.graph.opaque
    found = [(node.name, node.operation) for node in read.reading.graph.nodes]
    assert found[1:] == [("relu", "ReLU"), ("add", "add"), ("cat", "cat"), ("dropout", "Dropout")]
    assert found[0] == ("conv", "Conv2d")
    written = BACKEND.write(read.reading, [Insert(read.call("conv"), None, (new("Identity"),))], {}, 0).model
    assert torch.equal(written(X), model(X))


@pytest.mark.parametrize(
    ("drawn", "code"),
    [
        (sketch([Step("a", None, "ReLU", ("y",))], "a"), "RW103"),
        (sketch([Step("a", None, "ReLU", ("x",))], "b"), "RW103"),
        (sketch([Step("x", None, "ReLU", ("x",))], "x"), "RW109"),
        (sketch([Step("forward", None, "ReLU", ("x",))], "x"), "RW320"),
        (sketch([Step("a", None, "Conv2d", ("x",))], "a"), "RW106"),
        (sketch([Step("a", new("Conv2d", 4, 4), None, ("x",))], "a"), "RW106"),
    ],
)
def test_what_cannot_be_assembled(drawn: Sketch, code: str) -> None:
    with pytest.raises(RewriteError) as found:
        BACKEND.assemble(drawn, {})
    assert found.value.code == code
