"""Linked calls found in a graph: the pattern is laid on where its rarest call is, and followed along the values.

So a pattern costs as much as there are calls like its rarest one, times what hangs at each. A budget of steps ends what
would take too long with a diagnostic.

What a match is: each link that is not missing has a call of its own, none of them inside another one, and along each
arrow a value goes from call to call. Two ways to lay the pattern on the same calls are one match, the one that follows
the order of execution. Where the calls that must be there fit both with and without those that may be missing, the
match with more of them counts, and of as many the one with those in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from rewrite.chains import Edge, Variant, is_any, variants
from rewrite.errors import Diagnostic, RewriteError
from rewrite.graph import Graph, Node, Operand
from rewrite.pattern import Link, Selector, Unit
from rewrite.selectors import relation

_STEPS = 200_000
_STEPS_PER_CALL = 10
_STEPS_PER_MATCH = 4


@dataclass(frozen=True, eq=False)
class Chosen:
    """One way in which a selector fits: its calls, and which alternative each of them is, by number of the link."""

    calls: Mapping[int, Node]
    units: Mapping[int, Unit]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The calls in the order of the links."""
        return tuple(self.calls[number] for number in sorted(self.calls))

    @property
    def indexes(self) -> tuple[int, ...]:
        """Numbers of the calls in the order of the links."""
        return tuple(self.calls[number].index for number in sorted(self.calls))


@dataclass(frozen=True, eq=False)
class Stuck:
    """Where the search came no further from one start."""

    calls: Mapping[int, Node]
    """what fits so far"""
    link: int
    """the link that nothing fits"""
    known: int
    """the link that it was looked for from"""
    ahead: bool
    """whether it is to take a value of that one; else it is to make one"""
    why: tuple[str, ...] = ()
    """for each call that was tried there, why it does not fit"""
    tried: tuple[Node, ...] = ()


Fit = Callable[[int, Node], Unit | str]
"""(number of a link, call) -> the alternative that the call is, or why it is none of them"""


@dataclass
class Search:
    """The search for one selector in one graph."""

    graph: Graph
    selector: Selector
    fit: Fit
    by_operation: Mapping[str | None, list[Node]]
    steps: int = 0
    cache: dict[tuple[int, int], Unit | str] = field(default_factory=dict)
    deepest: Stuck | None = None
    explaining: bool = False
    failed: list[Chosen] = field(default_factory=list)

    @cached_property
    def limit(self) -> int:
        """How many steps the search may take."""
        patterns = len(self.selector.links) + len(variants(self.selector))
        return _STEPS + _STEPS_PER_CALL * len(self.graph.nodes) * patterns

    def run(self, holds: Callable[[Chosen], bool] = lambda chosen: True) -> list[Chosen]:
        """Every match, in order of execution.

        Args:
            holds: a further condition; what fails it and is no match in another way either is kept in `failed`.

        Raises:
            RewriteError: the search takes too long (RW321).

        """
        found: dict[frozenset[int], Chosen] = {}
        failed: dict[frozenset[int], Chosen] = {}
        settled: set[frozenset[int]] = set()
        for variant in variants(self.selector):
            here: dict[frozenset[int], Chosen] = {}
            for chosen in self._all(variant):
                self._step(_STEPS_PER_MATCH)
                if self._needed(chosen) in settled:
                    continue
                key = frozenset(chosen.indexes)
                good, bad = here.get(key), failed.get(key)
                if good is not None and good.indexes <= chosen.indexes:
                    continue
                if holds(chosen):
                    here[key] = chosen
                elif bad is None or chosen.indexes < bad.indexes:
                    failed[key] = chosen
            settled.update(self._needed(chosen) for chosen in here.values())
            found |= {key: chosen for key, chosen in here.items() if key not in found}
        self.failed = [chosen for chosen in failed.values() if self._needed(chosen) not in settled]
        self.failed.sort(key=lambda chosen: chosen.indexes)
        return sorted(found.values(), key=lambda chosen: chosen.indexes)

    def _all(self, variant: Variant) -> Iterator[Chosen]:
        """Every way to lay one variant on the graph."""
        start = self._rarest(variant)
        order = _order(variant, start)
        for node in self._candidates(start):
            self._step()
            unit = self._try(start, node)
            if isinstance(unit, Unit):
                yield from self._extend(order, 0, {start: node}, {start: unit})

    def _needed(self, chosen: Chosen) -> frozenset[int]:
        """The calls of the links that cannot be missing."""
        links = self.selector.links
        return frozenset(node.index for number, node in chosen.calls.items() if not links[number].optional)

    def explain(self) -> list[Stuck]:
        """From each call that the first link fits, how far the pattern went before it failed.

        Where the search takes too long, what is known by then.
        """
        self.explaining = True
        result: list[Stuck] = []
        for node in self.graph.nodes:
            try:
                stuck = self._explain(node)
            except RewriteError:
                break
            if stuck is not None:
                result.append(stuck)
        return result

    def _explain(self, node: Node) -> Stuck | None:
        """Where the longest beginning at a call ends; None if the pattern fits there, or does not even begin."""
        best: Stuck | None = None
        for variant in variants(self.selector):
            self._step()
            first = min(variant.present)
            unit = self._try(first, node)
            if isinstance(unit, str):
                continue
            self.deepest = None
            order = _order(variant, first)
            if next(self._extend(order, 0, {first: node}, {first: unit}), None) is not None:
                return None
            reached: Stuck | None = self.deepest
            if reached is not None and (best is None or self._far(reached) > self._far(best)):
                best = reached
        return best

    def _far(self, stuck: Stuck) -> tuple[int, bool]:
        """How far a beginning came; of two, that counts more which lacks a call that must be there."""
        return len(stuck.calls), not self.selector.links[stuck.link].optional

    # ---- where to begin

    def _rarest(self, variant: Variant) -> int:
        """The link with the fewest calls that can be it."""
        return min(sorted(variant.present), key=lambda number: self._count(self.selector.links[number]))

    def _count(self, link: Link) -> int:
        total = 0
        for unit in link.alternatives:
            operation = getattr(unit.base, "operation", None)
            total += len(self.by_operation.get(operation, ())) if operation else len(self.graph.nodes)
        return total

    def _candidates(self, number: int) -> Iterator[Node]:
        link = self.selector.links[number]
        operations = [getattr(unit.base, "operation", None) for unit in link.alternatives]
        if all(operations) and not is_any(link):
            found = [node for operation in dict.fromkeys(operations) for node in self.by_operation.get(operation, ())]
            yield from sorted(found, key=lambda node: node.index)
        else:
            yield from self.graph.nodes

    # ---- following values

    def _extend(
        self, order: list[tuple[Edge, bool]], place: int, calls: dict[int, Node], units: dict[int, Unit]
    ) -> Iterator[Chosen]:
        if place == len(order):
            yield Chosen(dict(calls), dict(units))
            return
        edge, ahead = order[place]
        known, wanted = (edge.source, edge.target) if ahead else (edge.target, edge.source)
        if wanted in calls:
            why = self._joined(edge, calls)
            if not why:
                yield from self._extend(order, place + 1, calls, units)
            else:
                self._stuck(Stuck(calls, wanted, known, ahead, (why,), (calls[wanted],)))
            return
        reasons: dict[Node, str] = {}
        seen: set[int] = set()
        for node, operand in self._next(calls[known], ahead=ahead):
            if node.index in seen:
                continue
            unit = self._try(wanted, node)
            why = unit if isinstance(unit, str) else self._why_not(edge, ahead, calls, node, operand)
            if isinstance(unit, Unit) and not why:
                seen.add(node.index)
                calls[wanted], units[wanted] = node, unit
                yield from self._extend(order, place + 1, calls, units)
                del calls[wanted], units[wanted]
            elif self.explaining:
                reasons.setdefault(node, why)
        left = {node: why for node, why in reasons.items() if node.index not in seen}
        self._stuck(Stuck(calls, wanted, known, ahead, tuple(left.values()), tuple(left)))

    def _why_not(self, edge: Edge, ahead: bool, calls: Mapping[int, Node], node: Node, operand: Operand) -> str:
        """Why a call that is what a link asks for is not the one at the end of this edge; empty if it is."""
        source, target = (calls[edge.source], node) if ahead else (node, calls[edge.target])
        for other in calls.values():
            if other is node:
                return "it stands for another call of the pattern already"
            if (node.composite and relation.is_inside(other, node)) or (
                other.composite and relation.is_inside(node, other)
            ):
                return f"one of `{node.name}` and `{other.name}` is a part of the other"
        if not _is_at(edge, operand):
            return f"the value goes into its input @{operand.name}, not @{edge.port}"
        return self._not_sole(source, target) if edge.sole else ""

    def _joined(self, edge: Edge, calls: Mapping[int, Node]) -> str:
        """Why no value goes along an edge whose two calls are both known; empty if one does."""
        source, target = calls[edge.source], calls[edge.target]
        taken = self.graph.taken.get(source.index, ())
        if len(taken) < len(target.inputs):
            goes = [operand for consumer, operand in taken if consumer is target]
        else:
            goes = [operand for operand in target.inputs if source in relation.producers(operand.value)]
        self._step(min(len(taken), len(target.inputs)))
        if not goes:
            return f"no value goes from `{source.name}` to it"
        if not any(_is_at(edge, operand) for operand in goes):
            return f"the value goes into its input @{goes[0].name}, not @{edge.port}"
        return self._not_sole(source, target) if edge.sole else ""

    def _not_sole(self, source: Node, target: Node) -> str:
        others = relation.other_users(self.graph, source, target)
        listed = list(itertools.islice(others, 4 if self.explaining else 1))
        return f"the value of `{source.name}` also goes to {', '.join(listed)}" if listed else ""

    def _next(self, node: Node, *, ahead: bool) -> Iterator[tuple[Node, Operand]]:
        """The calls that take a value of a call, or make one for it, each with the input that the value goes into."""
        if not ahead:
            for operand in node.inputs:
                for producer in relation.producers(operand.value):
                    self._step()
                    yield producer, operand
            return
        for consumer, operand in self.graph.taken.get(node.index, ()):
            self._step()
            yield consumer, operand

    def _try(self, number: int, node: Node) -> Unit | str:
        key = (number, node.index)
        found = self.cache.get(key)
        if found is None:
            found = self.cache[key] = self.fit(number, node)
        return found

    def _step(self, count: int = 1) -> None:
        self.steps += count
        limit = self.limit
        if self.steps > limit:
            raise Diagnostic(
                "RW321",
                f"this pattern is not found within {limit:,} steps",
                self.selector.span,
                notes=(f"{self.graph.name} has {len(self.graph.nodes):,} calls",),
                help="name operations instead of `any`, give ports (`add@1`), or say where with `in`",
            ).error()

    def _stuck(self, stuck: Stuck) -> None:
        if self.explaining and (self.deepest is None or len(stuck.calls) > len(self.deepest.calls)):
            self.deepest = replace(stuck, calls=dict(stuck.calls))


def _is_at(edge: Edge, operand: Operand) -> bool:
    return edge.port in (None, "*", operand.name, operand.number)


def _order(variant: Variant, start: int) -> list[tuple[Edge, bool]]:
    """The edges so that each has an end that is known by then; True: followed with the flow."""
    known, left, order = {start}, list(variant.edges), []
    while left:
        edge = next(
            (e for e in left if e.source in known and e.target in known),
            next((e for e in left if e.source in known or e.target in known), None),
        )
        assert edge is not None, "the chains of a pattern are connected"
        ahead = edge.source in known
        order.append((edge, ahead))
        known |= {edge.source, edge.target}
        left.remove(edge)
    return order
