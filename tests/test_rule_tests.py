"""Rule tests: literals, the models that they are compared with, and what is told of a test that does not pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rewrite import Rules, RuleTestResult, check_rules, isomorphism, run_rule_tests
from rewrite.backends import first_backend
from rewrite.cli import main
from rewrite.errors import RuleError, SafetyError
from rewrite.literals import Literal

ROOT = Path(__file__).parent.parent

BN = """
rule bn "VGG16: BN behind every conv, activation behind the BN":
    after Conv2d in "features.**" where not has_next(BatchNorm2d):
        insert BatchNorm2d(eps=1e-3)
        move prev.activation after self
        set prev.bias=none
        expect 13 matches
"""


def run(text: str, **options: object) -> tuple[RuleTestResult, ...]:
    return run_rule_tests(Rules(dedent(text)), **options)


def one(text: str, **options: object) -> RuleTestResult:
    (result,) = run(text, **options)
    return result


def problems(text: str, **options: object) -> list[str]:
    """Code, place and message of each error that `check` finds."""
    with pytest.raises(RuleError) as caught:
        check_rules(Rules(dedent(text)), **options)
    return [f"{d.code} {d.span.line}:{d.span.column} {d.message}" for d in caught.value.diagnostics if d.span]


def literal(flows: str, modules: dict[str, object] | None = None) -> Literal:
    """The literal of `given`."""
    (case,) = check_rules(Rules(f"rule r: remove ReLU\ntest r: given {flows}; unchanged"), modules=modules).tests
    assert isinstance(case.model, Literal)
    return case.model


# ---- the worked rules


def test_the_worked_tests_pass_together() -> None:
    pytest.importorskip("torchvision")
    results = run(
        BN
        + """
test bn "lands between conv and relu":
    given x -> Conv2d(3, 8, 3) -> ReLU -> y
    want x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> ReLU -> y
test bn "not twice":
    given x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> y
    unchanged
test bn "whole model":
    model torchvision.models.vgg16() input (1, 3, 224, 224)
    expect 13 matches; expect output (1, 1000)
"""
    )
    assert [str(result) for result in results] == [
        'passed  bn "lands between conv and relu"  (<rules>:9)',
        'passed  bn "not twice"  (<rules>:12)',
        'passed  bn "whole model"  (<rules>:15)',
    ]
    assert all(result.passed and not result.detail and result.as_diagnostic() is None for result in results)


# ---- each result, word for word


def test_wrong() -> None:
    result = one(
        BN
        + """
test bn "before the relu":
    given x -> Conv2d(3, 8, 3) as c -> relu -> y
    want x -> Conv2d(3, 8, 3, bias=true) as c -> ReLU -> BatchNorm2d(8, eps=0.1) -> y
"""
    )
    assert result.result == "wrong"
    assert result.detail == dedent("""\
        --- want
        +++ got
        -c = Conv2d(3, 8, 3, bias=true)(x)
        -relu_1 = ReLU()(c)
        -batchnorm2d_1 = BatchNorm2d(8, eps=0.1)(relu_1)
        -return batchnorm2d_1
        +c = Conv2d(3, 8, 3, bias=false)(x)
        +batchnorm2d_1 = BatchNorm2d(8, eps=0.001)(c)
        +relu_1 = ReLU()(batchnorm2d_1)
        +return relu_1""")
    diagnostic = result.as_diagnostic()
    assert diagnostic is not None
    assert diagnostic.render().splitlines()[:4] == [
        'error[RW322]: test of `bn` "before the relu": wrong',
        "  --> <rules>:9:1",
        '9 | test bn "before the relu":',
        "  | ^^^^^^^^^^^^^^^^^^^^^^^^^ the rule changed the model, and it is not what is wanted",
    ]


def test_wrong_tells_which_part_matched_nothing() -> None:
    result = one("""
        rule r { remove Dropout; remove GELU }
        test r:
            given x -> Dropout -> ReLU -> y
            want x -> Tanh -> y
    """)
    assert result.result == "wrong"
    assert result.detail.endswith("this part of the rule matched nothing: remove GELU")


def test_missing() -> None:
    result = one(
        BN
        + """
test bn:
    given x -> Conv1d(3, 8, 3) as c -> y
    want x -> Conv1d(3, 8, 3) -> BatchNorm1d -> y
"""
    )
    assert result.result == "missing"
    assert "c (nn.Conv1d)  kind: it is Conv1d, not Conv2d" in result.detail
    assert "note: did you mean `Conv1d`?" in result.detail


def test_unexpected() -> None:
    result = one("""
        rule r: after ReLU: insert Dropout(0.1)
        test r: given x -> Linear(3, 4) as fc -> relu -> y; unchanged
    """)
    assert result.result == "unexpected"
    assert result.detail == dedent("""\
        --- before
        +++ after
         fc = Linear(3, 4)(x)
         relu = ReLU()(fc)
        -return relu
        +relu_dropout = Dropout(p=0.1)(relu)
        +return relu_dropout""")


def test_unexpected_without_another_structure() -> None:
    result = one('rule r: freeze "fc"\ntest r: given x -> Linear(3, 4) as fc -> y; unchanged')
    assert (result.result, result.detail) == ("unexpected", "fc (nn.Linear)  freeze (16 numbers)")


def test_error_of_the_rule() -> None:
    result = one("""
        rule r: replace Linear with Linear(out_features=7)
        test r: given x -> Linear(3, 4) -> y; want x -> Linear(3, 7) -> y
    """)
    assert result.result == "error"
    assert [problem.code for problem in result.problems] == ["RW311"]
    assert result.detail.startswith("error[RW311]: the output of the model changes")


def test_error_of_the_model() -> None:
    result = one("rule r: remove ReLU\ntest r: given x -> GroupNorm(3, 4) as forward -> y; unchanged")
    assert result.result == "error"
    assert [(problem.code, str(problem.span)) for problem in result.problems] == [("RW320", "<rules>:2:9")]


def test_a_count_of_the_test() -> None:
    text = "rule r: remove Dropout\ntest r: given x -> Dropout -> ReLU -> Dropout -> y; expect {} matches"
    assert one(text.format(2)).passed
    assert one(text.format("any")).passed
    assert one(text.format("..2")).passed
    wrong = one(text.format("3.."))
    assert (wrong.result, wrong.detail.splitlines()[0]) == ("wrong", "2 matches, expected at least 3")
    none = one("rule r: remove Dropout\ntest r: given x -> ReLU -> y; expect 1 matches")
    assert none.result == "missing"


def test_json() -> None:
    result = one('rule r: remove ReLU\ntest r "gone": given x -> ReLU -> y; want x -> y')
    form = result.as_json()
    assert form.pop("seconds") >= 0
    assert form == {
        "rule": "r",
        "title": "gone",
        "file": "<rules>",
        "line": 2,
        "result": "passed",
        "detail": "",
        "problems": [],
    }


# ---- literals


def passes(rule: str, before: str, after: str, **options: object) -> bool:
    result = one(f"rule r: {rule}\ntest r: given {before}; want {after}", **options)
    assert result.result in ("passed", "wrong"), result.detail
    return result.passed


DROP = "after ReLU: insert Dropout(0.1)"


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (DROP, "x -> relu -> y", "x -> F.relu -> Dropout(p=0.1) -> y"),
        (DROP, "x -> Tensor.relu -> y", "x -> Tensor.relu -> Dropout(0.1) -> y"),
        (DROP, "x -> torch.relu -> y", "x -> relu -> Dropout -> y"),
        (DROP, "x -> nn.ReLU as r -> a, r -> Sigmoid -> b", "x -> ReLU -> Dropout as d -> a, d -> Sigmoid -> b"),
        (DROP, "x -> ReLU -> add as s -> y, z -> s", "z -> add as s -> y, x -> ReLU -> Dropout -> s"),
        (DROP, "x -> ReLU -> sub as s -> y, z -> s", "x -> ReLU -> Dropout -> sub as s -> y, z -> s"),
        (DROP, "x -> ReLU as r, r -> cat as c, x -> c", "x -> ReLU -> Dropout -> cat as c, x -> c"),
        (DROP, "x -> ReLU -> add as s -> y, x -> s", "a -> add as s -> y, a -> ReLU -> Dropout -> s"),
        (DROP, "h -> ReLU -> y, x -> Linear(2, 3) -> h", "x -> Linear -> ReLU -> Dropout -> y"),
        ("remove Dropout", "x -> Dropout(0.5) -> y", "x -> y"),
        ("remove Dropout", "x -> flatten(1) -> Dropout -> Linear(8, 2)", "x -> Flatten -> Linear(8, 2)"),
        (
            'freeze "stem"; after Conv2d except "stem": insert ReLU',
            "x -> Conv2d(3, 8, 3) as stem -> Conv2d(8, 8, (3, 1)) -> y",
            "x -> Conv2d(3, 8, kernel_size=3) -> Conv2d(8, 8, (3, 1)) -> ReLU -> y",
        ),
        (
            'within "a": after Linear: insert ReLU',
            "x -> Linear(2, 2) as a -> Linear(2, 2) as b -> y",
            "x -> Linear(2, 2) -> ReLU -> Linear(2, 2) -> y",
        ),
        (
            "tap t = ReLU",
            "x -> chunk(2, dim=1) as c, c -> getitem(1) -> ReLU -> y",
            'x -> chunk(2, 1) as c, c -> getitem(1) -> ReLU -> Tap("t") -> y',
        ),
        ("wrap Linear with LoRA(rank=4)", "x -> Linear(3, 3) -> y", "x -> LoRA(rank=4) -> y"),
        ("at Linear: set self.bias=none", "x -> Linear(3, 3) -> y", "x -> Linear(3, 3, bias=none) -> y"),
        (
            "after LSTM: insert ReLU",
            "x -> LSTM(4, 5) as l, l -> getitem(0) -> y, l -> getitem(1) -> h",
            "x -> LSTM(4, 5) as l, l -> getitem(0) -> ReLU -> y, l -> getitem(1) -> h",
        ),
    ],
)  # fmt: skip
def test_literals(rule: str, before: str, after: str) -> None:
    rule = rule.replace("; after", "\n    after") if ";" in rule else rule
    text = f"rule r:\n    {rule}\ntest r: given {before}; want {after}"
    result = one(text)
    assert result.passed, result.detail


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x -> relu -> y", "x -> nn.ReLU -> Dropout -> y"),
        ("x -> relu -> y", "x -> torch.relu -> Dropout -> y"),
        ("x -> relu -> y", "x -> relu -> Dropout(0.2) -> y"),
        ("x -> relu -> y", "x -> Dropout(0.1) -> relu -> y"),
        ("x -> ReLU -> sub as s -> y, z -> s", "z -> sub as s -> y, x -> ReLU -> Dropout -> s"),
        ("x -> ReLU -> sub as s -> y, z -> s", "z -> ReLU -> Dropout -> sub as s -> y, x -> s"),
        ("x -> ReLU -> a, z -> Tanh -> b", "z -> Tanh -> b, x -> ReLU -> Dropout -> a"),
        ("x -> ReLU -> y", "x -> ReLU -> Dropout as d -> y, d -> z"),
        ("x -> ReLU -> y", "x -> ReLU -> Dropout -> Identity -> y"),
        ("x -> ReLU -> chunk(2, 1) -> getitem(0) -> y", "x -> ReLU -> Dropout -> chunk(2, 1) -> getitem(1) -> y"),
        ("x -> ReLU -> cat as c -> y, x -> c, x -> c", "x -> ReLU -> Dropout -> cat as c -> y, x -> c"),
    ],
)  # fmt: skip
def test_literals_that_are_not_the_same(before: str, after: str) -> None:
    assert not passes(DROP, before, after)


@pytest.mark.parametrize(
    ("flows", "problem"),
    [
        ("x -> Covn2d(3, 8, 3) -> y", "RW101 2:20 unknown layer `Covn2d`"),
        ("x -> rellu -> y -> ReLU -> z", "RW101 2:20 unknown operation `rellu`"),
        ("x -> norm(3) -> y", "RW101 2:20 `norm` is a family, and a call is of one operation"),
        ("x -> my.Net() -> y", "RW101 2:20 unknown layer `my.Net`"),
        ("x -> Conv2d(3, 8) -> y", "RW106 2:20 `Conv2d` needs `kernel_size`"),
        ("x -> BatchNorm2d -> y", "RW106 2:20 `BatchNorm2d` needs `num_features`"),
        ("x -> Conv2d(3, 8, 3, kernel=1) -> y", "RW106 2:36 `Conv2d` has no argument `kernel`"),
        ("x -> flatten(1, 2, 3) -> y", "RW106 2:34 too many arguments for `flatten`"),
        ("x -> Dropout(rate) -> y", "RW103 2:28 `rate` is not known here"),
        ("x -> LoRA(rank=4) -> y", "RW106 2:20 `LoRA` is built around another layer"),
        ("x -> ReLU as a -> ReLU as b -> a", "RW108 2:20 `ReLU` takes its own value, in a circle"),
        ("x -> x", "RW108 2:15 `x` takes its own value, in a circle"),
        ("x -> ReLU -> y, x -> Tanh -> y", "RW109 2:44 two values are named `y`"),
        ("x -> ReLU as a -> Tanh as a -> y", "RW109 2:41 two calls are named `a`"),
        ("x -> ReLU as relu -> y", "RW105 2:28 `relu` hides the operation `ReLU`"),
        ("ReLU -> y", "RW108 2:15 nothing flows into `ReLU`"),
        ("x", "RW108 2:15 this flow leads nowhere"),
        ("x -> add -> y", "RW108 2:20 `add` takes two values, and one flows in"),
        ("x -> ReLU as r -> y, z -> r", "RW108 2:20 `ReLU` takes one value, and 2 flow in"),
        ("class -> ReLU -> y", "RW106 2:15 `class` cannot be a name in a model"),
        ("self -> ReLU -> y", "RW105 2:15 `self` is a word of the language"),
        ("x -> ReLU as r -> add(r) -> y", "RW106 2:37 `r` is a call, and this is an argument"),
    ],
)
def test_wrong_literals(flows: str, problem: str) -> None:
    assert problem in problems(f"rule r: remove ReLU\ntest r: given {flows}; unchanged")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("given x -> ReLU -> y; want x -> y; unchanged", "RW009 2:44 a test wants one model, or none of the changes"),
        ("given x -> ReLU -> y", "RW009 2:1 this test wants nothing"),
        ("unchanged", "RW009 2:1 this test has no model"),
        ("given x -> ReLU -> y; remove ReLU", "RW009 2:31 `remove` is not allowed in a `test` block"),
        ("given x -> ReLU -> y; expect 5..3 matches", "RW106 2:31 this count can never hold"),
        ("given x -> ReLU -> y; unchanged; unchanged", "RW009 2:42 a test wants one model, or none of the changes"),
        ("given x -> ReLU -> y; expect output 3", "RW106 2:45 this is not a shape"),
        (
            "given x -> ReLU -> y; want a -> add as s -> y, b -> s",
            "RW103 2:31 `a` is no input of the model in this test",
        ),
        ("model vgg16; unchanged", "RW106 2:15 this makes no model"),
        ("model my.Net() input (1, 0); unchanged", "RW106 2:30 these are no sizes of an input"),
        ("model my.Net(x); unchanged", "RW103 2:22 `x` is not known here"),
    ],
)
def test_wrong_tests(body: str, problem: str) -> None:
    assert problem in problems(f"rule r: remove ReLU\ntest r: {body}")


def test_a_test_of_no_rule() -> None:
    text = "rule bn: remove ReLU\ntest nb: given x -> ReLU -> y; unchanged"
    assert problems(text) == ["RW103 2:6 there is no rule named `nb` to test"]


def test_a_literal_as_it_is_read() -> None:
    found = literal("x -> Conv2d(3, 8, 3) as c -> relu -> cat(dim=1) as s -> y, c -> s, z -> s, c -> w")
    assert found.inputs == ("x", "z")
    assert [(call.name, call.text, call.inputs) for call in found.calls] == [
        ("c", "Conv2d(3, 8, 3)", ("x",)),
        ("relu_1", "relu()", ("c",)),
        ("s", "cat(dim=1)", ("relu_1", "c", "z")),
    ]
    assert found.outputs == ("s", "c")
    assert found.captured == {"c", "s"}
    assert found.calls[0].attributes == {"in_channels": 3, "out_channels": 8, "kernel_size": 3}


def test_constants_stand_in_literals() -> None:
    text = """
        param width = 8
        rule r: remove ReLU
        test r: given x -> Linear(width, width / 2) -> ReLU -> y; want x -> Linear(6, 3)
    """
    assert one(text, params={"width": 6}).passed
    assert one(text).result == "wrong"


# ---- the rule under test


def test_only_the_named_rule_is_tried() -> None:
    result = one("""
        rule a { remove ReLU }
        rule b: remove Dropout
        remove Tanh
        test b: given x -> ReLU -> Dropout -> Tanh -> y; want x -> ReLU -> Tanh -> y
    """)
    assert result.passed


def test_a_promise_of_the_file_lets_a_rule_change_the_shape() -> None:
    text = """
        rule head: replace last Linear with Linear(out_features=2)
        rule other: remove Dropout
        {}
        test head: given x -> Linear(3, 10) -> y; want x -> Linear(3, 2) -> y
    """
    assert one(text.format("expect output (_, 2)")).passed
    assert one(text.format("")).result == "error"


def test_an_output_of_the_test() -> None:
    text = """
        rule r: replace Linear with Linear(out_features=2)
        test r: given x -> Linear(3, 9) -> y; expect output {}
    """
    assert one(text.format("(_, 2)")).passed
    wrong = one(text.format("(_, 3)"))
    assert wrong.result == "wrong"
    assert "error[RW311]" in wrong.detail


def test_equivalence_is_a_matter_of_numbers() -> None:
    text = """
        rule fold: fold BatchNorm2d into Conv2d
        rule swap: match BatchNorm2d as b >> ReLU as r: move b after r
        test fold: given x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> ReLU -> y; expect equivalent
        test swap: given x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> ReLU -> y; expect equivalent
    """
    folded, swapped = run(text)
    assert folded.passed
    assert swapped.result == "wrong"
    assert "error[RW317]" in swapped.detail


class Gate(nn.Module):
    def __init__(self, width: int, by: float = 1.0) -> None:
        super().__init__()
        self.by = by
        self.fc = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc(x)) * self.by


class Net(nn.Module):
    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(depth)])

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + y


def test_classes_of_the_caller_are_one_call() -> None:
    modules = {"Gate": Gate}
    rule = "after ReLU: insert Gate(4, by=0.5)"
    assert passes(
        rule, "x -> Linear(3, 4) -> ReLU -> y", "x -> Linear -> ReLU -> Gate(4, by=0.5) -> y", modules=modules
    )
    assert passes(
        rule,
        "x -> Linear(4, 4) -> Gate(4) -> ReLU -> y",
        "x -> Linear -> Gate(4) -> ReLU -> Gate -> y",
        modules=modules,
    )
    assert not passes(
        rule, "x -> Linear(3, 4) -> ReLU -> y", "x -> Linear -> ReLU -> Gate(4, 0.25) -> y", modules=modules
    )


def test_models_of_the_caller() -> None:
    text = """
        rule r: after ReLU: insert Dropout(0.1)
        test r: model my.Net(depth=3) input ((2, 4), [2, 4]); expect 3 matches; expect output (2, 4)
        test r: model my.Net() input (2, 4); expect output (2, 4)
        test r: model my.Net(width=3); unchanged
        test r: model my.Net(); unchanged
        test r: model os.system("true"); unchanged
    """
    modules = {"my": {"Net": Net}}
    state = torch.random.get_rng_state()
    results = run(text, modules=modules)
    assert torch.equal(torch.random.get_rng_state(), state)
    found = [(result.result, [problem.code for problem in result.problems]) for result in results]
    assert found == [
        ("passed", []),
        ("error", ["RW203"]),
        ("error", ["RW504"]),
        ("unexpected", []),
        ("error", ["RW505"]),
    ]


def test_models_of_use(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from torch import nn\ndef Net():\n    return nn.Sequential(nn.ReLU())\n")
    (tmp_path / "r.rw").write_text(
        'use "nets.py" as my\nrule r: remove ReLU\ntest r: model my.Net(); expect 1 matches\n'
    )
    with pytest.raises(SafetyError):
        run_rule_tests(tmp_path / "r.rw")
    (result,) = run_rule_tests(tmp_path / "r.rw", allow_code=True)
    assert result.passed


def test_models_of_libraries() -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    results = run("""
        rule r: after ReLU: insert Dropout(0.1)
        test r:
            model torchvision.models.resnet18(num_classes=7) input (1, 3, 64, 64)
            expect 17 matches; expect output (1, 7)
        test r: model timm.create_model("resnet18", num_classes=5) input (1, 3, 64, 64); expect output (1, 5)
        test r: model torchvision.models.resnet17(); unchanged
        test r: model torchvision.models.resnet18(weights="DEFAULT"); unchanged
        test r: model timm.create_model("resnet18", checkpoint_path="x.pt"); unchanged
        test r: model timm.create_model("hf_hub:a/b"); unchanged
        test r: model torchvision.io.read_file("x"); unchanged
        test r: model torchvision.models.squeezenet1_1(); unchanged
    """)
    assert [result.result for result in results[:2]] == ["passed", "passed"], results
    assert [[problem.code for problem in result.problems] for result in results[2:-1]] == [["RW505"]] * 5
    assert results[-1].result == "unexpected"
    assert all(problem.span is not None for result in results for problem in result.problems)


def test_what_a_rule_says_of_its_count_holds_in_a_model() -> None:
    net = {"Net": Net}
    named = "rule r:\n    remove Tanh\n    {}\ntest r: model Net(); {}"
    assert one(named.format("expect any matches", "unchanged"), modules=net).passed
    assert one("rule r: remove Tanh\ntest r: model Net(); unchanged", modules=net).passed
    assert one("rule r: remove Tanh\ntest r: model Net(); expect 0 matches", modules=net).passed
    assert one("rule r: remove Tanh\ntest r: model Net(); want x -> y", modules=net).result == "missing"
    assert one(named.format("expect 2 matches", "unchanged"), modules=net).result == "error"


# ---- a literal is what it is


LAYERS = (
    *("Linear(4, 4)", "Linear(4, 4, bias=false)", "ReLU", "GELU", "relu", "F.gelu", "Dropout(0.1)", "LayerNorm(4)"),
    *("Tanh", "Softmax(dim=1)"),
)
JOINS = ("add", "sub", "cat(dim=0)", "mul", "stack")
OTHER_ATTRIBUTES = {
    "Linear(4, 4)": "Linear(4, 5)",
    "Linear(4, 4, bias=false)": "Linear(4, 4, bias=true)",
    "Dropout(0.1)": "Dropout(0.2)",
    "LayerNorm(4)": "LayerNorm(5)",
    "Softmax(dim=1)": "Softmax(dim=2)",
    "cat(dim=0)": "cat(dim=1)",
}


@st.composite
def literals(draw: st.DrawFn) -> list[tuple[str, list[str]]]:
    """A random literal as calls: what is called, and the names of what it takes; call n is named `c{n}`."""
    inputs = [f"x{number}" for number in range(draw(st.integers(1, 2)))]
    calls: list[tuple[str, list[str]]] = []
    values = list(inputs)
    for number in range(draw(st.integers(1, 8))):
        if draw(st.booleans()):
            calls.append((draw(st.sampled_from(LAYERS)), [draw(st.sampled_from(values))]))
        else:
            join = draw(st.sampled_from(JOINS))
            most = 4 if join.startswith(("cat", "stack")) else 2
            calls.append((join, [draw(st.sampled_from(values)) for _ in range(draw(st.integers(2, most)))]))
        values.append(f"c{number}")
    return calls


def written(calls: list[tuple[str, list[str]]]) -> str:
    """The literal: each call and its first input, then the other inputs; what nothing takes is an output."""
    flows = []
    for number, (text, (first, *rest)) in enumerate(calls):
        flows += [f"{first} -> {text} as c{number}", *(f"{name} -> c{number}" for name in rest)]
    return ", ".join(flows)


def is_same(calls: list[tuple[str, list[str]]], other: list[tuple[str, list[str]]]) -> bool:
    """Whether a literal, assembled and read, is what another one says."""
    before, after = literal(written(calls)), literal(written(other))
    backend = first_backend()
    graph = backend.read(backend.assemble(before.sketch(), {})).graph
    found = isomorphism.of_graph(graph)
    same = isomorphism.is_same(found, isomorphism.of_literal(after, before.inputs))
    lines = isomorphism.difference(isomorphism.of_literal(after, before.inputs), found)
    assert same or lines, "what differs is shown"
    return same


@settings(max_examples=60, deadline=None)
@given(literals(), st.data())
def test_a_literal_is_itself_and_no_other(calls: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    assert is_same(calls, calls)
    number = data.draw(st.integers(0, len(calls) - 1))
    text, inputs = calls[number]
    changes = ["operation"]
    if text in OTHER_ATTRIBUTES:
        changes.append("attribute")
    if text.startswith(("sub", "cat", "stack")) and len(set(inputs)) > 1:
        changes.append("order")
    match data.draw(st.sampled_from(changes)):
        case "operation":
            changed = ("Sigmoid", inputs) if len(inputs) == 1 else ("div" if len(inputs) == 2 else "cat(dim=3)", inputs)
        case "attribute":
            changed = (OTHER_ATTRIBUTES[text], inputs)
        case _:
            first = next(place for place, name in enumerate(inputs) if name != inputs[0])
            swapped = list(inputs)
            swapped[0], swapped[first] = swapped[first], swapped[0]
            changed = (text, swapped)
    other = [*calls[:number], changed, *calls[number + 1 :]]
    if changed[1] == inputs or literal(written(other)).inputs == literal(written(calls)).inputs:
        assert not is_same(calls, other) or (changed[1] != inputs and _is_symmetric(calls, other))


def _is_symmetric(calls: list[tuple[str, list[str]]], other: list[tuple[str, list[str]]]) -> bool:
    """Whether two calls that changed places compute the same: then nothing can tell the literals apart."""

    def tree(name: str, among: list[tuple[str, list[str]]]) -> str:
        if name.startswith("x"):
            return name
        text, inputs = among[int(name[1:])]
        parts = [tree(one, among) for one in inputs]
        return f"{text}({', '.join(sorted(parts) if text in ('add', 'mul') else parts)})"

    return [tree(f"c{n}", calls) for n in range(len(calls))] == [tree(f"c{n}", other) for n in range(len(other))]


def test_parallel_calls_are_told_apart_by_where_they_lead() -> None:
    calls = [("ReLU", ["x0"]), ("ReLU", ["x0"]), ("Tanh", ["c0"]), ("GELU", ["c1"]), ("sub", ["c2", "c3"])]
    assert is_same(calls, [*calls[:2], ("Tanh", ["c1"]), ("GELU", ["c0"]), calls[4]])
    assert not is_same(
        calls,
        [
            *calls[:2],
            ("Tanh", ["c0"]),
            ("GELU", ["c0"]),
            ("sub", ["c2", "c3"]),
        ],
    )


# ---- the command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("vgg.rw").write_text("param rate = 0.1\nrule drop: after ReLU: insert Dropout(rate)\n")
    Path("vgg.test.rw").write_text(
        'include "vgg.rw"\n'
        'test drop "behind": given x -> ReLU -> y; want x -> ReLU -> Dropout(rate) -> y\n'
        'test drop "ten percent": given x -> ReLU -> y; want x -> ReLU -> Dropout(0.1) -> y\n'
        'test drop "not there": given x -> GELU -> y; unchanged\n'
    )
    return tmp_path


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["test", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_tests_beside_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "vgg.rw")
    assert (code, err) == (0, "")
    assert out == dedent("""\
        passed  drop "behind"  (vgg.test.rw:2)
        passed  drop "ten percent"  (vgg.test.rw:3)
        passed  drop "not there"  (vgg.test.rw:4)
        3 tests: 3 passed
        """)
    assert command(capsys, ".", "vgg.test.rw")[1] == out.replace("(vgg", "(./vgg")


def test_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "vgg.rw", "--set", "rate=0.3")
    assert code == 1
    assert out == dedent("""\
        passed  drop "behind"  (vgg.test.rw:2)
        wrong  drop "ten percent"  (vgg.test.rw:3)
            --- want
            +++ got
             relu_1 = ReLU()(x)
            -dropout_1 = Dropout(0.1)(relu_1)
            +dropout_1 = Dropout(0.3)(relu_1)
             return dropout_1
        passed  drop "not there"  (vgg.test.rw:4)
        3 tests: 2 passed, 1 wrong
        """)
    code, out, _ = command(capsys, "vgg.rw", "--set", "rate=0.3", "--fail-fast")
    assert (code, out.splitlines()[-1]) == (1, "2 tests: 1 passed, 1 wrong")
    code, out, _ = command(capsys, "vgg.rw", "-k", "THERE")
    assert (code, out.splitlines()[-1]) == (0, "1 test: 1 passed")
    assert command(capsys, "vgg.rw", "-k", "xyz")[::2] == (2, "no rule or title of 3 tests has 'xyz'\n")
    code, out, _ = command(capsys, "-e", "rule r: remove ReLU", "-e", "test r: given x -> ReLU -> y; want x -> y")
    assert (code, out) == (0, "passed  r  (-e:2)\n1 test: 1 passed\n")


def test_json_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "vgg.rw", "--set", "rate=0.3", "--json")
    form = json.loads(out)
    assert (code, err, form["command"]) == (1, "", "test")
    assert [test["result"] for test in form["tests"]] == ["passed", "wrong", "passed"]
    (error,) = form["errors"]
    assert (error["code"], error["place"]["line"]) == ("RW322", 3)
    assert error["message"] == 'test of `drop` "ten percent": wrong'


def test_files_without_tests_and_files_that_are_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plain.rw").write_text("remove ReLU\n")
    Path("wrong.rw").write_text("rule r: remove ReLU\ntest r: given x -> RelU -> y; unchanged\n")
    code, out, err = command(capsys, ".")
    assert code == 2
    assert out.splitlines()[-2:] == ["./plain.rw: no tests", "3 tests: 3 passed"]
    assert "error[RW101]: unknown layer `RelU`" in err
    assert command(capsys, "plain.rw")[:2] == (0, "plain.rw: no tests\n0 tests\n")
    assert command(capsys, "nowhere.rw")[0] == 2
    assert command(capsys)[0] == 2
    (folder / "empty").mkdir()
    assert command(capsys, "empty")[:2] == (0, "empty: no rule files\n0 tests\n")


def test_classes_that_are_allowed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_nets_of_test.py").write_text("from torch import nn\nclass Net(nn.ReLU):\n    pass\n")
    text = ["-e", "rule r: remove ReLU", "-e", "test r: model own_nets_of_test.Net(); unchanged"]
    assert "RW505" in command(capsys, *text)[1]
    assert "RW505" not in command(capsys, *text, "--allow", "own_nets_of_test.Net")[1]


def test_torch_is_not_imported_before_a_test_needs_it(folder: Path) -> None:
    Path("plain.rw").write_text("remove ReLU\n")
    script = (
        "import sys; from rewrite.cli import main; code = main(['test', 'plain.rw']); "
        "assert not {'torch', 'rich', 'numpy', 'networkx'} & set(sys.modules); sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_finds_what_is_wrong_in_a_test_without_torch(folder: Path) -> None:
    Path("wrong.rw").write_text("rule r: remove ReLU\ntest r: given x -> RelU -> y; unchanged\n")
    script = (
        "import sys; from rewrite.cli import main; code = main(['check', 'wrong.rw']); "
        "assert not {'torch', 'rich', 'numpy', 'networkx'} & set(sys.modules); sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "error[RW101]: unknown layer `RelU`" in done.stderr


def test_the_rule_files_of_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    code, out, _ = command(capsys, str(ROOT / "docs" / "rules"), "--allow-code")
    assert (code, out.splitlines()[-1]) == (0, "13 tests: 13 passed")
