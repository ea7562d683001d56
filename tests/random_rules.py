"""Random rules that mean something for a random network, each with what the oracle must say about it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from counting import Call, calls, edges
from hypothesis import strategies as st
from strategies import Network

Draw = Callable[[st.SearchStrategy[Any]], Any]

FAMILIES = {
    "activation": frozenset(("ReLU", "GELU", "Sigmoid", "Tanh", "SiLU", "ReLU6", "Hardswish")),
    "norm": frozenset(("BatchNorm2d", "BatchNorm1d", "GroupNorm", "LayerNorm")),
    "dropout": frozenset(("Dropout",)),
    "conv": frozenset(("Conv2d",)),
    "linear": frozenset(("Linear",)),
    "pool": frozenset(("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d")),
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
WEIGHTED = ("Conv2d", "Linear", "BatchNorm2d", "BatchNorm1d", "GroupNorm", "LayerNorm")
"""what has parameters"""
MERGES = ("add", "mul", "cat")


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

    @property
    def text(self) -> str:
        parts = [f"{self.pick} {' | '.join(self.names)}".strip()]
        parts += [f'in "{self.inside}.**"'] * bool(self.inside)
        parts += [f'except "{self.outside}.**"'] * bool(self.outside)
        return " ".join(parts)

    @property
    def where(self) -> str:
        return f" where {'' if self.following else 'not '}has_next({self.next})" if self.next else ""

    def chosen(self, found: Sequence[Call]) -> list[Call]:
        """The calls that the oracle says this selector means."""
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
        if self.next:
            followed = {id(producer) for name in self.names for producer, _, _ in edges(found, name, self.next)}
            chosen = [call for call in chosen if (id(call) in followed) == self.following]
        return chosen


def _is(call: Call, name: str) -> bool:
    return call.operation == name or call.operation in FAMILIES.get(name, ()) or call.spelling == name


def _lies_in(call: Call, path: str) -> bool:
    inside = call.path.startswith(path + ".")
    return inside or (call.path == path and not call.is_module)


@dataclass(frozen=True)
class Rule:
    """One clause and what is known about it without the engine."""

    text: str
    action: str
    """`insert`, `remove`, `replace`, `freeze`, `reset` or `set`"""
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


ANYWHERE = (("Dropout(0.125)", True), ("Identity", True), ("Dropout(0.125) -> Identity", True), ("GELU", False))
"""what fits behind any floating-point value, and whether it changes nothing in eval mode"""
AFTER = {
    "Conv2d": ("BatchNorm2d", "BatchNorm2d(eps=1e-3) -> ReLU", "GroupNorm(num_groups=1)", "Conv2d(kernel_size=1)"),
    "Linear": ("LayerNorm", "BatchNorm1d", "Linear"),
    "BatchNorm2d": ("BatchNorm2d",),
}
BEFORE = {"Conv2d": ("BatchNorm2d", "GroupNorm(num_groups=1)"), "Linear": ("LayerNorm", "BatchNorm1d")}
"""layers whose arguments follow from the neighbour's"""


@functools.lru_cache(maxsize=64)
def _links(network: Network) -> tuple[tuple[str, str], ...]:
    """(producer, consumer) of every edge that a run shows, by name of operation."""
    found = calls(network.build(), network.inputs())
    names = {(made.producer.operation, call.operation) for call in found for made in call.operands if made.producer}
    return tuple(sorted(names))


REPLACEMENTS = (
    ("ReLU", "GELU"),
    ("ReLU", "LeakyReLU(0.2)"),
    ("Dropout", "Identity"),
    ("Dropout", "Dropout(0.4)"),
    ("BatchNorm2d", "GroupNorm(num_groups=1)"),
    ("Sigmoid", "Hardsigmoid"),
    ("Linear", "Linear(bias=false)"),
)


def _operation(draw: Draw, network: Network, options: Sequence[str] = (), rarely: Sequence[str] = ()) -> str:
    """An operation that the network has; sometimes one that it has not."""
    present = sorted(network.operations & set(options) if options else network.operations)
    absent = [*rarely, "ReLU", "Conv2d", "Mish"]
    return draw(st.sampled_from(present * 12 + absent if present else absent))


def _selector(draw: Draw, network: Network, name: str) -> Selector:
    """`name`, perhaps narrowed or widened."""
    kind = draw(st.integers(0, 9))
    block = draw(st.sampled_from(network.blocks)) if network.blocks else ""
    spelled = [text for text, operation in SPELLINGS.items() if operation == name]
    families = [family for family, members in FAMILIES.items() if name in members]
    match kind:
        case 4 if spelled:
            return Selector((draw(st.sampled_from(spelled)),))
        case 5 if families:
            return Selector((families[0],))
        case 6:
            return Selector((name,), pick=draw(st.sampled_from(("first", "last"))))
        case 7 if block:
            return Selector((name,), inside=block)
        case 8 if block:
            return Selector((name,), outside=block)
        case 9 if not network.traps:
            followers = [consumer for producer, consumer in _links(network) if producer == name]
            other = draw(st.sampled_from([*followers * 3, *sorted(network.operations)]))
            return Selector((name,), next=other, following=draw(st.booleans()))
        case _:
            return Selector((name,))


def _layers(text: str) -> tuple[str, ...]:
    return tuple(part.partition("(")[0].strip() for part in text.split("->"))


def _after(draw: Draw, network: Network) -> Rule:
    name = _operation(draw, network)
    options = ANYWHERE + tuple((text, False) for text in AFTER.get(name, ()))
    text, preserves = draw(st.sampled_from(options))
    selector = _selector(draw, network, name)
    return Rule(
        f"after {selector.text}{selector.where}: insert {text}",
        "insert",
        selector.chosen,
        inserted=_layers(text),
        picks=bool(selector.pick or selector.next),
        preserves=preserves,
    )


def _before(draw: Draw, network: Network) -> Rule:
    name = _operation(draw, network)
    options = ANYWHERE + tuple((text, False) for text in BEFORE.get(name, ()))
    text, preserves = draw(st.sampled_from(options))
    if name in MERGES:
        port = draw(st.integers(0, 1))

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
    selector = _selector(draw, network, name)
    return Rule(
        f"before {selector.text}{selector.where}: insert {text}",
        "insert",
        selector.chosen,
        inserted=_layers(text),
        picks=bool(selector.pick or selector.next),
        preserves=preserves,
    )


def _between(draw: Draw, network: Network) -> Rule:
    """On the edges from one operation to another."""
    links = _links(network)
    one, other = draw(st.sampled_from(links)) if links else ("", "")
    if not links or draw(st.integers(0, 4)) == 4:
        one, other = _operation(draw, network), _operation(draw, network)
    text, preserves = draw(st.sampled_from(ANYWHERE))

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


def _remove(draw: Draw, network: Network) -> Rule:
    options = ("Dropout", "Identity", "ReLU", "BatchNorm2d", "GELU")
    if not network.operations.intersection(options) and draw(st.integers(0, 3)) < 3:
        return _parameters(draw, network)
    name = _operation(draw, network, options, ("Dropout",))
    preserves = name in ("Dropout", "Identity")
    return Rule(f"remove {name}", "remove", Selector((name,)).chosen, removed=name, preserves=preserves)


def _replace(draw: Draw, network: Network) -> Rule:
    present = [pair for pair in REPLACEMENTS if pair[0] in network.operations]
    if not present and draw(st.integers(0, 3)) < 3:
        return _parameters(draw, network)
    old, new = draw(st.sampled_from(present * 8 + [REPLACEMENTS[0]]))
    return Rule(
        f"replace {old} with {new}",
        "replace",
        Selector((old,)).chosen,
        inserted=_layers(new),
        removed=old,
        preserves=old == "Dropout",
    )


def _parameters(draw: Draw, network: Network) -> Rule:
    """Freezing, initialising, setting an attribute: rules about layers, not calls."""
    name = _operation(draw, network, WEIGHTED, ("Conv2d",))
    texts = [
        (f"freeze {name}", "freeze", (name,)),
        (f"freeze params {name}", "freeze", (name,)),
        ("freeze any", "freeze", WEIGHTED),
        (f"freeze any except {name}", "freeze", tuple(other for other in WEIGHTED if other != name)),
        (f"reset {name}", "reset", (name,)),
    ]
    if "Norm" in name:
        texts.append((f"at {name}: set self.eps=1e-3", "set", (name,)))
    text, action, names = draw(st.sampled_from(texts))

    def sites(found: Sequence[Call]) -> list[Call]:
        return [call for call in Selector(names).chosen(found) if call.is_module]

    return Rule(text, action, sites, preserves=action == "freeze")


KINDS = {
    "after": _after,
    "before": _before,
    "between": _between,
    "remove": _remove,
    "replace": _replace,
    "parameters": _parameters,
}


@st.composite
def rules(draw: Draw, network: Network, kinds: Sequence[str] = tuple(KINDS)) -> Rule:
    """A random rule of one of `kinds`."""
    return KINDS[draw(st.sampled_from(tuple(kinds)))](draw, network)
