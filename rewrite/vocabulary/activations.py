"""Activations: one number in, one number out, in every spelling, in place or not.

Softmax and its kin stand in `softmax.py`, outside the family.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_INPLACE = "inplace=False"
_INPLACE_CALL = "input, inplace=False"
_RRELU_CALL = "input, lower=0.125, upper=0.3333333333333333, training=False, generator=None"

ACTIVATIONS = (
    Operation(
        "ReLU",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.ReLU",
        functions={
            "torch.nn.functional.relu": _INPLACE_CALL,
            "torch.relu": "input",
            "torch.nn.functional.relu_": "input",
            "torch.relu_": "input",
        },
        methods={"relu": "", "relu_": ""},
    ),
    Operation(
        "ReLU6",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.ReLU6",
        functions={"torch.nn.functional.relu6": _INPLACE_CALL},
    ),
    Operation(
        "LeakyReLU",
        family="activation",
        signature="negative_slope=0.01, inplace=False",
        shape=Shape.SAME,
        module="torch.nn.LeakyReLU",
        functions={
            "torch.nn.functional.leaky_relu": "input, negative_slope=0.01, inplace=False",
            "torch.nn.functional.leaky_relu_": "input, negative_slope=0.01",
        },
    ),
    Operation(
        "PReLU",
        family="activation",
        signature="num_parameters=1, init=0.25",  # 1 or the number of channels: a choice, so no `reads`
        shape=Shape.SAME,
        module="torch.nn.PReLU",
        functions={"torch.nn.functional.prelu": "input, weight", "torch.prelu": "input, weight"},
        methods={"prelu": "weight"},
    ),
    Operation(
        "RReLU",
        family="activation",
        signature="lower=0.125, upper=0.3333333333333333, inplace=False",
        shape=Shape.SAME,
        module="torch.nn.RReLU",
        functions={
            "torch.nn.functional.rrelu": "input, lower=0.125, upper=0.3333333333333333, training=False, inplace=False",
            "torch.rrelu": _RRELU_CALL,
            "torch.nn.functional.rrelu_": _RRELU_CALL,
            "torch.rrelu_": _RRELU_CALL,
        },
    ),
    Operation(
        "ELU",
        family="activation",
        signature="alpha=1.0, inplace=False",
        shape=Shape.SAME,
        module="torch.nn.ELU",
        functions={
            "torch.nn.functional.elu": "input, alpha=1.0, inplace=False",
            "torch.nn.functional.elu_": "input, alpha=1.0, scale=1.0, input_scale=1.0",
        },
    ),
    Operation(
        "SELU",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.SELU",
        functions={
            "torch.nn.functional.selu": _INPLACE_CALL,
            "torch.selu": "input",
            "torch.nn.functional.selu_": "input",
            "torch.selu_": "input",
        },
    ),
    Operation(
        "CELU",
        family="activation",
        signature="alpha=1.0, inplace=False",
        shape=Shape.SAME,
        module="torch.nn.CELU",
        functions={
            "torch.nn.functional.celu": "input, alpha=1.0, inplace=False",
            "torch.celu": "input, alpha=1.0",
            "torch.nn.functional.celu_": "input, alpha=1.0",
            "torch.celu_": "input, alpha=1.0",
        },
    ),
    Operation(
        "GELU",
        family="activation",
        signature="approximate='none'",
        shape=Shape.SAME,
        module="torch.nn.GELU",
        functions={"torch.nn.functional.gelu": "input, *, approximate='none'"},
    ),
    Operation(
        "SiLU",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.SiLU",
        functions={"torch.nn.functional.silu": _INPLACE_CALL},
    ),
    Operation(
        "Mish",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.Mish",
        functions={"torch.nn.functional.mish": _INPLACE_CALL},
    ),
    Operation(
        "Hardswish",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.Hardswish",
        functions={"torch.nn.functional.hardswish": _INPLACE_CALL},
    ),
    Operation(
        "Hardsigmoid",
        family="activation",
        signature=_INPLACE,
        shape=Shape.SAME,
        module="torch.nn.Hardsigmoid",
        functions={"torch.nn.functional.hardsigmoid": _INPLACE_CALL},
    ),
    Operation(
        "Hardtanh",
        family="activation",
        signature="min_val=-1.0, max_val=1.0, inplace=False, min_value=None, max_value=None",
        shape=Shape.SAME,
        module="torch.nn.Hardtanh",
        functions={
            "torch.nn.functional.hardtanh": "input, min_val=-1.0, max_val=1.0, inplace=False",
            "torch.nn.functional.hardtanh_": "input, min_val=-1.0, max_val=1.0",
        },
    ),
    Operation(
        "Hardshrink",
        family="activation",
        signature="lambd=0.5",
        shape=Shape.SAME,
        module="torch.nn.Hardshrink",
        functions={"torch.nn.functional.hardshrink": "input, lambd=0.5", "torch.hardshrink": "input, lambd=0.5"},
        methods={"hardshrink": "lambd=0.5"},
    ),
    Operation(
        "Sigmoid",
        family="activation",
        signature="",
        shape=Shape.SAME,
        module="torch.nn.Sigmoid",
        functions={"torch.nn.functional.sigmoid": "input", "torch.sigmoid": "input", "torch.sigmoid_": "input"},
        methods={"sigmoid": "", "sigmoid_": ""},
    ),
    Operation(
        "LogSigmoid",
        family="activation",
        signature="",
        shape=Shape.SAME,
        module="torch.nn.LogSigmoid",
        functions={"torch.nn.functional.logsigmoid": "input"},
    ),
    Operation(
        "Tanh",
        family="activation",
        signature="",
        shape=Shape.SAME,
        module="torch.nn.Tanh",
        functions={"torch.nn.functional.tanh": "input", "torch.tanh": "input", "torch.tanh_": "input"},
        methods={"tanh": "", "tanh_": ""},
    ),
    Operation(
        "Tanhshrink",
        family="activation",
        signature="",
        shape=Shape.SAME,
        module="torch.nn.Tanhshrink",
        functions={"torch.nn.functional.tanhshrink": "input"},
    ),
    Operation(
        "Softplus",
        family="activation",
        signature="beta=1.0, threshold=20.0",
        shape=Shape.SAME,
        module="torch.nn.Softplus",
        functions={"torch.nn.functional.softplus": "input, beta=1.0, threshold=20.0"},
    ),
    Operation(
        "Softshrink",
        family="activation",
        signature="lambd=0.5",
        shape=Shape.SAME,
        module="torch.nn.Softshrink",
        functions={"torch.nn.functional.softshrink": "input, lambd=0.5"},
    ),
    Operation(
        "Softsign",
        family="activation",
        signature="",
        shape=Shape.SAME,
        module="torch.nn.Softsign",
        functions={"torch.nn.functional.softsign": "input"},
    ),
    Operation(
        "Threshold",
        family="activation",
        signature="threshold, value, inplace=False",
        shape=Shape.SAME,
        module="torch.nn.Threshold",
        functions={
            "torch.nn.functional.threshold": "input, threshold, value, inplace=False",
            "torch.threshold": "input, threshold, value",
            "torch.nn.functional.threshold_": "input, threshold, value",
            "torch.threshold_": "input, threshold, value",
        },
    ),
    Operation(
        "GLU",
        family="activation",
        signature="dim=-1",
        shape=Shape.OTHER,  # halves the axis `dim`
        module="torch.nn.GLU",
        functions={"torch.nn.functional.glu": "input, dim=-1"},
    ),
)
