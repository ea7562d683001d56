"""The examples of docs/names.md: each name in its table is what a rule really makes."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewrite import Rules, apply_rules

torchvision = pytest.importorskip("torchvision")

PAGE = Path(__file__).parent.parent / "docs" / "names.md"


class Attention(nn.Module):
    """Its forward branches on a value, so that no graph of it can be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(x) if x.sum() > 0 else x


def model(name: str) -> nn.Module:
    options = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options).eval()


@pytest.mark.parametrize(
    ("name", "rule", "paths"),
    [
        ("vgg16", 'after "features.0": insert BatchNorm2d', ["features.0_batchnorm2d"]),
        ("vgg16", 'before "features.0": insert Dropout', ["features.before_0_dropout"]),
        ("resnet18", 'after ReLU in "layer1.0": insert Dropout', ["layer1.0.relu_1_dropout", "layer1.0.relu_dropout"]),
        ("resnet18", 'before "layer1.0.conv1": insert Dropout', ["layer1.0.before_conv1_dropout"]),
        ("resnet18", 'before add@0 in "layer1.0": insert Dropout', ["layer1.0.before_iadd_0_dropout"]),
        ("resnet18", 'between Conv2d and "layer1.0.bn1": insert Dropout', ["layer1.0.before_bn1_dropout"]),
        (
            "resnet18",
            'replace "fc" with Linear(out_features=8) -> ReLU -> Linear(out_features=1000)',
            ["fc.0", "fc.1", "fc.2"],
        ),
        ("inception_v3", 'before cat@3 in "Mixed_5b": insert BatchNorm2d', ["Mixed_5b.before_cat_3_batchnorm2d"]),
        ("inception_v3", 'replace ReLU in "Mixed_5b.branch1x1" with GELU', ["Mixed_5b.branch1x1.relu_gelu"]),
        ("vgg16", 'after "features.0": insert Dropout -> Dropout', ["features.0_dropout", "features.0_dropout_1"]),
        ("vgg16", 'replace "classifier.6" with Linear(out_features=1000)', []),
        (
            "vgg16",
            'replace Conv2d >> ReLU in "features.{2,3}" with Conv2d -> GELU',
            ["features.2.0", "features.2.1"],
        ),
        ("resnet18", 'wrap "fc" with LoRA', ["fc.base_layer", "fc.lora_dropout"]),
    ],
)
def test_names(name: str, rule: str, paths: list[str]) -> None:
    given = model(name)
    old = set(dict(given.named_modules()))
    made = [path for path, _ in apply_rules(given, Rules(rule)).named_modules() if path not in old]
    assert sorted(made) == sorted(paths)


def test_a_layer_whose_surroundings_cannot_be_captured() -> None:
    given = nn.Sequential(OrderedDict(attention=Attention()))
    behind = apply_rules(given, Rules("after Linear: insert Dropout"))
    assert "attention.query.dropout" in dict(behind.named_modules())
    in_front = apply_rules(given, Rules("before Linear: insert Dropout"))
    assert "attention.query.before_dropout" in dict(in_front.named_modules())


def test_every_example_of_the_page_is_tested() -> None:
    rows = [row.split("|")[3] for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    examples = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(examples) > 8
    tested = Path(__file__).read_text(encoding="utf-8")
    assert not [path for path in examples if f'"{path}"' not in tested]
