from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hildaft.data.episode_file import Origin, serialise_episode
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.demonstrations import take_demonstrations
from hildaft.types import Episode, HilDaftError


def demonstration(task: str, seed: int, source: str = "demo") -> Episode:
    steps = 3
    last = np.arange(steps) == steps - 1
    action = np.full((steps, 7), 0.1 * seed, dtype=np.float32)
    online = source == "online"
    nothing = np.full((steps, 7), np.nan, dtype=np.float32)
    return Episode(
        task=task,
        source=source,
        robot="A",
        seed=seed,
        policy_version=0 if online else -1,
        success=True,
        h=np.zeros((steps + 1, 4), np.float32),
        features=np.zeros((steps + 1, 3), np.float32),
        proprio=np.zeros((steps + 1, 2), np.float32),
        policy_action=action if online else nothing,
        human_action=nothing if online else action,
        executed_action=action,
        is_intervention=np.zeros(steps, dtype=bool),
        spoken=np.full(steps, 13),
        refinement=np.full(steps, 13),
        displacement_m=np.zeros((steps, 3), np.float32),
        reward=last.astype(np.float32),
        terminated=last,
        truncated=np.zeros(steps, dtype=bool),
        encoder_hash="abc",
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    store = EpisodeStore(tmp_path / "recorded" / "episodes")
    for seed in range(3):
        store.append(demonstration("pick", seed))
        store.append(demonstration("upright", seed))
    store.append(demonstration("pick", 9, "online"))
    return tmp_path / "recorded"


def take(source: Path, folder: Path, wanted: int = 2, **changes: object) -> None:
    given = {"robot": "A", "encoder_hash": "abc", **changes}
    take_demonstrations(source, folder, tasks=("upright", "pick"), wanted=wanted, **given)


@pytest.mark.parametrize("within", [".", "episodes"])
def test_the_first_of_each_task_come_in_the_sessions_order(
    recorded: Path, tmp_path: Path, within: str
) -> None:
    (tmp_path / "new").mkdir()
    take(recorded / within, tmp_path / "new")
    taken = EpisodeStore(tmp_path / "new" / "episodes").summaries()
    assert [(s.task, s.seed) for s in taken] == [
        ("upright", 0),
        ("upright", 1),
        ("pick", 0),
        ("pick", 1),
    ]
    assert len(EpisodeStore(recorded / "episodes")) == 7


def test_what_a_worker_delivered_elsewhere_is_nothing_that_it_delivered_here(
    tmp_path: Path,
) -> None:
    store = EpisodeStore(tmp_path / "recorded" / "episodes")
    for sequence, task in enumerate(("upright", "pick"), start=1):
        episode = demonstration(task, sequence)
        origin = Origin(worker="a.1", sequence=sequence)
        store.append_bytes(serialise_episode(episode, origin), task, "demo")
    take(tmp_path / "recorded", tmp_path / "run", wanted=1)
    taken = EpisodeStore(tmp_path / "run" / "episodes")
    assert [summary.origin for summary in taken.summaries()] == [None, None]
    for number in range(2):
        one, other = store.read(number), taken.read(number)
        assert (one.task, one.seed) == (other.task, other.seed)
        np.testing.assert_array_equal(one.executed_action, other.executed_action)


def test_a_take_that_was_cut_short_is_begun_anew(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / "episodes.part").mkdir(parents=True)
    (tmp_path / "new" / "episodes.part" / "000000-upright-demo.safetensors").write_text("torn")
    take(recorded, tmp_path / "new", wanted=1)
    store = EpisodeStore(tmp_path / "new" / "episodes")
    assert store.verify() == []
    assert len(store) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wanted": 4}, "3 of task 'upright', 4 are wanted"),
        ({"robot": "B"}, "robot 'A', the run 'B'"),
        ({"encoder_hash": "xyz"}, "hildaft encode"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    recorded: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(HilDaftError, match=said):
        take(recorded, tmp_path / "new", **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "new" / "episodes").exists()


def test_failures_are_no_demonstrations(recorded: Path, tmp_path: Path) -> None:
    failed = replace(demonstration("pick", 7), success=False)
    store = EpisodeStore(tmp_path / "again" / "episodes")
    store.append(failed)
    for _, episode in EpisodeStore(recorded / "episodes").iterate():
        store.append(episode)
    take(tmp_path / "again", tmp_path / "new", wanted=1)
    taken = EpisodeStore(tmp_path / "new" / "episodes").summaries()
    assert [(s.task, s.seed) for s in taken] == [("upright", 0), ("pick", 0)]


def test_those_of_other_encoders_are_encoded_anew_where_the_run_can(
    recorded: Path, tmp_path: Path
) -> None:
    def encode(episode: Episode) -> Episode:
        return replace(episode, h=episode.h + 7.0, encoder_hash="xyz")

    take(recorded, tmp_path / "new", encoder_hash="xyz", encode=encode)
    store = EpisodeStore(tmp_path / "new" / "episodes")
    assert store.verify() == []
    assert {s.encoder_hash for s in store.summaries()} == {"xyz"}
    assert [s.seed for s in store.summaries()] == [0, 1, 0, 1]
    assert (store.read(0).h == 7.0).all()

    def cannot(episode: Episode) -> Episode:
        msg = f"episode of task={episode.task!r}: images are needed"
        raise HilDaftError(msg)

    with pytest.raises(HilDaftError, match="images are needed"):
        take(recorded, tmp_path / "other", encoder_hash="xyz", encode=cannot)
    assert not list((tmp_path / "other").iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HilDaftError, match="no such folder"):
        take(tmp_path / "nowhere", tmp_path)


def correction(task: str, seed: int) -> Episode:
    episode = demonstration(task, seed, "online")
    corrected = np.arange(3) == 1
    human = np.full((3, 7), np.nan, dtype=np.float32)
    human[corrected] = 0.25
    return replace(episode, is_intervention=corrected, human_action=human)


@pytest.fixture
def corrected(tmp_path: Path) -> Path:
    store = EpisodeStore(tmp_path / "corrected" / "episodes")
    for task, seed in (("pick", 20), ("pick", 21), ("assemble", 22), ("upright", 23)):
        store.append(correction(task, seed))
    store.append(demonstration("pick", 24))
    return tmp_path / "corrected"


def test_corrections_follow_the_demonstrations_task_by_task(
    recorded: Path, corrected: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    take(recorded, run, corrections=corrected, room=9)
    summaries = EpisodeStore(run / "episodes").summaries()
    assert [(s.task, s.source) for s in summaries[:4]] == [
        *[("upright", "demo")] * 2,
        *[("pick", "demo")] * 2,
    ]
    assert [(s.task, s.seed, s.source) for s in summaries[4:]] == [
        ("upright", 23, "online"),
        ("pick", 20, "online"),
        ("pick", 21, "online"),
    ]


def test_corrections_that_do_not_fit_are_refused_and_nothing_is_taken(
    recorded: Path, corrected: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for given, why in (
        ({"corrections": corrected, "room": 8}, "has no room"),
        ({"corrections": recorded, "room": 99}, "nobody corrected"),
        ({"corrections": tmp_path / "nowhere", "room": 99}, "no such folder"),
        ({"corrections": corrected, "room": 99, "robot": "B"}, "has robot"),
    ):
        with pytest.raises(HilDaftError, match=why):
            take(recorded, run, **given)
        assert not (run / "episodes").exists()
