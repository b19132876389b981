"""Success seen by others than the robot, as a run's config names them, and what happens where they disagree."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from hildaft.algo.success import (
    SuccessClassifier,
    SuccessNetwork,
    TaskClassifier,
    write_classifier,
)
from hildaft.config import RunConfig
from hildaft.eval.success_training import FOLDER, QUEUE_FILE, DoubtQueue, read_queue
from hildaft.judging import judged, queue_of
from hildaft.robots.judged import JudgeConfig
from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.teleop.browser import BrowserOperator
from hildaft.types import HilDaftError
from point_robot import PixelPolicy, PointRobot

RULE = """
import numpy as np

def brought(task, observation):
    red, green = (observation.images["head"][..., i].astype(float) for i in (0, 1))
    return task == "pick" and (red * green).sum() > 0.3 * (green * green).sum()
"""


class Encoders:
    """Sees the two blobs as the policy does."""

    hash = "blobs"

    def encode(self, observation, task):
        return PixelPolicy().encode(observation, task)


def classifier(tmp_path, *, hash="blobs", width=8, threshold=0.5):
    """Believes in success where the red blob is within some 2 cm of the green one along x."""
    network = SuccessNetwork(width, 2, dropout=0.0)
    network.mean.zero_()
    network.deviation.fill_(1.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # SiLU of +-(x_red - x_green): their sum grows with the distance.
        network.layers[0].weight[0, 0], network.layers[0].weight[0, 2] = 500.0, -500.0
        network.layers[0].weight[1, 0], network.layers[0].weight[1, 2] = -500.0, 500.0
        network.layers[3].weight.fill_(-1.0)
        network.layers[3].bias.fill_(10.0)
    part = TaskClassifier(network=network.eval(), threshold=threshold, streak=2)
    whole = SuccessClassifier(encoder_hash=hash, tasks={"pick": part})
    path = tmp_path / FOLDER / "classifier.safetensors"
    write_classifier(whole, path)
    return whole


def config(**judge):
    return replace(RunConfig(tasks=("pick",)), judge=JudgeConfig(**judge))


def run(robot, **given):
    return run_episode(
        robot,
        PixelPolicy(),
        given.pop("operator", None),
        "pick",
        3,
        "online",
        pacing=Pacing(),
        **given,
    )


def test_a_rule_from_a_file_ends_the_episode_with_reward_1(tmp_path):
    (tmp_path / "rule.py").write_text(RULE)
    given = config(by="rule", rule=f"{tmp_path / 'rule.py'}:brought")
    point = PointRobot()
    episode = run(judged(point, given, Encoders(), None))
    assert episode.success
    assert episode.reward.tolist() == [0.0] * (len(episode) - 1) + [1.0]
    # The rule is milder than the robot's own 15 mm.
    assert np.linalg.norm(point.goal_m - point.position_m) > 0.015
    with pytest.raises(HilDaftError, match=r"judge\.rule="):
        judged(point, config(by="rule", rule=f"{tmp_path / 'rule.py'}:other"), Encoders(), None)


def test_a_classifier_of_another_run_judges_and_what_it_is_wrong_about_is_queued(tmp_path):
    classifier(tmp_path / "old")
    given = config(by="classifier", classifier=str(tmp_path / "old"))
    robot = judged(PointRobot(), given, Encoders(), None)
    first = run(robot)
    assert first.success
    queue = queue_of(given, tmp_path / "new", Encoders())
    queue(0, first)
    queue(1, replace(first, source="demo", success=False))
    # Whoever marked it has seen no success where the classifier has.
    queue(2, replace(first, success=False))
    queue(2, replace(first, success=False))
    [doubt] = read_queue(tmp_path / "new" / FOLDER / QUEUE_FILE)
    assert (doubt.episode, doubt.labelled, doubt.classifier) == (2, "failure", "false")
    assert queue_of(config(by="person"), tmp_path, Encoders()) is None


def test_a_verdict_in_the_queue_is_kept_when_more_is_queued(tmp_path):
    whole = classifier(tmp_path)
    path = tmp_path / FOLDER / QUEUE_FILE
    queue = DoubtQueue(tmp_path, whole)
    episode = replace(run(PointRobot()), success=False)
    queue.look_at(4, episode)
    path.write_text(path.read_text().replace('"verdict": ""', '"verdict": "success"'))
    queue.look_at(7, episode)
    queue.look_at(4, episode)
    assert [(d.episode, d.verdict) for d in read_queue(path)] == [(4, "success"), (7, "")]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"hash": "others"}, "trained on encoders others, the run has blobs"),
        (None, "make it with `hildaft train-success RUN`"),
    ],
)
def test_a_classifier_that_does_not_fit_is_one_line(tmp_path, made, says):
    if made is not None:
        classifier(tmp_path, **made)
    given = config(by="classifier", classifier=str(tmp_path))
    with pytest.raises(HilDaftError, match=says):
        judged(PointRobot(), given, Encoders(), None)


def test_a_person_judges_only_where_one_sits():
    with pytest.raises(HilDaftError, match="nobody sits at the robot"):
        judged(PointRobot(), config(by="person"), Encoders(), None)
    person = BrowserOperator(lambda: False)
    robot = judged(PointRobot(), config(by="person"), Encoders(), person)

    class Person:
        """Marks a success at the fourth step, whatever the robot thinks."""

        steps = 0

        def holds(self):
            return False

        def idle(self):
            raise AssertionError

        def take_mark(self):
            self.steps += 1
            return "success" if self.steps == 5 else None

    episode = run(robot, keys=Person())
    assert (len(episode), episode.success) == (4, True)


def asked(person, seconds=5.0):
    """Asks in a thread, as the loop does; returns where the answer will be, once the question is out."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(person.confirm(seconds)))
    thread.start()
    deadline = time.monotonic() + 5
    while not person.asks:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert person.control == "hold"
    return thread, answer


@pytest.mark.parametrize(
    ("mark", "answer", "left"),
    [("success", True, None), ("failure", False, None), ("again", False, "again")],
)
def test_the_person_is_asked_before_a_judge_is_believed(mark, answer, left):
    person = BrowserOperator(lambda: False)
    thread, found = asked(person)
    person.mark(mark)
    thread.join()
    assert found == [answer]
    assert person.take_mark() == left
    assert not person.asks


def test_silence_is_a_yes_and_a_mark_from_before_is_no_answer():
    person = BrowserOperator(lambda: False)
    assert person.confirm(0.02)
    person.mark("failure")
    assert not person.confirm(5.0)
    assert person.take_mark() == "failure"
