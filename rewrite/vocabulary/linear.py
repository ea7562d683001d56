"""Linear layers and the identity."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

LINEAR = (
    Operation(
        "Linear",
        family="linear",
        signature="in_features, out_features, bias=True",
        reads={"in_features": -1},
        writes={"out_features": -1},
        defaults={"out_features": "in_features"},
        module="torch.nn.Linear",
        functions={"torch.nn.functional.linear": "input, weight, bias=None"},
    ),
    Operation(
        "Bilinear",
        family="linear",
        signature="in1_features, in2_features, out_features, bias=True",
        reads={"in1_features": -1},  # `in2_features` is a size of the second input, which `reads` does not speak of
        writes={"out_features": -1},
        defaults={"out_features": "in1_features"},
        ports=("input1", "input2"),
        module="torch.nn.Bilinear",
        functions={
            "torch.nn.functional.bilinear": "input1, input2, weight, bias=None",
            "torch.bilinear": "input1, input2, weight, bias=None",
        },
    ),
    Operation("Identity", signature="", shape=Shape.SAME, module="torch.nn.Identity"),
)
