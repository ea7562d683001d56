"""`rewrite plan RULES MODEL`: what the rules would do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser, add_inputs, add_model_options, add_rules, add_verify, rules_and_model


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    parser = Parser("plan", "RULES MODEL [options]\n       rewrite plan -e 'RULE' MODEL [options]", COMMANDS["plan"])
    add_rules(parser, model=True)
    add_inputs(parser)
    add_verify(parser)
    add_model_options(parser)
    options = parser.read(words)
    options.rules, options.model = rules_and_model(parser, options)
    return options


def run(options: argparse.Namespace) -> int:
    """Prints the plan."""
    from rewrite.cli.changes import check_first, examples, print_report
    from rewrite.cli.output import progress, say_json

    check_first(options.rules, options)
    from rewrite.engine import plan_rules
    from rewrite.saved import read_model

    progress(f"reading {options.model}")
    model = read_model(options.model, allow=options.allow, seed=options.seed)
    if options.eval:
        model.eval()
    plan = plan_rules(
        model,
        options.rules,
        example_inputs=examples(options, model),
        params=dict(options.params),
        seed=options.seed,
        name=options.model,
        allow_code=options.allow_code,
        strict=options.strict,
        verify=options.verify,
    )
    if options.json:
        say_json("plan", {"report": plan.report.as_json()})
    else:
        print_report(plan.report)
    return 0
