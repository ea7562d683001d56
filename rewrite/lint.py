"""Hints about clauses that do what they say and yet may not be meant so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rewrite.actions import Insert, Remove, Replace, Set
from rewrite.actions.site import Site
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic
from rewrite.graph import Graph, Node, Value
from rewrite.rule import Clause
from rewrite.selectors import relation
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Shape


def lint(clause: Clause, sites: Sequence[Site], graph: Graph, earlier: frozenset[str]) -> Iterator[Diagnostic]:
    """Warnings about one clause: RW402 lost activation, RW403 redundant bias, RW404 split insertion, RW408 untrained,
    RW410 single values.

    Args:
        clause: the rule.
        sites: as they were planned.
        graph: the model in front of the clause.
        earlier: paths of the layers that earlier clauses have inserted.

    """
    taking = [action for action in clause.actions if isinstance(action, Replace | Remove)]
    if taking:
        yield from _lost_activations(taking[0], sites, graph)
    inserts = [action for action in clause.actions if isinstance(action, Insert)]
    if not inserts:
        return
    takes_bias = any(
        assignment.target.attributes[-1] == "bias"
        for action in clause.actions
        if isinstance(action, Set)
        for assignment in action.assignments
    )
    biased = [site for site in sites if _normalised(site) and site.node.attributes.get("bias") is True]
    if biased and not takes_bias:
        whose = f"`{biased[0].node.name}`" if len(biased) == 1 else f"{len(biased)} layers"
        yield Diagnostic(
            "RW403",
            f"the bias of {whose} has no effect in front of the new normalisation",
            inserts[0].span,
            notes=("the normalisation takes away every constant that is added in front of it",),
            help="to drop it: `set prev.bias = none`; keeping it is harmless",
        )
    single = [site for site in sites if _takes_statistics(site) and _is_point(graph, _before_inserts(site))]
    if single:
        whose = f"`{single[0].node.name}`" if len(single) == 1 else f"{len(single)} calls"
        yield Diagnostic(
            "RW410",
            f"the new normalisation at {whose} has one value of each channel for each sample",
            inserts[0].span,
            notes=("in training mode it refuses a batch of one sample, and a small batch tells it little",),
            help="leave them out with `except` and what they lie in, or train with batches of more than one sample",
        )
    split = [site for site in sites if site.operand is None and site.inserts and _is_split(site, graph, earlier)]
    if split:
        whose = f"`{split[0].node.name}`" if len(split) == 1 else f"{len(split)} calls"
        yield Diagnostic(
            "RW404",
            f"this goes between {whose} and what an earlier rule inserted there",
            inserts[0].span,
            notes=("the layer inserted later stands nearer to the call that both rules name",),
            help="to put it behind: select the earlier layer, or insert both in one rule",
        )
    drawn = [layer for site in sites for chain in site.inserts for layer in chain if _is_drawn(layer)]
    if drawn:
        layers = "layer starts" if len(drawn) == 1 else "layers start"
        yield Diagnostic(
            "RW408",
            f"{len(drawn)} new {layers} with random weights in the middle of the model",
            inserts[0].span,
            notes=(f"{drawn[0]}: what comes behind it was trained without it, and the outputs change",),
            help="train them before the model is used; `LoRA` and zero weights, `reset ... with zeros`, begin gently",
        )


def _lost_activations(action: Replace | Remove, sites: Sequence[Site], graph: Graph) -> Iterator[Diagnostic]:
    """RW402 for layers that are more than the operation that they are matched as: an activation goes with them."""
    owners = {site.node.index: site.node for site in sites if site.node.composite and site.node.operation is not None}
    inside = {
        call.owner.index: call
        for call in (graph.nodes if owners else ())
        if call.owner is not None and call.owner.index in owners and _is_activation(call)
    }
    if inside:
        index, inner = next(iter(inside.items()))
        whose = f"`{owners[index].name}`" if len(inside) == 1 else f"{len(inside)} layers"
        kind = owners[index].spelling
        yield Diagnostic(
            "RW402",
            f"this removes the activation of {whose}",
            action.span,
            notes=(f"`{owners[index].name}` is a {kind}, which calls `{inner.spelling}` as well",),
            help=f"put it back with `-> {inner.operation}`, or leave these out with `except {kind}`",
        )


def _is_activation(call: Node) -> bool:
    row = OPERATIONS.get(call.operation or "")
    return row is not None and row.family == "activation"


def _is_drawn(layer: NewLayer) -> bool:
    """Whether a new layer has weights of chance that mix its inputs."""
    row = OPERATIONS.get(layer.operation or "")
    return row is not None and row.family in ("conv", "linear")


def _normalised(site: Site) -> bool:
    """Whether the first layer behind a convolution or linear layer is a new one that subtracts the mean."""
    first: NewLayer | None = site.inserts[0][0] if site.inserts and site.operand is None else None
    row = OPERATIONS.get(first.operation or "") if first is not None else None
    own = OPERATIONS.get(site.node.operation or "")
    is_batch_norm = row is not None and row.name.startswith("BatchNorm")
    return is_batch_norm and own is not None and own.family in ("conv", "linear") and site.node.layer is not None


def _takes_statistics(site: Site) -> bool:
    first = next(iter(site.inserts[0]), None) if site.inserts else None
    return first is not None and (first.operation or "") in _OVER_PLACES


_OVER_PLACES = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
_FAR = 8
"""calls that are followed back to the one that makes a single place of a map"""


def _before_inserts(site: Site) -> Value:
    return site.operand.value if site.operand is not None else Value(site.node)


def _is_point(graph: Graph, value: Value) -> bool:
    """Whether a value is a map of one place: by its shape, or because it comes from a pool over all of a map."""
    for _ in range(_FAR):
        node = value.producer
        if node is None:
            return False
        known = graph.types.get((node.index, value.index))
        if known is not None and known.shape is not None:
            places = [*known.shape[2:]] if known.channels == 1 else [*known.shape[1:-1]]
            return bool(places) and all(size == 1 for size in places)
        row = OPERATIONS.get(node.operation or "")
        if row is None:
            return False
        size = node.attributes.get("output_size")
        if row.family == "pool" and size is not None:
            return all(one == 1 for one in (size if isinstance(size, tuple | list) else (size,)))
        pointwise = row.family == "conv" and set(_sizes(node.attributes.get("kernel_size"))) == {1}
        if not node.inputs or not (row.shape is Shape.SAME or pointwise):
            return False
        value = node.inputs[0].value
    return False


def _sizes(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _is_split(site: Site, graph: Graph, earlier: frozenset[str]) -> bool:
    if site.node.layer is not None and site.node.layer.path in earlier:
        return False
    users = relation.leaf_consumers(graph, site.node)
    return bool(users) and all(user.layer is not None and user.layer.path in earlier for user in users)
