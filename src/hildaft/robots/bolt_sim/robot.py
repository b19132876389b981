"""The bolt bench behind the project's `Robot` protocol."""

from typing import Any, Final, final

import numpy as np
from jaxtyping import Float64

from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.robots.bolt_sim.model import RobotName
from hildaft.types import Action, ActionScale, Observation, SceneState, StepResult


@final
class BoltRobot:
    """Robot A or B at the bolt bench (implements `types.Robot`)."""

    def __init__(self, robot: RobotName = "A", action_scale: ActionScale | None = None) -> None:
        self.env: Final = BoltEnv(robot=robot, action_scale=action_scale)
        self._name: Final = robot

    @property
    def name(self) -> str:
        """A or B."""
        return self._name

    @property
    def action_scale(self) -> ActionScale:
        """Metres and radians an action of 1 stands for."""
        return self.env.action_scale

    def reset(self, task: str, seed: int) -> Observation:
        """Starts an episode of a task; raises HilDaftError for an unknown one."""
        observation, _ = self.env.reset(seed=seed, options={"task": task})
        return observation_from(observation)

    def step(self, action: Action) -> StepResult:
        """Runs one control period; raises HilDaftError for an action that is not finite."""
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return StepResult(
            observation=observation_from(observation),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
        )

    def stop(self) -> None:
        """Does nothing: simulated time stands still between steps."""

    def look(self) -> Observation:
        """The observation of the state as it is, without a step."""
        return observation_from(self.env.observe())

    def scene_state(self) -> SceneState:
        """The true state, for the simulated operator."""
        return self.env.scene_state()

    def project(
        self, points_m: Float64[np.ndarray, "k 3"]
    ) -> dict[str, Float64[np.ndarray, "k 3"]]:
        """Where points (base axes) appear in each camera's image: u and v in image widths, depth in metres."""
        seen = self.env.scene.project(points_m)
        return {name: np.column_stack([s.uv, s.depth_m]) for name, s in seen.items()}

    def close(self) -> None:
        """Frees the GL context."""
        self.env.close()


def observation_from(values: dict[str, Any]) -> Observation:
    """The project's `Observation` from the environment's dictionary."""
    images = {"wrist": values["wrist"], "head": values["head"]}
    return Observation(images=images, proprio=values["proprio"])
