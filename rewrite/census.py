"""One rule file on many models: how many places it has in each, and why not where it has none.

Models are built without weights where their builder can do that. With several processes, or with a limit of time, each
model is worked on in a process of its own kind, which is ended and started anew when a model takes too long.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rewrite.engine import Rules, apply_with_report, check_rules
from rewrite.errors import Diagnostic, RewriteError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

VERDICTS = {
    "rewritten": "the rules were applied",
    "none": "the model has no place for them",
    "refused": "the rules do not fit the model",
    "unbuilt": "the model could not be built here",
    "late": "took longer than the limit",
    "failed": "an error of this tool",
}
"""verdict -> what it means, best first"""

FINE = frozenset(["rewritten", "none"])
"""verdicts that are no findings"""

_NOWHERE = frozenset(["RW201", "RW301"])
"""codes that say that a selector chose nothing"""


@dataclass(frozen=True)
class Line:
    """What one rule file met in one model."""

    rules: str
    model: str
    """as builders are named: `torchvision:resnet50`"""
    verdict: str
    """a key of `VERDICTS`"""
    seconds: float
    """that the rules took; the building of the model is left out"""
    sites: int = 0
    """in the mode that the builder leaves the model in, and in the other one"""
    scopes: Mapping[str, int] = field(default_factory=dict)
    """`list`, `graph`, `opaque` -> number of modules"""
    unseen: int = 0
    """forwards that could not be captured and name a function that the rules mean"""
    code: str = ""
    """of the first diagnostic"""
    reason: str = ""

    def as_json(self) -> dict[str, object]:
        """One flat object."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """What is asked of each model."""

    rules: tuple[str | Rules, ...]
    params: Mapping[str, object]
    allow_code: bool
    seed: int
    training: bool


def take_census(
    rules: Sequence[str | Rules],
    models: Sequence[str],
    *,
    jobs: int = 1,
    timeout: float | None = None,
    params: Mapping[str, object] | None = None,
    allow_code: bool = False,
    seed: int = 0,
    training: bool = False,
) -> Iterator[Line]:
    """Applies every rule file to every model; a line for each pair, as soon as it is there.

    Args:
        rules: paths of rule files, or rule texts.
        models: `torchvision:NAME` or `timm:NAME`; `rewrite.saved.builder.find_builders` makes them of patterns.
        jobs: number of processes; models are divided among them, so lines come in no fixed order.
        timeout: seconds that one model may take with all rules, > 0; None: as long as it takes.
        params: values for the `param`s of the rule files.
        allow_code: whether a `use` of the rules may import Python, which runs it.
        seed: of all new weights.
        training: whether models are in training mode; else they are in eval mode.

    Raises:
        RuleError: the rules are wrong; no model is looked at.
        SafetyError: they want to run Python, and `allow_code` is not set.

    """
    for one in rules:
        check_rules(one, params=params, allow_code=allow_code)
    task = Task(tuple(rules), dict(params or {}), allow_code, seed, training)
    if jobs <= 1 and timeout is None:
        return (line for model in models for line in examine(model, task))
    return _in_processes(task, models, max(jobs, 1), timeout)


def examine(spec: str, task: Task) -> Iterator[Line]:
    """All rules on one model."""
    from rewrite.saved.builder import build_without_numbers

    names = [one if isinstance(one, str) else one.name for one in task.rules]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what builders and forwards of strangers have to say
        try:
            model = build_without_numbers(spec, seed=task.seed).train(task.training)
        except Exception as error:
            code, reason = _described(error)
            yield from (Line(name, spec, "unbuilt", 0.0, code=code, reason=reason) for name in names)
            return
        for name, one in zip(names, task.rules, strict=True):
            yield _examine_one(spec, model, name, one, task)


def _examine_one(spec: str, model: object, name: str, rules: str | Rules, task: Task) -> Line:
    start = time.perf_counter()
    try:
        _, report = apply_with_report(
            model, rules, params=task.params, seed=task.seed, name=spec, allow_code=task.allow_code
        )
    except RewriteError as error:
        verdict = "none" if _is_nowhere(error.diagnostics[0]) else "refused"
        return Line(
            name, spec, verdict, time.perf_counter() - start, code=error.code, reason=error.diagnostics[0].message
        )
    except Exception as error:  # a census goes on, and says so
        code, reason = _described(error)
        return Line(name, spec, "failed", time.perf_counter() - start, code=code, reason=reason)
    return Line(
        name,
        spec,
        "rewritten",
        time.perf_counter() - start,
        sites=sum(len(clause.sites) + len(clause.other_mode) for clause in report.clauses),
        scopes=dict(report.scope_kinds),
        unseen=sum(warning.code == "RW405" and "is left out" in warning.message for warning in report.warnings),
    )


def _is_nowhere(diagnostic: Diagnostic) -> bool:
    """Whether a rule has no place at all in a model, whatever number of places it expected."""
    return diagnostic.code in _NOWHERE or (diagnostic.code == "RW303" and diagnostic.message.startswith("no matches"))


def _described(error: BaseException) -> tuple[str, str]:
    if isinstance(error, RewriteError):
        return error.code, error.diagnostics[0].message
    text = str(error).strip().splitlines()
    return "", f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")


# ---- the summary


def summary(lines: Sequence[Line]) -> dict[str, Counter[str]]:
    """Rule file -> how many models have each verdict, best verdict first."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        found.setdefault(line.rules, Counter(dict.fromkeys(VERDICTS, 0)))[line.verdict] += 1
    return found


def reasons(lines: Sequence[Line]) -> list[tuple[str, str, int, str]]:
    """(verdict, reason, number, a model) of all that are not fine, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.verdict not in FINE:
            code = f"{line.code}: " if line.code else ""
            groups.setdefault((line.verdict, code + _general(line.reason)), []).append(line.model)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(verdict, reason, len(models), models[0]) for (verdict, reason), models in ordered]


def _general(reason: str) -> str:
    """A reason without the names and the numbers of one model."""
    return re.sub(r"\d+", "N", re.sub(r"`[^`]*`", "`...`", reason))


# ---- processes


class _Worker:
    """A process that examines one model after the other."""

    def __init__(self, task: Task) -> None:
        import multiprocessing

        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
        self.pipe: Connection
        self.pipe, theirs = spawn.Pipe()
        self.process: BaseProcess = spawn.Process(target=_work, args=(theirs, task), daemon=True)
        self.process.start()
        theirs.close()
        self.model = ""
        self.done: set[str] = set()
        """rules whose line for the model is there"""
        self.began = 0.0

    def give(self, model: str) -> None:
        self.model, self.done, self.began = model, set(), time.monotonic()
        self.pipe.send(model)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()

    def rest(self, task: Task, verdict: str, reason: str) -> Iterator[Line]:
        """Lines for the rules that the model has none for."""
        names = [one if isinstance(one, str) else one.name for one in task.rules]
        seconds = time.monotonic() - self.began
        return (Line(n, self.model, verdict, seconds, reason=reason) for n in names if n not in self.done)


def _work(pipe: Any, task: Task) -> None:
    """The life of a worker: models come in, lines go out, None after the last of a model."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pipe.send("ready")
    while True:
        try:
            spec = pipe.recv()
        except EOFError:
            return
        for line in examine(spec, task):
            pipe.send(line)
        pipe.send(None)


def _in_processes(task: Task, models: Sequence[str], jobs: int, timeout: float | None) -> Iterator[Line]:
    from multiprocessing.connection import wait

    waiting = deque(models)
    workers = [_Worker(task) for _ in range(min(jobs, len(waiting)))]
    try:
        while workers:
            ready = wait([worker.pipe for worker in workers], timeout=0.2)
            for worker in list(workers):
                if worker.pipe in ready:
                    yield from _listen(worker, task, waiting, workers)
                elif timeout is not None and worker.model and time.monotonic() - worker.began > timeout:
                    yield from worker.rest(task, "late", f"more than {timeout:g} s")
                    _renew(worker, task, waiting, workers)
    finally:
        for worker in workers:
            worker.end()


def _listen(worker: _Worker, task: Task, waiting: deque[str], workers: list[_Worker]) -> Iterator[Line]:
    try:
        said = worker.pipe.recv()
    except EOFError:  # out of memory, or a crash in compiled code
        yield from worker.rest(task, "failed", "the process ended")
        _renew(worker, task, waiting, workers)
        return
    if isinstance(said, Line):
        worker.done.add(said.rules)
        yield said
    elif waiting:
        worker.give(waiting.popleft())
    else:
        worker.end()
        workers.remove(worker)


def _renew(worker: _Worker, task: Task, waiting: deque[str], workers: list[_Worker]) -> None:
    worker.end()
    workers.remove(worker)
    if waiting:
        workers.append(_Worker(task))
