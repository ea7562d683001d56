"""From captured scopes to the neutral graph: calls inside calls become nodes beside each other, values cross scopes."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import fx, nn

from rewrite.backends.torch.generated import recipe_of
from rewrite.backends.torch.modules import is_sequential, walk
from rewrite.backends.torch.scopes import (
    Body,
    Capture,
    Constant,
    Container,
    Placeholder,
    Scope,
    Slot,
    Structure,
    forward_signature,
)
from rewrite.backends.torch.spellings import (
    call_parameters,
    class_operation,
    class_spelling,
    is_leaf,
    keeps_forward,
    node_operation,
    qualified,
)
from rewrite.graph import Graph, Layer, Node, Operand, Value
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation, parse_signature

_ACTIVATION_NAMES = ("activation", "act", "act_layer", "act_fn", "activation_fn", "nonlinearity", "non_linearity")
_SIZES = frozenset(["size", "dim", "numel", "stride", "ndimension", "element_size", "is_contiguous"])
_SIZE_ATTRIBUTES = frozenset(["shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout"])
_PLAIN = (int, float, str, bool, type(None), torch.dtype)


class _Attributes(Mapping[str, object]):
    """Constructor arguments that a module still carries, read when asked for."""

    def __init__(self, module: nn.Module, operation: Operation | None) -> None:
        self.module = module
        self.operation = operation

    @functools.cached_property
    def values_(self) -> dict[str, object]:
        if self.operation is not None:
            names = [parameter.name for parameter in self.operation.parameters]
        else:
            names = [name for name in self.module.__dict__ if not name.startswith("_")]
        found: dict[str, object] = {}
        for name in names:
            value = getattr(self.module, name, _PLAIN)
            if name == "bias" and (value is None or isinstance(value, torch.Tensor)):
                found[name] = value is not None
            elif isinstance(value, _PLAIN) or (
                isinstance(value, tuple | list) and all(isinstance(item, _PLAIN) for item in value)
            ):
                found[name] = tuple(value) if isinstance(value, torch.Size | list) else value
        return found

    def __getitem__(self, key: str) -> object:
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


@functools.cache
def _bases(cls: Any) -> tuple[str, ...]:
    return tuple(qualified(base) for base in cls.__mro__ if base is not object)


def read_layers(model: nn.Module, read_only: Mapping[str, str]) -> dict[str, Layer]:
    """Every module of `model` by its first path; no forward is run.

    Args:
        model: the root.
        read_only: path of a layer whose weights are read without a call -> who reads them.

    """
    layers: dict[str, Layer] = {}
    first: dict[nn.Module, str] = {}
    aliases: dict[str, list[str]] = {}
    inside: dict[nn.Module, str] = {}
    for path, module in walk(model):
        if module in first:
            aliases.setdefault(first[module], []).append(path)
            continue
        first[module] = path
        if module._modules and is_leaf(module):
            recipe = recipe_of(module)
            for name, part in module._modules.items():
                if part is not None and name not in (*recipe.before, *recipe.after):
                    for child in part.modules():
                        inside.setdefault(child, path)
    for module, path in first.items():
        cls: Any = type(module)
        operation = class_operation(cls)
        numbers = [(p.numel(), p.requires_grad) for p in module._parameters.values() if p is not None]
        uncallable = ""
        if path in read_only:
            uncallable = f"`{read_only[path] or type(model).__name__}` reads its weights without calling it"
        elif module in inside:
            uncallable = f"`{inside[module]}` reads its weights without calling it"
        layers[path] = Layer(
            path=path,
            kind=qualified(cls),
            bases=_bases(cls),
            operation=operation.name if operation is not None else None,
            attributes=_Attributes(module, operation),
            children=tuple(f"{path}.{name}".lstrip(".") for name, c in module._modules.items() if c is not None),
            parameters=sum(number for number, _ in numbers),
            trainable=sum(number for number, learns in numbers if learns),
            statistics="running_mean" in module._buffers and module._buffers["running_mean"] is not None,
            still=recipe_of(module).still,
            training=module.training,
            aliases=tuple(aliases.get(path, ())),
            activation=_activation_slot(module, operation),
            uncallable=uncallable,
            exact=operation is None or keeps_forward(cls),
        )
    return layers


def _activation_slot(module: nn.Module, operation: Operation | None) -> str | None:
    if operation is not None:
        return None
    for name in _ACTIVATION_NAMES:
        if callable(module._modules.get(name)) or callable(module.__dict__.get(name)):
            return name
    return None


@dataclass
class Calls:
    """The calls of one scope under one name each, whichever of its bodies make them."""

    nodes: dict[str, dict[str, fx.Node]] = field(default_factory=dict)
    """name -> body -> fx node"""
    names: dict[fx.Node, str] = field(default_factory=dict)
    slots: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """name -> operand number -> place among all values in the call's arguments"""


def name_calls(scope: Scope) -> Calls:
    """Pairs the calls that both of a scope's bodies make, by aligning the two sequences of calls."""
    calls = Calls()
    current = scope.body
    for node in current.graph.nodes:
        calls.nodes[node.name] = {scope.current: node}
        calls.names[node] = node.name
    for mode, body in scope.bodies.items():
        if mode == scope.current:
            continue
        ours, theirs = list(current.graph.nodes), list(body.graph.nodes)
        matcher = SequenceMatcher(None, [_key(n) for n in ours], [_key(n) for n in theirs], autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            for offset in range(size):
                name = ours[a + offset].name
                calls.nodes[name][mode] = theirs[b + offset]
                calls.names[theirs[b + offset]] = name
        for node in theirs:
            if node not in calls.names:
                name = node.name
                while name in calls.nodes:
                    name = f"{name}_{mode}"
                calls.nodes[name] = {mode: node}
                calls.names[node] = name
    return calls


def _key(node: fx.Node) -> tuple[str, object]:
    return node.op, node.target


class _Scalar:
    """Marks a value that is a number or a size, not a tensor."""


_SCALAR = _Scalar()


class Flattener:
    """Expands the scopes of a capture, from the root, into the nodes of one graph."""

    def __init__(
        self, capture: Capture, layers: Mapping[str, Layer], calls: dict[nn.Module, Calls], flip: bool
    ) -> None:
        self.capture = capture
        self.layers = layers
        self.calls = calls
        self.flip = flip
        """read every scope in the mode that it is not in now"""
        self.nodes: list[Node] = []
        self.loose: set[nn.Module] = set()

    def run(self) -> tuple[tuple[Node, ...], tuple[Value, ...]]:
        """The nodes in order of execution, and the values that the model returns."""
        root = self.capture.root
        outputs: tuple[Value, ...] = ()
        if is_leaf(root):
            self._loose_node(root, None)
        elif self.capture.scopes[root].reason:
            self._expand_opaque(root, None)
        else:
            outputs = tuple(_leaves(self._expand(self.capture.scopes[root], {}, None)))
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
        nothing = Value(None, known=known)
        env: dict[fx.Node, Any] = {}
        result: Any = ()
        for node in body.graph.nodes:
            op = node.op
            if op == "placeholder":
                env[node] = given.get(str(node.target), nothing)
            elif op == "get_attr":
                env[node] = _SCALAR if node.target == "training" else Value(None)
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
            return self._around(layer, recipe.after, owner, Value(called))
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
            if whole is _SCALAR:
                return _SCALAR
            if isinstance(key, int | str) and whole.producer is not None and whole.producer.outputs != 1:
                return Value(whole.producer, (*whole.index, key), whole.carriers, whole.known)
        if target is getattr and len(args) > 1 and args[1] in _SIZE_ATTRIBUTES:
            return _SCALAR
        if node.op == "call_method" and target in _SIZES:
            return _SCALAR
        sources = node.all_input_nodes
        of_python = getattr(target, "__module__", "") in ("_operator", "math", "builtins")
        if sources and all(env[source] is _SCALAR for source in sources) and (of_python or node.op == "call_method"):
            return _SCALAR  # arithmetic of sizes; a function of torch makes a tensor of them
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
        ports, slots = _operands(node, operation, module, env)
        calls.slots[local] = slots
        made = Node(
            index=len(self.nodes),
            name=layer.path if layer is not None else f"{scope.path}.{local}".lstrip("."),
            scope=scope.path,
            local=local,
            operation=operation.name if operation is not None and not _is_part(operation, layer, owner) else None,
            spelling=spelling,
            layer=layer,
            inputs=ports,
            attributes=layer.attributes if layer is not None else _CallAttributes(node, operation),
            owner=owner,
            composite=composite,
            outputs=outputs if outputs is not None else operation.outputs if operation is not None else 1,
            mode=owner.mode if owner is not None and owner.mode else _only_mode(calls.nodes[local], scope),
            training=layer.training if layer is not None else scope.module.training,
            on_layer=layer is not None and _on_layer(scope),
            assumed=scope.assumed,
            extended=_is_extended(module),
        )
        self.nodes.append(made)
        return made

    # ---- where the forward is not known

    def _expand_opaque(self, module: nn.Module, owner: Node | None) -> None:
        for child in module.children():
            if type(child).forward is nn.Module.forward:
                self._expand_opaque(child, owner)
            elif child not in self.loose:
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
    return layer is None and outer is not None and outer.family == operation.family is not None


def _only_mode(bodies: Mapping[str, fx.Node], scope: Scope) -> str:
    return "" if len(bodies) == len(scope.bodies) else next(iter(bodies))


def _on_layer(scope: Scope) -> bool:
    """Whether an edit around a call in this scope extends the layer itself instead of the forward that calls it."""
    return not scope.sure or (scope.kind == "graph" and is_sequential(scope.module))


def _is_extended(module: nn.Module | None) -> bool:
    recipe = recipe_of(module) if module is not None else None
    return recipe is not None and bool(recipe.before or recipe.after)


def node_spelling(module: nn.Module) -> str:
    """How rules spell a module's class: `nn.Conv2d`."""
    cls: Any = type(module)
    spelling: str = class_spelling(cls)
    return spelling


class _CallAttributes(Mapping[str, object]):
    """Plain arguments of a function call by parameter name, read when asked for."""

    def __init__(self, node: fx.Node, operation: Operation | None) -> None:
        self.node = node
        self.operation = operation

    @functools.cached_property
    def values_(self) -> dict[str, object]:
        found = bind_call(self.node, self.operation)
        return {name: value for name, value in found.items() if not _holds_node(value)}

    def __getitem__(self, key: str) -> object:
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def bind_call(node: fx.Node, operation: Operation | None) -> dict[str, object]:
    """Arguments of a function or method call by parameter name, defaults included."""
    text = call_parameters(node, operation) if operation is not None else None
    if text is None:
        return dict(node.kwargs)
    parameters = parse_signature(text)
    found: dict[str, object] = {p.name: p.default for p in parameters if not p.required}
    for place, (parameter, value) in enumerate(zip(parameters, node.args, strict=False)):
        found[parameter.name] = tuple(node.args[place:]) if parameter.variadic else value
    found.update(node.kwargs)
    return found


def _holds_node(value: object) -> bool:
    if isinstance(value, fx.Node):
        return True
    return isinstance(value, tuple | list) and any(_holds_node(item) for item in value)


def occurrences(node: fx.Node) -> list[tuple[str | int, fx.Node]]:
    """Every value in a call's arguments, in order and with repeats: (parameter name or position, fx node)."""
    found: list[tuple[str | int, fx.Node]] = []

    def visit(name: str | int, value: object) -> None:
        if isinstance(value, fx.Node):
            found.append((name, value))
        elif isinstance(value, tuple | list):
            for item in value:
                visit(name, item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(name, item)
        elif isinstance(value, slice):
            for item in (value.start, value.stop, value.step):
                visit(name, item)

    for position, value in enumerate(node.args):
        visit(position, value)
    for key, value in node.kwargs.items():
        visit(key, value)
    return found


def _operands(
    node: fx.Node, operation: Operation | None, module: nn.Module | None, env: Mapping[fx.Node, Any]
) -> tuple[tuple[Operand, ...], tuple[int, ...]]:
    """The tensor inputs of a call, and where each stands among all values in its arguments."""
    names: tuple[str, ...] = operation.ports if operation is not None else ()
    if operation is None and module is not None:
        names = tuple(forward_signature(module).parameters)[1:]
    found: list[Operand] = []
    slots: list[int] = []
    for place, (key, source) in enumerate(occurrences(node)):
        value = env[source]
        if value is _SCALAR:
            continue
        if operation is not None and operation.ports:
            # A single tensor may be followed by weights and flags, which are no inputs of the operation.
            if isinstance(key, int) and key >= len(names):
                continue
            if isinstance(key, str) and key not in names and module is None:
                continue
        name = key if isinstance(key, str) else names[key] if key < len(names) else str(len(found))
        if operation is not None and not operation.ports:
            name = str(len(found))
        parts = list(_leaves(value))
        found.append(Operand(name, len(found), parts[0] if parts else Value(None)))
        slots.append(place)
    return tuple(found), tuple(slots)


def bind_placeholders(arguments: Mapping[str, Structure], node: fx.Node, module: nn.Module) -> dict[str, Any]:
    """What a recorded call passes for each placeholder of the callee's graph: placeholder name -> fx node."""
    return bind_values(arguments, forward_signature(module), node.args, node.kwargs)


def bind_values(
    arguments: Mapping[str, Structure], signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by placeholder name; `signature` is that of the class's forward, `self` included."""
    bound = signature.bind(None, *args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}

    def pair(structure: Structure, value: Any) -> None:
        match structure:
            case Placeholder(name):
                found[name] = value
            case Container(_, items):
                for key, item in items:
                    pair(item, value[key])
            case Constant():
                pass

    for name, structure in arguments.items():
        pair(structure, bound.arguments[name])
    return found


def _substitute(shape: Any, output: Any, env: Mapping[fx.Node, Any]) -> Any:
    """A result structure with the values that stand in it."""
    if isinstance(shape, Slot):
        return env[output] if isinstance(output, fx.Node) else Value(None)
    if isinstance(shape, dict):
        if isinstance(output, fx.Node):  # an OrderedDict is built by a call of its own
            output = dict(output.args[0])  # type: ignore[arg-type]
        return {key: _substitute(item, output[key], env) for key, item in shape.items()}
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


def _leaves(result: Any) -> Iterator[Value]:
    if isinstance(result, Value):
        yield result
    elif isinstance(result, dict):
        for item in result.values():
            yield from _leaves(item)
    elif isinstance(result, tuple | list):
        for item in result:
            yield from _leaves(item)


def flatten(
    capture: Capture, layers: Mapping[str, Layer], name: str
) -> tuple[Graph, Graph | None, dict[nn.Module, Calls]]:
    """The graph in the model's present mode, the one in the other mode where they differ, and the calls by scope."""
    calls: dict[nn.Module, Calls] = {}
    opaque = {scope.path: scope.reason for scope in capture.scopes.values() if scope.reason}
    mentioned = {scope.path: _names_in(scope.module) for scope in capture.scopes.values() if scope.reason}
    nodes, outputs = Flattener(capture, layers, calls, flip=False).run()
    _agree_on_layers(nodes)
    graph = Graph(name, nodes, layers, outputs, opaque=opaque, mentioned=mentioned)
    other = None
    if any(len(scope.bodies) == 2 for scope in capture.scopes.values()):
        nodes, outputs = Flattener(capture, layers, calls, flip=True).run()
        _agree_on_layers(nodes)
        other = Graph(name, nodes, layers, outputs, opaque=opaque, mentioned=mentioned)
    return graph, other, calls


def _names_in(module: nn.Module) -> frozenset[str]:
    """Global and attribute names that the code of a forward uses, functions defined inside it included."""
    found: set[str] = set()
    codes = [getattr(inspect.unwrap(type(module).forward), "__code__", None)]
    while codes:
        code = codes.pop()
        if code is not None:
            found.update(code.co_names)
            codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return frozenset(found)


def _agree_on_layers(nodes: Sequence[Node]) -> None:
    """A layer that is extended itself for one of its calls is extended for all of them.

    Nodes are frozen for everybody else; only when all are known is it known which calls share a layer.
    """
    extended = {node.layer.path for node in nodes if node.on_layer and node.layer is not None}
    for node in nodes:
        if node.layer is not None and node.layer.path in extended and not node.on_layer:
            object.__setattr__(node, "on_layer", True)
