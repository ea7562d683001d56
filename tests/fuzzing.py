"""Rule files made wrong: at random places in their bytes, their words and their grammar."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rule_texts import Layout, Line, Trees, rule_text

from rewrite import parser
from rewrite.errors import Diagnostic, RuleError
from rewrite.layout import PARTS
from rewrite.source import Source
from rewrite.syntax import File

ROOT = Path(__file__).parent.parent
CORPUS = tuple(
    path.read_bytes()
    for folder in ("docs/rules", "tests/errors", "tests/formats")
    for path in sorted((ROOT / folder).glob("*.rw"))
)
SOUND = tuple(
    line.partition("#")[0].strip()
    for path in (ROOT / "tests/formats/worked.rw", *sorted((ROOT / "docs/rules").glob("*.rw")))
    for line in path.read_text(encoding="utf-8").splitlines()
    if not line.startswith((" ", "#")) and line.partition("#")[0].strip()
)
"""lines of rule files, one by one"""

WORDS = (
    *(word.strip("`") for word in parser.WORDS.values() if word.startswith("`")),
    *(
        "\n",
        "\n\n",
        "\n  ",
        "\n    ",
        "\n\t",
        "\r\n",
        "\r",
        " ",
        "\t",
        "#",
        "# x\n",
        "\\",
        "$",
        "'",
        '"',
        "=>",
        "<-",
        "==",
        "<",
    ),
    *(
        "1",
        "1.5",
        "1e5",
        "1e999",
        ".5",
        "9" * 20,
        "Conv2d",
        "nn.ReLU",
        "é",
        "_",
        "self",
        "prev.activation",
        "none",
        "+",
        "-",
    ),
    *(
        "has_next(",
        '"features.**"',
        "'a",
        "\x0b",
        "\xa0",
        "\u2028",
        "\ufeff",
        "\0",
        "\x85",
        "\u0663",
        "\U0001d499",
        "\ud800",
    ),
)


def mutated(draw: random.Random) -> bytes:
    """A rule file with something wrong, or once in a while with nothing wrong."""
    return draw.choice((_bytes, _words, _line, _grammar))(draw)


def mutations(seed: int, count: int) -> list[str]:
    """The same as text."""
    draw = random.Random(seed)
    return [draw.choice((mutated, _line))(draw).decode("utf-8", "replace") for _ in range(count)]


def _excerpt(draw: random.Random) -> str:
    """A few lines of a file that exists, or a file that is made."""
    if draw.random() < 0.3:
        return rule_text(draw, 2).text
    text = draw.choice(CORPUS).decode("utf-8", "replace")
    lines = text.splitlines(keepends=True)
    start = draw.randrange(len(lines)) if lines else 0
    return "".join(lines[start : start + draw.randint(1, 8)])


def _bytes(draw: random.Random) -> bytes:
    data = bytearray(_excerpt(draw).encode("utf-8", "replace"))
    for _ in range(draw.randint(1, 4)):
        at = draw.randint(0, len(data))
        end = min(len(data), at + draw.randint(0, 8))
        match draw.randrange(4):
            case 0:
                data[at:at] = bytes([draw.randrange(256)])
            case 1:
                del data[at:end]
            case 2:
                data[at:end] = bytes(draw.choices(b" \n\t(){}[]:;,.->|@\"'#=ain0", k=draw.randint(1, 3)))
            case _:
                to = draw.randint(0, len(data))
                data[to:to] = data[at:end]
    return bytes(data)


def _words(draw: random.Random) -> bytes:
    return _changed(draw, _excerpt(draw), draw.randint(1, 4))


def _line(draw: random.Random) -> bytes:
    """A line of a sound file that has at most one thing wrong: it often means something."""
    return _changed(draw, draw.choice(SOUND), draw.randint(0, 1))


def _changed(draw: random.Random, text: str, times: int) -> bytes:
    """A text with words put in, left out, doubled or swapped."""
    words = [match[0] for match in PARTS.finditer(text)]
    for _ in range(times):
        at = draw.randint(0, len(words))
        end = min(len(words), at + draw.randint(1, 6))
        match draw.randrange(5):
            case 0:
                words.insert(at, draw.choice(WORDS))
            case 1:
                del words[at:end]
            case 2:
                words[at:end] = [draw.choice(WORDS)]
            case 3:
                to = draw.randint(0, len(words))
                words[to:to] = words[at:end]
            case _ if words:
                one, other = draw.randrange(len(words)), draw.randrange(len(words))
                words[one], words[other] = words[other], words[one]
    return "".join(words).encode("utf-8", "surrogatepass")


def _grammar(draw: random.Random) -> bytes:
    """Whole pieces of one statement in the place of those of another, and any statement in any body."""
    trees = Trees(draw)
    _, lines = trees.lines(3)
    flat = list(_flat(lines))
    for _ in range(draw.randint(1, 3)):
        line, other = draw.choice(flat), draw.choice(flat)
        start, begin = draw.randrange(len(line.words)), draw.randrange(len(other.words))
        match draw.randrange(4):
            case 0:
                line.words[start : start + draw.randint(0, 4)] = other.words[begin : begin + draw.randint(1, 6)]
            case 1:
                line.words = other.words[: begin + 1] + line.words[start:]
            case 2 if line.body is None:
                line.body = list(trees.lines(2, 1)[1])
            case _:
                line.body = None
        line.words = line.words or ["remove"]
    return Layout(draw, plain=draw.random() < 0.3).file(lines).encode("utf-8", "surrogatepass")


def _flat(lines: Sequence[Line]) -> Iterator[Line]:
    for line in lines:
        yield line
        yield from _flat(line.body or ())


def try_text(data: bytes, resolve: Callable[[File], object] | None = None) -> tuple[bool, float]:
    """Reads a file; whether it is refused, and how long that took in seconds.

    Any exception but a RuleError comes out, and an AssertionError for a place outside of the file.
    """
    started = time.perf_counter()
    source = Source("<test>", data.decode("utf-8", "replace"))
    try:
        source = parser.decode("<test>", data)
        file = parser.parse(source)
        if resolve is not None:
            resolve(file)
    except RuleError as error:
        seconds = time.perf_counter() - started
        for diagnostic in error.diagnostics:
            _check_place(diagnostic, source)
        str(error)  # the drawing, too
        return True, seconds
    return False, time.perf_counter() - started


def _check_place(diagnostic: Diagnostic, source: Source) -> None:
    span = diagnostic.span
    if span is None:
        assert diagnostic.code in ("RW010", "RW011", "RW012"), diagnostic
        return
    lines = source.text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert 1 <= span.line <= len(lines), diagnostic
    assert 1 <= span.column <= len(lines[span.line - 1]) + 1, diagnostic
    assert span.length >= 1, diagnostic


def table(seconds: Sequence[float]) -> str:
    """p50, p99 and the longest, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms, longest {max(seconds) * 1e3:.1f} ms"
