"""Calls of functions in the code of forwards that no graph could be made of: found in the source, one by one.

Such a forward does what its arguments and its data make it do, but `F.relu` in its text is `F.relu` whenever that line
runs. What the text alone does not tell stays out: operators, methods that other things than tensors have as well,
functions that only a local name stands for. Where the source is not what runs (it was changed since, or a decorator
keeps the function for itself), nothing is found.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import collections
import copy
import functools
import inspect
import sys
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from rewrite.backends.names_in_code import mentions_in_code
from rewrite.backends.torch.recipes import RECEIVER, Argument, Recipe, base_of, recipe_of
from rewrite.backends.torch.spellings import function_operation
from rewrite.vocabulary import by_method, short
from rewrite.vocabulary.operation import Operation, Parameter, parse_signature

_OTHERS = (list, dict, set, str, tuple, collections.deque, nn.Module)
"""classes whose methods may be meant where a method of a tensor has the same name"""

_OF_ARRAYS = frozenset(["flatten", "mean", "reshape", "squeeze", "sum", "transpose", "view"])
"""methods that arrays of numpy have as well"""

_FUTURE = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag, __future__.all_feature_names, 0
)


@dataclass(frozen=True, eq=False)
class CodeCall:
    """A call of a function or method, as it stands in the code of a forward."""

    name: str
    """what it is called in that forward: `relu`, `relu_1`"""
    method: str
    """the method of the class that it stands in"""
    number: int
    """which of the calls in the text of that method"""
    operation: Operation
    spelling: str
    inputs: Mapping[str, Argument]
    """input of the operation -> the argument that is passed for it"""
    arguments: Mapping[str, Argument]
    """parameter -> the argument that is passed for it"""
    attributes: Mapping[str, object]
    """plain arguments by parameter name, defaults included"""
    overwrites: bool
    """whether it writes its result over its input"""


@dataclass(frozen=True, eq=False)
class Code:
    """The code of one forward and of the methods of its class that it uses."""

    calls: tuple[CodeCall, ...] = ()
    mentions: Mapping[str, int] = field(default_factory=dict)
    """name in the code -> how often it stands there, calls that were found aside"""


@dataclass(frozen=True, eq=False)
class Source:
    """One method as it is written."""

    function: types.FunctionType
    """the function itself, whatever decorators stand around it"""
    around: tuple[types.FunctionType, ...]
    """what decorators made of it, outermost first"""
    tree: ast.FunctionDef
    me: str
    """its first parameter, the module"""

    @functools.cached_property
    def calls(self) -> list[ast.Call]:
        """All calls in its text, in order."""
        return calls_in(self.tree.body)

    @functools.cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Part of the text -> what it is a part of."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @functools.cached_property
    def local(self) -> frozenset[str]:
        """Names that stand for something of its own, in it or in a function inside it."""
        names = {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        names |= {node.arg for node in ast.walk(self.tree) if isinstance(node, ast.arg)}
        names |= {
            alias.asname or alias.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        inner = {
            node.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not self.tree
        }
        return frozenset(names | inner)

    @property
    def text(self) -> str:
        """What is compared when a file is loaded: the class may have changed since."""
        return ast.unparse(self.tree)


# ---- sources


_sources: weakref.WeakKeyDictionary[Any, Source | None] = weakref.WeakKeyDictionary()


def source_of(cls: type, method: str) -> Source | None:
    """A method as it is written; None where its source is not to be had, or is not what runs."""
    function = inspect.getattr_static(cls, method, None)
    if not isinstance(function, types.FunctionType):
        return None
    if function not in _sources:
        _sources[function] = _read(function)
    return _sources[function]


def _read(function: types.FunctionType) -> Source | None:
    around: list[types.FunctionType] = []
    inner: Any = function
    while hasattr(inner, "__wrapped__"):
        within = inner.__wrapped__
        # A decorator that does not hold the function as a plain variable cannot be given another one.
        if not isinstance(inner, types.FunctionType) or not any(cell is within for cell in _cells(inner)):
            return None
        around.append(inner)
        inner = within
    if not isinstance(inner, types.FunctionType) or not inner.__code__.co_argcount:
        return None
    found_in = _find(inner)
    if found_in is None or not _is_what_runs(inner, *found_in):
        return None
    tree = found_in[0]
    me = inner.__code__.co_varnames[0]
    others = [node for node in ast.walk(tree) if isinstance(node, ast.arg) and node.arg == me]
    stored = any(isinstance(n, ast.Name) and n.id == me and isinstance(n.ctx, ast.Store) for n in ast.walk(tree))
    return None if stored or len(others) != 1 else Source(inner, tuple(around), tree, me)


def _cells(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue


def _find(function: types.FunctionType) -> tuple[ast.FunctionDef, ast.Module] | None:
    """A function in its file, and the file."""
    try:
        lines, _ = inspect.findsource(function)
        tree = _parsed("".join(lines))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    code = function.__code__
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                return with_body(node, node.body), tree
    return None


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _is_what_runs(function: types.FunctionType, tree: ast.FunctionDef, file: ast.Module) -> bool:
    """Whether the source gives the very code that runs: a file may have changed since it was imported."""
    around = module_around(function, tree)
    around.body[:0] = _imports(file)  # calls of what is imported have another bytecode
    try:
        made = compiled(around, function, "<compared>")
    except (SyntaxError, ValueError, LookupError):
        return False
    return _essence(made) == _essence(function.__code__)


def _imports(tree: ast.AST) -> Iterator[ast.stmt]:
    """The imports of a file that do not stand in functions and classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if getattr(node, "module", None) != "__future__":
                yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _imports(node)


def _essence(code: types.CodeType) -> tuple[object, ...]:
    inner = tuple(_essence(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, inner


def with_body(tree: ast.FunctionDef, body: list[ast.stmt]) -> ast.FunctionDef:
    """The same function with other lines in it, and without decorators and annotations."""
    made = copy.copy(tree)
    made.body, made.decorator_list, made.returns = body, [], None
    return made


def module_around(function: types.FunctionType, tree: ast.FunctionDef) -> ast.Module:
    """A file in which a function stands as it stood: inside of its class, and of variables that it closes over."""
    body: ast.stmt = tree
    owner = function.__qualname__.split(".")[-2:-1]
    if owner and owner != ["<locals>"]:  # for `super()`, and for names that begin with two underscores
        around = ast.parse(f"class {owner[0]}: pass").body[0]
        assert isinstance(around, ast.ClassDef)
        around.body, body = [tree], around
    names = [name for name in function.__code__.co_freevars if name != "__class__"]
    maker = ast.parse(f"def _around({', '.join(names)}): pass").body[0]
    assert isinstance(maker, ast.FunctionDef)
    maker.body = [body]
    return ast.fix_missing_locations(ast.Module(body=[maker], type_ignores=[]))


def compiled(made: ast.Module | str, function: types.FunctionType, filename: str) -> types.CodeType:
    """The code of the function in a file such as `module_around` makes."""
    whole: types.CodeType = compile(
        made, filename, "exec", flags=function.__code__.co_flags & _FUTURE, dont_inherit=True
    )
    waiting = [whole]
    while waiting:
        code = waiting.pop(0)
        if code.co_name == function.__code__.co_name and code is not whole:
            return code
        waiting += [item for item in code.co_consts if isinstance(item, types.CodeType)]
    raise LookupError(function.__qualname__)


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)


# ---- calls


def read_code(module: nn.Module) -> Code:
    """The calls of functions in the code of a module's forward, and what else stands in it."""
    cls, recipe = base_of(type(module)), recipe_of(module)
    if "forward" in module.__dict__ or recipe.bodies or cls.forward is nn.Module.forward:
        return Code(mentions=mentions_in_code(_plain(cls.forward)))
    calls: list[CodeCall] = []
    mentions: collections.Counter[str] = collections.Counter()
    for method, source in _sources_of(cls):
        mentions += mentions_in_code(_plain(inspect.getattr_static(cls, method)))
        if source is None:
            continue
        for number, node in enumerate(source.calls):
            call = _read_call(source, node, module, method, number)
            if call is not None:
                mentions[call.spelling.rpartition(".")[2]] -= 1
                calls.append(call)
    left = {name: count for name, count in mentions.items() if count > 0}
    return Code(tuple(_as_changed(_named(calls, module), recipe)), left)


def _sources_of(cls: type) -> Iterator[tuple[str, Source | None]]:
    """The forward of a class and the methods that it uses, as they are written."""
    methods = ["forward"]
    for method in methods:  # grows while it is walked
        source = source_of(cls, method)
        yield method, source
        if source is not None:
            methods += [name for name in _methods_in(source, cls) if name not in methods]


Places = Mapping[types.CodeType, tuple[str, Mapping[tuple[int, int], int]]]
"""code that runs -> the method whose code it is, and the number of the call that ends at a line and column"""


def places_of(cls: Any) -> Places:
    """Where in the code of a class, or of one made for a rewritten module, which call stands."""
    found: dict[types.CodeType, tuple[str, Mapping[tuple[int, int], int]]] = {}
    for method, source in _sources_of(base_of(cls)):
        function = _plain(inspect.getattr_static(cls, method))
        changed = getattr(function, "_rewrite_places", None)
        if changed is not None:
            found[function.__code__] = method, changed
        elif source is not None and function is source.function:
            found[function.__code__] = method, {end_of(call): number for number, call in enumerate(source.calls)}
    return found


Way = tuple[tuple[types.CodeType, int], ...]
"""code that is running and the instruction in it, the innermost first"""


WAY = "rewrite_way"
"""where a node of a graph keeps how it came to be"""


def way_to(outermost: types.CodeType) -> Way:
    """How it came to the present call, from the innermost code out to the one that is named."""
    found = []
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not outermost:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def place_in(places: Places, way: Way) -> tuple[str, int] | None:
    """The call that was being made in the innermost of the known pieces of code: its method and its number."""
    for code, instruction in way:
        if code in places:
            method, numbers = places[code]
            number = numbers.get(_ends(code)[instruction // 2])
            return (method, number) if number is not None else None
    return None


@functools.lru_cache(maxsize=4096)
def _ends(code: types.CodeType) -> list[tuple[int, int]]:
    """Number of the instruction -> where in the text its part ends."""
    return [(line or 0, column or 0) for _, line, _, column in code.co_positions()]


def calls_in(lines: Iterable[ast.AST]) -> list[ast.Call]:
    """All calls in a text, in order."""
    return [node for line in lines for node in _in_order(line) if isinstance(node, ast.Call)]


def end_of(node: ast.expr) -> tuple[int, int]:
    """Line and column where a part of a text ends; no two calls end at the same place."""
    return node.end_lineno or 0, node.end_col_offset or 0


def _as_changed(calls: Iterable[CodeCall], recipe: Recipe) -> Iterator[CodeCall]:
    """The calls as an earlier rewrite has left them; those that it took away are none any more."""
    for call in calls:
        change = recipe.code[call.method].calls.get(call.number) if call.method in recipe.code else None
        if change is None:
            yield call
        elif change.instead is None:
            names = {argument: name for name, argument in call.arguments.items()}
            given = {names.get(argument, str(argument)): value for argument, value in change.arguments}
            yield replace(call, attributes={**call.attributes, **given})


def _plain(function: Any) -> Any:
    return inspect.unwrap(function) if callable(function) else None


def _methods_in(source: Source, cls: type) -> Iterator[str]:
    """Methods of the class that a method of it uses, as far as they are not PyTorch's own."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == source.me:
            found = inspect.getattr_static(cls, node.attr, None)
            if isinstance(found, types.FunctionType) and getattr(nn.Module, node.attr, None) is not found:
                yield node.attr


def _named(calls: list[CodeCall], module: nn.Module) -> Iterator[CodeCall]:
    taken = set(module._modules)
    for call in calls:
        stem = call.spelling.rpartition(".")[2].strip("_").lower()
        name, count = stem, 0
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        yield replace(call, name=name)


def _read_call(source: Source, node: ast.Call, module: nn.Module, method: str, number: int) -> CodeCall | None:
    """A call, if its text tells what is called, and if what comes out of it may be something else."""
    starred = any(isinstance(item, ast.Starred) for item in node.args)
    found = _known(source, node.func, module)
    if found is None or starred or any(keyword.arg in (None, "out") for keyword in node.keywords):
        return None
    operation, spelling, parameters = found
    if not _fits(node, parameters[1:] if spelling.startswith("Tensor.") else parameters):
        return None
    arguments = _arguments(node, spelling, parameters)
    inputs = _inputs(operation, parameters, arguments)
    attributes = _attributes(node, parameters, arguments)
    overwrites = spelling.endswith("_") or bool(attributes.get("inplace", "inplace" in arguments))
    if overwrites and not _may_overwrite(source, node, inputs):
        return None
    return CodeCall("", method, number, operation, spelling, inputs, arguments, attributes, overwrites)


def _known(source: Source, called: ast.expr, module: nn.Module) -> tuple[Operation, str, Sequence[Parameter]] | None:
    """Operation, spelling and parameters of what is called, if its text tells them."""
    function = _resolve(source, called, module)
    if function is not None:
        operation, dotted = function_operation(function)
        if operation is not None:
            return operation, short(dotted), parse_signature(operation.functions[dotted])
    elif isinstance(called, ast.Attribute) and _may_be_tensor(source, called.value, module):
        operation = by_method(called.attr)
        shared = called.attr in _OF_ARRAYS or any(hasattr(cls, called.attr) for cls in _OTHERS)
        if operation is not None and not shared:
            text = operation.methods[called.attr]
            parameters = parse_signature(f"input, {text}" if text else "input")
            return operation, f"Tensor.{called.attr}", parameters
    return None


def _resolve(source: Source, node: ast.expr, module: nn.Module) -> Any:
    """What a dotted name stands for, if that is a function in a module of Python or in an attribute of the module."""
    if isinstance(node, ast.Name):
        if node.id in source.local:
            return None
        function = source.function
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if node.id in cells:
            return next(_cells_of(cells[node.id]), None)
        return function.__globals__.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == source.me:
            return module.__dict__.get(node.attr)
        around = _resolve(source, node.value, module)
        return getattr(around, node.attr, None) if isinstance(around, types.ModuleType) else None
    return None


def _cells_of(cell: types.CellType) -> Iterator[object]:
    try:
        yield cell.cell_contents
    except ValueError:
        return


def _may_be_tensor(source: Source, node: ast.expr, module: nn.Module) -> bool:
    """Whether a value is one that the forward computes, and not a thing that a name stands for everywhere."""
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name) and root.id == source.me:
        return False
    return _resolve(source, node, module) is None and not isinstance(root, ast.Constant)


def _may_overwrite(source: Source, call: ast.Call, inputs: Mapping[str, Argument]) -> bool:
    """Whether a call that overwrites its input may give another value: only what has the input's own name sees it."""
    if not inputs:
        return False
    first = argument_of(call, next(iter(inputs.values())))
    parent = source.parents[call]
    if isinstance(parent, ast.Expr):
        return isinstance(first, ast.Name)
    if isinstance(parent, ast.Assign):
        (target, *more) = parent.targets
        if not more and isinstance(first, ast.Name) and isinstance(target, ast.Name) and target.id == first.id:
            return True
    return isinstance(first, ast.Call)  # what nobody else holds


def argument_of(call: ast.Call, argument: Argument) -> ast.expr:
    """What stands in the text for an argument of a call."""
    if isinstance(argument, str):
        return next(keyword.value for keyword in call.keywords if keyword.arg == argument)
    if argument == RECEIVER:
        assert isinstance(call.func, ast.Attribute), "only a method is called on something"
        return call.func.value
    return call.args[argument]


def _fits(call: ast.Call, parameters: Sequence[Parameter]) -> bool:
    """Whether a function with these parameters takes such a call: else another one of that name is meant."""
    names = [parameter.name for parameter in parameters]
    later = names[len(call.args) :]
    variadic = any(parameter.variadic for parameter in parameters)
    return (variadic or len(call.args) <= len(names)) and all(keyword.arg in later for keyword in call.keywords)


def _arguments(call: ast.Call, spelling: str, parameters: Sequence[Parameter]) -> dict[str, Argument]:
    found: dict[str, Argument] = {}
    if spelling.startswith("Tensor."):
        found[parameters[0].name] = RECEIVER
        parameters = parameters[1:]
    for place, parameter in enumerate(parameters[: len(call.args)]):
        if not parameter.variadic:
            found[parameter.name] = place
    return found | {keyword.arg: keyword.arg for keyword in call.keywords if keyword.arg is not None}


def _inputs(
    operation: Operation, parameters: Sequence[Parameter], arguments: Mapping[str, Argument]
) -> dict[str, Argument]:
    named = zip(operation.ports, parameters, strict=False)
    return {port: arguments[parameter.name] for port, parameter in named if parameter.name in arguments}


def _attributes(
    call: ast.Call, parameters: Sequence[Parameter], arguments: Mapping[str, Argument]
) -> dict[str, object]:
    """Arguments as far as they are plain, defaults included."""
    found: dict[str, object] = {
        p.name: p.default for p in parameters if not (p.required or p.variadic or p.name in arguments)
    }
    for name, place in arguments.items():
        try:
            found[name] = ast.literal_eval(argument_of(call, place))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return found
