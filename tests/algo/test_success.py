import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hildaft.algo.success import (
    LabelledEpisode,
    SuccessClassifier,
    SuccessConfig,
    judge,
    label_rows,
    read_classifier,
    split_episodes,
    train_task,
    verdict_of,
    write_classifier,
)
from hildaft.types import Encoded, HilDaftError

CONFIG = SuccessConfig(updates=150, hidden=16)


def episodes(
    successes: int, failures: int, *, seed: int = 0, wrong: int = 0
) -> list[LabelledEpisode]:
    """Two inputs, of which the first tells success in the last three rows; `wrong` failures look like successes."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(successes + failures):
        success = index < successes
        rows = int(rng.integers(12, 20))
        inputs = rng.normal(0.0, 0.5, (rows, 2)).astype(np.float32)
        if success or index >= successes + failures - wrong:
            inputs[-3:, 0] += 6.0
        made.append(LabelledEpisode(index, inputs, success))
    return made


def test_the_last_rows_show_success_and_those_before_are_left_out() -> None:
    [good], [bad] = episodes(1, 0), episodes(0, 1)
    shows, used = label_rows(good, CONFIG)
    assert np.flatnonzero(shows).tolist() == [len(shows) - 3, len(shows) - 2, len(shows) - 1]
    assert np.flatnonzero(~used).tolist() == [len(shows) - 6, len(shows) - 5, len(shows) - 4]
    shows, used = label_rows(bad, CONFIG)
    assert not shows.any()
    assert used.all()


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 9))
def test_the_split_shares_no_episode_and_loses_none(successes, failures, seed) -> None:
    made = episodes(successes, failures)
    parts = split_episodes(made, seed)
    numbers = [episode.index for part in parts.values() for episode in part]
    assert sorted(numbers) == list(range(len(made)))
    for success in (True, False):
        kind = [e for e in parts["test"] if e.success is success]
        assert len(kind) >= (successes if success else failures) // 5


def test_it_learns_what_tells_success_and_says_so_on_episodes_it_never_saw(tmp_path) -> None:
    parts = split_episodes(episodes(30, 20), 0)
    classifier = train_task(parts, CONFIG)
    fresh = episodes(20, 20, seed=1)
    outcome = judge(classifier, fresh, CONFIG)
    assert outcome.precision >= 0.95
    assert outcome.recall >= 0.9
    # Calibrated: of the rows it gives p, about p show success.
    rows = np.concatenate([classifier.probabilities(e.inputs) for e in fresh])
    shows = np.concatenate([label_rows(e, CONFIG)[0] for e in fresh])
    assert abs(float(rows.mean()) - float(shows.mean())) < 0.05
    path = tmp_path / "success" / "classifier.safetensors"
    write_classifier(SuccessClassifier(encoder_hash="abc", tasks={"pick": classifier}), path)
    again = read_classifier(path)
    assert again.encoder_hash == "abc"
    encoded = Encoded(
        h=fresh[0].inputs[-1][:1], features=fresh[0].inputs[-1][1:], proprio=np.zeros(0, np.float32)
    )
    assert again.probability(encoded, "pick") == pytest.approx(
        float(classifier.probabilities(fresh[0].inputs)[-1])
    )
    with pytest.raises(HilDaftError, match="'weld'"):
        again.probability(encoded, "weld")


def test_uninformative_features_are_not_believed() -> None:
    rng = np.random.default_rng(0)
    noise = [
        LabelledEpisode(i, rng.normal(size=(15, 2)).astype(np.float32), i % 2 == 0)
        for i in range(40)
    ]
    outcome = judge(train_task(split_episodes(noise, 0), CONFIG), noise, CONFIG)
    assert outcome.recall < 0.9


def test_an_announcement_long_before_the_end_is_early() -> None:
    classifier = train_task(split_episodes(episodes(30, 20), 0), CONFIG)
    inputs = np.zeros((20, 2), dtype=np.float32)
    inputs[4:, 0] = 6.0
    assert verdict_of(classifier, LabelledEpisode(0, inputs, True), CONFIG) == "early"
    assert verdict_of(classifier, LabelledEpisode(0, inputs, False), CONFIG) == "false"
    quiet = np.zeros((20, 2), dtype=np.float32)
    assert verdict_of(classifier, LabelledEpisode(0, quiet, True), CONFIG) == "missed"
    assert verdict_of(classifier, LabelledEpisode(0, quiet, False), CONFIG) == "rightly silent"


def test_one_outcome_is_not_enough_and_files_are_checked(tmp_path) -> None:
    with pytest.raises(HilDaftError, match="0 observations of success"):
        train_task(split_episodes(episodes(0, 20), 0), CONFIG)
    for text in (b"", b"not safetensors"):
        path = tmp_path / "classifier.safetensors"
        path.write_bytes(text)
        with pytest.raises(HilDaftError, match="train-success"):
            read_classifier(path)
    with pytest.raises(HilDaftError, match="streak"):
        SuccessConfig(streak=4, held_rows=3)
