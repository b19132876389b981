"""Demonstrations: on disk before anybody judges them, judged on the page, and nothing lost in between."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from live import DRIFT, TOKEN, EndlessRobot, Live, ObedientPolicy
from playwright.sync_api import expect

from hildaft.console.charts import Charts
from hildaft.console.feed import Feed, WatchedRobot
from hildaft.console.recording import PENDING, Recording
from hildaft.console.serving import ServingConfig, serve
from hildaft.console.sessions import (
    Demonstrator,
    corrections,
    demonstrations,
    person,
    record,
    reviewed,
)
from hildaft.console.station import Station
from hildaft.data.episodes import EpisodeStore
from hildaft.runtime.interaction import Pacing
from hildaft.teleop.browser import BrowserOperator
from hildaft.teleop.phrases import parse_phrase
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import NULL_COMMAND, HilDaftError, RefinementCommand, StepResult, Tweak


class ShortRobot(EndlessRobot):
    """Ends after some steps, successfully."""

    def __init__(self, limit=6):
        super().__init__()
        self.limit = limit

    def reset(self, task, seed):
        self.count = 0
        return super().reset(task, seed)

    def step(self, action):
        self.count += 1
        ends = self.count == self.limit
        result = super().step(action)
        return StepResult(result.observation, float(ends), terminated=ends, truncated=False)


def forward(rest_every=3):
    """Demonstrates forward motion and rests now and then."""
    count = iter(range(10_000))

    def demonstrate():
        action = np.zeros(7, np.float32)
        action[0], action[6] = 0.5 * bool((next(count) + 1) % rest_every), -1.0
        return action

    return demonstrate


def shown(folder, judge, *, wanted=3, tasks=("reach",), stop=None, robot=None):
    demonstrator = Demonstrator(begin=lambda task, seed: None, demonstrate=forward(), judge=judge)
    recording = Recording(folder, print)
    finished = record(
        demonstrations(robot or ShortRobot(), ObedientPolicy(), demonstrator, Pacing()),
        recording,
        tasks,
        wanted,
        lambda task, attempt: 100 + attempt,
        stop or threading.Event(),
        on_progress=lambda task, kept, episode: None,
    )
    return finished, recording


def test_what_is_kept_is_stored_without_rest_and_what_is_refused_is_set_aside(tmp_path):
    verdicts = iter([True, False, True, True])
    finished, recording = shown(tmp_path, lambda episode: next(verdicts))
    assert finished
    assert [s.seed for s in recording.kept.summaries()] == [100, 102, 103]
    assert len(EpisodeStore(tmp_path / "discarded")) == 1
    assert recording.pending() == []
    for _, episode in recording.kept.iterate():
        # Two of the six steps rested; the last one rests too, but carries the success.
        assert len(episode) == 5
        assert episode.success
        assert (episode.executed_action[:-1, 0] != 0).all()
    told = recording.summary(OperatorFrame().words)
    assert "3 demonstrations" in told
    assert "discarded 1" in told


def test_a_crash_before_the_verdict_loses_no_episode(tmp_path):
    def crash(episode):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shown(tmp_path, crash)
    judged = []

    def keep(episode):
        judged.append(episode.seed)
        return True

    finished, recording = shown(tmp_path, keep)
    assert finished
    # The one that was waiting comes first, and its scene is not shown again.
    assert judged == [100, 101, 102]
    assert recording.count("reach") == 3


def test_a_crash_while_an_episode_moves_makes_no_second_copy(tmp_path):
    _, recording = shown(tmp_path, lambda episode: None, wanted=1, stop=stopped_after(1))
    [(index, episode)] = recording.pending()
    # As if killed after the kept copy was written and before the pending one was removed.
    recording.kept.append(episode)
    again = Recording(tmp_path, print)
    assert again.pending() == []
    assert again.count("reach") == 1
    assert index == 0


def stopped_after(checks):
    """An event that is set once it was looked at so often."""

    class Counted(threading.Event):
        def __init__(self):
            super().__init__()
            self.left = checks

        def is_set(self):
            self.left -= 1
            return self.left < -1

    return Counted()


def test_a_person_drives_looks_and_keeps_on_the_page(tmp_path, open_page):
    robot, feed, stop, charts = EndlessRobot(), Feed(), threading.Event(), Charts()
    watched = WatchedRobot(robot, feed, guides=robot.guides, view=robot)
    operator = BrowserOperator(lambda: watched.jaws_closed, look=watched.look, stop=stop)
    station = Station(
        "spot", "record", feed, operator, OperatorFrame(), parse_phrase, {"reach": "bring the spot"}
    )
    recording = Recording(tmp_path, print)

    def run():
        record(
            demonstrations(watched, ObedientPolicy(), person(station, stop), Pacing(10.0)),
            recording,
            ("reach",),
            1,
            lambda task, attempt: attempt,
            stop,
            on_progress=lambda task, kept, episode: None,
        )

    loop = threading.Thread(target=run)
    with serve({"spot": station}, charts, ServingConfig(port=0), token=TOKEN) as address:
        live = Live(address, robot, station, [], charts, stop)
        loop.start()
        try:
            page = open_page(address)
            page.wait_for_selector("body[data-control=hold]")
            assert robot.steps == []
            for verdict, kept in (("n", 0), ("y", 1)):
                before = len(robot.steps)
                page.keyboard.down("w")
                live.wait(lambda before=before: len(robot.steps) >= before + 4)
                page.keyboard.up("w")
                page.keyboard.press("y")
                page.wait_for_selector("#review:not([hidden])")
                expect(page.locator("#reviewtext")).to_contain_text("successful")
                page.wait_for_function("() => +document.getElementById('scrub').value >= 3")
                # It is on disk while the person is still looking.
                assert len(recording.pending()) == 1
                page.keyboard.press(verdict)
                # Asking the recording itself would tidy up under the hands of the loop.
                live.wait(lambda: not list((tmp_path / PENDING).glob("[0-9]*.safetensors")))
                # Until the page knows, its keys are those of the review.
                page.wait_for_selector("#review", state="hidden")
                assert recording.count("reach") == kept
            loop.join(60.0)
            assert not loop.is_alive()
        finally:
            operator.mark("stop")
            loop.join(60.0)
    episode = recording.kept.read(recording.kept.indices[0])
    assert episode.success
    assert (episode.executed_action[:, 0] > 0).all()


class Corrector:
    """Lets the policy act, and pushes left in the third and fourth step."""

    def begin(self, task, seed):
        self.count = 0

    def speak(self):
        return NULL_COMMAND

    def tweak(self, policy_action):
        self.count += 1
        if self.count not in (3, 4):
            return None
        action = np.zeros(7, np.float32)
        action[1], action[6] = 0.5, -1.0
        return Tweak(action)


def corrected(folder, judge, *, wanted=2, stop=None, robot=None):
    recording = Recording(folder, print)
    recorder = corrections(
        robot or ShortRobot(), ObedientPolicy(), Corrector(), judge, Pacing(), None
    )
    finished = record(
        recorder,
        recording,
        ("reach",),
        wanted,
        lambda task, attempt: 200 + attempt,
        stop or threading.Event(),
        on_progress=lambda task, kept, episode: None,
    )
    return finished, recording


def test_corrections_are_kept_whole_with_their_labels_beside_demonstrations(tmp_path):
    shown(tmp_path, lambda episode: True, wanted=1)

    def crash(episode):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corrected(tmp_path, crash)
    judged = []

    def keep(episode):
        judged.append(episode.seed)
        return True

    finished, recording = corrected(tmp_path, keep)
    assert finished
    assert judged == [200, 201]
    assert (recording.count("reach"), recording.count("reach", "online")) == (1, 2)
    episode = recording.kept.read(recording.kept.indices[1])
    assert episode.source == "online"
    assert episode.policy_version == ObedientPolicy.version
    # The policy's steps stay, whatever they ask for, and what it would have done in the corrected ones.
    assert episode.is_intervention.tolist() == [False, False, True, True, False, False]
    assert np.isfinite(episode.policy_action).all()
    left = RefinementCommand((0, 1, 0)).index
    assert episode.refinement.tolist() == [13, 13, left, left, 13, 13]
    told = recording.summary(OperatorFrame().words)
    assert "1 demonstrations, 2 episodes of a policy" in told
    assert "12 steps (6 to 6), 4 by hand (33%)" in told
    assert "labels: move left 4" in told


def test_a_stop_half_way_keeps_the_corrections_so_far(tmp_path):
    stop = threading.Event()

    class Stopped(ShortRobot):
        def step(self, action):
            result = super().step(action)
            if self.count == 4:
                stop.set()
            return result

    finished, recording = corrected(tmp_path, lambda episode: None, stop=stop, robot=Stopped())
    assert not finished
    [(_, episode)] = recording.pending()
    assert episode.is_intervention.sum() == 2


class Dying(ShortRobot):
    """The process is killed while the fifth step of the second episode is taken."""

    episodes = 0

    def reset(self, task, seed):
        self.episodes += 1
        return super().reset(task, seed)

    def step(self, action):
        if self.episodes == 2 and self.count == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def killed_while(what, folder):
    """Runs `what` of this module on a robot that takes the process with it."""
    code = f"import test_recording as t; t.{what}(t.Path({str(folder)!r}), lambda e: True, robot=t.Dying())"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=False
    )
    assert ended.returncode == -signal.SIGKILL


def test_killed_in_mid_episode_every_correction_made_by_then_is_judged_next_time(tmp_path, capsys):
    killed_while("corrected", tmp_path)
    judged = []

    def keep(episode):
        judged.append(episode)
        return True

    finished, recording = corrected(tmp_path, keep)
    assert finished
    # The first was kept before; the second is the torn one, no scene comes twice and none is missing.
    assert [episode.seed for episode in judged] == [201]
    [torn] = judged
    assert len(torn) == 4
    assert torn.truncated.tolist() == [False] * 3 + [True]
    left = RefinementCommand((0, 1, 0)).index
    assert torn.refinement.tolist() == [13, 13, left, left]
    assert [s.seed for s in recording.kept.summaries()] == [200, 201]
    assert "interrupted after 4 steps; it waits for your verdict" in capsys.readouterr().out
    assert not recording.journal.path.exists()


def test_killed_in_mid_demonstration_the_half_is_set_aside_and_the_rest_stays(tmp_path, capsys):
    killed_while("shown", tmp_path)
    finished, recording = shown(tmp_path, lambda episode: True)
    assert finished
    assert [s.seed for s in recording.kept.summaries()] == [100, 102, 103]
    [half] = EpisodeStore(tmp_path / "discarded").summaries()
    assert (half.seed, half.success) == (101, False)
    assert "half a demonstration is none" in capsys.readouterr().out


def test_a_demonstration_killed_after_its_last_step_is_whole(tmp_path):
    demonstrator = Demonstrator(
        begin=lambda task, seed: None, demonstrate=forward(), judge=lambda episode: True
    )
    recorder = demonstrations(ShortRobot(), ObedientPolicy(), demonstrator, Pacing())
    lost = Recording(tmp_path, print)
    with lost.claimed():
        recorder.make("reach", 100, lost.journal)
    _, recording = shown(tmp_path, lambda episode: True, wanted=1)
    [episode] = [episode for _, episode in recording.kept.iterate()]
    assert (episode.seed, episode.success, len(episode)) == (100, True, 5)


def test_two_recorders_do_not_share_a_folder(tmp_path):
    with (
        Recording(tmp_path, print).claimed(),
        pytest.raises(HilDaftError, match="another recorder uses it"),
    ):
        shown(tmp_path, lambda episode: True)


SHOWS_HAND = """() => {
  const step = document.getElementById("reviewstep");
  return step.className === "by-hand" && step.textContent.includes("move left");
}"""
"""For as long as the replay is at the corrected steps: read in one look."""


def test_a_person_corrects_a_policy_looks_and_keeps_on_the_page(tmp_path, open_page):
    robot, feed, stop, charts = EndlessRobot(), Feed(), threading.Event(), Charts()
    watched = WatchedRobot(robot, feed, guides=robot.guides, view=robot)
    operator = BrowserOperator(lambda: watched.jaws_closed, look=watched.look, stop=stop)
    station = Station(
        "spot", "policy", feed, operator, OperatorFrame(), parse_phrase, {"reach": "bring the spot"}
    )
    recording = Recording(tmp_path, print)

    def run():
        record(
            corrections(
                watched,
                ObedientPolicy(),
                operator,
                partial(reviewed, station, stop),
                Pacing(10.0),
                operator,
            ),
            recording,
            ("reach",),
            1,
            lambda task, attempt: attempt,
            stop,
            on_progress=lambda task, kept, episode: None,
        )

    loop = threading.Thread(target=run)
    with serve({"spot": station}, charts, ServingConfig(port=0), token=TOKEN) as address:
        live = Live(address, robot, station, [], charts, stop)
        loop.start()
        try:
            page = open_page(address)
            page.wait_for_selector("body[data-control=policy]")
            before = len(robot.steps)
            page.keyboard.down("a")
            live.wait(lambda: sum(a[1] > 2 * DRIFT for _, a in robot.steps[before:]) >= 6)
            page.keyboard.up("a")
            page.wait_for_selector("body[data-control=policy]")
            page.keyboard.press("y")
            page.wait_for_selector("#review:not([hidden])")
            expect(page.locator("#reviewtext")).to_contain_text(" by hand")
            page.wait_for_function(SHOWS_HAND)
            page.wait_for_function("() => !document.getElementById('reviewstep').className")
            assert len(recording.pending()) == 1
            page.keyboard.press("y")
            loop.join(60.0)
            assert not loop.is_alive()
        finally:
            operator.mark("stop")
            loop.join(60.0)
    episode = recording.kept.read(recording.kept.indices[0])
    assert episode.source == "online"
    rows = np.flatnonzero(episode.is_intervention)
    assert 4 <= len(rows) < len(episode)
    assert set(episode.refinement[rows].tolist()) == {RefinementCommand((0, 1, 0)).index}
