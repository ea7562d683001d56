"""Matches of one clause that are in each other's way: the first in order of execution wins, the others are told of."""

from __future__ import annotations

from collections.abc import Sequence

from rewrite.actions import Action, Fold, Insert, Move, Remove, Replace, Set, Tap, Wrap
from rewrite.errors import Diagnostic, PlanError
from rewrite.graph import Node
from rewrite.matcher import Match
from rewrite.rule import Clause


def without_overlaps(clause: Clause, matches: Sequence[Match], *, strict: bool) -> tuple[list[Match], list[Diagnostic]]:
    """The matches that can all be carried out, and a warning that names the others (RW314).

    Two matches overlap where both destroy or move one call, or one destroys what the other still needs.

    Raises:
        PlanError: there are such matches, and `strict` is set.

    """
    if clause.selector.is_single and clause.header != "match":
        return list(matches), []
    destroyed: set[int] = set()
    needed: set[int] = set()
    kept: list[Match] = []
    lost: list[tuple[Match, Node]] = []
    carried_out: set[tuple[int, ...]] = set()
    for match in matches:
        gone = {node.index: node for action in clause.actions for node in _destroys(action, clause, match)}
        used = {node.index: node for action in clause.actions for node in _needs(action, match)}
        if gone and tuple(gone) in carried_out and used.keys() <= needed:
            continue  # the very same change, found by way of another call
        clash = [node for index, node in gone.items() if index in destroyed or index in needed]
        clash += [node for index, node in used.items() if index in destroyed]
        if clash:
            lost.append((match, clash[0]))
            continue
        carried_out.add(tuple(gone))
        destroyed |= gone.keys()
        needed |= used.keys() - gone.keys()
        kept.append(match)
    if not lost:
        return kept, []
    notes = tuple(
        f"left out: {' -> '.join(f'`{node.name}`' for node in match.nodes)}, because of `{node.name}`"
        for match, node in lost[:5]
    )
    more = (f"{len(lost) - 5} more are left out",) if len(lost) > 5 else ()
    several = "match overlaps" if len(lost) == 1 else "matches overlap"
    warning = Diagnostic(
        "RW314",
        f"{len(lost)} {several} with one in front that takes away or moves the same call",
        clause.span,
        notes=(*notes, *more),
        help="`repeat:` around the rule comes to them in the next round; or make the pattern more precise",
        strict=strict,
    )
    if strict:
        raise PlanError([warning])
    return kept, [warning]


def _named(match: Match, *names: str | None) -> list[Node]:
    return [node for name in names if name is not None and (node := match.names.get(name)) is not None]


def _destroys(action: Action, clause: Clause, match: Match) -> Sequence[Node]:
    """The calls that an action takes away or moves."""
    match action:
        case Remove(subject=None) | Replace(subject=None):
            return match.nodes
        case Remove(subject=subject) | Replace(subject=subject):
            return _named(match, subject)
        case Fold(norm=norm):
            return _named(match, norm)
        case Move(moved=(name,)):
            return _named(match, name)
        case _:
            return ()


def _needs(action: Action, match: Match) -> Sequence[Node]:
    """The calls that an action changes or puts something next to, and that must still be there for it."""
    match action:
        case Fold(into=into):
            return _named(match, into)
        case Move(anchor=anchor):
            return _named(match, anchor[0])
        case Insert(subject=subject) | Tap(subject=subject) | Wrap(subject=subject):
            return _named(match, subject)
        case Set(assignments=assignments):
            return _named(match, *(assignment.target.root for assignment in assignments))
        case Replace(layers=layers):
            return _named(match, *layers[0].inputs)
        case _:
            return ()
