"""Syntax to canonical text: one spelling for what is written in many ways, whatever its spaces, lines and comments."""

from __future__ import annotations

from collections.abc import Iterable

from rewrite import expression as nodes
from rewrite import syntax
from rewrite.expression import Expression

_STRENGTH = {"or": 1, "and": 2, "not": 3, "in": 4, "not in": 4, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}
_COMPARISON = 4  # also `==` and its kin, and `is`
_SIGN = 7  # of a number


def clause(
    scopes: Iterable[tuple[syntax.Unit, ...]], header: syntax.Position | None, body: Iterable[syntax.Line]
) -> str:
    """A rule on one line, the `within` around it included and its `expect` left out.

    Args:
        scopes: what the `within` headers around it select, the outermost first.
        header: its position, None for a statement on its own.
        body: its statements.

    """
    parts = [f"within {units(scope)}: " for scope in scopes]
    if header is not None:
        parts.append(f"{position(header)}: ")
    kept = (line for line in body if not isinstance(line, syntax.ExpectCount | syntax.ExpectOutput))
    return ("".join(parts) + "; ".join(statement(line) for line in kept)).removesuffix(": ")


def position(header: syntax.Position) -> str:
    """`after S where w`."""
    if header.second is None:
        return f"{header.word} {selector(header.selector)}{where(header.selector)}"
    return f"between {selector(header.selector)} and {selector(header.second)}{where(header.selector)}"


def statement(line: syntax.Line) -> str:
    """One statement."""
    match line:
        case syntax.Insert(stages, _, per):
            return f"insert {flow(stages)}{f' per {per}' if per else ''}"
        case syntax.Replace(chosen, stages, _, per):
            return f"replace {selector(chosen)}{where(chosen)} with {flow(stages)}{f' per {per}' if per else ''}"
        case syntax.Remove(chosen):
            return f"remove {selector(chosen)}{where(chosen)}"
        case syntax.Wrap(chosen, stage):
            return f"wrap {selector(chosen)}{where(chosen)} with {flow([stage])}"
        case syntax.Fold(chosen, into):
            return f"fold {selector(chosen)} into {selector(into)}{where(chosen)}"
        case syntax.Move(moved, side, anchor):
            return f"move {reference(moved)} {side} {reference(anchor)}"
        case syntax.Tap(name, chosen):
            return f"tap {name.text} = {selector(chosen)}{where(chosen)}"
        case syntax.Set(assigns):
            return "set " + ", ".join(f"{reference(item.target)} = {value(item.value)}" for item in assigns)
        case syntax.Freeze(frozen, what, chosen):
            words = ["freeze" if frozen else "unfreeze", *([what] if what != "all" else [])]
            return f"{' '.join(words)} {selector(chosen)}{where(chosen)}"
        case syntax.Reset(chosen, initialiser):
            how = "" if initialiser is None else f" with {initialiser.name}{arguments(initialiser)}"
            return f"reset {selector(chosen)}{where(chosen)}{how}"
        case syntax.ExpectCount(low, high):
            return f"expect {count(low, high)} matches"
        case syntax.ExpectOutput(shape):
            return f"expect output {value(shape)}"
        case syntax.ExpectEquivalent():
            return "expect equivalent"
        case syntax.Leaf(alternatives):
            return f"leaf {units(alternatives)}"
        case syntax.Include(path):
            return f"include {string(path)}"
        case syntax.Use(module, _, alias, names):
            text = f"use {module.text if isinstance(module, syntax.Dotted) else string(module.glob)}"
            if names:
                return f"{text} ({', '.join(name.text for name in names)})"
            return f"{text} as {alias.text}" if alias else text
        case syntax.Given(flows):
            return f"given {', '.join(map(flow, flows))}"
        case syntax.Want(flows):
            return f"want {', '.join(map(flow, flows))}"
        case syntax.Unchanged():
            return "unchanged"
        case syntax.Model(builder, example):
            return f"model {value(builder)}" + (f" input {value(example)}" if example is not None else "")
        case syntax.Param(name, constant, settable):
            return f"{'param' if settable else 'let'} {name.text} = {value(constant)}"
        case syntax.Version(number):
            return f"rw {number}"
        case syntax.Clause(header, body):
            return f"{head(header)}: {'; '.join(statement(line) for line in body)}"


def head(header: syntax.Position | syntax.Within | syntax.Rule | syntax.Repeat | syntax.RuleTest) -> str:
    """A header without its `:`."""
    match header:
        case syntax.Position():
            return position(header)
        case syntax.Within(alternatives):
            return f"within {units(alternatives)}"
        case syntax.Rule(name, title):
            return f"rule {name.text}" + (f" {string(title)}" if title else "")
        case syntax.Repeat(most):
            return "repeat" if most is None else f"repeat max {most}"
        case syntax.RuleTest(name, title):
            return f"test {name.text}" + (f" {string(title)}" if title else "")


def count(low: int, high: int | None) -> str:
    """`3`, `3..`, `3..5`, `any`."""
    if high is None:
        return f"{low}.." if low else "any"
    return str(low) if low == high else f"{low}..{high}"


# ---- selectors ----------------------------------------------------------------------------------------------------


def selector(chosen: syntax.Selector) -> str:
    """`A | B as c in S except E`, without its `where`."""
    parts = [", ".join(map(chain, chosen.chains))]
    parts += [f"in {units(scope)}" for scope in chosen.scopes]
    if chosen.excluded:
        parts.append(f"except {units(chosen.excluded)}")
    return " ".join(parts)


def chain(links: Iterable[syntax.Link]) -> str:
    """`A as a -> B? >> C`."""
    parts = []
    for link in links:
        name = f" as {link.capture.text}" if link.capture else ""
        parts.append(f"{f' {link.arrow} ' if link.arrow else ''}{units(link.alternatives)}{'?' * link.optional}{name}")
    return "".join(parts)


def where(chosen: syntax.Selector) -> str:
    """` where w`, or nothing."""
    return "" if chosen.where is None else f" where {value(chosen.where)}"


def units(alternatives: Iterable[object]) -> str:
    """`A | B`."""
    return " | ".join(unit(alternative) for alternative in alternatives if isinstance(alternative, syntax.Unit))


def unit(alternative: syntax.Unit) -> str:
    """`last Conv2d[groups == 1]@0`."""
    pick = ""
    if alternative.pick is not None:
        word, number = alternative.pick.word, alternative.pick.number
        pick = f"{word}({number}) " if word in ("nth", "every") else f"{word} "
    match alternative.base:
        case syntax.Dotted():
            base = alternative.base.text
        case syntax.Path(glob):
            base = string(glob)
        case syntax.Anything():
            base = "any"
    tests = ", ".join(
        test.name if test.value is None else f"{test.name} {test.operator} {value(test.value, _COMPARISON + 1)}"
        for test in alternative.tests
    )
    port = "" if alternative.port is None else f"@{alternative.port.value}"
    return f"{pick}{base}{f'[{tests}]' if tests else ''}{port}"


# ---- layers and expressions ---------------------------------------------------------------------------------------


def flow(stages: Iterable[syntax.Stage]) -> str:
    """`Conv2d(8, 3) -> ReLU`."""
    return " -> ".join(
        f"{stage.name.text}{arguments(stage)}{f' as {stage.capture.text}' if stage.capture else ''}" for stage in stages
    )


def arguments(call: syntax.Stage | syntax.Initialiser | nodes.Call) -> str:
    """`(8, kernel_size=3)`, or nothing where none are given."""
    given = [value(item) for item in call.arguments]
    for keyword in call.keywords:
        name, item = (keyword.name.text, keyword.value) if isinstance(keyword, syntax.Keyword) else keyword
        given.append(f"{name}={value(item)}")
    return f"({', '.join(given)})" if given else ""


def reference(target: syntax.Reference | syntax.Target) -> str:
    """`prev.activation`."""
    return ".".join((target.root, *target.attributes))


def string(text: str) -> str:
    """A string with its quotes."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


def literal(constant: object) -> str:
    """A number, string, `true`, `false`, `none`, a tuple or list of them."""
    match constant:
        case None:
            return "none"
        case bool():
            return "true" if constant else "false"
        case str():
            return string(constant)
        case tuple():
            return f"({', '.join(map(literal, constant))}{',' if len(constant) == 1 else ''})"
        case list():
            return f"[{', '.join(map(literal, constant))}]"
        case _:
            return repr(constant)


def value(node: Expression, strength: int = 0) -> str:
    """An expression, in parentheses if it binds weaker than `strength`."""
    match node:
        case nodes.Literal(constant):
            return literal(constant)
        case nodes.Name(name):
            return name
        case nodes.Attribute(inner, name):
            return f"{value(inner, _SIGN + 1)}.{name}"
        case nodes.Index(inner, index):
            return f"{value(inner, _SIGN + 1)}[{value(index)}]"
        case nodes.Call(function):
            return f"{value(function, _SIGN + 1)}{arguments(node) or '()'}"
        case nodes.Relation(name, pattern, _, subject):
            return f"{f'{value(subject, _SIGN + 1)}.' if subject is not None else ''}{name}({units(pattern)})"
        case nodes.Star(inner):
            return f"*{value(inner)}"
        case nodes.Sequence(kind, items):
            inside = ", ".join(value(item) for item in items)
            return f"[{inside}]" if kind is list else f"({inside}{',' if len(items) == 1 else ''})"
        case nodes.Unary("not", operand):
            own, text = 3, f"not {value(operand, 3)}"
        case nodes.Unary(operator, operand):
            own, text = _SIGN, f"{operator}{value(operand, _SIGN)}"
        case nodes.Is(inner, negated, pattern):
            own, text = _COMPARISON, f"{value(inner, 5)} is {'not ' if negated else ''}{units(pattern)}"
        case nodes.Binary(operator, left, right):
            own = _STRENGTH.get(operator, _COMPARISON)
            loose = own + 1 if own == _COMPARISON else own  # comparisons do not chain
            text = f"{value(left, loose)} {operator} {value(right, own + 1)}"
    return f"({text})" if own < strength else text
