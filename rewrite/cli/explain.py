"""`rewrite explain CODE`: what a diagnostic means. `rewrite explain RULES MODEL`: why calls match or do not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence

from rewrite.cli.arguments import Parser

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from rewrite.explanations import Example, Explanation

_WIDTH = 96
_CAUSES = {
    "rw": "Rules that cause it",
    "python": "Python that causes it",
    "sh": "Commands that cause it",
    "text": "Files that cause it",
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command: those of codes if all arguments look like codes, else those of rules."""
    from rewrite.cli.explain_rules import USAGE, parse_rules

    named = [word for word in words if not word.startswith("-")]
    if not named or not (all(map(_is_code, named)) or _is_lost(named, words)):
        return parse_rules(words)
    parser = Parser("explain", USAGE, "tell what the code of a diagnostic means")
    parser.add_argument("codes", nargs="+", metavar="CODE", help="such as RW301, rw301 or 301")
    return parser.read(words)


def run(options: argparse.Namespace) -> int:
    """Explains codes, or what rules match."""
    if not hasattr(options, "codes"):
        return _explain_rules(options)
    from rewrite.cli.output import say, say_json
    from rewrite.explanations import EXPLANATIONS

    codes = [_code(word) for word in options.codes]
    for word, code in zip(options.codes, codes, strict=True):
        if code not in EXPLANATIONS:
            return _unknown(word, json=options.json)
    if options.json:
        say_json("explain", {"codes": [_as_json(code, EXPLANATIONS[code]) for code in codes]})
    else:
        say("\n\n\n".join("\n".join(_page(code, EXPLANATIONS[code])) for code in codes))
    return 0


def _explain_rules(options: argparse.Namespace) -> int:
    from rewrite.cli.explain_rules import run_rules

    return run_rules(options)


# ---- codes ---------------------------------------------------------------------------------------------------------


def _is_code(word: str) -> bool:
    """Whether a word is meant as a code: RW301, rw301, 301, or one with a slip such as RW3O1."""
    if word.isascii() and word.isdigit():
        return len(word) <= 3
    return word[:2].upper() == "RW" and len(word) <= 6 and word[2:].isalnum() and not os.path.exists(word)


def _is_lost(named: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a single word is no file and no model, so that it can only be meant to be explained."""
    (*rest, word) = named
    return not rest and "-e" not in words and word.replace("-", "").isalpha() and not os.path.exists(word)


def _code(word: str) -> str:
    """The code as the table has it."""
    digits = word[2:] if word[:2].upper() == "RW" else word
    return f"RW{digits.zfill(3)}".upper()


def _unknown(word: str, *, json: bool) -> int:
    from rewrite.cli.output import talk, usage_error
    from rewrite.errors import CODES
    from rewrite.source import printable

    close = _nearest(word)
    if close:
        listed = " or ".join(f"`{code}` ({CODES[code].title})" for code in close)
        hint = f"did you mean {listed}?"
    else:
        hint = f"codes go from `{next(iter(CODES))}` to `{next(reversed(CODES))}`"
    message = printable(f"unknown code {word!r}; {hint}")
    if json:
        return usage_error("explain", message)
    talk(f"rewrite explain: {message}")
    return 2


def _nearest(word: str) -> list[str]:
    """Codes that a word may mean: by a slip in the code, or by a word of the title."""
    from rewrite.errors import CODES, nearest

    if _is_code(word):
        code = _code(word)
        digits = code[2:].replace("O", "0").replace("I", "1").replace("L", "1")
        if f"RW{digits}" in CODES:
            return [f"RW{digits}"]
        return nearest(code, [known for known in CODES if known[:3] == code[:3]] or CODES, 2)
    words: dict[str, list[str]] = {}
    for code, row in CODES.items():
        for part in row.title.replace("`", " ").split():
            words.setdefault(part.lower(), []).append(code)
    return [code for part in nearest(word, words, 1) for code in words[part]][:3]


def _as_json(code: str, explanation: Explanation) -> dict[str, object]:
    from rewrite.errors import CODES

    return {
        "code": code,
        "title": CODES[code].title,
        "severity": _severity(code),
        "exit_code": CODES[code].exit_code,
        "text": explanation.text,
        "example": _example_as_json(explanation.example),
        "remedy": _example_as_json(explanation.remedy),
    }


def _example_as_json(example: Example) -> dict[str, object]:
    return {"language": example.language, "model": example.model, "text": example.text}


def _severity(code: str) -> str:
    from rewrite.errors import CODES

    return "warning" if CODES[code].error is None else "error"


def _page(code: str, explanation: Explanation) -> Iterator[str]:
    import textwrap

    from rewrite.errors import CODES

    yield f"{code}: {CODES[code].title} ({_severity(code)}, exit code {CODES[code].exit_code})"
    yield ""
    yield from textwrap.wrap(explanation.text, _WIDTH, break_on_hyphens=False, break_long_words=False)
    for title, example in (
        (_CAUSES[explanation.example.language], explanation.example),
        ("Put right", explanation.remedy),
    ):
        model = f", on {example.model}" if example.model else ""
        yield ""
        yield f"{title}{model}:"
        yield ""
        yield from (f"    {line}".rstrip() for line in example.text.splitlines())
