"""Which names the code of a function uses: what it may call where nobody can follow it."""

from __future__ import annotations

import dis
import inspect
from collections import Counter
from typing import Any

OPERATORS = {
    "+": "add", "+=": "iadd", "-": "sub", "-=": "isub", "*": "mul", "*=": "imul", "/": "truediv", "/=": "itruediv",
    "@": "matmul", "@=": "imatmul",
}  # fmt: skip
"""binary operators as the bytecode shows them -> the functions of `operator` that do the same"""


def mentions_in_code(function: Any) -> Counter[str]:
    """How often each global or attribute name stands in the code of a function, functions inside it included."""
    found: Counter[str] = Counter()
    codes = [getattr(function, "__code__", None)]
    while codes:
        code = codes.pop()
        if code is not None:
            for step in dis.get_instructions(code):
                if step.opname == "LOAD_GLOBAL" and step.argval == "sum" and "sum" not in function.__globals__:
                    found["add"] += 1  # what Python's own `sum` does
                elif step.opcode in dis.hasname:
                    found[step.argval] += 1
                elif step.argrepr in OPERATORS:
                    found[OPERATORS[step.argrepr]] += 1
            codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return found


def names_in_code(function: Any) -> frozenset[str]:
    """The names alone."""
    return frozenset(mentions_in_code(function))
