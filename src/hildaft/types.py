"""The nouns every part shares: observations, actions, commands, episodes and the protocols between parts.

NumPy only: whatever runs beside a robot can import this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8

ACTION_DIM: Final = 7
"""dx, dy, dz, droll, dpitch, dyaw (robot base axes) and the gripper (> 0 closes)."""

CONTROL_HZ: Final = 10.0
"""Rate at which actions are executed and transitions are recorded (Sec. V-A)."""

Source: TypeAlias = Literal["demo", "online", "eval"]
"""Where an episode comes from."""

Action: TypeAlias = Float32[np.ndarray, "7"]


class HilDaftError(Exception):
    """A mistake the user can mend: one line that names the field, the value, what is allowed and what to do."""


class StoppedError(HilDaftError):
    """A robot was told to hold in the middle of a motion, by a person or because nobody commands it any more."""


@dataclass(frozen=True, slots=True)
class ActionScale:
    """What an action of 1 means, per control step."""

    translation_m: float = 0.015
    """Along each axis."""
    rotation_rad: float = 0.15
    """About each axis."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy may see: camera images (RGB, 0-255, by camera name) and the gripper status."""

    images: Mapping[str, UInt8[np.ndarray, "h w 3"]]
    proprio: Float32[np.ndarray, "2"]
    """Jaw opening in [0, 1] (1 = fully open) and whether the jaws are commanded closed (0 or 1)."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One control step of a robot; `terminated` and `truncated` as Gymnasium means them."""

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class SceneState:
    """Privileged view of the bolt bench, in robot base axes (m, rotation matrices). Never shown to a policy."""

    task: str
    ee_position_m: Float64[np.ndarray, "3"]
    ee_rotation: Float64[np.ndarray, "3 3"]
    jaw_opening_m: float
    jaw_closed: bool
    bolt_position_m: Float64[np.ndarray, "3"]
    """Centre of the bolt head's bottom face; the shaft runs along the bolt's +z axis."""
    bolt_rotation: Float64[np.ndarray, "3 3"]
    bolt_held: bool
    """Both pads touch the bolt."""
    slot_position_m: Float64[np.ndarray, "3"]
    """Slot mouth, on the centre line, at table height."""
    slot_rotation: Float64[np.ndarray, "3 3"]
    """+y runs into the slot, +z up."""
    spot_position_m: Float64[np.ndarray, "3"]
    """The marked spot on the table that `upright` places the bolt on."""
    success: bool


@dataclass(frozen=True, slots=True)
class RefinementCommand:
    """Words l_rf: a direction per translational axis of the named command frame, each -1, 0 or 1.

    (0, 0, 0) is "[null]": no command. There are 27 of them; `index` numbers them.
    """

    signs: tuple[int, int, int]

    def __post_init__(self) -> None:
        if len(self.signs) != 3 or any(sign not in (-1, 0, 1) for sign in self.signs):
            msg = (
                f"refinement command signs={self.signs!r}: three values out of -1, 0, 1 are allowed"
            )
            raise HilDaftError(msg)

    @property
    def index(self) -> int:
        """Position in the command table, 0 to 26; "[null]" is 13."""
        x, y, z = self.signs
        return 9 * (x + 1) + 3 * (y + 1) + (z + 1)

    @staticmethod
    def from_index(index: int) -> "RefinementCommand":
        """The inverse of `index`; raises HilDaftError outside 0..26."""
        if not 0 <= index < COMMAND_COUNT:
            msg = f"refinement command index={index}: 0 to {COMMAND_COUNT - 1} is allowed"
            raise HilDaftError(msg)
        return RefinementCommand((index // 9 - 1, index // 3 % 3 - 1, index % 3 - 1))

    @property
    def opposite(self) -> "RefinementCommand":
        """The command that says the contrary on every axis."""
        x, y, z = self.signs
        return RefinementCommand((-x, -y, -z))

    @property
    def is_null(self) -> bool:
        """Whether this is "[null]"."""
        return self.signs == (0, 0, 0)


COMMAND_COUNT: Final = 27
NULL_COMMAND: Final = RefinementCommand((0, 0, 0))


@dataclass(frozen=True, slots=True)
class Tweak:
    """What the human's hand gives in place of the policy's action."""

    action: Action
    is_correction: bool = True
    """False for a step of the hand-over, in which the robot stands still or gathers speed: it is executed,
    but it is no correction to learn from."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the frozen encoders make of one observation, computed once, at the worker."""

    h: Float32[np.ndarray, " d"]
    """Embedding of the backbone (eq. 3)."""
    features: Float32[np.ndarray, " f"]
    """Image features for the critics and the refinement actor."""
    proprio: Float32[np.ndarray, " p"]


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode of T steps, the unit the store keeps. Row T of the T+1 arrays is the last observation.

    h and features are float32 here; `images` holds JPEG bytes per camera, one per observation.
    """

    task: str
    source: Source
    robot: str
    seed: int
    policy_version: int
    """Version of the weights that acted; -1 where no policy did (demonstrations)."""
    success: bool
    h: Float32[np.ndarray, "t1 d"]
    features: Float32[np.ndarray, "t1 f"]
    proprio: Float32[np.ndarray, "t1 p"]
    policy_action: Float32[np.ndarray, "t 7"]
    """NaN rows where no policy acted."""
    human_action: Float32[np.ndarray, "t 7"]
    """NaN rows where the human did not act."""
    executed_action: Float32[np.ndarray, "t 7"]
    is_intervention: Bool[np.ndarray, " t"]
    """Rows where the human acted in a policy's place; all False in demonstrations."""
    spoken: Int[np.ndarray, " t"]
    """Index of the refinement command the policy was given, 13 ("[null]") for none."""
    refinement: Int[np.ndarray, " t"]
    """Label by eq. 12-13 on human rows, 13 ("[null]") elsewhere."""
    displacement_m: Float32[np.ndarray, "t 3"]
    """Eq. 12's cumulative displacement on human rows, in metres and the command frame; 0 elsewhere."""
    reward: Float32[np.ndarray, " t"]
    terminated: Bool[np.ndarray, " t"]
    truncated: Bool[np.ndarray, " t"]
    images: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    encoder_hash: str = ""
    """Content hash of the backbone and image encoder that made h and features."""

    def __len__(self) -> int:
        return len(self.reward)


@runtime_checkable
class Robot(Protocol):
    """What can be acted on at 10 Hz. Actions are in [-1, 1], base axes, scaled by `action_scale`."""

    @property
    def name(self) -> str:
        """Identity recorded with every episode."""
        ...

    @property
    def action_scale(self) -> ActionScale:
        """Metres and radians an action of 1 stands for."""
        ...

    def reset(self, task: str, seed: int) -> Observation:
        """Brings robot and scene to a start state of the task."""
        ...

    def step(self, action: Action) -> StepResult:
        """Executes one action for one control period."""
        ...

    def stop(self) -> None:
        """Leaves the arm holding still; safe to call at any time, more than once."""
        ...


@runtime_checkable
class Policy(Protocol):
    """What acts: frozen encoders plus the two actors."""

    @property
    def version(self) -> int:
        """Version of the weights now acting."""
        ...

    @property
    def encoder_hash(self) -> str:
        """Content hash of the frozen encoders."""
        ...

    def encode(self, observation: Observation, task: str) -> Encoded:
        """Runs the frozen encoders; the task's instruction is embedded once, not per step."""
        ...

    def act(self, encoded: Encoded, command: RefinementCommand) -> Action:
        """Primary mode for "[null]", refinement mode for any other command (eq. 1-2)."""
        ...


@runtime_checkable
class Operator(Protocol):
    """A person, or the simulated one, beside the robot while the policy acts."""

    def begin(self, task: str, seed: int) -> None:
        """Called at each episode start."""
        ...

    def speak(self) -> RefinementCommand:
        """The command in force before this step's action; "[null]" for silence."""
        ...

    def tweak(self, policy_action: Action) -> Tweak | None:
        """The correction that replaces `policy_action` now, or None to let the policy act."""
        ...


Mark: TypeAlias = Literal["success", "failure", "again", "stop"]
"""What a person says of the episode under way. `success` and `failure` end it, terminated, with reward 1 or 0 at
the newest step; `again` throws it away and starts it anew from the same seed; `stop` ends it, truncated."""


Press: TypeAlias = Literal["success", "failure", "again", "stop", "pause"]
"""A key on a device in the person's hand: a mark, or `pause`, which holds the robot and lets it go on."""


@runtime_checkable
class OperatorKeys(Protocol):
    """The keys of a person beside the robot. The loop asks them before each step, from one thread."""

    def holds(self) -> bool:
        """Whether the robot must stand still and no step be taken now."""
        ...

    def idle(self) -> None:
        """Called over and over while the robot is held; returns after a control period at the latest."""
        ...

    def take_mark(self) -> Mark | None:
        """The mark given since the last call; each is handed out once."""
        ...
