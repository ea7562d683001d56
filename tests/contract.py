"""What must hold of one model and one rule, whatever they are.

`hold` applies the rule and checks all of it against plain torch and against the oracle's count of real calls.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pytest
import torch
from counting import Call, arguments, calls, tensors
from random_rules import Rule
from torch import Tensor, nn

from rewrite import Report, RewriteError, Rules, apply_rules, get_report, plan_rules
from rewrite.backends.torch.own_layers import DropPath


class Subject(Protocol):
    """A model and its inputs: a random `Network` or a tiny `Trap`."""

    in_place: bool
    shares_blocks: bool
    optional: bool
    traps: frozenset[str]

    def build(self) -> nn.Module: ...

    def inputs(self) -> tuple[Tensor, ...] | dict[str, Tensor]: ...


def hold(subject: Subject, rule: Rule) -> str:
    """Apply `rule` and check all that must hold; `applied`, or the code of the refusal."""
    model = subject.build()
    found = calls(model, subject.inputs())
    sites = rule.sites(found)
    before = Snapshot(model, subject)
    args, kwargs = arguments(subject.inputs())
    example = kwargs or args
    try:
        planned = plan_rules(model, Rules(rule.text), example_inputs=example)
        result = apply_rules(model, Rules(rule.text), example_inputs=example)
    except RewriteError as error:
        before.check_untouched()
        check_refusal(error, subject, rule, found)
        return error.code
    before.check_untouched()
    report = get_report(result)
    assert report.sites == planned.report.sites
    check_sites(report, subject, rule, sites, found, result)
    check_face(model, result)
    check_keys(model, result, rule, report)
    check_outputs(subject, model, result, rule)
    check_gradients(subject, model, result, rule)
    check_second_application(subject, result, rule)
    check_copies(subject, result)
    return "applied"


class Snapshot:
    """All of a model that a rule must not change."""

    def __init__(self, model: nn.Module, subject: Subject) -> None:
        self.model, self.subject = model, subject
        self.outputs = outputs(model, subject)
        self.state = {key: value.clone() for key, value in model.state_dict().items()}
        self.facts = self._facts()
        self.generator = torch.random.get_rng_state()

    def _facts(self) -> list[Any]:
        """Everything by identity, module by module."""
        facts: list[Any] = []
        for path, module in self.model.named_modules(remove_duplicate=False):
            hooks = [len(value) for name, value in sorted(vars(module).items()) if name.endswith("_hooks") and value]
            attributes = sorted(name for name in vars(module) if not name.startswith("__"))
            facts.append((path, id(module), type(module), type(module).forward, module.training, hooks, attributes))
        facts += [(path, id(value), value.requires_grad) for path, value in self.model.named_parameters()]
        return facts

    def check_untouched(self) -> None:
        assert torch.equal(self.generator, torch.random.get_rng_state())
        assert self.facts == self._facts()
        assert same(self.state, self.model.state_dict())
        assert same(self.outputs, outputs(self.model, self.subject))


def check_refusal(error: RewriteError, subject: Subject, rule: Rule, found: Sequence[Call]) -> None:
    """A refusal is right only for what is really so."""
    sites = rule.sites(found)
    match error.code:
        case "RW301":
            # a function in a forward that cannot be captured is no site; a layer always is one
            reachable = [call for call in sites if call.is_module or not subject.traps]
            assert not reachable or (subject.traps and rule.text.startswith(("between", "match"))), (
                f"{len(sites)} sites\n{error}"
            )
        case "RW206":
            assert subject.traps, error
        case "RW204":  # a number is what some operator has there, in a forward that the drawn rule did not look at
            assert subject.traps, error
            named = re.search(r"(\w+)@(\d+)", rule.text)
            assert named is not None, error
            alike = [call for call in found if call.operation == named[1]]
            not_taken = named[1] == "mul" and "* 0.0" in subject.source  # in a branch that the oracle does not see run
            assert not_taken or any(len(call.operands) <= int(named[2]) for call in alike), error
        case "RW310" | "RW311":
            assert not rule.preserves, error
            assert rule.action in ("insert", "replace", "remove"), error
        case "RW313" if rule.action == "insert":
            # one forward serves several calls of its module, and the rule means some of them only
            assert subject.shares_blocks or subject.optional or subject.traps, error
            assert rule.picks, error
        case "RW313":
            assert rule.action in ("replace", "reset", "remove", "freeze", "set", "wrap", "fold", "tap"), error
        case "RW320":
            assert rule.action in ("remove", "replace", "wrap", "fold") or subject.traps, error
        case "RW102":
            assert rule.action == "replace", error
            assert any(not call.is_module for call in sites), error  # a function has weights and no sizes of its own
        case "RW312":
            assert rule.action == "fold", error
        case "RW319":  # a layer behind a branch that this input does not take, and of a shape that a run only tells
            assert subject.traps, error
            assert not rule.preserves, error
        case _:
            pytest.fail(f"refused without a reason that is known here\n{error}")


def check_sites(
    report: Report, subject: Subject, rule: Rule, sites: Sequence[Call], found: Sequence[Call], result: nn.Module
) -> None:
    """As many sites as the oracle counts, and each one is executed."""
    if rule.action not in ("insert", "remove", "replace"):
        return
    acted = len(report.clauses[0].sites)
    before = Counter(call.operation for call in found)
    after = Counter(call.operation for call in calls(result, subject.inputs(), {DropPath: "DropPath"}))
    if not subject.traps:
        assert acted == len(sites)
        expected = before + Counter({name: rule.inserted.count(name) * acted for name in rule.inserted})
        expected.subtract({rule.removed: acted})
        if rule.action == "remove":  # a forward that may not be changed calls an Identity instead
            assert after["Identity"] <= before["Identity"] + acted
            del expected["Identity"], after["Identity"]
        assert +expected == after
        return
    # where a forward is not captured, what stands in it is one site however often it is called, and some of it is none
    if not rule.picks:
        assert acted >= len({call.path for call in sites if call.is_module})
        for name in set(rule.inserted):
            executed = after[name] - before[name] + (len(sites) if name == rule.removed else 0)
            layers = sum(call.is_module for call in sites)
            assert layers <= executed / rule.inserted.count(name) <= len(sites)
            if not any(warning.code == "RW405" for warning in report.warnings):  # nothing is left out without a word
                assert executed / rule.inserted.count(name) == len(sites)


def check_face(model: nn.Module, result: nn.Module) -> None:
    """The result is what the model was: class, signature, modes."""
    assert result is not model
    assert isinstance(result, type(model))
    assert inspect.signature(result.forward) == inspect.signature(model.forward)
    assert not any(module.training for module in result.modules())
    assert not set(model.modules()) & set(result.modules())  # or `train()` of the one would reach the other


def check_keys(model: nn.Module, result: nn.Module, rule: Rule, report: Report) -> None:
    """Old keys stay, with the very same tensors, unless the rule is about them."""
    old, new = model.state_dict(), result.state_dict()
    assert set(report.new_keys) == set(new) - set(old)
    assert set(report.removed_keys) == set(old) - set(new)
    if rule.action == "wrap":  # nothing is lost: each tensor is under its key, or under the one it moved to
        moved = {report.moved_keys.get(key, key): value for key, value in old.items()}
        assert len(moved) == len(old)
        old = moved
    if rule.action not in ("remove", "replace", "fold"):
        assert set(old) <= set(new)
    if rule.action in ("reset", "replace", "fold"):
        return
    for key in set(old) & set(new):
        assert torch.equal(old[key], new[key])
        assert old[key].data_ptr() == new[key].data_ptr()


def check_outputs(subject: Subject, model: nn.Module, result: nn.Module, rule: Rule) -> None:
    """Same structure, shapes and dtypes; the same bits where the rule changes no value."""
    was, now = outputs(model, subject), outputs(result, subject)
    assert structure(was) == structure(now)
    if rule.preserves:
        # where no gradient is needed torch may take another kernel, so a frozen layer is the same up to rounding
        assert same(was, now, rounding={"freeze": 1e-5, "fold": 1e-3}.get(rule.action, 0))
    was, now = (outputs(copy.deepcopy(one).train(), subject) for one in (model, result))
    assert structure(was) == structure(now)


def check_gradients(subject: Subject, model: nn.Module, result: nn.Module, rule: Rule) -> None:
    """Every parameter that received a gradient still does, unless it was frozen."""
    had, has = reached(model, subject), reached(result, subject)
    if had is None:
        return
    if has is None:
        # an in-place update now meets a value that a new layer keeps for its backward pass, or a piece of another one
        assert subject.in_place
        assert not rule.preserves
        return
    frozen = {path for path, value in result.named_parameters() if not value.requires_grad}
    gone = {path for path, _ in model.named_parameters()} - {path for path, _ in result.named_parameters()}
    if rule.action != "freeze":
        assert not frozen
    if rule.action not in ("remove", "replace", "wrap", "fold"):
        assert not gone
    if rule.action == "fold" and gone:
        return  # a layer that had no bias has one now
    if rule.action == "replace":
        # a layer stands for a function now that had weights of the model's own, and tied layers each have their own
        gone |= {path for path in had if re.fullmatch(r"(.*\.)?weight\d+", path)}
        places = Counter(map(id, dict(model.named_parameters(remove_duplicate=False)).values()))
        gone |= {path for path, value in model.named_parameters() if places[id(value)] > 1}
    assert had - frozen - gone <= has


def check_second_application(subject: Subject, result: nn.Module, rule: Rule) -> None:
    """The same rules again change nothing and say so."""
    args, kwargs = arguments(subject.inputs())
    again = apply_rules(result, Rules(rule.text), example_inputs=kwargs or args)
    report = get_report(again)
    assert [clause.skipped for clause in report.clauses] == [True]
    assert "RW401" in {warning.code for warning in report.warnings}
    assert same(result.state_dict(), again.state_dict())
    assert [path for path, _ in result.named_modules()] == [path for path, _ in again.named_modules()]
    assert same(outputs(result, subject), outputs(again, subject))


def check_copies(subject: Subject, result: nn.Module) -> None:
    """The result lives on: it can be copied and pickled."""
    expected = outputs(result, subject)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same(result.state_dict(), twin.state_dict())
        assert same(expected, outputs(twin, subject))
        assert not shares_storage(result, twin)
    args, kwargs = arguments(subject.inputs())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        assert same(expected, result(*args, **kwargs))


def outputs(model: nn.Module, subject: Subject) -> Any:
    """What the model returns, in the mode that it is in; random numbers start from the same state every time.

    A copy is run that shares the parameters: some models change a state of their own in every run.
    """
    parameters: dict[int, Any] = {id(value): value for value in model.parameters()}
    args, kwargs = arguments(subject.inputs())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        return copy.deepcopy(model, parameters)(*args, **kwargs)


def reached(model: nn.Module, subject: Subject) -> set[str] | None:
    """Paths of the parameters that a gradient reaches in training mode; None: an in-place update forbids it."""
    twin = copy.deepcopy(model).train()
    args, kwargs = arguments(subject.inputs())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        try:
            sums = [value.sum() for _, value in tensors(twin(*args, **kwargs)) if value.requires_grad]
            if sums:
                torch.stack(sums).sum().backward()
        except RuntimeError as error:
            if not re.search("modified by an inplace operation|view and is being modified inplace", str(error)):
                raise
            return None
    return {path for path, value in twin.named_parameters() if value.grad is not None}


def structure(value: Any) -> Any:
    """Containers, shapes and dtypes."""
    match value:
        case Tensor():
            return tuple(value.shape), value.dtype
        case Mapping():
            return type(value), {key: structure(item) for key, item in value.items()}
        case tuple() | list():
            return type(value), [structure(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return type(value), {one.name: structure(getattr(value, one.name)) for one in dataclasses.fields(value)}
        case _:
            return value


def same(one: Any, other: Any, rounding: float = 0) -> bool:
    """Equal bit for bit, or up to `rounding`; NaN equals NaN."""
    left, right = list(tensors(one)), list(tensors(other))
    return [place for place, _ in left] == [place for place, _ in right] and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=rounding, atol=rounding, equal_nan=True)
        for (_, a), (_, b) in zip(left, right, strict=True)
    )


def shares_storage(one: nn.Module, other: nn.Module) -> bool:
    left = {value.data_ptr() for value in one.state_dict().values() if value.numel()}
    return any(value.data_ptr() in left for value in other.state_dict().values() if value.numel())
