"""`use`: which names it brings in, that nothing is run without permission, and what is said when a module fails."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rewrite import imports, inclusion, parser, syntax
from rewrite.cli import main
from rewrite.errors import RewriteError, RuleError, SafetyError
from rewrite.source import Source

LAYERS = """
from dataclasses import dataclass

from collections import OrderedDict
import math

VALUE = 3

class SEBlock:
    pass

@dataclass
class Scale:
    by: int = 2

def prunable(c):
    return True

def _private():
    pass
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own folder for each test; the modules that it loads are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers.py").write_text(LAYERS)
    monkeypatch.delitem(sys.modules, "layers", raising=False)  # another test may have loaded a file of this name
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def text(rules: str) -> syntax.File:
    return parser.parse(Source("<rules>", textwrap.dedent(rules)))


def load(
    rules: str, modules: Mapping[str, object] | None = None, *, allow_code: bool = True, folder: str | None = ""
) -> dict[str, object]:
    """The names of rules that stand in `main.rw` of the present folder."""
    Path("main.rw").write_text(textwrap.dedent(rules))
    file = inclusion.expand(parser.parse(parser.read("main.rw")), folder)
    return imports.load(file, folder, modules or {}, allow_code)


def refusal(rules: str, modules: Mapping[str, object] | None = None, *, allow_code: bool = True) -> str:
    with pytest.raises(RewriteError) as caught:
        load(rules, modules, allow_code=allow_code)
    return str(caught.value)


# ---- names


def test_a_file_gives_its_public_classes_and_functions() -> None:
    found = load('use "layers.py" as my')
    assert sorted(found) == ["my.OrderedDict", "my.SEBlock", "my.Scale", "my.dataclass", "my.prunable"]


@pytest.mark.parametrize(
    ("use", "names"),
    [
        ('use "layers.py"', {"layers.SEBlock", "layers.prunable"}),
        ("use collections.abc", {"abc.Mapping"}),
        ("use collections.abc as c", {"c.Mapping"}),
        ("use collections", {"collections.OrderedDict"}),
        ("use collections (OrderedDict, Counter)", {"OrderedDict", "Counter"}),
        ("use collections (Counter)\nuse collections as c", {"Counter", "c.Counter"}),
    ],
)
def test_names(use: str, names: set[str]) -> None:
    assert names <= set(load(use))
    assert all(name.partition(".")[0] in {one.partition(".")[0] for one in names} for name in load(use))


def test_listed_names_are_all_that_comes() -> None:
    assert set(load("use collections (Counter)")) == {"Counter"}


def test_without_use_there_is_what_the_caller_gives() -> None:
    given = {"Block": object, "my": types.SimpleNamespace()}
    assert load("remove ReLU", given) == given
    assert load("remove ReLU", allow_code=False) == {}


def test_a_package_that_makes_its_names_on_demand(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "lazy_package.py").write_text(
        "def __getattr__(name):\n    if name == 'Late':\n        return dict\n    raise AttributeError(name)\n"
    )
    monkeypatch.syspath_prepend(str(home))
    rules = "use lazy_package as my\nafter ReLU where my.Late(self): insert my.Late(3)"
    assert load(rules)["my.Late"] is dict
    assert load("use lazy_package (Late)") == {"Late": dict}


def test_the_same_use_from_two_files_is_one(home: Path) -> None:
    (home / "parts").mkdir()
    (home / "parts" / "a.rw").write_text('use "../layers.py" as my\nuse collections (Counter)\nremove ReLU')
    found = load('use "layers.py" as my\ninclude "parts/a.rw"\nuse collections (Counter, OrderedDict)')
    assert {"my.SEBlock", "Counter", "OrderedDict"} <= set(found)


def test_a_path_starts_at_the_file_that_it_stands_in(home: Path) -> None:
    (home / "parts").mkdir()
    (home / "parts" / "a.rw").write_text('use "own.py"\nremove ReLU')
    (home / "parts" / "own.py").write_text("class Own: pass")
    assert "own.Own" in load('include "parts/a.rw"')
    folder = str(home)
    file = inclusion.expand(parser.parse(parser.read(f"{folder}/main.rw")), folder)
    assert "own.Own" in imports.load(file, folder, {}, True)


# ---- what the caller gives


def test_a_module_or_a_mapping_stands_for_all_in_it() -> None:
    module = types.ModuleType("anything")
    module.Block = dict  # type: ignore[attr-defined]
    module._hidden = dict  # type: ignore[attr-defined]
    assert load("remove ReLU", {"my": module}) == {"my.Block": dict}
    assert load("remove ReLU", {"my": {"Block": dict, "_hidden": list}}) == {"my.Block": dict, "my._hidden": list}
    assert load("remove ReLU", {"my": module, "my.Block": list}) == {"my.Block": list}


@pytest.mark.parametrize(
    ("use", "modules"),
    [
        ('use "layers.py" as my', {"my": {"Block": dict}}),
        ('use "layers.py" as my', {"my": types.ModuleType("empty")}),
        ('use "layers.py" as my', {"my.Block": dict}),
        ('use "no_such.py" as my', {"my.Block": dict}),
        ('use "../../../no_such.py" as my', {"my.Block": dict}),
        ("use no.such.package as my", {"my.Block": dict}),
        ("use no.such.package (A, B)", {"A": dict, "B": list}),
    ],
)
def test_what_the_caller_gives_needs_no_permission(use: str, modules: dict[str, object]) -> None:
    assert load(use, modules, allow_code=False) == imports.spread(modules)


def test_a_caller_who_gives_some_of_the_names_only() -> None:
    assert "RW501" in refusal("use collections (Counter, OrderedDict)", {"Counter": dict}, allow_code=False)
    assert load("use collections (Counter, OrderedDict)", {"Counter": dict})["Counter"] is dict


# ---- the gate


def test_nothing_is_run_without_permission(home: Path) -> None:
    (home / "layers.py").write_text("open('was_run', 'w').close()")
    with pytest.raises(SafetyError) as caught:
        load('rw 1\nuse "layers.py" as my\nafter ReLU: insert my.SEBlock', allow_code=False)
    assert str(caught.value) == textwrap.dedent("""\
        error[RW501]: these rules want to run Python: `use "layers.py" as my`
          --> main.rw:2:1
        2 | use "layers.py" as my
          | ^^^^^^^^^^^^^^^^^^^^^ not allowed
          = note: importing a module runs it, with all that it may do
          = help: read the module; then allow it, with `allow_code=True` in Python or `--allow-code` on the command \
line, or import it yourself and pass `modules={"my": ...}`""")
    assert caught.value.exit_code == 2
    assert not (home / "was_run").exists()


def test_each_module_is_named() -> None:
    with pytest.raises(SafetyError) as caught:
        load('use "layers.py" as my\nuse os (system)\nuse this', allow_code=False)
    assert [problem.code for problem in caught.value.diagnostics] == ["RW501"] * 3
    assert 'modules={"system": ...}' in str(caught.value)
    assert "this" not in sys.modules


def test_a_use_in_an_included_file_meets_the_same_gate(home: Path) -> None:
    (home / "b.rw").write_text('use "layers.py" as my')
    assert "--> b.rw:1:1" in refusal('include "b.rw"', allow_code=False)


def test_check_takes_names_on_trust() -> None:
    file = text(
        """
        use "layers.py" as my
        use no.such.package
        use other (A, B)
        after ReLU where my.prunable(self) and self is not my.Block:
            insert package.New(my.size(2), rate=my.rate(3)) -> my.SEBlock
        remove theirs.Block
        """
    )
    aliases, names = imports.use_names(file)
    assert aliases == {"my", "package"}
    assert names == {"A", "B", "my.prunable", "my.Block", "package.New", "my.size", "my.rate", "my.SEBlock"}
    assert imports.use_names(text("remove my.Block")) == (frozenset(), frozenset())


# ---- wrong names


def test_one_alias_for_two_modules() -> None:
    assert refusal('use "layers.py" as my\nuse collections as my') == textwrap.dedent("""\
        error[RW109]: the name `my` stands twice
          --> main.rw:2:20
        2 | use collections as my
          |                    ^^ already stands for `use "layers.py" as my`
          = help: give it another name: `use ... as ...`""")
    assert "RW109" in refusal("use collections (Counter)\nuse other (Counter)")
    assert "RW109" in refusal("use a.layers\nuse b.layers")
    assert "RW109" in refusal("use collections (my)\nuse collections as my")
    with pytest.raises(RuleError, match="RW109"):
        imports.use_names(text("use a.layers\nuse b.layers"))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("use collections as nn", "`nn` hides the spellings `nn.` of the language"),
        ("use collections as F", "`F` hides the spellings `F.` of the language"),
        ("use collections as self", "`self` hides a word of the language"),
        ("use torch", "`torch` hides the spellings `torch.` of the language"),
        ("use collections (ReLU)", "`ReLU` hides the operation `ReLU`"),
        ("use collections (relu)", "`relu` hides the operation `ReLU`"),
        ("use collections (max)", "`max` hides a function of the language"),
    ],
)
def test_names_of_the_language_keep_their_meaning(use: str, message: str) -> None:
    assert f"error[RW105]: {message}\n" in refusal(use)
    assert "  = help: " in refusal(use)


def test_a_file_whose_name_is_no_name() -> None:
    assert "`my-layers` is not a name that rules can write" in refusal('use "my-layers.py"')
    assert 'choose another name: `use "my-layers.py" as my`' in refusal('use "my-layers.py"')
    assert "`layers` is no Python file" in refusal('use "layers" as my')


def test_a_name_that_the_module_lacks() -> None:
    assert refusal("use collections (OrderdDict, Counter)") == textwrap.dedent("""\
        error[RW111]: `collections` has no class or function `OrderdDict`
          --> main.rw:1:18
        1 | use collections (OrderdDict, Counter)
          |                  ^^^^^^^^^^
          = help: did you mean `OrderedDict`?""")
    assert refusal('use "layers.py" as my\nafter ReLU: insert my.SEBlok') == textwrap.dedent("""\
        error[RW101]: `my` has no class or function `SEBlok`
          --> main.rw:2:20
        2 | after ReLU: insert my.SEBlok
          |                    ^^^^^^^^^
          = help: did you mean `my.SEBlock`?""")
    assert "no class or function `VALUE`" in refusal('use "layers.py" as my\nafter ReLU: insert my.VALUE')
    assert "are private" in refusal('use "layers.py" as my\nafter ReLU: insert my._private2x')
    assert "a `use` of its own" in refusal("use collections as my\nafter ReLU: insert my.abc.Zzz")


# ---- modules that fail


def test_text_has_no_folder() -> None:
    with pytest.raises(RuleError) as caught:
        imports.load(text('use "layers.py" as my'), None, {}, True)
    assert str(caught.value) == textwrap.dedent("""\
        error[RW111]: `layers.py` cannot be found from here
          --> <rules>:1:1
        1 | use "layers.py" as my
          | ^^^^^^^^^^^^^^^^^^^^^ rules given as text have no folder
          = help: put the rules in a file, write the name of a module, or pass `modules={"my": ...}`""")
    assert "c.Counter" in imports.load(text("use collections as c"), None, {}, True)


def test_an_error_in_the_file(home: Path) -> None:
    (home / "layers.py").write_text("def f():\n    return undefined\n\nx = f()\n")
    assert refusal('use "layers.py" as my') == textwrap.dedent("""\
        error[RW111]: `layers.py` cannot be imported: NameError: name 'undefined' is not defined
          --> main.rw:1:1
        1 | use "layers.py" as my
          | ^^^^^^^^^^^^^^^^^^^^^
          = note: layers.py:2: return undefined""")
    assert "layers" not in sys.modules


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = (\n", "cannot be imported: SyntaxError: '(' was never closed\n"),
        ("import os\nraise SystemExit(0)", "cannot be imported: SystemExit: 0\n"),
        ("raise ValueError", "cannot be imported: ValueError\n"),
        ("raise ValueError('a\\nb')", "cannot be imported: ValueError: a\n"),
        ("import no_such", "ModuleNotFoundError: No module named 'no_such'\n"),
        ("import os\nos.listdir('/no/such')", "note: layers.py:2: os.listdir('/no/such')"),
        ("import json\njson.loads('{')", "note: layers.py:2: json.loads('{')"),
        ("1 / 0", "ZeroDivisionError: division by zero\n"),
        ("x = 'a\0b'", "null byte"),
        ("def f(): f()\nf()", "RecursionError"),
        ("from . import sibling", "ImportError"),
    ],
)
def test_whatever_a_module_raises_is_told(home: Path, code: str, said: str) -> None:
    (home / "layers.py").write_text(code)
    found = refusal('use "layers.py" as my')
    assert found.startswith("error[RW111]: `layers.py` cannot be imported: ")
    assert said in found


def test_a_module_that_is_not_installed() -> None:
    assert refusal("use no_such.layers as my") == textwrap.dedent("""\
        error[RW111]: `no_such.layers` cannot be imported: ModuleNotFoundError: No module named 'no_such'
          --> main.rw:1:1
        1 | use no_such.layers as my
          | ^^^^^^^^^^^^^^^^^^^^^^^^
          = help: install it, or, for a file beside the rules, write `use "no_such.py"`""")


def test_a_module_on_the_path_that_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "failing_module.py").write_text("def f():\n    raise OSError('no disk')\nf()\n")
    monkeypatch.syspath_prepend(str(home))
    assert f"note: {home}/failing_module.py:2: raise OSError('no disk')" in refusal("use failing_module as my")


def test_all_failures_come_together(home: Path) -> None:
    (home / "a.py").write_text("1 / 0")
    assert refusal('use "a.py"\nuse no_such\nuse "lyers.py"\nuse "../out.py"').count("error[RW111]") == 4


@pytest.mark.parametrize(
    "path", ["../out.py", "/tmp/out.py", "~/out.py", "link.py", "dir/out.py", "C:/out.py", "fifo.py"]
)
def test_files_elsewhere_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """With permission too: `include` has the long table of ways out, and both go one way."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "out.py").write_text("raise SystemExit('was run')")
    (inner / "link.py").symlink_to(tmp_path / "out.py")
    (inner / "dir").symlink_to(tmp_path)
    os.mkfifo(inner / "fifo.py")
    monkeypatch.chdir(inner)
    found = refusal(f'use "{path}" as my')
    assert "not opened" in found
    assert "was run" not in found


def test_a_file_that_is_not_there() -> None:
    assert "help: did you mean `layers.py`?" in refusal('use "layer.py" as my')


def test_an_interrupt_is_no_mistake_of_the_module(home: Path) -> None:
    (home / "layers.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load('use "layers.py" as my')
    assert "layers" not in sys.modules


# ---- a file as a module


def test_a_file_is_run_once(home: Path) -> None:
    (home / "layers.py").write_text(LAYERS + "\nwith open('log', 'a') as log: log.write('x')")
    first = load('use "layers.py" as my')
    assert load('use "./layers.py" as my') == first
    assert (home / "log").read_text() == "x"


def test_a_file_that_changed_is_run_anew(home: Path) -> None:
    old = load('use "layers.py" as my')["my.SEBlock"]
    (home / "layers.py").write_text(LAYERS + "\nclass New: pass\n")
    found = load('use "layers.py" as my')
    assert "my.New" in found
    assert found["my.SEBlock"] is not old


def test_a_file_that_the_program_imported_is_that_module(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(home))
    import layers  # type: ignore[import-not-found]

    (home / "layers.py").write_text("raise SystemExit('run again')")
    assert load('use "layers.py" as my')["my.SEBlock"] is layers.SEBlock


def test_classes_pickle(home: Path) -> None:
    found = load('use "layers.py" as my')
    made = pickle.loads(pickle.dumps(found["my.Scale"](by=3)))  # type: ignore[operator]
    assert (type(made), made.by) == (found["my.Scale"], 3)
    (home / "made.pkl").write_bytes(pickle.dumps(made))
    code = "import pickle; print(pickle.load(open('made.pkl', 'rb')))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home, check=False)
    assert elsewhere.stdout == "Scale(by=3)\n", elsewhere.stderr


def test_a_name_that_is_taken(home: Path) -> None:
    (home / "json.py").write_text("class Block: pass")
    import json

    block = load('use "json.py" as my')["my.Block"]
    assert sys.modules["json"] is json
    assert isinstance(block, type)
    assert block.__module__.startswith("json_")
    assert type(pickle.loads(pickle.dumps(block()))) is block


def test_two_files_of_one_name(home: Path) -> None:
    (home / "parts").mkdir()
    (home / "parts" / "layers.py").write_text("class Other: pass")
    found = load('use "layers.py" as a\nuse "parts/layers.py" as b')
    assert {"a.SEBlock", "b.Other"} <= set(found)
    assert "b.SEBlock" not in found


def test_nothing_is_written_beside_the_file_and_no_byte_code_is_read(home: Path) -> None:
    load('use "layers.py" as my')
    assert sorted(path.name for path in home.iterdir()) == ["layers.py", "main.rw"]
    import py_compile

    target = Path(f"__pycache__/evil.{sys.implementation.cache_tag}.pyc")
    (home / "evil.py").write_text("class Bad: pass\n")
    py_compile.compile("evil.py", str(target), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    (home / "evil.py").write_text("class Good: pass\n")
    assert set(load('use "evil.py" as my')) == {"my.Good"}


def test_future_statements_of_this_package_do_not_reach_the_file(home: Path) -> None:
    (home / "layers.py").write_text(
        "def f(x: int) -> int: return x\nclass C: pass\nassert f.__annotations__['x'] is int"
    )
    assert "my.f" in load('use "layers.py" as my')


def test_a_file_that_loads_itself(home: Path) -> None:
    """A training script that applies rules which use the script's own layers."""
    (home / "main.rw").write_text('use "train.py" as my\nremove ReLU')
    (home / "train.py").write_text(
        "from rewrite import imports, parser\n"
        "class Block: pass\n"
        "found = imports.load(parser.parse(parser.read('main.rw')), '', {}, True)\n"
        "print(found['my.Block'] is Block)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(imports.__file__).parent.parent)}
    command = [sys.executable, "train.py"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert finished.stdout == "True\n", finished.stderr


# ---- command line


def test_the_command_line_asks_before_it_reads_the_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "main.rw").write_text('use "layers.py" as my\nexpect output (_, 10)')
    (home / "layers.py").write_text("open('was_run', 'w').close()")
    assert main(["plan", "main.rw", "no_such_model.pt"]) == 2
    assert "error[RW501]" in capsys.readouterr().err
    assert not (home / "was_run").exists()
    assert main(["plan", "main.rw", "no_such_model.pt", "--allow-code", "--strict"]) == 2
    assert "RW501" not in capsys.readouterr().err
    assert (home / "was_run").exists()


def test_check_runs_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "main.rw").write_text('use "layers.py" as my\nexpect output (_, 10)')
    (home / "layers.py").write_text("open('was_run', 'w').close()")
    assert main(["check", "main.rw"]) == 0, capsys.readouterr().err
    assert not (home / "was_run").exists()
