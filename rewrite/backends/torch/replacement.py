"""New layers in the place of a layer, of one call, or of several calls at once; or around a layer."""

from __future__ import annotations

import dataclasses

from torch import fx, nn

from rewrite.backends.torch.calls import occurrences
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.layers import Place
from rewrite.backends.torch.modules import is_sequential, same_storage, walk
from rewrite.backends.torch.recipes import base_of
from rewrite.backends.torch.removal import remove_entry
from rewrite.backends.torch.scopes import Scope
from rewrite.backends.torch.sources import entries_between, find_source
from rewrite.edit import NewLayer, Replace
from rewrite.errors import Diagnostic
from rewrite.graph import Layer, Node
from rewrite.source import Span


def replace(draft: Draft, edit: Replace) -> None:
    """Carries out a replacement, and takes away what nothing needs any more."""
    target = edit.target
    span = edit.layers[0].span if edit.layers else None
    if isinstance(target, Layer) and not target.path:
        raise Diagnostic(
            "RW320",
            f"the model itself ({target.class_name}) cannot be {'wrapped' if _wraps(edit) else 'replaced'} by a rule",
            span,
            notes=("the result of the rules is a model of the same class",),
            help="name the layers in it that are meant; around the model as a whole, write the layer in Python",
        ).error()
    if _wraps(edit):
        _wrap(draft, edit, span)
    elif isinstance(target, Layer):
        if len(edit.inputs) > 1 and len(edit.layers) > 1 and len(edit.calls) == 1 and not edit.calls[0].on_layer:
            _replace_call(draft, edit.calls[0], edit, span)
        else:
            _replace_layer(draft, target, edit, span)
    else:
        _replace_call(draft, target, edit, span)
    _erase(draft, edit.unused)


def _wraps(edit: Replace) -> bool:
    return any(new.wraps for new in edit.layers)


# ---- a layer around a layer


def _wrap(draft: Draft, edit: Replace, span: Span | None) -> None:
    """Hangs a new layer, made of the old one, in the old one's place; the old one keeps its tensors and its mode."""
    target = edit.target
    if not isinstance(target, Layer):
        why = "it is a call of a function, and a wrapper is built around a layer"
        if target.layer is not None:
            why = "it is one of several calls of its layer, and a wrapper stands in the layer's place for all of them"
        raise Diagnostic(
            "RW320",
            f"`{target.name}` ({target.spelling}) cannot be wrapped",
            span,
            notes=(why,),
            help="select the layer for all of its calls"
            if target.layer is not None
            else "put a layer in front of it or behind it, or replace it with a layer: `replace ... with ...`",
        ).error()
    if len(edit.layers) != 1 or edit.inputs:
        raise Diagnostic(
            "RW320",
            f"`{target.path}` is wrapped by {len(edit.layers)} layers at once",
            span,
            notes=("a wrapper takes one layer and stands in its place",),
            help="wrap it once in each clause",
        ).error()
    new, path = edit.layers[0], target.path
    place = draft.place_at(path, target.training)
    draft.slow_path(path)
    draft.mutable(path)
    # All that it holds is copied as well: what a stranger's constructor does to it must not reach the given model.
    for inner, _ in walk(draft.original(path)):
        draft.mutable(f"{path}.{inner}".rstrip("."))
    standing = draft.mutable(path, itself=False)
    learns = [(parameter, parameter.requires_grad) for parameter in standing.parameters()]
    made = draft.builder.wrap(new, standing, place)
    for parameter, was in learns:
        if parameter.requires_grad != was:
            draft.parameters[parameter] = same_storage(parameter, not was)
            parameter.requires_grad_(was)
    draft.put(target, made)
    draft.made.append(path)
    inside = next((name for name, module in made.named_modules() if module is standing and name), None)
    if inside is not None:
        draft.wrapped.append((path, f"{path}.{inside}"))


# ---- a layer at its path


def _replace_layer(draft: Draft, layer: Layer, edit: Replace, span: Span | None) -> None:
    new = edit.layers
    place = draft.place_at(layer.path, layer.training)
    if edit.inputs:
        for call in edit.calls:
            _take_inputs(draft, call, edit, span)
    if len(new) == 1:
        made = draft.build(new[0], place)
        old = draft.original(layer.path)
        if base_of(type(old)) is base_of(type(made)) and not new[0].share:
            keep_equal_weights(old, made)
    else:
        made = nn.Sequential(*(draft.build(item, place) for item in new))
        made.training = place.training
    draft.slow_path(layer.path)
    draft.put(layer, made)
    draft.made += [layer.path] if len(new) == 1 else [f"{layer.path}.{number}" for number in range(len(new))]


def _take_inputs(draft: Draft, node: Node, edit: Replace, span: Span | None) -> None:
    """Calls the layer of a call with other values than before."""
    scope = draft.scope(node)
    if scope is None or node.on_layer:
        raise Diagnostic(
            "RW320",
            f"`{node.name}` cannot be given other inputs",
            span,
            notes=("the forward around it could not be captured with certainty, and is left as it is",),
            help="give an example input, or match only the layer itself",
        ).error()
    if scope.kind == "list":
        _drop_entries(draft, scope, node, edit, span)
        return
    if len(edit.inputs) > 1 and len(edit.layers) > 1:
        raise _several_inputs(node, edit, span, "a chain at the path of a layer takes one value").error()
    draft.touch(scope)
    for mode, call in draft.calls_of(node, scope).items():
        call.args = tuple(find_source(draft, scope, mode, call, node, value, edit, span) for value in edit.inputs)
        call.kwargs = {}


# ---- one call


def _replace_call(draft: Draft, node: Node, edit: Replace, span: Span | None) -> None:
    scope = draft.scope(node)
    assert scope is not None, "a call without a captured scope is replaced at its layer"
    place = draft.place(node)
    beside = draft.child_name(node, scope)
    draft.slow_path(scope.path)
    if is_sequential(scope.module):
        if edit.inputs:
            _drop_entries(draft, scope, node, edit, span)
        _replace_entry(draft, node, scope, edit.layers, place)
        return
    if draft.is_in_code(scope):
        made = tuple(draft.add(scope.path, f"{node.local}_{item.stem}", item, place) for item in edit.layers)
        draft.recode(node, scope, lambda now: dataclasses.replace(now, instead=made))
        return
    draft.touch(scope)
    sources: dict[str, list[fx.Node]] = {}
    for mode, call in draft.calls_of(node, scope).items():
        if edit.inputs:
            sources[mode] = [find_source(draft, scope, mode, call, node, value, edit, span) for value in edit.inputs]
        else:
            found = occurrences(call)
            sources[mode] = [found[slot][1] for slot in draft.calls[scope.module].slots[node.local]]
    names = [draft.add(scope.path, f"{node.local}_{item.stem}", item, place, beside=beside) for item in edit.layers]
    for mode, call in draft.calls_of(node, scope).items():
        graph = call.graph
        with graph.inserting_before(call):
            value = graph.call_module(names[0], tuple(sources[mode]))
            for name in names[1:]:
                value = graph.call_module(name, (value,))
        call.replace_all_uses_with(value)
        graph.erase_node(call)
        draft.gone.add(call)
    if node.layer is not None:
        draft.drop_uncalled(node.layer)


def _replace_entry(draft: Draft, node: Node, scope: Scope, new: tuple[NewLayer, ...], place: Place) -> None:
    """One entry of a Sequential, where other entries are the same layer."""
    layers = [draft.build(item, place) for item in new]
    made = layers[0]
    if len(layers) > 1:
        made = nn.Sequential(*layers)
        made.training = place.training
    entry = draft.entry(scope, node)
    draft.mutable(scope.path)._modules[entry] = made
    draft.fresh.update(made.modules())
    draft.made.append(f"{draft.now(scope.path)}.{entry}".lstrip("."))


def _drop_entries(draft: Draft, scope: Scope, node: Node, edit: Replace, span: Span | None) -> None:
    """In a Sequential an entry takes what the entry before it gives: entries in between must go."""
    if len(edit.inputs) > 1:
        raise _several_inputs(node, edit, span, "an entry of a Sequential takes one value").error()
    between = entries_between(node, edit.inputs[0], edit.unused)
    if between is None:
        raise Diagnostic(
            "RW320",
            f"`{node.name}` cannot take the value of `{edit.inputs[0].name}`",
            span,
            notes=(f"in the Sequential `{scope.path or '(model)'}` each entry takes what the one before it gives",),
            help="match the calls in between as well, or replace the Sequential as a whole",
        ).error()
    for other in between:
        remove_entry(draft, scope.path, draft.entry(scope, other))


def _several_inputs(node: Node, edit: Replace, span: Span | None, why: str) -> Diagnostic:
    return Diagnostic(
        "RW320",
        f"`{edit.layers[0]}` in the place of `{node.name}` cannot take {len(edit.inputs)} values",
        span,
        notes=(why,),
        help="match a part with one input, or write the part as a module of your own and name that",
    )


# ---- what is left over


def _erase(draft: Draft, unused: tuple[Node, ...]) -> None:
    """Takes calls away whose value nobody takes any more, last ones first."""
    layers: dict[str, Layer] = {}
    for node in sorted(unused, key=lambda item: item.index, reverse=True):
        scope = draft.scope(node)
        if scope is None or scope.kind == "list":
            continue
        for call in draft.remaining(node, scope).values():
            if not call.users:
                draft.touch(scope)
                call.graph.erase_node(call)
                draft.gone.add(call)
                if node.layer is not None:
                    layers[node.layer.path] = node.layer
    for layer in layers.values():
        draft.drop_uncalled(layer)


def keep_equal_weights(old: nn.Module, new: nn.Module) -> None:
    """Carries over parameters and buffers whose name and shape are the same in both, when all of them are."""
    mine = {**old._parameters, **old._buffers}
    theirs = {**new._parameters, **new._buffers}
    if {k: v.shape if v is not None else None for k, v in mine.items()} != {
        k: v.shape if v is not None else None for k, v in theirs.items()
    }:
        return
    new._parameters.update(old._parameters)
    new._buffers.update(old._buffers)
