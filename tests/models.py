"""Tiny models, each named by the trap that it sets, with what one run of it really calls.

`MODELS["residual"].build()` makes one, with the same weights every time, in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Map = (2, 4, 6, 6)
"""shape of the usual input: batch, channels, height, width"""


@dataclass(frozen=True)
class Trap:
    """One model: how to make it, what it takes, what it calls."""

    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = (Map,)
    """of the positional inputs"""
    keywords: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """shapes of the keyword inputs; if there are any, all inputs are given by name"""
    calls: Mapping[str, int] = field(default_factory=dict)
    """operation -> real calls in eval mode"""
    in_place: bool = False
    """whether anything is updated in place"""
    shares_blocks: bool = False
    """whether a module with calls of its own is called more than once"""
    optional: bool = False
    """whether a forward asks if an optional input was given"""
    captured: bool = True
    """False: a forward here does something that a trace would change, so it may not be edited as a graph"""

    def __str__(self) -> str:
        return self.name

    def build(self, seed: int = 0, training: bool = False) -> nn.Module:
        """The model; the global random generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().train(training)

    def inputs(self, seed: int = 1) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Positional or keyword inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.keywords:
            return {name: torch.randn(shape, generator=generator) for name, shape in self.keywords.items()}
        return tuple(torch.randn(shape, generator=generator) for shape in self.shapes)

    @property
    def traps(self) -> frozenset[str]:
        """As of a random network: empty where every forward can be captured."""
        return frozenset() if self.captured else frozenset((self.name,))


MODELS: dict[str, Trap] = {}


def trap(calls: Mapping[str, int], **facts: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enter a model class into `MODELS` under its name in snake case."""

    def enter(kind: type[nn.Module]) -> type[nn.Module]:
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("_")
        MODELS[name] = Trap(name, kind, calls=calls, **facts)
        return kind

    return enter


def conv(channels_in: int = 4, channels_out: int = 4, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2)


@trap({"Conv2d": 1, "BatchNorm2d": 1, "ReLU": 1, "Linear": 1})
class Chain(nn.Module):
    """No trap at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)))


@trap({"Conv2d": 2, "ReLU": 3, "add": 1})
class SharedLayer(nn.Module):
    """One convolution called twice, one ReLU called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        return self.relu(self.conv(x) + self.relu(x))


@trap({"Embedding": 1, "Linear": 2}, shapes=((2, 5),))
class TiedWeights(nn.Module):
    """The last layer's weight is the first layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(x.abs().long() % 7)))


@trap({"Conv2d": 3, "BatchNorm2d": 2, "ReLU": 2, "add": 1}, in_place=True)
class Residual(nn.Module):
    """A value with two consumers; a skip path with a convolution of its own; one ReLU called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(4, 6), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 6), nn.BatchNorm2d(6)
        self.downsample = conv(4, 6, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class _DenseLayer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = conv(channels, 2)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.conv(F.relu(self.norm(torch.cat(features, 1))))


@trap({"Conv2d": 3, "BatchNorm2d": 3, "ReLU": 3, "cat": 4})
class DenseList(nn.Module):
    """A list that grows, handed to children and concatenated in each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_DenseLayer(4 + 2 * number) for number in range(3))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, dim=1)


@trap({"Conv2d": 2, "ReLU": 1})
class TwoOutputs(nn.Module):
    """A value that is an output and is used inside as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        early = torch.relu(self.first(x))
        return early, self.second(early)


class Pair(NamedTuple):
    """An output with names."""

    low: Tensor
    high: Tensor


@trap({"Conv2d": 2, "Sigmoid": 1, "Tanh": 1})
class NestedOutput(nn.Module):
    """A dict that holds a named tuple and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> dict[str, Any]:
        low = self.first(x)
        high = self.second(low)
        return {"pair": Pair(low, high.sigmoid()), "all": [torch.tanh(low), high]}


@trap({"Conv2d": 2, "ReLU": 2}, captured=False)
class Untraceable(nn.Module):
    """A Python branch on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.last = conv(), conv(), conv()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.high(x)) if x.sum() > 1e9 else self.relu(self.low(x))
        return F.relu(self.last(x))


@trap({"Conv2d": 3, "ReLU": 1, "cat": 2})
class ChunkSplit(nn.Module):
    """Pieces of one value, one of them untouched, uneven pieces, and a piece that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.narrow = conv(2, 2), conv(3, 2), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat((kept, self.left(changed)), dim=1)
        wide, _ = torch.split(self.narrow(x), [3, 1], 1)
        return torch.cat([self.right(wide).relu(), kept], 1)


@trap({"Conv2d": 2, "add": 2, "mul": 1, "cat": 2})
class SameValueTwice(nn.Module):
    """One value at two operands of one call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x), self.second(x)
        return torch.cat([a, b, a], 1) + torch.cat([a + a, torch.mul(b, b), b], 1)


@trap({"Conv2d": 1, "ReLU": 1, "add": 1}, in_place=True)
class InPlaceBehindBranch(nn.Module):
    """The second consumer of a value sees what an in-place ReLU made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.relu(y)
        return y + z


@trap({"Conv2d": 3, "ReLU": 3}, in_place=True)
class IgnoredInPlaceResult(nn.Module):
    """In-place calls whose result nobody takes; without them the outputs differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(), conv(), conv()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.relu(y)
        y = self.second(y)
        F.relu(y, True)
        y = self.third(y)
        y.relu_()
        return y


@trap({"Conv2d": 1, "add": 1}, in_place=True)
class AliasedUpdate(nn.Module):
    """`z` is `y`: what is added to one is added to both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y
        z += x
        return y


@trap({"Linear": 1, "ReLU": 6, "sub": 5}, shapes=((2, 4),))
class SixRelus(nn.Module):
    """The six ways to write ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc(x))
        x = F.relu(x - 0.1)
        x = torch.relu(x - 0.1)
        x = (x - 0.1).relu()
        x = F.relu(x - 0.1, inplace=True)
        return (x - 0.1).relu_()


class _Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor, *, by: Tensor, scale: float = 1.0) -> Tensor:
        return self.conv(input=x) * by * scale


@trap({"Conv2d": 2, "Linear": 1, "ReLU": 1, "mul": 4}, keywords={"x": Map, "gate": Map})
class KeywordInputs(nn.Module):
    """Tensors that arrive under a name, at the root, at a child, and at a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _Gate(), _Gate()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        x = self.first(x=x, by=gate)
        x = self.second(F.relu(input=x), by=gate, scale=0.5)
        return self.fc(input=x.mean((2, 3)))


def lowered(x: Tensor) -> Tensor:
    """What stands here is in no class, so only a graph shows it."""
    return x - 0.1


@trap({"Conv2d": 1, "ReLU": 1, "sub": 1}, optional=True)
class NoneDefault(nn.Module):
    """`mask` is None unless the caller says otherwise, and may be given later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.mask_conv = conv()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = lowered(F.relu(self.conv(x)))
        if mask is not None:
            x = x * self.mask_conv(mask)
        return x


@trap({"Linear": 2, "ReLU": 1, "Dropout": 1}, shapes=((2, 4),))
class TrainingFlag(nn.Module):
    """Functional dropout that follows the mode of its module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.second(F.dropout(x, 0.5, training=self.training))


@trap({"Conv2d": 3, "BatchNorm2d": 2, "ReLU": 2, "AdaptiveAvgPool2d": 1, "Flatten": 1, "Linear": 1})
class NestedSequential(nn.Module):
    """Sequentials in Sequentials, and one that is a subclass."""

    class Unit(nn.Sequential):
        """Convolution, norm, activation."""

        def __init__(self) -> None:
            super().__init__(conv(), nn.BatchNorm2d(4), nn.ReLU())

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(self.Unit(), self.Unit()), conv())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@trap({"Conv2d": 4, "ReLU": 3, "add": 1, "mul": 1})
class IndexedSequential(nn.Module):
    """A parent that slices its Sequential, indexes it, and asks for its length."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv(), nn.ReLU(), conv())

    def forward(self, x: Tensor) -> Tensor:
        early = self.features[:3](x)
        late = early
        for number in range(3, len(self.features)):
            late = self.features[number](late)
        return late + early * self.features[0].weight.mean()


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self = nn.Linear(4, 4)
        self.output = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.relu(self.self(x)))


@trap({"Linear": 5, "ReLU": 1}, shapes=((2, 4),))
class OddNames(nn.Module):
    """Modules named `self`, like a keyword, with a hyphen, with a digit in front."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = _Attention()
        for name in ("for", "up-1", "0"):
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        for name in ("for", "up-1", "0"):
            x = getattr(self, name)(x)
        return x


class ScaledConv(nn.Conv2d):
    """A user's own convolution."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 0.5


@trap({"Conv2d": 2, "ReLU": 1})
class SubclassedConv(nn.Module):
    """A convolution of a class that the user wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ScaledConv(4, 6, 3, padding=1)
        self.second = conv(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


@trap({"Linear": 1, "MultiheadAttention": 1, "add": 1}, shapes=((2, 5, 4),))
class AttentionLayer(nn.Module):
    """`attention.out_proj` is a layer whose weight is read; it is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.fc(x + y)


@trap(
    {"MultiheadAttention": 1, "Linear": 2, "ReLU": 1, "LayerNorm": 2, "Dropout": 3, "add": 2},
    shapes=((2, 5, 4),),
    captured=False,
)
class EncoderLayer(nn.Module):
    """Its fast path (eval, no gradients) reads the weights of its children and calls none of them.

    A `TorchFunctionMode` turns the fast path off, so the calls above are those of the other path.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


@trap({"LSTM": 1, "Linear": 1}, shapes=((2, 5, 4),))
class TupleOutputs(nn.Module):
    """A layer that returns a tuple with a tuple in it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (hidden, _) = self.lstm(x)
        return self.fc(y), hidden


@trap({"Linear": 2, "ReLU": 1}, shapes=((2, 4),))
class WeightReadWithoutCall(nn.Module):
    """`second` is used through its weight; the call is a function's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return F.linear(x, self.second.weight, self.second.bias)


@trap({"Conv2d": 1, "Linear": 1, "ReLU": 1})
class AuxiliaryHead(nn.Module):
    """A head that runs in training only; the output is a tuple then."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.aux, self.fc = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv(x)).mean((2, 3))
        if self.training:
            return self.fc(x), self.aux(x)
        return self.fc(x)


@trap({"Conv2d": 2, "ReLU": 1, "add": 1}, captured=False)
class NoGradBlock(nn.Module):
    """No gradient may reach `frozen`."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.conv = conv(), conv()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.relu(self.frozen(x))
        return self.conv(x) + y


@trap({"Conv2d": 1, "ReLU": 1, "add": 2, "mul": 1}, captured=False)
class StateUpdate(nn.Module):
    """Counts its own calls, in an attribute and in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.relu = nn.ReLU()
        self.seen = 0
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.total += 1.0
        return self.relu(self.conv(x)) * self.seen + self.total


@trap({"Conv2d": 2, "ReLU": 2})
class TwoPaths(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv()
        self.again = nn.Sequential(nn.ReLU(), self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.first(x)).relu()


@trap({"Conv2d": 1, "ReLU": 1, "Dropout": 1, "Sigmoid": 1, "mul": 1, "Linear": 2})
class Gate(nn.Module):
    """Squeeze and excite: a gate of one number for each channel, broadcast over the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self.excite(F.relu(self.squeeze(self.drop(x.mean((2, 3)))))).sigmoid()
        return x * gate[:, :, None, None]
