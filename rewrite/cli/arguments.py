"""Arguments that several commands share, and the values that people write for them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # type checkers know the name; importing typing for it would cost a third of the start
if TYPE_CHECKING:
    from typing import NoReturn

    from rewrite.backends.torch.example_inputs import InputSpec
    from rewrite.engine import Rules

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports a usage error as JSON where JSON is asked for."""

    def __init__(self, command: str, usage: str, description: str) -> None:
        # The width is given because argparse otherwise imports half of the standard library to find it.
        width = _terminal_width()
        super().__init__(
            prog=f"rewrite {command}",
            usage=f"rewrite {command} {usage}",
            description=description,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=width),
            allow_abbrev=False,
        )
        self.command = command
        self.wants_json = False
        self.add_argument("--json", action="store_true", help="machine-readable output, errors included")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The options in `words`; arguments and options may come in any order."""
        self.wants_json = "--json" in words
        return self.parse_intermixed_args(words)

    def error(self, message: str) -> NoReturn:
        if self.wants_json:
            from rewrite.cli.output import usage_error

            sys.exit(usage_error(self.command, message))
        super().error(message)


def _terminal_width() -> int:
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            return min(os.get_terminal_size(stream.fileno()).columns, 100) if stream else 100
        except (OSError, ValueError):
            continue
    return 100


def add_rules(parser: Parser, *, model: bool, name: str = "RULES", text: str = "rule files") -> None:
    """RULES (and MODEL), `-e` that stands in for RULES, and what rules may do to a model."""
    if model:
        parser.add_argument("operands", nargs="*", metavar="RULES MODEL", help=f"a rule file, and {MODEL_HELP}")
    else:
        parser.add_argument("operands", nargs="*", metavar=name, help=text)
    parser.add_argument(
        "-e",
        dest="texts",
        action="append",
        default=[],
        metavar="'RULE'",
        help=f"rule text in place of {name}; may be given several times",
    )
    parser.add_argument(
        "--set",
        dest="params",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME=VALUE",
        help="value of a `param` of the rules",
    )
    if not model:
        return
    parser.add_argument(
        "--allow-code", action="store_true", help="let the rules import Python (`use`), which runs it: read it first"
    )
    parser.add_argument("--strict", action="store_true", help="matches that overlap are an error")


MODEL_HELP = (
    "a model: `torchvision:resnet50`, `torchvision:resnet50@weights.safetensors`, `timm:resnet26d`, "
    "or a file of torch.save"
)


def add_model_options(parser: Parser) -> None:
    """What has to do with reading the model."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PKG.MOD.CLASS",
        help="a class of yours that the model file may hold, or a test name; its module is imported",
    )
    parser.add_argument(
        "--eval",
        action="store_true",
        help="put the model in eval mode first; builders make models in training mode, and files keep their mode",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all new weights (0); the same seed gives the same weights"
    )


def add_inputs(parser: Parser) -> None:
    """Example inputs, from which exact shapes are known."""
    parser.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        type=input_spec,
        metavar="[NAME=]1x3x224x224[:DTYPE]",
        help="an example input, in the order of the model's arguments; integers are drawn from 0 and 1",
    )
    parser.add_argument(
        "--probe", action="store_true", help="where no --input is given, look for inputs that the model takes"
    )


def add_verify(parser: Parser) -> None:
    """How the result is checked."""
    parser.add_argument(
        "--verify",
        choices=("shapes", "run"),
        default="shapes",
        help="`run` also runs both models on real numbers, in eval and in training mode",
    )


def rules_and_model(parser: Parser, options: argparse.Namespace) -> tuple[str | Rules, str]:
    """What RULES and MODEL are, after `-e` has taken the place of RULES or has not."""
    operands: list[str] = options.operands
    wanted = ["MODEL"] if options.texts else ["RULES", "MODEL"]
    if len(operands) < len(wanted):
        parser.error(f"missing {' and '.join(wanted[len(operands) :])}")
    if len(operands) > len(wanted):
        instead = " (-e takes the place of RULES)" if options.texts else ""
        parser.error(f"one {' and one '.join(wanted)} wanted, {len(operands)} arguments found{instead}")
    if options.texts:
        return rules_text(options.texts), operands[0]
    return operands[0], operands[1]


def rules_text(texts: Sequence[str]) -> Rules:
    """The rules of all `-e`; the line in a diagnostic counts them."""
    from rewrite.engine import Rules

    return Rules("\n".join(texts), name="-e")


def parameter(text: str) -> tuple[str, object]:
    """`rate=0.2` as name and value."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip(), literal(value.strip())


def literal(text: str) -> object:
    """A number, true, false or none as the language writes them; anything else is a string, with or without quotes."""
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    # Python reads `1_0`, `inf` and full-width digits as numbers as well; the language does not.
    if text.isascii() and text.lstrip("+-")[:1].isdigit() | text.lstrip("+-").startswith(".") and "_" not in text:
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def input_spec(text: str) -> InputSpec:
    """`1x3x224x224`, `1x16:int64`, `mask=1x16:bool`."""
    name, equals, rest = text.rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    if equals and not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{name!r} is not the name of an argument")
    if colon and dtype not in DTYPES:
        raise argparse.ArgumentTypeError(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)}")
    parts = sizes.split("x")
    if not all(part.isascii() and part.isdigit() and int(part[:10]) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{sizes!r} is not a shape such as 1x3x224x224")
    return (name or None, tuple(int(part) for part in parts), dtype or "float32")
