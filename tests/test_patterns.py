"""Linked calls, small and exact: what a pattern finds in a graph written as text, and in small models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from graphs import captures, clause, graph, matches, sites
from torch import Tensor, nn

from rewrite import PlanError, RewriteError, Rules, apply_rules, get_report
from rewrite.graph import Graph
from rewrite.matcher import Context, Matcher

RESIDUAL = "a=Conv2d(x); b=BatchNorm2d(a); r=ReLU(b); c=Conv2d(r); s=add(c, b); o=ReLU(s)"
INCEPTION = "a=ReLU(x); p=Conv2d(a); q=Conv2d(a); r=ReLU(q); m=MaxPool2d(a); t=Conv2d(m); k=cat(p, r, t); l=Linear(k)"
DENSE = "a=Conv2d(x); b=Conv2d(a); k=cat(a, b); c=Conv2d(k); j=cat(a, b, c); d=Linear(j)"
UNET = "d=Conv2d(x); e=ReLU(d); p=MaxPool2d(e); f=Conv2d(p); g=ReLU(f); u=Upsample(g); k=cat(e, u); h=Conv2d(k)"
BLOCK = "s=Conv2d(x); blk=Block(s > blk.o); blk.c=Conv2d(s); blk.b=BatchNorm2d(blk.c); blk.o=add(blk.b, s); f=ReLU(blk)"

TWO = "a=ReLU(x); b=GELU(x); k=Block(a, b > k.p, k.q); k.p=Conv2d(a); k.q=Linear(b); o=SiLU(k.0); i=ELU(k.1)"


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        # one arrow
        ("a=Conv2d(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c)", "Conv2d -> ReLU", ["a b", "c d"]),
        ("a=Conv2d(x); b=ReLU(a); c=ReLU(a)", "Conv2d -> ReLU", ["a b", "a c"]),
        ("a=Conv2d(x); b=ReLU(x)", "Conv2d -> ReLU", []),
        ("a=Conv2d(x); b=ReLU(a)", "ReLU -> Conv2d", []),
        ("a=ReLU(x); b=ReLU(a); c=ReLU(b); d=ReLU(c)", "ReLU -> ReLU", ["a b", "b c", "c d"]),
        ("a=Conv2d(x); g=chunk(a); r=ReLU(g.0); s=ReLU(g.1)", "chunk -> ReLU", ["g r", "g s"]),
        # and nowhere else
        (RESIDUAL, "Conv2d >> BatchNorm2d", ["a b"]),
        (RESIDUAL, "BatchNorm2d >> ReLU", []),
        (RESIDUAL, "BatchNorm2d -> ReLU", ["b r"]),
        ("a=Conv2d(x); b=add(a, a)", "Conv2d >> add", ["a b"]),
        ("a=Conv2d(x); b=ReLU(a); -> b, a", "Conv2d >> ReLU", []),
        ("a=Conv2d(x); b=ReLU(a); -> b, a", "Conv2d -> ReLU", ["a b"]),
        ("a=Conv2d(x); g=chunk(a); r=ReLU(g.0); s=Conv2d(g.1)", "chunk >> ReLU", []),
        # users in outer calls
        (BLOCK, "Conv2d >> Block", ["s blk"]),
        (BLOCK, "Conv2d >> Conv2d", []),
        (BLOCK, "Conv2d -> Conv2d", ["s blk.c"]),
        (BLOCK, "BatchNorm2d >> add >> ReLU", ["blk.b blk.o f"]),
        (BLOCK, "Block >> ReLU", ["blk f"]),
        (BLOCK, "Conv2d -> Block -> ReLU", ["s blk f"]),
        ("s=Conv2d(x); b=Block(s !); b.c=Conv2d(); r=ReLU(s)", "Conv2d >> ReLU", []),
        ("s=Conv2d(x); b=Block(s !); b.c=Conv2d(); r=ReLU(b)", "Conv2d >> Block >> ReLU", ["s b r"]),
        ("s=Conv2d(x); b=Block(s > s); r=ReLU(b)", "Conv2d >> ReLU", ["s r"]),
        ("b=Block(x > x); r=ReLU(b)", "Block >> ReLU", ["b r"]),
        ("s=Conv2d(x); b=Block(s > b.r, s); b.r=ReLU(s); t=add(b.0, b.1)", "Block >> add", ["b t"]),
        # a call and a part of it are not two calls of one match
        ("b=Block(x > b.r); b.r=ReLU(x); s=add(b, b)", "ReLU as p -> add as s, Block -> s", []),
        # missing calls
        (
            "a=Conv2d(x); b=BatchNorm2d(a); r=ReLU(b); c=Conv2d(r); d=ReLU(c)",
            "Conv2d -> BatchNorm2d? -> ReLU",
            ["a b r", "c d"],
        ),
        ("a=Conv2d(x); b=ReLU(a)", "BatchNorm2d? -> Conv2d -> ReLU", ["a b"]),
        ("n=BatchNorm2d(x); a=Conv2d(n); b=ReLU(a)", "BatchNorm2d? -> Conv2d -> ReLU", ["n a b"]),
        ("a=Conv2d(x); b=Conv2d(a); r=ReLU(b)", "Conv2d -> ReLU?", ["a", "b r"]),
        ("a=Conv2d(x); r=ReLU(a)", "BatchNorm2d? -> Conv2d -> GELU?", ["a"]),
        ("a=Conv2d(x); r=ReLU(a)", "Conv2d -> BatchNorm2d? -> GELU? -> ReLU", ["a r"]),
        ("a=Conv2d(x); b=GELU(a); r=ReLU(b)", "Conv2d -> BatchNorm2d? -> GELU? -> ReLU", ["a b r"]),
        ("a=Conv2d(x); b=BatchNorm2d(a); k=cat(a, b)", "Conv2d -> BatchNorm2d? -> cat", ["a b k"]),
        ("a=Conv2d(x); b=GELU(a); c=BatchNorm2d(a); k=cat(b, c)", "Conv2d -> BatchNorm2d? -> GELU? -> cat", ["a c k"]),
        ("a=Conv2d(x); r=ReLU(a); s=ReLU(a)", "Conv2d >> BatchNorm2d? -> ReLU", []),
        # alternatives
        ("a=ReLU(x); b=GELU(a); c=ReLU(b)", "ReLU | GELU -> ReLU | GELU", ["a b", "b c"]),
        ("a=Conv2d(x); b=Linear(a)", "conv -> linear", ["a b"]),
        ("a=Conv2d(x); b=ReLU(a)", '"a" -> "?"', []),
        ("a=Conv2d(x); b=ReLU(a)", '"*" -> "b"', ["a b"]),
        # inputs
        ("a=Conv2d(x); b=ReLU(x); s=add(a, b)", "Conv2d -> add", ["a s"]),
        ("a=Conv2d(x); b=ReLU(x); s=add(b, a)", "Conv2d -> add", ["a s"]),
        ("a=Conv2d(x); b=ReLU(x); s=add(a, b)", "Conv2d -> add@1", []),
        ("a=Conv2d(x); b=ReLU(x); s=add(b, a)", "Conv2d -> add@1", ["a s"]),
        ("a=Conv2d(x); b=ReLU(x); s=add(a, a)", "Conv2d -> add@1", ["a s"]),
        ("a=Conv2d(x); b=ReLU(x); s=cat(a, b, a)", "Conv2d -> cat@*", ["a s"]),
        ("a=Conv2d(x); s=add(a, a)", "Conv2d as c -> add@0 as s, c -> s@1", ["a s"]),
        ("a=Conv2d(x); b=ReLU(a); s=add(a, b)", "Conv2d as c -> add@1 as s, c -> ReLU -> s@0", []),
        # joins
        (INCEPTION, "ReLU as a -> Conv2d -> cat as k, a -> MaxPool2d -> Conv2d -> k", ["a p k m t"]),
        (INCEPTION, "any as a -> Conv2d as p -> cat as k, a -> Conv2d -> ReLU -> k", ["a p k q r"]),
        (
            INCEPTION,
            "any as a -> Conv2d -> cat as k, a -> any -> ReLU -> k, a -> any -> Conv2d -> k",
            ["a p k q r m t"],
        ),
        (
            "a=ReLU(x); p=Conv2d(a); q=Conv2d(a); s=add(p, q)",
            "any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s",
            ["a p s q"],
        ),
        (
            "a=ReLU(x); p=Conv2d(a); q=Conv2d(a); s=add(q, p)",
            "any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s",
            ["a p s q"],
        ),
        ("a=ReLU(x); p=Conv2d(a); s=add(p, p)", "any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s", []),
        (RESIDUAL, "any as a -> ReLU -> Conv2d -> add as s, a -> s", ["b r c s"]),
        (UNET, "ReLU as e -> MaxPool2d -> Conv2d -> ReLU -> Upsample -> cat as k, e -> k", ["e p f g u k"]),
        # picks
        ("a=Conv2d(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c); e=Conv2d(d)", "last Conv2d -> ReLU", ["c d"]),
        ("a=Conv2d(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c); e=Conv2d(d)", "Conv2d -> first ReLU", ["a b"]),
        (
            "a=Conv2d(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c); e=Conv2d(d)",
            "first Conv2d | last Conv2d -> ReLU",
            ["a b", "c d"],
        ),
        (
            "a=Conv2d(x); b=ReLU(a); c=Linear(b); d=ReLU(c); e=Conv2d(d); f=ReLU(e)",
            "first Conv2d | Linear -> ReLU",
            ["a b", "c d"],
        ),
        ("a=Conv2d(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c); e=Conv2d(d); f=ReLU(e)", "every(2) Conv2d -> ReLU", ["c d"]),
        ("a=Conv2d(x); b=ReLU(a); c=ReLU(a); d=Conv2d(c); e=ReLU(d)", "nth(1) Conv2d -> ReLU", ["a b", "a c"]),
        ("a=Conv2d(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c)", "last Conv2d[bias] -> ReLU", []),
        (
            "a=Conv2d(x | groups=1); b=ReLU(a); c=Conv2d(b | groups=2); d=ReLU(c)",
            "last Conv2d[groups==1] -> ReLU",
            ["a b"],
        ),
        # scopes
        (BLOCK, 'Conv2d -> BatchNorm2d in "blk"', ["blk.c blk.b"]),
        (BLOCK, 'Conv2d -> Conv2d in "blk"', []),
        (BLOCK, "any -> any in Block", ["blk.c blk.b", "blk.b blk.o"]),
        (BLOCK, "any -> any except Block", []),
        (BLOCK, "any -> any except add | BatchNorm2d", ["s blk.c"]),
        # order of execution, whatever is rarer
        ("a=ReLU(x); b=ReLU(a); c=Conv2d(b); d=ReLU(c); e=Conv2d(a)", "ReLU -> any", ["a b", "a e", "b c"]),
        # conditions
        (RESIDUAL, "Conv2d as c -> any as n where c.has_next(BatchNorm2d)", ["a b"]),
        (RESIDUAL, "Conv2d as c -> any where c.uses == 1 and not c.has_prev(ReLU)", ["a b"]),
        (RESIDUAL, "any as a -> any as b where a.only_next(add)", ["c s"]),
        (RESIDUAL, "any as a -> any as b where b.has_prev(a) and b is ReLU", ["b r", "s o"]),
        (INCEPTION, "any as p -> cat, p -> any where p is ReLU", []),
    ],
)
def test_matches(text: str, pattern: str, expected: list[str]) -> None:
    assert matches(text, pattern) == expected


# ---- conditions ----------------------------------------------------------------------------------------------------


def test_a_condition_decides_which_call_has_which_role() -> None:
    """Two ways to lay a pattern on the same calls are one match, and it is found if either way holds."""
    text = "a=ReLU(x); p=Conv2d(a | groups=4); q=Conv2d(a | groups=1); s=add(p, q)"
    pattern = "any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s where "
    assert matches(text, f"{pattern}p.groups > q.groups") == ["a p s q"]
    assert matches(text, f"{pattern}p.groups < q.groups") == ["a q s p"]
    assert matches(text, f"{pattern}p.groups == q.groups") == []
    assert matches(text, f"{pattern}p.groups != q.groups") == ["a p s q"]


def test_without_the_optional_call_where_the_condition_wants_it_so() -> None:
    text = "a=Conv2d(x); b=BatchNorm2d(a); k=cat(a, b)"
    pattern = "Conv2d as a -> BatchNorm2d? as b -> cat where "
    assert captures(text, f"{pattern}a.uses == 2") == [{"a": "a", "b": "b"}]
    assert captures(text, f"{pattern}not b is BatchNorm2d") == [{"a": "a", "b": None}]


def test_a_missing_capture_has_no_attributes() -> None:
    text = "a=Conv2d(x); r=ReLU(a)"
    pattern = "Conv2d -> BatchNorm2d? as b -> ReLU where "
    assert matches(text, f"{pattern}b is BatchNorm2d and b.uses == 1") == []
    assert matches(text, f"{pattern}b is not BatchNorm2d or b.uses == 1") == ["a r"]
    with pytest.raises(RewriteError, match="has no attribute `uses`"):
        matches(text, f"{pattern}b.uses == 1")
    with pytest.raises(RewriteError, match="`has_next` is asked of a call that is missing"):
        matches(text, f"{pattern}b.has_next(ReLU)")


@pytest.mark.parametrize(
    ("text", "condition", "expected"),
    [
        (RESIDUAL, "reaches(add)", "a b r c"),
        (RESIDUAL, "reached_from(add)", "o"),
        (RESIDUAL, "reaches(Linear)", ""),
        (RESIDUAL, "dominates(add)", "a b"),
        (RESIDUAL, "in_branch(add)", "r c"),
        (INCEPTION, "in_branch(cat)", "p q r m t"),
        (INCEPTION, "dominates(Linear)", "a k"),
        (INCEPTION, "reached_from(MaxPool2d)", "t k l"),
        (DENSE, "in_branch(cat)", "b k c"),
        (DENSE, "dominates(Linear)", "a j"),
        (UNET, "in_branch(cat)", "p f g u"),
        (UNET, "dominates(MaxPool2d | Upsample)", "d e p f g"),
        (BLOCK, "dominates(ReLU)", "s blk blk.o"),
        (BLOCK, "reaches(ReLU)", "s blk blk.c blk.b blk.o"),
        (BLOCK, "reaches(Block)", "s"),
        (BLOCK, "in_branch(add)", "blk.c blk.b"),
        # a block on one branch
        ("a=ReLU(x); b=Block(a > b.c); b.c=Conv2d(a); s=add(a, b)", "in_branch(add)", "b b.c"),
        # two outputs of a block do not mix
        (TWO, "reaches(SiLU)", "a k k.p"),
        # a block whose forward could not be captured stands in the way like any call
        ("a=ReLU(x); b=Block(a !); b.c=Conv2d(); r=Linear(b)", "dominates(Linear)", "a b"),
        ("a=ReLU(x); b=Block(a !); b.c=Conv2d(); r=Linear(b)", "reaches(Conv2d)", "a b"),
        # what no input leads to is no way from the inputs
        ("a=ReLU(x); e=arange(); m=Embedding(e); s=add(a, m); l=Linear(s)", "dominates(Linear)", "a s"),
        ("a=ReLU(x); b=ReLU(y); s=add(a, b)", "in_branch(add)", "a b"),
    ],
)
def test_questions(text: str, condition: str, expected: str) -> None:
    asked = 'any except "b.c"' if "!" in text else "any"
    found, _ = sites(text, f"at {asked} where {condition}: set self.inplace = false; expect any matches")
    assert " ".join(match.node.name for match in found) == expected


def test_uses() -> None:
    text = "a=Conv2d(x); s=add(a, a); b=Block(a !); c=Block(s > c.r); c.r=ReLU(s); -> c, a"
    found, _ = sites(text, "at any[uses==4] | add[uses==1] | Block[uses==1]: set self.inplace = false")
    assert [match.node.name for match in found] == ["a", "s", "c"]


# ---- positions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule", "expected"),
    [
        (RESIDUAL, "after Conv2d -> BatchNorm2d: insert Dropout", ["b out"]),
        (RESIDUAL, "before Conv2d -> BatchNorm2d: insert Dropout", ["a @input"]),
        (RESIDUAL, "before add@1 -> ReLU: insert Dropout", ["s @1"]),
        (RESIDUAL, "before add@* -> ReLU: insert Dropout", ["s @0", "s @1"]),
        (RESIDUAL, "at BatchNorm2d -> ReLU as r: set r.inplace = true", ["r out"]),
        (RESIDUAL, "between Conv2d -> BatchNorm2d and add: insert Dropout", ["s @1"]),
        (RESIDUAL, "between Conv2d and add -> ReLU: insert Dropout", ["s @0"]),
        (RESIDUAL, "between Conv2d -> BatchNorm2d and ReLU -> Conv2d: insert Dropout", ["r @input"]),
        (BLOCK, "between Conv2d and Block: insert Dropout", ["blk @input"]),
        (BLOCK, "between Conv2d and Conv2d | Block: insert Dropout", ["blk @input"]),
        (BLOCK, "between Block | add and ReLU: insert Dropout", ["f @input"]),
        ("a=Conv2d(x); s=add(a, a)", "between Conv2d and add: insert Dropout", ["s @0", "s @1"]),
        ("a=Conv2d(x); s=add(a, a)", "between Conv2d and add@1: insert Dropout", ["s @1"]),
    ],
)
def test_positions(text: str, rule: str, expected: list[str]) -> None:
    found, _ = sites(text, rule)
    assert [f"{m.node.name} {'out' if m.operand is None else '@' + m.operand.name}" for m in found] == expected


def test_leftmost_alternative_first() -> None:
    found, _ = sites("a=Conv2d(x); b=ReLU(a)", "match any | Conv2d as c -> ReLU | any as r: remove r")
    assert [match.names["c"].name for match in found] == ["a"]  # type: ignore[union-attr]
    (chosen,) = sites("a=Conv2d(x); b=ReLU(a)", "match Conv2d | any as c -> any | ReLU as r: remove r")[1].chosen
    assert [type(unit.base).__name__ for unit in chosen.units.values()] == ["Kind", "Anything"]


# ---- scale ---------------------------------------------------------------------------------------------------------


def line(count: int) -> Graph:
    """The same operation again and again."""
    return graph("; ".join(f"n{i}=ReLU({f'n{i - 1}' if i else 'x'})" for i in range(count)))


def star(count: int) -> Graph:
    """One value that a quarter of the calls take."""
    return graph("; ".join(["a=ReLU(x)", *(f"b{i}=ReLU({'a' if i % 4 == 0 else f'b{i - 1}'})" for i in range(count))]))


def fan(count: int) -> Graph:
    """A diamond of one value, many calls and one merge."""
    names = [f"b{i}" for i in range(count)]
    return graph("; ".join(["a=ReLU(x)", *(f"{name}=ReLU(a)" for name in names), f"s=cat({', '.join(names)})"]))


def ladder(count: int) -> Graph:
    """Diamonds one behind the other."""
    steps = (f"l{i}=ReLU(n{i}); r{i}=ReLU(n{i}); n{i + 1}=add(l{i}, r{i})" for i in range(count // 3))
    return graph("; ".join(["n0=ReLU(x)", *steps]))


HARD = (
    "ReLU -> ReLU -> ReLU",
    "any -> any -> any",
    "any >> any >> any",
    "any as x -> any as p -> any as s, x -> any as q -> s",
    "any as a -> any, a -> any, a -> any",
    "any? -> any? -> ReLU -> any? -> any?",
    "any -> Conv2d -> any",
)


@pytest.mark.parametrize("shape", [line, star, fan, ladder])
def test_steps_are_bounded(shape: Callable[[int], Graph]) -> None:
    """A pattern is found, or given up with a diagnostic, within so many steps for each call."""
    built = shape(20_000)
    for pattern in HARD:
        search = Matcher(built, Context({}, {})).search(clause(f"match {pattern}: expect any matches").selector)
        try:
            search.run()
        except RewriteError as error:
            if error.code != "RW321" or search.steps <= search.limit:
                raise
        assert search.steps <= search.limit + len(built.nodes)
    for question in ("reaches(ReLU)", "reached_from(any)", "dominates(add | cat)", "in_branch(add | cat)"):
        sites(built, f"at ReLU where {question}: set self.inplace = false; expect any matches")


def test_a_long_pattern() -> None:
    assert len(matches(line(400), " -> ".join(["ReLU"] * 64))) == 400 - 63


def test_the_reason_is_told_where_the_search_for_it_takes_too_long() -> None:
    """What explains that nothing matched has a budget too, and says what it knows by then."""
    text = "any as a -> any as b, a -> any as c, a -> any as d, b -> Conv2d"
    search = Matcher(star(4_000), Context({}, {})).search(clause(f"match {text}: expect any matches").selector)
    search.explain()
    assert search.steps <= search.limit + 4_000


# ---- on models ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Two convolutions and a way around them; one ReLU called twice."""

    def __init__(self, project: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.project = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.project is None else self.project(x)))


class ResNet(nn.Module):
    """A stem with a functional ReLU, two blocks in a Sequential, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.body = nn.Sequential(Block(), Block(project=True))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(F.relu(self.norm(self.stem(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Dense(nn.Module):
    """A value that is used twice, and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(x)
        k = torch.cat([a, self.b(F.relu(a))], 1)
        return self.c(k), k


class Twice(nn.Module):
    """A block and a ReLU, both called several times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 1), nn.ReLU()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.block(self.act(self.block(self.act(self.conv(x))))))


def relus() -> nn.Module:
    """Four ReLU in a row."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), *(nn.ReLU() for _ in range(4)))


IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def change(build: Callable[[], nn.Module], rules: str, strict: bool = False) -> tuple[nn.Module, list[str], list[str]]:
    """The changed model, what was done at each site, and the codes of the warnings."""
    model = apply_rules(build().eval(), Rules(rules), example_inputs=IMAGE, strict=strict)
    report = get_report(model)
    assert report is not None
    model(IMAGE)
    sites = [f"{site.path}: {', '.join(site.changes)}" for part in report.clauses for site in part.sites]
    return model, sites, [warning.code for warning in report.warnings]


@pytest.mark.parametrize(
    ("build", "rules", "expected"),
    [
        # across the borders of modules: function -> Sequential -> block -> layer
        (
            ResNet,
            "after BatchNorm2d >> ReLU: insert Dropout(0.1)",
            [
                "norm -> relu: insert Dropout(0.1) as relu_dropout",
                "body.0.bn1 -> body.0.relu: insert Dropout(0.1) as body.0.relu_dropout",
                "body.1.bn1 -> body.1.relu: insert Dropout(0.1) as body.1.relu_dropout",
            ],
        ),
        (
            ResNet,
            "between BatchNorm2d >> ReLU and Conv2d: insert Dropout",
            [
                "norm -> relu -> body.0.conv1: insert Dropout() as body.0.before_conv1_dropout",
                "body.0.bn1 -> body.0.relu -> body.0.conv2: insert Dropout() as body.0.before_conv2_dropout",
                "body.1.bn1 -> body.1.relu -> body.1.conv2: insert Dropout() as body.1.before_conv2_dropout",
            ],
        ),
        (
            ResNet,
            "match Block as a -> Block: after a: insert Dropout",
            ["body.0 -> body.1: insert Dropout() as body.0_dropout"],
        ),
        (
            ResNet,
            "match last Conv2d as c -> BatchNorm2d: reset c",
            ["body.1.project.0 -> body.1.project.1: reset (16 numbers)"],
        ),
        (
            ResNet,
            "within Block: match first BatchNorm2d as b -> any: remove b",
            ["body.0.bn1 -> body.0.relu: remove", "body.1.bn1 -> body.1.relu: remove"],
        ),
        (
            ResNet,
            "match any as x -> Conv2d -> BatchNorm2d -> ReLU -> Conv2d -> BatchNorm2d -> add as s,\n"
            "      x -> Conv2d as p -> BatchNorm2d -> s: reset p",
            [
                "body.0.relu -> body.1.conv1 -> body.1.bn1 -> body.1.relu -> body.1.conv2 -> body.1.bn2 -> body.1.add"
                " -> body.1.project.0 -> body.1.project.1: reset (16 numbers)"
            ],
        ),
        # a layer that is called twice
        (Twice, "match Conv2d -> ReLU as r: after r: insert Dropout", ["conv -> act: insert Dropout() as act_dropout"]),
        (
            Twice,
            "match BatchNorm2d -> ReLU as r -> Conv2d: after r: insert Dropout",
            ["block.1 -> act -> block.0: insert Dropout() as act_1_dropout"],
        ),
        # several outputs
        (Dense, "after cat >> Conv2d: insert Dropout; expect any matches", []),
        (
            Dense,
            "match Conv2d as a -> cat as k, a -> ReLU -> Conv2d -> k: after a: insert Dropout",
            ["a -> cat -> relu -> b: insert Dropout() as a_dropout"],
        ),
        # matched on the model as it stands when the rule begins
        (
            relus,
            "after Conv2d -> ReLU: insert ReLU\nmatch Conv2d -> ReLU -> ReLU as r: before r: insert Dropout",
            ["0 -> 1: insert ReLU() as 1_relu", "0 -> 1 -> 1_relu: insert Dropout() as before_1_relu_dropout"],
        ),
        (
            relus,
            "match ReLU >> ReLU as r: remove r",
            ["1 -> 2: remove", "2 -> 3: remove", "3 -> 4: remove"],
        ),
        (
            relus,
            "repeat: replace ReLU >> ReLU with ReLU",
            [
                "1 -> 2: replace `1` -> `2` with ReLU()",
                "3 -> 4: replace `3` -> `4` with ReLU()",
                "1 -> 3: replace `1` -> `3` with ReLU()",
            ],
        ),
    ],
)
def test_models(build: Callable[[], nn.Module], rules: str, expected: list[str]) -> None:
    assert change(build, rules)[1] == expected


def test_folded_into_what_has_no_other_user() -> None:
    model, sites, warnings = change(ResNet, "match Conv2d as c >> BatchNorm2d as b: fold b into c\nexpect equivalent")
    assert len(sites) == 6
    assert not warnings
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    "rules",
    ["match ReLU as q >> ReLU as r: remove q; remove r", "remove ReLU >> ReLU", "replace ReLU >> ReLU with GELU"],
)
def test_of_two_matches_in_each_others_way_the_first_wins(rules: str) -> None:
    _, sites, warnings = change(relus, rules)
    assert [site.partition(":")[0] for site in sites] == ["1 -> 2", "3 -> 4"]
    assert warnings == ["RW314"]
    with pytest.raises(PlanError, match="RW314") as caught:
        change(relus, rules, strict=True)
    assert "left out: `2` -> `3`, because of `2`" in str(caught.value)


@pytest.mark.parametrize(
    "rules",
    [
        "match Conv2d as c -> ReLU: after c: insert Identity",
        "after Conv2d -> ReLU: insert Identity",
        "match Conv2d -> ReLU as r: remove r",
        "replace ReLU >> ReLU with GELU",
    ],
)
def test_the_same_rule_again_is_passed_over(rules: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), *(nn.ReLU() for _ in range(5))).eval()
    once = apply_rules(model, Rules(rules), example_inputs=IMAGE)
    again = apply_rules(once, Rules(rules), example_inputs=IMAGE)
    report = get_report(again)
    assert report is not None
    assert "RW401" in [warning.code for warning in report.warnings]
    assert str(again) == str(once)


def test_the_order_is_that_of_execution_and_the_same_every_time() -> None:
    first = change(ResNet, "after any -> Conv2d | add: insert Identity")[1]
    assert first == change(ResNet, "after any -> Conv2d | add: insert Identity")[1]
    places = [node.index for node in sites(RESIDUAL, "match any -> any as n: remove n")[0][0].nodes]
    assert places == [0, 1]
    assert [site.partition(":")[0] for site in first[:2]] == ["relu -> body.0.conv1", "relu -> body.0.add"]
