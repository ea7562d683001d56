"""`.keras` files: a zip of a configuration in JSON, and weights in HDF5.

What Keras keeps of a model in memory and not in a file (the names of its outputs, and what is frozen inside of a layer
that makes its own layers) and what rewrite knows of it (the rules that were applied) stands in the metadata of the file
under a key of ours, which Keras passes over.

The configuration decides what is imported and called when Keras loads the file, so it is read here first, by a JSON
parser and nothing else: every class that it names must be on a list. Only then is Keras imported, and it is handed a
private copy that holds what was checked, no byte more.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rewrite.errors import Diagnostic, RewriteError
from rewrite.saved import unreadable
from rewrite.saved.content import damaged
from rewrite.saved.keras_classes import ALLOWED, MARKERS
from rewrite.saved.output import reason

if TYPE_CHECKING:
    import keras

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MEMBERS = frozenset([_CONFIG, _METADATA, _WEIGHTS])
_MOST_TEXT = 64 << 20
"""bytes of a configuration"""
_MOST_LAYERS = 20_000
"""layers and operations that a configuration may hold, each of which is built"""
_SLACK = 1 << 16
"""numbers of weights that a layer makes and keeps out of the file"""
_ALTERED = "rewrite>Altered"
"""how a class of the user's is registered when layers in its code were changed"""
_OURS = "rewrite"
"""key of the metadata"""
_WOKEN = "_rewrite_woken"
_SHOWN = 3
"""layers that a note names"""
_MOST_RATIO = 100
"""how many bytes one byte of the archive may become"""
_MOST_SIZE = 1 << 31
"""the largest number that a configuration may hold: a size beyond it is a slip, or meant to fill the memory"""


def read_keras(path: str, *, allow: Sequence[str] = ()) -> keras.Model:
    """The model in the file at `path`; it is not compiled.

    Args:
        path: a file that `model.save("x.keras")` wrote.
        allow: dotted names of classes of the user's own that may be in it.

    Raises:
        SafetyError: RW502 it holds code or a class that is not known, RW504 it is damaged, or Keras is missing.

    """
    model, ours = _loaded(path, allow)
    _remember(model, ours)
    return model


def _loaded(path: str, allow: Sequence[str]) -> tuple[keras.Model, dict[str, list[str]]]:
    """The model as Keras loads it, and what rewrite has written down of it."""
    config, metadata, weights = _contents(path)
    custom = _check(path, config, frozenset(allow))
    ours = _ours(path, metadata)
    held = _check_weights(path, weights)
    os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported
    try:
        import keras
    except ImportError as error:
        raise unreadable(
            f"`{path}` is a Keras model, and Keras is missing", help="pip install keras"
        ).error() from error
    from rewrite.backends.keras.depth import room_for
    from rewrite.saved.allowed import user_class

    classes: dict[str, Any] = {}
    for name in sorted(custom):
        found = user_class(name)
        classes[name.rpartition(".")[2]] = found
    if any(".own_layers." in text for text in _named(config)) or _ALTERED in _registered(config):
        import rewrite.backends.keras.own_layers  # noqa: F401  (registers its class)
    folder = tempfile.mkdtemp()
    try:
        copy = os.path.join(folder, "model.keras")
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr(_CONFIG, json.dumps({k: v for k, v in config.items() if k != "compile_config"}))
            archive.writestr(_METADATA, json.dumps(metadata))
            archive.writestr(_WEIGHTS, weights)
        with _at_most(held, path), room_for(_MOST_LAYERS), warnings.catch_warnings():
            # Keras warns of classes that leave it to their first call to build their layers.
            warnings.filterwarnings("ignore", r"`build\(\)` was called on layer", UserWarning)
            model: keras.Model = keras.saving.load_model(copy, custom_objects=classes, compile=False, safe_mode=True)
    except RewriteError:
        raise
    except Exception as error:  # Keras has many, for one thing: the file does not hold what it says
        raise damaged(path, reason(error)).error() from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return model, ours


def _remember(model: keras.Model, ours: Mapping[str, list[str]]) -> None:
    from rewrite.backends import backend_for

    backend_for(model).set_history(model, tuple(ours["history"]))
    names = ours["output_names"]
    if names and len(names) == len(getattr(model, "output_names", ())):
        model.output_names = names
    _freeze(model, ours["frozen"])


@contextlib.contextmanager
def _at_most(numbers: int, path: str) -> Iterator[None]:
    """Lets layers make no more weights than the file holds numbers for: none is made in vain, none fills the memory.

    Raises:
        SafetyError: RW504, before the memory for it is asked for.

    """
    import keras

    left = numbers + _SLACK
    original = keras.Layer.add_weight

    def add_weight(layer: Any, shape: Any = None, *args: Any, **options: Any) -> Any:
        nonlocal left
        sizes = (shape,) if isinstance(shape, int) else tuple(shape or ())
        left -= math.prod(int(size) for size in sizes if size is not None)
        if left < 0:
            text = f"a weight of its layer `{layer.name}` has the shape {sizes}; it holds {numbers:,} numbers in all"
            refusals.append(damaged(path, text).error())
            raise refusals[0]
        return original(layer, shape, *args, **options)

    refusals: list[RewriteError] = []
    keras.Layer.add_weight = add_weight
    try:
        yield
    except Exception:
        if refusals:  # on its way here Keras may have made another exception of it
            raise refusals[0] from None
        raise
    finally:
        keras.Layer.add_weight = original


def write_keras(model: keras.Model, path: str, *, allow: Sequence[str] = ()) -> str:
    """Writes `model` to `path` and reads it back.

    Returns:
        Why it could not be read back; empty: it was, and is the same.

    Raises:
        SafetyError: RW504 the file does not hold what was written.

    """
    folder = tempfile.mkdtemp()
    try:
        copy = os.path.join(folder, "model.keras")
        model.save(copy)
        _add_ours(model, copy)
        shutil.copyfile(copy, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        again, _ = _loaded(path, allow)
    except RewriteError as error:
        if error.code != "RW502":
            raise
        return error.diagnostics[0].message.replace(f"`{path}`", "it")
    if not _alike(model, again):
        raise damaged(path, "what was read back differs from what was written").error()
    model.__dict__[_WOKEN] = _woken(model, again)
    return ""


def woken(model: keras.Model) -> str:
    """What Keras lets learn in the file that was written last, and is frozen in the model; else empty."""
    paths = model.__dict__.get(_WOKEN, [])
    if not paths:
        return ""
    shown = ", ".join(f"`{path}`" for path in paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return (
        f"where Keras loads the file, {shown}{more} learn, which are frozen here: a file has the flags of layers that "
        "stand in a graph only; set `trainable = False` there again in front of `compile` (rewrite does so itself)"
    )


def _woken(model: keras.Model, again: keras.Model) -> list[str]:
    """Paths of the layers with parameters that learn in `again` and not in `model`, which are alike otherwise."""
    from rewrite.backends.keras.reader import children_of, walk

    awake = {id(was) for was, now in zip(model.weights, again.weights, strict=True) if now.trainable > was.trainable}
    return [
        path
        for path, layer in walk(model)
        if any(id(v) in awake for v in (layer._trainable_variables if children_of(layer) else layer.weights))
    ]


def _frozen(model: keras.Model) -> list[str]:
    """What does not learn: numbers of layers among all, `3-7`, and of variables among those of a layer, `3.0`."""
    layers = list(enumerate(model._flatten_layers()))
    still = [number for number, layer in layers if not layer.trainable]
    runs: list[list[int]] = []
    for number in still:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first}-{last}" for first, last in runs] + [
        f"{number}.{place}"
        for number, layer in layers
        if layer.trainable
        for place, variable in enumerate(layer._trainable_variables)
        if not variable.trainable
    ]


def _freeze(model: keras.Model, frozen: Sequence[str]) -> None:
    """Sets the flags that `_frozen` has told, from the outside in: a flag is handed on to what lies inside."""
    if not frozen:
        return
    runs = [tuple(map(int, text.split("-"))) for text in frozen if "-" in text]
    for number, layer in enumerate(model._flatten_layers()):
        layer.trainable = not any(first <= number <= last for first, last in runs)
    for number, layer in enumerate(model._flatten_layers()):
        for place, variable in enumerate(layer._trainable_variables):
            if f"{number}.{place}" in frozen:
                variable.trainable = False


def renamed_outputs(model: keras.Model) -> str:
    """What Keras calls the outputs of a model once it has loaded it from a file, where that differs; else empty."""
    names = list(getattr(model, "output_names", ()))
    theirs = [tensor._keras_history.operation.name for tensor in model.outputs] if names else []
    if names == theirs:
        return ""
    pairs = ", ".join(f"`{name}` is `{other}`" for name, other in zip(names, theirs, strict=True) if name != other)
    return (
        f"where Keras loads the file, an output has the name of its last layer: {pairs}; losses by name need "
        f"`model.output_names = {names}` in front of `compile` (rewrite does so itself)"
    )


def _add_ours(model: keras.Model, path: str) -> None:
    """Writes what Keras leaves out into the metadata of a file of ours."""
    from rewrite.backends import backend_for

    history = list(backend_for(model).history(model))
    names = list(getattr(model, "output_names", ()))
    ours = {"history": history, "output_names": names, "frozen": _frozen(model)}
    whole = f"{path}.whole"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(whole, "w") as new:
        for member in old.infolist():
            if member.filename == _METADATA:
                new.writestr(member, json.dumps({**json.loads(old.read(member)), _OURS: ours}))
                continue
            with old.open(member) as source, new.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
    os.replace(whole, path)


def _ours(path: str, metadata: Mapping[str, Any]) -> dict[str, list[str]]:
    """What an earlier `rewrite apply` wrote down, as far as it is what that writes."""
    found = metadata.get(_OURS, {})
    if not isinstance(found, dict):
        raise damaged(path, "its metadata is not as it was written").error()
    ours = {key: found.get(key, []) for key in ("history", "output_names", "frozen")}
    for texts in ours.values():
        if not isinstance(texts, list) or len(texts) > 10_000:
            raise damaged(path, "its metadata is not as it was written").error()
        if not all(isinstance(text, str) and len(text) <= 200 and text.isprintable() for text in texts):
            raise damaged(path, "its metadata is not as it was written").error()
    if not all(re.fullmatch(r"\d+[-.]\d+", text, re.ASCII) for text in ours["frozen"]):
        raise damaged(path, "its metadata is not as it was written").error()
    return ours


def _alike(model: keras.Model, again: keras.Model) -> bool:
    import keras

    pairs = [
        (keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
        for a, b in zip(model.weights, again.weights, strict=False)
    ]
    return len(model.weights) == len(again.weights) and all(
        a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


# ---- the archive


def _contents(path: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Configuration, metadata and the bytes of the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) != len(names):
                raise damaged(path, "two members of the archive have one name").error()
            if odd := sorted(set(names) - _MEMBERS):
                raise Diagnostic(
                    "RW502",
                    f"`{path}` holds `{odd[0]}`, which is no part of a model without code",
                    notes=(f"read are {', '.join(sorted(_MEMBERS))}",),
                    help="load it in a program of yours that trusts it, and save it again",
                ).error()
            if missing := sorted(_MEMBERS - set(names)):
                raise damaged(path, f"it has no `{missing[0]}`").error()
            size = os.path.getsize(path)
            for member in members:
                most = _MOST_TEXT if member.filename != _WEIGHTS else _MOST_RATIO * size
                if member.file_size > most or member.file_size > max(_MOST_RATIO * member.compress_size, 1 << 20):
                    raise damaged(
                        path, f"its member `{member.filename}` says that it is {member.file_size:,} bytes"
                    ).error()
            # Read through the size that was stated: zipfile stops there, and checks the sum.
            texts = {name: archive.read(name) for name in names}
        return _json(path, texts[_CONFIG]), _json(path, texts[_METADATA]), texts[_WEIGHTS]
    except RewriteError:
        raise
    except Exception as error:  # zipfile and json have classes for some kinds of damage, and none for others
        raise damaged(path, reason(error)).error() from error


def _json(path: str, text: bytes) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise damaged(path, "an entry of its configuration is there twice").error()
        return found

    value = json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
    if not isinstance(value, dict):
        raise damaged(path, "its configuration is no table").error()
    return value


# ---- what the configuration names


def _walk(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Every value in a configuration with its place; without recursion, since a file may nest without an end."""
    pending = [(place, value)]
    while pending:
        where, found = pending.pop()
        yield where, found
        if isinstance(found, dict):
            pending += [(f"{where}.{key}" if where else str(key), item) for key, item in found.items()]
        elif isinstance(found, list):
            pending += [(f"{where}[{number}]", item) for number, item in enumerate(found)]


def _named(config: Mapping[str, Any]) -> list[str]:
    return [_class_of(item) for _, item in _walk(config) if isinstance(item, dict) and "class_name" in item]


def _registered(config: Mapping[str, Any]) -> set[str]:
    return {str(item.get("registered_name")) for _, item in _walk(config) if isinstance(item, dict)}


def _class_of(item: Mapping[str, Any]) -> str:
    module, name = item.get("module"), item.get("class_name")
    return f"{module}.{name}" if module else str(name)


def _check(path: str, config: Mapping[str, Any], allow: frozenset[str]) -> set[str]:
    """The classes of the user's own that are in a configuration, all of them allowed.

    Raises:
        SafetyError: it names something else (RW502), or a size that no model has (RW504).

    """
    custom: set[str] = set()
    kept = {key: value for key, value in config.items() if key != "compile_config"}
    number = 0
    for place, item in _walk(kept):
        if isinstance(item, int) and abs(item) > _MOST_SIZE and not place.endswith(".shared_object_id"):
            raise damaged(path, f"`{place}` of its configuration is {item:,}").error()
        if not isinstance(item, dict) or not {"class_name", "module", "registered_name"} & item.keys():
            continue
        name = _class_of(item)
        number += name.startswith(("keras.layers.", "keras.src.ops."))
        if number > _MOST_LAYERS:
            raise damaged(path, f"its configuration has more than {_MOST_LAYERS:,} layers").error()
        if name in ALLOWED or (name in MARKERS and not item.get("module")):
            continue
        if name in allow:
            custom.add(name)
            continue
        raise _refused(path, name, place, item)
    return custom


def _refused(path: str, name: str, place: str, item: Mapping[str, Any]) -> Exception:
    runs_code = item.get("class_name") in ("Lambda", "__lambda__", "function", "TFSMLayer", "TorchModuleWrapper")
    what = "code" if runs_code else "a class that is not known"
    helps = "load it in a program of yours that trusts it, and save it again without"
    if not runs_code and item.get("module") and not str(item["module"]).startswith("keras"):
        helps = f"`--allow {name}` imports the class and lets the file use it"
    return Diagnostic(
        "RW502",
        f"`{path}` holds {what}: `{name}`",
        notes=(f"at `{place or 'the root'}` of its configuration", "nothing of it was imported or run"),
        help=helps,
    ).error()


# ---- the weights


def _check_weights(path: str, weights: bytes) -> int:
    """Looks through an HDF5 file for what reaches outside of it, or claims to be larger than it can be.

    Returns:
        How many numbers it holds.

    """
    try:
        import h5py
    except ImportError:  # Keras brings it: without it there is no Keras either
        return 0
    total = numbers = 0

    def visit(group: Any) -> None:
        nonlocal total, numbers
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise damaged(path, f"`{name}` of its weights is a link to somewhere else").error()
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item)
                continue
            if item.external or item.is_virtual:
                raise damaged(path, f"`{name}` of its weights lies in another file").error()
            numbers += item.size
            total += item.size * item.dtype.itemsize
            if total > _MOST_RATIO * len(weights) + (1 << 20):
                raise damaged(path, f"`{name}` of its weights is larger than the file can hold").error()

    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            visit(file)
    except RewriteError:
        raise
    except Exception as error:
        raise damaged(path, reason(error)).error() from error
    return numbers
