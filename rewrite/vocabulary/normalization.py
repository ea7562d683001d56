"""Normalization layers."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_BATCH = "num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, *, bias=True"
_INSTANCE = "num_features, eps=1e-05, momentum=0.1, affine=False, track_running_stats=False, *, bias=True"
_BATCH_CALL = "input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-05"
_INSTANCE_CALL = (
    "input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-05"
)

NORMALIZATION = (
    Operation(
        "BatchNorm",  # whichever of the three fits the site: Keras has one class for all
        family="norm",
        signature=_BATCH,
        shape=Shape.SAME,
        reads={"num_features": 1},
        statistics=True,
        by_rank={2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"},
    ),
    Operation(
        "BatchNorm1d",
        family="norm",
        signature=_BATCH,
        shape=Shape.SAME,
        reads={"num_features": 1},
        statistics=True,
        module="torch.nn.BatchNorm1d",
        ranks=(2, 3),  # (N, C) and (N, C, L)
    ),
    Operation(
        "BatchNorm2d",
        family="norm",
        signature=_BATCH,
        shape=Shape.SAME,
        reads={"num_features": 1},
        rank=4,
        statistics=True,
        module="torch.nn.BatchNorm2d",
    ),
    Operation(
        "BatchNorm3d",
        family="norm",
        signature=_BATCH,
        shape=Shape.SAME,
        reads={"num_features": 1},
        rank=5,
        statistics=True,
        module="torch.nn.BatchNorm3d",
    ),
    Operation(
        "SyncBatchNorm",
        family="norm",
        signature="num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, process_group=None, "
        "*, bias=True",
        shape=Shape.SAME,
        reads={"num_features": 1},
        statistics=True,
        module="torch.nn.SyncBatchNorm",
    ),
    Operation(
        "InstanceNorm1d",
        family="norm",
        signature=_INSTANCE,
        shape=Shape.SAME,
        reads={"num_features": 1},
        rank=3,
        statistics=True,
        module="torch.nn.InstanceNorm1d",
    ),
    Operation(
        "InstanceNorm2d",
        family="norm",
        signature=_INSTANCE,
        shape=Shape.SAME,
        reads={"num_features": 1},
        rank=4,
        statistics=True,
        module="torch.nn.InstanceNorm2d",
    ),
    Operation(
        "InstanceNorm3d",
        family="norm",
        signature=_INSTANCE,
        shape=Shape.SAME,
        reads={"num_features": 1},
        rank=5,
        statistics=True,
        module="torch.nn.InstanceNorm3d",
    ),
    # The functions of batch and instance normalization do not say for how many axes they are meant, so each is a row of
    # its own: it counts as a `norm`, and never as a BatchNorm2d by guess.
    Operation(
        "F.batch_norm",
        family="norm",
        shape=Shape.SAME,
        statistics=True,
        functions={
            "torch.nn.functional.batch_norm": _BATCH_CALL,
            "torch.batch_norm": "input, weight, bias, running_mean, running_var, training, momentum, eps, "
            "cudnn_enabled",
        },
    ),
    Operation(
        "F.instance_norm",
        family="norm",
        shape=Shape.SAME,
        statistics=True,
        functions={
            "torch.nn.functional.instance_norm": _INSTANCE_CALL,
            "torch.instance_norm": "input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, "
            "cudnn_enabled",
        },
    ),
    Operation(
        "GroupNorm",
        family="norm",
        signature="num_groups, num_channels, eps=1e-05, affine=True, *, bias=True",
        shape=Shape.SAME,
        reads={"num_channels": 1},
        module="torch.nn.GroupNorm",
        functions={
            "torch.nn.functional.group_norm": "input, num_groups, weight=None, bias=None, eps=1e-05",
            "torch.group_norm": "input, num_groups, weight=None, bias=None, eps=1e-05, cudnn_enabled=True",
        },
    ),
    Operation(
        "LayerNorm",
        family="norm",
        signature="normalized_shape, eps=1e-05, elementwise_affine=True, bias=True",
        shape=Shape.SAME,
        reads={"normalized_shape": -1},
        module="torch.nn.LayerNorm",
        functions={
            "torch.nn.functional.layer_norm": "input, normalized_shape, weight=None, bias=None, eps=1e-05",
            "torch.layer_norm": "input, normalized_shape, weight=None, bias=None, eps=1e-05, cudnn_enable=True",
        },
    ),
    Operation(
        "RMSNorm",
        family="norm",
        signature="normalized_shape, eps=None, elementwise_affine=True",
        shape=Shape.SAME,
        reads={"normalized_shape": -1},
        module="torch.nn.RMSNorm",
        functions={
            "torch.nn.functional.rms_norm": "input, normalized_shape, weight=None, eps=None",
            "torch.rms_norm": "input, normalized_shape, weight=None, eps=None",
        },
    ),
    Operation(
        "LocalResponseNorm",
        family="norm",
        signature="size, alpha=0.0001, beta=0.75, k=1.0",
        shape=Shape.SAME,
        module="torch.nn.LocalResponseNorm",
        functions={"torch.nn.functional.local_response_norm": "input, size, alpha=0.0001, beta=0.75, k=1.0"},
    ),
    Operation(
        "CrossMapLRN2d",
        family="norm",
        signature="size, alpha=0.0001, beta=0.75, k=1",
        shape=Shape.SAME,
        rank=4,
        module="torch.nn.CrossMapLRN2d",
    ),
)
