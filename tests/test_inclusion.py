"""`include`: what it brings, what it refuses, and that rules from a stranger reach nothing outside their folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rewrite import containment, inclusion, parser, syntax
from rewrite.errors import RuleError
from rewrite.source import Source


def write(folder: Path, **files: str) -> None:
    """Files by their names without `.rw`; `__` is `/`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.rw"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


def expand(name: str = "main.rw", folder: str | None = None) -> syntax.File:
    return inclusion.expand(parser.parse(parser.read(name)), os.path.dirname(name) if folder is None else folder)


def names(file: syntax.File) -> list[str]:
    """The constants of a file in order: what most tests here are made of."""
    return [line.name.text for line in file.lines if isinstance(line, syntax.Param)]


def refusal(name: str = "main.rw") -> str:
    with pytest.raises(RuleError) as caught:
        expand(name)
    return str(caught.value)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder for each test, with a secret beside it that no rule may reach."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "secret.rw").write_text("param secret = 1\n")
    (tmp_path / "home_two").mkdir()
    (tmp_path / "home_two" / "secret.rw").write_text("param secret = 1\n")
    monkeypatch.chdir(folder)
    return folder


# ---- what it brings


def test_lines_stand_where_the_include_stood(home: Path) -> None:
    write(home, main='let a = 1\ninclude "b.rw"; let d = 1\n', b='let b = 1\ninclude "c.rw"', c="let c = 1")
    assert names(expand()) == ["a", "b", "c", "d"]


def test_each_line_keeps_its_source(home: Path) -> None:
    write(home, main='include "parts/b.rw"', parts__b='\ninclude "c.rw"', parts__c="\n\nlet c = 1")
    (line,) = expand().lines
    assert str(line.span) == "parts/c.rw:3:1"
    assert str(expand(str(home / "main.rw")).lines[0].span) == f"{home}/parts/c.rw:3:1"


def test_a_path_starts_at_the_file_that_it_stands_in(home: Path) -> None:
    write(home, main='include "parts/b.rw"', parts__b='include "../top.rw"; include "./c.rw"')
    write(home, top="let top = 1", parts__c="let inner = 1", c="let outer = 1")
    assert names(expand()) == ["top", "inner"]


def test_each_file_is_included_once(home: Path) -> None:
    write(home, main='include "b.rw"\ninclude "c.rw"\ninclude "./parts/../shared.rw"', shared="param shared = 1")
    write(home, b='include "shared.rw"; let b = shared', c='include "shared.rw"; let c = shared', parts__x="let x = 1")
    (home / "link.rw").symlink_to("shared.rw")
    assert names(expand()) == ["shared", "b", "c"]


def test_links_inside_the_folder_are_followed(home: Path) -> None:
    write(
        home,
        main='include "dir/a.rw"; include "file.rw"',
        parts__a='include "b.rw"',
        parts__b="let b = 1",
        c="let c = 1",
    )
    (home / "dir").symlink_to("parts")
    (home / "file.rw").symlink_to(home / "c.rw")
    assert names(expand()) == ["b", "c"]


def test_a_link_that_goes_out_and_comes_back_is_followed(home: Path, tmp_path: Path) -> None:
    write(home, main='include "outdir/home/b.rw"', b="let b = 1")
    (home / "outdir").symlink_to(tmp_path)
    assert names(expand()) == ["b"]
    assert str(expand().lines[0].span) == "b.rw:1:1"


def test_rules_that_are_a_link_include_what_lies_beside_the_link(home: Path, tmp_path: Path) -> None:
    (tmp_path / "real.rw").write_text('include "b.rw"')
    (home / "main.rw").symlink_to(tmp_path / "real.rw")
    write(home, b="let b = 1")
    assert names(expand()) == ["b"]


def test_version_and_tests_of_an_included_file_are_its_own(home: Path) -> None:
    write(home, main='rw 1\ninclude "b.rw"')
    write(home, b='rw 1\nlet b = 1\ntest b "keeps": given x -> ReLU -> y; unchanged\n')
    assert [type(line).__name__ for line in expand().lines] == ["Version", "Param"]
    write(home, b="rw 2\nlet b = 1")
    assert "error[RW008]" in refusal()
    assert "included at main.rw:2:1" in refusal()


def test_a_file_of_tests_alone_adds_nothing(home: Path) -> None:
    write(home, main='include "b.rw"\nlet a = 1', b="test b: given x -> ReLU -> y; unchanged")
    assert names(expand()) == ["a"]


def test_an_include_in_a_block_is_left_alone(home: Path) -> None:
    write(home, main='rule r: include "../secret.rw"')
    (clause,) = expand().lines
    assert isinstance(clause, syntax.Clause)
    assert isinstance(clause.body[0], syntax.Include)


def test_a_file_without_include_is_the_same_object(home: Path) -> None:
    write(home, main="let a = 1")
    file = parser.parse(parser.read("main.rw"))
    assert inclusion.expand(file, "") is file
    assert inclusion.expand(file, None) is file


def test_a_count_does_not_reach_across(home: Path) -> None:
    write(home, main='include "b.rw"\nexpect 3 matches', b="remove Dropout")
    assert refusal() == textwrap.dedent("""\
        error[RW009]: there is no rule of this file in front of this `expect`
          --> main.rw:2:1
        2 | expect 3 matches
          | ^^^^^^^^^^^^^^^^ does not count what an `include` brings
          = help: put it behind the rule whose matches it counts, in the same file""")
    write(home, main='remove ReLU\ninclude "b.rw"', b="let a = 1\nexpect 3 matches")
    assert "b.rw:2:1" in refusal()
    write(home, main='include "b.rw"\nremove ReLU\nexpect 3 matches', b="remove Dropout\nexpect any matches")
    assert len(expand().lines) == 4


# ---- what it says


def test_missing_file(home: Path) -> None:
    write(home, main='let a = 1\ninclude "parts/haed.rw"', parts__head="let a = 1")
    assert refusal() == textwrap.dedent("""\
        error[RW111]: there is no file `parts/haed.rw`
          --> main.rw:2:1
        2 | include "parts/haed.rw"
          | ^^^^^^^^^^^^^^^^^^^^^^^
          = help: did you mean `parts/head.rw`?""")
    write(home, main='include "parts/body.rw"')
    assert "= help: there is `parts/head.rw`" in refusal()
    write(home, main='include "nowhere/body.rw"')
    assert "= help: write where the file is" in refusal()
    write(home, main='include "main.rw/body.rw"')
    assert "there is no file `main.rw/body.rw`" in refusal()


def test_text_has_no_folder() -> None:
    with pytest.raises(RuleError) as caught:
        inclusion.expand(parser.parse(Source("<rules>", 'include "other.rw"')), None)
    assert str(caught.value) == textwrap.dedent("""\
        error[RW111]: `other.rw` cannot be included here
          --> <rules>:1:1
        1 | include "other.rw"
          | ^^^^^^^^^^^^^^^^^^ rules given as text have no folder
          = help: put the rules in a file""")


def test_cycle(home: Path) -> None:
    write(home, main='include "parts/b.rw"', parts__b='let b = 1; include "c.rw"', parts__c='include "../main.rw"')
    assert refusal() == textwrap.dedent("""\
        error[RW111]: these files include each other
          --> parts/c.rw:1:1
        1 | include "../main.rw"
          | ^^^^^^^^^^^^^^^^^^^^
          = note: `main.rw` -> `parts/b.rw` -> `parts/c.rw` -> `main.rw`
          = help: take one `include` out""")
    write(home, parts__c='include "b.rw"')
    assert "note: `parts/b.rw` -> `parts/c.rw` -> `parts/b.rw`" in refusal()
    write(home, main='include "main.rw"')
    assert "error[RW111]: this file includes itself" in refusal()
    (home / "link.rw").symlink_to("main.rw")
    write(home, main='include "link.rw"')
    assert "error[RW111]: this file includes itself" in refusal()


def test_mistakes_of_all_files_come_together(home: Path) -> None:
    write(
        home,
        main='include "b.rw"\ninclude "none.rw"\ninclude "c.rw"',
        b="frob ReLU\nlet = 2",
        c='include "d.rw"',
        d="let",
    )
    found = refusal()
    assert [line.split("]")[0] for line in found.splitlines() if line.startswith("error")] == [
        "error[RW002",
        "error[RW001",
        "error[RW111",
        "error[RW001",
    ]
    assert "  = note: included at main.rw:3:1, c.rw:1:1" in found


def test_files_that_are_no_rules(home: Path) -> None:
    write(home, main='include "b.rw"', b="# nothing\n")
    assert "error[RW011]: there is no rule in `b.rw`" in refusal()
    (home / "b.rw").write_bytes(b"let a = 1\n\xff")
    assert "error[RW010]: `b.rw` is not UTF-8 text: byte 0xff in line 2\n  --> main.rw:1:1" in refusal()
    (home / "b.rw").write_bytes(b"let a = 1\0")
    assert "error[RW010]" in refusal()
    (home / "b.rw").write_bytes(b"#" * (1 << 20) + b"#")
    assert "error[RW012]: `b.rw` has more than 1048576 bytes\n  --> main.rw:1:1" in refusal()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read(home: Path) -> None:
    write(home, main='include "b.rw"', b="let b = 1")
    (home / "b.rw").chmod(0)
    assert "error[RW010]: cannot read `b.rw`: Permission denied" in refusal()


# ---- limits


def test_too_deep(home: Path) -> None:
    for number in range(17):
        write(home, **{f"f{number}": f'include "f{number + 1}.rw"\nlet a{number} = 1'}, f17="let a = 1")
    write(home, main='include "f1.rw"')
    assert refusal() == textwrap.dedent("""\
        error[RW015]: files included in files, more than 16 deep
          --> f16.rw:1:1
        1 | include "f17.rw"
          | ^^^^^^^^^^^^^^^^
          = help: put what belongs together in one file""")
    write(home, main='include "f2.rw"')
    assert len(names(expand())) == 16


def test_too_many_files(home: Path) -> None:
    for number in range(65):
        write(home, **{f"f{number}": f"let a{number} = 1"})
    write(home, main="\n".join(f'include "f{number}.rw"' for number in range(65)))
    assert refusal() == textwrap.dedent("""\
        error[RW015]: more than 64 included files
          --> main.rw:65:1
        65 | include "f64.rw"
           | ^^^^^^^^^^^^^^^^
          = help: put what belongs together in one file""")
    write(home, main="\n".join(f'include "f{number}.rw"' for number in range(64)))
    assert len(names(expand())) == 64


def test_too_many_lines(home: Path) -> None:
    for number in range(10):
        lines = "\n".join(f"let a{number}_{line} = 1" for line in range(1000))
        write(home, **{f"f{number}": lines})
    write(home, main="\n".join(f'include "f{number}.rw"' for number in range(10)))
    assert len(expand().lines) == 10_000
    write(home, main="let one = 1\n" + "\n".join(f'include "f{number}.rw"' for number in range(10)))
    assert refusal() == textwrap.dedent("""\
        error[RW016]: the rules and what they include have more than 10000 lines
          --> main.rw:11:1
        11 | include "f9.rw"
           | ^^^^^^^^^^^^^^^
          = help: leave out what these rules do not need""")


def test_lines_in_blocks_count(home: Path) -> None:
    write(home, main='include "b.rw"', b="after ReLU:\n" + "    insert ReLU\n" * 10_000)
    assert "error[RW016]" in refusal()


def test_too_many_characters(home: Path) -> None:
    write(home, main='include "a.rw"\ninclude "b.rw"', a="#" * 600_000 + "\nlet a = 1", b="#" * 600_000 + "\nlet b = 1")
    assert "error[RW016]: the rules and what they include have more than 1048576 characters" in refusal()


@pytest.mark.parametrize("shape", ["each includes two", "each includes all", "wide"])
def test_bombs_end_soon(home: Path, shape: str) -> None:
    for number in range(64):
        if shape == "each includes two":
            others = [2 * number + 1, 2 * number + 2]
        elif shape == "each includes all":
            others = list(range(number + 1, min(64, number + 16)))
        else:
            others = []
        inner = "".join(f'include "f{other}.rw"\n' * 3 for other in others if other < 64)
        write(home, **{f"f{number}": inner + f"let a{number} = 1\n"})
    write(home, main='include "f0.rw"\n' * 2000)
    start = time.perf_counter()
    try:
        code = "" if len(names(expand())) <= 64 else "too much"
    except RuleError as error:
        code = error.code
    assert code in ("", "RW015", "RW016")
    assert time.perf_counter() - start < 10


# ---- ways out

LONG = "a/" * 400
ESCAPES = {
    # absolute
    "/etc/passwd": "absolute",
    "//etc/passwd": "absolute",
    "///etc/passwd": "absolute",
    "/": "absolute",
    "/dev/null": "absolute",
    "/dev/stdin": "absolute",
    "/dev/zero": "absolute",
    "/proc/self/environ": "absolute",
    "/proc/self/root/etc/passwd": "absolute",
    "/./secret.rw": "absolute",
    # upwards
    "..": "leads out",
    "../": "is a folder",
    "../secret.rw": "leads out",
    "./../secret.rw": "leads out",
    ".//../secret.rw": "leads out",
    "parts/../../secret.rw": "leads out",
    "parts/./../../secret.rw": "leads out",
    "parts/x/../../../secret.rw": "leads out",
    "missing/../../secret.rw": "leads out",
    "../home_two/secret.rw": "leads out",
    "../home/../secret.rw": "leads out",
    "../../../../../../../../etc/passwd": "leads out",
    "../" * 300 + "etc/passwd": "leads out",
    "a/" * 100 + "../" * 101 + "secret.rw": "leads out",
    ".../../../secret.rw": "leads out",
    # links
    "out": "leads out",
    "out.rw": "leads out",
    "relative.rw": "leads out",
    "outdir/secret.rw": "leads out",
    "outdir/home_two/secret.rw": "leads out",
    "twodir/secret.rw": "leads out",
    "chain1.rw": "leads out",
    "etc.rw": "leads out",
    "parts/up/../secret.rw": "leads out",
    "parts/up/../home_two/secret.rw": "leads out",
    "root/etc/passwd": "leads out",
    "proc/self/environ": "leads out",
    "fd/0": "leads out",
    "self/../secret.rw": "leads out",
    "loop.rw": "leads nowhere",
    "loop/a.rw": "no file",
    "dangling.rw": "leads out",
    # addresses and drives
    "file:///etc/passwd": "address",
    "file://secret.rw": "address",
    "file:secret.rw": "address",
    "http://example.org/a.rw": "address",
    "https://example.org/a.rw": "address",
    "ftp://example.org/a.rw": "address",
    "C:/secret.rw": "address",
    "C:secret.rw": "address",
    "C:\\secret.rw": "holds a `\\`",
    "\\\\server\\share\\a.rw": "holds a `\\`",
    "//server/share/a.rw": "absolute",
    "..\\secret.rw": "holds a `\\`",
    "parts\\..\\..\\secret.rw": "holds a `\\`",
    "own.rw:stream": "address",
    # expansion
    "~": "expanded",
    "~/secret.rw": "expanded",
    "~root/.profile": "expanded",
    "$HOME/secret.rw": "expanded",
    "${HOME}/secret.rw": "expanded",
    "parts/$PWD/a.rw": "expanded",
    "$(cat secret)": "expanded",
    "%USERPROFILE%/a.rw": "expanded",
    "%2e%2e/secret.rw": "expanded",
    "*.rw": "no file",
    "`id`.rw": "no file",
    "| cat /etc/passwd": "no file",
    # what is no file name
    "": "is empty",
    "  ": "is empty",
    ".": "is a folder",
    "parts": "no plain file",
    "parts/": "is a folder",
    "parts/..": "is a folder",
    "own.rw/": "is a folder",
    "own.rw/../../secret.rw": "leads out",
    "a\nb.rw": "control character",
    "a\tb.rw": "control character",
    "\u202esecret.rw": "control character",
    "a\x1b[2J.rw": "control character",
    LONG + "a.rw": "no file",
    LONG * 2: "more than 1000 characters",
    "a" * 900: "no file",
    "x" * 100_000: "more than 1000 characters",
    # what is no plain file
    "fifo.rw": "no plain file",
    "socket.rw": "no plain file",
    "null.rw": "leads out",
}


def lay_out(home: Path, tmp_path: Path) -> None:
    """Links, pipes and sockets for the table above."""
    write(home, parts__x__a="let a = 1", own="let own = 1", self__a="let a = 1")
    links = {
        "out": tmp_path,
        "out.rw": tmp_path / "secret.rw",
        "relative.rw": "../secret.rw",
        "outdir": "..",
        "twodir": "../home_two",
        "chain1.rw": "chain2.rw",
        "chain2.rw": "chain3.rw",
        "chain3.rw": "parts/../../secret.rw",
        "etc.rw": "/etc/passwd",
        "parts/up": "..",
        "root": "/",
        "proc": "/proc",
        "fd": "/dev/fd",
        "loop.rw": "loop.rw",
        "loop": "loop2",
        "loop2": "loop",
        "dangling.rw": "/no/such/file.rw",
        "null.rw": "/dev/null",
    }
    for name, target in links.items():
        (home / name).symlink_to(target)
    os.mkfifo(home / "fifo.rw")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.rw")
    listener.close()


@pytest.mark.parametrize("path", ESCAPES, ids=lambda path: repr(path[:40]))
def test_ways_out(home: Path, tmp_path: Path, path: str) -> None:
    lay_out(home, tmp_path)
    # `self/../secret.rw` through a link of that name
    if path.startswith("self/"):
        (home / "self" / "a.rw").unlink()
        (home / "self").rmdir()
        (home / "self").symlink_to("../home_two")
    written = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    write(home, main=f'include "{written}"' if "\x1b" not in path else f"include '{written}'")
    with pytest.raises(RuleError) as caught:
        expand()
    (problem,) = caught.value.diagnostics
    assert problem.code == "RW111"
    expected = ESCAPES[path]
    assert expected in problem.message
    assert "secret = 1" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_there_are_many_ways_out() -> None:
    assert len(ESCAPES) >= 60


def test_nul_in_a_path(home: Path) -> None:
    """The parser reads no NUL; a path that has one all the same is refused before the system sees it."""
    write(home, own="let own = 1")
    file = parser.parse(parser.read("own.rw"))
    line = syntax.Include("own.rw\0/../secret.rw", file.lines[0].span)
    with pytest.raises(RuleError, match="control character"):
        inclusion.expand(syntax.File(file.source, (line,)), "")


def test_a_very_long_chain_of_links(home: Path) -> None:
    for number in range(3000):
        (home / f"l{number}").symlink_to(f"l{number + 1}")
    (home / "l3000").write_text("let a = 1")
    write(home, main='include "l0"')
    try:
        found = names(expand())
    except RuleError as error:
        found = [error.code]
    assert found in (["a"], ["RW111"])


def test_a_link_put_there_after_the_check_is_not_followed(home: Path, tmp_path: Path) -> None:
    """The race that `realpath` alone loses, played by hand: for the file, and for a folder on the way."""
    write(home, parts__a="let a = 1", main="let a = 1")
    span = parser.parse(parser.read("main.rw")).lines[0].span
    path = containment.contained("parts/a.rw", "", "", span)
    (home / "parts" / "a.rw").unlink()
    (home / "parts" / "a.rw").symlink_to(tmp_path / "secret.rw")
    with pytest.raises(RuleError, match="RW111"):
        containment.read(path, "parts/a.rw", "", 100, span)
    (home / "parts" / "a.rw").unlink()
    (home / "parts").rmdir()
    (tmp_path / "home_two" / "a.rw").write_text("let secret = 1")
    (home / "parts").symlink_to(tmp_path / "home_two")
    with pytest.raises(RuleError, match="RW111"):
        containment.read(path, "parts/a.rw", "", 100, span)


def test_a_folder_with_no_name_at_all(home: Path) -> None:
    """Names that only begin like the folder are outside of it."""
    write(home, main='include "../home_two/secret.rw"')
    assert "leads out" in refusal()
    assert "leads out" in refusal(str(home / "main.rw"))


HOSTILE = """
import json, os, sys
from rewrite.engine import check_rules
from rewrite.errors import RewriteError

home, *texts = sys.argv[1:]
os.chdir(home)

def check(text):
    with open("main.rw", "w") as file:
        file.write(text + "\\nexpect output (_, 10)\\n")
    try:
        check_rules("main.rw")
    except RewriteError as error:
        error.diagnostics[0].render()

for text in ('include "own.rw"', 'use "layers.py" as my', 'include "mian.rw"', 'use pkg (A)'):
    check(text)  # what the program itself loads is loaded now

watching, seen = False, []
WATCHED = ("open", "exec", "import", "compile", "os.", "socket.", "subprocess.", "ctypes.", "shutil.", "marshal.")

def hook(event, arguments):
    if watching and event.startswith(WATCHED):
        seen.append((event, *arguments[:3]) if event == "open" else (event, *map(str, arguments)))

sys.addaudithook(hook)
for text in texts:
    with open("main.rw", "w") as file:
        file.write(text + "\\nexpect output (_, 10)\\n")
    watching = True
    try:
        check_rules("main.rw")
    except RewriteError as error:
        error.diagnostics[0].render()
    watching = False
print(json.dumps(seen))
"""


def test_a_hostile_file_opens_nothing_else(home: Path, tmp_path: Path) -> None:
    lay_out(home, tmp_path)
    (home / "layers.py").write_text("raise SystemExit('was run')")
    paths = [path for path in ESCAPES if not set(path) & set('\\\n\t"\x1b')]
    texts = [f'include "{path}"' for path in paths]
    texts += [f'use "{path}" as my' for path in [*paths, "layers.py"]]
    texts += [
        f"use {name}" for name in ("os", "subprocess as my", "antigravity", "this", "layers", "os (system, popen)")
    ]
    texts += ['include "own.rw"', 'include "outdir/secret.rw"', 'include "fifo.rw"', 'include "main.rw"']
    command = [sys.executable, "-c", HOSTILE, str(home), *texts]
    environment = os.environ | {"PYTHONPATH": str(Path(inclusion.__file__).parent.parent)}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr
    opened: set[str] = set()
    for event, path, *details in json.loads(finished.stdout):
        if event == "os.scandir":  # of a folder's descriptor, to find the nearest name
            assert path.isdigit(), path
            continue
        if event == "open" and isinstance(path, int):  # the descriptor that the line before opened
            continue
        assert event == "open", (event, path, details)
        opened.add(path)
        if path in ("main.rw", str(home)):
            continue
        # A single name, opened relative to a folder that was reached in the same way, and never through a link.
        assert "/" not in path, path
        assert path not in ("", ".", ".."), path
        assert details[1] & os.O_NOFOLLOW, path
    assert {"main.rw", "own.rw", str(home)} <= opened
    assert not opened & {"layers.py", "fifo.rw", "socket.rw", "secret.rw"}
