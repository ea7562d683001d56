"""Dropout in all its forms."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_SIGNATURE = "p=0.5, inplace=False"
_CALL = "input, p=0.5, training=True, inplace=False"
_ALPHA_CALL = "input, p=0.5, training=False, inplace=False"  # `training` is off here, as in PyTorch
_NATIVE_CALL = "input, p, train"

DROPOUT = (
    Operation(
        "Dropout",
        family="dropout",
        signature=_SIGNATURE,
        shape=Shape.SAME,
        module="torch.nn.Dropout",
        functions={
            "torch.nn.functional.dropout": _CALL,
            "torch.dropout": _NATIVE_CALL,
            "torch.dropout_": _NATIVE_CALL,
        },
    ),
    Operation(
        "Dropout1d",
        family="dropout",
        signature=_SIGNATURE,
        shape=Shape.SAME,
        rank=3,
        module="torch.nn.Dropout1d",
        functions={"torch.nn.functional.dropout1d": _CALL},
    ),
    Operation(
        "Dropout2d",
        family="dropout",
        signature=_SIGNATURE,
        shape=Shape.SAME,
        rank=4,
        module="torch.nn.Dropout2d",
        functions={"torch.nn.functional.dropout2d": _CALL},
    ),
    Operation(
        "Dropout3d",
        family="dropout",
        signature=_SIGNATURE,
        shape=Shape.SAME,
        rank=5,
        module="torch.nn.Dropout3d",
        functions={"torch.nn.functional.dropout3d": _CALL},
    ),
    Operation(
        "AlphaDropout",
        family="dropout",
        signature=_SIGNATURE,
        shape=Shape.SAME,
        module="torch.nn.AlphaDropout",
        functions={
            "torch.nn.functional.alpha_dropout": _ALPHA_CALL,
            "torch.alpha_dropout": _NATIVE_CALL,
            "torch.alpha_dropout_": _NATIVE_CALL,
        },
    ),
    Operation(
        "FeatureAlphaDropout",
        family="dropout",
        signature=_SIGNATURE,
        shape=Shape.SAME,
        module="torch.nn.FeatureAlphaDropout",
        functions={
            "torch.nn.functional.feature_alpha_dropout": _ALPHA_CALL,
            "torch.feature_alpha_dropout": _NATIVE_CALL,
            "torch.feature_alpha_dropout_": _NATIVE_CALL,
        },
    ),
)
