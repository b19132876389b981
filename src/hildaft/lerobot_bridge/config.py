"""How a LeRobot arm or teleoperator maps to our poses, cameras and axes. LeRobot is not needed to read it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from hildaft.robots.cameras import require_crop
from hildaft.robots.real_arm import ArmTask, BaseAxis
from hildaft.robots.workspace import Workspace
from hildaft.types import ActionScale, HilDaftError

_DEGREE: Final = float(np.pi / 180.0)


@dataclass(frozen=True, kw_only=True)
class PoseKeys:
    """An arm that is commanded by the pose of its end effector, and measures it."""

    position: tuple[str, str, str] = ("ee.x", "ee.y", "ee.z")
    """Keys of x, y, z (m, base axes), in the observation and in the action."""
    rotation: tuple[str, ...] = ("ee.wx", "ee.wy", "ee.wz")
    """Keys of the orientation; empty for an arm that keeps it, whose rotation actions have no effect."""
    rotation_is: Literal["vector", "euler"] = "vector"
    """A rotation vector (rad), or roll, pitch, yaw (rad, extrinsic x, y, z)."""

    def __post_init__(self) -> None:
        if len(self.rotation) not in (0, 3):
            msg = f"pose_keys.rotation={self.rotation}: three keys, or none, are allowed"
            raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class JointKey:
    """One joint of an arm that is commanded by joint positions."""

    key: str
    """In the observation and in the action, such as `shoulder_pan.pos`."""
    joint: str
    """Its name in the URDF."""
    unit_rad: float = _DEGREE
    """Radians of the URDF's joint per unit of the key (metres for a slide); negative where they turn the other way."""
    offset_rad: float = 0.0
    """The URDF's joint where the key is 0."""

    def __post_init__(self) -> None:
        if self.unit_rad == 0.0 or not np.isfinite([self.unit_rad, self.offset_rad]).all():
            msg = f"joint_keys.joints {self.key!r} unit_rad={self.unit_rad}: any number but 0 is allowed"
            raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class JointKeys:
    """An arm that is commanded by joint positions; its URDF says where that puts the end effector."""

    urdf: str
    """Looked for beside the YAML file; meshes are not read."""
    tip: str
    """Link whose origin is the end effector, between the fingers."""
    joints: tuple[JointKey, ...]
    """Every moving joint from the base to the tip."""
    max_step_rad: float = 0.2
    """Largest change of any joint per control step: near a singularity the arm slows down."""
    turn_weight_m: float = 0.05
    """Metres that one radian of orientation counts for where both cannot be had (fewer than six joints)."""

    def __post_init__(self) -> None:
        for name, high in (("max_step_rad", 1.0), ("turn_weight_m", 1.0)):
            if not 0.0 < getattr(self, name) <= high:
                msg = f"joint_keys.{name}={getattr(self, name)}: above 0, at most {high} is allowed"
                raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class JawKey:
    """The gripper."""

    key: str = "gripper.pos"
    """In the observation and in the action."""
    open: float = 100.0
    """Value with open jaws."""
    closed: float = 0.0
    """Value with closed jaws."""
    max_step: float = 30.0
    """Largest change per control step, in the key's unit."""

    def __post_init__(self) -> None:
        if self.open == self.closed or not self.max_step > 0:
            msg = (
                f"gripper open={self.open}, closed={self.closed}, max_step={self.max_step}:"
                " two different values and a positive step are allowed"
            )
            raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class CameraKey:
    """One of our views."""

    key: str
    """Name of the image in the arm's observation."""
    crop: tuple[int, int, int, int] | None = None
    """Top, left, height and width in pixels that are kept; a centred square where not given."""

    def __post_init__(self) -> None:
        require_crop(self.crop)


@dataclass(frozen=True, kw_only=True)
class LeRobotConfig:
    """One LeRobot arm."""

    kind: Literal["lerobot"]
    """Says which kind of file this is."""
    name: str
    """Identity recorded with every episode."""
    tasks: dict[str, ArmTask] = field(default_factory=dict[str, ArmTask])
    """What the arm is trained on, by name; not needed for `check-robot` and `calibrate`."""
    arm: dict[str, Any]
    """LeRobot's own config of the arm: `type` (so101_follower, or a plugin's), `port`, `cameras` and so on."""
    pose_keys: PoseKeys | None = None
    """For an arm that is commanded by poses; exactly one of this and `joint_keys`."""
    joint_keys: JointKeys | None = None
    """For an arm that is commanded by joint positions."""
    gripper: JawKey | None = None
    """The gripper; none: the arm has none."""
    fixed: dict[str, float] = field(default_factory=dict[str, float])
    """Every other key of the arm's action, and the value it is held at."""
    cameras: dict[str, CameraKey] = field(default_factory=dict[str, CameraKey])
    """`head` and `wrist`."""
    workspace: Workspace
    """Where the end effector may go; `hildaft calibrate` measures it."""
    reset: dict[str, float]
    """Where episodes start: a value of every pose or joint key, such as read with `hildaft check-robot`."""
    reset_spread_m: float = 0.0
    """The start is drawn uniformly this far about x and y of the reset pose."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """Metres and radians an action of 1 stands for, per control step."""
    leash_m: float = 0.05
    """The commanded pose stays this near the measured one; servos that sag under their load need some."""
    jump_m: float = 0.1
    """A measured move of more than this within one step is a fault."""
    jump_rad: float = 1.0
    """A measured turn of more than this within one step is a fault."""
    step_limit: int = 50
    """Control steps of an episode (Sec. V-A)."""
    forward_left_up: tuple[BaseAxis, BaseAxis, BaseAxis] = ("+x", "+y", "+z")
    """Base axes that are forward, left and up for a person in front of the robot."""

    def __post_init__(self) -> None:
        if (self.pose_keys is None) == (self.joint_keys is None):
            msg = f"{self.name}: exactly one of pose_keys and joint_keys is needed"
            raise HilDaftError(msg)
        if "type" not in self.arm:
            msg = f"{self.name} arm={self.arm}: its `type` is needed, as in LeRobot's --robot.type"
            raise HilDaftError(msg)
        for name in ("leash_m", "jump_m", "jump_rad", "step_limit"):
            if not getattr(self, name) > 0:
                msg = f"{self.name} {name}={getattr(self, name)}: a positive number is allowed"
                raise HilDaftError(msg)
        if self.jump_m <= self.action_scale.translation_m:
            msg = (
                f"{self.name} jump_m={self.jump_m}: more than action_scale.translation_m is allowed"
            )
            raise HilDaftError(msg)
        if set(self.reset) != set(self.motion_keys):
            wanted = ", ".join(self.motion_keys)
            msg = f"{self.name} reset={sorted(self.reset)}: a value of each of {wanted} is needed"
            raise HilDaftError(msg)

    @property
    def motion_keys(self) -> tuple[str, ...]:
        """Keys that move the end effector, in the arm's order."""
        if self.pose_keys is not None:
            return (*self.pose_keys.position, *self.pose_keys.rotation)
        assert self.joint_keys is not None
        return tuple(joint.key for joint in self.joint_keys.joints)

    def beside(self, folder: Path) -> "LeRobotConfig":
        """The same with the URDF's place resolved against a folder."""
        if self.joint_keys is None:
            return self
        urdf = str((folder / self.joint_keys.urdf).resolve())
        return replace(self, joint_keys=replace(self.joint_keys, urdf=urdf))


@dataclass(frozen=True, kw_only=True)
class RateKeys:
    """A teleoperator that says how fast to go: gamepad, keyboard, SpaceMouse, phone."""

    axes: dict[Literal["forward", "left", "up", "roll", "pitch", "yaw"], str] = field(
        default_factory=lambda: {"forward": "delta_x", "left": "delta_y", "up": "delta_z"}
    )
    """Key of each axis as the operator sees it; `-delta_y` turns one round."""
    full: float = 1.0
    """Value of a key at full deflection."""
    gripper: str = ""
    """Key of the gripper; "": the device has none."""
    closes: float = 0.0
    """Value that closes it; LeRobot's gamepad and keyboard have 0, and 2 opens."""
    opens: float = 2.0
    """Value that opens it."""
    enabled: str = ""
    """Key that must be true for anything to move; "": none."""

    def __post_init__(self) -> None:
        if not self.axes or not self.full > 0 or self.closes == self.opens:
            msg = (
                f"rates axes={self.axes}, full={self.full}, closes={self.closes}, opens={self.opens}: one axis or"
                " more, a positive full scale and two different gripper values are allowed"
            )
            raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class LeaderKeys:
    """A leader arm that is moved by hand: what its tip does, the robot does from where it is."""

    joint_keys: JointKeys
    """Its joints and URDF; base axes as the robot's."""
    gripper: JawKey | None = None
    """Its handle; beyond half way it opens or closes."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """The robot's: the leader's way is followed at most this far per control step, and caught up with later."""


@dataclass(frozen=True, kw_only=True)
class TeleoperatorConfig:
    """One LeRobot teleoperator as the operator's device."""

    teleoperator: dict[str, Any]
    """LeRobot's own config: `type` (gamepad, keyboard_ee, so101_leader, or a plugin's) and its fields."""
    rates: RateKeys | None = None
    """For devices that say how fast; exactly one of this and `leader`."""
    leader: LeaderKeys | None = None
    """For leader arms."""
    poll_hz: float = 50.0
    """How often it is asked, by a thread of its own."""

    def __post_init__(self) -> None:
        if (self.rates is None) == (self.leader is None):
            msg = "teleoperator: exactly one of rates and leader is needed"
            raise HilDaftError(msg)
        if "type" not in self.teleoperator:
            msg = f"teleoperator={self.teleoperator}: its `type` is needed, as in LeRobot's --teleop.type"
            raise HilDaftError(msg)
        if not 5.0 <= self.poll_hz <= 500.0:
            msg = f"teleoperator poll_hz={self.poll_hz}: 5 to 500 is allowed"
            raise HilDaftError(msg)

    def beside(self, folder: Path) -> "TeleoperatorConfig":
        """The same with the URDF's place resolved against a folder."""
        if self.leader is None:
            return self
        keys = self.leader.joint_keys
        resolved = replace(keys, urdf=str((folder / keys.urdf).resolve()))
        return replace(self, leader=replace(self.leader, joint_keys=resolved))
