"""Steps in which nothing was asked of the robot, taken out of demonstrations. NumPy only."""

from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Bool

from hildaft.data.episode_builder import Labeller
from hildaft.types import ActionScale, Episode

IDLE_TRANSLATION_M: Final = 1e-4
"""Translation below which a step counts as idle. Not in the paper; a tenth of its talk threshold."""
IDLE_ROTATION_RAD: Final = 1e-3
"""Rotation below which a step counts as idle. Not in the paper."""


def idle_steps(episode: Episode, scale: ActionScale) -> Bool[np.ndarray, " t"]:
    """Rows that ask for no motion and leave the jaws as they are; never the first or the last one.

    The last one carries the outcome, and the first one's state is where the episode starts.
    """
    action = episode.executed_action
    moved_m = np.linalg.norm(action[:, :3], axis=1) * scale.translation_m
    turned_rad = np.linalg.norm(action[:, 3:6], axis=1) * scale.rotation_rad
    closes = action[:, 6] > 0
    same_jaws = np.concatenate([[False], closes[1:] == closes[:-1]])
    idle = (moved_m < IDLE_TRANSLATION_M) & (turned_rad < IDLE_ROTATION_RAD) & same_jaws
    idle[0] = idle[-1] = False
    return idle


def without_idle_steps(episode: Episode, scale: ActionScale, label: Labeller) -> Episode:
    """The demonstration without its idle rows: who is cloned from rests learns to rest.

    What led to an idle state leads to the next state that something is done in; labels are made anew, since
    eq. 12's window counts steps.
    """
    idle = idle_steps(episode, scale)
    if not idle.any():
        return episode
    rows = np.flatnonzero(~idle)
    states = np.append(rows, len(episode))
    human = episode.human_action[rows]
    is_human = np.isfinite(human.sum(axis=1))
    refinement, displacement_m = label(human, is_human, scale)
    return replace(
        episode,
        h=episode.h[states],
        features=episode.features[states],
        proprio=episode.proprio[states],
        policy_action=episode.policy_action[rows],
        human_action=human,
        executed_action=episode.executed_action[rows],
        is_intervention=episode.is_intervention[rows],
        spoken=episode.spoken[rows],
        refinement=refinement,
        displacement_m=displacement_m,
        reward=episode.reward[rows],
        terminated=episode.terminated[rows],
        truncated=episode.truncated[rows],
        images={
            camera: tuple(frames[state] for state in states.tolist())
            for camera, frames in episode.images.items()
        },
    )
