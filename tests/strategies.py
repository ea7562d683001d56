"""Random networks as real Python modules, and random rules that mean something for them.

A network is written as source text from a random program and executed, so that its forward is ordinary Python: residual
adds, concatenations, pieces, shared layers, in-place calls behind a branch, every spelling of an operation, blocks of
its own, several outputs, keyword inputs. All choices are Hypothesis draws with the plainest one first, so that a
failing network shrinks to a short one, and `Network.source` is what one pastes into a file.
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

Draw = Callable[[st.SearchStrategy[Any]], Any]

HEADER = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"


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
        made = {name: torch.randn(shape, generator=generator) for name, shape in self.shapes.items()}
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
    """A tensor in the program: a map (channels, size) or, with size 0, a vector of features."""

    name: str
    channels: int
    size: int
    fresh: bool = False
    """may be updated in place: no call has kept it for its backward pass, and it is nobody else's"""


@dataclass(eq=False)
class _Unit:
    """A user's block that was written before: what it takes and returns."""

    kind: str
    channels: int
    size: int
    out: tuple[int, ...]
    """channels of each output"""
    form: str
    """`one`, `tuple` or `dict`"""
    keyword: bool


@dataclass(eq=False)
class _Facts:
    """What is gathered while the source is written."""

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
    "torch.cat([{all}], 1)",
    "torch.cat([{all}], dim=1)",
    "torch.cat(({all},), dim=1)",
    "torch.cat(dim=1, tensors=[{all}])",
)
DROPOUTS = (
    "F.dropout({x}, 0.25, training=self.training)",
    "F.dropout({x}, 0.25, self.training)",
    "F.dropout({x}, p=0.25, training=self.training)",
)


class _Writer:
    """Writes one class: layers in `__init__`, statements in `forward`."""

    def __init__(self, draw: Draw, facts: _Facts, units: Sequence[_Unit], trapped: bool) -> None:
        self.draw, self.facts, self.units, self.trapped = draw, facts, units, trapped
        self.init: list[str] = []
        self.body: list[str] = []
        self.values: list[_Value] = []
        self.layers: list[tuple[str, int, int, int]] = []
        """(name, channels in, channels out, size or 0) of layers that a later statement may call again"""
        self.children: list[str] = []
        self.counts: dict[str, int] = {}

    # ---- choices

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def choose(self, options: Sequence[Any]) -> Any:
        return options[self.draw(st.integers(0, len(options) - 1))]

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
        name = self.layer(*self.weighted_layer(value, out))
        call = self.choose(("self.{layer}({x})", "self.{layer}(input={x})"))
        value.fresh = False
        self.layers.append((name, value.channels, out, value.size))
        self.emit(call.format(layer=name, x=value.name), out, value.size, fresh=True)

    def weighted_layer(self, value: _Value, out: int) -> tuple[str, str]:
        if not value.size:
            self.uses("Linear")
            return "fc", f"nn.Linear({value.channels}, {out}{self.choose(('', ', bias=False'))})"
        self.uses("Conv2d")
        shape = self.choose(("3, padding=1", "1", "3, padding=1, bias=False", "(1, 3), padding=(0, 1)"))
        return "conv", f"nn.Conv2d({value.channels}, {out}, {shape})"

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
        kind = self.choose(("BatchNorm2d", "GroupNorm") if value.size else ("LayerNorm", "BatchNorm1d"))
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
        for _ in range(self.draw(st.integers(1, 2))):
            chosen.append(self.pick(lambda value: value.size == first.size) or first)
        channels = sum(value.channels for value in chosen)
        if channels > 24:
            return
        self.uses("cat")
        text = self.choose(CATS).format(all=", ".join(value.name for value in chosen))
        self.emit(text, channels, first.size, fresh=True)

    def pieces(self) -> None:
        value = self.pick(lambda value: value.channels >= 2)
        if value is None:
            return
        value.fresh = False
        if value.channels % 2 == 0 and not self.chance(2):
            sizes = [value.channels // 2] * 2
            text = self.choose(("{x}.chunk(2, 1)", "torch.chunk({x}, 2, dim=1)"))
        else:
            sizes = [1, value.channels - 1]
            text = self.choose(("torch.split({x}, {sizes}, 1)", "{x}.split({sizes}, dim=1)"))
        parts = [_Value(self.name("v"), channels, value.size) for channels in sizes]
        names = ", ".join(part.name for part in parts)
        self.body.append(f"{names} = {text.format(x=value.name, sizes=sizes)}")
        self.values += parts

    def again(self) -> None:
        """A layer that was called before, once more."""
        options = [
            (layer, value)
            for layer in self.layers
            for value in self.values[-4:]
            if layer[1] == value.channels and bool(layer[3]) == bool(value.size)
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
        for _ in range(self.draw(st.integers(1, 3))):
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
                        if unit.form == "one" and not unit.keyword
                        if (unit.channels, bool(unit.size)) == (channels, bool(value.size))
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
            if (unit.channels, bool(unit.size)) == (value.channels, bool(value.size))
        ]
        if not fit:
            return
        unit, value = self.choose(fit)
        value.fresh = False
        name = self.layer("block", f"{unit.kind}()")
        self.children.append(name)
        twice = unit.out == (unit.channels,) and self.chance(4)
        self.facts.shares_blocks |= twice
        for _ in range(1 + twice):
            call = f"self.{name}({'x=' if unit.keyword else ''}{value.name})"
            if unit.form == "one":
                value = self.emit(call, unit.out[0], value.size)
                continue
            if unit.form == "tuple":
                parts = [_Value(self.name("v"), channels, value.size) for channels in unit.out]
                self.body.append(f"{', '.join(part.name for part in parts)} = {call}")
                self.values += parts
                continue
            held = self.name("d")
            self.body.append(f"{held} = {call}")
            for key, channels in zip("ab", unit.out, strict=False):
                self.emit(f'{held}["{key}"]', channels, value.size)

    def pool(self) -> None:
        value = self.pick(lambda value: value.size >= 2)
        if value is None:
            return
        value.fresh = False
        kind, call = self.choose(
            (
                ("MaxPool2d", ""),
                ("AvgPool2d", ""),
                ("MaxPool2d", "F.max_pool2d({x}, 3, 1, 1)"),
                ("AvgPool2d", "F.avg_pool2d({x}, 3, stride=1, padding=1)"),
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
        self.uses("Conv2d", "ReLU", "Sigmoid", "mul")
        gate = self.choose(("F.adaptive_avg_pool2d({x}, 1)", "{x}.mean((2, 3), keepdim=True)")).format(x=value.name)
        if gate.startswith("F."):
            self.uses("AdaptiveAvgPool2d")
        for number in range(2):
            name = self.layer("conv", f"nn.Conv2d({channels}, {channels}, 1)")
            gate = f"self.{name}({gate})"
            gate = f"F.relu({gate})" if number == 0 else f"torch.sigmoid({gate})"
        self.emit(f"{value.name} * {gate}", channels, value.size)

    def trap(self) -> None:
        """A statement that a trace would change or cannot follow."""
        value = self.pick()
        assert value is not None
        kind = self.choose(("no_grad", "branch", "state", "ignored", "items"))
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
            case "ignored":
                self.facts.in_place = True
                value.fresh = False
                self.init[-1] = f"self.{relu} = nn.ReLU(inplace=True)"
                self.body.append(self.choose((f"self.{relu}({x})", f"F.relu({x}, True)", f"{x}.relu_()")))

    def head(self) -> None:
        """From a map to features."""
        value = self.values[-1]
        if not value.size:
            return
        value.fresh = False
        match self.choose(("mean", "pool", "layers")):
            case "mean":
                self.emit(f"{value.name}.mean((2, 3))", value.channels, 0)
            case "pool":
                self.uses("AdaptiveAvgPool2d", "Flatten")
                self.emit(f"torch.flatten(F.adaptive_avg_pool2d({value.name}, (1, 1)), 1)", value.channels, 0)
            case _:
                self.uses("AdaptiveAvgPool2d", "Flatten")
                name = self.layer("squash", "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())")
                self.emit(f"self.{name}({value.name})", value.channels, 0)

    def run(self, least: int, most: int) -> None:
        """Random statements."""
        kinds = [self.weighted, self.relu, self.add, self.norm, self.dropout, self.cat, self.activation, self.relu]
        kinds += [self.again, self.sequential, self.unit, self.pieces, self.mul, self.weighted, self.pool, self.squeeze]
        kinds += [self.trap] * 2 * self.trapped
        for _ in range(self.draw(st.integers(least, most))):
            self.choose(kinds)()

    def text(self, kind: str, signature: str, result: str) -> str:
        init = [f"        {line}\n" for line in self.init]
        body = [f"        {line}\n" for line in self.body]
        return (
            f"\n\nclass {kind}(nn.Module):\n    def __init__(self):\n        super().__init__()\n{''.join(init)}"
            f"\n    def forward({signature}):\n{''.join(body)}        return {result}\n"
        )


def _write_unit(
    draw: Draw, facts: _Facts, units: Sequence[_Unit], number: int, size: int, trapped: bool
) -> tuple[str, _Unit]:
    """A block class."""
    writer = _Writer(draw, facts, units, trapped)
    channels = draw(st.sampled_from((4, 2)))
    writer.values.append(_Value("x", channels, size))
    writer.run(1, 4)
    last = writer.values[-1]
    keyword = writer.chance(4)
    form = draw(st.sampled_from(("one", "one", "residual", "tuple", "dict")))
    outs = [last]
    result = last.name
    if form == "residual":
        form = "one"
        if last.channels == channels:
            result = f"{last.name} + x"
            facts.operations.add("add")
    elif form != "one":
        outs.append(writer.choose(writer.values))
        result = f"{last.name}, {outs[1].name}" if form == "tuple" else f'{{"a": {last.name}, "b": {outs[1].name}}}'
    kind = f"Block{number}"
    text = writer.text(kind, "self, *, x" if keyword else "self, x", result)
    return text, _Unit(kind, channels, size, tuple(value.channels for value in outs), form, keyword)


@st.composite
def networks(draw: Draw, traps: bool = False) -> Network:
    """A random network; with `traps` some forwards do what a trace cannot follow."""
    facts = _Facts()
    size = draw(st.sampled_from((6, 6, 0)))
    texts: list[str] = []
    units: list[_Unit] = []
    for number in range(draw(st.integers(0, 2))):
        text, unit = _write_unit(draw, facts, units, number, size, traps and draw(st.booleans()))
        texts.append(text)
        units.append(unit)
    writer = _Writer(draw, facts, units, traps)
    channels = draw(st.sampled_from((4, 2)))
    names = ["x", "y"] if writer.chance(4) else ["x"]
    writer.values += [_Value(name, channels, size) for name in reversed(names)]
    writer.weighted()
    writer.run(2, 9)
    if writer.chance(2):
        writer.head()
        writer.run(0, 3)
        writer.weighted()
    last = writer.values[-1]
    other = writer.choose(writer.values)
    result = writer.choose(
        ("{a}", "{a}", "{a}, {b}", '{{"out": {a}, "more": [{b}]}}', "[{a}, {b}]", '{{"out": ({a}, {b}), "in": {a}}}')
    ).format(a=last.name, b=other.name)
    signature = ", ".join(["self", *names, *(["scale=None"] if writer.chance(4) else [])])
    if "scale" in signature:
        writer.body.insert(0, "x = x if scale is None else x * scale")
    texts.append(writer.text("Network", signature, result))
    shape = (2, channels, size, size) if size else (2, channels)
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
    )
