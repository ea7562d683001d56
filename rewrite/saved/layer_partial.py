"""`LayerPartial`: what a file's `functools.partial` is read as.

torchvision's vision transformers keep `partial(nn.LayerNorm, eps=1e-6)` as an attribute, so refusing every partial
refuses them. `functools.partial` itself must not be allowed, since it binds any function. This class stands in its
place while a file is read: it binds a listed layer class to plain values, and nothing else. The file could have
called that class anyway.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch


class PartialError(TypeError):
    """A file's partial binds what it must not."""


class LayerPartial(functools.partial[Any]):
    """A `functools.partial` of a layer class and plain keyword arguments; it is pickled as `functools.partial`."""

    constructors: ClassVar[frozenset[type]] = frozenset()
    """the classes that it may bind"""

    @classmethod
    def within(cls, constructors: frozenset[type]) -> type[LayerPartial]:
        """The class for one reading, which may bind `constructors`."""
        return type(cls.__name__, (cls,), {"constructors": constructors, "__module__": cls.__module__})

    def __new__(cls, function: object, /, *arguments: object, **keywords: object) -> LayerPartial:
        cls._check(function, arguments, keywords)
        made: LayerPartial = super().__new__(cls, function, *arguments, **keywords)  # type: ignore[arg-type]
        return made

    def __setstate__(self, state: Any) -> None:
        function, arguments, keywords, extra = state
        self._check(function, arguments, keywords)
        if extra:
            raise PartialError("a partial with attributes of its own")
        super().__setstate__((function, arguments, keywords, None))  # type: ignore[misc]

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial, (self.func,), (self.func, self.args, self.keywords, None)

    @classmethod
    def _check(cls, function: object, arguments: object, keywords: object) -> None:
        if not (isinstance(function, type) and function in cls.constructors):
            raise PartialError(f"a partial of {function!r}, which is no class of torch.nn or torchvision")
        if type(arguments) is not tuple or type(keywords) is not dict:
            raise PartialError("a partial whose arguments are no tuple and dict")
        for value in (*arguments, *keywords.values()):
            if not _is_plain(value):
                raise PartialError(f"a partial with an argument of type {type(value).__name__}")


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or type(value) in {bool, int, float, str, torch.dtype}
