"""Seats a person at a robot of the bolt bench: the robot watched, the operator, and what the page needs to know."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from hildaft.config import INSTRUCTIONS
from hildaft.console.feed import Feed, Guide, WatchedRobot, guide_from
from hildaft.console.serving import ServingConfig
from hildaft.console.station import Mode, Station
from hildaft.robots.bolt_sim.robot import BoltRobot
from hildaft.robots.safety import SafeRobot
from hildaft.teleop.browser import BrowserOperator, SeatConfig
from hildaft.teleop.phrases import parse_phrase
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import Operator

OPERATOR_FRAMES: Final = {
    "A": OperatorFrame(forward="+x", left="+y", up="+z"),
    "B": OperatorFrame(forward="-x", left="-y", up="+z"),
}
"""Base axes that come nearest to forward, left and up as the head camera of each robot sees them."""

_REACH_M: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class ConsoleOptions:
    """The console of a run, and how its seat behaves."""

    serving: ServingConfig
    seat: SeatConfig


@dataclass(frozen=True, kw_only=True)
class Seated:
    """A robot with a seat in front of it."""

    station: Station
    robot: WatchedRobot


def seat(
    bolt_robot: BoltRobot,
    mode: Mode,
    config: SeatConfig,
    stop: threading.Event,
    helper: Operator | None = None,
) -> Seated:
    """Wraps a robot for the console; `helper` stands in while no hand is on it."""
    feed = Feed()
    robot = WatchedRobot(
        SafeRobot(bolt_robot), feed, guides=_bolt_guides(bolt_robot), view=bolt_robot
    )
    operator = BrowserOperator(
        lambda: robot.jaws_closed, config, helper=helper, look=robot.look, stop=stop
    )
    station = Station(
        bolt_robot.name,
        mode,
        feed,
        operator,
        OPERATOR_FRAMES[bolt_robot.name],
        parse_phrase,
        INSTRUCTIONS,
        has_helper=helper is not None,
    )
    return Seated(station=station, robot=robot)


def _bolt_guides(robot: BoltRobot) -> Callable[[], Mapping[str, Guide]]:
    offsets = np.concatenate([np.zeros((1, 3)), _REACH_M * np.eye(3)])

    def guides() -> dict[str, Guide]:
        points = robot.scene_state().ee_position_m + offsets
        projections = robot.env.scene.project(points)
        return {
            camera: guide_from(seen.uv, seen.depth_m, _REACH_M)
            for camera, seen in projections.items()
        }

    return guides
