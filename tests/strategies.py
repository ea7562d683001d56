"""Random networks as real Python modules, and random rules that mean something for them.

A network is written as source text from a random program and executed, so that its forward is ordinary Python: residual
adds, concatenations, pieces, gates, skips from an encoder to its decoder, attention, recurrent layers, shared layers
and tied weights, lists and tables of layers, in-place calls behind a branch, every spelling of an operation, blocks and
layer classes of its own, several inputs and outputs in nests of every sort. Maps have one, two or three dimensions.

All choices are whole numbers with the plainest one first: drawn by Hypothesis, a failing network shrinks to a short
one; drawn by a seeded generator, many networks share as little as chance lets them, where Hypothesis varies those that
it had before. `Network.source` is what one pastes into a file.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

Number = Callable[[int, int], int]
"""chooses a whole number from the first to the second: a Hypothesis draw, or `random.Random(seed).randint`"""

HEADER = """import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Output:
    out: torch.Tensor
    more: object = None


class OwnConv1d(nn.Conv1d):
    pass


class OwnConv2d(nn.Conv2d):
    def forward(self, input):
        return super().forward(input)


class OwnConv3d(nn.Conv3d):
    pass


class OwnLinear(nn.Linear):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = "counted by nobody"
"""
VOCABULARY = 7
"""how many tokens an Embedding knows"""
LENGTH = 5
"""tokens of a sequence"""


@dataclass(frozen=True, eq=False)
class Network:
    """A random network: its source text and what the tests need to know about it."""

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    """name of each input -> its shape"""
    by_keyword: bool
    """whether the inputs are given by name"""
    operations: frozenset[str]
    """names of the operations that its source writes"""
    blocks: tuple[str, ...]
    """paths of user blocks and Sequentials directly below the root"""
    in_place: bool
    """whether anything is updated in place"""
    shares_blocks: bool
    """whether a module with calls of its own is called more than once"""
    optional: bool
    """whether the root's forward asks if an optional input was given"""
    traps: frozenset[str]
    """what a trace of one of its forwards would change; empty: every forward can be captured"""
    tokens: bool
    """whether the inputs are numbers of tokens"""

    def __repr__(self) -> str:
        return f"<network, inputs {dict(self.shapes)}>\n{self.source}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def build(self, seed: int = 0, training: bool = False) -> nn.Module:
        """The network with random weights and moving statistics that are not the initial ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _module(self.source).Network()
            for name, buffer in model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
            return model.train(training)

    def inputs(self, seed: int = 1) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Positional or keyword inputs."""
        generator = torch.Generator().manual_seed(seed)
        made = {
            name: torch.randint(VOCABULARY, shape, generator=generator)
            if self.tokens
            else torch.randn(shape, generator=generator)
            for name, shape in self.shapes.items()
        }
        return made if self.by_keyword else tuple(made.values())


_modules: OrderedDict[str, types.ModuleType] = OrderedDict()
"""the networks that were executed last; their classes can be pickled as long as they are here"""


def _module(source: str) -> types.ModuleType:
    name = "network_" + hashlib.sha1(source.encode()).hexdigest()[:12]
    if name not in _modules:
        filename = f"<{name}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        module = types.ModuleType(name)
        module.__file__ = filename
        sys.modules[name] = _modules[name] = module
        exec(compile(source, filename, "exec"), module.__dict__)
        while len(_modules) > 64:
            old, _ = _modules.popitem(last=False)
            del sys.modules[old], linecache.cache[f"<{old}>"]
    return _modules[name]


@dataclass(eq=False)
class _Value:
    """A tensor in the program.

    A map (channels, then `size` once for each dimension); with size 0 a vector of features, with size -1 a sequence of
    such vectors.
    """

    name: str
    channels: int
    size: int
    fresh: bool = False
    """may be updated in place: no call has kept it for its backward pass, and it is nobody else's"""

    @property
    def kind(self) -> int:
        return kind_of(self.size)

    @property
    def axis(self) -> int:
        """where its channels are"""
        return -1 if self.size < 0 else 1


def kind_of(size: int) -> int:
    """1 for a map, 0 for a vector, -1 for a sequence."""
    return (size > 0) - (size < 0)


@dataclass(eq=False)
class _Unit:
    """A user's block that was written before: what it takes and returns."""

    kind: str
    channels: int
    size: int
    size_out: int
    out: tuple[int, ...]
    """channels of each output"""
    form: str
    """`one`, `tuple` or `dict`"""
    keyword: bool


@dataclass(eq=False)
class _Facts:
    """What is gathered while the source is written."""

    rank: int = 2
    """dimensions of a map"""
    operations: set[str] = field(default_factory=set)
    traps: set[str] = field(default_factory=set)
    in_place: bool = False
    shares_blocks: bool = False


RELUS = (
    ("nn.ReLU", "self.{layer}({x})", False),
    ("nn.ReLU", "self.{layer}({x})", False),
    ("", "F.relu({x})", False),
    ("", "torch.relu({x})", False),
    ("", "{x}.relu()", False),
    ("", "F.relu(input={x})", False),
    ("nn.ReLU", "self.{layer}({x})", True),
    ("nn.ReLU", "self.{layer}({x})", True),
    ("", "F.relu({x}, inplace=True)", True),
    ("", "F.relu({x}, True)", True),
    ("", "{x}.relu_()", True),
    ("", "torch.relu_({x})", True),
)
"""(module class, call, updates its input) for each way to write ReLU"""

ACTIVATIONS = {
    "GELU": ("F.gelu({x})",),
    "Sigmoid": ("torch.sigmoid({x})", "{x}.sigmoid()"),
    "Tanh": ("torch.tanh({x})", "{x}.tanh()"),
    "SiLU": ("F.silu({x})",),
    "ReLU6": ("F.relu6({x})",),
    "Hardswish": ("F.hardswish({x})",),
}
ADDS = ("{a} + {b}", "torch.add({a}, {b})", "{a}.add({b})", "torch.add({a}, other={b})")
MULS = ("{a} * {b}", "torch.mul({a}, {b})", "{a}.mul({b})")
CATS = (
    "torch.cat([{all}], {axis})",
    "torch.cat([{all}], dim={axis})",
    "torch.cat(({all},), dim={axis})",
    "torch.cat(dim={axis}, tensors=[{all}])",
    "torch.concat([{all}], {axis})",
)
DROPOUTS = (
    "F.dropout({x}, 0.25, training=self.training)",
    "F.dropout({x}, 0.25, self.training)",
    "F.dropout({x}, p=0.25, training=self.training)",
)


RESULTS = (
    "{a}",
    "{a}",
    "{a}, {b}",
    '{{"out": {a}, "more": [{b}]}}',
    "[{a}, {b}]",
    '{{"out": ({a}, {b}), "in": {a}}}',
    "Pair({a}, {b})",
    "Output(out={a}, more={b})",
    "Output({a}, more=Pair({b}, {c}))",
    "tuple(value for value in ({a}, {b}, {c}))",
)
"""what the root's forward returns"""


class _Writer:
    """Writes one class: layers in `__init__`, statements in `forward`."""

    def __init__(self, number: Number, facts: _Facts, units: Sequence[_Unit], trapped: bool) -> None:
        self.number, self.facts, self.units, self.trapped = number, facts, units, trapped
        self.init: list[str] = []
        self.body: list[str] = []
        self.values: list[_Value] = []
        self.layers: list[tuple[str, int, int, int]] = []
        """(name, channels in, channels out, size or 0) of layers that a later statement may call again"""
        self.children: list[str] = []
        self.counts: dict[str, int] = {}

    @property
    def rank(self) -> int:
        return self.facts.rank

    @property
    def places(self) -> tuple[int, ...]:
        """The dimensions of a map that are not its channels."""
        return tuple(range(2, 2 + self.rank))

    # ---- choices

    def chance(self, one_in: int) -> bool:
        return self.number(0, one_in - 1) == one_in - 1

    def choose(self, options: Sequence[Any]) -> Any:
        return options[self.number(0, len(options) - 1)]

    def pick(self, fits: Callable[[_Value], bool] = lambda value: True) -> _Value | None:
        """One of the values that fit, the newest first."""
        found = [value for value in reversed(self.values) if fits(value)][:3]
        return self.choose(found) if found else None

    # ---- writing

    def name(self, stem: str) -> str:
        number = self.counts.get(stem, 0)
        self.counts[stem] = number + 1
        return f"{stem}{number}"

    def layer(self, stem: str, text: str) -> str:
        name = self.name(stem)
        self.init.append(f"self.{name} = {text}")
        return name

    def emit(self, expression: str, channels: int, size: int, fresh: bool = False) -> _Value:
        value = _Value(self.name("v"), channels, size, fresh)
        self.body.append(f"{value.name} = {expression}")
        self.values.append(value)
        return value

    def uses(self, *operations: str) -> None:
        self.facts.operations.update(operations)

    # ---- statements; each returns whether it fitted

    def weighted(self) -> None:
        """A convolution or a linear layer."""
        value = self.pick()
        assert value is not None
        out = self.choose((4, 2, 3, 6))
        stem, text = self.weighted_layer(value, out)
        twin = next((line.split(" = ") for line in self.init if line.endswith(f" = {text}")), None)
        name = self.layer(stem, text)
        if twin and self.chance(2):
            self.init.append(f"self.{name}.weight = {twin[0]}.weight")
        call = self.choose(("self.{layer}({x})", "self.{layer}(input={x})"))
        value.fresh = False
        self.layers.append((name, value.channels, out, value.size))
        self.emit(call.format(layer=name, x=value.name), out, value.size, fresh=True)

    def weighted_layer(self, value: _Value, out: int) -> tuple[str, str]:
        own = self.choose(("nn.", "nn.", "nn.", "Own"))
        if value.kind < 1:
            self.uses("Linear")
            return "fc", f"{own}Linear({value.channels}, {out}{self.choose(('', ', bias=False'))})"
        self.uses(f"Conv{self.rank}d")
        shapes = ["3, padding=1", "1", "3, padding=1, bias=False", "3, padding='same'"]
        shapes += ["(1, 3), padding=(0, 1)"] * (self.rank == 2)
        shapes += ["3, padding=1, groups=2"] * (value.channels % 2 == out % 2 == 0)
        return "conv", f"{own}Conv{self.rank}d({value.channels}, {out}, {self.choose(shapes)})"

    def functional(self) -> None:
        """A convolution or a linear function with weights of the module itself."""
        value = self.pick()
        assert value is not None
        value.fresh = False
        out = self.choose((4, 2, 3))
        shape = (out, value.channels, *[3] * self.rank * (value.kind > 0))
        weight = self.layer("weight", f"nn.Parameter(torch.randn({', '.join(map(str, shape))}) / 4)")
        if value.kind > 0:
            self.uses(f"Conv{self.rank}d")
            call = f"F.conv{self.rank}d({value.name}, self.{weight}, padding=1)"
        else:
            self.uses("Linear")
            call = f"F.linear({value.name}, self.{weight})"
        self.emit(call, out, value.size, fresh=True)

    def scale(self) -> None:
        """A parameter of the module, perhaps one of a list."""
        value = self.pick()
        assert value is not None
        value.fresh = False
        self.uses("mul")
        if self.chance(2):
            name = self.layer("scales", "nn.ParameterList([torch.ones(1), torch.full((1,), 0.5)])")
            parameter = f"self.{name}[{self.number(0, 1)}]"
        else:
            parameter = f"self.{self.layer('scale', 'nn.Parameter(torch.ones(1))')}"
        self.emit(f"{value.name} * {parameter}", value.channels, value.size)

    def stack(self) -> None:
        """Layers in a list that a loop calls, or in a table of which one is called."""
        value = self.pick()
        assert value is not None
        value.fresh = False
        channels = value.channels
        texts = [self.weighted_layer(value, channels)[1] for _ in range(2)]
        if self.chance(3):
            name = self.layer("table", f'nn.ModuleDict({{"a": {texts[0]}, "b": {texts[1]}}})')
            self.emit(f'self.{name}["{self.choose("ab")}"]({value.name})', channels, value.size, fresh=True)
            return
        kind, act = self.choose((("ModuleList", False), ("ModuleList", True), ("Sequential", False)))
        name = self.layer("stack", f"nn.{kind}({'*' * (kind == 'Sequential')}[{', '.join(texts)}])")
        made = self.name("v")
        self.body += [f"{made} = {value.name}", f"for layer in self.{name}:"]
        if act:
            self.uses("ReLU")
        self.body.append(f"    {made} = {'F.relu(layer({x}))' if act else 'layer({x})'}".format(x=made))
        self.values.append(_Value(made, channels, value.size))

    def rounds(self) -> None:
        """A layer that a loop calls twice."""
        value = self.pick()
        assert value is not None
        value.fresh = False
        name = self.layer(*self.weighted_layer(value, value.channels))
        made = self.name("v")
        self.body += [f"{made} = {value.name}", "for _ in range(2):", f"    {made} = self.{name}({made})"]
        self.values.append(_Value(made, value.channels, value.size))

    def skip(self) -> None:
        """An encoder and a decoder with a skip between them."""
        value = self.pick(lambda value: value.size > 1 and value.channels <= 8)
        if value is None:
            return
        value.fresh = False
        rank, channels = self.rank, value.channels
        conv, down, up = f"Conv{rank}d", self.name("v"), self.name("v")
        self.uses(conv, f"MaxPool{rank}d")
        pool = self.layer("pool", f"nn.MaxPool{rank}d(2)")
        self.body.append(f"{down} = self.{pool}({value.name})")
        self.body.append(f"{down} = self.{self.layer('conv', f'nn.{conv}({channels}, 4, 3, padding=1)')}({down})")
        if self.chance(2):
            self.uses(f"ConvTranspose{rank}d")
            name = self.layer("up", f"nn.ConvTranspose{rank}d(4, 2, 2, stride=2)")
            self.body.append(f"{up} = self.{name}({down})")
            out = 2
        else:
            self.body.append(f'{up} = F.interpolate({down}, scale_factor=2, mode="nearest")')
            out = 4
        self.uses("cat")
        self.emit(f"torch.cat([{up}, {value.name}], 1)", channels + out, value.size)

    def attention(self) -> None:
        """A layer or a function of attention, or one that is written out."""
        value = self.pick(lambda value: value.size < 0 and value.channels % 2 == 0)
        if value is None:
            return
        value.fresh = False
        x, channels = value.name, value.channels
        match self.choose(("layer", "parts", "function", "written")):
            case "layer" | "parts" as form:
                self.uses("MultiheadAttention")
                other = self.pick(lambda other: (other.channels, other.size) == (channels, -1)) or value
                name = self.layer("attn", f"nn.MultiheadAttention({channels}, 2, batch_first=True)")
                call = f"self.{name}({x}, {other.name}, {other.name}"
                if form == "layer":
                    self.emit(f"{call}, need_weights=False)[0]", channels, -1)
                    return
                made = _Value(self.name("v"), channels, -1)
                self.body.append(f"{made.name}, _ = {call})")
                self.values.append(made)
            case form:
                self.uses("Linear")
                names = [self.layer(stem, f"nn.Linear({channels}, {channels})") for stem in ("q", "k", "v_proj")]
                q, k, v = (f"self.{name}({x})" for name in names)
                if form == "function":
                    self.emit(f"F.scaled_dot_product_attention({q}, {k}, {v})", channels, -1)
                    return
                self.uses("matmul", "Softmax")
                weights = f"torch.softmax(torch.matmul({q}, {k}.transpose(1, 2)), -1)"
                self.emit(f"torch.matmul({weights}, {v})", channels, -1)

    def recurrent(self) -> None:
        value = self.pick(lambda value: value.size < 0)
        if value is None:
            return
        value.fresh = False
        self.uses("LSTM")
        name = self.layer("lstm", f"nn.LSTM({value.channels}, 4, batch_first=True)")
        made = _Value(self.name("v"), 4, -1)
        text = self.choose(("{v}, _ = {call}", "{v}, (h, c) = {call}", "{v} = {call}[0]"))
        self.body.append(text.format(v=made.name, call=f"self.{name}({value.name})"))
        self.values.append(made)

    def positions(self) -> None:
        """From a map to a sequence of its places."""
        value = self.pick(lambda value: value.size > 0)
        if value is not None:
            value.fresh = False
            self.uses("Flatten")
            self.emit(f"{value.name}.flatten(2).transpose(1, 2)", value.channels, -1)

    def relu(self) -> None:
        self.uses("ReLU")
        value = self.pick()
        assert value is not None
        kind, call, in_place = self.choose([row for row in RELUS if value.fresh or not row[2]])
        name = ""
        if kind:
            shared = "relu_" if in_place else "relu"
            name = shared if f"self.{shared} = nn.ReLU({'inplace=True' if in_place else ''})" in self.init else ""
            if not name and not self.chance(3):
                name = shared
                self.init.append(f"self.{shared} = nn.ReLU({'inplace=True' if in_place else ''})")
            name = name or self.layer("act", f"nn.ReLU({'inplace=True' if in_place else ''})")
        self.facts.in_place |= in_place
        value.fresh &= not in_place
        self.emit(call.format(layer=name, x=value.name), value.channels, value.size)

    def activation(self) -> None:
        name = self.choose(tuple(ACTIVATIONS))
        self.uses(name)
        value = self.pick()
        assert value is not None
        value.fresh = False
        call = self.choose(("", *ACTIVATIONS[name]))
        call = call or f"self.{self.layer('act', f'nn.{name}()')}({{x}})"
        self.emit(call.format(x=value.name), value.channels, value.size)

    def norm(self) -> None:
        value = self.pick()
        assert value is not None
        value.fresh = False
        name = self.layer("norm", self.norm_layer(value))
        self.emit(f"self.{name}({value.name})", value.channels, value.size, fresh=True)

    def norm_layer(self, value: _Value) -> str:
        kinds = {1: (f"BatchNorm{self.rank}d", "GroupNorm"), 0: ("LayerNorm", "BatchNorm1d"), -1: ("LayerNorm",)}
        kind = self.choose(kinds[value.kind])
        self.uses(kind)
        return f"nn.GroupNorm(1, {value.channels})" if kind == "GroupNorm" else f"nn.{kind}({value.channels})"

    def dropout(self) -> None:
        self.uses("Dropout")
        value = self.pick()
        assert value is not None
        call = self.choose(("", *DROPOUTS))
        call = call or f"self.{self.layer('drop', 'nn.Dropout(0.25)')}({{x}})"
        value.fresh = False  # in eval mode the result is the very same tensor
        self.emit(call.format(x=value.name), value.channels, value.size)

    def pair(self) -> tuple[_Value, _Value]:
        """Two values of one shape, the same one twice if there is no other or by chance."""
        a = self.pick()
        assert a is not None
        others = [value for value in reversed(self.values) if (value.channels, value.size) == (a.channels, a.size)]
        others.sort(key=lambda value: value is a)  # stable: `a` itself comes last
        return a, self.choose(others[:2])

    def add(self) -> None:
        self.uses("add")
        a, b = self.pair()
        if a.fresh and a is not b and self.chance(2):
            self.facts.in_place = True
            self.body.append(self.choose(("{a} += {b}", "{a} = {a}.add_({b})")).format(a=a.name, b=b.name))
            self.values.remove(a)
            self.values.append(a)
            return
        self.emit(self.choose(ADDS).format(a=a.name, b=b.name), a.channels, a.size, fresh=True)

    def mul(self) -> None:
        self.uses("mul")
        a, b = self.pair()
        a.fresh = b.fresh = False
        self.emit(self.choose(MULS).format(a=a.name, b=b.name), a.channels, a.size)

    def cat(self) -> None:
        first = self.pick()
        assert first is not None
        chosen = [first]
        for _ in range(self.number(1, 2)):
            chosen.append(self.pick(lambda value: value.size == first.size) or first)
        channels = sum(value.channels for value in chosen)
        if channels > 24:
            return
        self.uses("cat")
        text = self.choose(CATS).format(all=", ".join(value.name for value in chosen), axis=first.axis)
        self.emit(text, channels, first.size, fresh=True)

    def pieces(self) -> None:
        value = self.pick(lambda value: value.channels >= 2)
        if value is None:
            return
        value.fresh = False
        if value.channels % 2 == 0 and not self.chance(2):
            sizes = [value.channels // 2] * 2
            text = self.choose(("{x}.chunk(2, {axis})", "torch.chunk({x}, 2, dim={axis})"))
        else:
            sizes = [1, value.channels - 1]
            text = self.choose(("torch.split({x}, {sizes}, {axis})", "{x}.split({sizes}, dim={axis})"))
        text = text.format(x=value.name, sizes=sizes, axis=value.axis)
        if self.chance(3):
            held = self.name("p")
            self.body.append(f"{held} = {text}")
            for number, channels in enumerate(sizes):
                self.emit(f"{held}[{number}]", channels, value.size)
            return
        parts = [_Value(self.name("v"), channels, value.size) for channels in sizes]
        self.body.append(f"{', '.join(part.name for part in parts)} = {text}")
        self.values += parts

    def again(self) -> None:
        """A layer that was called before, once more."""
        options = [
            (layer, value)
            for layer in self.layers
            for value in self.values[-4:]
            if layer[1] == value.channels and kind_of(layer[3]) == value.kind
        ]
        if not options:
            return
        (name, _, out, _), value = self.choose(options)
        value.fresh = False
        self.facts.shares_blocks |= name in self.children
        self.emit(f"self.{name}({value.name})", out, value.size, fresh=True)

    def sequential(self) -> None:
        value = self.pick()
        assert value is not None
        value.fresh = False
        text, channels = self.sequence(value, 2)
        name = self.layer("seq", text)
        self.children.append(name)
        if channels == value.channels:
            self.layers.append((name, channels, channels, value.size))
        self.emit(f"self.{name}({value.name})", channels, value.size)

    def sequence(self, value: _Value, depth: int) -> tuple[str, int]:
        """The text of a Sequential for `value`, and its output channels."""
        parts, channels = [], value.channels
        for _ in range(self.number(1, 3)):
            here = _Value("", channels, value.size)
            match self.choose(("weighted", "relu", "norm", "dropout", "nested", "unit")):
                case "weighted":
                    channels = self.choose((4, 2, 3))
                    parts.append(self.weighted_layer(here, channels)[1])
                case "relu":
                    self.uses("ReLU")
                    parts.append("nn.ReLU()")
                case "norm":
                    parts.append(self.norm_layer(here))
                case "dropout":
                    self.uses("Dropout")
                    parts.append("nn.Dropout(0.25)")
                case "nested" if depth:
                    text, channels = self.sequence(here, depth - 1)
                    parts.append(text)
                case _:
                    fit = [
                        unit
                        for unit in self.units
                        if unit.form == "one" and not unit.keyword and unit.size_out == unit.size
                        if (unit.channels, kind_of(unit.size)) == (channels, value.kind)
                    ]
                    if not fit:
                        parts.append("nn.Identity()")
                        self.uses("Identity")
                        continue
                    unit = self.choose(fit)
                    channels = unit.out[0]
                    parts.append(f"{unit.kind}()")
        return f"nn.Sequential({', '.join(parts)})", channels

    def unit(self) -> None:
        """A block of the user's own, perhaps one instance called twice."""
        fit = [
            (unit, value)
            for unit in self.units
            for value in self.values[-3:]
            if (unit.channels, kind_of(unit.size)) == (value.channels, value.kind)
        ]
        if not fit:
            return
        unit, value = self.choose(fit)
        value.fresh = False
        name = self.layer("block", f"{unit.kind}()")
        self.children.append(name)
        twice = unit.out == (unit.channels,) and unit.size == unit.size_out and self.chance(4)
        self.facts.shares_blocks |= twice
        out_size = value.size if unit.size_out == unit.size else unit.size_out
        for _ in range(1 + twice):
            call = f"self.{name}({'x=' if unit.keyword else ''}{value.name})"
            if unit.form == "one":
                value = self.emit(call, unit.out[0], out_size)
                continue
            if unit.form == "tuple":
                parts = [_Value(self.name("v"), channels, out_size) for channels in unit.out]
                self.body.append(f"{', '.join(part.name for part in parts)} = {call}")
                self.values += parts
                continue
            held = self.name("d")
            self.body.append(f"{held} = {call}")
            for key, channels in zip("ab", unit.out, strict=False):
                self.emit(f'{held}["{key}"]', channels, out_size)

    def pool(self) -> None:
        value = self.pick(lambda value: value.size >= 2)
        if value is None:
            return
        value.fresh = False
        kind, call = self.choose(
            (
                (f"MaxPool{self.rank}d", ""),
                (f"AvgPool{self.rank}d", ""),
                (f"MaxPool{self.rank}d", f"F.max_pool{self.rank}d({{x}}, 3, 1, 1)"),
                (f"AvgPool{self.rank}d", f"F.avg_pool{self.rank}d({{x}}, 3, stride=1, padding=1)"),
            )
        )
        self.uses(kind)
        call = call or f"self.{self.layer('pool', f'nn.{kind}(3, 1, padding=1)')}({{x}})"
        self.emit(call.format(x=value.name), value.channels, value.size)

    def squeeze(self) -> None:
        """Squeeze and excite."""
        value = self.pick(lambda value: value.size > 1)
        if value is None:
            return
        value.fresh = False
        channels = value.channels
        self.uses(f"Conv{self.rank}d", "ReLU", "Sigmoid", "mul")
        pooled = (f"F.adaptive_avg_pool{self.rank}d({{x}}, 1)", f"{{x}}.mean({self.places}, keepdim=True)")
        gate = self.choose(pooled).format(x=value.name)
        if gate.startswith("F."):
            self.uses(f"AdaptiveAvgPool{self.rank}d")
        for number in range(2):
            name = self.layer("conv", f"nn.Conv{self.rank}d({channels}, {channels}, 1)")
            gate = f"self.{name}({gate})"
            gate = f"F.relu({gate})" if number == 0 else f"torch.sigmoid({gate})"
        self.emit(f"{value.name} * {gate}", channels, value.size)

    def trap(self) -> None:
        """A statement that a trace would change or cannot follow."""
        value = self.pick()
        assert value is not None
        kind = self.choose(("no_grad", "branch", "state", "ignored", "items", "checkpoint", "drawn"))
        if kind == "ignored" and not value.fresh:
            kind = "branch"
        self.facts.traps.add(kind)
        self.uses("mul")
        x, relu = value.name, self.layer("act", "nn.ReLU()")
        self.uses("ReLU")
        match kind:
            case "no_grad":
                made = _Value(self.name("v"), value.channels, value.size)
                self.body += ["with torch.no_grad():", f"    {made.name} = self.{relu}({x})"]
                self.values.append(made)
            case "branch":
                made = _Value(self.name("v"), value.channels, value.size)
                self.body += [
                    f"if {x}.sum() > 1e6:",
                    f"    {made.name} = {x} * 0.0",
                    "else:",
                    f"    {made.name} = self.{relu}({x})",
                ]
                self.values.append(made)
            case "state":
                self.init.append("self.seen = 0")
                self.body.append("self.seen = 1")
                self.emit(f"self.{relu}({x}) * self.seen", value.channels, value.size)
            case "items":
                self.emit(f"self.{relu}({x}).clone()", value.channels, value.size)
                self.body.append(f"{self.values[-1].name}[0] = 1.0")
            case "checkpoint":
                self.emit(f"checkpoint(self.{relu}, {x}, use_reentrant=False)", value.channels, value.size)
            case "drawn":
                self.emit(f"self.{relu}({x}) * torch.rand(1)", value.channels, value.size)
            case "ignored":
                self.facts.in_place = True
                value.fresh = False
                self.init[-1] = f"self.{relu} = nn.ReLU(inplace=True)"
                self.body.append(self.choose((f"self.{relu}({x})", f"F.relu({x}, True)", f"{x}.relu_()")))

    def head(self) -> None:
        """From a map or a sequence to features."""
        value = self.values[-1]
        if not value.size:
            return
        value.fresh = False
        if value.size < 0:
            self.emit(self.choose(("{x}.mean(1)", "{x}[:, 0]")).format(x=value.name), value.channels, 0)
            return
        pool = f"AdaptiveAvgPool{self.rank}d"
        match self.choose(("mean", "pool", "layers")):
            case "mean":
                self.emit(f"{value.name}.mean({self.places})", value.channels, 0)
            case "pool":
                self.uses(pool, "Flatten")
                pooled = f"F.adaptive_avg_pool{self.rank}d({value.name}, {'(1, 1)' if self.rank == 2 else '1'})"
                self.emit(f"torch.flatten({pooled}, 1)", value.channels, 0)
            case _:
                self.uses(pool, "Flatten")
                name = self.layer("squash", f"nn.Sequential(nn.{pool}(1), nn.Flatten())")
                self.emit(f"self.{name}({value.name})", value.channels, 0)

    def run(self, least: int, most: int) -> None:
        """Random statements."""
        kinds = [self.weighted, self.relu, self.add, self.norm, self.dropout, self.cat, self.activation, self.relu]
        kinds += [self.again, self.sequential, self.unit, self.pieces, self.mul, self.weighted, self.pool, self.squeeze]
        kinds += [self.functional, self.scale, self.stack, self.rounds, self.skip, self.positions]
        if any(value.size < 0 for value in self.values):
            kinds += [self.attention, self.recurrent] * 3
        kinds += [self.trap] * 4 * self.trapped
        for _ in range(self.number(least, most)):
            self.choose(kinds)()

    def text(self, kind: str, signature: str, result: str) -> str:
        init = [f"        {line}\n" for line in self.init]
        body = [f"        {line}\n" for line in self.body]
        return (
            f"\n\nclass {kind}(nn.Module):\n    def __init__(self):\n        super().__init__()\n{''.join(init)}"
            f"\n    def forward({signature}):\n{''.join(body)}        return {result}\n"
        )


def _write_unit(
    number: Number, facts: _Facts, units: Sequence[_Unit], index: int, size: int, trapped: bool
) -> tuple[str, _Unit]:
    """A block class."""
    writer = _Writer(number, facts, units, trapped)
    channels = writer.choose((4, 2))
    writer.values.append(_Value("x", channels, size))
    writer.run(1, 4)
    last = writer.values[-1]
    keyword = writer.chance(4)
    form = writer.choose(("one", "one", "residual", "tuple", "dict"))
    outs = [last]
    result = last.name
    if form == "residual":
        form = "one"
        if (last.channels, last.size) == (channels, size):
            result = f"{last.name} + x"
            facts.operations.add("add")
    elif form != "one":
        outs.append(writer.choose([value for value in writer.values if value.size == last.size]))
        result = f"{last.name}, {outs[1].name}" if form == "tuple" else f'{{"a": {last.name}, "b": {outs[1].name}}}'
    kind = f"Block{index}"
    text = writer.text(kind, "self, *, x" if keyword else "self, x", result)
    return text, _Unit(kind, channels, size, last.size, tuple(value.channels for value in outs), form, keyword)


@st.composite
def networks(draw: Callable[[st.SearchStrategy[int]], int], traps: bool = False) -> Network:
    """A random network; with `traps` some forwards do what a trace cannot follow."""
    return write_network(lambda least, most: draw(st.integers(least, most)), traps)


def write_network(number: Number, traps: bool = False) -> Network:
    """The network that these choices make."""
    rank = (2, 2, 1, 3)[number(0, 3)]
    facts = _Facts(rank=rank)
    size = ({1: 8, 2: 6, 3: 4}[rank], 6 if rank == 2 else 4, 0, -1)[number(0, 3)]
    tokens = size < 0 and number(0, 1) == 1
    texts: list[str] = []
    units: list[_Unit] = []
    for index in range(number(0, 2)):
        text, unit = _write_unit(number, facts, units, index, size, traps and number(0, 1) == 1)
        texts.append(text)
        units.append(unit)
    writer = _Writer(number, facts, units, traps)
    channels = writer.choose((4, 2))
    names = ["x", "y"] if writer.chance(4) else ["x"]
    if tokens:
        facts.operations.add("Embedding")
        embed = writer.layer("embed", f"nn.Embedding({VOCABULARY}, {channels})")
        for name in reversed(names):
            writer.emit(f"self.{embed}({name})", channels, size, fresh=True)
    else:
        writer.values += [_Value(name, channels, size) for name in reversed(names)]
    writer.weighted()
    writer.run(2, 9)
    if writer.chance(2):
        writer.head()
        writer.run(0, 3)
        writer.weighted()
    last, other, third = writer.values[-1], writer.choose(writer.values), writer.choose(writer.values)
    if tokens and last.channels == channels and writer.chance(2):
        facts.operations.add("Linear")
        head = writer.layer("head", f"nn.Linear({channels}, {VOCABULARY}, bias=False)")
        writer.init.append(f"self.{head}.weight = self.{embed}.weight")
        last = writer.emit(f"self.{head}({last.name})", VOCABULARY, last.size)
    result = writer.choose(RESULTS).format(a=last.name, b=other.name, c=third.name)
    signature = ", ".join(["self", *names, *(["scale=None"] if not tokens and writer.chance(4) else [])])
    if "scale" in signature:
        writer.body.insert(0, "x = x if scale is None else x * scale")
    texts.append(writer.text("Network", signature, result))
    shape = (
        (2, LENGTH)
        if tokens
        else {1: (2, channels, *[size] * rank), 0: (2, channels), -1: (2, LENGTH, channels)}[kind_of(size)]
    )
    return Network(
        HEADER + "".join(texts),
        dict.fromkeys(names, shape),
        writer.chance(4),
        frozenset(facts.operations),
        tuple(writer.children),
        facts.in_place,
        facts.shares_blocks,
        "scale" in signature,
        frozenset(facts.traps),
        tokens,
    )
