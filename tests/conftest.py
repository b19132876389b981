"""Small networks on a shared machine: one thread is fastest, and two may wait for each other."""

import jaxtyping
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)


@pytest.fixture
def unchecked_calls(monkeypatch):
    """Calls as a user makes them: without the type checks that the suite puts around every function."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("hildaft", deadline=None)
settings.load_profile("hildaft")
