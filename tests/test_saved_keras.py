"""`.keras` files on the command line: read without running anything, written as a whole or not at all."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

from rewrite import RewriteError  # noqa: E402
from rewrite.cli import main  # noqa: E402
from rewrite.saved import read_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

L = keras.layers


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model with an operation layer, a nested model, a regulariser and what it was compiled with."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="relu", kernel_regularizer="l2", name="c")(inputs)
    x = keras.ops.relu(x) * 2.0 + x[:, :, :, :1]
    inner = keras.Sequential([keras.Input((6, 6, 4)), L.BatchNormalization(name="n")], name="inner")
    x = L.Bidirectional(L.LSTM(3))(L.Reshape((6, 24))(inner(x)))
    model = keras.Model(inputs, L.Dense(2, name="d")(x))
    model.compile("adam", "mse")
    path = tmp_path / "model.keras"
    model.save(path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with another configuration."""
    parts = members(path)
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    return packed(path, parts.items())


def packed(path: Path, parts: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    out = path.with_name("hostile.keras")
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in parts:
            archive.writestr(name, data)
    return out


def refusal(path: Path) -> Any:
    with pytest.raises(RewriteError) as caught:
        read_model(str(path))
    return caught.value


def test_apply(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.with_name("out.keras")
    assert main(["apply", "-e", "after Conv2D: insert BatchNormalization", str(file), "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"written: {out} (whole model, Keras)" in shown
    model, result = keras.saving.load_model(file), keras.saving.load_model(out)
    assert [layer.name for layer in result.layers][1:4] == ["c", "c_batchnorm2d", "c_activation"]
    for a, b in zip(model.get_layer("d").weights, result.get_layer("d").weights, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
    assert main(["apply", "-e", "after Conv2D: insert Dropout", str(file), "-o", str(out)]) == 2  # it exists


def test_a_tap_is_read_again(file: Path) -> None:
    out = file.with_name("out.keras")
    assert main(["apply", "-e", "tap t = first Conv2D", str(file), "-o", str(out)]) == 0
    assert type(read_model(str(out)).get_layer("c_tap")).__name__ == "Tap"


def test_other_commands_read_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-e", "after Linear: insert Dropout", str(file)]) == 0
    assert main(["show", str(file)]) == 0
    assert "inner" in capsys.readouterr().out


def test_the_form_follows_the_framework(file: Path) -> None:
    for name in ("out.pt", "out.safetensors"):
        out = file.with_name(name)
        assert main(["apply", "-e", "after Conv2D: insert Dropout", str(file), "-o", str(out)]) == 2
        assert not out.exists()


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in config["config"]["layers"] if item["name"] == name)
    return found


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.layers", "Lambda"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "TorchModuleWrapper"),
        ("keras.layers", "TextVectorization"),
        ("keras.layers", "StringLookup"),
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "function"),
        ("keras.utils", "get_file"),
        ("keras.src.models.model", "model_from_json"),
        ("trojan", "Layer"),
        (None, "__lambda__"),
        (None, "Dense"),
        (None, "__numpy__"),
    ],
)
def test_what_is_not_known_is_not_imported(
    file: Path, module: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = file.with_name("ran")
    file.with_name("trojan.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Layer: pass\n")
    monkeypatch.syspath_prepend(str(file.parent))

    def change(config: dict[str, Any]) -> None:
        layer(config, "d").update(module=module, class_name=name, registered_name=name)

    problem = refusal(rewritten(file, change))
    assert problem.code == "RW502"
    assert name in str(problem)
    assert not marker.exists()


def test_deep_inside_as_well(file: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        layer(config, "d")["config"]["kernel_initializer"] = {
            "module": "builtins",
            "class_name": "function",
            "config": "print",
            "registered_name": "print",
        }

    problem = refusal(rewritten(file, change))
    assert problem.code == "RW502"
    assert "kernel_initializer" in str(problem)


def test_a_lambda_that_keras_itself_wrote(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "model.keras")
    assert refusal(tmp_path / "model.keras").code == "RW502"


def test_what_it_was_compiled_with_is_not_read(file: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["compile_config"]["loss"] = {"module": "os", "class_name": "system", "config": {}}

    assert not read_model(str(rewritten(file, change))).compiled


def test_damage(file: Path) -> None:
    parts = members(file)
    assert refusal(packed(file, [*parts.items(), ("extra.py", b"")])).code == "RW502"
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = packed(file, [*parts.items(), ("config.json", b"{}")])
    assert refusal(twice).code == "RW504"
    blank = {**parts, "config.json": b" " * (200 << 20)}
    bomb = packed(file, blank.items(), zipfile.ZIP_DEFLATED)
    assert refusal(bomb).code == "RW504"
    nested = packed(file, {**parts, "config.json": b"[" * 200_000}.items())
    assert refusal(nested).code == "RW504"
    same_key = packed(file, {**parts, "config.json": b'{"module": "keras", "module": "os"}'}.items())
    assert refusal(same_key).code == "RW504"
    data = file.read_bytes()
    for end in (30, len(data) // 2, len(data) - 30):
        short = file.with_name("short.keras")
        short.write_bytes(data[:end])
        assert refusal(short).code in ("RW504", "RW502")


def test_a_size_that_no_model_has(file: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        layer(config, "d")["config"]["units"] = 10**15

    assert refusal(rewritten(file, change)).code == "RW504"


def test_weights_in_another_file(file: Path) -> None:
    for kind in ("link", "external"):
        parts = members(file)
        buffer = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(buffer, "a") as weights:
            if kind == "link":
                weights["stolen"] = h5py.ExternalLink("/etc/passwd", "/")
            else:
                weights.create_dataset("stolen", (8,), "u1", external=[("/etc/hostname", 0, 8)])
        parts["model.weights.h5"] = buffer.getvalue()
        assert refusal(packed(file, parts.items())).code == "RW504"


def test_what_is_frozen_stays_so_in_a_file_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = keras.Input((6, 4))
    x = L.MultiHeadAttention(2, 2, name="mha")(given, given)
    x = L.TimeDistributed(L.Dense(4, name="inside"), name="each")(x)
    model = keras.Model(given, L.Dense(2, name="d")(L.BatchNormalization(name="n")(x)))
    path, out = tmp_path / "model.keras", tmp_path / "out.keras"
    model.save(path)
    for text, learning in (("freeze any except Linear", ["d", "inside"]), ("freeze any", [])):
        rules = ["-e", text]
        assert main(["apply", *rules, str(path), "-o", str(out), "--force"]) == 0
        assert "`mha` learn, which are frozen here" in capsys.readouterr().err
        again = read_model(str(out))
        owners = {
            layer.name for layer in again._flatten_layers() if any(v.trainable for v in layer._trainable_variables)
        }
        assert sorted(owners) == learning
    assert main(["apply", "-e", 'freeze "d"', str(path), "-o", str(out), "--force"]) == 0
    assert "frozen here" not in capsys.readouterr().err
    parts = members(out)
    for wrong in (["x"], ["1"], ["1-2-3"], [3]):
        metadata = json.loads(parts["metadata.json"])
        metadata["rewrite"]["frozen"] = wrong
        with pytest.raises(RewriteError) as found:
            read_model(str(packed(out, {**parts, "metadata.json": json.dumps(metadata).encode()}.items())))
        assert found.value.code == "RW504"


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_models(mode: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, activation="relu", name="a"), L.Dense(8, name="b")])
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    out = tmp_path / "out.keras"
    assert main(["apply", "-e", "after ReLU: insert Dropout", str(tmp_path / "model.keras"), "-o", str(out)]) == 0
    row = np.random.default_rng(0).random((2, 8)).astype("float32")
    before, after = (keras.ops.convert_to_numpy(m(row)) for m in (model, read_model(str(out))))
    assert np.allclose(before, after, atol=1e-5)


def test_masks_of_an_attention(tmp_path: Path) -> None:
    given = keras.Input((5,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True)(given)
    model = keras.Model(given, L.Dense(2)(L.Attention()([x, L.LSTM(4, return_sequences=True)(x)])))
    model.save(tmp_path / "model.keras")
    rule = "after Embedding: insert Dropout"
    assert main(["apply", "-e", rule, str(tmp_path / "model.keras"), "-o", str(tmp_path / "out.keras")]) == 0
    row = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    before, after = (keras.ops.convert_to_numpy(m(row)) for m in (model, read_model(str(tmp_path / "out.keras"))))
    assert np.allclose(before, after, atol=1e-6)


MODULE = """
import keras

class Block(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(4, activation="relu", name="dense")

    def call(self, inputs):
        return inputs + self.dense(inputs)
"""


@pytest.fixture
def changed_in_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A file in which a layer stands in the code of a class of the user's."""
    (tmp_path / "blocks_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import blocks_of_mine  # type: ignore[import-not-found]

    value = keras.Input((4,))
    keras.Model(value, L.Dense(2, name="d")(blocks_of_mine.Block(name="block")(value))).save(tmp_path / "plain.keras")
    out = tmp_path / "changed.keras"
    call = ["apply", "-e", "after Linear: insert LayerNorm", str(tmp_path / "plain.keras"), "-o", str(out)]
    assert main(call) == 2, "the class is not allowed yet"
    assert main([*call, "--allow", "blocks_of_mine.Block"]) == 0
    capsys.readouterr()
    return out


def test_what_was_put_into_code_is_read_again(changed_in_code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(changed_in_code).code == "RW502"
    assert main(["show", str(changed_in_code), "--allow", "blocks_of_mine.Block"]) == 0
    assert "dense_layernorm" in capsys.readouterr().out
    out = changed_in_code.with_name("more.keras")
    call = ["apply", "-e", "after LayerNorm: insert Tanh", str(changed_in_code), "-o", str(out)]
    assert main([*call, "--allow", "blocks_of_mine.Block"]) == 0
    assert "2 sites" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["series"][0].update(place=[7]),
        lambda config: config["series"][0].update(place=[]),
        lambda config: config["series"][0].update(main=5),
        lambda config: config["series"][0].pop("layers"),
        lambda config: config.pop("layer"),
        lambda config: config["series"][0].update(layers=["x"]),
    ],
)
def test_what_was_put_into_code_may_be_damaged(changed_in_code: Path, change: Callable[[Any], Any]) -> None:
    path = rewritten(changed_in_code, lambda config: change(config["config"]["layers"][1]["config"]))
    with pytest.raises(RewriteError) as caught:
        read_model(str(path), allow=("blocks_of_mine.Block",))
    assert caught.value.code == "RW504"


def test_what_was_put_into_code_is_on_the_list_as_well(changed_in_code: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["series"][0]["layers"].append(
            {"module": "keras.layers", "class_name": "Lambda", "config": {}, "registered_name": None}
        )

    with pytest.raises(RewriteError) as caught:
        read_model(str(rewritten(changed_in_code, change)), allow=("blocks_of_mine.Block",))
    assert caught.value.code == "RW502"
