"""`plan(clause, graph, ...)`: the edits of one clause, each once, and what each site gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rewrite import edit
from rewrite.actions import Action, Insert, Replace, Tap
from rewrite.actions.site import Desk, Site, Trial
from rewrite.edit import Edit
from rewrite.errors import Diagnostic
from rewrite.graph import Graph, Node, Operand
from rewrite.inference import Inference
from rewrite.lint import lint
from rewrite.matcher import Context, Found, Match, Matcher
from rewrite.misses import Misses
from rewrite.overlaps import without_overlaps
from rewrite.pattern import Anything, Bound, Kind, Unit
from rewrite.rule import Clause
from rewrite.selectors import scope


@dataclass(eq=False)
class Plan:
    """What one clause does to one model."""

    clause: Clause
    sites: list[Site]
    """in the model's present mode"""
    other_mode: list[Site]
    """those that exist in the other of train and eval mode only"""
    edits: list[Edit]
    named: dict[int, list[Site]]
    """number of the edit -> the sites that it serves, for telling the names of new layers"""
    warnings: list[Diagnostic]
    shape_changes: list[Diagnostic]
    misses: list[str] = field(default_factory=list)


def plan(
    clause: Clause,
    graph: Graph,
    other: Graph | None,
    context: Context,
    trial: Trial,
    *,
    strict: bool = False,
    earlier: frozenset[str] = frozenset(),
) -> Plan:
    """Matches a clause and turns the matches into edits.

    Args:
        clause: the rule.
        graph: the model in its present mode.
        other: the model in the other mode, where that makes a difference.
        context: constants and the caller's classes.
        trial: tells the shape that layers make of a shape.
        strict: whether matches in each other's way are an error.
        earlier: paths of the layers that earlier clauses of the same rules have inserted.

    Raises:
        PlanError, SiteError, RuleError: the clause does not fit this model.

    """
    matcher = Matcher(graph, context)
    matches, found = matcher.sites(clause)
    _check_count(clause, matches, found, matcher)
    matches, overlaps = without_overlaps(clause, matches, strict=strict)
    matches = _with_inner_layers(clause, matches, matcher)
    calls = dict(graph.calls)
    extra: list[Match] = []
    if other is not None:
        extra_matches, _ = Matcher(other, context).sites(clause)
        present = {_place(match) for match in matches}
        extra = [match for match in extra_matches if _place(match) not in present]
        known = {(node.scope, node.local) for node in graph.nodes}
        for path, nodes in other.calls.items():
            calls[path] = (*calls.get(path, ()), *(n for n in nodes if (n.scope, n.local) not in known))
    sites, other_sites = _plan_sites(clause, matches, extra, graph, other, matcher, context, trial, calls)
    made = _finish(clause, sites, other_sites, found, matcher)
    made.warnings += [*overlaps, *lint(clause, made.sites, graph, earlier)]
    made.misses = Misses(matcher).near_misses(clause, other)
    return made


_Planned = tuple[list[Site], Desk]


def _plan_sites(
    clause: Clause,
    matches: Sequence[Match],
    extra: Sequence[Match],
    graph: Graph,
    other: Graph | None,
    matcher: Matcher,
    context: Context,
    trial: Trial,
    calls: Mapping[str, tuple[Node, ...]],
) -> tuple[_Planned, _Planned | None]:
    present = _run(clause, matches, graph, matcher, context, trial, calls)
    if not extra or other is None:
        return present, None
    return present, _run(clause, extra, other, Matcher(other, context), context, trial, calls)


def _run(
    clause: Clause,
    matches: Sequence[Match],
    graph: Graph,
    matcher: Matcher,
    context: Context,
    trial: Trial,
    calls: Mapping[str, tuple[Node, ...]],
) -> _Planned:
    names = {**context.functions, **context.constants}
    sites = [
        Site(
            match.node,
            match.operand,
            {**names, **({} if len(match.nodes) > 1 else {"self": match.node}), **match.names},
            nodes=match.nodes,
        )
        for match in matches
    ]
    for site in sites:
        if clause.header == "after":
            consumers = graph.uses.get(site.node.index, ())
            if len({node.index for node, _ in consumers}) == 1:
                site.names = {**site.names, "next": consumers[0][0]}
    desk = Desk(graph, Inference(graph), clause.text, matcher.read, matcher.relate_anywhere, matcher.call, trial, calls)
    for action in clause.actions:
        action.plan(_meant(action, clause, sites, matcher), desk)
    for site in sites:
        site.operations += sum(part.operations for part in site.parts)
    return sites, desk


def _meant(action: Action, clause: Clause, sites: Sequence[Site], matcher: Matcher) -> Sequence[Site]:
    """The sites that an action is about: the matches, the calls that it names in them, or all calls of a chain."""
    subject: str | None = getattr(action, "subject", None)
    if subject is not None:
        found: list[Site] = []
        done: set[tuple[int, int | None]] = set()
        for site in sites:
            node = site.names.get(subject)
            if not isinstance(node, Node):
                continue  # a call that may be missing, and is
            operands: list[Operand | None] = [None]
            if isinstance(action, Insert) and action.ahead:
                unit = Unit(Bound(subject), action.span, port=action.port)
                operands = [*matcher.ports(node, unit)]
            for operand in operands:
                place = (node.index, None if operand is None else operand.number)
                if place in done:  # several matches share the call, and it is changed once
                    site.changes.append(f"`{node.name}` is changed already, by another match")
                    continue
                done.add(place)
                found.append(site.part(node, operand))
        return found
    if clause.header is None and not clause.selector.is_single and not isinstance(action, Replace | Tap):
        return [site.part(node) for site in sites for node in site.nodes]
    return sites


def _finish(clause: Clause, present: _Planned, other: _Planned | None, found: Found, matcher: Matcher) -> Plan:
    sites, desk = present
    edits: list[Edit] = []
    named: dict[int, list[Site]] = {}
    groups: dict[tuple[str, str, int], list[Site]] = {}
    whole = (*sites, *(other[0] if other is not None else ()))
    for site in (*whole, *(part for outer in whole for part in outer.parts)):
        stands_alone = site.whole is None and len(site.nodes) < 2
        alone = clause.header == "at" or (clause.header is None and not matcher.layers_only(clause))
        if site.inserts or (alone and stands_alone):
            groups.setdefault(site.key, []).append(site)
    matched: dict[int, set[int]] = {}
    for (*_, side), group in groups.items():
        matched.setdefault(side, set()).update(site.node.index for site in group)
    for (*_, side), group in groups.items():
        first = group[0]
        _check_complete(group, desk, clause, matched[side])
        number = None if first.operand is None else first.operand.number
        for chain in first.inserts:
            named[len(edits)] = group
            edits.append(edit.Insert(first.node, number, tuple(chain)))
    rest = [*desk.edits, *(other[1].edits if other is not None else ())]
    edits += rest
    misses = Misses(matcher)
    warnings = [*misses.unmatched_alternatives(clause.selector, found), *desk.warnings]
    if not matcher.layers_only(clause):
        warnings += misses.unseen_functions(clause.selector)
    if not matcher.layers_only(clause):
        selectors = (clause.selector, *([clause.second] if clause.second is not None else []))
        warnings += [warning for selector in selectors for warning in misses.other_spellings(selector)]
        warnings += [warning for selector in selectors for warning in misses.akin(selector)]
    changes = _one_per_cause([*desk.shape_changes, *(other[1].shape_changes if other is not None else ())])
    for made in edits:
        _check_certain(made, clause)
    return Plan(clause, sites, other[0] if other is not None else [], edits, named, warnings, changes)


def _check_certain(made: Edit, clause: Clause) -> None:
    """Refuses to edit a forward that was read for a call which may not be the one that the model makes."""
    match made:
        case edit.Insert() if not made.on_layer:
            node = made.node
        case edit.Remove() if not made.node.on_layer:
            node = made.node
        case edit.Replace(target=Node() as node) | edit.Update(target=Node() as node) | edit.Move(node=node):
            pass
        case _:
            return
    if node.assumed:
        raise edit.read_without(node, node.assumed, clause.selector.span).error()


def _one_per_cause(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic for each place in the rule: the first, and how many more sites have the same trouble."""
    groups: dict[tuple[str, object], list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        groups.setdefault((diagnostic.code, diagnostic.span), []).append(diagnostic)
    found = []
    for group in groups.values():
        first = group[0]
        if len(group) > 1:
            more = "site has" if len(group) == 2 else "sites have"
            first = replace(first, notes=(*first.notes, f"{len(group) - 1} more {more} the same trouble"))
        found.append(first)
    return found


def _check_complete(group: Sequence[Site], desk: Desk, clause: Clause, matched: Collection[int]) -> None:
    """Refuses an edit of code that runs at several places of the model when only some of these are matched.

    Args:
        group: the sites of one edit.
        desk: what is known of the model.
        clause: the rule.
        matched: the calls that are edited on this side, some of them by another edit: a call in a graph there, and the
            layer itself where its calls are not known.

    """
    first = group[0]
    if first.key[0] == "<layer>" and first.node.layer is not None:
        all_calls = desk.calls.get(first.node.layer.path, ())
    else:
        all_calls = desk.graph.runs.get((first.node.scope, first.node.local), ())
    missing = [node for node in all_calls if node.index not in matched and node.mode == first.node.mode]
    if missing:
        owner = first.node.owner.name if first.node.owner is not None else first.node.name
        raise Diagnostic(
            "RW313",
            f"`{first.node.name}` runs {len(all_calls)} times, and the rule matches {len(group)} of them",
            clause.span,
            notes=(f"`{owner}` is called several times with one code and one set of weights",),
            help="match all of its calls, or none",
        ).error()


def _place(match: Match) -> tuple[object, ...]:
    number = -1 if match.operand is None else match.operand.number
    chain = tuple((node.scope, node.local or node.name) for node in match.nodes) if len(match.nodes) > 1 else ()
    return match.node.scope, match.node.local or match.node.name, number, chain


def _check_count(clause: Clause, matches: Sequence[Match], found: Found, matcher: Matcher) -> None:
    count, number = clause.count, len(matches)
    if number >= count.low and (count.high is None or number <= count.high):
        return
    miss = Misses(matcher).no_match(clause, found) if not number else None
    if miss is not None and count.low <= 1:
        raise miss.error()
    notes = tuple(f"`{match.node.name}`" for match in matches[:8])
    more = f", and {number - 8} more" if number > 8 else ""
    raise Diagnostic(
        "RW303",
        f"{number or 'no'} {'match' if number == 1 else 'matches'}, expected {count}",
        count.span or clause.span,
        notes=(f"matched: {', '.join(notes)}{more}",) if miss is None else miss.notes,
        help=f"change the selector, or write the number that is meant: `expect {number} matches`"
        if miss is None
        else miss.help,
    ).error()


def _with_inner_layers(clause: Clause, matches: list[Match], matcher: Matcher) -> list[Match]:
    """For rules about layers: a matched module stands for all that is in it, `except` aside."""
    if not matcher.layers_only(clause) or all(isinstance(u.base, Anything) for u in clause.selector.alternatives):
        return matches
    taken = {match.node.name for match in matches}
    by_kind = all(isinstance(unit.base, Kind) for unit in clause.selector.alternatives)
    result = list(matches)
    nodes = {node.name: node for node in matcher.layer_nodes()}
    for match in matches:
        prefix = f"{match.node.name}." if match.node.name else ""
        for name, node in nodes.items():
            if name in taken or not name.startswith(prefix):
                continue
            if by_kind and match.node.layer is not None and scope.is_wrapped(name, match.node.layer):
                continue
            excluded = clause.selector.excluded
            if excluded and scope.is_inside(matcher.graph, node, excluded, matcher.context.classes):
                continue
            taken.add(name)
            result.append(Match(node, None, match.names, (node,)))
    return result
