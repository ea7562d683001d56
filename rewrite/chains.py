"""Patterns of linked calls: checked when they are read, and laid out for the search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from rewrite.errors import Diagnostic
from rewrite.pattern import Anything, Bound, Link, Selector

MOST_OPTIONAL = 6
"""optional links of one pattern: each doubles the patterns that are searched for"""
MOST_LINKS = 64


@dataclass(frozen=True)
class Edge:
    """A value goes from the call of one link to the call of another one; numbers count the links of the selector."""

    source: int
    target: int
    sole: bool
    """and nowhere else"""
    port: int | str | None = None
    """into this input"""


@dataclass(frozen=True)
class Variant:
    """A pattern with some of its optional links left out."""

    present: frozenset[int]
    """links that are there; those that join others count as the link they join"""
    edges: tuple[Edge, ...]


def check_chains(selector: Selector, word: str | None) -> Iterator[Diagnostic]:
    """What is wrong with a pattern whatever the model is."""
    links = selector.links
    if len(links) > MOST_LINKS:
        yield Diagnostic("RW016", f"a pattern of more than {MOST_LINKS} calls", selector.span, help="split the rule")
        return
    optional = [link for link in links if link.optional]
    if len(optional) > MOST_OPTIONAL:
        message = f"a pattern with more than {MOST_OPTIONAL} calls that may be missing"
        yield Diagnostic("RW016", message, optional[MOST_OPTIONAL].span, help="split it into several rules")
        return
    for link in links:
        bound = [unit for unit in link.alternatives if isinstance(unit.base, Bound)]
        if bound and (len(link.alternatives) > 1 or link.capture or bound[0].tests or bound[0].pick or link.optional):
            message = f"`{link.joins}` is the very call that was named before, so it stands alone here"
            help_text = "its tests, picks and names stand where it is named first"
            yield Diagnostic("RW108", message, link.span, help=help_text)
    for link in links:
        if not selector.is_single and len({unit.port for unit in link.alternatives}) > 1:
            message = "these alternatives are meant at different inputs"
            yield Diagnostic("RW108", message, link.span, help="write a rule for each input")
    joined = {link.joins for link in links if link.joins}
    for link in optional:
        if selector.is_single:
            help_text = "drop the `?`, or write the calls around it: `A -> B? -> C`"
            yield Diagnostic("RW108", "a single call cannot be missing", link.span, help=help_text)
        elif link.capture in joined:
            message = f"`{link.capture}` may be missing, and another chain needs it"
            yield Diagnostic("RW108", message, link.span, help="drop the `?`")
    for chain in selector.chains:
        end = chain[0] if word == "before" else chain[-1]
        if end.optional and len(chain) > 1 and word in ("after", "before", "at"):
            verb = "begin" if word == "before" else "end"
            help_text = f"{verb} the chain with the call that `{word}` is about"
            yield Diagnostic("RW108", f"`{word}` is about this call, so it cannot be missing", end.span, help=help_text)
        if all(link.optional for link in chain) and len(chain) > 1:
            yield Diagnostic("RW108", "all calls of this chain may be missing", chain[0].span, help="drop one `?`")
    yield from _check_connected(selector)


def _check_connected(selector: Selector) -> Iterator[Diagnostic]:
    """Chains that share no capture would be matched in every combination; chains in a circle never are."""
    numbers = list(_numbers(selector))
    groups: list[set[int]] = []
    for chain in numbers:
        apart = [group for group in groups if not group & set(chain)]
        merged = set(chain).union(*(group for group in groups if group & set(chain)))
        groups = [*apart, merged]
    if len(groups) > 1:
        help_text = "name a call with `as x` in one chain, and write `x` in the other"
        message = "these chains have no call in common"
        yield Diagnostic("RW108", message, selector.chains[1][0].span, help=help_text)
        return
    after: dict[int, set[int]] = {}
    for chain in numbers:
        for source, target in itertools.pairwise(chain):
            after.setdefault(source, set()).add(target)
    done: set[int] = set()

    def circles(number: int, path: frozenset[int]) -> bool:
        if number in path:
            return True
        if number in done:
            return False
        found = any(circles(target, path | {number}) for target in after.get(number, ()))
        done.add(number)
        return found

    if any(circles(number, frozenset()) for number in list(after)):
        help_text = "values flow one way; check the order of the links"
        what = "these chains lead" if len(selector.chains) > 1 else "this chain leads"
        yield Diagnostic("RW108", f"{what} in a circle, which no model has", selector.span, help=help_text)


def _numbers(selector: Selector) -> Iterator[list[int]]:
    """For each chain the numbers of its links, a link that joins another one having the number of that."""
    named: dict[str, int] = {}
    number = 0
    for chain in selector.chains:
        found = []
        for link in chain:
            found.append(number if link.joins is None else named.get(link.joins, number))
            if link.capture:
                named[link.capture] = number
            number += 1
        yield found


def variants(selector: Selector) -> list[Variant]:
    """The patterns to search for, those with more of the optional links first, of as many those with earlier ones."""
    links = selector.links
    numbers = list(_numbers(selector))
    optional = [number for number, link in enumerate(links) if link.optional]
    found = []
    for count in range(len(optional) + 1):
        for missing in reversed(list(itertools.combinations(optional, count))):
            edges = []
            flat = iter(range(len(links)))
            for chain in numbers:
                places = [next(flat) for _ in chain]
                kept = [(number, place) for number, place in zip(chain, places, strict=True) if place not in missing]
                for (source, before), (target, place) in itertools.pairwise(kept):
                    # A link that leads to, or away from, what is missing must hold for what takes its place.
                    arrows = {links[between].arrow for between in range(before + 1, place + 1)}
                    edges.append(Edge(source, target, ">>" in arrows, links[place].alternatives[0].port))
            present = frozenset(number for chain in numbers for number in chain if number not in missing)
            found.append(Variant(present, tuple(dict.fromkeys(edges))))
    return found


def is_any(link: Link) -> bool:
    """Whether a link takes any call."""
    return any(isinstance(unit.base, Anything) for unit in link.alternatives)
