"""Running a model on shapes only: fake tensors take the place of every weight and input, so nothing is computed.

A copy of the module tree runs; neither the model nor its running statistics see any of it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.utils import _pytree as pytree

from rewrite.backends.backend import Example, Ran
from rewrite.backends.torch.calls import Calls, bind_values
from rewrite.backends.torch.code_calls import CodeCall
from rewrite.backends.torch.code_changes import changed_at, changed_methods
from rewrite.backends.torch.recipes import CodeChange, MethodChanges, base_of, recipe_of
from rewrite.backends.torch.scopes import (
    SIMPLE,
    Body,
    Capture,
    Constant,
    Container,
    Placeholder,
    Scope,
    Structure,
    forward_signature,
)
from rewrite.errors import Diagnostic, RewriteError
from rewrite.graph import Graph, TensorType
from rewrite.vocabulary import OPERATIONS

Part = tuple[int | str, ...]


def run_on_shapes(model: nn.Module, example: Example) -> Ran:
    """Output structure and calls of one forward pass in the model's present mode.

    Raises:
        SiteError: the model does not run on the example (RW203).

    """
    calls: Counter[str] = Counter()

    def watch(twin: nn.Module) -> None:
        for path, module in twin.named_modules():
            module.register_forward_hook(lambda *_, path=path: calls.update([path]))

    output = opened(_forward(model, example, watch, calls.clear))
    leaves, structure = pytree.tree_flatten(output)
    return Ran(structure, [_described(leaf) for leaf in leaves], dict(calls))


def opened(output: Any) -> Any:
    """An output with objects of dataclasses as dicts of their fields, so that what is in them is seen."""

    def fields_of(leaf: Any) -> Any:
        if not is_dataclass(leaf) or isinstance(leaf, type):
            return leaf
        kind = type(leaf).__qualname__
        return {f"{kind}.{one.name}": opened(getattr(leaf, one.name, None)) for one in fields(leaf)}

    return pytree.tree_map(fields_of, output)


def why_not_on_shapes(model: nn.Module, example: Example) -> tuple[str, bool]:
    """Why a model does not run on an example, and whether the reason is only that nothing is computed.

    Empty: it runs on shapes.
    """
    with _quiet():
        try:
            _on_shapes(model, example, lambda twin: None)
        except (DynamicOutputShapeException, DataDependentOutputException, UnsupportedFakeTensorException) as problem:
            return _first_line(problem), True
        except Exception as problem:
            return _first_line(problem), False
    return "", False


def why_not(model: nn.Module, example: Example) -> str:
    """Why a model does not run on an example, with numbers where shapes alone do not do; empty: it does."""
    try:
        _forward(model, example, lambda twin: None, lambda: None)
    except RewriteError as problem:
        return _first_line(problem.__cause__ or problem)
    return ""


def record_types(
    capture: Capture, calls: Mapping[nn.Module, Calls], graph: Graph, other: Graph | None, example: Example
) -> Mapping[tuple[int, Part], TensorType]:
    """Exact shapes of every value that the example produces: (node index, part) -> type.

    What turns out to be arithmetic of numbers or lists, and not of tensors, is no operation any more in either graph.
    """
    seen: dict[tuple[str, ...], Any] = {}

    def watch(twin: nn.Module) -> None:
        modules = dict(twin.named_modules(remove_duplicate=False))
        for scope in capture.scopes.values():
            if not scope.reason:
                modules[scope.path].__dict__["forward"] = _Recorder(scope, modules[scope.path], seen)
            elif scope.module in calls:
                _record_code(modules[scope.path], scope.path, calls[scope.module].code.values(), seen)
        for path, module in modules.items():
            module.register_forward_hook(_layer_hook(path, seen), with_kwargs=True)

    _forward(capture.root, example, watch, seen.clear)
    found: dict[tuple[int, Part], TensorType] = {}
    for node in (*graph.nodes, *(other.nodes if other is not None else ())):
        is_merge = node.layer is None and node.operation is not None and OPERATIONS[node.operation].is_merge
        if is_merge and not isinstance(seen.get((node.scope, node.local), torch.Size()), torch.Size):
            object.__setattr__(node, "operation", None)  # other nodes hold it; nobody has asked it yet
    for node in graph.nodes:
        value = seen.get((node.scope, node.local)) if node.local else seen.get((node.name, ""))
        _note(found, node.index, (), value)
        first = seen.get((node.layer.path, "input") if node.layer is not None else (node.scope, node.local, "input"))
        if first is not None:
            _note(found, node.index, ("input",), first)
    return found


def observed_arguments(model: nn.Module, example: Example) -> Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """What each module is really called with when the example runs: path -> (args, kwargs) of its first call."""
    seen: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def watch(twin: nn.Module) -> None:
        for path, module in twin.named_modules():

            def hook(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                if path not in seen:
                    seen[path] = (_as_now(args), _as_now(kwargs))

            module.register_forward_pre_hook(hook, with_kwargs=True)

    _forward(model, example, watch, seen.clear)
    return seen


def _as_now(value: Any) -> Any:
    """A list that its owner goes on filling, as it is at this moment."""
    if type(value) in (list, tuple):
        return type(value)(_as_now(item) for item in value)
    return {key: _as_now(item) for key, item in value.items()} if type(value) is dict else value


def _record_code(module: nn.Module, path: str, calls: Iterable[CodeCall], seen: dict[tuple[str, ...], Any]) -> None:
    """Has a forward of which there is no graph tell the shapes at the calls of functions in its code."""

    def telling(*key: str) -> Callable[[Any], Any]:
        def tell(value: Any) -> Any:
            seen.setdefault((path, *key), _shape(value))
            return value

        return tell

    base = base_of(type(module))
    changes: dict[str, MethodChanges] = dict(recipe_of(module).code)
    for call in calls:
        module.__dict__[_ahead(call)] = telling(call.name, "input")
        module.__dict__[_behind(call)] = telling(call.name)
        changes = changed_at(changes, base, call, functools.partial(_telling, call))
    for method, function in changed_methods(base, changes, "shapes").items():
        module.__dict__[method] = types.MethodType(function, module)


def _telling(call: CodeCall, now: CodeChange) -> CodeChange:
    first = tuple((argument, (_ahead(call),)) for argument in [*call.inputs.values()][:1])
    return replace(now, ahead=(*first, *now.ahead), behind=(_behind(call), *now.behind))


def _ahead(call: CodeCall) -> str:
    return f"_rewrite_ahead_{call.name}"


def _behind(call: CodeCall) -> str:
    return f"_rewrite_behind_{call.name}"


def _note(types: dict[tuple[int, Part], TensorType], index: int, part: Part, value: Any) -> None:
    if isinstance(value, torch.Size):
        types[(index, part)] = TensorType(shape=tuple(value), rank=len(value))
    elif isinstance(value, dict):
        for key, item in value.items():
            _note(types, index, (*part, key), item)


class _Recorder:
    """Runs a captured forward node by node and keeps each result's shape."""

    def __init__(self, scope: Scope, module: nn.Module, seen: dict[tuple[str, ...], Any]) -> None:
        self.scope = scope
        self.module = module
        self.seen = seen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = self.scope.current
        if len(self.scope.bodies) == 2:
            mode = "train" if self.module.training else "eval"
        body = self.scope.bodies[mode]
        if not self.scope.sure and not self._is_captured(body, args, kwargs):
            return type(self.module).forward(self.module, *args, **kwargs)
        given = bind_values(body.arguments, forward_signature(self.scope.module), args, kwargs)
        order = [given[str(node.target)] for node in body.graph.nodes if node.op == "placeholder"]
        return _Interpreter(self.module, body.graph, self.scope.path, self.seen).run(*order)

    def _is_captured(self, body: Body, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether what was taken for granted about the arguments holds for these."""
        bound = forward_signature(self.scope.module).bind(None, *args, **kwargs)
        bound.apply_defaults()
        return all(_is_like(structure, bound.arguments[name]) for name, structure in body.arguments.items())


def _is_like(structure: Structure, value: Any) -> bool:
    match structure:
        case Placeholder(_, tensor):
            return isinstance(value, torch.Tensor) if tensor else value is not None
        case Container(kind, items):
            same = isinstance(value, kind) and len(cast(Any, value)) == len(items)
            return same and all(_is_like(item, value[key]) for key, item in items)
        case Constant(expected):
            return value is expected or (isinstance(value, SIMPLE) and value == expected)


class _Interpreter(fx.Interpreter):
    def __init__(self, module: nn.Module, graph: fx.Graph, path: str, seen: dict[tuple[str, ...], Any]) -> None:
        super().__init__(module, graph=graph)
        self.path = path
        self.seen = seen

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("call_function", "call_method"):
            values = [self.env[source] for source in n.all_input_nodes if source.op != "get_attr"]
            first = next((value for value in values if isinstance(value, torch.Tensor)), None)
            self.seen.setdefault((self.path, n.name, "input"), _shape(first))
        result = super().run_node(n)
        self.seen.setdefault((self.path, n.name), _shape(result))
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        # A function may change a list that it is given; in the code that is generated, each call makes it anew.
        args = tuple(_fresh(item) for item in args)
        return super().call_function(target, args, {key: _fresh(item) for key, item in kwargs.items()})


def _fresh(value: Any) -> Any:
    """A plain list or dict in the place of one that a graph holds, which refuses to be changed."""
    if isinstance(value, fx.immutable_collections.immutable_list):
        return [_fresh(item) for item in value]
    if isinstance(value, fx.immutable_collections.immutable_dict):
        return {key: _fresh(item) for key, item in value.items()}
    return value


def _layer_hook(path: str, seen: dict[tuple[str, ...], Any]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        first = next((item for item in (*args, *kwargs.values()) if isinstance(item, torch.Tensor)), None)
        seen.setdefault((path, "input"), _shape(first))
        seen.setdefault((path, ""), _shape(output))

    return hook


def _shape(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, tuple | list):
        return {number: _shape(item) for number, item in enumerate(value)}
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if is_dataclass(value):
        return {one.name: _shape(getattr(value, one.name)) for one in fields(value)}
    return None


def _described(leaf: Any) -> tuple[tuple[int, ...], str] | str:
    if isinstance(leaf, torch.Tensor):
        return tuple(leaf.shape), str(leaf.dtype).removeprefix("torch.")
    return type(leaf).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("torch._subclasses.fake_tensor")  # it reports what is about to be raised here anyway
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _forward(model: nn.Module, example: Example, watch: Any, forget: Any) -> Any:
    """One forward pass of a watched copy: in the model's mode, or in eval mode where only that works."""
    with _quiet():
        return _try_forward(model, example, watch, forget)


def _on_shapes(model: nn.Module, example: Example, watch: Any, *, evaluate: bool = False) -> Any:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    twin = _twin(model, mode)
    if evaluate:
        twin.eval()
    watch(twin)
    args, kwargs = pytree.tree_map_only(torch.Tensor, mode.from_tensor, (example.args, dict(example.kwargs)))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings(), mode:
        warnings.simplefilter("ignore")
        return twin(*args, **kwargs)


def _try_forward(model: nn.Module, example: Example, watch: Any, forget: Any) -> Any:
    problem: Exception | None = None
    for evaluate in (False, True) if model.training else (False,):
        forget()
        try:
            return _on_shapes(model, example, watch, evaluate=evaluate)
        except Exception as error:
            problem = problem or error
    # What depends on values (masks, boxes) cannot run on shapes; then the copy computes.
    forget()
    try:
        twin = copy.deepcopy(model)
        watch(twin)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return twin(*example.args, **example.kwargs)
    except Exception as error:
        problem = error
    raise Diagnostic(
        "RW203",
        f"`{base_of(type(model)).__name__}` does not run on the example input: {_first_line(problem)}",
        help="give inputs that the model takes: one tensor, a tuple of arguments, or a dict of keywords",
    ).error() from problem


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or repr(problem)).splitlines()[0]


def _twin(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of the module tree over fake weights; no weight is copied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        fake = mode.from_tensor(tensor)
        memo[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
    return copy.deepcopy(model, memo)
