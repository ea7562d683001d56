"""How long rule text takes to read, to check and to format: real files, random ones, broken ones, the largest ones.

    python -m benchmarks.parsing [--count 2000] [--seed 0]

No model and no torch is needed. Seconds are those of the processor, one number per file; the first file of a process,
for which the table of the grammar is loaded, is not counted.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fuzzing import CORPUS, mutated
from rule_texts import rule_text

from rewrite import parser, resolver
from rewrite.errors import RuleError
from rewrite.file_formatter import format_source
from rewrite.layout import MOST_TOKENS
from rewrite.source import Source

STEPS: dict[str, Callable[[Source], object]] = {
    "parse": parser.parse,
    "check": lambda source: resolver.resolve(parser.parse(source)),
    "format": format_source,
}


def seconds(texts: Iterable[str], step: Callable[[Source], object]) -> list[float]:
    found = []
    for text in texts:
        source = Source("<rules>", text)
        started = time.process_time()
        try:
            step(source)
        except RuleError as error:
            str(error)
        found.append(time.process_time() - started)
    return found


def row(name: str, step: str, found: Sequence[float]) -> str:
    cuts = statistics.quantiles(found, n=100, method="inclusive") if len(found) > 1 else found * 100
    numbers = (cuts[49], cuts[98], max(found))
    return f"{name:<10}{step:<8}{len(found):>7}" + "".join(f"{number * 1e3:>11.2f}" for number in numbers)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    draw = random.Random(arguments.seed)
    texts = {
        "files": [data.decode("utf-8", "replace") for data in CORPUS],
        "random": [rule_text(draw).text for _ in range(arguments.count)],
        "broken": [mutated(draw).decode("utf-8", "replace") for _ in range(arguments.count)],
        "largest": ["remove ReLU\n" * (MOST_TOKENS // 2), "remove " + "|".join(["X"] * (MOST_TOKENS // 2 - 1))],
    }
    parser.parse(Source("<rules>", "remove ReLU"))
    print(f"{'texts':<10}{'step':<8}{'count':>7}{'p50 ms':>11}{'p99 ms':>11}{'longest ms':>11}")
    for name, group in texts.items():
        for step, run in STEPS.items():
            print(row(name, step, seconds(group, run)))


if __name__ == "__main__":
    main()
