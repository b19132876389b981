"""Who demonstrates and corrects in Meta-World: its own scripted policies."""

from typing import Any

import gymnasium
import numpy as np

from hildaft.teleop.scripted_operator import Advice
from hildaft.types import ActionScale


def reach(env: gymnasium.Env[Any, Any], observation: np.ndarray, scale: ActionScale) -> Advice:
    """Straight to the goal, which the observation hides."""
    error = env.unwrapped._target_pos - observation[:3]
    action = np.zeros(7, dtype=np.float32)
    wish = 0.6 * error / scale.translation_m
    action[:3] = wish / max(1.0, float(np.abs(wish).max()))
    action[6] = -1.0
    return Advice(action=action, remaining_steps=float(np.linalg.norm(error)) / scale.translation_m)
