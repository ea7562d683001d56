"""Syntax tree to program: names looked up, scopes and counts where they belong, each mistake found without a model."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

import pytest
from fuzzing import mutations
from test_parser import LITERAL, WORKED

from rewrite import actions, parser, resolver
from rewrite.errors import RuleError
from rewrite.expression import SELECTED, Call, Is, Literal, Name, Relation, evaluate
from rewrite.pattern import Anything, Kind, Path, Pick
from rewrite.rule import Clause, Count, Program
from rewrite.source import Source

MODULES = {"my.SEBlock", "DropPath", "Normalize", "Conv1d"}


def resolve(
    text: str,
    params: Mapping[str, object] | None = None,
    modules: Collection[str] | None = None,
    model_classes: Collection[str] | None = None,
) -> Program:
    file = parser.parse(Source("<test>", text))
    return resolver.resolve(file, params=params, modules=modules, model_classes=model_classes)


def clause(text: str, **options: Collection[str]) -> Clause:
    (found,) = resolve(text, **options).clauses  # type: ignore[arg-type]
    return found


def codes(text: str, **options: object) -> list[str]:
    with pytest.raises(RuleError) as caught:
        resolve(text, **options)  # type: ignore[arg-type]
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


def kind(name: str, **options: Collection[str]) -> Kind:
    base = clause(f"remove {name}", **options).selector.alternatives[0].base
    assert isinstance(base, Kind)
    return base


# ---- clauses ------------------------------------------------------------------------------------------------------


def test_literal_example() -> None:
    found = clause(LITERAL)
    assert found.header == "after"
    assert found.text == "after Conv2d: insert BatchNorm2d; set prev.activation = identity"
    assert found.selector.alternatives[0].base == Kind("Conv2d", operation="Conv2d")
    assert found.count == Count(1, None, None)
    insert, change = found.actions
    assert isinstance(insert, actions.Insert)
    assert [layer.operation for layer in insert.layers] == ["BatchNorm2d"]
    assert isinstance(change, actions.Set)
    (assignment,) = change.assignments
    assert (assignment.target.root, assignment.target.attributes) == ("prev", ("activation",))
    assert isinstance(assignment.value, Name)
    assert assignment.value.name == "Identity"


def test_worked_rules() -> None:
    program = resolve(WORKED, modules=MODULES)
    assert program.constants == {"rate": 0.1}
    assert program.output is not None
    assert program.output.shape == (None, 10)
    assert [found.rule for found in program.clauses].count("bn") == 1
    assert program.warnings == ()


@pytest.mark.parametrize(
    ("text", "header", "action"),
    [
        ("remove ReLU", None, actions.Remove),
        ("replace ReLU with GELU", None, actions.Replace),
        ("freeze any", None, actions.Freeze),
        ("unfreeze stats any", None, actions.Freeze),
        ("reset Linear", None, actions.Reset),
        ("after ReLU: insert GELU", "after", actions.Insert),
        ("before ReLU: insert GELU", "before", actions.Insert),
        ("between Conv2d and ReLU: insert GELU", "between", actions.Insert),
        ("at ReLU: set self.inplace = false", "at", actions.Set),
    ],
)
def test_headers_and_actions(text: str, header: str | None, action: type) -> None:
    found = clause(text)
    assert found.header == header
    assert [type(done) for done in found.actions] == [action]
    assert (found.second is not None) == (header == "between")


def test_freeze_words() -> None:
    done = [found.actions[0] for found in resolve("freeze any; freeze params any; unfreeze stats any").clauses]
    assert [(freeze.frozen, freeze.what) for freeze in done if isinstance(freeze, actions.Freeze)] == [
        (True, "all"),
        (True, "params"),
        (False, "stats"),
    ]


def test_chain_with_captures() -> None:
    found = clause("after Conv2d as c: insert Conv2d(c.out_channels, kernel_size=1) as d -> ReLU; set d.bias = none")
    (insert, _) = found.actions
    assert isinstance(insert, actions.Insert)
    first, second = insert.layers
    assert (first.name, first.capture, second.name, second.capture) == ("Conv2d", "d", "ReLU", None)
    assert len(first.arguments) == 1
    assert [name for name, _ in first.keywords] == ["kernel_size"]


def test_within_is_added_to_every_selector() -> None:
    text = """
within "encoder.**" {
    within BasicBlock:
        between Conv2d in "a" and ReLU: insert GELU
    remove GELU
}
remove Tanh
"""
    first, second, third = resolve(text).clauses
    assert [[unit.base for unit in scope] for scope in first.selector.within] == [
        [Path("encoder.**")],
        [Kind("BasicBlock", class_name="BasicBlock")],
    ]
    assert [[unit.base for unit in scope] for scope in first.selector.scopes] == [[Path("a")]]
    assert first.second is not None
    assert first.second.within == first.selector.within
    assert first.text == 'within "encoder.**": within BasicBlock: between Conv2d in "a" and ReLU: insert GELU'
    assert len(second.selector.within) == 1
    assert third.selector.within == ()


def test_counts_belong_to_their_rule() -> None:
    text = """
remove ReLU
expect 3 matches
rule a "title":
    remove GELU
    after Conv2d:
        insert Dropout
        expect 2.. matches
    expect output (1, _)
remove Tanh; expect any matches
remove ELU; expect ..4 matches
remove CELU
"""
    program = resolve(text)
    assert [(found.count.low, found.count.high) for found in program.clauses] == [
        (3, 3),
        (1, None),
        (2, None),
        (0, None),
        (0, 4),
        (1, None),
    ]
    assert [found.rule for found in program.clauses] == [None, "a", "a", None, None, None]
    assert program.clauses[0].count.span is not None
    assert program.clauses[1].count.span is None
    assert program.output is not None
    assert program.output.shape == (1, None)


def test_text_is_canonical() -> None:
    one = clause("""
within  A|B:
  after Conv2d [groups=1] as c  where c.bias: # why
    insert  Dropout( p=1e-1 )
    expect 3 matches
""")
    two = clause("within A | B { after Conv2d[groups == 1] as c where c.bias { insert Dropout(p=0.1) } }")
    assert clause("after ReLU: expect 3 matches").text == "after ReLU"
    assert one.text == two.text == "within A | B: after Conv2d[groups == 1] as c where c.bias: insert Dropout(p=0.1)"


# ---- selectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Conv2d", Kind("Conv2d", operation="Conv2d")),
        ("conv2d", Kind("conv2d", operation="Conv2d")),
        ("relu", Kind("relu", operation="ReLU")),
        ("add", Kind("add", operation="add")),
        ("linear", Kind("linear", family="linear")),
        ("dropout", Kind("dropout", family="dropout")),
        ("nn.ReLU", Kind("nn.ReLU", dotted="nn.ReLU")),
        ("F.relu", Kind("F.relu", dotted="F.relu")),
        ("torch.relu", Kind("torch.relu", dotted="torch.relu")),
        (
            "transformers.pytorch_utils.Conv1D",
            Kind("transformers.pytorch_utils.Conv1D", dotted="transformers.pytorch_utils.Conv1D"),
        ),
        ("BasicBlock", Kind("BasicBlock", class_name="BasicBlock")),
        ("LayerNorm2d", Kind("LayerNorm2d", class_name="LayerNorm2d")),
        ("GroupNorm1", Kind("GroupNorm1", class_name="GroupNorm1")),
        ("Conv", Kind("Conv", class_name="Conv")),
        ("Attention", Kind("Attention", class_name="Attention")),
    ],
)
def test_kinds(name: str, expected: Kind) -> None:
    assert kind(name) == expected


def test_given_modules_go_first() -> None:
    assert kind("Conv1d", modules=MODULES) == Kind("Conv1d", dotted="Conv1d")
    assert kind("my.SEBlock", modules=MODULES) == Kind("my.SEBlock", dotted="my.SEBlock")


def test_classes_of_the_model() -> None:
    assert kind("Conv1D", model_classes={"Conv1D"}) == Kind("Conv1D", class_name="Conv1D")
    assert kind("block", model_classes={"block"}) == Kind("block", class_name="block")
    assert codes("remove BasicBlock", model_classes={"Bottleneck"}) == ["RW101"]


@pytest.mark.parametrize(
    "name", ["conv2D", "Conv2s", "BatchNrom2d", "batchnorm", "RELU", "Dropot", "LAYERNORM", "foo", "nn.Relu"]
)
def test_unknown_without_a_model(name: str) -> None:
    assert codes(f"remove {name}") == ["RW101"]


def test_parts_of_a_selector() -> None:
    chosen = 'nth(2) cat[dim==1] | every(3) "a.{b,c}" | any@* as c in A | B in "d" except E where c.dim == 1'
    found = clause(f"before {chosen}: insert ReLU").selector
    first, second, third = found.alternatives
    assert (first.pick, second.pick, third.pick) == (Pick("nth", 2), Pick("every", 3), None)
    assert [(test.name, test.operator) for test in first.tests] == [("dim", "==")]
    assert (second.base, third.base, third.port) == (Path("a.{b,c}"), Anything(), "*")
    assert found.capture == "c"
    assert [len(scope) for scope in found.scopes] == [2, 1]
    assert len(found.excluded) == 1
    assert found.where is not None


def test_selectors_inside_expressions_are_resolved() -> None:
    where = clause("remove Conv2d as c where has_next(relu | 'a.*') or c is not conv").selector.where
    assert where is not None
    asked: list[tuple[object, ...]] = []
    evaluate(where, {"c": 1}, relation=lambda name, value, units, span: bool(asked.append((name, value, units))))
    (_, selected, first), (_, one, second) = asked
    assert (selected, one) == (SELECTED, 1)
    assert [unit.base for unit in first] == [Kind("relu", operation="ReLU"), Path("a.*")]  # type: ignore[attr-defined]
    assert [unit.base for unit in second] == [Kind("conv", family="conv")]  # type: ignore[attr-defined]
    assert isinstance(getattr(where, "left", None), Relation)
    assert isinstance(getattr(where, "right", None), Is)


@pytest.mark.parametrize(
    "text",
    [
        "before add@1: insert ReLU",
        "before cat@*: insert ReLU",
        "before MultiheadAttention@query: insert ReLU",
        "before MultiheadAttention@2: insert ReLU",
        "before conv@0: insert ReLU",
        'before "a"@left: insert ReLU',
        "between Conv2d and add@0: insert ReLU",
    ],
)
def test_ports(text: str) -> None:
    resolve(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("before add@left: insert ReLU", "RW106"),
        ("before Conv2d@1: insert ReLU", "RW106"),
        ("before MultiheadAttention@4: insert ReLU", "RW106"),
        ("after add@1: insert ReLU", "RW009"),
        ("between add@1 and Conv2d: insert ReLU", "RW009"),
        ("remove ReLU except add@0", "RW009"),
    ],
)
def test_impossible_ports(text: str, code: str) -> None:
    assert codes(text) == [code]


# ---- layers and arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "after ReLU: insert nn.Dropout(0.1)",
        "after ReLU: insert relu",
        "after ReLU: insert identity",
        "after Conv2d: insert Conv2d(3, 8, 3)",
        "after Conv2d: insert Conv2d(kernel_size=1)",
        "after Linear: insert Linear",
        "after Linear: insert LayerNorm",
        "replace Conv2d with Conv2d",
        "replace Conv2d | ReLU with Conv2d",
        'replace "stem" with Conv2d',
        "replace conv with Conv2d",
        "after Conv2d: insert my.SEBlock(16, goes=1)",
        "after Conv2d: set prev.activation = DropPath",
        "after Conv2d: set prev.activation = GELU(approximate='tanh')",
        "after Conv2d: set prev.activation = none",
        "reset Linear with kaiming_normal_(mode='fan_out')",
        "reset Linear with constant(0)",
    ],
)
def test_good_layers(text: str) -> None:
    resolve(text, modules=MODULES)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("after ReLU: insert Droput", "RW101"),
        ("after ReLU: insert BasicBlock", "RW101"),
        ("after ReLU: insert cat", "RW101"),
        ("after ReLU: insert conv", "RW101"),
        ("after ReLU: insert F.relu", "RW101"),
        ("after ReLU: insert Conv2d", "RW106"),
        ("replace ReLU with Conv2d", "RW106"),
        ("after ReLU: insert Dropout(q=1)", "RW106"),
        ("after ReLU: insert Dropout(1, 2, 3)", "RW106"),
        ("after ReLU: insert Dropout(1, p=2)", "RW106"),
        ("after ReLU: set prev.activation = GELU(1, 2)", "RW106"),
        ("after ReLU: set prev.activation = Linear", "RW106"),
        ("after ReLU: set prev.activation = 3", "RW106"),
        ("after ReLU: set prev.activation = relv", "RW101"),
        ("reset Linear with ones(1)", "RW106"),
        ("reset Linear with sparse", "RW106"),
        ("reset Linear with glorot", "RW106"),
    ],
)
def test_bad_layers(text: str, code: str) -> None:
    assert codes(text) == [code]


@pytest.mark.parametrize(
    "text",
    [
        "remove Conv2d[in_channels, bias, training, padding_mode == 'zeros']",
        "remove relu[inplace]",
        "remove cat[dim==1]",
        'remove BasicBlock[expansion == 4] | "a"[b] | any[c] | conv[d]',
        "remove Conv2d | BasicBlock as c where c.expansion == 4",
        "remove Conv2d | Linear as c where c.in_features == 4",
        "at Conv2d: set self.activation = identity, self.bias = none",
    ],
)
def test_known_attributes(text: str) -> None:
    resolve(text)


@pytest.mark.parametrize(
    "text",
    [
        "remove Conv2d[in_features]",
        'remove "a" | Conv2d[in_features]',
        "remove Conv2d | Linear as c where c.nonsense == 4",
        "at Conv2d: set self.nonsense = 1",
        "after Conv2d: set prev.nonsense = 1",
        "before Conv2d: set next.nonsense = 1",
        "between Conv2d and Linear: set prev.in_features = 1",
        "after BasicBlock: insert Dropout; set self.nonsense = 1",
        "after BasicBlock: insert Dropout as d; set d.nonsense = 1",
    ],
)
def test_unknown_attributes(text: str) -> None:
    assert codes(text) == ["RW102"]


# ---- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("after ReLU where self is ReLU: insert GELU", "RW107"),
        ("after ReLU: insert Dropout(self.p)", "RW107"),
        ("at ReLU: set prev.inplace = true", "RW103"),
        ("remove ReLU as r where q.inplace", "RW103"),
        ("after ReLU: insert Dropout(d.p) as d", "RW103"),
        ("remove ReLU where max", "RW103"),
        ("replace ReLU with Dropout(prev.p)", "RW103"),
        ("remove ReLU[inplace == c]", "RW103"),
        ("let a = b; remove ReLU", "RW103"),
        ("let a = a; remove ReLU", "RW103"),
        ("remove ReLU as prev where prev.inplace", "RW105"),
        ("remove ReLU as Droppath where 1 == 1", None),
        ("remove ReLU as DropPath where DropPath.inplace", "RW105"),
        ("let conv2d = 1; remove ReLU", "RW105"),
    ],
)
def test_names(text: str, code: str | None) -> None:
    if code is None:
        assert [warning.code for warning in resolve(text, modules=MODULES).warnings] == ["RW104"]
    else:
        assert codes(text, modules=MODULES) == [code]


def test_self_is_the_match_or_the_layer_inserted_last() -> None:
    resolve("at ReLU where self.inplace: set self.inplace = false")
    resolve("replace Dropout where self.p > 0.5 with Dropout(p=self.p / 2)")
    resolve("after ReLU: insert Dropout; set self.p = 0.5; insert Dropout(self.p)")


def test_used_captures_are_not_warned_about() -> None:
    program = resolve("after ReLU as a: insert Dropout as b; set b.p = 0.1, a.inplace = false")
    assert program.warnings == ()


# ---- constants ----------------------------------------------------------------------------------------------------

CONSTANTS = "param rate = 0.1\nlet double = rate * 2\nparam shape = (1, [2, 'a', none, true])\nremove ReLU"


def test_constants() -> None:
    assert resolve(CONSTANTS).constants == {"rate": 0.1, "double": 0.2, "shape": (1, [2, "a", None, True])}


def test_params_go_before_and_keep_their_type() -> None:
    constants = resolve(CONSTANTS, params={"rate": 1, "shape": "text"}).constants
    assert constants == {"rate": 1, "double": 2, "shape": "text"}
    assert type(constants["rate"]) is int


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"rat": 1}, "RW110"),
        ({"double": 1}, "RW110"),
        ({"rate": object()}, "RW106"),
        ({"rate": float("nan")}, "RW106"),
        ({"rate": 10**18}, "RW106"),
        ({"rate": {"a": 1}}, "RW106"),
        ({"rate": [[[[[[[[[1]]]]]]]]]}, "RW106"),
    ],
)
def test_bad_params(params: dict[str, object], code: str) -> None:
    found = codes("param rate = 0.1\nlet double = 3\nremove ReLU", params=params)
    assert found == [code]


def test_an_error_in_a_constant_is_reported_once() -> None:
    assert codes("let a = 1 / 0\nlet b = a + 1\nparam c = b * 2\nafter ReLU: insert Dropout(c)") == ["RW106"]


def test_names_of_constants_stay_names_in_arguments() -> None:
    (insert,) = clause("param rate = 0.1\nafter ReLU: insert Dropout(rate)").actions
    assert isinstance(insert, actions.Insert)
    (argument,) = insert.layers[0].arguments
    assert isinstance(argument, Name)


def test_activation_with_arguments() -> None:
    (change,) = clause("at Conv2d: set self.activation = leaky_relu(0.2), self.groups = 1").actions
    assert isinstance(change, actions.Set)
    activation, groups = (assignment.value for assignment in change.assignments)
    assert isinstance(activation, Call)
    assert isinstance(activation.function, Name)
    assert activation.function.name == "LeakyReLU"
    assert isinstance(groups, Literal)


# ---- everything at once -------------------------------------------------------------------------------------------


def test_all_errors_are_collected_in_order() -> None:
    text = "remove Conv2s\nat ReLU: insert GELU\nremove ReLU as c where d.x\nrule a: remove ReLU\nrule a: remove ReLU"
    assert codes(text, params={"x": 1}) == ["RW110", "RW101", "RW009", "RW103", "RW109"]


def test_no_program_gets_an_exception() -> None:
    draw = random.Random(2)
    refused = resolved = 0
    for text in mutations(3, 1500):
        try:
            file = parser.parse(Source("<test>", f"param rate = 0.1\n{text}"))
        except RuleError:
            continue
        try:
            program = resolver.resolve(
                file,
                params={"rate": 0.5} if draw.random() < 0.3 else None,
                modules=MODULES if draw.random() < 0.5 else None,
                model_classes={"BasicBlock", "InceptionA"} if draw.random() < 0.5 else None,
            )
        except RuleError as error:
            refused += 1
            for diagnostic in error.diagnostics:
                assert diagnostic.code < "RW2", text
                diagnostic.render()
        else:
            resolved += 1
            for warning in program.warnings:
                warning.render()
    assert refused > 50
    assert resolved > 50
