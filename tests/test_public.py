"""What `import rewrite` gives, and what it does not cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rewrite


def test_all_is_sorted_and_complete() -> None:
    assert list(rewrite.__all__) == sorted(rewrite.__all__)
    missing = [name for name in rewrite.__all__ if not hasattr(rewrite, name)]
    assert not missing
    modules = {name.split(".")[1] for name in sys.modules if name.startswith("rewrite.")}
    public = {name for name in vars(rewrite) if not name.startswith("_")} - modules - {"annotations", "TYPE_CHECKING"}
    assert public <= set(rewrite.__all__), "public names that __all__ does not list"


def test_the_promised_names_are_there() -> None:
    promised = {"RewriteError", "Report", "Rules", "apply_rules", "check_rules", "get_report", "plan_rules"}
    assert promised <= set(rewrite.__all__)


def test_no_public_name_hides_a_module() -> None:
    modules = {name.split(".")[1] for name in sys.modules if name.startswith("rewrite.")}
    assert not modules & set(rewrite.__all__)


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import rewrite", ("torch", "torchvision", "lark", "networkx", "rich", "numpy", "safetensors")),
        ("import rewrite.cli", ("torch", "torchvision", "lark", "networkx", "rich", "numpy", "safetensors")),
        ("from rewrite import migrate, migrate_optimizer", ("torch", "torchvision", "networkx", "rich", "numpy")),
        ("from rewrite import apply_rules, check_rules, Rules", ("torch", "torchvision", "networkx", "rich", "numpy")),
        (
            "from rewrite import check_rules, Rules; check_rules(Rules('after ReLU: insert Dropout(0.1)'))",
            ("torch", "torchvision", "networkx", "rich", "numpy"),
        ),
    ],
    ids=["import", "command line", "migration", "names", "check"],
)
def test_nothing_heavy_is_loaded(code: str, heavy: tuple[str, ...]) -> None:
    probe = f"{code}; import sys; print(*[name for name in {heavy!r} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == []


def test_every_public_name_has_a_docstring() -> None:
    assert not [name for name in rewrite.__all__ if not name.startswith("_") and not getattr(rewrite, name).__doc__]
