"""Selectors resolved: what each alternative of one names, tests, picks and points at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from rewrite import lookup, pattern, syntax
from rewrite.errors import Diagnostic, nearest
from rewrite.scope import Scope
from rewrite.vocabulary.operation import Operation


class Selection:
    """Resolves the selectors of one file.

    Args:
        modules: names of classes that the caller gave.
        classes: class names of the model, None where no model is at hand.
        constants: values of `param` and `let`, filled while the file is read.
        report: takes what is wrong.
        warn: takes what is only odd.

    """

    def __init__(
        self,
        modules: frozenset[str],
        classes: Collection[str] | None,
        constants: Mapping[str, object],
        report: Callable[[Diagnostic], None],
        warn: Callable[[Diagnostic], None],
    ) -> None:
        self.modules, self.classes, self.constants, self.report = modules, classes, constants, report
        self.warn = warn

    def constant_scope(self) -> Scope:
        """The names where nothing is selected yet: constants only."""
        return Scope(None, self.constants, self.modules, self.report, self.inner_pattern)

    def inner_pattern(self, alternatives: tuple[object, ...], captures: Collection[str] = ()) -> tuple[object, ...]:
        return self.units((unit for unit in alternatives if isinstance(unit, syntax.Unit)), "is", captures)

    def units(
        self, alternatives: Iterable[syntax.Unit], place: str, captures: Collection[str] = ()
    ) -> tuple[pattern.Unit, ...]:
        """The alternatives of a selector.

        Args:
            alternatives: as they are written.
            place: empty for a site, `port` for one with an input, else the word in front of them.
            captures: names that stand for calls here.

        """
        written = list(alternatives)
        absent = [unit for unit in written if self._is_absent(unit, captures)]
        if 0 < len(absent) < len(written):  # a file for several models names classes that one of them does not have
            for unit in absent:
                name = unit.base.text if isinstance(unit.base, syntax.Dotted) else ""
                close = nearest(name, self.classes or (), 1)
                help_text = f"did you mean `{close[0]}`?" if close else ""
                message = f"this model has no class `{name}`; the other alternatives are looked for"
                self.warn(Diagnostic("RW302", message, unit.span, help=help_text))
            written = [unit for unit in written if unit not in absent]
        return tuple(self.unit(alternative, place, captures) for alternative in written)

    def _is_absent(self, unit: syntax.Unit, captures: Collection[str]) -> bool:
        """Whether a unit names a class that the vocabulary leaves to the model, and the model does not have it."""
        base = unit.base
        if self.classes is None or not isinstance(base, syntax.Dotted) or base.text in captures:
            return False
        if isinstance(lookup.kind(base.text, base.span, self.modules, self.classes), pattern.Kind):
            return False
        return isinstance(lookup.kind(base.text, base.span, self.modules, None), pattern.Kind)

    def unit(self, unit: syntax.Unit, place: str, captures: Collection[str] = ()) -> pattern.Unit:
        base = self.base(unit.base, captures)
        row = lookup.rows([base])
        tests = []
        for test in unit.tests:
            problem = lookup.check_attribute(test.name, row, replace(test.span, length=len(test.name)))
            if problem is not None:
                self.report(problem)
            value = None if test.value is None else self.constant_scope().expression(test.value)
            tests.append(pattern.AttributeTest(test.name, test.operator, value, test.span))
        if unit.pick is not None and place not in ("", "port"):
            message = f"`{unit.pick.word}` picks among sites and cannot stand behind `{place}`"
            help_text = f"drop `{unit.pick.word}`, or name the one that is meant by its path"
            self.report(Diagnostic("RW009", message, unit.pick.span, help=help_text))
        if unit.port is not None:
            self.port(unit.port, row, place)
        pick = None if unit.pick is None else pattern.Pick(unit.pick.word, unit.pick.number)
        return pattern.Unit(base, unit.span, tuple(tests), pick, None if unit.port is None else unit.port.value)

    def port(self, port: syntax.Port, row: list[Operation], place: str) -> None:
        if place != "port":
            help_text = "an input is chosen with `before X@1` or `between A and X@1`"
            self.report(Diagnostic("RW009", "an input cannot be chosen here", port.span, help=help_text))
        elif row and (problem := lookup.check_port(port.value, row[0], port.span)) is not None:
            self.report(problem)

    def base(
        self, base: syntax.Dotted | syntax.Path | syntax.Anything, captures: Collection[str] = ()
    ) -> pattern.Kind | pattern.Path | pattern.Anything | pattern.Bound:
        match base:
            case syntax.Dotted() if base.text in captures:
                return pattern.Bound(base.text)
            case syntax.Anything():
                return pattern.Anything()
            case syntax.Path(glob, span):
                if not glob or not _is_balanced(glob):
                    message = "a path has no end of its `{`" if glob else "a path is empty"
                    help_text = 'write a module path such as "features.0", "layer*.**" or "**.{q,v}_proj"'
                    self.report(Diagnostic("RW106", message, span, help=help_text))
                return pattern.Path(glob)
            case syntax.Dotted():
                kind = lookup.kind(base.text, base.span, self.modules, self.classes)
                if isinstance(kind, Diagnostic):
                    self.report(kind)
                    return pattern.Anything()
                return kind


def _is_balanced(glob: str) -> bool:
    """Whether every `{` of a path has its `}`, none inside another."""
    depth = 0
    for character in glob:
        depth += (character == "{") - (character == "}")
        if depth not in (0, 1):
            return False
    return depth == 0
