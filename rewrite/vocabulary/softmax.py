"""Softmax and its kin.

They belong to no family: a softmax makes weights out of scores, most often inside attention, and
`after activation: insert Dropout` does not mean those.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_CALL = "input, dim=None, _stacklevel=3, dtype=None"

SOFTMAX = (
    Operation(
        "Softmax",
        signature="dim=None",
        shape=Shape.SAME,
        module="torch.nn.Softmax",
        functions={"torch.nn.functional.softmax": _CALL, "torch.softmax": "input, dim, dtype=None"},
        methods={"softmax": "dim, dtype=None"},
    ),
    Operation("Softmax2d", signature="", shape=Shape.SAME, rank=4, module="torch.nn.Softmax2d"),
    Operation(
        "LogSoftmax",
        signature="dim=None",
        shape=Shape.SAME,
        module="torch.nn.LogSoftmax",
        functions={"torch.nn.functional.log_softmax": _CALL, "torch.log_softmax": "input, dim, dtype=None"},
        methods={"log_softmax": "dim, dtype=None"},
    ),
    Operation(
        "Softmin",
        signature="dim=None",
        shape=Shape.SAME,
        module="torch.nn.Softmin",
        functions={"torch.nn.functional.softmin": _CALL},
    ),
)
