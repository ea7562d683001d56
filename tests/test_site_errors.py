"""Every answer that needs a model, with its exact text: sites, plans, outputs and warnings (RW2xx, RW3xx, RW4xx).

The expected texts are `tests/errors/models/<case>.txt`, each under the rule that it answers.
`REWRITE_UPDATE=1 pytest tests/test_site_errors.py` writes them anew; read the difference before keeping it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from torch import Tensor, nn

from rewrite import RewriteError, Rules, apply_rules, get_report
from rewrite.errors import CODES

FOLDER = Path(__file__).parent / "errors" / "models"
SUITE = Path(__file__).parent
CODE = re.compile(r"^(?:error|warning)\[(RW\d+)\]", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """A model, a rule, and how they meet."""

    model: Callable[[], nn.Module]
    rules: str
    example: Any = None
    modules: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    use: Callable[[nn.Module], object] | None = None
    """what is done with the rewritten model, where the trouble comes then"""


def trap(name: str) -> Callable[[], nn.Module]:
    return MODELS[name].build


def plain() -> nn.Module:
    """A classifier in one Sequential."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4))


def wide() -> nn.Module:
    """Three convolutions of two widths."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1))


class Normalised(nn.Module):
    """A convolution whose value two calls take, and one whose value one call takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 8, 1, bias=False)
        self.last = nn.BatchNorm2d(8)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.act(self.norm(x)) + x
        return self.act(self.last(self.second(x)))


def normalised() -> nn.Module:
    return Normalised().eval()


class Star(nn.Module):
    """Every call takes what all calls in front of it have made."""

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for _ in range(40):
            values.append(torch.cat(values))
        return values[-1]


class Spellings(nn.Module):
    """ReLU as a layer, three times, as a function and as a method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(self.stem(x))) + F.relu(x).relu()


class NoSizes(nn.Module):
    """Nothing says how wide the input of the activation is."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Viewed(nn.Module):
    """A reshape hides the sizes of what stands behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x).reshape(x.shape[0], -1))


class Particular(nn.Module):
    """Takes inputs of three channels only, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError("images have three channels")
        return self.conv(x)


class Block(nn.Module):
    """Carries its activation, as many libraries write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Branch(nn.Module):
    """Asks the data what to do, so that its forward is left as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.low(x)) if x.sum() < 0 else self.act(self.high(x)) + x


class Context(nn.Module):
    """Has a layer for an argument that need not be given."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.own(x) + self.other(context)


class Unsure(nn.Module):
    """An attention layer in a forward that asks the data."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        return self.attention(x, x, x)[0]


class Twice(nn.Module):
    """One block with weights, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))


class OwnWeights(nn.Module):
    """A weight beside the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


class Mixed(nn.Module):
    """An attention layer that is called here, and in a child whose forward is left as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.child = Unsure()
        self.attention = self.child.attention

    def forward(self, x: Tensor) -> Tensor:
        return self.child(self.attention(x, x, x)[0])


class Table(nn.Module):
    """Takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self) -> Tensor:
        return self.weight.exp()


class WithTable(nn.Module):
    """Calls a child without an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.table()


class Pair(nn.Module):
    """Of the caller: returns two values for one."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class OddName(nn.Module):
    """A child whose name no source text could hold."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("a b", nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self._modules["a b"](x))


class Doubling(nn.Module):
    """Of the caller: twice as many channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], 1)


def image(channels: int = 3, size: int = 8) -> Tensor:
    return torch.zeros(2, channels, size, size)


CASES: dict[str, Case] = {
    # ---- a path
    "rw201_path": Case(trap("residual"), 'freeze "downsampel"'),
    "rw201_glob": Case(trap("nested_sequential"), 'after "backbone.*": insert Identity'),
    # ---- sizes
    "rw202_nothing_around": Case(NoSizes, "after ReLU: insert BatchNorm2d"),
    "rw202_behind_a_reshape": Case(Viewed, "after GELU: insert LayerNorm"),
    "rw202_in_front": Case(trap("chunk_split"), "before cat@1: insert GroupNorm(2) -> BatchNorm2d"),
    "rw202_required_argument": Case(plain, 'replace "3" with Conv2d(out_channels=4)'),
    "rw202_linear": Case(Viewed, "after GELU: insert Linear -> Dropout"),
    "rw203_insert": Case(NoSizes, "after ReLU: insert Particular", modules={"Particular": Particular}),
    "rw203_promise": Case(Viewed, "after GELU: insert Dropout(0.1)\nexpect output (_, 288)"),
    "rw203_promise_unknown_output": Case(trap("untraceable"), "after ReLU: insert Dropout\nexpect output (_, 4, 6, 6)"),
    "rw203_example": Case(Particular, "after Conv2d: insert BatchNorm2d", example=image(4)),
    # ---- inputs and neighbours
    "rw204_before": Case(trap("residual"), "before add: insert Dropout(0.1)"),
    "rw204_no_such_port": Case(trap("dense_list"), "before cat@7: insert Dropout(0.1)"),
    "rw204_remove": Case(trap("residual"), "remove add"),
    "rw204_no_input": Case(WithTable, "before Table: insert Identity"),
    "rw205_next": Case(trap("two_outputs"), "after last Conv2d: insert Identity; set next.inplace=false"),
    "rw205_next_several": Case(trap("same_value_twice"), "after first Conv2d: insert Identity; set next.alpha=2"),
    "rw205_several_values": Case(trap("chunk_split"), "after chunk: insert Identity"),
    "rw205_remove": Case(trap("tuple_outputs"), "remove LSTM"),
    "rw206_absent": Case(Context, "before Linear: insert Dropout(0.1)"),
    "rw206_where": Case(Branch, "after Conv2d where not has_next(BatchNorm2d): insert BatchNorm2d"),
    "rw206_port": Case(Unsure, "before MultiheadAttention@value: insert Dropout(0.1)"),
    "rw206_ports": Case(Unsure, "before MultiheadAttention@*: insert Dropout(0.1)"),
    "rw207_call": Case(
        trap("none_default"), "after sub: insert Identity", use=lambda model: model(image(4), mask=image(4))
    ),
    # ---- matches
    "rw301_near_operation": Case(wide, "after ReLU6: insert Dropout(0.1)"),
    "rw301_spelling": Case(Spellings, "after torch.relu: insert Dropout(0.1)"),
    "rw301_attribute": Case(wide, "after Conv2d[kernel_size==5]: insert BatchNorm2d"),
    "rw301_where": Case(wide, "after Conv2d as c where c.out_channels > 64: insert BatchNorm2d"),
    "rw301_scope": Case(Spellings, 'after Conv2d in "features.**": insert BatchNorm2d'),
    "rw301_except": Case(wide, 'rule norms: after Conv2d except "*": insert BatchNorm2d'),
    "rw301_between": Case(wide, "between ReLU and Linear | ReLU: insert Dropout(0.1)"),
    "rw301_between_not_directly": Case(plain, "between Conv2d and Flatten: insert Dropout(0.1)"),
    "rw301_opaque": Case(Branch, "before mul@0: insert Dropout(0.1)"),
    "rw301_uncalled": Case(trap("attention_layer"), "after Linear in MultiheadAttention: insert Dropout(0.1)"),
    "rw301_reset": Case(wide, "reset ReLU"),
    "rw302_alternative": Case(wide, "after ReLU | GELU: insert Dropout(0.1)"),
    "rw303_more": Case(wide, "after Conv2d:\n    insert BatchNorm2d\n    expect 2 matches"),
    "rw303_fewer": Case(wide, "remove ReLU; expect 2.. matches"),
    "rw303_none": Case(wide, "remove GELU; expect 2..3 matches"),
    # ---- shapes
    "rw310_insert": Case(wide, "after ReLU: insert Conv2d(kernel_size=3)"),
    "rw310_insert_several_sites": Case(wide, "after Conv2d: insert MaxPool2d(2)"),
    "rw310_rank": Case(plain, "after Linear: insert BatchNorm2d"),
    "rw310_replace": Case(plain, "replace last Linear with Linear(out_features=2)"),
    "rw310_insert_unknown": Case(NoSizes, "after ReLU: insert Doubling", modules={"Doubling": Doubling}),
    "rw310_replace_chain": Case(wide, "replace last Conv2d with Conv2d(out_channels=4, kernel_size=1) -> ReLU"),
    "rw310_remove": Case(plain, "remove Flatten"),
    "rw310_remove_sizes": Case(wide, "remove first Conv2d"),
    "rw310_set": Case(wide, "at Conv2d: set self.padding=1, self.stride=2"),
    "rw311_changes": Case(plain, "replace last Linear with Linear(out_features=2)", example=image(size=3)),
    "rw311_promise": Case(
        plain, "replace last Linear with Linear(out_features=2)\nexpect output (_, 10)", example=image(size=3)
    ),
    "rw311_promise_by_inference": Case(plain, "replace last Linear with Linear(out_features=2)\nexpect output (_, 10)"),
    "rw311_promise_rank": Case(plain, "replace last Linear with Linear(out_features=2)\nexpect output (_, 2, 1, 1)"),
    "rw311_stops_running": Case(
        lambda: nn.Sequential(nn.Identity(), Particular()),
        "after Identity: insert Pair",
        example=image(),
        modules={"Pair": Pair},
    ),
    "rw310_stops_running": Case(
        trap("chain"), "after BatchNorm2d: insert Failing", example=image(4, 6), modules={"Failing": Particular}
    ),
    # ---- what is shared, what cannot be reached
    "rw313_replace": Case(trap("shared_layer"), "replace first Conv2d with Conv2d(bias=false)"),
    "rw313_insert": Case(Twice, "after first Conv2d: insert Tanh"),
    "rw313_replace_inside": Case(Twice, "replace nth(2) BatchNorm2d with GroupNorm(2)"),
    "rw313_remove_inside": Case(Twice, "remove last BatchNorm2d"),
    "rw313_set": Case(trap("shared_layer"), "at last Conv2d: set self.padding=1"),
    "rw319_idle": Case(Branch, 'after "low": insert Conv2d(out_channels=8, kernel_size=1)', example=image(4)),
    "rw320_input": Case(Mixed, "before first MultiheadAttention@value: insert Dropout(0.1)"),
    "rw320_reset": Case(OwnWeights, "reset any"),
    "rw320_name": Case(OddName, "after Linear: insert Dropout(0.1)"),
    "rw112_giant": Case(plain, "replace last Linear with Linear(out_features=1000000000)"),
    "rw301_chain": Case(normalised, "match Conv2d >> BatchNorm2d >> GELU as g: remove g"),
    "rw301_chain_where": Case(normalised, "match Conv2d as c >> BatchNorm2d as b where c.groups > 1: fold b into c"),
    "rw301_leaf": Case(plain, 'leaf "blocks.*"\nafter Linear: insert Dropout'),
    "rw312_fold": Case(normalised, "match Conv2d as c -> BatchNorm2d as b where c.out_channels == 4: fold b into c"),
    "rw312_replace": Case(normalised, "replace Conv2d[groups==1] -> BatchNorm2d -> ReLU with Identity"),
    "rw313_wrap": Case(trap("shared_layer"), "wrap first Conv2d with LoRA(rank=1)"),
    "rw204_replace_chain": Case(trap("residual"), "replace BatchNorm2d -> add with Identity"),
    "rw204_move": Case(trap("residual"), "match BatchNorm2d as b -> add as s: move s after b"),
    "rw205_tap": Case(wide, "tap features = Conv2d"),
    "rw314_strict": Case(
        lambda: nn.Sequential(*(nn.ReLU() for _ in range(4))),
        "match ReLU as a >> ReLU as b: remove a; remove b",
        strict=True,
    ),
    "rw315_move": Case(normalised, "match ReLU as r: move r after r"),
    "rw316_repeat": Case(wide, "repeat max 2: after ReLU: insert ReLU"),
    "rw317_equivalent": Case(
        normalised, "after ReLU: insert Tanh\nexpect equivalent", example=torch.linspace(-1, 1, 300).view(1, 3, 10, 10)
    ),
    "rw203_equivalent": Case(wide, "after ReLU: insert Tanh; expect equivalent"),
    "rw318_training": Case(lambda: normalised().train(), "fold BatchNorm2d into Conv2d"),
    "rw318_no_statistics": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval(),
        "fold BatchNorm2d into Conv2d",
    ),
    "rw320_fold": Case(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)), "fold GroupNorm into Conv2d"),
    "rw320_wrap": Case(Spellings, "wrap F.relu with LoRA"),
    "rw321_budget": Case(
        lambda: Star(), "match any as a -> any as b -> any as c -> any as d -> any as e -> any as f: remove f"
    ),
    # ---- warnings
    "rw314_overlap": Case(
        lambda: nn.Sequential(*(nn.ReLU() for _ in range(4))), "match ReLU as a >> ReLU as b: remove a; remove b"
    ),
    "rw403_bias": Case(wide, "after Conv2d: insert BatchNorm2d"),
    "rw404_split": Case(plain, "after Conv2d: insert Dropout(0.1)\nafter Conv2d: insert Identity"),
    "rw407_taken": Case(plain, "replace ReLU with GELU\nafter ReLU: insert Dropout(0.1); expect any matches"),
    "rw301_taken": Case(plain, "replace ReLU with GELU\nafter ReLU: insert Dropout(0.1)"),
    "rw408_untrained": Case(plain, "after first ReLU: insert Conv2d(kernel_size=1)"),
    "rw409_in_place": Case(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)), "tap features = Conv2d"),
    "rw410_single_values": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 8, 1, bias=False), nn.ReLU()),
        "after last Conv2d: insert BatchNorm2d",
    ),
    "rw401_again": Case(
        lambda: apply_rules(wide(), Rules("after Conv2d: insert BatchNorm2d")), "after Conv2d: insert BatchNorm2d"
    ),
    "rw402_at": Case(lambda: nn.Sequential(Block(), Block()), "at Block: set self.activation=identity"),
    "rw402_after": Case(
        lambda: nn.Sequential(Block()), "after Block: insert BatchNorm2d(4); set prev.activation=identity"
    ),
    "rw405_function": Case(Spellings, "after nn.ReLU: insert Dropout(0.1)"),
    "rw405_two_of_three": Case(Spellings, "after nn.ReLU | Tensor.relu: insert Dropout(0.1)"),
    "rw405_between": Case(Spellings, "between nn.Conv2d and last nn.ReLU: insert Dropout(0.1)"),
    "rw406_params": Case(trap("nested_sequential"), "freeze params any"),
    "rw406_one": Case(trap("chain"), "freeze params any"),
    "rw412_idle": Case(Branch, "after Conv2d: insert Tanh", example=image(4)),
}


def answer(case: Case) -> str:
    """What the user reads; a line of this file is named without its folder and number, which are no part of it."""
    return re.sub(r"\(\S*test_site_errors\.py:\d+\)", "(test_site_errors.py)", full_answer(case))


def full_answer(case: Case) -> str:
    model = case.model()
    try:
        result = apply_rules(
            model,
            Rules(case.rules, "rules.rw"),
            example_inputs=case.example,
            modules=case.modules,
            name="net",
            strict=case.strict,
        )
        if case.use is not None:
            case.use(result)
    except RewriteError as error:
        return str(error)
    report = get_report(result)
    return "\n\n".join(warning.render() for warning in report.warnings)


@pytest.mark.parametrize("name", CASES)
def test_answer(name: str) -> None:
    text = f"{answer(CASES[name])}\n"
    expected = FOLDER / f"{name}.txt"
    if os.environ.get("REWRITE_UPDATE"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
    assert set(CODE.findall(text)) == {name.partition("_")[0].upper()}


def test_no_case_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(CASES)


def test_every_code_has_a_test_of_its_exact_text() -> None:
    """Texts stand in `tests/errors`, or beside the call that they answer."""
    found = {code for path in (SUITE / "errors").rglob("*.txt") for code in CODE.findall(path.read_text("utf-8"))}
    for name in (
        "test_cli.py",
        "test_saved.py",
        "test_use.py",
        "test_inclusion.py",
        "test_rule_tests.py",
        "test_keras.py",
    ):
        found |= set(
            re.findall(r"""^\s*["']?(?:error|warning)\[(RW\d+)\]: """, (SUITE / name).read_text("utf-8"), re.MULTILINE)
        )
    assert found == set(CODES)


@pytest.mark.parametrize("text", ["after nn.ReLU except F.relu | Tensor.relu: insert Dropout(0.1)", "freeze nn.ReLU"])
def test_spellings_left_out_on_purpose_are_no_warning(text: str) -> None:
    assert not get_report(apply_rules(Spellings(), Rules(text))).warnings


def test_an_activation_that_is_put_back_is_no_warning() -> None:
    text = "after Block: insert BatchNorm2d(4) -> SiLU; set prev.activation=identity"
    result = apply_rules(nn.Sequential(Block()), Rules(text))
    assert not get_report(result).warnings
    assert isinstance(result[0].act, nn.Identity)


def test_everything_drawn_anew_with_weights_beside_the_layers() -> None:
    model = OwnWeights()
    result = apply_rules(model, Rules("reset any with normal(std=0.5)"))
    assert not torch.equal(result.fc.weight, model.fc.weight)
    assert not torch.equal(result.scale, model.scale)
