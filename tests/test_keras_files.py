"""What a `.keras` file keeps of a rewritten model, and files that would fill the memory."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("h5py")

from rewrite import RewriteError, Rules, apply_rules, get_report  # noqa: E402
from rewrite.cli import main  # noqa: E402
from rewrite.saved import read_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

L = keras.layers
VALUE = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="relu", name="c")(inputs)
    x = L.GlobalAveragePooling2D(name="g")(L.BatchNormalization(name="n")(x))
    model = keras.Model(inputs, [L.Dense(2, name="a")(x), L.Dense(3, name="b")(x)])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def applied(text: str, file: Path, name: str = "out.keras") -> Path:
    out = file.with_name(name)
    assert main(["apply", "-e", text, str(file), "-o", str(out), "--force"]) == 0
    return out


def outputs(model: Any) -> list[Any]:
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(model(VALUE, training=False))]


def test_outputs_keep_their_names(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = applied("after Linear: insert Dropout(0.1)", file)
    shown = capsys.readouterr()
    assert "`a` is `a_dropout`, `b` is `b_dropout`" in shown.out + shown.err
    model = read_model(str(out))
    assert model.output_names == ["a", "b"]
    again = read_model(str(applied("after Conv2D: insert BatchNormalization", out, "again.keras")))
    assert again.output_names == ["a", "b"]
    again.compile("sgd", {"a": "mse", "b": "mse"})
    wanted = {"a": np.zeros((2, 2), "float32"), "b": np.zeros((2, 3), "float32")}
    assert np.isfinite(np.ravel(again.train_on_batch(VALUE, wanted))).all()
    # Keras goes by the names of the last layers, as the note says, and takes what it tells to set.
    theirs = keras.saving.load_model(out)
    assert theirs.output_names == ["a_dropout", "b_dropout"]
    assert all(np.array_equal(a, b) for a, b in zip(outputs(theirs), outputs(model), strict=True))


def test_nothing_is_told_where_nothing_is_lost(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied("after Conv2d: insert BatchNorm2d", file)
    assert "last layer" not in "".join(capsys.readouterr())


def test_a_rule_is_not_applied_twice_across_a_file(file: Path) -> None:
    out = applied("after Conv2d: insert BatchNorm2d", file)
    again = applied("after Conv2d: insert BatchNorm2d", out, "again.keras")
    one, other = read_model(str(out)), read_model(str(again))
    assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
    report = get_report(apply_rules(one, Rules("after Conv2d: insert BatchNorm2d")))
    assert report is not None
    assert [clause.skipped for clause in report.clauses] == [True]


@pytest.mark.parametrize(
    ("text", "learns"),
    [
        ("freeze params BatchNorm", {"c/kernel", "c/bias", "a/kernel", "a/bias", "b/kernel", "b/bias"}),
        ("wrap Conv2d with LoRA(rank=2)\nfreeze any except LoRA", {"c/lora_A", "c/lora_B"}),
        ('freeze any except "b"\nafter Conv2d: insert LeakyReLU(0.3) -> CELU(0.5)', {"b/kernel", "b/bias"}),
    ],
)
def test_what_learns_is_kept(text: str, learns: set[str], file: Path) -> None:
    rules = file.with_name("rules.rw")
    rules.write_text(text)
    out = file.with_name("out.keras")
    assert main(["apply", str(rules), str(file), "-o", str(out)]) == 0
    wanted, model = apply_rules(read_model(str(file)), Rules(text)), read_model(str(out))
    assert {variable.path for variable in model.trainable_variables} == learns
    assert all(np.array_equal(a, b) for a, b in zip(outputs(wanted), outputs(model), strict=True))


# ---- files that would fill the memory


def changed(file: Path, change: Callable[[dict[str, Any]], None], member: str = "config.json") -> Path:
    out = file.with_name("hostile.keras")
    with zipfile.ZipFile(file) as given, zipfile.ZipFile(out, "w") as made:
        for name in given.namelist():
            data = given.read(name)
            if name == member:
                table = json.loads(data)
                change(table)
                data = json.dumps(table).encode()
            made.writestr(name, data)
    return out


def refused(path: Path) -> str:
    with pytest.raises(RewriteError) as caught:
        read_model(str(path))
    assert caught.value.code == "RW504"
    return caught.value.diagnostics[0].message


def of(table: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(layer for layer in table["config"]["layers"] if layer["name"] == name)
    return found["config"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("a", {"units": 10**9}),
        ("a", {"units": 200_000}),
        ("c", {"filters": 30_000, "kernel_size": [2000, 2000], "padding": "same"}),
        ("c", {"kernel_size": [100_000, 100_000], "padding": "same"}),
    ],
)
def test_weights_that_the_file_does_not_hold_are_not_made(name: str, sizes: dict[str, Any], file: Path) -> None:
    message = refused(changed(file, lambda table: of(table, name).update(sizes)))
    assert f"a weight of its layer `{name}`" in message


def test_sizes_that_are_large_together(tmp_path: Path) -> None:
    """No size is larger than what the file holds; the product of two is."""
    model = keras.Sequential([keras.Input((2,)), *(L.Dense(300, name=f"d{n}") for n in range(4))])
    model.save(tmp_path / "model.keras")

    def change(table: dict[str, Any]) -> None:
        for layer in table["config"]["layers"][1:]:
            layer["config"]["units"] = 50_000
            layer.pop("build_config", None)

    assert "(50000, 50000)" in refused(changed(tmp_path / "model.keras", change))


def test_more_layers_than_a_model_has(file: Path) -> None:
    def change(table: dict[str, Any]) -> None:
        table["config"]["layers"] += [table["config"]["layers"][-1]] * 20_001

    assert "more than 20,000 layers" in refused(changed(file, change))


@pytest.mark.parametrize("ours", [7, {"history": "x"}, {"history": [1]}, {"output_names": ["a\n"]}])
def test_metadata_of_a_stranger(ours: object, file: Path) -> None:
    assert "metadata" in refused(changed(file, lambda table: table.update(rewrite=ours), "metadata.json"))


@pytest.mark.parametrize("sequential", [False, True], ids=["functional", "sequential"])
def test_a_model_that_is_deeper_than_python_nests_calls(sequential: bool, tmp_path: Path) -> None:
    x = given = keras.Input((2,))
    layers = [L.Dense(2) for _ in range(600)]
    for layer in layers if not sequential else ():
        x = layer(x)
    model = keras.Sequential([given, *layers]) if sequential else keras.Model(given, x)
    limit = sys.getrecursionlimit()
    result = apply_rules(model, Rules("after Linear: insert Dropout(0.1)"))
    assert get_report(result).sites == 600
    assert len(result.layers) == (1200 if sequential else 1201)
    if not sequential:  # Keras' own reading of a Sequential takes the square of its length
        path = tmp_path / "deep.keras"
        result.save(path)
        assert len(read_model(str(path)).layers) == 1201
    assert sys.getrecursionlimit() == limit
