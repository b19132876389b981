"""Who demonstrates and corrects in Gymnasium-Robotics' Fetch environments: laws of the true state."""

from typing import Any

import gymnasium
import numpy as np

from hildaft.teleop.scripted_operator import Advice
from hildaft.types import ActionScale


def reach(env: gymnasium.Env[Any, Any], observation: dict[str, Any], scale: ActionScale) -> Advice:
    """Straight to the goal, slowing down near it."""
    error = observation["desired_goal"] - observation["observation"][:3]
    action = np.zeros(7, dtype=np.float32)
    wish = 0.6 * error / scale.translation_m
    action[:3] = wish / max(1.0, float(np.abs(wish).max()))
    action[6] = -1.0
    steps = float(np.linalg.norm(error)) / scale.translation_m
    return Advice(action=action, remaining_steps=steps)
