"""The law of a person who brings the dot to the ring."""

from typing import Any

import numpy as np

from hildaft.teleop.scripted_operator import Advice
from hildaft.types import ActionScale


def bring(env: Any, observation: dict[str, Any], scale: ActionScale) -> Advice:  # noqa: ANN401 - any environment
    """Straight to the ring, at most a full action per axis and step."""
    del env
    steps = (observation["goal"] - observation["position"]) / scale.translation_m
    action = np.zeros(7, np.float32)
    action[:2], action[6] = np.clip(steps, -1.0, 1.0), -1.0
    return Advice(action=action, remaining_steps=float(np.abs(steps).max()))
