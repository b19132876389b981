"""How a Gymnasium environment we did not write maps to our cameras, actions and success signal. No gymnasium here."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from hildaft.robots.real_arm import BaseAxis
from hildaft.types import ActionScale, HilDaftError

CAMERAS = ("head", "wrist")
"""The views the backbones read; an environment with one camera feeds it to both."""

Motion: TypeAlias = Literal["dx", "dy", "dz", "droll", "dpitch", "dyaw"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)


def _fault(field_name: str, value: object, allowed: str) -> HilDaftError:
    return HilDaftError(f"environment.{field_name}={value!r}: {allowed}")


@dataclass(frozen=True, kw_only=True)
class GymCamera:
    """Where one of our views comes from."""

    source: Literal["observation", "render", "mujoco"]
    """An array of the observation, the environment's own `render()`, or a camera named in its MuJoCo model."""
    key: str = ""
    """Path in the observation (`pixels/front`) or name of the MuJoCo camera; not used for `render`."""
    crop: tuple[int, int, int, int] | None = None
    """Top, left, height and width in pixels, cut out before the resize; the largest square in the
    middle where not given."""
    flip: Literal["none", "vertical", "horizontal", "both"] = "none"
    """Turns an image that arrives upside down or mirrored the right way round."""

    def __post_init__(self) -> None:
        if (self.source == "render") != (self.key == ""):
            raise _fault(
                "cameras.key", self.key, f"source {self.source!r} needs a key, render needs none"
            )
        if self.crop is not None and (min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1):
            raise _fault("cameras.crop", self.crop, "top and left from 0, height and width from 1")


@dataclass(frozen=True, kw_only=True)
class GymAction:
    """What one entry of the environment's action vector means."""

    means: Literal["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper", "fixed"]
    """Motion along or about a robot base axis, the jaws, or an entry held at `value`."""
    unit: float = 1.0
    """Metres or radians that a value of 1 moves in one of the environment's steps; negative turns the axis round."""
    open: float = -1.0
    """Value that opens the jaws."""
    closed: float = 1.0
    """Value that closes the jaws."""
    discrete: bool = True
    """Only ever the values `open` and `closed`; otherwise everything between them."""
    value: float = 0.0
    """What a fixed entry is held at."""

    def __post_init__(self) -> None:
        if self.unit == 0.0:
            raise _fault("action.unit", self.unit, "any number but 0, in metres or radians")
        if self.means == "gripper" and self.open == self.closed:
            raise _fault("action.open", self.open, "another value than `closed`")


@dataclass(frozen=True, kw_only=True)
class GymVector:
    """Entries of an observation array."""

    key: str
    """Path in the observation, such as `observation` or `robot/qpos`; empty where it is an array itself."""
    indices: tuple[int, ...]
    """Entries, in order."""


@dataclass(frozen=True, kw_only=True)
class GymJaws:
    """Where the jaw opening is read."""

    source: GymVector
    """Entries that are added up, such as two finger joints."""
    open: float
    """Their sum with open jaws."""
    closed: float = 0.0
    """Their sum with closed jaws."""


@dataclass(frozen=True, kw_only=True)
class GymSuccess:
    """How success is told."""

    source: Literal["info", "reward", "terminated"] = "terminated"
    """A value of `info`, the reward, or that the environment terminates."""
    key: str = ""
    """Path in `info`; only for `info`."""
    threshold: float = 0.5
    """Success from this value on; not used for `terminated`."""
    hold_steps: int = 1
    """Consecutive control steps it must hold; only for `info` and `reward`."""

    def __post_init__(self) -> None:
        if (self.source == "info") != (self.key != ""):
            raise _fault("success.key", self.key, "a key for source 'info', none for the others")
        if self.hold_steps < 1:
            raise _fault("success.hold_steps", self.hold_steps, "1 or more")


@dataclass(frozen=True, kw_only=True)
class GymTask:
    """One task: what the backbone is told and the environment it is done in."""

    instruction: str
    """l_task, in words."""
    env_id: str
    """As for `gymnasium.make`; `package:Name-v1` imports the package first, `file.py:Name-v1` the file, which is
    looked for beside the YAML file."""
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Passed to `gymnasium.make`."""
    reset_options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Passed to every reset."""


@dataclass(frozen=True, kw_only=True)
class GymConfig:
    """A Gymnasium environment in the bolt bench's place."""

    kind: Literal["gymnasium"] = "gymnasium"
    """Says which kind of file this is."""
    name: str
    """Identity of the robot, recorded with every episode."""
    tasks: dict[str, GymTask]
    """Tasks by name; all share cameras, action layout and success signal."""
    cameras: dict[str, GymCamera]
    """Where `head` and `wrist` come from."""
    action: tuple[GymAction, ...]
    """What each entry of the environment's action vector means, in its order."""
    action_scale: ActionScale = field(default_factory=ActionScale)
    """Metres and radians an action of 1 stands for, per control step."""
    success: GymSuccess = field(default_factory=GymSuccess)
    """How success is told."""
    jaws: GymJaws | None = None
    """Where the jaw opening is read; none: the policy sees the commanded state only."""
    ee_position: GymVector | None = None
    """Measured end-effector position (x, y and, where there is one, z; m, base axes); only the check reads it."""
    step_limit: int = 50
    """Control steps of an episode (Sec. V-A)."""
    repeat: int = 1
    """Environment steps per control step: 25 Hz environments at about 10 Hz need 2 or 3."""
    shadows: bool = False
    """Draw shadows and smooth edges in MuJoCo environments; without a GPU that is some 10 times slower."""
    operator: str = ""
    """Who demonstrates and corrects where no person does: `module:function` or `file.py:function`, see
    docs/gymnasium.md. A file is looked for beside the YAML file. It is Python code, and it is run."""
    forward_left_up: tuple[BaseAxis, BaseAxis, BaseAxis] = ("+x", "+y", "+z")
    """Base axes that are forward, left and up for a person in front of the robot."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise _fault("tasks", self.tasks, "one or more are needed")
        if set(self.cameras) != set(CAMERAS):
            raise _fault(
                "cameras", sorted(self.cameras), f"exactly {', '.join(CAMERAS)} are needed"
            )
        means = [entry.means for entry in self.action if entry.means not in ("fixed", "gripper")]
        if not means or len(set(means)) != len(means):
            raise _fault("action", means, "one motion or more is needed, none of them twice")
        for name in ("step_limit", "repeat"):
            if getattr(self, name) < 1:
                raise _fault(name, getattr(self, name), "1 or more")
        for name, value in dataclasses.asdict(self.action_scale).items():
            if not value > 0:
                raise _fault(f"action_scale.{name}", value, "a positive number")

    @property
    def missing_motions(self) -> tuple[Motion, ...]:
        """Motions the environment cannot make; the policy's values for them have no effect."""
        present = {entry.means for entry in self.action}
        return tuple(motion for motion in MOTIONS if motion not in present)
