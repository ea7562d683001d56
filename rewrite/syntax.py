"""The syntax tree: what a rule file says, before any name in it is looked up.

One frozen dataclass per rule of `grammar/rewrite.lark`, with the span that it was written at. Expressions are the nodes
of `rewrite.expression`, which the parser builds directly; the selectors inside them (`is`, `has_next`) hold `Unit`s of
this module until the resolver has replaced them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rewrite.expression import Expression
from rewrite.source import Source, Span

# ---- selectors ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A name that the rule gives to something: a capture, a rule, a parameter."""

    text: str
    span: Span


@dataclass(frozen=True)
class Dotted:
    """`Conv2d`, `nn.ReLU`."""

    parts: tuple[str, ...]
    span: Span

    @property
    def text(self) -> str:
        """The parts with dots between them."""
        return ".".join(self.parts)


@dataclass(frozen=True)
class Path:
    """`"features.**"`."""

    glob: str
    span: Span


@dataclass(frozen=True)
class Anything:
    """`any`."""

    span: Span


@dataclass(frozen=True)
class Test:
    """`groups == 1` inside `[...]`; `operator` is None for `[bias]`."""

    name: str
    operator: str | None
    value: Expression | None
    span: Span


@dataclass(frozen=True)
class Pick:
    """`first`, `last`, `nth(2)`, `every(3)`."""

    word: Literal["first", "last", "nth", "every"]
    number: int
    span: Span


@dataclass(frozen=True)
class Port:
    """`@1`, `@*`, `@query`."""

    value: int | str
    span: Span


@dataclass(frozen=True)
class Unit:
    """One alternative of a selector."""

    base: Dotted | Path | Anything
    span: Span
    tests: tuple[Test, ...] = ()
    pick: Pick | None = None
    port: Port | None = None


@dataclass(frozen=True)
class Selector:
    """`A | B as c in S except E where w`."""

    alternatives: tuple[Unit, ...]
    span: Span
    capture: Word | None = None
    scopes: tuple[tuple[Unit, ...], ...] = ()
    excluded: tuple[Unit, ...] = ()
    where: Expression | None = None


# ---- statements ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keyword:
    """`kernel_size=1` among arguments."""

    name: Word
    value: Expression
    span: Span


@dataclass(frozen=True)
class Arguments:
    """`(3, kernel_size=1)`."""

    values: tuple[Expression, ...]
    keywords: tuple[Keyword, ...]
    span: Span


@dataclass(frozen=True)
class Stage:
    """One new layer: `Conv2d(8, 3) as c`."""

    name: Dotted
    arguments: tuple[Expression, ...]
    keywords: tuple[Keyword, ...]
    span: Span
    capture: Word | None = None


@dataclass(frozen=True)
class Reference:
    """`prev.activation`."""

    root: str
    attributes: tuple[str, ...]
    span: Span


@dataclass(frozen=True)
class Assign:
    """`prev.activation = identity`."""

    target: Reference
    value: Expression
    span: Span


@dataclass(frozen=True)
class Insert:
    """`insert X -> Y`."""

    stages: tuple[Stage, ...]
    span: Span


@dataclass(frozen=True)
class Replace:
    """`replace S with X -> Y`."""

    selector: Selector
    stages: tuple[Stage, ...]
    span: Span


@dataclass(frozen=True)
class Remove:
    """`remove S`."""

    selector: Selector
    span: Span


@dataclass(frozen=True)
class Set:
    """`set prev.bias = none, prev.groups = 1`."""

    assigns: tuple[Assign, ...]
    span: Span


@dataclass(frozen=True)
class Freeze:
    """`freeze params S`, `unfreeze S`."""

    frozen: bool
    what: Literal["all", "params", "stats"]
    selector: Selector
    span: Span


@dataclass(frozen=True)
class Initialiser:
    """`kaiming_normal(nonlinearity="relu")`."""

    name: str
    arguments: tuple[Expression, ...]
    keywords: tuple[Keyword, ...]
    span: Span


@dataclass(frozen=True)
class Reset:
    """`reset S with init(...)`."""

    selector: Selector
    initialiser: Initialiser | None
    span: Span


@dataclass(frozen=True)
class ExpectCount:
    """`expect 3..5 matches`; `high` None is without an end."""

    low: int
    high: int | None
    span: Span


@dataclass(frozen=True)
class ExpectOutput:
    """`expect output (_, 10)`."""

    shape: Expression
    span: Span


@dataclass(frozen=True)
class Param:
    """`param rate = 0.1`, a constant that the caller may set; `let` (`settable` false): one that it may not."""

    name: Word
    value: Expression
    settable: bool
    span: Span


@dataclass(frozen=True)
class Version:
    """`rw 1`."""

    number: int
    span: Span


Statement = Insert | Replace | Remove | Set | Freeze | Reset | ExpectCount | ExpectOutput | Param | Version


# ---- clauses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Position:
    """`after S`, `before S`, `between S and T`, `at S`: a header that selects."""

    word: Literal["after", "before", "between", "at"]
    selector: Selector
    span: Span
    second: Selector | None = None


@dataclass(frozen=True)
class Within:
    """`within S`."""

    alternatives: tuple[Unit, ...]
    span: Span


@dataclass(frozen=True)
class Rule:
    """`rule name "what it does"`."""

    name: Word
    title: str
    span: Span


@dataclass(frozen=True)
class Clause:
    """A header and its body."""

    header: Position | Within | Rule
    body: tuple[Line, ...]
    span: Span


Line = Clause | Statement


@dataclass(frozen=True)
class File:
    """A whole file; a line with several statements counts as several."""

    source: Source
    lines: tuple[Line, ...]
