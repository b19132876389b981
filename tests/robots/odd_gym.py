"""An environment nobody here would write: its own names, axes, units, image layout and success signal."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from hildaft.teleop.scripted_operator import Advice

STEP_M = 0.02
REACHED_M = 0.02


class OddReach(gymnasium.Env):
    """A point in a box of 30 cm; action: jaws (0 close, 2 open), dy, -dx, dz in units of 2 cm."""

    observation_space = spaces.Dict(
        {
            "pixels": spaces.Dict({"front": spaces.Box(0.0, 1.0, (3, 60, 80), np.float32)}),
            "state": spaces.Box(-np.inf, np.inf, (8,), np.float64),
        }
    )
    action_space = spaces.Box(
        np.array([0, -1, -1, -1], np.float32), np.array([2, 1, 1, 1], np.float32)
    )
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, seeded: bool = True, render_mode: str | None = None, fails: str = ""
    ) -> None:
        # As packages do that do not fit the MuJoCo beside them: no word of what is wrong.
        assert fails != "make"
        self.seeded, self.render_mode, self.fails = seeded, render_mode, fails
        self.received: list[np.ndarray] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        rng = self.np_random if self.seeded else np.random.default_rng()
        self.position_m = rng.uniform(-0.05, 0.05, 3)
        self.goal_m = rng.uniform(-0.1, 0.1, 3)
        self.fingers_m = 0.08
        return self._observe(), {}

    def step(self, action):
        if self.fails == "step":
            raise ValueError("the arm\nfell off")
        self.received.append(np.array(action))
        self.position_m = np.clip(
            self.position_m + STEP_M * np.array([-action[2], action[1], action[3]]), -0.15, 0.15
        )
        self.fingers_m = 0.04 * action[0]
        near = bool(np.linalg.norm(self.goal_m - self.position_m) < REACHED_M)
        return self._observe(), -1.0, False, False, {"metrics": {"reached": np.array([near])}}

    def render(self):
        return (255 * self._draw(0, 2, 90, 90)).astype(np.uint8)

    def _observe(self):
        front = np.moveaxis(self._draw(1, 2, 60, 80), 2, 0)
        state = np.array([9.0, *self.position_m, *self.goal_m, self.fingers_m])
        return {"pixels": {"front": front}, "state": state}

    def _draw(self, across, up, height, width):
        image = np.full((height, width, 3), 0.2, np.float32)
        x = np.linspace(-0.15, 0.15, width)[None, :]
        z = np.linspace(0.15, -0.15, height)[:, None]
        for channel, point in ((0, self.goal_m), (2, self.position_m)):
            near = (x - point[across]) ** 2 + (z - point[up]) ** 2 < 0.012**2
            image[near, channel] = 1.0
        return image


# Loaded twice: as an importable module, and as the file of the operator.
if "Odd/Reach-v0" not in gymnasium.registry:
    gymnasium.register("Odd/Reach-v0", entry_point=OddReach, max_episode_steps=200)


def straight(env, observation, scale):
    error = observation["state"][4:7] - observation["state"][1:4]
    action = np.zeros(7, np.float32)
    action[:3] = np.clip(0.7 * error / scale.translation_m, -1, 1)
    action[6] = -1.0
    return Advice(action=action, remaining_steps=float(np.linalg.norm(error)) / scale.translation_m)
