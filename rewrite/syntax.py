"""The syntax tree: what a rule file says, before any name in it is looked up.

One named tuple per rule of `grammar/rewrite.lark`, with the span that it was written at. (As dataclasses they would
take 15 ms to define, as long as it takes to read a rule file.) Expressions are the nodes of `rewrite.expression`, which
the parser builds directly; the selectors inside them (`is`, `has_next`) hold `Unit`s of this module until the resolver
has replaced them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from rewrite.expression import Expression
from rewrite.source import Source, Span

# ---- selectors ----------------------------------------------------------------------------------------------------


class Word(NamedTuple):
    """A name that the rule gives to something: a capture, a rule, a parameter."""

    text: str
    span: Span


class Dotted(NamedTuple):
    """`Conv2d`, `nn.ReLU`."""

    parts: tuple[str, ...]
    span: Span

    @property
    def text(self) -> str:
        """The parts with dots between them."""
        return ".".join(self.parts)


class Path(NamedTuple):
    """`"features.**"`."""

    glob: str
    span: Span


class Anything(NamedTuple):
    """`any`."""

    span: Span


class Test(NamedTuple):
    """`groups == 1` inside `[...]`; `operator` is None for `[bias]`."""

    name: str
    operator: str | None
    value: Expression | None
    span: Span


class Pick(NamedTuple):
    """`first`, `last`, `nth(2)`, `every(3)`."""

    word: Literal["first", "last", "nth", "every"]
    number: int
    span: Span


class Port(NamedTuple):
    """`@1`, `@*`, `@query`."""

    value: int | str
    span: Span


class Unit(NamedTuple):
    """One alternative of a selector."""

    base: Dotted | Path | Anything
    span: Span
    tests: tuple[Test, ...] = ()
    pick: Pick | None = None
    port: Port | None = None


class Link(NamedTuple):
    """One call of a chain: `A | B as c`, `A?`; `arrow` is what leads to it: nothing, `->` or `>>`."""

    alternatives: tuple[Unit, ...]
    span: Span
    arrow: Literal["", "->", ">>"] = ""
    optional: bool = False
    capture: Word | None = None


class Selector(NamedTuple):
    """`A | B as c in S except E where w`, `A -> B >> C`; several chains stand behind `match` only."""

    chains: tuple[tuple[Link, ...], ...]
    span: Span
    scopes: tuple[tuple[Unit, ...], ...] = ()
    excluded: tuple[Unit, ...] = ()
    where: Expression | None = None


# ---- statements ---------------------------------------------------------------------------------------------------


class Keyword(NamedTuple):
    """`kernel_size=1` among arguments."""

    name: Word
    value: Expression
    span: Span


class Arguments(NamedTuple):
    """`(3, kernel_size=1)`."""

    values: tuple[Expression, ...]
    keywords: tuple[Keyword, ...]
    span: Span


class Stage(NamedTuple):
    """One new layer: `Conv2d(8, 3) as c`."""

    name: Dotted
    arguments: tuple[Expression, ...]
    keywords: tuple[Keyword, ...]
    span: Span
    capture: Word | None = None


class Reference(NamedTuple):
    """`prev.activation`."""

    root: str
    attributes: tuple[str, ...]
    span: Span


class Assign(NamedTuple):
    """`prev.activation = identity`."""

    target: Reference
    value: Expression
    span: Span


Per = Literal["call", "layer"]


class Insert(NamedTuple):
    """`insert X -> Y per layer`."""

    stages: tuple[Stage, ...]
    span: Span
    per: Per | None = None


class Replace(NamedTuple):
    """`replace S with X -> Y per call`."""

    selector: Selector
    stages: tuple[Stage, ...]
    span: Span
    per: Per | None = None


class Wrap(NamedTuple):
    """`wrap S with F(...)`."""

    selector: Selector
    stage: Stage
    span: Span


class Fold(NamedTuple):
    """`fold B into A`: selectors, or captures of the `match` around it."""

    selector: Selector
    into: Selector
    span: Span


class Target(NamedTuple):
    """`b`, `prev.activation`: what is moved, or where to."""

    root: str
    attributes: tuple[str, ...]
    span: Span


class Move(NamedTuple):
    """`move b after r`."""

    moved: Target
    side: Literal["after", "before"]
    anchor: Target
    span: Span


class Tap(NamedTuple):
    """`tap n = S`."""

    name: Word
    selector: Selector
    span: Span


class Remove(NamedTuple):
    """`remove S`."""

    selector: Selector
    span: Span


class Set(NamedTuple):
    """`set prev.bias = none, prev.groups = 1`."""

    assigns: tuple[Assign, ...]
    span: Span


class Freeze(NamedTuple):
    """`freeze params S`, `unfreeze S`."""

    frozen: bool
    what: Literal["all", "params", "stats"]
    selector: Selector
    span: Span


class Initialiser(NamedTuple):
    """`kaiming_normal(nonlinearity="relu")`."""

    name: str
    arguments: tuple[Expression, ...]
    keywords: tuple[Keyword, ...]
    span: Span


class Reset(NamedTuple):
    """`reset S with init(...)`."""

    selector: Selector
    initialiser: Initialiser | None
    span: Span


class ExpectCount(NamedTuple):
    """`expect 3..5 matches`; `high` None is without an end."""

    low: int
    high: int | None
    span: Span


class ExpectOutput(NamedTuple):
    """`expect output (_, 10)`."""

    shape: Expression
    span: Span


class ExpectEquivalent(NamedTuple):
    """`expect equivalent`."""

    span: Span


class Leaf(NamedTuple):
    """`leaf Block | "path"`: modules that are one call each."""

    alternatives: tuple[Unit, ...]
    span: Span


class Param(NamedTuple):
    """`param rate = 0.1`, a constant that the caller may set; `let` (`settable` false): one that it may not."""

    name: Word
    value: Expression
    settable: bool
    span: Span


class Include(NamedTuple):
    """`include "other.rw"`."""

    path: str
    span: Span


class Use(NamedTuple):
    """`use "layers.py" as my`, `use pkg.mod as m`, `use pkg.mod (A, B)`."""

    module: Dotted | Path
    span: Span
    alias: Word | None = None
    names: tuple[Word, ...] = ()


class Version(NamedTuple):
    """`rw 1`."""

    number: int
    span: Span


# ---- inside of a test


class Given(NamedTuple):
    """`given x -> Conv2d(3, 8, 3) -> y`: the model that the rule is tried on."""

    flows: tuple[tuple[Stage, ...], ...]
    span: Span


class Want(NamedTuple):
    """`want x -> ... -> y`: the model that it is to become."""

    flows: tuple[tuple[Stage, ...], ...]
    span: Span


class Unchanged(NamedTuple):
    """`unchanged`: the rule is to leave the model alone."""

    span: Span


class Model(NamedTuple):
    """`model torchvision.models.vgg16() input (1, 3, 224, 224)`."""

    builder: Expression
    input: Expression | None
    span: Span


Statement = (
    Insert
    | Replace
    | Remove
    | Wrap
    | Set
    | Fold
    | Move
    | Tap
    | Freeze
    | Reset
    | ExpectCount
    | ExpectOutput
    | ExpectEquivalent
    | Leaf
    | Param
    | Include
    | Use
    | Version
    | Given
    | Want
    | Unchanged
    | Model
)


# ---- clauses ------------------------------------------------------------------------------------------------------


class Position(NamedTuple):
    """`after S`, `before S`, `between S and T`, `at S`, `match S`: a header that selects."""

    word: Literal["after", "before", "between", "at", "match"]
    selector: Selector
    span: Span
    second: Selector | None = None


class Within(NamedTuple):
    """`within S`."""

    alternatives: tuple[Unit, ...]
    span: Span


class Rule(NamedTuple):
    """`rule name "what it does"`."""

    name: Word
    title: str
    span: Span


class Repeat(NamedTuple):
    """`repeat max 5`; without a number `most` is None."""

    most: int | None
    span: Span


class RuleTest(NamedTuple):
    """`test rule "what it shows"`."""

    name: Word
    title: str
    span: Span


class Clause(NamedTuple):
    """A header and its body."""

    header: Position | Within | Rule | Repeat | RuleTest
    body: tuple[Line, ...]
    span: Span


Line = Clause | Statement


class File(NamedTuple):
    """A whole file; a line with several statements counts as several."""

    source: Source
    lines: tuple[Line, ...]
