"""The bolt bench as a Gymnasium environment."""

from typing import Any, Final, final

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32, Shaped, UInt8

from hildaft.robots.bolt_sim.model import HEAD_SIZE, JAW_OPEN_M, WRIST_SIZE, RobotName
from hildaft.robots.bolt_sim.scene import MAX_BOLTS, BoltScene
from hildaft.robots.bolt_sim.tasks import Judge, TaskName, check_task, place_start, sample_start
from hildaft.types import ACTION_DIM, CONTROL_HZ, ActionScale, HilDaftError, SceneState

STEP_LIMIT: Final = 50
"""Control steps of an episode (Sec. V-A)."""
HOLD_STEPS: Final = 3
"""Consecutive steps the goal must hold."""
_REACHED: Final = 1e-3


@final
class BoltEnv(gymnasium.Env[dict[str, Any], Float32[np.ndarray, "7"]]):
    """One robot at the bolt bench; the task can change at every reset.

    Observation: `wrist` (128x128 RGB), `head` (256x256 RGB) and `proprio` (jaw opening 0-1, jaws
    commanded closed 0 or 1). Action: 7 numbers in [-1, 1], base axes, see `types.ACTION_DIM`.
    Reward 1 and `terminated` once the goal has held for 3 steps; `truncated` after 50 steps.
    `reset(options={"task": NAME})` switches the task; `"assembled": N` says how many of the other bolts stand in the
    rail, as later in a chain, where otherwise any number of them does. The same seed gives the same episode, bit for
    bit, on one machine.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        robot: RobotName = "A",
        task: str = "upright",
        action_scale: ActionScale | None = None,
        render_mode: str | None = None,
        bolts: int = MAX_BOLTS,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            msg = f"bolt bench render_mode={render_mode!r}: None or rgb_array is allowed"
            raise HilDaftError(msg)
        self.render_mode = render_mode
        self.action_scale: Final = action_scale or ActionScale()
        self.scene: Final = BoltScene(robot, bolts, self.action_scale)
        self.task: TaskName = check_task(task)
        self.observation_space = spaces.Dict(
            {
                "wrist": spaces.Box(0, 255, (WRIST_SIZE, WRIST_SIZE, 3), np.uint8),
                "head": spaces.Box(0, 255, (HEAD_SIZE, HEAD_SIZE, 3), np.uint8),
                "proprio": spaces.Box(0.0, 1.0, (2,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._judge: Judge | None = None
        self._steps = 0
        self._held = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; `options["task"]` names its task, `options["assembled"]` how many bolts are in the rail.

        Raises:
            HilDaftError: the task is unknown, or there are not so many bolts.
        """
        super().reset(seed=seed)
        chosen = options or {}
        if "task" in chosen:
            self.task = check_task(str(chosen["task"]))
        spare = self.scene.bolts - 1
        assembled = chosen.get("assembled")
        if assembled is not None and assembled not in range(spare + 1):
            msg = f"bolt bench assembled={assembled!r}: 0 to {spare} is allowed, one less than its bolts"
            raise HilDaftError(msg)
        # Every start the tasks draw is in reach; a stray one is drawn again, from the same stream.
        while (
            place_start(self.scene, sample_start(self.task, self.np_random, spare, assembled))
            > _REACHED
        ):
            pass
        self._begin_task()
        return self.observe(), {"task": self.task}

    def continue_with(self, task: str) -> None:
        """Begins another task from the state as it is: step count and goal anew, scene untouched."""
        self.task = check_task(task)
        self._begin_task()

    def _begin_task(self) -> None:
        self._judge = Judge(self.scene, self.task)
        self._steps = self._held = 0

    def step(
        self, action: Shaped[np.ndarray, "..."]
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Runs one control period of 0.1 s.

        Raises:
            HilDaftError: before the first reset, or the action is not 7 finite numbers.
        """
        judge = self._judge
        if judge is None:
            msg = "bolt bench step: call reset first"
            raise HilDaftError(msg)
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (ACTION_DIM,) or not np.isfinite(values).all():
            msg = f"bolt bench action={action!r}: {ACTION_DIM} finite numbers are allowed"
            raise HilDaftError(msg)
        self.scene.control.apply(np.clip(values, -1.0, 1.0))
        self._steps += 1
        self._held = self._held + 1 if judge.holds() else 0
        terminated = self._held >= HOLD_STEPS
        truncated = not terminated and self._steps >= STEP_LIMIT
        info = {"task": self.task, "success": terminated, "steps": self._steps}
        return self.observe(), float(terminated), terminated, truncated, info

    def observe(self) -> dict[str, Any]:
        """The observation of the state as it is."""
        opening = min(1.0, self.scene.jaw_opening_m / JAW_OPEN_M)
        proprio = np.array([opening, float(self.scene.control.closed)], dtype=np.float32)
        return {**self.scene.render(), "proprio": proprio}

    def scene_state(self) -> SceneState:
        """The true state, for the simulated operator and the tests; never for a policy."""
        return self.scene.scene_state(self.task, self._held >= HOLD_STEPS)

    def render(self) -> UInt8[np.ndarray, "256 512 3"]:  # pyright: ignore[reportIncompatibleMethodOverride] - one render mode, one type
        """Both cameras side by side, the wrist image shown at twice its size."""
        images = self.scene.render()
        return np.concatenate([images["wrist"].repeat(2, 0).repeat(2, 1), images["head"]], axis=1)

    def close(self) -> None:
        """Frees the GL context."""
        self.scene.close()
