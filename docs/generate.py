"""Writes the pages in docs that are made from the tables of the code: `python -m docs.generate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rewrite import catalogue
from rewrite.errors import CODES
from rewrite.explanations import EXPLANATIONS, Example

FOLDER = Path(__file__).parent

_NOTE = "<!-- Written by docs/generate.py; change the code that it reads, not this page. -->"

_GROUPS = {
    "RW0": "RW0xx: the text of the rules",
    "RW1": "RW1xx: the meaning of the rules, whatever the model is",
    "RW2": "RW2xx: what a rule needs to know about a place",
    "RW3": "RW3xx: how the rules and the model fit together",
    "RW4": "RW4xx: hints",
    "RW5": "RW5xx: files and code",
}


def diagnostics() -> str:
    """The page about every code."""
    lines = [
        "# Diagnostics",
        "",
        _NOTE,
        "",
        "Every message has a code, and this page says of each what it means, shows what causes it and how to put that",
        "right. `rewrite explain RW301` prints the same in a terminal, and every example here is checked by the tests.",
        "",
        "Errors stop a run and leave everything as it was; warnings stand in the report. The command line exits with 0",
        "when all is well, with 1 when the rules and the model do not fit together, and with 2 when the run could not",
        "be done; of several errors the highest counts. `--strict` makes RW314 an error.",
        "",
        "| code | | exit code | title |",
        "| --- | --- | --- | --- |",
    ]
    for code, row in CODES.items():
        severity = "warning" if row.error is None else "error"
        lines.append(f"| [{code}](#{_anchor(code)}) | {severity} | {row.exit_code} | {row.title} |")
    group = ""
    for code, explanation in EXPLANATIONS.items():
        if code[:3] != group:
            group = code[:3]
            lines += ["", f"## {_GROUPS[group]}"]
        lines += ["", f"### {code}: {CODES[code].title}", "", *_filled(explanation.text), ""]
        # A wrong example is no block of a language: the tests run those.
        lines += [*_block(explanation.example, "text"), "", "Put right:", ""]
        lines += _block(explanation.remedy, explanation.remedy.language)
    return "\n".join([*lines, ""])


def vocabulary() -> str:
    """The page about every operation."""
    lines = [
        "# Vocabulary",
        "",
        _NOTE,
        "",
        "The operations that rules can name. The name in the first column is the operation in every spelling of the",
        "second, and so is the last word of a spelling: `relu` is `ReLU`. A spelling with a dot is that spelling only.",
        "A layer with a constructor can be made anew; what stands under *filled in* may be left out there, because it",
        "follows from the place. An operation with several inputs has names for them, which stand behind `@`.",
        "",
        "`rewrite ops BatchNorm2d` says all of this in a terminal, and which attributes `[...]` and `where` can ask.",
        "",
        "| family | operations |",
        "| --- | --- |",
    ]
    groups = catalogue.families()
    for family, names in groups.items():
        word = f"`{family}`" if family != catalogue.OTHER else "no family"
        lines.append(f"| {word} | {', '.join(names)} |")
    for family in groups:
        lines += [
            "",
            f"## {family}",
            "",
            "| name | spellings | constructor | filled in | inputs | |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for one in catalogue.entries():
            if (one.family or catalogue.OTHER) == family:
                filled_in = "; ".join(f"`{name}` from {source}" for name, source in one.filled_in)
                traits = ", ".join(one.traits)
                cells = (
                    f"`{one.name}`",
                    _words(one.spellings),
                    f"`{one.constructor}`" if one.constructor is not None else "",
                    filled_in,
                    _words(one.inputs),
                    traits,
                )
                lines.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join([*lines, ""])


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _anchor(code: str) -> str:
    """The heading of a code as GitHub makes a link of it."""
    kept = "".join(letter for letter in f"{code}: {CODES[code].title}".lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


def _filled(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 118, break_on_hyphens=False, break_long_words=False)


def _block(example: Example, language: str) -> Iterator[str]:
    model = f"# on {example.model}\n" if example.model else ""
    yield f"```{language}\n{model}{example.text}\n```"


def keras() -> str:
    """The page about models of Keras: its text, and the table of the vocabulary's Keras column."""
    from rewrite.backends.keras.layers import makeable
    from rewrite.vocabulary import OPERATIONS

    made = set(makeable())
    lines = [
        (FOLDER / "keras.md").read_text(encoding="utf-8").partition(_TABLE)[0].rstrip(),
        "",
        _TABLE,
        "",
        "| operation | layers of Keras | functions and activations | arguments by Keras' names | inserted |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in OPERATIONS.values():
        spelling = row.keras
        if spelling is None and row.name not in made:
            continue
        classes = [name.rpartition(".")[2] for name in spelling.classes] if spelling is not None else []
        functions = [name.removeprefix("keras.") for name in spelling.functions] if spelling is not None else []
        activations = [f"activations.{name}" for name in spelling.activations] if spelling is not None else []
        names = [f"{own} = {theirs}" for own, theirs in spelling.names.items()] if spelling is not None else []
        cells = [", ".join(f"`{word}`" for word in words) for words in (classes, [*functions, *activations], names)]
        inserted = row.name in made or any(name in made for name in row.by_rank.values())
        lines.append(f"| `{row.name}` | {' | '.join(cells)} | {'yes' if inserted else 'no'} |")
    return "\n".join(lines) + "\n"


_TABLE = "<!-- From here on written by docs/generate.py; change the code that it reads, not this table. -->"

PAGES = {"diagnostics.md": diagnostics, "vocabulary.md": vocabulary, "keras.md": keras}


def main() -> None:
    """Writes all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
