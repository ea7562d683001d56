"""What the commands print: results on stdout, talk on stderr, JSON in one shape, colours where they help."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from typing import TextIO

    from rewrite.errors import Diagnostic, RewriteError

_RED, _YELLOW, _PLAIN = "\x1b[1;31m", "\x1b[1;33m", "\x1b[0m"


def say(text: str) -> None:
    """A result."""
    print(text)


def talk(text: str) -> None:
    """A note beside the results."""
    sys.stdout.flush()  # so that both streams on one terminal stay in order
    print(text, file=sys.stderr)


def progress(text: str) -> None:
    """A note that is of use only while somebody watches."""
    if sys.stderr.isatty():
        talk(text)


def say_json(command: str, result: dict[str, object], errors: Sequence[dict[str, object]] = ()) -> None:
    """The one shape of all JSON output: `format_version`, `command`, `errors`, and the results of the command."""
    import json

    from rewrite.report import FORMAT_VERSION

    document = {"format_version": FORMAT_VERSION, "command": command, "errors": list(errors), **result}
    print(json.dumps(document, indent=2, default=str, ensure_ascii=True))


def show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Errors and warnings in their text form, with a line between them."""
    for diagnostic in diagnostics:
        text = diagnostic.render()
        if has_colours(sys.stderr):
            colour = _RED if diagnostic.severity == "error" else _YELLOW
            head, colon, rest = text.partition(":")
            text = f"{colour}{head}{_PLAIN}{colon}{rest}"
        talk(f"{text}\n")


def fail(command: str, error: RewriteError, *, json: bool) -> int:
    """Reports `error` and gives its exit code."""
    if json:
        say_json(command, {}, [diagnostic.as_json() for diagnostic in error.diagnostics])
    else:
        show_diagnostics(error.diagnostics)
    return error.exit_code


def usage_error(command: str, message: str) -> int:
    """Reports as JSON that the command line itself is wrong, and gives the exit code."""
    problem: dict[str, object] = {
        "code": "usage",
        "severity": "error",
        "message": message,
        "place": None,
        "label": "",
        "notes": [],
        "help": f"rewrite {command} --help",
    }
    say_json(command, {}, [problem])
    return 2


def has_colours(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours to somebody who wants them (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
