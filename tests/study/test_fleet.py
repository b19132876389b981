"""The clock of a fleet: when transitions were there, and when the learner had learned from the last of them."""

import json
from pathlib import Path

import pytest

from hildaft.study.fleet import OnlineClock


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
