"""How many places a rule has in real models, and how many of them a rewrite reaches: `docs/rules` on torchvision.

    python -m benchmarks.sites [vgg16 resnet50 ...]

Nothing here takes the rewrite at its word. The places are counted by running the model as it was, with the oracle of
the tests, which knows no part of the package; then the rewritten model runs, and the calls of its new layers are
counted in the same way. Ends with 1 if any number is not what it should be.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.timing import machine, table
from rewrite import apply_rules, get_report
from rewrite.backends.torch import torchvision_schemas

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
torchvision_schemas.declare()

import torchvision  # noqa: E402  (some builds need the schemas first)
from counting import Call, calls  # noqa: E402  (the tests are no package)

SIZES = {"inception_v3": 96}
"""height and width of the image where 64 is too small; how often a layer is called does not depend on it"""
MODELS = (
    "vgg16",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet50",
    "inception_v3",
    "googlenet",
    "densenet121",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
)
CLOSE = 1e-3
"""how far outputs may lie apart, as a share of the largest: a hundred new BatchNorms scale by 0.999995 each"""
ACTIVATIONS = frozenset(
    ["ELU", "GELU", "Hardsigmoid", "Hardswish", "LeakyReLU", "Mish", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Tanh"]
)


@dataclass(frozen=True)
class Job:
    """One rule file, and which calls of the model as it was are its places."""

    title: str
    file: str
    is_site: Callable[[Call, nn.Module], bool]
    models: tuple[str, ...] = MODELS


def in_class(call: Call, model: nn.Module, name: str) -> bool:
    """Whether the forward of such a module makes the call."""
    return type(model.get_submodule(call.path)).__name__ == name


JOBS = (
    Job("BatchNorm behind every convolution", "batchnorm_after_conv.rw", lambda call, _: call.operation == "Conv2d"),
    Job(
        "Dropout behind every activation",
        "dropout_after_activations.rw",
        lambda call, _: call.operation in ACTIVATIONS,
    ),
    Job(
        "Dropout on one operand of every residual addition",
        "residual_operand.rw",
        lambda call, _: call.operation == "add",
        ("resnet50",),
    ),
    Job(
        "BatchNorm on the pool branch of every InceptionA",
        "inception_branch.rw",
        lambda call, model: call.operation == "cat" and in_class(call, model, "InceptionA"),
        ("inception_v3",),
    ),
)


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model with random weights in eval mode, the same every time, and an image for it."""
    options = {"init_weights": False} if name in ("inception_v3", "googlenet", "vgg16") else {}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    size = SIZES.get(name, 64)
    return model, torch.randn(1, 3, size, size)


@dataclass(frozen=True)
class Line:
    """What one rule did to one model."""

    model: str
    expected: int
    """calls in one forward pass of the model as it was"""
    edited: int
    """sites in the report"""
    ran: int
    """calls of new layers in one forward pass of the result"""
    difference: float
    """the largest difference between the outputs, as a share of the largest output"""
    keys: int
    kept: int
    """keys of the `state_dict` that are there with the same tensor"""
    same_class: bool

    @property
    def holds(self) -> bool:
        return (
            self.expected == self.edited == self.ran
            and self.keys == self.kept
            and self.same_class
            and self.difference < CLOSE
        )

    def cells(self) -> list[str]:
        return [
            self.model,
            str(self.expected),
            str(self.edited),
            str(self.ran),
            f"{self.difference:.1e}" if self.difference else "0",
            f"{self.kept} of {self.keys}",
            "yes" if self.same_class else "no",
            "" if self.holds else "WRONG",
        ]


def measure(name: str, job: Job) -> Line:
    """Counts, rewrites, counts again."""
    model, image = build(name)
    expected = sum(job.is_site(call, model) for call in calls(model, image))
    result = apply_rules(model, ROOT / "docs" / "rules" / job.file)
    report = get_report(result)
    known = {path for path, _ in model.named_modules(remove_duplicate=False)}
    ran = sum(call.is_module and call.path not in known for call in calls(result, image))
    with torch.no_grad():
        was, now = model(image), result(image)
    old, new = model.state_dict(), result.state_dict()
    return Line(
        model=name,
        expected=expected,
        edited=report.sites if report is not None else 0,
        ran=ran,
        difference=float((was - now).abs().max() / was.abs().max()),
        keys=len(old),
        kept=sum(key in new and torch.equal(value, new[key]) for key, value in old.items()),
        same_class=isinstance(result, type(model)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {' '.join(MODELS)}")
    options = parser.parse_args(arguments)

    print("Sites of the rules in docs/rules on torchvision models, counted by running the models.\n")
    print(machine())
    print(f"torchvision {torchvision.__version__}; random weights, eval mode, one image of 64 x 64 (Inception: 96)\n")
    start = time.perf_counter()
    wrong = 0
    for job in JOBS:
        lines = [measure(name, job) for name in options.models or MODELS if name in job.models or job.models is MODELS]
        if not lines:
            continue
        wrong += sum(not line.holds for line in lines)
        print(f"{job.title} ({job.file})")
        header = ["model", "sites", "edited", "ran", "difference", "keys kept", "class kept", ""]
        print(table(header, [line.cells() for line in lines]), end="\n\n")
    print("sites       calls in one forward pass of the model as it was, in every spelling")
    print("edited      sites in the report of the rewrite")
    print("ran         calls of the new layers in one forward pass of the rewritten model")
    print("difference  between the outputs for one image: the largest, as a share of the largest output;")
    print("            a new BatchNorm divides by sqrt(1 + eps) in eval mode, a Dropout changes nothing")
    print("keys kept   keys of the state_dict that are there with equal tensors")
    print(f"\n{wrong or 'no'} wrong, {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
