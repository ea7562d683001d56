"""Sizes of values: what lets a rule leave `num_features` out.

With an example input the backend has recorded exact shapes. Without one, values that must have the same size are put
into one class (an activation keeps all sizes, a pool the channels, an addition those of its operands), and whatever one
call states about its input or output holds for the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from rewrite.graph import Graph, Node, TensorType, Value
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation, Shape

_Key = tuple[int, tuple[int | str, ...]] | int
"""a value: (index of its producer, part), or the identity of an input of the model"""


class _Classes:
    """Values in classes of equals, and the facts that are known of each class (a union-find)."""

    def __init__(self) -> None:
        self.parents: dict[_Key, _Key] = {}
        self.facts: dict[_Key, set[int]] = {}

    def find(self, key: _Key) -> _Key:
        parents = self.parents
        root = key
        while (above := parents.get(root, root)) != root:
            root = above
        while key != root:
            parents[key], key = root, parents.get(key, key)
        return root

    def unite(self, one: _Key, other: _Key) -> None:
        a, b = self.find(one), self.find(other)
        if a != b:
            self.parents[b] = a
            if b in self.facts:
                self.facts.setdefault(a, set()).update(self.facts.pop(b))

    def state(self, key: _Key, fact: int) -> None:
        self.facts.setdefault(self.find(key), set()).add(fact)

    def known(self, key: _Key) -> set[int]:
        return self.facts.get(self.find(key), set())


class Inference:
    """Answers questions about the sizes of one graph's values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._axes: dict[int, tuple[_Classes, _Classes, dict[_Key, int]]] = {}

    def type_of(self, value: Value, axes: Iterable[int] = (1, -1)) -> TensorType:
        """What is known of a value: its rank, and its sizes on `axes`."""
        exact = self._exact(value)
        if exact is not None:
            return exact
        sizes = {axis: size for axis in axes if (size := self.size(value, axis)) is not None}
        return TensorType(sizes, self.rank(value))

    def behind(self, node: Node, axes: Iterable[int] = (1, -1)) -> TensorType:
        """Type of the main output of a call."""
        return self.type_of(self.main_output(node), axes)

    def main_output(self, node: Node) -> Value:
        """The value that `after node` speaks of."""
        if node.composite:
            inner = self.graph.inner_outputs.get(node.index, ())
            if inner:
                return inner[0]
        return Value(node, (0,) if node.outputs not in (0, 1) else ())

    def size(self, value: Value, axis: int) -> int | None:
        """Size of one axis of a value, 1 for the channels or -1 for the last; None if nothing tells."""
        exact = self._exact(value)
        if exact is not None:
            return exact.size(axis)
        if axis not in self._axes:
            self._axes[axis] = self._classes(axis)
        equal, merged, stated = self._axes[axis]
        key = _key(value)
        if key in stated:
            return stated[key]
        facts = equal.known(key)
        if not facts:
            # Where operands broadcast, a size of 1 is stretched and says nothing about the other one.
            facts = merged.known(key)
            facts = facts - {1} or facts
        return next(iter(facts)) if len(facts) == 1 else None

    def rank(self, value: Value) -> int | None:
        """Number of axes of a value, batch included, as far as the operations around it say."""
        exact = self._exact(value)
        if exact is not None:
            return exact.rank
        facts = self._ranks.known(_key(value))
        return next(iter(facts)) if len(facts) == 1 else None

    def _exact(self, value: Value) -> TensorType | None:
        if value.producer is None or not self.graph.types:
            return None
        return self.graph.types.get((value.producer.index, value.index))

    # ---- classes of equal size on one axis

    def _classes(self, axis: int) -> tuple[_Classes, _Classes, dict[_Key, int]]:
        """(classes without broadcasting, classes with it, what calls state directly)."""
        equal, merged = _Classes(), _Classes()
        stated: dict[_Key, int] = {}
        later: list[tuple[Node, Operation]] = []

        def state(key: _Key, size: int | None) -> None:
            if size is not None:
                stated.setdefault(key, size)
                equal.state(key, size)
                merged.state(key, size)

        for node, operation in self._operations():
            out: _Key = (node.index, (0,) if operation.outputs not in (0, 1) else ())
            for argument, written in operation.writes.items():
                if _same_axis(written, axis, operation.rank):
                    state(out, _whole(node.attributes.get(argument)))
            if node.inputs and (node.layer is None or node.layer.exact):
                for argument, read in operation.reads.items():
                    if _same_axis(read, axis, operation.rank):
                        state(_key(node.inputs[0].value), _last(node.attributes.get(argument)))
            if operation.shape in (Shape.SPLIT, Shape.CAT) and _dim(node) == axis:
                later.append((node, operation))
            elif node.inputs and _keeps(operation, node, axis):
                broadcasts = operation.shape is Shape.BROADCAST
                several = broadcasts or operation.shape is Shape.CAT
                parts = self._parts(node) if operation.shape is Shape.SPLIT else [out]
                for operand in node.inputs if several else node.inputs[:1]:
                    for part in parts:
                        merged.unite(part, _key(operand.value))
                        if not broadcasts:
                            equal.unite(part, _key(operand.value))
        for made, of_wrapped in self._wrapped():
            merged.unite(made, of_wrapped)
            equal.unite(made, of_wrapped)
        # In order of execution, so that a sum of sums is known when its parts are.
        self._axes[axis] = (equal, merged, stated)
        for node, operation in later:
            sizes = [self.size(operand.value, axis) for operand in node.inputs]
            known = [size for size in sizes if size is not None]
            if not known or len(known) < len(sizes):
                continue
            if operation.shape is Shape.CAT:
                state((node.index, ()), sum(known))
            elif isinstance(chunks := node.attributes.get("chunks"), int) and chunks > 0 and known[0] % chunks == 0:
                for part in self._parts(node):
                    state(part, known[0] // chunks)
        return self._axes[axis]

    @cached_property
    def _ranks(self) -> _Classes:
        classes = _Classes()
        for node, operation in self._operations():
            out: _Key = (node.index, (0,) if operation.outputs not in (0, 1) else ())
            keeps = operation.shape is not Shape.OTHER or operation.family in ("linear", "conv")
            if operation.rank is not None and keeps and (node.layer is None or node.layer.exact):
                classes.state(out, operation.rank)
                if node.inputs:
                    classes.state(_key(node.inputs[0].value), operation.rank)
            elif operation.name in ("Flatten", "flatten") and node.attributes.get("start_dim") == 1:
                if node.attributes.get("end_dim") == -1:
                    classes.state(out, 2)
            elif keeps and operation.name not in ("stack", "unbind") and node.inputs:
                parts = self._parts(node) if operation.shape is Shape.SPLIT else [out]
                for part in parts:
                    classes.unite(part, _key(node.inputs[0].value))
        for made, of_wrapped in self._wrapped():
            classes.unite(made, of_wrapped)
        return classes

    def _wrapped(self) -> Iterator[tuple[_Key, _Key]]:
        """What a layer around another one makes, and what that one makes: adapters keep the shape."""
        for node in self.graph.nodes:
            if node.layer is None or not node.layer.wrapped or not self.graph.inner_outputs.get(node.index):
                continue
            inner = [call for call in self.graph.calls.get(node.layer.wrapped, ()) if call.owner is node]
            if len(inner) == 1:
                yield _key(self.main_output(node)), _key(self.main_output(inner[0]))

    def _operations(self) -> Iterator[tuple[Node, Operation]]:
        for node in self.graph.nodes:
            operation = OPERATIONS.get(node.operation) if node.operation is not None else None
            if operation is not None:
                yield node, operation

    def _parts(self, node: Node) -> list[_Key]:
        """The pieces that a split makes, as far as anything takes them."""
        return [_key(operand.value) for _, operand in self.graph.uses.get(node.index, ())]


def _key(value: Value) -> _Key:
    return id(value) if value.producer is None else (value.producer.index, value.index)


def _keeps(operation: Operation, node: Node, axis: int) -> bool:
    """Whether the output of a call has the size of its (first) input on `axis`."""
    match operation.shape:
        case Shape.SAME | Shape.BROADCAST:
            return True
        case Shape.CHANNELS:
            return axis == 1
        case Shape.CAT | Shape.SPLIT:
            dim = _dim(node)
            return dim is not None and dim >= 0 and axis >= 0 and dim != axis
        case Shape.OTHER:
            return False


def _dim(node: Node) -> int | None:
    return _whole(node.attributes.get("dim", 0))


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
