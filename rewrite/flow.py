"""Questions about the dataflow of a whole graph, asked of networkx: what reaches what, what all paths pass, branches.

Nodes of the flow graph are numbers of calls; calls inside an outer call and the outer call itself both stand in it, each
with the values that it takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rewrite.graph import Graph, Node
from rewrite.selectors import relation

if TYPE_CHECKING:
    import networkx

_INPUT = -1
"""the inputs of the model, as one node"""
_OUTPUT = -2
"""what the model returns, as one node"""


class Flow:
    """The dataflow of one graph; what is worked out for one question is kept for the next."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._sets: dict[tuple[str, frozenset[int]], frozenset[int]] = {}

    @cached_property
    def digraph(self) -> networkx.DiGraph[int]:
        """An edge from each call to each call that takes a value of it."""
        import networkx  # 0.3 s, and only these questions need it

        flow: networkx.DiGraph[int] = networkx.DiGraph()
        flow.add_nodes_from(node.index for node in self.graph.nodes)
        for node in self.graph.nodes:
            for operand in node.inputs:
                producers = relation.producers(operand.value)
                flow.add_edges_from((producer.index, node.index) for producer in producers)
        return flow

    @cached_property
    def _leaves(self) -> networkx.DiGraph[int]:
        """The same without outer calls, whose parts say more, and with the inputs and outputs of the model."""
        import networkx

        composite = {node.index for node in self.graph.nodes if node.composite}
        flow: networkx.DiGraph[int] = networkx.DiGraph()
        flow.add_edges_from(
            (source, target)
            for source, target in self.digraph.edges
            if source not in composite and target not in composite
        )
        flow.add_nodes_from(node.index for node in self.graph.nodes if not node.composite)
        starts = [index for index, degree in flow.in_degree() if not degree]
        flow.add_edges_from((_INPUT, index) for index in starts)
        # A value of the model's input stands for no call, so whoever takes one is fed from there as well.
        flow.add_edges_from(
            (_INPUT, node.index)
            for node in self.graph.nodes
            if not node.composite and any(operand.value.producer is None for operand in node.inputs)
        )
        ends = {value.producer.index for value in self.graph.outputs if value.producer is not None} & set(flow)
        flow.add_edges_from((index, _OUTPUT) for index in ends)
        return flow

    @cached_property
    def _dominators(self) -> dict[int, int]:
        import networkx

        if _INPUT not in self._leaves:
            return {}
        found: dict[int, int] = dict(networkx.immediate_dominators(self._leaves, _INPUT))
        return found

    def shortest(self, sources: Iterable[Node], targets: Iterable[Node]) -> list[Node] | None:
        """The calls on a shortest way from one of `sources` to one of `targets`, both ends included."""
        import networkx

        starts = {node.index for node in sources}
        ends = {node.index for node in targets}
        if not starts or not ends:
            return None
        distances, ways = networkx.multi_source_dijkstra(self.digraph, starts)
        reached = [index for index in ends if distances.get(index)]
        if not reached:
            return None
        way = ways[min(reached, key=lambda index: (distances[index], index))]
        return [self.graph.nodes[index] for index in way]

    def reaches(self, node: Node, targets: Iterable[Node]) -> bool:
        """Whether a value of `node` goes, through any number of calls, into one of `targets`."""
        return node.index in self._closed("back", targets)

    def reached_from(self, node: Node, sources: Iterable[Node]) -> bool:
        """Whether a value of one of `sources` goes, through any number of calls, into `node`."""
        return node.index in self._closed("ahead", sources)

    def _closed(self, way: str, ends: Iterable[Node]) -> frozenset[int]:
        """All calls in front of or behind some others, those themselves only where they are so of each other."""
        import networkx

        numbers = frozenset(node.index for node in ends)
        found = self._sets.get((way, numbers))
        if found is None:
            graph: Any = self.digraph.reverse(copy=False) if way == "back" else self.digraph
            first = {index for number in numbers for index in graph.successors(number)}
            found = frozenset(first.union(*networkx.bfs_layers(graph, list(first)))) if first else frozenset()
            self._sets[way, numbers] = found
        return found

    def dominates(self, node: Node, targets: Iterable[Node]) -> bool:
        """Whether every way from the inputs of the model to one of `targets` passes `node`."""
        numbers = frozenset(target.index for target in targets)
        found = self._sets.get(("dominates", numbers))
        if found is None:
            above: set[int] = set()
            for number in numbers:
                upper = self._dominators.get(number)
                while upper is not None and upper not in above and upper != _INPUT:
                    above.add(upper)
                    upper = self._dominators.get(upper)
            found = self._sets["dominates", numbers] = frozenset(above)
        return node.index in found

    def in_branch(self, node: Node, merges: Iterable[Node]) -> bool:
        """Whether `node` lies on a branch that ends at one of `merges`: behind the split where its ways part."""
        numbers = frozenset(merge.index for merge in merges)
        found = self._sets.get(("branch", numbers))
        if found is None:
            inside: set[int] = set()
            for number in numbers:
                inside |= self.region(self.graph.nodes[number])
            found = self._sets["branch", numbers] = frozenset(inside)
        return node.index in found

    def region(self, merge: Node) -> set[int]:
        """Numbers of the calls between a merge and the split that all its ways come from, both left out."""
        split = self._dominators.get(merge.index)
        if split is None:
            return set()
        inside: set[int] = set()
        waiting = [merge.index]
        while waiting:
            for source in self._leaves.predecessors(waiting.pop()):
                if source not in inside and source not in (split, _INPUT):
                    inside.add(source)
                    waiting.append(source)
        return inside
