"""Whatever dies or freezes, the robot is told to hold within 200 ms; with real processes."""

import contextlib
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
from watched_arm import RESETTING_WORKER, WORKER, DrivingArm, NotingArm, read_notes

from hildaft.cli import main
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.safety import SafeRobot
from hildaft.robots.watchdog import WatchedRobot
from hildaft.seating import SeatOptions, Sight, seat
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import HilDaftError, StoppedError

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


@contextlib.contextmanager
def working(text, tmp_path, notes, first):
    """A worker process whose robot has noted its first command."""
    script = tmp_path / "worker.py"
    script.write_text(text)
    process = subprocess.Popen(
        [sys.executable, str(script), str(notes), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        wait_for_note(notes, first, 0.0)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def worker(tmp_path, notes):
    with working(WORKER, tmp_path, notes, "step") as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_frozen_worker_leaves_the_robot_held(worker, notes, number):
    assert all(kind == "step" for kind, _ in read_notes(notes))
    with Lateness() as lateness:
        at = time.monotonic()
        os.kill(worker.pid, number)
        assert_held(notes, at, lateness)


def assert_still_after_hold(notes):
    kinds = [kind for kind, _ in read_notes(notes)]
    assert "move" not in kinds[kinds.index("hold") :], kinds


def test_a_worker_killed_in_a_reset_leaves_the_robot_held_and_is_the_end_of_the_drive(
    tmp_path, notes
):
    with working(RESETTING_WORKER, tmp_path, notes, "move") as worker, Lateness() as lateness:
        at = time.monotonic()
        worker.kill()
        assert_held(notes, at, lateness)
        # The robot's process has the same output: it has ended too once nothing more can come.
        assert worker.stdout.read() == ""
    assert_still_after_hold(notes)
    # Many arms fall limp when they are let go.
    assert "let_go" not in [kind for kind, _ in read_notes(notes)]


def reset_meanwhile(robot, raised):
    """Resets in a thread of its own; what it raises goes into the list."""

    def reset():
        try:
            robot.reset("reach", 0)
        except HilDaftError as error:
            raised.append(error)

    thread = threading.Thread(target=reset)
    thread.start()
    return thread


@pytest.mark.parametrize("way", ["stop", "stop_reset"])
def test_a_stop_in_a_reset_does_not_wait_for_its_end(notes, way):
    raised = []
    with WatchedRobot(partial(DrivingArm, notes)) as robot, Lateness() as lateness:
        thread = reset_meanwhile(robot, raised)
        wait_for_note(notes, "move", 0.0)
        at = time.monotonic()
        getattr(robot, way)()
        thread.join()
        assert_held(notes, at, lateness)
        assert_still_after_hold(notes)
        assert [type(error) for error in raised] == [StoppedError]
        assert "in the middle of a motion" in str(raised[0])
        # The next command is executed as any other, and its answer is its own.
        assert robot.step(np.full(7, 0.25, np.float32)).reward == 0.25
    assert read_notes(notes)[-1][0] == "let_go"


def test_the_stop_key_in_a_reset_holds_the_robot_and_stops_the_run(notes):
    raised, stop = [], threading.Event()
    sight = Sight(frame=OperatorFrame(forward="+x", left="+y", up="+z"), instructions={})
    with WatchedRobot(partial(DrivingArm, notes)) as robot, Lateness() as lateness:
        seated = seat(robot, sight, "policy", SeatOptions(), stop)
        thread = reset_meanwhile(seated.robot, raised)
        wait_for_note(notes, "move", 0.0)
        at = time.monotonic()
        seated.station.press("stop")
        thread.join()
        assert_held(notes, at, lateness)
        assert_still_after_hold(notes)
    assert [type(error) for error in raised] == [StoppedError]
    assert stop.is_set()


def test_a_stopped_motion_is_no_mistake_of_the_user(monkeypatch, capsys):
    def stopped(words):
        raise StoppedError("robot noting: stopped")

    monkeypatch.setattr("hildaft.cli._command", lambda name: stopped)
    monkeypatch.setattr("sys.argv", ["hildaft", "worker"])
    monkeypatch.setenv("HILDAFT_LAUNCHED", "1")
    with pytest.raises(SystemExit, match="130"):
        main()
    assert capsys.readouterr().err == "hildaft: robot noting: stopped\n"


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a terminal's: a suite that was started in the background has it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_reset_holds_the_robot_at_once(notes):
    with WatchedRobot(partial(DrivingArm, notes)) as robot, Lateness() as lateness:
        pressed = []

        def press():
            wait_for_note(notes, "move", 0.0)
            pressed.append(time.monotonic())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            SafeRobot(robot).reset("reach", 0)
        thread.join()
        assert_held(notes, pressed[0], lateness)
        assert_still_after_hold(notes)
        assert robot.holds == 0


def test_stop_reset_ends_nothing_but_a_reset(notes):
    with WatchedRobot(partial(NotingArm, notes)) as robot:
        robot.reset("reach", 0)
        robot.stop_reset()
        robot.step(STILL)
        robot.stop_reset()
        assert robot.step(STILL).truncated is False
    assert [kind for kind, _ in read_notes(notes)] == ["step", "step", "hold"]


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
