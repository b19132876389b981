"""A LeRobot teleoperator as the operator's device, and its buttons as the keys beside the robot."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float32

from hildaft.lerobot_bridge.config import JawKey, LeaderKeys, RateKeys, TeleoperatorConfig
from hildaft.lerobot_bridge.library import Teleoperator, make_teleoperator, theirs
from hildaft.lerobot_bridge.motion import JointMotion
from hildaft.robots.pose import Pose, turn_between
from hildaft.teleop.device import AXES, Reading
from hildaft.types import HilDaftError, Press

_FIRST_S: Final = 5.0
_NOTICED: Final = 0.2
"""Share of full scale from which a leader's motion counts: below it is the trembling of the hand."""
_LOOK_S: Final = 0.1
"""Longest wait for a press before looking whether the device was closed."""
_FORGET_S: Final = 0.5
"""Not asked for this long, as between episodes, a leader starts from where it is then."""
_PRESSES: Final[tuple[tuple[str, Press], ...]] = (
    ("rerecord_episode", "again"),
    ("success", "success"),
    ("failure", "failure"),
    ("terminate_episode", "failure"),
)
"""LeRobot's events, the more special ones first: a device that asks to re-record ends the episode as well."""


@runtime_checkable
class _Axes(Protocol):
    """From a device's values to axes as the operator sees them."""

    keys: tuple[str, ...]

    def read(self, values: Mapping[str, float]) -> tuple[Float32[np.ndarray, "6"], bool, bool]:
        """Axes, and whether the gripper is to close or to open."""
        ...

    def forget(self) -> None:
        """Nobody asked for a while: what was done meanwhile moves nothing."""
        ...


@final
class _Rates:
    """Values are speeds already."""

    def __init__(self, config: RateKeys) -> None:
        self._config: Final = config
        extra = tuple(key for key in (config.gripper, config.enabled) if key)
        self.keys = (*(key.lstrip("-") for key in config.axes.values()), *extra)

    def read(self, values: Mapping[str, float]) -> tuple[Float32[np.ndarray, "6"], bool, bool]:
        config, axes = self._config, np.zeros(len(AXES), dtype=np.float32)
        if config.enabled and not values[config.enabled] > 0.5:
            return axes, False, False
        for axis, key in config.axes.items():
            sense = -1.0 if key.startswith("-") else 1.0
            axes[AXES.index(axis)] = sense * values[key.lstrip("-")] / config.full
        if not config.gripper:
            return axes, False, False
        near = 0.25 * abs(config.closes - config.opens)
        grip = values[config.gripper]
        return axes, abs(grip - config.closes) < near, abs(grip - config.opens) < near

    def forget(self) -> None:
        pass


@final
class _Leader:
    """What the leader's tip has moved since it was last followed, in steps of the robot."""

    def __init__(self, config: LeaderKeys) -> None:
        self._motion: Final = JointMotion(config.joint_keys)
        self._jaws: Final[JawKey | None] = config.gripper
        scale = config.action_scale
        self._step: Final = np.array([scale.translation_m] * 3 + [scale.rotation_rad] * 3)
        joints = tuple(joint.key for joint in config.joint_keys.joints)
        self.keys = (*joints, *((config.gripper.key,) if config.gripper is not None else ()))
        self._followed: Pose | None = None
        self._was_closed: bool | None = None

    def read(self, values: Mapping[str, float]) -> tuple[Float32[np.ndarray, "6"], bool, bool]:
        here = self._motion.pose(values)
        before = self._followed or here
        moved = np.concatenate(
            [here.position_m - before.position_m, turn_between(before.quaternion, here.quaternion)]
        )
        axes = np.clip(moved / self._step, -1.0, 1.0)
        if float(np.abs(axes).max()) < _NOTICED:
            # Not followed yet: a slow hand adds up until it counts.
            axes[:] = 0.0
        self._followed = before.moved(axes[:3] * self._step[:3], axes[3:] * self._step[3:])
        close, open_ = self._grip(values)
        return axes.astype(np.float32), close, open_

    def forget(self) -> None:
        self._followed = self._was_closed = None

    def _grip(self, values: Mapping[str, float]) -> tuple[bool, bool]:
        """A button is pressed at the moment the handle passes half way."""
        if self._jaws is None:
            return False, False
        share = (values[self._jaws.key] - self._jaws.open) / (self._jaws.closed - self._jaws.open)
        closed, was = share > 0.5, self._was_closed
        self._was_closed = closed
        return closed and was is False, not closed and was is True


@final
class LeRobotDevice:
    """Implements `device.Device` and `device.KeyedDevice`. A thread of its own asks the teleoperator.

    A teleoperator that hangs grows old and is forgotten by `DeviceOperator`; one that raises is a fault, said once.
    Where it has `get_teleop_events`, nothing moves while it says that nobody intervenes, and success, failure and
    re-record are handed on as presses.

    Raises:
        HilDaftError: it cannot be connected, lacks a key, or gives nothing within 5 s.
    """

    def __init__(
        self,
        config: TeleoperatorConfig,
        teleoperator: Teleoperator,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name: Final = f"LeRobot {config.teleoperator['type']}"
        self._device, self._clock = teleoperator, clock
        if config.rates is not None:
            self._axes: _Axes = _Rates(config.rates)
        else:
            assert config.leader is not None
            self._axes = _Leader(config.leader)
        self._period_s: Final = 1.0 / config.poll_hz
        self._lock = threading.Condition()
        self._values: dict[str, float] = {}
        self._intervenes = True
        self._seen_s = self._asked_s = -np.inf
        self._fault = ""
        self._presses: deque[Press] = deque()
        self._down: set[str] = set()
        self._ended = threading.Event()
        with self._theirs("connect"):
            self._device.connect()
        self._require_keys()
        self._thread = threading.Thread(target=self._poll, name="teleoperator", daemon=True)
        self._thread.start()
        with self._lock:
            came = self._lock.wait_for(lambda: self._fault or self._values, _FIRST_S)
        if self._fault or not came:
            self.close()
            raise HilDaftError(
                self._fault
                or f"{self.name}: nothing came within {_FIRST_S:.0f} s; is it plugged in?"
            )

    def read(self) -> Reading:
        """The newest report; never blocks, never raises."""
        with self._lock:
            values, seen_s, fault = self._values, self._seen_s, self._fault
            intervenes = self._intervenes
        if fault:
            return Reading(axes=np.zeros(len(AXES), dtype=np.float32), fault=fault)
        now = self._clock()
        if now - self._asked_s > _FORGET_S:
            self._axes.forget()
        self._asked_s = now
        axes, close, open_ = self._axes.read(values)
        if not intervenes:
            axes, close, open_ = np.zeros_like(axes), False, False
        return Reading(axes=axes, close=close, open=open_, age_s=now - seen_s)

    def presses(self) -> Iterator[Press]:
        """Success, failure or again, each once per press, until the teleoperator is closed or lost."""
        while True:
            with self._lock:
                while not (self._presses or self._fault or self._ended.is_set()):
                    self._lock.wait(_LOOK_S)
                if not self._presses:
                    return
                press = self._presses.popleft()
            yield press

    def close(self) -> None:
        """Ends the thread and lets the device go; may be called twice."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(timeout=2.0)
        # A thread that hangs in the driver keeps the device: disconnecting under its feet would crash.
        if not self._thread.is_alive():
            with self._theirs("disconnect"):
                self._device.disconnect()

    def _require_keys(self) -> None:
        with self._theirs("features"):
            features = dict(self._device.action_features)
        names = features.get("names")
        there = set(names) if names is not None else set(features)
        if missing := sorted(set(self._axes.keys) - there):
            msg = f"{self.name}: it has no {', '.join(missing)}; it has {', '.join(sorted(there))}"
            raise HilDaftError(msg)

    def _poll(self) -> None:
        while not self._ended.is_set():
            begun = self._clock()
            try:
                with self._theirs("get_action"):
                    action = self._device.get_action()
                values = {key: _number(self.name, action, key) for key in self._axes.keys}
                events = self._events()
            except HilDaftError as error:
                with self._lock:
                    self._fault = str(error)
                    self._lock.notify_all()
                return
            with self._lock:
                self._values, self._seen_s = values, self._clock()
                self._intervenes = events.get("is_intervention", True)
                self._take(events)
                self._lock.notify_all()
            self._ended.wait(max(0.0, begun + self._period_s - self._clock()))

    def _events(self) -> dict[str, bool]:
        read = getattr(self._device, "get_teleop_events", None)
        if read is None:
            return {}
        with self._theirs("get_teleop_events"):
            # LeRobot's keys are an enumeration of texts.
            return {str(getattr(key, "value", key)): bool(value) for key, value in read().items()}

    def _take(self, events: Mapping[str, bool]) -> None:
        down = {name for name, on in events.items() if on}
        for name, press in _PRESSES:
            if name in down and not self._down & {other for other, _ in _PRESSES}:
                self._presses.append(press)
                break
        self._down = down

    def _theirs(self, what: str):  # noqa: ANN202 - a context manager
        return theirs(f"{self.name}: its {what} failed", HilDaftError, "check its cable and power")


def _number(name: str, values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    try:
        number = float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        msg = f"{name}: {key!r} is {value!r}, a finite number is needed; check its cable and power"
        raise HilDaftError(msg)
    return number


def open_teleoperator(config: TeleoperatorConfig) -> LeRobotDevice:
    """The teleoperator of a config, through LeRobot, connected; raises HilDaftError."""
    return LeRobotDevice(config, make_teleoperator(config.teleoperator))
