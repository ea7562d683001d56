"""`rewrite census RULES... MODELS...`: rule files on a whole zoo of models, one line for each."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser, add_rules, rules_text

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from rewrite.census import Line


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    usage = "RULES... MODELS... [options]\n       rewrite census -e 'RULE' MODELS... [options]"
    parser = Parser("census", usage, COMMANDS["census"])
    text = "rule files, and models: `torchvision:*`, `torchvision:resnet*`, `timm:*` (one of each family), `timm:NAME`"
    add_rules(parser, model=False, name="RULES MODELS", text=text)
    parser.add_argument("--all", action="store_true", help="`timm:*` is all of its models, not one of each family")
    parser.add_argument("--train", action="store_true", help="models are in training mode; else they are in eval mode")
    parser.add_argument("--jobs", type=_positive(int), default=1, metavar="N", help="number of processes (1)")
    parser.add_argument(
        "--timeout", type=_positive(float), metavar="SECONDS", help="that one model may take with all rule files"
    )
    parser.add_argument(
        "--allow-code", action="store_true", help="let the rules import Python (`use`), which runs it: read it first"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all new weights (0)")
    options = parser.read(words)
    options.models = [word for word in options.operands if _is_pattern(word)]
    options.rules = [word for word in options.operands if not _is_pattern(word)]
    if options.texts:
        options.rules.insert(0, rules_text(options.texts))
    missing = [name for name, found in (("RULES", options.rules), ("MODELS", options.models)) if not found]
    if missing:
        parser.error(f"missing {' and '.join(missing)}")
    return options


def run(options: argparse.Namespace) -> int:
    """Prints a line for each model and rule file as it comes, and a summary."""
    from rewrite.census import FINE, reasons, summary, take_census
    from rewrite.cli.output import say, say_json
    from rewrite.saved.builder import find_builders

    models = [name for pattern in options.models for name in find_builders(pattern, every=options.all)]
    models = list(dict.fromkeys(models))
    lines: list[Line] = []
    found = take_census(
        options.rules,
        models,
        jobs=options.jobs,
        timeout=options.timeout,
        params=dict(options.params),
        allow_code=options.allow_code,
        seed=options.seed,
        training=options.train,
    )
    widths = max(map(len, models)), max(len(name) for name in map(_name, options.rules))
    with _bar(len(models) * len(options.rules)) as advance:
        for line in found:
            lines.append(line)
            if not options.json:
                say(_text(line, *widths))
            advance(line.model)
    if options.json:
        counts = {rules: dict(count) for rules, count in summary(lines).items()}
        say_json("census", {"lines": [line.as_json() for line in lines], "summary": counts})
    else:
        say("")
        for text in _closing(lines):
            say(text)
        for verdict, reason, number, model in reasons(lines):
            say(f"  {number:>4}  {verdict}: {reason} (such as {model})")
    return 0 if all(line.verdict in FINE for line in lines) else 1


def _is_pattern(word: str) -> bool:
    """Whether a word names models and not a file."""
    family, colon, _ = word.partition(":")
    return bool(colon) and len(family) > 1 and family.isidentifier() and not os.path.exists(word)


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
        return value

    read.__name__ = kind.__name__  # argparse says it where the text is no number
    return read


def _name(rules: object) -> str:
    return rules if isinstance(rules, str) else str(getattr(rules, "name", rules))


def _text(line: Line, model_width: int, rules_width: int) -> str:
    """`torchvision:resnet18  bn.rw  rewritten     20 sites  9 graph, 7 list  0.02 s`."""
    scopes = ", ".join(f"{number} {kind}" for kind, number in sorted(line.scopes.items()))
    facts = (
        f"{line.sites:>5} {'site ' if line.sites == 1 else 'sites'}  {scopes}" if line.verdict == "rewritten" else ""
    )
    if line.unseen:
        facts += f", {line.unseen} of them with functions that are left out"
    if line.reason and not facts:
        facts = f"{line.code + ': ' if line.code else ''}{line.reason}"
    words = [
        line.model.ljust(model_width),
        line.rules.ljust(rules_width),
        line.verdict.ljust(9),
        f"{line.seconds:6.2f} s",
    ]
    return "  ".join([*words, facts]).rstrip()


def _closing(lines: Sequence[Line]) -> Iterator[str]:
    """A line for each rule file: how many models have each verdict."""
    from rewrite.census import summary

    for rules, counts in summary(lines).items():
        shown = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
        sites = sum(line.sites for line in lines if line.rules == rules)
        yield f"{rules}: {counts.total()} models: {shown}; {sites:,} sites"


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr while a terminal shows it; what moves it on takes the name of the model."""
    if not sys.stderr.isatty():
        yield lambda model: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # Results that share the terminal are printed above the bar; where they go elsewhere, they stay as they are.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda model: progress.update(task, advance=1, description=model)
