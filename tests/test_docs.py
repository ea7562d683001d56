"""The documents hold: every rule in them is a rule, every Python block runs, every file and code they name exists."""

from __future__ import annotations

import linecache
import re
import shlex
from pathlib import Path

import pytest
from doc_blocks import COMMENT, PAGES, ROOT, RULES, examples, source_lines
from doc_layers import LAYERS, Transformer
from sybil import Example

from rewrite import apply_rules, check_rules
from rewrite.cli import main
from rewrite.errors import CODES

RULE_FILES = sorted(RULES.glob("*.rw"))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
COMMAND = re.compile(r"^#     rewrite ((?:plan|apply) .*)$", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


RULE_BLOCKS = [
    pytest.param(example, id=f"{named(page)}:{example.line}") for page in PAGES for example in examples(page, "rw")
]


@pytest.mark.parametrize("block", RULE_BLOCKS)
def test_rule_blocks_hold(block: Example) -> None:
    block.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_comments_stand_in_front_of_rules(page: Path) -> None:
    applied = sum(example.parsed[1] is not None for example in examples(page, "rw"))
    assert applied == len(COMMENT.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page, "python")], ids=named)
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page in one test, since a block may use what those in front of it made."""
    blocks = examples(page, "python")
    if any("torchvision" in block.parsed for block in blocks):
        pytest.importorskip("torchvision")
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(linecache.cache, str(page), (0, None, source_lines(blocks), str(page)))
    for block in blocks:
        block.evaluate()


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rule_files_are_rules(file: Path) -> None:
    check_rules(file, modules={"my": LAYERS})
    check_rules(file)


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rule_files_explain_themselves(file: Path) -> None:
    first, *_ = file.read_text(encoding="utf-8").splitlines()
    assert first.startswith("# "), "begins with a comment that says what it is for"


COMMANDS = [
    pytest.param(command, id=f"{file.name}: {command}")
    for file in RULE_FILES
    for command in COMMAND.findall(file.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_in_rule_files_work(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`apply` writes to a folder of its own."""
    pytest.importorskip("torchvision")
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    if "-o" in words:
        place = words.index("-o") + 1
        words[place] = str(tmp_path / words[place])
    assert main(words) == 0


def test_adapters_alone_learn() -> None:
    adapted = apply_rules(Transformer(), RULES / "lora_attention.rw")
    learning = [name.rpartition(".")[2] for name, tensor in adapted.named_parameters() if tensor.requires_grad]
    assert learning == ["lora_A", "lora_B"] * 4


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not broken


def test_every_code_is_listed() -> None:
    page = ROOT / "docs" / "diagnostics.md"
    rows = re.findall(r"^\| \[(RW\d{3})\]\S* \| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    listed = dict(rows)
    assert listed.keys() == CODES.keys()
    assert all(row.title in listed[code] for code, row in CODES.items())
