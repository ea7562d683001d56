"""No text at all gets anything but a RuleError with places inside of the text, and none takes long."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

import pytest
from fuzzing import mutated, table, try_text

from rewrite import parser, resolver
from rewrite.errors import RuleError
from rewrite.file_formatter import format_source
from rewrite.layout import MOST_CHARACTERS, MOST_TOKENS, PARTS
from rewrite.source import Source

Record = Callable[[str, object], None]


def try_many(seed: int, count: int) -> str:
    draw = random.Random(seed)
    refused, seconds = 0, []
    for _ in range(count):
        data = mutated(draw)
        try:
            wrong, took = try_text(data, resolver.resolve)
        except Exception as error:
            error.add_note(f"the text: {data!r}")
            raise
        refused += wrong
        seconds.append(took)
    assert count / 4 < refused < count
    return f"{count} texts, {refused} refused; {table(seconds)}"


def test_no_text_gets_an_exception(record_property: Record) -> None:
    record_property("summary", try_many(0, 2000))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_no_text_of_many_gets_an_exception(seed: int, record_property: Record) -> None:
    record_property("summary", try_many(seed, 10_000))


BOMBS = {
    "brackets": "remove X where " + "(" * 500_000,
    "brackets_of_all_kinds": "remove X where " + "([{" * 300_000,
    "closing_brackets": "remove X" + ")" * 500_000,
    "unclosed_on_every_line": "after X { insert Y(\n" * 50_000,
    "unclosed_braces": "after X {\n" * 100_000,
    "unclosed_inside_of_lines": "remove X where ((\nremove Y\n" * 30_000,
    "not": "remove X where " + "not " * 90_000 + "a",
    "minus": "remove X where " + "-" * 190_000 + "a",
    "sum": "remove X where 1" + "+1" * 95_000,
    "and": "remove X where a" + " and a" * 90_000,
    "attributes": "remove X where a" + ".b" * 90_000,
    "indices": "remove X where a" + "[0]" * 60_000,
    "calls": "remove X where a" + "()" * 90_000,
    "dotted": "remove " + "a." * 90_000 + "a",
    "nested_clauses": "within A: " * 60_000 + "remove X",
    "nested_blocks": "".join(f"{' ' * depth}within A:\n" for depth in range(1000)),
    "dedents": "".join(f"{' ' * (1000 - depth)}remove A\n" for depth in range(1000)),
    "alternatives": "remove " + "|".join(["X"] * 99_000),
    "chain": "match " + "->".join(["X"] * 99_000) + ": remove X",
    "optional_chain": "match " + ">>".join(["X?"] * 60_000) + ": remove X",
    "chains": "match " + ",".join(["X"] * 99_000) + ": remove X",
    "flow": "insert " + "->".join(["X"] * 99_000),
    "scopes": "remove X" + " in A" * 99_000,
    "tests": "remove X[" + ",".join(["a"] * 99_000) + "]",
    "arguments": "insert X(" + ",".join(["1"] * 99_000) + ")",
    "assigns": "set " + ",".join(["a.b=1"] * 33_000),
    "list": "let a = [" + "1," * 99_000 + "]",
    "lines": "remove X\n" * 99_000,
    "statements": "remove X;" * 66_000,
    "wrong_lines": "remvoe X\n" * 99_000,
    "words": "remove X " * 200_000,
    "integer": "insert X(" + "9" * 1_000_000 + ")",
    "float": "insert X(" + "9" * 500_000 + "." + "9" * 500_000 + ")",
    "exponent": "insert X(1e" + "9" * 1_000_000 + ")",
    "name": "remove " + "X" * 1_000_000,
    "string": 'remove "' + "*" * 1_000_000 + '"',
    "escapes": 'remove "' + "\\q" * 500_000 + '"',
    "open_string": 'remove "' + "\\" * 1_000_000,
    "quotes": '"' * 1_000_000,
    "quotes_on_every_line": 'remove "\n' * 100_000,
    "comments": "remove X\n" + "#\n" * 500_000,
    "comments_inside": "remove X |" + "\n#" * 400_000 + "\nY",
    "comments_in_front": "remove X" + "\n#" * 400_000 + "\n| Y",
    "blank_lines": "remove X" + "\n" * 1_000_000,
    "blank_lines_inside": "remove (" + "\n" * 1_000_000,
    "spaces": "remove X\n" + " " * 1_000_000 + "\n| Y",
    "lines_of_spaces": "remove X" + ("\n" + " " * 100) * 10_000,
    "continuations": "remove X\n" + "| X\n" * 90_000,
    "carriage_returns": "remove X" + "\r" * 1_000_000,
    "too_long": "#" * (MOST_CHARACTERS + 1),
}


MOST_SECONDS = 10
"""a guard against what never ends; what it really takes is measured by `benchmarks/parsing.py`"""


def seconds_for(text: str) -> float:
    """Of the processor, so that other programs beside the tests do not count; with the message."""
    started = time.process_time()
    try_text(text.encode())
    return time.process_time() - started


def at_the_limit(text: str) -> str:
    """As much of a text as may be read."""
    words = (one for one in PARTS.finditer(text) if one.lastgroup not in ("space", "newline"))
    last = next(itertools.islice(words, MOST_TOKENS - 1, None), None)
    return text if last is None else text[: last.end()]


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_takes_long(name: str) -> None:
    assert seconds_for(BOMBS[name]) < MOST_SECONDS


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_that_is_just_not_too_large_takes_long(name: str) -> None:
    text = at_the_limit(BOMBS[name])
    if text != BOMBS[name]:
        assert seconds_for(text) < MOST_SECONDS


@pytest.mark.parametrize("name", BOMBS)
def test_formatting_takes_not_much_longer(name: str) -> None:
    source = Source("<test>", at_the_limit(BOMBS[name]))
    started = time.process_time()
    try:
        once = format_source(source)
    except RuleError:
        return
    assert time.process_time() - started < MOST_SECONDS
    assert parser.parse(Source("<test>", once)) is not None
