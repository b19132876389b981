"""Demonstrations from a folder in the place of new ones: the right ones, in order, once, whatever stops in between."""

import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.build import open_run
from hildaft.config import PRESETS
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.recorded import RecordedDemonstrations
from hildaft.types import Encoded, HilDaftError
from run_folders import rollout

RNG = np.random.default_rng(0)
SUCCESS, FAILURE = (
    replace(rollout(RNG, "pick", success=success, helped=0), source="demo", images={})
    for success in (True, False)
)


class Encoders:
    hash = "abc"

    def encode(self, observation, task):
        values = (np.full(n, 7.0, np.float32) for n in (5, 3))
        return Encoded(*values, proprio=observation.proprio)


def recorded(folder, *episodes):
    store = EpisodeStore(folder / "episodes")
    for episode in episodes:
        store.append(episode)
    return folder


def test_the_oldest_successes_of_each_task_are_taken_in_the_order_of_the_tasks(tmp_path):
    def made(task, seed, episode=SUCCESS, **changes):
        return replace(episode, task=task, seed=seed, **changes)

    folder = recorded(
        tmp_path / "recorded",
        made("upright", 1),
        made("pick", 2, FAILURE),
        made("pick", 3, robot="B"),
        made("pick", 4, source="online"),
        made("pick", 5),
        made("upright", 6),
        made("pick", 7),
        made("pick", 8),
    )
    store = EpisodeStore(tmp_path / "episodes")
    said = RecordedDemonstrations(folder, ("pick", "upright"), 2, "A", Encoders()).fill(store)
    assert said == f"4 demonstrations taken from {folder}"
    assert [(s.task, s.seed) for s in store.summaries()] == [
        ("pick", 5),
        ("pick", 7),
        ("upright", 1),
        ("upright", 6),
    ]
    any_robot = RecordedDemonstrations(folder, ("pick",), 3, None, Encoders())
    other = EpisodeStore(tmp_path / "other")
    assert any_robot.fill(other).startswith("3 ")
    assert [s.seed for s in other.summaries()] == [3, 5, 7]


@given(stops=st.lists(st.integers(0, 4), max_size=4))
def test_a_filling_that_is_stopped_goes_on_to_the_same_store(tmp_path_factory, stops):
    folder = tmp_path_factory.mktemp("fill")
    seeds = [replace(SUCCESS, task=t, seed=i) for i, t in enumerate(("pick", "upright") * 2)]
    demonstrations = RecordedDemonstrations(
        recorded(folder / "recorded", *seeds), ("pick", "upright"), 2, "A", Encoders()
    )
    store = EpisodeStore(folder / "episodes")
    for wanted in stops:
        # As a kill would leave it: the first few are there.
        while len(store) < wanted:
            index = (0, 2, 1, 3)[len(store)]
            store.append(seeds[index])
    demonstrations.fill(store)
    assert [s.seed for s in store.summaries()] == [0, 2, 1, 3]
    assert demonstrations.fill(store).startswith("0 ")


def test_those_of_other_encoders_are_encoded_anew_or_refused_without_images(tmp_path):
    with_images = replace(rollout(RNG, "pick", success=True, helped=0), source="demo")
    other = replace(with_images, encoder_hash="other")
    store = EpisodeStore(tmp_path / "episodes")
    folder = recorded(tmp_path / "one", other)
    RecordedDemonstrations(folder, ("pick",), 1, "A", Encoders()).fill(store)
    episode = store.read(store.indices[0])
    assert episode.encoder_hash == "abc"
    assert (episode.h == 7.0).all()
    folder = recorded(tmp_path / "two", replace(other, images={}))
    with pytest.raises(HilDaftError, match="images"):
        RecordedDemonstrations(folder, ("pick",), 1, "A", Encoders()).fill(
            EpisodeStore(tmp_path / "nothing")
        )


def test_too_few_are_named_before_a_run_folder_is_made(tmp_path):
    folder = recorded(tmp_path / "recorded", SUCCESS, replace(SUCCESS, robot="B"))
    config = replace(PRESETS["tiny"], tasks=("pick",), recorded=str(folder))
    wanted = re.escape("1 successful demonstrations of 'pick' on robot A (1 on B), 2 are wanted")
    with (
        pytest.raises(HilDaftError, match=wanted),
        open_run(config, tmp_path / "run", resume=False, stop=threading.Event()),
    ):
        pass
    nowhere = replace(config, recorded=str(tmp_path / "nowhere"))
    with (
        pytest.raises(HilDaftError, match="no folder of recordings"),
        open_run(nowhere, tmp_path / "run", resume=False, stop=threading.Event()),
    ):
        pass
    assert not (tmp_path / "run").exists()
