"""Methods as they are written: the text of a method, and what stands in it.

A text counts only if it gives the very code that runs. Where it does not (the file was changed since, or a decorator
keeps the function for itself) there is none.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import copy
import functools
import hashlib
import inspect
import types
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rewrite.backends.torch.spellings import VIEWS

_FUTURE = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag, __future__.all_feature_names, 0
)

_FACTS = frozenset(["shape", "ndim", "dtype", "device", "layout", "requires_grad"])
"""attributes that tell something of a tensor, and share nothing with it"""

Call = ast.Call | ast.BinOp | ast.AugAssign
"""a call of a function, or an operator, which is one as well"""


Conditions = tuple[tuple[ast.expr, bool], ...]
"""what is asked, and the answer"""


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
    _ways: dict[ast.AST, Conditions] = field(default_factory=dict)
    _methods: dict[type, list[tuple[str, ast.Attribute]]] = field(default_factory=dict)

    @functools.cached_property
    def calls(self) -> list[Call]:
        """All calls and operators in its text, in order."""
        return calls_in(self.tree.body)

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """All parts of its text."""
        return list(ast.walk(self.tree))

    @functools.cached_property
    def own(self) -> list[ast.Attribute]:
        """Where it names an attribute of the module itself."""
        return [
            node
            for node in self.nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self.me
        ]

    @functools.cached_property
    def deep(self) -> list[ast.Attribute]:
        """Where it names an attribute of something that is no plain name, such as `self.norm.weight`."""
        attributes = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        return [node for node in attributes if isinstance(node.value, ast.Attribute | ast.Subscript)]

    @functools.cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Part of the text -> what it is a part of."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    @functools.cached_property
    def local(self) -> frozenset[str]:
        """Names that stand for something of its own, in it or in a function inside it."""
        names = {node.id for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        names |= {node.arg for node in self.nodes if isinstance(node, ast.arg)}
        names |= {
            alias.asname or alias.name
            for node in self.nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        inner = {
            node.name
            for node in self.nodes
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not self.tree
        }
        return frozenset(names | inner)

    @functools.cached_property
    def stored(self) -> frozenset[str]:
        """Attributes of the module that it sets."""
        return frozenset(self.attribute(node) for node in self.own if isinstance(node.ctx, ast.Store | ast.Del))

    def way_to(self, node: ast.AST) -> Conditions:
        """What is asked on the way to a part of the text, and what the answer is there."""
        if node not in self._ways:
            self._ways[node] = tuple(self._way_to(node))
        return self._ways[node]

    def _way_to(self, node: ast.AST) -> Iterator[tuple[ast.expr, bool]]:
        while node in self.parents:
            inner, node = node, self.parents[node]
            if isinstance(node, ast.If | ast.IfExp) and inner is not node.test:
                rest = node.orelse if isinstance(node.orelse, list) else [node.orelse]
                yield from _conditions(node.test, inner not in rest)
            if isinstance(inner, ast.stmt):
                for before in _lines_before(node, inner):
                    yield from _conditions_behind(before)

    def is_sole(self, name: str, place: ast.AST) -> bool:
        """Whether nothing but a name holds its value at a place: a call has made it, and no other name was given it."""
        line: ast.AST = place
        while not isinstance(line, ast.stmt):
            line = self.parents[line]
        while line is not self.tree:
            around = self.parents[line]
            if isinstance(around, ast.For | ast.While) and any(_shares(other, name) for other in ast.walk(around)):
                return False
            for other in reversed(_lines_before(around, line)):
                if isinstance(other, ast.Assign) and _names_bound(other) == [name]:
                    made = isinstance(other.value, ast.Call | ast.BinOp | ast.Constant)
                    return made and not is_view(other.value)
                if isinstance(other, ast.AugAssign) and _binds(other.target, name):
                    continue
                if any(_shares(part, name) or _binds(part, name) for part in ast.walk(other)):
                    return False
            line = around
        return False

    def attribute(self, node: ast.Attribute) -> str:
        """The name of an attribute, which is longer than it is written for one that is private to a class."""
        owner = _owner(self.function).lstrip("_")
        private = node.attr.startswith("__") and not node.attr.endswith("__")
        return f"_{owner}{node.attr}" if private and owner else node.attr

    @functools.cached_property
    def digest(self) -> str:
        """Tells one text from another: the class that a file names may have changed since."""
        return hashlib.sha256(ast.unparse(self.tree).encode()).hexdigest()


def is_view(value: ast.expr) -> bool:
    """Whether a value may be another one as well, or share its memory: a method of something that is no layer."""
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in VIEWS


def is_left(lines: list[ast.stmt]) -> bool:
    """Whether what stands behind these lines is not reached from them."""
    return bool(lines) and isinstance(lines[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)


def _lines_before(around: ast.AST, line: ast.AST) -> list[ast.stmt]:
    """The lines in front of one, in the list that it stands in."""
    for _, part in ast.iter_fields(around):
        if isinstance(part, list) and line in part:
            return part[: part.index(line)]
    return []


def _conditions_behind(line: ast.stmt) -> Iterator[tuple[ast.expr, bool]]:
    """What holds behind an `if` that leaves what stands there for one of its answers."""
    if not isinstance(line, ast.If) or is_left(line.body) == is_left(line.orelse):
        return
    # What a forward refuses to run with is not what it will run with: that is set until then.
    if not any(isinstance(lines[-1], ast.Raise) for lines in (line.body, line.orelse) if lines):
        yield from _conditions(line.test, is_left(line.orelse))


def _conditions(test: ast.expr, holds: bool) -> Iterator[tuple[ast.expr, bool]]:
    """A condition as single ones, as far as its answer tells theirs."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _conditions(test.operand, not holds)
    elif isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And if holds else ast.Or):
        for part in test.values:
            yield from _conditions(part, holds)
    else:
        yield test, holds


def _names_bound(line: ast.Assign) -> list[str]:
    return [target.id if isinstance(target, ast.Name) else "" for target in line.targets]


def _binds(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)


def _shares(node: ast.AST, name: str) -> bool:
    """Whether a part of the text gives the value of a name to another name, or into a list."""
    if isinstance(node, ast.Assign | ast.NamedExpr | ast.AnnAssign) and node.value is not None:
        value: ast.AST = node.value
        parts = [value] if not isinstance(value, ast.Tuple | ast.List) else value.elts
        return any(_root(part) == name for part in parts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        keeps = node.func.attr in ("append", "insert", "add", "extend", "appendleft", "setdefault", "update")
        return keeps and any(_root(argument) == name for argument in node.args)
    return False


def _root(node: ast.AST) -> str:
    """The name that a value is, or is a view of."""
    while True:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(attr=name) if name in _FACTS:
                return ""
            case ast.Subscript(value=inner) | ast.Attribute(value=inner) | ast.Starred(value=inner):
                node = inner
            case ast.Call(func=ast.Attribute(value=inner)) if is_view(node):
                node = inner
            case _:
                return ""


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
        if not isinstance(inner, types.FunctionType) or all(
            content_of(cell) is not within for cell in inner.__closure__ or ()
        ):
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


def content_of(cell: types.CellType) -> object:
    """What a variable that a function closes over holds; None where it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


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
    runs = _essence(function.__code__)
    around = module_around(function, tree)
    for imports in ([*_imports(file)], []):  # calls of what the same text imports have another bytecode
        around.body[:-1] = imports
        try:
            if _essence(compiled(around, function, "<compared>")) == runs:
                return True
        except (SyntaxError, ValueError, LookupError):
            return False
    return False


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


def _owner(function: types.FunctionType) -> str:
    """The class that a function stands in."""
    owner = function.__qualname__.split(".")[-2:-1]
    return owner[0] if owner and owner != ["<locals>"] else ""


def with_body(tree: ast.FunctionDef, body: list[ast.stmt]) -> ast.FunctionDef:
    """The same function with other lines in it, and without decorators and annotations."""
    made = copy.copy(tree)
    made.body, made.decorator_list, made.returns = body, [], None
    return made


def module_around(function: types.FunctionType, tree: ast.FunctionDef) -> ast.Module:
    """A file in which a function stands as it stood: inside of its class, and of variables that it closes over."""
    body: ast.stmt = tree
    owner = _owner(function)
    if owner:  # for `super()`, and for names that begin with two underscores
        names_there = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        while owner in names_there:  # there, it is the class itself that is meant
            owner = f"_{owner}"
        around = ast.parse(f"class {owner}: pass").body[0]
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


def calls_in(lines: Iterable[ast.AST]) -> list[Call]:
    """All calls and operators in a text, in order."""
    return [node for line in lines for node in _in_order(line) if isinstance(node, Call)]


# ---- names


def resolve(source: Source, node: ast.expr, module: nn.Module) -> Any:
    """What a dotted name stands for, if that is a function in a module of Python or in an attribute of the module."""
    if isinstance(node, ast.Name):
        if node.id in source.local:
            return None
        function = source.function
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if node.id in cells:
            return content_of(cells[node.id])
        return function.__globals__.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == source.me:
            return module.__dict__.get(source.attribute(node))
        around = resolve(source, node.value, module)
        return getattr(around, node.attr, None) if isinstance(around, types.ModuleType) else None
    return None


def plain(function: Any) -> Any:
    """A function without what decorators have put around it."""
    if isinstance(function, staticmethod | classmethod):
        function = function.__func__
    if isinstance(function, property):
        function = function.fget
    return inspect.unwrap(function) if callable(function) else None


def methods_in(source: Source, cls: type) -> list[tuple[str, ast.Attribute]]:
    """Methods of the class that a method of it uses, and where, as far as they are not PyTorch's own."""
    if cls not in source._methods:
        source._methods[cls] = [(name, node) for node in source.own if _is_method(cls, name := source.attribute(node))]
    return source._methods[cls]


def _is_method(cls: type, name: str) -> bool:
    found = inspect.getattr_static(cls, name, None)
    is_method = isinstance(found, types.FunctionType | staticmethod | classmethod | property)
    return is_method and getattr(nn.Module, name, None) is not found


def sources_of(cls: type) -> Iterator[tuple[str, Source | None]]:
    """The forward of a class and the methods that it uses, as they are written."""
    methods = ["forward"]
    for method in methods:  # grows while it is walked
        source = source_of(cls, method)
        yield method, source
        if source is not None:
            methods += dict.fromkeys(name for name, _ in methods_in(source, cls) if name not in methods)
