"""Two rule files on every network of `keras.applications`, and what holds of each result.

    python -m benchmarks.keras_applications [VGG16 ResNet50 ...]

What stands where is told by Keras' own configurations, never by the reader of the package; numbers are compared by
their bits. Networks have first weights, ten classes and the smallest images that they take, and are made one at a time.
Ends with 1 if a network that Keras can make is not changed as it should be.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import math
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported

import keras
import numpy as np

from benchmarks.timing import machine, table
from rewrite import apply_rules, get_report

RULES = Path(__file__).parent.parent / "docs" / "rules"
CLASSES = 10
SIZES = (32, 71, 75)
"""of images, tried in this order: no network of `keras.applications` needs a larger one"""
STEPS = 5
OUT = ":out"
"""stands for the end of a model where the users of values are listed"""


# ---- the rules, and what should stand behind a layer afterwards


@dataclass(frozen=True)
class Task:
    """A rule file, and what it should make of a layer."""

    file: str
    inserted: str
    """the new layer, as `label` has it"""
    behind: Callable[[str, Mapping[str, Any]], list[str]]
    """class and configuration of a layer of the given model -> what should newly stand behind it, in order"""
    keeps_numbers: bool = False
    """whether the same numbers come out in inference"""

    @property
    def path(self) -> Path:
        return RULES / self.file


def activation_of(config: Mapping[str, Any]) -> str:
    """The activation that a layer applies, by its name; empty: none."""
    name = config.get("activation") or "linear"
    return "" if name == "linear" else str(name)


def behind_convolutions(kind: str, config: Mapping[str, Any]) -> list[str]:
    """A normalisation, then the activation that was the convolution's own."""
    if kind not in ("Conv2D", "DepthwiseConv2D"):
        return []
    own = activation_of(config)
    return ["BatchNormalization", *([f"Activation {own}"] if own else [])]


def behind_activations(kind: str, config: Mapping[str, Any]) -> list[str]:
    """A dropout, also where the activation is the layer's own. A softmax is no activation here."""
    own = activation_of(config)
    acts = own != "softmax" if own else kind in ("ReLU", "LeakyReLU", "PReLU", "ELU")
    return ["Dropout 0.01"] if acts else []


TASKS = (
    Task("batchnorm_after_conv.rw", "BatchNormalization", behind_convolutions),
    Task("dropout_after_activations.rw", "Dropout 0.01", behind_activations, keeps_numbers=True),
)


# ---- what a model is, told by Keras


@dataclass(frozen=True)
class Entry:
    """A layer as the configuration of its model states it."""

    kind: str
    config: Mapping[str, Any]
    calls: tuple[tuple[str, ...], ...]
    """for each call, the layers whose values it takes"""

    @property
    def label(self) -> str:
        """The class, and the argument that tells two of it apart."""
        detail = {"Activation": "activation", "Dropout": "rate"}.get(self.kind)
        return f"{self.kind} {self.config[detail]}" if detail else self.kind


def entries(config: Mapping[str, Any], path: str = "") -> dict[str, Entry]:
    """Every layer by its path, nested models' layers too, and for each model an entry for where it ends."""
    found: dict[str, Entry] = {}
    last = ""
    for layer in config["layers"]:
        name = path + layer["config"]["name"]
        nodes = layer.get("inbound_nodes")
        if nodes is None:  # a Sequential is a chain
            calls: tuple[tuple[str, ...], ...] = ((last,),) if last else ()
        else:
            calls = tuple(tuple(path + source for source in sources(node)) for node in nodes)
        found[name] = Entry(layer["class_name"], layer["config"], calls)
        if "layers" in layer["config"]:
            found |= entries(layer["config"], f"{name}/")
        last = name
    ends = keras.tree.flatten(config["output_layers"])[::3] if "output_layers" in config else [last]
    found[path + OUT] = Entry(OUT, {}, (tuple(path + end.removeprefix(path) for end in ends),))
    return found


def sources(value: Any) -> Iterator[str]:
    """Names of the layers whose values stand in the serialized arguments of a call, in order."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]["keras_history"][0]
            return
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from sources(item)


def expected_sites(model: Any, task: Task) -> int:
    """How many places the rule has, counted in the configuration."""
    return sum(
        len(entry.calls) * (task.inserted in task.behind(entry.kind, entry.config))
        for entry in entries(model.get_config()).values()
    )


def prints(model: Any, path: str = "") -> dict[str, str]:
    """Path of a layer and number of a variable in it -> a digest of its bits. Keras' own paths change in a file."""
    found: dict[str, str] = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= prints(layer, f"{path}{layer.name}/")
        else:
            found |= {f"{path}{layer.name}/{number}": digest(value) for number, value in enumerate(layer.weights)}
    return found


def digest(variable: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data).hexdigest()


# ---- what should hold


def is_placed(before: Mapping[str, Entry], after: Mapping[str, Entry], task: Task) -> bool:
    """Behind each layer stands what should, and nothing else is new; an activation stands there or is the layer's."""
    users: dict[str, list[str]] = {}
    for name, entry in after.items():
        for call in entry.calls:
            for source in call:
                users.setdefault(source, []).append(name)
    found = 0
    for name, entry in before.items():
        chain = []
        place = name
        while len(users.get(place, ())) == 1 and users[place][0] not in before:
            place = users[place][0]
            chain.append(after[place].label)
        own = activation_of(entry.config)
        kept = "" if f"Activation {own}" in chain else own
        if chain != task.behind(entry.kind, entry.config) or activation_of(after[name].config) != kept:
            return False
        found += len(chain)
    return found == len(after.keys() - before.keys())


def is_wired(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> bool:
    """With the new layers taken out again, every layer takes the values that it took."""

    def origin(name: str) -> str:
        while name not in before:
            ((name,),) = after[name].calls
        return name

    return all(
        [[origin(source) for source in call] for call in after[name].calls] == [list(call) for call in entry.calls]
        for name, entry in before.items()
    )


def run(model: Any, image: Any) -> Any:
    """What a model computes, in inference."""
    return keras.ops.convert_to_numpy(model(image, training=False))


class Fact(NamedTuple):
    """Something that should hold of a changed model."""

    name: str
    holds: bool
    note: str = ""
    """what is not as one would have it, though not by the rules"""


KERAS_OWN = "the given model's loss is not finite either"
DEEP = "Keras loads a file of so many layers only with a higher sys.setrecursionlimit"


def survives_a_file(model: Any, image: Any) -> Fact:
    """The model comes out of a `.keras` file with its weights, and computes what it computed."""
    note = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        try:
            loaded = keras.saving.load_model(path)
        except RecursionError:
            note, limit = DEEP, sys.getrecursionlimit()
            sys.setrecursionlimit(10 * limit)
            try:
                loaded = keras.saving.load_model(path)
            finally:
                sys.setrecursionlimit(limit)
    return Fact("file", prints(loaded) == prints(model) and np.array_equal(run(loaded, image), run(model, image)), note)


def train(model: Any, image: Any) -> tuple[bool, bool]:
    """Some steps of gradient descent: whether every loss is finite, and whether a weight has moved."""
    had = prints(model)
    wanted = np.eye(CLASSES, dtype="float32")[: len(image)]
    # Gradients are clipped: without that, two images and first weights make some networks diverge as Keras made them.
    # And step by step: compiling a network of a thousand layers takes JAX longer than the steps.
    optimizer = keras.optimizers.SGD(1e-3, global_clipnorm=1.0)
    model.compile(optimizer, "categorical_crossentropy", run_eagerly=True)
    losses = [float(np.ravel(model.train_on_batch(image, wanted))[0]) for _ in range(STEPS)]
    return all(map(math.isfinite, losses)), prints(model) != had


def twin(model: Any) -> Any:
    """The model as it is, with variables of its own; rewrite has no part in it."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    assert prints(copied) == prints(model), "a twin has the same weights"
    return copied


def facts(model: Any, result: Any, task: Task, image: Any) -> Iterator[Fact]:
    """What should hold of a changed model, and whether it does; at the end it is trained."""
    before, after = entries(model.get_config()), entries(result.get_config())
    own, now = prints(model), prints(result)
    yield Fact("class", type(result) is type(model))
    names = [model.output_names, [tensor.name for tensor in model.inputs]]
    yield Fact("names", names == [result.output_names, [tensor.name for tensor in result.inputs]])
    yield Fact("layers", before.keys() <= after.keys())
    yield Fact("placed", is_placed(before, after, task))
    yield Fact("wired", before.keys() <= after.keys() and is_wired(before, after))
    yield Fact("shape", result.output_shape == model.output_shape)
    yield Fact("weights", all(now.get(key) == bits for key, bits in own.items()))
    one, other = run(model, image), run(result, image)
    yield Fact("finite outputs", one.shape == other.shape and bool(np.isfinite(other).all()))
    if task.keeps_numbers:
        yield Fact("numbers", bool(np.allclose(one, other, rtol=1e-4, atol=1e-5)))
    yield survives_a_file(result, image)
    finite, moved = train(result, image)
    yield Fact("given model", prints(model) == own and entries(model.get_config()) == before)
    yield Fact("weights move", moved)
    excused = not finite and not train(twin(model), image)[0]
    yield Fact("finite losses", finite or excused, KERAS_OWN if excused else "")


# ---- all of them


@dataclass(frozen=True)
class Outcome:
    """One rule file on one network."""

    file: str
    sites: int
    expected: int
    seconds: float
    broken: tuple[str, ...]
    """facts that do not hold, or what was raised"""
    notes: tuple[str, ...] = ()
    """what is not as one would have it, and is so without the rules"""


def applications() -> list[str]:
    """The networks of `keras.applications`, by name."""
    return [name for name in dir(keras.applications) if name[0].isupper()]


def build(name: str) -> Any:
    """A network with first weights, for the smallest images that it takes.

    Raises:
        ValueError: Keras does not make it, in Keras' words.

    """
    keras.utils.set_random_seed(0)
    for size in SIZES:
        try:
            return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=CLASSES)
        except ValueError:
            if size == SIZES[-1]:
                raise
    raise AssertionError("the last size either builds or raises")


def image_for(model: Any) -> Any:
    """Two images of noise."""
    size = model.input_shape[1]
    return np.random.default_rng(0).random((2, size, size, 3), dtype="float32")


def examine(model: Any, task: Task) -> Outcome:
    """Applies a rule file and checks what should hold."""
    expected, sites = expected_sites(model, task), 0
    start = time.perf_counter()
    seconds = math.nan
    notes: list[str] = []
    try:
        result = apply_rules(model, task.path)
        seconds = time.perf_counter() - start
        report = get_report(result)
        assert report is not None, "just made"
        sites = report.sites
        broken = [] if sites == expected else ["sites"]
        for fact in facts(model, result, task, image_for(model)):
            broken += [] if fact.holds else [fact.name]
            notes += [fact.note] if fact.note else []
    except Exception as problem:  # whatever it is, the other networks are to be seen
        where = traceback.extract_tb(problem.__traceback__)[-1]
        broken = [f"{type(problem).__name__} ({Path(where.filename).name}:{where.lineno}): {problem}"]
    return Outcome(task.file, sites, expected, seconds, tuple(broken), tuple(notes))


def free() -> None:
    """Gives back the memory of models that are no longer used."""
    keras.backend.clear_session()
    gc.collect()


def main(argv: list[str] | None = None) -> int:
    """Prints a line for each network and rule file, and how many are as they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of keras.applications")
    names = parser.parse_args(argv).names or applications()
    warnings.simplefilter("ignore")  # Keras' own, of numpy and of saving
    print("Rule files on the networks of keras.applications.\n")
    print(f"{machine()}; Keras {keras.__version__} on {keras.backend.backend()}\n")
    rows: list[list[str]] = []
    wrong: list[str] = []
    noted: list[str] = []
    missing: list[str] = []
    for name in names:
        start = time.perf_counter()
        try:
            model = build(name)
        except ValueError as problem:
            missing.append(f"{name}: {problem}")
            continue
        built = time.perf_counter() - start
        for task in TASKS:
            outcome = examine(model, task)
            verdict = "BROKEN" if outcome.broken else "noted" if outcome.notes else "holds"
            wrong += [f"{name}, {outcome.file}: {', '.join(outcome.broken)}"] if outcome.broken else []
            noted += [f"{name}, {outcome.file}: {note}" for note in outcome.notes]
            rows.append(
                [
                    name,
                    outcome.file.removesuffix(".rw"),
                    f"{model.input_shape[1]}",
                    f"{model.count_params() / 1e6:.1f} M",
                    f"{len(model.layers)}",
                    f"{outcome.expected}",
                    f"{outcome.sites}",
                    f"{built:.1f} s",
                    f"{outcome.seconds:.1f} s",
                    verdict,
                ]
            )
            print(f"... {name}, {outcome.file}: {verdict}", file=sys.stderr)
            free()
        del model
        free()
    header = [
        "network",
        "rule file",
        "image",
        "numbers",
        "layers",
        "counted",
        "sites",
        "made",
        "rewritten",
        "all facts",
    ]
    print(table(header, rows))
    print(f"\n{len(rows) - len(wrong)} of {len(rows)} as they should be, on {len(rows) // len(TASKS)} networks")
    print(f"not made by Keras: {len(missing)}", *missing, sep="\n  ")
    if noted:
        print(f"by Keras alone, and not counted as wrong: {len(noted)}", *noted, sep="\n  ")
    if wrong:
        print("not as they should be:", *wrong, sep="\n  ")
    print("\ncounted    places of the rule in Keras' own configuration of the given model")
    print("made       seconds that Keras took for the given model; rewritten: from rule file to checked model")
    print("all facts  class, names of inputs, outputs and layers; what stands behind each layer, and that nothing else")
    print("           has changed its place; output shape; weights bit by bit; finite outputs, the same ones behind")
    print(f"           Dropout; a .keras file and back; the given model as it was; {STEPS} steps of training that move")
    print("           weights, with finite losses; noted: something is not so, but by Keras alone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
