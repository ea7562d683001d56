"""Models of packages that nothing in this project was made for: sites are calls here too, or the reason is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import zoo
from torch import nn

Made = tuple[nn.Module, Any]
"""a model, and what it is called with"""


def image(size: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, size, size)


def made(package: str, name: str, inputs: Callable[[], Any], *args: object, **options: object) -> Callable[[], Made]:
    """How a class or function of a package makes a model."""

    def make() -> Made:
        pytest.importorskip(package.partition(".")[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = inputs()
            return getattr(import_module(package), name)(*args, **options).eval(), (
                given if isinstance(given, dict) else (given,)
            )

    return make


def segmentation(name: str, encoder: str = "resnet18", **options: object) -> Callable[[], Made]:
    return made(
        "segmentation_models_pytorch",
        name,
        lambda: image(64),
        encoder,
        encoder_weights=None,
        classes=4,
        **options,
    )


def vision(module: str, name: str, size: int = 32, **options: object) -> Callable[[], Made]:
    return made(f"vit_pytorch{module}", name, lambda: image(size), num_classes=10, **options)


def noised(channels: int, **more: Callable[[], object]) -> Callable[[], dict[str, object]]:
    return lambda: {
        "sample": image(16, channels),
        "timestep": torch.tensor([1, 5]),
        **{name: value() for name, value in more.items()},
    }


SMALL = {"image_size": 32, "patch_size": 8, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
BLOCKS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
ACROSS = {
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
UP_DOWN = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}

QUICK = {
    "Unet": segmentation("Unet"),
    "Segformer": segmentation("Segformer"),
    "SimpleViT": vision("", "SimpleViT", **SMALL),
    "NesT": vision(
        ".nest", "NesT", image_size=32, patch_size=4, dim=32, heads=2, num_hierarchies=2, block_repeats=(1, 1)
    ),
    "UNet2DConditionModel": made(
        "diffusers",
        "UNet2DConditionModel",
        noised(4, encoder_hidden_states=lambda: torch.rand(2, 7, 32)),
        sample_size=16,
        in_channels=4,
        out_channels=4,
        **BLOCKS,
        **ACROSS,
    ),
}

OTHERS = {
    **{name: segmentation(name) for name in ("UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3Plus")},
    "UPerNet": segmentation("UPerNet"),
    "Unet of a MobileNet": segmentation("Unet", "mobilenet_v2", decoder_attention_type="scse"),
    "Unet of an EfficientNet": segmentation("Unet", "efficientnet-b0"),
    "Unet of a DenseNet": segmentation("Unet", "densenet121"),
    "FPN of a transformer": segmentation("FPN", "mit_b0"),
    "ViT": vision("", "ViT", **SMALL),
    "CaiT": vision(".cait", "CaiT", **SMALL, cls_depth=1, layer_dropout=0.05),
    "patch dropout": vision(".vit_with_patch_dropout", "ViT", **SMALL, patch_dropout=0.25),
    "MaxViT": vision(".max_vit", "MaxViT", dim_conv_stem=16, dim=16, dim_head=8, depth=(1, 1), window_size=4),
    "LeViT": vision(".levit", "LeViT", 64, image_size=64, stages=2, dim=(16, 32), depth=1, heads=(2, 2), mlp_mult=2),
    "T2TViT": vision(
        ".t2t", "T2TViT", image_size=32, dim=32, depth=2, heads=2, mlp_dim=64, t2t_layers=((3, 2), (3, 2))
    ),
    "UNet2DModel": made(
        "diffusers",
        "UNet2DModel",
        noised(3),
        sample_size=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **BLOCKS,
    ),
    "AutoencoderKL": made(
        "diffusers",
        "AutoencoderKL",
        lambda: image(32),
        block_out_channels=(32, 64),
        norm_num_groups=8,
        **UP_DOWN,
    ),
    "VQModel": made(
        "diffusers", "VQModel", lambda: image(32), block_out_channels=(32,), norm_num_groups=8, num_vq_embeddings=16
    ),
    "SD3Transformer2DModel": made(
        "diffusers",
        "SD3Transformer2DModel",
        lambda: {
            "hidden_states": image(16, 4),
            "encoder_hidden_states": torch.rand(2, 5, 32),
            "pooled_projections": torch.rand(2, 64),
            "timestep": torch.tensor([1, 5]),
        },
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=64,
        pos_embed_max_size=16,
    ),
}


def holds(name: str, make: Callable[[], Made]) -> str:
    """Sites of the report = calls of the model as it was = calls of what was inserted, or why not."""
    model, inputs = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(zoo.outcomes_of(name, model, inputs))
    assert not [one for one in found if not one.is_equal and not one.is_explained]
    assert sum(one.ran for one in found)
    return f"{name}: {sum(one.is_equal for one in found)} of {len(found)} equal"


@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str) -> None:
    holds(name, QUICK[name])


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, record_property: Callable[[str, object], None]) -> None:
    record_property("summary", holds(name, OTHERS[name]))
