"""Linked calls and questions about the dataflow, compared with a search that tries everything.

The oracle knows the definitions and nothing of the matcher: it lays every pattern on every choice of calls, and walks
every way through a graph.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
from graphs import graph, sites
from hypothesis import given, settings
from hypothesis import strategies as st

from rewrite.errors import RuleError
from rewrite.flow import Flow
from rewrite.graph import Graph, Node

MOST_WORK = 30_000
"""choices of calls that the oracle looks at for one pattern"""
LABELS = ("Conv2d", "ReLU", "BatchNorm2d", "add")


# ---- random graphs -------------------------------------------------------------------------------------------------


def random_graph(rng: Random, most: int = 10) -> str:
    """The text of a graph of a few calls, perhaps with an outer call around some of them."""
    count = rng.randint(2, most)
    first = last = -1
    if rng.random() < 0.4:
        first = rng.randrange(count)
        last = rng.randint(first + 1, count)
    labels = rng.sample(LABELS, rng.randint(2, 4))
    taken: list[str] = []
    outer, inner, lines = ["x"], [""][:0], [""][:0]
    for number in range(count):
        if number == first:
            taken = rng.sample(outer, min(len(outer), rng.randint(1, 2)))
            lines.append(f"blk=Block({', '.join(taken)} %)")
        in_block = first <= number < last
        near = [*(taken if in_block else outer), *inner][-4:]
        label = rng.choice(labels)
        arguments = [rng.choice(near) for _ in range(rng.randint(2, 3) if label == "add" else 1)]
        name = f"blk.n{number}" if in_block else f"n{number}"
        lines.append(f"{name}={label}({', '.join(arguments)})")
        (inner if in_block else outer).append(name)
        if number == last - 1:
            returned = inner[-1] if rng.random() < 0.7 else rng.choice([*inner, *taken])
            end = "!" if rng.random() < 0.15 else f"> {returned}"
            lines = [line.replace("%", end) for line in lines]
            inner = []
            outer.append("blk")
    outputs = [outer[-1], *(rng.sample(outer, 1) if rng.random() < 0.4 else ())]
    return "; ".join([*lines, f"-> {', '.join(outputs)}"])


# ---- random patterns -----------------------------------------------------------------------------------------------


@dataclass
class Link:
    """One link as it is written; `same` is the number of the link that it joins."""

    labels: tuple[str, ...]
    arrow: str
    optional: bool = False
    port: int | None = None
    same: int | None = None


@dataclass
class Pattern:
    """Chains of links, numbered through, and perhaps a comparison of two of them."""

    chains: list[list[Link]]
    where: tuple[int, str, int] | None = None

    def __str__(self) -> str:
        numbers = itertools.count()
        chains = []
        for chain in self.chains:
            text = ""
            for link in chain:
                number = next(numbers)
                name = f"c{link.same}" if link.same is not None else " | ".join(link.labels)
                port = "" if link.port is None else f"@{link.port}"
                if port and link.same is None:
                    name = " | ".join(f"{label}{port}" for label in link.labels)
                elif port:
                    name += port
                end = "" if link.same is not None else f"{'?' if link.optional else ''} as c{number}"
                text += f" {link.arrow} {name}{end}"
            chains.append(text.strip())
        text = ", ".join(chains)
        if self.where is not None:
            one, sign, other = self.where
            text += f" where c{one}.uses {sign} c{other}.uses"
        return text


def random_pattern(rng: Random, built: Graph) -> Pattern:
    """One to three chains along ways of the graph, some of it blurred; those behind the first join one in front."""
    pattern = Pattern([])
    needed: dict[int, Node] = {}
    number = 0
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        way = _way(rng, built, list(needed.values()))
        chain: list[Link] = []
        added: dict[int, Node] = {}
        for place, node in enumerate(way):
            arrow = "" if not place else ">>" if rng.random() < 0.2 else "->"
            same = next((role for role, other in needed.items() if other is node), None)
            into = [at for at, made in makers(node) if place and way[place - 1] in made]
            port = rng.choice(into) if into and node.operation == "add" and rng.random() < 0.3 else None
            if place and rng.random() < 0.2:  # perhaps missing, and perhaps never there
                chain.append(Link((rng.choice(LABELS),), arrow, optional=True))
                number += 1
            if same is not None and (rng.random() < 0.9 or not chain):
                chain.append(Link((), arrow, port=port, same=same))
            else:
                optional = rng.random() < 0.2
                chain.append(Link(_labels(rng, node, port), arrow, optional, port))
                if not optional:
                    added[number] = node
            number += 1
        pattern.chains.append(chain)
        needed |= added
    if len(needed) > 1 and rng.random() < 0.3:
        one, other = rng.sample(list(needed), 2)
        pattern.where = (one, rng.choice(("<", "<=", "==")), other)
    return pattern


def _labels(rng: Random, node: Node, port: int | None) -> tuple[str, ...]:
    own = node.operation or "Block"
    if rng.random() < 0.2:
        own = "any"
    if rng.random() < 0.2 and not port:
        return tuple(rng.sample((own, rng.choice([label for label in LABELS if label != own])), 2))
    return (own,)


def _way(rng: Random, built: Graph, through: list[Node]) -> list[Node]:
    """Some calls that a value goes along, one of them of `through`."""
    way = [rng.choice(through or built.nodes)]
    for _ in range(rng.randint(1, 2 if through else 3)):
        ahead = list(dict.fromkeys(takers(built, way[-1])))
        back = [maker for _, made in makers(way[0]) for maker in made]
        if not ahead and not back:
            break
        if ahead and (rng.random() < 0.5 or not back):
            way.append(rng.choice(ahead))
        else:
            way.insert(0, rng.choice(back))
    return way


# ---- the definition ------------------------------------------------------------------------------------------------


def makers(node: Node) -> Iterator[tuple[int, list[Node]]]:
    """For each input of a call: its number, and the calls whose value it is."""
    for operand in node.inputs:
        value = operand.value
        yield operand.number, [*([value.producer] if value.producer else []), *value.carriers]


def owners(node: Node) -> list[Node]:
    return [] if node.owner is None else [node.owner, *owners(node.owner)]


def is_through(built: Graph, node: Node) -> bool:
    """Whether an outer call is only the sum of its parts."""
    return node.composite and node.name not in built.opaque


def returned(built: Graph, node: Node) -> int:
    values = [[*([v.producer] if v.producer else []), *v.carriers] for v in built.outputs]
    return sum(node in made for made in values)


def takers(built: Graph, node: Node) -> list[Node]:
    """A call once for each of its inputs that a value of `node` goes into."""
    return [user for user in built.nodes for _, made in makers(user) if node in made]


def sole(built: Graph, source: Node, target: Node) -> bool:
    users = [user for user in takers(built, source) if not is_through(built, user)]
    return all(user is target or target in owners(user) for user in users) and not returned(built, source)


def uses(built: Graph, node: Node) -> int:
    return sum(not is_through(built, user) for user in takers(built, node)) + returned(built, node)


def can_be(link: Link, node: Node) -> bool:
    own = node.operation or "Block"
    return any(own == label or (label == "any" and not node.composite) for label in link.labels)


def all_matches(built: Graph, pattern: Pattern) -> list[tuple[int, ...]]:
    """The calls of each match in the order of the links."""
    flat = [link for chain in pattern.chains for link in chain]
    optional = [number for number, link in enumerate(flat) if link.optional]
    wanted = sorted(
        itertools.product((True, False), repeat=len(optional)), key=lambda there: (-sum(there), [not t for t in there])
    )
    found: dict[frozenset[int], tuple[int, ...]] = {}
    settled: set[frozenset[int]] = set()
    for there in wanted:
        missing = {number for number, is_there in zip(optional, there, strict=True) if not is_there}
        roles = [n for n, link in enumerate(flat) if link.same is None and n not in missing]
        choices = [[node for node in built.nodes if can_be(flat[role], node)] for role in roles]
        here: dict[frozenset[int], tuple[int, ...]] = {}
        for nodes in itertools.product(*choices):
            calls = dict(zip(roles, nodes, strict=True))
            if _fits(built, pattern, missing, calls):
                required = frozenset(node.index for role, node in calls.items() if role not in optional)
                key, indexes = frozenset(n.index for n in nodes), tuple(n.index for n in nodes)
                if required not in settled and indexes < here.get(key, (99,)):
                    here[key] = indexes
        for key, indexes in here.items():
            settled.add(frozenset(i for role, i in zip(roles, indexes, strict=True) if role not in optional))
            found.setdefault(key, indexes)
    return sorted(found.values())


def work(built: Graph, pattern: Pattern) -> int:
    """How many choices of calls there are, roughly."""
    own = [link for chain in pattern.chains for link in chain if link.same is None]
    return math.prod(sum(can_be(link, node) for node in built.nodes) + link.optional for link in own)


def _fits(built: Graph, pattern: Pattern, missing: set[int], calls: dict[int, Node]) -> bool:
    for one, other in itertools.combinations(calls.values(), 2):
        if one is other or one in owners(other) or other in owners(one):
            return False
    number = 0
    for chain in pattern.chains:
        previous: Node | None = None
        arrows: list[str] = []
        for link in chain:
            own = number if link.same is None else link.same
            arrows.append(link.arrow)
            if number not in missing:
                node = calls[own]
                if previous is not None:
                    into = [place for place, made in makers(node) if previous in made]
                    if not into or (link.port is not None and link.port not in into):
                        return False
                    if ">>" in arrows and not sole(built, previous, node):
                        return False
                previous, arrows = node, []
            number += 1
    if pattern.where is not None:
        one, sign, other = pattern.where
        a, b = uses(built, calls[one]), uses(built, calls[other])
        return a < b if sign == "<" else a <= b if sign == "<=" else a == b
    return True


def compare(rng: Random) -> int | None:
    """Compares matcher and oracle on a random pattern; the number of matches, None for an impossible pattern."""
    text = random_graph(rng)
    built = graph(text)
    pattern = random_pattern(rng, built)
    try:
        found, _ = sites(built, f"match {pattern}: expect any matches")
    except RuleError as error:
        if error.code in ("RW108", "RW016"):
            return None
        raise
    if len(pattern.chains[0]) == 1 or work(built, pattern) > MOST_WORK:
        return None
    there = [tuple(node.index for node in match.nodes) for match in found]
    expected = all_matches(built, pattern)
    assert there == expected, f"{text}\nmatch {pattern}\n{there}\n{expected}"
    return len(there)


SEEDS = st.integers(0, 2**48)


@settings(max_examples=300)
@given(SEEDS)
def test_matches(seed: int) -> None:
    compare(Random(seed))


@pytest.mark.long
@settings(max_examples=20_000)
@given(SEEDS)
def test_matches_long(seed: int) -> None:
    compare(Random(seed))


# ---- questions about the dataflow ----------------------------------------------------------------------------------


class Ways:
    """Every way through a graph, walked call by call; `None` stands for the inputs of the model."""

    def __init__(self, built: Graph) -> None:
        self.built = built
        self.next: dict[Node | None, list[Node]] = {None: []}
        for node in built.nodes:
            found = [] if is_through(built, node) else list(dict.fromkeys(takers(built, node)))
            if not node.linked and node.owner is not None:
                found.append(node.owner)
            found += [part for part in built.nodes if part.owner is node and not part.linked]
            self.next[node] = found
            for _, made in makers(node):
                if all(is_through(built, maker) for maker in made):
                    self.next[None].append(node)

    def ahead(self, way: list[Node | None]) -> Iterator[list[Node | None]]:
        """Every way that begins so, without a call twice."""
        yield way
        for node in self.next[way[-1]]:
            if node not in way:
                yield from self.ahead([*way, node])

    def reaches(self, node: Node, target: Node) -> bool:
        first = takers(self.built, node) if is_through(self.built, node) else self.next[node]
        return any(way[-1] is target for start in first for way in self.ahead([start]))

    def to(self, target: Node) -> list[list[Node | None]]:
        return [way for way in self.ahead([None]) if way[-1] is target]

    def dominates(self, node: Node, target: Node) -> bool:
        if target is node or (node in owners(target) and is_through(self.built, node)):
            return False
        parts = self.parts(node)
        ways = self.to(target)
        return bool(ways) and all(any(part in way for part in parts) for way in ways)

    def in_branch(self, node: Node, merge: Node) -> bool:
        """Whether the call, or all of an outer call, lies behind the last call that all ways to the merge share."""
        ways = self.to(merge)
        if not ways:
            return False
        split = max(ways[0].index(step) for step in ways[0][:-1] if all(step in way for way in ways))
        behind = {step for way in ways for step in way[way.index(ways[0][split]) + 1 : -1]}
        parts = self.parts(node)
        return bool(parts) and all(part in behind for part in parts)

    def parts(self, node: Node) -> list[Node]:
        if not is_through(self.built, node):
            return [node]
        return [n for n in self.built.nodes if node in owners(n) and not is_through(self.built, n)]


def compare_flow(rng: Random) -> None:
    text = random_graph(rng, 9)
    built = graph(text)
    flow, ways = Flow(built), Ways(built)
    for node in built.nodes:
        if not node.linked:
            continue
        targets = rng.sample(built.nodes, rng.randint(1, 2))
        asked = f"{text}\n{node.name} and {[target.name for target in targets]}"
        assert flow.reaches(node, targets) == any(ways.reaches(node, t) for t in targets), f"reaches: {asked}"
        assert flow.reached_from(node, targets) == any(ways.reaches(t, node) for t in targets), f"reached: {asked}"
        assert flow.dominates(node, targets) == any(ways.dominates(node, t) for t in targets), f"dominates: {asked}"
        assert flow.in_branch(node, targets) == any(ways.in_branch(node, t) for t in targets), f"in_branch: {asked}"


@settings(max_examples=300)
@given(SEEDS)
def test_flow(seed: int) -> None:
    compare_flow(Random(seed))


@pytest.mark.long
@settings(max_examples=20_000)
@given(SEEDS)
def test_flow_long(seed: int) -> None:
    compare_flow(Random(seed))
