"""What docs/peers.md says that `rewrite` can do, each row held by a test of its own.

The tests stand in the order of the page and under the titles of its four tables: saying where, saying what, what is
promised, the text around it. Each shows on a small model that what runs has changed as the row says, as told by
`counting`, which runs the model and knows nothing of the package. Where a row says "partly", the test ends with what is
not there.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from counting import Call, calls
from torch import Tensor, nn
from torch.nn import functional

from rewrite import (
    PlanError,
    RewriteError,
    RuleError,
    Rules,
    SafetyError,
    SiteError,
    apply_rules,
    check_rules,
    explain_rules,
    get_report,
    get_taps,
    plan_rules,
    run_rule_tests,
)
from rewrite.cli import main
from rewrite.saved import read_model

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "peers.md"

IMAGE = (2, 3, 8, 8)
MAP = (2, 4, 8, 8)


# ---- what the tests have in common


def apply(model: Any, text: str, **options: Any) -> Any:
    return apply_rules(model, Rules(dedent(text)), **options)


def warnings(model: Any) -> list[str]:
    """Codes of what the application that made `model` warned of."""
    report = get_report(model)
    assert report is not None
    return [warning.code for warning in report.warnings]


def image(shape: tuple[int, ...] = MAP) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def ran(model: nn.Module, inputs: Any, extra: Mapping[type, str] | None = None) -> list[str]:
    """Names of the operations that one run calls, in order."""
    return [call.operation for call in calls(model, inputs, extra)]


def wires(model: nn.Module, inputs: Any, extra: Mapping[type, str] | None = None) -> list[str]:
    """`who made it -> who takes it` for each operand of one run: layers by path, functions by operation."""

    def name(call: Call | None) -> str:
        if call is None:
            return "input"
        return call.path if call.is_module else call.operation

    return [
        f"{name(operand.producer)} -> {name(call)}" for call in calls(model, inputs, extra) for operand in call.operands
    ]


def conv(channels_in: int = 4, channels_out: int = 4, size: int = 3, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=bias)


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn, self.act, self.conv2 = conv(), nn.BatchNorm2d(4), nn.ReLU(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.bn(self.conv1(x))))


class GatedBlock(Block):
    """A block of a class of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Network(nn.Module):
    """A stem, three blocks and a head, with a function for an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4)
        self.stages = nn.Sequential(Block(), GatedBlock(), Block())
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(functional.relu(self.stem(x)))
        return self.head(x.mean((2, 3)))


class Fork(nn.Module):
    """One value, which two convolutions and an addition take."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.left(x) + self.right(x)


class Relus(nn.Module):
    """One operation in five spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(functional.relu(self.relu(x))).relu().relu_()


class Scaled(nn.Module):
    """A layer of one's own, around another one."""

    def __init__(self, inner: nn.Module, by: float = 1.0) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.by


class Weighted(nn.Module):
    """A layer of one's own that takes two values."""

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(start))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * self.share + b * (1 - self.share)


# ---- saying where


def test_every_spelling() -> None:
    model = Relus()
    assert ran(model, image()) == ["ReLU"] * 5
    assert ran(apply(model, "replace ReLU with GELU"), image()) == ["GELU"] * 5
    one = apply(model, "replace F.relu with GELU")  # and one spelling alone, where that is wanted
    assert ran(one, image()) == ["ReLU", "GELU", "ReLU", "ReLU", "ReLU"]
    assert warnings(one) == ["RW405"]


def test_families() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.SiLU(), conv(), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2))
    changed = apply(model, "after activation: insert Dropout\nremove norm")
    assert ran(changed, image()) == ["Conv2d", "SiLU", "Dropout", "Conv2d", "ReLU", "Dropout", "MaxPool2d"]


def test_path_globs() -> None:
    model = Network()

    def before_identity(glob: str) -> list[str]:
        found = calls(apply(model, f'after "{glob}": insert Identity'), image(IMAGE))
        return [call.operands[0].producer.path for call in found if call.operation == "Identity"]

    assert before_identity("stages.*.conv1") == ["stages.0.conv1", "stages.1.conv1", "stages.2.conv1"]
    assert before_identity("**.1.conv{1,2}") == ["stages.1.conv1", "stages.1.conv2"]
    with pytest.raises(SiteError, match="RW201"):  # one star is one part of a path
        before_identity("*.conv1")


def test_model_classes() -> None:
    model = Network()
    assert ran(apply(model, "after Block: insert Dropout"), image(IMAGE)).count("Dropout") == 3
    gated = apply(model, "after GatedBlock: insert Dropout")
    found = ran(gated, image(IMAGE))
    assert found.count("Dropout") == 1
    assert found[found.index("Dropout") - 1] == "Sigmoid"


def test_attributes() -> None:
    model = nn.Sequential(conv(size=1), conv(bias=False), conv(), nn.Conv2d(4, 4, (3, 1)))
    changed = apply(model, "after Conv2d[kernel_size==3, bias]: insert Identity")
    assert [wire for wire in wires(changed, image()) if wire.endswith("identity")] == ["2 -> 2_identity"]
    assert ran(apply(model, "after Conv2d[kernel_size!=(1,1)]: insert Identity"), image()).count("Identity") == 3


def test_alternatives() -> None:
    model = nn.Sequential(nn.ReLU(), nn.GELU(), nn.Tanh())
    assert ran(apply(model, "replace ReLU | GELU with SiLU"), image()) == ["SiLU", "SiLU", "Tanh"]


def test_optional_link() -> None:
    model = nn.Sequential(
        conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(), nn.ReLU(), conv(), nn.Dropout(), nn.ReLU()
    )  # the last one has something else in between
    changed = apply(
        model,
        """
        match Conv2d -> BatchNorm2d? as b -> ReLU as r:
            after r: insert Identity
            remove b
        """,
    )
    some, none = ["Conv2d", "ReLU", "Identity"], ["Conv2d", "Dropout", "ReLU"]
    assert ran(changed, image()) == [*some, *some, *none]


def test_captures() -> None:
    model = nn.Sequential(conv(4, 6), nn.ReLU(), conv(6, 8), nn.ReLU(), nn.Tanh(), nn.ReLU())
    changed = apply(model, "match Conv2d as c -> ReLU as r: replace r with PReLU(num_parameters=c.out_channels)")
    assert changed[1].weight.shape == (6,)
    assert changed[3].weight.shape == (8,)
    assert ran(changed, image(), {nn.PReLU: "PReLU"}) == ["Conv2d", "PReLU", "Conv2d", "PReLU", "Tanh", "ReLU"]


class Shortcuts(nn.Module):
    """Additions in which a value meets what a convolution makes of it, and one in which it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.c = conv(), conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.a(x)
        z = self.b(y) + y
        return self.c(z) + x


RESIDUAL = "match any as x -> Conv2d as c -> add as s, x -> s"


def test_capture_joins() -> None:
    changed = apply(Shortcuts(), f"{RESIDUAL}: after c: insert Dropout")
    found = wires(changed, image())
    assert [wire for wire in found if wire.startswith("a_dropout")] == ["a_dropout -> add"]
    assert [wire for wire in found if wire.startswith("b_dropout")] == ["b_dropout -> add"]
    assert ran(changed, image()).count("Dropout") == 2, "c is added to another value than its own input"


def test_dag_patterns() -> None:
    changed = apply(
        Fork(),
        """
        match any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s:
            after x: insert Dropout
            replace s with Weighted(p, q, start=0.25)
        """,
        modules={"Weighted": Weighted},
    )
    assert sorted(wires(changed, image(), {Weighted: "Weighted"})) == [
        "input -> stem",
        "left -> add_weighted",
        "right -> add_weighted",
        "stem -> stem_dropout",
        "stem_dropout -> left",
        "stem_dropout -> right",
    ]
    with pytest.raises(PlanError, match="RW301"):  # here no two convolutions take the same value
        apply(Shortcuts(), "match any as x -> Conv2d -> add as s, x -> Conv2d -> s: after s: insert Dropout")


def test_commutative() -> None:
    """`x + conv(x)` and `conv(x) + x` are one pattern; a port tells them apart."""
    model = Shortcuts()
    assert ran(apply(model, f"{RESIDUAL}: after s: insert Identity"), image()).count("Identity") == 2
    first = apply(model, f"{RESIDUAL.replace('-> add', '-> add@0')}: after s: insert Identity")
    assert [w for w in wires(first, image()) if "identity" in w] == ["add -> add_1_identity", "add_1_identity -> c"]


class Users(nn.Module):
    """A convolution that only a ReLU takes, and two with a further user: a sigmoid, the model's output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(), conv(), conv()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.one(x))
        x = self.two(x)
        x = torch.relu(x) * x.sigmoid()
        x = self.three(x)
        return torch.relu(x), x


def test_sole_user() -> None:
    changed = apply(Users(), "match Conv2d as c >> ReLU: after c: insert Identity")
    assert [wire for wire in wires(changed, image()) if "identity" in wire] == [
        "one -> one_identity",
        "one_identity -> ReLU",
    ]


def test_other_users() -> None:
    changed = apply(Users(), "match Conv2d as c -> ReLU: after c: insert Identity")
    found = wires(changed, image())
    assert [wire for wire in found if wire.endswith("identity")] == [
        "one -> one_identity",
        "two -> two_identity",
        "three -> three_identity",
    ]
    assert "two_identity -> Sigmoid" in found, "what else takes the value is fed as well"
    with pytest.raises(PlanError, match="RW312"):  # but nothing that others still need is taken away
        apply(Users(), "replace Conv2d -> ReLU with GELU")


def test_use_counts() -> None:
    model = Users()

    def counted(tests: str) -> list[str]:
        found = wires(apply(model, f"after Conv2d[{tests}]: insert Identity"), image())
        return [wire.partition(" ")[0] for wire in found if wire.endswith("identity")]

    assert counted("uses==1") == ["one"]
    assert counted("uses==2") == ["two", "three"], "as an output of the model counts"
    assert counted("uses>=1") == ["one", "two", "three"]
    changed = apply(model, "match Conv2d as c -> any as n where c.uses > n.uses: after n: insert Identity")
    assert [wire for wire in wires(changed, image()) if wire.startswith("Sigmoid")] == ["Sigmoid -> sigmoid_identity"]


class Attention(nn.Module):
    """Attention with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.out = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return x + self.out(q, k, v)[0]


def test_ports() -> None:
    changed = apply(Attention(), "before add@1: insert Dropout\nbefore MultiheadAttention@key: insert LayerNorm")
    found = wires(changed, image((2, 5, 4)))
    assert [wire for wire in found if wire.endswith("-> out")] == [
        "q -> out",
        "before_out_1_layernorm -> out",
        "v -> out",
    ]
    assert [wire for wire in found if wire.endswith("-> add")] == ["input -> add", "before_add_1_dropout -> add"]
    with pytest.raises(SiteError, match="RW204"):  # which of the two inputs is not guessed
        apply(Attention(), "before add: insert Dropout")


def test_relations() -> None:
    model = Users()

    def asked(question: str) -> list[str]:
        found = wires(apply(model, f"after Conv2d where {question}: insert Identity"), image())
        return [wire.partition(" ")[0] for wire in found if wire.endswith("identity")]

    assert asked("has_next(Sigmoid)") == ["two"]
    assert asked("has_prev(ReLU)") == ["two"]
    assert asked("only_next(ReLU)") == ["one"]
    assert asked("not has_next(Sigmoid) and has_prev(any)") == ["three"]
    chain = apply(model, "match Conv2d as c -> ReLU as r where r.has_next(mul): after c: insert Identity")
    assert ran(chain, image()).count("Identity") == 1


def test_reachability() -> None:
    model = Network()

    def asked(question: str) -> list[str]:
        found = wires(apply(model, f"after Conv2d where {question}: insert Identity"), image(IMAGE))
        return [wire.partition(" ")[0] for wire in found if wire.endswith("identity")]

    every = ["stem", *(f"stages.{number}.conv{which}" for number in range(3) for which in (1, 2))]
    assert asked("reaches(Linear)") == every
    assert asked("reaches(Sigmoid)") == every[:5]
    assert asked("reached_from(Sigmoid)") == every[5:]
    assert asked("dominates(add)") == every[:1], "around all others there is a shortcut"
    assert asked("in_branch(add)") == every[1:]


def test_scopes() -> None:
    model = Network()
    changed = apply(model, "within Block:\n    after last Conv2d: insert Dropout")
    assert [wire for wire in wires(changed, image(IMAGE)) if wire.endswith("dropout")] == [
        f"stages.{number}.conv2 -> stages.{number}.conv2_dropout" for number in range(3)
    ]
    assert ran(apply(model, "after ReLU in Block: insert Dropout"), image(IMAGE)).count("Dropout") == 3
    both = apply(model, 'after Conv2d in GatedBlock in "stages.**": insert Dropout')
    assert ran(both, image(IMAGE)).count("Dropout") == 2


@pytest.mark.parametrize(("pick", "wanted"), [("first", [0]), ("last", [4]), ("nth(2)", [1]), ("every(2)", [1, 3])])
def test_picks(pick: str, wanted: list[int]) -> None:
    found = ran(apply(Relus(), f"after {pick} ReLU: insert Identity"), image())
    assert [found[:place].count("ReLU") - 1 for place, name in enumerate(found) if name == "Identity"] == wanted


def test_except() -> None:
    model = Network()
    changed = apply(model, 'after Conv2d except GatedBlock | "stem" | "**.conv2": insert Identity')
    assert [wire for wire in wires(changed, image(IMAGE)) if wire.endswith("identity")] == [
        "stages.0.conv1 -> stages.0.conv1_identity",
        "stages.2.conv1 -> stages.2.conv1_identity",
    ]
    other = apply(
        model, 'match Conv2d as c where not (c is "stages.**" or c.kernel_size == 1): after c: insert Identity'
    )
    assert [wire for wire in wires(other, image(IMAGE)) if wire.endswith("identity")] == ["stem -> stem_identity"]


def test_where() -> None:
    model = nn.Sequential(conv(4, 8), conv(8, 6), conv(6, 12), conv(12, 12))
    changed = apply(
        model,
        """
        match Conv2d as a -> Conv2d as b
            where b.out_channels / 2 == a.in_channels * 3 // 4 * 2 - 2 or b.out_channels == a.out_channels * 2:
            after b: insert Identity
        """,
    )
    # (4 to 8, 8 to 6): neither; (8 to 6, 6 to 12): 12 is 2 * 6; (6 to 12, 12 to 12): 12 / 2 is 6 * 3 // 4 * 2 - 2
    assert [wire for wire in wires(changed, image()) if wire.endswith("identity")] == [
        "2 -> 2_identity",
        "3 -> 3_identity",
    ]


class Literals(nn.Module):
    """Calls of functions that literals are handed to."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.dropout(x, 0.2, self.training) + functional.dropout(x, p=0.3, training=self.training)
        return functional.softmax(x, 1).softmax(dim=2) + 0


def test_literal_arguments() -> None:
    model = Literals()

    def kinds(rule: str) -> list[str]:
        return ran(apply(model, rule), image())

    assert kinds("replace dropout[p==0.3] with Identity")[:3] == ["Dropout", "Identity", "add"]
    assert kinds("after softmax[dim==1]: insert Identity")[3:6] == ["Softmax", "Identity", "Softmax"]
    with pytest.raises(PlanError, match="RW301"):  # but that an operand is a constant cannot be asked
        apply(model, "after add[other==0]: insert Identity")


class Branches(nn.Module):
    """Two values and the input, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x), x], 1)


def test_each_operand() -> None:
    changed = apply(Branches(), "before cat@*: insert Dropout")
    assert sorted(wire for wire in wires(changed, image()) if wire.endswith("cat")) == [
        "before_cat_0_dropout -> cat",
        "before_cat_1_dropout -> cat",
        "before_cat_2_dropout -> cat",
    ]
    captured = apply(Branches(), "match Conv2d as c -> cat@*: after c: insert Dropout")
    assert ran(captured, image()).count("Dropout") == 2
    # Each operand is a match of its own: a capture is one call, so the two are no list that a new layer could take.
    assert [len(clause.sites) for clause in get_report(captured).clauses] == [2]


# ---- saying what


def test_insert_edge() -> None:
    model = Fork()
    everywhere = wires(apply(model, "after first Conv2d: insert Dropout"), image())
    assert [wire for wire in everywhere if "dropout" in wire] == [
        "stem -> stem_dropout",
        "stem_dropout -> left",
        "stem_dropout -> right",
    ]
    one = wires(apply(model, 'between "stem" and "right": insert Dropout -> Identity'), image())
    assert "stem -> left" in one, "the other branch is left as it was"
    assert len([wire for wire in one if "dropout" in wire or "identity" in wire]) == 3
    output = apply(model, "after add: insert Tanh")
    assert ran(output, image())[-1] == "Tanh", "the model's output is a use as well"


def test_replace_chain() -> None:
    model = Network()
    changed = apply(
        model,
        """
        replace Conv2d as c >> BatchNorm2d >> ReLU
            with Conv2d(out_channels=c.out_channels, kernel_size=1, padding=0) -> GELU
        """,
    )
    found = ran(changed, image(IMAGE))
    assert "BatchNorm2d" not in found
    assert (found.count("GELU"), found.count("ReLU")) == (3, 1)
    inside = [wire for wire in wires(changed.stages[0], image()) if not wire.endswith("add")]
    assert inside == ["input -> conv1.0", "conv1.0 -> conv1.1", "conv1.1 -> conv2"]
    assert wires(changed.stages[0], image())[-2:] == ["input -> add", "conv2 -> add"]


def test_remove() -> None:
    model = Network()
    changed = apply(model, "remove BatchNorm2d -> ReLU")
    assert [wire for wire in wires(changed.stages[0], image()) if wire.endswith("conv2")] == ["conv1 -> conv2"]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in changed.modules())
    assert not any(".bn." in key for key in changed.state_dict())
    with pytest.raises(PlanError, match="RW310"):  # nothing is bypassed that changes the shape
        apply(model, 'remove "stem"')


def test_wrap() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    changed = apply(model, "wrap last Linear with Scaled(by=0.5)", modules={"Scaled": Scaled})
    assert isinstance(changed[2], Scaled)
    assert changed[2].inner.weight is model[2].weight
    assert isinstance(model[2], nn.Linear)
    x = image((3, 4))
    assert torch.allclose(changed(x), model(x) / 2)


def test_fold() -> None:
    model = Network().train()
    for _ in range(3):  # so that the statistics are no longer those of a new layer
        model(torch.randn(8, 3, 8, 8) * 3 + 1)
    model.eval()
    changed = apply(model, "fold BatchNorm2d into Conv2d\nexpect equivalent")
    assert "BatchNorm2d" not in ran(changed, image(IMAGE))
    assert torch.allclose(changed(image(IMAGE)), model(image(IMAGE)), atol=1e-5)
    assert not torch.equal(changed.stages[0].conv1.weight, model.stages[0].conv1.weight)
    with pytest.raises(PlanError, match="RW318"):  # statistics that move cannot be folded
        apply(model.train(), "fold BatchNorm2d into Conv2d")


def test_move() -> None:
    model = Network()
    changed = apply(model, "match Conv2d >> BatchNorm2d as b >> ReLU as r: move b after r")
    block = changed.stages[0]
    assert wires(block, image())[:4] == ["input -> conv1", "conv1 -> act", "act -> bn", "bn -> conv2"]
    assert block.bn.weight is model.stages[0].bn.weight
    assert changed.state_dict().keys() == model.state_dict().keys()


def test_tap() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    changed = apply(model, "tap hidden = ReLU")
    x = image((3, 4))
    assert torch.equal(changed(x), model(x))
    hidden = get_taps(changed)["hidden"]
    assert torch.equal(hidden, model[1](model[0](x)))
    hidden.sum().backward()
    assert model[0].weight.grad is not None, "the value has its history, so that a loss can be made of it"


def test_freeze() -> None:
    model = Network()
    changed = apply(model, 'freeze any; unfreeze "head"; unfreeze stats BatchNorm2d in "stages.1"').train()
    before = copy.deepcopy(changed.state_dict())
    learning = [parameter for parameter in changed.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        changed(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    moved = {key for key, value in changed.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {f"stages.1.bn.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == {"head.weight", "head.bias"} | statistics


def test_reset() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    changed = apply(model, 'reset last Linear\nreset "0" with orthogonal(gain=2.0)')
    assert not torch.equal(changed[2].weight, model[2].weight)
    columns = changed[0].weight.T @ changed[0].weight
    assert torch.allclose(columns, 4 * torch.eye(4), atol=1e-5)
    assert not changed[0].bias.any()
    again = apply(model, "reset last Linear", seed=7)
    assert torch.equal(again[2].weight, apply(model, "reset last Linear", seed=7)[2].weight)
    assert not torch.equal(again[2].weight, changed[2].weight)


def test_inference() -> None:
    model = nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 9), nn.Flatten(), nn.Linear(9 * 64, 5))
    changed = apply(
        model,
        """
        after Conv2d: insert BatchNorm2d
        before Linear: insert LayerNorm
        before ReLU: insert Conv2d(kernel_size=1)
        """,
    )
    sizes = [module.num_features for module in changed if isinstance(module, nn.BatchNorm2d)]
    assert sizes == [6, 9]
    assert [module.normalized_shape for module in changed if isinstance(module, nn.LayerNorm)] == [(9 * 64,)]
    assert [module.weight.shape for module in changed if isinstance(module, nn.Conv2d)][1] == (6, 6, 1, 1)
    assert changed(image(IMAGE)).shape == (2, 5)


def test_argument_expressions() -> None:
    model = nn.Sequential(conv(4, 6), conv(6, 12))
    changed = apply(
        model,
        """
        let clip = (-2, 2)
        after Conv2d as c: insert GroupNorm(num_groups=max(2, c.out_channels // 3)) -> Hardtanh(*clip)
        """,
    )
    norms = [module for module in changed if isinstance(module, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(2, 6), (4, 12)]
    clips = [module for module in changed if isinstance(module, nn.Hardtanh)]
    assert [(clip.min_val, clip.max_val) for clip in clips] == [(-2, 2)] * 2


def test_host_functions() -> None:
    functions = {"is_wide": lambda layer: layer.out_channels > 6, "rate": lambda layer: layer.out_channels / 16}
    own = {"own": {"Scaled": Scaled, **functions}}
    model = nn.Sequential(conv(4, 6), conv(6, 8), conv(8, 4))
    changed = apply(
        model,
        """
        after Conv2d as c where own.is_wide(c): insert Dropout(own.rate(c))
        wrap last Conv2d with own.Scaled(by=3)
        """,
        modules=own,
    )
    assert [wire for wire in wires(changed, image()) if wire.endswith("dropout")] == ["1 -> 1_dropout"]
    assert [module.p for module in changed if isinstance(module, nn.Dropout)] == [0.5]
    assert torch.allclose(changed.eval()(image()), model(image()) * 3, atol=1e-6)
    # There is no statement of Python: what a rule does is written in the words of the language.
    with pytest.raises(RuleError):
        apply(model, "after Conv2d as c: own.rate(c)", modules=own)


# ---- what is promised


def test_expected_count() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv())
    changed = apply(model, "after Conv2d: insert Identity; expect 1..2 matches")
    assert ran(changed, image()).count("Identity") == 2
    for count in ("3 matches", "3.. matches", "..1 matches"):
        with pytest.raises(PlanError, match="RW303"):
            apply(model, f"after Conv2d: insert Identity; expect {count}")


def test_none_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(conv(), nn.ReLU())
    with pytest.raises(PlanError, match="RW301"):
        apply(model, "after Conv2d: insert Identity\nafter Linear: insert Dropout")
    assert ran(model, image()) == ["Conv2d", "ReLU"], "not even the first of the two clauses"
    torch.save(model, tmp_path / "net.pt")
    words = ("apply", "-e", "after Linear: insert Dropout", str(tmp_path / "net.pt"), "-o", str(tmp_path / "out.pt"))
    assert main(words) == 1
    assert "RW301" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()
    allowed = apply(model, "after Linear: insert Dropout; expect any matches")
    assert ran(allowed, image()) == ["Conv2d", "ReLU"]


def test_near_misses() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv(), nn.BatchNorm2d(4), nn.ReLU(), conv(size=1), nn.ReLU())
    rule = Rules("after Conv2d[kernel_size==3] where not has_next(BatchNorm2d): insert BatchNorm2d")
    explained = explain_rules(model, rule)
    (clause,) = explained.clauses
    assert clause.sites == ("0 (nn.Conv2d)",)
    missed = {miss.path: miss.stage for miss in clause.missed}
    assert (missed["2"], missed["5"]) == ("where", "tests")
    why = {miss.path: miss.why for miss in clause.missed}
    assert "kernel_size" in why["5"]
    assert "BatchNorm2d" in why["2"]
    assert json.loads(json.dumps(explained.as_json()))["clauses"][0]["missed"]
    sites = [f"{site.path} ({site.spelling})" for site in plan_rules(model, rule).report.clauses[0].sites]
    assert tuple(sites) == clause.sites, "what explains is what matches"


def test_output_contract() -> None:
    model, x = Network(), image(IMAGE)
    replaced = "replace last Linear with Linear(out_features=5)"
    with pytest.raises(PlanError, match="RW310"):  # the output has another shape, and nothing says that it may
        apply(model, replaced)
    with pytest.raises(PlanError, match="RW311"):  # the same, as a run sees it
        apply(model, replaced, example_inputs=x)
    assert apply(model, f"{replaced}\nexpect output (_, 5)")(x).shape == (2, 5)
    with pytest.raises(PlanError, match="RW311"):
        apply(model, f"{replaced}\nexpect output (_, 6)")
    with pytest.raises(PlanError, match="RW310"):  # inside of the model it is checked as well
        apply(model, 'replace "stem" with Conv2d(out_channels=5, kernel_size=3, padding=1)')


def test_equivalence() -> None:
    model, x = Relus().eval(), image()
    with pytest.raises(PlanError, match="RW317"):
        apply(model, "replace ReLU with GELU\nexpect equivalent", example_inputs=x)
    same = apply(model, "match ReLU as r >> ReLU as s: remove s\nexpect equivalent", example_inputs=x)
    assert torch.equal(same(x), model(x))
    assert ran(same, x).count("ReLU") < 5
    # It is checked on the input that is given, not proved: this one is negative nowhere.
    other = apply(model, "replace ReLU with Identity\nexpect equivalent", example_inputs=x.abs())
    assert not torch.equal(other(x), model(x))


def test_snapshot() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv())
    changed = apply(
        model,
        """
        after Conv2d: insert Conv2d(kernel_size=1)
        after Conv2d[kernel_size==1]: insert Dropout
        """,
    )
    pair = ["Conv2d", "Conv2d", "Dropout"]
    assert ran(changed, image()) == [*pair, "ReLU", *pair]


def test_repeat_bound() -> None:
    model = Relus()
    changed = apply(model, "repeat max 5:\n    match ReLU >> ReLU as r: remove r")
    assert ran(changed, image()) == ["ReLU"]
    with pytest.raises(PlanError, match="RW316"):
        apply(model, "repeat max 3: after ReLU: insert ReLU")
    assert ran(model, image()) == ["ReLU"] * 5


def test_conflicts() -> None:
    model = Relus()
    rule = "replace ReLU >> ReLU with GELU"
    changed = apply(model, rule)
    assert ran(changed, image()) == ["GELU", "GELU", "ReLU"], "the first in order of execution"
    (told,) = (warning for warning in get_report(changed).warnings if warning.code == "RW314")
    assert told.notes == (
        "left out: `relu_1` -> `relu_2`, because of `relu_1`",
        "left out: `relu_3` -> `relu_`, because of `relu_3`",
    )
    with pytest.raises(PlanError, match="RW314"):
        apply(model, rule, strict=True)


def test_idempotent() -> None:
    rule = "after ReLU: insert Dropout(0.1)"
    once = apply(Relus(), rule)
    twice = apply(once, rule)
    assert ran(twice, image()) == ran(once, image()) == ["ReLU", "Dropout"] * 5
    assert warnings(twice) == ["RW401"]
    assert ran(apply(once, "after ReLU: insert Dropout(0.2)"), image()).count("Dropout") == 10, "another rule is none"


def test_given_untouched() -> None:
    model = Network().eval()
    tensors = copy.deepcopy(model.state_dict())
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modules, x = dict(model.named_modules()), image(IMAGE)
    ways, output = wires(model, x), model(x)
    apply(
        model,
        """
        fold BatchNorm2d into Conv2d
        after ReLU: insert Dropout
        replace last Linear with Linear(out_features=5)
        reset Conv2d with zeros
        at "stem": set self.bias=none
        freeze any
        expect output (_, 5)
        """,
    )
    assert all(module is modules[name] for name, module in model.named_modules())
    assert dict(model.named_modules()).keys() == modules.keys()
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trained
    assert wires(model, x) == ways
    assert torch.equal(model(x), output)


def test_class_and_keys() -> None:
    model = Network()
    changed = apply(model, "after Conv2d: insert BatchNorm2d\nreplace ReLU with GELU")
    assert isinstance(changed, Network)
    assert [isinstance(block, GatedBlock) for block in changed.stages] == [False, True, False]
    assert type(apply(model, "replace nn.ReLU with GELU; expect 3 matches")) is Network
    # Where a forward becomes another one, its class becomes a subclass of the same name.
    assert type(changed).__mro__[1:] == Network.__mro__
    assert type(changed).__qualname__ == "Network"
    old, new = model.state_dict(), changed.state_dict()
    assert list(old) == [key for key in new if key in old]
    assert all(new[key].data_ptr() == value.data_ptr() for key, value in old.items())
    told = changed.load_state_dict(old, strict=False)
    assert not told.unexpected_keys
    assert {key.rpartition(".")[0].rpartition("_")[2] for key in told.missing_keys} == {"batchnorm2d"}


class Unit(nn.Module):
    """A convolution that somebody else gives an activation to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Units(nn.Module):
    """What is linked in the dataflow stands in different modules here."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Unit(), Unit()
        self.norm = nn.Sequential(nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.relu(self.norm(self.first(x))))


def test_module_borders() -> None:
    model = Units().eval()
    changed = apply(
        model, "match Conv2d as a >> BatchNorm2d as b >> ReLU as r >> Conv2d: replace r with GELU; fold b into a"
    )
    assert ran(changed, image()) == ["Conv2d", "GELU", "Conv2d"]
    x = image()
    wanted = model.second(functional.gelu(model.norm(model.first(x))))
    assert torch.allclose(changed(x), wanted, atol=1e-5)
    whole = apply(model, "between Unit and BatchNorm2d: insert Dropout")  # a module of the model as one call
    assert ran(whole, x) == ["Conv2d", "Dropout", "BatchNorm2d", "ReLU", "Conv2d"]


class Shared(nn.Module):
    """One ReLU and one convolution, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = conv(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x)).tanh()))


def test_shared_per_call() -> None:
    model = Shared()
    one = apply(model, "match Conv2d -> ReLU as r -> Tanh: replace r with GELU")
    assert ran(one, image()) == ["Conv2d", "GELU", "Tanh", "Conv2d", "ReLU"]
    norms = apply(model, "after Conv2d: insert BatchNorm2d")
    assert len([module for module in norms.modules() if isinstance(module, nn.BatchNorm2d)]) == 2
    layer = apply(model, "after Conv2d: insert BatchNorm2d per layer")
    assert len([module for module in layer.modules() if isinstance(module, nn.BatchNorm2d)]) == 1
    assert ran(layer, image()).count("BatchNorm2d") == 2
    with pytest.raises(PlanError, match="RW313"):  # weights belong to all calls, so one alone cannot have others
        apply(model, "replace first Conv2d with Conv2d(out_channels=4, kernel_size=1)")


def test_step_budget() -> None:
    class Dense(nn.Module):
        """Each value goes into all that come behind it."""

        def forward(self, x: Tensor) -> Tensor:
            values = [x.relu()]
            for _ in range(16):
                values.append(torch.cat(values, 1).mean(1, keepdim=True).relu())
            return values[-1]

    hub = ", ".join(f"any as a{number} -> b" for number in range(1, 8))
    with pytest.raises(PlanError, match="RW321"):
        apply(Dense(), f"match any as a0 -> cat as b, {hub}: tap t = b")


# ---- the text around it


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A saved model in a folder of its own, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU()), "net.pt")
    return "net.pt"


def test_file_format(net: str) -> None:
    """Rules, checked and applied without a line of Python."""
    Path("bn.rw").write_text("rw 1\n\nafter Conv2d: insert BatchNorm2d(eps=1e-3)\n")
    assert main(("check", "bn.rw")) == 0
    assert main(("apply", "bn.rw", net, "-o", "out.pt")) == 0
    changed = read_model("out.pt")
    assert ran(changed, image()) == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    assert changed[1].eps == 1e-3


NEUTRAL = """
import sys
from rewrite import Rules, check_rules
from rewrite.graph import Graph, Node, Operand, Value
from rewrite.matcher import Context, Matcher

nodes = []
for number, operation in enumerate(["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU"]):
    inputs = (Operand("input", 0, Value(nodes[-1] if nodes else None)),)
    nodes.append(Node(number, f"call{number}", "", "", operation, operation, None, inputs, {}, None))
graph = Graph("by hand", tuple(nodes), {}, (Value(nodes[-1]),))
clause = check_rules(Rules("after Conv2d >> BatchNorm2d? >> ReLU: insert Dropout")).clauses[0]
for match in Matcher(graph, Context({}, {})).sites(clause)[0]:
    print(*(node.name for node in match.nodes))
assert "torch" not in sys.modules
"""


def test_neutral_graph() -> None:
    """Rules are matched on a graph that no framework made, by a process that imports none."""
    done = subprocess.run([sys.executable, "-c", NEUTRAL], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["call0 call1 call2", "call3 call4"]
    with pytest.raises(SafetyError, match="RW504"):  # what is read and changed is a model of PyTorch and nothing else
        apply({"conv": "of another framework"}, "after Conv2d: insert BatchNorm2d")


def test_rule_tests(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = dedent(
        """
        rule bn "a BatchNorm2d behind each convolution":
            after Conv2d: insert BatchNorm2d

        test bn "lands in between":
            given x -> Conv2d(3, 8, 3) -> ReLU -> y
            want x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> ReLU -> y

        test bn "this one is wrong: it does not land behind the ReLU":
            given x -> Conv2d(3, 8, 3) -> ReLU -> y
            want x -> Conv2d(3, 8, 3) -> ReLU -> BatchNorm2d(8) -> y
        """
    )
    assert [result.result for result in run_rule_tests(Rules(text))] == ["passed", "wrong"]
    Path("bn.rw").write_text(text)
    assert main(("test", "bn.rw")) == 1
    assert "this one is wrong" in capsys.readouterr().out
    assert main(("apply", "bn.rw", net, "-o", "out.pt")) == 0, "they are in nobody's way"


def test_formatter(net: str) -> None:
    loose = "after   Conv2d{insert BatchNorm2d( eps = 1e-3 );insert Dropout} # why\n"
    Path("a.rw").write_text(loose)
    assert main(("fmt", "--check", "a.rw")) == 1
    assert Path("a.rw").read_text() == loose
    assert main(("fmt", "a.rw")) == 0
    tidy = Path("a.rw").read_text()
    assert tidy != loose
    assert "# why" in tidy
    assert main(("fmt", "--check", "a.rw")) == 0
    model = read_model(net)
    assert wires(apply(model, tidy), image()) == wires(apply(model, loose), image())


def test_did_you_mean() -> None:
    with pytest.raises(RuleError) as caught:
        check_rules(Rules("after Covn2d: insert BatchNorm2d\nafter ReLU: insert Dropuot(0.1)\n"))
    found = [(told.code, told.span.line, told.span.column) for told in caught.value.diagnostics]
    assert found == [("RW101", 1, 7), ("RW101", 2, 20)], "both at once, with their places"
    meant = [told.help.partition("`")[2].partition("`")[0] for told in caught.value.diagnostics]
    assert meant == ["Conv2d", "Dropout"]
    with pytest.raises(RuleError, match="did you mean `insert`"):
        check_rules(Rules("after ReLU: insret Dropout"))
    with pytest.raises(RewriteError, match="stem"):
        apply(Network(), 'after "stme": insert Dropout')


def test_parameters(net: str) -> None:
    text = "param rate = 0.1\nlet half = rate / 2\nafter ReLU: insert Dropout(half)\n"
    model = read_model(net)
    for options, wanted in ({}, 0.05), ({"params": {"rate": 0.5}}, 0.25):
        rates = [module.p for module in apply(model, text, **options) if isinstance(module, nn.Dropout)]
        assert rates == [wanted] * 2
    with pytest.raises(RuleError, match="RW110"):
        apply(model, text, params={"rat": 0.5})
    Path("a.rw").write_text(text)
    assert main(("apply", "a.rw", net, "--set", "rate=0.5", "-o", "out.pt")) == 0
    assert read_model("out.pt")[2].p == 0.25


def test_includes(net: str) -> None:
    folder = Path("parts")
    folder.mkdir()
    Path("all.rw").write_text('include "parts/a.rw"\ninclude "parts/b.rw"\nafter ReLU: insert Dropout\n')
    (folder / "a.rw").write_text("after Conv2d: insert BatchNorm2d\n")
    (folder / "b.rw").write_text('include "a.rw"\nafter BatchNorm2d: insert Identity\n')
    changed = apply_rules(read_model(net), "all.rw")
    assert ran(changed, image()) == ["Conv2d", "BatchNorm2d", "Identity", "ReLU", "Dropout"] * 2, "each file once"
    Path("outside.rw").write_text("remove ReLU\n")
    (folder / "b.rw").write_text('include "../outside.rw"\n')
    with pytest.raises(RuleError, match="RW111"):  # a file reads nothing outside of its folder
        apply_rules(read_model(net), folder / "b.rw")


def test_escape_gated(net: str) -> None:
    Path("layers.py").write_text(
        dedent(
            """
            import pathlib
            from torch import nn

            pathlib.Path("ran").touch()

            class Half(nn.Module):
                def forward(self, x):
                    return x / 2

            def is_wide(layer):
                return layer.out_channels > 3

            def third(layer):
                return layer.out_channels / 12
            """
        )
    )
    Path("own.rw").write_text('use "layers.py" as my\nafter last Conv2d as c where my.is_wide(c): insert my.Half\n')
    model = read_model(net)
    with pytest.raises(SafetyError, match="RW501"):
        apply_rules(model, "own.rw")
    assert main(("apply", "own.rw", net, "-o", "out.pt")) == 2
    check_rules("own.rw")
    assert not Path("ran").exists(), "nothing of it was run"
    changed = apply_rules(model, "own.rw", allow_code=True)
    assert Path("ran").exists()
    x = image()
    assert torch.allclose(changed(x), model(x) / 2)


def test_plan(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = read_model(net)
    before = wires(model, image())
    rule = "after Conv2d: insert BatchNorm2d"
    report = plan_rules(model, Rules(rule)).report
    (clause,) = report.clauses
    assert [(site.path, site.changes) for site in clause.sites] == [
        ("0", ("insert BatchNorm2d(num_features=4) as 0_batchnorm2d",)),
        ("2", ("insert BatchNorm2d(num_features=4) as 2_batchnorm2d",)),
    ]
    assert wires(model, image()) == before
    file = Path(net).read_bytes()
    assert main(("plan", "-e", rule, net)) == 0
    # A list of lines and no drawing.
    assert "2_batchnorm2d" in capsys.readouterr().out
    assert Path(net).read_bytes() == file


# ---- the page


def test_the_page_names_every_test() -> None:
    """Each *yes* and each *partly* of the first column names a test, each test stands in a row, and none is made up."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    page = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"`(test_\w+)`", page)) == there
    tables = re.split(r"^\| \| rewrite \|.*\n", page, flags=re.MULTILINE)[1:]
    rows = [line.split(" | ") for table in tables for line in table.split("\n\n")[0].splitlines()[1:]]
    ours = [row[1] for row in rows]
    assert len(tables) == 4
    named = [name for cell in ours for name in re.findall(r"`(test_\w+)`", cell)]
    assert len(named) == len(set(named)) == len(there) - 1, "this one stands above the tables"
    unlike = [cell for cell in ours if cell.startswith(("yes", "partly")) != ("`test_" in cell)]
    assert not unlike
