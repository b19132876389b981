"""Whatever HiL-DAFT drives, as a LeRobot robot: the bolt bench, a Franka behind a SERL server, another LeRobot arm.

LeRobot's own tools then record, teleoperate and roll out on it. It stays bounded and watched as in HiL-DAFT, in a
process of its own that holds it when no command comes.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.safety import SafeRobot
from hildaft.robots.watchdog import WatchedRobot
from hildaft.types import HilDaftError, Observation
from lerobot_policy_hildaft.configuration_hildaft import ACTION_NAMES

_STATE = ("jaw_opening.pos", "jaw_closed.pos")


@RobotConfig.register_subclass("hildaft")
@dataclass
class HildaftRobotConfig(RobotConfig):
    """--robot.type=hildaft."""

    file: str = ""
    """YAML file of an arm; the bolt bench where not given."""
    variant: str = "A"
    """Of the bolt bench."""
    task: str = "upright"
    """What a reset prepares."""
    seed: int = 0
    """Of the first scene; each episode goes on from there."""


class HildaftRobot(Robot):
    """Actions are shares of the action scale along base axes, as `ACTION_NAMES` orders them."""

    config_class = HildaftRobotConfig
    name = "hildaft"

    def __init__(self, config: HildaftRobotConfig) -> None:
        super().__init__(config)
        self.config = config
        self._watched: WatchedRobot | None = None
        self._safe: SafeRobot | None = None
        self._seen: Observation | None = None
        self._episodes = self._steps = 0
        self._over = False

    @property
    def _sizes(self) -> dict[str, int]:
        return {"head": 128, "wrist": 128} if self.config.file else {"head": 256, "wrist": 128}

    @property
    def observation_features(self) -> dict[str, Any]:
        """Jaw state and both cameras."""
        images = {name: (size, size, 3) for name, size in self._sizes.items()}
        return {**dict.fromkeys(_STATE, float), **images}

    @property
    def action_features(self) -> dict[str, Any]:
        """Seven numbers in [-1, 1]."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def is_connected(self) -> bool:
        """Whether the robot's process runs."""
        return self._safe is not None

    @property
    def is_calibrated(self) -> bool:
        """Arms are calibrated by their own tools."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Starts the robot's process and brings it to the start of the task."""
        del calibrate
        self._watched = WatchedRobot(_maker(self.config))
        self._safe = SafeRobot(self._watched)
        self._begin()

    def _begin(self) -> None:
        assert self._safe is not None
        self._seen = self._safe.reset(self.config.task, self.config.seed + self._episodes)
        self._episodes += 1
        self._steps, self._over = 0, False

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def get_observation(self) -> dict[str, Any]:
        """The newest observation; after an episode's end the scene is prepared anew first."""
        if self._safe is None:
            msg = "robot hildaft: not connected"
            raise HilDaftError(msg)
        if self._over:
            self._begin()
        assert self._seen is not None
        state = {key: float(v) for key, v in zip(_STATE, self._seen.proprio, strict=True)}
        return {**state, **self._seen.images}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Executes one step of 0.1 s; returns what was executed, clipped to [-1, 1].

        A missing motion is none, a missing gripper stays. LeRobot's rollout ends by sending observed positions back: an
        action without any of our keys moves nothing.
        """
        if self._safe is None or self._seen is None:
            msg = "robot hildaft: not connected"
            raise HilDaftError(msg)
        if not set(ACTION_NAMES) & set(action):
            return {}
        still = dict.fromkeys(ACTION_NAMES, 0.0)
        still["gripper.pos"] = 1.0 if self._seen.proprio[1] > 0.5 else -1.0
        values = np.array([float({**still, **action}[name]) for name in ACTION_NAMES], np.float32)
        result = self._safe.step(values)
        self._seen = result.observation
        self._steps += 1
        self._over = result.terminated or result.truncated
        if self._over:
            outcome = "success" if result.reward > 0.5 else "no success"
            logging.info("episode %d: %s after %d steps", self._episodes, outcome, self._steps)
        clipped = np.clip(values, -1.0, 1.0)
        return {name: float(value) for name, value in zip(ACTION_NAMES, clipped, strict=True)}

    def disconnect(self) -> None:
        """Stops the robot and ends its process."""
        if self._watched is not None:
            self._watched.close()
        self._watched = self._safe = None


def _maker(config: HildaftRobotConfig) -> partial[Any]:
    if not config.file:
        return partial(BoltRobot, config.variant)
    from hildaft.arms import open_arm
    from hildaft.config_files import read_arm

    return partial(open_arm, read_arm(Path(config.file)))
