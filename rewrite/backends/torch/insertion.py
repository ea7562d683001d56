"""New layers on an edge: in a graph, beside an entry of a list, or around the call of a layer itself."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from rewrite.backends.torch.calls import occurrences, replace_occurrence
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.recipes import recipe_of
from rewrite.backends.torch.scopes import Scope
from rewrite.edit import Insert


def insert(draft: Draft, edit: Insert) -> None:
    """Carries out an insertion in the way of the scope that it is in."""
    scope = draft.scope(edit.node)
    if edit.on_layer:
        _extend(draft, edit)
    elif scope is not None and scope.kind == "list":
        _insert_entry(draft, edit, scope)
    elif scope is not None and draft.is_in_code(scope):
        _insert_in_code(draft, edit, scope)
    elif scope is not None:
        _insert_in_graph(draft, edit, scope)


def _extend(draft: Draft, edit: Insert) -> None:
    """Extends the call of the layer itself; a layer that is called several times is extended once."""
    layer = edit.node.layer
    assert layer is not None, "only the call of a layer can be extended"
    draft.slow_path(layer.path)
    module = draft.mutable(layer.path)
    place = draft.place(edit.node)
    prefix = "" if edit.operand is None else "before_"
    names = [draft.add(layer.path, f"{prefix}{new.stem}", new, place) for new in edit.layers]
    recipe = recipe_of(module)
    if edit.operand is None:
        recipe = replace(recipe, after=(*recipe.after, *names))
    else:
        recipe = replace(recipe, before=(*names, *recipe.before))
    draft.follow(module, recipe)


def _insert_entry(draft: Draft, edit: Insert, scope: Scope) -> None:
    anchor = draft.entry(scope, edit.node)
    owner = draft.mutable(scope.path)
    draft.slow_path(scope.path)
    place = draft.place(edit.node)
    if edit.operand is None:
        for new in edit.layers:
            draft.add(scope.path, f"{anchor}_{new.stem}", new, place, beside=anchor, anew=True)
        return
    ahead: list[str] = []
    for new in edit.layers:
        draft.add(scope.path, f"before_{anchor}_{new.stem}", new, place, ahead=ahead, anew=True)
    draft.neighbours(owner, anchor)[0][:0] = ahead


def _insert_in_graph(draft: Draft, edit: Insert, scope: Scope) -> None:
    node = edit.node
    names: list[str] = []
    place = draft.place(node)
    beside = draft.child_name(node, scope)
    prefix = "" if edit.operand is None else "before_"
    stem = node.local if edit.operand is None or len(node.inputs) < 2 else f"{node.local}_{edit.operand}"
    draft.slow_path(scope.path)
    ahead: list[str] | None = None if edit.operand is None else []
    for new in edit.layers:
        name = f"{prefix}{stem}_{new.stem}"
        names.append(draft.add(scope.path, name, new, place, beside=beside, ahead=ahead))
    if ahead and beside is not None:
        draft.neighbours(draft.mutable(scope.path), beside)[0][:0] = ahead
    draft.touch(scope)
    for call in draft.calls_of(node, scope).values():
        if edit.operand is None:
            _chain_behind(draft, call, names)
        else:
            _chain_ahead(draft, call, draft.slot(node, scope, edit.operand), names)


def _insert_in_code(draft: Draft, edit: Insert, scope: Scope) -> None:
    node = edit.node
    place = draft.place(node)
    if edit.operand is None:
        behind = [draft.add(scope.path, f"{node.local}_{new.stem}", new, place) for new in edit.layers]
        draft.recode(node, scope, lambda now: replace(now, behind=(*now.behind, *behind)))
        return
    stem = node.local if len(node.inputs) < 2 else f"{node.local}_{edit.operand}"
    ahead = tuple(draft.add(scope.path, f"before_{stem}_{new.stem}", new, place) for new in edit.layers)
    argument = draft.code_argument(node, scope, edit.operand)
    draft.recode(node, scope, lambda now: replace(now, ahead=((argument, ahead), *now.ahead)))


def _chain_behind(draft: Draft, call: fx.Node, names: list[str]) -> None:
    last = draft.behind.get(call, call)
    users = list(last.users)
    value = last
    for name in names:
        with call.graph.inserting_after(value):
            value = call.graph.call_module(name, (value,))
    for user in users:
        user.replace_input_with(last, value)
    draft.behind[call] = value


def _chain_ahead(draft: Draft, call: fx.Node, slot: int, names: list[str]) -> None:
    target, place = draft.ahead.get((call, slot), (call, slot))
    value, first = occurrences(target)[place][1], None
    for name in names:
        with call.graph.inserting_before(target):
            value = call.graph.call_module(name, (value,))
        first = first or value
    replace_occurrence(target, place, value)
    if first is not None:
        draft.ahead[(call, slot)] = (first, 0)
