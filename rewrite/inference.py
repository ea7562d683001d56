"""Sizes of values: what lets a rule leave `num_features` out.

With an example input the backend has recorded exact shapes. Without one, a size is looked for along the dataflow:
through operations that keep it, back to one that sets it or on to one that needs it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rewrite.graph import Graph, Node, Operand, TensorType, Value
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation, Shape


class Inference:
    """Answers questions about the sizes of one graph's values; remembers the answers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._sizes: dict[tuple[int, tuple[int | str, ...], int], int | None] = {}

    def type_of(self, value: Value) -> TensorType:
        """All that is known of a value."""
        exact = self._exact(value)
        if exact is not None:
            return exact
        sizes = {axis: size for axis in (1, -1) if (size := self.size(value, axis)) is not None}
        return TensorType(sizes, self.rank(value))

    def behind(self, node: Node) -> TensorType:
        """Type of the main output of a call."""
        return self.type_of(self.main_output(node))

    def main_output(self, node: Node) -> Value:
        """The value that `after node` speaks of."""
        return Value(node, (0,) if node.outputs not in (0, 1) else ())

    def size(self, value: Value, axis: int) -> int | None:
        """Size of one axis of a value, 1 for the channels or -1 for the last; None if nothing tells."""
        exact = self._exact(value)
        if exact is not None:
            return exact.size(axis)
        if value.producer is None:
            return self._search([value], axis)
        key = (value.producer.index, value.index, axis)
        if key not in self._sizes:
            self._sizes[key] = None  # a loop through a cat ends here
            self._sizes[key] = self._search([value], axis)
        return self._sizes[key]

    def rank(self, value: Value) -> int | None:
        """Number of axes of a value, as far as the operations that it passes say."""
        for _ in range(len(self.graph.nodes)):
            exact = self._exact(value)
            if exact is not None and exact.shape is not None:
                return len(exact.shape)
            node = value.producer
            operation = _operation(node)
            if node is None or operation is None:
                return None
            if operation.rank is not None and operation.shape in (Shape.SAME, Shape.CHANNELS):
                return operation.rank
            if operation.rank is not None and operation.writes:
                return operation.rank
            if operation.name in ("Flatten", "flatten") and node.attributes.get("start_dim") == 1:
                return 2
            if not node.inputs or (operation.shape is Shape.OTHER and operation.family != "linear"):
                return None
            value = node.inputs[0].value
        return None

    def _exact(self, value: Value) -> TensorType | None:
        if value.producer is None or not self.graph.types:
            return None
        return self.graph.types.get((value.producer.index, value.index))

    def _search(self, start: list[Value], axis: int) -> int | None:
        """Breadth-first over the values that have the same size on `axis`; the nearest call that states it wins."""
        queue: deque[tuple[Value, bool]] = deque((value, False) for value in start)
        seen: set[tuple[int, tuple[int | str, ...]] | int] = set()
        while queue:
            value, stretched = queue.popleft()
            key = id(value) if value.producer is None else (value.producer.index, value.index)
            if key in seen:
                continue
            seen.add(key)
            stated = self._stated(value, axis)
            # Where operands broadcast, a size of 1 is stretched and says nothing about the other one.
            if stated is not None and not (stretched and stated == 1):
                return stated
            queue.extend(self._same_size(value, axis, stretched))
        return None

    def _stated(self, value: Value, axis: int) -> int | None:
        """What the producer or a direct consumer of a value says about its size."""
        exact = self._exact(value)
        if exact is not None:
            return exact.size(axis)
        node = value.producer
        operation = _operation(node)
        if node is not None and operation is not None and value.index in ((), (0,)):
            for argument, written in operation.writes.items():
                if _same_axis(written, axis, operation.rank):
                    return _whole(node.attributes.get(argument))
            if operation.shape is Shape.SAME and _exact_layer(node):
                for argument, read in operation.reads.items():
                    if _same_axis(read, axis, operation.rank):
                        return _last(node.attributes.get(argument))
            if operation.shape is Shape.CAT:
                return self._joined(node, axis)
            if operation.shape is Shape.SPLIT:
                return None
        for consumer, _ in self._consumers(value):
            needs = _operation(consumer)
            if needs is None or not _exact_layer(consumer):
                continue
            for argument, read in needs.reads.items():
                if _same_axis(read, axis, needs.rank):
                    return _last(consumer.attributes.get(argument))
        return None

    def _joined(self, node: Node, axis: int) -> int | None:
        """Size behind a concatenation: the sum on the joined axis."""
        if _whole(node.attributes.get("dim", 0)) != axis:
            return None
        total = 0
        for operand in node.inputs:
            size = self.size(operand.value, axis)
            if size is None:
                return None
            total += size
        return total

    def _same_size(self, value: Value, axis: int, stretched: bool) -> Iterator[tuple[Value, bool]]:
        """Values whose size on `axis` equals that of `value`, one step away."""
        node = value.producer
        operation = _operation(node)
        if node is not None and operation is not None and _keeps(operation, node, axis):
            merges = operation.shape is Shape.BROADCAST
            for operand in node.inputs if merges or operation.shape is Shape.CAT else node.inputs[:1]:
                yield operand.value, stretched or merges
        elif node is not None and node.composite:
            for operand in self.graph.inner_outputs.get(node.index, ()):
                yield operand, stretched
        for consumer, operand in self._consumers(value):
            needs = _operation(consumer)
            if needs is None or not _keeps(needs, consumer, axis):
                continue
            if operand.number == 0 or needs.shape in (Shape.BROADCAST, Shape.CAT):
                yield Value(consumer), stretched or needs.shape is Shape.BROADCAST

    def _consumers(self, value: Value) -> Iterator[tuple[Node, Operand]]:
        if value.producer is None:
            return
        for consumer, operand in self.graph.uses.get(value.producer.index, ()):
            if operand.value.index == value.index:
                yield consumer, operand


def _operation(node: Node | None) -> Operation | None:
    return OPERATIONS.get(node.operation) if node is not None and node.operation is not None else None


def _exact_layer(node: Node) -> bool:
    return node.layer is None or node.layer.exact


def _keeps(operation: Operation, node: Node, axis: int) -> bool:
    """Whether the output of a call has the size of its (first) input on `axis`."""
    match operation.shape:
        case Shape.SAME | Shape.BROADCAST:
            return True
        case Shape.CHANNELS:
            return axis == 1
        case Shape.CAT | Shape.SPLIT:
            dim = _whole(node.attributes.get("dim", 0))
            return dim is not None and dim >= 0 and axis >= 0 and dim != axis
        case Shape.OTHER:
            return False


def _same_axis(one: int, other: int, rank: int | None) -> bool:
    if one == other:
        return True
    return rank is not None and one % rank == other % rank


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _last(value: object) -> int | None:
    """A size, or the last of several (`normalized_shape`)."""
    if isinstance(value, tuple) and value:
        return _whole(value[-1])
    return _whole(value)
