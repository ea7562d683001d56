"""`rewrite explain RULES MODEL`: which calls each clause matches, and why the near misses do not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser, add_inputs, add_model_options, add_rules, rules_and_model

USAGE = "CODE...\n       rewrite explain RULES MODEL [options]\n       rewrite explain -e 'RULE' MODEL [options]"


def parse_rules(words: Sequence[str]) -> argparse.Namespace:
    """The options where rules are to be explained."""
    parser = Parser("explain", USAGE, COMMANDS["explain"])
    add_rules(parser, model=True)
    add_inputs(parser)
    add_model_options(parser)
    options = parser.read(words)
    options.rules, options.model = rules_and_model(parser, options)
    return options


def run_rules(options: argparse.Namespace) -> int:
    """Prints what the rules match, and what would stop them."""
    from rewrite.cli.changes import check_first, examples
    from rewrite.cli.output import progress, say, say_json, show_diagnostics

    check_first(options.rules, options)
    from rewrite.engine import explain_rules
    from rewrite.errors import RewriteError
    from rewrite.saved import read_model

    progress(f"reading {options.model}")
    model = read_model(options.model, allow=options.allow, seed=options.seed)
    if options.eval:
        model.eval()
    explained = explain_rules(
        model,
        options.rules,
        example_inputs=examples(options, model),
        params=dict(options.params),
        seed=options.seed,
        name=options.model,
        allow_code=options.allow_code,
        strict=options.strict,
    )
    code = RewriteError(explained.problems).exit_code if explained.problems else 0
    if options.json:
        say_json("explain", {"explained": explained.as_json()})
        return code
    show_diagnostics(explained.problems)
    say(explained.render())
    return code
