"""A resolved rule file: `Program`, and the `Clause`s it runs in order. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rewrite.actions import Action
from rewrite.errors import Diagnostic
from rewrite.pattern import Selector, Unit
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.literals import Literal as GraphLiteral


@dataclass(frozen=True)
class Count:
    """How many matches a clause must have: `expect 13 matches`, `expect 3.. matches`, `expect any matches`."""

    low: int = 1
    high: int | None = None
    span: Span | None = None
    """None: nothing is written in the file, and at least one match is wanted"""

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low}" if self.low else "any number"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, eq=False)
class Repeat:
    """`repeat max 5:` around clauses: they are done again until none of them finds anything, at most so often."""

    most: int
    span: Span


@dataclass(frozen=True)
class Clause:
    """One rule: where, and what happens there.

    `header` is None for a statement on its own (`remove Dropout`), whose one action then applies to each match itself.
    """

    header: Literal["after", "before", "between", "at", "match"] | None
    selector: Selector
    actions: tuple[Action, ...]
    text: str
    """canonical text on one line: shown in reports, and what makes the seed of new weights"""
    span: Span
    second: Selector | None = None
    """`between A and B`: B"""
    count: Count = field(default_factory=Count)
    rule: str | None = None
    """name of the `rule` block around it"""
    repeat: Repeat | None = None
    """the `repeat` block around it, one object for all clauses in it"""

    @property
    def preserves(self) -> bool:
        """Whether all its actions leave the numbers that the model computes in eval mode as they are, to rounding."""
        return all(action.preserves for action in self.actions)

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return all(action.preserves_training for action in self.actions)


@dataclass(frozen=True)
class OutputPromise:
    """`expect output (_, 10)`: the shape of the model's output after the rewrite; None in a shape is `_`, any size."""

    shape: tuple[int | None, ...]
    span: Span


@dataclass(frozen=True)
class BuiltModel:
    """`model torchvision.models.vgg16() input (1, 3, 224, 224)`: a model that something known by name makes."""

    builder: str
    """dotted name"""
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    inputs: tuple[tuple[int, ...], ...] | None
    """the sizes of its example inputs; None: none are given"""
    span: Span


@dataclass(frozen=True)
class Case:
    """One `test` block, resolved: the model that a rule is tried on, and what is to come of it."""

    rule: str
    title: str
    span: Span
    model: GraphLiteral | BuiltModel
    want: GraphLiteral | None = None
    unchanged: Span | None = None
    count: Count | None = None
    output: OutputPromise | None = None
    equivalent: Span | None = None


@dataclass(frozen=True)
class Program:
    """One rule file, resolved."""

    name: str
    clauses: tuple[Clause, ...]
    output: OutputPromise | None = None
    equivalent: Span | None = None
    """where `expect equivalent` stands: the rewritten model computes the same numbers in eval mode"""
    leaves: tuple[Unit, ...] = ()
    """`leaf`: modules that are one call each, not looked into"""
    tests: tuple[Case, ...] = ()
    """the `test` blocks"""
    constants: Mapping[str, object] = field(default_factory=dict)
    """values of `param` and `let`"""
    warnings: tuple[Diagnostic, ...] = ()
