"""Layers that a backend of ours supplies where its framework has none."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

OWN_LAYERS = (
    Operation(
        "DropPath",
        family="dropout",
        signature="drop_prob=0.1",
        shape=Shape.SAME,
        module="rewrite.backends.torch.own_layers.DropPath",
        also=("torchvision.ops.stochastic_depth.StochasticDepth", "timm.layers.drop.DropPath"),
    ),
    Operation(
        "LoRA",
        signature="rank=8, alpha=16, dropout=0.0",
        wraps=True,
        module="rewrite.backends.torch.own_layers.LoRA",
    ),
    Operation(
        "Tap",
        signature="name",
        shape=Shape.SAME,
        module="rewrite.backends.torch.own_layers.Tap",
    ),
)
