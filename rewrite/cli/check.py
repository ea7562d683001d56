"""`rewrite check RULES...`: is the text right? No model is read, and torch is not imported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser, add_rules, rules_text

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from rewrite.rule import Program


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    parser = Parser("check", "RULES... [options]\n       rewrite check -e 'RULE' [options]", COMMANDS["check"])
    add_rules(parser, model=False)
    options = parser.read(words)
    if not options.operands and not options.texts:
        parser.error("missing RULES")
    return options


def run(options: argparse.Namespace) -> int:
    """Checks each file, prints its clauses, and reports all errors of all files."""
    from rewrite.cli.output import fail, say, say_json, show_diagnostics
    from rewrite.engine import check_rules
    from rewrite.errors import Diagnostic, RewriteError

    problems: list[Diagnostic] = []
    programs: list[Program] = []
    for rules in [*([rules_text(options.texts)] if options.texts else []), *options.operands]:
        try:
            programs.append(check_rules(rules, params=dict(options.params)))
        except RewriteError as error:
            problems += error.diagnostics
    if options.json:
        errors = [problem.as_json() for problem in problems]
        say_json("check", {"files": [_as_json(program) for program in programs]}, errors)
        return RewriteError(problems).exit_code if problems else 0
    for program in programs:
        show_diagnostics(program.warnings)
        for clause in program.clauses:
            say(f"{clause.span}: {clause.text}")
        count = len(program.clauses)
        say(f"{program.name}: {count} {'clause' if count == 1 else 'clauses'}, no errors")
    return fail("check", RewriteError(problems), json=False) if problems else 0


def _as_json(program: Program) -> dict[str, object]:
    return {
        "name": program.name,
        "clauses": [
            {"place": str(clause.span), "text": clause.text, "rule": clause.rule} for clause in program.clauses
        ],
        "warnings": [warning.as_json() for warning in program.warnings],
    }
