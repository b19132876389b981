"""A live console to test against: a robot that costs nothing, a policy that does as it is told, and a real server."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from hildaft.console.charts import Charts
from hildaft.console.feed import Feed, WatchedRobot, guide_from
from hildaft.console.serving import ServingConfig, serve
from hildaft.console.station import Station
from hildaft.runtime.interaction import Pacing, run_episode
from hildaft.teleop.browser import BrowserOperator, SeatConfig
from hildaft.teleop.device import DeviceOperator
from hildaft.teleop.phrases import parse_phrase
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import (
    CONTROL_HZ,
    ActionScale,
    Encoded,
    Episode,
    Observation,
    StepResult,
)

TOKEN = "a-token-for-tests"
DRIFT = 0.125
"""What the policy does on every axis while nothing is said."""


class EndlessRobot:
    """Moves a bright spot over a dark table; an episode ends when a person says so."""

    name = "spot"

    def __init__(self):
        self.action_scale = ActionScale()
        self.steps = []
        """Wall time and action of every step."""
        self.stops = 0
        self.closed = False

    def reset(self, task, seed):
        self.position = np.zeros(3)
        return self.look()

    def step(self, action):
        self.steps.append((time.time(), action.copy()))
        self.position = np.clip(self.position + 0.05 * action[:3], -0.9, 0.9)
        self.closed = bool(action[6] > 0)
        return StepResult(self.look(), reward=0.0, terminated=False, truncated=False)

    def stop(self):
        self.stops += 1

    def look(self):
        images = {}
        for camera, size in (("head", 64), ("wrist", 32)):
            image = np.full((size, size, 3), 40, np.uint8)
            # Forward is up in the picture, left is left.
            row = round((0.5 - 0.5 * self.position[0]) * (size - 1))
            column = round((0.5 - 0.5 * self.position[1]) * (size - 1))
            image[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = (240, 200, 60)
            images[camera] = image
        proprio = np.array([1.0 - self.closed, self.closed], np.float32)
        return Observation(images=images, proprio=proprio)

    def guides(self):
        x, y, _ = self.position
        start = np.array([0.5 - 0.5 * y, 0.5 - 0.5 * x])
        uv = start + np.array([[0, 0], [0, -0.01], [-0.01, 0], [0, 0]])
        depth_m = np.array([1.0, 1.0, 1.0, 0.99])
        return {camera: guide_from(uv, depth_m, 0.01) for camera in ("head", "wrist")}


class ObedientPolicy:
    """Drifts, and goes where it is told."""

    version = 3
    encoder_hash = "none"

    def begin(self, seed):
        """It has no noise."""

    def encode(self, observation, task):
        empty = np.zeros(1, np.float32)
        return Encoded(h=empty, features=empty, proprio=observation.proprio)

    def act(self, encoded, command):
        action = np.full(7, DRIFT, np.float32)
        action[3:6] = 0.0
        action[6] = -1.0
        if not command.is_null:
            action[:3] = 0.5 * np.array(command.signs, np.float32)
        return action


@dataclass
class Live:
    """What a test sees of the running console."""

    address: str
    robot: EndlessRobot
    station: Station
    episodes: list[Episode]
    charts: Charts
    stop: threading.Event
    pressed_at: float = field(default=0.0)

    @property
    def origin(self):
        return self.address.partition("/?")[0]

    def wait(self, condition, seconds=60.0, what="the condition"):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
            time.sleep(0.005)

    def wait_steps(self, count):
        """Lets the robot take so many more steps; returns them."""
        first = len(self.robot.steps)
        self.wait(lambda: len(self.robot.steps) >= first + count, what=f"{count} steps")
        return [action for _, action in self.robot.steps[first : first + count]]


@contextmanager
def live_console(
    *,
    hz=CONTROL_HZ,
    device=None,
    frame=None,
    ears=None,
    policy=None,
    pauses_alone=False,
    **config,
):
    """A policy acts at the control rate, episode after episode, until the end of the block."""
    frame = frame or OperatorFrame()
    robot, feed, stop, charts = EndlessRobot(), Feed(), threading.Event(), Charts()
    watched = WatchedRobot(robot, feed, guides=robot.guides, view=robot)
    hand = None
    if device is not None:
        hand = DeviceOperator(device, frame=frame, jaws_closed=lambda: watched.jaws_closed)
    operator = BrowserOperator(
        lambda: watched.jaws_closed,
        SeatConfig(**config),
        device=hand,
        look=watched.look,
        stop=stop,
    )
    station = Station(
        robot.name,
        "policy",
        feed,
        operator,
        frame,
        parse_phrase,
        {"reach": "bring the spot to the middle"},
        pauses_alone=pauses_alone,
    )
    episodes = []

    def run():
        seed = 0
        while not stop.is_set():
            episode = run_episode(
                watched,
                policy or ObedientPolicy(),
                operator,
                "reach",
                seed,
                "online",
                pacing=Pacing(hz),
                keys=operator,
                keep_images=False,
            )
            episodes.append(episode)
            helped = int(episode.is_intervention.sum())
            charts.episode(success=episode.success, helped=helped, steps=len(episode))
            seed += 1

    loop = threading.Thread(target=run, name="robot")
    with serve({"spot": station}, charts, ServingConfig(port=0), TOKEN, ears) as address:
        loop.start()
        live = Live(address, robot, station, episodes, charts, stop)
        try:
            live.wait(lambda: robot.steps, what="the first step")
            yield live
        finally:
            operator.mark("stop")
            loop.join(60.0)
            assert not loop.is_alive()
