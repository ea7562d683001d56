"""The command line. Results go to stdout, talk to stderr; exit code 0 clean, 1 findings, 2 the run could not be done.

Starting must be quick, so this module imports nothing at all before it knows which command is wanted, and a command
imports what it needs when it runs: `rewrite check` never sees torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

COMMANDS = {
    "apply": "apply rules to a model and write the result",
    "plan": "show what rules would do to a model; nothing is changed",
    "check": "check rule files, without a model",
    "test": "run the tests of rule files",
    "fmt": "bring rule files into their canonical form",
    "show": "show a model as a tree of paths and names that rules can use",
    "explain": "tell what a code means, or why rules match what they match",
    "census": "apply rules to a whole zoo of models: how many places they have in each",
    "ops": "list the operations that rules can name",
}

_INTERRUPTED = 130
_PIPE_CLOSED = 141
"""as a shell reports a program that died of SIGINT or SIGPIPE"""

_HELP = """\
usage: rewrite COMMAND ...

Change neural networks by rules:  rewrite apply rules.rw torchvision:vgg16 -o out.pt

commands:
{commands}

  rewrite COMMAND --help    the arguments of one command
  rewrite --version         the version

Results go to stdout, talk to stderr. Exit code: 0 clean, 1 the rules and the model
disagree, 2 the run could not be done.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: the words behind the program's name; None: those of this process.

    Returns:
        The exit code.

    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse ends this way, after --help and after a usage error
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`). What Python would still flush at exit goes nowhere instead of failing.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in {"-h", "--help", "help"}:
        print(_help(), end="")
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"rewrite {version('rewrite-fx')}")
        return 0
    if name not in COMMANDS:
        print(_help() if not name else _unknown(name), end="", file=sys.stderr)
        return 2
    import importlib

    command = importlib.import_module(f"rewrite.cli.{name}")
    options = command.parse(words[1:])
    try:
        code: int = command.run(options)
    except Exception as error:
        from rewrite.errors import RewriteError

        if not isinstance(error, RewriteError):
            raise  # ours to mend: with its traceback
        from rewrite.cli.output import fail

        return fail(name, error, json=options.json)
    return code


def _help() -> str:
    return _HELP.format(commands="\n".join(f"  {name:<8}{text}" for name, text in COMMANDS.items()))


def _unknown(name: str) -> str:
    from rewrite.errors import nearest

    close = nearest(name, COMMANDS, count=1)
    hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(f'`{one}`' for one in COMMANDS)}"
    return f"rewrite: unknown command {name!r}; {hint}\n"
