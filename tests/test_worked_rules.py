"""The worked rules of the language on networks that have what they are about: the sites, and what really runs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")
pytest.importorskip("timm")

from benchmarks.worked_rules import WORKED, Worked, run  # noqa: E402  (it needs both packages)
from counting import calls  # noqa: E402


@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: f"{worked.number}-{worked.network}")
def test_sites_and_runs(worked: Worked) -> None:
    model, result, report = run(worked)
    assert tuple(len(clause.sites) for clause in report.clauses) == worked.sites
    assert type(result).__name__ == type(model).__name__
    assert isinstance(result, type(model))
    image = torch.randn(worked.shape, generator=torch.Generator().manual_seed(1))
    before, after = calls(model, image), calls(result, image)
    new = [key for key in report.new_keys if key.rpartition(".")[0] not in report.removed_keys]
    inserted = {key.rpartition(".")[0] for key in new}
    ran = Counter(call.path for call in after)
    called = {path for path in inserted if isinstance(result.get_submodule(path), nn.modules.batchnorm._BatchNorm)}
    assert all(ran[path] for path in called), "every inserted normalisation runs"
    assert before, "the given model still runs"
