"""The edits of one write, sorted by the place that each is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from rewrite.backends.keras.reader import ACTIVATION, call_name
from rewrite.backends.keras.refusal import cannot
from rewrite.edit import Edit, Insert, Move, NewLayer, Remove, Replace, Update
from rewrite.graph import Layer, Node

Place = tuple[str, str]
"""path of the model, or of what has code, and the name of the call in it"""


@dataclass(frozen=True)
class Chain:
    """New layers of one edit."""

    number: int
    """of the edit"""
    layers: tuple[NewLayer, ...]


Step = Chain | Node
"""new layers, or a call that is made again here"""


@dataclass
class Edits:
    """What happens at each place."""

    behind: dict[Place, list[Step]] = field(default_factory=dict)
    ahead: dict[tuple[str, str, int], list[Step]] = field(default_factory=dict)
    """the nearest to the call first"""
    bypassed: dict[Place, int] = field(default_factory=dict)
    """call -> the input that goes on in the place of its output"""
    calls: dict[Place, tuple[int, Replace]] = field(default_factory=dict)
    layers: dict[str, tuple[int, Replace]] = field(default_factory=dict)
    """path of a layer -> what comes in its place, for all its calls"""
    updates: dict[str, list[Update]] = field(default_factory=dict)
    calls_updated: dict[Place, list[Update]] = field(default_factory=dict)
    """call of a function -> what changes about its arguments"""
    parted: set[str] = field(default_factory=set)
    """paths of layers whose own activation becomes a layer behind them"""
    remade: set[str] = field(default_factory=set)
    """paths of layers that are made by another class, or by other arguments"""
    folds: set[str] = field(default_factory=set)
    """paths of layers that take a normalisation over, and have a bias for it"""
    scopes: set[str] = field(default_factory=set)
    """paths of all models, and of what has code, in which calls change"""

    def touch(self, path: str) -> bool:
        """Whether something within changes that the class of a copy does not make by itself."""
        layers = (key for key in (*self.parted, *self.remade) if key != path)
        return any(not path or key == path or key.startswith(f"{path}.") for key in (*layers, *self.scopes))


def sorted_edits(edits: Sequence[Edit]) -> Edits:
    """Refuses what cannot be done to a Keras model, and sorts the rest.

    Raises:
        PlanError: RW320.

    """
    found = Edits()
    for number, edit in enumerate(edits):
        match edit:
            case Insert(node, operand, layers):
                found.scopes.add(node.scope)
                if operand is None:
                    found.behind.setdefault(_place(node), []).append(Chain(number, layers))
                    _part(found, node)
                else:
                    found.ahead.setdefault((*_place(node), operand), []).append(Chain(number, layers))
                    _part_inner(found, node)
            case Remove(node, operand):
                found.scopes.add(node.scope)
                found.bypassed[_place(node)] = operand
                _part(found, node)
                _part_inner(found, node)
            case Replace():
                _replace(found, number, edit)
            case Move():
                _move(found, edit)
            case Update():
                _update(found, edit)
            case _:
                assert_never(edit)
    return found


def _place(node: Node) -> Place:
    return node.scope, call_name(node)


def _part(found: Edits, node: Node) -> None:
    """What stands right behind a layer stands in front of its activation."""
    if node.layer is not None and node.layer.activation is not None:
        found.parted.add(node.layer.path)


def _part_inner(found: Edits, node: Node) -> None:
    """What happens to a fused activation parts it from its layer."""
    if node.local.endswith(ACTIVATION):
        owner = node.inputs[0].value.producer
        assert owner is not None, "an activation has the call of its layer in front"
        _part(found, owner)


def _move(found: Edits, edit: Move) -> None:
    node, anchor = edit.node, edit.anchor
    for part in (node, anchor):
        assert part.linked, "calls are moved along links, of which none is known in code"
    if node.scope != anchor.scope:
        raise cannot(
            f"`{node.name}` and `{anchor.name}` stand in two models, and a call is moved within one", edit.span
        )
    found.bypassed[_place(node)] = 0
    found.scopes.add(node.scope)
    for part in (node, anchor):
        _part_inner(found, part)
    _part(found, node)
    if edit.side == "after":
        _part(found, anchor)
        found.behind.setdefault(_place(anchor), []).append(node)
    else:
        found.ahead.setdefault((*_place(anchor), edit.operand), []).append(node)


def _replace(found: Edits, number: int, edit: Replace) -> None:
    target = edit.target
    if isinstance(target, Layer):
        found.scopes.update(call.scope for call in edit.calls)
        found.layers[target.path] = (number, edit)
        return
    found.scopes.add(target.scope)
    found.calls[_place(target)] = (number, edit)
    _part_inner(found, target)
    for source in edit.inputs:
        _part(found, source)


def _update(found: Edits, edit: Update) -> None:
    target = edit.target
    if isinstance(target, Node):
        if target.local.endswith(ACTIVATION):
            raise cannot(
                f"`{target.name}` ({target.spelling}) is applied by its layer, which names it and no arguments",
                edit.span,
                help=f"set it as a whole: `set self.activation = {target.operation}(...)` at the layer",
            )
        found.calls_updated.setdefault(_place(target), []).append(edit)
        return
    found.updates.setdefault(target.path, []).append(edit)
    if any(key.startswith(".") for key in edit.changes):
        found.remade.add(target.path)
    if edit.changes.keys() & {"fold", "fold_ahead"}:
        found.folds.add(target.path)
