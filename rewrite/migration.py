"""Old checkpoints and optimizers for a rewritten model: which tensors have another name now, and what is to follow."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from rewrite.backends.backend import Size
from rewrite.report import Report

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

AnyOptimizer = TypeVar("AnyOptimizer", bound="Optimizer")


def migrate(state: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """A state_dict of the model as it was, with the names that its tensors have in the rewritten model.

    What the rules took away, drew anew or computed, and what has another shape now, is left out: it begins as the rules
    made it.

    Args:
        state: a checkpoint of the given model; it is not changed.
        report: what `get_report(model)` returns for the rewritten one.

    Example:
        >>> from torch import nn
        >>> from rewrite import Rules, apply_rules, get_report, migrate
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> checkpoint = model.state_dict()
        >>> adapted = apply_rules(model, Rules("wrap Linear with LoRA(rank=1)"))
        >>> sorted(migrate(checkpoint, get_report(adapted)))
        ['0.base_layer.bias', '0.base_layer.weight']
        >>> adapted.load_state_dict(adapted.state_dict() | migrate(checkpoint, get_report(adapted)))
        <All keys matched successfully>

    """
    gone = {*report.removed_keys, *report.resized_keys} - report.moved_keys.keys() | {*report.renewed_keys}
    return {report.moved_keys.get(key, key): value for key, value in state.items() if key not in gone}


def migrate_optimizer(optimizer: AnyOptimizer, old_model: nn.Module, new_model: nn.Module) -> AnyOptimizer:
    """An optimizer for the rewritten model: the same class, groups and options, and the state of what was kept.

    A parameter is kept if it is the same tensor, or has the same shape under the same key, or under the key that the
    report of `new_model` moves it to. What the rules drew anew or computed begins without state. What no group held is
    still held by none, and what is gone is dropped; a group that has lost all stays, empty.

    A new parameter comes into the group of the nearest one that was there before: in the deepest module that holds
    both, the last one in front, else the next behind; of those of one layer, a matrix goes by a matrix and a vector by
    a vector. Where the nearest one learns and no group holds it, the new one is left out too: another optimizer has it.

    Hooks and schedulers belong to the given optimizer, and are to be made again for the new one.

    Args:
        optimizer: holds parameters of `old_model`. Neither it nor its state is changed, and no state is shared.
        old_model: the model that rules were applied to.
        new_model: the rewritten one, as `apply_rules` returns it. A copy of it has no report: key and shape decide.

    Raises:
        ValueError: the optimizer holds parameters that `old_model` has not, or its class cannot hold the new ones.

    Example:
        >>> import torch
        >>> from rewrite import Rules, apply_rules, migrate_optimizer
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        >>> changed = apply_rules(model, Rules("after ReLU: insert LayerNorm"))
        >>> optimizer = migrate_optimizer(optimizer, model, changed)
        >>> [tuple(parameter.shape) for parameter in optimizer.param_groups[0]["params"]]
        [(2, 4), (2,), (2,), (2,)]

    """
    from rewrite.backends.torch.optimizers import over
    from rewrite.backends.torch.wrapping import unwrap
    from rewrite.engine import get_report

    report = get_report(new_model)
    old = unwrap(old_model)
    keys = {key: key for key, _ in old.named_parameters(remove_duplicate=False)}
    return over(optimizer, old, unwrap(new_model), migrate(keys, report) if report is not None else keys)


def moved_keys(before: Size, after: Size) -> dict[str, str]:
    """Key -> new key of each tensor that is no longer under its key, and under a new one instead."""
    arrived: dict[object, list[str]] = {}
    for key, numbers in after.numbers.items():
        if before.numbers.get(key) != numbers:
            arrived.setdefault(numbers, []).append(key)
    return {
        key: max(arrived[numbers], key=lambda new: _likeness(key, new))
        for key, numbers in before.numbers.items()
        if numbers in arrived and after.numbers.get(key) != numbers
    }


def renewed_keys(before: Size, after: Size, moved: Mapping[str, str]) -> list[str]:
    """Keys of tensors under which, or where they moved to, there are other numbers now."""
    return [
        key
        for key, numbers in before.numbers.items()
        if after.numbers.get(moved.get(key, key), numbers) != numbers
        and not key.endswith("_extra_state")  # no tensor, and only known by its module, which may be a copy now
    ]


def _likeness(old: str, new: str) -> tuple[bool, int, int]:
    """How likely it is that one of several names of a tensor has become the other."""
    ours, theirs = old.split("."), new.split(".")
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
    return ours[-1] == theirs[-1], common, -len(theirs)


def compose(first: Mapping[str, str], then: Mapping[str, str]) -> dict[str, str]:
    """Moves of keys that follow each other, as one; a name that nothing moved from is itself."""
    return {**then, **{old: then.get(new, new) for old, new in first.items()}}
