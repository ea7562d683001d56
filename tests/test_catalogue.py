"""The vocabulary in words: the rows, `rewrite ops`, and the pages that are written from them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewrite import Rules, catalogue, check_rules, lookup, vocabulary
from rewrite.cli import main
from rewrite.errors import RuleError

ROOT = Path(__file__).parent.parent
ENTRIES = {one.name: one for one in catalogue.entries()}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Runs one command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


# ---- rows


@pytest.mark.parametrize("name", ENTRIES)
def test_every_name_and_spelling_leads_back(name: str) -> None:
    one = ENTRIES[name]
    for word in (*one.names, *one.spellings):
        found = catalogue.find(word)
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize("name", [name for name, one in ENTRIES.items() if one.constructor])
def test_what_is_filled_in_are_arguments(name: str) -> None:
    one = ENTRIES[name]
    known = {parameter.name for parameter in vocabulary.OPERATIONS[name].parameters}
    assert {argument for argument, _ in one.filled_in} <= known
    assert known <= set(one.attributes)


@pytest.mark.parametrize("name", [name for name, one in ENTRIES.items() if one.inputs])
def test_inputs_can_be_chosen(name: str) -> None:
    for port in ENTRIES[name].inputs:
        check_rules(Rules(f"before {name}{port}: insert Identity"))


@pytest.mark.parametrize("name", ENTRIES)
def test_attributes_can_be_asked(name: str) -> None:
    tests = ", ".join(attribute for attribute in ENTRIES[name].attributes)
    check_rules(Rules(f"remove {name}[{tests}]"))


@pytest.mark.parametrize("name", ["Conv2d", "Dropout", "MultiheadAttention"])
def test_other_attributes_cannot(name: str) -> None:
    with pytest.raises(RuleError, match="RW102"):
        check_rules(Rules(f"remove {name}[no_such_attribute]"))


def test_families_are_those_of_the_vocabulary() -> None:
    groups = catalogue.families()
    assert set(groups) == vocabulary.FAMILIES | {catalogue.OTHER}
    assert sorted(name for names in groups.values() for name in names) == sorted(vocabulary.OPERATIONS)
    assert catalogue.OTHER not in vocabulary.OPERATIONS


# ---- the command


def test_an_operation(run):
    code, out, err = run("ops", "GroupNorm")
    assert (code, err) == (0, "")
    assert out == (
        "GroupNorm\n"
        "  family        norm\n"
        "  names         GroupNorm, group_norm\n"
        "  spellings     nn.GroupNorm, F.group_norm, torch.group_norm\n"
        "  constructor   GroupNorm(num_groups, num_channels, eps=1e-05, affine=true, bias=true)\n"
        "  filled in     `num_channels` from the number of channels (axis 1)\n"
        "  attributes    activation, affine, bias, cudnn_enabled, eps, inplace, num_channels, num_groups, path,\n"
        "                training, uses, weight\n"
        "  traits        keeps the shape\n"
    )


@pytest.mark.parametrize("word", ["ReLU", "relu", "relu_", "nn.ReLU", "F.relu", "Tensor.relu_", "torch.nn.ReLU"])
def test_every_spelling_is_the_operation(run, word):
    assert run("ops", word)[1].startswith("ReLU\n  family        activation\n")


def test_a_merge(run):
    out = run("ops", "add")[1]
    assert "  constructor   none: it can be found, not inserted\n  inputs        @0, @1, @*\n" in out
    assert out.endswith("  traits        inputs broadcast, commutative\n")


def test_the_table_has_every_operation(run):
    code, out, err = run("ops")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == [name for names in catalogue.families().values() for name in names]
    assert [line for line in lines if line and not line.startswith(" ")] == [*catalogue.families()]
    assert max(map(len, lines)) <= 170


def test_a_family(run):
    code, out, _ = run("ops", "linear")  # before the alias of `Linear`, as where a rule selects
    assert code == 0
    assert out.splitlines()[0] == "linear"
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["Linear", "Bilinear"]


def test_families(run):
    code, out, _ = run("ops", "--families")
    assert code == 0
    assert out.startswith("conv (8)          Conv1d, Conv2d, Conv3d")
    form = json.loads(run("ops", "--families", "--json")[1])
    assert form["families"]["linear"] == ["Linear", "Bilinear"]
    assert run("ops", "norm", "--families")[0] == 2


def test_json(run):
    (found,) = json.loads(run("ops", "BatchNorm2d", "--json")[1])["operations"]
    assert found["family"] == "norm"
    assert found["constructor"] == lookup.signature(vocabulary.OPERATIONS["BatchNorm2d"])
    assert found["filled_in"] == {"num_features": "the number of channels (axis 1)"}
    assert found["traits"] == ["keeps the shape", "takes 4 axes", "moving statistics"]
    assert len(json.loads(run("ops", "--json")[1])["operations"]) == len(vocabulary.OPERATIONS)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("RelU", "did you mean `ReLU`?"),
        ("BatchNormm2d", "did you mean `BatchNorm2d`"),
        ("nn.RelU", "did you mean `nn.ReLU`?"),
        ("normm", "did you mean `norm`"),
        ("xyzzy", "`rewrite ops` lists all of them"),
    ],
)
def test_an_unknown_word(run, word, hint):
    code, out, err = run("ops", word)
    assert (code, out) == (2, "")
    assert err.startswith(f"rewrite ops: unknown operation {word!r}; {hint}")
    code, out, err = run("ops", word, "--json")
    assert (code, err) == (2, "")
    assert hint in json.loads(out)["errors"][0]["message"]


@pytest.mark.parametrize("words", [["ops"], ["ops", "ReLU"], ["explain", "RW301"]], ids=" ".join)
def test_nothing_heavy_is_loaded(words: list[str]) -> None:
    script = (
        f"import sys; from rewrite.cli import main; main({words!r}); "
        "print(*{'torch', 'lark', 'networkx', 'rich', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stderr.strip() == ""


# ---- the pages


@pytest.mark.parametrize("name", ["diagnostics.md", "vocabulary.md", "keras.md"])
def test_a_page_is_up_to_date(name: str) -> None:
    if name == "keras.md":
        pytest.importorskip("keras")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == generate.PAGES[name](), "run `python -m docs.generate`"
