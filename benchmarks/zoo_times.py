"""What `apply_rules` costs on whole zoos of models, as a ratio to `torch.fx.symbolic_trace` where that works.

    python -m benchmarks.zoo_times [--rounds 3] [torchvision timm transformers]

One rule, a dropout behind every convolution and linear layer. All models of torchvision; of timm a small one of each
family; of transformers the tiny ones of the tests. Those of the first two have no numbers where their builders can do
that, since neither a trace nor a rewrite looks at numbers. Each model is traced and rewritten in turn, and the best
time of each counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import fx, nn

from benchmarks.timing import machine, once, table
from rewrite import Rules, apply_rules
from rewrite.backends.torch import torchvision_schemas
from rewrite.errors import RewriteError
from rewrite.saved.builder import build_without_numbers, find_builders

torchvision_schemas.declare()
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

RULES = "after Conv2d | Linear: insert Dropout(0.1)"

Build = Callable[[], nn.Module]


def builders(family: str) -> Iterator[tuple[str, Build]]:
    for spec in find_builders(f"{family}:*"):
        yield spec.partition(":")[2], partial(build_without_numbers, spec)


def tiny_transformers() -> Iterator[tuple[str, Build]]:
    from tiny_transformers import TYPES

    for name, tiny in TYPES.items():
        yield name, partial(tiny.build, name)


ZOOS: dict[str, Callable[[], Iterator[tuple[str, Build]]]] = {
    "torchvision": partial(builders, "torchvision"),
    "timm": partial(builders, "timm"),
    "transformers": tiny_transformers,
}


@dataclass(frozen=True)
class Line:
    """The best times of one model, and why there is none."""

    model: str
    traced: float | None
    rewritten: float | None
    refusal: str = ""
    """why `apply_rules` did not change the model"""

    @property
    def ratio(self) -> float | None:
        return self.rewritten / self.traced if self.traced and self.rewritten else None


def measure(name: str, model: nn.Module, rounds: int) -> Line:
    """The model is traced and rewritten in turn; what fails once is not tried again."""
    refusal = ""
    approaches: dict[str, Callable[[], object]] = {
        "trace": lambda: fx.symbolic_trace(model),
        "rewrite": lambda: apply_rules(model, Rules(RULES)),
    }
    best: dict[str, float] = {}
    for _ in range(rounds):
        for approach, run in list(approaches.items()):
            try:
                elapsed = once(run)
            except Exception as error:  # a tracer ends with whatever the forward raises when it is given proxies
                del approaches[approach]
                if approach == "rewrite":
                    refusal = f"{'' if isinstance(error, RewriteError) else 'FAILED '}{str(error).splitlines()[0]}"
                continue
            best[approach] = min(elapsed, best.get(approach, elapsed))
    return Line(name, best.get("trace"), best.get("rewrite"), refusal)


def row(zoo: str, lines: list[Line]) -> list[str]:
    """The zoo in one line of the table."""
    ratios = sorted(line.ratio for line in lines if line.ratio is not None)
    quarters = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    rewritten = [line.rewritten for line in lines if line.rewritten is not None]
    highest = max(lines, key=lambda line: line.ratio or 0)
    slowest = max(lines, key=lambda line: line.rewritten or 0)
    return [
        zoo,
        str(len(lines)),
        str(sum(line.traced is not None for line in lines)),
        str(len(rewritten)),
        *([f"{quarter:.2f}" for quarter in quarters] or ["-"] * 3),
        f"{highest.ratio:.2f} {highest.model}" if highest.ratio else "-",
        f"{statistics.median(rewritten or [0.0]) * 1000:.0f} ms",
        f"{(slowest.rewritten or 0) * 1000:.0f} ms {slowest.model}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="*", metavar="ZOO", help=f"default: {' '.join(ZOOS)}")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds per model (default: 3)")
    parser.add_argument("--each", action="store_true", help="a line for each model, too")
    options = parser.parse_args()
    unknown = [zoo for zoo in options.zoos if zoo not in ZOOS]
    if unknown:
        parser.error(f"no zoo `{unknown[0]}`; there are {', '.join(ZOOS)}")
    warnings.simplefilter("ignore")

    print("A rule on whole zoos: time as a ratio to torch.fx.symbolic_trace of the same model.\n")
    print(machine())
    print(f"{RULES}; the best of {options.rounds} interleaved rounds\n")
    rows, notes = [], []
    start = time.perf_counter()
    for zoo in options.zoos or ZOOS:
        lines = []
        for name, build in ZOOS[zoo]():
            try:
                model = build()
            except Exception as error:  # a builder that wants a package that is not here
                notes.append(f"{zoo} {name}: not built: {str(error).splitlines()[0]}")
                continue
            line = measure(name, model.eval(), options.rounds)
            lines.append(line)
            if line.refusal:
                notes.append(f"{zoo} {name}: {line.refusal}")
            if options.each:
                times = [f"{value * 1000:.1f} ms" if value else "-" for value in (line.traced, line.rewritten)]
                ratio = f"{line.ratio:.2f}" if line.ratio else "-"
                print(f"{zoo} {name}: {' '.join([*times, ratio])}", flush=True)
            del model
        rows.append(row(zoo, lines))
    header = ["zoo", "models", "fx", "rewrite", "quartile", "median", "quartile", "highest", "time", "slowest"]
    print(table(header, rows), end="\n\n")
    print("fx        models that torch.fx.symbolic_trace can trace whole, of those built")
    print("rewrite   models that apply_rules changes; the others are below, each with the reason")
    print("quartile, median, highest   of the ratios apply_rules by symbolic_trace, over the models that both can do")
    print("time, slowest               of apply_rules, over all models that it changes: the median, and the longest\n")
    print("\n".join(notes))
    print(f"\n{time.perf_counter() - start:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
