"""One rule file on the VGG16 of torchvision and on the VGG16 of Keras: the two plans, and what both results run.

    python -m benchmarks.both_frameworks [--image 224]

What is run is seen by hooks of PyTorch and of Keras, not told by the reader of the package. Then the Keras result is
given the kernels of the PyTorch one, and both compute feature maps of the same images in training mode, where a
normalisation on the wrong side of an activation gives other numbers. Ends with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported

import keras
import numpy as np
import torch
from torch import nn

from benchmarks.timing import table
from rewrite import apply_rules, plan_rules
from rewrite.backends.torch import torchvision_schemas
from rewrite.report import Site

torchvision_schemas.declare()

import torchvision  # noqa: E402  (some builds need the schemas first)

RULES = Path(__file__).parent.parent / "docs" / "rules" / "batchnorm_after_conv.rw"
CLOSE = 1e-3
"""how far feature maps may lie apart, as a share of the largest number in them"""
IN_PYTORCH = {
    "Conv2D": "Conv2d",
    "BatchNormalization": "BatchNorm2d",
    "relu": "ReLU",
    "softmax": "Softmax",
    "MaxPooling2D": "MaxPool2d",
    "Dense": "Linear",
}
"""a class or an activation of Keras -> what PyTorch calls it"""


@dataclass(frozen=True)
class Ran:
    """An operation that was carried out, by its name in PyTorch, and the channels that came out."""

    operation: str
    channels: int

    def __str__(self) -> str:
        return f"{self.operation} {self.channels}"


def ran_in_torch(model: nn.Module, image: int) -> list[Ran]:
    """The layers of a PyTorch model in the order in which they are called. Nothing is computed."""
    found: list[Ran] = []

    def hook(layer: nn.Module, _: object, output: Any) -> None:
        found.append(Ran(type(layer).__name__, output.shape[1]))

    with ExitStack() as hooks:
        for layer in model.modules():
            if not any(True for _ in layer.children()):
                hooks.callback(layer.register_forward_hook(hook).remove)
        model.eval()(torch.empty(1, 3, image, image, device=next(model.parameters()).device))
    return found


def ran_in_keras(model: Any, image: int) -> list[Ran]:
    """The layers of a Keras model, and the activations that they apply, in the order in which they are called."""
    found: list[Ran] = []
    call = keras.layers.Layer.__call__

    def watched_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = call(layer, *args, **kwargs)
        if type(layer).__name__ in IN_PYTORCH and not own_activation(layer):
            found.append(Ran(IN_PYTORCH[type(layer).__name__], output.shape[-1]))
        return output

    def watched_activation(layer: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        def apply(x: Any, *args: Any, **kwargs: Any) -> Any:
            if type(layer).__name__ in IN_PYTORCH:  # the layer's own work is done before its activation is called
                found.append(Ran(IN_PYTORCH[type(layer).__name__], x.shape[-1]))
            output = function(x, *args, **kwargs)
            found.append(Ran(IN_PYTORCH[function.__name__], output.shape[-1]))
            return output

        return apply

    with ExitStack() as hooks:
        for layer in model.layers:
            if own_activation(layer):
                hooks.enter_context(mock.patch.object(layer, "activation", watched_activation(layer, layer.activation)))
        hooks.enter_context(mock.patch.object(keras.layers.Layer, "__call__", watched_layer))
        model(np.zeros((1, image, image, 3), "float32"), training=False)
    return found


def own_activation(layer: Any) -> bool:
    """Whether a layer applies an activation that does something."""
    return getattr(layer, "activation", keras.activations.linear) is not keras.activations.linear


def around(ran: Sequence[Ran]) -> list[tuple[str, ...]]:
    """For each convolution what runs in front of it, itself, and three operations behind."""
    found = []
    for number, one in enumerate(ran):
        if one.operation == "Conv2d":
            front = str(ran[number - 1]) if number else "the image"
            found.append((front, *map(str, ran[number : number + 4])))
    return found


def operation(site: Site) -> str:
    """What stands at a site, by its name in PyTorch."""
    name = site.spelling.rpartition(".")[2]
    return IN_PYTORCH.get(name, name)


def changes(site: Site) -> list[str]:
    """What is done at a site, without the name that the new layer gets: that is made of the layer's in front."""
    return [change.partition(" as ")[0] for change in site.changes]


@dataclass(frozen=True)
class Pair:
    """One model in both frameworks."""

    torch: nn.Module
    keras: Any
    image: int


def build(image: int) -> Pair:
    """VGG16 with first weights, for square images."""
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    return Pair(
        torchvision.models.vgg16(weights=None),
        keras.applications.VGG16(weights=None, input_shape=(image, image, 3)),
        image,
    )


def sites(pair: Pair) -> list[tuple[Site, Site]]:
    """The places of the rule file in both, in order of execution.

    Raises:
        ValueError: one of them has more than the other.

    """
    here, there = (
        [site for clause in plan_rules(model, RULES).report.clauses for site in clause.sites]
        for model in (pair.torch, pair.keras)
    )
    return list(zip(here, there, strict=True))


def rewritten(pair: Pair) -> Pair:
    """Both with the rule file applied."""
    return Pair(apply_rules(pair.torch, RULES), apply_rules(pair.keras, RULES), pair.image)


def distance(pair: Pair) -> float:
    """How far the feature maps lie apart in training mode, with the same kernels; as a share of the largest number."""
    kernels = [layer for layer in pair.torch.modules() if isinstance(layer, nn.Conv2d)]
    convolutions = [layer for layer in pair.keras.layers if type(layer) is keras.layers.Conv2D]
    for here, there in zip(kernels, convolutions, strict=True):
        assert here.bias is not None, "VGG16 has biases"
        there.set_weights([here.weight.detach().permute(2, 3, 1, 0).numpy(), here.bias.detach().numpy()])
    image = np.random.default_rng(0).random((2, pair.image, pair.image, 3), dtype="float32")
    features = keras.Model(pair.keras.inputs, pair.keras.get_layer("block5_pool").output)
    found = keras.ops.convert_to_numpy(features(image, training=True))
    with torch.no_grad():
        wanted = pair.torch.get_submodule("features").train()(torch.from_numpy(image).permute(0, 3, 1, 2))
    wanted = wanted.permute(0, 2, 3, 1).numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def differences(
    planned: Sequence[tuple[Site, Site]], orders: Sequence[Sequence[tuple[str, ...]]], apart: float
) -> Iterator[str]:
    """What is not the same in both."""
    for here, there in planned:
        if [operation(here), changes(here), here.inferred] != [operation(there), changes(there), there.inferred]:
            yield f"the plans at {here.path} and {there.path}"
    if orders[0] != orders[1]:
        yield "the order of what runs"
    if len(orders[0]) != len(planned):
        yield "the number of sites and of convolutions that run"
    if not apart <= CLOSE:
        yield "the numbers that come out"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with every column to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    return table(padded[0], padded[1:])


def main(argv: list[str] | None = None) -> int:
    """Prints both plans and what runs around each site, side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, default=224, help="height and width of the images (default: 224)")
    pair = build(parser.parse_args(argv).image)
    warnings.simplefilter("ignore")  # Keras' own, of numpy

    print(f"docs/rules/{RULES.name} on VGG16 of torchvision {torchvision.__version__}")
    print(f"and of Keras {keras.__version__} on {keras.backend.backend()}\n")
    planned = sites(pair)
    rows = []
    for here, there in planned:
        for number, (one, other) in enumerate(zip(changes(here), changes(there), strict=True)):
            first = [] if number else [here.path, here.spelling, there.path, there.spelling]
            rows.append([*(first or [""] * 4), one if one == other else f"{one} / {other}"])
    print(columns(["torchvision", "", "Keras", "", "what is done in both"], rows))

    result = rewritten(pair)
    orders = [around(ran_in_torch(result.torch, pair.image)), around(ran_in_keras(result.keras, pair.image))]
    print("\nWhat runs in the results, from in front of each convolution to three operations behind:\n")
    lines = [[" → ".join(here), " → ".join(there)] for here, there in zip(*orders, strict=False)]
    print(columns(["torchvision", "Keras"], lines))

    apart = distance(result)
    print(
        f"\nFeature maps in training mode, with the same kernels: {apart:.1e} apart, as a share of the largest number"
    )
    found = list(differences(planned, orders, apart))
    print("The same in both." if not found else "\n".join(["Different:", *found]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
