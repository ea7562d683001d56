"""Hypothesis profiles, one thread for each worker, and a torchvision that imports beside any torch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

_QUIET = [
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.data_too_large,
    hypothesis.HealthCheck.filter_too_much,
]

hypothesis.settings.register_profile(
    "fast", max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=_QUIET
)
hypothesis.settings.register_profile(
    "long", max_examples=1000, deadline=None, database=None, suppress_health_check=_QUIET, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

_schemas: list[torch.library.Library] = []
"""kept alive: the declarations end with the object that made them"""


def pytest_configure(config: pytest.Config) -> None:
    declare_torchvision()


def declare_torchvision() -> None:
    """Declare the operators that a torchvision built for another device expects, where they are missing."""
    try:
        from rewrite.backends.torch import torchvision_schemas
    except ImportError:
        with contextlib.suppress(ImportError):
            _declare_where_import_fails()
    else:
        torchvision_schemas.declare()


def _declare_where_import_fails() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.append(library)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test begins with the same global random state and leaves the old one behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
