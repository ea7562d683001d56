"""`apply_rules` beside bare `torch.fx` on six torchvision models: what it costs, and how many places it reaches.

    python -m benchmarks.models [--rounds 15] [vgg16 resnet50 ...]

Models are built on the meta device, in eval mode: the work of a rewrite is the same there, and no memory is spent.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from benchmarks.approaches import BATCHNORM, DROPOUT, Job, covered_sites, existing_sites, rewritten, trace
from benchmarks.timing import Timing, interleave, machine, table
from rewrite.backends.torch import torchvision_schemas

torchvision_schemas.declare()

import torchvision  # noqa: E402  (some builds need the schemas first)

SIZES = {"inception_v3": 299}
MODELS = ("vgg16", "resnet50", "resnet152", "inception_v3", "densenet201", "vit_b_16")


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model on the meta device and an input for it."""
    options = {"init_weights": False} if name == "inception_v3" else {}
    size = SIZES.get(name, 224)
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options).eval(), torch.empty(1, 3, size, size)


def measure(name: str, job: Job, rounds: int) -> list[str] | None:
    """One line of the table, or None for a model that has no place for the job."""
    model, example = build(name)
    sites = existing_sites(model, job, example)
    if not sites:
        return None
    approaches = {
        "trace": lambda: trace(model),
        "hand": lambda: job.by_hand(model),
        "rewrite": lambda: rewritten(model, job.rules),
    }
    covered = {
        "hand": covered_sites(job.by_hand(model), model, job, example),
        "rewrite": covered_sites(rewritten(model, job.rules), model, job, example),
        "pattern": 0,
    }
    if job.by_pattern is not None:
        by_pattern = job.by_pattern
        covered["pattern"] = covered_sites(by_pattern(model), model, job, example)
        if covered["pattern"]:
            approaches["pattern"] = lambda: by_pattern(model)
    timings = interleave(approaches, rounds)
    return [
        name,
        f"{timings['trace'].median * 1000:.1f} ms",
        *(cell(timings.get(approach), timings["trace"]) for approach in ("hand", "pattern", "rewrite")),
        f"{max(timing.spread for timing in timings.values()):.0%}",
        str(sites),
        *(str(covered[approach]) for approach in ("hand", "pattern", "rewrite")),
    ]


def cell(timing: Timing | None, base: Timing) -> str:
    """A ratio, or a dash for an approach that reaches no place and so does no work."""
    return "-" if timing is None else f"{timing.ratio(base):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds per model and rule (default: 15)")
    options = parser.parse_args()

    print("Rewriting torchvision models: time as a ratio to torch.fx.symbolic_trace of the same model.\n")
    print(machine())
    print(f"torchvision {torchvision.__version__}; {options.rounds} interleaved rounds, medians; garbage collected")
    print("before and held during each run; models on the meta device in eval mode\n")
    for job in (BATCHNORM, DROPOUT):
        print(job.title)
        rows = [measure(name, job, options.rounds) for name in options.models or MODELS]
        header = ["model", "trace", "+hand", "+pattern", "rewrite", "spread", "sites", "by hand", "pattern", "rewrite"]
        print(table(header, [row for row in rows if row is not None]), end="\n\n")
    print("trace      torch.fx.symbolic_trace(model), in milliseconds; it changes nothing")
    print("+hand      trace, then the edit written by hand for every spelling, then recompile")
    print("+pattern   trace, then torch.fx.replace_pattern; - where it reaches nothing (a layer by type)")
    print("rewrite    apply_rules(model, rules), everything from rule text to checked model")
    print("spread     half the distance from fastest to slowest round, by the median; the largest of the row")
    print("sites      calls of the operation in one forward pass of the unchanged model, counted by running it;")
    print("           then how many of them each approach put a layer behind, counted by running the changed model")


if __name__ == "__main__":
    main()
