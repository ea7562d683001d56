"""How the cost grows with the length of the model: chains of 1,000, 5,000 and 20,000 operations.

    python -m benchmarks.chains [--rounds 3] [--sizes 1000 5000 20000]

Two chains of equal length: calls of functions in one forward, and layers in one `nn.Sequential`. The job is the same
for all: a Dropout behind each ReLU, which is every second operation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.approaches import DROPOUT, covered_sites, existing_sites, rewritten, trace
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


CHAINS: dict[str, Callable[[int], nn.Module]] = {"functions": FunctionChain, "layers": layer_chain}


def measure(build: Callable[[int], nn.Module], sizes: list[int], rounds: int) -> list[list[str]]:
    """The lines of one chain's table: an approach each, its seconds per size, and the slope."""
    approaches = ["trace", "+hand", "+pattern", "rewrite"]
    seconds: dict[str, list[float]] = {name: [] for name in approaches}
    coverage: dict[str, str] = {"trace": "-"}
    for size in sizes:
        model, example = build(size).eval(), torch.empty(2, 8, device="meta")
        runs: dict[str, Callable[[], nn.Module]] = {
            "trace": lambda model=model: trace(model),
            "+hand": lambda model=model: DROPOUT.by_hand(model),
            "rewrite": lambda model=model: rewritten(model, DROPOUT.rules),
        }
        if DROPOUT.by_pattern is not None:
            runs["+pattern"] = lambda model=model: DROPOUT.by_pattern(model)
        sites = existing_sites(model, DROPOUT, example)
        for name in list(runs):
            if name == "trace":
                continue
            covered = covered_sites(runs[name](), model, DROPOUT, example)
            coverage[name] = f"{covered} of {sites}"
            if not covered:
                del runs[name]
        for name, timing in interleave(runs, rounds, warm_up=0).items():
            seconds[name].append(timing.median)
    return [
        [
            name,
            *(f"{value:.3f} s" for value in seconds[name] or []),
            *(["-"] * (len(sizes) - len(seconds[name]))),
            f"{slope(sizes, seconds[name]):.2f}" if len(seconds[name]) > 1 else "-",
            coverage.get(name, "-"),
        ]
        for name in approaches
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds per size (default: 3)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N")
    options = parser.parse_args()

    print("Chains: a Dropout behind each ReLU, every second operation.\n")
    print(machine())
    print(f"{options.rounds} interleaved rounds, medians; garbage collected before and held during each run\n")
    for title, build in CHAINS.items():
        header = [title, *(f"{size:,}" for size in options.sizes), "slope", f"sites of {options.sizes[-1]:,}"]
        print(table(header, measure(build, options.sizes, options.rounds)), end="\n\n")
    print("slope  exponent of growth, fitted to log(time) over log(length): 1 is linear, 2 quadratic")
    print("sites  how many ReLU calls got a Dropout that runs, counted by running the longest model")


if __name__ == "__main__":
    main()
