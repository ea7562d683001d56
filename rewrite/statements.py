"""Statements resolved to actions: the names in one of them looked up, its arguments checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from rewrite import actions, lookup, syntax
from rewrite import expression as nodes
from rewrite.actions import LayerSpec
from rewrite.actions.reset import INITIALISERS
from rewrite.errors import Diagnostic, nearest
from rewrite.expression import Expression
from rewrite.scope import Scope
from rewrite.vocabulary.operation import Operation, Parameter

_NEEDED = {"constant": ("val",), "sparse": ("sparsity",)}  # what an initialiser cannot do without


class Statements:
    """Turns the statements of one file into actions.

    Args:
        modules: names that the caller gave.
        report: takes what is wrong.

    """

    def __init__(self, modules: frozenset[str], report: Callable[[Diagnostic], None]) -> None:
        self.modules, self.report = modules, report

    def move(self, line: syntax.Move, scope: Scope) -> actions.Move:
        """`move b after r`, `move prev.activation after self`."""
        for target in (line.moved, line.anchor):
            scope.known(target.root, target.span)
        if line.moved.attributes not in ((), ("activation",)) or line.anchor.attributes:
            wrong = line.anchor if line.anchor.attributes else line.moved
            help_text = (
                "moved are calls, `move b after r`, and the activation of one: `move prev.activation after self`"
            )
            self.report(
                Diagnostic(
                    "RW106", f"`{'.'.join((wrong.root, *wrong.attributes))}` is no call", wrong.span, help=help_text
                )
            )
        elif line.moved.attributes and (line.side, line.anchor.root) != ("after", "self"):
            help_text = "write `move prev.activation after self`, or capture the activation and move that"
            self.report(
                Diagnostic("RW106", "an activation is moved behind what was inserted", line.span, help=help_text)
            )
        moved = (line.moved.root, *line.moved.attributes)
        return actions.Move(moved, line.side, (line.anchor.root,), line.span)

    def wrap(self, line: syntax.Wrap, scope: Scope, subject: str | None) -> actions.Wrap:
        """`wrap S with F(...)`."""
        stage = line.stage
        row = lookup.layer(stage.name.text, stage.name.span, self.modules)
        if isinstance(row, Diagnostic):
            self.report(row)
        elif isinstance(row, Operation):
            if not row.wraps:
                help_text = "a class that takes the layer as its first argument, `LoRA` or one of your own"
                message = f"`{row.name}` takes no layer to wrap"
                self.report(Diagnostic("RW106", message, stage.span, help=help_text))
            for problem in lookup.bind(
                row.name, row.parameters, stage.arguments, stage.keywords, lookup.signature(row)
            ):
                self.report(problem)
        if stage.capture is not None:
            self.report(
                Diagnostic("RW009", "what wraps a layer needs no name", stage.capture.span, help="drop the `as`")
            )
        arguments, keywords = self.arguments(stage, scope)
        operation, external = (
            (row.name if isinstance(row, Operation) else None),
            (row if isinstance(row, str) else None),
        )
        spec = LayerSpec(stage.span, operation, external, arguments, keywords)
        return actions.Wrap(spec, line.span, subject)

    # ---- new layers

    def flow(
        self, stages: Iterable[syntax.Stage], scope: Scope, replaced: list[Operation] | None
    ) -> tuple[LayerSpec, ...]:
        """New layers; `replaced` are the operations that they may stand for, None on an `insert`."""
        specs = []
        for number, stage in enumerate(stages):
            row = lookup.layer(stage.name.text, stage.name.span, self.modules)
            inputs: tuple[str, ...] = ()
            if replaced is not None and scope.position == "match":
                inputs, stage = self._inputs(stage, scope, number)
            if isinstance(row, Diagnostic):
                self.report(row)
            elif isinstance(row, Operation) and row.wraps:
                message = f"`{row.name}` is built around a layer"
                help_text = f"`wrap X with {row.name}(...)` puts it around the layers that `X` selects"
                self.report(Diagnostic("RW106", message, stage.span, help=help_text))
            elif isinstance(row, Operation):
                inferred = replaced is not None and (not replaced or row in replaced)
                words = lookup.in_own_words(row, stage.name.text, stage.arguments, stage.keywords)
                stage = stage._replace(arguments=words[0], keywords=words[1])
                for problem in lookup.check_arguments(row, stage.span, stage.arguments, stage.keywords, inferred):
                    self.report(problem)
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
                    inputs,
                )
            )
        return tuple(specs)

    def _inputs(self, stage: syntax.Stage, scope: Scope, number: int) -> tuple[tuple[str, ...], syntax.Stage]:
        """The captures among the arguments, whose values the layer takes, and the stage without them."""
        taken = [item for item in stage.arguments if isinstance(item, nodes.Name) and item.name in scope.captures]
        if not taken:
            return (), stage
        if number:
            help_text = "it takes what the layer in front of it makes; captures go to the first layer"
            self.report(
                Diagnostic("RW106", "only the first layer takes captured values", taken[0].span, help=help_text)
            )
        scope.used.update(item.name for item in taken)
        rest = tuple(item for item in stage.arguments if item not in taken)
        return tuple(item.name for item in taken), stage._replace(arguments=rest)

    def arguments(
        self, call: syntax.Stage | syntax.Initialiser, scope: Scope
    ) -> tuple[tuple[Expression, ...], tuple[tuple[str, Expression], ...]]:
        keywords = tuple((keyword.name.text, scope.expression(keyword.value)) for keyword in call.keywords)
        return tuple(scope.expression(value) for value in call.arguments), keywords

    def reset(self, line: syntax.Reset, scope: Scope, subject: str | None) -> actions.Reset:
        """`reset S with normal(std=0.02)`."""
        initialiser, span = line.initialiser, line.span
        if initialiser is None:
            return actions.Reset(None, (), (), span, subject)
        name = lookup.initialiser(initialiser.name, INITIALISERS)
        arguments, keywords = self.arguments(initialiser, scope)
        if name is None:
            close = nearest(initialiser.name, INITIALISERS)
            label = f"did you mean {lookup.either(close)}?" if close else ""
            help_text = f"there is {', '.join(f'`{word}`' for word in INITIALISERS)}"
            message = f"unknown initialiser `{initialiser.name}`"
            self.report(Diagnostic("RW106", message, initialiser.span, label, help=help_text))
            return actions.Reset(None, arguments, keywords, span, subject)
        parameters = tuple(Parameter(parameter, False) for parameter in INITIALISERS[name])
        shown = f"{name}({', '.join(INITIALISERS[name])})"
        for problem in lookup.bind(name, parameters, initialiser.arguments, initialiser.keywords, shown):
            self.report(problem)
        for needed in _NEEDED.get(name, ()):
            if not arguments and needed not in dict(keywords):
                self.report(Diagnostic("RW106", f"`{name}` needs `{needed}`", initialiser.span, help=shown))
        return actions.Reset(name, arguments, keywords, span, subject)

    def set(self, line: syntax.Set, scope: Scope) -> actions.Set:
        """`set self.a = 1, prev.activation = identity`."""
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
        given, words = lookup.in_own_words(row, function.name, value.arguments, words)
        for problem in lookup.check_arguments(row, value.span, given, words, False):
            self.report(problem)
        arguments = tuple(map(scope.expression, given))
        keywords = tuple((word.name.text, scope.expression(word.value)) for word in words)
        return replace(value, function=name, arguments=arguments, keywords=keywords)
