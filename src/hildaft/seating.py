"""Seats a person at a robot: the robot watched, the operator, the device in their hand, and what the page shows."""

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from hildaft.arms import RealArmConfig
from hildaft.config import INSTRUCTIONS
from hildaft.config_files import Environment, read_yaml
from hildaft.console.feed import Feed, Guide, Looks, WatchedRobot, guide_from
from hildaft.console.serving import ServingConfig
from hildaft.console.station import Mode, Station
from hildaft.lerobot_bridge.config import TeleoperatorConfig
from hildaft.lerobot_bridge.teleoperator import open_teleoperator
from hildaft.robots.bolt_arm import SEEN_FROM
from hildaft.robots.robot_process import SceneRobot
from hildaft.robots.safety import SafeRobot
from hildaft.robots.watchdog import WatchedRobot as OwnProcess
from hildaft.teleop.browser import BrowserOperator, SeatConfig
from hildaft.teleop.device import Device, DeviceConfig, DeviceOperator, KeyedDevice
from hildaft.teleop.gamepad import Gamepad
from hildaft.teleop.phrases import parse_phrase
from hildaft.teleop.spacemouse import SpaceMouse
from hildaft.teleop.talk import OperatorFrame
from hildaft.types import Operator, Robot

_REACH_M: Final = 0.01

OperatorName: TypeAlias = Literal["simulated", "browser", "spacemouse", "gamepad", "lerobot"]
"""Who demonstrates and corrects: nobody but the simulation, or a person: on the page, or on the page and by a device
at the robot's machine."""


@dataclass(frozen=True, kw_only=True)
class SeatOptions:
    """Who sits beside the robot, and what their seat is like."""

    operator: OperatorName = "simulated"
    """Who demonstrates and corrects. A person's seat is the page in the browser, whatever is in their hand."""
    gamepad: Path = Path("/dev/input/js0")
    """The pad of --operator gamepad."""
    teleoperator: Path = Path("teleoperator.yaml")
    """The file of --operator lerobot: any teleoperator of LeRobot's, such as examples/robots/leader.yaml."""
    serving: ServingConfig = field(default_factory=ServingConfig)
    """Where the console listens."""
    seat: SeatConfig = field(default_factory=SeatConfig)
    """How the robot passes between the person and the policy."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """How the deflection of a SpaceMouse or gamepad becomes motion."""

    @property
    def has_person(self) -> bool:
        """Whether a person demonstrates and corrects."""
        return self.operator != "simulated"


@contextmanager
def open_device(options: SeatOptions) -> Generator[Device | None]:
    """The device in the person's hand, closed at the end; None where the page is all they have.

    Raises:
        HilDaftError: its driver is missing, it is not plugged in, or may not be opened.
    """
    match options.operator:
        case "simulated" | "browser":
            yield None
            return
        case "spacemouse":
            device: Device = SpaceMouse()
        case "gamepad":
            device = Gamepad(options.gamepad)
        case "lerobot":
            advice = "examples/robots/leader.yaml and examples/robots/pad.yaml are two to copy"
            given = read_yaml(TeleoperatorConfig, options.teleoperator, advice)
            device = open_teleoperator(given.beside(options.teleoperator.parent))
    try:
        yield device
    finally:
        device.close()


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the person is shown of a robot, and in whose directions."""

    frame: OperatorFrame
    instructions: Mapping[str, str]
    """What the task is called, by task."""
    guides: Callable[[], Mapping[str, Guide]] | None = None
    """Where the gripper is in each image; None where that is not known."""
    is_real: bool = False
    """Whether a real arm is seen: one that loses the page of the person in control is paused."""


def bench_sight(robot: SceneRobot) -> Sight:
    """The bolt bench, in this process or in one of its own."""
    forward, left, up = SEEN_FROM[robot.name]
    frame = OperatorFrame(forward=forward, left=left, up=up)
    return Sight(frame=frame, instructions=INSTRUCTIONS, guides=scene_guides(robot))


def scene_guides(robot: SceneRobot) -> Callable[[], Mapping[str, Guide]]:
    """What says where the gripper of a simulated robot is in each image, and where its axes point there."""
    offsets = np.concatenate([np.zeros((1, 3)), _REACH_M * np.eye(3)])

    def guides() -> dict[str, Guide]:
        seen = robot.project(robot.scene_state().ee_position_m + offsets)
        return {name: guide_from(at[:, :2], at[:, 2], _REACH_M) for name, at in seen.items()}

    return guides


def environment_sight(config: Environment) -> Sight:
    """A Gymnasium environment, or a real arm.

    Raises:
        HilDaftError: its directions are mirrored or no axes.
    """
    forward, left, up = config.forward_left_up
    instructions = {name: task.instruction for name, task in config.tasks.items()}
    return Sight(
        frame=OperatorFrame(forward=forward, left=left, up=up),
        instructions=instructions,
        is_real=isinstance(config, RealArmConfig),
    )


@dataclass(frozen=True, kw_only=True)
class Seated:
    """A robot with a seat in front of it."""

    station: Station
    robot: WatchedRobot


def seat(
    robot: Robot,
    sight: Sight,
    mode: Mode,
    options: SeatOptions,
    stop: threading.Event,
    helper: Operator | None = None,
    device: Device | None = None,
) -> Seated:
    """Wraps a robot for the console; `helper` stands in while no hand is on it."""
    feed = Feed()
    view = robot if isinstance(robot, Looks) else None
    watched = WatchedRobot(SafeRobot(robot), feed, guides=sight.guides, view=view)

    def jaws_closed() -> bool:
        return watched.jaws_closed

    hand = None
    if device is not None:
        hand = DeviceOperator(device, options.device, frame=sight.frame, jaws_closed=jaws_closed)
    operator = BrowserOperator(
        jaws_closed,
        options.seat,
        helper=helper,
        device=hand,
        look=watched.look,
        stop=stop,
        # Only a robot in a process of its own moves by itself in a reset.
        stop_reset=robot.stop_reset if isinstance(robot, OwnProcess) else lambda: None,
    )
    station = Station(
        robot.name,
        mode,
        feed,
        operator,
        sight.frame,
        parse_phrase,
        sight.instructions,
        has_helper=helper is not None,
        pauses_alone=sight.is_real,
    )
    if isinstance(device, KeyedDevice):
        _listen(device, station)
    return Seated(station=station, robot=watched)


def _listen(device: KeyedDevice, station: Station) -> None:
    """Hands the keys of a device on to the station, in a thread that ends with the device."""

    def listen() -> None:
        for press in device.presses():
            station.press(press)

    threading.Thread(target=listen, name="device-keys", daemon=True).start()
