"""What a person should know about an environment before training on it: its check, its law, and what is seen."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hildaft.robots.gym_check import Finding, check_environment
from hildaft.robots.gym_config import CAMERAS, GymConfig
from hildaft.robots.gym_env import GymRobot
from hildaft.teleop.law import load_law
from hildaft.types import HilDaftError

_EPISODES: Final = 3
_ROWS: Final = 4
_ENLARGED: Final = 2
_NOBODY: Final = Finding(
    level="warn",
    text="no `operator`: a person has to demonstrate and correct, named with --operator",
)


def report_environment(config: GymConfig, frames: Path | None = None) -> None:
    """Tries the environment and its operator's law out and prints what it finds.

    Args:
        config: the environment.
        frames: where given, a PNG of what the policy will see: a row per episode start, `head` and `wrist`.

    Raises:
        HilDaftError: something makes it unusable.
    """
    findings = check_environment(config)
    if not _broken(findings):
        robot = GymRobot(config)
        try:
            findings += try_law(robot) if config.operator else [_NOBODY]
            if frames is not None:
                frames.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(_picture_starts(robot)).save(frames)
                findings.append(
                    Finding(level="ok", text=f"views as the policy gets them: {frames}")
                )
        finally:
            robot.close()
    broken = _broken(findings)
    for finding in findings:
        # The first that breaks it is the error's own line.
        if finding not in broken[:1]:
            print(f"  {finding.level:<4}  {finding.text}", file=sys.stderr)
    if broken:
        raise HilDaftError(broken[0].text)


def try_law(robot: GymRobot) -> list[Finding]:
    """Whether the law of the scripted operator does every task, and says sensibly how far it has got."""
    config = robot.config
    try:
        law = load_law(config.operator)
        findings: list[Finding] = []
        for task in config.tasks:
            outcomes: list[str] = []
            successes = rising = 0
            for seed in range(_EPISODES):
                robot.reset(task, seed)
                left: list[float] = []
                reward, over = 0.0, False
                while not over:
                    advice = law(robot.env, robot.raw_observation, robot.action_scale)
                    left.append(advice.remaining_steps)
                    result = robot.step(advice.action)
                    reward, over = result.reward, result.terminated or result.truncated
                successes += int(reward > 0)
                rising += int(len(left) > 1 and left[-1] >= left[0])
                outcomes.append(f"{len(left)} steps" if reward > 0 else f"fails after {len(left)}")
            findings += _of_law(task, outcomes, successes, rising)
    except HilDaftError as error:
        return [Finding(level="fail", text=str(error))]
    return findings


def _of_law(task: str, outcomes: list[str], successes: int, rising: int) -> list[Finding]:
    text = f"{task}: the operator's law succeeds in {successes} of {_EPISODES} episodes ({', '.join(outcomes)})"
    if not successes:
        text += "; nobody can demonstrate what it cannot do: look at `success`, `step_limit` and the law"
    level = "ok" if successes == _EPISODES else "warn" if successes else "fail"
    findings = [Finding(level=level, text=text)]
    if rising:
        text = (
            f"{task}: remaining_steps does not fall in {rising} of {_EPISODES} episodes; corrections start where it"
            " stalls, so they will come at the wrong moments"
        )
        findings.append(Finding(level="warn", text=text))
    return findings


def _picture_starts(robot: GymRobot) -> UInt8[np.ndarray, "h w 3"]:
    tasks = list(robot.config.tasks)
    # Every task once, then further starts of them.
    starts = [(tasks[row % len(tasks)], row // len(tasks)) for row in range(max(_ROWS, len(tasks)))]
    rows: list[np.ndarray] = []
    for task, seed in sorted(starts):
        images = robot.reset(task, seed).images
        # A white line between the views.
        cells = [np.pad(images[n], ((2, 2), (2, 2), (0, 0)), constant_values=255) for n in CAMERAS]
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)


def _broken(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "fail"]
