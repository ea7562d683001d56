"""What the tests of field cases share: apply a rule, tell its sites, hold a result against the model it came from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from counting import tensors
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

from rewrite import Report, RewriteError, Rules, apply_rules, get_report


def image(channels: int = 4, batch: int = 2, size: int = 6) -> Tensor:
    """The same random image every time."""
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(3))


def conv(channels_in: int = 4, channels_out: int = 4, size: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2, **options)


def report_of(result: nn.Module) -> Report:
    report = get_report(result)
    assert report is not None
    return report


def sites(result: nn.Module, clause: int = 0) -> list[str]:
    """Where one clause acted."""
    return [site.path for site in report_of(result).clauses[clause].sites]


def misses(result: nn.Module, clause: int = 0) -> str:
    return "\n".join(report_of(result).clauses[clause].misses)


def warned(result: nn.Module) -> list[str]:
    return [warning.code for warning in report_of(result).warnings]


def rewritten(model: nn.Module, text: str, **options: Any) -> nn.Module:
    return apply_rules(model, Rules(text), **options)


def refused(code: str, model: nn.Module, text: str, *said: str, **options: Any) -> RewriteError:
    """The rule is refused with `code`, the message says all of `said`, and the model is as it was."""
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RewriteError) as caught:
        apply_rules(model, Rules(text), **options)
    assert caught.value.code == code, caught.value
    for words in said:
        assert words in str(caught.value)
    assert before.keys() == model.state_dict().keys()
    for key, value in before.items():
        lazy = isinstance(value, UninitializedTensorMixin)
        assert lazy or torch.equal(value, model.state_dict()[key])
    return caught.value


def values(model: nn.Module, *args: Any, **kwargs: Any) -> list[Tensor]:
    """All tensors that a copy of the model returns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return [value for _, value in tensors(copy.deepcopy(model)(*copy.deepcopy(args), **copy.deepcopy(kwargs)))]


def gradients(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    """The gradient that reaches each parameter, by its key."""
    twin = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        found = [value for _, value in tensors(twin(*copy.deepcopy(args), **copy.deepcopy(kwargs)))]
    sum(value.double().square().sum() for value in found if value.requires_grad).backward()  # type: ignore[union-attr]
    return {key: value.grad for key, value in twin.named_parameters() if value.grad is not None}


def assert_same(model: nn.Module, result: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Outputs and gradients are the same bit for bit, and no key of the state_dict is lost."""
    for one, other in zip(values(model, *args, **kwargs), values(result, *args, **kwargs), strict=True):
        assert torch.equal(one, other)
    had, has = gradients(model, *args, **kwargs), gradients(result, *args, **kwargs)
    assert had.keys() <= has.keys()
    assert all(torch.equal(value, has[key]) for key, value in had.items())
    assert model.state_dict().keys() <= result.state_dict().keys()
