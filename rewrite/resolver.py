"""Syntax tree to `Program`: names looked up, arguments checked, every error of the file collected.

No model is needed; what depends on one is left to the matcher and the planner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from rewrite import actions, formatter, lookup, pattern, syntax
from rewrite import expression as nodes
from rewrite.actions import Action, LayerSpec
from rewrite.actions.reset import INITIALISERS
from rewrite.errors import Diagnostic, RewriteError, RuleError, nearest
from rewrite.expression import Expression, evaluate
from rewrite.rule import Clause, Count, OutputPromise, Program
from rewrite.scope import Scope, hidden
from rewrite.selection import Selection
from rewrite.source import Span
from rewrite.vocabulary.operation import Operation, Parameter

_NEEDED = {"constant": ("val",), "sparse": ("sparsity",)}  # what an initialiser cannot do without


def resolve(
    file: syntax.File,
    *,
    params: Mapping[str, object] | None = None,
    modules: Collection[str] | None = None,
    model_classes: Collection[str] | None = None,
    name: str | None = None,
) -> Program:
    """The program that a file means.

    Args:
        file: what the parser read.
        params: values that go before those of `param`, kept as they are given.
        modules: names of classes that rules may use besides the vocabulary, and before it.
        model_classes: class names of the model, where one is at hand; None leaves unknown class names for later.
        name: of the program; by default that of the source.

    Raises:
        RuleError: with every error of the file, in its order.

    """
    resolver = _Resolver(dict(params or {}), frozenset(modules or ()), model_classes)
    resolver.file(file)
    if resolver.errors:
        raise RuleError(
            sorted(resolver.errors, key=lambda error: (error.span.line, error.span.column) if error.span else (0, 0))
        )
    return Program(
        name if name is not None else file.source.name,
        tuple(resolver.clauses),
        resolver.output,
        dict(resolver.constants),
        tuple(resolver.warnings),
    )


@dataclass(frozen=True)
class _Block:
    """What the headers around a line say."""

    scopes: tuple[tuple[syntax.Unit, ...], ...] = ()
    units: tuple[tuple[pattern.Unit, ...], ...] = ()
    rule: str | None = None
    inside: str = ""
    """word of the innermost header; empty at the top level"""


class _Resolver:
    """Reads the lines of a file in order."""

    def __init__(self, params: dict[str, object], modules: frozenset[str], classes: Collection[str] | None) -> None:
        self.params, self.modules = params, modules
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.clauses: list[Clause] = []
        self.constants: dict[str, object] = {}
        self.settable: set[str] = set()
        self.rules: set[str] = set()
        self.output: OutputPromise | None = None
        self.selection = Selection(modules, classes, self.constants, self.report)

    def report(self, problem: Diagnostic) -> None:
        self.errors.append(problem)

    # ---- lines and blocks

    def file(self, file: syntax.File) -> None:
        first, *rest = file.lines
        self.lines(rest if isinstance(first, syntax.Version) else file.lines, _Block())
        for name in self.params:
            if name not in self.settable:
                self.report(self._no_param(name))
        if not self.clauses and not self.output and not self.errors:
            help_text = "a rule looks like `after Conv2d: insert BatchNorm2d`"
            self.report(Diagnostic("RW011", f"there is no rule in `{file.source.name}`", help=help_text))

    def lines(self, lines: Iterable[syntax.Line], block: _Block) -> None:
        """Lines at the top level, or in a `rule` or `within`."""
        before = len(self.clauses)
        for line in lines:
            match line:
                case syntax.Clause(syntax.Position() as header, body):
                    self.position(header, body, block)
                case syntax.Clause(syntax.Within(alternatives), body):
                    units = self.selection.units(alternatives, "within")
                    inner = replace(
                        block, scopes=(*block.scopes, alternatives), units=(*block.units, units), inside="within"
                    )
                    self.lines(body, inner)
                case syntax.Clause(syntax.Rule() as rule, body):
                    self.rule(rule, body, block)
                case syntax.Remove() | syntax.Replace() | syntax.Freeze() | syntax.Reset():
                    self.statement(line, block)
                case syntax.ExpectCount():
                    self.count(line, self.clauses[-1] if len(self.clauses) > before else None)
                case syntax.ExpectOutput():
                    self.promise(line)
                case syntax.Param() if not block.inside:
                    self.constant(line)
                case syntax.Param() | syntax.Version():
                    help_text = "put it at the top of the file, on a line of its own"
                    self.misplaced(line, block.inside or "the middle of a file", help_text)
                case syntax.Insert():
                    self.misplaced(line, block.inside, "say where: `after X: insert Y`")
                case syntax.Set():
                    self.misplaced(line, block.inside, "say of what: `at X: set self.a = 1`")

    def rule(self, header: syntax.Rule, body: Iterable[syntax.Line], block: _Block) -> None:
        name = header.name
        if block.inside:
            help_text = "rules stand at the top level; a `within` stands inside them"
            message = f"`rule` is not allowed in {_a(block.inside)} `{block.inside}` block"
            self.report(Diagnostic("RW009", message, header.span, help=help_text))
        if name.text in self.rules:
            message = f"there are two rules named `{name.text}`"
            self.report(Diagnostic("RW109", message, name.span, help="give each rule a name of its own"))
        self.rules.add(name.text)
        self.lines(body, replace(block, rule=name.text, inside="rule"))

    def misplaced(self, line: syntax.Line, inside: str, help_text: str) -> None:
        word = formatter.statement(line).partition(" ")[0]
        where = "here" if not inside else f"in {inside}" if " " in inside else f"in {_a(inside)} `{inside}` block"
        self.report(Diagnostic("RW009", f"`{word}` is not allowed {where}", line.span, help=help_text))

    # ---- clauses

    def scope(self, word: object) -> Scope:
        known = word if word in ("after", "before", "between", "at") else None
        return Scope(known, self.constants, self.modules, self.report, self.selection.inner_pattern)  # type: ignore[arg-type]

    def position(self, header: syntax.Position, body: Iterable[syntax.Line], block: _Block) -> None:
        """`after`, `before`, `between`, `at` and what is done there."""
        scope = self.scope(header.word)
        selector = self.selector(header.selector, scope, block, ported=header.word == "before")
        second = None if header.second is None else self.selector(header.second, scope, block, ported=True)
        rows = self.rows(selector)
        scope.rows |= {"after": {"prev": rows}, "before": {"next": rows}, "at": {"self": rows}}.get(header.word, {})
        if second is not None:
            scope.rows |= {"prev": rows, "next": self.rows(second)}
        selector = replace(selector, where=scope.where(header.selector.where))
        found: list[Action] = []
        counts: list[syntax.ExpectCount] = []
        for line in body:
            match line:
                case syntax.Insert(stages) if header.word != "at":
                    found.append(actions.Insert(self.flow(stages, scope, None), line.span))
                    scope.inserted = True
                case syntax.Set():
                    found.append(self.set(line, scope))
                case syntax.ExpectCount():
                    counts.append(line)
                case syntax.ExpectOutput():
                    self.promise(line)
                case _:
                    self.misplaced(line, header.word, self._instead(line, header))
        text = formatter.clause(block.scopes, header, body)
        clause = Clause(header.word, selector, tuple(found), text, header.span, second, rule=block.rule)
        self.finish(clause, scope)
        for count in counts:
            self.count(count, self.clauses[-1])

    def _instead(self, line: syntax.Line, header: syntax.Position) -> str:
        match line:
            case syntax.Insert():
                return "to put a layer behind it: `after X: insert Y`"
            case syntax.Remove() | syntax.Replace() | syntax.Freeze() | syntax.Reset():
                word = formatter.statement(line).partition(" ")[0]
                return f"`{word}` names what it changes itself: write it on a line of its own"
            case _:
                allowed = "`set` and `expect`" if header.word == "at" else "`insert`, `set` and `expect`"
                return f"{_a(header.word)} `{header.word}` block holds {allowed}"

    def statement(self, line: syntax.Remove | syntax.Replace | syntax.Freeze | syntax.Reset, block: _Block) -> None:
        """A statement that names what it changes."""
        scope = self.scope(None)
        selector = self.selector(line.selector, scope, block)
        rows = scope.rows["self"] = self.rows(selector)
        selector = replace(selector, where=scope.where(line.selector.where))
        action: Action
        match line:
            case syntax.Remove():
                action = actions.Remove(line.span)
            case syntax.Replace(_, stages):
                action = actions.Replace(self.flow(stages, scope, rows), line.span)
            case syntax.Freeze(frozen, what):
                action = actions.Freeze(frozen, what, line.span)
            case syntax.Reset(_, initialiser):
                action = self.reset(line.span, initialiser, scope)
        text = formatter.clause(block.scopes, None, [line])
        self.finish(Clause(None, selector, (action,), text, line.span, rule=block.rule), scope)

    def finish(self, clause: Clause, scope: Scope) -> None:
        self.clauses.append(clause)
        self.warnings += scope.unused()

    def count(self, line: syntax.ExpectCount, clause: Clause | None) -> None:
        if clause is None:
            help_text = "put it behind the rule whose matches it counts"
            self.report(Diagnostic("RW009", "there is no rule in front of this `expect`", line.span, help=help_text))
            return
        if clause.count.span is not None:
            self.report(Diagnostic("RW109", "this rule has two counts of matches", line.span, help="keep one of them"))
        if line.high is not None and line.low > line.high:
            help_text = f"write `expect {line.high}..{line.low} matches`"
            self.report(Diagnostic("RW106", "this count can never hold", line.span, help=help_text))
        self.clauses[-1] = replace(clause, count=Count(line.low, line.high, line.span))

    # ---- selectors

    def selector(self, chosen: syntax.Selector, scope: Scope, block: _Block, ported: bool = False) -> pattern.Selector:
        """A selector without its `where`, whose names are not all bound yet; its capture is bound here."""
        units = self.selection.units(chosen.alternatives, "port" if ported else "")
        own = tuple(self.selection.units(alternatives, "in") for alternatives in chosen.scopes)
        excluded = self.selection.units(chosen.excluded, "except")
        found = pattern.Selector(units, chosen.span, scopes=own, within=block.units, excluded=excluded)
        capture = scope.capture(chosen.capture, self.rows(found))
        return replace(found, capture=capture)

    def rows(self, selector: pattern.Selector) -> list[Operation]:
        """The operations that a selector can match, if it says so itself."""
        return lookup.rows(unit.base for unit in selector.alternatives)

    # ---- actions

    def flow(
        self, stages: Iterable[syntax.Stage], scope: Scope, replaced: list[Operation] | None
    ) -> tuple[LayerSpec, ...]:
        """New layers; `replaced` are the operations that they may stand for, None on an `insert`."""
        specs = []
        for stage in stages:
            row = lookup.layer(stage.name.text, stage.name.span, self.modules)
            if isinstance(row, Diagnostic):
                self.report(row)
            elif isinstance(row, Operation):
                inferred = replaced is not None and (not replaced or row in replaced)
                self.errors += lookup.check_arguments(row, stage.span, stage.arguments, stage.keywords, inferred)
                scope.rows["self"] = [row]
            arguments, keywords = self.arguments(stage, scope)
            specs.append(
                LayerSpec(
                    stage.span,
                    row.name if isinstance(row, Operation) else None,
                    row if isinstance(row, str) else None,
                    arguments,
                    keywords,
                    scope.capture(stage.capture, [row] if isinstance(row, Operation) else []),
                )
            )
        return tuple(specs)

    def arguments(
        self, call: syntax.Stage | syntax.Initialiser, scope: Scope
    ) -> tuple[tuple[Expression, ...], tuple[tuple[str, Expression], ...]]:
        keywords = tuple((keyword.name.text, scope.expression(keyword.value)) for keyword in call.keywords)
        return tuple(scope.expression(value) for value in call.arguments), keywords

    def reset(self, span: Span, initialiser: syntax.Initialiser | None, scope: Scope) -> actions.Reset:
        if initialiser is None:
            return actions.Reset(None, (), (), span)
        name = lookup.initialiser(initialiser.name, INITIALISERS)
        arguments, keywords = self.arguments(initialiser, scope)
        if name is None:
            close = nearest(initialiser.name, INITIALISERS)
            label = f"did you mean {lookup.either(close)}?" if close else ""
            help_text = f"there is {', '.join(f'`{word}`' for word in INITIALISERS)}"
            message = f"unknown initialiser `{initialiser.name}`"
            self.report(Diagnostic("RW106", message, initialiser.span, label, help=help_text))
            return actions.Reset(None, arguments, keywords, span)
        parameters = tuple(Parameter(parameter, False) for parameter in INITIALISERS[name])
        shown = f"{name}({', '.join(INITIALISERS[name])})"
        self.errors += lookup.bind(name, parameters, initialiser.arguments, initialiser.keywords, shown)
        for needed in _NEEDED.get(name, ()):
            if not arguments and needed not in dict(keywords):
                self.report(Diagnostic("RW106", f"`{name}` needs `{needed}`", initialiser.span, help=shown))
        return actions.Reset(name, arguments, keywords, span)

    def set(self, line: syntax.Set, scope: Scope) -> actions.Set:
        assignments = []
        for assign in line.assigns:
            target = assign.target
            if scope.known(target.root, target.span):
                scope.attribute(target.root, target.attributes[0], target.span)
            if target.attributes[-1] == "activation":
                value = self.activation(assign.value, scope)
            else:
                value = scope.expression(assign.value)
            assignments.append(
                actions.Assignment(actions.Reference(target.root, target.attributes, target.span), value)
            )
        return actions.Set(tuple(assignments), line.span)

    def activation(self, value: Expression, scope: Scope) -> Expression:
        """The right side of `x.activation =`: an activation by name, with arguments or without, or `none`."""
        function = value.function if isinstance(value, nodes.Call) else value
        if isinstance(function, nodes.Literal) and function.value is None:
            return value
        help_text = "write `identity` for none at all"
        if not isinstance(function, nodes.Name):
            self.report(Diagnostic("RW106", "this is not an activation", value.span, help=help_text))
            return value
        if function.name in self.modules:
            return value
        row = lookup.layer(function.name, function.span, frozenset())
        if isinstance(row, Operation) and row.family != "activation" and row.name != "Identity":
            self.report(Diagnostic("RW106", f"`{row.name}` is not an activation", value.span, help=help_text))
        elif isinstance(row, Diagnostic):
            self.report(row)
        if not isinstance(row, Operation):
            return value
        name = nodes.Name(row.name, function.span)
        if not isinstance(value, nodes.Call):
            return name
        words = tuple(
            syntax.Keyword(syntax.Word(keyword, item.span), item, item.span) for keyword, item in value.keywords
        )
        self.errors += lookup.check_arguments(row, value.span, value.arguments, words, False)
        arguments = tuple(map(scope.expression, value.arguments))
        keywords = tuple((keyword, scope.expression(item)) for keyword, item in value.keywords)
        return replace(value, function=name, arguments=arguments, keywords=keywords)

    # ---- constants and promises

    def constant(self, line: syntax.Param) -> None:
        name = line.name.text
        problem = hidden(name, self.modules)
        if problem:
            self.report(Diagnostic("RW105", f"`{name}` hides {problem}", line.name.span, help="choose another name"))
        elif name in self.constants:
            message = f"the name `{name}` stands twice"
            self.report(Diagnostic("RW109", message, line.name.span, "already a constant"))
        value: object = 1  # stands in for a value that is in error, so that the error is not reported again
        before = len(self.errors)
        expression = self.selection.constant_scope().expression(line.value)
        if len(self.errors) == before:
            try:
                value = evaluate(expression, self.constants)
            except RewriteError as error:
                self.errors += error.diagnostics
        if line.settable:
            self.settable.add(name)
            if name in self.params:
                value = self.params[name]
                if not _is_value(value):
                    message = f"`{name}` is given something that is no value of the language"
                    help_text = "pass a number, a text, true, false, none, or a tuple or list of them"
                    self.report(Diagnostic("RW106", message, line.name.span, help=help_text))
        self.constants[name] = value

    def _no_param(self, name: str) -> Diagnostic:
        message = f"there is no `param {name}` to set"
        if name in self.constants:
            return Diagnostic("RW110", message, help=f"`{name}` is fixed with `let`; write `param` to set it")
        close = nearest(name, self.settable, 1)
        known = ", ".join(f"`{param}`" for param in sorted(self.settable))
        help_text = f"did you mean `{close[0]}`?" if close else f"there is {known}" if known else ""
        return Diagnostic("RW110", message, help=help_text or "this file has no `param`")

    def promise(self, line: syntax.ExpectOutput) -> None:
        if self.output is not None:
            message = "the output is promised twice"
            self.report(Diagnostic("RW109", message, line.span, help="keep one `expect output`"))
        items = line.shape.items if isinstance(line.shape, nodes.Sequence) else ()
        if not items:
            help_text = "write a shape such as `(_, 10)`; `_` is any size"
            self.report(Diagnostic("RW106", "this is not a shape", line.shape.span, help=help_text))
        shape: list[int | None] = []
        for item in items:
            shape.append(None)
            if isinstance(item, nodes.Name) and item.name == "_":
                continue
            before = len(self.errors)
            expression = self.selection.constant_scope().expression(item)
            if len(self.errors) > before:
                continue
            try:
                size = evaluate(expression, self.constants)
            except RewriteError as error:
                self.errors += error.diagnostics
                continue
            if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
                shape[-1] = size
            else:
                self.report(Diagnostic("RW106", "a size is a whole number, or `_`", item.span))
        self.output = OutputPromise(tuple(shape), line.span)


def _a(word: str) -> str:
    """The article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def _is_value(value: object, depth: int = 0) -> bool:
    """Whether a value from outside is one that expressions can have."""
    if isinstance(value, tuple | list):
        return depth < 8 and all(_is_value(item, depth + 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | str) or (isinstance(value, int) and abs(value) < nodes.LARGEST)
