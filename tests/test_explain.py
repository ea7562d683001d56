"""`rewrite explain`: codes in any form, what is close to a code, and rules on a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rewrite.cli import main
from rewrite.errors import CODES
from rewrite.explanations import EXPLANATIONS


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Runs one command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)), "net.pt")
    Path("bn.rw").write_text("after Conv2d: insert BatchNorm2d\n")
    return "net.pt"


def test_the_page_of_a_code(run):
    code, out, err = run("explain", "RW303")
    assert (code, err) == (0, "")
    assert out == (
        "RW303: number of matches differs from what is expected (error, exit code 1)\n"
        "\n"
        "The rule says how many places it should find, with `expect ... matches`, and it found another\n"
        "number. So the model is not the one that the rule was written for, or the selector is wider or\n"
        "narrower than you think. The message lists the places that were found. Change the selector, or\n"
        'the number if it is out of date: `expect 3..` is "at least 3", `expect 3..5` is a range, `expect\n'
        "any` allows everything.\n"
        "\n"
        "Rules that cause it, on torchvision:vgg16:\n"
        "\n"
        "    after Conv2d: insert BatchNorm2d; expect 12 matches\n"
        "\n"
        "Put right, on torchvision:vgg16:\n"
        "\n"
        "    after Conv2d: insert BatchNorm2d; expect 13 matches\n"
    )


@pytest.mark.parametrize("word", ["RW001", "rw001", "Rw1", "001", "1", "rw01"])
def test_forms_of_a_code(run, word):
    assert run("explain", word)[1].startswith("RW001: unexpected word")


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_page(run, code):
    exit_code, out, err = run("explain", code, "--json")
    assert (exit_code, err) == (0, "")
    (found,) = json.loads(out)["codes"]
    assert (found["code"], found["title"], found["exit_code"]) == (code, CODES[code].title, CODES[code].exit_code)
    assert found["severity"] == ("warning" if CODES[code].error is None else "error")
    assert found["text"] == EXPLANATIONS[code].text
    assert {"language", "model", "text"} == set(found["example"]) == set(found["remedy"])
    assert run("explain", code)[0] == 0


def test_several_codes(run):
    _, out, _ = run("explain", "104", "RW105")
    assert out.index("RW104: ") < out.index("RW105: ")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("RW3O1", "did you mean `RW301` (no match)?"),
        ("rw304", "did you mean `RW"),
        ("cycle", "did you mean `RW315` (edit would make a cycle)?"),
        ("promisse", "codes go from `RW001` to `RW506`"),
        ("overlaping", "did you mean `RW314` (overlapping matches)?"),
    ],
)
def test_an_unknown_code(run, word, hint):
    code, out, err = run("explain", word)
    assert (code, out) == (2, "")
    assert err.startswith(f"rewrite explain: unknown code {word!r}; {hint}")
    code, out, err = run("explain", word, "--json")
    assert (code, err) == (2, "")
    (error,) = json.loads(out)["errors"]
    assert error["message"].startswith(f"unknown code {word!r}; {hint}")


def test_rules_on_a_model(run, net):
    code, out, err = run("explain", "bn.rw", net)
    assert (code, err) == (0, "")
    assert "1 site" in out
    code, out, err = run("explain", "-e", 'after Conv2d in "head.**": insert BatchNorm2d', net)
    assert code == 1
    assert "error[RW301]" in err
    assert "near miss" in out
    code, out, _ = run("explain", "bn.rw", net, "--json")
    assert code == 0
    assert json.loads(out)["explained"]["clauses"][0]["sites"] == ["0 (nn.Conv2d)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "missing RULES and MODEL"),
        (["bn.rw"], "missing MODEL"),
        (["-e", "freeze any"], "missing MODEL"),
        (["--seed", "301", "bn.rw"], "missing MODEL"),
    ],
)
def test_usage(run, net, words, message):
    code, out, err = run("explain", *words)
    assert (code, out) == (2, "")
    assert err.endswith(f"rewrite explain: error: {message}\n")


def test_a_file_that_is_named_like_a_code(run, net):
    Path("rw1").write_text("after Conv2d: insert BatchNorm2d\n")
    assert "1 site" in run("explain", "rw1", net)[1]
