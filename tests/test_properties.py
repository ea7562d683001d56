"""What holds for every network and every rule.

One check, `hold`, is run on many random pairs. A rule may be refused only for a reason that the pair really gives, and
only so often that the check cannot become empty.
"""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis
import pytest
import torch
from counting import Call, arguments, calls, tensors
from hypothesis import strategies as st
from random_rules import KINDS, Rule, rules
from strategies import Network, networks
from torch import Tensor, nn

from rewrite import RewriteError, Rules, apply_rules, get_report, plan_rules

INSERTS = ("after", "before", "between")
OTHERS = ("remove", "replace", "parameters")


@st.composite
def pairs(draw: Any, kinds: Sequence[str], traps: bool = False) -> tuple[Network, Rule]:
    """A random network and a random rule for it."""
    network = draw(networks(traps=traps))
    return network, draw(rules(network, kinds))


@pytest.mark.parametrize("kinds", [INSERTS, OTHERS], ids=["insert", "edit"])
def test_pairs(kinds: tuple[str, ...]) -> None:
    outcomes = run(30, kinds, seed=None)
    assert outcomes["applied"] >= 15, outcomes


def test_pairs_where_a_forward_cannot_be_captured() -> None:
    outcomes = run(20, tuple(KINDS), seed=None, traps=True)
    assert outcomes["applied"] >= 8, outcomes


@pytest.mark.long
@pytest.mark.parametrize(
    ("kinds", "traps", "share"),
    [(INSERTS, False, 500), (OTHERS, False, 250), (tuple(KINDS), True, 250)],
    ids=["insert", "edit", "trapped"],
)
def test_a_thousand_pairs(kinds: tuple[str, ...], traps: bool, share: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Another seed: `REWRITE_SEED=7 make test-long`."""
    seed = int(os.environ.get("REWRITE_SEED", "20"))
    began = time.perf_counter()
    outcomes = run(share, kinds, seed=seed, traps=traps)
    seconds = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n{sum(outcomes.values())} pairs, seed {seed}, {seconds:.0f} s: {dict(outcomes.most_common())}")
    assert sum(outcomes.values()) >= share
    assert outcomes["applied"] >= share // 2, outcomes


def run(count: int, kinds: Sequence[str], seed: int | None, traps: bool = False) -> Counter[str]:
    """Hold `count` pairs; what became of them."""
    outcomes: Counter[str] = Counter()

    def each(pair: tuple[Network, Rule]) -> None:
        outcomes[hold(*pair)] += 1

    test = hypothesis.given(pairs(kinds, traps))(each)
    # the fast profile draws the same pairs every time; a seed draws others, the same for the same seed
    if seed is not None:
        test = hypothesis.seed(seed)(test)
    hypothesis.settings(max_examples=count, derandomize=seed is None)(test)()
    return outcomes


def hold(network: Network, rule: Rule) -> str:
    """Apply `rule` and check all that must hold; `applied`, or the code of the refusal."""
    model = network.build()
    found = calls(model, network.inputs())
    sites = rule.sites(found)
    before = Snapshot(model, network)
    args, kwargs = arguments(network.inputs())
    example = kwargs or args
    try:
        planned = plan_rules(model, Rules(rule.text), example_inputs=example)
        result = apply_rules(model, Rules(rule.text), example_inputs=example)
    except RewriteError as error:
        before.check_untouched()
        check_refusal(error, network, rule, found)
        return error.code
    before.check_untouched()
    report = get_report(result)
    assert report.sites == planned.report.sites
    check_sites(report, network, rule, sites, found, result)
    check_face(model, result)
    check_keys(model, result, rule, report)
    check_outputs(network, model, result, rule)
    check_gradients(network, model, result, rule)
    check_second_application(network, result, rule)
    check_copies(network, result)
    return "applied"


class Snapshot:
    """All of a model that a rule must not change."""

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.model, self.network = model, network
        self.outputs = outputs(model, network)
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
        assert same(self.outputs, outputs(self.model, self.network))


def check_refusal(error: RewriteError, network: Network, rule: Rule, found: Sequence[Call]) -> None:
    """A refusal is right only for what is really so."""
    sites = rule.sites(found)
    match error.code:
        case "RW301":
            # a function in a forward that cannot be captured is no site; a layer always is one
            reachable = [call for call in sites if call.is_module or not network.traps]
            assert not reachable or (network.traps and "between" in rule.text), f"{len(sites)} sites\n{error}"
        case "RW206":
            assert network.traps, error
        case "RW310" | "RW311":
            assert not rule.preserves, error
            assert rule.action in ("insert", "replace", "remove"), error
        case "RW312" | "RW313":
            assert rule.action in ("replace", "reset", "remove", "freeze", "set"), error
        case "RW320":
            assert rule.action in ("remove", "replace") or network.traps, error
        case _:
            pytest.fail(f"refused without a reason that is known here\n{error}")


def check_sites(
    report: Any, network: Network, rule: Rule, sites: Sequence[Call], found: Sequence[Call], result: nn.Module
) -> None:
    """As many sites as the oracle counts, and each one is executed."""
    if rule.action not in ("insert", "remove", "replace"):
        return
    acted = report.clauses[0].sites
    if not network.traps:
        assert len(acted) == len(sites), (len(acted), len(sites))
    layers = [call for call in sites if call.is_module]
    if "between" not in rule.text:
        assert len(layers) <= len(acted) <= len(sites)
    before = Counter(call.operation for call in found)
    after = Counter(call.operation for call in calls(result, network.inputs()))
    expected = Counter(before)
    expected.update({name: rule.inserted.count(name) * len(acted) for name in rule.inserted})
    if rule.removed:
        expected.subtract({rule.removed: len(acted)})
    assert +expected == +after


def check_face(model: nn.Module, result: nn.Module) -> None:
    """The result is what the model was: class, signature, modes."""
    assert result is not model
    assert isinstance(result, type(model))
    assert inspect.signature(result.forward) == inspect.signature(model.forward)
    assert not any(module.training for module in result.modules())


def check_keys(model: nn.Module, result: nn.Module, rule: Rule, report: Any) -> None:
    """Old keys stay, with the very same tensors, unless the rule is about them."""
    old, new = model.state_dict(), result.state_dict()
    assert set(report.new_keys) == set(new) - set(old)
    assert set(report.removed_keys) == set(old) - set(new)
    if rule.action not in ("remove", "replace"):
        assert set(old) <= set(new)
    if rule.action in ("reset", "replace"):
        return
    for key in set(old) & set(new):
        assert torch.equal(old[key], new[key])
        assert old[key].data_ptr() == new[key].data_ptr()


def check_outputs(network: Network, model: nn.Module, result: nn.Module, rule: Rule) -> None:
    """Same structure, shapes and dtypes; the same bits where the rule changes no value."""
    was, now = outputs(model, network), outputs(result, network)
    assert structure(was) == structure(now)
    if rule.preserves:
        assert same(was, now)
    result = copy.deepcopy(result).train()
    assert structure(was) == structure(outputs(result, network))


def check_gradients(network: Network, model: nn.Module, result: nn.Module, rule: Rule) -> None:
    """Every parameter that received a gradient still does, unless it was frozen."""
    had, has = reached(model, network), reached(result, network)
    if had is None:
        return
    if has is None:
        # a layer that keeps its input for the backward pass now stands in front of an in-place update
        assert network.in_place
        assert not rule.preserves
        return
    frozen = {path for path, value in result.named_parameters() if not value.requires_grad}
    gone = {path for path, _ in model.named_parameters()} - {path for path, _ in result.named_parameters()}
    if rule.action != "freeze":
        assert not frozen
    if rule.action not in ("remove", "replace"):
        assert not gone
    assert had - frozen - gone <= has


def check_second_application(network: Network, result: nn.Module, rule: Rule) -> None:
    """The same rules again change nothing and say so."""
    args, kwargs = arguments(network.inputs())
    again = apply_rules(result, Rules(rule.text), example_inputs=kwargs or args)
    report = get_report(again)
    assert [clause.skipped for clause in report.clauses] == [True]
    assert "RW401" in {warning.code for warning in report.warnings}
    assert same(result.state_dict(), again.state_dict())
    assert [path for path, _ in result.named_modules()] == [path for path, _ in again.named_modules()]
    assert same(outputs(result, network), outputs(again, network))


def check_copies(network: Network, result: nn.Module) -> None:
    """The result lives on: it can be copied and pickled."""
    expected = outputs(result, network)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same(result.state_dict(), twin.state_dict())
        assert same(expected, outputs(twin, network))
        assert not shares_storage(result, twin)


def outputs(model: nn.Module, network: Network) -> Any:
    """What the model returns, in the mode that it is in; random numbers start from the same state every time."""
    args, kwargs = arguments(network.inputs())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        return model(*args, **kwargs)


def reached(model: nn.Module, network: Network) -> set[str] | None:
    """Paths of the parameters that a gradient reaches in training mode; None: an in-place update forbids it."""
    twin = copy.deepcopy(model).train()
    args, kwargs = arguments(network.inputs())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        sums = [value.sum() for _, value in tensors(twin(*args, **kwargs)) if value.requires_grad]
        try:
            if sums:
                torch.stack(sums).sum().backward()
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
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
        case _:
            return value


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit; NaN equals NaN."""
    left, right = list(tensors(one)), list(tensors(other))
    return [place for place, _ in left] == [place for place, _ in right] and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for (_, a), (_, b) in zip(left, right, strict=True)
    )


def shares_storage(one: nn.Module, other: nn.Module) -> bool:
    left = {value.data_ptr() for value in one.state_dict().values() if value.numel()}
    return any(value.data_ptr() in left for value in other.state_dict().values() if value.numel())
