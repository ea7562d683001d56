"""`rewrite test FILES...`: the `test` blocks of rule files, each tried on its model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence

from rewrite.cli import COMMANDS
from rewrite.cli.arguments import Parser, add_model_options, add_rules, rules_text

TYPE_CHECKING = False  # as in `arguments`
if TYPE_CHECKING:
    from rewrite.engine import Rules
    from rewrite.errors import Diagnostic
    from rewrite.tester import RuleTestResult, RuleTests

_TESTS = ".test.rw"
"""how a file of tests for the rules beside it ends: `vgg.test.rw`, which includes `vgg.rw`"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of this command."""
    usage = "FILES... [options]\n       rewrite test -e 'RULES AND TESTS' [options]"
    parser = Parser("test", usage, COMMANDS["test"])
    add_rules(parser, model=False, name="FILES", text="rule files, and folders that are searched for `*.rw`")
    parser.add_argument(
        "--allow-code", action="store_true", help="let the rules import Python (`use`), which runs it: read it first"
    )
    add_model_options(parser)
    parser.add_argument(
        "-k", dest="pattern", default="", metavar="TEXT", help="only tests whose rule or title has TEXT"
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first test that does not pass")
    options = parser.read(words)
    if not options.operands and not options.texts:
        parser.error("missing FILES")
    return options


def run(options: argparse.Namespace) -> int:
    """Runs the tests of each file, and prints a line for each and what a reader needs of those that do not pass."""
    from rewrite.cli.output import fail, say, say_json, show_diagnostics, talk
    from rewrite.errors import RewriteError

    modules = _allowed(options.allow)
    problems: list[Diagnostic] = []
    results: list[RuleTestResult] = []
    empty: list[str] = []
    files: list[tuple[str, RuleTests]] = []
    texts: list[str | Rules] = [rules_text(options.texts)] if options.texts else []
    for rules in [*texts, *_files(options.operands, empty)]:
        try:
            files.append(_read(rules, modules, options))
        except RewriteError as error:
            problems += error.diagnostics
    for name, tests in files:
        if not options.json:
            show_diagnostics(tests.program.warnings)
        if not tests.program.tests and not _has_tests_beside(name, files):
            empty.append(f"{name}: no tests")
    for result in _results(files, options):
        results.append(result)
        if not options.json:
            say(str(result))
            if result.detail:
                say("\n".join(f"    {line}".rstrip() for line in result.detail.splitlines()))
    code = 2 if problems else 0 if all(result.passed for result in results) else 1
    found = sum(len(tests.program.tests) for _, tests in files)
    if options.pattern and not results and found:
        talk(f"no rule or title of {found} tests has {options.pattern!r}")
        code = 2
    if options.json:
        failed = [one for result in results if (one := result.as_diagnostic()) is not None]
        errors = [problem.as_json() for problem in (*problems, *failed)]
        say_json("test", {"tests": [result.as_json() for result in results], "without_tests": empty}, errors)
        return code
    for text in empty:
        say(text)
    say(_closing(results))
    if problems:
        fail("test", RewriteError(problems), json=False)
    return code


def _results(files: Sequence[tuple[str, RuleTests]], options: argparse.Namespace) -> Iterator[RuleTestResult]:
    """The results of all tests that are asked for, each when it is there."""
    wanted = options.pattern.lower()
    for _, tests in files:
        for case in tests.program.tests:
            if wanted not in f"{case.rule} {case.title}".lower():
                continue
            result = tests.run_case(case)
            yield result
            if options.fail_fast and not result.passed:
                return


def _read(rules: str | Rules, modules: dict[str, object], options: argparse.Namespace) -> tuple[str, RuleTests]:
    from rewrite.tester import RuleTests

    name = rules if isinstance(rules, str) else rules.name
    params = dict(options.params)
    read = RuleTests.read(rules, params=params, modules=modules, allow_code=options.allow_code, seed=options.seed)
    return name, read


def _files(operands: Sequence[str], empty: list[str]) -> Iterator[str]:
    """The rule files that are meant, each once: those of a folder, and beside `vgg.rw` its tests in `vgg.test.rw`."""
    seen: set[str] = set()
    for operand in operands:
        found = [operand]
        if os.path.isdir(operand):
            found = sorted(
                os.path.join(folder, name)
                for folder, folders, names in os.walk(operand)
                for name in names
                if name.endswith(".rw")
            )
            if not found:
                empty.append(f"{operand}: no rule files")
        for path in found:
            beside = path.removesuffix(".rw") + _TESTS
            for one in (path, beside) if not path.endswith(_TESTS) and os.path.exists(beside) else (path,):
                real = os.path.realpath(one)
                if real not in seen:
                    seen.add(real)
                    yield one


def _has_tests_beside(name: str, files: Sequence[tuple[str, RuleTests]]) -> bool:
    beside = name.removesuffix(".rw") + _TESTS
    return any(other == beside and tests.program.tests for other, tests in files)


def _allowed(names: Sequence[str]) -> dict[str, object]:
    """The classes of `--allow`, which tests and rules may name."""
    if not names:
        return {}
    from rewrite.saved.allowed import user_class

    return {name: user_class(name) for name in names}


def _closing(results: Sequence[RuleTestResult]) -> str:
    """`12 tests: 10 passed, 1 wrong, 1 missing`."""
    from rewrite.tester import RESULTS

    total = f"{len(results)} {'test' if len(results) == 1 else 'tests'}"
    counts = {word: sum(result.result == word for result in results) for word in RESULTS}
    shown = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{total}: {shown}" if shown else total
