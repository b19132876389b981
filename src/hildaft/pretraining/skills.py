"""Generic language-conditioned skills: words, and the action a memoryless teacher gives from the true state.

Reach, hover, grasp, push, lift, carry, turn, move, open, close. None of them is one of the bench's three tasks, and
none of the tasks' sentences is said here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float32

from hildaft.robots.bolt_sim.random_scenes import LANDMARKS
from hildaft.types import ActionScale, HilDaftError

Jaws = str
"""What a skill does with the jaws: keep, open, close, or grasp (open, then close at the goal)."""

_GRASP_RADIUS_M: Final = 0.006
_PUSH_BEHIND_M: Final = 0.025
_PUSH_LANE_M: Final = 0.012
_SPEED: Final = 0.8


@dataclass(frozen=True, kw_only=True)
class Skill:
    """One skill: several ways to say it and one law."""

    phrases: tuple[str, ...]
    """Sentences that mean it."""
    goal: str | None = None
    """Landmark to go to; None for a constant direction."""
    moving: str = "tcp"
    """What goes there: tcp, or the bolt's head (carrying)."""
    offset_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added to the goal, base axes."""
    direction: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Constant translation where there is no goal, and the way to push where there is one; base axes."""
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Constant rotation, base axes."""
    jaws: Jaws = "keep"
    """Keep, open, close or grasp."""

    def __post_init__(self) -> None:
        if self.goal is not None and self.goal not in LANDMARKS:
            msg = f"skill goal={self.goal!r}: one of {', '.join(LANDMARKS)} is allowed"
            raise HilDaftError(msg)
        if self.jaws not in ("keep", "open", "close", "grasp"):
            msg = f"skill jaws={self.jaws!r}: keep, open, close or grasp is allowed"
            raise HilDaftError(msg)


_NAMES: Final = {
    "head": ("the head of the bolt", "the bolt head", "the thick end"),
    "tail": ("the tail of the bolt", "the tip of the shaft", "the thin end"),
    "middle": ("the middle of the bolt", "the shaft", "the object"),
    "slot_mouth": ("the mouth of the slot", "the slot", "the rail opening"),
    "slot_end": ("the end of the slot", "the back of the rail"),
    "spot": ("the marked spot", "the pink circle", "the target mark"),
}
_WAYS: Final = {
    "forward": (1.0, 0.0, 0.0),
    "back": (-1.0, 0.0, 0.0),
    "to the left": (0.0, 1.0, 0.0),
    "to the right": (0.0, -1.0, 0.0),
    "up": (0.0, 0.0, 1.0),
    "down": (0.0, 0.0, -1.0),
}
_TURNS: Final = {
    "rotate the gripper to the left": (0.0, 0.0, 1.0),
    "rotate the gripper to the right": (0.0, 0.0, -1.0),
    "rotate the gripper up": (0.0, -1.0, 0.0),
    "rotate the gripper down": (0.0, 1.0, 0.0),
    "roll the gripper clockwise": (1.0, 0.0, 0.0),
    "roll the gripper counterclockwise": (-1.0, 0.0, 0.0),
}


def _say(verbs: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{verb} {name}" for verb in verbs for name in names)


def _all_skills() -> tuple[Skill, ...]:
    skills: list[Skill] = []
    for goal, names in _NAMES.items():
        skills.append(Skill(phrases=_say(("reach", "go to", "touch"), names), goal=goal))
        above = _say(("hover above", "wait over"), names)
        skills.append(Skill(phrases=above, goal=goal, offset_m=(0.0, 0.0, 0.06)))
    for goal in ("tail", "middle"):
        phrases = _say(("grasp", "grip", "take hold of"), _NAMES[goal])
        skills.append(Skill(phrases=phrases, goal=goal, jaws="grasp"))
    for goal in ("slot_mouth", "slot_end", "spot"):
        verbs = ("carry the object to", "bring the head of the bolt to")
        skills.append(Skill(phrases=_say(verbs, _NAMES[goal]), goal=goal, moving="head"))
        skills.append(
            Skill(
                phrases=_say(("carry the object above", "hold the object over"), _NAMES[goal]),
                goal=goal,
                moving="head",
                offset_m=(0.0, 0.0, 0.05),
            )
        )
    for way, direction in _WAYS.items():
        skills.append(Skill(phrases=(f"move {way}", f"go {way} a bit"), direction=direction))
        if direction[2] == 0.0:
            phrases = _say(("push", "nudge"), (f"the object {way}", f"the shaft {way}"))
            skills.append(Skill(phrases=phrases, goal="middle", direction=direction, jaws="close"))
    for phrase, rotation in _TURNS.items():
        skills.append(Skill(phrases=(phrase,), rotation=rotation))
    lift = Skill(phrases=("lift", "lift it", "raise it"), direction=(0.0, 0.0, 1.0), jaws="close")
    skills.append(lift)
    skills.append(Skill(phrases=("open the gripper", "release", "let go"), jaws="open"))
    skills.append(Skill(phrases=("close the gripper", "shut the jaws"), jaws="close"))
    skills.append(Skill(phrases=("hold still", "stop", "wait")))
    return tuple(skills)


SKILLS: Final = _all_skills()
"""Every skill of the pretraining."""


def skill_actions(
    skill: Skill, labels: Mapping[str, np.ndarray], scale: ActionScale
) -> Float32[np.ndarray, "n 7"]:
    """Teacher's actions in [-1, 1] for many states at once.

    Args:
        skill: what to do.
        labels: `ee_position` (n, 3), `landmarks` (n, 6, 3) in m and base axes, `jaw_closed` (n).
        scale: what an action of 1 stands for.
    """
    tcp = labels["ee_position"].astype(np.float64)
    count = len(tcp)
    actions = np.zeros((count, 7), np.float32)
    actions[:, 3:6] = np.array(skill.rotation) * _SPEED
    actions[:, :3] = np.array(skill.direction) * _SPEED
    away = np.full(count, np.inf)
    if skill.goal is not None:
        target = labels["landmarks"][:, LANDMARKS.index(skill.goal)] + np.array(skill.offset_m)
        start = labels["landmarks"][:, 0] if skill.moving == "head" else tcp
        towards = target - start
        away = np.linalg.norm(towards, axis=1)
        actions[:, :3] = _steps(towards, scale)
        if any(skill.direction):
            actions[:, :3] = _push(towards, np.array(skill.direction), scale)
    near = away < _GRASP_RADIUS_M
    closes = {
        "keep": labels["jaw_closed"].astype(bool),
        "open": np.zeros(count, bool),
        "close": np.ones(count, bool),
        "grasp": near,
    }[skill.jaws]
    actions[:, 6] = np.where(closes, 1.0, -1.0)
    return actions


def _steps(towards: Float[np.ndarray, "n 3"], scale: ActionScale) -> Float[np.ndarray, "n 3"]:
    """The whole way if one step covers it, else full speed in its direction."""
    wanted = towards / scale.translation_m
    length = np.linalg.norm(wanted, axis=1, keepdims=True)
    return wanted * (_SPEED / np.maximum(length, _SPEED))


def _push(
    towards: Float[np.ndarray, "n 3"], way: Float[np.ndarray, "3"], scale: ActionScale
) -> Float[np.ndarray, "n 3"]:
    """From behind the goal (seen along `way`), on its line, push; from anywhere else, go behind it."""
    along = towards @ way
    aside = np.linalg.norm(towards - along[:, None] * way, axis=1)
    ready = (aside < _PUSH_LANE_M) & (along > 0.0)
    return np.where(ready[:, None], way * _SPEED, _steps(towards - way * _PUSH_BEHIND_M, scale))
