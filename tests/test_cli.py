"""The command line: what it prints where, its exit codes, and what it leaves on the disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from rewrite.cli import COMMANDS, main
from rewrite.cli.arguments import input_spec, literal, parameter
from rewrite.saved import read_model

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    torch.save(model, "net.pt")
    Path("bn.rw").write_text("rw 1\n\nafter Conv2d: insert BatchNorm2d\n")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Runs one command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def process(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs one command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "rewrite", *words], capture_output=True, text=True, env=environment, **options
    )


# ---- the program as a whole


def test_help_lists_the_commands(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name, text in COMMANDS.items():
        assert f"  {name:<8}{text}" in out
    assert run() == (2, "", out)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(run, name):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: rewrite {name} ")
    assert COMMANDS[name] in out


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"rewrite \d+\.\d+\S*\n", out)


def test_an_unknown_command(run):
    assert run("plam") == (2, "", "rewrite: unknown command 'plam'; did you mean `plan`?\n")
    known = "`apply`, `plan`, `check`, `test`, `fmt`, `show`, `explain`, `census`, `ops`"
    assert run("x")[2] == f"rewrite: unknown command 'x'; there are {known}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "bn.rw"], "missing MODEL"),
        (["plan"], "missing RULES and MODEL"),
        (["plan", "-e", "freeze any"], "missing MODEL"),
        (
            ["plan", "-e", "freeze any", "bn.rw", "net.pt"],
            "one MODEL wanted, 2 arguments found (-e takes the place of RULES)",
        ),
        (["plan", "a", "b", "c"], "one RULES and one MODEL wanted, 3 arguments found"),
        (["apply", "bn.rw", "net.pt"], "the following arguments are required: -o/--output"),
        (["check"], "missing RULES"),
        (["plan", "bn.rw", "net.pt", "--set", "rate"], "argument --set: 'rate' is not NAME=VALUE"),
        (
            ["plan", "bn.rw", "net.pt", "--input", "3x"],
            "argument --input: '3x' is not a shape such as 1x3x224x224",
        ),
        (["plan", "bn.rw", "net.pt", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_usage_errors(run, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.endswith(f"rewrite {words[0]}: error: {message}\n")


def test_a_usage_error_as_json(run):
    code, out, err = run("plan", "bn.rw", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out) == {
        "format_version": 1,
        "command": "plan",
        "errors": [
            {
                "code": "usage",
                "severity": "error",
                "message": "missing MODEL",
                "place": None,
                "label": "",
                "notes": [],
                "help": "rewrite plan --help",
            }
        ],
    }


def test_starting_imports_nothing_heavy():
    script = "import sys; from rewrite.cli import main; main(['--help']); main(['plan', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"torch", "lark", "networkx", "rich", "pathlib", "json", "dataclasses", "inspect", "shutil"}
    assert not heavy & loaded


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m rewrite show net.pt --json | head -c 5"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == '{\n  "'
    assert done.stderr == ""


def test_an_interrupt_ends_quietly_and_leaves_nothing():
    Path("slow_net.py").write_text("import time\nopen('started', 'w').close()\ntime.sleep(60)\n")
    before = set(os.listdir())
    command = [sys.executable, "-m", "rewrite", "apply", "bn.rw", "net.pt", "-o", "out.pt", "--allow", "slow_net.Net"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell starts what it runs in the background with interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not os.path.exists("started") and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")
    assert set(os.listdir()) - before <= {"started", "__pycache__"}


# ---- values on the command line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2", 0.2),
        ("-3", -3),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("none", None),
        ("relu", "relu"),
        ("'3'", "3"),
        ('"a b"', "a b"),
        ("1_000", "1_000"),
        ("inf", "inf"),
        ("3 4", "3 4"),
        ("", ""),
    ],
)
def test_literals(text, value):
    found = literal(text)
    assert found == value
    assert type(found) is type(value)


def test_a_parameter():
    assert parameter("rate=0.2") == ("rate", 0.2)
    assert parameter("text=a=b") == ("text", "a=b")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", (None, (1, 3, 224, 224), "float32")),
        ("7", (None, (7,), "float32")),
        ("1x16:int64", (None, (1, 16), "int64")),
        ("mask=1x16:bool", ("mask", (1, 16), "bool")),
    ],
)
def test_inputs(text, spec):
    assert input_spec(text) == spec


@pytest.mark.parametrize("text", ["", "x", "1x", "1x0", "-1", "1.5", "1x3:float", "=1x3", "a b=1", "1x3:int64:int64"])
def test_inputs_that_are_none(run, text):
    assert run("plan", "bn.rw", "net.pt", f"--input={text}")[0] == 2


def test_examples_are_tensors_of_that_kind():
    from rewrite.backends.torch.example_inputs import make_examples

    specs = [input_spec("2x3"), input_spec("1x9:int64"), input_spec("mask=4:bool")]
    (image, tokens), named = make_examples(specs)
    assert (image.shape, image.dtype) == ((2, 3), torch.float32)
    assert (tokens.shape, tokens.dtype) == ((1, 9), torch.int64)
    assert set(tokens.unique().tolist()) <= {0, 1}
    assert named["mask"].dtype is torch.bool
    assert torch.equal(make_examples(specs)[0][0], image)


# ---- check


def test_check_lists_the_clauses(run):
    code, out, err = run("check", "bn.rw")
    assert (code, err) == (0, "")
    assert out == "bn.rw:3:1: after Conv2d: insert BatchNorm2d\nbn.rw: 1 clause, no errors\n"


def test_check_does_not_import_torch():
    script = (
        "import sys; from rewrite.cli import main; code = main(['check', 'bn.rw']); "
        "assert not {'torch', 'rich', 'numpy', 'networkx'} & set(sys.modules); sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_reports_all_errors_of_all_files(run):
    Path("one.rw").write_text("affter Conv2d: insert BatchNorm2d\nafter ReLU insert Dropout(0.1)\n")
    Path("two.rw").write_text("after Conv2d: insert BatchNormm2d\n")
    code, out, err = run("check", "one.rw", "bn.rw", "two.rw")
    assert code == 2
    assert out == "bn.rw:3:1: after Conv2d: insert BatchNorm2d\nbn.rw: 1 clause, no errors\n"
    places = re.findall(r"--> (\S+)", err)
    assert [place.partition(":")[0] for place in places] == ["one.rw", "one.rw", "two.rw"]
    code, out, err = run("check", "one.rw", "bn.rw", "two.rw", "--json")
    form = json.loads(out)
    assert (code, err) == (2, "")
    assert [error["place"]["file"] for error in form["errors"]] == ["one.rw", "one.rw", "two.rw"]
    assert form["files"] == [
        {
            "name": "bn.rw",
            "clauses": [{"place": "bn.rw:3:1", "text": "after Conv2d: insert BatchNorm2d", "rule": None}],
            "warnings": [],
        }
    ]


def test_a_missing_rule_file(run):
    code, out, err = run("check", "no.rw")
    assert (code, out) == (2, "")
    assert err == ("error[RW010]: cannot read `no.rw`: No such file or directory\n  = help: check the path\n\n")


def test_rules_in_the_command_line(run):
    code, out, _ = run("check", "-e", "after ReLU: insert Dropout(0.1)", "-e", "freeze any")
    assert code == 0
    assert re.findall(r"^-e:\d+:\d+", out, re.MULTILINE) == ["-e:1:1", "-e:2:1"]
    code, out, err = run("check", "-e", "freeze any", "-e", "affter ReLU: insert Dropout(0.1)")
    assert code == 2
    assert "--> -e:2:1" in err


# ---- plan and apply


def test_plan_prints_sites_and_totals_and_changes_nothing(run):
    before = sorted(os.listdir())
    code, out, err = run("plan", "bn.rw", "net.pt")
    assert code == 0
    assert err.startswith("warning[RW403]: the bias of `0` has no effect")
    assert out.startswith("bn.rw:3:1: after Conv2d: insert BatchNorm2d\n  1 site\n    0  nn.Conv2d  insert BatchNorm2d")
    assert "num_features=4" in out
    assert "new parameters: 8\nfrozen parameters: 0\n" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["before", "after", "change"] in rows
    assert ["operations", "4", "5", "+1"] in rows
    assert ["parameters", "146", "154", "+8"] in rows
    assert ["trainable", "146", "154", "+8"] in rows
    assert out.splitlines()[-1].startswith("output: ")
    assert sorted(os.listdir()) == before


def test_plan_as_json(run):
    code, out, err = run("plan", "bn.rw", "net.pt", "--json")
    assert (code, err) == (0, "")
    form = json.loads(out)
    assert (form["format_version"], form["command"], form["errors"]) == (1, "plan", [])
    assert form["report"]["new_parameters"] == 8
    assert form["report"]["clauses"][0]["sites"][0]["spelling"] == "nn.Conv2d"


def test_apply_writes_what_it_reports(run):
    code, out, _ = run("apply", "bn.rw", "net.pt", "-o", "out.pt")
    assert code == 0
    assert out.endswith("\nwritten: out.pt (whole model, torch.save)\n")
    planned = run("plan", "bn.rw", "net.pt")[1]
    assert out.startswith(planned)
    found = read_model("out.pt")
    assert [type(layer).__name__ for layer in found] == ["Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear"]
    assert found(torch.zeros(1, 3, 4, 4)).shape == (1, 2)


def test_apply_writes_weights(run):
    code, out, _ = run("apply", "bn.rw", "net.pt", "-o", "out.safetensors", "--json")
    form = json.loads(out)
    assert code == 0
    assert form["written"] == {"path": "out.safetensors", "form": "state_dict, safetensors", "unchecked": ""}
    from safetensors.torch import load_file

    assert len(load_file("out.safetensors")) == 4 + 5


def test_apply_keeps_an_existing_file(run):
    Path("out.pt").write_bytes(b"old")
    code, out, err = run("apply", "no-such.rw", "no-such-model", "-o", "out.pt")  # found before anything is read
    assert (code, out) == (2, "")
    assert err == "error[RW503]: output `out.pt` exists and is kept\n  = help: `--force` replaces it\n\n"
    assert Path("out.pt").read_bytes() == b"old"
    assert run("apply", "bn.rw", "net.pt", "-o", "out.pt", "--force")[0] == 0
    assert isinstance(read_model("out.pt"), nn.Sequential)


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["bn.rw", "no-model.pt"], 2, "RW504"),
        (["no.rw", "net.pt"], 2, "RW010"),
        (["-e", "after Conv2d insert BatchNorm2d", "net.pt"], 2, "RW005"),
        (["-e", "after Conv3d: insert BatchNorm3d", "net.pt"], 1, "RW301"),
        (["-e", "after ReLU: insert Dropout(0.1); expect 2 matches", "net.pt"], 1, "RW303"),
        (["-e", 'freeze "head.**"', "net.pt"], 1, "RW201"),
        (["-e", "replace last Linear with Linear(out_features=2) -> Unflatten(1, (1, 2))", "net.pt"], 1, "RW311"),
        (["-e", "param rate = 0.1\nafter ReLU: insert Dropout(rate)", "--set", "rat=0.2", "net.pt"], 2, "RW110"),
    ],
)
def test_nothing_is_written_on_an_error(run, words, code, found):
    before = sorted(os.listdir())
    exit_code, out, err = run("apply", *words, "-o", "out.pt", "--input", "1x3x4x4")
    assert f"error[{found}]: " in err
    assert (exit_code, out) == (code, "")
    exit_code, out, err = run("apply", *words, "-o", "out.pt", "--input", "1x3x4x4", "--json")
    assert (exit_code, err) == (code, "")
    assert found in [error["code"] for error in json.loads(out)["errors"]]
    assert sorted(os.listdir()) == before


def test_parameters_of_the_rules(run):
    text = "param rate = 0.1\nafter ReLU: insert Dropout(rate)"
    assert "Dropout(p=0.1" in run("plan", "-e", text, "net.pt")[1] + "Dropout(p=0.1"
    assert "0.25" in run("plan", "-e", text, "net.pt", "--set", "rate=0.25")[1]


def test_options_and_arguments_in_any_order(run):
    assert run("apply", "bn.rw", "-o", "out.pt", "net.pt", "--seed", "3")[0] == 0
    assert run("apply", "--force", "-o", "out.pt", "-e", "freeze any", "net.pt")[0] == 0


def test_the_seed_decides_the_new_weights(run):
    text = "replace last Linear with Linear(out_features=2, bias=false)"
    for name, seed in (("a.pt", "1"), ("b.pt", "1"), ("c.pt", "2")):
        assert run("apply", "-e", text, "net.pt", "-o", name, "--seed", seed)[0] == 0
    first, again, other = (read_model(name)[-1].weight for name in ("a.pt", "b.pt", "c.pt"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_bug_of_ours_shows_its_traceback(run, monkeypatch):
    from rewrite import saved

    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(saved, "read_model", broken)
    with pytest.raises(ZeroDivisionError):
        run("plan", "bn.rw", "net.pt")


def test_colours_only_where_they_are_wanted(monkeypatch):
    from rewrite.cli.output import has_colours

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert has_colours(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colours(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colours(Terminal())


def test_a_terminal_gets_a_drawn_table(capsys, monkeypatch):
    from rewrite.cli.changes import print_report
    from rewrite.report import Report, Totals

    report = Report("m", "r", (), Totals(1, 2, 3_000, 4), Totals(1, 2, 4_000, 4), 1_000, 0, output="unchanged")
    print_report(report)
    plain = capsys.readouterr().out
    assert "parameters   3,000  4,000  +1,000" in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_report(report)
    drawn = capsys.readouterr().out
    assert re.search(r"│ parameters *│ +3,000 │ +4,000 │ +\+1,000 │", drawn)
    assert drawn.endswith("output: unchanged\n")


# ---- show


def test_show_prints_paths_and_names(run):
    code, out, err = run("show", "net.pt")
    assert (code, err) == (0, "")
    assert out == (
        "net.pt: Sequential, 146 parameters, train mode\n"
        "\n"
        '"0"  Conv2d(in_channels=3, out_channels=4, kernel_size=(3, 3))  112\n'
        '"1"  ReLU()\n'
        '"2"  Flatten()\n'
        '"3"  Linear(in_features=16, out_features=2)  34\n'
    )


def test_show_names_functions_and_repeated_calls(run):
    code, out, _ = run("show", "torchvision:resnet18")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "BasicBlock" in lines['"layer1.0"']
    assert "[2 calls]" in lines['"layer1.0.relu"']
    assert "11,689,512 parameters" in out
    assert lines["flatten"].split() == ["flatten", "torch.flatten"]
    assert lines["layer1.0.iadd"].split() == ["layer1.0.iadd", "operator.iadd", "(add)"]


def test_show_as_json(run):
    code, out, _ = run("show", "net.pt", "--json")
    form = json.loads(out)
    assert code == 0
    assert (form["format_version"], form["command"], form["errors"]) == (1, "show", [])
    assert [layer["path"] for layer in form["model"]["layers"]] == ["", "0", "1", "2", "3"]
    assert form["model"]["layers"][1]["attributes"]["kernel_size"] == [3, 3]


# ---- every diagnostic of files, in its exact words on the command line


def test_a_model_file_that_holds_code(run):
    model = nn.ReLU()
    model.extra = print
    torch.save(model, "bad.pt")
    code, out, err = run("apply", "bn.rw", "bad.pt", "-o", "out.pt")
    assert (code, out) == (2, "")
    assert err == (
        "error[RW502]: `bad.pt` needs `builtins.print` to be read\n"
        "  = note: only classes of torch.nn and torchvision are read without being asked for\n"
        "  = note: `builtins.print` is not let in by any flag\n"
        "  = help: load the file in a program of yours that trusts it, and save its state_dict: "
        "`torchvision:NAME@FILE` reads that\n\n"
    )
    assert not os.path.exists("out.pt")


def test_a_class_that_is_allowed(tmp_path):
    Path("my_nets.py").write_text("import torch\nclass Net(torch.nn.Sequential):\n    pass\n")
    script = "import torch, my_nets; torch.save(my_nets.Net(torch.nn.Conv2d(3, 4, 3, bias=False)), 'mine.pt')"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert process("plan", "bn.rw", "mine.pt").returncode == 2
    done = process("apply", "bn.rw", "mine.pt", "-o", "out.pt", "--allow", "my_nets.Net")
    assert (done.returncode, done.stderr) == (0, "")
    assert process("show", "out.pt", "--allow", "my_nets.Net").returncode == 0
