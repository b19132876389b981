from pathlib import Path

import numpy as np
import pytest

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


def take(source: Path, folder: Path, wanted: int = 2, **changes: str) -> None:
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


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HilDaftError, match="no such folder"):
        take(tmp_path / "nowhere", tmp_path)
