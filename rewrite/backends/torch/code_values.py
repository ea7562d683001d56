"""What the names in the text of a method stand for: tensors, several tensors, or something else.

`a + b` is an addition of tensors only where one of them is a tensor. That is followed through the text from what is
certain: what layers and functions of tensors give, parameters and buffers, annotations, and names that are handed to
layers or asked for their `shape`.
"""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rewrite.backends.torch.spellings import class_operation, gives_no_tensor
from rewrite.backends.torch.written import Source, is_left, resolve


class Kind(Enum):
    """What a value is."""

    TENSOR = "tensor"
    SEVERAL = "several tensors"
    OTHER = "no tensor"


Modules = tuple[nn.Module, ...]
"""what a name stands for in a loop over modules"""

Known = Kind | Modules | None
"""None: nobody knows"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OF_TENSORS = _words("T mT H mH data grad real imag")
"""attributes of a tensor that are tensors; no other is"""

_SEVERAL = _words(
    "split split_with_sizes hsplit vsplit tensor_split chunk unbind topk sort kthvalue unique meshgrid"
    " broadcast_tensors var_mean std_mean qr svd slogdet frexp"
)
"""functions and methods that give several tensors"""

_ONE_OR_SEVERAL = _words("max min nonzero where median mode cummax cummin")
"""functions and methods that give one tensor or several, as their arguments are"""

_ASKED_OF_TENSORS = _words(
    "shape device ndim size view permute reshape flatten contiguous unsqueeze squeeze expand new_zeros detach to float"
    " mean softmax relu sigmoid masked_fill"
)
"""attributes that tell a tensor where a name is asked for them"""

_OF_LISTS = _words("cat concat concatenate stack hstack vstack dstack meshgrid einsum broadcast_tensors block_diag")
"""functions that take several tensors, or a text, for their first argument"""

_OF_PYTHON = _words("len range int float bool str round isinstance hasattr print slice")
"""functions of Python that give no tensors"""

_SPACES = ("torch.functional", "torch.nn.functional", "torch._C._nn")
"""modules of Python with functions of tensors, besides `torch` itself"""

_NO_TENSORS_OF_TORCH = _words(
    "broadcast_shapes typename result_type get_default_dtype can_cast promote_types manual_seed compile"
)
"""functions of torch that give something else"""


@dataclass(frozen=True)
class _Uses:
    """What a text does with names that stand for values."""

    asked: frozenset[str]
    """names that are asked for what tensors have"""
    given: tuple[tuple[str, ast.expr], ...]
    """name that is the first argument of a call -> what is called"""
    tested: frozenset[str]
    """names whose class is asked for"""
    arrays: bool
    """whether arrays of numpy occur, which have shapes as well"""


@functools.lru_cache(maxsize=1024)
def _uses(source: Source) -> _Uses:
    asked: set[str] = set()
    tested: set[str] = set()
    given: list[tuple[str, ast.expr]] = []
    for node in source.nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if attribute in _ASKED_OF_TENSORS:
                asked.add(name)
            case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), *_]):
                tested.add(name)
            case ast.Call(func=called, args=[ast.Name(id=name), *_]):
                given.append((name, called))
    arrays = not {"numpy", "np", "from_numpy"}.isdisjoint(source.function.__code__.co_names)
    return _Uses(frozenset(asked), tuple(given), frozenset(tested), arrays)


class Values:
    """Follows the values through one method.

    Args:
        source: the method.
        module: whose method it is.
        known: what a function gives that is called so, if the vocabulary knows it.
        gives: what a method of a module returns.
        passed: parameter -> what those who call the method are known to pass for it.

    """

    def __init__(
        self,
        source: Source,
        module: nn.Module,
        known: Callable[[Source, ast.expr, nn.Module], Kind | None],
        gives: Callable[[nn.Module, str], Kind | None],
        passed: Mapping[str, Kind] = MappingProxyType({}),
    ) -> None:
        self.source = source
        self.module = module
        self.known = known
        self.gives = gives
        self.kinds: dict[ast.expr, Known] = {}
        """part of the text -> what it is; several times in a loop"""
        self.result: list[Known] = []
        self.names: dict[str, Known] = {}
        self._parameters(source.tree.args)
        self.unknown = {node.arg for node in _arguments(source.tree)} - self.names.keys() - {source.me}
        """parameters that the text of the method does not tell of"""
        self.names |= {name: kind for name, kind in passed.items() if name in self.unknown}
        self._run(source.tree.body)

    @property
    def returned(self) -> Kind | None:
        """What the method returns."""
        kinds = {kind for kind in self.result if isinstance(kind, Kind) and kind is not Kind.OTHER}
        return kinds.pop() if len(kinds) == 1 else promised(self.source.function)

    # ---- names

    def _parameters(self, arguments: ast.arguments) -> None:
        every = [*arguments.posonlyargs, *arguments.args]
        defaults = dict(zip(reversed(every), reversed(arguments.defaults), strict=False))
        defaults |= {a: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None}
        uses = _uses(self.source)
        given = {name for name, called in uses.given if self._takes_tensor(called)}
        tensors = (uses.asked | given) - uses.tested if not uses.arrays else frozenset()
        for parameter in (*every, *arguments.kwonlyargs):
            default = defaults.get(parameter)
            said = _annotated(ast.unparse(parameter.annotation)) if parameter.annotation is not None else None
            if said is not None:
                self.names[parameter.arg] = said
            elif isinstance(default, ast.Constant) and default.value is not None:
                self.names[parameter.arg] = Kind.OTHER
            elif parameter.arg in tensors:
                self.names[parameter.arg] = Kind.TENSOR

    def _takes_tensor(self, called: ast.expr) -> bool:
        """Whether what is called takes a tensor for its first argument."""
        module = self.module_at(called)
        if module is not None:
            cls: Any = type(module)
            return class_operation(cls) is not None
        known = self.known(self.source, called, self.module) is not None
        return known and getattr(called, "attr", getattr(called, "id", "")) not in _OF_LISTS

    def _bind(self, target: ast.expr, kind: Known) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = kind
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                lists = [list(module.children()) for module in kind] if isinstance(kind, tuple) else []
                for number, part in enumerate(parts):
                    if isinstance(part, ast.Starred):
                        self._bind(part.value, Kind.SEVERAL if kind is Kind.SEVERAL else None)
                    elif lists and all(len(children) == len(parts) for children in lists):
                        self._bind(part, tuple(children[number] for children in lists))
                    else:
                        self._bind(part, _one_of(kind))

    # ---- statements

    def _run(self, lines: Iterable[ast.stmt]) -> None:
        for line in lines:
            self._line(line)

    def _line(self, line: ast.stmt) -> None:
        match line:
            case ast.Assign(targets=targets, value=value):
                self._assign(targets, value)
            case ast.AnnAssign(target=target, value=value):
                kind = self.kind(value) if value is not None else None
                self._bind(target, kind or _annotated(ast.unparse(line.annotation)))
            case ast.AugAssign(target=ast.expr() as target, value=value):
                both = self.kind(_loaded(target)), self.kind(value)
                self.kinds[target] = _either(self.kinds, target, both[0])
                self._bind(target, _of_both(*both))
            case ast.For(target=target, iter=items, body=body, orelse=rest):
                kind = self._item(items)
                for _ in range(2):
                    before = dict(self.names)
                    self._bind_item(target, items, kind)
                    self._run(body)
                    self.names = _merged(before, self.names)
                self._run(rest)
            case ast.While(test=test, body=body, orelse=rest):
                for _ in range(2):
                    before = dict(self.names)
                    self.kind(test)
                    self._run(body)
                    self.names = _merged(before, self.names)
                self._run(rest)
            case ast.If(test=test, body=body, orelse=rest):
                self.kind(test)
                before = dict(self.names)
                self._run(body)
                one = self.names if not is_left(body) else None
                self.names = before if one is None else dict(before)
                self._run(rest)
                if one is not None:
                    self.names = one if rest and is_left(rest) else _merged(one, self.names)
            case ast.With(items=entries, body=body):
                for entry in entries:
                    self.kind(entry.context_expr)
                    if entry.optional_vars is not None:
                        self._bind(entry.optional_vars, None)
                self._run(body)
            case ast.Try(body=body, handlers=handlers, orelse=rest, finalbody=end):
                before = dict(self.names)
                self._run(body)
                for handler in handlers:
                    before = _merged(before, self.names)
                    self._run(handler.body)
                    self.names = _merged(before, self.names)
                self._run([*rest, *end])
            case ast.Return(value=value):
                self.result.append(self.kind(value) if value is not None else Kind.OTHER)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                self.names[name] = None
            case _:
                for part in ast.iter_child_nodes(line):
                    if isinstance(part, ast.expr):
                        self.kind(part)
                    elif isinstance(part, ast.stmt):
                        self._line(part)

    def _assign(self, targets: list[ast.expr], value: ast.expr) -> None:
        kind = self.kind(value)
        for target in targets:
            if kind is None and isinstance(value, ast.Call) and isinstance(target, ast.Name):
                # `x = f(x)`, whatever that is: people keep a name for what is of one kind.
                named = [part.id for part in value.args[:1] if isinstance(part, ast.Name)]
                self._bind(target, self.names.get(target.id) if target.id in named else None)
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                kinds = [self.kind(part) for part in value.elts]
                for part, one in zip(target.elts, kinds, strict=True):
                    self._bind(part, one)
            else:
                self._bind(target, kind)

    def _item(self, items: ast.expr) -> Known:
        """What one item of something that is looped over is."""
        module = self.module_at(items)
        if module is not None:
            return tuple(module.children())
        return _one_of(self.kind(items))

    def _bind_item(self, target: ast.expr, items: ast.expr, kind: Known) -> None:
        pairs = isinstance(target, ast.Tuple) and isinstance(items, ast.Call) and isinstance(items.func, ast.Name)
        if not pairs or not isinstance(target, ast.Tuple) or not isinstance(items, ast.Call):
            self._bind(target, kind)
            return
        name = items.func.id if isinstance(items.func, ast.Name) else ""
        if name == "enumerate" and len(target.elts) == 2 and items.args:
            self._bind(target.elts[0], Kind.OTHER)
            self._bind(target.elts[1], self._item(items.args[0]))
        elif name == "zip" and len(items.args) == len(target.elts):
            for part, argument in zip(target.elts, items.args, strict=True):
                self._bind(part, self._item(argument))
        else:
            self._bind(target, kind)

    # ---- expressions

    def kind(self, node: ast.expr) -> Known:
        """What a part of the text is."""
        found = self._kind(node)
        self.kinds[node] = _either(self.kinds, node, found)
        return found

    def _kind(self, node: ast.expr) -> Known:
        match node:
            case ast.Constant() | ast.JoinedStr() | ast.Lambda():
                return Kind.OTHER
            case ast.Name(id=name):
                if name in self.names:
                    return self.names[name]
                known = resolve(self.source, node, self.module)
                return Kind.OTHER if isinstance(known, types.ModuleType | int | float | str | type) else None
            case ast.Attribute():
                return self._attribute(node)
            case ast.Subscript(value=value, slice=index):
                self.kind(index)
                whole = self.kind(value)
                if whole is Kind.SEVERAL:
                    return Kind.SEVERAL if isinstance(index, ast.Slice) else Kind.TENSOR
                return whole if isinstance(whole, Kind) else None
            case ast.Call():
                return self._call(node)
            case ast.BinOp(left=left, right=right):
                return _of_both(self.kind(left), self.kind(right))
            case ast.UnaryOp(operand=operand):
                return self.kind(operand)
            case ast.Compare(left=left, comparators=others):
                kinds = [self.kind(part) for part in (left, *others)]
                return Kind.TENSOR if Kind.TENSOR in kinds else None
            case ast.IfExp(test=test, body=body, orelse=rest):
                self.kind(test)
                return _same(self.kind(body), self.kind(rest))
            case ast.BoolOp(values=values):
                kinds = [self.kind(part) for part in values]
                return kinds[0] if all(kind == kinds[0] for kind in kinds) else None
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                kinds = [self.kind(part) for part in parts]
                return Kind.SEVERAL if kinds and all(kind is Kind.TENSOR for kind in kinds) else _all_other(kinds)
            case ast.ListComp(elt=item, generators=loops) | ast.GeneratorExp(elt=item, generators=loops):
                before = dict(self.names)
                for loop in loops:
                    self._bind_item(loop.target, loop.iter, self._item(loop.iter))
                    for test in loop.ifs:
                        self.kind(test)
                one = self.kind(item)
                self.names = before
                return Kind.SEVERAL if one is Kind.TENSOR else None
            case ast.NamedExpr(target=target, value=value):
                kind = self.kind(value)
                self._bind(target, kind)
                return kind
            case ast.Starred(value=value):
                self.kind(value)
                return None
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self.kind(part)
        return None

    def _attribute(self, node: ast.Attribute) -> Known:
        owner = self.module_at(node.value)
        if owner is not None:
            if node.attr in owner._parameters or node.attr in owner._buffers:
                return Kind.TENSOR
            value = owner.__dict__.get(node.attr)
            if isinstance(value, torch.Tensor):
                return Kind.TENSOR
            plain = isinstance(value, int | float | str) or node.attr == "training"
            return Kind.OTHER if plain else None
        whole = self.kind(node.value)
        if whole is Kind.TENSOR:
            return Kind.TENSOR if node.attr in _OF_TENSORS else Kind.OTHER
        return Kind.OTHER if isinstance(self._held_at(node), int | float | str) else None

    def _held_at(self, node: ast.expr) -> object:
        """What objects that the module holds have there, as in `self.config.scale`; None: nobody knows."""
        if not isinstance(node, ast.Attribute):
            return None
        owner = self.module_at(node.value) or self._held_at(node.value)
        return getattr(owner, "__dict__", {}).get(node.attr)

    def _call(self, node: ast.Call) -> Known:
        kinds = [self.kind(part) for part in (*node.args, *(keyword.value for keyword in node.keywords))]
        called = node.func
        known = self.known(self.source, called, self.module)
        if isinstance(called, ast.Attribute) and self.module_at(called) is None:
            self.kind(called.value)
        if known is not None:
            return known
        module = self.module_at(called)
        if module is not None:
            return self._given_by((module,))
        if isinstance(called, ast.Name):
            held = self.names.get(called.id)
            if isinstance(held, tuple):
                return self._given_by(held)
            if called.id in _OF_PYTHON and called.id not in self.source.local:
                return Kind.OTHER
            if called.id == "map" and len(node.args) == 2 and resolve(self.source, called, self.module) is map:
                return self._mapped(*node.args)
            if called.id == "sum" and node.args and resolve(self.source, called, self.module) is sum:
                return self._summed(node.args[0])
        if isinstance(called, ast.Attribute):
            if isinstance(called.value, ast.Name) and called.value.id == self.source.me:
                return self.gives(self.module, called.attr)
            if self.kinds.get(called.value) is Kind.TENSOR:
                return _of_name(called.attr, plain=len(kinds) == 0)
        return _of_function(resolve(self.source, called, self.module), plain=len(kinds) == 1)

    def _mapped(self, function: ast.expr, items: ast.expr) -> Kind | None:
        """What Python's `map` gives, which is as good as a list here."""
        module = self.module_at(function)
        if isinstance(function, ast.Lambda):
            before = dict(self.names)
            for argument in function.args.args:
                self.names[argument.arg] = self._item(items)
            one = self.kind(function.body)
            self.names = before
        elif module is not None:
            one = self._given_by((module,))
        else:
            one = self.known(self.source, function, self.module)
        return Kind.SEVERAL if one is Kind.TENSOR else None

    def _summed(self, items: ast.expr) -> Kind | None:
        """What Python's `sum` gives for these items."""
        one = self.kinds.get(items.elt if isinstance(items, ast.GeneratorExp | ast.ListComp) else items)
        if one in (Kind.TENSOR, Kind.SEVERAL):
            return Kind.TENSOR
        return Kind.OTHER if one is Kind.OTHER else None

    def _given_by(self, modules: Modules) -> Kind | None:
        kinds = {self.gives(module, "forward") for module in modules}
        return kinds.pop() if len(kinds) == 1 else None

    def module_at(self, node: ast.expr) -> nn.Module | None:
        """The module that a part of the text is, such as `self.layers` or `self.norm.body`."""
        if isinstance(node, ast.Name):
            return self.module if node.id == self.source.me else None
        if isinstance(node, ast.Attribute):
            around = self.module_at(node.value)
            return around._modules.get(node.attr) if around is not None else None
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            around = self.module_at(node.value)
            names = list(around._modules) if around is not None else []
            index = node.slice.value
            if isinstance(index, int) and -len(names) <= index < len(names):
                index = names[index]
            return around._modules.get(index) if around is not None and isinstance(index, str) else None
        return None


def _arguments(tree: ast.FunctionDef) -> list[ast.arg]:
    return [*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs]


def _annotated(text: str) -> Kind | None:
    """What an annotation says."""
    text = text.strip("'\"").replace("torch.", "").replace("typing.", "").replace(" ", "")
    if text in ("Tensor", "Optional[Tensor]", "Tensor|None", "None|Tensor"):
        return Kind.TENSOR
    if text.lower() in ("list[tensor]", "tuple[tensor,...]", "sequence[tensor]"):
        return Kind.SEVERAL
    return Kind.OTHER if text in ("int", "float", "bool", "str", "Optional[int]", "int|None") else None


def _of_function(function: Any, *, plain: bool) -> Kind | None:
    """What a function gives: those of torch give tensors, those of others what they are annotated with."""
    if function is None or isinstance(function, type):
        return None
    room = getattr(function, "__module__", None)
    name = getattr(function, "__name__", "")
    if room in _SPACES or getattr(torch, name, None) is function:
        return Kind.OTHER if name in _NO_TENSORS_OF_TORCH else _of_name(name, plain=plain)
    return promised(function)


def promised(function: Any) -> Kind | None:
    """What a function is annotated to give."""
    said = getattr(function, "__annotations__", {}).get("return")
    # A library that is not for PyTorch alone, such as einops, has a variable of that name for the type.
    text = said if isinstance(said, str) else getattr(said, "__name__", "")
    return _annotated(text) if text else None


def _of_name(name: str, *, plain: bool) -> Kind | None:
    if gives_no_tensor(name) or (name == "type" and plain):
        return Kind.OTHER
    if name in _SEVERAL:
        return Kind.SEVERAL
    if name in _ONE_OR_SEVERAL:
        return Kind.TENSOR if plain else None
    return Kind.TENSOR


def _one_of(kind: Known) -> Known:
    return Kind.TENSOR if kind in (Kind.TENSOR, Kind.SEVERAL) else Kind.OTHER if kind is Kind.OTHER else None


def _of_both(one: Known, other: Known) -> Kind | None:
    if Kind.SEVERAL in (one, other):  # `(x,) + others`
        return Kind.SEVERAL
    if Kind.TENSOR in (one, other):
        return Kind.TENSOR
    return Kind.OTHER if one is other is Kind.OTHER else None


def _same(one: Known, other: Known) -> Known:
    return one if one == other else None


def _all_other(kinds: list[Known]) -> Kind | None:
    return Kind.OTHER if all(kind is Kind.OTHER for kind in kinds) else None


def _either(kinds: Mapping[ast.expr, Known], node: ast.expr, kind: Known) -> Known:
    return kind if node not in kinds else _same(kinds[node], kind)


def _merged(one: Mapping[str, Known], other: Mapping[str, Known]) -> dict[str, Known]:
    """What names stand for behind two ways; what has a value on one of them only has that."""
    return {
        name: _same(one[name], other[name]) if name in one and name in other else one.get(name, other.get(name))
        for name in {**one, **other}
    }


def _loaded(node: ast.expr) -> ast.expr:
    """A target as a value."""
    return ast.Name(node.id, ast.Load()) if isinstance(node, ast.Name) else node
