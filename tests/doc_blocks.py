"""The blocks of the documents as Sybil finds them, and what is done with each.

A block of rules is read and resolved. Where a comment stands in front of it, it is applied as well:

    <!-- applies to: torchvision:resnet18 (2, 3, 64, 64) in eval mode; matches 17, 3; warns RW403 -->

* The model: `torchvision:NAME`, or `tests:NAME` for one of `tests/doc_layers.py`. With a shape, the rules are given an
  example input of that shape, and the changed model is run on it. Models are in training mode unless it says otherwise.
* `matches`: how many sites each rule of the block has, in order.
* `warns`: codes that are among the warnings.
* `refused`: code of the error that stops the block, in place of the other two.

Python blocks of one page share their names and run in the order of the page.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from doc_layers import LAYERS, MODELS
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from rewrite import RewriteError, Rules, apply_rules, check_rules, get_report
from rewrite.saved import read_model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RULES = ROOT / "docs" / "rules"

COMMENT = re.compile(r"<!--\s*applies to\b(?P<text>[^<>]*)-->")
_IN_FRONT = re.compile(rf"{COMMENT.pattern}\s*\Z")
_MODEL = re.compile(r"(?P<spec>\w+:\w+)(?: \((?P<shape>[\d, ]+)\))?(?P<eval> in eval mode)?")
_INCLUDE = re.compile(r"^include ", re.MULTILINE)


@dataclass(frozen=True)
class Trial:
    """What a comment in front of a block says."""

    spec: str
    shape: tuple[int, ...] | None
    evaluates: bool
    matches: list[int] | None = None
    warns: tuple[str, ...] = ()
    refused: str = ""

    @classmethod
    def read(cls, text: str) -> Trial:
        """The meaning of `: torchvision:resnet18 (2, 3, 64, 64); matches 17`."""
        first, *rest = [part.strip() for part in text.strip().removeprefix(":").split(";")]
        model = _MODEL.fullmatch(first)
        assert model is not None, f"this names no model: {first}"
        shape = (
            None if model["shape"] is None else tuple(int(size) for size in model["shape"].split(",") if size.strip())
        )
        said = dict(part.split(" ", 1) for part in rest)
        unknown = said.keys() - {"matches", "warns", "refused"}
        assert not unknown, f"not known in a comment: {unknown}"
        matches = [int(number) for number in said["matches"].split(",")] if "matches" in said else None
        warns = tuple(code.strip() for code in said.get("warns", "").split(",") if code)
        return cls(model["spec"], shape, model["eval"] is not None, matches, warns, said.get("refused", ""))

    def model(self) -> torch.nn.Module:
        family, _, name = self.spec.partition(":")
        if family == "torchvision":
            pytest.importorskip("torchvision")
        model = MODELS[name]() if family == "tests" else read_model(self.spec)
        return model.train(not self.evaluates)


def rule_blocks(document: Document) -> Iterator[Region]:
    """Parser of Sybil for ```rw."""
    for region in FencedCodeBlockLexer("rw")(document):
        comment = _IN_FRONT.search(document.text, 0, region.start)
        trial = None if comment is None else Trial.read(comment["text"])
        yield Region(region.start, region.end, (str(region.lexemes["source"]), trial), _evaluate_rules)


def _evaluate_rules(example: Example) -> None:
    text, trial = example.parsed
    name = f"{Path(example.path).relative_to(ROOT)}, block in line {example.line}"
    if _INCLUDE.search(text) is None:
        _try(Rules(text, name), trial)
        return
    with tempfile.TemporaryDirectory() as folder:  # what it includes is looked for beside it
        shutil.copytree(RULES, folder, dirs_exist_ok=True)
        file = Path(folder) / "block.rw"
        file.write_text(text, encoding="utf-8")
        _try(file, trial)


def _try(rules: Rules | Path, trial: Trial | None) -> None:
    if trial is None:
        check_rules(rules, modules={"my": LAYERS})
        return
    if trial.refused:
        with pytest.raises(RewriteError) as caught:
            _apply(rules, trial)
        assert trial.refused in [problem.code for problem in caught.value.diagnostics]
        return
    changed, example = _apply(rules, trial)
    report = get_report(changed)
    assert report is not None
    assert trial.matches is None or [len(clause.sites) for clause in report.clauses] == trial.matches
    assert {*trial.warns} <= {warning.code for warning in report.warnings}
    if example is not None:
        changed(example)


def _apply(rules: Rules | Path, trial: Trial) -> tuple[torch.nn.Module, torch.Tensor | None]:
    example = None if trial.shape is None else torch.randn(trial.shape)
    return apply_rules(trial.model(), rules, example_inputs=example, modules={"my": LAYERS}), example


def examples(page: Path, language: str) -> list[Example]:
    """The blocks of one language, in the order of the page."""
    parser = rule_blocks if language == "rw" else CodeBlockParser(language, PythonEvaluator())
    document = Document.parse(str(page), parser)
    document.namespace["__name__"] = "docs"
    return list(document.examples())


def source_lines(blocks: list[Example]) -> list[str]:
    """The Python of a page, each line where it stands: what Python shows of code that is run from there."""
    lines: dict[int, str] = {}
    for block in blocks:
        first = block.line + block.parsed.line_offset
        lines |= dict(enumerate(block.parsed.splitlines(keepends=True), first))
    return [lines.get(number, "\n") for number in range(max(lines) + 1)]
