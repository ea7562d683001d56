"""Methods whose code is changed around some of the calls in it, and left as it is everywhere else.

The text of a method is taken from its class, the changed calls are written into it, and the result is compiled in the
place of the old one: with its globals, the variables that it closes over, and its decorators.
"""

from __future__ import annotations

import ast
import linecache
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from rewrite.backends.torch.code_calls import OPERATORS, CodeCall, argument_of
from rewrite.backends.torch.code_places import End, end_of
from rewrite.backends.torch.packed import unsafe
from rewrite.backends.torch.recipes import RECEIVER, Argument, CodeChange, MethodChanges
from rewrite.backends.torch.written import (
    Call,
    Source,
    calls_in,
    compiled,
    content_of,
    module_around,
    source_of,
    with_body,
)
from rewrite.errors import Diagnostic


def changed_methods(cls: type, changes: Mapping[str, MethodChanges], title: str) -> dict[str, Callable[..., Any]]:
    """The methods of a class with what is different in their code.

    Args:
        cls: the class that the methods are those of.
        changes: method -> what is different.
        title: tells the code apart in tracebacks.

    Raises:
        SafetyError: the class is not the one that the changes were made for (RW504).

    """
    made = {}
    for method, change in changes.items():
        source = source_of(cls, method)
        if source is None or source.digest != change.digest:
            raise Diagnostic(
                "RW504",
                f"`{cls.__qualname__}.{method}` is not the code that the rules were applied to",
                notes=("calls in that code were changed, and it is not the same here",),
                help="use the version of the class that was used then, or apply the rules again to the original model",
            ).error()
        try:
            made[method] = _changed(source, change.calls, f"<rewrite {cls.__name__}.{method} {title}>")
        except (IndexError, StopIteration, AttributeError, TypeError, ValueError) as problem:
            raise unsafe(f"it changes what does not stand in `{cls.__qualname__}.{method}`") from problem
    return made


def changed_at(
    changes: Mapping[str, MethodChanges], cls: type, call: CodeCall, change: Callable[[CodeChange], CodeChange]
) -> dict[str, MethodChanges]:
    """All that is different, with one more change at a call.

    Args:
        changes: what is different by now.
        cls: the class whose code it is.
        call: the call.
        change: gives what will be different about it of what is.

    """
    source = source_of(cls, call.method)
    assert source is not None, "calls are found in sources"
    here = changes.get(call.method, MethodChanges(source.digest, {}))
    now = here.calls.get(call.number, CodeChange(tuple(call.inputs.values()), overwrites=call.overwrites))
    return {**changes, call.method: replace(here, calls={**here.calls, call.number: change(now)})}


def _changed(source: Source, changes: Mapping[int, CodeChange], filename: str) -> Callable[..., Any]:
    wanted = {source.calls[number]: change for number, change in changes.items()}
    writer = _Writer(source, wanted)
    tree = with_body(source.tree, [writer.visit(line) for line in source.tree.body])
    text = ast.unparse(module_around(source.function, tree)) + "\n"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    old = source.function
    code = compiled(text, old, filename).replace(co_qualname=old.__code__.co_qualname)
    cells = dict(zip(old.__code__.co_freevars, old.__closure__ or (), strict=True))
    function: Any = _like(old, code, tuple(cells[name] for name in code.co_freevars))
    function._rewrite_places = _places(text, tree)
    within: Any = old
    for outer in reversed(source.around):
        closure = tuple(
            types.CellType(function) if content_of(cell) is within else cell for cell in outer.__closure__ or ()
        )
        again = _like(outer, outer.__code__, closure)
        again.__wrapped__ = function  # type: ignore[attr-defined]
        function, within = again, outer
    result: Callable[..., Any] = function
    return result


def _places(text: str, tree: ast.FunctionDef) -> dict[End, int]:
    """Where in a changed text the calls end that stood in the text before, and their numbers in that."""
    inner = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == tree.name)
    pairs = zip(calls_in(inner.body), calls_in(tree.body), strict=True)
    numbers = [(end_of(call), getattr(written, "number", None)) for call, written in pairs]
    return {end: number for end, number in numbers if number is not None}


def _like(
    function: types.FunctionType, code: types.CodeType, closure: tuple[types.CellType, ...]
) -> types.FunctionType:
    made = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__annotations__ = dict(function.__annotations__)
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    made.__dict__.update(function.__dict__)
    return made


class _Writer(ast.NodeTransformer):
    """Writes the changed calls into a copy of the text."""

    def __init__(self, source: Source, wanted: Mapping[Call, CodeChange]) -> None:
        self.source = source
        self.wanted = wanted
        self.numbers = {call: number for number, call in enumerate(source.calls)}

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """A copy: the text itself is read again for other changes."""
        parts = {}
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                parts[name] = [self.visit(item) if isinstance(item, ast.AST) else item for item in value]
            else:
                parts[name] = self.visit(value) if isinstance(value, ast.AST) else value
        return ast.copy_location(type(node)(**parts), node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """A call that only overwrites its input gives that name what comes out of the change."""
        change = self.wanted.get(node.value) if isinstance(node.value, ast.Call) else None
        if change is None or not change.overwrites:
            return self.generic_visit(node)
        assert isinstance(node.value, ast.Call)
        name = argument_of(node.value, change.takes[0])
        assert isinstance(name, ast.Name), "only such a call is a place for changes"
        target = ast.Name(id=name.id, ctx=ast.Store())
        return ast.copy_location(ast.Assign(targets=[target], value=self.visit(node.value)), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return self._operation(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        return self._operation(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """`x += y` as an assignment of what the change makes of the same method of `x`."""
        made: Any = self.generic_visit(node)
        made.number = self.numbers[node]
        if node not in self.wanted:
            return cast(ast.AugAssign, made)
        assert isinstance(node.target, ast.Name), "only such an assignment is a place for changes"
        name, target = (ast.Name(node.target.id, context) for context in (ast.Load(), ast.Store()))
        change = self.wanted[node]
        call: Any = ast.BinOp(name, node.op, made.value)
        if change.overwrites:
            _, in_place = OPERATORS[type(node.op)]
            call = ast.Call(ast.Attribute(name, f"__{in_place.__name__}__", ast.Load()), [made.value], [])
            swapped = {0: RECEIVER, 1: 0}
            change = replace(
                change,
                takes=tuple(swapped[cast(int, argument)] for argument in change.takes),
                ahead=tuple((swapped[cast(int, argument)], names) for argument, names in change.ahead),
            )
        call.number = made.number
        return ast.copy_location(ast.Assign([target], self._changed(call, change)), node)

    def _operation(self, node: ast.Call | ast.BinOp) -> ast.AST:
        made: Any = self.generic_visit(node)
        made.number = self.numbers[node]
        change = self.wanted.get(node)
        return ast.copy_location(self._changed(made, change), node) if change is not None else cast(ast.AST, made)

    def _changed(self, made: ast.Call | ast.BinOp, change: CodeChange) -> ast.expr:
        for argument, names in change.ahead:
            _set_argument(made, argument, self._through(names, argument_of(made, argument)))
        value: ast.expr = made
        if change.instead is not None:
            inputs = [argument_of(made, argument) for argument in change.takes]
            value = inputs[0] if not change.instead else self._call(change.instead[0], *inputs)
            value = self._through(change.instead[1:], value)
        else:
            for argument, plain in change.arguments:
                _set_argument(made, argument, _written(plain))
        return self._through(change.behind, value)

    def _through(self, names: tuple[str, ...], value: ast.expr) -> ast.expr:
        for name in names:
            value = self._call(name, value)
        return value

    def _call(self, name: str, *values: ast.expr) -> ast.expr:
        me = ast.Name(self.source.me, ast.Load())
        child: ast.expr = ast.Attribute(me, name, ast.Load())
        if not name.isidentifier() or name.startswith("__"):
            child = ast.Subscript(ast.Attribute(me, "_modules", ast.Load()), ast.Constant(name), ast.Load())
        return ast.Call(child, list(values), [])


def _written(value: object) -> ast.expr:
    if isinstance(value, tuple | list):
        return ast.Tuple([_written(item) for item in value], ast.Load())
    return ast.Constant(value)  # type: ignore[arg-type]


def _set_argument(call: ast.Call | ast.BinOp, argument: Argument, value: ast.expr) -> None:
    if isinstance(call, ast.BinOp):
        setattr(call, "right" if argument else "left", value)
    elif argument == RECEIVER:
        assert isinstance(call.func, ast.Attribute), "only a method is called on something"
        call.func.value = value
    elif isinstance(argument, int):
        call.args[argument] = value
    else:
        for keyword in call.keywords:
            if keyword.arg == argument:
                keyword.value = value
                return
        call.keywords.append(ast.keyword(arg=argument, value=value))
