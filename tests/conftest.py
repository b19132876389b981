"""Small networks on a shared machine: one thread is fastest, and two may wait for each other."""

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def unchecked_calls(monkeypatch):
    """Calls as a user makes them: without the type checks that the suite puts around every function."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
