"""The documents hold: every rule in them is a rule, every Python block runs, every file and code they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewrite import Rules, check_rules
from rewrite.errors import CODES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RULE_FILES = sorted((ROOT / "docs" / "rules").glob("*.rw"))
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def blocks(language: str) -> list[object]:
    """Every fenced block of a language, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match["language"] == language:
                line = text.count("\n", 0, match.start()) + 2
                found.append(pytest.param(match["text"], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("text", blocks("rw"))
def test_rule_blocks_are_rules(text: str) -> None:
    check_rules(Rules(text))


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rule_files_are_rules(file: Path) -> None:
    check_rules(file)


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rule_files_explain_themselves(file: Path) -> None:
    first, *_ = file.read_text(encoding="utf-8").splitlines()
    assert first.startswith("# "), "begins with a comment that says what it is for"


@pytest.mark.parametrize("text", blocks("python"))
def test_python_blocks_run(text: str) -> None:
    if "torchvision" in text:
        pytest.importorskip("torchvision")
    exec(compile(text, "<docs>", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not broken


def test_every_code_is_listed() -> None:
    listed = dict(re.findall(r"^\| (RW\d{3}) \| (.*) \|$", (ROOT / "docs" / "language.md").read_text(), re.MULTILINE))
    assert listed == {code: row.title for code, row in CODES.items()}
