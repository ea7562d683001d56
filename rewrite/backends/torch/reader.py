"""From captured scopes to the neutral graph: calls inside calls become nodes beside each other, values cross scopes."""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from torch import fx, nn

from rewrite.backends.names_in_code import mentions_in_code, names_in_code
from rewrite.backends.torch.calls import (
    SCALAR,
    Calls,
    bind_placeholders,
    call_attributes,
    leaves_of,
    name_calls,
    occurrences,
    operands_of,
    place_calls,
)
from rewrite.backends.torch.code_calls import Code, CodeCall, CodeReader
from rewrite.backends.torch.lazy import LazyMapping
from rewrite.backends.torch.module_reader import node_spelling
from rewrite.backends.torch.modules import is_sequential
from rewrite.backends.torch.recipes import recipe_of
from rewrite.backends.torch.scopes import (
    Body,
    Capture,
    Constant,
    Record,
    Scope,
    Slot,
)
from rewrite.backends.torch.spellings import (
    class_operation,
    function_operation,
    is_leaf,
    node_operation,
)
from rewrite.graph import Graph, Layer, Node, Operand, Value
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation

_SIZES = frozenset(["size", "dim", "numel", "stride", "ndimension", "element_size", "is_contiguous"])
_SIZE_ATTRIBUTES = frozenset(["shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout"])


class Flattener:
    """Expands the scopes of a capture, from the root, into the nodes of one graph."""

    def __init__(
        self,
        capture: Capture,
        layers: Mapping[str, Layer],
        codes: Mapping[nn.Module, Code],
        calls: dict[nn.Module, Calls],
        flip: bool,
    ) -> None:
        self.capture = capture
        self.layers = layers
        self.codes = codes
        self.calls = calls
        self.flip = flip
        """read every scope in the mode that it is not in now"""
        self.nodes: list[Node] = []
        self.loose: set[nn.Module] = set()
        """modules of which it is only assumed that the forward around them calls them"""
        self.called: set[nn.Module] = set()
        """modules that captured forwards call"""
        self.seen: frozenset[nn.Module] = frozenset()
        """modules that need not be assumed to be called: a call of them is seen elsewhere"""

    def run(self) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
        """The nodes in order of execution, and the values that the model returns."""
        found = self._from_root()
        if not self.loose.isdisjoint(self.called):  # one that two modules hold, of which only the inner one calls it
            self.seen = frozenset(self.loose & self.called)
            self.nodes, self.loose = [], set()
            found = self._from_root()
        _agree_on_layers(found[0], {self.capture.paths[module][0] for module in self.seen})
        return found

    def _from_root(self) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
        root = self.capture.root
        outputs: tuple[Value, ...] = ()
        if is_leaf(root) or root in self.capture.whole:
            self._loose_node(root, None)
        elif self.capture.scopes[root].reason:
            self._expand_opaque(root, None)
        else:
            scope = self.capture.scopes[root]
            names = [
                str(node.target) for node in scope.bodies[self._mode(scope)].graph.nodes if node.op == "placeholder"
            ]
            outputs = tuple(leaves_of(self._expand(scope, {name: Value(None, input=name) for name in names}, None)))
        return tuple(self.nodes), outputs

    def _mode(self, scope: Scope) -> str:
        if self.flip and len(scope.bodies) == 2:
            return next(mode for mode in scope.bodies if mode != scope.current)
        return scope.current

    def _expand(self, scope: Scope, given: Mapping[str, Any], owner: Node | None, *, known: bool = True) -> Any:
        mode = self._mode(scope)
        body = scope.bodies[mode]
        calls = self.calls.get(scope.module)
        if calls is None:
            calls = self.calls[scope.module] = name_calls(scope)
            if scope.module in self.codes:
                place_calls(calls, scope, self.codes[scope.module])
        nothing = Value(None, known=known)
        env: dict[fx.Node, Any] = {}
        result: Any = ()
        for node in body.graph.nodes:
            op = node.op
            if op == "placeholder":
                env[node] = given.get(str(node.target), nothing)
            elif op == "get_attr":
                env[node] = SCALAR if node.target == "training" else Value(None)
            elif op == "output":
                result = _substitute(body.result, node.args[0], env)
            elif op == "call_module":
                env[node] = self._call_module(node, scope, body, calls, env, owner)
            else:
                env[node] = self._call_function(node, scope, calls, env, owner)
        return result

    def _call_module(
        self, node: fx.Node, scope: Scope, body: Body, calls: Calls, env: dict[fx.Node, Any], owner: Node | None
    ) -> Any:
        module = body.children[node]
        self.called.add(module)
        layer = self.layers[self.capture.paths[module][0]]
        child = self.capture.scopes.get(module)
        if child is None:
            recipe = recipe_of(module)
            inputs = occurrences(node)
            if recipe.before and inputs:
                first = inputs[0][1]
                env = {**env, first: self._around(layer, recipe.before, owner, env[first])}
            called = self._add(node, scope, calls, env, owner, layer=layer, module=module)
            if not recipe.after:
                return Value(called)
            main = self._around(layer, recipe.after, owner, Value(called, (0,) if called.outputs > 1 else ()))
            if called.outputs < 2:
                return main
            return (main, *(Value(called, (number,)) for number in range(1, called.outputs)))
        outputs = 1
        if not child.reason and not isinstance(child.bodies[self._mode(child)].result, Slot):
            outputs = 0
        outer = self._add(node, scope, calls, env, owner, layer=layer, module=module, composite=True, outputs=outputs)
        if child.reason:
            self._expand_opaque(module, outer)
            return Value(outer)
        given = {
            name: env[source] if isinstance(source, fx.Node) else Value(None)
            for name, source in bind_placeholders(child.bodies[self._mode(child)].arguments, node, module).items()
        }
        return _carry(self._expand(child, given, outer), outer)

    def _around(self, layer: Layer, names: tuple[str, ...], owner: Node | None, value: Value) -> Value:
        """The calls that extend the call of a leaf, one behind the other."""
        for name in names:
            child = self.layers[f"{layer.path}.{name}"]
            module = self.capture.root.get_submodule(child.path)
            made = self._loose_node(module, owner)
            made = replace(made, inputs=(Operand("input", 0, value),), linked=value.known)
            self.nodes[-1] = made
            value = Value(made, known=value.known)
        return value

    def _call_function(
        self, node: fx.Node, scope: Scope, calls: Calls, env: dict[fx.Node, Any], owner: Node | None
    ) -> Any:
        target, args = node.target, node.args
        if target is operator.getitem and isinstance(args[0], fx.Node):
            whole: Any = env[args[0]]
            key: Any = args[1]
            if isinstance(whole, tuple | list | dict):
                return whole[key]
            if whole is SCALAR:
                return SCALAR
            if isinstance(key, int | str) and whole.producer is not None and whole.producer.outputs != 1:
                return Value(whole.producer, (*whole.index, key), whole.carriers, whole.known)
        if isinstance(target, type) and (is_dataclass(target) or issubclass(target, OrderedDict)):
            return Value(None)  # packs what the forward returns
        if target is getattr and isinstance(args[0], fx.Node) and isinstance(env[args[0]], dict):
            return env[args[0]][args[1]]
        if target is getattr and len(args) > 1 and args[1] in _SIZE_ATTRIBUTES:
            return SCALAR
        if node.op == "call_method" and target in _SIZES:
            return SCALAR
        sources = node.all_input_nodes
        of_python = getattr(target, "__module__", "") in ("_operator", "math", "builtins")
        if sources and all(env[source] is SCALAR for source in sources) and (of_python or node.op == "call_method"):
            return SCALAR  # arithmetic of sizes; a function of torch makes a tensor of them
        return Value(self._add(node, scope, calls, env, owner, layer=None, module=None))

    def _add(
        self,
        node: fx.Node,
        scope: Scope,
        calls: Calls,
        env: dict[fx.Node, Any],
        owner: Node | None,
        *,
        layer: Layer | None,
        module: nn.Module | None,
        composite: bool = False,
        outputs: int | None = None,
    ) -> Node:
        operation, spelling = node_operation(node, module)
        local = calls.names[node]
        local = calls.same.get(local, local)
        ports, slots = operands_of(node, operation, module, env)
        attributes: Mapping[str, object]
        if layer is not None:
            attributes = layer.attributes
        else:
            attributes = LazyMapping(functools.partial(call_attributes, node, operation))
        calls.slots[local] = slots
        placed = calls.code.get(local)
        if placed is not None and operation is not None and operation.is_merge and len(placed.inputs) != len(ports):
            del calls.code[local]  # which operand is which is not certain
        made = Node(
            index=len(self.nodes),
            name=layer.path if layer is not None else f"{scope.path}.{local}".lstrip("."),
            scope=scope.path,
            local=local,
            operation=operation.name if operation is not None and not _is_part(operation, layer, owner) else None,
            spelling=spelling,
            layer=layer,
            inputs=ports,
            attributes=attributes,
            owner=owner,
            composite=composite,
            outputs=outputs if outputs is not None else operation.outputs if operation is not None else 1,
            mode=owner.mode if owner is not None and owner.mode else _only_mode(calls.nodes[local], scope),
            training=layer.training if layer is not None else scope.module.training,
            on_layer=layer is not None and _on_layer(scope),
            assumed=scope.assumed if local not in calls.code else "",
            extended=_is_extended(module),
        )
        self.nodes.append(made)
        return made

    # ---- where the forward is not known

    def _expand_opaque(self, module: nn.Module, owner: Node | None) -> None:
        self._expand_children(module, owner)
        code = self.codes.get(module, Code())
        calls = [call for call in code.calls if call.certain]
        self.calls.setdefault(module, Calls(code={call.name: call for call in calls}, settings=code.settings))
        mode = "train" if module.training != self.flip else "eval"
        for call in calls:
            if call.mode in ("", mode):
                self._code_node(call, module, owner)

    def _code_node(self, call: CodeCall, module: nn.Module, owner: Node | None) -> None:
        scope = self.capture.scopes[module]
        operation = None if _is_part(call.operation, None, owner) else call.operation.name
        inputs = [Operand(name, number, Value(None, known=False)) for number, name in enumerate(call.inputs)]
        self.nodes.append(
            Node(
                index=len(self.nodes),
                name=f"{scope.path}.{call.name}".lstrip("."),
                scope=scope.path,
                local=call.name,
                operation=operation,
                spelling=call.spelling,
                layer=None,
                inputs=tuple(inputs),
                attributes=call.attributes,
                owner=owner,
                linked=False,
                outputs=call.operation.outputs,
                mode=call.mode or (owner.mode if owner is not None else ""),
                training=scope.module.training,
            )
        )

    def _expand_children(self, module: nn.Module, owner: Node | None) -> None:
        for child in module.children():
            if type(child).forward is nn.Module.forward:
                self._expand_children(child, owner)
            elif child not in self.loose and child not in self.seen:
                self.loose.add(child)
                scope = self.capture.scopes.get(child)
                if self.layers[self.capture.paths[child][0]].uncallable:
                    continue
                recipe = recipe_of(child)
                layer = self.layers[self.capture.paths[child][0]]
                nothing = Value(None, known=False)
                if scope is None:
                    self._around(layer, recipe.before, owner, nothing)
                outer = self._loose_node(child, owner, composite=scope is not None)
                if scope is None:
                    self._around(layer, recipe.after, owner, Value(outer, known=False))
                if scope is not None and scope.reason:
                    self._expand_opaque(child, outer)
                elif scope is not None:
                    self._expand(scope, {}, outer, known=False)

    def _loose_node(self, module: nn.Module, owner: Node | None, *, composite: bool = False) -> Node:
        path = self.capture.paths[module][0]
        layer = self.layers[path]
        cls: Any = type(module)
        operation = class_operation(cls)
        made = Node(
            index=len(self.nodes),
            name=path,
            scope=path.rpartition(".")[0],
            local="",
            operation=layer.operation,
            spelling=node_spelling(module),
            layer=layer,
            inputs=(),
            attributes=layer.attributes,
            owner=owner,
            linked=False,
            composite=composite,
            outputs=operation.outputs if operation is not None else 1,
            training=layer.training,
            on_layer=True,
            extended=_is_extended(module),
        )
        self.nodes.append(made)
        return made


def _is_part(operation: Operation, layer: Layer | None, owner: Node | None) -> bool:
    """Whether a function is how the layer around it computes: then that layer is the operation, not its function."""
    outer = OPERATIONS.get(owner.operation) if owner is not None and owner.operation is not None else None
    return layer is None and outer is not None and (outer.wraps or outer.family == operation.family is not None)


def _only_mode(bodies: Mapping[str, fx.Node], scope: Scope) -> str:
    return "" if len(bodies) == len(scope.bodies) else next(iter(bodies))


def _on_layer(scope: Scope) -> bool:
    """Whether an edit around a call in this scope extends the layer itself instead of the forward that calls it."""
    return not scope.sure or (scope.kind == "graph" and is_sequential(scope.module))


def _is_extended(module: nn.Module | None) -> bool:
    recipe = recipe_of(module) if module is not None else None
    return recipe is not None and bool(recipe.before or recipe.after)


def _substitute(shape: Any, output: Any, env: Mapping[fx.Node, Any]) -> Any:
    """A result structure with the values that stand in it."""
    if isinstance(shape, Slot):
        return env[output] if isinstance(output, fx.Node) else Value(None)
    if isinstance(shape, dict):
        if isinstance(output, fx.Node):  # an OrderedDict is built by a call of its own
            output = dict(output.args[0])  # type: ignore[arg-type]
        return {key: _substitute(item, output[key], env) for key, item in shape.items()}
    if isinstance(shape, Record):
        return {name: _substitute(item, output.kwargs[name], env) for name, item in shape.fields.items()}
    if isinstance(shape, tuple | list):
        if isinstance(output, fx.Node):  # so is a named tuple
            output = output.args
        return tuple(_substitute(s, o, env) for s, o in zip(shape, output, strict=True))
    return Value(None)


def _carry(result: Any, outer: Node) -> Any:
    if isinstance(result, Value):
        return replace(result, carriers=(*result.carriers, outer))
    if isinstance(result, dict):
        return {key: _carry(item, outer) for key, item in result.items()}
    if isinstance(result, tuple):
        return tuple(_carry(item, outer) for item in result)
    return result


def flatten(
    capture: Capture, layers: Mapping[str, Layer], name: str
) -> tuple[Graph, Graph | None, dict[nn.Module, Calls]]:
    """The graph in the model's present mode, the one in the other mode where they differ, and the calls by scope."""
    calls: dict[nn.Module, Calls] = {}
    opaque = {scope.path: scope.reason for scope in capture.scopes.values() if scope.reason}
    uncertain = [scope for scope in capture.scopes.values() if scope.called and (scope.reason or not scope.sure)]
    reader = CodeReader(capture.root)
    codes = {scope.module: reader.read(scope.module) for scope in uncertain}
    mentioned = {
        scope.path: frozenset(codes[scope.module].mentions)
        if scope.called
        else names_in_code(_written_forward(scope.module))
        for scope in capture.scopes.values()
        if scope.reason
    }
    closed: dict[str, str] = {}
    for scope in capture.scopes.values():
        for function in _closed_functions(scope) if not scope.reason else ():
            closed[scope.path] = ", ".join(filter(None, (closed.get(scope.path), function.__name__)))
            mentioned[scope.path] = mentioned.get(scope.path, frozenset()) | names_in_code(function)
    guessed = {scope.path: given for scope in uncertain if not scope.reason and (given := _taken_for_granted(scope))}
    for scope in capture.scopes.values():
        if scope.path in guessed:
            names = codes[scope.module].names or mentions_in_code(_written_forward(scope.module))
            left = Counter(names) - _calls_in_bodies(scope)
            mentioned[scope.path] = mentioned.get(scope.path, frozenset()) | left.keys()
    kinds = Counter(scope.kind for scope in capture.scopes.values())
    nodes, outputs = Flattener(capture, layers, codes, calls, flip=False).run()
    make = functools.partial(
        Graph, name, layers=layers, opaque=opaque, closed=closed, guessed=guessed, kinds=kinds, mentioned=mentioned
    )
    graph = make(nodes, outputs=outputs)
    other = None
    modes = any(call.mode for code in codes.values() for call in code.calls)
    if modes or any(len(scope.bodies) == 2 for scope in capture.scopes.values()):
        nodes, outputs = Flattener(capture, layers, codes, calls, flip=True).run()
        other = make(nodes, outputs=outputs)
    return graph, other, calls


def _taken_for_granted(scope: Scope) -> str:
    """An argument without which a forward was read: calls that are made with it are not in its graph."""
    return scope.assumed or next((n for n, item in scope.body.arguments.items() if isinstance(item, Constant)), "")


def _closed_functions(scope: Scope) -> Iterator[types.FunctionType]:
    """Functions of Python that a captured forward calls as one call, such as those of `torch.fx.wrap`."""
    for body in scope.bodies.values():
        for node in body.graph.nodes:
            target = node.target
            if node.op != "call_function" or not isinstance(target, types.FunctionType):
                continue
            if not target.__module__.startswith("torch.") and function_operation(target)[0] is None:
                yield target


def _written_forward(module: nn.Module) -> Any:
    """The forward as somebody wrote it, whatever stands around it."""
    forward = type(module).forward
    return inspect.unwrap(getattr(forward, "_rewrite_original", forward))


def _calls_in_bodies(scope: Scope) -> Counter[str]:
    """Name of each function and method that a captured forward calls -> how often, in the mode where it does more."""
    found: Counter[str] = Counter()
    for body in scope.bodies.values():
        targets = [node.target for node in body.graph.nodes if node.op in ("call_function", "call_method")]
        found |= Counter(target if isinstance(target, str) else getattr(target, "__name__", "") for target in targets)
    return found


def _agree_on_layers(nodes: Sequence[Node], others: Iterable[str]) -> None:
    """A layer that is extended itself for one of its calls is extended for all of them; so are those at other paths.

    Nodes are frozen for everybody else; only when all are known is it known which calls share a layer.
    """
    extended = {*others} | {node.layer.path for node in nodes if node.on_layer and node.layer is not None}
    for node in nodes:
        if node.layer is not None and node.layer.path in extended and not node.on_layer:
            object.__setattr__(node, "on_layer", True)
