"""Operations that join several values. Their inputs have no names: rules count them (`add@1`, `cat@*`).

`x += y` is `operator.iadd`, and `operator` and `_operator` hold the very same functions.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_PAIR = "a, b"
_SCALED = "input, other, *, alpha=1"
_SCALED_METHOD = "other, *, alpha=1"
_ROUNDED = "input, other, *, rounding_mode=None"
_ROUNDED_METHOD = "other, *, rounding_mode=None"
_TENSORS = "tensors, dim=0"

MERGES = (
    Operation(
        "add",
        family="merge",
        shape=Shape.BROADCAST,
        commutative=True,
        ports=(),
        functions={"operator.add": _PAIR, "operator.iadd": _PAIR, "torch.add": _SCALED},
        methods={"add": _SCALED_METHOD, "add_": _SCALED_METHOD},
    ),
    Operation(
        "sub",
        family="merge",
        shape=Shape.BROADCAST,
        ports=(),
        functions={"operator.sub": _PAIR, "operator.isub": _PAIR, "torch.sub": _SCALED, "torch.subtract": _SCALED},
        methods={
            "sub": _SCALED_METHOD,
            "sub_": _SCALED_METHOD,
            "subtract": _SCALED_METHOD,
            "subtract_": _SCALED_METHOD,
        },
    ),
    Operation(
        "mul",
        family="merge",
        shape=Shape.BROADCAST,
        commutative=True,
        ports=(),
        functions={
            "operator.mul": _PAIR,
            "operator.imul": _PAIR,
            "torch.mul": "input, other",
            "torch.multiply": "input, other",
        },
        methods={"mul": "other", "mul_": "other", "multiply": "other", "multiply_": "other"},
    ),
    Operation(
        "div",
        family="merge",
        shape=Shape.BROADCAST,
        ports=(),
        functions={
            "operator.truediv": _PAIR,
            "operator.itruediv": _PAIR,
            "torch.div": _ROUNDED,
            "torch.divide": _ROUNDED,
            "torch.true_divide": "input, other",
        },
        methods={
            "div": _ROUNDED_METHOD,
            "div_": _ROUNDED_METHOD,
            "divide": _ROUNDED_METHOD,
            "divide_": _ROUNDED_METHOD,
            "true_divide": "other",
            "true_divide_": "other",
        },
    ),
    Operation(
        "matmul",
        family="merge",
        ports=(),
        functions={"operator.matmul": _PAIR, "operator.imatmul": _PAIR, "torch.matmul": "input, other"},
        methods={"matmul": "other"},
    ),
    Operation(
        "bmm",
        family="merge",
        rank=3,
        ports=(),
        functions={"torch.bmm": "input, mat2"},
        methods={"bmm": "mat2"},
    ),
    Operation(
        "cat",
        family="merge",
        shape=Shape.CAT,
        ports=(),
        functions={"torch.cat": _TENSORS, "torch.concat": _TENSORS, "torch.concatenate": _TENSORS},
    ),
    Operation("stack", family="merge", ports=(), functions={"torch.stack": _TENSORS}),
)
