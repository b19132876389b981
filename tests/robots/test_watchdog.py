"""Whatever dies or freezes, the robot is told to hold within 200 ms; with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from watched_arm import WORKER, NotingArm, read_notes

from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.watchdog import WatchedRobot
from hildaft.types import HilDaftError

HOLD_S = 0.2
STILL = np.zeros(7, np.float32)


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


class Lateness:
    """How late this machine wakes a thread meanwhile: a busy one is not the watchdog's fault."""

    def __enter__(self):
        self.most_s, self._end = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._end.set()
        self._thread.join()

    def _measure(self):
        while not self._end.is_set():
            at = time.monotonic()
            time.sleep(0.005)
            self.most_s = max(self.most_s, time.monotonic() - at - 0.005)


def assert_held(notes, at, lateness):
    assert wait_for_note(notes, "hold", at) - at < HOLD_S + lateness.most_s


def wait_for_note(notes, what, after_s, deadline_s=60.0):
    """The time of the first such note after a moment."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = [at for kind, at in read_notes(notes) if kind == what and at >= after_s]
        if found:
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no {what} within {deadline_s} s: {read_notes(notes)}")


@pytest.fixture
def worker(tmp_path, notes):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(notes), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    wait_for_note(notes, "step", 0.0)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_frozen_worker_leaves_the_robot_held(worker, notes, number):
    assert all(kind == "step" for kind, _ in read_notes(notes))
    with Lateness() as lateness:
        at = time.monotonic()
        os.kill(worker.pid, number)
        assert_held(notes, at, lateness)


def test_a_frozen_policy_leaves_the_robot_held_once_and_goes_on_after(notes):
    with WatchedRobot(partial(NotingArm, notes)) as robot, Lateness() as lateness:
        robot.reset("reach", 0)
        robot.step(STILL)
        at = time.monotonic()
        assert_held(notes, at, lateness)
        time.sleep(0.3)
        assert [kind for kind, _ in read_notes(notes)] == ["step", "hold"]
        assert robot.holds == 1
        robot.step(STILL)
        assert [kind for kind, _ in read_notes(notes)][:3] == ["step", "hold", "step"]


def test_a_cut_camera_leaves_the_robot_held_and_is_one_clear_error(notes, tmp_path, monkeypatch):
    monkeypatch.setattr("hildaft.robots.watchdog.ANSWER_S", 0.5)
    with Lateness() as lateness, WatchedRobot(partial(NotingArm, notes)) as robot:
        robot.reset("reach", 0)
        (tmp_path / "camera_cut").touch()
        at = time.monotonic()
        with pytest.raises(HilDaftError, match=r"no answer.*check its cameras"):
            robot.step(STILL)
        assert_held(notes, at, lateness)


def test_a_robot_in_good_hands_is_never_held(notes):
    with WatchedRobot(partial(NotingArm, notes), hold_after_s=1.0) as robot:
        robot.reset("reach", 0)
        for _ in range(8):
            robot.step(STILL)
            time.sleep(0.15)
        robot.stop()
        time.sleep(1.2)
        assert robot.holds == 0
    assert [kind for kind, _ in read_notes(notes)] == ["step"] * 8 + ["hold"] * 2


def test_everything_passes_through_unchanged(notes):
    with WatchedRobot(partial(NotingArm, notes)) as robot:
        assert robot.name == "noting"
        observation = robot.reset("reach", 3)
        np.testing.assert_array_equal(
            observation.images["head"], np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        )
        result = robot.step(np.full(7, 0.1, np.float32))
        assert result.reward == pytest.approx(0.1)
        with pytest.raises(HilDaftError, match="not this one"):
            robot.reset("refused", 0)
        robot.close()
        with pytest.raises(HilDaftError, match="has ended"):
            robot.step(STILL)
        robot.stop()


def test_the_bench_behaves_the_same_in_a_process_of_its_own():
    own = BoltRobot("B")
    with WatchedRobot(partial(BoltRobot, "B")) as watched:
        assert (watched.name, watched.action_scale) == (own.name, own.action_scale)
        for robot in (own, watched):
            robot.reset("pick", 5)
        action = np.full(7, 0.3, np.float32)
        mine, theirs = own.step(action), watched.step(action)
        np.testing.assert_array_equal(
            mine.observation.images["wrist"], theirs.observation.images["wrist"]
        )
        one, other = own.scene_state(), watched.scene_state()
        np.testing.assert_array_equal(one.bolt_position_m, other.bolt_position_m)
        assert (one.task, one.success, one.bolt_held) == (
            other.task,
            other.success,
            other.bolt_held,
        )
    own.close()
