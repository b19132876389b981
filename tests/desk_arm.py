"""An arm and two teleoperators that implement LeRobot's abstract protocols, and nothing more.

With LeRobot installed they are its subclasses, registered under its names; without it they only have the methods.
The arm's servos follow at a limited rate and sag a little under their load, as small arms do.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

try:
    from lerobot.robots import Robot, RobotConfig
    from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
except ImportError:
    Robot = Teleoperator = object

    class RobotConfig:
        @staticmethod
        def register_subclass(name):
            return lambda kind: kind

    TeleoperatorConfig = RobotConfig

JOINTS = ("pan", "lift", "elbow", "wrist", "flex", "roll")
DEGREE = np.pi / 180
# A desk arm: two links of 0.25 m that fold in a plane, and a wrist of three joints with the tip 0.08 m before it.
URDF = """<robot name="desk">
  {links}
  <joint name="pan" type="revolute"><parent link="base"/><child link="l1"/>
    <origin xyz="0 0 0.1"/><axis xyz="0 0 1"/><limit lower="-2.6" upper="2.6"/></joint>
  <joint name="lift" type="revolute"><parent link="l1"/><child link="l2"/>
    <axis xyz="0 1 0"/><limit lower="-1.8" upper="1.8"/></joint>
  <joint name="elbow" type="revolute"><parent link="l2"/><child link="l3"/>
    <origin xyz="0 0 0.25"/><axis xyz="0 1 0"/><limit lower="-2.6" upper="2.6"/></joint>
  <joint name="wrist" type="revolute"><parent link="l3"/><child link="l4"/>
    <origin xyz="0 0 0.25"/><axis xyz="0 1 0"/><limit lower="-2.2" upper="2.2"/></joint>
  <joint name="flex" type="revolute"><parent link="l4"/><child link="l5"/>
    <axis xyz="1 0 0"/><limit lower="-1.8" upper="1.8"/></joint>
  <joint name="roll" type="continuous"><parent link="l5"/><child link="l6"/><axis xyz="0 0 1"/></joint>
  <joint name="flange" type="fixed"><parent link="l6"/><child link="tip"/><origin xyz="0 0 0.08"/></joint>
  <joint name="finger" type="prismatic"><parent link="l6"/><child link="jaw"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.04"/></joint>
</robot>""".format(
    links="".join(
        f'<link name="{n}"/>' for n in ("base", *["l1", "l2", "l3", "l4", "l5", "l6", "tip", "jaw"])
    )
)
HOME = {"pan": 0.0, "lift": 20.0, "elbow": 85.0, "wrist": 75.0, "flex": 0.0, "roll": 0.0}
"""Degrees; the tip points down in front of the arm."""


DESK_FILE = """\
kind: lerobot
name: desk
tasks:
  reach: {instruction: reach for the bolt}
arm: {type: desk_arm}
joint_keys:
  urdf: desk.urdf
  tip: tip
  joints:
    - {key: pan.pos, joint: pan}
    - {key: lift.pos, joint: lift}
    - {key: elbow.pos, joint: elbow}
    - {key: wrist.pos, joint: wrist}
    - {key: flex.pos, joint: flex}
    - {key: roll.pos, joint: roll}
gripper: {key: gripper.pos, open: 100, closed: 0}
cameras:
  head: {key: front}
  wrist: {key: hand}
workspace:
  low_m: [0.22, -0.12, 0.12]
  high_m: [0.4, 0.12, 0.3]
reset: {pan.pos: 0, lift.pos: 20, elbow.pos: 85, wrist.pos: 75, flex.pos: 0, roll.pos: 0}
"""


@RobotConfig.register_subclass("desk_arm")
@dataclass
class DeskArmConfig(RobotConfig):
    id: str | None = None
    calibration_dir: Path | None = None
    by: str = "joints"
    sag: float = 0.4
    journal: str = ""
    hangs: str = ""
    start: dict[str, float] = field(default_factory=lambda: dict(HOME))


class DeskArm(Robot):
    config_class = DeskArmConfig
    name = "desk_arm"

    def __init__(self, config):
        if Robot is not object:
            super().__init__(config)
        self.config = config
        self.is_connected_now = False
        self.fault = None
        self.sent = []
        keys = [f"{joint}.pos" for joint in JOINTS]
        start = [config.start[joint] for joint in JOINTS]
        if config.by == "pose":
            keys = ["ee.x", "ee.y", "ee.z", "ee.wx", "ee.wy", "ee.wz"]
            start = [0.3, 0.0, 0.2, np.pi, 0.0, 0.0]
        self._rate = dict.fromkeys(keys, 10.0 if config.by == "joints" else 0.05)
        self._rate["gripper.pos"] = 40.0
        self.at = dict(zip([*keys, "gripper.pos"], [*start, 100.0], strict=True))
        self.goal = dict(self.at)

    @property
    def observation_features(self):
        return {**dict.fromkeys(self.at, float), "front": (48, 64, 3), "hand": (48, 64, 3)}

    @property
    def action_features(self):
        return dict.fromkeys(self.at, float)

    @property
    def is_connected(self):
        return self.is_connected_now

    @property
    def is_calibrated(self):
        return self.fault != "uncalibrated"

    def connect(self, calibrate=True):
        if self.fault == "absent":
            raise ConnectionError("could not connect on port '/dev/ttyACM0'")
        self.is_connected_now = True

    def calibrate(self):
        raise AssertionError("calibrating moves motors: it is not ours to call")

    def configure(self):
        pass

    def get_observation(self):
        self._note("read")
        while self.config.hangs and Path(self.config.hangs).exists():
            time.sleep(0.01)
        values = dict(self.at)
        if "lift.pos" in values:
            values["lift.pos"] += self.config.sag
        first = next(iter(values))
        match self.fault:
            case "raises":
                raise ConnectionError("Incorrect status packet!")
            case "nan":
                values[first] = float("nan")
            case "missing":
                del values[first]
            case "text":
                values[first] = "12.5 deg"
            case "jump":
                values[first] += 40.0 if "pan.pos" in values else 0.15
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :, 0] = int(np.clip(100 + next(iter(self.at.values())), 0, 255))
        shot = image.astype(np.float32) if self.fault == "float image" else image
        return {**values, "front": shot, "hand": image}

    def send_action(self, action):
        assert set(action) <= set(self.at)
        self._note("send")
        if self.fault == "deaf":
            raise TimeoutError("no status packet")
        self.sent.append(dict(action))
        self.goal |= action
        if self.fault != "blocked":
            for key, rate in self._rate.items():
                self.at[key] += float(np.clip(self.goal[key] - self.at[key], -rate, rate))
        return dict(action)

    def disconnect(self):
        self.is_connected_now = False

    def _note(self, what):
        if self.config.journal:
            with open(self.config.journal, "a") as file:
                file.write(json.dumps([what, time.monotonic()]) + "\n")


@TeleoperatorConfig.register_subclass("desk_pad")
@dataclass
class DeskPadConfig(TeleoperatorConfig):
    id: str | None = None
    calibration_dir: Path | None = None
    leader: bool = False


class DeskPad(Teleoperator):
    """A pad with deltas and events; as a leader, six joints moved by hand."""

    config_class = DeskPadConfig
    name = "desk_pad"

    def __init__(self, config):
        if Teleoperator is not object:
            super().__init__(config)
        self.config = config
        keys = [f"{j}.pos" for j in JOINTS] if config.leader else ["delta_x", "delta_y", "delta_z"]
        self.values = dict.fromkeys(keys, 0.0)
        if config.leader:
            self.values = {f"{joint}.pos": HOME[joint] for joint in JOINTS}
        self.values["gripper.pos" if config.leader else "gripper"] = 1.0
        self.events = {"is_intervention": True}
        self.fault = None
        self.connected = False
        self.reads = 0

    @property
    def action_features(self):
        names = {key: index for index, key in enumerate(self.values)}
        if self.config.leader:
            return dict.fromkeys(self.values, float)
        return {"dtype": "float32", "shape": (len(names),), "names": names}

    @property
    def feedback_features(self):
        return {}

    @property
    def is_connected(self):
        return self.connected

    @property
    def is_calibrated(self):
        return True

    def connect(self, calibrate=True):
        self.connected = True

    def calibrate(self):
        pass

    def configure(self):
        pass

    def get_action(self):
        self.reads += 1
        while self.fault == "hangs":
            time.sleep(0.005)
        if self.fault == "raises":
            raise OSError("No such device")
        return {k: np.float32(v) for k, v in self.values.items()}

    def get_teleop_events(self):
        return dict(self.events)

    def send_feedback(self, feedback):
        pass

    def disconnect(self):
        self.connected = False
