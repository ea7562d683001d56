"""Hypothesis profiles, one thread for each worker, and a torchvision that imports beside any torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, Phase

from rewrite.backends.torch import torchvision_schemas

torch.set_num_threads(1)
pytest.register_assert_rewrite("contract", "doc_blocks")

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
"""networks are large draws; none of these checks says that a test is wrong"""

hypothesis.settings.register_profile(
    "fast",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=_SLOW,
    phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes: HYPOTHESIS_PROFILE=long shows the short form
)
hypothesis.settings.register_profile(
    "long", max_examples=1000, deadline=None, database=None, suppress_health_check=_SLOW, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_configure(config: pytest.Config) -> None:
    with contextlib.suppress(ImportError):  # torchvision is an extra; its tests skip themselves
        torchvision_schemas.declare()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to say beside passing: their `record_property("summary", ...)`."""
    for reports in (terminalreporter.getreports("passed"), terminalreporter.getreports("failed")):
        for report in reports:
            for name, value in report.user_properties:
                if name == "summary":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test begins with the same global random state and leaves the old one behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """One process by itself, as `DistributedDataParallel` wants one."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed part")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
