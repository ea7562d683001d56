"""BatchNorm behind every convolution of a Keras model: by a rule file, by `clone_model`, and by a loop over layers.

    python -m benchmarks.keras_rebuild [--rounds 7] [VGG16 MobileNet ResNet50 ...]

All three give a model of its own, with the weights of the given one. What was made is compared layer by layer. Ends
with 1 if two of the results differ, or `clone_model` gives none.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported

import keras
import numpy as np

from benchmarks.timing import interleave, machine, table
from rewrite import apply_rules

RULES = Path(__file__).parent.parent / "docs" / "rules" / "batchnorm_after_conv.rw"
MODELS = ("VGG16", "MobileNet", "ResNet50")
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def by_rules(model: Any) -> Any:
    """The whole of `apply_rules`: parse, read, match, plan, write, verify, report."""
    return apply_rules(model, RULES)


def without_activation(layer: Any) -> Any:
    """The layer anew; a convolution without the activation that it applies."""
    config = layer.get_config()
    if isinstance(layer, CONVOLUTIONS):
        config["activation"] = None
    return type(layer).from_config(config)


def normalised(given: Any, x: Any) -> Any:
    """What is put behind a convolution: a normalisation, then the activation that the convolution applied."""
    x = keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{given.name}_new_bn")(x)
    if given.activation is not keras.activations.linear:
        x = keras.layers.Activation(given.activation, name=f"{given.name}_new_act")(x)
    return x


def with_weights(result: Any, model: Any) -> Any:
    """The result, with the weights of the given model."""
    for layer in model.layers:
        if layer.weights:  # inputs have other names in a copy
            result.get_layer(layer.name).set_weights(layer.get_weights())
    return result


def by_clone(model: Any) -> Any:
    """`keras.models.clone_model`, which keeps the wiring, with two functions of ours."""

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        x = layer(*args, **kwargs)
        return normalised(model.get_layer(layer.name), x) if isinstance(layer, CONVOLUTIONS) else x

    return with_weights(keras.models.clone_model(model, None, without_activation, called), model)


def by_loop(model: Any) -> Any:
    """One layer behind the other, as it is often written; it knows no branches."""
    image = x = keras.Input(model.input_shape[1:])
    for layer in model.layers[1:]:
        x = without_activation(layer)(x)
        if isinstance(layer, CONVOLUTIONS):
            x = normalised(layer, x)
    return with_weights(keras.Model(image, x), model)


APPROACHES: dict[str, Callable[[Any], Any]] = {"clone": by_clone, "rewrite": by_rules, "loop": by_loop}


def kinds(model: Any) -> list[str]:
    """The classes of the layers, in order."""
    return [type(layer).__name__ for layer in model.layers]


def normalisations(model: Any) -> int:
    return kinds(model).count("BatchNormalization")


def same(one: Any, other: Any, image: Any) -> bool:
    """The same layers, as many numbers, and the same output for an image."""
    outputs = [keras.ops.convert_to_numpy(model(image, training=False)) for model in (one, other)]
    return (
        sorted(kinds(one)) == sorted(kinds(other))
        and one.count_params() == other.count_params()
        and bool(np.allclose(*outputs, rtol=1e-4, atol=1e-6))
    )


@dataclass(frozen=True)
class Measured:
    """One network."""

    row: list[str]
    refused: dict[str, str]
    """approach -> what was raised"""
    differing: list[str]
    """approaches that give another model than `apply_rules`"""


def measure(name: str, rounds: int) -> Measured:
    """Makes a network in each way, compares what was made, and times it."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None)
    image = np.random.default_rng(0).random((1, *model.input_shape[1:]), dtype="float32")
    wanted = by_rules(model)
    norms, refused, differing = {"rewrite": str(normalisations(wanted))}, {}, []
    for approach in ("clone", "loop"):
        norms[approach] = "-"
        try:
            result = APPROACHES[approach](model)
        except Exception as problem:  # whatever Keras raises is what is to be told
            refused[approach] = f"{type(problem).__name__}: {' '.join(str(problem).split())[:120]}"
        else:
            norms[approach] = str(normalisations(result))
            differing += [] if same(result, wanted, image) else [approach]
            del result
    del wanted
    able = {key: partial(make, model) for key, make in APPROACHES.items() if key not in refused}
    timings = interleave(able, rounds)
    base = timings.get("clone", timings["rewrite"])
    row = [
        name,
        f"{model.count_params() / 1e6:.1f} M",
        f"{len(model.layers)}",
        f"{base.median:.2f} s",
        *(f"{timings[key].ratio(base):.2f}" if key in timings else "-" for key in ("loop", "rewrite")),
        f"{max(timing.spread for timing in timings.values()):.0%}",
        f"{normalisations(model)}",
        *(norms[key] for key in ("clone", "loop", "rewrite")),
    ]
    return Measured(row, refused, differing)


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds per model (default: 7)")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # Keras' own, of numpy

    print("BatchNorm behind every convolution of networks of keras.applications, their activations behind that.\n")
    print(f"{machine()}; Keras {keras.__version__} on {keras.backend.backend()}")
    print(f"{options.rounds} interleaved rounds, medians; garbage collected before and held during each run\n")
    names = options.models or MODELS
    measured = {name: measure(name, options.rounds) for name in names}
    header = ["network", "numbers", "layers", "clone", "loop", "rewrite", "spread", "norms", "clone", "loop", "rewrite"]
    print(table(header, [found.row for found in measured.values()]), end="\n\n")
    for name, found in measured.items():
        for approach, raised in found.refused.items():
            print(f"{name}: no model by the {approach}; {raised}\n")
        for approach in found.differing:
            print(f"{name}: the {approach} gives another model than rewrite\n")
    print("clone      keras.models.clone_model with a clone_function and a call_function, then weights; seconds")
    print("loop       a Functional made anew, layer behind layer, then weights; as a ratio to clone")
    print("rewrite    apply_rules(model, rules), everything from rule file to checked model; as a ratio to clone")
    print("spread     half the distance from fastest to slowest round, by the median; the largest of the row")
    print("norms      BatchNormalizations of the given model, then those of each result")
    # Only the loop may fail: it is shown here that it knows no branches.
    wrong = any(found.differing or found.refused.keys() - {"loop"} for found in measured.values())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
