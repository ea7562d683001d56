"""Forwards that a plain trace gets wrong: each is read right, or left alone with the reason."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable

import helpers_of_a_model
import pytest
import torch
import torch.nn.functional as F
from helpers_of_a_model import doubled
from models import lowered
from torch import nn

from rewrite import RewriteError, Rules, apply_rules, get_report
from rewrite.backends import backend_for

INSERT = Rules("after Conv2d: insert Identity")


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(4, 4, 3, padding=1)


class AsksForTypes(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(x, list | tuple):
            x = x[0]
        if isinstance(x, torch.Tensor):
            x = x * 2
        if hasattr(x, "no_such_attribute"):
            x = x * 5
        if torch.is_tensor(x):
            x = x + 1
        return self.c(x)


class OtherSelf(Base):
    def forward(me, x: torch.Tensor, *, scale: float = 2.0) -> torch.Tensor:
        return me.c(x) * scale


class BuiltinNames(Base):
    def forward(self, list: list[torch.Tensor], len: torch.Tensor, dict: object = None) -> torch.Tensor:
        return self.c(list[0] + list[1]) * len


class CallsBuiltinNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = BuiltinNames()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner([x, x], x)


class SwallowsExceptions(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.c(x)
        try:
            if y.sum() > 1e9:
                y = y * 0
        except Exception:
            y = y * 100
        return y


class Counts(Base):
    def __init__(self) -> None:
        super().__init__()
        self.state = {"n": 0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state["n"] += 1
        return torch.relu(self.c(x) + self.state["n"])


class NoGrad(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.c(x)
        return y + x


class Draws(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(x) + (1.0 if torch.rand(1).item() >= 0 else 0.0)


class AugmentedAlias(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.c(x)
        z = y
        z += 1
        return y


class ItemAssignment(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.c(x)
        y[:, 0] = 5
        return y


class BatchNormWithActivation(nn.BatchNorm2d):
    def __init__(self) -> None:
        super().__init__(4)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(x))


class LayerOfLayers(Base):
    def __init__(self) -> None:
        super().__init__()
        self.bn = BatchNormWithActivation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.c(x))


@pytest.mark.parametrize(
    "make",
    [
        AsksForTypes,
        OtherSelf,
        CallsBuiltinNames,
        SwallowsExceptions,
        Counts,
        NoGrad,
        Draws,
        AugmentedAlias,
        ItemAssignment,
        LayerOfLayers,
    ],
)
def test_an_identity_changes_nothing(make: Callable[[], nn.Module]) -> None:
    model, twin = make().eval(), None
    twin = copy.deepcopy(model)
    x = torch.randn(1, 4, 5, 5)
    result = apply_rules(model, INSERT)
    assert len(get_report(result).clauses[0].sites) == 1
    for _ in range(2):  # what counts its calls must go on counting
        assert torch.equal(result(x.clone()), twin(x.clone()))
    found = [m for m in result.modules() if type(m) is nn.Identity]
    runs = []
    found[0].register_forward_hook(lambda *_: runs.append(1))
    result(x)
    assert runs == [1]


def test_reading_a_model_leaves_it_as_it_was() -> None:
    class Hooks(Base):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[object] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(1)
            self.c.register_forward_hook(lambda *_: None)
            self.c.scale = 2
            return self.c(x)

    model = Hooks()
    apply_rules(model, INSERT)
    assert model.seen == []
    assert not model.c._forward_hooks
    assert not hasattr(model.c, "scale")


def test_an_activation_inside_a_normalisation_layer_is_a_site() -> None:
    model = LayerOfLayers().eval()
    result = apply_rules(model, Rules("after ReLU: insert Dropout(0.5)\nafter norm: insert Identity"))
    paths = [[site.path for site in clause.sites] for clause in get_report(result).clauses]
    assert paths == [["bn.act"], ["bn"]]


def test_one_stateless_layer_under_several_names_is_cloned_for_the_matched_call() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            act = nn.ReLU()
            self.a = nn.Sequential(nn.Conv2d(4, 4, 1), act)
            self.b = nn.Sequential(nn.Conv2d(4, 4, 1), act)
            self.act = act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.b(self.a(x)))

    result = apply_rules(Shared(), Rules("replace first ReLU with GELU"))
    assert [type(m).__name__ for m in (result.a[1], result.b[1], result.act)] == ["GELU", "ReLU", "ReLU"]


def test_a_graph_read_without_knowing_its_calls_is_no_ground_for_an_edit() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            y = lowered(F.relu(self.f(x)))
            return y if mask is None else y * mask

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 1e9:
                x = x * 0
            return self.block(x, mask=x > 0)

    model, x = Net().eval(), torch.randn(2, 4)
    with pytest.raises(RewriteError) as caught:
        apply_rules(model, Rules("after sub: insert Identity"))
    assert caught.value.code == "RW206"
    result = apply_rules(model, Rules("after sub: insert Identity"), example_inputs=x)
    assert torch.equal(result(x), model(x))
    # At a layer, and at a function that the code names, nothing has to be known about the calls of the forward.
    assert torch.equal(apply_rules(model, Rules("after ReLU: insert Identity"))(x), model(x))
    assert torch.equal(apply_rules(model, Rules("after Linear: insert Identity"))(x), model(x))


@pytest.mark.parametrize("wrap", [torch.jit.script, torch.fx.symbolic_trace])
@pytest.mark.filterwarnings("ignore")
def test_what_no_rule_can_reach_is_refused_with_the_remedy(wrap: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(RewriteError) as caught:
        apply_rules(wrap(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())), INSERT)
    assert caught.value.code == "RW504"
    assert "apply the rules" in caught.value.diagnostics[0].help


def test_functions_that_are_not_seen_are_warned_about() -> None:
    class Opaque(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            relu = F.relu
            with torch.no_grad():
                x = relu(x)
            return self.c(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.ReLU(), Opaque()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    report = get_report(apply_rules(Net(), Rules("after ReLU: insert Identity")))
    assert [warning.code for warning in report.warnings] == ["RW405"]
    assert "`relu` in the forward of `b`" in report.warnings[0].message


def test_a_compiled_call_is_not_kept() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    model.compile(backend="eager")
    x = torch.randn(1, 4, 3, 3)
    assert not torch.equal(apply_rules(model, Rules("after Conv2d: insert Tanh"))(x), model(x))


@pytest.mark.parametrize("make", [OtherSelf, CallsBuiltinNames, LayerOfLayers])
def test_the_result_lives_on(make: Callable[[], nn.Module]) -> None:
    model, x = make().eval(), torch.randn(1, 4, 5, 5)
    result = apply_rules(model, Rules("after Conv2d: insert Identity"))
    wanted = model(x)
    assert torch.equal(copy.deepcopy(result)(x), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(result))(x), wanted)
    assert torch.equal(torch.compile(result, backend="eager", fullgraph=True)(x), wanted)


class BoundMethods(Base):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.finish = self._finish
        self.c.register_forward_hook(self.note)

    def note(self, *_: object) -> None:
        self.calls += 1

    def _finish(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.finish(self.c(x))


def test_bound_methods_belong_to_the_result() -> None:
    model, x = BoundMethods().eval(), torch.randn(1, 4, 5, 5)
    result = apply_rules(model, Rules("after Conv2d: insert Identity"))
    wanted = model(x)
    assert torch.equal(result(x), wanted)
    assert (model.calls, result.calls) == (1, 1)
    assert torch.equal(pickle.loads(pickle.dumps(result))(x), wanted)
    assert torch.equal(copy.deepcopy(result)(x), wanted)


@pytest.mark.parametrize("make", [Counts, Draws])
def test_only_the_forward_that_does_it_is_blamed(make: Callable[[], nn.Module]) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.inner(x) + x)

    result = apply_rules(nn.Sequential(Around(), Around()), Rules('before add@1 except "*.inner": insert Identity'))
    assert len(get_report(result).clauses[0].sites) == 2
    assert [path for path, _ in get_report(result).scopes] == ["0.inner", "1.inner"]


def test_a_long_chain_of_functions_is_read() -> None:
    class Chain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(1500):
                x = F.relu(x + 1)
            return x

    result = apply_rules(Chain(), Rules("after ReLU: insert Identity"))
    assert get_report(result).sites == 1500


def test_a_forward_that_asks_for_the_mode_of_a_child_follows_it() -> None:
    class Inner(Base):
        def forward(self, x: torch.Tensor) -> object:
            return (self.c(x), x) if self.training else self.c(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.act = Inner(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            return self.act(y[0]) if self.inner.training else self.act(y)

    model, x = Outer().eval(), torch.randn(1, 4, 5, 5)
    result = apply_rules(model, Rules("after ReLU: insert Identity\nafter Conv2d: insert Identity"))
    assert torch.equal(result(x), model(x))
    assert torch.equal(result.train()(x), model.train()(x))


class Asks(Base):
    """Forwards that look at a value of the data in ways that a stand-in cannot see, or answers wrongly."""

    def __init__(self, scale: Callable[[torch.Tensor], float]) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(x) * self.scale(x)


def is_four(rank: object) -> float:
    return {3: 1.0, 4: 2.0}.get(rank, 0.0)  # type: ignore[call-overload,no-any-return]


def tells(x: torch.Tensor) -> float:
    torch._assert(x.size(0) > 0, f"{x.size(0)} and {x.shape[1]} of " + f"{x.dtype}")
    print(x.shape, f"{x.dtype}")
    return 2.0


@pytest.mark.parametrize(
    ("scale", "why"),
    [
        (lambda x: is_four(x.dim()), "looked up in a dictionary or set"),
        (lambda x: is_four(x.ndim), "looked up in a dictionary or set"),
        (lambda x: {4: 2.0}[x.ndim], "looked up in a dictionary or set"),
        (lambda x: 2.0 if x.dtype in {torch.float32} else 0.0, "looked up in a dictionary or set"),
        (lambda x: 2.0 if str(x.dtype) == "torch.float32" else 0.0, "text is made"),
        (lambda x: 2.0 if f"{x.shape[0]}x{x.size(1)}" == "2x4" else 0.0, "text is made"),
        (lambda x: 2.0 if f"{x.dtype}".endswith("32") else 0.0, "text is made"),
        (lambda x: 2.0 if x.dtype is torch.float32 else 0.0, "a Python branch"),
        (lambda x: 2.0 if x.grad_fn is None else 0.0, "a Python branch"),
        (lambda x: 2.0 if isinstance(x.shape, torch.Size) else 0.0, "asks for the type"),
        (lambda x: 2.0 if type(x.shape) is torch.Size else 0.0, "asks for the type"),
        (lambda x: 2.0 if type(x) is torch.Tensor else 0.0, ""),
        (lambda x: 2.0 if isinstance(torch.Tensor, type) and type(x) not in (list, tuple) else 0.0, ""),
        (lambda x: float(torch.as_tensor(x.size(0))), "takes nothing but real tensors"),
        (lambda x: {x: 2.0}[x], ""),
        (tells, ""),
    ],
)
def test_a_value_is_what_it_is_in_the_model(scale: Callable[[torch.Tensor], float], why: str) -> None:
    model, x = nn.Sequential(Asks(scale)).eval(), torch.randn(2, 4, 5, 5)
    (reason,) = set(backend_for(model).read(model).graph.opaque.values()) or {""}
    assert why in reason if why else not reason
    result = apply_rules(model, INSERT)
    assert get_report(result).sites == 1
    assert torch.equal(result(x), model(x))


class Stubborn(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not to be told")


class Picky(Base):
    def forward(self, x: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        if scale is None:
            raise Stubborn
        return self.c(x) * scale


class CallsPicky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Picky()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, float(x.mean()))


def test_an_exception_that_cannot_be_told_is_one_reason_more() -> None:
    result = apply_rules(CallsPicky(), INSERT)
    assert get_report(result).sites == 1


class CallsHelpers(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c(doubled(x))
        return x + 1 if torch.jit.isinstance(x, torch.Tensor) else x


def test_helpers_in_other_modules_are_told_the_same() -> None:
    model, x = CallsHelpers().eval(), torch.randn(2, 4, 5, 5)
    result = apply_rules(model, Rules("after mul: insert Identity"), example_inputs=x)
    assert get_report(result).sites == 1
    assert torch.equal(result(x), model(x))
    assert not any("isinstance" in vars(module) for module in (sys.modules[__name__], helpers_of_a_model))


class Settings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.double, self.depth, self.after, self.title = False, 2, None, "unread"

    @property
    def factor(self) -> float:
        return 2.0 if self.double else 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.depth):
            x = torch.relu(self.fc(x))
        return (x if self.after is None else self.after(x)) * self.factor


def test_attributes_that_a_captured_forward_has_read_are_settled() -> None:
    """They stand in its graph: another value would have no effect, and nobody would be told."""
    model = Settings()
    result = apply_rules(model, Rules("after relu: insert Dropout(0.0)"))
    x = torch.ones(1, 4)
    versions = (
        result,
        copy.deepcopy(result),
        pickle.loads(pickle.dumps(result)),
        apply_rules(result, Rules("after Linear: insert Identity")),
    )
    for version in versions:
        for name, value in (("double", True), ("depth", 3), ("after", nn.Linear(4, 4)), ("double", 0)):
            with pytest.raises(RewriteError, match=rf"RW207.*`{name}` of `Settings` was"):
                setattr(version, name, value)
        version.title = "told to nobody"
        version.double, version.depth = False, 2  # as they are
        assert torch.equal(version(x), model(x))
    model.double = True
    assert torch.equal(apply_rules(model, Rules("after relu: insert Dropout(0.0)"))(x), model(x))


def test_attributes_may_be_set_where_the_forward_is_still_its_own() -> None:
    model = Settings()
    result = apply_rules(model, Rules("wrap Linear with LoRA(rank=1)\nfreeze Linear"))
    result.depth = 3
    model.depth = 3
    assert torch.equal(result(torch.ones(1, 4)), model(torch.ones(1, 4)))


class AsksForGradients(nn.Module):
    def __init__(self, flag: bool) -> None:
        super().__init__()
        self.fc, self.flag = nn.Linear(4, 4), flag

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.fc(x))
        if torch.is_grad_enabled() and self.flag:  # as models ask that save memory
            return x + 1
        return x


def test_a_forward_that_asks_whether_gradients_are_recorded() -> None:
    x = torch.ones(1, 4)
    for flag, kind in ((False, "graph"), (True, "opaque")):
        model = AsksForGradients(flag).eval()
        result = apply_rules(model, Rules("after Linear: insert Identity"))
        assert get_report(result).scope_kinds[kind] == 1
        assert torch.equal(result(x), model(x))
        with torch.no_grad():
            assert torch.equal(result(x), model(x))
        outer = nn.Sequential(AsksForGradients(flag), nn.ReLU()).eval()
        result = apply_rules(outer, Rules("after nn.ReLU: insert Identity"))
        with torch.no_grad():
            assert torch.equal(result(x), outer(x))
    assert torch.is_grad_enabled.__name__ == "is_grad_enabled"
    reasons = dict(get_report(apply_rules(AsksForGradients(True), Rules("after Linear: insert Identity"))).scopes)
    assert "where no gradients are recorded" in reasons[""]


class TwoWays(nn.Module):
    """A Sequential is called with the output of a recurrent layer and with an input of the model, in either order."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.norm = nn.Sequential(nn.LayerNorm(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(x)
        return self.norm(y) + self.norm(x) if self.first else self.norm(x) - self.norm(y)


@pytest.mark.parametrize("first", [False, True])
def test_an_output_of_a_layer_of_several_is_a_tensor_like_any_other(first: bool) -> None:
    model, x = TwoWays(first).eval(), torch.linspace(-1, 1, 24).view(2, 3, 4)
    result = apply_rules(model, Rules("after LayerNorm: insert Identity"))
    assert get_report(result).sites == 2
    assert not get_report(result).scopes
    assert torch.equal(result(x), model(x))
