"""Where in the text of a method a call stands, and which call of a text is being made."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any

from rewrite.backends.torch.recipes import base_of
from rewrite.backends.torch.written import Call, plain, sources_of

End = tuple[int, ...]
"""where a call ends, line and column; of an operator, which ends where its right side does, where it begins as well"""

Places = Mapping[types.CodeType, tuple[str, Mapping[End, int]]]
"""code that runs -> the method whose code it is, and the number of the call at each place"""


def places_of(cls: Any) -> Places:
    """Where in the code of a class, or of one made for a rewritten module, which call stands."""
    found: dict[types.CodeType, tuple[str, Mapping[End, int]]] = {}
    for method, source in sources_of(base_of(cls)):
        function = plain(inspect.getattr_static(cls, method))
        changed = getattr(function, "_rewrite_places", None)
        if changed is not None:
            found[function.__code__] = method, changed
        elif source is not None and function is source.function:
            found[function.__code__] = method, {end_of(call): number for number, call in enumerate(source.calls)}
    return found


Way = tuple[tuple[types.CodeType, int], ...]
"""code that is running and the instruction in it, the innermost first"""


WAY = "rewrite_way"
"""where a node of a graph keeps how it came to be"""


def way_to(outermost: types.CodeType) -> Way:
    """How it came to the present call, from the innermost code out to the one that is named."""
    found = []
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not outermost:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def place_in(places: Places, way: Way) -> tuple[str, int] | None:
    """The call that was being made in the innermost of the known pieces of code: its method and its number."""
    for code, instruction in way:
        if code in places:
            method, numbers = places[code]
            number = numbers.get(_ends(code)[instruction // 2])
            return (method, number) if number is not None else None
    return None


@functools.lru_cache(maxsize=4096)
def _ends(code: types.CodeType) -> list[End]:
    """Number of the instruction -> where in the text its part stands."""
    operators = dis.opmap["BINARY_OP"]
    return [
        (line or 0, start or 0, last or 0, end or 0) if code.co_code[2 * number] == operators else (last or 0, end or 0)
        for number, (line, last, start, end) in enumerate(code.co_positions())
    ]


def end_of(node: Call) -> End:
    """Where a call or an operator stands, as its instruction tells it."""
    last, end = node.end_lineno or 0, node.end_col_offset or 0
    return (last, end) if isinstance(node, ast.Call) else (node.lineno, node.col_offset, last, end)
