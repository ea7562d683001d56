"""Interleaved timing: every approach once per round, garbage collected before and switched off during each run.

Interleaving matters more than repeats: a machine that slows down for a second slows all approaches, not one.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one approach, one number per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the slowest and the fastest round, as a part of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median

    def ratio(self, other: Timing) -> float:
        """Median over the rounds of this time by the other's time in the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleave(approaches: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, Timing]:
    """Times each approach once per round; `warm_up` rounds before that are run and thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in approaches}
    names = list(approaches)
    for number in range(-warm_up, rounds):
        # Each round starts with another approach, so that none is always the one behind the slowest.
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            elapsed = once(approaches[name])
            if number >= 0:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(found)) for name, found in seconds.items()}


def once(run: Callable[[], object]) -> float:
    """Seconds of one run. What it returns is dropped after the clock has stopped."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        result = run()
        elapsed = time.perf_counter() - start
    finally:
        gc.enable()
    del result
    return elapsed


def slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent of growth: the least-squares slope of log(seconds) over log(size). 1 is linear, 2 quadratic."""
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    ).slope


def machine() -> str:
    """One paragraph on where and with what the numbers were made."""
    model = next(
        (line.partition(":")[2].strip() for line in cpu_information() if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return (
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def cpu_information() -> list[str]:
    """Lines of /proc/cpuinfo, none where there is no such file."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text, first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
