"""Rule files on whole zoos: the census, and its sites against calls that are counted by running the models."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewrite import RuleError, Rules, SafetyError, plan_rules
from rewrite.census import Line, reasons, summary, take_census
from rewrite.cli import main

pytest.importorskip("torchvision")

import zoo

from rewrite.saved.builder import find_builders

PARTS = 10
"""in which a zoo is divided among tests, so that several processes can share it"""
RULES = Path(__file__).parent.parent / "docs" / "rules"
BATCHNORM = str(RULES / "batchnorm_after_conv.rw")
QUICK = ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "vit_b_16", "r3d_18", "mobilenet_v3_small")


def verdicts(rules: list[str | Rules], models: list[str], **options: object) -> dict[str, str]:
    return {line.model: line.verdict for line in take_census(rules, models, **options)}  # type: ignore[arg-type]


class TestBuilders:
    def test_one_by_its_name(self) -> None:
        assert find_builders("torchvision:resnet18") == ["torchvision:resnet18"]

    def test_a_pattern(self) -> None:
        found = find_builders("torchvision:resnet*")
        assert "torchvision:resnet50" in found
        assert all(name.startswith("torchvision:resnet") for name in found)

    def test_all_kinds_of_torchvision(self) -> None:
        names = {name.partition(":")[2] for name in find_builders("torchvision:*")}
        assert {"maskrcnn_resnet50_fpn", "deeplabv3_resnet50", "swin3d_t", "raft_small", "quantized_resnet18"} <= names

    def test_one_of_each_family_of_timm(self) -> None:
        timm = pytest.importorskip("timm")
        found = find_builders("timm:*")
        assert len(found) == len(timm.list_modules())
        assert len(find_builders("timm:*", every=True)) > 1000

    @pytest.mark.parametrize("pattern", ["torchvision:nothing*", "nowhere:*", "resnet18"])
    def test_none(self, pattern: str) -> None:
        with pytest.raises(SafetyError, match="RW505"):
            find_builders(pattern)


class TestVerdicts:
    def test_places_and_scopes(self) -> None:
        (line,) = take_census([BATCHNORM], ["torchvision:resnet18"])
        assert (line.verdict, line.sites, line.code) == ("rewritten", 20, "")
        assert line.scopes == {"graph": 9, "list": 7}
        assert line.seconds > 0

    def test_a_model_without_a_place_is_no_failure(self) -> None:
        rules: list[str | Rules] = [
            Rules("after LSTM: insert Dropout(0.1)", "one"),
            Rules("after LSTM { insert Dropout(0.1); expect 3 matches }", "count"),
            Rules('freeze "classifier"', "path"),
        ]
        assert [line.verdict for line in take_census(rules, ["torchvision:resnet18"])] == ["none"] * 3

    def test_a_wrong_number_of_places_is_one(self) -> None:
        (line,) = take_census([str(RULES / "vgg16_batchnorm.rw")], ["torchvision:resnet18"])
        assert (line.verdict, line.code, line.reason) == ("refused", "RW303", "20 matches, expected 13")

    def test_a_model_that_cannot_be_built(self) -> None:
        (line,) = take_census([BATCHNORM], ["torchvision:resnet1"])
        assert (line.verdict, line.code) == ("unbuilt", "RW505")

    def test_an_error_of_ours_does_not_end_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("of ours")

        monkeypatch.setattr("rewrite.census.apply_with_report", broken)
        (line,) = take_census([BATCHNORM], ["torchvision:resnet18"])
        assert (line.verdict, line.reason) == ("failed", "ZeroDivisionError: of ours")

    def test_wrong_rules_end_it_before_any_model(self) -> None:
        with pytest.raises(RuleError, match="RW002"):
            take_census([Rules("affter Conv2d: insert BatchNorm2d")], ["torchvision:resnet1"])


@pytest.mark.long
class TestProcesses:
    def test_the_same_lines_as_without(self) -> None:
        models = ["torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:mnasnet0_5"]

        def facts(lines: list[Line]) -> Counter[tuple[str, str, int]]:
            return Counter((line.model, line.verdict, line.sites) for line in lines)

        assert facts(list(take_census([BATCHNORM], models, jobs=2))) == facts(list(take_census([BATCHNORM], models)))

    def test_one_that_takes_too_long_is_ended(self) -> None:
        start = time.monotonic()
        found = verdicts([BATCHNORM], ["torchvision:resnet18", "torchvision:resnet34"], timeout=0.01)
        assert found == {"torchvision:resnet18": "late", "torchvision:resnet34": "late"}
        assert time.monotonic() - start < 60


class TestSummary:
    LINES = (
        Line("a.rw", "x:one", "rewritten", 0.1, sites=3),
        Line("a.rw", "x:two", "refused", 0.1, code="RW303", reason="20 matches, expected 13"),
        Line("a.rw", "x:three", "refused", 0.1, code="RW303", reason="7 matches, expected 13"),
        Line("b.rw", "x:one", "none", 0.1),
    )

    def test_by_verdict(self) -> None:
        found = summary(self.LINES)
        assert +found["a.rw"] == {"rewritten": 1, "refused": 2}
        assert +found["b.rw"] == {"none": 1}

    def test_by_reason(self) -> None:
        assert reasons(self.LINES) == [("refused", "RW303: N matches, expected N", 2, "x:two")]


class TestCommand:
    def test_lines_and_summary(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["census", "-e", "after Conv2d: insert BatchNorm2d", "torchvision:resnet18"]) == 0
        out, err = capsys.readouterr()
        first, empty, closing = out.splitlines()
        assert first.split()[:3] == ["torchvision:resnet18", "-e", "rewritten"]
        assert first.endswith("20 sites  9 graph, 7 list")
        assert (empty, closing, err) == ("", "-e: 1 models: 1 rewritten; 20 sites", "")

    def test_findings(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["census", str(RULES / "vgg16_batchnorm.rw"), "torchvision:resnet18"]) == 1
        assert "refused: RW303: N matches, expected N (such as torchvision:resnet18)" in capsys.readouterr().out

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["census", "-e", "after LSTM: insert Dropout(0.1)", "torchvision:resnet18", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        (line,) = found["lines"]
        assert (line["model"], line["verdict"], line["code"]) == ("torchvision:resnet18", "none", "RW301")
        assert found["summary"]["-e"]["none"] == 1

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["torchvision:resnet18"], "missing RULES"),
            ([BATCHNORM], "missing MODELS"),
            ([BATCHNORM, "torchvision:resnet18", "--jobs", "0"], "argument --jobs: '0' is not above 0"),
            ([BATCHNORM, "torchvision:resnet18", "--timeout", "x"], "argument --timeout: invalid float value: 'x'"),
        ],
    )
    def test_usage(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["census", *words]) == 2
        assert capsys.readouterr().err.endswith(f"rewrite census: error: {message}\n")

    @pytest.mark.parametrize("words", [["no.rw", "torchvision:resnet18"], [BATCHNORM, "torchvision:no*"]])
    def test_it_cannot_be_done(self, words: list[str]) -> None:
        assert main(["census", *words]) == 2


class TestSitesAreCalls:
    """Sites of the report = calls of the model as it was = calls of what was inserted."""

    @pytest.mark.parametrize("name", QUICK)
    def test_quick(self, name: str) -> None:
        for outcome in zoo.outcomes(f"torchvision:{name}"):
            assert outcome.is_equal, outcome

    @pytest.mark.long
    @pytest.mark.parametrize("part", range(PARTS))
    @pytest.mark.parametrize("family", ["torchvision", "timm"])
    def test_whole_zoo(self, family: str, part: int, record_property: Callable[[str, object], None]) -> None:
        if family == "timm":
            pytest.importorskip("timm")
        found = [one for spec in find_builders(f"{family}:*")[part::PARTS] for one in zoo.outcomes(spec)]
        equal, explained = sum(one.is_equal for one in found), sum(one.is_explained for one in found)
        record_property("summary", f"{len(found)} pairs of model and rules: {equal} equal, {explained} explained")
        assert not [one for one in found if not one.is_equal and not one.is_explained]


class NormAct(nn.BatchNorm2d):
    """As timm has it: a normalisation that carries an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))  # type: ignore[no-any-return]


class TestActivationsInside:
    @pytest.mark.parametrize("rule", ["replace BatchNorm2d with GroupNorm(num_groups=4)", "remove BatchNorm2d"])
    def test_one_that_goes_with_its_layer_is_told(self, rule: str) -> None:
        with torch.device("meta"):
            model = nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        (warning,) = plan_rules(model, Rules(rule)).report.warnings
        assert (warning.code, warning.message) == ("RW402", "this removes the activation of `1`")
