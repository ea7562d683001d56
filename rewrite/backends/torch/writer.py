"""Makes the changed model: copies along the way to each edited module, nothing else.

The three kinds of scope are edited each in its own way. A list gets entries beside the anchor. A graph is edited as a
`torch.fx.Graph`, and its generated forward is put on a subclass of the module's own class. Around a leaf whose
forward context is not certain, the leaf's own call is extended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch.calls import Calls, occurrences
from rewrite.backends.torch.generated import generate_class
from rewrite.backends.torch.layers import Builder, Place
from rewrite.backends.torch.modules import is_sequential, parent_of, shallow_copy, walk
from rewrite.backends.torch.recipes import Recipe, base_of, check_name, recipe_of
from rewrite.backends.torch.scopes import Capture, Scope
from rewrite.edit import Edit, Initialiser, Insert, NewLayer, Remove, Replace, Update
from rewrite.graph import Layer, Node


class Writer:
    """One write: from a capture and the edits of one clause to a new model."""

    def __init__(self, capture: Capture, calls: Mapping[nn.Module, Calls], builder: Builder) -> None:
        self.capture = capture
        self.calls = calls
        self.builder = builder
        self.root = shallow_copy(capture.root)
        self.fresh: set[nn.Module] = {self.root}
        """modules of this write alone, which may be changed"""
        self.changed: dict[nn.Module, Scope] = {}
        """copied module -> its scope, whose graphs were edited"""
        self.behind: dict[tuple[fx.Node, int], fx.Node] = {}
        self.ahead: dict[tuple[fx.Node, int], tuple[fx.Node, int]] = {}
        self.order: dict[nn.Module, dict[str, tuple[list[str], list[str]]]] = {}
        """module -> child -> new children to stand in front of it and behind it"""
        self.entries: dict[nn.Module, dict[str, str]] = {}
        """Sequential -> name of the call -> name of the entry"""
        self.gone: set[fx.Node] = set()
        self.parameters: dict[torch.Tensor, nn.Parameter] = {}
        self.made: list[str] = []
        self.places: dict[str, Place] = {}

    def run(self, edits: Iterable[Edit]) -> tuple[nn.Module, dict[int, list[str]]]:
        """Carries out the edits in order; returns the new model, and the paths of the layers that each edit made."""
        names: dict[int, list[str]] = {}
        with self.builder.own_randomness():
            for number, edit in enumerate(edits):
                self.made = []
                match edit:
                    case Insert():
                        self._insert(edit)
                    case Replace():
                        self._replace(edit)
                    case Remove():
                        self._remove(edit.node)
                    case Update():
                        self._update(edit)
                names[number] = self.made
        self._order_children()
        self._share_parameters()
        for module, scope in self.changed.items():
            recipe = recipe_of(module)
            graphs = {mode: body.graph for mode, body in scope.bodies.items()}
            self._follow(module, replace(recipe, bodies=graphs, arguments=scope.body.arguments, sure=scope.sure))
        return self.root, names

    def changed_scopes(self) -> list[nn.Module]:
        """The original modules whose captured graphs this write has edited."""
        return [scope.module for scope in self.changed.values()]

    # ---- copies

    def mutable(self, path: str) -> nn.Module:
        """The module at `path`, copied so that it may be changed; wherever it hangs, the copy hangs there."""
        module = self.root.get_submodule(path)
        if module in self.fresh:
            return module
        original = self.capture.paths.get(module, (path,))
        copy = shallow_copy(module)
        self.fresh.add(copy)
        for where in original:
            head, name = parent_of(where)
            self.mutable(head)._modules[name] = copy
        return copy

    def _follow(self, module: nn.Module, recipe: Recipe) -> None:
        """Gives a fresh module the class of a recipe."""
        module.__class__ = generate_class(base_of(type(module)), recipe)

    def _attach_name(self, module: nn.Module, name: str) -> str:
        check_name(name)
        candidate, number = name, 0
        while hasattr(module, candidate):
            number += 1
            candidate = f"{name}_{number}"
        return candidate

    def _add_child(
        self, owner_path: str, name: str, layer: nn.Module, *, beside: str | None = None, ahead: list[str] | None = None
    ) -> str:
        """Registers a new child of a module; returns its name.

        Args:
            owner_path: where the module is.
            name: what the child is called, if that is free.
            layer: the child.
            beside: the child that it will stand next to, behind all that stand there.
            ahead: names that go in front of `beside`; the new one joins them.

        """
        owner = self.mutable(owner_path)
        name = self._attach_name(owner, name)
        owner._modules[name] = layer
        if ahead is not None:
            ahead.append(name)
        elif beside is not None and beside in owner._modules:
            self._neighbours(owner, beside)[1].append(name)
        self.fresh.update(layer.modules())
        self.made.append(f"{owner_path}.{name}".lstrip("."))
        return name

    def _neighbours(self, owner: nn.Module, child: str) -> tuple[list[str], list[str]]:
        return self.order.setdefault(owner, {}).setdefault(child, ([], []))

    def _order_children(self) -> None:
        """Puts every new child next to the one that it belongs to."""
        for owner, beside in self.order.items():
            placed = {name for pair in beside.values() for names in pair for name in names}
            old = dict(owner._modules)
            owner._modules.clear()
            for name in old:
                if name not in placed:
                    ahead, behind = beside.get(name, ([], []))
                    owner._modules.update({key: old[key] for key in (*ahead, name, *behind) if key in old})

    def _place(self, node: Node) -> Place:
        """Device, dtype and mode for a new layer beside a call: those of the layer, else of what is around it."""
        path = node.layer.path if node.layer is not None else node.scope
        return self._place_at(path, node.training)

    def _place_at(self, path: str, training: bool) -> Place:
        found = self.places.get(path)
        if found is None:
            where = path
            while True:
                module = self.capture.root.get_submodule(where)
                tensor = _first_number(module)
                if tensor is not None:
                    found = Place(tensor.device, tensor.dtype, training)
                    break
                if not where:
                    found = Place(torch.get_default_device(), torch.get_default_dtype(), training)
                    break
                where = parent_of(where)[0]
            self.places[path] = found
        return replace(found, training=training) if found.training != training else found

    # ---- insert

    def _scope(self, node: Node) -> Scope | None:
        """The captured scope that a call stands in."""
        if not node.local:
            return None
        return self.capture.scopes[self._original(node.scope)]

    def _original(self, path: str) -> nn.Module:
        return self.capture.root.get_submodule(path)

    def _insert(self, edit: Insert) -> None:
        node = edit.node
        scope = self._scope(node)
        if edit.on_layer:
            self._extend(edit)
        elif scope is not None and scope.kind == "list":
            self._insert_entry(edit, scope)
        elif scope is not None:
            self._insert_in_graph(edit, scope)

    def _extend(self, edit: Insert) -> None:
        """Extends the call of the layer itself; a layer that is called several times is extended once."""
        layer = edit.node.layer
        assert layer is not None, "only the call of a layer can be extended"
        self._slow_path(layer.path)
        module = self.mutable(layer.path)
        place = self._place(edit.node)
        names: list[str] = []
        for new in edit.layers:
            prefix = "" if edit.operand is None else "before_"
            name = f"{prefix}{new.name.lower()}"
            names.append(self._add_child(layer.path, name, self.builder.build(new, place)))
        recipe = recipe_of(module)
        if edit.operand is None:
            recipe = replace(recipe, after=(*recipe.after, *names))
        else:
            recipe = replace(recipe, before=(*names, *recipe.before))
        self._follow(module, recipe)

    def _insert_entry(self, edit: Insert, scope: Scope) -> None:
        path = scope.path
        anchor = self._entry(scope, edit.node)
        owner = self.mutable(path)
        self._slow_path(path)
        place = self._place(edit.node)
        if edit.operand is None:
            for new in edit.layers:
                self._add_child(path, f"{anchor}_{new.name.lower()}", self.builder.build(new, place), beside=anchor)
            return
        ahead: list[str] = []
        for new in edit.layers:
            self._add_child(path, f"before_{anchor}_{new.name.lower()}", self.builder.build(new, place), ahead=ahead)
        self._neighbours(owner, anchor)[0][:0] = ahead

    def _entry(self, scope: Scope, node: Node) -> str:
        """Name of the entry of a Sequential that a call in it stands for."""
        found = self.entries.get(scope.module)
        if found is None:
            calls = [call.name for call in scope.body.graph.nodes if call.op == "call_module"]
            found = self.entries[scope.module] = dict(zip(calls, scope.module._modules, strict=True))
        return found[node.local]

    def _insert_in_graph(self, edit: Insert, scope: Scope) -> None:
        node = edit.node
        names: list[str] = []
        place = self._place(node)
        beside = self._child_name(node, scope)
        prefix = "" if edit.operand is None else "before_"
        stem = node.local if edit.operand is None or len(node.inputs) < 2 else f"{node.local}_{edit.operand}"
        self._slow_path(scope.path)
        ahead: list[str] | None = None if edit.operand is None else []
        for new in edit.layers:
            name = f"{prefix}{stem}_{new.name.lower()}"
            names.append(self._add_child(scope.path, name, self.builder.build(new, place), beside=beside, ahead=ahead))
        if ahead and beside is not None:
            self._neighbours(self.mutable(scope.path), beside)[0][:0] = ahead
        self._touch(scope)
        calls = self.calls[scope.module]
        for call in calls.nodes[node.local].values():
            if edit.operand is None:
                self._chain_behind(call, names)
            else:
                self._chain_ahead(call, calls.slots[node.local][edit.operand], names)

    def _child_name(self, node: Node, scope: Scope) -> str | None:
        """The direct child of a scope that a call in it calls."""
        if node.layer is None:
            return None
        relative = node.layer.path.removeprefix(f"{scope.path}." if scope.path else "")
        return relative if "." not in relative else None

    def _chain_behind(self, call: fx.Node, names: list[str]) -> None:
        last = self.behind.get((call, 0), call)
        users = list(last.users)
        value = last
        graph = call.graph
        for name in names:
            with graph.inserting_after(value):
                value = graph.call_module(name, (value,))
        for user in users:
            user.replace_input_with(last, value)
        self.behind[(call, 0)] = value

    def _chain_ahead(self, call: fx.Node, slot: int, names: list[str]) -> None:
        target, place = self.ahead.get((call, slot), (call, slot))
        source = occurrences(target)[place][1]
        graph = call.graph
        value, first = source, None
        for name in names:
            with graph.inserting_before(target):
                value = graph.call_module(name, (value,))
            first = first or value
        replace_occurrence(target, place, value)
        if first is not None:
            self.ahead[(call, slot)] = (first, 0)

    def _touch(self, scope: Scope) -> None:
        """Notes that the graphs of a scope are edited."""
        self.changed[self.mutable(scope.path)] = scope

    # ---- replace, remove

    def _replace(self, edit: Replace) -> None:
        if isinstance(edit.target, Layer):
            self._replace_layer(edit.target, edit.layers, edit.calls)
        else:
            self._replace_call(edit.target, edit.layers)

    def _replace_layer(self, layer: Layer, new: tuple[NewLayer, ...], calls: tuple[Node, ...]) -> None:
        place = self._place_at(layer.path, layer.training)
        if len(new) == 1:
            made = self.builder.build(new[0], place)
            old = self._original(layer.path)
            if base_of(type(old)) is base_of(type(made)):
                keep_equal_weights(old, made)
        else:
            made = nn.Sequential(*(self.builder.build(item, place) for item in new))
            made.train(place.training)
        self._slow_path(layer.path)
        for path in (layer.path, *layer.aliases):
            head, name = parent_of(path)
            self.mutable(head)._modules[name] = made
        self.fresh.update(made.modules())
        self.made += [layer.path] if len(new) == 1 else [f"{layer.path}.{number}" for number in range(len(new))]

    def _replace_call(self, node: Node, new: tuple[NewLayer, ...]) -> None:
        scope = self._scope(node)
        assert scope is not None, "a call without a captured scope is replaced at its layer"
        place = self._place(node)
        beside = self._child_name(node, scope)
        self._slow_path(scope.path)
        if is_sequential(scope.module):
            self._replace_entry(node, scope, new, place)
            return
        names = []
        for item in new:
            names.append(
                self._add_child(
                    scope.path, f"{node.local}_{item.name.lower()}", self.builder.build(item, place), beside=beside
                )
            )
        self._touch(scope)
        calls = self.calls[scope.module]
        for call in calls.nodes[node.local].values():
            found = occurrences(call)
            sources = [found[slot][1] for slot in calls.slots[node.local]]
            graph = call.graph
            with graph.inserting_before(call):
                value = graph.call_module(names[0], tuple(sources))
                for name in names[1:]:
                    value = graph.call_module(name, (value,))
            call.replace_all_uses_with(value)
            graph.erase_node(call)

    def _replace_entry(self, node: Node, scope: Scope, new: tuple[NewLayer, ...], place: Place) -> None:
        """One entry of a Sequential, where other entries are the same layer."""
        layers = [self.builder.build(item, place) for item in new]
        made = layers[0] if len(layers) == 1 else nn.Sequential(*layers).train(place.training)
        entry = self._entry(scope, node)
        self.mutable(scope.path)._modules[entry] = made
        self.fresh.update(made.modules())
        self.made.append(f"{scope.path}.{entry}".lstrip("."))

    def _remove(self, node: Node) -> None:
        scope = self._scope(node)
        if node.layer is not None and (scope is None or node.on_layer):
            place = self._place_at(node.layer.path, node.training)
            identity = nn.Identity().train(place.training)
            for path in (node.layer.path, *node.layer.aliases):
                head, name = parent_of(path)
                self.mutable(head)._modules[name] = identity
            self._slow_path(node.layer.path)
            return
        assert scope is not None, "a function without a captured scope is no node"
        self._slow_path(scope.path)
        if scope.kind == "list":
            entry = self._entry(scope, node)
            del self.mutable(scope.path)._modules[entry]
            return
        self._touch(scope)
        calls = self.calls[scope.module]
        for call in calls.nodes[node.local].values():
            slot = calls.slots[node.local][0]
            call.replace_all_uses_with(occurrences(call)[slot][1])
            call.graph.erase_node(call)
            self.gone.add(call)
        if node.layer is not None:
            self._drop_uncalled(node.layer)

    def _drop_uncalled(self, layer: Layer) -> None:
        """Takes a layer out of the tree once no captured forward calls it any more."""
        module = self._original(layer.path)
        for scope in self.capture.scopes.values():
            for body in scope.bodies.values():
                if any(child is module and call not in self.gone for call, child in body.children.items()):
                    return
        for path in (layer.path, *layer.aliases):
            head, name = parent_of(path)
            self.mutable(head)._modules.pop(name, None)

    # ---- update

    def _update(self, edit: Update) -> None:
        target = edit.target
        if isinstance(target, Node):
            self._update_call(target, edit.changes)
            return
        for key, value in edit.changes.items():
            if key == "trainable":
                self._set_trainable(target.path, bool(value))
            elif key == "statistics":
                self._set_statistics(target, value == "frozen")
            elif key == "reset":
                assert value is None or isinstance(value, Initialiser)
                self._reset(edit, target.path, value)
            else:
                self._set_attribute(target.path, key.removeprefix("."), value)

    def _set_trainable(self, path: str, learns: bool) -> None:
        for parameter in self.root.get_submodule(path)._parameters.values():
            if parameter is None or self.parameters.get(parameter, parameter).requires_grad == learns:
                continue
            if not (parameter.is_floating_point() or parameter.is_complex()):
                continue
            self.parameters[parameter] = _same_storage(parameter, learns)

    def _share_parameters(self) -> None:
        """Puts each new parameter wherever the old one stood, so that tied stays tied."""
        if not self.parameters:
            return
        for path, module in walk(self.root):
            for name, parameter in module._parameters.items():
                new = self.parameters.get(parameter) if parameter is not None else None
                if new is not None:
                    self.mutable(path)._parameters[name] = new

    def _set_statistics(self, layer: Layer, still: bool) -> None:
        module = self.mutable(layer.path)
        recipe = recipe_of(module)
        if recipe.still != still:
            self._follow(module, replace(recipe, still=still))
        head = parent_of(layer.path)[0]
        module.training = False if still else self.root.get_submodule(head).training

    def _reset(self, edit: Update, path: str, initialiser: Initialiser | None) -> None:
        module = self.mutable(path)
        olds = dict(module._parameters)
        for name, parameter in olds.items():
            if parameter is not None and parameter not in self.parameters:
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter), parameter.requires_grad)
                self.parameters[parameter] = module._parameters[name]  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.clone()
        for inner_path, inner in list(module.named_modules()):
            if inner_path and inner._parameters:  # MultiheadAttention draws its projection's weights itself
                self._own_parameters(f"{path}.{inner_path}".lstrip("."))
        self.builder.reset(module, initialiser, edit.seed, path, edit.span)

    def _own_parameters(self, path: str) -> None:
        module = self.mutable(path)
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter not in self.parameters:
                own = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                module._parameters[name] = own
                self.parameters[parameter] = own

    def _set_attribute(self, path: str, name: str, value: object) -> None:
        module = self.mutable(path)
        self._slow_path(path)
        if name in module._parameters and value is None:
            module._parameters[name] = None
        elif name in module._modules or callable(module.__dict__.get(name)):  # the activation of a module
            layer: nn.Module = nn.Identity().train(module.training)
            if isinstance(value, NewLayer):
                layer = self.builder.build(value, self._place_at(path, module.training))
            module.__dict__.pop(name, None)
            module._modules[name] = layer
        else:
            setattr(module, name, value)
            if name == "padding" and hasattr(module, "_reversed_padding_repeated_twice"):
                # a convolution keeps its padding in the form that F.pad takes as well
                module._reversed_padding_repeated_twice = [p for pad in reversed(value) for p in (pad, pad)]  # type: ignore[call-overload,assignment]

    def _update_call(self, node: Node, changes: Mapping[str, object]) -> None:
        scope = self._scope(node)
        assert scope is not None, "a function without a captured scope is no node"
        self._touch(scope)
        for call in self.calls[scope.module].nodes[node.local].values():
            for key, value in changes.items():
                set_argument(call, node, key.removeprefix("."), value)

    def _slow_path(self, path: str) -> None:
        """Makes PyTorch's transformer encoder call its layers one by one.

        In eval mode it hands all weights to one fused kernel, and would not see that a layer in it has changed.
        """
        while path:
            module = self.root.get_submodule(path) if _exists(self.root, path) else None
            if isinstance(module, nn.TransformerEncoderLayer):
                self.mutable(path).__dict__["activation_relu_or_gelu"] = 0
            if isinstance(module, nn.TransformerEncoder):
                self.mutable(path).__dict__["use_nested_tensor"] = False
            path = parent_of(path)[0]


def _first_number(module: nn.Module) -> torch.Tensor | None:
    """A parameter that tells device and dtype: the module's own, or the first inside it."""
    for parameter in module._parameters.values():
        if parameter is not None and parameter.is_floating_point():
            return parameter
    if not module._modules:
        return None
    return next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)


def _exists(root: nn.Module, path: str) -> bool:
    try:
        root.get_submodule(path)
    except AttributeError:
        return False
    return True


def replace_occurrence(node: fx.Node, place: int, value: fx.Node) -> None:
    """Puts `value` in the place of the n-th value in a call's arguments, and of that one only."""
    count = -1

    def visit(item: Any) -> Any:
        nonlocal count
        if isinstance(item, fx.Node):
            count += 1
            return value if count == place else item
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*(visit(part) for part in item))
        if isinstance(item, tuple | list):
            return type(item)(visit(part) for part in item)
        if isinstance(item, dict):
            return {key: visit(part) for key, part in item.items()}
        if isinstance(item, slice):
            return slice(visit(item.start), visit(item.stop), visit(item.step))
        return item

    args = tuple(visit(item) for item in node.args)
    kwargs = {key: visit(item) for key, item in node.kwargs.items()}
    node.args, node.kwargs = args, kwargs


def set_argument(call: fx.Node, node: Node, name: str, value: object) -> None:
    """Gives a recorded function call another value for one of its parameters."""
    from rewrite.backends.torch.spellings import call_parameters
    from rewrite.vocabulary import OPERATIONS
    from rewrite.vocabulary.operation import parse_signature

    text = call_parameters(call, OPERATIONS[node.operation]) if node.operation is not None else None
    names = [parameter.name for parameter in parse_signature(text)] if text else []
    if name in names and names.index(name) < len(call.args):
        call.update_arg(names.index(name), value)  # type: ignore[arg-type]
    else:
        call.update_kwarg(name, value)  # type: ignore[arg-type]


def _same_storage(parameter: nn.Parameter, learns: bool) -> nn.Parameter:
    """A parameter over the same numbers that does or does not learn."""
    twin: nn.Parameter = torch.Tensor._make_subclass(type(parameter), parameter.detach(), learns)
    twin.__dict__.update(parameter.__dict__)
    return twin


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
