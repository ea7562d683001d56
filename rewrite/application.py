"""One application of a program to a model: for each clause read, match, plan, write; then verify and report."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from rewrite import edit
from rewrite.actions.site import Site as PlannedSite
from rewrite.backends.backend import Backend, Example, Reading, Size
from rewrite.errors import EXAMPLE_HELP, Diagnostic, PlanError, RewriteError, raisable
from rewrite.explaining import Explained, ExplainedClause, explain_clause
from rewrite.graph import Graph, Node
from rewrite.matcher import Context, Matcher
from rewrite.migration import compose, moved_keys, renewed_keys
from rewrite.pattern import unit_text
from rewrite.planner import Plan, plan
from rewrite.report import ClauseReport, Report, Site, Totals
from rewrite.rule import Clause, Count, OutputPromise, Program, Repeat
from rewrite.source import Span
from rewrite.verifier import try_out, verify

_ONCE = ("Insert", "Replace", "Remove", "Reset", "Wrap", "Fold", "Move", "Tap")
"""actions that would do more when done twice"""


class Application:
    """A program on its way through one model.

    Args:
        backend: that of the model.
        model: as it was given; it is not changed.
        program: the resolved rules.
        example: arguments of one call, for exact shapes and a check of the output.
        modules: classes that the caller gave.
        seed: what new weights depend on, beside rule and site.
        name: what reports call the model.
        count_calls: whether the report tells the number of calls even where no rule is about calls.
        strict: whether matches in each other's way are an error.
        lenient: whether a `leaf` may name nothing.
        by_run: whether both models are run on real numbers as well.

    """

    def __init__(
        self,
        backend: Backend,
        model: Any,
        program: Program,
        *,
        example: Example | None,
        modules: Mapping[str, Callable[..., Any]],
        seed: int,
        name: str,
        count_calls: bool,
        strict: bool = False,
        lenient: bool = False,
        by_run: bool = False,
    ) -> None:
        self.backend = backend
        self.model = model
        self.program = program
        self.example = example
        self.modules = modules
        self.seed = seed
        self.name = name
        self.strict = strict
        self.by_run = by_run
        classes = {key: backend.dotted_name(cls) for key, cls in modules.items()}
        self.context = Context(program.constants, classes, modules, self._as_object)
        self.current = model
        self.leaves = self._leaves(lenient)
        self.reading = backend.read(model, example=example, name=name, leaves=self.leaves)
        self.first: Graph | None = self.reading.graph if count_calls else None
        """the calls of the model as it was given, if they were read"""
        self.done = backend.history(model)
        self.marks: list[str] = []
        self.clauses: list[ClauseReport] = []
        self.warnings: list[Diagnostic] = list(program.warnings)
        self.questions: list[Diagnostic] = []
        self.new_layers: dict[str, str | None] = {}
        """path of each inserted layer -> path of a module whose call leads to it; None: no call tells that"""
        self.moved: dict[str, str] = {}
        """key of the model as it was given -> the key under which its tensor is by now"""
        self.edits = 0
        """how many changes were made"""
        self.operations = 0
        """by how many calls one forward pass has grown"""

    def run(self) -> tuple[Any, Report]:
        """The changed model, and what was done to it.

        Raises:
            PlanError, SiteError, RuleError: nothing is changed then.

        """
        self.carry_out()
        if self.current is not self.model:  # first of all: a hook of the given model would look at the given one
            self.current = self.backend.separate(self.current, self.model)
            # Nothing of the reading before may be taken over: parts of what it has read are others now.
            self.reading = self.backend.read(self.current, example=self.example, name=self.name, leaves=self.leaves)
        report = self.report(self.verify(self.program.output, self.program.equivalent))
        if self.by_run:
            report = replace(report, runs=self.try_out())
        return self.current, report

    def carry_out(self) -> None:
        """Applies all clauses; `current` is the changed model then, and `reading` what it is.

        Raises:
            PlanError, SiteError, RuleError: a clause does not fit the model.

        """
        for repeat, clauses in itertools.groupby(self.program.clauses, key=lambda clause: clause.repeat):
            if repeat is None:
                for clause in clauses:
                    self._apply(clause)
            else:
                self._repeat(repeat, list(clauses))
        if self.current is not self.model:
            self.backend.set_history(self.current, tuple(dict.fromkeys((*self.done, *self.marks))))

    def verify(self, promise: OutputPromise | None, equivalent: Span | None) -> str:
        """Holds what was made against what is promised of it; what is known of the output, in words.

        Raises:
            PlanError, SiteError: a promise is broken, or cannot be held against anything.

        """
        known, warnings = verify(
            self.backend,
            self.model,
            self.current,
            self.reading,
            example=self.example,
            promise=promise,
            open_questions=self.questions,
            new_layers=self.new_layers,
            equivalent=equivalent,
            preserved=all(clause.preserves for clause in self.program.clauses),
        )
        self.warnings += warnings
        return known

    def try_out(self) -> tuple[str, ...]:
        """Runs the given model and the changed one on real numbers; what was run and found.

        Raises:
            PlanError, SiteError: numbers that must be the same are not; nothing is known to run the model on.

        """
        example = self.example or self.backend.probe(self.model, 2).example
        if example is None:
            raise Diagnostic(
                "RW203", "no input was found that the model takes, to run it on", help=EXAMPLE_HELP
            ).error()
        return try_out(
            self.backend,
            self.model,
            self.current,
            example,
            preserved=all(clause.preserves for clause in self.program.clauses),
            preserved_training=all(clause.preserves_training for clause in self.program.clauses),
        )

    def explain(self) -> Explained:
        """What each clause matches, and why it matches no more."""
        clauses: list[ExplainedClause] = []
        problems: list[Diagnostic] = []
        for clause in self.program.clauses:
            graph = self.reading.layers if Matcher.layers_only(clause) else self.reading.graph
            try:
                clauses.append(explain_clause(clause, graph, Matcher(graph, self.context)))
                self._apply(clause)
            except RewriteError as problem:
                problems += problem.diagnostics
        return Explained(self.name, self.program.name, tuple(clauses), tuple(problems))

    def _repeat(self, repeat: Repeat, clauses: Sequence[Clause]) -> None:
        """Applies clauses again and again until none of them changes anything.

        Raises:
            PlanError: there is still something to do after the last round (RW316).

        """
        reports: dict[int, ClauseReport] = {}
        for done in range(repeat.most + 1):
            changed = False
            for number, clause in enumerate(clauses):
                again = replace(clause, count=Count(0)) if done else clause
                before, report_count = self.current, len(self.clauses)
                self._apply(again, plan_only=done == repeat.most)
                changed = changed or self.current is not before
                for report in self.clauses[report_count:]:
                    first = reports.get(number)
                    reports[number] = report if first is None else first.joined(report)
                del self.clauses[report_count:]
            if not changed:
                break
        else:
            raise AssertionError("the last round only plans")
        self.clauses += [reports[number] for number in sorted(reports)]

    def _apply(self, clause: Clause, *, plan_only: bool = False) -> None:
        """Carries out one clause.

        Raises:
            PlanError: the clause has something to do, and `plan_only` says that it must not (RW316).

        """
        mark = self._mark(clause)
        if mark in self.done and any(type(action).__name__ in _ONCE for action in clause.actions):
            self._pass_over(clause)
            return
        made = self._plan(clause)
        if plan_only and made.edits and clause.repeat is not None:
            raise _restless(clause, clause.repeat, made)
        if (mark in self.done or clause.repeat is not None) and not made.edits:
            if mark in self.done:
                self._pass_over(clause)
            elif not made.sites:
                self.clauses.append(_clause_report(made, {}))
            return
        try:
            written = self.backend.write(self.reading, made.edits, self.modules, self.seed)
        except RewriteError as problem:
            # A backend knows the call, and not always the text that asked for it.
            found = [one if one.span is not None else replace(one, span=clause.span) for one in problem.diagnostics]
            if problem.code == "RW310":  # where a copy is made by running it
                found = [*made.shape_changes, *found]
            raise raisable(found) from problem
        self.edits += len(made.edits)
        self.clauses.append(_clause_report(made, written.names))
        for number, sites in made.named.items():
            here = [site for site in sites if (site.whole or site) in made.sites]
            if here:
                self.new_layers |= dict.fromkeys(written.names[number], self._leads_to(here[0].node))
        self.operations += sum(_growth(site) for site in made.sites)
        self.warnings += [*made.warnings, *written.warnings]
        self.questions += made.shape_changes
        self.marks.append(mark)
        if any(isinstance(change, edit.Replace | edit.Move) for change in made.edits):
            moved = moved_keys(self.backend.size(self.current), self.backend.size(written.model))
            self.moved = compose(self.moved, moved)
        self.current = written.model
        self.reading = self.backend.read(
            self.current, example=self.example, name=self.name, before=self.reading, leaves=self.leaves
        )

    def _leads_to(self, node: Node) -> str | None:
        """Path of a module whose call is sure to come to this one; None where no call tells that, or nothing is run."""
        if self.example is None:  # a clause about layers alone needs no graph, which takes long to make
            return None
        graph = self.reading.graph
        if node.layer is not None and (node.on_layer or not node.linked):
            return node.layer.path
        is_whole = not any(node.scope in paths for paths in (graph.opaque, graph.closed, graph.guessed))
        return node.scope if is_whole else None

    def _plan(self, clause: Clause) -> Plan:
        reading: Reading = self.reading
        earlier = frozenset(self.new_layers)
        if Matcher.layers_only(clause):
            return plan(clause, reading.layers, None, self.context, self._trial, strict=self.strict)
        if self.first is None and self.current is self.model:
            self.first = reading.graph
        try:
            made = plan(
                clause,
                reading.graph,
                reading.other,
                self.context,
                self._trial,
                strict=self.strict,
                earlier=earlier,
            )
        except PlanError as problem:
            raise self._with_history(clause, problem) from None
        if not made.sites and (gone := self._taken_away(clause)):
            made.warnings.append(
                Diagnostic("RW407", "an earlier rule left nothing for this one", clause.span, notes=gone)
            )
        return made

    def _with_history(self, clause: Clause, problem: PlanError) -> PlanError:
        """The error that a clause matches nothing, with the hint that it would have matched the model as it was."""
        first, *rest = problem.diagnostics
        if first.code not in ("RW301", "RW303"):
            return problem
        notes = self._taken_away(clause)
        return PlanError([replace(first, notes=(*first.notes, *notes)), *rest]) if notes else problem

    def _taken_away(self, clause: Clause) -> tuple[str, ...]:
        """How many sites a clause without any would have had in the model as it was given, if it would have."""
        if self.first is None or self.current is self.model or clause.repeat is not None:
            return ()
        matches, _ = Matcher(self.first, self.context).sites(clause)
        if not matches:
            return ()
        return (f"before the earlier rules of this file, {len(matches)} matched: they have taken these away",)

    def _leaves(self, lenient: bool) -> frozenset[str]:
        """Paths of the modules that `leaf` names.

        Raises:
            PlanError: one names nothing (RW301), and `lenient` is not set.

        """
        if not self.program.leaves:
            return frozenset()
        matcher = Matcher(self.backend.read(self.model, name=self.name).layers, self.context)
        found: set[str] = set()
        for unit in self.program.leaves:
            paths = [node.name for node in matcher.layer_nodes() if node.name and matcher.fits(unit, node)]
            if not paths and not lenient:
                what = unit_text(unit)
                message = f"`leaf {what}` names nothing in {self.name}"
                raise Diagnostic(
                    "RW301", message, unit.span, help="`rewrite show` lists the modules of a model"
                ).error()
            found.update(paths)
        return frozenset(found)

    def _as_object(self, node: Node) -> object:
        return self.backend.find(self.current, node.layer.path) if node.layer is not None else node

    def _trial(self, layers: Sequence[Any], *shapes: tuple[int, ...]) -> tuple[int, ...] | str:
        return self.backend.trial(layers, shapes, self.modules)

    def _mark(self, clause: Clause) -> str:
        """What recognises a clause that was applied before: its text and the constants it stands in."""
        constants = repr(sorted((key, repr(value)) for key, value in self.program.constants.items()))
        return hashlib.sha256(f"{clause.text}\0{constants}".encode()).hexdigest()[:16]

    def _pass_over(self, clause: Clause) -> None:
        self.clauses.append(ClauseReport(clause.text, str(clause.span), (), skipped=True))
        self.warnings.append(
            Diagnostic(
                "RW401",
                "this rule was applied to the model before and is passed over",
                clause.span,
                help="to apply it once more, start from the model as it was before",
            )
        )

    def report(self, output: str) -> Report:
        """What was done; `output` is what is known of the output, in words."""
        before, after = self.backend.size(self.model), self.backend.size(self.current)
        calls = None
        if self.first is not None:
            calls = sum(not node.composite for node in self.first.nodes)
        old, new = set(before.keys), set(after.keys)
        moved = {key: self.moved[key] for key in before.keys if self.moved.get(key) in new}
        homes = {key: after.tensors.get(moved.get(key, key)) for key in before.tensors}
        resized = [key for key, home in homes.items() if home is not None and home[1] != before.tensors[key][1]]
        unlike = [
            key for key, row in after.tensors.items() if key not in before.tensors or before.tensors[key][1] != row[1]
        ]
        stopped = [
            key for key, row in after.tensors.items() if not row[2] and before.tensors.get(key, (0, (), False))[2]
        ]
        return Report(
            model=self.name,
            rules=self.program.name,
            clauses=tuple(self.clauses),
            before=_totals(before, calls),
            after=_totals(after, calls + self.operations if calls is not None else None),
            new_parameters=sum(after.tensors[key][0] for key in unlike),
            frozen_parameters=sum(after.tensors[key][0] for key in stopped),
            removed_keys=tuple(key for key in before.keys if key not in new),
            new_keys=tuple(key for key in after.keys if key not in old),
            moved_keys={old: key for old, key in moved.items() if old not in resized},
            resized_keys=tuple(resized),
            renewed_keys=tuple(key for key in renewed_keys(before, after, moved) if key not in resized),
            output=output,
            warnings=tuple(self.warnings),
            scopes=tuple(self.first.opaque.items()) if self.first is not None else (),
            scope_kinds=self.first.kinds if self.first is not None else {},
        )


def _totals(size: Size, operations: int | None) -> Totals:
    return Totals(operations, size.layers, size.parameters, size.trainable)


def _growth(site: PlannedSite) -> int:
    """By how many calls one forward pass grows at a site."""
    inserted = sum(len(chain) for part in (site, *site.parts) for chain in part.inserts)
    return site.operations + inserted


def _restless(clause: Clause, repeat: Repeat, made: Plan) -> PlanError:
    times = "round" if repeat.most == 1 else "rounds"
    left = ", ".join(f"`{site.node.name}`" for site in made.sites[:4])
    return PlanError(
        [
            Diagnostic(
                "RW316",
                f"after {repeat.most} {times} this rule still finds something to do",
                repeat.span,
                notes=(f"{clause.text} would change {left} next",),
                help=f"allow `repeat max {min(repeat.most * 2, 100)}`; a rule that makes what it matches never ends",
            )
        ]
    )


def _clause_report(made: Plan, names: Mapping[int, Sequence[str]]) -> ClauseReport:
    """A clause's plan as reports show it, with the names that its new layers got."""
    places: dict[int, list[str]] = {}
    for number, sites in made.named.items():
        for site in sites:
            places.setdefault(id(site), []).extend(names.get(number, ()))
    return ClauseReport(
        text=made.clause.text,
        place=str(made.clause.span),
        sites=tuple(_site_report(site, places) for site in made.sites),
        other_mode=tuple(_site_report(site, places) for site in made.other_mode),
        misses=tuple(made.misses),
    )


def _site_report(site: PlannedSite, places: Mapping[int, list[str]]) -> Site:
    lines: list[str] = []
    for part in (site, *site.parts):
        layers = [layer for chain in part.inserts for layer in chain]
        names = places.get(id(part), [])
        lines += [
            f"insert {layer} as {name}" if name else f"insert {layer}"
            for layer, name in zip_longest(layers, names[: len(layers)], fillvalue="")
        ]
    which = f"@{site.operand.name}" if site.operand is not None and len(site.node.inputs) > 1 else ""
    calls = site.nodes if len(site.nodes) > 1 else (site.node,)
    chain = " -> ".join(node.name + (which if node is site.node else "") for node in calls)
    return Site(
        path=chain,
        spelling=site.node.spelling,
        changes=(*lines, *site.changes),
        inferred=dict(site.inferred),
        mode=site.node.mode,
    )
