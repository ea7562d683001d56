"""Questions about the dataflow of a whole graph, asked of networkx: what reaches what, what all paths pass, branches.

Nodes of the flow graph are numbers of calls. An outer call whose parts are known only ends edges there: where its value
comes from is what its parts say. One whose forward could not be captured is a call like any other, and the calls in it
count as reached by what goes in, and as reaching what comes out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rewrite.graph import Graph, Node, Operand
from rewrite.selectors import relation

if TYPE_CHECKING:
    import networkx

_INPUT = -1
"""the inputs of the model, as one node"""


class Flow:
    """The dataflow of one graph; what is worked out for one question is kept for the next."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._sets: dict[tuple[str, frozenset[Node]], frozenset[int]] = {}

    @cached_property
    def digraph(self) -> networkx.DiGraph[int]:
        """An edge from each call to each call that takes a value of it, and from the inputs of the model."""
        import networkx  # 0.3 s, and only these questions need it

        flow: networkx.DiGraph[int] = networkx.DiGraph()
        flow.add_nodes_from((_INPUT, *(node.index for node in self.graph.nodes)))
        for node in self.graph.nodes:
            for operand in node.inputs:
                flow.add_edges_from((source, node.index) for source in self._sources(node, operand))
            if node.owner is None:
                continue
            if not node.linked:
                flow.add_edges_from(((node.owner.index, node.index), (node.index, node.owner.index)))
            elif not node.owner.linked and node.index not in self.graph.uses:
                flow.add_edge(node.index, node.owner.index)
        return flow

    def _sources(self, node: Node, operand: Operand) -> list[int]:
        """The calls that an input of a call comes from, those that only pass it on left out."""
        value = operand.value
        if value.producer is None and not value.known and node.owner is not None:
            return [node.owner.index]
        made = [source.index for source in relation.producers(value) if not relation.is_outer(self.graph, source)]
        return made or [_INPUT]

    @cached_property
    def _dominators(self) -> dict[int, int]:
        """The last call that all ways from the inputs to a call have in common, where there is a way at all."""
        import networkx

        found: dict[int, int] = dict(networkx.immediate_dominators(self.digraph, _INPUT))
        return found

    def shortest(self, sources: Iterable[Node], targets: Iterable[Node]) -> list[Node] | None:
        """The calls on a shortest way from one of `sources` to one of `targets`, both ends included."""
        ends = {node.index for node in targets}
        starts = {leaf.index for node in sources for leaf in self._ends(node)}
        before: dict[int, int] = {}
        waiting = deque(sorted(starts))
        while waiting:
            index = waiting.popleft()
            for following in sorted(self.digraph.successors(index)):
                if following in before or following in starts:
                    continue
                before[following] = index
                if following in ends:
                    way = [following]
                    while way[-1] in before:
                        way.append(before[way[-1]])
                    return [self.graph.nodes[number] for number in reversed(way)]
                waiting.append(following)
        return None

    def _ends(self, node: Node) -> list[Node]:
        """The calls that make what a call returns."""
        made = relation.sources_inside(self.graph, node) if relation.is_outer(self.graph, node) else [node]
        return [source for source in made if not relation.is_outer(self.graph, source)]

    def _parts(self, node: Node) -> set[int]:
        """The calls in an outer call, as far as they say where values go."""
        return {
            part.index
            for part in self.graph.nodes
            if relation.is_inside(part, node) and not relation.is_outer(self.graph, part)
        }

    def _passed(self, node: Node) -> Iterable[int]:
        """The calls that take a value of a call directly."""
        if relation.is_outer(self.graph, node) and node.linked:
            return [consumer.index for consumer in relation.consumers(self.graph, node)]
        return list(self.digraph.successors(node.index))

    def reaches(self, node: Node, targets: Iterable[Node]) -> bool:
        """Whether a value of `node` goes, through any number of calls, into one of `targets`."""
        ends = frozenset(targets)
        found = self._sets.get(("back", ends))
        if found is None:
            numbers = frozenset(target.index for target in ends)
            found = self._sets["back", ends] = self._closed("back", numbers) | numbers
        return any(index in found for index in self._passed(node))

    def reached_from(self, node: Node, sources: Iterable[Node]) -> bool:
        """Whether a value of one of `sources` goes, through any number of calls, into `node`."""
        ends = frozenset(sources)
        found = self._sets.get(("ahead", ends))
        if found is None:
            first = frozenset(index for source in ends for index in self._passed(source))
            found = self._sets["ahead", ends] = self._closed("ahead", first) | first
        return node.index in found

    def _closed(self, way: str, first: frozenset[int]) -> frozenset[int]:
        """All calls in front of or behind some others."""
        import networkx

        graph: Any = self.digraph.reverse(copy=False) if way == "back" else self.digraph
        return frozenset().union(*networkx.bfs_layers(graph, list(first))) if first else frozenset()

    def dominates(self, node: Node, targets: Iterable[Node]) -> bool:
        """Whether every way from the inputs of the model to one of `targets` passes `node`."""
        ends = frozenset(targets)
        if relation.is_outer(self.graph, node):
            cut_off = self._cut_off(node)
            return any(target.index in cut_off for target in ends)
        found = self._sets.get(("dominates", ends))
        if found is None:
            above: set[int] = set()
            for target in ends:
                upper = self._dominators.get(target.index)
                while upper is not None and upper not in above and upper != _INPUT:
                    above.add(upper)
                    upper = self._dominators.get(upper)
            found = self._sets["dominates", ends] = frozenset(above)
        return node.index in found

    def _cut_off(self, node: Node) -> frozenset[int]:
        """The calls behind an outer call that nothing would reach without what is in it."""
        found = self._sets.get(("cut", frozenset((node,))))
        if found is None:
            parts = self._parts(node)
            reached = {_INPUT}
            waiting = [_INPUT]
            while waiting:
                for following in self.digraph.successors(waiting.pop()):
                    if following not in reached and following not in parts:
                        reached.add(following)
                        waiting.append(following)
            inside = {part.index for part in self.graph.nodes if relation.is_inside(part, node)}
            found = frozenset(self._dominators.keys() - reached - inside)
            self._sets["cut", frozenset((node,))] = found
        return found

    def in_branch(self, node: Node, merges: Iterable[Node]) -> bool:
        """Whether `node` lies on a branch that ends at one of `merges`: behind the split where its ways part."""
        ends = frozenset(merges)
        found = self._sets.get(("branch", ends))
        if found is None:
            found = self._sets["branch", ends] = frozenset().union(*(self.region(merge) for merge in ends))
        if relation.is_outer(self.graph, node):
            parts = self._parts(node)
            return bool(parts) and parts <= found
        return node.index in found

    def region(self, merge: Node) -> set[int]:
        """Numbers of the calls between a merge and the split that all its ways come from, both left out."""
        split = self._dominators.get(merge.index)
        if split is None:
            return set()
        inside: set[int] = set()
        waiting = [merge.index]
        while waiting:
            for source in self.digraph.predecessors(waiting.pop()):
                if source not in inside and source not in (split, _INPUT, merge.index) and source in self._dominators:
                    inside.add(source)
                    waiting.append(source)
        return inside
