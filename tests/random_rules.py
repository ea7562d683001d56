"""Random rules that mean something for a random network, each with what the oracle must say about it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from counting import Call, calls, edges
from hypothesis import strategies as st
from strategies import Network, Number

FAMILIES = {
    "activation": frozenset(("ReLU", "GELU", "Sigmoid", "Tanh", "SiLU", "ReLU6", "Hardswish")),
    "norm": frozenset(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "LayerNorm")),
    "dropout": frozenset(("Dropout",)),
    "conv": frozenset(f"{stem}{rank}d" for stem in ("Conv", "ConvTranspose") for rank in (1, 2, 3)),
    "linear": frozenset(("Linear",)),
    "pool": frozenset(f"{stem}{rank}d" for stem in ("MaxPool", "AvgPool", "AdaptiveAvgPool") for rank in (1, 2, 3)),
}
SPELLINGS = {
    "nn.ReLU": "ReLU",
    "F.relu": "ReLU",
    "torch.relu": "ReLU",
    "nn.Conv2d": "Conv2d",
    "nn.Linear": "Linear",
    "nn.Dropout": "Dropout",
    "F.dropout": "Dropout",
}
WEIGHTED = (
    *(f"{stem}{rank}d" for rank in (1, 2, 3) for stem in ("Conv", "ConvTranspose", "BatchNorm")),
    *("Linear", "GroupNorm", "LayerNorm", "Embedding", "LSTM", "MultiheadAttention"),
)
"""what has parameters"""
MERGES = ("add", "mul", "cat", "matmul")
SEVERAL_VALUES = ("LSTM", "MultiheadAttention")
"""what returns more than one tensor"""


def choose(number: Number, options: Sequence[Any]) -> Any:
    return options[number(0, len(options) - 1)]


@dataclass(frozen=True)
class Selector:
    """Which calls a rule names."""

    names: tuple[str, ...]
    """operations, families or spellings, joined by `|`"""
    pick: str = ""
    inside: str = ""
    """path of a block that the calls must lie in"""
    outside: str = ""
    """path of a block that they must not lie in"""
    next: str = ""
    """operation that must consume the output directly"""
    following: bool = True
    """False: must not consume it"""
    question: str = "has_next"
    """or `has_prev`: about what the call takes"""
    path: str = ""
    """path of a layer, in place of names"""

    @property
    def text(self) -> str:
        name = f'"{self.path}"' if self.path else " | ".join(self.names)
        parts = [f"{self.pick} {name}".strip()]
        parts += [f'in "{self.inside}.**"'] * bool(self.inside)
        parts += [f'except "{self.outside}.**"'] * bool(self.outside)
        return " ".join(parts)

    @property
    def where(self) -> str:
        return f" where {'' if self.following else 'not '}{self.question}({self.next})" if self.next else ""

    def chosen(self, found: Sequence[Call]) -> list[Call]:
        """The calls that the oracle says this selector means."""
        if self.path:
            return [call for call in found if call.is_module and call.path == self.path]
        chosen = [call for call in found if any(_is(call, name) for name in self.names)]
        if self.inside:
            chosen = [call for call in chosen if _lies_in(call, self.inside)]
        if self.outside:
            chosen = [call for call in chosen if not _lies_in(call, self.outside)]
        match self.pick:
            case "first":
                chosen = chosen[:1]
            case "last":
                chosen = chosen[-1:]
            case "nth(2)":
                chosen = chosen[1:2]
            case "every(2)":
                chosen = chosen[1::2]
        if self.next and self.question == "has_prev":
            followed = {id(consumer) for name in self.names for _, consumer, _ in edges(found, self.next, name)}
            chosen = [call for call in chosen if (id(call) in followed) == self.following]
        elif self.next:
            followed = {id(producer) for name in self.names for producer, _, _ in edges(found, name, self.next)}
            chosen = [call for call in chosen if (id(call) in followed) == self.following]
        return chosen


def _is(call: Call, name: str) -> bool:
    if name.startswith("nn."):  # a class is meant with its subclasses
        return call.is_module and call.operation == SPELLINGS[name]
    return call.operation == name or call.operation in FAMILIES.get(name, ()) or call.spelling == name


def _lies_in(call: Call, path: str) -> bool:
    inside = call.path.startswith(path + ".")
    return inside or (call.path == path and not call.is_module)


@dataclass(frozen=True)
class Rule:
    """One clause and what is known about it without the engine."""

    text: str
    action: str
    """`insert`, `remove`, `replace`, `freeze`, `reset`, `set`, `wrap`, `tap` or `fold`"""
    sites: Callable[[Sequence[Call]], Sequence[Call]]
    """the calls at which the oracle expects it to act; for an edge, the consumer"""
    inserted: tuple[str, ...] = ()
    """operations that run once more for each site"""
    removed: str = ""
    """operation that runs no more at the sites"""
    picks: bool = False
    """whether sites depend on an order or on neighbours, which a forward that is not captured does not show"""
    preserves: bool = False
    """in eval mode the outputs stay the same bit for bit"""

    def __repr__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


ANYWHERE = (
    ("Dropout(0.125)", True),
    ("Identity", True),
    ("Dropout(0.125) -> Identity", True),
    ("DropPath(0.125)", True),
    ("GELU", False),
)
"""what fits behind any floating-point value, and whether it changes nothing in eval mode"""
AFTER = {
    "Linear": ("LayerNorm", "Linear"),
    **{
        f"Conv{rank}d": (
            f"BatchNorm{rank}d",
            f"BatchNorm{rank}d; set prev.activation=identity",
            f"BatchNorm{rank}d(eps=1e-3) -> ReLU",
            "GroupNorm(num_groups=1)",
            f"Conv{rank}d(kernel_size=1)",
        )
        for rank in (1, 2, 3)
    },
    **{f"BatchNorm{rank}d": (f"BatchNorm{rank}d",) for rank in (2, 3)},
}
BEFORE = {
    "Linear": ("LayerNorm",),
    **{f"Conv{rank}d": (f"BatchNorm{rank}d", "GroupNorm(num_groups=1)") for rank in (1, 2, 3)},
}
"""layers whose arguments follow from the neighbour's"""


@functools.lru_cache(maxsize=8)
def _calls(network: Network) -> tuple[Call, ...]:
    return tuple(calls(network.build(), network.inputs()))


@functools.lru_cache(maxsize=8)
def _links(network: Network) -> tuple[tuple[str, str], ...]:
    """(producer, consumer) of every edge that a run shows, by name of operation."""
    found = _calls(network)
    names = {(made.producer.operation, call.operation) for call in found for made in call.operands if made.producer}
    return tuple(sorted(names))


REPLACEMENTS = (
    ("ReLU", "GELU"),
    ("ReLU", "LeakyReLU(0.2)"),
    ("Dropout", "Identity"),
    ("Dropout", "Dropout(0.4)"),
    ("ReLU", "PReLU per call"),
    *((f"BatchNorm{rank}d", "GroupNorm(num_groups=1)") for rank in (2, 3)),
    *((f"Conv{rank}d as c", f"Conv{rank}d(c.in_channels, c.out_channels, 3, padding=1)") for rank in (1, 2, 3)),
    ("Sigmoid", "Hardsigmoid"),
    ("Linear", "Linear(bias=false)"),
)


def _operation(number: Number, network: Network, options: Sequence[str] = ()) -> str:
    """An operation that the network has; sometimes one that it has not."""
    present = sorted(network.operations & set(options) if options else network.operations)
    absent = ["ReLU", "Conv2d", "Mish"]
    return choose(number, present * 12 + absent if present else absent)


def _selector(number: Number, network: Network, name: str) -> Selector:
    """`name`, perhaps narrowed or widened."""
    kind = number(0, 12)
    block = choose(number, network.blocks) if network.blocks else ""
    spelled = [text for text, operation in SPELLINGS.items() if operation == name]
    families = [family for family, members in FAMILIES.items() if name in members]
    match kind:
        case 4 if spelled:
            return Selector((choose(number, spelled),))
        case 5 if families:
            return Selector((families[0],))
        case 6:
            return Selector((name,), pick=choose(number, ("first", "last", "nth(2)", "every(2)")))
        case 7 if block:
            return Selector((name,), inside=block)
        case 8 if block:
            return Selector((name,), outside=block)
        case 9 if not network.traps:
            followers = [consumer for producer, consumer in _links(network) if producer == name]
            other = choose(number, [*followers * 3, *sorted(network.operations)])
            return Selector((name,), next=other, following=number(0, 1) == 0)
        case 10 if not network.traps:
            leaders = [producer for producer, consumer in _links(network) if consumer == name]
            other = choose(number, [*leaders * 3, *sorted(network.operations)])
            return Selector((name,), next=other, following=number(0, 1) == 0, question="has_prev")
        case 11 if name not in MERGES:
            others = sorted(network.operations - {name, *MERGES, *SEVERAL_VALUES, "Embedding"})
            return Selector((name, choose(number, others))) if others else Selector((name,))
        case 12:
            paths = [call.path for call in _calls(network) if call.operation == name and call.is_module and call.path]
            return Selector((name,), path=choose(number, sorted(set(paths)))) if paths else Selector((name,))
        case _:
            return Selector((name,))


def _layers(text: str) -> tuple[str, ...]:
    layers = text.partition(";")[0].removesuffix(" per call").removesuffix(" per layer")
    return tuple(part.partition("(")[0].strip() for part in layers.split("->"))


def _after(number: Number, network: Network) -> Rule:
    name = _operation(number, network)
    options = ANYWHERE + tuple((text, False) for text in AFTER.get(name, ()))
    text, preserves = choose(number, options)
    selector = _selector(number, network, name)
    if "; set" not in text and number(0, 7) == 7:
        text += " per layer" if number(0, 1) else " per call"
    return Rule(
        f"after {selector.text}{selector.where}: insert {text}",
        "insert",
        selector.chosen,
        inserted=_layers(text),
        picks=bool(selector.pick or selector.next or "per " in text),
        preserves=preserves,
    )


def _before(number: Number, network: Network) -> Rule:
    name = _operation(number, network, sorted(network.operations - {*SEVERAL_VALUES, "Embedding"}))
    options = ANYWHERE + tuple((text, False) for text in BEFORE.get(name, ()))
    text, preserves = choose(number, options)
    if name in MERGES:
        port = number(0, 1)

        def sites(found: Sequence[Call]) -> list[Call]:
            return [call for call in Selector((name,)).chosen(found) if len(call.operands) > port]

        return Rule(
            f"before {name}@{port}: insert {text}",
            "insert",
            sites,
            inserted=_layers(text),
            picks=True,
            preserves=preserves,
        )
    selector = _selector(number, network, name)
    return Rule(
        f"before {selector.text}{selector.where}: insert {text}",
        "insert",
        selector.chosen,
        inserted=_layers(text),
        picks=bool(selector.pick or selector.next or "per " in text),
        preserves=preserves,
    )


def _between(number: Number, network: Network) -> Rule:
    """On the edges from one operation to another."""
    links = [link for link in _links(network) if not set(link) & {*SEVERAL_VALUES, "Embedding"}]
    one, other = choose(number, links) if links else ("", "")
    if not links or number(0, 4) == 4:
        options = sorted(network.operations - {*SEVERAL_VALUES, "Embedding"})
        one, other = (_operation(number, network, options) for _ in range(2))
    text, preserves = choose(number, ANYWHERE)

    def sites(found: Sequence[Call]) -> list[Call]:
        return [consumer for _, consumer, _ in edges(found, one, other)]

    return Rule(
        f"between {one} and {other}: insert {text}",
        "insert",
        sites,
        inserted=_layers(text),
        picks=True,
        preserves=preserves,
    )


def _remove(number: Number, network: Network) -> Rule:
    options = ("Dropout", "Identity", "ReLU", "BatchNorm2d", "GELU")
    if not network.operations.intersection(options) and number(0, 3) < 3:
        return _parameters(number, network)
    name = _operation(number, network, options)
    preserves = name in ("Dropout", "Identity")
    return Rule(f"remove {name}", "remove", Selector((name,)).chosen, removed=name, preserves=preserves)


def _replace(number: Number, network: Network) -> Rule:
    present = [pair for pair in REPLACEMENTS if pair[0].partition(" ")[0] in network.operations]
    if not present and number(0, 3) < 3:
        return _parameters(number, network)
    old, new = choose(number, present * 8 + [REPLACEMENTS[0]])
    text = f"replace {old} with {new}"
    old = old.partition(" ")[0]
    return Rule(
        text,
        "replace",
        Selector((old,)).chosen,
        inserted=_layers(new),
        removed=old,
        preserves=old == "Dropout",
    )


def _parameters(number: Number, network: Network) -> Rule:
    """Freezing, initialising, setting an attribute: rules about layers, not calls."""
    name = _operation(number, network, WEIGHTED)
    texts = [
        (f"freeze {name}", "freeze", (name,)),
        (f"freeze params {name}", "freeze", (name,)),
        ("freeze any", "freeze", WEIGHTED),
        (f"freeze any except {name}", "freeze", tuple(other for other in WEIGHTED if other != name)),
        (f"reset {name}", "reset", (name,)),
        (f"reset {name} with normal(std=0.1)", "reset", (name,)),
        (f"freeze stats {name}" if "BatchNorm" in name else f"unfreeze {name}", "freeze", (name,)),
    ]
    if "Norm" in name:
        texts.append((f"at {name}: set self.eps=1e-3", "set", (name,)))
    text, action, names = choose(number, texts)

    def sites(found: Sequence[Call]) -> list[Call]:
        chosen = [call for call in Selector(names).chosen(found) if call.is_module]
        return [call for call in chosen if action != "reset" or call.operation in WEIGHTED]

    return Rule(text, action, sites, preserves=action == "freeze")


def _wrap(number: Number, network: Network) -> Rule:
    """A layer beside the one that is there, which adds nothing at first."""
    options = ("Linear", "Conv1d", "Conv2d", "Conv3d")
    present = sorted(network.operations & set(options))
    name = choose(number, present * 12 + ["Linear", "Conv2d"])
    selector = _selector(number, network, name)
    if selector.names != (name,) and "nn." not in selector.text:  # others may be meant too, which cannot be wrapped
        selector = Selector((name,))
    return Rule(
        f"wrap {selector.text}{selector.where} with LoRA(rank=1)",
        "wrap",
        selector.chosen,
        picks=bool(selector.pick or selector.next),
        preserves=True,
    )


def _tap(number: Number, network: Network) -> Rule:
    options = sorted(network.operations - set(SEVERAL_VALUES))
    name = _operation(number, network, options)
    selector = Selector((name,), pick=choose(number, ("first", "last")))
    return Rule(f"tap seen = {selector.text}", "tap", selector.chosen, picks=True, preserves=True)


def _fold(number: Number, network: Network) -> Rule:
    """Of pairs that have nothing else between them, which an oracle of calls alone cannot tell."""
    ranks = [rank for rank in (1, 2, 3) if f"BatchNorm{rank}d" in network.operations]
    if not ranks:
        return _wrap(number, network)
    rank = choose(number, ranks)
    name = choose(number, (f"Conv{rank}d", "Linear")) if rank == 1 else f"Conv{rank}d"
    return Rule(f"fold BatchNorm{rank}d into {name}", "fold", lambda found: (), picks=True, preserves=True)


def _match(number: Number, network: Network) -> Rule:
    """Two calls that follow each other, by name; what is inserted stands at the second one's input."""
    links = [link for link in _links(network) if not set(link) & {*SEVERAL_VALUES, "Embedding", *MERGES}]
    if not links:
        return _after(number, network)
    one, other = choose(number, links)
    text, preserves = choose(number, ANYWHERE)
    where = choose(number, ("", f" where a is {one}", " where b.has_prev(a)", f" where not a is {other}"))

    def sites(found: Sequence[Call]) -> list[Call]:
        if where.endswith(f"not a is {other}") and one == other:
            return []
        return [consumer for _, consumer, _ in edges(found, one, other)]

    return Rule(
        f"match {one} as a -> {other} as b{where}: before b: insert {text}",
        "insert",
        sites,
        inserted=_layers(text),
        picks=True,
        preserves=preserves,
    )


KINDS = {
    "after": _after,
    "before": _before,
    "between": _between,
    "remove": _remove,
    "replace": _replace,
    "parameters": _parameters,
    "wrap": _wrap,
    "tap": _tap,
    "fold": _fold,
    "match": _match,
}


@st.composite
def rules(draw: Callable[[st.SearchStrategy[int]], int], network: Network, kinds: Sequence[str] = tuple(KINDS)) -> Rule:
    """A random rule of one of `kinds`."""
    return write_rule(lambda least, most: draw(st.integers(least, most)), network, kinds)


def write_rule(number: Number, network: Network, kinds: Sequence[str] = tuple(KINDS)) -> Rule:
    """The rule that these choices make."""
    return KINDS[choose(number, tuple(kinds))](number, network)
