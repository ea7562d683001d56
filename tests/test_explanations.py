"""Every code has an explanation whose example really causes it and whose remedy really does not."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewrite import RewriteError, Rules, check_rules, plan_rules, run_rule_tests
from rewrite.cli import main
from rewrite.errors import CODES
from rewrite.explanations import EXPLANATIONS, Example

ROOT = Path(__file__).parent.parent
SHOWN = re.compile(r"\[(RW\d{3})\]")

"""codes that the table has and nothing raises so far"""

STAYS = frozenset({"RW408"})
"""hints that remain when all is done as they say: they are about what comes next"""

SHORTENED = frozenset({"RW015"})
"""codes whose example says "and so on" """


@pytest.fixture(scope="module")
def built() -> dict[str, nn.Module]:
    """The models of the examples, each built once, without memory."""
    return {}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what the command lines name: `bn.rw`, `net.pt`, and `mine.pt` with a class of `mine.py`."""
    monkeypatch.chdir(tmp_path)
    Path("bn.rw").write_text("after Conv2d: insert BatchNorm2d\n")
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)), "net.pt")


def model_of(name: str, built: dict[str, nn.Module]) -> nn.Module:
    pytest.importorskip("torchvision")
    from rewrite.backends.torch import torchvision_schemas

    torchvision_schemas.declare()
    import torchvision

    if name not in built:
        short = name.removeprefix("torchvision:")
        options = {"weights_backbone": None} if "retinanet" in short else {}
        with torch.device("meta"):
            built[name] = torchvision.models.get_model(short, weights=None, **options).eval()
    return built[name]


def codes_of(example: Example, built: dict[str, nn.Module], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The codes of all errors and warnings of an example."""
    try:
        if example.language == "python":
            if "import keras" in example.text:
                pytest.importorskip("keras")
            found: dict[str, Any] = {"__name__": "example"}
            exec(compile(example.text, "<example>", "exec"), found)
            return [warning.code for warning in found["report"].warnings] if "report" in found else []
        if example.language == "sh":
            for line in example.text.splitlines():
                capsys.readouterr()
                program, *words = shlex.split(line)
                assert program == "rewrite"
                main(words)
            return SHOWN.findall(capsys.readouterr().err)
        if example.language == "text":
            _, *parts = re.split(r"^# (\S+\.rw).*\n", example.text, flags=re.MULTILINE)
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                Path(name).write_text(text)
            check_rules(parts[-2])
        elif "test " in example.text and "given" in example.text:
            results = run_rule_tests(Rules(example.text))
            return ["RW322" for result in results if result.result != "passed"]
        elif example.model:
            plan = plan_rules(model_of(example.model, built), Rules(example.text), name=example.model)
            return [warning.code for warning in plan.report.warnings]
        else:
            return [warning.code for warning in check_rules(Rules(example.text)).warnings]
    except RewriteError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return []


def prepare(code: str) -> None:
    if code == "RW502":
        Path("mine.py").write_text("from torch import nn\n\nclass Net(nn.Linear):\n    pass\n")
        script = "import mine, torch; torch.save(mine.Net(2, 2), 'mine.pt')"
        subprocess.run([sys.executable, "-c", script], check=True)


def test_every_code_is_explained() -> None:
    assert list(EXPLANATIONS) == list(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_raised_somewhere(code: str) -> None:
    files = [
        file
        for file in (ROOT / "rewrite").rglob("*.py")
        if file.name != "errors.py" and file.parent.name != "explanations"
    ]
    raised = any(f'"{code}"' in file.read_text(encoding="utf-8") for file in files)
    assert raised


@pytest.mark.parametrize("code", [code for code in EXPLANATIONS if code not in SHORTENED])
def test_the_example_causes_it(code: str, built: dict[str, nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    prepare(code)
    assert code in codes_of(EXPLANATIONS[code].example, built, capsys)


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_the_remedy_does_not(code: str, built: dict[str, nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    prepare(code)
    found = codes_of(EXPLANATIONS[code].remedy, built, capsys)
    left = [one for one in found if CODES[one].error is not None or one == code]
    assert not left or code in STAYS


@pytest.mark.parametrize("code", [code for code in EXPLANATIONS if code < "RW2" and code not in SHORTENED])
def test_the_example_causes_nothing_else(
    code: str, built: dict[str, nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(code)
    assert set(codes_of(EXPLANATIONS[code].example, built, capsys)) == {code}


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_the_text_is_plain(code: str) -> None:
    text = EXPLANATIONS[code].text
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z`])", text)
    assert 3 <= len(sentences) <= 8
    assert all(len(sentence.split()) <= 60 for sentence in sentences)
    assert text == " ".join(text.split())
    assert text.count("`") % 2 == 0
    named = set(re.findall(r"RW\d{3}", text))
    assert named <= set(CODES) - {code}


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_lines_fit(code: str) -> None:
    for example in (EXPLANATIONS[code].example, EXPLANATIONS[code].remedy):
        assert all(len(line) <= 116 for line in example.text.splitlines())
        assert example.text == textwrap.dedent(example.text).strip("\n ")


def test_nothing_but_explain_loads_them() -> None:
    script = (
        "import sys, rewrite; from rewrite import Rules, check_rules; from rewrite.cli import main; "
        "check_rules(Rules('freeze any')); main(['check', '-e', 'freeze any']); "
        "sys.exit(any(name.startswith('rewrite.explanations') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
