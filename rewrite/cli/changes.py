"""What `plan` and `apply` share: they print the same report of the same work."""

from __future__ import annotations

import sys

_MOST_TRIED = 4
"""guesses of `--probe` that are shown where none is right"""

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    import argparse

    from rewrite.backends.torch.example_inputs import Examples
    from rewrite.engine import Rules
    from rewrite.report import Report


def check_first(rules: str | Rules, options: argparse.Namespace) -> None:
    """Finds errors of the rules before a model is read, which takes seconds.

    Raises:
        RuleError: the rules are wrong.
        SafetyError: they want to run Python, and `--allow-code` is not given.

    """
    from rewrite.engine import check_rules

    check_rules(rules, params=dict(options.params), allow_code=options.allow_code)


def examples(options: argparse.Namespace, model: object) -> Examples | None:
    """The example inputs of `--input`, or those that `--probe` finds, if there are any."""
    if options.inputs:
        from rewrite.backends.torch.example_inputs import make_examples

        return make_examples(options.inputs, seed=options.seed)
    if not options.probe:
        return None
    from rewrite.cli.output import progress, talk
    from rewrite.engine import probe

    progress("looking for inputs")
    found = probe(model)
    if found.inputs is None:
        talk("note: no inputs were found that the model takes; give them with --input")
        for arguments, why in found.tried[:_MOST_TRIED]:
            talk(f"  {arguments}: {why}")
    return found.inputs


def print_report(report: Report) -> None:
    """The report in its text form; the table at its end is drawn where a terminal shows it."""
    from rewrite.cli.output import say, show_diagnostics

    show_diagnostics(report.warnings)
    if not sys.stdout.isatty():
        say(report.render())
        return
    from rich.console import Console
    from rich.table import Table

    from rewrite.report import totals_table

    say(report.render(end=False))
    heading, *rows = totals_table(report)
    table = Table(*heading)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    say("")
    Console().print(table)
    for line in report.closing_lines():
        say(line)
