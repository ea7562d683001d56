"""Edits of the dataflow, in cases that were met in the field.

| case | test |
| --- | --- |
| one value at both operands | here; `test_traps` on `same_value_twice` |
| a producer with several consumers: behind it, in front of one | here |
| a producer that is an output, and is used inside as well; several outputs | here; `test_traps` on `two_outputs` |
| a value of which only the shape is read | here |
| in front of the first layer, behind the last | here |
| a new call never feeds itself | here |
| concatenation with branches of which some match | here |
| chunk, uneven split, unused pieces | here; `test_traps` on `chunk_split` |
| LSTM, attention, pooling with indices | here; `test_traps` on `tuple_outputs` |
| outputs nested in dict, named tuple, dataclass, list, generator | here; `test_traps` on `nested_output` |
| a gate that is broadcast | here; `test_traps` on `gate` |
| stochastic depth with a flag for the mode | here |
| lists that grow, checkpoints on the way | here; `test_traps` on `dense_list` |
| removing what has two inputs, or changes the shape | here |
| a replacement that holds what it replaces | here |
| several insertions at one place, and at both ends of an edge | here |
"""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import count_calls, order_of_calls
from field import assert_same, conv, image, refused, report_of, rewritten, sites, warned
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rewrite import PlanError, Rules, SiteError, apply_rules
from rewrite.backends import backend_for
from rewrite.backends.torch.recipes import recipe_of


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x)
        return torch.cat([y + y, y * y, y], 1)


def test_one_value_at_both_operands() -> None:
    model, x = Doubled().eval(), image()
    y = model.c(x)
    result = rewritten(model, "after Conv2d: insert Tanh")
    t = y.tanh()
    assert torch.equal(result(x), torch.cat([t + t, t * t, t], 1))
    result = rewritten(model, "before add@1: insert Tanh")
    assert torch.equal(result(x), torch.cat([y + t, y * y, y], 1))
    result = rewritten(model, "before mul@0: insert Tanh")
    assert torch.equal(result(x), torch.cat([y + y, t * y, y], 1))
    result = rewritten(model, "between Conv2d and add: insert Tanh")
    assert torch.equal(result(x), torch.cat([t + t, y * y, y], 1))
    result = rewritten(model, "before cat@*: insert Tanh")
    assert torch.equal(result(x), torch.cat([(y + y).tanh(), (y * y).tanh(), t], 1))
    refused("RW204", model, "before add: insert Tanh", "add")


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y) + self.c(y) + y


def test_behind_a_producer_for_all_and_in_front_of_one_consumer() -> None:
    model, x = Skip().eval(), image()
    y = model.a(x)
    t = y.tanh()
    result = rewritten(model, 'after "a": insert Tanh')
    assert torch.equal(result(x), model.b(t) + model.c(t) + t)
    assert count_calls(result, x, "Tanh") == 1
    result = rewritten(model, 'before "b": insert Tanh')
    assert torch.equal(result(x), model.b(t) + model.c(y) + y)
    result = rewritten(model, 'between "a" and add: insert Tanh')
    assert torch.equal(result(x), model.b(y) + model.c(y) + t)


class Outputs(nn.Module):
    """One value is an output alone, one is used inside as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.a(x)
        z = self.b(y)
        return y, z, y


def test_a_producer_that_is_an_output() -> None:
    model, x = Outputs().eval(), image()
    t = model.a(x).tanh()
    out = rewritten(model, "after Conv2d: insert Tanh")(x)
    assert all(torch.equal(one, other) for one, other in zip(out, (t, model.b(t).tanh(), t), strict=True))
    out = rewritten(model, 'between "a" and "b": insert Tanh')(x)
    assert torch.equal(out[0], model.a(x))
    assert torch.equal(out[1], model.b(t))


class OnlyShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        n, c = y.shape[:2]
        z = self.b(x)
        return z.view(n, c, -1).reshape(y.size(0), -1)


def test_a_value_of_which_only_the_shape_is_read() -> None:
    model, x = OnlyShape().eval(), image()
    result = rewritten(model, "after Conv2d: insert Tanh\nbefore Conv2d: insert Identity")
    assert count_calls(result, x, "Tanh") == 2
    assert torch.equal(result(x), model.b(x).tanh().flatten(1))
    for batch in (1, 3):
        assert result(image(batch=batch)).shape == (batch, 144)


def test_in_front_of_the_first_layer_and_behind_the_last() -> None:
    for model in (Skip().eval(), nn.Sequential(conv(), nn.ReLU(), conv()).eval()):
        result = rewritten(model, "before first Conv2d: insert Tanh\nafter last Conv2d: insert Sigmoid")
        order = order_of_calls(result, image(), ("Tanh", "Conv2d", "Sigmoid"))
        assert order[0] == "Tanh"
        assert order[-1] == "Sigmoid"
    chain = nn.Sequential(conv(), conv()).eval()
    x = image()
    result = rewritten(chain, "before first Conv2d: insert Tanh\nafter last Conv2d: insert Sigmoid")
    assert torch.equal(result(x), chain(x.tanh()).sigmoid())


def test_a_new_call_never_feeds_itself() -> None:
    """pytorch#118626: replacing all uses after building the new call makes it its own input."""
    result = rewritten(Skip().eval(), "after any: insert Identity -> Identity")
    graphs = list(recipe_of(result).bodies.values())
    assert graphs
    for graph in graphs:
        graph.lint()
        assert not any(node in node.all_input_nodes for node in graph.nodes)
    assert count_calls(result, image(), "Identity") == 2 * 5


class Inception(nn.Module):
    """Four branches of different widths; the pooled one has no convolution at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv(4, 3, 1)
        self.three = nn.Sequential(conv(4, 5, 1), nn.ReLU(), conv(5, 6))
        self.five = nn.Sequential(conv(4, 2, 5), nn.BatchNorm2d(2))
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def test_branches_of_different_width_of_which_some_match() -> None:
    model, x = Inception().eval(), image()
    result = rewritten(model, "between Conv2d and cat: insert BatchNorm2d")
    assert [site.inferred["num_features"] for site in report_of(result).clauses[0].sites] == [3, 6]
    assert count_calls(result, x, "BatchNorm2d") == 3
    result = rewritten(model, "before cat@*: insert BatchNorm2d")
    assert sorted(site.inferred["num_features"] for site in report_of(result).clauses[0].sites) == [2, 3, 4, 6]
    result(x)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(2, 2), conv(3, 3), conv(1, 1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        x = torch.cat((kept, self.a(changed)), 1)
        wide, narrow = x.split([3, 1], dim=1)
        first, _unused = torch.split(self.b(wide), (2, 1), 1)
        x = torch.cat([first, self.c(narrow), x[:, 2:3]], 1)
        pooled, where = self.pool(x)
        return self.unpool(pooled, where)


def test_pieces_of_a_value() -> None:
    model, x = Shuffle().eval(), image()
    assert_same(model, rewritten(model, "after Conv2d: insert Identity\nbefore cat@*: insert Dropout(0.3)"), x)
    result = rewritten(model, "after Conv2d: insert Tanh")
    assert count_calls(result, x, "Tanh") == 3
    kept, changed = x.chunk(2, 1)
    y = torch.cat((kept, model.a(changed).tanh()), 1)
    z = torch.cat([model.b(y[:, :3]).tanh()[:, :2], model.c(y[:, 3:]).tanh(), y[:, 2:3]], 1)
    assert torch.equal(result(x), model.unpool(*model.pool(z)))
    result = rewritten(model, "before MaxPool2d: insert Tanh")
    assert count_calls(result, x, "Tanh") == 1


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x, (hidden, _) = self.rnn(x)
        y, _ = self.gru(x)
        z, weights = self.attend(y, x, x)
        return self.fc(z) + hidden[0].mean() + weights.mean()


def test_layers_that_return_several_values() -> None:
    model, x = Recurrent().eval(), torch.randn(2, 5, 4)
    for layer in ("LSTM", "GRU", "MultiheadAttention"):
        result = rewritten(model, f"after {layer}: insert Dropout(0.3)")
        assert_same(model, result, x)
        result = rewritten(model, f"after {layer}: insert Tanh")
        assert count_calls(result, x, "Tanh") == 1
        assert not torch.equal(result(x), model(x))
    result = rewritten(model, "before MultiheadAttention@query: insert Tanh")
    y, _ = model.gru(model.rnn(x)[0])
    r, (hidden, _) = model.rnn(x)
    z, weights = model.attend(y.tanh(), r, r)
    assert torch.allclose(result(x), model.fc(z) + hidden[0].mean() + weights.mean())


@dataclass
class Answer:
    logits: Tensor
    hidden: list[Tensor]


Named = namedtuple("Named", "logits hidden")


class Nested(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        h = self.a(x)
        y = self.b(h)
        match self.form:
            case "dict":
                return {"logits": y, "more": {"hidden": [h, h]}}
            case "named tuple":
                return Named(y, (h, None))
            case "dataclass":
                return Answer(y, [h])
            case "list":
                return [y, [h]]
            case "generator":
                return (value for value in (y, h))
        return y, {"hidden": h, "flag": True, "name": "x"}


@pytest.mark.parametrize("form", ["dict", "named tuple", "dataclass", "list", "generator", "tuple"])
def test_outputs_of_every_form(form: str) -> None:
    model, x = Nested(form).eval(), torch.randn(3, 4)
    result = rewritten(model, "after Linear: insert Tanh")
    assert sites(result) == ["a", "b"]
    h = model.a(x).tanh()
    y = model.b(h).tanh()
    out = result(x)
    assert type(out) is type(model(x))
    match out:
        case {"logits": logits, "more": {"hidden": [hidden, _]}}:
            pass
        case Answer(logits, [hidden]) | [logits, [hidden]]:
            pass
        case Named(logits, (hidden, none)):
            assert none is None
        case (logits, {"hidden": hidden, **rest}):
            assert rest == {"flag": True, "name": "x"}
        case _:
            logits, hidden = out
    assert torch.equal(logits, y)
    assert torch.equal(hidden, h)


def test_outputs_of_the_kind_that_transformers_has() -> None:
    generic = pytest.importorskip("transformers.utils.generic")

    @dataclass
    class Model(generic.ModelOutput):
        logits: Tensor | None = None
        hidden_states: tuple[Tensor, ...] | None = None
        loss: Tensor | None = None

    class Net(Nested):
        def forward(self, x: Tensor, return_dict: bool = True) -> Any:
            h = self.a(x)
            y = self.b(h)
            return Model(logits=y, hidden_states=(x, h)) if return_dict else (y, (x, h))

    model, x = Net("").eval(), torch.randn(3, 4)
    result = rewritten(model, "after Linear: insert Dropout(0.2)")
    out = result(x)
    assert type(out) is Model
    assert list(out.keys()) == ["logits", "hidden_states"]
    assert torch.equal(out[0], model(x).logits)
    assert torch.equal(out.hidden_states[1], model.a(x))
    assert isinstance(result(x, return_dict=False), tuple)


class Reader(nn.Module):
    """Goes on with the fields of what its child returns."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = Nested("dataclass"), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        answer = self.inner(x)
        return F.relu(self.out(answer.logits)) + answer.hidden[0]


def test_values_are_followed_through_the_fields_of_a_dataclass() -> None:
    model, x = Reader().eval(), torch.randn(3, 4)
    h = model.inner.a(x)
    relu = F.relu(model.out(model.inner.b(h)))
    result = rewritten(model, "between Linear and add: insert Tanh")
    assert torch.equal(result(x), relu + h.tanh())
    result = rewritten(model, "after Linear where has_next(Linear) and has_next(add): insert Tanh")
    assert sites(result) == ["inner.a"]
    result = apply_rules(model, Rules("after ReLU: insert Tanh"), example_inputs=x)
    assert torch.equal(result(x), relu.tanh() + h)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert torch.equal(twin(x), result(x))
        assert type(twin.inner(x)) is Answer


@dataclass
class Shifted:
    value: Tensor

    def __post_init__(self) -> None:
        self.value = self.value + 1


class Shifting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Shifted:
        return Shifted(F.relu(self.fc(x)))


def test_a_dataclass_whose_constructor_computes_is_not_made_twice() -> None:
    model, x = Shifting().eval(), torch.randn(3, 4)
    result = rewritten(model, "after Linear: insert Tanh")
    assert torch.equal(result(x).value, F.relu(model.fc(x).tanh()) + 1)
    assert "returns a" in " ".join(backend_for(model).read(model).graph.opaque.values())


class Excite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = conv(4, 2, 1), conv(2, 4, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(self.fc2(F.relu(self.fc1(self.pool(x)))))


def test_a_gate_that_is_broadcast() -> None:
    model, x = Excite().eval(), image()
    result = rewritten(model, "before mul@1: insert Dropout(0.2)\nafter Sigmoid: insert Identity")
    assert_same(model, result, x)
    result = rewritten(model, "between Sigmoid and mul: insert Tanh")
    y = model.conv(x)
    gate = model.gate(model.fc2(F.relu(model.fc1(model.pool(y)))))
    assert torch.equal(result(x), y * gate.tanh())
    result = rewritten(model, "after Conv2d: insert BatchNorm2d")
    assert [site.inferred["num_features"] for site in report_of(result).clauses[0].sites] == [4, 2, 4]
    refused("RW310", model, "after Sigmoid: insert Flatten", "(2, 4, 1, 1) into (2, 4)", example_inputs=x)


class Depth(nn.Module):
    """Stochastic depth, as timm writes it: a function that takes the mode as a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        return x + drop_path(self.conv(x), 0.5, self.training)


def drop_path(x: Tensor, p: float = 0.0, training: bool = False) -> Tensor:
    if p == 0.0 or not training:
        return x
    mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - p)
    return x * mask / (1 - p)


@pytest.mark.parametrize("training", [False, True])
def test_a_flag_for_the_mode_is_not_baked(training: bool) -> None:
    model = Depth().train(training)
    result, x = rewritten(model, "after Conv2d: insert Identity"), image(batch=8)
    assert torch.equal(result.eval()(x), x + model.conv(x))
    torch.manual_seed(1)
    one, two = result.train()(x), result(x)
    assert not torch.equal(one, two)
    torch.manual_seed(1)
    assert torch.equal(one, model.train()(x))


class Dense(nn.Module):
    """Lists that grow; with checkpoints on the way, as torchvision's DenseNet has them."""

    def __init__(self, efficient: bool) -> None:
        super().__init__()
        self.efficient = efficient
        self.layers = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(4 + 2 * n), conv(4 + 2 * n, 2)) for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            if self.efficient:
                new = checkpoint(lambda *f, layer=layer: layer(torch.cat(f, 1)), *features, use_reentrant=False)
            else:
                new = layer(torch.cat(features, 1))
            features.append(new)
        return torch.cat(features, 1)


@pytest.mark.parametrize("efficient", [False, True])
def test_lists_that_grow(efficient: bool) -> None:
    model, x = Dense(efficient).eval(), image()
    result = rewritten(model, "after Conv2d: insert Dropout(0.2)")
    assert sites(result) == ["layers.0.1", "layers.1.1", "layers.2.1"]
    assert_same(model, result, x)
    changed = rewritten(model, "after Conv2d: insert Tanh")
    plain = Dense(efficient).eval()
    plain.load_state_dict(model.state_dict())
    plain.layers = nn.ModuleList(nn.Sequential(*layer, nn.Tanh()) for layer in plain.layers)
    assert torch.equal(changed(x), plain(x))
    if efficient:
        assert [path for path, _ in report_of(changed).scopes] == [""]
        return
    result = rewritten(model, "before last cat@*: insert Tanh")
    assert count_calls(result, x, "Tanh") == 4


def test_what_cannot_be_removed() -> None:
    model = Skip().eval()
    refused("RW204", model, "remove first add", "add", "2 inputs")
    narrow = nn.Sequential(conv(4, 6), nn.ReLU(), conv(6, 4)).eval()
    refused("RW310", narrow, "remove first Conv2d", "4 channels go in, 6 come out")
    pooled = nn.Sequential(conv(), nn.MaxPool2d(2), nn.Flatten()).eval()
    refused("RW310", pooled, "remove MaxPool2d", "1")
    refused("RW311", pooled, "remove MaxPool2d", example_inputs=image())
    result = rewritten(narrow, "remove ReLU")
    assert torch.equal(result(image()), narrow[2](narrow[0](image())))


def test_a_replacement_that_holds_what_it_replaces_comes_to_an_end() -> None:
    model, x = Skip().eval(), image()
    rule = "replace Conv2d with Conv2d(kernel_size=3, padding=1) -> Conv2d(kernel_size=1)"
    result = rewritten(model, rule)
    assert count_calls(result, x, "Conv2d") == 6
    again = apply_rules(result, Rules(rule))
    assert count_calls(again, x, "Conv2d") == 6
    assert warned(again) == ["RW401"]
    assert torch.equal(again(x), result(x))
    refused("RW316", model, f"repeat max 2:\n    {rule}")


def test_several_insertions_at_one_place() -> None:
    model, x = nn.Sequential(conv(), nn.ReLU()).eval(), image()
    together = rewritten(model, "after Conv2d:\n    insert Tanh\n    insert Sigmoid -> GELU")
    assert order_of_calls(together, x) == ["Conv2d", "Tanh", "Sigmoid", "GELU", "ReLU"]
    both = rewritten(model, "after Conv2d: insert Tanh\nbefore ReLU: insert Sigmoid")
    assert order_of_calls(both, x) == ["Conv2d", "Tanh", "Sigmoid", "ReLU"]
    other = rewritten(model, "before ReLU: insert Sigmoid\nafter Conv2d: insert Tanh")
    assert order_of_calls(other, x) == ["Conv2d", "Tanh", "Sigmoid", "ReLU"]
    names = [
        [path for path, _ in rewritten(model, "after Conv2d: insert Tanh\nafter Conv2d: insert Tanh").named_modules()]
        for _ in range(2)
    ]
    assert names[0] == names[1]


class Several(nn.Module):
    """Several inputs, some of them in containers, and one that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, images: list[Tensor], more: dict[str, Tensor], *, scale: float = 1.0) -> dict[str, Tensor]:
        left, right = images
        return {"left": self.a(left) * scale + more["shift"], "right": self.b(right)}


def test_several_inputs_in_containers() -> None:
    model, x = Several().eval(), image()
    args = ([x, x + 1], {"shift": x * 2})
    result = rewritten(model, "after Conv2d: insert Tanh")
    out = result(*args, scale=3.0)
    assert torch.equal(out["left"], model.a(x).tanh() * 3.0 + x * 2)
    assert torch.equal(out["right"], model.b(x + 1).tanh())
    if not report_of(result).scopes:
        result = rewritten(model, "before add@1: insert Tanh", example_inputs=args)
        assert torch.equal(result(*args)["left"], model.a(x) + (x * 2).tanh())


class Lazy(nn.Module):
    """Its forward is a generator: nothing runs before the first value is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        x = self.a(x)
        yield x
        yield self.b(x)


def test_a_forward_that_yields() -> None:
    model, x = Lazy().eval(), image()
    result = rewritten(model, "after Conv2d: insert Tanh")
    t = model.a(x).tanh()
    one, two = result(x)
    assert torch.equal(one, t)
    assert torch.equal(two, model.b(t).tanh())


class Bare(nn.Module):
    """Weights of its own, given to functions; an output in a record."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.table = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Answer:
        x = F.conv2d(x, self.kernel, padding=1)
        return Answer(F.linear(x.mean((2, 3)), self.table), [x])


def test_a_layer_in_the_place_of_a_function_makes_as_many_values() -> None:
    model, x = Bare().eval(), torch.randn(2, 3, 8, 8)
    result = apply_rules(model, Rules("replace F.linear with Linear(bias=false)"), example_inputs=x)
    assert result(x).logits.shape == (2, 4)
    rule = Rules("replace F.conv2d with Conv2d(kernel_size=3)")
    assert apply_rules(model, rule, example_inputs=x)(x).hidden[0].shape == (2, 6, 8, 8)


def test_another_number_of_values_is_seen_in_a_record_and_is_never_taken_for_granted() -> None:
    model, x = Bare().eval(), torch.randn(2, 3, 8, 8)
    rule = Rules("replace F.linear with Linear(in_features=6, out_features=7)")
    with pytest.raises(PlanError, match=r"(?s)RW311.*it was \(2, 4\) float32, \(2, 6, 8, 8\) float32"):
        apply_rules(model, rule, example_inputs=x)
    with pytest.raises(PlanError, match="RW310"):
        apply_rules(model, rule)
    with pytest.raises(SiteError, match=r"RW202.*out_features"):
        apply_rules(model, Rules("replace F.linear with Linear(in_features=6)"))


class Scaled(Bare):
    def forward(self, x: Tensor, scale: Tensor | None = None, sizes: tuple[int, ...] = (2, 3)) -> Tensor:
        x = F.linear(x.mean(sizes) if scale is None else (x * scale).mean(sizes), self.table)
        return F.relu(x)


@pytest.mark.parametrize("names", [("x",), ("x", "scale")])
def test_sizes_are_known_where_arguments_have_defaults(names: tuple[str, ...]) -> None:
    model = Scaled().eval()
    given = {"x": torch.randn(2, 6, 8, 8), "scale": torch.ones(1)}
    inputs = {name: given[name] for name in names}
    result = apply_rules(model, Rules("after F.linear: insert LayerNorm"), example_inputs=inputs)
    expected = F.layer_norm(F.linear(inputs["x"].mean((2, 3)), model.table), (4,)).relu()
    assert torch.allclose(result(**inputs), expected, atol=1e-6)


class Beside(nn.Module):
    """Gives a tensor, what belongs to it and its sizes, after a look at the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        if x.sum() > 1e9:
            return x, x, (1, 1)
        return self.fc(x), x, tuple(x.shape)


class Joins(nn.Module):
    """Puts tuples together and computes with sizes, of which nothing in its own forward tells that they are such."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = Beside()

    def forward(self, x: Tensor) -> Any:
        found = self.beside(x)
        rows, columns = found[2]
        whole = (found[0] + x,) + found[1:2]  # noqa: RUF005
        return whole[0].reshape((rows + 1) * columns - columns), whole[1]


def test_tuples_that_are_put_together_are_no_addition() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beside = Beside()

        def forward(self, x: Tensor) -> Any:
            found = self.beside(x)
            return (found[0] + x,) + found[1:]  # noqa: RUF005

    result = rewritten(Net().eval(), "after add: insert Tanh")
    assert sites(result) == ["add"]
    assert count_calls(result, torch.ones(2, 4), "Tanh") == 1


def test_an_example_tells_arithmetic_of_sizes_from_that_of_tensors() -> None:
    x = torch.ones(2, 4)
    result = rewritten(Joins().eval(), "after add | mul | sub: insert Tanh", example_inputs=x)
    assert sites(result) == ["add"]
    assert count_calls(result, x, "Tanh") == 1
