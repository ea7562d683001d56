"""Graph literals of rule tests: `x -> Conv2d(3, 8, 3) as c -> ReLU -> y` as calls and the values between them.

What a stage of a flow is:

* A name that some stage has behind `as` is that very call, wherever it stands in the text. At the start of a flow it is
  the call's value, further on it is one more input of the call, in the order of the text: `x -> Conv2d(3, 8, 1) as p ->
  add as s -> y, x -> Conv2d(3, 8, 3) -> s`.
* Another lower-case name without arguments that is no operation of the vocabulary is a value, and stands at an end
  of a flow: behind, it names the value that arrives there; in front, it is such a value, or an input of the model.
* Anything else is a new call. `Conv2d(3, 8, 3)` is the layer, a lower-case name (`relu`, `flatten(1)`, `cat(dim=1)`) is
  the function, and a dotted name (`nn.ReLU`, `F.relu`, `Tensor.relu`) exactly that spelling.

Outputs are the values named at the end of a flow that no flow starts from, and the calls at the end of a flow whose
value nothing takes, in the order of the text; inputs stand in the order of their first use.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rewrite import expression as nodes
from rewrite import formatter, lookup, syntax, vocabulary
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic, nearest
from rewrite.expression import MISSING, Expression
from rewrite.pattern import Kind
from rewrite.scope import RESERVED, hidden
from rewrite.sketch import Sketch, Step
from rewrite.source import Span
from rewrite.vocabulary.operation import Operation, Parameter, parse_signature

METHOD = "torch.Tensor."
"""in front of the name of a method in a dotted spelling"""

Evaluate = Callable[[Expression], object]
"""the value of an argument; `MISSING` where it is in error, which is reported then"""


@dataclass(frozen=True)
class Call:
    """One call of a literal."""

    name: str
    """behind `as`, or made up"""
    captured: bool
    kind: Kind
    """what a call of a model must be to be this one"""
    text: str
    """as it is written, without the name"""
    operation: Operation | None
    """None: a class that the caller gave"""
    spelling: str
    """dotted name of the function or method; empty for a layer"""
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    inputs: tuple[str, ...]
    """names of inputs and calls"""
    span: Span

    @property
    def attributes(self) -> dict[str, object]:
        """The arguments by the name of their parameter; of a class that the caller gave those written with a name."""
        if self.operation is None:
            return dict(self.keywords)
        parameters = _parameters(self.operation, self.spelling)
        return {**_positional(parameters, self.arguments), **self.keywords}


@dataclass(frozen=True)
class Literal:
    """A small model, in words."""

    inputs: tuple[str, ...]
    calls: tuple[Call, ...]
    """in an order in which they can be made, as near to that of the text as there is one"""
    outputs: tuple[str, ...]
    span: Span

    @property
    def captured(self) -> frozenset[str]:
        """The names of calls that the text gives, which are the paths of their layers."""
        return frozenset(call.name for call in self.calls if call.captured)

    def sketch(self) -> Sketch:
        """What a backend assembles."""
        return Sketch(self.inputs, tuple(map(_step, self.calls)), self.outputs)


def read_literal(
    flows: Sequence[Sequence[syntax.Stage]],
    span: Span,
    *,
    modules: Collection[str],
    evaluate: Evaluate,
    report: Callable[[Diagnostic], None],
    complete: bool,
) -> Literal | None:
    """The literal that flows mean; None where something is wrong, which is reported.

    Args:
        flows: what stands behind `given` or `want`.
        span: of the statement.
        modules: names of classes that the caller gives.
        evaluate: gives the value of an argument.
        report: takes what is wrong.
        complete: whether a model is to be made of it, so that no argument may be left out.

    """
    problems: list[Diagnostic] = []
    reader = _Reader(frozenset(modules), evaluate, problems.append, complete)
    literal = reader.read(flows, span)
    for problem in problems:
        report(problem)
    return None if problems or reader.failed else literal


@dataclass(eq=False)
class _Draft:
    """A call while its inputs are collected."""

    stage: syntax.Stage
    name: str = ""
    inputs: list[_Draft | str] = field(default_factory=list)
    """calls, and names of values that are not looked up yet"""
    target: Operation | str = ""
    spelling: str = ""
    values: tuple[object, ...] = ()
    keywords: dict[str, object] = field(default_factory=dict)


class _Reader:
    """Reads one literal."""

    def __init__(
        self, modules: frozenset[str], evaluate: Evaluate, report: Callable[[Diagnostic], None], complete: bool
    ) -> None:
        self.modules, self.evaluate, self.report, self.complete = modules, evaluate, report, complete
        self.failed = False
        self.captures: dict[str, _Draft] = {}
        self.made: dict[str, _Draft | str] = {}
        """name of a value -> what it names"""
        self.starts: dict[str, Span] = {}
        """names that flows start from, in the order of the text"""

    def read(self, flows: Sequence[Sequence[syntax.Stage]], span: Span) -> Literal:
        drafts = self._calls(flows)
        for flow in flows:
            self._link(flow, drafts)
        inputs = tuple(name for name in self.starts if name not in self.made)
        calls = list(drafts.values())
        self._resolve(calls, span)
        outputs = self._outputs(flows, drafts)
        self._name(calls, inputs)
        for draft in calls:
            self._check(draft)
        ordered = self._in_order(calls, span)
        return Literal(inputs, tuple(map(self._call, ordered)), tuple(map(_name_of, outputs)), span)

    # ---- what a stage is

    def _calls(self, flows: Sequence[Sequence[syntax.Stage]]) -> dict[int, _Draft]:
        """A draft for each stage that is a new call, by the identity of the stage."""
        drafts: dict[int, _Draft] = {}
        for stage in (stage for flow in flows for stage in flow):
            if stage.capture is None:
                continue
            name, place = stage.capture.text, stage.capture.span
            problem = hidden(name, self.modules)
            if problem:
                self.report(Diagnostic("RW105", f"`{name}` hides {problem}", place, help="choose another name"))
            elif not _is_writable(name):
                self.report(_no_name(name, place))
            if name in self.captures:
                self.report(Diagnostic("RW109", f"two calls are named `{name}`", place, help="give each its own name"))
            self.captures[name] = _Draft(stage)
        for stage in (stage for flow in flows for stage in flow):
            if stage.capture is not None:
                drafts[id(stage)] = self.captures[stage.capture.text]
            elif not self._is_call_of_before(stage) and not self._is_value(stage):
                drafts[id(stage)] = _Draft(stage)
        for draft in drafts.values():
            self._look_up(draft)
        return drafts

    def _is_call_of_before(self, stage: syntax.Stage) -> bool:
        return _is_bare(stage) and stage.name.text in self.captures

    def _is_value(self, stage: syntax.Stage) -> bool:
        text = stage.name.text
        return (
            _is_bare(stage)
            and not text[0].isupper()
            and text not in self.modules
            and vocabulary.find(text) is None
            and text not in vocabulary.FAMILIES
        )

    # ---- how stages are linked

    def _link(self, flow: Sequence[syntax.Stage], drafts: Mapping[int, _Draft]) -> None:
        if len(flow) < 2:
            help_text = "a flow leads from a value through calls: `x -> Conv2d(3, 8, 3) -> y`"
            self.report(Diagnostic("RW108", "this flow leads nowhere", flow[0].span, help=help_text))
        current: _Draft | str = ""
        for number, stage in enumerate(flow):
            draft = drafts.get(id(stage)) or (self.captures.get(stage.name.text) if _is_bare(stage) else None)
            text, place = stage.name.text, stage.span
            if draft is not None:
                if number:
                    draft.inputs.append(current)
                current = draft
            elif number == 0:
                current = text
                self.starts.setdefault(text, place)
                self._check_value_name(text, place)
            elif number < len(flow) - 1:
                self.report(self._in_the_middle(text, place))
            elif text in self.made:
                message = f"two values are named `{text}`"
                help_text = "a call that takes both has a name: `p -> add as s, q -> s`"
                self.report(Diagnostic("RW109", message, place, help=help_text))
            else:
                self._check_value_name(text, place)
                self.made[text] = current

    def _check_value_name(self, text: str, place: Span) -> None:
        if text in RESERVED:
            self.report(Diagnostic("RW105", f"`{text}` is a word of the language", place, help="choose another name"))
        elif not _is_writable(text):
            self.report(_no_name(text, place))

    def _in_the_middle(self, text: str, place: Span) -> Diagnostic:
        known = [*vocabulary.OPERATIONS, *self.modules, *self.captures]
        close = nearest(text, known)
        help_text = f"did you mean {lookup.either(close)}?" if close else "a value is named at the end of a flow"
        return Diagnostic("RW101", f"unknown operation `{text}`", place, "not found in the vocabulary", help=help_text)

    def _source(self, value: _Draft | str) -> _Draft | str:
        """The call behind a name, or the input; empty where names lead in a circle."""
        seen = set()
        while isinstance(value, str) and value in self.made:
            if value in seen:
                return ""
            seen.add(value)
            value = self.made[value]
        return value

    def _resolve(self, calls: Sequence[_Draft], span: Span) -> None:
        """Looks up the names among the inputs of all calls."""
        for name in self.made:
            if self._source(name) == "":
                self.report(_circle(name, self.starts.get(name, span)))
        for draft in calls:
            draft.inputs = [self._source(one) for one in draft.inputs]

    def _outputs(self, flows: Sequence[Sequence[syntax.Stage]], drafts: Mapping[int, _Draft]) -> list[_Draft | str]:
        taken = {id(one) for draft in drafts.values() for one in draft.inputs if isinstance(one, _Draft)}
        taken |= {id(self._source(name)) for name in self.made}
        found: list[_Draft | str] = []
        for flow in flows:
            last = flow[-1]
            draft = drafts.get(id(last)) or (self.captures.get(last.name.text) if _is_bare(last) else None)
            if draft is None and last.name.text in self.made and last.name.text not in self.starts and len(flow) > 1:
                found.append(self._source(last.name.text))
            elif draft is not None and id(draft) not in taken:
                taken.add(id(draft))
                found.append(draft)
        return found

    def _in_order(self, calls: Sequence[_Draft], span: Span) -> list[_Draft]:
        """The calls, each behind those whose values it takes; as they stand where that is so already."""
        done: dict[int, _Draft] = {}
        left = list(calls)
        while left:
            ready = next((d for d in left if all(isinstance(one, str) or id(one) in done for one in d.inputs)), None)
            if ready is None:
                self.report(_circle(left[0].stage.name.text, left[0].stage.span))
                return [*done.values(), *left]
            done[id(ready)] = ready
            left.remove(ready)
        return list(done.values())

    def _name(self, calls: Sequence[_Draft], inputs: Sequence[str]) -> None:
        used = {*inputs, *self.made, *self.captures}
        for draft in calls:
            if draft.stage.capture is not None:
                draft.name = draft.stage.capture.text
                continue
            word = draft.stage.name.parts[-1].lower()
            number = 1
            while f"{word}_{number}" in used:
                number += 1
            draft.name = f"{word}_{number}"
            used.add(draft.name)

    # ---- names and arguments

    def _look_up(self, draft: _Draft) -> None:
        """What is called, with its arguments."""
        stage = draft.stage
        keywords = [(word.name.text, word.value) for word in stage.keywords]
        values = []
        for expression in (*stage.arguments, *(value for _, value in keywords)):
            values.append(self._argument(expression))
        draft.values = tuple(values[: len(stage.arguments)])
        draft.keywords = dict(zip((name for name, _ in keywords), values[len(stage.arguments) :], strict=True))
        if any(value is MISSING for value in values):
            self.failed = True
        target, draft.spelling = self._target(stage)
        if isinstance(target, Diagnostic):
            self.report(target)
            return
        draft.target = target
        if isinstance(target, Operation):
            self._check_arguments(draft, target)

    def _argument(self, expression: Expression) -> object:
        if isinstance(expression, nodes.Star):
            self.report(Diagnostic("RW106", "`*` has nothing to stand for here", expression.span))
            return MISSING
        if isinstance(expression, nodes.Name) and expression.name in self.captures:
            help_text = f"a value flows in: `{expression.name} -> add as s`"
            message = f"`{expression.name}` is a call, and this is an argument"
            self.report(Diagnostic("RW106", message, expression.span, help=help_text))
            return MISSING
        return self.evaluate(expression)

    def _target(self, stage: syntax.Stage) -> tuple[Operation | str | Diagnostic, str]:
        """What a stage calls: a row or a class of the caller, and the spelling if that is a function's."""
        text, place = stage.name.text, stage.name.span
        if text in self.modules:
            return text, ""
        full = vocabulary.expand(text)
        if "." in text:
            function = vocabulary.by_function(full)
            if function is not None:
                return function, full
            method = vocabulary.by_method(full) if full.startswith(METHOD) else None
            if method is not None:
                return method, full
        elif text in vocabulary.FAMILIES and vocabulary.find(text) is None:
            rows = [row.name for row in vocabulary.OPERATIONS.values() if row.family == text][:3]
            message = f"`{text}` is a family, and a call is of one operation"
            return Diagnostic("RW101", message, place, help=f"name one: {lookup.either(rows)}"), ""
        else:
            row = vocabulary.find(text)
            if row is not None and (row.signature is None or text != row.name):
                spelling = _spelling(row, text, stage)
                if spelling:
                    return row, spelling
        found = lookup.layer(text, place, self.modules, keras=False)  # the models of tests are made in PyTorch
        if isinstance(found, Operation) and found.by_rank:
            help_text = f"name the one that is meant: {lookup.either(dict.fromkeys(found.by_rank.values()))}"
            return Diagnostic("RW101", f"`{found.name}` stands for several layers", place, help=help_text), ""
        if isinstance(found, Operation) and found.wraps and self.complete:
            help_text = "write the layer alone, and let the rule wrap it"
            return Diagnostic("RW106", f"`{found.name}` is built around another layer", place, help=help_text), ""
        return found, ""

    def _check_arguments(self, draft: _Draft, row: Operation) -> None:
        stage = draft.stage
        parameters = _parameters(row, draft.spelling)
        shown = _signature(stage.name.text, parameters) if draft.spelling else lookup.signature(row)
        problems = lookup.bind(stage.name.text, parameters, stage.arguments, stage.keywords, shown)
        for problem in problems:
            self.report(problem)
        if problems or not self.complete:
            return
        given = {*_positional(parameters, draft.values), *draft.keywords}
        missing = [p.name for p in parameters if p.required and not p.variadic and p.name not in given]
        if missing:
            names = " and ".join(f"`{name}`" for name in missing)
            message = f"`{stage.name.text}` needs {names}"
            label = "nothing is inferred in the model that a test begins with"
            self.report(Diagnostic("RW106", message, stage.span, label, help=shown))

    def _check(self, draft: _Draft) -> None:
        """How many values flow in."""
        text, count, target = draft.stage.name.text, len(draft.inputs), draft.target
        if not count:
            help_text = f"begin with the name of an input: `x -> {text}`"
            self.report(Diagnostic("RW108", f"nothing flows into `{text}`", draft.stage.span, help=help_text))
        if not isinstance(target, Operation) or not count:
            return
        most = len(target.ports)
        if target.is_merge:
            most = count if target.name in ("cat", "stack") else 2
            least = 1 if target.name in ("cat", "stack") else 2
            if count < least:
                help_text = f"the other one: `... -> {text} as s, x -> s`"
                self.report(
                    Diagnostic(
                        "RW108", f"`{text}` takes two values, and one flows in", draft.stage.span, help=help_text
                    )
                )
        if count > most:
            message = f"`{text}` takes {_number(most)}, and {count} flow in"
            self.report(Diagnostic("RW108", message, draft.stage.span))

    def _call(self, draft: _Draft) -> Call:
        stage, target = draft.stage, draft.target
        text = stage.name.text
        if isinstance(target, Operation) and "." not in text:
            kind = Kind(text, operation=target.name)
        else:
            kind = Kind(text, dotted=text)
        written = formatter.flow([stage._replace(capture=None)])
        return Call(
            draft.name,
            stage.capture is not None,
            kind,
            written if written.endswith(")") else f"{written}()",
            target if isinstance(target, Operation) else None,
            draft.spelling,
            draft.values,
            draft.keywords,
            tuple(map(_name_of, draft.inputs)),
            stage.span,
        )


def _step(call: Call) -> Step:
    if call.spelling:
        assert call.operation is not None, "functions are of the vocabulary"
        return Step(
            call.name, None, call.operation.name, call.inputs, call.arguments, dict(call.keywords), call.spelling
        )
    operation = call.operation.name if call.operation is not None else None
    external = call.kind.text if call.operation is None else None
    layer = NewLayer(operation, external, call.arguments, dict(call.keywords), call.text, call.span)
    return Step(call.name, layer, None, call.inputs)


def _name_of(source: _Draft | str) -> str:
    return source if isinstance(source, str) else source.name


def _is_bare(stage: syntax.Stage) -> bool:
    """Whether a stage is a word and nothing else."""
    return len(stage.name.parts) == 1 and not stage.arguments and not stage.keywords and stage.capture is None


def _is_writable(name: str) -> bool:
    """Whether a name can stand in the forward of a module."""
    return name.isascii() and not keyword.iskeyword(name)


def _no_name(name: str, place: Span) -> Diagnostic:
    help_text = "choose one of plain letters, digits and `_`"
    return Diagnostic("RW106", f"`{name}` cannot be a name in a model", place, help=help_text)


def _circle(name: str, place: Span) -> Diagnostic:
    return Diagnostic("RW108", f"`{name}` takes its own value, in a circle", place, help="no model does")


def _number(most: int) -> str:
    return "one value" if most == 1 else f"{most} values"


def _spellings(row: Operation) -> Iterator[str]:
    yield from row.functions
    for name in row.methods:
        yield METHOD + name


def _spelling(row: Operation, text: str, stage: syntax.Stage) -> str:
    """The spelling of an operation that a lower-case name means: by that name, and one that takes these arguments."""
    named = [spelling for spelling in _spellings(row) if spelling.rpartition(".")[2] == text]
    among = named or list(_spellings(row))
    for spelling in among:
        if not lookup.bind(text, _parameters(row, spelling), stage.arguments, stage.keywords, ""):
            return spelling
    return among[0] if among else ""


def _parameters(row: Operation, spelling: str) -> tuple[Parameter, ...]:
    """The parameters of a layer, or those of a function or method behind the values that flow in."""
    if not spelling:
        return row.parameters
    if spelling.startswith(METHOD) and spelling not in row.functions:
        parameters = parse_signature(row.methods[spelling.removeprefix(METHOD)])
        taken = 1 if row.is_merge else len(row.ports) - 1
    else:
        parameters = parse_signature(row.functions[spelling])
        taken = len(row.ports) if not row.is_merge else 1 if parameters[0].name == "tensors" else 2
    return parameters[taken:]


def _positional(parameters: Sequence[Parameter], values: Sequence[object]) -> dict[str, object]:
    """Arguments without a name by the parameters that take them."""
    found: dict[str, object] = {}
    for place, (parameter, value) in enumerate(zip(parameters, values, strict=False)):
        found[parameter.name] = tuple(values[place:]) if parameter.variadic else value
    return found


def _signature(text: str, parameters: Sequence[Parameter]) -> str:
    """`flatten(start_dim=0, end_dim=-1)`: what a function takes behind its values."""
    row = Operation(
        text,
        signature=", ".join(
            p.name if p.required else f"*{p.name}" if p.variadic else f"{p.name}={p.default!r}" for p in parameters
        ),
    )
    return lookup.signature(row)
