"""The new model while it is made: copies along the way to each edited module, new children, edited graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch.calls import Calls
from rewrite.backends.torch.code_changes import changed_at
from rewrite.backends.torch.generated import generate_class
from rewrite.backends.torch.layers import Builder, Place
from rewrite.backends.torch.modules import parent_of, shallow_copy, walk
from rewrite.backends.torch.recipes import (
    Argument,
    CodeChange,
    MethodChanges,
    Recipe,
    base_of,
    check_name,
    recipe_of,
)
from rewrite.backends.torch.scopes import Capture, Scope
from rewrite.edit import Edit, Insert, Move, NewLayer, Remove, Replace, Update, read_without
from rewrite.errors import Diagnostic, RewriteError
from rewrite.graph import Layer, Node


class Draft:
    """One write's copy of a model. Paths that it takes are those of the model as it was captured."""

    def __init__(self, capture: Capture, calls: Mapping[nn.Module, Calls], builder: Builder) -> None:
        self.capture = capture
        self.calls = calls
        self.builder = builder
        self.root = shallow_copy(capture.root)
        self.fresh: set[nn.Module] = {self.root}
        """modules of this write alone, which may be changed"""
        self.changed: dict[nn.Module, Scope] = {}
        """copied module -> its scope, whose graphs were edited"""
        self.behind: dict[fx.Node, fx.Node] = {}
        """call -> the last of the calls that were put behind it"""
        self.ahead: dict[tuple[fx.Node, int], tuple[fx.Node, int]] = {}
        """(call, place of an input) -> the first of the calls that were put in front of it, and the place in that"""
        self.gone: set[fx.Node] = set()
        self.parameters: dict[torch.Tensor, nn.Parameter] = {}
        """parameter -> the one that stands in for it wherever it stood"""
        self.made: list[str] = []
        """paths of the layers that the present edit has made"""
        self.order: dict[nn.Module, dict[str, tuple[list[str], list[str]]]] = {}
        """module -> child -> children that stand in front of it and behind it"""
        self.wrapped: list[tuple[str, str]] = []
        """(path, where the module that stood there is now)"""
        self._entries: dict[nn.Module, dict[str, str]] = {}
        self._places: dict[str, Place] = {}
        self._shared: dict[str, nn.Module] = {}
        self._callers: dict[nn.Module, list[fx.Node]] | None = None
        self._read: set[str] = set()
        self._in_code: set[nn.Module] = set()
        self.recoded: dict[nn.Module, Mapping[str, MethodChanges]] = {}
        """copied module -> what is different in the code of its methods"""
        self.taken: dict[nn.Module, dict[str, object]] = {}
        """copied module -> plain attributes that this takes for granted"""

    # ---- copies

    def now(self, path: str, *, itself: bool = True) -> str:
        """Where a module is by now: what was wrapped in this write lies inside what wraps it.

        Args:
            path: of a module, as it was captured.
            itself: whether the module itself is meant; else what stands in its place.

        """
        for outer, inner in self.wrapped:
            if path.startswith(f"{outer}.") or (itself and path == outer):
                path = inner + path[len(outer) :]
        return path

    def module(self, path: str) -> nn.Module:
        """The module that was at `path`, as it is now; it may still be shared with the given model."""
        return self.root.get_submodule(self.now(path))

    def original(self, path: str) -> nn.Module:
        """The module at `path` of the given model."""
        return self.capture.root.get_submodule(path)

    def mutable(self, path: str, *, itself: bool = True) -> nn.Module:
        """The module at `path`, copied so that it may be changed; wherever it hangs, the copy hangs there."""
        module = self.root.get_submodule(self.now(path, itself=itself))
        if module in self.fresh:
            return module
        copy = shallow_copy(module)
        self.fresh.add(copy)
        for where in self.capture.paths.get(module, (path,)):
            head, name = parent_of(where)
            parent = _at(self.root, self.now(head))
            if parent is not None and parent._modules.get(name) is module:
                self.mutable(head)._modules[name] = copy
        return copy

    def follow(self, module: nn.Module, recipe: Recipe) -> None:
        """Gives a fresh module the class of a recipe."""
        module.__class__ = generate_class(base_of(type(module)), recipe)

    def put(self, layer: Layer, module: nn.Module) -> None:
        """Hangs a module in the place of a layer, under all its names."""
        for path in (layer.path, *layer.aliases):
            head, name = parent_of(path)
            self.mutable(head)._modules[name] = module
        self.fresh.update(module.modules())

    # ---- new layers

    def build(self, new: NewLayer, place: Place) -> nn.Module:
        """A new layer; those that are to be one layer are built once."""
        if not new.share:
            return self.builder.build(new, place)
        if new.share not in self._shared:
            self._shared[new.share] = self.builder.build(new, place)
        return self._shared[new.share]

    def add(
        self,
        owner_path: str,
        name: str,
        new: NewLayer,
        place: Place,
        *,
        beside: str | None = None,
        ahead: list[str] | None = None,
        anew: bool = False,
    ) -> str:
        """Builds a new child of a module; returns its name. A shared layer that is a child already stays that one.

        Args:
            owner_path: where the module is.
            name: what the child is called, if that is free.
            new: the child.
            place: what it is to be like.
            beside: the child that it will stand next to, behind all that stand there.
            ahead: names that go in front of `beside`; the new one joins them.
            anew: gives a shared layer a further name, where each name is a call.

        """
        owner = self.mutable(owner_path)
        layer = self.build(new, place)
        prefix = self.now(owner_path)
        if new.share and not anew:
            for known, child in owner._modules.items():
                if child is layer:
                    self.made.append(f"{prefix}.{known}".lstrip("."))
                    return known
        name = _free_name(owner, name)
        owner._modules[name] = layer
        if ahead is not None:
            ahead.append(name)
        elif beside is not None and beside in owner._modules:
            self.neighbours(owner, beside)[1].append(name)
        self.fresh.update(layer.modules())
        self.made.append(f"{prefix}.{name}".lstrip("."))
        return name

    def place(self, node: Node) -> Place:
        """Device, dtype and mode for a new layer beside a call: those of the layer, else of what is around it."""
        return self.place_at(node.layer.path if node.layer is not None else node.scope, node.training)

    def place_at(self, path: str, training: bool) -> Place:
        """Device and dtype of what is at a path or around it."""
        found = self._places.get(path)
        if found is None:
            where = path
            while True:
                tensor = _first_number(self.original(where))
                if tensor is not None:
                    found = Place(tensor.device, tensor.dtype, training)
                    break
                if not where:
                    found = Place(torch.get_default_device(), torch.get_default_dtype(), training)
                    break
                where = parent_of(where)[0]
            self._places[path] = found
        return replace(found, training=training) if found.training != training else found

    # ---- order of children

    def neighbours(self, owner: nn.Module, child: str) -> tuple[list[str], list[str]]:
        """Names of the children that go in front of a child and behind it."""
        return self.order.setdefault(owner, {}).setdefault(child, ([], []))

    def ordered(self, owner: nn.Module) -> list[str]:
        """Names of a module's children in the order that they will have."""
        beside = self.order.get(owner, {})
        placed = {name for pair in beside.values() for names in pair for name in names}

        def emit(name: str) -> Iterator[str]:
            ahead, behind = beside.get(name, ([], []))
            for other in ahead:
                yield from emit(other)
            yield name
            for other in behind:
                yield from emit(other)

        return [name for top in owner._modules if top not in placed for name in emit(top)]

    def leave_neighbours(self, owner: nn.Module, child: str) -> None:
        """What was put around a child stays where it is when the child goes elsewhere."""
        around = self.order.get(owner, {}).get(child)
        for pair in self.order.get(owner, {}).values():
            for names in pair:
                if child in names:
                    place = names.index(child)
                    names[place : place + 1] = [*around[0], *around[1]] if around is not None else []
                    self.order[owner].pop(child, None)
                    return
        if around is None or not any(around):
            return
        names = self.ordered(owner)
        del self.order[owner][child]
        place = names.index([*around[0], child][0])
        following = names[names.index([child, *around[1]][-1]) + 1 :]
        if place:
            self.neighbours(owner, names[place - 1])[1].extend([*around[0], *around[1]])
        elif following:
            self.neighbours(owner, following[0])[0][:0] = [*around[0], *around[1]]

    def finish(self) -> None:
        """Puts new children in their order, and new parameters and forwards where they belong."""
        for owner in self.order:
            old = dict(owner._modules)
            names = [name for name in self.ordered(owner) if name in old]
            owner._modules.clear()
            owner._modules.update({name: old[name] for name in names})
            owner._modules.update({name: child for name, child in old.items() if name not in owner._modules})
        self._share_parameters()
        for module, code in self.recoded.items():
            recipe = recipe_of(module)
            self.follow(module, replace(recipe, code=code, settings={**recipe.settings, **self.taken[module]}))
        for module, scope in self.changed.items():
            graphs = {mode: body.graph for mode, body in scope.bodies.items()}
            recipe = recipe_of(module)
            settings = dict(recipe.settings)  # a forward that was written before reads none any more
            for body in scope.bodies.values():
                settings |= body.settings
            arguments = scope.body.arguments
            recipe = replace(recipe, bodies=graphs, arguments=arguments, settings=settings, sure=scope.sure)
            self.follow(module, recipe)

    def _share_parameters(self) -> None:
        """Puts each new parameter wherever the old one stood, so that tied stays tied."""
        if not self.parameters:
            return
        for path, module in walk(self.root):
            for name, parameter in list(module._parameters.items()):
                new = self.parameters.get(parameter) if parameter is not None else None
                if new is not None:
                    # What is not fresh yet stands where it was captured.
                    own = module if module in self.fresh else self.mutable(path)
                    own._parameters[name] = new

    # ---- scopes

    def scope(self, node: Node) -> Scope | None:
        """The captured scope that a call stands in."""
        return self.capture.scopes[self.original(node.scope)] if node.local else None

    def touch(self, scope: Scope) -> None:
        """Notes that the graphs of a scope are edited."""
        self.changed[self.mutable(scope.path)] = scope

    def calls_of(self, node: Node, scope: Scope) -> dict[str, fx.Node]:
        """What makes a call in each body of its scope that makes it.

        Raises:
            PlanError: an earlier edit of this write has taken the call away (RW320).

        """
        left = self.remaining(node, scope)
        if not left:
            raise _taken_away(node)
        return left

    def remaining(self, node: Node, scope: Scope) -> dict[str, fx.Node]:
        """The same; empty where an earlier edit has taken the call away."""
        found = self.calls[scope.module].nodes[node.local]
        return {mode: call for mode, call in found.items() if call not in self.gone}

    def choose_code(self, edits: Iterable[Edit]) -> None:
        """Finds the forwards whose code is changed, instead of a graph that would take its place.

        Those without a graph are; so is one whose graph does not hold for every call, if all edits can be made there.

        Raises:
            SiteError: an edit would need a graph that only holds for calls which nobody knows (RW206).

        """
        graphs: dict[nn.Module, Node] = {}
        for edit in edits:
            for node in _edited(edit):
                scope = self.scope(node)
                if scope is None or node.on_layer or (scope.sure and not scope.reason):
                    continue
                if self._fits_code(edit, node, scope):
                    self._in_code.add(scope.module)
                else:
                    graphs[scope.module] = node
        for module, node in graphs.items():
            scope = self.capture.scopes[module]
            if scope.assumed or scope.reason:
                raise _uncertain(node, scope).error()
        self._in_code -= graphs.keys()

    def _fits_code(self, edit: Edit, node: Node, scope: Scope) -> bool:
        """Whether an edit can be made at a call in the code of a forward."""
        call = self.calls[scope.module].code.get(node.local)
        match edit:
            case Insert(operand=int() as operand) | Remove(operand=operand):
                return call is not None and node.inputs[operand].name in call.inputs
            case Replace():
                return call is not None and bool(call.inputs) and not edit.inputs and not edit.unused
            case Insert() | Update():
                return call is not None
        return False

    def is_in_code(self, scope: Scope) -> bool:
        """Whether the code of a forward is changed, and no graph of it."""
        return scope.module in self._in_code

    def recode(self, node: Node, scope: Scope, change: Callable[[CodeChange], CodeChange]) -> None:
        """Changes what is different about a call in the code of a forward of which there is no graph.

        Args:
            node: the call.
            scope: that forward.
            change: gives what will be different of what is by now.

        Raises:
            PlanError: an earlier edit of this write has taken the call away (RW320).

        """
        call = self.calls[scope.module].code[node.local]
        module = self.mutable(scope.path)
        self.slow_path(scope.path)
        code = self.recoded.get(module, recipe_of(module).code)
        here = code.get(call.method)
        if here is not None and call.number in here.calls and here.calls[call.number].instead is not None:
            raise _taken_away(node)
        self.recoded[module] = changed_at(code, base_of(type(module)), call, change)
        self.taken.setdefault(module, {}).update(self.calls[scope.module].settings)
        for body in scope.bodies.values():
            self.taken[module].update(body.settings)

    def code_argument(self, node: Node, scope: Scope, operand: int) -> Argument:
        """The argument that is an input of a call in the code of a forward."""
        return self.calls[scope.module].code[node.local].inputs[node.inputs[operand].name]

    def slot(self, node: Node, scope: Scope, operand: int) -> int:
        """Place of an input among all values in a call's arguments."""
        return self.calls[scope.module].slots[node.local][operand]

    def entry(self, scope: Scope, node: Node) -> str:
        """Name of the entry of a Sequential that a call in it stands for."""
        found = self._entries.get(scope.module)
        if found is None:
            calls = [call.name for call in scope.body.graph.nodes if call.op == "call_module"]
            found = self._entries[scope.module] = dict(zip(calls, scope.module._modules, strict=True))
        if found[node.local] not in self.module(scope.path)._modules:
            raise _taken_away(node)
        return found[node.local]

    def child_name(self, node: Node, scope: Scope) -> str | None:
        """The direct child of a scope that a call in it calls."""
        if node.layer is None:
            return None
        relative = node.layer.path.removeprefix(f"{scope.path}." if scope.path else "")
        return relative if "." not in relative else None

    def called(self, call: fx.Node, scope: Scope) -> nn.Module | None:
        """The module that a recorded call calls, new ones included."""
        if call.op != "call_module":
            return None
        known = next((body.children[call] for body in scope.bodies.values() if call in body.children), None)
        return known if known is not None else self.module(scope.path).get_submodule(str(call.target))

    def drop_uncalled(self, layer: Layer) -> None:
        """Takes a layer out of the tree once no captured forward calls it any more, or reads its weights."""
        if self._callers is None:
            self._callers = {}
            for scope in self.capture.scopes.values():
                prefix = f"{scope.path}." if scope.path else ""
                for body in scope.bodies.values():
                    for call, child in body.children.items():
                        self._callers.setdefault(child, []).append(call)
                    self._read.update(f"{prefix}{n.target}" for n in body.graph.nodes if n.op == "get_attr")
        if any(call not in self.gone for call in self._callers.get(self.original(layer.path), ())):
            return
        paths = (layer.path, *layer.aliases)
        if any(name.startswith(f"{path}.") for name in self._read for path in paths):
            return
        for path in paths:
            head, name = parent_of(path)
            self.mutable(head)._modules.pop(name, None)

    def slow_path(self, path: str) -> None:
        """Makes PyTorch's transformer encoder call its layers one by one.

        In eval mode it hands all weights to one fused kernel, and would not see that a layer in it has changed.
        """
        while path:
            module: Any = _at(self.root, self.now(path))
            if isinstance(module, nn.TransformerEncoderLayer):
                self.mutable(path).__dict__["activation_relu_or_gelu"] = 0
            if isinstance(module, nn.TransformerEncoder):
                self.mutable(path).__dict__["use_nested_tensor"] = False
            path = parent_of(path)[0]


def _taken_away(node: Node) -> RewriteError:
    return Diagnostic(
        "RW320",
        f"`{node.name}` is no longer there",
        notes=("an earlier part of the same rule has removed or replaced it",),
        help="do that in a rule of its own, further down in the file",
    ).error()


def _edited(edit: Edit) -> tuple[Node, ...]:
    """The calls that an edit changes, or those around it."""
    match edit:
        case Insert(node=node) | Remove(node=node):
            return (node,) if not (isinstance(edit, Insert) and edit.on_layer) else ()
        case Move(node=node, anchor=anchor):
            return node, anchor
        case Replace(target=Node() as node):
            return node, *edit.unused
        case Replace(calls=calls, unused=unused):
            return (*(calls if edit.inputs else ()), *unused)
        case Update(target=Node() as node):
            return (node,)
    return ()


def _uncertain(node: Node, scope: Scope) -> Diagnostic:
    if scope.reason:
        return Diagnostic(
            "RW206",
            f"`{node.name}` cannot be changed in this way: the forward around it could not be captured",
            notes=(scope.reason,),
            help=f'leave it out with `except "{node.name}"`, or insert, replace or remove single calls',
        )
    return read_without(node, scope.assumed)


def _free_name(module: nn.Module, name: str) -> str:
    check_name(name)
    candidate, number = name, 0
    while hasattr(module, candidate):
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _first_number(module: nn.Module) -> torch.Tensor | None:
    """A parameter that tells device and dtype: the module's own, or the first inside it."""
    for parameter in module._parameters.values():
        if parameter is not None and parameter.is_floating_point():
            return parameter
    if not module._modules:
        return None
    return next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)


def _at(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None
