"""`Explanation`: what is told about one code, and the forms that its examples have."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Example:
    """A text that causes a diagnostic, or that does not any more."""

    text: str
    language: Literal["rw", "python", "sh", "text"] = "rw"
    """`rw`: a rule file; `python`; `sh`: command lines; `text`: several files, each under a comment with its name"""
    model: str = ""
    """the model that the rules are applied to, as the command line names it; empty: the rules alone show it"""


@dataclass(frozen=True)
class Explanation:
    """The long form of one code."""

    text: str
    """what it means and why the tool insists, in plain sentences"""
    example: Example
    """what causes it"""
    remedy: Example
    """the same, put right"""


def explanation(text: str, example: Example, remedy: Example) -> Explanation:
    """An explanation from a text with line ends and indents, which mean nothing."""
    return Explanation(" ".join(text.split()), example, remedy)


def rules(text: str, model: str = "") -> Example:
    """A rule file."""
    return Example(_plain(text), "rw", model)


def python(text: str) -> Example:
    """Lines of Python."""
    return Example(_plain(text), "python")


def branching(text: str) -> Example:
    """Lines of Python about `Net`, of which an input takes one branch."""
    model = """
    import torch
    from torch import nn
    from rewrite import Rules, apply_rules, get_report


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.low(x) if x.sum() < 0 else self.high(x)
    """
    return Example(f"{_plain(model)}\n\n\n{_plain(text)}", "python")


def shell(text: str) -> Example:
    """Command lines."""
    return Example(_plain(text), "sh")


def files(text: str) -> Example:
    """Several files that belong together."""
    return Example(_plain(text), "text")


def _plain(text: str) -> str:
    return textwrap.dedent(text).strip("\n ")
