"""A point that moves on a plane towards a goal, seen by two cameras; its policy sees pixels only."""

import numpy as np

from hildaft.types import (
    NULL_COMMAND,
    ActionScale,
    Encoded,
    Observation,
    RefinementCommand,
    StepResult,
    Tweak,
)

REACH_M = 0.2
TOLERANCE_M = 0.015
LIMIT = 50


class PointRobot:
    name = "point"

    def __init__(self):
        self.action_scale = ActionScale()
        self.actions = []
        self.stops = 0

    def reset(self, task, seed):
        rng = np.random.default_rng(seed)
        self.task, self.seed = task, seed
        self.position_m = rng.uniform(-0.1, 0.1, 2)
        self.goal_m = rng.uniform(-0.1, 0.1, 2)
        self.steps = 0
        return self._observe()

    def step(self, action):
        self.actions.append(action)
        self.steps += 1
        moved = self.position_m + action[:2] * self.action_scale.translation_m
        self.position_m = np.clip(moved, -REACH_M, REACH_M)
        reached = bool(np.linalg.norm(self.goal_m - self.position_m) < TOLERANCE_M)
        return StepResult(
            observation=self._observe(),
            reward=float(reached),
            terminated=reached,
            truncated=not reached and self.steps == LIMIT,
        )

    def stop(self):
        self.stops += 1

    def _observe(self):
        return Observation(
            images={"head": self._draw(64), "wrist": self._draw(32)},
            proprio=np.array([1.0, 0.0], np.float32),
        )

    def _draw(self, size):
        axis = np.linspace(-REACH_M, REACH_M, size)
        image = np.zeros((size, size, 3), np.uint8)
        for channel, (x, y) in ((0, self.position_m), (1, self.goal_m)):
            distance = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
            image[:, :, channel] = 255 * np.exp(-distance / 2e-4)
        return image


class PixelPolicy:
    """Steers the red blob to the green one; `drift` pulls it aside in every step."""

    version = 7
    encoder_hash = "blobs"

    def __init__(self, gain=20.0, drift=0.0):
        self.gain, self.drift = gain, drift
        self.commands = []
        self.tasks = []

    def encode(self, observation, task):
        self.tasks.append(task)
        image = observation.images["head"].astype(np.float64)
        axis = np.linspace(-REACH_M, REACH_M, image.shape[0])
        weight = image.sum(axis=(0, 1)) + 1e-9
        x = (image * axis[None, :, None]).sum(axis=(0, 1)) / weight
        y = (image * axis[:, None, None]).sum(axis=(0, 1)) / weight
        h = np.array([x[0], y[0], x[1], y[1]], np.float32)
        return Encoded(h=h, features=h[:2].copy(), proprio=observation.proprio)

    def act(self, encoded, command):
        self.commands.append(command)
        action = np.zeros(7, np.float32)
        action[:2] = self.gain * (encoded.h[2:] - encoded.h[:2]) + self.drift
        return action


class Helper:
    """Stands beside the robot: takes over from step `first` for `count` steps, and may talk."""

    def __init__(self, robot, first=2, count=4, command=NULL_COMMAND):
        self.robot, self.first, self.count, self.command = robot, first, count, command
        self.begun = []
        self.seen = []

    def begin(self, task, seed):
        self.begun.append((task, seed, self.robot.seed))

    def speak(self) -> RefinementCommand:
        return self.command

    def tweak(self, policy_action):
        self.seen.append(policy_action)
        if not self.first <= self.robot.steps < self.first + self.count:
            return None
        return Tweak(self.demonstrate())

    def demonstrate(self):
        action = np.zeros(7, np.float32)
        action[:2] = np.clip(40.0 * (self.robot.goal_m - self.robot.position_m), -1, 1)
        return action
