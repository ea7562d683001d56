"""Rule tests: each `test` block of a rule file tried on its model, and what came of it.

How a test is read:

* The rule under test is every clause of the file in a `rule` block of that name, in the order of the file, with the
  file's `param`s, `let`s, `use`s and `leaf`s. What the file promises of the output (`expect output`, `expect
  equivalent`) speaks of all its clauses; it is held in a `model` where they all belong to the rule.
* A `given` model is not the model that the rule is written for: it has none of its module paths, and a number of sites
  of its own. So in it the counts of the rule (`expect 13 matches`, and the one match that is wanted where nothing is
  written) are not enforced, a `leaf` may name nothing, and a path behind `in`, `except` or `within` counts as
  fulfilled, unless it names a call of the literal (`Conv2d(3, 8, 3) as stem`), whose name is the path of its layer. The
  model is in eval mode, its weights follow from the names and texts of its calls, and it has an example input of one
  sample where its first layers tell the sizes of one that it takes.
* In a `model` everything holds as written. Only that a rule must match once where it does not say how often is left to
  the test, where that says `unchanged` or counts itself. The model is in the mode in which its builder hands it out.
* `want` is compared as a structure (see `rewrite.isomorphism`); `unchanged` is no edit at all; `expect 13 matches`
  counts the sites of the rule; `expect output` and `expect equivalent` promise of the output what they promise in a
  file. Where a rule changes the shape of what the model returns, its file says so, as it must anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rewrite import globs
from rewrite.engine import Rules, load_program
from rewrite.errors import Diagnostic, RewriteError, raisable
from rewrite.literals import Literal as GraphLiteral
from rewrite.pattern import Path, Selector, Unit
from rewrite.rule import BuiltModel, Case, Clause, Count, Program
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS

if TYPE_CHECKING:
    from rewrite.application import Application
    from rewrite.backends.backend import Backend, Example
    from rewrite.isomorphism import Outline

Result = Literal["passed", "wrong", "missing", "unexpected", "error"]

RESULTS: Mapping[Result, str] = {
    "passed": "the model became what is wanted",
    "wrong": "the rule changed the model, and it is not what is wanted",
    "missing": "a change is wanted, and the rule matched nothing",
    "unexpected": "no change is wanted, and the rule changed the model",
    "error": "the rule or the model failed",
}

_MISSES = ("RW201", "RW301")
_MOST_SITES = 8


@dataclass(frozen=True)
class RuleTestResult:
    """What came of one `test` block."""

    rule: str
    title: str
    span: Span
    """of the block"""
    result: Result
    detail: str
    """what a reader needs to know about a test that did not pass, in lines; empty for one that did"""
    seconds: float
    problems: tuple[Diagnostic, ...] = ()
    """of an `error`: what went wrong"""

    @property
    def passed(self) -> bool:
        """Whether the model became what is wanted."""
        return self.result == "passed"

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.span.source.name}:{self.span.line}"

    def as_json(self) -> dict[str, object]:
        """The JSON form, one flat object."""
        return {
            "rule": self.rule,
            "title": self.title,
            "file": self.span.source.name,
            "line": self.span.line,
            "result": self.result,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
            "problems": [problem.as_json() for problem in self.problems],
        }

    def as_diagnostic(self) -> Diagnostic | None:
        """RW322 for a test that did not pass."""
        if self.passed:
            return None
        named = f' "{self.title}"' if self.title else ""
        message = f"test of `{self.rule}`{named}: {self.result}"
        return Diagnostic("RW322", message, self.span, RESULTS[self.result], tuple(self.detail.splitlines()))

    def __str__(self) -> str:
        title = f' "{self.title}"' if self.title else ""
        return f"{self.result}  {self.rule}{title}  ({self.place})"


def run_rule_tests(
    rules: str | os.PathLike[str] | Rules,
    *,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
    allow_code: bool = False,
    seed: int = 0,
) -> tuple[RuleTestResult, ...]:
    """Runs every `test` block of a rule file.

    Args:
        rules: path of a rule file, or `Rules(text)`.
        params: values for the `param`s of the file.
        modules: classes of your own that rules and tests name, as in `apply_rules`; a test may also build its model
            with one: `model my.Net()`.
        allow_code: whether a `use` of the rules may import Python, which runs it.
        seed: of all weights.

    Returns:
        A result for each test, in the order of the file; none where the file has no tests.

    Raises:
        RuleError: the text of the rules, or of a test, is wrong.
        SafetyError: the rules want to run Python, and `allow_code` is not set.

    Example:
        >>> text = '''
        ... rule bn: after Conv2d: insert BatchNorm2d
        ... test bn "behind the convolution":
        ...     given x -> Conv2d(3, 8, 3) -> ReLU -> y
        ...     want x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> ReLU -> y
        ... '''
        >>> [str(test) for test in run_rule_tests(Rules(text))]
        ['passed  bn "behind the convolution"  (<rules>:3)']

    """
    return tuple(RuleTests.read(rules, params=params, modules=modules, allow_code=allow_code, seed=seed).run())


@dataclass(frozen=True)
class RuleTests:
    """A rule file with its tests, read and not run yet."""

    program: Program
    externals: Mapping[str, Any]
    """the caller's classes by the name that rules use"""
    seed: int = 0

    @staticmethod
    def read(
        rules: str | os.PathLike[str] | Rules,
        *,
        params: Mapping[str, object] | None = None,
        modules: Mapping[str, object] | None = None,
        allow_code: bool = False,
        seed: int = 0,
    ) -> RuleTests:
        """As `run_rule_tests`, without the running; no framework is imported."""
        program, externals = load_program(rules, params, modules, allow_code)
        return RuleTests(program, externals, seed)

    def run(self) -> Iterator[RuleTestResult]:
        """The results of all tests, each made when it is asked for."""
        for case in self.program.tests:
            yield self.run_case(case)

    def run_case(self, case: Case) -> RuleTestResult:
        """The result of one test."""
        started = time.perf_counter()
        result: Result
        problems: tuple[Diagnostic, ...] = ()
        try:
            result, detail = _Trial(self, case).run()
        except RewriteError as error:
            result, detail, problems = "error", str(error), error.diagnostics
        seconds = time.perf_counter() - started
        return RuleTestResult(case.rule, case.title, case.span, result, detail, seconds, problems)


class _Trial:
    """One test on its way."""

    def __init__(self, tests: RuleTests, case: Case) -> None:
        from rewrite.backends import first_backend

        self.case = case
        self.tests = tests
        self.backend: Backend = first_backend()
        self.program = self._program()
        self.model, self.example = self._model()
        self.name = case.model.builder if isinstance(case.model, BuiltModel) else "the given model"
        self.application = self._application()

    def run(self) -> tuple[Result, str]:
        """The result, and its details.

        Raises:
            RewriteError: the rule or the model failed.

        """
        case, application = self.case, self.application
        try:
            application.carry_out()
        except RewriteError as error:
            if case.unchanged is None and all(problem.code in _MISSES for problem in error.diagnostics):
                return "missing", f"{error}\n\n{self._misses()}"
            raise
        sites = sum(len(clause.sites) for clause in application.clauses)
        if case.unchanged is not None and application.edits:
            return "unexpected", self._changes()
        if case.want is not None and (wrong := self._compare(case.want)):
            return ("wrong", wrong) if sites else ("missing", self._misses())
        if case.count is not None and (sites < case.count.low or sites > (case.count.high or sites)):
            if not sites:
                return "missing", self._misses()
            return "wrong", f"{sites} {'match' if sites == 1 else 'matches'}, expected {case.count}\n{self._sites()}"
        return self._verified()

    # ---- before

    def _program(self) -> Program:
        """The rule under test, with what of the file holds for it."""
        whole, case = self.tests.program, self.case
        clauses = tuple(clause for clause in whole.clauses if clause.rule == case.rule)
        alone = len(clauses) == len(whole.clauses)
        if isinstance(case.model, GraphLiteral):
            captured = case.model.captured
            clauses = tuple(_relaxed(clause, captured) for clause in clauses)
            leaves = tuple(unit for unit in whole.leaves if not _is_elsewhere(unit, captured))
            return replace(whole, clauses=clauses, leaves=leaves, output=None, equivalent=None)
        if case.unchanged is not None or case.count is not None:
            clauses = tuple(
                replace(clause, count=Count(0)) if clause.count.span is None else clause for clause in clauses
            )
        return replace(
            whole,
            clauses=clauses,
            output=whole.output if alone else None,
            equivalent=whole.equivalent if alone else None,
        )

    def _model(self) -> tuple[Any, Example | None]:
        """The model of the test, and an example input where there is one."""
        model = self.case.model
        if isinstance(model, BuiltModel):
            made = self._build(model, without_numbers=not (self.case.equivalent or self.program.equivalent))
            return made, None if model.inputs is None else self._example(made, model.inputs)
        try:
            made = self.backend.assemble(model.sketch(), self.tests.externals)
        except RewriteError as error:
            raise raisable(
                problem if problem.span is not None else replace(problem, span=model.span)
                for problem in error.diagnostics
            ) from error
        sizes = _likely_sizes(model)
        example = None if sizes is None else self._example(made, sizes)
        if example is not None:
            try:
                self.backend.run(made, example)
            except RewriteError:
                return made, None  # the guess was wrong, and nothing depends on it
        return made, example

    def _build(self, model: BuiltModel, *, without_numbers: bool) -> Any:
        from rewrite.saved import builder

        library, _, name = model.builder.rpartition(".")
        try:
            if model.builder in self.tests.externals:
                make = self.tests.externals[model.builder]
                return builder.call_builder(make, model.builder, model.arguments, model.keywords, seed=self.tests.seed)
            if model.builder == "timm.create_model" and model.arguments and isinstance(model.arguments[0], str):
                family, (name, *arguments) = "timm", (model.arguments[0], *model.arguments[1:])
            elif library == "torchvision.models":
                family, arguments = "torchvision", list(model.arguments)
            else:
                raise _no_builder(model).error()
            if arguments:
                help_text = f"write `{name}`'s further arguments with their names: `num_classes=10`"
                raise Diagnostic("RW505", "an argument without a name", help=help_text).error()
            return builder.make(family, name, model.keywords, seed=self.tests.seed, without_numbers=without_numbers)
        except RewriteError as error:
            raise raisable(
                replace(problem, span=problem.span or model.span) for problem in error.diagnostics
            ) from error

    def _example(self, model: Any, sizes: tuple[tuple[int, ...], ...]) -> Example:
        from rewrite.backends import example_of
        from rewrite.backends.torch.example_inputs import make_examples

        made = make_examples([(None, one, "float32") for one in sizes], seed=self.tests.seed, like=model)
        example = example_of(made)
        assert example is not None, "there are sizes"
        return example

    def _application(self) -> Application:
        from rewrite.application import Application

        return Application(
            self.backend,
            self.model,
            self.program,
            example=self.example,
            modules=self.tests.externals,
            seed=self.tests.seed,
            name=self.name,
            count_calls=False,
            lenient=isinstance(self.case.model, GraphLiteral),
        )

    # ---- afterwards

    def _compare(self, want: GraphLiteral) -> str:
        """Where the model is not what is wanted; empty: it is."""
        from rewrite import isomorphism

        found = self._outline(self.application.current)
        inputs = self.case.model.inputs if isinstance(self.case.model, GraphLiteral) else found.inputs
        wanted = isomorphism.of_literal(want, inputs or (), self.tests.externals)
        classes = self.application.context.classes
        if isomorphism.is_same(found, wanted, classes):
            return ""
        lines = isomorphism.difference(wanted, found, classes)
        lines = lines or ["the calls are the wanted ones, and are linked in another way"]
        idle = [clause.text for clause in self.application.clauses if not clause.sites]
        if len(idle) < len(self.application.clauses):
            lines += [f"this part of the rule matched nothing: {text}" for text in idle]
        return "\n".join(lines)

    def _outline(self, model: Any) -> Outline:
        """A model as a structure in which the layers that a literal names are one call each."""
        from rewrite import isomorphism

        named = set(self.application.context.classes.values())
        whole = {
            path
            for path, layer in self.backend.read(model).layers.layers.items()
            if path and (named.intersection(layer.bases) or _is_around(layer.operation))
        }
        leaves = self.application.leaves | frozenset(whole)
        return isomorphism.of_graph(self.backend.read(model, example=self.example, leaves=leaves).graph)

    def _changes(self) -> str:
        """What the rule changed, in lines."""
        from rewrite import isomorphism

        before, after = self._outline(self.model), self._outline(self.application.current)
        lines = isomorphism.difference(before, after, self.application.context.classes, ("before", "after"))
        return "\n".join(lines) or self._sites()

    def _sites(self) -> str:
        """The sites of the rule and what each of them gets, in lines."""
        sites = [site for clause in self.application.clauses for site in clause.sites]
        lines = [f"{site.path} ({site.spelling})  {'; '.join(site.changes)}".rstrip() for site in sites[:_MOST_SITES]]
        more = len(sites) - len(lines)
        return "\n".join([*lines, *([f"... and {more} more"] if more > 0 else [])])

    def _misses(self) -> str:
        """Why the rule matched nothing, from the account of the matcher."""
        text = self._application().explain().render(_MOST_SITES)
        paths = any(
            isinstance(unit.base, Path) for clause in self.program.clauses for unit in clause.selector.alternatives
        )
        if paths and isinstance(self.case.model, GraphLiteral):
            text += "\nnote: a path names the calls of a `given` model that have a name: `Conv2d(3, 8, 3) as stem`"
        return text

    def _verified(self) -> tuple[Result, str]:
        """What is promised of the output, held against what was made."""
        case, whole = self.case, self.tests.program
        promise, equivalent = case.output or self.program.output, case.equivalent or self.program.equivalent
        if promise is None and whole.output is not None and equivalent is None:
            return "passed", ""  # the file says that its rules change the output; what this one makes of it is its want
        try:
            self.application.verify(promise, equivalent)
        except RewriteError as error:
            own = [one.span for one in (case.output,) if one is not None] + [case.equivalent]
            if any(problem.span is not None and problem.span in own for problem in error.diagnostics):
                broken = {"RW311", "RW317"}
                if all(problem.code in broken for problem in error.diagnostics):
                    return "wrong", str(error)
            raise
        return "passed", ""


def _relaxed(clause: Clause, captured: frozenset[str]) -> Clause:
    """A clause as it holds in a literal: without counts, and without places that a literal cannot have."""
    second = None if clause.second is None else _without_places(clause.second, captured)
    selector = _without_places(clause.selector, captured)
    return replace(clause, selector=selector, second=second, count=Count(0))


def _without_places(selector: Selector, captured: frozenset[str]) -> Selector:
    def is_fulfilled(units: tuple[Unit, ...]) -> bool:
        paths = [unit for unit in units if isinstance(unit.base, Path)]
        return bool(paths) and all(_is_elsewhere(unit, captured) for unit in paths)

    return replace(
        selector,
        scopes=tuple(units for units in selector.scopes if not is_fulfilled(units)),
        within=tuple(units for units in selector.within if not is_fulfilled(units)),
        excluded=tuple(unit for unit in selector.excluded if not _is_elsewhere(unit, captured)),
    )


def _is_elsewhere(unit: Unit, captured: frozenset[str]) -> bool:
    """Whether a unit is a path that no call of a literal has."""
    if not isinstance(unit.base, Path):
        return False
    pattern = globs.compiled(unit.base.glob)
    return not any(pattern.fullmatch(name) for name in captured)


def _is_around(operation: str | None) -> bool:
    row = OPERATIONS.get(operation or "")
    return row is not None and row.wraps


def _no_builder(model: BuiltModel) -> Diagnostic:
    return Diagnostic(
        "RW505",
        f"`{model.builder}` is no builder of models that tests can name",
        model.span,
        help='`torchvision.models.NAME()`, `timm.create_model("NAME")`, or a class from `use` or `modules=`',
    )


def _likely_sizes(literal: GraphLiteral) -> tuple[tuple[int, ...], ...] | None:
    """Sizes that each input of a literal may well have, from the first layer that says any; None: one says none."""
    found = []
    for name in literal.inputs:
        behind, sizes = {name}, None
        for call in literal.calls:
            if sizes is not None or not behind.intersection(call.inputs):
                continue
            behind.add(call.name)
            row = call.operation
            channels = (
                next((call.attributes.get(key) for key, axis in row.reads.items() if axis == 1), None) if row else None
            )
            features = (
                next((call.attributes.get(key) for key, axis in row.reads.items() if axis == -1), None) if row else None
            )
            if isinstance(channels, int):
                rank = row.rank or (row.ranks or (4,))[-1] if row else 4
                sizes = (1, channels, *[16] * (rank - 2))
            elif isinstance(features, int):
                sizes = (1, features)
            elif isinstance(features, tuple | list) and all(isinstance(item, int) for item in features):
                sizes = (1, *features)
        if sizes is None:
            return None
        found.append(sizes)
    return tuple(found)
