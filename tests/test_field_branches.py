"""Branches and merges in general, and the region between a split and its merge, as rules address them.

| shape | what a rule picks in it |
| --- | --- |
| residual, with and without a layer on the short way | the long way, the short way, either, the sum |
| dense | each operand of each concatenation |
| inception | one branch, all branches |
| squeeze and excite | the gate, the gated value |
| split, chunk, getitem | pieces of one value, back to their merge |
| attention in heads | query, key, value; between scores and values |
| encoder and decoder with skips | the skips, not the way through the middle |
| feature pyramid | lateral and top-down ways, several outputs |
| several inputs | what only one of them reaches |

Names of what is found are compared with what the forward says, and executed calls with the oracle's count.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counting import calls, count_calls, edges
from field import assert_same, conv, image, rewritten, sites
from torch import Tensor, nn

from rewrite import Rules, apply_rules


class Residual(nn.Module):
    """A block whose short way has a layer of its own, then one whose short way has none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv()
        self.a1, self.b1, self.a2, self.b2 = conv(), nn.BatchNorm2d(4), conv(), nn.BatchNorm2d(4)
        self.short, self.short_bn = conv(4, 4, 1), nn.BatchNorm2d(4)
        self.c1, self.d1 = conv(), nn.BatchNorm2d(4)
        self.head = conv(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.b2(self.a2(F.relu(self.b1(self.a1(x)))))
        x = F.relu(y + self.short_bn(self.short(x)))
        x = self.d1(self.c1(x)).add_(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("Conv2d where in_branch(add)", ["a1", "a2", "short", "c1"]),
        ("Conv2d where not in_branch(add)", ["stem", "head"]),
        ("BatchNorm2d where has_next(add)", ["b2", "short_bn", "d1"]),
        ("Conv2d[kernel_size==3] where in_branch(add) and only_next(BatchNorm2d)", ["a1", "a2", "c1"]),
        ("Conv2d where reached_from(add)", ["c1", "head"]),
        ("Conv2d where in_branch(add) and not reached_from(add)", ["a1", "a2", "short"]),
    ],
)
def test_residual(selector: str, found: list[str]) -> None:
    model = Residual().eval()
    result = rewritten(model, f"after {selector}: insert Dropout(0.1)")
    assert sites(result) == found
    assert count_calls(result, image(), "Dropout") == len(found)
    assert_same(model, result, image())


def test_residual_edges() -> None:
    model, x = Residual().eval(), image()
    for port in (0, 1):
        result = rewritten(model, f"before add@{port}: insert Tanh")
        made = edges(calls(result, x), "Tanh", "add")
        assert [number for _, _, number in made] == [port, port]
    result = rewritten(model, "match BatchNorm2d as b -> add@1: after b: insert Tanh")
    assert torch.equal(result(x), rewritten(model, 'after "short_bn": insert Tanh')(x))
    result = rewritten(model, "between ReLU and add: insert Tanh")
    assert len(edges(calls(result, x), "Tanh", "add")) == 1
    result = rewritten(
        model, "match any as r -> Conv2d as a -> BatchNorm2d -> add as s, r -> s: before s@1: insert Tanh"
    )
    assert [number for _, _, number in edges(calls(result, x), "Tanh", "add")] == [1]


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(4, 2)
        self.layers = nn.ModuleList(conv(2 + 2 * n, 2) for n in range(3))
        self.last = conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features += [layer(torch.cat(features, 1))]
        return self.last(torch.cat(features, 1))


def test_dense() -> None:
    model, x = Dense().eval(), image()
    wanted = len([1 for call in calls(model, x) if call.operation == "cat" for _ in call.operands])
    result = rewritten(model, "before cat@*: insert Tanh")
    assert len(sites(result)) == count_calls(result, x, "Tanh") == wanted == 1 + 2 + 3 + 4
    result = rewritten(model, "before cat@0: insert Tanh")
    assert count_calls(result, x, "Tanh") == 4
    result = rewritten(model, "after Conv2d where in_branch(cat): insert Dropout(0.1)")
    assert sites(result) == [f"layers.{n}" for n in range(3)]
    assert_same(model, result, x)
    result = rewritten(model, 'between "layers.0" and last cat: insert Tanh')
    assert len(edges(calls(result, x), "Tanh", "cat")) == 1


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv()
        self.one = conv(4, 2, 1)
        self.three = nn.Sequential(conv(4, 2, 1), nn.ReLU(), conv(2, 3))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(4, 3, 1))
        self.head = conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        outs = (self.one(x), self.three(x), self.pool(x))
        return self.head(torch.cat(outs, dim=1))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("after Conv2d where in_branch(cat)", ["one", "three.0", "three.2", "pool.1"]),
        ("after Conv2d where has_next(cat)", ["one", "three.2", "pool.1"]),
        ('after Conv2d in "three.**"', ["three.0", "three.2"]),
        ("after Conv2d where has_prev(AvgPool2d)", ["pool.1"]),
        ("after Conv2d where not in_branch(cat)", ["stem", "head"]),
        ("after Conv2d where dominates(cat)", ["stem"]),
    ],
)
def test_inception(text: str, found: list[str]) -> None:
    model = Branches().eval()
    result = rewritten(model, f"{text}: insert Dropout(0.1)")
    assert sites(result) == found
    assert_same(model, result, image())


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
        return x * gate.unflatten(1, (4, 1, 1))


def test_squeeze_and_excite() -> None:
    model, x = Gate().eval(), image()
    result = rewritten(model, "after Linear where in_branch(mul): insert Dropout(0.1)")
    assert sites(result) == ["squeeze", "excite"]
    assert_same(model, result, x)
    result = rewritten(model, "before mul@0: insert Tanh")
    made = edges(calls(result, x), "Tanh", "mul")
    assert [number for _, _, number in made] == [0]
    result = rewritten(model, "replace Sigmoid where in_branch(mul) with Hardsigmoid")
    assert count_calls(result, x, "Hardsigmoid") == 1


class Pieces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(2, 2), conv(1, 2), conv(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x.relu(), [2, 1, 1], 1)
        left, right = self.a(parts[0]).chunk(2, dim=1)
        joined = torch.cat([left, right, self.b(parts[1])], 1)
        return joined[:, :2] + self.c(parts[-1])


def test_split_chunk_and_getitem() -> None:
    model, x = Pieces().eval(), image()
    result = rewritten(model, "after Conv2d: insert Dropout(0.1)\nbefore cat@*: insert Identity")
    assert [len(sites(result, clause)) for clause in (0, 1)] == [3, 3]
    assert_same(model, result, x)
    result = rewritten(model, "after Conv2d where in_branch(add): insert Tanh")
    assert sites(result) == ["a", "b", "c"]
    p = x.relu().split([2, 1, 1], 1)
    wanted = torch.cat([model.a(p[0]).tanh(), model.b(p[1]).tanh()], 1)[:, :2] + model.c(p[2]).tanh()
    assert torch.equal(result(x), wanted)
    result = rewritten(model, "before cat@1: insert Tanh")
    left, right = model.a(p[0]).chunk(2, 1)
    wanted = torch.cat([left, right.tanh(), model.b(p[1])], 1)[:, :2] + model.c(p[2])
    assert torch.equal(result(x), wanted)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (layer(x).view(n, t, 2, c // 2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-2, -1)) / (c // 2) ** 0.5
        y = torch.matmul(scores.softmax(-1), v)
        return x + self.out(y.transpose(1, 2).reshape(n, t, c))


def test_attention_in_heads() -> None:
    model, x = Heads().eval(), torch.randn(2, 5, 8)
    result = rewritten(model, 'after "{q,v}": insert Dropout(0.1)')
    assert sites(result) == ["q", "v"]
    assert_same(model, result, x)
    result = rewritten(model, "after Softmax: insert Tanh\nbefore last matmul@1: insert Sigmoid")
    made = calls(result, x)
    assert len(edges(made, "Tanh", "matmul")) == 1
    assert [number for _, _, number in edges(made, "Sigmoid", "matmul")] == [1]
    result = rewritten(model, "after Linear where in_branch(add): insert Dropout(0.1)")
    assert sites(result) == ["q", "k", "v", "out"]
    result = rewritten(model, "after Linear where in_branch(matmul): insert Dropout(0.1)")
    assert sites(result) == ["q", "k", "v"]


class Skips(nn.Module):
    """An encoder and a decoder with a skip at each of two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = conv(), conv(), conv()
        self.up2, self.up1 = conv(8, 4), conv(8, 4)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.down1(x))
        two = F.relu(self.down2(self.pool(one)))
        y = self.middle(self.pool(two))
        y = self.up2(torch.cat([two, F.interpolate(y, size=two.shape[2:])], 1))
        return self.up1(torch.cat([one, F.interpolate(y, size=one.shape[2:])], 1))


def test_encoder_and_decoder() -> None:
    model, x = Skips().eval(), image(size=8)
    result = rewritten(model, "between ReLU and cat: insert Tanh")
    made = edges(calls(result, x), "Tanh", "cat")
    assert [number for _, _, number in made] == [0, 0]
    one = model.down1(x).relu()
    two = model.down2(model.pool(one)).relu()
    y = model.up2(torch.cat([two.tanh(), F.interpolate(model.middle(model.pool(two)), size=two.shape[2:])], 1))
    assert torch.equal(result(x), model.up1(torch.cat([one.tanh(), F.interpolate(y, size=one.shape[2:])], 1)))
    result = rewritten(model, "after Conv2d where in_branch(cat): insert Dropout(0.1)")
    assert sites(result) == ["down2", "middle", "up2"]
    assert_same(model, result, x)
    result = rewritten(model, "before cat@1: insert Identity\nafter MaxPool2d: insert Dropout(0.1)")
    assert_same(model, result, x)


class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c3, self.c4, self.c5 = conv(), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.lateral = nn.ModuleList(conv(4, 3, 1) for _ in range(3))
        self.smooth = nn.ModuleList(conv(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c3 = self.c3(x)
        c4 = self.c4(c3)
        c5 = self.c5(c4)
        levels = [layer(c) for layer, c in zip(self.lateral, (c3, c4, c5), strict=True)]
        for n in (1, 0):
            levels[n] = levels[n] + F.interpolate(levels[n + 1], size=levels[n].shape[-2:])
        return {f"p{n + 3}": layer(level) for n, (layer, level) in enumerate(zip(self.smooth, levels, strict=True))}


def test_feature_pyramid() -> None:
    model, x = Pyramid().eval(), image(size=8)
    result = rewritten(model, "before add@1: insert Tanh")
    assert count_calls(result, x, "Tanh") == 2
    result = rewritten(model, 'after "lateral.*": insert Dropout(0.1)\nafter "smooth.*": insert Identity')
    assert [len(sites(result, clause)) for clause in (0, 1)] == [3, 3]
    assert list(result(x)) == ["p3", "p4", "p5"]
    assert_same(model, result, x)
    result = rewritten(model, "after Conv2d where in_branch(add): insert Dropout(0.1)")
    assert sites(result) == ["c4", "c5", "lateral.0", "lateral.1", "lateral.2"]
    assert_same(model, result, x)


class Inputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.join = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = torch.relu(self.image(image)), torch.relu(self.text(text))
        return self.join(torch.cat((a, b), -1)), {"image": a, "text": b}


def test_several_inputs_and_outputs() -> None:
    model, one, two = Inputs().eval(), torch.randn(2, 4), torch.randn(2, 4)
    result = rewritten(model, 'after ReLU where reached_from("text"): insert Tanh')
    out, parts = result(one, text=two)
    a, b = model.image(one).relu(), model.text(two).relu().tanh()
    assert torch.equal(out, model.join(torch.cat((a, b), -1)))
    assert torch.equal(parts["text"], b)
    assert torch.equal(parts["image"], a)
    result = rewritten(model, "before cat@0: insert Tanh")
    out, parts = result(one, two)
    assert torch.equal(out, model.join(torch.cat((a.tanh(), model.text(two).relu()), -1)))
    assert torch.equal(parts["image"], a)


class Helper(nn.Module):
    """Is asked by another method than its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def embed(self, x: Tensor) -> Tensor:
        return self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc(x)) + x


class Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.helper, self.block = Helper(), Helper()

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e6:
            x = x * 0.5
        return self.block(self.helper.embed(x))


def test_a_forward_that_the_example_does_not_call_has_no_functions() -> None:
    model, x = Asking().eval(), torch.randn(2, 4)
    result = apply_rules(model, Rules("after ReLU: insert Dropout(0.3)"), example_inputs=x)
    assert sites(result) == ["block.relu"]
    assert count_calls(result, x, "Dropout") == count_calls(model, x, "ReLU") == 1
    result = apply_rules(model, Rules("after Linear: insert Dropout(0.3)"), example_inputs=x)
    assert sites(result) == ["helper.fc", "block.fc"]
