"""What examples in the documents refer to: layers of `docs/rules/layers.py` as `my.`, and models as `tests:`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewrite import python_file

_FILE = Path(__file__).parent.parent / "docs" / "rules" / "layers.py"
LAYERS = python_file.run(str(_FILE), _FILE.read_bytes())
"""the module that examples know as `my`"""


class Plain(nn.Sequential):
    """Convolutions in a row, the first and the last of them with an activation behind it."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(8 * 16 * 16, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )


class Spellings(nn.Module):
    """One operation, written in five ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        return torch.relu(functional.relu(x)).relu().relu_()


class Block(nn.Module):
    """A layer of a class that carries its activation itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Blocks(nn.Module):
    """Three of them, with a shortcut around the second, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second, self.third = Block(8), Block(8), Block(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        x = self.third(x + self.second(x))
        return self.head(x.mean((2, 3)))


class Diamond(nn.Module):
    """One value goes into two convolutions, and their sum into a third."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.left(x) + self.right(x))


class Attention(nn.Module):
    """Self-attention of one head, with a layer for each of its parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(functional.scaled_dot_product_attention(q, k, v))


class Layer(nn.Module):
    """One layer of a transformer: attention, then two linear layers, each behind a norm and around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Two such layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(16), Layer(16)])
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


MODELS = {model.__name__: model for model in (Plain, Spellings, Blocks, Diamond, Transformer)}
"""by the name behind `tests:`"""
