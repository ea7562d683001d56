"""Subgraph patterns on large graphs: `rewrite` beside networkx and `torch.fx`, at 1,000, 10,000 and 100,000 calls.

    python -m benchmarks.patterns [--sizes 1000 10000 100000] [--rounds 3] [--patience 20] [triple optional ...]

Each matcher runs in a process of its own, on a graph that is built before the clock starts, and is stopped when one
round takes longer than `--patience`. Reading or tracing a model is not part of it: that is in `benchmarks.models`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import mixes
from benchmarks.mixes import UNIT, Call, relu_chain, residual_mix
from benchmarks.timing import machine, once, slope, table

SIZES = (1_000, 10_000, 100_000)
BUILDING = 120
"""seconds that making one graph may take before a process is given up"""

Matching = Callable[[], int]
"""One round: matches anew, and says how many it found."""
Rounds = Iterator[Matching]
"""Rounds without end. What each needs is made when it is asked for, so that only the round itself is timed."""


# ---- ours


def by_rewrite(calls: Sequence[Call], clause: str) -> Rounds:
    from rewrite.engine import Rules, check_rules
    from rewrite.matcher import Context, Matcher

    graph = mixes.as_graph(calls)
    chosen = check_rules(Rules(clause)).clauses[0]
    # Who uses what is worked out before, as it is for the others.
    assert len(graph.uses) < len(graph.nodes)
    while True:
        yield lambda: len(Matcher(graph, Context({}, {})).sites(chosen)[0])


# ---- networkx

Wanted = Mapping[str, Any]
"""What one node of a pattern asks for: `of`, the operations it may be, and `sole`, to be used once."""
CONV, NORM, RELU, ADD = ({"of": {name}} for name in ("Conv2d", "BatchNorm2d", "ReLU", "add"))
ANY: Wanted = {}
SOLE = {"sole": True}


def by_networkx(calls: Sequence[Call], *patterns: tuple[Sequence[Wanted], Sequence[tuple[int, int]]]) -> Rounds:
    """Monomorphisms of each pattern, (nodes, edges): the graph may have further edges between the nodes found."""
    import networkx
    from networkx.algorithms.isomorphism import DiGraphMatcher

    graph = mixes.as_networkx(calls)
    built = []
    for nodes, edges in patterns:
        pattern = networkx.DiGraph()
        for number, wanted in enumerate(nodes):
            pattern.add_node(number, **wanted)
        pattern.add_edges_from(edges)
        built.append(pattern)

    def fits(node: Mapping[str, Any], wanted: Wanted) -> bool:
        return (not wanted.get("of") or node["operation"] in wanted["of"]) and (
            not wanted.get("sole") or node["uses"] == 1
        )

    while True:
        yield lambda: sum(
            1 for pattern in built for _ in DiGraphMatcher(graph, pattern, fits).subgraph_monomorphisms_iter()
        )


# ---- torch.fx: patterns as functions that it traces


def triple(x, weight, mean, variance):
    import torch.nn.functional as F

    return F.relu(F.batch_norm(F.conv2d(x, weight), mean, variance))


def other_triple(x, weight, mean, variance):
    import torch.nn.functional as F

    return F.gelu(F.batch_norm(F.conv2d(x, weight), mean, variance))


def diamond(x, weight):
    import torch
    import torch.nn.functional as F

    return torch.add(F.conv2d(x, weight), F.conv2d(x, weight))


def chain(x):
    import torch.nn.functional as F

    return F.relu(F.relu(F.relu(x)))


def by_fx_matcher(calls: Sequence[Call], pattern: Callable[..., Any]) -> Rounds:
    """`SubgraphMatcher`. Matches that overlap are kept, since the others keep them."""
    from torch import fx
    from torch.fx.passes.utils.matcher_utils import SubgraphMatcher

    graph, wanted = mixes.as_functions(calls).graph, fx.symbolic_trace(pattern).graph
    while True:
        yield lambda: len(SubgraphMatcher(wanted, remove_overlapping_matches=False).match(graph))


def by_fx_replacement(calls: Sequence[Call]) -> Rounds:
    """`replace_pattern`, which changes the graph too: each round has a fresh one."""
    from torch import fx

    while True:
        model = mixes.as_functions(calls)
        yield lambda model=model: len(fx.replace_pattern(model, triple, other_triple))  # type: ignore[misc]


def by_fx_loop(calls: Sequence[Call]) -> Rounds:
    """As `torch.fx.experimental.optimization.fuse` does it: from each call back along the first argument."""
    from torch import nn
    from torch.fx.experimental.optimization import matches_module_pattern

    model = mixes.as_layers(calls)
    modules = dict(model.named_modules(remove_duplicate=False))

    def run() -> int:
        found = 0
        for node in model.graph.nodes:
            if matches_module_pattern((nn.BatchNorm2d, nn.ReLU), node, modules):
                norm = node.args[0]
                if matches_module_pattern((nn.Conv2d, nn.BatchNorm2d), norm, modules):
                    found += len(norm.users) == 1 and len(norm.args[0].users) == 1
        return found

    while True:
        yield run


# ---- what is compared


@dataclass(frozen=True)
class Comparison:
    """One pattern, and who looks for it."""

    clause: str
    graph: Callable[[int], list[Call]]
    expected: Callable[[int], int]
    """number of calls -> number of sites, known from how the graph is made"""
    peers: Mapping[str, Callable[[Sequence[Call]], Rounds]]
    times: Mapping[str, int] = field(default_factory=dict)
    """how often a matcher counts one site, where that is not once"""
    notes: tuple[str, ...] = ()

    def rounds(self, matcher: str, calls: Sequence[Call]) -> Rounds:
        return by_rewrite(calls, self.clause) if matcher == "rewrite" else self.peers[matcher](calls)


def per_unit(sites: int) -> Callable[[int], int]:
    return lambda calls: sites * calls // len(UNIT)


TRIPLE = [(0, 1), (1, 2)]
COMPARISONS = {
    "triple": Comparison(
        "match Conv2d >> BatchNorm2d >> ReLU as r: remove r",
        residual_mix,
        per_unit(2),
        {
            "networkx": lambda calls: by_networkx(calls, ([CONV | SOLE, NORM | SOLE, RELU], TRIPLE)),
            "fx matcher": lambda calls: by_fx_matcher(calls, triple),
            "fx replacement": by_fx_replacement,
            "fx fusion loop": by_fx_loop,
        },
        notes=(
            "a graph isomorphism knows no sole user: networkx gets the number of uses as a label",
            "fx compares functions, so its graph is one of functions; replace_pattern finds no layers of a class",
            "fx replacement also writes the change and the code; the fusion loop is written for this one pattern",
        ),
    ),
    "loose": Comparison(
        "match Conv2d -> BatchNorm2d -> ReLU as r: remove r",
        residual_mix,
        per_unit(3),
        {"networkx": lambda calls: by_networkx(calls, ([CONV, NORM, RELU], TRIPLE))},
        notes=("fx has no such match: it leaves out what is used outside of the pattern",),
    ),
    "optional": Comparison(
        "match Conv2d | Linear -> BatchNorm2d? -> ReLU | GELU as r: remove r",
        residual_mix,
        per_unit(4),
        {
            "networkx": lambda calls: by_networkx(
                calls,
                ([{"of": {"Conv2d", "Linear"}}, NORM, {"of": {"ReLU", "GELU"}}], TRIPLE),
                ([{"of": {"Conv2d", "Linear"}}, {"of": {"ReLU", "GELU"}}], TRIPLE[:1]),
            )
        },
        notes=("networkx looks twice, with the optional node and without; fx would need eight patterns",),
    ),
    "diamond": Comparison(
        "match any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s: remove p",
        residual_mix,
        per_unit(1),
        {
            "networkx": lambda calls: by_networkx(calls, ([ANY, CONV, CONV, ADD], [(0, 1), (0, 2), (1, 3), (2, 3)])),
            "fx matcher": lambda calls: by_fx_matcher(calls, diamond),
        },
        times={"networkx": 2},
        notes=("networkx counts each diamond twice, as p and q may change places; fx goes by the operands' order",),
    ),
    "chain": Comparison(
        "match ReLU -> ReLU -> ReLU as r: remove r",
        relu_chain,
        lambda calls: calls - 2,
        {
            "networkx": lambda calls: by_networkx(calls, ([RELU, RELU, RELU], TRIPLE)),
            "fx matcher": lambda calls: by_fx_matcher(calls, chain),
        },
        notes=("every match overlaps its neighbours; all of them are counted",),
    ),
}


# ---- one process per matcher and size


@dataclass(frozen=True)
class Result:
    """What came of one matcher on one graph."""

    seconds: tuple[float, ...] = ()
    found: int | None = None
    failure: str = ""
    patience_ran_out: bool = False


def work(name: str, matcher: str, size: int, rounds: int, out: Connection) -> None:
    """In the process: says when a round may begin, and sends its time and count."""
    try:
        comparison = COMPARISONS[name]
        prepared = comparison.rounds(matcher, comparison.graph(size))
        for _ in range(rounds):
            run = next(prepared)
            out.send("ready")
            found: list[int] = []
            seconds = once(lambda run=run, found=found: found.append(run()))
            out.send((seconds, found[0]))
    except Exception as problem:
        out.send(f"{type(problem).__name__}: {problem}")


def measure(name: str, matcher: str, size: int, rounds: int, patience: float) -> Result:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(name, matcher, size, rounds, there), daemon=True)
    process.start()
    there.close()
    seconds: list[float] = []
    found = None
    try:
        for _ in range(rounds):
            for limit, what in ((BUILDING, "not built"), (patience, "not finished")):
                if not here.poll(limit):
                    return Result(tuple(seconds), found, f"{what} in {limit:g} s", patience_ran_out=True)
                message = here.recv()
                if isinstance(message, tuple):
                    seconds.append(message[0])
                    found = message[1]
                elif message != "ready":
                    return Result(tuple(seconds), found, message)
    except EOFError:
        return Result(tuple(seconds), found, "its process ended")
    finally:
        process.kill()
        process.join()
    return Result(tuple(seconds), found)


def compare(name: str, sizes: Sequence[int], rounds: int, patience: float) -> int:
    """Prints one comparison, and returns how many counts are not what they must be, and how many matchers failed."""
    comparison = COMPARISONS[name]
    rows, wrong, failures = [], 0, []
    counts = {size: len(comparison.graph(size)) for size in sizes}
    for matcher in ("rewrite", *comparison.peers):
        times = comparison.times.get(matcher, 1)
        cells, done, found = [], {}, "-"
        stopped = False
        for size in sizes:
            if stopped:
                cells.append("-")
                continue
            result = measure(name, matcher, size, rounds, patience)
            stopped = bool(result.failure)
            if result.failure:
                cells.append("stopped")
                failures.append(f"{matcher}, {counts[size]:,} calls: {result.failure}")
                wrong += not result.patience_ran_out
                continue
            done[counts[size]] = statistics.median(result.seconds)
            expected = comparison.expected(counts[size]) * times
            found = f"{result.found:,}" if result.found == expected else f"{result.found:,}, not {expected:,}"
            wrong += result.found != expected
            cells.append(f"{done[counts[size]]:.4f} s")
        growth = f"{slope(list(done), list(done.values())):.2f}" if len(done) > 1 else "-"
        rows.append([matcher, *cells, growth, found])
    print(comparison.clause)
    print(table(["", *(f"{count:,}" for count in counts.values()), "slope", "found"], rows))
    print("".join(f"  {line}\n" for line in (*failures, *comparison.notes)))
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PATTERN", choices=[[], *COMPARISONS], help=" ".join(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds per matcher and size (default: 3)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="calls, about")
    parser.add_argument("--patience", type=float, default=20, help="seconds that one round may take (default: 20)")
    options = parser.parse_args(arguments)

    print("Matching subgraph patterns on graphs of this many calls: seconds for all matches, graph built before.\n")
    print(machine())
    print(f"networkx {version('networkx')}; {options.rounds} rounds, medians; garbage held during each\n")
    names = options.names or list(COMPARISONS)
    wrong = sum(compare(name, options.sizes, options.rounds, options.patience) for name in names)
    print("slope  exponent of growth, fitted to log(time) over log(calls): 1 is linear, 2 quadratic")
    print("found  matches on the largest graph finished; each count is checked against how the graph was made")
    print(f"\n{wrong or 'no'} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
