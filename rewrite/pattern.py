"""What a rule selects, resolved: `Selector` and its parts. Data only; the tests live in `rewrite.selectors`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rewrite.expression import Expression
from rewrite.source import Span


@dataclass(frozen=True)
class Kind:
    """By operation or class.

    Exactly one of the fields says how: `operation` a name of the vocabulary (every spelling), `family` one of its
    families, `dotted` one exact spelling (`nn.ReLU`, `F.relu`, `my.pkg.Block`; also what `modules=` names),
    `class_name` a bare class name that the vocabulary does not know, looked up among the model's own classes.
    """

    text: str
    operation: str | None = None
    family: str | None = None
    dotted: str | None = None
    class_name: str | None = None


@dataclass(frozen=True)
class Path:
    """By module path: a glob with `*` (one segment), `**` (any number), `{a,b}`; dots are literal."""

    glob: str


@dataclass(frozen=True)
class Anything:
    """`any`."""


@dataclass(frozen=True)
class Bound:
    """By capture: the very call that this name of the same rule stands for."""

    name: str


@dataclass(frozen=True)
class AttributeTest:
    """`[name]`, `[name == value]`: an attribute of the call or its layer compared with a value."""

    name: str
    operator: str | None
    value: Expression | None
    span: Span


@dataclass(frozen=True)
class Pick:
    """`first`, `last`, `nth(n)` (1-based), `every(n)`: which of the nodes that pass all other tests."""

    word: Literal["first", "last", "nth", "every"]
    number: int = 1


@dataclass(frozen=True)
class Unit:
    """One alternative of a selector."""

    base: Kind | Path | Anything | Bound
    span: Span
    tests: tuple[AttributeTest, ...] = ()
    pick: Pick | None = None
    port: int | str | None = None
    """`add@1`: 1; `mha@query`: "query"; `cat@*`: "*" """


@dataclass(frozen=True)
class Link:
    """One call of a chain."""

    alternatives: tuple[Unit, ...]
    span: Span
    arrow: Literal["", "->", ">>"] = ""
    """how the call in front of it leads here: `->` a value of that goes into this, `>>` and nowhere else"""
    optional: bool = False
    capture: str | None = None
    joins: str | None = None
    """name of another link's capture: this is the same call"""


@dataclass(frozen=True)
class Selector:
    """Which calls of a model a clause is about: single ones, or chains of linked ones."""

    chains: tuple[tuple[Link, ...], ...]
    span: Span
    scopes: tuple[tuple[Unit, ...], ...] = ()
    """`in A in B`: every call lies inside a module that each of these selects"""
    within: tuple[tuple[Unit, ...], ...] = ()
    """`within A:` around the clause: as `scopes`, and `first`, `last`, ... count anew in each such module"""
    excluded: tuple[Unit, ...] = ()
    """`except A | B`: no call is one of these or lies inside one of them"""
    where: Expression | None = None
    word: Literal["after", "before", "between", "at", "match", None] = None
    """the header that it stands in, which says what `prev` and `next` are in its `where`"""

    @property
    def links(self) -> tuple[Link, ...]:
        """All links in the order of the text."""
        return tuple(link for chain in self.chains for link in chain)

    @property
    def is_single(self) -> bool:
        """Whether it selects one call at a time."""
        return len(self.chains) == 1 and len(self.chains[0]) == 1

    @property
    def alternatives(self) -> tuple[Unit, ...]:
        """The units of a single link; of a chain, those of all links."""
        return tuple(unit for link in self.links for unit in link.alternatives)

    @property
    def capture(self) -> str | None:
        """The capture of a single link."""
        return self.chains[0][0].capture if self.is_single else None


def unit_text(unit: Unit) -> str:
    """A unit's base as it is written."""
    match unit.base:
        case Kind(text):
            return text
        case Path(glob):
            return f'"{glob}"'
        case Anything():
            return "any"
        case Bound(name):
            return name
