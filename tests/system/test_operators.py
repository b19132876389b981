"""A person in place of the simulated operator, as a user starts it: device, page and run are real processes."""

import os
import re
import signal
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import COMMAND

from hildaft.commands import console, run
from hildaft.data.episodes import EpisodeStore
from hildaft.types import HilDaftError
from socket_page import Page

ONE_TASK = ("--tasks", "pick")


class Pad:
    """A gamepad: what the kernel would write to its device node."""

    def __init__(self, path):
        os.mkfifo(path)
        # Open for both, so that neither end waits for the other.
        self.file = os.open(path, os.O_RDWR)

    def set(self, kind, number, value):
        os.write(self.file, struct.pack("<IhBB", 0, value, kind, number))

    def press(self, button):
        self.set(1, button, 1)
        self.set(1, button, 0)

    def push(self, forward):
        """RB held, left stick away from the person."""
        self.set(1, 5, int(forward > 0))
        self.set(2, 1, int(-32767 * forward))

    def close(self):
        os.close(self.file)


@pytest.fixture
def pad(tmp_path):
    pad = Pad(tmp_path / "js0")
    yield pad
    pad.close()


@contextmanager
def started(log, *words):
    """The command as a process; its output goes to `log`."""
    with log.open("wb") as out:
        process = subprocess.Popen([*COMMAND, *words], stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def console_of(process, log, seconds=240):
    """Origin and token of the address the process has printed."""
    end = time.monotonic() + seconds
    while True:
        found = re.search(r"console: (http\S+)/\?token=(\S+)", log.read_text())
        if found:
            return found[1], found[2]
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.05)


Y, LB, START = 3, 4, 7


def show_forward(page, pad):
    """Demonstrates: pushes the stick until the arm has moved a little, and says on the pad that this is a success."""
    pad.push(1.0)
    first = page.until("state", control="human")
    while page.until("state")["step"] < first["step"] + 4:
        pass
    pad.press(Y)
    pad.push(0.0)


def test_record_with_a_gamepad_marked_and_kept_on_the_pad(pad, tmp_path: Path) -> None:
    out, log = tmp_path / "demonstrations", tmp_path / "log"
    words = ("record", "--operator", "gamepad", "--gamepad", str(tmp_path / "js0"))
    amounts = ("--episodes", "1", "--serving.port", "0", "--out", str(out), *ONE_TASK)
    with started(log, *words, *amounts) as process:
        with Page(*console_of(process, log), beats=True) as page:
            assert page.until("state", control="hold")["device"]["fault"] == ""
            pad.press(START)
            page.until("state", paused=True)
            pad.press(START)
            first = page.until("state", paused=False)
            pad.press(LB)
            page.until("state", episode=first["episode"] + 1)
            show_forward(page, pad)
            state = page.until("state", control="replay")
            assert state["review"]["success"]
            # A press that comes before anybody can have looked judges nothing.
            pad.press(Y)
            page.until("state", control="replay")
            end = time.monotonic() + 120
            while process.poll() is None:
                assert time.monotonic() < end, log.read_text()
                pad.press(Y)
                time.sleep(0.1)
        assert process.returncode == 0, log.read_text()
    store = EpisodeStore(out / "episodes")
    assert len(store) == 1
    episode = store.read(store.indices[0])
    assert episode.reward[-1] == 1.0
    assert episode.source == "demo"
    assert (episode.human_action[:-1, 0] > 0.5).all()


def test_worker_with_a_gamepad_demonstrates_for_the_learner(pad, tmp_path: Path) -> None:
    folder, learner_log, log = tmp_path / "run", tmp_path / "learner.log", tmp_path / "worker.log"
    few = ("--training.demonstrations", "1", "--training.warmup-updates", "10")
    learner_words = ("learner", "tiny", "--out", str(folder), "--listen", "127.0.0.1:0")
    with started(learner_log, *learner_words, *few, *ONE_TASK) as learner:
        end = time.monotonic() + 240
        while not (found := re.search(r"--learner (\S+)", learner_log.read_text())):
            assert learner.poll() is None, learner_log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        to_learner = ("--learner", found[1], "--token-file", str(folder / "token"))
        spool = ("--spool", str(tmp_path / "spool"), "--serving.port", "0")
        by_hand = ("--operator", "gamepad", "--gamepad", str(tmp_path / "js0"))
        with started(log, "worker", *to_learner, *spool, *by_hand) as worker:
            with Page(*console_of(worker, log), beats=True) as page:
                assert page.until("state", control="hold")["guides"] is not None
                show_forward(page, pad)
                # The warm-up is short; then the policy acts, and the stick corrects it.
                page.until("state", 240, control="policy")
                pad.push(1.0)
                page.until("state", control="human")
                pad.push(0.0)
                page.until("state", control="policy")
                page.send(type="key", key="failure")
                page.until("state", episode=3)
            end = time.monotonic() + 120
            while len(EpisodeStore(folder / "episodes")) < 2:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
    store = EpisodeStore(folder / "episodes")
    demonstration, rollout = (store.read(index) for index in store.indices[:2])
    assert demonstration.source == "demo"
    assert demonstration.success
    assert rollout.source == "online"
    assert rollout.terminated[-1]
    assert rollout.reward[-1] == 0.0
    corrected = rollout.is_intervention
    assert corrected.any()
    # Robot A faces the operator's way: forward is +x, and the label says so.
    assert (rollout.human_action[corrected, 0] > 0.5).all()
    assert {int(index) for index in rollout.refinement[corrected]} == {9 * 2 + 3 + 1}


MISSING = {
    ("train", "tiny", "--corrections", "somewhere"): "name those with --demonstrations",
    ("record", "--policy", "nowhere"): "give a run folder",
    ("train", "tiny", "--operator", "gamepad", "--gamepad", "nowhere"): "gamepad nowhere",
    ("record", "--operator", "gamepad", "--gamepad", "nowhere"): "gamepad nowhere",
    ("console", "--operator", "simulated"): "browser, spacemouse, gamepad are allowed",
}


COMMANDS_OF = {"train": run.train, "record": console.record, "console": console.console}


@pytest.mark.parametrize("words", MISSING, ids=" ".join)
def test_what_is_missing_is_one_line_and_nothing_is_written(words, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    out = tmp_path / "out"
    place = () if words[0] == "console" else ("--out", str(out))
    with pytest.raises(HilDaftError, match=MISSING[words]) as caught:
        COMMANDS_OF[words[0]]([*words[1:], *place])
    assert "\n" not in str(caught.value)
    assert not out.exists()
