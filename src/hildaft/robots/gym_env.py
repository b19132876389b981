"""Any Gymnasium environment behind the project's `Robot` protocol, by a typed config."""

import contextlib
import importlib.util
import sys
from collections.abc import Generator
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final, cast, final

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32, Float64

from hildaft.robots.gym_config import MOTIONS, GymConfig, GymVector
from hildaft.robots.gym_images import GymCameras, look_up
from hildaft.types import ACTION_DIM, Action, ActionScale, HilDaftError, Observation, StepResult

Env = gymnasium.Env[Any, Any]


@final
class GymRobot:
    """Implements `types.Robot` on environments somebody else wrote; one is open at a time.

    Reward is 1 at success and 0 elsewhere, and success terminates. An environment that terminates without success
    (a dropped object, say) ends the episode as a failure; its time limit, or ours, truncates.
    """

    def __init__(self, config: GymConfig) -> None:
        self.config: Final = config
        self._env: Env | None = None
        self._cameras: GymCameras | None = None
        self._task = ""
        self._closed = False
        self._steps = self._held = 0
        self.raw_observation: Any = None
        """The environment's own observation of the state as it is."""

    @property
    def name(self) -> str:
        """As configured."""
        return self.config.name

    @property
    def action_scale(self) -> ActionScale:
        """Metres and radians an action of 1 stands for."""
        return self.config.action_scale

    @property
    def env(self) -> Env:
        """The environment of the task under way; raises HilDaftError before the first reset."""
        if self._env is None:
            msg = f"environment {self.name}: call reset first"
            raise HilDaftError(msg)
        return self._env

    @property
    def task(self) -> str:
        """The task under way."""
        return self._task

    def reset(self, task: str, seed: int) -> Observation:
        """Starts an episode; opens the task's environment where another was open.

        Raises:
            HilDaftError: the task is unknown, its environment cannot be made, or does not fit the config.
        """
        if task != self._task or self._env is None:
            self.close()
            self._env = make_env(self.config, task)
            self._cameras = GymCameras(self._env, self.config.cameras, shadows=self.config.shadows)
            self._task = task
        options = self.config.tasks[task].reset_options
        # Environments take seeds of 32 bits at most.
        with _theirs(self.name, "reset"):
            self.raw_observation, _ = self._env.reset(
                seed=seed % 2**31, options=dict(options) or None
            )
        self._closed = False
        self._steps = self._held = 0
        return self._observe()

    def step(self, action: Action) -> StepResult:
        """Runs one control step; raises HilDaftError for an action that is not 7 finite numbers."""
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            msg = f"environment action={action!r}: {ACTION_DIM} finite numbers are allowed"
            raise HilDaftError(msg)
        env = self.env
        self._closed = bool(action[6] > 0)
        given = self.env_action(action)
        reached = ended = cut = False
        for _ in range(self.config.repeat):
            with _theirs(self.name, "step"):
                self.raw_observation, reward, ended, cut, info = env.step(given.copy())
            reached = self._is_reached(float(reward), ended, info)
            if ended or cut:
                break
        self._steps += 1
        self._held = self._held + 1 if reached else 0
        wanted = 1 if self.config.success.source == "terminated" else self.config.success.hold_steps
        # An environment that ends on success may not let it be held for longer.
        success = self._held >= wanted or (reached and ended)
        terminated = success or ended
        return StepResult(
            observation=self._observe(),
            reward=float(success),
            terminated=terminated,
            truncated=not terminated and (cut or self._steps >= self.config.step_limit),
        )

    def look(self) -> Observation:
        """The observation of the state as it is, without a step; raises HilDaftError before the first reset."""
        _ = self.env
        return self._observe()

    def stop(self) -> None:
        """Does nothing: simulated time stands still between steps."""

    def close(self) -> None:
        """Closes the environment."""
        if self._cameras is not None:
            self._cameras.close()
        if self._env is not None:
            self._env.close()
        self._env = self._cameras = None

    def env_action(self, action: Action) -> Float32[np.ndarray, " n"]:
        """Our action in the environment's layout, clipped to its bounds."""
        config, space = self.config, cast(spaces.Box, self.env.action_space)
        scale = config.action_scale
        per_unit = [scale.translation_m] * 3 + [scale.rotation_rad] * 3
        values: list[float] = []
        for entry in config.action:
            match entry.means:
                case "fixed":
                    values.append(entry.value)
                case "gripper":
                    share = (float(np.clip(action[6], -1.0, 1.0)) + 1.0) / 2.0
                    share = float(share > 0.5) if entry.discrete else share
                    values.append(entry.open + share * (entry.closed - entry.open))
                case motion:
                    index = MOTIONS.index(motion)
                    moved = float(action[index]) * per_unit[index] / config.repeat
                    values.append(moved / entry.unit)
        wanted = np.array(values, dtype=np.float64)
        return np.clip(wanted, space.low, space.high).astype(np.float32)

    def ee_position_m(self) -> Float64[np.ndarray, " n"] | None:
        """Measured end-effector position, where the config says how to read it."""
        source = self.config.ee_position
        return None if source is None else _entries(self.raw_observation, source)

    def _observe(self) -> Observation:
        assert self._cameras is not None
        jaws, closed = self.config.jaws, float(self._closed)
        opening = 1.0 - closed
        if jaws is not None:
            total = float(_entries(self.raw_observation, jaws.source).sum())
            opening = float(np.clip((total - jaws.closed) / (jaws.open - jaws.closed), 0.0, 1.0))
        with _theirs(self.name, "render"):
            images = self._cameras.take(self.raw_observation)
        return Observation(
            images=images,
            proprio=np.array([opening, closed], dtype=np.float32),
        )

    def _is_reached(self, reward: float, ended: bool, info: dict[str, Any]) -> bool:
        success = self.config.success
        match success.source:
            case "terminated":
                return ended
            case "reward":
                return reward >= success.threshold
            case "info":
                value = look_up(info, success.key, "info")
                return float(np.asarray(value).reshape(-1)[0]) >= success.threshold


@contextlib.contextmanager
def _theirs(name: str, what: str) -> Generator[None]:
    """Code that is not ours runs inside: whatever it raises becomes one line."""
    try:
        yield
    except HilDaftError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        msg = (
            f"environment {name}: its {what} failed ({reason}); run it outside HiL-DAFT to mend it"
        )
        raise HilDaftError(msg) from error


def make_env(config: GymConfig, task: str) -> Env:
    """Makes a task's environment and checks that its action vector has the layout the config tells.

    Raises:
        HilDaftError: the task is unknown, the package is missing or too new, or the layout does not fit.
    """
    if task not in config.tasks:
        msg = f"environment {config.name} task={task!r}: {', '.join(config.tasks)} are allowed"
        raise HilDaftError(msg)
    chosen = config.tasks[task]
    kwargs = dict(chosen.kwargs)
    if any(camera.source == "render" for camera in config.cameras.values()):
        kwargs.setdefault("render_mode", "rgb_array")
    try:
        env: Env = gymnasium.make(_registered(chosen.env_id), **kwargs)
    except Exception as error:  # an environment's constructor may raise anything
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        last = extract_tb(error.__traceback__)[-1]
        msg = (
            f"environment.tasks.{task}.env_id={chosen.env_id!r}: cannot be made"
            f" ({reason}, in {Path(last.filename).name}, line {last.lineno});"
            " is its package installed in a version that fits? A file of your own is named as file.py:NAME"
        )
        raise HilDaftError(msg) from error
    space = env.action_space
    if not isinstance(space, spaces.Box) or space.shape != (len(config.action),):
        env.close()
        msg = (
            f"environment.action: {len(config.action)} entries are given, the environment takes {space};"
            " name every entry of a one-dimensional Box, 'fixed' for those not used"
        )
        raise HilDaftError(msg)
    return env


def _registered(env_id: str) -> str:
    """Loads the file of `file.py:Name-v0`, which registers the environment; the id that gymnasium then knows."""
    place, _, name = env_id.rpartition(":")
    if not place.endswith(".py"):
        return env_id
    module_name = f"hildaft_env_{Path(place).stem}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, place)
        if spec is None or spec.loader is None or not Path(place).is_file():
            raise FileNotFoundError(place)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    return name


def _entries(observation: object, source: GymVector) -> Float64[np.ndarray, " n"]:
    values = np.asarray(look_up(observation, source.key, "the observation"), dtype=np.float64)
    flat = values.reshape(-1)
    if max(source.indices) >= len(flat):
        msg = (
            f"environment: {source.key or 'the observation'} has {len(flat)} entries,"
            f" index {max(source.indices)} is asked for"
        )
        raise HilDaftError(msg)
    return flat[list(source.indices)]
