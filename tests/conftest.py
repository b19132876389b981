"""Small networks on a shared machine: one thread is fastest, and two may wait for each other."""

from typing import Final

import jaxtyping
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

BY_THE_CLOCK: Final = (
    "console/",
    "doctor/",
    "lerobot_bridge/",
    "robots/test_serl_http.py",
    "robots/test_watchdog.py",
    "runtime/link/",
    "system/test_distributed.py",
    "system/test_faults.py",
    "system/test_operators.py",
    "teleop/test_browser.py",
    "teleop/test_devices.py",
)
"""Tests that wait for things to happen in time: all on one process, one after the other."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Processes share the suite file by file, so that a file's fixtures are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            return "clock" if file.startswith(BY_THE_CLOCK) else file

    return ByFile(config, log)


@pytest.fixture
def unchecked_calls(monkeypatch):
    """Calls as a user makes them: without the type checks that the suite puts around every function."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("hildaft", deadline=None)
settings.load_profile("hildaft")
