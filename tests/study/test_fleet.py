"""The clock of a fleet: when transitions were there, and when the learner had learned from the last of them; and
which of its policies are kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hildaft.config import PRESETS
from hildaft.study.fleet import OnlineClock, Snapshots

WARMUP = 2_000


def test_the_last_policy_is_as_old_as_its_last_update(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [
        {"step": 0, "time": 40.0, "updates": 20},
        {"step": 30, "time": 100.0, "rollout/length/pick": 30},
        {"step": 60, "time": 160.0, "rollout/length/pick": 30},
        {"step": 60, "time": 161.0, "updates": 40},
        # The robots stand; the learner is behind.
        {"step": 60, "time": 220.0, "updates": 80},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    clock = OnlineClock(tmp_path)
    assert [clock.at(n) for n in (0, 30, 31, 60)] == pytest.approx([0.0, 0.0, 1.0, 1.0])
    assert clock.at_end() == pytest.approx(2.0)


def test_while_a_fleet_is_stopped_its_clock_stands(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [
        {"step": 30, "time": 100.0, "updates": 20, "rollout/length/pick": 30},
        {"step": 60, "time": 160.0, "updates": 40, "rollout/length/pick": 30},
        {"step": 60, "time": 90000.0, "updates": 41, "resumed": True},
        {"step": 90, "time": 90060.0, "updates": 60, "rollout/length/pick": 30},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    clock = OnlineClock(tmp_path)
    assert [clock.at(n) for n in (60, 90)] == pytest.approx([1.0, 2.0])
    assert clock.at_end() == pytest.approx(2.0)


def test_without_an_online_episode_no_time_has_passed(tmp_path: Path) -> None:
    assert (OnlineClock(tmp_path).at(5), OnlineClock(tmp_path).at_end()) == (0.0, 0.0)


class TestSnapshots:
    @pytest.fixture
    def fleet(self, tmp_path: Path) -> Path:
        (tmp_path / "config.yaml").write_text("seed: 0\n")
        return tmp_path

    def snapshots(self, fleet: Path) -> Snapshots:
        config = PRESETS["hildaft"]
        training = replace(config.training, warmup_updates=WARMUP, online_transitions=9_000)
        evaluation = replace(config.evaluation, every=1_500)
        return Snapshots(replace(config, training=training, evaluation=evaluation), fleet)

    def write_checkpoint(self, fleet: Path, transitions: int) -> None:
        path = fleet / "checkpoints" / f"step-{WARMUP + transitions:08d}"
        path.mkdir(parents=True)
        (path / "weights").write_text(str(transitions))

    def kept(self, fleet: Path) -> list[int]:
        return sorted(int(path.name) for path in (fleet / "snapshots").iterdir())

    def test_one_for_each_multiple_and_none_more_after_a_resume(self, fleet: Path) -> None:
        snapshots = self.snapshots(fleet)
        for transitions in (-1_000, 0, 700, 1_532, 1_700, 3_072):
            self.write_checkpoint(fleet, transitions)
            snapshots.set_aside()
        resumed = self.snapshots(fleet)
        for transitions in (3_900, 4_300, 4_590, 9_010):
            self.write_checkpoint(fleet, transitions)
            resumed.set_aside()
        assert self.kept(fleet) == [0, 1_532, 3_072, 4_590]
        newest = fleet / "snapshots" / "004590" / "checkpoints" / f"step-{WARMUP + 4_590:08d}"
        assert (newest / "weights").read_text() == "4590"

    def test_the_next_one_is_taken_where_a_checkpoint_was_gone(
        self, fleet: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object, **__: object) -> None:
            raise FileNotFoundError

        snapshots = self.snapshots(fleet)
        self.write_checkpoint(fleet, 1_510)
        with monkeypatch.context() as dropped:
            dropped.setattr(shutil, "copytree", gone)
            snapshots.set_aside()
        self.write_checkpoint(fleet, 1_540)
        snapshots.set_aside()
        assert self.kept(fleet) == [1_540]
