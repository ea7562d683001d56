"""The vocabulary: every operation that rules can name, looked up by name, family or spelling.

A row is found by its name in rules (`find`) or by one of its PyTorch spellings, given as a dotted name as the public
interface has it: modules as `torch.nn.ReLU`, functions as `torch.nn.functional.relu`, `torch.relu` or `operator.add`,
methods of a tensor by their bare name, `relu_`. What a function object calls itself does not help (`F.gelu` is a
builtin of `torch._C._nn`), so a backend resolves the dotted names of the rows once, each by plain `getattr`, and then
goes by the identity of the objects. Several names may lead to one object (`F.conv2d` is `torch.conv2d`), always within
one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from rewrite.vocabulary.activations import ACTIVATIONS
from rewrite.vocabulary.attention import ATTENTION
from rewrite.vocabulary.convolutions import CONVOLUTIONS
from rewrite.vocabulary.dropout import DROPOUT
from rewrite.vocabulary.embedding import EMBEDDING
from rewrite.vocabulary.keras_column import KERAS
from rewrite.vocabulary.linear import LINEAR
from rewrite.vocabulary.merges import MERGES
from rewrite.vocabulary.normalization import NORMALIZATION
from rewrite.vocabulary.operation import KerasSpelling, Operation, Parameter, Shape, parse_signature
from rewrite.vocabulary.own_layers import OWN_LAYERS
from rewrite.vocabulary.padding import PADDING
from rewrite.vocabulary.pooling import POOLING
from rewrite.vocabulary.recurrent import RECURRENT
from rewrite.vocabulary.softmax import SOFTMAX
from rewrite.vocabulary.tensors import TENSORS
from rewrite.vocabulary.upsampling import UPSAMPLING

__all__ = [
    "FAMILIES",
    "OPERATIONS",
    "KerasSpelling",
    "Operation",
    "Parameter",
    "Shape",
    "by_function",
    "by_keras_activation",
    "by_keras_class",
    "by_keras_function",
    "by_method",
    "by_module",
    "expand",
    "find",
    "keras_alias",
    "parse_signature",
    "short",
]

_ROWS = tuple(
    replace(row, keras=KERAS.get(row.name))
    for row in (
        *CONVOLUTIONS,
        *LINEAR,
        *NORMALIZATION,
        *ACTIVATIONS,
        *SOFTMAX,
        *POOLING,
        *DROPOUT,
        *EMBEDDING,
        *PADDING,
        *UPSAMPLING,
        *RECURRENT,
        *ATTENTION,
        *MERGES,
        *TENSORS,
        *OWN_LAYERS,
    )
)

OPERATIONS: Mapping[str, Operation] = MappingProxyType({row.name: row for row in _ROWS})
"""every row by its name, in the order of the vocabulary"""

FAMILIES: frozenset[str] = frozenset(row.family for row in _ROWS if row.family is not None)
"""the lower-case words that stand for several operations; where a rule selects, they go before an alias (`linear`)"""

_MODULES = {dotted: row for row in _ROWS for dotted in (row.module, *row.also) if dotted is not None}
_FUNCTIONS = {dotted: row for row in _ROWS for dotted in row.functions}
_METHODS = {name: row for row in _ROWS for name in row.methods}

_KERAS_CLASSES = {dotted: row for row in _ROWS if row.keras is not None for dotted in row.keras.classes}
_KERAS_FUNCTIONS = {dotted: row for row in _ROWS if row.keras is not None for dotted in row.keras.functions}
_KERAS_ACTIVATIONS = {name: row for row in _ROWS if row.keras is not None for name in row.keras.activations}
_KERAS_ALIASES = {
    row.keras.classes[0].rpartition(".")[2]: row for row in _ROWS if row.keras is not None and row.keras.classes
}

_SHORT = {
    "torch.nn.functional.": "F.",  # the longest prefix first
    "torch.nn.": "nn.",
    "torch.Tensor.": "Tensor.",
    "rewrite.backends.torch.own_layers.": "rewrite.",
}
_LONG = {short: long for long, short in _SHORT.items()}


@cache
def _aliases() -> dict[str, Operation]:
    """Function and method names that lead to one row, and to a row that is itself known by a plain name."""
    owners: dict[str, set[Operation]] = {}
    for spellings in (_FUNCTIONS, _METHODS):
        for spelling, row in spellings.items():
            owners.setdefault(spelling.rpartition(".")[2], set()).add(row)
    found = {alias: rows.pop() for alias, rows in owners.items() if len(rows) == 1}
    # `F.batch_norm` and `F.instance_norm` may be the layers of any rank: as a plain word neither is clear.
    found = {alias: row for alias, row in found.items() if "." not in row.name}
    found["identity"] = OPERATIONS["Identity"]  # the one layer without a function that people write in lower case
    return found


def find(name: str) -> Operation | None:
    """The operation that a rule means by an unqualified name.

    Args:
        name: the name of a row (`Conv2d`, `add`), or of one of its functions or methods (`relu`, `conv2d`, `concat`)

    Returns:
        The row, or None where the name is unknown or fits several rows (`batch_norm`).

    """
    return OPERATIONS.get(name) or _aliases().get(name)


def keras_alias(name: str) -> Operation | None:
    """The operation that Keras calls by this class name, where its name is another one here (`Dense`)."""
    return _KERAS_ALIASES.get(name) if name not in OPERATIONS else None


def by_keras_class(dotted: str) -> Operation | None:
    """The operation of a layer class of Keras, by its public name (`keras.layers.Dense`)."""
    return _KERAS_CLASSES.get(dotted)


def by_keras_function(dotted: str) -> Operation | None:
    """The operation of a function of Keras (`keras.ops.relu`)."""
    return _KERAS_FUNCTIONS.get(dotted)


def by_keras_activation(name: str) -> Operation | None:
    """The operation that Keras means by the name of an activation (`relu`, `linear`)."""
    return _KERAS_ACTIVATIONS.get(name)


def by_module(dotted: str) -> Operation | None:
    """The operation of a module class, by its public or its full name (`torch.nn.modules.conv.Conv2d`).

    A lazy layer is its operation before its sizes are known: `LazyBatchNorm2d` is no subclass of `BatchNorm2d`, but
    becomes one at its first call.
    """
    return _MODULES.get(_public(dotted).replace("torch.nn.Lazy", "torch.nn.", 1))


def by_function(dotted: str) -> Operation | None:
    """The operation of a function, by its dotted name (`torch.nn.functional.relu`, `operator.add`)."""
    return _FUNCTIONS.get(_public(dotted))


def by_method(name: str) -> Operation | None:
    """The operation of a `torch.Tensor` method, by its bare or its dotted name (`relu_`, `torch.Tensor.relu_`)."""
    return _METHODS.get(name.removeprefix("torch.Tensor."))


def short(dotted: str) -> str:
    """A dotted name as rules spell it: `nn.ReLU`, `F.relu`, `Tensor.relu_`; any other name as it is."""
    dotted = _public(dotted)
    for long, prefix in _SHORT.items():
        if dotted.startswith(long):
            return prefix + dotted.removeprefix(long)
    return dotted


def expand(text: str) -> str:
    """The full dotted name of a spelling in a rule, the inverse of `short`: `F.relu` -> `torch.nn.functional.relu`."""
    for prefix, long in _LONG.items():
        if text.startswith(prefix):
            return long + text.removeprefix(prefix)
    return text


def _public(dotted: str) -> str:
    """The public name of what PyTorch and Python define elsewhere."""
    if dotted.startswith("torch.nn.modules."):
        return "torch.nn." + dotted.rpartition(".")[2]
    if dotted.startswith("_operator."):
        return dotted[1:]
    return dotted
