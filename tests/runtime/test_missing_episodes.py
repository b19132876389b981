"""What a resumed run takes from its store: all it had, in order, less what has left it since."""

import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from hildaft.algo.checkpoint import _digest, list_checkpoints
from hildaft.runtime.training_run import TrainingRun
from hildaft.types import HilDaftError
from run_folders import rollout

# A learner that only counts stands for one that trains.
pytestmark = pytest.mark.usefixtures("unchecked_calls")


class CountingLearner:
    """Remembers the seeds of the episodes it was given."""

    def __init__(self):
        self.warmup_updates = self.online_updates = self.online_transitions = 0
        self.given = []

    def add_episode(self, episode):
        self.given.append(int(episode.seed))
        self.online_transitions += len(episode)

    def state(self):
        return {"counters": torch.zeros(1)}

    def load_state(self, state):
        pass


class Notes(list):
    def note(self, text):
        self.append(text)


def opened(folder):
    said = Notes()
    run = TrainingRun(folder, CountingLearner(), said, threading.Event())
    run.metrics.close()
    return run, said


def store_and_take(run, seeds):
    episode = rollout(np.random.default_rng(0), "pick", success=True, helped=2)
    for seed in seeds:
        run.store.append(replace(episode, seed=seed, images={}))
        run.take(run.next_stored())


def files(run):
    return sorted(run.store.folder.glob("*.safetensors"))


@pytest.fixture
def folder(tmp_path):
    """Six episodes, five of them in the checkpoint."""
    run, _ = opened(tmp_path)
    store_and_take(run, range(5))
    run.checkpoint()
    store_and_take(run, [5])
    return tmp_path


def test_a_whole_folder_is_taken_as_it_was(folder):
    run, said = opened(folder)
    run.restore()
    assert run.learner.given == [0, 1, 2, 3, 4]
    assert run.consumed == 5
    assert run.next_stored().seed == 5
    assert len(said) == 1
    assert len(list_checkpoints(folder / "checkpoints")) == 1


@pytest.mark.parametrize("moved", [0, 2, 4])
def test_what_was_moved_out_is_said_and_the_run_goes_on(folder, moved):
    run, said = opened(folder)
    files(run)[moved].unlink()
    run.restore()
    kept = [seed for seed in range(5) if seed != moved]
    assert run.learner.given == kept
    assert "1 of 5 episodes it had learned from are no longer in" in said[1]
    # What comes next is neither skipped nor made twice, in this process and in the one after it.
    assert run.consumed == 5
    assert run.next_stored().seed == 5
    run.take(run.next_stored())
    assert run.next_stored() is None
    run.checkpoint()
    again, said = opened(folder)
    again.restore()
    assert again.learner.given == [*kept, 5]
    assert "1 of 6" in said[1]


def test_a_number_given_out_again_is_a_new_episode(folder):
    run, _ = opened(folder)
    for path in files(run)[4:]:
        path.unlink()
    run.restore()
    assert run.learner.given == [0, 1, 2, 3]
    # The number of one that has left, stored but not taken when the process ended.
    episode = rollout(np.random.default_rng(0), "pick", success=True, helped=2)
    run.store.append(replace(episode, seed=44, images={}))
    again, _ = opened(folder)
    again.restore()
    assert again.learner.given == [0, 1, 2, 3]
    assert again.next_stored().seed == 44


def test_a_checkpoint_of_an_older_version_knows_the_count_alone(folder):
    [newest] = list_checkpoints(folder / "checkpoints")
    path = newest / "meta.json"
    document = json.loads(path.read_text())
    del document["meta"]["last_episode"]
    document["meta_sha256"] = _digest(document["meta"])
    path.write_text(json.dumps(document))
    run, _ = opened(folder)
    run.restore()
    assert run.learner.given == [0, 1, 2, 3, 4]
    assert run.next_stored().seed == 5
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    for old in files(run)[:2]:
        (copy / "episodes" / old.name).unlink()
    with pytest.raises(HilDaftError, match="knows 5 episodes, the store holds 4"):
        opened(copy)[0].restore()
