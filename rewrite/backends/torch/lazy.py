"""Attributes that are read when somebody asks for one: most calls of a model are never asked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping


class LazyMapping(Mapping[str, object]):
    """A read-only mapping that is made at its first use.

    Args:
        make: makes it.

    """

    def __init__(self, make: Callable[[], dict[str, object]]) -> None:
        self._make = make

    @functools.cached_property
    def _made(self) -> dict[str, object]:
        return self._make()

    def __getitem__(self, key: str) -> object:
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)
