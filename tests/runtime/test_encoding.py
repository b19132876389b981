from dataclasses import replace

import numpy as np
import pytest

from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.encoding import encode_episode, encode_store
from hildaft.types import Encoded, HilDaftError, Observation
from run_folders import rollout


class MeanColour:
    """Encoders whose h can be checked by eye: the mean colour of the head camera."""

    hash = "mean-colour"

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls, self.stop_after = 0, stop_after

    def encode(self, observation: Observation, task: str) -> Encoded:
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        h = observation.images["head"].mean((0, 1)).astype(np.float32)
        features = observation.images["wrist"].mean((0, 1))[:2].astype(np.float32)
        return Encoded(h=h, features=features, proprio=observation.proprio)


@pytest.fixture
def source(tmp_path) -> EpisodeStore:
    rng = np.random.default_rng(0)
    store = EpisodeStore(tmp_path / "source")
    for number in range(3):
        episode = rollout(rng, "upright", success=True, helped=2)
        store.append(replace(episode, seed=number))
    return store


def test_h_and_features_are_rebuilt_and_the_rest_stays(source):
    old = source.read(0)
    new = encode_episode(old, MeanColour())
    assert new.encoder_hash == "mean-colour"
    assert new.h.shape == (len(old) + 1, 3)
    assert new.features.shape == (len(old) + 1, 2)
    # The dark blob moves over a lit table, so the mean colour is that of a mostly bright image.
    assert (new.h > 100).all()
    assert new.images == old.images
    for name in ("executed_action", "reward", "refinement", "is_intervention", "proprio"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))


def test_a_stopped_run_goes_on_where_it_was(source, tmp_path):
    seen: list[int] = []
    target = EpisodeStore(tmp_path / "target")
    stopped = MeanColour(stop_after=20)
    with pytest.raises(KeyboardInterrupt):
        encode_store(source, source.indices, target, stopped, seen.append)
    assert (seen, len(target)) == ([0, 1], 1)
    again = MeanColour()
    encode_store(source, source.indices, target, again, seen.append)
    assert seen == [0, 1, 1, 2, 3]
    assert again.calls == sum(len(source.read(i)) + 1 for i in (1, 2))
    assert [s.seed for s in target.summaries()] == [0, 1, 2]
    assert {s.encoder_hash for s in target.summaries()} == {"mean-colour"}


def test_foreign_targets_and_episodes_without_images_are_refused(source, tmp_path):
    with pytest.raises(HilDaftError, match="name an empty folder with --out"):
        encode_store(source, source.indices, source, MeanColour(), lambda _: None)
    target = EpisodeStore(tmp_path / "target")
    encode_store(source, source.indices, target, MeanColour(), lambda _: None)
    with pytest.raises(HilDaftError, match="more than 2 episodes"):
        encode_store(source, source.indices[:2], target, MeanColour(), lambda _: None)
    with pytest.raises(HilDaftError, match="record it with images kept"):
        encode_episode(replace(source.read(0), images={}), MeanColour())
