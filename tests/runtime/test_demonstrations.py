"""Recorded demonstrations start a run as if it had recorded them."""

import pytest

from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.demonstrations import choose_demonstrations
from hildaft.types import HilDaftError
from link_peers import small_episode


@pytest.fixture
def folder(tmp_path):
    store = EpisodeStore(tmp_path / "demos" / "episodes")
    for first, (task, source, success) in enumerate(
        [
            ("push", "demo", True),
            ("reach", "online", True),
            ("reach", "demo", False),
            ("reach", "demo", True),
            ("push", "demo", True),
            ("reach", "demo", True),
        ]
    ):
        store.append(small_episode(10 * first, task=task, source=source, success=success))
    return tmp_path / "demos"


def test_the_first_successes_of_each_task_come_in_the_runs_order(folder):
    chosen = choose_demonstrations(folder, ("reach", "push"), 2, "blobs")
    assert [(e.task, int(e.h[0, 0])) for e in chosen] == [
        ("reach", 30),
        ("reach", 50),
        ("push", 0),
        ("push", 40),
    ]
    assert len(choose_demonstrations(folder / "episodes", ("push",), 1, "blobs")) == 1


def test_too_few_of_other_networks_or_none_is_one_line(folder):
    with pytest.raises(HilDaftError, match=r"--training\.demonstrations 2"):
        choose_demonstrations(folder, ("reach",), 3, "blobs")
    with pytest.raises(HilDaftError, match="other frozen networks"):
        choose_demonstrations(folder, ("reach",), 1, "other")
    with pytest.raises(HilDaftError, match="no such folder"):
        choose_demonstrations(folder / "none", ("reach",), 1, "blobs")
