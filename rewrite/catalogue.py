"""The rows of the vocabulary in words: what `rewrite ops` and the documentation say of an operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rewrite import lookup, vocabulary
from rewrite.vocabulary.operation import Operation, Shape, parse_signature

OTHER = "other"
"""the group of the operations that belong to no family; rules have no word for it"""

_SHAPES = {
    Shape.SAME: "keeps the shape",
    Shape.CHANNELS: "keeps batch and channels",
    Shape.BROADCAST: "inputs broadcast",
    Shape.CAT: "joins along `dim`",
    Shape.SPLIT: "splits along `dim`",
}
_AXES = {1: "the number of channels (axis 1)", -1: "the last size (axis -1)"}


@dataclass(frozen=True)
class Entry:
    """One operation as users read of it."""

    name: str
    family: str | None
    names: tuple[str, ...]
    """plain words that mean it in a rule, its own name first"""
    spellings: tuple[str, ...]
    """each names one class, function, method or operator only: `nn.ReLU`, `F.relu`, `Tensor.relu_`"""
    constructor: str | None
    """as rules write a new layer; None: it can only be found"""
    filled_in: tuple[tuple[str, str], ...]
    """argument that a rule may leave out, and where its value comes from"""
    inputs: tuple[str, ...]
    """what stands behind `@`, where there is more than one input"""
    attributes: tuple[str, ...]
    """what `[...]`, `where` and `set` can ask or change"""
    traits: tuple[str, ...]


def entry(row: Operation) -> Entry:
    """The row in words."""
    return Entry(
        row.name,
        row.family,
        (row.name, *_aliases(row)),
        _spellings(row),
        None if row.signature is None else lookup.signature(row),
        tuple(_filled_in(row)),
        _inputs(row),
        tuple(sorted(lookup.attributes(row) - _operands(row))),
        tuple(_traits(row)),
    )


def entries() -> tuple[Entry, ...]:
    """All rows in the order of the vocabulary."""
    return tuple(map(entry, vocabulary.OPERATIONS.values()))


def families() -> dict[str, tuple[str, ...]]:
    """Family -> the names of its operations, in the order of the vocabulary; `other` last."""
    found: dict[str, list[str]] = {}
    for row in vocabulary.OPERATIONS.values():
        found.setdefault(row.family or OTHER, []).append(row.name)
    found[OTHER] = found.pop(OTHER, [])
    return {family: tuple(names) for family, names in found.items()}


def find(name: str) -> Operation | None:
    """The operation of a plain name or of one exact spelling, short or in full."""
    row = vocabulary.find(name)
    if row is None and "." in name:
        full = vocabulary.expand(name)
        by_method = vocabulary.by_method(full) if full.startswith("torch.Tensor.") else None
        row = by_method or vocabulary.by_module(full) or vocabulary.by_function(full)
    return row


def known_names() -> list[str]:
    """Every word that `find` or a family answers to, for "did you mean"."""
    found = [name for one in entries() for name in (*one.names, *one.spellings)]
    return [*dict.fromkeys([*found, *families()])]


def _spellings(row: Operation) -> tuple[str, ...]:
    modules = (row.module, *row.also)
    names = [vocabulary.short(name) for name in (*modules, *row.functions) if name is not None]
    return tuple(dict.fromkeys([*names, *(f"Tensor.{name}" for name in row.methods)]))


def _aliases(row: Operation) -> tuple[str, ...]:
    last = [spelling.rpartition(".")[2] for spelling in _spellings(row)]
    words = dict.fromkeys([*last, row.name.lower()])
    return tuple(word for word in words if word != row.name and vocabulary.find(word) is row)


def _filled_in(row: Operation) -> Iterator[tuple[str, str]]:
    for name, axis in row.reads.items():
        yield name, _AXES[axis]
    for name, other in row.defaults.items():
        yield name, f"`{other}`, on `insert`"


def _operands(row: Operation) -> frozenset[str]:
    """What the spellings of a merge call its inputs, which no rule can ask for."""
    if not row.is_merge:
        return frozenset()
    signatures = (*row.functions.values(), *row.methods.values())
    return frozenset(one.name for text in signatures for one in parse_signature(text) if one.required)


def _inputs(row: Operation) -> tuple[str, ...]:
    if row.is_merge:
        return ("@0", "@1", "@*")
    if len(row.ports) < 2:
        return ()
    return (*(f"@{name}" for name in row.ports), "@*")


def _traits(row: Operation) -> Iterator[str]:
    if row.shape in _SHAPES:
        yield _SHAPES[row.shape]
    axes = row.ranks or ((row.rank,) if row.rank is not None else ())
    if axes:
        yield f"takes {' or '.join(map(str, axes))} axes"
    if row.commutative:
        yield "commutative"
    if row.statistics:
        yield "moving statistics"
    if row.outputs != 1:
        yield f"returns {row.outputs} values" if row.outputs else "returns several values"
    if row.wraps:
        yield "wraps another layer"
    if row.signature is None:
        yield "found, not inserted"
