"""In-place updates, tracing, modes, and forwards that cannot be captured, in cases that were met in the field.

| case | test |
| --- | --- |
| in place behind a branch; Dropout and Identity in front of it | here; `test_traps` on `in_place_behind_branch` |
| an in-place call whose result nobody takes | here; `test_traps` on `ignored_in_place_result` |
| `z = y; z += 1`, item assignment, `out=` | here; `test_faithful` |
| dropout with a flag for the mode, read in one mode and used in the other | `test_traps` on `training_flag` |
| branches on shapes, loops, `assert`, defaults, `*args`, keyword-only, data-dependent | here; `test_faithful` |
| `no_grad`, autocast, checkpoint, random numbers, counters | here; `test_faithful` |
| DataParallel, compiled, scripted, traced | `test_faithful`; exported, quantized: here |
| models of transformers, caches | `test_transformers` |
| copies, pickles, export, compile, a second rewrite | here; `contract` on every random pair |
| weights that are read without a call; ties made in forward | here; `test_traps` on `weight_read_without_call` |
| a Sequential that is sliced or indexed | here; `test_traps` on `indexed_sequential` |
| methods other than forward | here |
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import count_calls, order_of_calls
from field import assert_same, conv, gradients, image, misses, refused, report_of, rewritten, sites, values, warned
from models import lowered
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rewrite import RewriteError, Rules, apply_rules, get_report


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()


class OverwrittenBranch(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(F.relu(y, inplace=True)) + y


class Ignored(Base):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.relu(y)
        z = self.b(y)
        F.relu(z, True)
        w = z + x
        w.relu_()
        return w


class Augmented(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = y
        z += 1
        return self.b(y) * z


class Items(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y[:, 0] = 0.5
        y[0] *= 2
        return self.b(y)


class Out(Base):
    def forward(self, x: Tensor) -> Tensor:
        y, z = self.a(x), torch.zeros_like(x)
        if not torch.is_grad_enabled():
            torch.add(y, 1, out=z)
        else:
            z = y + 1
        return self.b(z)


class Views(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y[:, :2].mul_(3)
        y.view(-1).add_(1)
        return self.b(y)


class Shapes(Base):
    def forward(
        self, x: Tensor, mask: Tensor | None = None, *more: Tensor, scale: float = 1.0, **flags: bool
    ) -> Tensor:
        assert x.dim() == 4
        if x.shape[0] > 1:
            x = x * 2
        for n in range(x.size(1) // 2):
            x = x + n
        y = self.a(x)
        if mask is not None:
            y = y * mask
        for other in more:
            y = y + other
        if flags.get("double", False):
            y = y * 2
        return self.b(y) * scale


class Data(Base):
    def forward(self, x: Tensor) -> Tensor:
        for row in x:
            if row.sum() > 1e9:
                return self.b(x)
        return self.a(x) if x.mean().item() < 1e9 else x


class Guarded(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.a(x)
        return self.b(x) + y


class Cast(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.a(x)
        return self.b(y.float())


class Checkpointed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(checkpoint(self.a, x, use_reentrant=False))


class Random(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x + torch.rand(x.shape[0], 1, 1, 1))
        return self.b(y) + torch.randn_like(y) * 0.1


class Counter(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.steps += 1
        return self.b(self.a(x)) * self.seen + self.steps


KINDS = [
    OverwrittenBranch,
    Ignored,
    Augmented,
    Items,
    Out,
    Views,
    Shapes,
    Data,
    Guarded,
    Cast,
    Checkpointed,
    Random,
    Counter,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_what_changes_nothing_changes_nothing(kind: type[Base], training: bool) -> None:
    model, x = kind().train(training), image()
    if training and kind is Views:
        pytest.skip("the model itself cannot be trained")
    for text in ("after Conv2d: insert Identity", "before Conv2d: insert Identity"):
        result = rewritten(model, text)
        assert sites(result) == ["a", "b"] or kind is Data
        assert_same(model, result, x)
        if kind is not Data:
            assert count_calls(result, x, "Identity") == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Data])
def test_a_hand_edit_gives_the_same(kind: type[Base]) -> None:
    """Layers of a kind that is not in place around a convolution are a hand-written Sequential at its place."""
    model, x = kind().eval(), image()
    result = rewritten(model, "after Conv2d: insert GELU -> SiLU\nbefore Conv2d: insert SiLU")
    hand = copy.deepcopy(model)
    for name in ("a", "b"):
        setattr(hand, name, nn.Sequential(nn.SiLU(), getattr(model, name), nn.GELU(), nn.SiLU()))
    for one, other in zip(values(hand, x), values(result, x), strict=True):
        assert torch.equal(one, other)
    names = {key.replace(".1.", "."): value for key, value in gradients(hand, x).items()}
    found = gradients(result, x)
    assert names.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in names.items())


@pytest.mark.parametrize("first", [nn.Sigmoid, nn.Tanh, lambda: nn.BatchNorm2d(4)])
@pytest.mark.parametrize("inserted", ["Dropout(0.5)", "Identity"])
def test_what_hands_its_input_on_in_front_of_an_in_place_call(first: Callable[[], nn.Module], inserted: str) -> None:
    """In eval mode Dropout returns the very tensor that it was given, which ReLU then overwrites."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first, self.relu = conv(), first(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.first(self.conv(x)) - 0.5)

    model, x = Net().eval(), image()
    for position in ("after Sigmoid | Tanh | BatchNorm2d", "before ReLU"):
        result = rewritten(model, f"{position}: insert {inserted}")
        assert_same(model, result, x)


def test_arguments_of_every_kind() -> None:
    model, x = Shapes().eval(), image()
    result = rewritten(model, "after Conv2d: insert Identity")
    for args, kwargs in [
        ((x,), {}),
        ((x[:1],), {}),
        ((x, x), {}),
        ((x, None, x, x), {}),
        ((x,), {"mask": x, "scale": 2.0}),
        ((x,), {"double": True}),
        ((image(batch=5),), {}),
    ]:
        assert_same(model, result, *args, **kwargs)
    with pytest.raises(AssertionError):
        result(x[0])


def test_a_call_that_differs_from_the_captured_one_is_told_or_right() -> None:
    """Edits in a graph hold for the call that was read, and another one is refused; edits in code hold for all."""

    class Masked(Base):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y = lowered(F.relu(self.a(x)))
            return y if mask is None else y * mask

    model, x = Masked().eval(), image()
    result = rewritten(model, "after F.relu: insert Identity")
    assert torch.equal(result(x), model(x))
    assert torch.equal(result(x, x), model(x, x))
    result = rewritten(model, "after sub: insert Identity")
    assert torch.equal(result(x), model(x))
    with pytest.raises(RewriteError) as caught:
        result(x, x)
    assert caught.value.code == "RW207"
    assert "`mask`" in str(caught.value)


def test_an_exported_program_is_refused() -> None:
    exported = torch.export.export(nn.Sequential(conv(), nn.ReLU()), (image(),))
    refused_model = exported.module()
    with pytest.raises(RewriteError) as caught:
        rewritten(refused_model, "after ReLU: insert Identity")
    assert caught.value.code == "RW504"


class ReadsWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.tied, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.fc.weight, self.fc.bias)
        x, _ = self.attention(x, x, x)
        self.head.weight = self.tied.weight
        return self.head(self.tied(x))


def test_a_weight_that_is_read_without_a_call_is_reported() -> None:
    model, x = ReadsWeights().eval(), torch.randn(2, 3, 4)
    result = rewritten(model, "after Linear: insert Dropout(0.1)")
    assert {"tied", "head"} <= set(sites(result))
    assert "attention.out_proj" in misses(result)
    assert "reads its weights without calling it" in misses(result)
    assert torch.equal(result(x), model(x))
    assert result.head.weight is result.tied.weight
    assert sites(result) == ["tied", "head", "linear"]  # the last is the function, which the code names
    assert "`fc`" in misses(result) or "fc: " in misses(result) or "fc " in misses(result)
    assert count_calls(result, x, "Dropout") == 3


def test_a_read_weight_alone_is_no_match() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return x @ self.fc.weight.T

    refused("RW301", Net(), "after Linear: insert Dropout(0.1)", "fc", "reads its weights without calling it")

    class Calls(Net):
        def other(self, x: Tensor) -> Tensor:
            return self.fc(x)

    assert sites(rewritten(Calls(), "after Linear: insert Dropout(0.1)")) == ["fc"]
    reached = rewritten(Calls(), "after Linear: insert Dropout(0.1)", example_inputs=torch.randn(2, 4))
    assert "RW412" in warned(reached)


class Processor:
    """No module: it gets the layer that it works for, and calls the children of that."""

    def __call__(self, attention: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():  # not captured
            return attention.key(attention.query(x))


class Delegates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)
        self.processor = Processor()

    def dtype(self) -> torch.dtype:
        return self.query.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.processor(self, x)


class Owner(nn.Module):
    """Calls the layers of its child itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Delegates()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.processor(self.inner, x)


@pytest.mark.parametrize("kind", [Delegates, Owner])
def test_a_layer_that_somebody_else_calls_is_called(kind: type[nn.Module]) -> None:
    model, x = kind().eval(), torch.randn(2, 4)
    for options in ({}, {"example_inputs": x}):
        result = rewritten(model, "after Linear: insert Tanh", **options)
        assert [path.rpartition(".")[2] for path in sites(result)] == ["query", "key"]
        assert misses(result) == ""
        assert count_calls(result, x, "Tanh") == 2


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fast_path_of_an_encoder_layer_calls_what_was_inserted(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=norm_first)
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 3, 4)
    result = rewritten(model, "after LayerNorm: insert Tanh")
    assert count_calls(result, x, "Tanh") == len(sites(result)) == 4
    with torch.no_grad():
        assert not torch.allclose(result(x), model(x))
    kept = rewritten(model, "after LayerNorm: insert Dropout(0.1)")
    with torch.no_grad():
        assert torch.allclose(kept(x), model(x), atol=1e-6)


class Sliced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        self.blocks = nn.ModuleList([nn.Sequential(conv(), nn.ReLU()) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        early = self.features[:3](x)
        late = self.features[3:](early) + self.features[0].weight.mean()
        for block in self.blocks[:1]:
            late = block[0](late) if len(block) == 2 else block(late)
        return late + self.features[-1](early)


def test_a_sequential_that_is_sliced() -> None:
    model, x = Sliced().eval(), image()
    result = rewritten(model, "after Conv2d: insert Identity")
    assert_same(model, result, x)
    assert len(result.features) == 5
    result = rewritten(model, 'after "features.0": insert Tanh')
    hand = copy.deepcopy(model)
    plain = hand.features[0].forward
    hand.features[0].forward = lambda value: plain(value).tanh()
    assert torch.equal(result(x), hand(x))


class Methods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9)

    def encode(self, tokens: Tensor) -> Tensor:
        return self.mix(self.embed(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encode(tokens))

    @torch.no_grad()
    def generate(self, tokens: Tensor, steps: int = 3) -> Tensor:
        for _ in range(steps):
            tokens = torch.cat([tokens, self(tokens)[:, -1:].argmax(-1)], 1)
        return tokens


class OpaqueMethods(Methods):
    """The same where no forward can be captured: its layers are extended themselves."""

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.sum() < 0:
            raise ValueError("no such token")
        return self.head(self.encode(tokens))


@pytest.mark.parametrize("kind", [Methods, OpaqueMethods])
def test_methods_that_call_the_forward(kind: type[Methods]) -> None:
    model, tokens = kind().eval(), torch.tensor([[1, 2], [3, 4]])
    result = rewritten(model, "after Linear: insert Dropout(0.2)")
    assert torch.equal(result.generate(tokens), model.generate(tokens))
    result = rewritten(model, "wrap Linear with LoRA(rank=1)")
    assert torch.equal(result.generate(tokens), model.generate(tokens))
    assert torch.equal(result.encode(tokens), model.encode(tokens))
    result = rewritten(model, 'after "head": insert Linear(9, 9)')
    hand = copy.deepcopy(model)
    hand.head = nn.Sequential(model.head, next(m for m in result.modules() if getattr(m, "in_features", 0) == 9))
    assert torch.equal(result.generate(tokens), hand.generate(tokens))


class Opaque(nn.Module):
    """A forward with a branch on the data around layers of several kinds, with a hook and a method."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(), nn.BatchNorm2d(4)
        self.block = nn.Sequential(conv(), nn.ReLU())
        self.rnn = nn.GRU(4, 4, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor, *, low: bool = True) -> Tensor:
        x = self.bn(self.conv(input=x))
        x = self.block(x) if x.abs().sum() > 0 and low else x
        y, _ = self.rnn(x.flatten(2).transpose(1, 2))
        return self.fc(y[:, -1])

    def classify(self, x: Tensor) -> Tensor:
        return self(x).argmax(1)


TEXT = (
    "after Conv2d: insert GroupNorm(num_groups=2) -> Dropout(0.1)\nbefore Linear: insert LayerNorm\n"
    "after GRU: insert Tanh\nwrap Linear with LoRA(rank=2)\nfreeze BatchNorm2d"
)


def opaque() -> tuple[nn.Module, nn.Module, Tensor]:
    model, x = Opaque().eval(), image()
    result = rewritten(model, TEXT)
    assert [path for path, _ in report_of(result).scopes] == [""]
    assert [len(sites(result, clause)) for clause in range(5)] == [2, 1, 1, 1, 1]
    return model, result, x


def test_layers_around_an_opaque_forward_run() -> None:
    model, result, x = opaque()
    order = order_of_calls(result, x, ("Conv2d", "GroupNorm", "Dropout", "BatchNorm2d", "Tanh", "LayerNorm"))
    assert order == [
        "Conv2d",
        "GroupNorm",
        "Dropout",
        "BatchNorm2d",
        "Conv2d",
        "GroupNorm",
        "Dropout",
        "Tanh",
        "LayerNorm",
    ]
    assert result.classify(x).shape == (2,)
    assert result(x, low=False).shape == model(x).shape
    assert model.state_dict().keys() - result.state_dict().keys() == {"fc.weight", "fc.bias"}


def test_layers_around_an_opaque_forward_live_on() -> None:
    _, result, x = opaque()
    wanted = result(x)
    buffer = io.BytesIO()
    torch.save(result, buffer)
    buffer.seek(0)
    twins = {
        "copy": copy.deepcopy(result),
        "pickle": pickle.loads(pickle.dumps(result)),
        "torch.load": torch.load(buffer, weights_only=False),
        "copied copy": copy.deepcopy(copy.deepcopy(result)),
        "rewritten again": rewritten(result, 'after "fc": insert Identity'),
    }
    for name, twin in twins.items():
        assert torch.equal(twin(x), wanted), name
        assert torch.equal(twin.classify(x), wanted.argmax(1)), name
        assert not twin.train().bn.training, name
        assert twin.eval().state_dict().keys() == result.state_dict().keys(), name
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        if name != "rewritten again":
            assert torch.equal(result(x), wanted), name


def test_layers_around_an_opaque_forward_compile_and_train() -> None:
    _, result, x = opaque()
    with torch.no_grad():
        assert torch.equal(torch.compile(result, backend="eager")(x), result(x))
    gradients_of = []
    for save_memory in (False, True):
        twin = copy.deepcopy(result).train()
        torch.manual_seed(0)
        y = checkpoint(twin, x, use_reentrant=False) if save_memory else twin(x)
        y.square().sum().backward()
        gradients_of.append({key: value.grad for key, value in twin.named_parameters() if value.grad is not None})
    plain, saved = gradients_of
    assert plain.keys() == saved.keys()
    assert {"conv.groupnorm.weight", "fc.lora_B"} <= plain.keys() or any("groupnorm" in key for key in plain)
    assert all(torch.equal(value, saved[key]) for key, value in plain.items())
    optimizer = torch.optim.SGD(result.parameters(), 0.1)
    result.train()(x).square().sum().backward()
    optimizer.step()


class Sum(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return torch.relu(self.b(y) + y)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*")
def test_graphs_live_on_and_are_rewritten_again() -> None:
    model, x = Sum().eval(), image()
    result = rewritten(model, "after ReLU: insert Dropout(0.1)\nbefore add@1: insert Tanh")
    wanted = result(x)
    program = torch.export.export(result, (x,)).module()
    assert torch.allclose(program(x), wanted)
    assert torch.equal(torch.compile(result, backend="eager", fullgraph=True)(x), wanted)
    again = rewritten(pickle.loads(pickle.dumps(result)), "replace ReLU with GELU")
    assert count_calls(again, x, "GELU") == 2
    assert count_calls(again, x, "Tanh") == 1
    scripted = torch.jit.trace(result, x)
    assert torch.allclose(scripted(x), wanted)
    loss: Any = checkpoint(result.train(), x.requires_grad_(), use_reentrant=False)
    loss.sum().backward()
    assert result.a.weight.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_script_is_right_or_refused() -> None:
    """TorchScript reads source: it must not read that of the forward as it was."""

    class Branches(Base):
        def forward(self, x: Tensor) -> Tensor:
            if bool(x.sum() > 1e9):
                x = x * 2
            return self.b(self.a(x))

    x = image()
    result = rewritten(Sum().eval(), "after ReLU: insert Tanh")
    assert torch.equal(torch.jit.script(result)(x), result(x))
    result = rewritten(nn.Sequential(conv(), nn.ReLU()).eval(), "after Conv2d: insert Tanh")
    assert torch.equal(torch.jit.script(result)(x), result(x))
    torch.jit.script(Branches().eval())
    with pytest.raises(Exception, match="variable number of arguments"):
        torch.jit.script(rewritten(Branches().eval(), "after Conv2d: insert Tanh"))


def test_the_signature_of_an_extended_layer_stays() -> None:
    _, result, _ = opaque()
    assert inspect.signature(result.conv.forward) == inspect.signature(nn.Conv2d(1, 1, 1).forward)
    assert result.conv.forward.__qualname__ == nn.Conv2d.forward.__qualname__


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = F.relu(self.fc(x))
        return x if skip is None else F.relu(x + skip)


class AsksForSkips(nn.Module):
    """Nobody knows without an example how it calls the module in it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Skips()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x) if x.sum() != 0 else x


def test_functions_for_an_argument_that_nobody_is_known_to_give_are_told() -> None:
    model, x = AsksForSkips(), torch.ones(2, 4)
    error = refused("RW301", model, "after add: insert Identity")
    assert "add" in str(error)
    (warning,) = report_of(rewritten(model, "after Linear | add: insert Identity; expect any matches")).warnings[-1:]
    assert (warning.code, "`skip`" in str(warning), "example" in str(warning.help)) == ("RW405", True, True)
    result = rewritten(model, "after add: insert Tanh", example_inputs=x)
    assert count_calls(result, x, "Tanh") == len(sites(result)) == 1


class TwoTowers(nn.Module):
    """Takes one of two inputs, or both: a call without any argument does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Skips(), Skips()

    def forward(self, left: Tensor | None = None, right: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        return self.left(left) if left is not None else None, self.right(right) if right is not None else None


def test_no_model_is_taken_to_be_called_without_an_argument() -> None:
    model, x = TwoTowers(), torch.ones(2, 4)
    result = rewritten(model, "after Linear: insert Tanh")
    assert sites(result) == ["left.fc", "right.fc"]
    assert count_calls(result, (x, x), "Tanh") == 2
    assert count_calls(result, (x,), "Tanh") == 1


class OptionalScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        x = lowered(torch.tanh(self.fc(x)))
        return x if scale is None else x * scale


def test_a_call_in_a_forward_without_needed_arguments_asks_for_an_example() -> None:
    model, x = OptionalScale(), torch.ones(2, 4)
    refused("RW206", model, "after sub: insert Dropout(0.1)", "read without `x`")
    result = rewritten(model, "after sub: insert Dropout(0.1)", example_inputs=x)
    assert count_calls(result, x, "Dropout") == 1
    result = rewritten(model, "after tanh: insert Dropout(0.1)")
    assert count_calls(result, x, "Dropout") == 1


class HeldTwice(nn.Module):
    """The same layers belong to the model and to a part of it, which calls them; the model may do so as well."""

    def __init__(self, calls: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.single = nn.Linear(4, 4)
        self.skip = nn.Sequential(self.stem, self.single)
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        x = self.skip(x) if x.sum() != 0 else x
        return self.single(self.stem(x)) if self.calls else x


@pytest.mark.parametrize("calls", [False, True])
def test_a_layer_that_is_held_twice_is_one_place(calls: bool) -> None:
    model, x = HeldTwice(calls), torch.ones(2, 4)
    result = rewritten(model, "after Linear: insert Tanh", example_inputs=x)
    assert sites(result) == ["stem.0", "single"]
    assert count_calls(result, x, "Tanh") == (4 if calls else 2)
    assert sites(rewritten(model, "after ReLU: insert Identity")) == ["stem.1"]


class Adds(nn.Module):
    def forward(self, x: Tensor, before: list[Tensor]) -> Tensor:
        return x + before[0]


class Remembers(nn.Module):
    """Hands on a list that it goes on filling."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Adds() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        before = [x] if x.sum() != 0 else []
        for step in self.steps:
            x = step(x, before=before)
            before.append(x)
        return x


def test_arguments_of_an_example_are_what_they_were_at_the_call() -> None:
    model, x = Remembers(), torch.ones(2, 4)
    result = rewritten(model, "after add: insert Tanh", example_inputs=x)
    assert count_calls(result, x, "Tanh") == len(sites(result)) == 3


class ReadsBesideOthers(Base):
    """Reads the weight of one layer, and calls others out of a list and in a method with a common name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.read, self.built = nn.Linear(4, 4), nn.Linear(4, 4)

    def build(self, x: Tensor) -> Tensor:
        return self.built(x) @ self.built.weight

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 1e9):
            x = x * 2
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.build(x), self.read.weight)


def test_what_is_read_and_what_is_called_in_one_forward() -> None:
    result = apply_rules(ReadsBesideOthers(), Rules("after Linear: insert Identity"))
    assert get_report(result).sites == 3
    assert count_calls(result, torch.ones(2, 4), "Identity") == 3


class Sum2(Base):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Crossed(Base):
    """One block is called twice, with its inputs the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.sum = nn.Dropout(0.0), Sum2()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.sum(self.drop(x), x), self.drop(x))


def test_other_inputs_of_one_code_are_not_edited_for_each_other() -> None:
    with pytest.raises(RewriteError, match="RW313"):
        apply_rules(Crossed(), Rules("between Dropout and add: insert Identity"))
