"""Reads the forward of every module of a model in one pass: the scopes.

One `torch.fx` trace runs the whole model. Where a trace would go on into a child module, this one opens a graph of the
child's own, runs the child's forward there, and leaves one call behind in the parent. So every module keeps its own
forward, and one line that cannot be captured costs its own module only.

A capture that would mean something else than the code it came from is refused: `Unfaithful` names the construct, the
scope becomes opaque, and its children are captured on their own.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import operator
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import fx, nn

from rewrite.backends.torch.answers import Answers
from rewrite.backends.torch.code_places import WAY, way_to
from rewrite.backends.torch.in_place import order_in_place
from rewrite.backends.torch.modules import all_paths, copy_tree, is_sequential, shallow_copy
from rewrite.backends.torch.proxies import (
    OtherMode,
    ScopeProxy,
    TrainingFlag,
    structure_of,
    structure_of_example,
    traced_class,
)
from rewrite.backends.torch.scopes import (
    SIMPLE,
    Body,
    Capture,
    Constant,
    Container,
    Placeholder,
    Record,
    Scope,
    Slot,
    Structure,
    Unfaithful,
    call_forward,
    fields_of,
    forward_signature,
)
from rewrite.backends.torch.spellings import class_operation, gives_no_tensor, is_leaf, is_of_sequences
from rewrite.backends.torch.watching import (
    State,
    changed_keys,
    context,
    drawn_since,
    draws_now,
    restore_generators,
    state_of,
    state_of_all,
)
from rewrite.backends.weight_reads import Framework, read_children

_ATOMS = frozenset(SIMPLE)
_PYTORCH = Framework(
    nn.Module,
    frozenset(
        ["children", "named_children", "modules", "named_modules", "_modules", "get_submodule", "apply", "__dict__"]
    ),
    frozenset(["__init__"]),
)

_HERE = os.path.dirname(__file__)
_TORCHS_OWN = ("/torch/fx/", "/torch/nn/modules/module")
"""files that lie between the code of a forward and what stops its capture"""


@dataclass
class _Frame:
    """A forward that is being captured."""

    scope: Scope
    graph: fx.Graph
    twin: nn.Module
    """the shallow copy whose forward runs: what the forward sets is set there"""
    training: bool
    children: dict[fx.Node, nn.Module] = field(default_factory=dict)
    unpacked: list[fx.Node] = field(default_factory=list)
    tensors: dict[int, str] | None = None
    attributes: dict[str, fx.Proxy] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    """plain attributes of the module that its forward reads"""
    branches: bool = False
    numbers: set[fx.Node] = field(default_factory=set)
    """values from callers and callees that may be no tensors"""
    tensor_calls: set[fx.Node] = field(default_factory=set)
    """calls of functions and methods that give a tensor"""
    reads: list[str] = field(default_factory=list)
    """paths of layers whose tensors are read without calling them"""
    asks_grad: bool = False
    """the forward asks whether gradients are recorded"""
    refused: str = ""
    """why the capture is refused, should the model's code swallow the exception"""


class Capturer(fx.Tracer):  # type: ignore[misc]
    """One pass over a model. Use `capture`."""

    proxy_buffer_attributes = True

    def __init__(
        self,
        model: nn.Module,
        known: Mapping[nn.Module, Scope],
        examples: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]],
        leaves: frozenset[str],
    ) -> None:
        super().__init__()
        self.given = model
        self.leaves = leaves
        self.examples = examples
        self.known = known
        self.frames: list[_Frame] = []
        self.scopes: dict[nn.Module, Scope] = {}
        self.read_only: dict[str, str] = {}
        self.reached: set[nn.Module] = set()
        self.context: tuple[object, ...] = ()
        """grad mode, autocast and the like when the innermost forward began"""
        self._stand_in()
        self.answers = Answers(self._note_grad)
        self.blamed: set[object] = set()
        """state (module, attribute) that some forward was found to change: those around it are not blamed as well"""
        self.watchful = False
        """whether to tell which forward draws random numbers or changes what others see; only when one does"""

    # ---- the pass

    def run(self) -> Capture:
        """Captures everything, each module once."""

        def entry() -> None:
            self.open_alone(self.model)
            self.complete_modes()

        with _watched_sequentials(self), self.answers:
            draws, states = draws_now(), self._states()
            try:
                self.trace(entry)
                drew = drawn_since(draws)
                if drew or self._states() != states:  # some forward draws or keeps count: find out which
                    restore_generators(draws)
                    self.watchful = True
                    self._stand_in()
                    self.scopes, self.read_only, self.reached = {}, {}, set()
                    self.trace(entry)
            finally:
                restore_generators(draws)
        for module in self.reached:
            if module in self.scopes:
                self.scopes[module].reached = True
        self._note_reads()
        return self._of_the_given()

    def _note_reads(self) -> None:
        """Finds the layers that a forward which was not captured reads and never calls."""
        for module, scope in self.scopes.items():
            if not scope.reason:
                continue
            given = self.originals.get(module, module)
            children = {name: child._parameters for name, child in given._modules.items() if child is not None}
            for name in read_children(type(given), children, _PYTORCH):
                child = module._modules[name]
                if child is not None and len(self.paths[child]) == 1 and self._is_leaf(child):
                    self.read_only.setdefault(self.paths[child][0], scope.path)

    def _stand_in(self) -> None:
        """Copies the module tree: strangers' forwards run on the copy, and what they set or hook is set there."""
        self.originals: dict[nn.Module, nn.Module] = {}
        self.held: list[tuple[nn.Module, str, object]] = []
        self.model = copy_tree(self.given, self.originals, self.held)
        self.paths = all_paths(self.model)
        self.whole = {module for module, paths in self.paths.items() if not self.leaves.isdisjoint(paths)}
        for twin in self.originals:
            twin.__dict__["training"] = OtherMode(self.refuse)

    def _is_leaf(self, module: nn.Module) -> bool:
        """Whether a call of a module is one operation, of itself or because it was asked for."""
        return module in self.whole or is_leaf(module)

    def _mode_of(self, module: nn.Module) -> bool:
        """Whether a module, or the one that it stands in for, is in training mode."""
        return self.originals.get(module, module).training

    def _states(self) -> State:
        """What forwards could change in any module: attributes, and one level into containers and plain objects."""
        return state_of_all(self.paths, self.held)

    def _of_the_given(self) -> Capture:
        """The capture in terms of the given model's modules."""
        originals = self.originals
        for twin, scope in self.scopes.items():
            if scope.module is not twin:
                continue  # taken over from an earlier capture
            scope.module = originals[twin]
            for body in scope.bodies.values():
                body.children = {call: originals.get(child, child) for call, child in body.children.items()}
        scopes = {originals[twin]: scope for twin, scope in self.scopes.items()}
        paths = {originals[twin]: paths for twin, paths in self.paths.items()}
        for scope in scopes.values():
            for body in scope.bodies.values() if not scope.reason else ():
                for called in body.children.values():
                    # Read by somebody, but called as well: its call can be extended like any other.
                    self.read_only.pop(paths[called][0], None)
        for path in self.examples:
            self.read_only.pop(path, None)  # seen to be called, by whomever
        whole = frozenset(originals[twin] for twin in self.whole)
        return Capture(self.given, paths, scopes, self.read_only, whole)

    def _note_grad(self) -> None:
        if self.frames:
            self.frames[-1].asks_grad = True

    def open_alone(self, module: nn.Module) -> None:
        """Captures a module without a captured caller: as the example calls it, else with the defaults it has."""
        if module in self.scopes or self._is_leaf(module):
            return
        if self.examples and self.examples.keys().isdisjoint(self.paths[module]):
            # Nobody knows how it is called, if it ever is; what its forward names would be no calls.
            reason = "the example input does not call it"
            self.scopes[module] = Scope(module, self.paths[module][0], reason=reason, called=False)
            for child in self._called_children(module):
                self.open_alone(child)
            return
        try:
            signature = forward_signature(module)
        except (TypeError, ValueError) as problem:
            self.scopes[module] = Scope(module, self.paths[module][0], reason=_describe(problem))
            return
        arguments: dict[str, Structure] = {}
        parameters = list(signature.parameters.values())[1:]
        root = module is self.model
        sure, assumed = root, ""
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments[parameter.name] = Container(dict, ())
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                arguments[parameter.name] = Container(tuple, ())
                assumed = assumed or f"*{parameter.name}"
            elif parameter.default is inspect.Parameter.empty:
                arguments[parameter.name] = Placeholder(parameter.name, tensor=root)
            else:
                arguments[parameter.name] = Constant(parameter.default)
                sure, assumed = False, assumed or parameter.name
        example = self.examples.get(self.paths[module][0])
        if example is not None:
            with contextlib.suppress(TypeError):
                bound = signature.bind(None, *example[0], **example[1])
                bound.apply_defaults()
                for name, value in list(bound.arguments.items())[1:]:
                    arguments[name] = structure_of_example(value, name)
                assumed = ""
        if root and any(isinstance(structure, Placeholder) for structure in arguments.values()):
            assumed = ""  # the model is called as it says; only nobody calls one without a single argument
        self.open(module, arguments, sure=sure, alone=not root or bool(assumed), assumed=assumed)

    def open(
        self,
        module: nn.Module,
        arguments: dict[str, Structure],
        *,
        sure: bool,
        alone: bool = False,
        assumed: str = "",
    ) -> Scope:
        """Captures one module's forward, called with `arguments`; `alone`: its caller is not known."""
        scope = Scope(module, self.paths[module][0], sure=sure, assumed=assumed)
        self.scopes[module] = scope
        if self._adopt(module, arguments, sure):
            return self.scopes[module]
        try:
            frame, body = self._run_forward(scope, arguments, training=self._mode_of(module))
            if frame.asks_grad:
                self._check_without_grad(scope, body, training=self._mode_of(module))
            if alone:
                self._check_all_called(scope, body)
        except Exception as problem:  # whatever a stranger's forward raises makes this one scope opaque
            scope.reason = _describe(problem)
            self._loosen(module)
            return scope
        for path in frame.reads:
            self.read_only.setdefault(path, scope.path)
        scope.branches = frame.branches
        scope.current = ("train" if self._mode_of(module) else "eval") if frame.branches else ""
        scope.bodies[scope.current] = body
        return scope

    def _check_without_grad(self, scope: Scope, body: Body, *, training: bool) -> None:
        """Refuses a forward that does something else where no gradients are recorded: its graph would not."""
        with torch.set_grad_enabled(not context()[0]):
            _, other = self._run_forward(scope, body.arguments, training=training)
        graphs = [
            [(node.op, node.target, repr(node.args), repr(node.kwargs)) for node in graph.nodes]
            for graph in (body.graph, other.graph)
        ]
        if graphs[0] != graphs[1]:
            raise Unfaithful("does something else where no gradients are recorded")

    def _loosen(self, module: nn.Module) -> None:
        """What was captured in the context of a forward that did not come to its end stands on its own from now on."""
        for inner in module.modules():
            scope = self.scopes.get(inner)
            if scope is None or inner is module:
                continue
            scope.sure = False
            if scope.bodies and not scope.assumed and self.paths[inner][0] not in self.examples:
                scope.assumed = next((n for n, s in scope.body.arguments.items() if isinstance(s, Constant)), "")
            if not scope.reason and scope.bodies:
                try:
                    self._check_all_called(scope, scope.body)
                except Unfaithful as problem:
                    scope.reason = str(problem)
                    for child in self._called_children(inner):
                        self.open_alone(child)
        for child in self._called_children(module):
            self.open_alone(child)

    def _check_all_called(self, scope: Scope, body: Body) -> None:
        """Refuses a forward that leaves children out for the arguments that were assumed: others may call them."""
        called = set(body.children.values())
        for child in self._called_children(scope.module):
            if not any(inner in called for inner in child.modules()):
                name = self.paths[child][0].removeprefix(scope.path).lstrip(".")
                raise Unfaithful(f"does not call `{name}` for the arguments that are known here")

    def _called_children(self, module: nn.Module) -> Iterator[nn.Module]:
        """Nearest descendants that have a forward of their own; a ModuleList is looked through."""
        for child in module.children():
            if type(child).forward is nn.Module.forward:  # a plain container
                yield from self._called_children(child)
            else:
                yield child

    def _adopt(self, module: nn.Module, arguments: dict[str, Structure], sure: bool) -> bool:
        """Takes an unchanged scope, and those inside it, over from an earlier capture."""
        known = self.known.get(self.originals[module])
        if known is None or known.reason or known.branches or known.sure != sure or known.body.arguments != arguments:
            return False
        inside = [(child, self.known.get(self.originals[child])) for child in module.modules()]
        found = [(child, scope) for child, scope in inside if scope is not None]
        if any(scope.reason or scope.branches for _, scope in found):
            return False
        for child, scope in found:
            scope.path = self.paths[child][0]
            self.scopes[child] = scope
            if scope.reached:
                self.reached.add(child)
        return True

    def _run_forward(self, scope: Scope, arguments: dict[str, Structure], *, training: bool) -> tuple[_Frame, Body]:
        module = scope.module
        if "forward" in module.__dict__:
            raise Unfaithful("has a `forward` set on the instance")
        graph = fx.Graph(tracer_cls=fx.Tracer)
        graph._graph_namespace.create_name("self", None)  # a child may be named so (transformers' BertAttention)
        twin = shallow_copy(module)
        twin.__dict__.pop("training", None)
        twin.__dict__["_rewrite_capturer"] = self
        before = state_of(twin)
        frame = _Frame(scope, graph, twin, training)
        outer: fx.Graph = self.graph
        self.graph: fx.Graph = graph
        self.frames.append(frame)
        draws = draws_now() if self.watchful else None
        states = self._states() if self.watchful else None
        outer_context, self.context = self.context, context()
        try:
            passed = {name: self._proxies(structure) for name, structure in arguments.items()}
            if is_sequential(module):
                (value,) = passed.values()
                for child in module._modules.values():
                    value = child(value)  # type: ignore[misc]
                result = value
            else:
                twin.__class__ = traced_class(type(module))
                self.answers.give_to(type(module).forward)
                result = call_forward(type(module).forward, twin, passed, forward_signature(module))
            if frame.refused:
                raise Unfaithful(frame.refused)
            if draws is not None and drawn_since(draws):
                restore_generators(draws)  # so that no forward around this one is blamed for it
                raise Unfaithful("draws random numbers in forward")
            changed = changed_keys(states, self._states()) - self.blamed if states is not None else set()
            self.blamed |= changed
            if state_of(twin) != before or changed:
                raise Unfaithful("changes the module's own state in forward")
            shape = self._close(frame, result)
        finally:
            self.frames.pop()
            self.graph = outer
            self.context = outer_context
        return frame, Body(graph, arguments, shape, frame.children, frame.settings)

    def _proxies(self, structure: Structure) -> Any:
        match structure:
            case Placeholder(name, tensor):
                made = self.create_proxy("placeholder", name, (), {})
                if not tensor:
                    self.frames[-1].numbers.add(made.node)
                return made
            case Constant(value):
                return value
            case Container(kind, items):
                values = [self._proxies(item) for _, item in items]
                if issubclass(kind, dict):
                    entries: Any = kind
                    return entries((key, value) for (key, _), value in zip(items, values, strict=True))
                sequence: Any = kind
                return sequence(values)

    def _close(self, frame: _Frame, result: object) -> object:
        """Ends the graph with its output; returns the result's structure."""

        def fold(value: object, path: tuple[int | str, ...]) -> tuple[object, object]:
            if isinstance(value, fx.Proxy):
                return value, Slot(path, self.is_tensor(value.node))
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                parts = [fold(item, (*path, number)) for number, item in enumerate(value)]
                make: Any = type(value)
                return make(*(p for p, _ in parts)), make(*(s for _, s in parts))
            if type(value) in (tuple, list):
                parts = [fold(item, (*path, number)) for number, item in enumerate(value)]  # type: ignore[var-annotated,arg-type]
                return type(value)(p for p, _ in parts), type(value)(s for _, s in parts)  # type: ignore[call-arg]
            if type(value) in (dict, collections.OrderedDict):
                if not all(isinstance(key, str) for key in value):  # type: ignore[attr-defined]
                    raise Unfaithful("returns a dictionary with keys that are not strings")
                folded = {key: fold(item, (*path, key)) for key, item in value.items()}  # type: ignore[attr-defined]
                shape = type(value)((key, s) for key, (_, s) in folded.items())  # type: ignore[call-arg]
                plain = {key: p for key, (p, _) in folded.items()}
                if type(value) is dict:
                    return plain, shape
                made = self.create_proxy("call_function", collections.OrderedDict, (list(plain.items()),), {})
                return made, shape
            if isinstance(value, nn.Parameter | torch.Tensor):
                return value, Slot(path)
            if isinstance(value, SIMPLE):
                return value, value
            entries = fields_of(value)
            if entries is not None:
                folded = {name: fold(item, (*path, name)) for name, item in entries.items()}
                made = self.create_proxy("call_function", type(value), (), {name: p for name, (p, _) in folded.items()})
                return made, Record(type(value), {name: s for name, (_, s) in folded.items()})
            raise Unfaithful(f"returns a {type(value).__module__}.{type(value).__qualname__}")

        output, shape = fold(result, ())
        frame.graph.output(self.create_arg(output))
        for node in reversed(frame.unpacked):
            if not node.users:
                frame.graph.erase_node(node)
        order_in_place(frame.graph, frame.children)
        return shape

    # ---- both modes

    def complete_modes(self) -> None:
        """Captures the other mode of every forward that asks `self.training` in Python."""
        done: set[nn.Module] = set()
        while True:
            waiting = [s for s in self.scopes.values() if s.branches and not s.reason and s.module not in done]
            if not waiting:
                return
            for scope in waiting:
                done.add(scope.module)
                self._capture_other_mode(scope)

    def _capture_other_mode(self, scope: Scope) -> None:
        other = "eval" if scope.current == "train" else "train"
        try:
            _, body = self._run_forward(scope, scope.body.arguments, training=other == "train")
        except Exception as problem:
            scope.reason = f"in {other} mode: {_describe(problem)}"
            return
        scope.bodies[other] = body
        if body.result != scope.body.result:
            # A caller that takes the result apart was captured with the other structure: it depends on the mode too.
            for caller in self.scopes.values():
                if caller.reason or caller.branches:
                    continue
                if any(child is scope.module for child in caller.body.children.values()):
                    mode = "train" if self._mode_of(caller.module) else "eval"
                    caller.bodies = {mode: caller.body}
                    caller.branches, caller.current = True, mode

    def branch_on_training(self) -> bool:
        """Answers `if self.training:` for the innermost forward and remembers that it asked."""
        frame = self.frames[-1]
        frame.branches = True
        return frame.training

    def note_setting(self, twin: nn.Module, name: str, value: object) -> None:
        """Notes an attribute that the innermost forward reads of its own module, as it is on the module itself."""
        if self.frames and self.frames[-1].twin is twin and name in twin.__dict__:
            self.frames[-1].settings.setdefault(name, value)

    def training_flag(self, twin: nn.Module) -> fx.Proxy:
        """`self.training` as a value in the innermost graph."""
        frame = self.frames[-1]
        if frame.twin is not twin:
            self.refuse("reads the mode of another module")
        if "training" not in frame.attributes:
            node = self.create_node("get_attr", "training", (), {})
            frame.unpacked.append(node)
            frame.attributes["training"] = TrainingFlag(node, self)
        return frame.attributes["training"]

    # ---- hooks of fx

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return ScopeProxy(node, self)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        node = self.graph.create_node(kind, target, args, kwargs, name, type_expr)
        if self.frames:
            if context() != self.context:
                self.refuse("a `with` block (no_grad, autocast, checkpoint or the like) around some of its lines")
            graph = self.graph
            for source in node._input_nodes:
                if source.graph is not graph:
                    self.refuse("uses a value of another module's forward")
            if self._gives_tensor(node):
                self.frames[-1].tensor_calls.add(node)
            if kind in ("call_function", "call_method"):
                node.meta[WAY] = way_to(call_forward.__code__)
        return node

    def create_arg(self, a: Any) -> Any:
        # The common kinds first: this is called for every argument of every call.
        if isinstance(a, fx.Proxy):
            return a.node
        if type(a) in _ATOMS:
            return a
        if type(a) in (tuple, list):
            return type(a)([self.create_arg(item) for item in a])
        if isinstance(a, torch.Tensor):
            name = self._tensor_name(a)
            if name is None:
                self.refuse("a tensor is made in forward")
            return self._attribute(name).node
        return super().create_arg(a)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if not self.frames or not isinstance(attr_val, torch.Tensor):
            return attr_val
        name = self._tensor_name(attr_val)
        if name is None:
            self.refuse(f"reads `{attr}` of a module that is not its child")
        return self._attribute(name)

    def _attribute(self, name: str) -> fx.Proxy:
        frame = self.frames[-1]
        if name not in frame.attributes:
            owner = name.rpartition(".")[0]
            if owner:
                path = f"{frame.scope.path}.{owner}".lstrip(".")
                frame.reads.append(path)
                self._reach(owner)
            frame.attributes[name] = self.create_proxy("get_attr", name, (), {})
            frame.unpacked.append(frame.attributes[name].node)
        return frame.attributes[name]

    def _tensor_name(self, tensor: torch.Tensor) -> str | None:
        frame = self.frames[-1]
        if frame.tensors is None:
            frame.tensors = {}
            for name, parameter in frame.scope.module.named_parameters(remove_duplicate=False):
                frame.tensors.setdefault(id(parameter), name)
            for name, buffer in frame.scope.module.named_buffers(remove_duplicate=False):
                frame.tensors.setdefault(id(buffer), name)
            for name, value in frame.scope.module.__dict__.items():
                if isinstance(value, torch.Tensor):
                    frame.tensors.setdefault(id(value), name)
        return frame.tensors.get(id(tensor))

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        frame = self.frames[-1]
        name = self._name_in(frame.scope, m)
        if name is None:
            return self._call_unregistered(m, args, kwargs)
        self._reach(name)
        if self._is_leaf(m):
            proxy = self.create_proxy("call_module", name, args, kwargs)
            frame.children[proxy.node] = m
            return proxy
        if m is frame.scope.module:
            self.refuse("calls itself")
        result = self._call_scope(m, args, kwargs)
        proxy = self.create_proxy("call_module", name, args, kwargs)
        frame.children[proxy.node] = m
        return self._unpack(proxy, result, frame)

    def _call_unregistered(self, m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module made in forward: a slice of a Sequential runs entry by entry, a stateless layer as its functions."""
        if is_sequential(m):
            (value,) = (*args, *kwargs.values())
            for child in m._modules.values():
                value = child(value)  # type: ignore[misc]
            return value
        if next(m.parameters(), None) is not None or next(m.buffers(), None) is not None:
            self.refuse(f"calls a {type(m).__name__} that is not its child")
        return type(m).forward(m, *args, **kwargs)

    def _call_scope(self, m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Captures a child on its first call; returns the structure of its result, None where it is opaque."""
        caller = self.frames[-1].scope
        try:
            bound = forward_signature(m).bind(None, *args, **kwargs)
            bound.apply_defaults()
            arguments = {n: structure_of(v, n) for n, v in list(bound.arguments.items())[1:]}
        except Exception as problem:
            if m not in self.scopes:
                self.scopes[m] = Scope(m, self.paths[m][0], reason=_describe(problem))
                for child in self._called_children(m):
                    self.open_alone(child)
            return Slot(())
        scope = self.scopes.get(m)
        if scope is None:
            # What takes nothing but values does the same for every call, whatever is assumed about its caller.
            plain = all(isinstance(structure, Placeholder) for structure in arguments.values())
            scope = self.open(m, arguments, sure=caller.sure, assumed="" if plain else caller.assumed)
        elif not scope.reason and not _takes(scope.body.arguments, arguments):
            scope.reason = "called in different ways, with different arguments"
        if scope.reason:
            return Slot(())
        mode = scope.current
        if scope.branches and len(scope.bodies) == 2 and caller.branches:
            mode = "train" if self.frames[-1].training else "eval"
        return scope.bodies[mode].result

    def _name_in(self, scope: Scope, m: nn.Module) -> str | None:
        """Path of a module from the module of a scope; None if it is not inside."""
        prefix = f"{scope.path}." if scope.path else ""
        inside = [path[len(prefix) :] for path in self.paths.get(m, ()) if path.startswith(prefix)]
        return min(inside, key=lambda path: path.count("."), default=None)

    def _reach(self, name: str) -> None:
        """Notes that somebody else than a Sequential's own forward takes an entry out of it."""
        frame = self.frames[-1]
        head = name.rpartition(".")[0]
        while head:
            parent = frame.scope.module.get_submodule(head)
            if is_sequential(parent):
                self.reached.add(parent)
            head = head.rpartition(".")[0]

    def _unpack(self, proxy: fx.Proxy, result: object, frame: _Frame) -> object:
        """The value of a call in the structure that the callee returns."""

        def rebuild(part: object, value: fx.Proxy) -> object:
            if isinstance(part, Slot):
                if not part.tensor:
                    frame.numbers.add(value.node)
                return value
            if isinstance(part, tuple | list):
                items = [rebuild(item, self._item(value, number, frame)) for number, item in enumerate(part)]
                make: Any = type(part)
                return make(*items) if hasattr(part, "_fields") else make(items)
            if isinstance(part, Record):
                kind: Any = part.kind
                return kind(
                    **{name: rebuild(item, self._field(value, name, frame)) for name, item in part.fields.items()}
                )
            if isinstance(part, dict):
                return type(part)((key, rebuild(item, self._item(value, key, frame))) for key, item in part.items())
            return part

        return rebuild(result, proxy)

    def _item(self, value: fx.Proxy, key: int | str, frame: _Frame) -> fx.Proxy:
        return self._part(operator.getitem, value, key, frame)

    def _field(self, value: fx.Proxy, name: str, frame: _Frame) -> fx.Proxy:
        return self._part(getattr, value, name, frame)

    def _part(self, take: Callable[..., Any], value: fx.Proxy, key: int | str, frame: _Frame) -> fx.Proxy:
        part: fx.Proxy = self.create_proxy("call_function", take, (value, key), {})
        frame.unpacked.append(part.node)
        frame.tensor_calls.add(part.node)
        return part

    def to_bool(self, obj: fx.Proxy) -> bool:
        self.refuse("a Python branch on a value of the data")

    def iter(self, obj: fx.Proxy) -> Any:
        self.refuse("a Python loop over a value of the data")

    def keys(self, obj: fx.Proxy) -> Any:
        self.refuse("a value of the data is unpacked as keywords")

    def refuse(self, why: str) -> NoReturn:
        """Ends the capture of the innermost forward, even if the model's code catches the exception."""
        if self.frames:
            self.frames[-1].refused = why
        raise Unfaithful(why)

    def is_tensor(self, node: fx.Node) -> bool:
        """Whether a recorded value is a tensor for certain."""
        frame = self.frames[-1]
        if node in frame.numbers:
            return False
        match node.op:
            case "placeholder" | "get_attr":
                return node.target != "training"
            case "call_module":
                child = frame.children.get(node)
                if child is None or child not in self.scopes:
                    cls: Any = type(child)
                    operation = class_operation(cls) if child is not None else None
                    return operation is not None and operation.outputs == 1
                scope = self.scopes[child]
                return not scope.reason and isinstance(scope.body.result, Slot)
            case _:
                return node in frame.tensor_calls or self._is_main_output(node, frame)

    def _is_main_output(self, node: fx.Node, frame: _Frame) -> bool:
        """Whether a value is the first of several that a layer returns: that one is a tensor, the rest may be more."""
        if node.target is not operator.getitem or node.args[1] != 0 or not isinstance(node.args[0], fx.Node):
            return False
        child = frame.children.get(node.args[0])
        cls: Any = type(child)
        operation = class_operation(cls) if child is not None and child not in self.scopes else None
        return operation is not None and operation.outputs > 1

    def _gives_tensor(self, node: fx.Node) -> bool:
        """An operation gives a tensor if it takes one; arithmetic of sizes gives sizes."""
        if node.op not in ("call_function", "call_method"):
            return False
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if gives_no_tensor(name) or name == "getattr" or is_of_sequences(node):
            return False
        return any(self.is_tensor(source) for source in node._input_nodes)


def capture(
    model: nn.Module,
    known: Mapping[nn.Module, Scope] | None = None,
    examples: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
    leaves: frozenset[str] = frozenset(),
) -> Capture:
    """Captures every forward of `model` once; the model is not changed and none of its layers is run.

    Args:
        model: any module, on any device.
        known: scopes of an earlier capture; those whose module is still the same object are not captured again.
        examples: (args, kwargs) of one call of each module, which say which optional parameters are used.
        leaves: paths of modules that are one call each, whatever they are made of.

    """
    return Capturer(model, known or {}, examples or {}, leaves).run()


def _takes(captured: Mapping[str, Structure], arguments: Mapping[str, Structure]) -> bool:
    """Whether a forward that was captured for some arguments is right for others; what is no tensor for certain may be
    one.
    """

    def fits(one: Structure | None, other: Structure | None) -> bool:
        if isinstance(one, Placeholder) and isinstance(other, Placeholder):
            return one.name == other.name and other.tensor >= one.tensor
        if isinstance(one, Container) and isinstance(other, Container):
            keys = [[key for key, _ in items] for items in (one.items, other.items)]
            both = zip(one.items, other.items, strict=False)
            return one.kind is other.kind and keys[0] == keys[1] and all(fits(a, b) for (_, a), (_, b) in both)
        return one == other

    return captured.keys() == arguments.keys() and all(fits(captured[name], arguments[name]) for name in captured)


def _describe(problem: BaseException) -> str:
    """Why a forward could not be captured, with the line of the model's own code that stopped it."""
    where = ""
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        if frame.filename.startswith(_HERE) or any(part in frame.filename for part in _TORCHS_OWN):
            continue
        where = f" ({frame.filename.rpartition('site-packages/')[2]}:{frame.lineno})"
        break
    try:
        text = str(problem).strip().splitlines()
    except Exception:  # an exception of a stranger's class, or about a stranger's object
        text = []
    what = text[0] if text else type(problem).__name__
    if ScopeProxy.__name__ in what or "__cuda_array_interface__" in what:  # what torch first asks of a stranger
        what = "a value of the data goes into a function that takes nothing but real tensors"
    elif not isinstance(problem, Unfaithful):
        what = f"{type(problem).__name__}: {what}"
    return what + where


@contextlib.contextmanager
def _watched_sequentials(capturer: Capturer) -> Iterator[None]:
    """Notes every Sequential that code outside its own forward indexes, iterates or measures."""
    originals = {name: nn.Sequential.__dict__[name] for name in ("__getitem__", "__iter__", "__len__")}

    def watch(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: nn.Sequential, *args: Any) -> Any:
            if capturer.frames and capturer.frames[-1].twin is not self:
                capturer.reached.add(self)
            return original(self, *args)

        method.__name__ = name
        return method

    for name, original in originals.items():
        setattr(nn.Sequential, name, watch(name, original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(nn.Sequential, name, original)
