"""Syntax tree to `Program`: names looked up, arguments checked, every error of the file collected.

No model is needed; what depends on one is left to the matcher and the planner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from rewrite import actions, formatter, lookup, pattern, syntax
from rewrite import expression as nodes
from rewrite.actions import Action
from rewrite.chains import check_chains
from rewrite.errors import Diagnostic, RewriteError, RuleError, nearest
from rewrite.expression import MISSING, evaluate
from rewrite.rule import Case, Clause, Count, OutputPromise, Program, Repeat
from rewrite.scope import Scope, hidden
from rewrite.selection import Selection
from rewrite.source import Span
from rewrite.statements import Statements
from rewrite.vocabulary.operation import Operation

MOST_CLAUSES = 10_000
MOST_ROUNDS = 100
"""of one `repeat`"""
ROUNDS = 10
"""of a `repeat` that does not say how many"""

_Named = syntax.Remove | syntax.Replace | syntax.Wrap | syntax.Tap | syntax.Freeze | syntax.Reset
"""statements that name what they change"""


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
        raise RuleError(resolver.in_order(file))
    return Program(
        name if name is not None else file.source.name,
        tuple(resolver.clauses),
        resolver.output,
        resolver.equivalent,
        tuple(resolver.leaves),
        tuple(resolver.cases),
        dict(resolver.constants),
        tuple(resolver.warnings),
    )


@dataclass(frozen=True)
class _Block:
    """What the headers around a line say."""

    scopes: tuple[tuple[syntax.Unit, ...], ...] = ()
    units: tuple[tuple[pattern.Unit, ...], ...] = ()
    rule: str | None = None
    repeat: Repeat | None = None
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
        self.equivalent: Span | None = None
        self.leaves: list[pattern.Unit] = []
        self.tests: list[syntax.Clause] = []
        self.taps: set[str] = set()
        self.cases: list[Case] = []
        self.selection = Selection(modules, classes, self.constants, self.report, self.warnings.append)
        self.statements = Statements(modules, self.report)

    def report(self, problem: Diagnostic) -> None:
        self.errors.append(problem)

    def in_order(self, file: syntax.File) -> list[Diagnostic]:
        """The errors in the order of the text, those of included files where they are included."""
        sources: dict[str, int] = {file.source.name: 0}
        for line in file.lines:
            sources.setdefault(line.span.source.name, len(sources))

        def place(error: Diagnostic) -> tuple[int, int, int]:
            span = error.span
            return (sources.get(span.source.name, 0), span.line, span.column) if span else (0, 0, 0)

        return sorted(self.errors, key=place)

    # ---- lines and blocks

    def file(self, file: syntax.File) -> None:
        first, *rest = file.lines
        self.lines(rest if isinstance(first, syntax.Version) else file.lines, _Block())
        for name in self.params:
            if name not in self.settable:
                self.report(self._no_param(name))
        for test in self.tests:
            self.case(test)
        if len(self.clauses) > MOST_CLAUSES:
            message = f"more than {MOST_CLAUSES:,} rules"
            self.report(Diagnostic("RW018", message, self.clauses[MOST_CLAUSES].span, help="split the file"))
        if not self.clauses and not self.output and not self.errors and not self.tests:
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
                case syntax.Clause(syntax.Repeat() as repeat, body):
                    self.repeat(repeat, body, block)
                case syntax.Clause(syntax.RuleTest()):
                    self.test(line, block)
                case (
                    syntax.Remove() | syntax.Replace() | syntax.Wrap() | syntax.Tap() | syntax.Freeze() | syntax.Reset()
                ):
                    self.statement(line, block)
                case syntax.Fold():
                    self.fold(line, block)
                case syntax.ExpectCount():
                    self.count(line, self.clauses[-1] if len(self.clauses) > before else None)
                case syntax.ExpectOutput() | syntax.ExpectEquivalent():
                    self.promise(line)
                case syntax.Param() if not block.inside:
                    self.constant(line)
                case syntax.Leaf() if not block.inside:
                    self.leaves += self.selection.units(line.alternatives, "leaf")
                case syntax.Use() if not block.inside:
                    pass  # its names are known before the file is read
                case syntax.Param() | syntax.Version() | syntax.Leaf() | syntax.Use() | syntax.Include():
                    help_text = "put it at the top of the file, on a line of its own"
                    self.misplaced(line, block.inside or "the middle of a file", help_text)
                case syntax.Given() | syntax.Want() | syntax.Unchanged() | syntax.Model():
                    self.misplaced(line, block.inside, 'put it in a test: `test my_rule "what it shows": ...`')
                case syntax.Insert():
                    self.misplaced(line, block.inside, "say where: `after X: insert Y`")
                case syntax.Set():
                    self.misplaced(line, block.inside, "say of what: `at X: set self.a = 1`")
                case syntax.Move():
                    self.misplaced(line, block.inside, "say what: `match A as a -> B as b: move a after b`")

    def repeat(self, header: syntax.Repeat, body: Iterable[syntax.Line], block: _Block) -> None:
        """`repeat max 5:` around rules."""
        most = ROUNDS if header.most is None else header.most
        if block.repeat is not None:
            help_text = "one `repeat` around all of it does the same"
            self.report(Diagnostic("RW009", "`repeat` is not allowed in a `repeat` block", header.span, help=help_text))
        if not 1 <= most <= MOST_ROUNDS:
            help_text = f"write a number from 1 to {MOST_ROUNDS}"
            message = f"`repeat` goes round once at least and {MOST_ROUNDS} times at most"
            self.report(Diagnostic("RW018", message, header.span, help=help_text))
        self.lines(body, replace(block, repeat=Repeat(most, header.span), inside="repeat"))

    def test(self, clause: syntax.Clause, block: _Block) -> None:
        """`test`: read when the whole file is known."""
        if block.inside:
            help_text = "tests stand at the top level"
            message = f"`test` is not allowed in {_a(block.inside)} `{block.inside}` block"
            self.report(Diagnostic("RW009", message, clause.span, help=help_text))
        self.tests.append(clause)

    def case(self, clause: syntax.Clause) -> None:
        """A test, with its rule and its models looked up."""
        self.known_rule(clause.header)
        from rewrite.cases import CaseReader  # only a file with tests pays for reading them

        reader = CaseReader(self.modules, self.value, self.shape, self.report)
        found = reader.read(clause)
        if found is not None:
            self.cases.append(found)

    def value(self, expression: nodes.Expression) -> object:
        """The value of a constant expression; `MISSING` where it is in error, which is reported."""
        before = len(self.errors)
        resolved = self.selection.constant_scope().expression(expression)
        if len(self.errors) > before:
            return MISSING
        try:
            return evaluate(resolved, self.constants)
        except RewriteError as error:
            self.errors += error.diagnostics
            return MISSING

    def known_rule(self, header: object) -> None:
        """Reports a test of a rule that is not there."""
        assert isinstance(header, syntax.RuleTest), "tests are kept as clauses with this header"
        if header.name.text not in self.rules:
            close = nearest(header.name.text, self.rules, 1)
            help_text = f"did you mean `{close[0]}`?" if close else f"name the rule: `rule {header.name.text}: ...`"
            message = f"there is no rule named `{header.name.text}` to test"
            self.report(Diagnostic("RW103", message, header.name.span, help=help_text))

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

    def scope(self, word: object, selector: syntax.Selector) -> Scope:
        known = word if word in ("after", "before", "between", "at", "match") else None
        single = sum(len(chain) for chain in selector.chains) == 1
        return Scope(
            known,  # type: ignore[arg-type]
            self.constants,
            self.modules,
            self.report,
            self.selection.inner_pattern,
            single=single,
        )

    def position(self, header: syntax.Position, body: Iterable[syntax.Line], block: _Block) -> None:
        """`after`, `before`, `between`, `at`, `match`, and what is done there."""
        scope = self.scope(header.word, header.selector)
        selector = self.selector(header.selector, scope, block, "after" if header.second else header.word)
        second = None if header.second is None else self.selector(header.second, scope, block, "before")
        rows = self.rows(selector, header.word)
        known = {"after": {"prev": rows}, "before": {"next": rows}, "at": {"self": rows}}.get(header.word, {})
        scope.rows |= known
        if second is not None:
            scope.rows |= {"prev": rows, "next": self.rows(second, "before")}
        selector = replace(selector, where=scope.where(header.selector.where))
        found: list[Action] = []
        counts: list[syntax.ExpectCount] = []
        for line in body:
            match line:
                case syntax.Insert(stages, _, per) if header.word not in ("at", "match"):
                    found.append(actions.Insert(self.statements.flow(stages, scope, None), line.span, per))
                    scope.inserted = True
                case syntax.Set():
                    found.append(self.statements.set(line, scope))
                case syntax.Move() if header.word != "at":
                    found.append(self.statements.move(line, scope))
                case syntax.ExpectCount():
                    counts.append(line)
                case syntax.ExpectOutput() | syntax.ExpectEquivalent():
                    self.promise(line)
                case _ if header.word == "match":
                    found += self.in_match(line, scope)
                case _:
                    self.misplaced(line, header.word, self._instead(line, header))
        text = formatter.clause(block.scopes, header, body)
        self.finish(Clause(header.word, selector, tuple(found), text, header.span, second), scope, block)
        for count in counts:
            self.count(count, self.clauses[-1])

    def in_match(self, line: syntax.Line, scope: Scope) -> list[Action]:
        """A statement about captures, in the body of a `match`."""
        match line:
            case syntax.Remove() | syntax.Replace() | syntax.Wrap() | syntax.Tap() | syntax.Freeze() | syntax.Reset():
                subject = self.subject(line.selector, scope)
                return [] if subject is None else [self.action(line, scope, scope.rows.get(subject, []), subject)]
            case syntax.Fold(norm, into):
                norm_name, into_name = self.subject(norm, scope), self.subject(into, scope)
                return [actions.Fold(norm_name, into_name, line.span)] if norm_name and into_name else []
            case syntax.Clause(syntax.Position("after" | "before" as word, selector), body):
                return self.at_capture(word, selector, body, scope)
        self.misplaced(
            line, "match", "it holds statements about its captures: `match A as a -> B as b: move a after b`"
        )
        return []

    def at_capture(
        self, word: str, selector: syntax.Selector, body: Iterable[syntax.Line], scope: Scope
    ) -> list[Action]:
        """`after c: insert X` in a `match`."""
        unit = selector.chains[0][0].alternatives[0]
        subject = self.subject(selector, scope, ported=word == "before")
        port = None if unit.port is None else unit.port.value
        found: list[Action] = []
        for line in body:
            if not isinstance(line, syntax.Insert):
                self.misplaced(line, word, "here it holds `insert`; other statements stand in the `match` itself")
            elif subject is not None:
                specs = self.statements.flow(line.stages, scope, None)
                found.append(actions.Insert(specs, line.span, line.per, subject, word == "before", port))
        return found

    def subject(self, selector: syntax.Selector, scope: Scope, ported: bool = False) -> str | None:
        """The capture that a selector in a `match` is; reported if it is anything else."""
        link = selector.chains[0][0]
        unit = link.alternatives[0]
        plain = syntax.Unit(unit.base, unit.span, port=unit.port if ported else None)
        is_name = isinstance(unit.base, syntax.Dotted) and len(unit.base.parts) == 1 and unit == plain
        alone = len(selector.chains[0]) == 1 == len(link.alternatives) and not link.optional and not link.capture
        bare = not selector.scopes and not selector.excluded and selector.where is None
        if is_name and alone and bare and isinstance(unit.base, syntax.Dotted):
            name = unit.base.text
            if name in scope.captures:
                scope.used.add(name)
                return name
        close = nearest(formatter.unit(unit), scope.captures, 1)
        known = ", ".join(f"`{name}`" for name in scope.captures)
        help_text = (
            f"did you mean `{close[0]}`?" if close else f"there is {known}" if known else "write `match A as a: ...`"
        )
        if isinstance(unit.base, syntax.Dotted) and unit.base.text in scope.captures:
            help_text = f"write `{unit.base.text}` alone; tests, scopes and conditions stand in the pattern"
        message = "in a `match`, a statement is about one of its captures"
        self.report(Diagnostic("RW103", message, selector.span, "no capture of this rule", help=help_text))
        return None

    def _instead(self, line: syntax.Line, header: syntax.Position) -> str:
        match line:
            case syntax.Insert():
                return "to put a layer behind it: `after X: insert Y`"
            case (
                syntax.Remove()
                | syntax.Replace()
                | syntax.Wrap()
                | syntax.Tap()
                | syntax.Fold()
                | syntax.Freeze()
                | syntax.Reset()
            ):
                word = formatter.statement(line).partition(" ")[0]
                return f"`{word}` names what it changes itself: write it on a line of its own"
            case _:
                allowed = "`set` and `expect`" if header.word == "at" else "`insert`, `set`, `move` and `expect`"
                return f"{_a(header.word)} `{header.word}` block holds {allowed}"

    def statement(self, line: _Named, block: _Block) -> None:
        """A statement that names what it changes."""
        scope = self.scope(None, line.selector)
        selector = self.selector(line.selector, scope, block, None)
        rows = self.rows(selector, None)
        if scope.single:
            scope.rows["self"] = rows
        elif isinstance(line, syntax.Replace):
            each = [lookup.rows(unit.base for unit in link.alternatives) for link in selector.links]
            rows = [row for rows in each for row in rows] if all(each) else []
        selector = replace(selector, where=scope.where(line.selector.where))
        if isinstance(line, syntax.Wrap) and not scope.single:
            help_text = "wrap a captured one: `match A as a -> B: wrap a with F()`"
            self.report(Diagnostic("RW009", "`wrap` takes one call, not a chain", line.selector.span, help=help_text))
        action = self.action(line, scope, rows, None)
        text = formatter.clause(block.scopes, None, [line])
        self.finish(Clause(None, selector, (action,), text, line.span), scope, block)

    def action(self, line: _Named, scope: Scope, rows: list[Operation], subject: str | None) -> Action:
        match line:
            case syntax.Remove():
                return actions.Remove(line.span, subject)
            case syntax.Replace(_, stages, _, per):
                return actions.Replace(self.statements.flow(stages, scope, rows), line.span, per, subject)
            case syntax.Wrap():
                return self.statements.wrap(line, scope, subject)
            case syntax.Tap(name):
                if name.text in self.taps:
                    message = f"there are two taps named `{name.text}`"
                    self.report(Diagnostic("RW109", message, name.span, help="give each tap a name of its own"))
                self.taps.add(name.text)
                return actions.Tap(name.text, line.span, subject)
            case syntax.Freeze(frozen, what):
                return actions.Freeze(frozen, what, line.span, subject)
            case syntax.Reset():
                return self.statements.reset(line, scope, subject)

    def fold(self, line: syntax.Fold, block: _Block) -> None:
        """`fold B into A`: every B that is the sole user of an A."""
        links = [line.into.chains[0], line.selector.chains[0]]
        if any(len(chain) > 1 for chain in links):
            help_text = "capture the two: `match A as a >> B as b: fold b into a`"
            self.report(Diagnostic("RW009", "`fold` takes two single calls", line.span, help=help_text))
        layer, norm = links[0][0], links[1][0]
        names = [
            link.capture.text if link.capture is not None else default
            for link, default in zip((layer, norm), "ab", strict=True)
        ]
        span = line.selector.span
        named = [
            link._replace(capture=link.capture or syntax.Word(name, link.span))
            for link, name in zip((layer, norm), names, strict=True)
        ]
        chain = (named[0]._replace(arrow=""), named[1]._replace(arrow=">>"))
        scopes = (*line.into.scopes, *line.selector.scopes)
        excluded = (*line.into.excluded, *line.selector.excluded)
        chosen = syntax.Selector((chain,), span, scopes, excluded, line.selector.where)
        scope = self.scope("match", chosen)
        selector = self.selector(chosen, scope, block, "match")
        scope.used.update(names)
        selector = replace(selector, where=scope.where(chosen.where))
        text = formatter.clause(block.scopes, None, [line])
        self.finish(
            Clause("match", selector, (actions.Fold(names[1], names[0], line.span),), text, line.span), scope, block
        )

    def finish(self, clause: Clause, scope: Scope, block: _Block) -> None:
        self.clauses.append(replace(clause, rule=block.rule, repeat=block.repeat))
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

    def selector(self, chosen: syntax.Selector, scope: Scope, block: _Block, word: str | None) -> pattern.Selector:
        """A selector without its `where`, whose names are not all bound yet; its captures are bound here."""
        chains = []
        for chain in chosen.chains:
            links = []
            for number, link in enumerate(chain):
                ported = number > 0 or word == "before"
                place = "port" if ported else ""
                units = self.selection.units(link.alternatives, place, scope.captures)
                joins = next((unit.base.name for unit in units if isinstance(unit.base, pattern.Bound)), None)
                if joins is not None:
                    scope.used.add(joins)
                capture = scope.capture(link.capture, lookup.rows(unit.base for unit in units))
                links.append(pattern.Link(units, link.span, link.arrow, link.optional, capture, joins))
            chains.append(tuple(links))
        own = tuple(self.selection.units(alternatives, "in") for alternatives in chosen.scopes)
        excluded = self.selection.units(chosen.excluded, "except")
        found = pattern.Selector(tuple(chains), chosen.span, own, block.units, excluded, word=scope.position)
        for problem in check_chains(found, word):
            self.report(problem)
        return found

    def rows(self, selector: pattern.Selector, word: str | None) -> list[Operation]:
        """The operations that the call at the position can be, if the selector says so itself."""
        chain = selector.chains[0]
        return lookup.rows(unit.base for unit in chain[0 if word == "before" else -1].alternatives)

    # ---- constants and promises

    def constant(self, line: syntax.Param) -> None:
        name = line.name.text
        problem = hidden(name, self.modules)
        if problem:
            self.report(Diagnostic("RW105", f"`{name}` hides {problem}", line.name.span, help="choose another name"))
        elif name in self.constants:
            message = f"the name `{name}` stands twice"
            self.report(Diagnostic("RW109", message, line.name.span, "already a constant"))
        value = self.value(line.value)
        if value is MISSING:
            value = 1  # stands in for it, so that the error is not reported again
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

    def promise(self, line: syntax.ExpectOutput | syntax.ExpectEquivalent) -> None:
        if isinstance(line, syntax.ExpectEquivalent):
            if self.equivalent is not None:
                message = "`expect equivalent` stands twice"
                self.report(Diagnostic("RW109", message, line.span, help="once is enough for the whole file"))
            self.equivalent = line.span
            return
        if self.output is not None:
            message = "the output is promised twice"
            self.report(Diagnostic("RW109", message, line.span, help="keep one `expect output`"))
        self.output = self.shape(line)

    def shape(self, line: syntax.ExpectOutput) -> OutputPromise:
        """`expect output (_, 10)`."""
        items = line.shape.items if isinstance(line.shape, nodes.Sequence) else ()
        if not items:
            help_text = "write a shape such as `(_, 10)`; `_` is any size"
            self.report(Diagnostic("RW106", "this is not a shape", line.shape.span, help=help_text))
        shape: list[int | None] = []
        for item in items:
            shape.append(None)
            if isinstance(item, nodes.Name) and item.name == "_":
                continue
            size = self.value(item)
            if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
                shape[-1] = size
            elif size is not MISSING:
                self.report(Diagnostic("RW106", "a size is a whole number, or `_`", item.span))
        return OutputPromise(tuple(shape), line.span)


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
