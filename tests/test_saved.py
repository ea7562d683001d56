"""Model files: what is read, what is refused and in which words, and that a write is all or nothing."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pickle
import random
import re
import stat
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_file
from torch import nn
from torch.nn import functional as F

from rewrite.errors import SafetyError
from rewrite.saved import read_model, write_model
from rewrite.saved.content import Content, content_of
from rewrite.saved.layer_partial import LayerPartial, PartialError
from rewrite.saved.output import TEMPORARY, Output, check_output


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in messages are short, and no run sees the files of another."""
    monkeypatch.chdir(tmp_path)


def refused(spec: str, **options: object) -> str:
    """The text of the diagnostic with which `spec` is refused."""
    with pytest.raises(SafetyError) as caught:
        read_model(spec, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def same(left: nn.Module, right: nn.Module) -> bool:
    first, second = left.state_dict(), right.state_dict()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))


# ---- whole modules


def test_a_module_of_torch_nn_is_read_back():
    model = small().eval()
    torch.save(model, "net.pt")
    found = read_model("net.pt")
    assert type(found) is nn.Sequential
    assert same(model, found)
    assert not found.training


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "resnet18", "densenet121", "mobilenet_v3_small", "swin_t", "shufflenet_v2_x0_5"]
)
def test_models_of_torchvision_are_written_and_read_back(name):
    model = read_model(f"torchvision:{name}")
    assert write_model(model, check_output("net.pt")) == ""
    found = read_model("net.pt")
    assert type(found) is type(model)
    assert same(model, found)


def test_a_vision_transformer_keeps_its_partial():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image_size=8, patch_size=4, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=4)
    assert write_model(model, check_output("vit.pt")) == ""
    found = read_model("vit.pt")
    assert found.norm_layer.func is nn.LayerNorm
    assert found.norm_layer.keywords == {"eps": 1e-6}
    assert found.norm_layer(4).eps == 1e-6
    # Written again it is an ordinary partial, which any program reads.
    data = pickle.dumps(found.norm_layer)
    assert type(pickle.loads(data)) is functools.partial


class Marker:
    """What a hostile file holds: reading it runs a command."""

    def __reduce__(self):
        return os.system, ("touch marker",)


def test_a_file_that_holds_a_function_is_refused_and_nothing_runs():
    model = small()
    model.extra = Marker()
    torch.save(model, "net.pt")
    assert refused("net.pt") == (
        "error[RW502]: `net.pt` needs `posix.system` to be read\n"
        "  = note: only classes of torch.nn and torchvision are read without being asked for\n"
        "  = note: `posix.system` is not let in by any flag\n"
        "  = help: load the file in a program of yours that trusts it, and save its state_dict: "
        "`torchvision:NAME@FILE` reads that"
    )
    assert not Path("marker").exists()


@pytest.mark.parametrize("function", [F.relu, torch.add, eval, torch.load, torch.hub.load])
def test_no_function_is_let_in(function):
    model = small()
    model.extra = function
    torch.save(model, "net.pt")
    assert "needs `" in refused("net.pt")


@pytest.mark.parametrize(
    "partial",
    [
        functools.partial(os.system, "touch marker"),
        functools.partial(functools.partial, nn.Linear),
        functools.partial(nn.LayerNorm, eps=torch.zeros(1)),
        functools.partial(torch.Size, [1]),
    ],
    ids=["function", "partial", "tensor", "class"],
)
def test_a_partial_binds_a_layer_class_and_plain_values_only(partial):
    model = small()
    model.extra = partial
    torch.save(model, "net.pt")
    assert refused("net.pt").startswith("error[RW502]: `net.pt` ")
    assert not Path("marker").exists()


def test_a_partial_cannot_be_given_another_state():
    kind = LayerPartial.within(frozenset([nn.Linear]))
    made = kind(nn.Linear, 3)
    assert made(4).in_features == 3
    for state in [(eval, (), {}, None), (nn.Linear, [3], {}, None), (nn.Linear, (3,), {}, {"func": eval})]:
        with pytest.raises(PartialError):
            made.__setstate__(state)
    with pytest.raises(PartialError):
        LayerPartial(nn.Linear)


def test_a_class_of_the_users_own_is_let_in_by_name(tmp_path, monkeypatch):
    module = tmp_path / "nets_of_mine.py"
    module.write_text("import torch\nclass Block(torch.nn.Linear):\n    pass\ndef make():\n    pass\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import nets_of_mine

    torch.save(nets_of_mine.Block(2, 2), "net.pt")
    assert refused("net.pt") == (
        "error[RW502]: `net.pt` needs `nets_of_mine.Block` to be read\n"
        "  = note: only classes of torch.nn and torchvision are read without being asked for\n"
        "  = help: if you trust the code on your machine under these names: `--allow nets_of_mine.Block` imports it; "
        "functions are never let in"
    )
    assert type(read_model("net.pt", allow=["nets_of_mine.Block"])) is nets_of_mine.Block
    assert "`--allow nets_of_mine.make` is refused: it is not a class" in refused("net.pt", allow=["nets_of_mine.make"])


def test_a_flag_is_offered_for_classes_only():
    model = read_model("torchvision:quantized_mobilenet_v2")
    stub = "torch.ao.quantization.stubs.QuantStub"
    note = write_model(model, check_output("net.pt"))
    assert f"`{stub}`" in note
    text = refused("net.pt")
    assert f"--allow {stub}" in text
    flags = re.findall(r"--allow (\S+)", text.replace("`", " "))
    assert type(read_model("net.pt", allow=flags)) is type(model)
    model.extra = torch.add
    torch.save(model, "net.pt")
    assert "--allow" not in refused("net.pt")


def test_what_may_never_be_allowed():
    torch.save(small(), "net.pt")
    assert refused("net.pt", allow=["functools.partial"]) == (
        "error[RW502]: `--allow functools.partial` is refused: it belongs to Python itself\n"
        "  = note: a file calls what is allowed with arguments of its own; classes of modules take that, "
        "others do not\n"
        "  = help: load the file in a program of yours that trusts it, and save its state_dict"
    )
    assert "it is `torch.fx.graph_module.GraphModule`" in refused("net.pt", allow=["torch.fx.GraphModule"])
    assert refused("net.pt", allow=["no_such_module.Net"]) == (
        "error[RW504]: `--allow no_such_module.Net` cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
        "  = help: write it as `package.module.Class`"
    )


def test_a_pickled_graph_module_is_refused_by_name():
    torch.save(torch.fx.symbolic_trace(small()), "net.pt")
    assert refused("net.pt") == (
        "error[RW502]: `net.pt` holds a pickled GraphModule: reading it runs source text from the file\n"
        "  = help: save the module that it was traced from, or its state_dict"
    )


def test_torchscript_is_refused_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save("net.pt")
    assert refused("net.pt") == (
        "error[RW502]: `net.pt` is a TorchScript archive: reading it runs code from the file\n"
        "  = help: save the nn.Module that it was made from, with torch.save(model, ...), or its state_dict"
    )


def test_an_exported_program_is_refused_by_name():
    with zipfile.ZipFile("net.pt2", "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/models/model.json", "{}")
    assert refused("net.pt2") == (
        "error[RW502]: `net.pt2` is an exported program (`.pt2`): reading it runs code from the file\n"
        "  = help: save the nn.Module that it was made from, with torch.save(model, ...), or its state_dict"
    )


def test_a_whole_model_from_before_torch_1_6_is_refused_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(nn.Linear(2, 2), "net.pt", _use_new_zipfile_serialization=False)
    assert refused("net.pt") == (
        "error[RW502]: `net.pt` is a whole model as torch before 1.6 wrote it: reading it runs what the file names\n"
        "  = help: load it in a program of yours that trusts it, and save it again"
    )


def test_files_that_are_no_models():
    assert refused("net.pt") == (
        "error[RW504]: there is no model file `net.pt`\n"
        "  = help: MODEL is a file, or a builder such as `torchvision:resnet50`"
    )
    assert refused("resnet50") == (
        "error[RW504]: there is no model file `resnet50`\n  = help: did you mean `torchvision:resnet50`?"
    )
    assert refused(".") == "error[RW504]: `.` is a folder, not a model file"
    Path("net.onnx").write_bytes(b"\x08\x07")
    assert refused("net.onnx") == (
        "error[RW504]: `net.onnx` is not a model file that can be read\n"
        "  = help: what torch.save wrote is read, and weights in a .safetensors file"
    )
    Path("empty.pt").write_bytes(b"")
    assert "`empty.pt` is not a model file" in refused("empty.pt")


def test_weights_without_a_builder():
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt")
    assert refused("weights.pt") == (
        "error[RW504]: `weights.pt` holds weights alone (2 tensors), no model\n"
        "  = help: name what builds the model: `torchvision:NAME@weights.pt`"
    )
    save_file(nn.Linear(2, 2).state_dict(), "weights.safetensors")
    assert refused("weights.safetensors") == (
        "error[RW504]: `weights.safetensors` holds weights alone, no model\n"
        "  = help: name what builds the model: `torchvision:NAME@weights.safetensors`"
    )


def test_a_checkpoint_is_no_model():
    torch.save({"epoch": 3, "state_dict": nn.Linear(2, 2).state_dict()}, "run.pt")
    assert refused("run.pt") == (
        "error[RW504]: `run.pt` holds a value of type dict, no model\n"
        "  = note: its keys: `epoch`, `state_dict`\n"
        "  = help: save the model itself, torch.save(model, ...), or its state_dict"
    )


def test_the_content_decides_not_the_suffix():
    torch.save(small(), "net.safetensors")
    assert type(read_model("net.safetensors")) is nn.Sequential


def test_a_cut_file():
    torch.save(small(), "net.pt")
    data = Path("net.pt").read_bytes()
    Path("net.pt").write_bytes(data[: len(data) // 2])
    assert refused("net.pt") == (
        "error[RW504]: `net.pt` cannot be read: BadZipFile: File is not a zip file\n"
        "  = help: the file is cut short or damaged: copy or save it again"
    )


def test_a_changed_weight():
    layer = nn.Linear(8, 8)
    torch.save(layer, "net.pt")
    data = Path("net.pt").read_bytes()
    weight = layer.weight.detach().numpy().tobytes()
    place = data.index(weight) + 10
    Path("net.pt").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert refused("net.pt") == (
        "error[RW504]: `net.pt` cannot be read: its member `net/data/0` does not match its checksum\n"
        "  = help: the file is cut short or damaged: copy or save it again"
    )


def test_archives_that_show_one_thing_and_hold_another():
    torch.save(small(), "net.pt")
    with zipfile.ZipFile("net.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with warnings.catch_warnings(), zipfile.ZipFile("twice.pt", "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in [*members.items(), *members.items()]:
            archive.writestr(name, data)
    assert "two members of the archive have one name" in refused("twice.pt")
    with zipfile.ZipFile("small.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "a member of the archive is compressed" in refused("small.pt")


def test_a_module_put_together_wrongly():
    model = small()
    model._modules["1"] = "no module"
    torch.save(model, "net.pt")
    assert refused("net.pt") == (
        "error[RW504]: `net.pt` cannot be read: a Sequential with something else among its modules\n"
        "  = help: the file is cut short or damaged: copy or save it again"
    )
    broken = nn.ReLU()
    del broken.__dict__["_parameters"]
    torch.save(broken, "net.pt")
    assert "a ReLU without its table of parameters" in refused("net.pt")


def test_damaged_files_never_raise_anything_else():
    buffer = io.BytesIO()
    torch.save(nn.Linear(2, 2), buffer)
    whole = buffer.getvalue()
    chance = random.Random(0)
    for number in range(150):
        data = bytearray(whole)
        if number % 3 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.randint(1, 4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        Path("net.pt").write_bytes(data)
        with contextlib.suppress(SafetyError):
            assert isinstance(read_model("net.pt"), nn.Module)


def test_the_allow_list_is_gone_after_reading():
    torch.save(small(), "net.pt")
    before = set(torch.serialization.get_safe_globals())
    read_model("net.pt")
    assert set(torch.serialization.get_safe_globals()) == before


# ---- builders


def test_a_builder_makes_the_same_model_from_the_same_seed():
    first, again, other = (read_model("torchvision:squeezenet1_1", seed=seed) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_builders_with_a_backbone_fetch_nothing(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("a download"))
    read_model("torchvision:lraspp_mobilenet_v3_large")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_builders_that_warn_are_kept_from_it(name):
    assert read_model(f"torchvision:{name}").aux_logits  # warnings are errors in these tests


def test_unknown_builders():
    assert refused("torchvision:resnet5O") == (
        "error[RW505]: torchvision has no builder `resnet5O`\n"
        "  = help: did you mean `torchvision:resnet50`, `torchvision:resnet152`, `torchvision:resnet34`?"
    )
    assert refused("keras:resnet50") == (
        "error[RW505]: there is no family of builders `keras`\n"
        "  = help: builders are `torchvision:NAME` and `timm:NAME`"
    )


def test_builders_of_timm():
    pytest.importorskip("timm")
    assert refused("timm:resnet18x").startswith("error[RW505]: timm has no builder `resnet18x`\n  = help: did you mean")
    assert refused("timm:hf_hub:someone/model").startswith("error[RW505]: timm has no builder `hf_hub:someone/model`")
    state = torch.random.get_rng_state()
    model = read_model("timm:test_resnet", seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(model, read_model("timm:test_resnet", seed=3))


def test_torchvision_is_not_there(monkeypatch):
    from rewrite.backends.torch import torchvision_schemas

    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(torchvision_schemas, "declare", missing)
    assert refused("torchvision:resnet50") == (
        "error[RW505]: torchvision is not installed\n  = help: `pip install 'rewrite-fx[vision]'` installs it"
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_a_builder(suffix):
    model = read_model("torchvision:mnasnet0_5", seed=5)
    if suffix == ".pt":
        torch.save(model.state_dict(), "weights.pt")
    else:
        write_model(model, check_output("weights.safetensors"))
    assert same(model, read_model(f"torchvision:mnasnet0_5@weights{suffix}"))


def test_weights_that_do_not_fit():
    state = read_model("torchvision:squeezenet1_1").state_dict()
    state["classifier.1.weight"] = torch.zeros(2, 512, 1, 1)
    state["head.weight"] = state.pop("classifier.1.bias")
    torch.save(state, "weights.pt")
    assert refused("torchvision:squeezenet1_1@weights.pt") == (
        "error[RW504]: weights `weights.pt` do not fit `torchvision:squeezenet1_1`\n"
        "  = note: keys that the file lacks, 1: `classifier.1.bias`\n"
        "  = note: keys that the model lacks, 1: `head.weight`\n"
        "  = note: other shapes, 1: `classifier.1.weight` is (2, 512, 1, 1) in the file and (1000, 512, 1, 1) "
        "in the model\n"
        "  = help: give the weights of a model that this builder made"
    )


def test_weights_that_are_more_than_weights():
    torch.save({"epoch": 3, "weight": torch.zeros(1)}, "run.pt")
    assert refused("torchvision:resnet18@run.pt") == (
        "error[RW504]: `run.pt` holds more than a state_dict\n"
        "  = note: these are no tensors: `epoch`\n"
        "  = help: save the state_dict by itself: torch.save(model.state_dict(), ...)"
    )
    torch.save([1], "list.pt")
    assert (
        refused("torchvision:resnet18@list.pt") == "error[RW504]: `list.pt` holds a value of type list, no state_dict"
    )
    torch.save(small(), "net.pt")
    assert refused("torchvision:resnet18@net.pt").startswith(
        "error[RW502]: `net.pt` needs `torch.nn.modules.activation.ReLU`"
    )


# ---- safetensors


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 3)
        self.right = nn.Linear(3, 3)
        self.right.weight = self.left.weight


def test_tied_tensors_are_stored_once():
    model = Tied()
    write_model(model, check_output("tied.safetensors"))
    from rewrite.saved.safetensors_file import read_safetensors

    found = read_safetensors("tied.safetensors")
    assert found.keys() == model.state_dict().keys()
    assert found["left.weight"] is found["right.weight"]
    other = Tied()
    load_model(other, "tied.safetensors")  # the library's own reader takes it too
    assert same(model, other)


def test_a_view_of_a_part_is_stored_apart():
    model = nn.Linear(3, 3)
    model.register_buffer("row", model.weight.detach()[0])
    write_model(model, check_output("net.safetensors"))
    from rewrite.saved.safetensors_file import read_safetensors

    found = read_safetensors("net.safetensors")
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


def test_tensors_in_another_order_of_memory():
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    write_model(model, check_output("net.safetensors"))
    other = nn.Conv2d(3, 4, 3)
    load_model(other, "net.safetensors")
    assert same(model, other)


def test_a_damaged_safetensors_file():
    save_file({"a": torch.zeros(3)}, "a.safetensors")
    data = Path("a.safetensors").read_bytes()
    Path("a.safetensors").write_bytes(data[:-2])
    assert content_of("a.safetensors") is Content.SAFETENSORS
    assert "error[RW504]: `a.safetensors` cannot be read: SafetensorError: " in refused(
        "torchvision:resnet18@a.safetensors"
    )


def test_a_state_that_is_no_tensor():
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"count": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(SafetyError) as caught:
        write_model(Extra(2, 2), check_output("net.safetensors"))
    assert str(caught.value) == (
        "error[RW506]: `_extra_state` of the state_dict is a dict: safetensors holds tensors only\n"
        "  = help: write a `.pt` file"
    )
    assert os.listdir() == []


# ---- the place that is written


def no_output(name: str, *, force: bool = False) -> str:
    with pytest.raises(SafetyError) as caught:
        check_output(name, force=force)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_places_that_cannot_be_written():
    Path("there.pt").write_bytes(b"old")
    assert no_output("there.pt") == (
        "error[RW503]: output `there.pt` exists and is kept\n  = help: `--force` replaces it"
    )
    assert check_output("there.pt", force=True).form == "whole model, torch.save"
    assert no_output("out.onnx") == (
        "error[RW506]: output `out.onnx` has the form `.onnx`, which is not written\n"
        "  = help: `.pt` and `.pth` hold the whole model, `.safetensors` its weights, `.keras` a model of Keras"
    )
    assert no_output("out") == (
        "error[RW506]: output `out` has a name without a suffix, which is not written\n"
        "  = help: `.pt` and `.pth` hold the whole model, `.safetensors` its weights, `.keras` a model of Keras"
    )
    assert no_output("no/such/out.pt") == (
        "error[RW506]: output `no/such/out.pt` cannot be written: there is no folder `no/such`\n"
        "  = help: `mkdir -p no/such` makes it"
    )
    Path("folder.pt").mkdir()
    assert no_output("folder.pt", force=True) == "error[RW506]: output `folder.pt` cannot be written: it is a folder"
    os.mkfifo("pipe.pt")
    assert no_output("pipe.pt", force=True) == (
        "error[RW506]: output `pipe.pt` cannot be written: it is not a plain file"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written():
    Path("locked").mkdir(mode=0o500)
    assert no_output("locked/out.pt") == (
        "error[RW506]: output `locked/out.pt` cannot be written: its folder `locked` may not be written"
    )


def test_an_old_file_is_replaced_and_keeps_its_mode():
    Path("net.pt").write_bytes(b"old")
    os.chmod("net.pt", 0o640)
    write_model(small(), check_output("net.pt", force=True))
    assert stat.S_IMODE(os.stat("net.pt").st_mode) == 0o640
    assert isinstance(read_model("net.pt"), nn.Module)
    write_model(small(), check_output("net.safetensors"))
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat("net.safetensors").st_mode) == 0o666 & ~umask
    assert sorted(os.listdir()) == ["net.pt", "net.safetensors"]


def test_a_link_is_followed():
    Path("store").mkdir()
    Path("store/net.pt").write_bytes(b"old")
    os.symlink("store/net.pt", "net.pt")
    write_model(small(), check_output("net.pt", force=True))
    assert Path("net.pt").is_symlink()
    assert isinstance(read_model("store/net.pt"), nn.Module)
    assert os.listdir("store") == ["net.pt"]


@pytest.mark.parametrize("step", ["fill", "fsync", "chmod", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(step, monkeypatch):
    Path("net.pt").write_bytes(b"old")
    output = check_output("net.pt", force=True)

    def fill(path: str) -> str:
        Path(path).write_bytes(b"half")
        if step == "fill":
            raise OSError(28, "no space")
        return ""

    def fails(*arguments: object) -> None:
        raise OSError(28, "no space")

    if step != "fill":
        monkeypatch.setattr(os, step, fails)
    with pytest.raises(SafetyError) as caught:
        output.write(fill)
    assert str(caught.value) == "error[RW506]: output `net.pt` cannot be written: no space left on device"
    assert Path("net.pt").read_bytes() == b"old"
    assert os.listdir() == ["net.pt"]


def test_an_interrupt_leaves_nothing():
    def fill(path: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_output("net.pt").write(fill)
    assert os.listdir() == []


def test_a_model_that_cannot_be_pickled():
    model = small()
    model.extra = lambda: None
    with pytest.raises(SafetyError) as caught:
        write_model(model, check_output("net.pt"))
    assert str(caught.value).startswith("error[RW506]: output `net.pt` cannot be written: ")
    assert os.listdir() == []


def test_a_file_that_came_meanwhile_is_kept():
    output = check_output("net.pt")

    def fill(path: str) -> str:
        Path(path).write_bytes(b"new")
        Path("net.pt").write_bytes(b"theirs")
        return ""

    with pytest.raises(SafetyError) as caught:
        output.write(fill)
    assert caught.value.code == "RW503"
    assert Path("net.pt").read_bytes() == b"theirs"
    assert os.listdir() == ["net.pt"]


def test_the_temporary_file_is_recognisable_and_beside_the_place():
    seen = []

    def fill(path: str) -> str:
        seen.append(path)
        return ""

    Output("net.pt", os.path.realpath("net.pt"), ".pt", False).write(fill)
    assert os.path.dirname(seen[0]) == os.getcwd()
    assert os.path.basename(seen[0]) == f".net.pt.{os.getpid()}{TEMPORARY}"


def test_what_was_written_is_read_back_before_the_rename(monkeypatch):
    from rewrite.saved import whole_module

    Path("net.pt").write_bytes(b"old")
    monkeypatch.setattr(whole_module, "_same", lambda left, right: False)
    with pytest.raises(SafetyError) as caught:
        write_model(small(), check_output("net.pt", force=True))
    assert "what was read back differs from what was written" in str(caught.value)
    assert Path("net.pt").read_bytes() == b"old"


def test_what_cannot_be_read_back_is_written_and_said():
    layer = nn.TransformerEncoderLayer(4, 1, 4)  # it holds F.relu, a function
    assert write_model(layer, check_output("net.pt")) == "it needs `torch.nn.functional.relu` to be read"
    assert Path("net.pt").exists()


# ---- torchvision where its compiled part does not load


def test_torchvision_imports_without_its_compiled_part():
    script = (
        "from rewrite.backends.torch import torchvision_schemas\n"
        "torchvision_schemas.declare(); torchvision_schemas.declare()\n"
        "import torchvision\n"
        "torchvision.models.get_model('squeezenet1_1')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=Path(__file__).parent.parent)
