"""The closed set of changes that a backend can make: what a plan consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rewrite.errors import EXAMPLE_HELP, Diagnostic
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.graph import Layer, Node


@dataclass(frozen=True)
class NewLayer:
    """A layer to build, all its arguments known."""

    operation: str | None
    """name in the vocabulary, or None for a class given by the caller"""
    external: str | None
    """name in `modules=`, or None"""
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    seed: str
    """what its first weights depend on, beside the caller's seed: clause and site"""
    span: Span
    inferred: Mapping[str, object] = field(default_factory=dict)
    """arguments that the rule left out and the site supplied"""
    wraps: bool = False
    """its constructor takes the layer in whose place it comes as its first argument"""
    share: str = ""
    """new layers with the same text here are one layer, called at several places; empty: a layer of its own"""

    @property
    def name(self) -> str:
        """The name as rules write it."""
        return self.operation or self.external or ""

    @property
    def stem(self) -> str:
        """What the new layer is called in the model, as far as that depends on itself: `seblock` for `my.SEBlock`."""
        return self.name.rpartition(".")[2].lower()

    def __str__(self) -> str:
        words = [repr(value) for value in self.arguments]
        words += [f"{key}={value!r}" for key, value in self.keywords.items()]
        return f"{self.name}({', '.join(words)})"


@dataclass(frozen=True)
class Insert:
    """A chain of new layers on an edge: behind `node` for all its consumers, or in front of one of its inputs."""

    node: Node
    operand: int | None
    """None: behind the node's output; else the number of the input"""
    layers: tuple[NewLayer, ...]

    @property
    def on_layer(self) -> bool:
        """Whether it extends the layer itself instead of the forward that calls it."""
        return extends_layer(self.node, self.operand)


def extends_layer(node: Node, operand: int | None) -> bool:
    """Whether an insertion at a call extends the layer that is called.

    So it does where the surroundings are not certain, behind a layer that returns several values (the first goes
    through the new layers), and next to what extends the layer already.
    """
    several = operand is None and node.layer is not None and not node.composite and node.outputs != 1
    return node.on_layer or several or (node.extended and operand in (None, 0))


def read_without(node: Node, argument: str, span: Span | None = None) -> Diagnostic:
    """Refuses to edit a forward around a call: it was read without an argument that its callers may give."""
    return Diagnostic(
        "RW206",
        f"the forward around `{node.name}` was read without `{argument}`, and nothing tells how it is called",
        span,
        notes=(f"what calls `{node.scope}` could not be captured, so its calls may look different",),
        help=f"{EXAMPLE_HELP}; its calls are looked at then",
    )


@dataclass(frozen=True)
class Replace:
    """A layer at its path (`target` a Layer, for all its calls) or one call of a function by a chain of new layers."""

    target: Layer | Node
    layers: tuple[NewLayer, ...]
    calls: tuple[Node, ...] = ()
    """the matched calls of that layer"""
    inputs: tuple[Node, ...] = ()
    """the calls whose values the first new layer takes; none: it takes what the target took"""
    unused: tuple[Node, ...] = ()
    """calls that go as well where nothing takes their value any more"""


@dataclass(frozen=True)
class Remove:
    """A call is bypassed; its layer goes when no call of it is left."""

    node: Node
    operand: int = 0
    """the input that goes on in the place of the output"""


@dataclass(frozen=True)
class Move:
    """A call with one input is bypassed where it stands and made again on an edge at `anchor`, by the same layer.

    `after`: behind the anchor's output, for all that take it. `before`: in front of the anchor's input `operand`.
    """

    node: Node
    side: Literal["after", "before"]
    anchor: Node
    operand: int = 0
    span: Span | None = None
    """where the rule says so, for what only the backend can refuse"""


@dataclass(frozen=True)
class Update:
    """A layer stays and something about it changes.

    Keys of `changes`: an attribute name -> its new value; `"trainable"` -> bool; `"statistics"` -> `"frozen"` or
    `"moving"`; `"reset"` -> an `Initialiser` or None for the layer's own; `"fold"` -> the `Layer` of a normalisation
    behind it, whose scale and shift its weights take over; `"fold_ahead"` -> the same of one in front of it. Keys that
    are attributes are prefixed `"."`.
    """

    target: Layer | Node
    changes: Mapping[str, object]
    seed: str = ""
    span: Span | None = None
    """where the rule says so, for what only the backend can refuse"""


@dataclass(frozen=True)
class Initialiser:
    """One function of `torch.nn.init`, by name, with its keyword arguments."""

    name: str
    keywords: Mapping[str, object] = field(default_factory=dict)


Edit = Insert | Replace | Remove | Move | Update
