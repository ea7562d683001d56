"""What is said of calls that match and of those that do not, with its exact text, for each kind of miss.

The expected texts are `tests/explained/<case>.txt`, each under the rule that it answers.
`REWRITE_UPDATE=1 pytest tests/test_explaining.py` writes them anew; read the difference before keeping it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from rewrite import RewriteError, Rules, apply_rules, explain_rules, get_report

FOLDER = Path(__file__).parent / "explained"


class Block(nn.Module):
    """As in a ResNet: two convolutions and a way around them."""

    def __init__(self, width: int, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.project = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.project is None else self.project(x)))


class ResNet(nn.Module):
    """A very small one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Block(4), Block(4, project=True))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(F.relu(self.norm(self.stem(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Branchy(nn.Module):
    """A forward that cannot be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else self.body(x)


class Mixed(nn.Module):
    """A value with a second user, a forward that cannot be captured, and what comes out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.far = Branchy()
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.last(self.far(F.gelu(self.norm(y)))) + y


class Attention(nn.Module):
    """A linear layer whose weights are read without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attend(x, x, x)[0])


@dataclass(frozen=True)
class Case:
    """A model and a rule."""

    model: Callable[[], nn.Module]
    rules: str


CASES = {
    "path": Case(ResNet, 'after "layer2.*": insert Dropout'),
    "kind": Case(ResNet, "after GELU: insert Dropout"),
    "spelling": Case(ResNet, "after nn.ReLU: insert Dropout"),
    "attribute": Case(ResNet, "after Conv2d[kernel_size==1]: insert Dropout"),
    "scope": Case(ResNet, 'after BatchNorm2d in "layer1.0": insert Dropout'),
    "except": Case(ResNet, "after BatchNorm2d except Block: insert Dropout"),
    "where": Case(ResNet, "after Conv2d where prev.kernel_size == 3 and has_next(ReLU | add): insert Dropout"),
    "pick": Case(ResNet, "within Block: after last BatchNorm2d: insert Dropout"),
    "between": Case(ResNet, "between BatchNorm2d and Linear: insert Dropout"),
    "between_chain": Case(ResNet, "between Conv2d -> BatchNorm2d and Linear: insert Dropout"),
    "between_where": Case(ResNet, "between BatchNorm2d and add where prev.eps > 1 and next.uses == 1: insert Dropout"),
    "uncallable": Case(Attention, "after Linear: insert Dropout"),
    "chain": Case(ResNet, "match Conv2d as c >> BatchNorm2d as b: fold b into c"),
    "chain_second_user": Case(Mixed, "match Conv2d as c >> BatchNorm2d as b: fold b into c"),
    "chain_order": Case(ResNet, "match BatchNorm2d -> Conv2d as c: remove c"),
    "chain_optional": Case(ResNet, "match Conv2d -> BatchNorm2d? -> ReLU as r: remove r"),
    "chain_optional_ends": Case(Mixed, "match Conv2d -> BatchNorm2d? -> Dropout? -> ReLU as r: remove r"),
    "chain_scope": Case(ResNet, 'match Conv2d -> BatchNorm2d as b in "layer1.1" except "**.project": remove b'),
    "chain_where": Case(
        ResNet, "match Conv2d as c -> BatchNorm2d as b where c.kernel_size == 1 and b.eps < 1: remove b"
    ),
    "chain_where_missing": Case(
        Mixed, "match Conv2d -> BatchNorm2d? as b -> GELU as g where not (b is BatchNorm2d and b.eps < 1): remove g"
    ),
    "chain_pick": Case(ResNet, "after last Conv2d -> BatchNorm2d: insert Dropout"),
    "chain_port": Case(ResNet, "match BatchNorm2d as b -> add@1: remove b"),
    "chain_join": Case(ResNet, "match any as x -> Conv2d -> BatchNorm2d -> add as s, x -> s: tap t = s"),
    "chain_attribute": Case(ResNet, "match Conv2d[kernel_size==1] -> BatchNorm2d[eps==1] as b: remove b"),
    "chain_spelling": Case(ResNet, "match nn.BatchNorm2d -> nn.ReLU as r: remove r"),
}

NOTHING = {
    "chain": Case(ResNet, "match Conv2d -> ReLU as r: remove r"),
    "second_user": Case(Mixed, 'match Conv2d as c >> BatchNorm2d as b except "far": fold b into c'),
    "longest": Case(ResNet, "after Conv2d -> BatchNorm2d -> ReLU -> Linear: insert Dropout"),
    "scope": Case(ResNet, 'match Conv2d -> BatchNorm2d as b in "stem": remove b'),
    "where": Case(ResNet, "match Conv2d -> BatchNorm2d as b where b.eps > 1: remove b"),
    "between": Case(ResNet, "between Conv2d -> BatchNorm2d and Linear: insert Dropout"),
    "none_of_it": Case(ResNet, "match LayerNorm -> GELU as g: remove g"),
    "join": Case(ResNet, "match any as x -> Conv2d -> add as s, x -> s: tap t = s"),
    "count": Case(ResNet, "match Conv2d -> ReLU as r: remove r; expect 3 matches"),
    "in_front": Case(ResNet, "match Conv2d as c -> BatchNorm2d, Linear -> c: remove c"),
    "unknown_end": Case(Mixed, "match nn.ReLU as r -> Conv2d: remove r"),
}


def check(folder: str, name: str, case: Case, text: str) -> None:
    path = FOLDER / folder / f"{name}.txt"
    text = f"{case.rules}\n\n{text}\n".replace(f"{Path(__file__).parent}{os.sep}", "")
    if os.environ.get("REWRITE_UPDATE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_explained(name: str) -> None:
    case = CASES[name]
    check("clauses", name, case, explain_rules(case.model().eval(), Rules(case.rules)).render())


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_matches(name: str) -> None:
    case = NOTHING[name]
    with pytest.raises(RewriteError) as caught:
        apply_rules(case.model().eval(), Rules(case.rules))
    check("nothing", name, case, str(caught.value))


def test_no_text_is_left_over() -> None:
    assert {path.stem for path in (FOLDER / "clauses").glob("*")} == set(CASES)
    assert {path.stem for path in (FOLDER / "nothing").glob("*")} == set(NOTHING)


def test_calls_that_cannot_be_followed_are_told_of() -> None:
    """A pattern that matches elsewhere says what it left out."""
    report = get_report(apply_rules(Mixed().eval(), Rules("match Conv2d -> BatchNorm2d as b: remove b")))
    assert report is not None
    (warning,) = report.warnings
    assert warning.code == "RW405"
    assert warning.message == "`far.conv` and 1 more cannot be followed, so no pattern with it is found"


def test_other_spellings_of_a_link_are_told_of() -> None:
    report = get_report(apply_rules(ResNet().eval(), Rules("match BatchNorm2d -> nn.ReLU as r: remove r")))
    assert report is not None
    (warning,) = report.warnings
    assert warning.message == "other spellings were left out: `nn.ReLU` matched 2, `F.relu` 1 not"
    # those outside of the scope and of the pattern are not meant
    for rules in ('match BatchNorm2d -> nn.ReLU as r in "layer1.**": remove r', "match add -> nn.ReLU as r: remove r"):
        report = get_report(apply_rules(ResNet().eval(), Rules(rules)))
        assert report is not None
        assert not report.warnings
