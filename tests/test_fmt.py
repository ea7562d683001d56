"""`rewrite fmt`: which files it writes, when, and what it says."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rewrite.cli import main

ROOT = Path(__file__).parent.parent
LOOSE = "after X { insert Y } # why"
TIDY = "after X: insert Y  # why\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(("fmt", *words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_writes_what_changes_and_nothing_else(run: Run) -> None:
    loose, tidy = Path("loose.rw"), Path("tidy.rw")
    loose.write_text(LOOSE)
    loose.chmod(0o640)
    tidy.write_text(TIDY)
    before = tidy.stat()
    assert run("loose.rw", "tidy.rw") == (0, "", "formatted loose.rw\n")
    assert loose.read_text() == TIDY
    assert stat.S_IMODE(loose.stat().st_mode) == 0o640
    assert (tidy.stat().st_mtime_ns, tidy.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert sorted(os.listdir()) == ["loose.rw", "tidy.rw"]
    assert run("loose.rw", "tidy.rw") == (0, "", "")


@pytest.mark.parametrize("text", [TIDY.replace("\n", "\r\n"), "\ufeff" + TIDY, TIDY + "\n", TIDY[:-1]])
def test_line_ends_and_mark_are_changes(run: Run, text: str) -> None:
    Path("a.rw").write_bytes(text.encode())
    assert run("a.rw", "--check") == (1, "a.rw\n", "")
    assert run("a.rw")[0] == 0
    assert Path("a.rw").read_bytes() == TIDY.encode()


def test_a_link_stays_a_link(run: Run) -> None:
    Path("real.rw").write_text(LOOSE)
    Path("link.rw").symlink_to("real.rw")
    assert run("link.rw")[0] == 0
    assert Path("link.rw").is_symlink()
    assert Path("real.rw").read_text() == TIDY


def test_folders(run: Run) -> None:
    for name in ("rules/a.rw", "rules/deep/b.rw", "rules/.hidden/c.rw", "rules/d.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(LOOSE)
    assert run("rules", "--check") == (1, "rules/a.rw\nrules/deep/b.rw\n", "")
    assert run("rules")[0] == 0
    assert Path("rules/deep/b.rw").read_text() == TIDY
    assert Path("rules/d.txt").read_text() == Path("rules/.hidden/c.rw").read_text() == LOOSE


def test_check_and_diff_write_nothing(run: Run) -> None:
    Path("a.rw").write_text(LOOSE)
    assert run("a.rw", "--check") == (1, "a.rw\n", "")
    diff = f"--- a.rw\n+++ a.rw\n@@ -1 +1 @@\n-{LOOSE}\n\\ No newline at end of file\n+{TIDY}"
    assert run("a.rw", "--diff") == (0, diff, "")
    assert run("a.rw", "--diff", "--check") == (1, diff, "")
    assert Path("a.rw").read_text() == LOOSE


def test_errors_of_all_files_and_the_others_are_written(run: Run) -> None:
    Path("a.rw").write_text("remvoe X\n")
    Path("b.rw").write_text(LOOSE)
    Path("c.rw").write_bytes(b"\xff")
    code, out, err = run("a.rw", "b.rw", "c.rw", "none.rw")
    assert (code, out) == (2, "")
    assert [line[:12] for line in err.splitlines() if line.startswith("error")] == [
        "error[RW002]",
        "error[RW010]",
        "error[RW010]",
    ]
    assert Path("a.rw").read_text() == "remvoe X\n"
    assert Path("b.rw").read_text() == TIDY


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(run: Run) -> None:
    Path("locked").mkdir()
    Path("locked/a.rw").write_text(LOOSE)
    Path("locked").chmod(0o500)
    code, _, err = run("locked/a.rw")
    Path("locked").chmod(0o700)
    assert code == 2
    assert "RW506" in err


def test_text_and_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-e", LOOSE, "-e", "remove  Z") == (0, f"{TIDY}remove Z\n", "")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LOOSE.encode())))
    assert run("-") == (0, TIDY, "")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LOOSE.encode())))
    assert run("-", "--check") == (1, "<stdin>\n", "")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert run("-")[0] == 2


def test_json(run: Run) -> None:
    Path("a.rw").write_text(LOOSE)
    Path("b.rw").write_text("remvoe X")
    code, out, err = run("a.rw", "b.rw", "-e", TIDY, "--json")
    assert (code, err) == (2, "")
    found = json.loads(out)
    assert found["files"] == [
        {"name": "-e", "changed": False, "text": TIDY},
        {"name": "a.rw", "changed": True},
    ]
    assert [error["code"] for error in found["errors"]] == ["RW002"]


def test_nothing_to_do(run: Run) -> None:
    assert run()[0] == 2


def test_nothing_heavy_is_loaded() -> None:
    program = (
        "import sys; from rewrite.cli import main; code = main(['fmt', '-e', 'remove X']); "
        "print(code, [name for name in ('torch', 'networkx', 'numpy', 'rich') if name in sys.modules])"
    )
    Path("a.rw").write_text(LOOSE)
    for words in ("'-e', 'remove X'", "'a.rw'"):
        text = program.replace("'-e', 'remove X'", words)
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.stdout.splitlines()[-1] == "0 []", done.stderr
