"""Which names the code of a function uses: what it may call where nobody can follow it."""

from __future__ import annotations

import dis
import inspect
from typing import Any

_OPERATORS = {
    "+": "add", "+=": "iadd", "-": "sub", "-=": "isub", "*": "mul", "*=": "imul", "/": "truediv", "/=": "itruediv",
    "@": "matmul", "@=": "imatmul",
}  # fmt: skip
"""binary operators as the bytecode shows them -> the functions of `operator` that do the same"""


def names_in_code(function: Any) -> frozenset[str]:
    """Global and attribute names that the code of a function uses, functions defined inside it included."""
    found: set[str] = set()
    codes = [getattr(function, "__code__", None)]
    while codes:
        code = codes.pop()
        if code is not None:
            found.update(code.co_names)
            found.update(_OPERATORS[step.argrepr] for step in dis.get_instructions(code) if step.argrepr in _OPERATORS)
            codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return frozenset(found)
