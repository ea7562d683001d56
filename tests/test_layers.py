"""The import table of the house: imports run one way, and each third-party package has its own room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "rewrite").rglob("*.py"))

# From the inside out. A file may import from its own row and from the rows above it, never from those below.
# A folder stands for all files in it.
ROWS = (
    ("rewrite.source", "rewrite.graph", "rewrite.globs"),
    ("rewrite.errors",),
    ("rewrite.report", "rewrite.expression", "rewrite.layout"),
    ("rewrite.vocabulary", "rewrite.syntax"),
    ("rewrite.pattern", "rewrite.formatter", "rewrite.builder", "rewrite.containment", "rewrite.python_file"),
    ("rewrite.hints", "rewrite.comments", "rewrite.line_breaks"),
    ("rewrite.parser", "rewrite.lookup", "rewrite.inference", "rewrite.chains", "rewrite.selectors"),
    ("rewrite.catalogue", "rewrite.explanations"),
    ("rewrite.inclusion", "rewrite.file_formatter"),
    ("rewrite.scope", "rewrite.actions", "rewrite.edit", "rewrite.sketch", "rewrite.subgraphs", "rewrite.flow"),
    ("rewrite.literals",),
    ("rewrite.rule", "rewrite.selection", "rewrite.statements", "rewrite.cases"),
    ("rewrite.matcher", "rewrite.resolver", "rewrite.imports", "rewrite.isomorphism"),
    ("rewrite.misses", "rewrite.overlaps", "rewrite.lint"),
    ("rewrite.explaining",),
    ("rewrite.planner", "rewrite.verifier", "rewrite.backends", "rewrite.migration"),
    ("rewrite.application",),
    ("rewrite.engine",),
    ("rewrite.saved", "rewrite.optimizers"),
    ("rewrite.tester", "rewrite.census"),
    ("rewrite",),
    ("rewrite.cli",),
    ("rewrite.__main__",),
)

# Third-party package -> the only rooms that may import it, at the top of a file or inside a function.
ROOMS = {
    "lark": ("rewrite.parser",),
    "networkx": ("rewrite.flow", "rewrite.isomorphism"),
    "torch": ("rewrite.backends.torch", "rewrite.saved"),
    "keras": ("rewrite.backends.keras", "rewrite.saved"),
    "h5py": ("rewrite.saved",),
    "torchvision": ("rewrite.backends.torch", "rewrite.saved"),
    "timm": ("rewrite.saved",),
    "safetensors": ("rewrite.saved",),
    "rich": ("rewrite.cli",),
}


def name_of(file: Path) -> str:
    """`rewrite/actions/insert.py` -> `rewrite.actions.insert`."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Every module that `file` imports and the line: at its top, in its functions, and for type checkers only."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                is_module = (ROOT / (below.replace(".", "/") + ".py")).exists() or (
                    ROOT / below.replace(".", "/")
                ).is_dir()
                yield (below if is_module and below.startswith("rewrite") else node.module), node.lineno


def within(module: str, room: str) -> bool:
    """Whether `module` is `room` or lies in it; `rewrite` itself is a room of one file."""
    return module == room or (room != "rewrite" and module.startswith(room + "."))


def row_of(module: str) -> int:
    """The row that holds `module`."""
    found = [number for number, rooms in enumerate(ROWS) if any(within(module, room) for room in rooms)]
    assert len(found) == 1, f"{module} has {len(found)} places in the table of tests/test_layers.py"
    return found[0]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    importer = name_of(file)
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {importer} imports {module}, which lies further out"
        for module, line in imported(file)
        if module.split(".")[0] == "rewrite" and row_of(module) > row_of(importer)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_each_package_stays_in_its_room(file: Path) -> None:
    importer = name_of(file)
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {module} belongs in {', '.join(ROOMS[module.split('.')[0]])}"
        for module, line in imported(file)
        if module.split(".")[0] in ROOMS and not any(within(importer, room) for room in ROOMS[module.split(".")[0]])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_named_for_nothing() -> None:
    vague = {"utils", "helpers", "common", "core", "base", "misc", "manager"}
    assert not [str(file) for file in FILES if vague & {file.stem, *file.parent.parts}]
