"""Functions in forwards that no graph can be made of: found in the code, and changed there."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import operator
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import calls, count_calls
from field import refused, rewritten, sites
from torch import Tensor, nn
from torch.nn.functional import relu as activate

from rewrite import RewriteError, Rules, apply_rules, get_report
from rewrite.backends.torch.code_calls import CodeReader


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)


class Branch(Base):
    """Looks at its data, and calls a method of its own in a loop."""

    def again(self, x: Tensor) -> Tensor:
        return torch.tanh(self.b(x))

    def forward(self, x: Tensor, times: int = 2) -> Tensor:
        x = F.relu(self.a(x))
        x = x.sigmoid() if x.sum() > 0 else F.gelu(input=x)
        for _ in range(times):
            x = self.again(x)
        return x


X = torch.ones(2, 4)


def functions(model: nn.Module) -> list[str]:
    return [call.name for call in CodeReader(model).read(model).calls if call.certain]


def test_functions_and_methods_are_sites_wherever_they_stand() -> None:
    model = Branch().eval()
    result = rewritten(model, "after activation: insert Dropout(0.5)")
    assert sites(result) == ["relu", "sigmoid", "gelu", "tanh"]
    assert [name for name, _ in result.named_children()][2:] == [
        "relu_dropout",
        "sigmoid_dropout",
        "gelu_dropout",
        "tanh_dropout",
    ]
    assert not get_report(result).warnings
    real = sum(call.operation in ("ReLU", "Sigmoid", "GELU", "Tanh") for call in calls(model, (X, 3)))
    assert count_calls(result, (X, 3), "Dropout") == real == 5
    assert torch.equal(result.eval()(X, times=3), model(X, times=3))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch.compile's own, at a break of its graph
def test_the_result_is_like_any_other() -> None:
    model = Branch().eval()
    result = rewritten(model, "after activation: insert Tanh")
    wanted = result(X)
    assert isinstance(result, Branch)
    assert not torch.equal(wanted, model(X))
    assert torch.equal(copy.deepcopy(result)(X), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(result))(X), wanted)
    assert torch.equal(torch.compile(result, backend="eager")(X), wanted)
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), wanted)
    result(X).sum().backward()
    assert all(parameter.grad is not None for parameter in result.parameters())


def test_the_inputs_and_arguments_of_a_function() -> None:
    class Net(Base):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e9:
                return x
            x = F.softmax(input=self.a(x), dim=-1)
            return F.dropout(F.leaky_relu(x, 0.2), 0.4, training=self.training)

    model = Net().eval()
    result = rewritten(model, "before Softmax: insert Tanh")
    assert torch.equal(result(X), F.leaky_relu(F.softmax(torch.tanh(model.a(X)), dim=-1), 0.2))
    result = rewritten(model, "at F.dropout: set self.p=0.7")
    assert "F.dropout(F.leaky_relu(x, 0.2), 0.7, training=self.training)" in inspect.getsource(type(result).forward)
    result = rewritten(result, "at F.dropout[p==0.7]: set self.p=0.0")
    assert torch.equal(result.train()(X), model(X))
    refused("RW301", model, "after Softmax[dim==0]: insert Tanh", "matched nothing")
    result = rewritten(model, "replace LeakyReLU with ReLU")
    assert torch.equal(result(X), F.relu(F.softmax(model.a(X), dim=-1)))
    result = rewritten(model, "remove Softmax")
    assert torch.equal(result(X), F.leaky_relu(model.a(X), 0.2))


def test_rules_on_top_of_rules() -> None:
    model = Branch().eval()
    result = rewritten(
        model,
        "after F.relu: insert Tanh\nremove GELU\nafter F.relu: insert Sigmoid\nreplace torch.tanh with SiLU",
    )
    source = inspect.getsource(type(result).forward)
    assert "self.relu_sigmoid(self.relu_tanh(F.relu(self.a(x))))" in source
    assert "F.gelu" not in source
    assert "self.tanh_silu(self.b(x))" in inspect.getsource(type(result).again)
    assert functions(result) == ["relu", "sum", "sigmoid"]
    refused("RW301", result, "after GELU: insert Tanh", "matched nothing")


def test_sizes_come_from_an_example() -> None:
    model = Branch().eval()
    refused("RW202", model, "after F.relu: insert BatchNorm1d", "cannot be inferred")
    result = rewritten(model, "after F.relu: insert BatchNorm1d", example_inputs=X)
    assert result.relu_batchnorm1d.num_features == 4
    result = rewritten(model, "before torch.tanh: insert LayerNorm", example_inputs=X)
    assert result.before_tanh_layernorm.normalized_shape == (4,)


def test_what_overwrites_its_input() -> None:
    class Net(Base):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e9:
                return x
            x = self.a(x)
            F.relu(x, inplace=True)
            x.sigmoid_()
            x = F.elu(self.b(x), inplace=True)
            y = x
            z = F.selu_(y)  # the name `x` sees that as well
            return x + z

    model = Net().eval()
    assert functions(model) == ["sum", "relu", "sigmoid", "elu", "add"]
    result = rewritten(model, "after activation: insert Tanh")
    x = torch.tanh(torch.relu(model.a(X))).sigmoid()
    x = torch.tanh(F.elu(model.b(torch.tanh(x))))
    x = F.selu(x)
    assert torch.equal(result(X), x + x)
    assert "`selu_`" in str(get_report(result).warnings[0].message)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def around(self: nn.Module, *args: Any) -> Any:
        return function(self, *args) + 1

    return around


def test_decorators_closures_and_parents() -> None:
    class Outer(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x)

    slope = 0.3

    class Net(Outer):
        def __twice(self, x: Tensor) -> Tensor:
            return F.relu(x) * 2

        @torch.no_grad()
        @decorated
        def forward(self, x: Tensor) -> Tensor:
            "Closes over a variable."
            x = self.__twice(super().forward(x))
            return F.leaky_relu(activate(x), slope)

    model = Net().eval()
    assert functions(model) == ["leaky_relu", "relu", "mul", "relu_1"]
    result = rewritten(model, "after activation: insert Tanh")
    x = torch.tanh(F.relu(model.a(X))) * 2
    plain = torch.tanh(F.leaky_relu(torch.tanh(F.relu(x)), slope)) + 1
    assert torch.equal(result(X), plain)
    assert not result(X).requires_grad
    assert type(result).forward.__doc__ == "Closes over a variable."


def test_names_that_stand_for_something_else_are_left_alone() -> None:
    class Tools:
        @staticmethod
        def relu(x: Tensor) -> Tensor:
            return x

    tools = Tools()

    class Net(Base):
        def forward(self, x: Tensor) -> Tensor:
            F = tools
            relu = activate
            if x.sum() > 1e9:
                return x
            return F.relu(relu(self.a(x)))

    model = Net().eval()
    assert functions(model) == ["sum"]
    result = rewritten(model, "after ReLU: insert Tanh; expect any matches")
    assert torch.equal(result(X), model(X))
    assert "`relu` in the forward of `Net` is left out" in get_report(result).warnings[0].message


def test_code_without_its_source_is_told(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    text = "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
    body = "        if x.sum() > 1e9: return x\n        return torch.relu(x)\n"
    file.write_text(text + body)
    space: dict[str, Any] = {"__name__": "changing"}
    exec(compile(text + body, str(file), "exec"), space)
    assert functions(space["Net"]()) == ["sum", "relu"]
    space = {"__name__": "changing"}
    exec(compile(text + body.replace("1e9", "1e8"), str(file), "exec"), space)
    assert functions(space["Net"]()) == []
    result = rewritten(space["Net"](), "after ReLU: insert Tanh; expect any matches")
    assert "`relu`" in get_report(result).warnings[0].message


class Changing(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x)) if x.sum() < 1e9 else x


def test_a_file_tells_when_the_class_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = pickle.dumps(rewritten(Changing(), "after ReLU: insert Tanh"))
    assert count_calls(pickle.loads(saved), X, "Tanh") == 1

    def forward(self: Changing, x: Tensor) -> Tensor:
        return F.relu(self.b(x)) if x.sum() < 1e8 else x

    monkeypatch.setattr(Changing, "forward", forward)
    with pytest.raises(RewriteError) as caught:
        pickle.loads(saved)
    assert caught.value.code == "RW504"
    assert "Changing.forward" in str(caught.value)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = F.gelu(self.a(x))
        for _ in range(2):
            x = torch.tanh(x)
        return x if mask is None else x * mask


class Caller(nn.Module):
    """Nobody can tell how it calls its block."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, mask=x > 0) if x.sum() < 1e9 else x


def test_functions_in_a_forward_that_was_read_for_other_arguments() -> None:
    model = Caller().eval()
    result = rewritten(model, "after activation: insert Dropout(0.5)")
    assert sites(result) == ["block.gelu", "block.tanh", "block.tanh"]
    assert count_calls(result, X, "Dropout") == 3
    assert torch.equal(result.eval()(X), model(X))
    result = rewritten(result, "replace torch.tanh with Sigmoid")
    assert count_calls(result, X, "Sigmoid") == 2


def test_a_model_with_optional_arguments_takes_them_afterwards() -> None:
    model = Block().eval()
    result = rewritten(model, "after GELU: insert Dropout(0.5)")
    assert torch.equal(result.eval()(X, mask=X), model(X, mask=X))
    # Each call of a loop alone needs the graph, which holds for the arguments that it was read with.
    result = rewritten(model, "after first torch.tanh: insert Dropout(0.5)")
    assert count_calls(result, X, "Dropout") == 1
    with pytest.raises(RewriteError, match="RW207"):
        result(X, mask=X)


class Residual(Base):
    """Sums of tensors and of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.bias, self.scale = nn.LayerNorm(4), nn.Parameter(torch.ones(4)), 2.0
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Any, other: Any = None) -> Tensor:
        size = x.shape[0] + 1
        if x.sum() > 1e9:
            return x
        x = x + self.a(self.norm(x))
        for number, block in enumerate(self.blocks):
            x += block(x)
            size = size + number
        left, right = x.chunk(2, dim=-1)
        x = torch.cat([left + right, left - right], dim=-1) + self.bias
        if other is not None:
            x = unknown(other) + x
        return 1 + x * self.scale + size


def unknown(x: Any) -> Any:
    return x


def test_operators_are_sites_where_their_operands_are_tensors() -> None:
    model = Residual().eval()
    result = rewritten(model, "after add: insert Tanh")
    assert len(sites(result)) == 6
    real = sum(call.operation == "add" for call in calls(model, X))
    assert count_calls(result, X, "Tanh") == real == 7
    assert "`add` in the forward of `Residual` is left out" in str(get_report(result).warnings)
    assert torch.equal(pickle.loads(pickle.dumps(result))(X), result(X))


def test_the_operands_of_operators() -> None:
    model = Residual().eval()
    result = rewritten(model, "before add@0: insert Tanh")
    source = inspect.getsource(type(result).forward)
    assert "x = self.before_add_0_tanh(x) + self.a(self.norm(x))" in source
    assert "x = self.before_iadd_0_tanh(x).__iadd__(block(x))" in source
    result = rewritten(model, "before sub@*: insert Tanh")
    assert count_calls(result, X, "Tanh") == 2
    assert "self.before_sub_0_tanh(left) - self.before_sub_1_tanh(right)" in inspect.getsource(type(result).forward)


def test_branches_on_plain_attributes_and_on_the_mode() -> None:
    class Net(Base):
        def __init__(self, wide: bool) -> None:
            super().__init__()
            self.wide = wide

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e9:
                return x
            x = F.relu(self.a(x)) if self.wide else F.gelu(self.a(x))
            return torch.tanh(x) if not self.training else F.silu(x)

    model = Net(wide=True).eval()
    result = rewritten(model, "after activation: insert Dropout(0.5)")
    assert sites(result) == ["relu", "tanh"]
    assert [site.path for site in get_report(result).clauses[0].other_mode] == ["silu"]
    assert count_calls(result, X, "Dropout") == count_calls(result.train(), X, "Dropout") == 2
    assert not get_report(result).warnings
    with pytest.raises(RewriteError, match="RW207"):
        result.wide = False


def test_the_given_model_keeps_its_code() -> None:
    model = Branch().eval()
    before = Branch.forward
    apply_rules(model, Rules("after activation: insert Tanh"))
    assert Branch.forward is before
    assert type(model) is Branch
    assert not list(model.children())[2:]


class Common(Base):
    """Its methods are called by others, its branch is always taken."""

    def again(self, x: Any) -> Any:
        return torch.tanh(self.a(x))

    def forward(self, x: Any) -> Any:
        return self.again(self.again(x)) if x.sum() < 1e9 else x


def test_a_method_that_is_named_twice_is_changed_once() -> None:
    result = rewritten(Common(), "after tanh: insert Sigmoid")
    assert sites(result) == ["tanh"]
    assert count_calls(result, X, "Sigmoid") == 2


def test_sums_that_begin_with_a_number_and_products_in_place() -> None:
    class Net(Base):
        def forward(self, x: Any) -> Any:
            loss = 0
            loss += F.relu(self.a(x))
            if x.sum() < 1e9:
                loss += self.b(x)
            loss @= torch.eye(4)
            return loss

    model = Net().eval()
    for rule in ("after add: insert Identity", "before add@*: insert Identity", "after matmul: insert Identity"):
        assert torch.equal(rewritten(model, rule)(X), model(X))
    assert count_calls(rewritten(model, "after add: insert Identity"), X, "Identity") == 2


def test_what_others_hold_is_not_overwritten() -> None:
    class Net(Base):
        def change(self, x: Any) -> None:
            F.relu_(x)

        def forward(self, x: Any) -> Any:
            x = self.a(x)
            if x.sum() < 1e9:
                self.change(x)
            half = x[:, :2]
            half.sigmoid_()
            kept = x
            x += 1
            y = self.b(x)
            y += kept
            return y

    model = Net().eval()
    assert functions(model) == ["sum", "iadd"]
    result = rewritten(model, "after ReLU | Sigmoid | add: insert Tanh")
    assert sites(result) == ["iadd"]
    assert [warning.code for warning in get_report(result).warnings] == ["RW302", "RW302", "RW405"]
    assert torch.equal(result(X), torch.tanh(model(X)))


def test_sums_of_other_things_are_left_alone() -> None:
    class Net(Base):
        def shift(self, by: Any) -> Any:
            if isinstance(by, int):
                return by + 1
            return by + by.shape[0]

        def forward(self, x: Any) -> Any:
            if x.sum() > 1e9:
                return x
            number = operator.add(1, 2) + self.shift(3)
            rows = [1] + list(x.shape)  # noqa: RUF005
            sizes = operator.add(x.shape, (1,))
            text = "a" + "b"
            cast = x.type(torch.float32)
            return cast + F.relu(self.a(x)) * number + len(rows) + len(sizes) + len(text)

    model = Net().eval()
    result = rewritten(model, "after add: insert Identity\nbefore add@0: insert Identity")
    assert torch.equal(result(X), model(X))
    assert "_0_identity(cast) + F.relu(" in inspect.getsource(type(result).forward)


def bare(function: Any) -> Any:
    def around(self: nn.Module, x: Any) -> Any:
        return function(self, x)

    return around


def helper(x: Any) -> Any:
    return F.relu(x)


class Parent(Base):
    def forward(self, x: Any) -> Any:
        return self.last(F.relu(x)) if x.sum() < 1e9 else x

    def last(self, x: Any) -> Any:
        return x


class BySuper(Parent):
    def forward(self, x: Any) -> Any:
        return torch.tanh(super().forward(x))


class ByClass(Parent):
    def forward(self, x: Any) -> Any:
        return torch.tanh(Parent.forward(self, x))


class ByDecorator(Base):
    @bare
    def forward(self, x: Any) -> Any:
        return F.relu(x) if x.sum() < 1e9 else x


class ByHelper(Base):
    def forward(self, x: Any) -> Any:
        return helper(x) if x.sum() < 1e9 else x


class ByStatic(Base):
    @staticmethod
    def act(x: Any) -> Any:
        return F.relu(x)

    def forward(self, x: Any) -> Any:
        return self.act(x) if x.sum() < 1e9 else x


class ByTable(Base):
    def __init__(self) -> None:
        super().__init__()
        self.acts = {"relu": functools.partial(F.relu, inplace=False)}

    def forward(self, x: Any) -> Any:
        return self.acts["relu"](x) if x.sum() < 1e9 else x


class ByOther(Base):
    def __init__(self) -> None:
        super().__init__()
        self.other = Common()

    def forward(self, x: Any) -> Any:
        return self.other.again(x) if x.sum() < 1e9 else x


class ByOption(nn.Module):
    def forward(self, x: Any, more: Any = None) -> Any:
        y = F.relu(x)
        return y if more is None else F.relu(more) + y


@pytest.mark.parametrize("make", [BySuper, ByClass, ByDecorator, ByHelper, ByStatic, ByTable, ByOption])
def test_what_cannot_be_reached_is_told(make: Any) -> None:
    result = rewritten(make(), "after ReLU: insert Identity; expect any matches")
    (warning,) = get_report(result).warnings
    assert warning.code == "RW405"
    assert "`relu` in the forward of" in warning.message


def test_equal_forwards_are_told_of_together() -> None:
    result = rewritten(nn.Sequential(ByHelper(), ByHelper(), nn.ReLU(), ByHelper()), "after ReLU: insert Identity")
    (warning,) = get_report(result).warnings
    assert warning.message == "`relu` in the forward of `0` and 2 more is left out, should it be called"


def rotated(x: Any, by: Any) -> Any:
    return x * by + x


class Rotating(nn.Module):
    def forward(self, x: Any, by: Any = None) -> Any:
        return F.relu(x if by is None else rotated(x, by)) + 1


class Turns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Rotating()

    def forward(self, x: Any) -> Any:
        return self.inner(x, x) if x.sum() < 1e9 else x


def test_what_a_helper_does_for_an_argument_that_nobody_is_known_to_give_is_told() -> None:
    result = rewritten(Turns(), "after add: insert Identity")
    (warning,) = get_report(result).warnings
    assert "`add` in the forward of `inner`" in warning.message
    assert "example" in warning.help
    result = rewritten(Turns(), "after add: insert Identity", example_inputs=X)
    assert count_calls(result, X, "Identity") == len(sites(result)) == 2


def test_a_method_of_another_module_is_told() -> None:
    result = rewritten(ByOther(), "after tanh: insert Identity; expect any matches")
    assert any("`tanh` in the forward of `ByOther`" in warning.message for warning in get_report(result).warnings)


def test_private_methods_and_classes_that_name_themselves() -> None:
    class Net(Base):
        weight = 2.0

        def __act(self, x: Any) -> Any:
            return F.relu(x) * Net.weight

        def forward(self, x: Any) -> Any:
            return self.__act(x) if x.sum() < 1e9 else x

    model = Net().eval()
    assert "relu" in functions(model)
    result = rewritten(model, "after ReLU: insert Tanh")
    assert torch.equal(result(X), torch.tanh(F.relu(X)) * 2)
    assert torch.equal(copy.deepcopy(result)(X), result(X))


def test_an_attribute_that_the_forward_sets_is_not_settled() -> None:
    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self.ready = False

        def forward(self, x: Any) -> Any:
            if not self.ready:
                self.ready = True
            else:
                x = F.relu(x)
            return torch.tanh(self.a(x)) if x.sum() < 1e9 else x

    result = rewritten(Net(), "after tanh: insert Identity")
    result(X)
    assert result.ready
    assert torch.equal(result(-X), torch.tanh(result.a(F.relu(-X))))


class Helpers:
    """What models keep beside their modules: functions by name, in a class, in an object that is called."""

    @staticmethod
    def act(x: Tensor) -> Tensor:
        return F.silu(x)

    def __call__(self, x: Tensor) -> Tensor:
        return F.silu(x)


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.silu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


helpers = Helpers()
beside: Any = types.ModuleType("beside")
beside.act, beside.itself = Helpers.act, beside


class Asks(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.last(x) if x.sum() > 0 else x


class OfClass(Asks):
    def last(self, x: Tensor) -> Tensor:
        return Helpers.act(x)


class OfObject(Asks):
    def last(self, x: Tensor) -> Tensor:
        return helpers(x)


class OfModule(Asks):
    def last(self, x: Tensor) -> Tensor:
        return beside.itself.act(x)


class OfGradients(Asks):
    def last(self, x: Tensor) -> Tensor:
        return Gate.apply(x)


@pytest.mark.parametrize("kind", [OfClass, OfObject, OfModule, OfGradients])
def test_functions_that_helpers_call_are_told(kind: type[Asks]) -> None:
    result = rewritten(kind().eval(), "after ReLU | SiLU: insert Dropout(0.5)")
    assert sites(result) == ["relu"]
    (told,) = (warning.message for warning in get_report(result).warnings if warning.code == "RW405")
    assert told.startswith("`silu` in the forward of")


class Sums(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) + self.b(x)
        return self.more(x) if x.sum() > 0 else x

    def more(self, x: Tensor) -> Tensor:
        return sum([x, x])


class SumsNumbers(Sums):
    def more(self, x: Tensor) -> Tensor:
        return x * sum(x.shape) * sum(len(part) for part in (x, x))


@pytest.mark.parametrize(("kind", "told"), [(Sums, 1), (SumsNumbers, 0)])
def test_additions_of_pythons_sum_are_told(kind: type[Sums], told: int) -> None:
    result = rewritten(kind().eval(), "before add@0: insert Dropout(0.5)")
    assert sites(result) == ["add@0"]
    assert [warning.code for warning in get_report(result).warnings] == ["RW405"] * told


def test_a_sum_of_tensors_is_a_tensor() -> None:
    class Net(Base):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            if x.sum() > 0:
                x = self.b(x)
            return sum(part.relu() for part in (x, x)) + x

    assert "add@0" in sites(rewritten(Net().eval(), "before add@0: insert Dropout(0.5)"))


def made_by_someone(x: Any) -> Tensor:
    return x


class Nested(Base):
    """Pairs of modules in a list, as vision transformers of one file have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]) for _ in range(2)])

    def forward(self, x: Any) -> Any:
        for mix, widen in self.layers:
            x = mix(x) + x
            x = widen(x) + x
        return x if x.sum() < 1e9 else self.a(x)


class Mapped(Base):
    def forward(self, x: Any) -> Any:
        q, k = map(lambda part: part.relu(), self.a(x).chunk(2, dim=-1))  # noqa: C417
        u, v = map(F.silu, (q, k))
        return q + k + (u + v) if x.sum() < 1e9 else x


class Promises(Base):
    def forward(self, x: Any) -> Any:
        return made_by_someone(x) + self.more(x) if x.sum() < 1e9 else x

    def more(self, x: Any) -> torch.Tensor:
        return made_by_someone(x)


class Configured(Base):
    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(scale=0.5, shift=types.SimpleNamespace(by=2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) + self.config.scale
        return self.config.shift.by + x if x.sum() < 1e9 else x


class Passes(Base):
    """A method whose text does not tell what it is given, and those who call it do."""

    def forward(self, x: Any) -> Any:
        return self.joined(self.a(x), other=self.b(x)) if x.sum() < 1e9 else x

    def joined(self, one: Any, other: Any) -> Any:
        return one + other


@pytest.mark.parametrize(("kind", "names"), [
    (Nested, ["add@0", "add_1@0"]),
    (Mapped, ["add@0", "add_1@0", "add_2@0"]),
    (Promises, ["add@0"]),
    (Configured, ["add", "add_1"]),
    (Passes, ["add@0"]),
])  # fmt: skip
def test_values_are_followed(kind: type[Base], names: list[str]) -> None:
    model = kind().eval()
    result = rewritten(model, "before add@0: insert Tanh")
    assert sites(result) == names
    assert not get_report(result).warnings
    assert count_calls(result, X, "Tanh") == count_calls(model, X, "add")


def test_a_method_that_is_handed_on_may_be_given_anything() -> None:
    class Net(Passes):
        def forward(self, x: Any) -> Any:
            return functools.reduce(self.joined, (x, 1)) + self.joined(self.a(x), self.b(x)) if x.sum() < 1e9 else x

    model = Net()
    assert "joined" in {call.method for call in CodeReader(model).read(model).calls if not call.certain}


class Settings(Base):
    """Asks plain attributes in several ways; `used` is the only activation that is called."""

    def __init__(self, kind: str = "used", limit: int | None = None) -> None:
        super().__init__()
        self.kind, self.limit, self.depth = kind, limit, 3

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        if self.kind == "first":
            x = F.gelu(x)
        elif self.kind not in ("used", "last"):
            x = F.silu(x)
        elif not self.depth > 2 or self.limit is not None:
            x = F.mish(x)
        else:
            x = F.relu(x)
        if self.limit is None:
            return self.a(x)
        return F.elu(x)


def test_what_has_to_be_set_before_a_run_may_be_set_later() -> None:
    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self.scale: float | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                raise ValueError("set a scale")
            return F.relu(self.a(x)) * self.scale if x.sum() < 1e9 else x

    result = rewritten(Net().eval(), "after ReLU: insert Tanh")
    result.scale = 2.0
    assert count_calls(result, X, "Tanh") == 1


def test_branches_on_texts_and_numbers() -> None:
    model = Settings().eval()
    result = rewritten(model, "after activation: insert Tanh")
    assert sites(result) == ["relu"]
    assert count_calls(result, X, "Tanh") == 1
    for name, value in (("kind", "first"), ("depth", 1), ("limit", 5)):
        with pytest.raises(RewriteError, match="RW207"):
            setattr(result, name, value)
    assert sites(rewritten(Settings("first", 4).eval(), "after activation: insert Tanh")) == ["gelu", "elu"]


def test_a_value_that_was_asked_for_its_shape_is_nobody_elses() -> None:
    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.ones(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            count, _ = x.shape
            x += self.position[: int(count)]
            y = x.T
            x += self.position[: int(count)]
            return x + y.sum()

    assert sites(rewritten(Net().eval(), "before add@0: insert Tanh")) == ["iadd@0", "add@0"]


def test_an_attribute_that_a_module_sets_on_another_is_not_settled() -> None:
    class Told(Base):
        height: int | None = None

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e9:
                return x
            return F.relu(self.a(x)) if self.height is None else F.gelu(self.a(x))

    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Told()
            self.inner.height = None

        def forward(self, x: Tensor) -> Tensor:
            self.inner.height = x.shape[0]
            return self.inner(x)

    model = Telling().eval()
    result = rewritten(model, "after activation: insert Tanh")
    assert sites(result) == ["inner.relu", "inner.gelu"]
    assert torch.equal(result(X), torch.tanh(model(X)))


def test_a_product_of_matrices_is_one_of_tensors() -> None:
    class Net(Base):
        def forward(self, x: Any, *others: Any) -> Any:
            one, other = self.table(x)
            return torch.matmul(one, other) + self.a(x) @ other if x.sum() < 1e9 else x

        def table(self, x: Any) -> Any:
            return [x, {0: x.T}[0]]

    x = torch.ones(4, 4)
    result = rewritten(Net().eval(), "before matmul@1: insert Tanh")
    assert sites(result) == ["matmul@1", "matmul_1@1"]
    assert count_calls(result, x, "Tanh") == 2
    assert not get_report(result).warnings


def test_tuples_that_are_put_together_are_no_addition() -> None:
    class Net(Base):
        def forward(self, x: Any) -> Any:
            found = (self.a(x), x)
            found = (self.b(found[0]) + x,) + found[1:]  # noqa: RUF005
            return found + (x,) if x.sum() < 1e9 else found  # noqa: RUF005

    result = rewritten(Net().eval(), "after add: insert Tanh")
    assert sites(result) == ["add"]
    assert not get_report(result).warnings
