"""Linked calls found in a graph: the pattern is laid on where its rarest call is, and followed along the values.

So a pattern costs as much as there are calls like its rarest one, times what hangs at each. A budget of steps ends what
would take too long with a diagnostic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rewrite.chains import Edge, Variant, is_any, variants
from rewrite.errors import Diagnostic
from rewrite.graph import Graph, Node, Operand
from rewrite.pattern import Link, Selector, Unit
from rewrite.selectors import relation

_STEPS = 200_000
_STEPS_PER_CALL = 40


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
    why: tuple[str, ...]
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

    def run(self) -> list[Chosen]:
        """Every way in which the selector fits, in order of execution; those that differ by swapped roles once."""
        found: list[Chosen] = []
        seen: set[frozenset[int]] = set()
        needed = [number for number, link in enumerate(self.selector.links) if not link.optional]
        complete: set[tuple[int, ...]] = set()
        for variant in variants(self.selector):
            earlier = frozenset(complete)
            start = self._rarest(variant)
            order = _order(variant, start)
            for node in self._candidates(start):
                unit = self._try(start, node)
                if isinstance(unit, str):
                    continue
                for chosen in self._extend(order, 0, {start: node}, {start: unit}):
                    required = tuple(chosen.calls[n].index for n in needed if n in chosen.calls)
                    key = frozenset(chosen.indexes)
                    if key in seen or required in earlier:
                        continue
                    seen.add(key)
                    complete.add(required)
                    found.append(chosen)
        found.sort(key=lambda chosen: chosen.indexes)
        return found

    def explain(self) -> list[Stuck]:
        """From each call that the first link fits by its kind, how far the pattern went before it failed."""
        self.explaining = True
        result = []
        for node in self.graph.nodes:
            best: Stuck | None = None
            for variant in variants(self.selector):
                first = min(variant.present)
                unit = self._try(first, node)
                if isinstance(unit, str):
                    continue
                self.deepest = None
                order = _order(variant, first)
                if next(self._extend(order, 0, {first: node}, {first: unit}), None) is not None:
                    best = None
                    break
                reached: Stuck | None = self.deepest
                if reached is not None and (best is None or len(reached.calls) > len(best.calls)):
                    best = reached
            if best is not None:
                result.append(best)
        return result

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
                self._stuck(calls, wanted, [why], [calls[wanted]])
            return
        reasons: list[str] = []
        tried: list[Node] = []
        taken = {node.index for node in calls.values()}
        seen: set[int] = set()
        for node, operand in self._next(calls[known], ahead=ahead):
            if node.index in taken or node.index in seen:
                continue
            unit = self._try(wanted, node)
            why = unit if isinstance(unit, str) else ""
            if isinstance(unit, Unit):
                source, target = (calls[known], node) if ahead else (node, calls[known])
                if not _is_at(edge, operand):
                    why = f"the value goes into its input @{operand.name}, not @{edge.port}"
                elif edge.sole:
                    why = self._not_sole(source, target)
                if not why:
                    seen.add(node.index)
                    calls[wanted], units[wanted] = node, unit
                    yield from self._extend(order, place + 1, calls, units)
                    del calls[wanted], units[wanted]
                    continue
            if self.explaining:
                reasons.append(why)
                tried.append(node)
        self._stuck(calls, wanted, reasons, tried)

    def _joined(self, edge: Edge, calls: Mapping[int, Node]) -> str:
        """Why no value goes along an edge whose two calls are both known; empty if one does."""
        source, target = calls[edge.source], calls[edge.target]
        self._step()
        goes = [operand for operand in target.inputs if source in relation.producers(operand.value)]
        if not goes:
            return f"no value goes from `{source.name}` to it"
        if not any(_is_at(edge, operand) for operand in goes):
            return f"the value goes into its input @{goes[0].name}, not @{edge.port}"
        return self._not_sole(source, target) if edge.sole else ""

    def _not_sole(self, source: Node, target: Node) -> str:
        others = relation.other_users(self.graph, source, target)
        if not others:
            return ""
        listed = ", ".join(others[:4])
        return f"the value of `{source.name}` also goes to {listed}"

    def _next(self, node: Node, *, ahead: bool) -> Iterator[tuple[Node, Operand]]:
        if not ahead:
            for operand in node.inputs:
                for producer in relation.producers(operand.value):
                    yield producer, operand
            return
        for producer in relation.sources_inside(self.graph, node) if node.composite else (node,):
            for consumer, operand in self.graph.uses.get(producer.index, ()):
                if producer is node or node in operand.value.carriers:
                    yield consumer, operand

    def _try(self, number: int, node: Node) -> Unit | str:
        key = (number, node.index)
        found = self.cache.get(key)
        if found is None:
            found = self.cache[key] = self.fit(number, node)
        self._step()
        return found

    def _step(self) -> None:
        self.steps += 1
        limit = _STEPS + _STEPS_PER_CALL * len(self.graph.nodes) * len(self.selector.links)
        if self.steps > limit:
            raise Diagnostic(
                "RW321",
                f"this pattern is not found within {limit:,} steps",
                self.selector.span,
                notes=(f"{self.graph.name} has {len(self.graph.nodes):,} calls",),
                help="name operations instead of `any`, give ports (`add@1`), or say where with `in`",
            ).error()

    def _stuck(self, calls: Mapping[int, Node], link: int, why: list[str], tried: list[Node]) -> None:
        if self.explaining and (self.deepest is None or len(calls) > len(self.deepest.calls)):
            self.deepest = Stuck(dict(calls), link, tuple(why), tuple(tried))


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
