"""Sites in a zoo of models against calls counted by running them: what `test_census` and `census` of a day use."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from counting import Call, calls
from torch import Tensor, nn

from rewrite import RewriteError, apply_rules, get_report, probe
from rewrite.backends import backend_for, example_of
from rewrite.errors import EXAMPLE_HELP
from rewrite.saved.builder import find_builders, make
from rewrite.vocabulary import OPERATIONS

RULES = Path(__file__).parent.parent / "docs" / "rules"
ACTIVATIONS = frozenset(row.name for row in OPERATIONS.values() if row.family == "activation")


def operand_is_value(call: Call) -> bool:
    """Whether the first operand is a tensor that somebody computed, so that something can stand in front of it."""
    return bool(call.operands)


EXPLAINED = (
    "functions in forwards that are not captured",
    "a forward that is not captured calls",
    "RW202",
    "RW206",
    "RW319",
)
"""how reasons begin for sites that differ from calls, or for refusals, that name what they are about"""


def can_be_grouped(call: Call, model: nn.Module) -> bool:
    """The condition of the rule: up to 32 groups divide the channels."""
    if call.operation != "BatchNorm2d":
        return False
    channels: Any = model.get_submodule(call.path).num_features
    return bool(channels % min(32, channels) == 0)


Places = Callable[[Call, nn.Module], bool]

PLACES: Mapping[str, Places] = {
    "batchnorm_after_conv.rw": lambda call, _: call.operation == "Conv2d",
    "dropout_after_activations.rw": lambda call, _: call.operation in ACTIVATIONS,
    "residual_operand.rw": lambda call, _: call.operation == "add" and operand_is_value(call),
    "groupnorm.rw": can_be_grouped,
    "swap_activations.rw": lambda call, _: call.operation in ("ReLU", "ReLU6"),
}
"""rule file -> which real calls are its places"""


@dataclass(frozen=True)
class Outcome:
    """What one rule file made of one model, beside what the model really calls."""

    model: str
    rules: str
    expected: int
    sites: int
    ran: int
    """calls of new layers in one run of the result"""
    reason: str = ""
    """why sites and calls are not the same; empty: they are"""
    opaque: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        return not self.reason

    @property
    def is_explained(self) -> bool:
        """Whether all that is not equal lies in forwards that were not captured, which the report names."""
        return self.reason.startswith(EXPLAINED)


@contextlib.contextmanager
def boxes_without_compiled_code() -> Iterator[None]:
    """Detection models call two operators that are compiled; stand-ins with the right shapes let them run here."""
    import torchvision

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        return scores.argsort(descending=True)[:4]

    def roi_align(
        features: Tensor, boxes: list[Tensor], output_size: tuple[int, int], *_: object, **__: object
    ) -> Tensor:
        rows = sum(len(one) for one in boxes) if isinstance(boxes, list) else len(boxes)
        return features.mean((0, 2, 3)).view(1, -1, 1, 1).expand(rows, -1, *output_size).contiguous()

    owners: tuple[tuple[Any, str, Any], ...] = (
        (torchvision.ops.boxes, "nms", nms),
        (torchvision.ops.poolers, "roi_align", roi_align),
    )
    plain = [getattr(owner, name) for owner, name, _ in owners]
    for owner, name, stand_in in owners:
        setattr(owner, name, stand_in)
    try:
        yield
    finally:
        for (owner, name, _), function in zip(owners, plain, strict=True):
            setattr(owner, name, function)


def build(spec: str) -> nn.Module:
    """With first weights, in eval mode."""
    family, _, name = spec.partition(":")
    model = make(family, name).eval()
    transform: Any = getattr(model, "transform", None)
    if hasattr(transform, "min_size") and not getattr(transform, "fixed_size", None):
        transform.min_size, transform.max_size = (64,), 128  # detection models enlarge images to 800 otherwise
    return model


def outcomes(spec: str, rules: Mapping[str, Places] = PLACES) -> Iterator[Outcome]:
    """Every rule file on one model; the model is run as it was, and the result of each is run as well."""
    with warnings.catch_warnings(), boxes_without_compiled_code():
        warnings.simplefilter("ignore")
        model = build(spec)
        found = probe(model, batch=2)  # a GroupNorm refuses one value per group
        if found.inputs is None:
            why = found.tried[-1][1] if found.tried else "no arguments to try"
            yield from (Outcome(spec, name, 0, 0, 0, f"no inputs: {why}") for name in rules)
            return
        args, kwargs = found.inputs
        yield from outcomes_of(spec, model, kwargs if kwargs else args, rules)


def outcomes_of(spec: str, model: nn.Module, inputs: Any, rules: Mapping[str, Places] = PLACES) -> Iterator[Outcome]:
    """Every rule file on one model, called with `inputs`: a tuple, or a dict of arguments by name."""
    try:  # on copies: a model that keeps what its first call computes is given to the rules as it was
        real = calls(copy.deepcopy(model), inputs)
        runs = runs_of(copy.deepcopy(model), *(((), inputs) if isinstance(inputs, dict) else (inputs, {})))
    except Exception as error:
        yield from (Outcome(spec, name, 0, 0, 0, f"does not run: {error}"[:200]) for name in rules)
        return
    for name, is_place in rules.items():
        yield _outcome(spec, name, model, inputs, real, runs, is_place)


def _outcome(
    spec: str, name: str, model: nn.Module, inputs: Any, real: list[Call], runs: Counter[str], is_place: Places
) -> Outcome:
    made = {"groupnorm.rw": ("GroupNorm",), "swap_activations.rw": ("SiLU",)}.get(name, ())
    wanted = [call for call in real if is_place(call, model)]
    return compared(spec, name, RULES / name, model, inputs, wanted, runs, made=made, real=real)[0]


def compared(
    spec: str,
    name: str,
    rules: Any,
    model: nn.Module,
    inputs: Any,
    wanted: list[Call],
    runs: Counter[str],
    *,
    made: tuple[str, ...] = (),
    real: Sequence[Call] = (),
) -> tuple[Outcome, nn.Module | None]:
    """What one rule makes of a model beside the calls that are its places, and the result.

    Args:
        spec: what the model is called.
        name: what the rules are called.
        rules: one clause.
        model: as it was; it is not changed.
        inputs: what it is run on.
        wanted: its real calls that are places of the rule.
        runs: how often each of its modules runs.
        made: operations of what a replacement makes; empty: calls of layers at new paths are counted.
        real: all real calls, where `made` is given.

    """
    expected = len(wanted)
    options: dict[str, Any] = {}
    try:
        try:
            result = apply_rules(model, rules)
        except RewriteError as error:
            if error.code not in ("RW202", "RW203", "RW206"):
                raise
            options = {"example_inputs": inputs}  # the remedy that the error names
            result = apply_rules(model, rules, **options)
        report = get_report(result)
        assert report is not None
        if not options and any(warning.help == EXAMPLE_HELP for warning in report.warnings):
            options = {"example_inputs": inputs}  # the remedy that the warning names
            result = apply_rules(model, rules, **options)
    except RewriteError as error:
        if error.code in ("RW301", "RW201") and not expected:
            return Outcome(spec, name, 0, 0, 0), None
        hidden = _hidden_in(model)
        if error.code == "RW301" and all(_is_function(call) and call.path in hidden for call in wanted):
            why = f"functions in forwards that are not captured: {hidden[wanted[0].path]}"
        else:
            why = f"{error.code}: {error.diagnostics[0].message}"
        return Outcome(spec, name, expected, 0, 0, why), None
    report = get_report(result)
    assert report is not None
    known = {path for path, _ in model.named_modules(remove_duplicate=False)}
    (clause,) = report.clauses
    try:
        after = calls(result, inputs)
    except Exception as error:
        return Outcome(spec, name, expected, len(clause.sites), 0, f"the result does not run: {error}"[:200]), result
    if made:
        ran = sum(call.operation in made for call in after) - sum(call.operation in made for call in real)
    else:
        ran = sum(call.is_module and call.path not in known for call in after)
    opaque = _hidden_in(model, options.get("example_inputs"))
    reason = ""
    if not expected == len(clause.sites) == ran:
        changed = Counter(call.path for call in after if call.is_module and call.path not in known)
        reason = _why(wanted, clause.sites, opaque, ran, runs, changed)
        if reason.startswith("functions in") and not any("is left out" in one.message for one in report.warnings):
            reason = f"UNEXPLAINED: left out without a word: {reason}"
    return Outcome(spec, name, expected, len(clause.sites), ran, reason, opaque), result


def _hidden_in(model: nn.Module, inputs: Any = None) -> Mapping[str, str]:
    """Path of each forward in which functions are not seen -> why."""
    graph = backend_for(model).read(model, example=example_of(inputs)).graph
    return {**graph.closed, **graph.opaque}


def runs_of(model: nn.Module, args: Any, kwargs: Any) -> Counter[str]:
    """Path of a module -> how often one run of the model calls it."""
    runs: Counter[str] = Counter()

    def hook(path: str) -> Any:
        return lambda *_: runs.update([path])

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules()]
    with torch.no_grad():
        model(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return runs


def _why(
    wanted: list[Call],
    sites: Any,
    opaque: Mapping[str, str],
    ran: int,
    runs: Counter[str],
    changed: Counter[str],
) -> str:
    """Why sites and calls differ, as far as forwards that were not captured explain it.

    Args:
        wanted: the calls that are places of the rule.
        sites: those of the report.
        opaque: path of each forward that was not captured -> why.
        ran: calls of new layers.
        runs: how often each module runs.
        changed: path of a new layer -> how often one run of the result calls it.

    """
    edited = Counter(dict.fromkeys(opaque, 0))
    for path, count in changed.items():
        edited[path.rpartition(".")[0]] += count
    hidden = []
    for path in opaque:
        functions = [call for call in wanted if _is_function(call) and call.path == path]
        hidden += functions[edited[path] :]
    shown = [call for call in wanted if call not in hidden]
    idle = [
        site for site in sites if _is_inside(site.path, opaque) and not (runs[site.path] or _ran(site.path, changed))
    ]
    busy = [site for site in sites if site not in idle]
    # A call in the code of a forward is one site, however often that runs.
    in_code = [site for site in busy if site.path not in runs and site.path.rpartition(".")[0] in opaque]
    loose = [call for call in shown if not (_is_function(call) and call.path in opaque)]
    one_each = sum(1 / _times(call, opaque, runs) for call in loose) + len(in_code)
    if abs(one_each - len(busy)) > 1e-6 or ran != len(shown):
        theirs = Counter(call.path for call in wanted)
        ours = Counter(site.path.partition("@")[0].rpartition(".")[0] for site in sites)
        mine = Counter(site.path.partition("@")[0] for site in sites)
        unlike = [path for path in theirs if theirs[path] != mine.get(path, 0) and theirs[path] != ours.get(path, 0)]
        return f"UNEXPLAINED: {len(shown)} shown, {one_each:g} by layer, at {unlike[:3]}"
    if hidden:
        return f"functions in forwards that are not captured: {opaque[hidden[0].path]}"
    if idle:
        return "a forward that is not captured calls some of its layers for other inputs only; every call was reached"
    return "a forward that is not captured calls layers in a loop, which are one site each; every call was reached"


def _is_function(call: Call) -> bool:
    """Whether it is a function, or a layer that a forward makes for one call."""
    return not call.is_module or not call.path


def _ran(path: str, changed: Iterable[str]) -> bool:
    """Whether a layer was called that was made for a call of a function in the code of a forward."""
    scope, _, name = path.replace("@", "_").rpartition(".")
    around = f"{scope}." if scope else ""
    return any(new.startswith((f"{around}{name}_", f"{around}before_{name}_")) for new in changed)


def _is_inside(path: str, opaque: Mapping[str, str]) -> bool:
    return any(path.startswith(f"{around}.") or not around for around in opaque)


def _times(call: Call, opaque: Mapping[str, str], runs: Counter[str]) -> int:
    """How often the nearest forward that was not captured calls what the call lies in: all these are one site."""
    path = call.path
    way = [".".join(path.split(".")[:number]) for number in range(path.count(".") + 2)] if path else [""]
    around = [number for number, part in enumerate(way) if part in opaque and not (call.is_module and part == path)]
    if not around:
        return 1
    inside = next((part for part in way[around[-1] + 1 :] if runs[part]), path)
    return max(runs[inside], 1)


def main() -> None:
    """`python tests/zoo.py torchvision:resnet18 ...`: a line for each that is not equal."""
    torch.set_num_threads(1)
    equal = total = 0
    for pattern in sys.argv[1:]:
        for spec in find_builders(pattern):
            start = time.perf_counter()
            for one in outcomes(spec):
                total += 1
                equal += one.is_equal
                if not one.is_equal:
                    print(f"{one.model} {one.rules} calls {one.expected} sites {one.sites} ran {one.ran}: {one.reason}")
            print(f"{spec} {time.perf_counter() - start:.1f} s; {equal} of {total} equal", file=sys.stderr, flush=True)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
