"""What `plan` and `apply` share: they print the same report of the same work."""

from __future__ import annotations

import sys

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


def examples(options: argparse.Namespace) -> Examples | None:
    """The example inputs of `--input`, if there are any."""
    if not options.inputs:
        return None
    from rewrite.backends.torch.example_inputs import make_examples

    return make_examples(options.inputs, seed=options.seed)


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
    if report.output:
        say(f"output: {report.output}")
