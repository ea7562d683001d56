"""`first`, `last`, `nth(n)`, `every(n)`: which of the calls that pass all other tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rewrite.pattern import Pick

T = TypeVar("T")


def choose(pick: Pick, found: Sequence[T]) -> list[T]:
    """The picked ones of `found`, which is in order of execution; `nth` counts from 1."""
    match pick.word:
        case "first":
            return list(found[:1])
        case "last":
            return list(found[-1:])
        case "nth":
            return list(found[pick.number - 1 : pick.number])
        case "every":
            return list(found[pick.number - 1 :: pick.number])
