"""A small model in words: what a backend builds a model from where a rule is tried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rewrite.edit import NewLayer


@dataclass(frozen=True)
class Step:
    """One call: of a layer that it brings, or of a function."""

    name: str
    """of the call, and of the layer in the model"""
    layer: NewLayer | None
    operation: str | None
    """name of a function in the vocabulary; None where there is a layer"""
    inputs: tuple[str, ...]
    """names of the inputs of the sketch and of steps further up"""
    arguments: tuple[object, ...] = ()
    """of a function, behind the values that it takes"""
    keywords: Mapping[str, object] = field(default_factory=dict)
    spelling: str = ""
    """of a function: dotted name (`torch.relu`, `torch.Tensor.relu`); empty: the first that the vocabulary has"""


@dataclass(frozen=True)
class Sketch:
    """Calls in order of execution."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    """names of what is returned: one value, or a tuple"""
