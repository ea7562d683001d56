"""One application of a program to a model: for each clause read, match, plan, write; then verify and report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rewrite.actions.site import Site as PlannedSite
from rewrite.backends.backend import Backend, Example, Reading, Size
from rewrite.errors import Diagnostic
from rewrite.graph import Graph
from rewrite.matcher import Context, Matcher
from rewrite.planner import Plan, plan
from rewrite.report import ClauseReport, Report, Site, Totals
from rewrite.rule import Clause, Program
from rewrite.verifier import verify

_ONCE = ("Insert", "Replace", "Remove", "Reset")
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
    ) -> None:
        self.backend = backend
        self.model = model
        self.program = program
        self.example = example
        self.modules = modules
        self.seed = seed
        self.name = name
        classes = {key: backend.dotted_name(cls) for key, cls in modules.items()}
        self.context = Context(program.constants, classes)
        self.current = model
        self.reading = backend.read(model, example=example, name=name)
        self.first: Graph | None = self.reading.graph if count_calls else None
        """the calls of the model as it was given, if they were read"""
        self.done = backend.history(model)
        self.marks: list[str] = []
        self.clauses: list[ClauseReport] = []
        self.warnings: list[Diagnostic] = list(program.warnings)
        self.questions: list[Diagnostic] = []
        self.new_layers: list[str] = []
        self.operations = 0
        """by how many calls one forward pass has grown"""

    def run(self) -> tuple[Any, Report]:
        """The changed model, and what was done to it.

        Raises:
            PlanError, SiteError, RuleError: nothing is changed then.

        """
        for clause in self.program.clauses:
            self._apply(clause)
        if self.current is not self.model:
            self.backend.set_history(self.current, tuple(dict.fromkeys((*self.done, *self.marks))))
        output = verify(
            self.backend,
            self.model,
            self.current,
            self.reading,
            example=self.example,
            promise=self.program.output,
            open_questions=self.questions,
            new_layers=self.new_layers,
        )
        report = self._report(output)
        if self.current is self.model:
            return self.model, report
        return self.backend.separate(self.current, self.model), report

    def _apply(self, clause: Clause) -> None:
        mark = self._mark(clause)
        if mark in self.done and any(type(action).__name__ in _ONCE for action in clause.actions):
            self._pass_over(clause)
            return
        made = self._plan(clause)
        if mark in self.done and not made.edits:
            self._pass_over(clause)
            return
        written = self.backend.write(self.reading, made.edits, self.modules, self.seed)
        self.clauses.append(_clause_report(made, written.names))
        for number, sites in made.named.items():
            if any(site in made.sites for site in sites):
                self.new_layers += written.names[number]
        self.operations += sum(site.operations + sum(len(chain) for chain in site.inserts) for site in made.sites)
        self.warnings += made.warnings
        self.questions += made.shape_changes
        self.marks.append(mark)
        self.current = written.model
        self.reading = self.backend.read(self.current, example=self.example, name=self.name, before=self.reading)

    def _plan(self, clause: Clause) -> Plan:
        reading: Reading = self.reading
        if Matcher.layers_only(clause):
            return plan(clause, reading.layers, None, self.context, self._trial)
        if self.first is None and self.current is self.model:
            self.first = reading.graph
        return plan(clause, reading.graph, reading.other, self.context, self._trial)

    def _trial(self, layers: Sequence[Any], shape: tuple[int, ...]) -> tuple[int, ...] | str:
        return self.backend.trial(layers, shape, self.modules)

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

    def _report(self, output: str) -> Report:
        before, after = self.backend.size(self.model), self.backend.size(self.current)
        calls = None
        if self.first is not None:
            calls = sum(not node.composite for node in self.first.nodes)
        old, new = set(before.keys), set(after.keys)
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
            output=output,
            warnings=tuple(self.warnings),
            scopes=tuple(self.first.opaque.items()) if self.first is not None else (),
        )


def _totals(size: Size, operations: int | None) -> Totals:
    return Totals(operations, size.layers, size.parameters, size.trainable)


def _clause_report(made: Plan, names: Mapping[int, Sequence[str]]) -> ClauseReport:
    """A clause's plan as reports show it, with the names that its new layers got."""
    places: dict[int, list[str]] = {}
    for number, sites in made.named.items():
        for site in sites:
            places.setdefault(id(site), []).extend(names.get(number, ()))
    return ClauseReport(
        text=made.clause.text,
        place=str(made.clause.span),
        sites=tuple(_site_report(site, places.get(id(site), [])) for site in made.sites),
        other_mode=tuple(_site_report(site, places.get(id(site), [])) for site in made.other_mode),
        misses=tuple(made.misses),
    )


def _site_report(site: PlannedSite, names: list[str]) -> Site:
    layers = [layer for chain in site.inserts for layer in chain]
    lines = [
        f"insert {layer} as {name}" if name else f"insert {layer}"
        for layer, name in zip_longest(layers, names[: len(layers)], fillvalue="")
    ]
    which = f"@{site.operand.name}" if site.operand is not None and len(site.node.inputs) > 1 else ""
    return Site(
        path=site.node.name + which,
        spelling=site.node.spelling,
        changes=(*lines, *site.changes),
        inferred=dict(site.inferred),
        mode=site.node.mode,
    )
