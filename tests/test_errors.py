"""Every mistake in rule text, and the exact text that answers it: `tests/errors/*.rw` and the `.txt` beside each.

`REWRITE_UPDATE=1 pytest tests/test_errors.py` writes the texts anew; read the difference before keeping it.
A first line `# params: name=value, ...` says which parameters the caller gives.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest

from rewrite import parser, resolver
from rewrite.errors import CODES, RuleError
from rewrite.layout import MOST_CHARACTERS, MOST_TOKENS
from rewrite.source import Source

FOLDER = Path(__file__).parent / "errors"
CASES = sorted(FOLDER.glob("*.rw"))
LARGE = {
    "rw012_characters": "#" * (MOST_CHARACTERS + 1),
    "rw013_words": "remove ReLU\n" * (MOST_TOKENS // 2 + 1),
}
"""texts that are too large to keep as files"""
CODE = re.compile(r"^(?:error|warning)\[(RW\d+)\]", re.MULTILINE)


def answer(path: Path) -> str:
    """What the user reads about a rule file."""
    given = re.match(rb"# params: (.*)", path.read_bytes())
    params: dict[str, object] = {}
    if given:
        params = {name: float(value) for name, value in (pair.split("=") for pair in given[1].decode().split(", "))}
    try:
        program = resolver.resolve(parser.parse(parser.read(path.name)), params=params)
    except RuleError as error:
        return f"{error}\n"
    return "\n\n".join(warning.render() for warning in program.warnings) + "\n"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    expected = path.with_suffix(".txt")
    if os.environ.get("REWRITE_UPDATE"):
        expected.write_text(answer(path), encoding="utf-8")
    assert answer(path) == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LARGE)
def test_answer_to_large_text(name: str) -> None:
    with pytest.raises(RuleError) as caught:
        parser.parse(Source(f"{name}.rw", LARGE[name]))
    expected = FOLDER / f"{name}.txt"
    if os.environ.get("REWRITE_UPDATE"):
        expected.write_text(f"{caught.value}\n", encoding="utf-8")
    assert f"{caught.value}\n" == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_name_says_the_code(path: Path) -> None:
    code = re.match(r"rw\d+", path.stem)
    found = set(CODE.findall(path.with_suffix(".txt").read_text(encoding="utf-8")))
    assert code is None or found == {code[0].upper()}


def test_every_code_of_rule_text_has_a_case() -> None:
    found = {code for path in FOLDER.glob("*.txt") for code in CODE.findall(path.read_text(encoding="utf-8"))}
    apart = {"RW015", "RW016", "RW111"}  # they need several files, and stand in test_inclusion.py
    assert {code for code in CODES if code < "RW2"} - apart - {"RW112"} <= found  # and this one a model


def test_no_case_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in CASES} | set(LARGE)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_carets_lie_under_the_line(path: Path) -> None:
    """Each drawing has its carets within the line that it shows."""
    lines = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    for shown, carets in itertools.pairwise(lines):
        if re.match(r"\d+ \| ", shown) and "^" in carets:
            assert carets.index("^") <= len(shown)


def test_missing_file() -> None:
    with pytest.raises(RuleError) as caught:
        parser.read("no/such.rw")
    assert (
        str(caught.value)
        == "error[RW010]: cannot read `no/such.rw`: No such file or directory\n  = help: check the path"
    )
    assert caught.value.exit_code == 2
