"""The bolt bench as a LeRobot environment."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

from hildaft.config import INSTRUCTIONS, TASKS
from hildaft.config_files import require_name
from hildaft.robots.bolt_sim.env import BoltEnv

STEP_LIMIT = 50


class HildaftBoltEnv(gym.Env):
    """One task of the bolt bench with the names of keys and attributes that LeRobot reads."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, task: str, robot: str) -> None:
        self._env = BoltEnv(robot=robot)
        self.task = task
        self.task_description = INSTRUCTIONS[task]
        self._max_episode_steps = STEP_LIMIT
        self.render_mode = "rgb_array"
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        pictures = {"head": 256, "wrist": 128}
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(
                    {n: spaces.Box(0, 255, (s, s, 3), np.uint8) for n, s in pictures.items()}
                ),
                "agent_pos": spaces.Box(0.0, 1.0, (2,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode of the task."""
        del options
        super().reset(seed=seed)
        observation, _ = self._env.reset(seed=seed, options={"task": self.task})
        return _named(observation), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Runs one control step of 0.1 s."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        return _named(observation), reward, terminated, truncated, {"is_success": info["success"]}

    def render(self) -> np.ndarray:
        """Both cameras side by side."""
        return self._env.render()

    def close(self) -> None:
        """Frees the GL context."""
        self._env.close()


def _named(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "pixels": {"head": values["head"], "wrist": values["wrist"]},
        "agent_pos": values["proprio"],
    }


@EnvConfig.register_subclass("hildaft_bolt")
@dataclass
class HildaftBoltEnvConfig(EnvConfig):
    """--env.type=hildaft_bolt."""

    task: str | None = "upright"
    """One task, or several with commas between."""
    fps: int = 10
    robot: str = "A"
    """Variant of the bench, A or B."""
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(7,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(2,)),
            "pixels/head": PolicyFeature(type=FeatureType.VISUAL, shape=(256, 256, 3)),
            "pixels/wrist": PolicyFeature(type=FeatureType.VISUAL, shape=(128, 128, 3)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "pixels/head": "observation.images.head",
            "pixels/wrist": "observation.images.wrist",
        }
    )

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Not used: the environments are made here."""
        return {}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, VectorEnv]]:
        """One vector environment per task; raises HilDaftError for an unknown one."""
        made: dict[str, dict[int, VectorEnv]] = {}
        for task in (self.task or "upright").split(","):
            require_name("env.task", task, TASKS)
            makers = [partial(HildaftBoltEnv, task, self.robot)] * n_envs
            kind = AsyncVectorEnv if use_async_envs and n_envs > 1 else SyncVectorEnv
            # OpenGL does not survive a fork.
            extra = {"context": "spawn"} if kind is AsyncVectorEnv else {}
            made[task] = {0: kind(makers, autoreset_mode=AutoresetMode.SAME_STEP, **extra)}
        return made
