"""`rewrite fmt FILES...`: rule files in their canonical form. No model is read, and torch is not imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from rewrite.errors import Diagnostic
    from rewrite.source import Source

_STDIN = "-"


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    parser = Parser("fmt", "FILES... [options]\n       rewrite fmt -e 'RULE' [options]", COMMANDS["fmt"])
    parser.add_argument("files", nargs="*", metavar="FILES", help="rule files, folders of *.rw files, or - for stdin")
    parser.add_argument(
        "-e", dest="texts", action="append", default=[], metavar="'RULE'", help="rule text; the result is printed"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file would change")
    parser.add_argument("--diff", action="store_true", help="write nothing; print what would change")
    options = parser.read(words)
    if not options.files and not options.texts:
        parser.error("missing FILES")
    return options


def run(options: argparse.Namespace) -> int:
    """Formats each file, and reports all errors of all files; those without errors are written all the same."""
    from rewrite.cli.output import fail, say, say_json, talk
    from rewrite.errors import RewriteError
    from rewrite.file_formatter import format_source

    problems: list[Diagnostic] = []
    results: list[dict[str, object]] = []
    changes = 0
    for source, path in _sources(options, problems):
        try:
            text = format_source(source)
            changed = text != source.text
            if changed and path is not None and not (options.check or options.diff):
                _write(path, text)
        except RewriteError as error:
            problems += error.diagnostics
            continue
        changes += changed
        difference = _difference(source, text) if options.diff else ""
        shown = {"text": text} if path is None else {}
        shown |= {"diff": difference} if options.diff else {}
        results.append({"name": source.name, "changed": changed, **shown})
        if options.json:
            continue
        if options.diff:
            sys.stdout.write(difference)
        if path is None and not (options.check or options.diff):
            sys.stdout.write(text)
        elif changed and options.check and not options.diff:
            say(source.name)
        elif changed and not options.diff:
            talk(f"formatted {source.name}")
    if options.json:
        say_json("fmt", {"files": results}, [problem.as_json() for problem in problems])
        code = RewriteError(problems).exit_code if problems else 0
    else:
        code = fail("fmt", RewriteError(problems), json=False) if problems else 0
    return code or int(options.check and changes > 0)


def _sources(options: argparse.Namespace, problems: list[Diagnostic]) -> Iterator[tuple[Source, str | None]]:
    """Each text, and the file that it goes back to; what cannot be read is added to `problems`."""
    from rewrite import parser
    from rewrite.errors import RewriteError
    from rewrite.layout import MOST_CHARACTERS
    from rewrite.source import Source

    if options.texts:
        yield Source("-e", "\n".join(options.texts)), None
    for name in options.files:
        if name == _STDIN:
            try:
                yield parser.decode("<stdin>", sys.stdin.buffer.read(MOST_CHARACTERS + 1)), None
            except RewriteError as error:
                problems += error.diagnostics
            continue
        for path in _rule_files(name):
            try:
                yield _with_mark(parser.read(path), path), path
            except RewriteError as error:
                problems += error.diagnostics


def _rule_files(name: str) -> Iterator[str]:
    """A file, or those below a folder, in the order of their names; hidden folders are left out."""
    if not os.path.isdir(name):
        yield name
        return
    for folder, folders, files in os.walk(name):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        yield from (os.path.join(folder, file) for file in sorted(files) if file.endswith(".rw"))


def _with_mark(source: Source, path: str) -> Source:
    """The text with its byte order mark, which reading takes off and the canonical form does not have."""
    with open(path, "rb") as file:
        marked = file.read(3) == b"\xef\xbb\xbf"
    return type(source)(source.name, "\ufeff" + source.text) if marked else source


def _write(path: str, text: str) -> None:
    """Puts `text` into an existing file, which keeps its mode, in one step."""
    from rewrite.saved.output import Output

    def fill(temporary: str) -> str:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return temporary

    Output(path, os.path.realpath(path), os.path.splitext(path)[1], force=True).write(fill)


def _difference(source: Source, text: str) -> str:
    """A unified diff with a line end behind each of its lines, or nothing."""
    import difflib
    import re

    before, after = (re.findall(r"[^\n]*\n|[^\n]+", one) for one in (source.text, text))
    lines = difflib.unified_diff(before, after, source.name, source.name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
