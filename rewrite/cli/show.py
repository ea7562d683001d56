"""`rewrite show MODEL`: a model as a tree whose paths and names can be pasted into rules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import MODEL_HELP, Parser, add_model_options


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    parser = Parser("show", "MODEL [options]", COMMANDS["show"])
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_model_options(parser)
    return parser.read(words)


def run(options: argparse.Namespace) -> int:
    """Prints the tree."""
    from rewrite.cli.output import progress, say, say_json
    from rewrite.cli.tree import as_json, tree
    from rewrite.saved import read_model

    progress(f"reading {options.model}")
    model = read_model(options.model, allow=options.allow, seed=options.seed)
    if options.eval:
        model.eval()
    from rewrite.backends import backend_for

    reading = backend_for(model).read(model, name=options.model)
    if options.json:
        say_json("show", {"model": as_json(reading.graph, reading.other)})
    else:
        say("\n".join(tree(reading.graph, reading.other)))
    return 0
