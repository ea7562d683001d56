"""`test` blocks: read into `Case`s, with every mistake in them found before there is a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rewrite import expression as nodes
from rewrite import formatter, syntax
from rewrite.errors import Diagnostic
from rewrite.expression import MISSING, Expression
from rewrite.literals import Evaluate, Literal, read_literal
from rewrite.rule import BuiltModel, Case, Count, OutputPromise
from rewrite.scope import dotted

_ALLOWED = (
    syntax.Given
    | syntax.Want
    | syntax.Unchanged
    | syntax.Model
    | syntax.ExpectCount
    | syntax.ExpectOutput
    | syntax.ExpectEquivalent
)

_Line = TypeVar("_Line")


class CaseReader:
    """Reads the tests of one file.

    Args:
        modules: names of classes that the caller gives.
        evaluate: gives the value of a constant expression, or `MISSING` where that is reported to be wrong.
        shape: reads the shape that an output is to have.
        report: takes what is wrong.

    """

    def __init__(
        self,
        modules: frozenset[str],
        evaluate: Evaluate,
        shape: Callable[[syntax.ExpectOutput], OutputPromise],
        report: Callable[[Diagnostic], None],
    ) -> None:
        self.modules, self.evaluate, self.shape, self.report = modules, evaluate, shape, report

    def read(self, clause: syntax.Clause) -> Case | None:
        """One test; None where something is wrong with its models, which is reported."""
        header, body = clause.header, clause.body
        assert isinstance(header, syntax.RuleTest), "tests are clauses with this header"
        self._check_lines(clause)
        given, model = self._one(body, syntax.Given), self._one(body, syntax.Model)
        want, unchanged = self._one(body, syntax.Want), self._one(body, syntax.Unchanged)
        count, output = self._one(body, syntax.ExpectCount), self._one(body, syntax.ExpectOutput)
        equivalent = self._one(body, syntax.ExpectEquivalent)
        before: Literal | BuiltModel | None = None
        if given is not None:
            before = self._literal(given, complete=True)
        elif model is not None:
            before = self._model(model)
        after = self._literal(want, complete=False) if want is not None else None
        if isinstance(before, Literal) and after is not None and want is not None:
            self._check_inputs(before, after, want)
        if count is not None and count.high is not None and count.low > count.high:
            help_text = f"write `expect {count.high}..{count.low} matches`"
            self.report(Diagnostic("RW106", "this count can never hold", count.span, help=help_text))
        promise = self.shape(output) if output is not None else None
        if before is None or (want is not None and after is None):
            return None
        return Case(
            header.name.text,
            header.title,
            clause.span,
            before,
            after,
            unchanged.span if unchanged is not None else None,
            Count(count.low, count.high, count.span) if count is not None else None,
            promise,
            equivalent.span if equivalent is not None else None,
        )

    def _check_lines(self, clause: syntax.Clause) -> None:
        """Which statements stand in a test, and how many of each."""
        body = clause.body
        for line in body:
            if not isinstance(line, _ALLOWED):
                word = formatter.statement(line).partition(" ")[0]
                help_text = "a test holds `given` or `model`, and `want`, `unchanged` or `expect`"
                self.report(
                    Diagnostic("RW009", f"`{word}` is not allowed in a `test` block", line.span, help=help_text)
                )
        models = [line for line in body if isinstance(line, syntax.Given | syntax.Model)]
        wants = [line for line in body if isinstance(line, _ALLOWED) and line not in models]
        if len(models) != 1:
            message = "a test tries its rule on one model" if models else "this test has no model"
            span = models[1].span if models else clause.span
            help_text = "`given x -> Conv2d(3, 8, 3) -> y`, or `model torchvision.models.resnet18()`"
            self.report(Diagnostic("RW009", message, span, help=help_text))
        if not wants:
            help_text = "`want x -> ... -> y`, `unchanged`, or `expect 3 matches`"
            self.report(Diagnostic("RW009", "this test wants nothing", clause.span, help=help_text))
        graphs = [line for line in wants if isinstance(line, syntax.Want | syntax.Unchanged)]
        if len(graphs) > 1:
            message = "a test wants one model, or none of the changes"
            self.report(Diagnostic("RW009", message, graphs[1].span, help="write a test for each"))

    def _one(self, body: tuple[syntax.Line, ...], kind: type[_Line]) -> _Line | None:
        """The statement of a kind; a second one is reported where that is not said elsewhere."""
        found = [line for line in body if isinstance(line, kind)]
        for line in found[1:]:
            if isinstance(line, syntax.ExpectCount | syntax.ExpectOutput | syntax.ExpectEquivalent):
                text = formatter.statement(line)
                self.report(Diagnostic("RW109", f"`{text}` is a second one of its kind", line.span, help="keep one"))
        return found[0] if found else None

    def _literal(self, line: syntax.Given | syntax.Want, *, complete: bool) -> Literal | None:
        return read_literal(
            line.flows,
            line.span,
            modules=self.modules,
            evaluate=self.evaluate,
            report=self.report,
            complete=complete,
        )

    def _check_inputs(self, before: Literal, after: Literal, want: syntax.Want) -> None:
        """Inputs go by name; where the names are others altogether, by order."""
        if not set(after.inputs) <= set(before.inputs) and len(after.inputs) != len(before.inputs):
            listed = ", ".join(f"`{name}`" for name in before.inputs)
            odd = next(name for name in after.inputs if name not in before.inputs)
            message = f"`{odd}` is no input of the model in this test"
            self.report(Diagnostic("RW103", message, want.span, help=f"its inputs are {listed}"))

    def _model(self, line: syntax.Model) -> BuiltModel | None:
        """`model torchvision.models.vgg16() input (1, 3, 224, 224)`."""
        call = line.builder
        name = dotted(call.function) if isinstance(call, nodes.Call) else ""
        if not isinstance(call, nodes.Call) or not name:
            help_text = 'write a call: `torchvision.models.resnet18()`, `timm.create_model("vit_tiny_patch16_224")`'
            self.report(Diagnostic("RW106", "this makes no model", call.span, help=help_text))
            return None
        values = [self.evaluate(value) for value in call.arguments]
        keywords = {key: self.evaluate(value) for key, value in call.keywords}
        inputs = None if line.input is None else self._sizes(line.input)
        if any(value is MISSING for value in (*values, *keywords.values(), inputs)):
            return None
        assert inputs is None or isinstance(inputs, tuple), "sizes are tuples"
        return BuiltModel(name, tuple(values), keywords, inputs, call.span)

    def _sizes(self, expression: Expression) -> object:
        """The sizes of each input: `(1, 3, 224, 224)`, or several such tuples in a tuple or list."""
        value = self.evaluate(expression)
        if value is MISSING:
            return MISSING
        if isinstance(value, tuple | list) and value and all(isinstance(item, tuple | list) for item in value):
            several = tuple(map(tuple, value))
        else:
            several = (tuple(value) if isinstance(value, tuple | list) else (),)
        if all(sizes and all(_is_size(size) for size in sizes) for sizes in several):
            return several
        help_text = "sizes such as `(1, 3, 224, 224)`; for several inputs `((1, 3, 8, 8), (1, 5))`"
        self.report(Diagnostic("RW106", "these are no sizes of an input", expression.span, help=help_text))
        return MISSING


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9
