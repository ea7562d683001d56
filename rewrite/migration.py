"""Old checkpoints for a rewritten model: which tensors have another name now, and a state_dict renamed so."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from rewrite.backends.backend import Size
from rewrite.report import Report


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
