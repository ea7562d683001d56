"""The report as text and as JSON."""

from __future__ import annotations

import json

from rewrite.errors import Diagnostic
from rewrite.report import ClauseReport, Report, Site, Totals, totals_table

CLAUSE = ClauseReport(
    text="after Conv2d: insert BatchNorm2d",
    place="bn.rw:3:1",
    sites=(
        Site("features.0", "nn.Conv2d", ("insert BatchNorm2d(num_features=64)", "set it"), {"num_features": 64}),
        Site("features.10", "F.conv2d", ("insert Identity()",), {}),
    ),
    misses=("`features.20`: lies outside",),
)

REPORT = Report(
    model="torchvision:vgg16",
    rules="bn.rw",
    clauses=(CLAUSE,),
    before=Totals(operations=39, layers=40, parameters=138_357_544, trainable=138_357_544),
    after=Totals(operations=52, layers=53, parameters=138_365_992, trainable=8_448),
    new_parameters=8_448,
    frozen_parameters=138_357_544,
    new_keys=("features.0_batchnorm2d.weight",),
    output="its shape is unchanged",
    warnings=(Diagnostic("RW401", "applied before"),),
    scopes=(("head", "a loop over a tensor"),),
)

TEXT = """\
bn.rw:3:1: after Conv2d: insert BatchNorm2d
  2 sites
    features.0   nn.Conv2d  insert BatchNorm2d(num_features=64); set it  [num_features=64 inferred]
    features.10  F.conv2d   insert Identity()
  1 near miss
    `features.20`: lies outside

new parameters: 8,448
frozen parameters: 138,357,544
new keys of the state_dict: 1
  features.0_batchnorm2d.weight

1 module whose forward was not captured; calls in them are seen one by one:
  head  a loop over a tensor

                 before        after        change
operations           39           52           +13
layers               40           53           +13
parameters  138,357,544  138,365,992        +8,448
trainable   138,357,544        8,448  -138,349,096
output: its shape is unchanged"""


def test_the_text_form():
    assert REPORT.render() == TEXT


def test_the_text_form_without_its_end():
    assert REPORT.render(end=False) == TEXT[: TEXT.index("\n\n                 before")]
    assert totals_table(REPORT)[1] == ("operations", "39", "52", "+13")


def test_the_json_form_is_json_and_complete():
    form = json.loads(json.dumps(REPORT.as_json()))
    assert form["format_version"] == 1
    assert form["clauses"][0]["sites"][0] == {
        "path": "features.0",
        "spelling": "nn.Conv2d",
        "changes": ["insert BatchNorm2d(num_features=64)", "set it"],
        "inferred": {"num_features": 64},
        "mode": "",
    }
    assert form["warnings"][0]["code"] == "RW401"
    assert form["opaque"] == [{"path": "head", "reason": "a loop over a tensor"}]
    assert set(form) == {
        "format_version",
        "model",
        "rules",
        "clauses",
        "before",
        "after",
        "new_parameters",
        "frozen_parameters",
        "removed_keys",
        "new_keys",
        "moved_keys",
        "resized_keys",
        "renewed_keys",
        "output",
        "warnings",
        "runs",
        "scopes",
        "opaque",
    }


def test_long_lists_are_cut_in_the_text_only():
    many = tuple(f"near miss {number}" for number in range(40))
    report = Report("m", "r", (ClauseReport("t", "p", (), misses=many),), REPORT.before, REPORT.before, 0, 0)
    text = report.render()
    assert "    near miss 11\n    ... and 28 more; --json lists them all" in text
    assert "near miss 12" not in text
    assert report.as_json()["clauses"][0]["misses"] == many


def test_sites_of_the_other_mode_and_skipped_clauses():
    other = ClauseReport("t", "p", (), other_mode=(Site("aux", "F.relu", ("insert A()",), {}, mode="train"),))
    skipped = ClauseReport("u", "q", (), skipped=True)
    report = Report("m", "r", (other, skipped), REPORT.before, REPORT.before, 0, 0)
    assert report.render().startswith(
        "p: t\n"
        "  0 sites\n"
        "  1 further site in train mode only\n"
        "    aux  F.relu  insert A()\n"
        "\n"
        "q: u\n"
        "  skipped: the model has this clause applied already\n"
    )


def test_names_cannot_drive_the_terminal():
    clause = ClauseReport("t", "p", (Site("a\x1b[2Jb", "F.relu", ("x",), {}),))
    report = Report("m", "r", (clause,), REPORT.before, REPORT.before, 0, 0)
    assert "\x1b" not in report.render()
    assert r"a\x1b[2Jb" in report.render()
