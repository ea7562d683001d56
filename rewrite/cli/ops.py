"""`rewrite ops [NAME|FAMILY]`: the operations that rules can name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from rewrite.catalogue import Entry

_SPELLINGS_WIDTH = 58
_TEXT_WIDTH = 92


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    parser = Parser("ops", "[NAME | FAMILY] [options]", COMMANDS["ops"])
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="an operation, one of its spellings (`F.relu`), or a family (`norm`)"
    )
    parser.add_argument("--families", action="store_true", help="list the families and what belongs to them")
    options = parser.read(words)
    if options.families and options.name is not None:
        parser.error("--families takes no NAME")
    return options


def run(options: argparse.Namespace) -> int:
    """Prints the vocabulary, or a part of it."""
    from rewrite import catalogue
    from rewrite.cli.output import say, say_json

    groups = catalogue.families()
    if options.families:
        if options.json:
            say_json("ops", {"families": {family: list(names) for family, names in groups.items()}})
        else:
            say("\n".join(_families(groups.items())))
        return 0
    if options.name is None or options.name in groups:
        chosen = [one for one in catalogue.entries() if options.name in (None, one.family or catalogue.OTHER)]
        if options.json:
            say_json("ops", {"operations": [_as_json(one) for one in chosen]})
        else:
            say("\n".join(_table(chosen, groups)))
        return 0
    row = catalogue.find(options.name)
    if row is None:
        return _unknown(options.name, catalogue.known_names(), json=options.json)
    found = catalogue.entry(row)
    if options.json:
        say_json("ops", {"operations": [_as_json(found)]})
    else:
        say("\n".join(_page(found)))
    return 0


def _unknown(name: str, known: Sequence[str], *, json: bool) -> int:
    from rewrite.cli.output import talk, usage_error
    from rewrite.errors import nearest
    from rewrite.lookup import either
    from rewrite.source import printable

    close = nearest(name, known)
    close = [one for one in close if one.lower() == name.lower()] or close  # letter case alone: that is the one
    hint = f"did you mean {either(close)}?" if close else "`rewrite ops` lists all of them"
    message = printable(f"unknown operation {name!r}; {hint}")
    if json:
        return usage_error("ops", message)
    talk(f"rewrite ops: {message}")
    return 2


def _as_json(one: Entry) -> dict[str, object]:
    return {
        "name": one.name,
        "family": one.family,
        "names": list(one.names),
        "spellings": list(one.spellings),
        "constructor": one.constructor,
        "filled_in": dict(one.filled_in),
        "inputs": list(one.inputs),
        "attributes": list(one.attributes),
        "traits": list(one.traits),
    }


def _families(groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    import textwrap

    for family, names in groups:
        lines = textwrap.wrap(", ".join(names), _TEXT_WIDTH, break_on_hyphens=False)
        head = f"{family} ({len(names)})"
        yield from (f"{head if number == 0 else '':<18}{line}" for number, line in enumerate(lines))


def _table(chosen: Sequence[Entry], groups: Iterable[str]) -> Iterator[str]:
    """One line for each operation, under the name of its family."""
    from rewrite import catalogue

    width = max(len(one.name) for one in chosen) + 2
    first = True
    for family in groups:
        rows = [one for one in chosen if (one.family or catalogue.OTHER) == family]
        if not rows:
            continue
        if not first:
            yield ""
        first = False
        yield family
        for one in rows:
            spellings = _shortened(one.spellings, _SPELLINGS_WIDTH)
            yield f"  {one.name:<{width}}{spellings:<{_SPELLINGS_WIDTH + 2}}{', '.join(one.traits)}".rstrip()


def _shortened(words: Sequence[str], width: int) -> str:
    """As many of the words as fit, and how many more there are."""
    for count in range(len(words), 0, -1):
        left = len(words) - count
        text = ", ".join(words[:count]) + (f", +{left}" if left else "")
        if len(text) <= width:
            return text
    return words[0] if words else ""


def _page(one: Entry) -> Iterator[str]:
    """All that is known of one operation."""
    import textwrap

    yield one.name
    facts = (
        ("family", one.family or ""),
        ("names", ", ".join(one.names)),
        ("spellings", ", ".join(one.spellings)),
        ("constructor", one.constructor or "none: it can be found, not inserted"),
        ("filled in", "; ".join(f"`{name}` from {source}" for name, source in one.filled_in)),
        ("inputs", ", ".join(one.inputs)),
        ("attributes", ", ".join(one.attributes)),
        ("traits", ", ".join(trait for trait in one.traits if trait != "found, not inserted")),
    )
    for title, text in facts:
        if text:
            lines = textwrap.wrap(text, _TEXT_WIDTH, break_on_hyphens=False, break_long_words=False)
            yield from (f"  {title if number == 0 else '':<14}{line}" for number, line in enumerate(lines))
