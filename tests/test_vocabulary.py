"""The vocabulary, held against the framework that it speaks of: names, signatures, and what is said of shapes."""

from __future__ import annotations

import inspect
import operator
import subprocess
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import rewrite
import rewrite.backends.torch.own_layers
from rewrite.vocabulary import (
    FAMILIES,
    OPERATIONS,
    Operation,
    Parameter,
    Shape,
    by_function,
    by_method,
    by_module,
    expand,
    find,
    parse_signature,
    short,
)

ROWS = tuple(OPERATIONS.values())
MODULES = [row for row in ROWS if row.module is not None]
FUNCTIONS = [(row, dotted) for row in ROWS for dotted in row.functions]
METHODS = [(row, method) for row in ROWS for method in row.methods]


def named(value: object) -> str:
    return value.name if isinstance(value, Operation) else str(value)


# ---- lookup ----


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Conv2d", "Conv2d"),
        ("relu", "ReLU"),
        ("conv2d", "Conv2d"),
        ("conv_transpose2d", "ConvTranspose2d"),
        ("gelu", "GELU"),
        ("max_pool2d", "MaxPool2d"),
        ("layer_norm", "LayerNorm"),
        ("dropout", "Dropout"),
        ("linear", "Linear"),
        ("interpolate", "Upsample"),
        ("softmax", "Softmax"),
        ("identity", "Identity"),
        ("flatten", "Flatten"),
        ("add", "add"),
        ("iadd", "add"),
        ("concat", "cat"),
        ("F.batch_norm", "F.batch_norm"),
    ],
)
def test_an_unqualified_name_finds_its_row(word: str, name: str) -> None:
    row = find(word)
    assert row is OPERATIONS[name]


@pytest.mark.parametrize("word", ["batch_norm", "instance_norm", "relux", "conv", "", "nn.ReLU", "Relu"])
def test_what_is_unclear_or_unknown_finds_nothing(word: str) -> None:
    assert find(word) is None


@pytest.mark.parametrize("dotted", ["torch.nn.Conv2d", "torch.nn.modules.conv.Conv2d"])
def test_a_module_is_found_by_its_public_and_its_full_name(dotted: str) -> None:
    assert by_module(dotted) is OPERATIONS["Conv2d"]


def test_functions_and_methods_are_found() -> None:
    assert by_function("torch.nn.functional.relu") is by_function("torch.relu") is OPERATIONS["ReLU"]
    assert by_function("_operator.iadd") is by_function("operator.iadd") is OPERATIONS["add"]
    assert by_method("relu_") is by_method("torch.Tensor.relu_") is OPERATIONS["ReLU"]
    assert by_function("torch.nn.functional.mse_loss") is None
    assert by_method("unfold") is None, "Tensor.unfold makes windows of one axis, F.unfold columns of an image"
    assert by_module("my.Conv2d") is None


@pytest.mark.parametrize(
    ("dotted", "text"),
    [
        ("torch.nn.ReLU", "nn.ReLU"),
        ("torch.nn.functional.relu", "F.relu"),
        ("torch.Tensor.relu_", "Tensor.relu_"),
        ("torch.relu", "torch.relu"),
        ("operator.add", "operator.add"),
        ("my.Block", "my.Block"),
    ],
)
def test_short_and_expand(dotted: str, text: str) -> None:
    assert short(dotted) == text
    assert expand(text) == dotted


def test_short_gives_the_public_name() -> None:
    assert short("torch.nn.modules.conv.Conv2d") == "nn.Conv2d"
    assert short("_operator.add") == "operator.add"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_every_spelling_survives_short_and_expand_and_leads_back(row: Operation) -> None:
    for dotted in row.functions:
        assert expand(short(dotted)) == dotted
        assert by_function(dotted) is row
    for method in row.methods:
        assert expand(short(f"torch.Tensor.{method}")) == f"torch.Tensor.{method}"
        assert by_method(method) is row
    if row.module is not None:
        assert expand(short(row.module)) == row.module
        assert by_module(row.module) is row


def test_no_two_rows_claim_one_spelling() -> None:
    spellings = [("module", row.module) for row in MODULES]
    spellings += [("function", dotted) for _, dotted in FUNCTIONS] + [("method", method) for _, method in METHODS]
    assert len(spellings) == len(set(spellings))
    owners: dict[int, str] = {}
    for row, dotted in FUNCTIONS:
        assert owners.setdefault(id(resolve(dotted)), row.name) == row.name, dotted


def test_names_are_unique() -> None:
    from rewrite.vocabulary import _ROWS

    assert len(_ROWS) == len(OPERATIONS)


def test_loading_needs_no_framework() -> None:
    code = "import sys, rewrite.vocabulary as v; v.find('relu'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- signatures ----


def test_a_signature_is_read_with_its_kinds() -> None:
    assert parse_signature("") == ()
    assert parse_signature("a, b=1, *, c, d='x'") == (
        Parameter("a"),
        Parameter("b", False, 1),
        Parameter("c", keyword_only=True),
        Parameter("d", False, "x", keyword_only=True),
    )
    assert parse_signature("*shape") == (Parameter("shape", False, (), variadic=True),)
    assert parse_signature("p=0.5") is parse_signature("p=0.5"), "read once"


def resolve(dotted: str) -> object:
    """The object of a dotted name, by plain getattr."""
    root, *names = dotted.split(".")
    value: object = {"torch": torch, "operator": operator, "rewrite": rewrite}[root]
    for name in names:
        value = getattr(value, name)
    return value


def real_parameters(signature: inspect.Signature) -> list[Parameter]:
    """What a Python signature says, in the words of the vocabulary."""
    found = []
    for parameter in signature.parameters.values():
        variadic = parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        if parameter.name == "self" or variadic:
            continue
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        found.append(Parameter(parameter.name, required, default, parameter.kind is inspect.Parameter.KEYWORD_ONLY))
    return found


def constructor(cls: type) -> list[Parameter]:
    """The constructor's parameters, without device and dtype."""
    overloads = [one for one in typing.get_overloads(cls.__init__) if "input_size" in inspect.signature(one).parameters]
    signature = inspect.signature(overloads[0] if overloads else cls.__init__)
    return [one for one in real_parameters(signature) if one.name not in {"device", "dtype"}]


@pytest.mark.parametrize("row", MODULES, ids=named)
def test_the_signature_is_the_constructors(row: Operation) -> None:
    assert row.module is not None
    cls = resolve(row.module)
    assert isinstance(cls, type)
    assert issubclass(cls, nn.Module)
    assert cls.__name__ == row.name
    assert row.signature is not None
    expected = constructor(cls)
    assert list(row.parameters) == (expected[1:] if row.wraps else expected)
    names = [parameter.name for parameter in row.parameters]
    assert {*row.reads, *row.writes, *row.defaults, *row.defaults.values()} <= set(names)
    assert set(row.defaults.values()) <= set(row.reads), "a default is the size of the input"


@dataclass(frozen=True)
class Overload:
    """One schema of a builtin."""

    parameters: list[Parameter]
    lists: frozenset[str]


def overloads(name: str) -> list[Overload]:
    """All that PyTorch's own registry knows of a builtin, without those that write into `out`."""
    found = []
    for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}"):
        if not schema.arguments or "out" in schema.overload_name:
            continue
        parameters = [
            Parameter(
                "input" if one.name == "self" else one.name,
                not one.has_default_value(),
                plain(one.default_value) if one.has_default_value() else None,
                one.kwarg_only,
            )
            for one in schema.arguments
        ]
        lists = frozenset(one.name for one in schema.arguments if "List" in str(one.type.kind()))
        found.append(Overload(parameters, lists))
    return found


def plain(value: object) -> object:
    """`[]` and `[1, 1]` of a schema as the documentation has them: None and 1."""
    if isinstance(value, list):
        return value[0] if value else None
    return value


def says_the_same(text: tuple[Parameter, ...], name: str) -> bool:
    """Whether the documented parameters are those of one overload of the builtin."""
    known = overloads(name)
    for overload in known:
        pairs = list(zip(text, overload.parameters, strict=False))
        if len(text) == len(overload.parameters) and all(fits(a, b, overload, known) for a, b in pairs):
            return True
    return False


def fits(text: Parameter, real: Parameter, overload: Overload, known: list[Overload]) -> bool:
    """Whether one documented parameter is that of the schema."""
    if text.variadic:
        return real.name in overload.lists
    if text.name != real.name or text.keyword_only != real.keyword_only:
        return False
    if text.required == real.required:
        return text.default == real.default or text.name == "memory_format"  # an enum there, None for all practice
    # Optional in the documentation, where another overload goes without it: `mean(input)`, `div(input, other)`.
    without = any(text.name not in [one.name for one in other.parameters] for other in known)
    return text.default is None and not text.required and without


@pytest.mark.parametrize(("row", "dotted"), FUNCTIONS, ids=named)
def test_a_function_has_the_parameters_that_its_row_says(row: Operation, dotted: str) -> None:
    function = resolve(dotted)
    assert callable(function)
    text = parse_signature(row.functions[dotted])
    # `F.max_pool2d` chooses between two functions by one argument; the one without indices has the signature.
    dispatched = torch._jit_internal.boolean_dispatched.get(function)
    function = dispatched["if_false"] if dispatched else function
    try:
        signature = inspect.signature(function)
    except ValueError:
        assert says_the_same(text, function.__name__), (text, overloads(function.__name__))
    else:
        assert list(text) == real_parameters(signature)
    if row.ports and dotted != "torch.split":  # there the tensor is called `tensor`
        assert tuple(parameter.name for parameter in text[: len(row.ports)]) == row.ports or row.name == "getitem"


@pytest.mark.parametrize(("row", "method"), METHODS, ids=named)
def test_a_method_has_the_parameters_that_its_row_says(row: Operation, method: str) -> None:
    function = getattr(Tensor, method)
    text = parse_signature(row.methods[method])
    try:
        signature = inspect.signature(function)
    except ValueError:
        assert says_the_same((Parameter("input"), *text), method), (text, overloads(method))
    else:
        assert list(text) == real_parameters(signature)


# ---- coverage and families ----

NO_ROW = {
    # containers and bases
    *("Module", "Container", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"),
    *("DataParallel", "RNNBase", "RNNCellBase"),
    # blocks built from layers, which rules reach into
    *("Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer", "TransformerDecoderLayer"),
    # losses by another name
    *("NLLLoss2d", "AdaptiveLogSoftmaxWithLoss"),
}


def test_every_layer_of_torch_nn_has_a_row() -> None:
    classes = [value for value in vars(nn).values() if isinstance(value, type) and issubclass(value, nn.Module)]
    layers = {cls for cls in classes if cls.__name__ not in NO_ROW and not cls.__name__.endswith("Loss")}
    for cls in layers:
        row = by_module(f"{cls.__module__}.{cls.__qualname__}")
        assert row is not None, cls
        assert row.name == cls.__name__.removeprefix("Lazy")


def test_families_are_the_words_of_the_language() -> None:
    assert {"conv", "linear", "norm", "activation", "pool", "dropout", "merge"} == FAMILIES


@pytest.mark.parametrize("row", MODULES, ids=named)
def test_families_follow_torch_nn(row: Operation) -> None:
    homes = {
        "conv": "conv",
        "batchnorm": "norm",
        "instancenorm": "norm",
        "normalization": "norm",
        "activation": "activation",
        "pooling": "pool",
        "dropout": "dropout",
        "own_layers": "dropout" if row.name == "DropPath" else None,
    }
    assert row.module is not None
    home = getattr(resolve(row.module), "__module__").rpartition(".")[2]  # noqa: B009 - an attribute of an `object`
    if row.name in {"Linear", "Bilinear"}:
        assert row.family == "linear"
    elif row.name in {"Softmax", "Softmax2d", "LogSoftmax", "Softmin", "MultiheadAttention"}:
        assert row.family is None, "what makes attention weights is no activation to put layers behind"
    elif row.name.startswith("MaxUnpool"):
        assert row.family is None
    else:
        assert row.family == homes.get(home)


def test_merges() -> None:
    merges = {row.name for row in ROWS if row.is_merge}
    assert merges == {"add", "sub", "mul", "div", "matmul", "bmm", "cat", "stack"}
    assert {row.name for row in ROWS if row.commutative} == {"add", "mul"}
    assert all(row.ports == () and row.signature is None for row in ROWS if row.is_merge)


# ---- what rows say of shapes, against real calls ----

SHAPES = {None: (2, 4, 6), 2: (2, 6), 3: (2, 4, 6), 4: (2, 4, 6, 6), 5: (2, 4, 6, 6, 6)}

# A value for every required argument of every layer that is not a size of the input, and then what single rows need.
VALUES: dict[str, object] = {
    "out_channels": 8,
    "out_features": 5,
    "in2_features": 6,
    "kernel_size": 2,
    "output_size": 3,
    "hidden_size": 5,
    "num_groups": 2,
    "groups": 2,
    "size": 2,
    "norm_type": 2.0,
    "padding": 1,
    "value": 0.5,
    "threshold": 0.1,
    "num_heads": 2,
    "num_embeddings": 10,
    "embedding_dim": 3,
    "upscale_factor": 2,
    "downscale_factor": 2,
    "name": "features",
}
SPECIAL: dict[str, dict[str, object]] = {
    **{name: {"dim": 1} for name in ("Softmax", "LogSoftmax", "Softmin")},
    **{name: {"scale_factor": 2} for name in ("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d")},
    **{name: {"padding": 0} for name in ("MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d")},
    **{name: {"output_size": 3} for name in ("FractionalMaxPool2d", "FractionalMaxPool3d")},
    "Unflatten": {"dim": 1, "unflattened_size": (2, 2)},
    "Fold": {"output_size": (3, 4), "kernel_size": 2},
}


@contextmanager
def quiet() -> Iterator[None]:
    """Deprecations and hints about speed do not matter here; a wrong number of features does, and stays an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="input's size at dim")
        yield


def inputs_of(row: Operation) -> list[Tensor]:
    """Small inputs, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    if row.name.startswith("Embedding"):
        return [torch.randint(10, (2, 6), generator=generator)]
    if row.name == "Fold":
        return [torch.randn(2, 12, 6, generator=generator)]  # 3 channels, 2 x 3 windows
    shape = (2, 4, 6, 6) if row.name.startswith(("Pixel", "ChannelShuffle")) else SHAPES[row.rank]
    found = [torch.randn(shape, generator=generator) for _ in row.ports]
    if row.name.startswith("MaxUnpool"):
        window = found[0][0, 0]
        found[1] = torch.arange(window.numel()).view(window.shape).expand(shape).contiguous()
    return found


def build(row: Operation, first: Tensor, **changed: object) -> nn.Module:
    """The row's module with small arguments, those of `reads` taken from the input, in eval mode."""
    arguments: dict[str, object] = {name: first.shape[axis] for name, axis in row.reads.items()}
    arguments |= {one.name: VALUES[one.name] for one in row.parameters if one.required and one.name in VALUES}
    arguments |= SPECIAL.get(row.name, {}) | changed
    assert row.module is not None
    cls = resolve(row.module)
    assert callable(cls)
    torch.manual_seed(0)
    module = cls(nn.Linear(first.shape[-1], 5), **arguments) if row.wraps else cls(**arguments)
    assert isinstance(module, nn.Module)
    return module.eval()


def call(function: Callable[..., object], *inputs: Tensor, **arguments: object) -> object:
    torch.manual_seed(0)  # the fractional pools choose their windows
    with torch.no_grad():
        return function(*inputs, **arguments)


def main(output: object) -> Tensor:
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


@pytest.mark.parametrize("row", MODULES, ids=named)
def test_what_a_row_says_of_shapes_is_true(row: Operation) -> None:
    inputs = inputs_of(row)
    with quiet():
        module = build(row, inputs[0])
        result = call(module, *inputs)
    assert row.outputs == (len(result) if isinstance(result, tuple) else 1)
    output = main(result)
    if row.rank is not None:
        assert inputs[0].dim() == row.rank
    if row.shape is Shape.SAME:
        assert output.shape == inputs[0].shape
    elif row.shape is Shape.CHANNELS:
        assert output.shape[:2] == inputs[0].shape[:2]
        assert output.shape != inputs[0].shape
    else:
        assert output.shape != inputs[0].shape
    for argument, axis in row.writes.items():
        assert output.shape[axis] == getattr(module, argument)


@pytest.mark.parametrize("row", [row for row in MODULES if row.reads], ids=named)
def test_what_a_row_reads_must_be_so(row: Operation) -> None:
    inputs = inputs_of(row)
    for argument, axis in row.reads.items():
        with quiet(), pytest.raises((RuntimeError, ValueError, AssertionError, UserWarning)):
            call(build(row, inputs[0], **{argument: 2 * inputs[0].shape[axis]}), *inputs)


@pytest.mark.parametrize("row", [row for row in MODULES if row.defaults], ids=named)
def test_an_insert_without_sizes_keeps_the_size(row: Operation) -> None:
    inputs = inputs_of(row)
    defaults = {name: inputs[0].shape[row.reads[source]] for name, source in row.defaults.items()}
    output = main(call(build(row, inputs[0], **defaults), *inputs))
    axis = next(iter(row.reads.values()))
    assert output.shape[axis] == inputs[0].shape[axis]


@pytest.mark.parametrize("row", MODULES, ids=named)
def test_moving_statistics(row: Operation) -> None:
    tracked = "track_running_stats" in [parameter.name for parameter in row.parameters]
    assert row.statistics == tracked
    if tracked:
        inputs = inputs_of(row)
        module = build(row, inputs[0], track_running_stats=True)
        before = module.running_mean.clone()
        if row.name == "SyncBatchNorm":
            return  # trains on an accelerator only
        call(module.train(), *inputs)
        assert not torch.equal(before, module.running_mean)


# Parameters of functions that the module keeps under another name.
KEPT_AS = {"sizes": "unflattened_size", "train": "training", "p": "norm"}
# Its function takes every weight by hand; that it is called by the module is what makes it the same operation.
NOT_COMPARED = {"MultiheadAttention"}


def arguments_from(module: nn.Module, parameters: tuple[Parameter, ...]) -> dict[str, object]:
    """The arguments of a functional call that does what the module does."""
    found = {}
    for parameter in parameters:
        kept = KEPT_AS.get(parameter.name, parameter.name)
        name = kept if hasattr(module, kept) else parameter.name
        if hasattr(module, name):
            found[parameter.name] = getattr(module, name)
    return found


@pytest.mark.parametrize("row", [row for row in MODULES if row.functions or row.methods], ids=named)
def test_every_spelling_computes_the_same(row: Operation) -> None:
    if row.name in NOT_COMPARED:
        return
    inputs = inputs_of(row)
    with quiet():
        module = build(row, inputs[0])
        expected = main(call(module, *inputs))
        for dotted, text in row.functions.items():
            function = resolve(dotted)
            assert callable(function)
            arguments = arguments_from(module, parse_signature(text)[len(row.ports) :])
            found = call(function, *inputs_of(row), **arguments)
            assert isinstance(found, Tensor), dotted
            torch.testing.assert_close(found, expected)
        for method, text in row.methods.items():
            first, *others = inputs_of(row)
            found = call(getattr(first, method), *others, **arguments_from(module, parse_signature(text)))
            torch.testing.assert_close(found, expected)


def test_multihead_attention_calls_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    original = nn.functional.multi_head_attention_forward

    def spy(*args: object, **kwargs: object) -> object:
        called.append(True)
        return original(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "multi_head_attention_forward", spy)
    row = OPERATIONS["MultiheadAttention"]
    build(row, inputs_of(row)[0]).train()(*inputs_of(row))
    assert called


# ---- operations without a layer ----


def pair(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 4, 4), (4,)) if OPERATIONS[name].shape is Shape.BROADCAST else ((2, 4, 4), (2, 4, 4))
    first, second = (torch.rand(shape, generator=generator) + 1 for shape in shapes)
    return first, second


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "matmul", "bmm"])
def test_spellings_of_a_merge_of_two_agree(name: str) -> None:
    row = OPERATIONS[name]
    first, second = pair(name)
    expected = getattr(torch, name)(first, second)
    assert expected.shape == torch.broadcast_shapes(first.shape, second.shape)
    for dotted in row.functions:
        torch.testing.assert_close(resolve(dotted)(*pair(name)), expected)  # type: ignore[operator]
    for method in row.methods:
        torch.testing.assert_close(getattr(pair(name)[0], method)(second), expected)
    if row.commutative:
        torch.testing.assert_close(getattr(torch, name)(second, first), expected)
    else:
        assert not torch.equal(getattr(torch, name)(second.expand_as(first), first), expected)


def test_shapes_of_what_joins_and_splits() -> None:
    first, second = pair("cat")
    for dotted in OPERATIONS["cat"].functions:
        assert resolve(dotted)([first, second], dim=1).shape == (2, 8, 4)  # type: ignore[operator]
    assert torch.stack([first, second]).shape == (2, 2, 4, 4)
    for name in ("chunk", "split"):
        assert OPERATIONS[name].shape is Shape.SPLIT
        for pieces in (getattr(torch, name)(first, 2, dim=1), getattr(first, name)(2, dim=1)):
            assert [piece.shape for piece in pieces] == [(2, 2, 4)] * 2
    assert {row.name for row in ROWS if row.outputs == 0} == {"chunk", "split", "unbind"}


@pytest.mark.parametrize("name", ["contiguous", "clone", "detach"])
def test_what_hands_its_input_on(name: str) -> None:
    first, _ = pair("cat")
    assert OPERATIONS[name].shape is Shape.SAME
    assert torch.equal(getattr(first, name)(), first)


@pytest.mark.parametrize("name", ["F.batch_norm", "F.instance_norm"])
def test_a_norm_without_a_rank_keeps_the_shape(name: str) -> None:
    row = OPERATIONS[name]
    function = resolve(next(iter(row.functions)))
    assert callable(function)
    for rank in (3, 4, 5):
        value = torch.rand(SHAPES[rank])
        assert function(value, torch.zeros(4), torch.ones(4)).shape == value.shape


def test_what_a_trace_records_is_found() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:
            x = nn.functional.conv2d(x, weight)
            x = nn.functional.gelu(x)
            x += nn.functional.relu(x, inplace=True)
            x = nn.functional.max_pool2d(x, 2)
            x = nn.functional.avg_pool2d(x, 2) * 2
            x = nn.functional.adaptive_max_pool2d(x, 2).sigmoid_()
            a, b = nn.functional.dropout(x, 0.1).chunk(2, dim=1)
            return nn.functional.softplus(torch.cat([a, b], 1) @ torch.flatten(x, 1))

    objects = {id(resolve(dotted)): row for row, dotted in FUNCTIONS}
    nodes = [node for node in torch.fx.symbolic_trace(Net()).graph.nodes if node.op.startswith("call")]
    rows = [by_method(node.target) if node.op == "call_method" else objects.get(id(node.target)) for node in nodes]
    assert [row.name if row else None for row in rows] == [
        *("Conv2d", "GELU", "ReLU", "add", "MaxPool2d", "AvgPool2d", "mul", "AdaptiveMaxPool2d", "Sigmoid", "Dropout"),
        *("chunk", "getitem", "getitem", "cat", "Flatten", "matmul", "Softplus"),
    ]
