"""Names and arguments of a rule, looked up in the vocabulary: what the resolver asks about a single word."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from rewrite import vocabulary
from rewrite.errors import Diagnostic, nearest
from rewrite.expression import Binary, Expression, Literal, Star
from rewrite.pattern import Kind
from rewrite.source import Span
from rewrite.syntax import Keyword, Word
from rewrite.vocabulary.operation import Operation, Parameter, parse_signature

ALWAYS = ("activation", "inplace", "path", "training", "uses")
"""attributes that any call or layer may be asked for"""

_SHORTEST_TYPO = 5  # letters of a name that one wrong letter does not yet make another name


def kind(text: str, span: Span, modules: Collection[str], classes: Collection[str] | None) -> Kind | Diagnostic:
    """What a name in a selector means.

    Args:
        text: the name as written, dots included.
        span: where.
        modules: names given by the caller, which go before everything.
        classes: class names of the model, None where no model is at hand.

    """
    if text in modules:
        return Kind(text, dotted=text)
    if "." in text:
        prefix, _, last = vocabulary.expand(text).rpartition(".")
        if prefix == "torch.nn" and _is_typo(last):
            rows = [vocabulary.short(row.module) for row in vocabulary.OPERATIONS.values() if row.module is not None]
            return _unknown(f"unknown operation `{text}`", span, "not found in the vocabulary", text, rows)
        return Kind(text, dotted=text)
    if text in vocabulary.FAMILIES:
        return Kind(text, family=text)
    operation = vocabulary.find(text)
    if operation is not None:
        return Kind(text, operation=operation.name)
    if classes is not None and text in classes:
        return Kind(text, class_name=text)
    operation = vocabulary.keras_alias(text)
    if operation is not None:
        return Kind(text, operation=operation.name)
    if classes is None and text[:1].isupper() and not _is_typo(text):
        return Kind(text, class_name=text)
    known = [*vocabulary.OPERATIONS, *vocabulary.FAMILIES, *modules, *(classes or ())]
    where = "the vocabulary" if classes is None else "the vocabulary and in this model"
    problem = _unknown(f"unknown operation `{text}`", span, f"not found in {where}", text, known)
    if text[:1].islower() and not _is_typo(text):  # `freeze features`
        path = f'a module path is written in quotes: "{text}"'
        return replace(problem, help=f"{problem.help} {path}" if "did you" in problem.help else path)
    return problem


def layer(text: str, span: Span, modules: Collection[str], *, keras: bool = True) -> Operation | str | Diagnostic:
    """What a new layer is: a row of the vocabulary, the name of a class that the caller gave, or what is wrong.

    Args:
        text: the name as written, dots included.
        span: where.
        modules: names given by the caller, which go before everything.
        keras: whether Keras' names are taken as well.

    """
    if text in modules:
        return text
    if "." in text:
        operation = vocabulary.by_module(vocabulary.expand(text))
        operation = operation or (vocabulary.by_keras_class(text) if keras else None)
    else:
        operation = vocabulary.find(text) or (vocabulary.keras_alias(text) if keras else None)
    if operation is None:
        known = [name for name, row in vocabulary.OPERATIONS.items() if row.signature is not None]
        return _unknown(f"unknown layer `{text}`", span, "not a layer of the vocabulary", text, [*known, *modules])
    if operation.signature is None:
        help_text = "insert a layer, or pass a class of your own as `modules={...}`"
        return Diagnostic("RW101", f"`{text}` is not a layer", span, "cannot be inserted", help=help_text)
    return operation


def _unknown(message: str, span: Span, label: str, text: str, known: Iterable[str]) -> Diagnostic:
    prefix, _, last = text.rpartition(".")
    close = nearest(text, known)
    close = [name for name in close if name.lower() == text.lower()] or close  # letter case alone: that is the one
    if close and vocabulary.expand(f"{prefix}.").startswith(("torch.", ".")):
        help_text = f"did you mean {either(close)}?"
    else:
        help_text = f'pass the class as `modules={{"{text}": {last}}}`'
    return Diagnostic("RW101", message, span, label, help=help_text)


def either(words: Collection[str]) -> str:
    """`a`, `b` or `c`."""
    *rest, last = (f"`{word}`" for word in words)
    return f"{', '.join(rest)} or {last}" if rest else last


def _is_typo(text: str) -> bool:
    """Whether a name is a layer of the vocabulary but for letter case or one slip; else a model may have the class."""
    if text in vocabulary.OPERATIONS:
        return False
    lower = text.lower().replace("_", "")
    for name in vocabulary.OPERATIONS:
        known = name.lower()
        if not name[0].isupper() or text.startswith(name):  # `GroupNorm1` is a name of its own
            continue
        if lower == known or (len(known) >= _SHORTEST_TYPO and _is_one_slip(lower, known)):
            return True
    return False


def _is_one_slip(word: str, known: str) -> bool:
    """Whether one letter more, less or other, or two neighbours swapped, makes `word` out of `known`."""
    if abs(len(word) - len(known)) > 1:
        return False
    start = 0
    while start < min(len(word), len(known)) and word[start] == known[start]:
        start += 1
    rest, other = word[start:], known[start:]
    if rest[1:] == other[1:] or rest[1:] == other or rest == other[1:]:
        return True
    return rest[:2] == other[1::-1] and rest[2:] == other[2:]


# ---- arguments ----------------------------------------------------------------------------------------------------


def signature(operation: Operation) -> str:
    """`Dropout(p=0.5, inplace=false)`: the constructor as rules write it."""
    words = {None: "none", True: "true", False: "false"}
    shown = []
    for parameter in operation.parameters:
        default = parameter.default
        text = words[default] if default is None or isinstance(default, bool) else repr(default).replace("'", '"')
        shown.append(parameter.name if parameter.required or parameter.variadic else f"{parameter.name}={text}")
    return f"{operation.name}({', '.join(shown)})"


def in_own_words(
    operation: Operation, text: str, arguments: tuple[Expression, ...], keywords: tuple[Keyword, ...]
) -> tuple[tuple[Expression, ...], tuple[Keyword, ...]]:
    """Arguments by the names that the vocabulary has for them, where a rule writes those of Keras.

    Args:
        operation: the layer.
        text: its name as written; under the name of a Keras class arguments stand in Keras' order, and `momentum` is
            the part of the statistics that stays, where it is the part that goes elsewhere.
        arguments: those without a name.
        keywords: those with a name.

    """
    spelling = operation.keras
    if spelling is None:
        return arguments, keywords
    in_keras = text not in vocabulary.OPERATIONS and vocabulary.find(text) is None
    if in_keras and len(arguments) <= len(spelling.arguments) and not any(isinstance(a, Star) for a in arguments):
        given = [
            Keyword(Word(name, argument.span), argument, argument.span)
            for name, argument in zip(spelling.arguments, arguments, strict=False)
        ]
        arguments, keywords = (), (*given, *keywords)
    words = []
    for keyword in keywords:
        name = own_name(operation, keyword.name.text)
        value = keyword.value
        if in_keras and name == "momentum":
            value = Binary("-", Literal(1.0, value.span), value, value.span)
        words.append(keyword._replace(name=keyword.name._replace(text=name), value=value))
    return arguments, tuple(words)


def own_name(operation: Operation, name: str) -> str:
    """The vocabulary's name for an attribute that may be written as in Keras: `filters` is `out_channels`."""
    if operation.keras is None or any(parameter.name == name for parameter in operation.parameters):
        return name
    return next((own for own, theirs in operation.keras.names.items() if theirs == name), name)


def check_arguments(
    operation: Operation,
    span: Span,
    arguments: tuple[Expression, ...],
    keywords: tuple[Keyword, ...],
    inferred: bool,
) -> list[Diagnostic]:
    """What is wrong with the arguments of a new layer.

    Args:
        operation: the layer.
        span: where it is written.
        arguments: those without a name.
        keywords: those with a name.
        inferred: whether all that is missing will be found elsewhere (in a replaced layer of the same kind).

    """
    parameters = operation.parameters
    help_text = signature(operation)
    problems = bind(operation.name, parameters, arguments, keywords, help_text)
    if problems or inferred or any(isinstance(argument, Star) for argument in arguments):
        return problems  # how many arguments a `*` gives is known when it is evaluated
    given = {parameter.name for parameter in parameters[: len(arguments)]} | {keyword.name.text for keyword in keywords}
    known = given.union(operation.reads, operation.writes, operation.defaults)
    missing = [parameter.name for parameter in parameters if parameter.required and parameter.name not in known]
    if missing:
        names = " and ".join(f"`{name}`" for name in missing)
        message = f"`{operation.name}` needs {names}"
        problems.append(Diagnostic("RW106", message, span, "cannot be inferred from the site", help=help_text))
    return problems


def bind(
    name: str,
    parameters: tuple[Parameter, ...],
    arguments: tuple[Expression, ...],
    keywords: tuple[Keyword, ...],
    help_text: str,
) -> list[Diagnostic]:
    """What is wrong with arguments against parameters: too many, unknown, given twice."""
    problems = []
    positional = [parameter.name for parameter in parameters if not parameter.keyword_only]
    if any(isinstance(argument, Star) for argument in arguments):
        arguments = arguments[: next(n for n, item in enumerate(arguments) if isinstance(item, Star))]
    if len(arguments) > len(positional) and not any(parameter.variadic for parameter in parameters):
        allowed = (
            f"takes {len(positional)} argument{'s' * (len(positional) != 1)} without a name"
            if positional
            else "takes none"
        )
        message = f"too many arguments for `{name}`"
        problems.append(Diagnostic("RW106", message, arguments[len(positional)].span, allowed, help=help_text))
    given = set(positional[: len(arguments)])
    known = [parameter.name for parameter in parameters]
    for word in keywords:
        keyword, place = word.name.text, word.name.span
        if keyword not in known:
            close = nearest(keyword, known, 1)
            label = f"did you mean `{close[0]}`?" if close else ""
            message = f"`{name}` has no argument `{keyword}`"
            problems.append(Diagnostic("RW106", message, place, label, help=help_text))
        elif keyword in given:
            message = f"argument `{keyword}` of `{name}` is given twice"
            problems.append(Diagnostic("RW106", message, place, help=help_text))
        given.add(keyword)
    return problems


# ---- attributes and inputs ----------------------------------------------------------------------------------------


def attributes(operation: Operation) -> frozenset[str]:
    """The attributes of a call in any spelling: parameters of the constructor and of the functions."""
    texts = [*operation.functions.values(), *operation.methods.values()]
    names = {parameter.name for text in texts for parameter in parse_signature(text)}
    names = names.union((parameter.name for parameter in operation.parameters), ALWAYS)
    return frozenset(names.difference(operation.ports))


def check_attribute(name: str, operations: Iterable[Operation], span: Span) -> Diagnostic | None:
    """An error if not one of `operations` has the attribute."""
    rows = list(operations)
    known = sorted({attribute for row in rows for attribute in attributes(row)})
    if not rows or name in known or any(row.keras is not None and name in row.keras.names.values() for row in rows):
        return None
    close = nearest(name, known)
    listed = ", ".join(f"`{attribute}`" for attribute in known)
    help_text = f"did you mean {either(close)}?" if close else f"there is {listed}"
    names = either([row.name for row in rows])
    return Diagnostic("RW102", f"{names} has no attribute `{name}`", span, help=help_text)


def check_port(port: int | str, operation: Operation, span: Span) -> Diagnostic | None:
    """An error if a call of the operation has no such input."""
    if port == "*":
        return None
    if operation.is_merge:
        if isinstance(port, int):
            return None
        help_text = f"write `{operation.name}@0`, `{operation.name}@1`, or `{operation.name}@*` for each"
        return Diagnostic("RW106", f"the inputs of `{operation.name}` go by number", span, help=help_text)
    if port in operation.ports or (isinstance(port, int) and port < len(operation.ports)):
        return None
    written = [f"`{operation.name}@{name}`" for name in operation.ports]
    return Diagnostic("RW106", f"`{operation.name}` has no input `{port}`", span, help=f"there is {', '.join(written)}")


def rows(kinds: Iterable[object]) -> list[Operation]:
    """The rows behind the bases of a selector; none unless every base is an operation."""
    found = [
        vocabulary.OPERATIONS[base.operation] if isinstance(base, Kind) and base.operation else None for base in kinds
    ]
    known = [row for row in found if row is not None]
    return known if len(known) == len(found) else []


def initialiser(name: str, table: Mapping[str, tuple[str, ...]]) -> str | None:
    """The name of an initialiser in the table, with or without the underscore that `torch.nn.init` gives it."""
    plain = name.removesuffix("_")
    return plain if plain in table else None
