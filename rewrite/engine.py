"""The pipeline on one page: parse, resolve, then for each clause read, match, plan, write; verify; report."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from rewrite import parser
from rewrite.backends import backend_for, example_of
from rewrite.backends.backend import Backend, Reading, Size
from rewrite.errors import Diagnostic
from rewrite.report import ClauseReport, Report, Site, Totals
from rewrite.resolver import resolve
from rewrite.rule import Clause, Program
from rewrite.source import Source

if TYPE_CHECKING:
    from rewrite.actions.site import Site as PlannedSite
    from rewrite.planner import Plan as ClausePlan

Model = TypeVar("Model")


@dataclass(frozen=True)
class Rules:
    """Rule text, where a path to a file would stand.

    Example:
        >>> Rules("after ReLU: insert Dropout(0.1)").name
        '<rules>'

    """

    text: str
    name: str = "<rules>"
    """what diagnostics call it"""


@dataclass(frozen=True)
class Plan:
    """What an application would do."""

    report: Report

    def __str__(self) -> str:
        return str(self.report)


_reports: weakref.WeakKeyDictionary[Any, Report] = weakref.WeakKeyDictionary()


def check_rules(
    rules: str | os.PathLike[str] | Rules,
    *,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
) -> Program:
    """Parses and resolves rules without a model; no framework is imported.

    Args:
        rules: path of a rule file, or `Rules(text)`.
        params: values for the `param`s of the file.
        modules: classes of the caller that the rules name.

    Raises:
        RuleError: with every mistake in the text.

    """
    source = Source(rules.name, rules.text) if isinstance(rules, Rules) else parser.read(rules)
    return resolve(parser.parse(source), params=params, modules=modules, name=source.name)


def apply_rules(
    model: Model,
    rules: str | os.PathLike[str] | Rules,
    *,
    example_inputs: Any = None,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, Callable[..., Any]] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Model:
    """Applies rules to a model and returns the changed model; the given one stays as it was.

    The result has the class, the attributes and the `state_dict` keys of the given model, and new keys for new layers.
    No weight is copied: parameters and buffers that the rules do not change are the same tensors in both models, so
    training the one trains the other. Modules are not shared: mode, hooks and attributes of the two are apart.

    Args:
        model: a `torch.nn.Module` on any device, in either mode.
        rules: path of a rule file, or `Rules(text)`.
        example_inputs: arguments of one call: a tensor, a tuple of arguments, or a dict of keyword arguments. Not
            needed where sizes follow from the layers; with it, shapes are exact and the output is checked.
        params: values for the `param`s of the file.
        modules: classes (or functions that return a module) of your own, by the name that rules use.
        seed: new weights depend on it, on the rule and on the site, and on nothing else; the global random generator
            is left as it was.
        name: what reports call the model; its class by default.

    Returns:
        A model of the same class. `get_report` tells what was done to it.

    Raises:
        RuleError: the text of the rules is wrong.
        SiteError: a site lacks what a rule needs to know, such as a size.
        PlanError: the rules do not fit this model: nothing matched, or a shape would change.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> apply_rules(model, Rules("after Conv2d: insert BatchNorm2d"))
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (0_batchnorm2d): BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
          (1): ReLU()
        )

    """
    with _collector_paused():
        written, report = _run(model, rules, example_inputs, params, modules, seed, name)
    _reports[written] = report
    return written  # type: ignore[no-any-return]


def plan_rules(
    model: object,
    rules: str | os.PathLike[str] | Rules,
    *,
    example_inputs: Any = None,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, Callable[..., Any]] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Plan:
    """Says what `apply_rules` would do, with the same arguments and the same errors; nothing is changed.

    Returns:
        A plan; `plan.report` has each site, what it gets, and the totals before and after.

    """
    with _collector_paused():
        return Plan(_run(model, rules, example_inputs, params, modules, seed, name)[1])


def get_report(model: object) -> Report | None:
    """The report of the application that made `model`; None if none did in this process."""
    try:
        return _reports.get(model)
    except TypeError:  # no weak reference can point at it, so no application made it
        return None


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Reading a model makes many objects that all live until the end; looking for garbage among them is in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _run(
    model: Any,
    rules: str | os.PathLike[str] | Rules,
    example_inputs: Any,
    params: Mapping[str, object] | None,
    modules: Mapping[str, Callable[..., Any]] | None,
    seed: int,
    name: str | None,
) -> tuple[Any, Report]:
    # Planning and verifying are for a model only: checking rules must not pay for importing them.
    from rewrite.matcher import Context, Matcher
    from rewrite.planner import plan
    from rewrite.verifier import verify

    backend = backend_for(model)
    example = example_of(example_inputs)
    modules = modules or {}
    source = Source(rules.name, rules.text) if isinstance(rules, Rules) else parser.read(rules)
    program = resolve(
        parser.parse(source),
        params=params,
        modules=modules,
        name=source.name,
        model_classes=backend.class_names(model),
    )
    context = Context(program.constants, {key: backend.dotted_name(cls) for key, cls in modules.items()})
    name = name or type(model).__name__
    done = backend.history(model)
    marks: list[str] = []
    first = backend.read(model, example=example, name=name)
    reading: Reading = first
    current = model
    reports: list[ClauseReport] = []
    warnings: list[Diagnostic] = list(program.warnings)
    questions: list[Diagnostic] = []
    new_layers: list[str] = []
    operations = 0
    for clause in program.clauses:
        mark = _mark(clause, program)
        if mark in done and any(type(action).__name__ in _ONCE for action in clause.actions):
            reports.append(ClauseReport(clause.text, str(clause.span), (), skipped=True))
            warnings.append(_already_applied(clause))
            continue
        layers_only = Matcher.layers_only(clause)
        graph = reading.layers if layers_only else reading.graph
        other = None if layers_only else reading.other
        made = plan(clause, graph, other, context, lambda ls, shape: backend.trial(ls, shape, modules))
        if mark in done and not made.edits:
            reports.append(ClauseReport(clause.text, str(clause.span), (), skipped=True))
            warnings.append(_already_applied(clause))
            continue
        written = backend.write(reading, made.edits, modules, seed)
        reports.append(clause_report(made, written.names))
        new_layers += [path for number in made.named if not _other_only(made, number) for path in written.names[number]]
        operations += added_operations(made)
        warnings += made.warnings
        questions += made.shape_changes
        marks.append(mark)
        current = written.model
        reading = backend.read(current, example=example, name=name, before=reading)
    if current is not model:
        backend.set_history(current, tuple(dict.fromkeys((*done, *marks))))
    output = verify(
        backend,
        model,
        current,
        reading,
        example=example,
        promise=program.output,
        open_questions=questions,
        new_layers=new_layers,
    )
    report = _report(backend, model, current, first, reports, warnings, output, operations, program, name)
    return (backend.separate(current, model) if current is not model else model), report


_ONCE = ("Insert", "Replace", "Remove", "Reset")
"""actions that would do more when done twice"""


def _mark(clause: Clause, program: Program) -> str:
    """What recognises a clause that was applied before: its text and the constants it stands in."""
    constants = repr(sorted((key, repr(value)) for key, value in program.constants.items()))
    return hashlib.sha256(f"{clause.text}\0{constants}".encode()).hexdigest()[:16]


def _already_applied(clause: Clause) -> Diagnostic:
    return Diagnostic(
        "RW401",
        "this rule was applied to the model before and is passed over",
        clause.span,
        help="to apply it once more, start from the model as it was before",
    )


def _other_only(made: ClausePlan, number: int) -> bool:
    return all(site in made.other_mode for site in made.named[number])


def added_operations(made: ClausePlan) -> int:
    """By how many calls one forward pass grows through a clause."""
    total = 0
    for site in made.sites:
        total += sum(len(chain) for chain in site.inserts)
        total += site.operations
    return total


def clause_report(made: ClausePlan, names: Mapping[int, Any]) -> ClauseReport:
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
    where = "" if site.operand is None else f"@{site.operand.name}" if len(site.node.inputs) > 1 else ""
    return Site(
        path=site.node.name + where,
        spelling=site.node.spelling,
        changes=(*lines, *site.changes),
        inferred=dict(site.inferred),
        mode=site.node.mode,
    )


def _report(
    backend: Backend,
    model: Any,
    current: Any,
    first: Reading,
    clauses: list[ClauseReport],
    warnings: list[Diagnostic],
    output: str,
    operations: int,
    program: Program,
    name: str,
) -> Report:
    before, after = backend.size(model), backend.size(current)
    calls = sum(not node.composite for node in first.graph.nodes)
    old, new = set(before.keys), set(after.keys)
    return Report(
        model=name,
        rules=program.name,
        clauses=tuple(clauses),
        before=_totals(before, calls),
        after=_totals(after, calls + operations),
        new_parameters=sum(
            size
            for key, (size, shape, _) in after.parameters_by_key.items()
            if before.parameters_by_key.get(key, (0, None, False))[1] != shape
        ),
        frozen_parameters=sum(
            size
            for key, (size, _, learns) in after.parameters_by_key.items()
            if not learns and before.parameters_by_key.get(key, (0, None, False))[2]
        ),
        removed_keys=tuple(key for key in before.keys if key not in new),
        new_keys=tuple(key for key in after.keys if key not in old),
        output=output,
        warnings=tuple(warnings),
        scopes=tuple(first.graph.opaque.items()),
    )


def _totals(size: Size, operations: int) -> Totals:
    return Totals(operations, size.layers, size.parameters, size.trainable)
