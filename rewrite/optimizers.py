"""An optimizer that the given model has already, made again for the rewritten one."""

from __future__ import annotations

from typing import Any, TypeVar

from rewrite.engine import get_report
from rewrite.migration import migrate

Optimizer = TypeVar("Optimizer")


def migrate_optimizer(optimizer: Optimizer, old_model: Any, new_model: Any) -> Optimizer:
    """An optimizer for the rewritten model: the same class, groups and options, and the state of what was kept.

    A parameter is kept if it is the same tensor, or has the same shape under the same key, or under the key that the
    report of `new_model` moves it to. What the rules drew anew or computed begins without state. What no group held is
    still held by none, and what is gone is dropped; a group that has lost all stays, empty.

    A new parameter comes into the group of the nearest one that was there before: in the deepest module that holds
    both, the last one in front, else the next behind; of those of one layer, a matrix goes by a matrix and a vector by
    a vector. Where the nearest one learns and no group holds it, the new one is left out too: another optimizer has it.

    Hooks and schedulers belong to the given optimizer, and are to be made again for the new one.

    Args:
        optimizer: of PyTorch, over parameters of `old_model`. It and its state are not changed, and nothing is shared.
        old_model: the model that rules were applied to.
        new_model: the rewritten one, as `apply_rules` returns it. A copy of it has no report: key and shape decide.

    Raises:
        TypeError: it is no optimizer of PyTorch. That of a compiled Keras model is carried over by `apply_rules`.
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

    report = get_report(new_model)
    old = unwrap(old_model)
    keys = {key: key for key, _ in old.named_parameters(remove_duplicate=False)}
    if report is not None:
        keys = migrate(keys, report)
    made: Optimizer = over(optimizer, old, unwrap(new_model), keys)
    return made
