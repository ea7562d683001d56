"""Calls that are bypassed: one of their inputs goes on in the place of their output."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from rewrite.backends.torch.calls import occurrences
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.overwriting import keep_values, keep_values_in_list
from rewrite.edit import Remove
from rewrite.errors import Diagnostic
from rewrite.graph import Node


def remove(draft: Draft, edit: Remove) -> None:
    """Bypasses a call; where its surroundings are left alone, an `Identity` takes the place of its layer."""
    node = edit.node
    scope = draft.scope(node)
    if node.layer is not None and (scope is None or node.on_layer):
        _only_first(node, edit.operand)
        place = draft.place_at(node.layer.path, node.training)
        draft.put(node.layer, nn.Identity().train(place.training))
        draft.slow_path(node.layer.path)
        return
    assert scope is not None, "a function that is a node stands in a scope"
    draft.slow_path(scope.path)
    if scope.kind == "list":
        _only_first(node, edit.operand)
        remove_entry(draft, scope.path, draft.entry(scope, node))
        return
    if draft.is_in_code(scope):
        argument = draft.code_argument(node, scope, edit.operand)
        draft.recode(node, scope, lambda now: replace(now, takes=(argument,), instead=()))
        return
    draft.touch(scope)
    for call in draft.calls_of(node, scope).values():
        source = occurrences(call)[draft.slot(node, scope, edit.operand)][1]
        users = list(call.users)
        call.replace_all_uses_with(source)
        call.graph.erase_node(call)
        draft.gone.add(call)
        keep_values(draft, scope, source, call, users)
    if node.layer is not None:
        draft.drop_uncalled(node.layer)


def remove_entry(draft: Draft, path: str, entry: str) -> None:
    """Takes an entry out of a Sequential; what was put beside it in this write stays where it is."""
    owner = draft.mutable(path)
    names = draft.ordered(owner)
    draft.leave_neighbours(owner, entry)
    del owner._modules[entry]
    after = names[names.index(entry) + 1 :]
    if after:
        keep_values_in_list(draft, path, after[0])


def _only_first(node: Node, operand: int) -> None:
    if operand:
        raise Diagnostic(
            "RW320",
            f"input {operand} of `{node.name}` cannot go on in its place",
            notes=("the forward around it is left as it is, and only the first input can be handed on there",),
            help="give an example input, so that the forward can be read with certainty, or replace the layer",
        ).error()
