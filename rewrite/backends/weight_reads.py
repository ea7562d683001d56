"""Layers whose weights a forward reads without calling them, found in its code: for forwards that are not captured.

A captured forward shows what it reads. For any other one, and for Keras' `call`, the code of the class is looked
through: where every mention of a child is of the form `self.fc.weight`, nothing calls the child, and what is put around
its call would never run.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Framework:
    """How code of a framework reaches children."""

    root: type
    """the class from which all of them are derived"""
    any_child: frozenset[str]
    """names by which code reaches children that it does not mention"""
    makers: frozenset[str]
    """methods in which a mention of a child is no call of it"""


def read_children(cls: Any, children: Mapping[str, Collection[str]], framework: Framework) -> set[str]:
    """Names of the children whose weights a class's own code reads, and which it mentions in no other way.

    Args:
        cls: the class.
        children: name of a child -> names of its weights.
        framework: whose class it is.

    """
    reads: set[str] = set()
    others: set[str] = set()
    for base in cls.__mro__:
        if base is framework.root:
            break
        if "_rewrite_base" in base.__dict__:
            continue  # generated around the class that follows
        for function in base.__dict__.values():
            accessor = getattr(function, "fget", None) or getattr(function, "func", function)
            plain = getattr(accessor, "__wrapped__", accessor)
            if not isinstance(plain, types.FunctionType) or plain.__name__ in framework.makers:
                continue
            for code in _codes(plain.__code__):
                if not framework.any_child.isdisjoint(code.co_names):
                    return set()
                if not _look_through(code, plain.__code__, children, reads, others):
                    return set()
    return reads - others


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _look_through(
    code: types.CodeType,
    function: types.CodeType,
    children: Mapping[str, Collection[str]],
    reads: set[str],
    others: set[str],
) -> bool:
    """Sorts the children that a piece of code mentions; False: it may reach any child."""
    if not function.co_argcount:
        return True
    own = function.co_varnames[0]
    others.update(constant for constant in code.co_consts if isinstance(constant, str))
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("EXTENDED_ARG", "CACHE")]
    for place, step in enumerate(steps):
        if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
            continue
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if own not in names:
            continue
        following = steps[place + 1 : place + 3]
        if names[-1] != own or names.count(own) > 1 or not following or not _is_attribute(following[0]):
            return False  # handed on as a whole
        weights = children.get(following[0].argval)
        if weights is None:
            continue
        is_read = len(following) > 1 and _is_attribute(following[1]) and following[1].argval in weights
        (reads if is_read else others).add(following[0].argval)
    return True


def _is_attribute(step: dis.Instruction) -> bool:
    return step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
