"""Opens an arm by its config: a Franka behind a SERL server, an arm of LeRobot's, or the bench's simulated one."""

from typing import TypeAlias

from hildaft.lerobot_bridge.arm import LeRobotRobot
from hildaft.lerobot_bridge.config import LeRobotConfig
from hildaft.lerobot_bridge.library import DryArm, make_arm
from hildaft.robots.bolt_arm import BoltArm, BoltArmConfig
from hildaft.robots.cameras import open_camera
from hildaft.robots.real_arm import RealArm, Sink
from hildaft.robots.serl_client import SerlClient
from hildaft.robots.serl_http import SerlConfig, SerlRobot

RealArmConfig: TypeAlias = SerlConfig | LeRobotConfig
"""Arms that a person has to sit beside."""
ArmConfig: TypeAlias = RealArmConfig | BoltArmConfig


def open_arm(config: ArmConfig, sink: Sink | None = None, *, cameras: bool = True) -> RealArm:
    """The arm of a config, not yet connected.

    Args:
        config: its YAML file.
        sink: where given, nothing that moves is sent but described to it.
        cameras: whether to open those that are not the arm's own.

    Raises:
        HilDaftError: its library or a camera is missing, or the config does not fit.
    """
    match config:
        case SerlConfig():
            client = SerlClient(config.url, config.timeout_s, sink)
            opened = {
                name: open_camera(name, camera)
                for name, camera in config.cameras.items()
                if cameras
            }
            # Whether the task is done is for a person's keys or a judge to say.
            return SerlRobot(config, client, opened, lambda: "go on")
        case LeRobotConfig():
            arm = make_arm(config.arm)
            return LeRobotRobot(config, arm if sink is None else DryArm(arm, sink))
        case BoltArmConfig():
            return BoltArm(config, sink)
