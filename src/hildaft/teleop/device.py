"""A device in the operator's hand as an `Operator`: dead zone, dead-man, hand-over and gripper.

The rules are the same for every device. A device that has fallen silent, was unplugged or failed never
moves the robot: what it said last is forgotten after `DeviceConfig.silence_s`.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from jaxtyping import Float32

from hildaft.teleop.talk import OperatorFrame
from hildaft.types import (
    ACTION_DIM,
    NULL_COMMAND,
    Action,
    HilDaftError,
    Press,
    RefinementCommand,
    Tweak,
)

AXES: Final = ("forward", "left", "up", "roll", "pitch", "yaw")
"""What a device says, as the operator sees it: translation, then rotation about the same axes (right hand)."""

Hand: TypeAlias = Literal["policy", "human", "held"]
"""Who has the robot: the policy, the person, or nobody because the device is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The newest report of a device."""

    axes: Float32[np.ndarray, "6"]
    """`AXES` in [-1, 1]; 0 at rest."""
    close: bool = False
    """Whether the button that closes the gripper is down."""
    open: bool = False
    """Whether the button that opens it is down."""
    age_s: float = float("inf")
    """Time since the device last reported."""
    fault: str = ""
    """Why the device cannot be read; "" while it can."""


@runtime_checkable
class Device(Protocol):
    """Something with six axes and two gripper buttons."""

    @property
    def name(self) -> str:
        """What it calls itself."""
        ...

    def read(self) -> Reading:
        """The newest report; never blocks, never raises for a device that fails."""
        ...

    def close(self) -> None:
        """Lets go of the device; may be called twice."""
        ...


@runtime_checkable
class KeyedDevice(Protocol):
    """A device that has buttons for the keys beside the robot too."""

    def presses(self) -> Iterator[Press]:
        """Each press once, as it comes; blocks in between, and ends when the device is closed or lost.

        For one thread of its own: a key counts whatever the robot's loop is busy with.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """How a device's deflection becomes an intervention. None of it is in the paper."""

    dead_zone: float = 0.1
    """Deflection below which an axis is at rest, in [0, 0.5]; what is left is stretched to full scale."""
    engage: float = 0.2
    """Deflection of any axis that takes control, at least `dead_zone`: the noise of a loose cap must not."""
    speed: float = 0.8
    """Largest translation, as a share of full scale, in (0, 1]."""
    rotation_speed: float = 0.5
    """Largest rotation, as a share of full scale, in [0, 1]; 0 locks rotation."""
    silence_s: float = 0.25
    """Age of a report from which it is forgotten: the driver repeats its last state when nothing comes."""
    release_s: float = 0.3
    """Time at rest before the policy has the robot back: one idle sample is no release. The robot stands meanwhile."""
    on_fault: Literal["hold", "hand back"] = "hold"
    """What happens when the device falls silent in mid-push or cannot be read: the robot is held until
    the device is back and at rest, or the policy goes on."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.dead_zone <= 0.5, "dead_zone", self.dead_zone, "0 to 0.5")
        _require(self.dead_zone <= self.engage < 1.0, "engage", self.engage, "dead_zone to below 1")
        _require(0.0 < self.speed <= 1.0, "speed", self.speed, "above 0, at most 1")
        _require(0.0 <= self.rotation_speed <= 1.0, "rotation_speed", self.rotation_speed, "0 to 1")
        _require(0.0 < self.silence_s <= 1.0, "silence_s", self.silence_s, "above 0, at most 1 s")
        _require(0.0 <= self.release_s <= 5.0, "release_s", self.release_s, "0 to 5 s")
        _require(
            self.on_fault in ("hold", "hand back"), "on_fault", self.on_fault, "hold, hand back"
        )


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        msg = f"DeviceConfig.{name}={value!r}: {allowed} is allowed"
        raise HilDaftError(msg)


@final
class DeviceOperator:
    """Implements `types.Operator` on a device, and demonstrates.

    While the policy acts, pushing past `engage` or pressing a button takes control. Letting go holds the robot
    still for `release_s`, then the policy goes on; the gripper keeps its state until a button changes it. Standing
    still, at rest or held, is executed but is no correction to learn from.

    Args:
        device: the device; closed by whoever opened it.
        frame: where forward, left and up are for the operator, in base axes.
        jaws_closed: whether the jaws are commanded closed now; without it the device remembers what it last said.
        clock: seconds, monotonic; replaceable in tests.
    """

    def __init__(
        self,
        device: Device,
        config: DeviceConfig | None = None,
        *,
        frame: OperatorFrame | None = None,
        jaws_closed: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device, self._config = device, config or DeviceConfig()
        self._jaws_closed, self._clock = jaws_closed, clock
        self.frame: Final = frame or OperatorFrame()
        """Where forward, left and up are for the operator."""
        matrix = self.frame.matrix.astype(np.float32)
        self._to_base: Final = np.kron(np.eye(2, dtype=np.float32), matrix)
        self.fault = ""
        """Why the robot is held or the device is ignored now; "" while all is well."""
        self._excused = False
        self.begin("", 0)

    def begin(self, task: str, seed: int) -> None:
        """Forgets the last episode's hand; the gripper is open until an action says otherwise."""
        del task, seed
        self._hand: Hand = "policy"
        self._moved_s = -np.inf
        self._grip = np.float32(-1.0)

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return self._device.name

    @property
    def hand(self) -> Hand:
        """Who has the robot."""
        return self._hand

    def look(self) -> Hand:
        """Reads the device while no step is taken; who has the robot then."""
        reading = self._device.read()
        self._update_hand(reading, self._live_axes(reading))
        return self._hand

    def excuse(self) -> None:
        """Does without a device that holds the robot, until it is well again: a person has said so."""
        self._excused = self._hand == "held"

    def speak(self) -> RefinementCommand:
        """A hand says nothing."""
        return NULL_COMMAND

    def tweak(self, policy_action: Action) -> Tweak | None:
        """The person's action while they have the robot; standing still while it is held; None for the policy."""
        taken = self.take()
        if taken is None:
            self._grip = np.float32(1.0 if policy_action[6] > 0 else -1.0)
        return taken

    def take(self) -> Tweak | None:
        """What the hand does now; None while it leaves the robot alone."""
        reading = self._device.read()
        axes = self._live_axes(reading)
        self._update_hand(reading, axes)
        if self._hand == "policy":
            return None
        acts = self._hand == "human" and (bool(axes.any()) or self._is_pressed(reading))
        return Tweak(self._action(reading, axes), acts)

    def demonstrate(self) -> Action:
        """The person's action, standing still at rest and whenever the device cannot be trusted."""
        reading = self._device.read()
        axes = self._live_axes(reading)
        self._update_hand(reading, axes)
        return self._action(reading, axes)

    def _live_axes(self, reading: Reading) -> Float32[np.ndarray, "6"]:
        """Deflection with the dead zone taken out; 0 for a report that is old, broken or not finite."""
        rest = np.zeros(len(AXES), dtype=np.float32)
        broken = not np.isfinite(reading.axes).all()
        self.fault = reading.fault or ("it reports numbers that are not finite" if broken else "")
        if self.fault or reading.age_s > self._config.silence_s:
            return rest
        zone = self._config.dead_zone
        pushed = np.clip(reading.axes, -1.0, 1.0)
        size = np.maximum(np.abs(pushed) - zone, 0.0) / (1.0 - zone)
        return (np.sign(pushed) * size).astype(np.float32)

    def _is_pressed(self, reading: Reading) -> bool:
        """Whether a gripper button is down, in a report that can be trusted."""
        live = reading.age_s <= self._config.silence_s and not self.fault
        return live and (reading.close or reading.open)

    def _update_hand(self, reading: Reading, axes: Float32[np.ndarray, "6"]) -> None:
        config, now = self._config, self._clock()
        silent = reading.age_s > config.silence_s
        zone = (config.engage - config.dead_zone) / (1.0 - config.dead_zone)
        deflected = float(np.abs(axes).max())
        pushed = deflected > 0.0 and (self._hand == "human" or deflected >= zone)
        # Fallen silent with the cap still pushed is no rest: a cap at rest says so with its last report.
        at_rest = not self.fault and float(np.abs(reading.axes).max()) <= config.dead_zone
        if not self.fault and silent and not at_rest and self._hand != "policy":
            self.fault = f"{self._device.name} has been silent for over {config.silence_s:g} s"
        self._excused = self._excused and bool(self.fault)
        if self.fault:
            holds = config.on_fault == "hold" and not self._excused
            self._hand = "held" if holds else "policy"
        elif self._hand == "held":
            # Back only from rest: a device that returns pushed must not throw the robot.
            self._hand = "human" if at_rest else "held"
            self._moved_s = now
        elif pushed or self._is_pressed(reading):
            self._hand, self._moved_s = "human", now
        elif self._hand == "human" and now - self._moved_s >= config.release_s:
            self._hand = "policy"

    def _action(self, reading: Reading, axes: Float32[np.ndarray, "6"]) -> Action:
        config = self._config
        action = np.zeros(ACTION_DIM, dtype=np.float32)
        trusted = self._hand != "held" and not self.fault
        if self._jaws_closed is not None:
            self._grip = np.float32(1.0 if self._jaws_closed() else -1.0)
        if trusted and self._is_pressed(reading) and reading.close != reading.open:
            self._grip = np.float32(1.0 if reading.close else -1.0)
        if trusted:
            action[:6] = self._to_base @ axes
            action[:3] *= config.speed
            action[3:6] *= config.rotation_speed
        action[6] = self._grip
        return action
