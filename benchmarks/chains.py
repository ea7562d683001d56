"""How the cost grows with the length of the model: chains of 1,000, 5,000 and 20,000 operations.

    python -m benchmarks.chains [--rounds 3] [--sizes 1000 5000 20000] [--patience 60]

Two chains of equal length: calls of functions in one forward, and layers in one `nn.Sequential`. The job is the same
for all: a Dropout behind each ReLU, which is every second operation.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.approaches import DROPOUT, covered_sites, dropout_by_pattern, existing_sites, rewritten, trace
from benchmarks.timing import interleave, machine, slope, table

SIZES = (1_000, 5_000, 20_000)


class FunctionChain(nn.Module):
    """`relu` and a multiplication in turn, `length` calls in all."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.length // 2):
            x = F.relu(x) * 0.5
        return x


def layer_chain(length: int) -> nn.Module:
    """`nn.ReLU` and `nn.Linear` in turn, `length` layers in all."""
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(8, 8) if number % 2 else nn.ReLU() for number in range(length)))


APPROACHES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "trace": trace,
    "+hand": DROPOUT.by_hand,
    "+pattern": dropout_by_pattern,
    "rewrite": lambda model: rewritten(model, DROPOUT.rules),
}
CHAINS: dict[str, Callable[[int], nn.Module]] = {"functions": FunctionChain, "layers": layer_chain}


def measure(build: Callable[[int], nn.Module], sizes: list[int], rounds: int, patience: float) -> list[list[str]]:
    """The lines of one chain's table: an approach each, its seconds per size, the slope, and what it reached."""
    seconds: dict[str, list[float]] = {name: [] for name in APPROACHES}
    reached = dict.fromkeys(APPROACHES, "-")
    for place, size in enumerate(sizes):
        model, example = build(size).eval(), torch.empty(2, 8, device="meta")
        sites = existing_sites(model, DROPOUT, example)
        runs: dict[str, Callable[[], nn.Module]] = {}
        for name, approach in APPROACHES.items():
            measured = seconds[name]
            if len(measured) < place or (place and measured[-1] * (size / sizes[place - 1]) ** 2 > patience):
                continue
            if name != "trace":
                covered = covered_sites(approach(model), model, DROPOUT, example)
                reached[name] = f"{covered:,} of {sites:,}"
                if not covered:
                    continue
            runs[name] = functools.partial(approach, model)
        for name, timing in interleave(runs, rounds, warm_up=0).items():
            seconds[name].append(timing.median)
    return [
        [
            name,
            *(f"{value:.3f} s" for value in found),
            *(["-"] * (len(sizes) - len(found))),
            f"{slope(sizes[: len(found)], found):.2f}" if len(found) > 1 else "-",
            reached[name],
        ]
        for name, found in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds per size (default: 3)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N")
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds; what would take longer, growing by the square, is left out"
    )
    options = parser.parse_args()

    print("Chains: a Dropout behind each ReLU, every second operation.\n")
    print(machine())
    print(f"{options.rounds} interleaved rounds, medians; garbage collected before and held during each run\n")
    for title, build in CHAINS.items():
        header = [title, *(f"{size:,}" for size in options.sizes), "slope", "sites"]
        print(table(header, measure(build, options.sizes, options.rounds, options.patience)), end="\n\n")
    print("slope  exponent of growth, fitted to log(time) over log(length): 1 is linear, 2 quadratic")
    print("sites  how many ReLU calls got a Dropout that runs, counted by running the longest model measured")
    print(f"-      reaches nothing, or would take more than {options.patience:.0f} s if it grew by the square")


if __name__ == "__main__":
    main()
