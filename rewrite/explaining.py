"""Why each call is a site or is none: the matcher's own account of a clause, call by call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rewrite.errors import Diagnostic, RewriteError
from rewrite.expression import Attribute, Binary, Expression, Name, Unary, truth
from rewrite.formatter import literal
from rewrite.graph import Graph, Node
from rewrite.matcher import Found, Match, Matcher, Miss
from rewrite.misses import Misses, described
from rewrite.pattern import Kind, Path, Selector, Unit, unit_text
from rewrite.rule import Clause
from rewrite.selectors import relation, scope
from rewrite.source import Span, printable
from rewrite.vocabulary import OPERATIONS, short


@dataclass(frozen=True)
class Missed:
    """A call that could have been meant, and the first test that it fails."""

    path: str
    spelling: str
    stage: str
    """`kind`, `tests`, `in`, `except`, `where`, `pick`, `chain`, `between` or `uncallable`"""
    why: str


@dataclass(frozen=True)
class ExplainedClause:
    """One clause: what it matched, and what it nearly matched."""

    text: str
    place: str
    sites: tuple[str, ...]
    """the matched calls, those of a chain joined by ` -> `"""
    missed: tuple[Missed, ...]
    notes: tuple[str, ...] = ()
    """what is said of the whole: how many calls are of the kind, where there are any"""


@dataclass(frozen=True)
class Explained:
    """What every clause of a rule file matches in a model, and why it matches no more."""

    model: str
    rules: str
    clauses: tuple[ExplainedClause, ...]
    problems: tuple[Diagnostic, ...] = ()
    """what would stop the application of the rules"""

    def as_json(self) -> dict[str, object]:
        """The JSON form; nothing is cut short in it."""
        return {
            "model": self.model,
            "rules": self.rules,
            "clauses": [asdict(clause) for clause in self.clauses],
            "problems": [problem.as_json() for problem in self.problems],
        }

    def __str__(self) -> str:
        return self.render()

    def render(self, most: int = 40) -> str:
        """The text form.

        Args:
            most: how many sites and misses of a clause are listed.

        """
        return "\n\n".join("\n".join(_lines(clause, most)) for clause in self.clauses)


def explain_clause(clause: Clause, graph: Graph, matcher: Matcher) -> ExplainedClause:
    """What a clause matches in a graph, and what it nearly matches.

    Args:
        clause: the clause.
        graph: the model as it stands when the clause begins.
        matcher: of that graph; the one that decides which calls are sites.

    """
    matches, found = matcher.sites(clause)
    selector = clause.selector
    missed: list[Missed] = []
    notes: list[str] = []
    if selector.is_single:
        missed += [_missed(miss, selector, matcher) for miss in found.misses if miss.stage != "between"]
        missed += _other_kinds(selector, graph, matcher)
        if not found.passed["base"]:
            notes += _nothing_of_the_kind(clause, found, matcher)
        elif not matches and found.failures("in"):
            places = Misses(matcher).places_of(selector.alternatives)
            notes.append(f"places where there are any: {', '.join(places)}")
    else:
        notes += Misses(matcher).of_each_link(selector)
        if not matches:
            notes += Misses(matcher).other_way_round(selector)
        for node in graph.nodes:
            failed = matcher.first_failed(selector, node)
            if failed is not None:
                missed.append(_missed(Miss(node, *failed), selector, matcher))
        for stuck in matcher.search(selector).explain():
            first = stuck.calls[min(stuck.calls)]
            missed.append(Missed(first.name, first.spelling, "chain", described(selector, stuck)))
        missed += [_missed(miss, selector, matcher) for miss in found.misses if miss.stage != "between"]
    missed += [
        Missed(layer.path, short(layer.kind), "uncallable", layer.uncallable)
        for layer in graph.layers.values()
        if layer.uncallable
        and layer.path not in graph.calls
        and any(matcher.fits(unit, scope.as_node(layer)) for unit in selector.alternatives)
        and not matcher.layers_only(clause)
    ]
    if clause.header == "between":
        failed_pairs = {miss.node for miss in found.misses if miss.stage == "where" and miss.chosen is None}
        missed += [
            Missed(node.name, node.spelling, "between", _why_no_edge(node, graph))
            for node, _ in found.nodes
            if not any(match.names.get("prev") is node for match in matches)
            and not failed_pairs.intersection(relation.consumers(graph, node))
        ]
        notes += found.failures("between")
    if found.unlinked:
        notes.append(found.unlinked)
    return ExplainedClause(
        clause.text, str(clause.span), tuple(_site(match) for match in matches), tuple(missed), tuple(notes)
    )


def _site(match: Match) -> str:
    if len(match.nodes) > 1:
        return " -> ".join(f"{node.name}" for node in match.nodes)
    which = f"@{match.operand.name}" if match.operand is not None and len(match.node.inputs) > 1 else ""
    return f"{match.node.name}{which} ({match.node.spelling})"


def _why_no_edge(node: Node, graph: Graph) -> str:
    users = [f"`{user.name}` ({user.spelling})" for user in relation.leaf_consumers(graph, node)]
    if not users and not node.linked:
        return "what takes its value is not known"
    if not users:
        return "no call takes its value"
    return f"its value goes to {', '.join(users[:4])}" + (f", and {len(users) - 4} more" if len(users) > 4 else "")


def _nothing_of_the_kind(clause: Clause, found: Found, matcher: Matcher) -> list[str]:
    problem = Misses(matcher).no_match(clause, found)
    return [text for text in (problem.label or problem.message, *problem.notes, problem.help) if text]


def _missed(miss: Miss, selector: Selector, matcher: Matcher) -> Missed:
    why = miss.why
    if miss.stage == "in":
        scopes = [unit for units in (*selector.scopes, *selector.within) for unit in units]
        why = f"it does not lie in {_texts(scopes)}"
    elif miss.stage == "except":
        why = f"`except {_texts(selector.excluded)}` leaves it out"
    elif miss.stage == "where" and selector.where is not None and miss.chosen is not None:
        why = _why_false(selector, miss, matcher)
    path = " -> ".join(node.name for node in miss.chosen.nodes) if miss.chosen is not None else miss.node.name
    return Missed(path, miss.node.spelling, miss.stage, why)


def _texts(units: Iterable[Unit]) -> str:
    return " | ".join(unit_text(unit) for unit in units)


def _why_false(selector: Selector, miss: Miss, matcher: Matcher) -> str:
    """The first part of a `where` that does not hold, and the values that it asks for."""
    assert selector.where is not None, "called for a selector with a where"
    assert miss.chosen is not None, "what failed the where was chosen so far"
    for part in _conjuncts(selector.where):
        if truth(matcher.value(selector, miss.chosen, part), part.span):
            continue
        values = []
        for asked in _attributes(part):
            with contextlib.suppress(RewriteError):  # a part that was not reached may ask for what is not there
                values.append(f"{_text(asked.span)} is {literal(matcher.value(selector, miss.chosen, asked))}")
        return f"`{_text(part.span)}` does not hold" + (f": {', '.join(values)}" if values else "")
    return "the `where` does not hold"


def _conjuncts(expression: Expression) -> list[Expression]:
    if isinstance(expression, Binary) and expression.operator == "and":
        return [*_conjuncts(expression.left), *_conjuncts(expression.right)]
    return [expression]


def _attributes(expression: Expression) -> list[Attribute]:
    """The attributes that an expression asks for."""
    match expression:
        case Attribute(value=Name()):
            return [expression]
        case Binary(_, left, right):
            return [*_attributes(left), *_attributes(right)]
        case Unary(_, operand):
            return _attributes(operand)
        case _:
            return []


def _text(span: Span) -> str:
    """The text at a place, as it is written."""
    line = span.source.lines[span.line - 1]
    return line[span.column - 1 : span.column - 1 + span.length]


def _other_kinds(selector: Selector, graph: Graph, matcher: Matcher) -> list[Missed]:
    """Calls that are near to what a selector names: another spelling, another operation of the same family."""
    found = []
    for node in graph.nodes:
        if any(matcher.explain_base(unit, node) is None for unit in selector.alternatives):
            continue
        why = next((text for unit in selector.alternatives if (text := _near(unit, node, matcher))), None)
        if why is not None:
            found.append(Missed(node.name, node.spelling, "kind", why))
    return found


def _near(unit: Unit, node: Node, matcher: Matcher) -> str | None:
    """Why a call is not what a unit names, if the two are close."""
    base = unit.base
    if isinstance(base, Path):
        return None
    if not isinstance(base, Kind) or node.operation is None:
        return None
    if base.dotted is not None:
        last = base.dotted.rpartition(".")[2].lower().rstrip("_")
        if node.operation.lower() == last:
            return f"it is spelled {node.spelling}, not {base.text}; `{node.operation}` is every spelling"
        return None
    named = OPERATIONS.get(base.operation or "")
    own = OPERATIONS[node.operation]
    if named is not None and named.family is not None and own.family == named.family and named.family != "merge":
        return matcher.explain_base(unit, node)
    return None


def _lines(clause: ExplainedClause, most: int) -> list[str]:
    """The text of one clause."""
    lines = [f"{clause.place}: {printable(clause.text)}"]
    sites, missed = len(clause.sites), len(clause.missed)
    lines.append(f"  {sites} {'site' if sites == 1 else 'sites'}")
    lines += [f"    {site}" for site in clause.sites[:most]]
    lines += _more(sites, most)
    if missed:
        lines.append(
            f"  {missed} near {'miss, with' if missed == 1 else 'misses, each with'} the first test that fails"
        )
        width = max(len(f"{miss.path} ({miss.spelling})") for miss in clause.missed[:most])
        for miss in clause.missed[:most]:
            head = f"{miss.path} ({miss.spelling})" if miss.stage != "chain" else ""
            text = f"{head.ljust(width)}  {miss.stage}: {miss.why}" if head else miss.why
            lines.append(f"    {printable(text)}")
        lines += _more(missed, most)
    lines += [f"  note: {printable(note)}" for note in clause.notes]
    return lines


def _more(count: int, most: int) -> list[str]:
    return [f"    ... and {count - most:,} more; --json lists them all"] if count > most else []
