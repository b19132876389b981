"""An environment of one's own, as small as they come: a dot on a plane that has to reach a ring. NumPy only."""

import gymnasium
import numpy as np
from gymnasium import spaces

REACH_M = 0.2
STEP_M = 0.02
NEAR_M = 0.015


class DotEnv(gymnasium.Env):
    """Actions move the dot along x and y; the picture is seen from above."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str = "rgb_array") -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        place = spaces.Box(-REACH_M, REACH_M, (2,), np.float64)
        self.observation_space = spaces.Dict({"position": place, "goal": place})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Draws both places."""
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-0.15, 0.15, (2, 2))
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Moves the dot."""
        moved = self.position + STEP_M * np.asarray(action, dtype=np.float64)
        self.position = np.clip(moved, -REACH_M, REACH_M)
        reached = bool(np.linalg.norm(self.position - self.goal) < NEAR_M)
        return self._observe(), float(reached), reached, False, {"success": reached}

    def render(self) -> np.ndarray:
        """The plane from above, x to the right and y up."""
        axis = np.linspace(-REACH_M, REACH_M, 128)
        image = np.full((128, 128, 3), 230, np.uint8)
        for place, radius, colour in (
            (self.goal, 0.025, (40, 140, 80)),
            (self.position, 0.015, (190, 40, 40)),
        ):
            image[np.hypot(axis[None, :] - place[0], axis[::-1, None] - place[1]) < radius] = colour
        return image

    def _observe(self) -> dict:
        return {"position": self.position.copy(), "goal": self.goal.copy()}


gymnasium.register("DotReach-v0", entry_point=DotEnv, max_episode_steps=50)
