"""`rewrite apply RULES MODEL -o OUT`: the rules change a model, and the result is written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser, add_inputs, add_model_options, add_rules, add_verify, rules_and_model


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    usage = "RULES MODEL -o OUT [options]\n       rewrite apply -e 'RULE' MODEL -o OUT [options]"
    parser = Parser("apply", usage, COMMANDS["apply"])
    add_rules(parser, model=True)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="`.pt` or `.pth`: the whole model, by torch.save; `.safetensors`: its state_dict; `.keras`: a Keras model",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    add_inputs(parser)
    add_verify(parser)
    add_model_options(parser)
    options = parser.read(words)
    options.rules, options.model = rules_and_model(parser, options)
    return options


def run(options: argparse.Namespace) -> int:
    """Applies the rules, writes the result, and prints what happened."""
    from rewrite.cli.changes import check_first, examples, print_report
    from rewrite.cli.output import progress, say, say_json, talk
    from rewrite.saved.output import check_output

    # What can be refused without the model is refused first.
    output = check_output(options.output, force=options.force)
    check_first(options.rules, options)
    from rewrite.engine import apply_with_report
    from rewrite.saved import notes_on, read_model, write_model

    progress(f"reading {options.model}")
    model = read_model(options.model, allow=options.allow, seed=options.seed)
    if options.eval:
        model.eval()
    changed, report = apply_with_report(
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
    progress(f"writing {options.output}")
    unchecked = write_model(changed, output, allow=options.allow)
    if options.json:
        written: dict[str, object] = {"path": options.output, "form": output.form, "unchecked": unchecked}
        if notes := notes_on(changed):
            written["notes"] = notes
        say_json("apply", {"report": report.as_json(), "written": written})
        return 0
    print_report(report)
    if unchecked:
        talk(f"note: `{options.output}` was not checked by reading it back: {unchecked}")
    for note in notes_on(changed):
        talk(f"note: {note}")
    say(f"written: {options.output} ({output.form})")
    return 0
