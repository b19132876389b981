"""Who says that a task is done: from a config to a robot that is judged, and the queue of what judges disagree on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hildaft.algo.policy import Encoders
from hildaft.algo.success import SuccessClassifier, read_classifier
from hildaft.config import RunConfig
from hildaft.eval.success_training import DoubtQueue, find_classifier
from hildaft.robots.judged import (
    JudgedRobot,
    PersonJudge,
    ProbabilityJudge,
    RuleJudge,
    SuccessJudge,
)
from hildaft.teleop.browser import BrowserOperator
from hildaft.teleop.law import load_function
from hildaft.types import Episode, HilDaftError, Robot


def judged(
    robot: Robot, config: RunConfig, encoders: Encoders, person: BrowserOperator | None
) -> Robot:
    """The robot, its success seen by whom the config names.

    Raises:
        HilDaftError: nobody is there to judge, or rule or classifier cannot be loaded or do not fit.
    """
    match config.judge.by:
        case "robot":
            return robot
        case "person":
            if person is None:
                msg = "judge.by='person': nobody sits at the robot; add --console, or --operator browser"
                raise HilDaftError(msg)
            judge: SuccessJudge = PersonJudge()
        case "rule":
            judge = RuleJudge(load_function(config.judge.rule, "judge.rule", "docs/success.md"))
        case "classifier":
            classifier = load_classifier(config, encoders)
            judge = ProbabilityJudge(
                lambda task, seen: classifier.probability(encoders.encode(seen, task), task),
                classifier.limits,
            )
    wait_s = config.judge.confirm_s
    confirm = None if person is None or wait_s == 0.0 else partial(person.confirm, wait_s)
    return JudgedRobot(robot, judge, config.step_limit, confirm)


def load_classifier(config: RunConfig, encoders: Encoders) -> SuccessClassifier:
    """The classifier of success that the config names.

    Raises:
        HilDaftError: no such file, trained on other encoders, or not on all of the run's tasks.
    """
    place = find_classifier(Path(config.judge.classifier))
    classifier = read_classifier(place)
    if classifier.encoder_hash != encoders.hash:
        msg = (
            f"judge.classifier={place}: it was trained on encoders {classifier.encoder_hash[:12]}, the run has"
            f" {encoders.hash[:12]}; train it on a run of the same backbone and tasks"
        )
        raise HilDaftError(msg)
    for task in config.tasks:
        classifier.of(task)
    return classifier


def queue_of(
    config: RunConfig, folder: Path, encoders: Encoders
) -> Callable[[int, Episode], None] | None:
    """What queues the episodes on which label and classifier disagree; None where no classifier judges."""
    if config.judge.by != "classifier":
        return None
    return DoubtQueue(folder, load_classifier(config, encoders)).look_at
