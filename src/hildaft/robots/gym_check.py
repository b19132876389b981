"""Whether a Gymnasium environment fits its config: tried out, not only read, and told line by line."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from hildaft.robots.gym_config import MOTIONS, GymConfig
from hildaft.robots.gym_env import GymRobot
from hildaft.types import Action, HilDaftError, Observation

Level: TypeAlias = Literal["ok", "warn", "fail"]

_TRIAL_STEPS: Final = 5
_SCALE_ERROR: Final = 0.4
"""Share by which a measured move may differ from the declared one: arms lag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    text: str


def check_environment(config: GymConfig, seed: int = 0) -> list[Finding]:
    """Resets every task and moves along every axis; the findings, the worst last word of `hildaft check-env`.

    A fault that keeps the environment from being used at all is a finding of level "fail", not an exception.
    """
    findings: list[Finding] = []
    robot = GymRobot(config)
    try:
        for task in config.tasks:
            first = robot.reset(task, seed)
            findings += _of_observation(task, first)
            findings += _of_seed(robot, task, seed, first)
            findings += _of_success(robot, task, seed)
        findings += _of_layout(config)
        if config.ee_position is not None:
            findings += _of_motion(robot, next(iter(config.tasks)), seed)
    except HilDaftError as error:
        findings.append(Finding(level="fail", text=str(error)))
    finally:
        robot.close()
    return findings


def _of_observation(task: str, observation: Observation) -> list[Finding]:
    findings: list[Finding] = []
    for name, image in observation.images.items():
        spread = float(image.std())
        if spread < 2.0:
            text = (
                f"{task}: camera {name} shows next to nothing (spread {spread:.1f} of 255);"
                " the wrong camera, or no light?"
            )
            findings.append(Finding(level="warn", text=text))
        else:
            findings.append(
                Finding(level="ok", text=f"{task}: camera {name}, spread {spread:.0f} of 255")
            )
    if np.array_equal(observation.images["head"], observation.images["wrist"]):
        text = f"{task}: head and wrist are the same image; depth will be hard to see"
        findings.append(Finding(level="warn", text=text))
    jaws, closed = observation.proprio
    findings.append(
        Finding(level="ok", text=f"{task}: jaw opening {jaws:.2f}, commanded closed {closed:.0f}")
    )
    return findings


def _of_seed(robot: GymRobot, task: str, seed: int, first: Observation) -> list[Finding]:
    again = robot.reset(task, seed)
    other = robot.reset(task, seed + 1)
    same = all(np.array_equal(first.images[n], again.images[n]) for n in first.images)
    if not same:
        text = (
            f"{task}: two resets with one seed look different; the environment does not use its seed, so "
            "evaluations of two policies will not meet the same scenes"
        )
        return [Finding(level="warn", text=text)]
    if all(np.array_equal(first.images[n], other.images[n]) for n in first.images):
        text = f"{task}: seeds {seed} and {seed + 1} look the same; is anything randomised, and does a camera see it?"
        return [Finding(level="warn", text=text)]
    return [Finding(level="ok", text=f"{task}: the seed decides the scene")]


def _of_success(robot: GymRobot, task: str, seed: int) -> list[Finding]:
    robot.reset(task, seed)
    still = np.zeros(7, dtype=np.float32)
    still[6] = -1.0
    result = robot.step(still)
    if result.reward > 0:
        text = f"{task}: success after one step without moving (seed {seed}); is the success signal the right one?"
        return [Finding(level="warn", text=text)]
    return [Finding(level="ok", text=f"{task}: success signal readable, not yet reached")]


def _of_layout(config: GymConfig) -> list[Finding]:
    findings: list[Finding] = []
    scale = config.action_scale
    for entry in config.action:
        if entry.means in ("fixed", "gripper"):
            continue
        full = scale.translation_m if entry.means in MOTIONS[:3] else scale.rotation_rad
        asked = full / config.repeat / abs(entry.unit)
        unit = "m" if entry.means in MOTIONS[:3] else "rad"
        text = (
            f"{entry.means}: a full action is {full} {unit}, {asked:.3g} of the environment's own"
        )
        if asked > 1.0:
            most = abs(entry.unit) * config.repeat
            text += f": clipped to {most:.3g} {unit}; lower action_scale or raise repeat"
        findings.append(Finding(level="ok" if asked <= 1.0 else "warn", text=text))
    if config.missing_motions:
        text = (
            f"no {', '.join(config.missing_motions)}: the policy's values for them have no effect"
        )
        findings.append(Finding(level="ok", text=text))
    if not any(entry.means == "gripper" for entry in config.action):
        findings.append(
            Finding(level="ok", text="no gripper: the policy's value for it has no effect")
        )
    return findings


def _of_motion(robot: GymRobot, task: str, seed: int) -> list[Finding]:
    """Moves along each translational axis and compares the measured with the declared metres."""
    findings: list[Finding] = []
    # A full action asks for no more than the environment's own bounds give.
    most_m = {entry.means: abs(entry.unit) * robot.config.repeat for entry in robot.config.action}
    for axis, motion in enumerate(MOTIONS[:3]):
        if motion not in most_m:
            continue
        measured = np.array([_travel(robot, task, seed, axis, sign) for sign in (1.0, -1.0)])
        # Half the difference of both ways: gravity and settling move the arm alike in both.
        travel = (measured[0] - measured[1]) / 2.0
        wanted = min(robot.action_scale.translation_m, most_m[motion]) * _TRIAL_STEPS
        share = float(travel[axis]) / wanted
        moved, declared = 1e3 * travel[axis], 1e3 * wanted
        text = f"{motion}: {_TRIAL_STEPS} full actions move {moved:.1f} mm of {declared:.1f} mm declared"
        if int(np.argmax(np.abs(travel))) != axis or share < 0:
            along = "xyz"[int(np.argmax(np.abs(travel)))]
            text += f", mostly along {along}; axes swapped, or the sign of unit wrong?"
            findings.append(Finding(level="fail", text=text))
        elif abs(share - 1.0) > _SCALE_ERROR:
            text += "; is `unit` right, or is the workspace's edge near?"
            findings.append(Finding(level="warn", text=text))
        else:
            findings.append(Finding(level="ok", text=text))
    return findings


def _travel(robot: GymRobot, task: str, seed: int, axis: int, sign: float) -> np.ndarray:
    robot.reset(task, seed)
    before = robot.ee_position_m()
    action: Action = np.zeros(7, dtype=np.float32)
    action[axis], action[6] = sign, -1.0
    for _ in range(_TRIAL_STEPS):
        if robot.step(action).terminated:
            break
    after = robot.ee_position_m()
    assert before is not None
    assert after is not None
    return after - before
