"""Layers whose weights a forward reads without calling them, as far as the source of its class tells.

Where a forward is captured, the capture knows. Where it is not, the text of its methods does: a child that they only
ever mention as `self.child.weight` is never called, so nothing can be put around its call.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

from torch import nn

_WEIGHTS = frozenset(["weight", "bias"])
_PREPARING = ("init", "reset", "load", "save", "extra_repr", "_apply", "get_", "set_")
"""parts of names of methods that are no part of a forward"""


@functools.cache
def read_without_call(cls: Any) -> frozenset[str]:
    """Names of children whose weights the methods of a class read, and which they mention in no other way."""
    weights: set[str] = set()
    others: set[str] = set()
    for base in cls.__mro__:
        if base is nn.Module:
            break
        for name, method in vars(base).items():
            if inspect.isfunction(method) and not any(part in name for part in _PREPARING):
                _note(method, weights, others)
    return frozenset(weights - others)


def _note(method: Any, weights: set[str], others: set[str]) -> None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))
    except (OSError, TypeError, SyntaxError):
        return
    held: set[int] = set()
    """mentions of children that are a part of a longer one"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (child := _child(node.value)) is not None:
            held.add(id(node.value))
            if node.attr in _WEIGHTS:
                weights.add(child)
            elif node.attr in ("__call__", "forward"):
                others.add(child)
    for node in ast.walk(tree):
        child = _child(node)
        if child is not None and id(node) not in held:
            others.add(child)


def _child(node: ast.AST) -> str | None:
    """`self.child` -> `child`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None
