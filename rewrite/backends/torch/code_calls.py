"""Calls of functions in the code of forwards that no graph could be made of: found in the source, one by one.

Such a forward does what its arguments and its data make it do, but `F.relu` in its text is `F.relu` whenever that line
runs, and `x + y` is an addition of tensors where `x` and `y` are what layers gave. What the text alone does not tell
stays out: functions that only a local name stands for, operators and methods of values that nobody knows.
"""

from __future__ import annotations

import ast
import collections
import functools
import inspect
import operator
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from rewrite.backends.names_in_code import mentions_in_code
from rewrite.backends.torch.code_mentions import held_functions, mentions_of, set_from_outside
from rewrite.backends.torch.code_values import Kind, Known, Values, promised
from rewrite.backends.torch.modules import is_sequential
from rewrite.backends.torch.proxies import SETTINGS
from rewrite.backends.torch.recipes import RECEIVER, Argument, Recipe, base_of, recipe_of
from rewrite.backends.torch.spellings import class_operation, function_operation, is_leaf
from rewrite.backends.torch.written import (
    Call,
    Source,
    is_view,
    methods_in,
    plain,
    resolve,
    source_of,
    sources_of,
)
from rewrite.vocabulary import by_method, short
from rewrite.vocabulary.operation import Operation, Parameter, parse_signature

_OTHERS = (list, dict, set, str, tuple, collections.deque, nn.Module)
"""classes whose methods may be meant where a method of a tensor has the same name"""

_OF_ARRAYS = frozenset(["flatten", "mean", "reshape", "squeeze", "sum", "transpose", "view"])
"""methods that arrays of numpy have as well"""

_OF_TENSORS_ONLY = frozenset(["matmul", "bmm"])
"""operations of two operands that take no numbers"""

OPERATORS: Mapping[type[ast.operator], tuple[Callable[..., Any], Callable[..., Any]]] = {
    ast.Add: (operator.add, operator.iadd),
    ast.Sub: (operator.sub, operator.isub),
    ast.Mult: (operator.mul, operator.imul),
    ast.Div: (operator.truediv, operator.itruediv),
    ast.MatMult: (operator.matmul, operator.imatmul),
}
"""operator in the text -> the function that it is, and the one that it is in front of `=`"""


_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, several: one in several,
    ast.NotIn: lambda one, several: one not in several,
}


@dataclass(frozen=True, eq=False)
class CodeCall:
    """A call of a function or method, as it stands in the code of a forward."""

    name: str
    """what it is called in that forward: `relu`, `relu_1`; empty for one that is not certain"""
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
    certain: bool = True
    """whether the text tells that its operands are tensors"""
    mode: str = ""
    """`train` or `eval` for a call that is made in that mode only"""


@dataclass(frozen=True, eq=False)
class Code:
    """The code of one forward and of the methods of its class that it uses."""

    calls: tuple[CodeCall, ...] = ()
    mentions: Mapping[str, int] = field(default_factory=dict)
    """name in the code -> how often it stands there, calls that were found aside"""
    settings: Mapping[str, object] = field(default_factory=dict)
    """plain attribute of the module -> its value, for which some of the calls are never made"""
    names: Mapping[str, int] = field(default_factory=dict)
    """name in the code, calls that were found included -> how often it stands there"""


class CodeReader:
    """Reads the code of the modules of one model.

    Args:
        model: what else has code that may set what a module asks.

    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._texts: dict[tuple[nn.Module, str], Values | None] = {}
        self._values: dict[tuple[nn.Module, str], Values | None] = {}
        self._stored: dict[type, set[str]] = {}
        """class -> attributes that its methods set"""
        self._mentions: dict[tuple[type, tuple[str, ...]], collections.Counter[str]] = {}
        """class and methods of it -> names in their code"""

    def read(self, module: nn.Module) -> Code:
        """The calls of functions in the code of a module's forward, and what else stands in it."""
        cls, recipe = base_of(type(module)), recipe_of(module)
        if "forward" in module.__dict__ or recipe.bodies or cls.forward is nn.Module.forward:
            return Code(mentions=mentions_in_code(plain(cls.forward)))
        if cls not in self._stored:
            self._stored[cls] = {name for _, source in sources_of(cls) if source is not None for name in source.stored}
        way = _Way(cls, module, self._stored[cls] | self._set_from_outside)
        sources = way.sources()
        key = cls, tuple(sources)
        if key not in self._mentions:
            self._mentions[key] = mentions_of(*key)
        mentions = self._mentions[key] + held_functions(module, self._mentions[key])
        names = dict(mentions)
        calls: list[CodeCall] = []
        for method, source in sources.items():
            if source is None:
                continue
            mentions += self._of_others(source, module, method)
            for number, node in enumerate(source.calls):
                call = self._read(source, node, module, method, number)
                if call is None:
                    mentions["add"] -= self._sums_numbers(source, node, module, method)
                    continue
                of_numbers = not call.certain and not call.inputs
                mentions[call.spelling.rpartition(".")[2]] -= call.certain or of_numbers
                if not of_numbers and way.leads_to(source, node):
                    calls.append(replace(call, mode=way.mode(source, node)))
        left = {name: count for name, count in mentions.items() if count > 0}
        return Code(tuple(_as_changed(_named(calls, module), recipe)), left, way.settings, names)

    @functools.cached_property
    def _set_from_outside(self) -> frozenset[str]:
        return set_from_outside({base_of(type(module)) for module in self.model.modules()})

    def _of_others(self, source: Source, module: nn.Module, method: str) -> collections.Counter[str]:
        """Names in methods of other modules that a method calls, besides their forwards."""
        found: collections.Counter[str] = collections.Counter()
        values = self.values(module, method)
        for node in source.deep:
            other = values.module_at(node.value) if values is not None else None
            if other is None or node.attr == "forward":
                continue
            called = inspect.getattr_static(type(other), node.attr, None)
            if callable(plain(called)) and getattr(nn.Module, node.attr, None) is not called:
                found += mentions_in_code(plain(called))
        return found

    def _read(self, source: Source, node: Call, module: nn.Module, method: str, number: int) -> CodeCall | None:
        """A call, if its text tells what is called, and if what comes out of it may be something else."""
        if not isinstance(node, ast.Call):
            return self._read_operator(source, node, module, method, number)
        starred = any(isinstance(item, ast.Starred) for item in node.args)
        found = self._known(source, node.func, module, method)
        if found is None or starred or any(keyword.arg in (None, "out") for keyword in node.keywords):
            return None
        row, spelling, parameters = found
        if not _fits(node, parameters[1:] if spelling.startswith("Tensor.") else parameters):
            return None
        arguments = _arguments(node, spelling, parameters)
        inputs = _inputs(row, parameters, arguments)
        certain, of_python = True, spelling.startswith("operator.")
        if row.is_merge and row.name != "cat":
            operands = [arguments[p.name] for p in parameters[:2] if p.name in arguments]
            inputs, known = self._operands(node, operands, module, method, only=row.name in _OF_TENSORS_ONLY)
            inputs, certain = inputs if known or of_python else {}, known or not of_python
        elif of_python:
            return None
        attributes = _attributes(node, parameters, arguments)
        overwrites = spelling.endswith("_") or bool(attributes.get("inplace", "inplace" in arguments))
        if overwrites and not _may_overwrite(source, node, inputs):
            return None
        return CodeCall("", method, number, row, spelling, inputs, arguments, attributes, overwrites, certain)

    def _read_operator(
        self, source: Source, node: ast.BinOp | ast.AugAssign, module: nn.Module, method: str, number: int
    ) -> CodeCall | None:
        functions = OPERATORS.get(type(node.op))
        if functions is None or (isinstance(node, ast.AugAssign) and not isinstance(node.target, ast.Name)):
            return None
        row, dotted = function_operation(functions[isinstance(node, ast.AugAssign)])
        if row is None:
            return None
        inputs, certain = self._operands(node, [0, 1], module, method)
        if row.name in _OF_TENSORS_ONLY and self._is_of_tensor(node, module, method):
            inputs, certain = {"0": 0, "1": 1}, True
        if any(isinstance(argument_of(node, side), ast.Tuple | ast.List) for side in (0, 1)):
            inputs, certain = {}, False  # `(x,) + others`
        values = self.values(module, method)
        overwrites = isinstance(node, ast.AugAssign) and not isinstance(node.op, ast.MatMult)
        overwrites = overwrites and values is not None and values.kinds.get(argument_of(node, 0)) is Kind.TENSOR
        if overwrites and not _may_overwrite(source, node, inputs):
            certain = False
        return CodeCall("", method, number, row, short(dotted), inputs, {}, {}, overwrites, certain)

    def _operands(
        self, node: Call, arguments: Sequence[Argument], module: nn.Module, method: str, *, only: bool = False
    ) -> tuple[dict[str, Argument], bool]:
        """The operands that are tensors or may be, and whether it is certain that they are, one at least.

        Args:
            node: the call.
            arguments: its operands.
            module: in whose code it stands.
            method: in which method.
            only: whether nothing but tensors can be operands.

        """
        if only:
            return {str(number): argument for number, argument in enumerate(arguments)}, True
        values = self.values(module, method)
        kinds = {argument: values.kinds.get(argument_of(node, argument)) for argument in arguments} if values else {}
        left = [argument for argument in arguments if kinds.get(argument) is not Kind.OTHER]
        certain = bool(left) and all(kinds.get(argument) is Kind.TENSOR for argument in left)
        return {str(number): argument for number, argument in enumerate(left)}, certain

    def _is_of_tensor(self, node: Call, module: nn.Module, method: str) -> bool:
        """Whether one side of an operator is certain to be a tensor."""
        values = self.values(module, method)
        return values is not None and Kind.TENSOR in {values.kinds.get(argument_of(node, side)) for side in (0, 1)}

    def _sums_numbers(self, source: Source, node: Call, module: nn.Module, method: str) -> bool:
        """Whether it is `sum` of Python, of what is certain to be no tensors."""
        if not isinstance(node, ast.Call) or resolve(source, node.func, module) is not sum:
            return False
        values = self.values(module, method)
        return values is not None and values.kinds.get(node) is Kind.OTHER

    def _known(
        self, source: Source, called: ast.expr, module: nn.Module, method: str
    ) -> tuple[Operation, str, Sequence[Parameter]] | None:
        """Operation, spelling and parameters of what is called, if its text tells them."""
        known = _known_function(source, called, module)
        if known is not None or not isinstance(called, ast.Attribute):
            return known
        found = _method(called.attr)
        if found is None or not _may_be_tensor(source, called.value, module):
            return None
        if called.attr in _OF_ARRAYS or any(hasattr(cls, called.attr) for cls in _OTHERS):
            values = self.values(module, method)
            if values is None or values.kinds.get(called.value) is not Kind.TENSOR:
                return None
        return found

    # ---- values

    def values(self, module: nn.Module, method: str) -> Values | None:
        """What stands in a method of a module; None where that has no text."""
        key = module, method
        if key not in self._values:
            found = self._of_text(module, method)
            passed = self._passed(module, method, found) if found is not None and found.unknown else {}
            if found is not None and passed:
                found = Values(found.source, module, _outputs, self._gives, passed)
            self._values[key] = found
        return self._values[key]

    def _of_text(self, module: nn.Module, method: str) -> Values | None:
        """What its text alone tells; None also where that is being found out."""
        key = module, method
        if key not in self._texts:
            self._texts[key] = None
            source = source_of(base_of(type(module)), method)
            if source is not None:
                self._texts[key] = Values(source, module, _outputs, self._gives)
        return self._texts[key]

    def _passed(self, module: nn.Module, method: str, called: Values) -> dict[str, Kind]:
        """Parameter of a method -> what the other methods pass for it, where all pass the same."""
        cls = base_of(type(module))
        if method == "forward" or not isinstance(inspect.getattr_static(cls, method), types.FunctionType):
            return {}
        parameters = [node.arg for node in called.source.tree.args.args[1:]]
        found: dict[str, set[Known]] = {}
        for name, source in sources_of(cls):
            uses = [node for used, node in methods_in(source, cls) if used == method] if source is not None else []
            values = self._of_text(module, name) if uses else None
            for node in uses:
                call = source.parents[node] if source is not None else None
                if values is None or not isinstance(call, ast.Call) or call.func is not node:
                    return {}
                given = [*zip(parameters, call.args, strict=False)]
                if any(isinstance(item, ast.Starred) for item in call.args):
                    return {}
                given += [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None]
                for parameter, argument in given:
                    found.setdefault(parameter, set()).add(values.kinds.get(argument))
        return {
            name: kind
            for name, kinds in found.items()
            if len(kinds) == 1 and isinstance(kind := next(iter(kinds)), Kind)
        }

    def _gives(self, module: nn.Module, method: str) -> Kind | None:
        """What a method of a module returns, as far as its text tells."""
        if method == "forward" and is_leaf(module):
            cls: Any = type(module)
            row = class_operation(cls)
            return None if row is None else _kind_of(row)
        if method == "forward" and is_sequential(module):
            last = next(reversed(module._modules.values()), None)
            return self._gives(last, "forward") if last is not None else None
        values = self._of_text(module, method)
        if values is not None:
            return values.returned
        return promised(plain(inspect.getattr_static(base_of(type(module)), method, None)))


class _Way:
    """Which parts of the text are reached, as the flags of a module are now."""

    def __init__(self, cls: type, module: nn.Module, stored: Collection[str]) -> None:
        self.cls = cls
        self.module = module
        self.settings: dict[str, object] = {}
        """flags for which some part is not reached"""
        self.stored = stored
        """attributes that change while the module runs"""

    def sources(self) -> dict[str, Source | None]:
        """The forward and the methods that it may come to."""
        found: dict[str, Source | None] = {}
        methods = ["forward"]
        for method in methods:  # grows while it is walked
            source = found[method] = source_of(self.cls, method)
            if source is not None:
                used = [name for name, node in methods_in(source, self.cls) if self.leads_to(source, node)]
                methods += dict.fromkeys(name for name in used if name not in methods)
        return found

    def leads_to(self, source: Source, node: ast.AST) -> bool:
        """Whether a part of the text is reached; if it is not, that is so for the settings."""
        for test, holds in source.way_to(node):
            asked: dict[str, object] = {}
            try:
                answer = self._answer(source, test, asked)
            except (LookupError, TypeError):
                continue
            if bool(answer) != holds:
                self.settings |= asked
                return False
        return True

    def mode(self, source: Source, node: ast.AST) -> str:
        """The mode in which a part of the text is reached; empty: both."""
        for test, holds in source.way_to(node):
            if test in source.own and isinstance(test, ast.Attribute) and test.attr == "training":
                return "train" if holds else "eval"
        return ""

    def _answer(self, source: Source, test: ast.expr, asked: dict[str, object]) -> object:
        """What a condition comes to that asks for plain attributes of the module; these are noted.

        Raises:
            LookupError: it asks for something else.
            TypeError: what it compares cannot be compared.

        """
        match test:
            case ast.Attribute() if test in source.own:
                name = source.attribute(test)
                value = self.module.__dict__[name]
                if name in self.stored or name == "training" or type(value) not in SETTINGS:
                    raise LookupError(name)
                asked[name] = value
                return value
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._answer(source, operand, asked)
            case ast.BoolOp(op=operation, values=parts):
                answers = [bool(self._answer(source, part, asked)) for part in parts]
                return all(answers) if isinstance(operation, ast.And) else any(answers)
            case ast.Compare(left=left, ops=[operation], comparators=[right]) if type(operation) in _COMPARISONS:
                compare = _COMPARISONS[type(operation)]
                return compare(self._answer(source, left, asked), self._answer(source, right, asked))
            case ast.Constant(value=value):
                return value
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return [self._answer(source, part, asked) for part in parts]
        raise LookupError(ast.dump(test))


def _outputs(source: Source, called: ast.expr, module: nn.Module) -> Kind | None:
    """What a function that the vocabulary knows gives."""
    known = _known_function(source, called, module)
    of_python = known is not None and known[1].startswith("operator.")  # adds whatever it is given
    return _kind_of(known[0]) if known is not None and not of_python else None


def _kind_of(row: Operation) -> Kind:
    return Kind.TENSOR if row.outputs == 1 else Kind.SEVERAL


def _known_function(
    source: Source, called: ast.expr, module: nn.Module
) -> tuple[Operation, str, Sequence[Parameter]] | None:
    function = resolve(source, called, module)
    row, dotted = function_operation(function) if function is not None else (None, "")
    return (row, short(dotted), parse_signature(row.functions[dotted])) if row is not None else None


def _method(name: str) -> tuple[Operation, str, Sequence[Parameter]] | None:
    row = by_method(name)
    if row is None:
        return None
    text = row.methods[name]
    return row, f"Tensor.{name}", parse_signature(f"input, {text}" if text else "input")


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


def _named(calls: list[CodeCall], module: nn.Module) -> Iterator[CodeCall]:
    taken = set(module._modules)
    for call in calls:
        if not call.certain:
            yield call
            continue
        stem = call.spelling.rpartition(".")[2].strip("_").lower()
        name, count = stem, 0
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        yield replace(call, name=name)


def _may_be_tensor(source: Source, node: ast.expr, module: nn.Module) -> bool:
    """Whether a value is one that the forward computes, and not a thing that a name stands for everywhere."""
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name) and root.id == source.me:
        return False
    return resolve(source, node, module) is None and not isinstance(root, ast.Constant)


def _may_overwrite(source: Source, call: Call, inputs: Mapping[str, Argument]) -> bool:
    """Whether a call that overwrites its input may give another value: only what has the input's own name sees it."""
    if not inputs:
        return False
    first = argument_of(call, next(iter(inputs.values())))
    parent = source.parents[call]
    if isinstance(first, ast.Call):
        return not isinstance(parent, ast.Expr) and not is_view(first)  # what nobody else holds
    if not isinstance(first, ast.Name) or not source.is_sole(first.id, call):
        return False
    if isinstance(parent, ast.Assign):
        (target, *more) = parent.targets
        return not more and isinstance(target, ast.Name) and target.id == first.id
    return isinstance(call, ast.AugAssign) or isinstance(parent, ast.Expr | ast.Return)


def argument_of(call: Call, argument: Argument) -> ast.expr:
    """What stands in the text for an argument of a call, or for an operand."""
    if isinstance(call, ast.BinOp):
        return call.right if argument else call.left
    if isinstance(call, ast.AugAssign):
        return call.value if argument else call.target
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
