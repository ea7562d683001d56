"""The canonical form of rule files: exact texts, and for random files the same tree, the same comments, and no change
when formatted again.

`tests/formats/*.rw` and the `.txt` beside each is what becomes of it. `REWRITE_UPDATE=1 pytest tests/test_formatter.py`
writes the texts anew; read the difference before keeping it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rule_texts import RuleText, bare, rule_text

from rewrite import parser
from rewrite.comments import attach
from rewrite.errors import RuleError
from rewrite.file_formatter import format_source
from rewrite.layout import PARTS
from rewrite.line_breaks import WIDTH, break_line
from rewrite.source import Source

ROOT = Path(__file__).parent.parent
FORMATS = sorted((ROOT / "tests" / "formats").glob("*.rw"))
RULES = sorted((ROOT / "docs" / "rules").glob("*.rw"))


def parse(text: str) -> object:
    return bare(parser.parse(Source("<test>", text)).lines)


def formatted(text: str) -> str:
    return format_source(Source("<test>", text))


def comments(text: str) -> Counter[str]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Counter(match[0].rstrip() for match in PARTS.finditer(text) if match[0].startswith("#"))


# ---- exact texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    expected = path.with_suffix(".txt")
    if os.environ.get("REWRITE_UPDATE"):
        expected.write_text(formatted(text), encoding="utf-8")
    assert formatted(text) == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*FORMATS, *RULES], ids=lambda path: path.stem)
def test_file_keeps_its_meaning(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    once = formatted(text)
    assert parse(once) == parse(text)
    assert comments(once) == comments(text)
    assert formatted(once) == once


LITERAL = "after Conv2d: insert BatchNorm2d; set prev.activation = identity\n"


@pytest.mark.parametrize(
    "text",
    [
        "after Conv2d: insert BatchNorm2d; set prev.activation=identity",
        "after Conv2d:\n\tinsert BatchNorm2d\n\n\tset prev.activation=identity\n\n\n",
        "\ufeffafter Conv2d:\r\n  insert BatchNorm2d\r\n  set prev.activation=identity\r\n",
        "\r\rafter Conv2d{insert BatchNorm2d;set prev.activation=identity;}\r",
        "after Conv2d\n{\ninsert BatchNorm2d(\n)\nset prev.activation=(identity)\n}",
    ],
)
def test_one_form_for_all_layouts(text: str) -> None:
    assert formatted(text) == LITERAL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("remove A;remove B", "remove A\nremove B\n"),
        ("insert X(1E-3, (0.50), 007)", "insert X(1e-3, 0.50, 7)\n"),
        ("insert X((\n1e-3))", "insert X(1e-3)\n"),
        ("remove 'a\"b'", 'remove "a\\"b"\n'),
        ("remove X where a==(b)  and(c or d)", "remove X where a == b and (c or d)\n"),
        ("remove X[a==(b or c)]", "remove X[a == (b or c)]\n"),
        ("fold B into A\nexpect equivalent", "fold B into A; expect equivalent\n"),
        ("param rate=1\nexpect any matches", "param rate = 1\nexpect any matches\n"),
        ("after X: insert Y\nexpect any matches", "after X: insert Y\nexpect any matches\n"),
        ("within A{remove B;expect any matches}", "within A: remove B; expect any matches\n"),
        ("repeat max 2{match A>>B as b{remove b}}", "repeat max 2: match A >> B as b: remove b\n"),
        ("rule r:remove A;expect 1 matches", "rule r:\n    remove A; expect 1 matches\n"),
        ("test r:given x->y;unchanged", "test r:\n    given x -> y\n    unchanged\n"),
        ("within A { remove B\n\n\n remove C; remove D; remove E\n\n}", None),
    ],
)
def test_text(text: str, expected: str | None) -> None:
    if expected is None:
        expected = "within A:\n    remove B\n\n    remove C\n    remove D\n    remove E\n"
    assert formatted(text) == expected
    assert formatted(expected) == expected


def test_text_with_errors_is_not_formatted() -> None:
    with pytest.raises(RuleError) as caught:
        formatted("remove X\nremvoe Y\ninsert\n")
    assert [error.code for error in caught.value.diagnostics] == ["RW002", "RW001"]


def test_lines_fit_where_they_can_be_broken() -> None:
    path = ROOT / "tests" / "formats" / "long.rw"
    wide = [line for line in formatted(path.read_text(encoding="utf-8")).splitlines() if len(line) > WIDTH]
    assert all("cannot/be/broken" in line for line in wide)


def test_long_lists_are_broken_quickly() -> None:
    names = [f"Layer{number}" for number in range(20_000)]
    lines = break_line("remove " + " | ".join(names), 4)
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(line.strip() for line in lines) == "remove " + " | ".join(names)


# ---- any text -----------------------------------------------------------------------------------------------------


def check(made: RuleText) -> None:
    assert parse(made.text) == bare(made.tree), made.text
    once = formatted(made.text)
    assert parse(once) == bare(made.tree), f"{made.text}\n-- formatted:\n{once}"
    assert formatted(once) == once, made.text
    assert comments(once) == Counter(made.comments), made.text
    assert once.endswith("\n")
    assert not once.endswith("\n\n")
    assert not once.startswith("\n")
    assert "\n\n\n" not in once
    assert "\r" not in once


def check_all(seed: int, count: int) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        check(rule_text(draw))


def test_random_files() -> None:
    check_all(0, 300)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_random_files(seed: int) -> None:
    check_all(seed, 1000)


def test_random_files_hold_the_whole_grammar() -> None:
    """Every alternative of every rule, with and without each of its optional parts, is used."""
    made = parser._Parser()
    core = made.lark.parser.parser.parser  # type: ignore[attr-defined]
    used: set[object] = set()

    def recorded(rule: object, build: Callable[[list[object]], object]) -> Callable[[list[object]], object]:
        def call(children: list[object]) -> object:
            used.add(rule)
            return build(children)

        return call

    rules = set(core.callbacks)
    core.callbacks = {rule: recorded(rule, build) for rule, build in core.callbacks.items()}
    draw = random.Random(0)
    for _ in range(1000):
        text = rule_text(draw).text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        lines = text.split("\n")
        while not lines[0].strip() or lines[0].lstrip().startswith("#"):  # a chunk begins with a word
            lines.pop(0)
        made.builder.start_chunk(Source("<test>", text), 1)
        made.blocks.start(made.builder.place)
        made.lark.parse("\n".join(lines))
    assert not {str(rule) for rule in rules - used}


def test_comments_of_a_block_stay_in_it() -> None:
    file = parser.parse(Source("<test>", "after X {\n# a\ninsert Y # b\n# c\n} # d\n# e\n"))
    body = attach(file)
    (item,) = body.items
    assert item.body is not None
    (insert,) = item.body.items
    assert [comment.text for comment in insert.leading] == ["# a"]
    assert insert.trailing == "# b"
    assert [comment.text for comment in item.body.closing] == ["# c", "# d"]
    assert [comment.text for comment in body.closing] == ["# e"]
