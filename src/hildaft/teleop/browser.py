"""A person at the console: their hand, their words and their keys, as the robot's loop sees them.

The hand is on the page, or on a device at the robot's machine beside it. The page's messages arrive on one thread,
the loop asks on another. Whatever the page does or fails to do, the hand counts as gone when nothing was heard of it
for `SeatConfig.silence_s`: the robot then stands still for a moment and the policy gathers speed again, or the robot
stays held, as configured.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float32

from hildaft.teleop.device import DeviceOperator
from hildaft.teleop.talk import WINDOW
from hildaft.types import (
    ACTION_DIM,
    NULL_COMMAND,
    Action,
    HilDaftError,
    Mark,
    Operator,
    RefinementCommand,
    Tweak,
)

Control: TypeAlias = Literal["policy", "human", "helper", "hold"]
"""Who moves the robot: the policy, the person, the operator who stands in for them, or nobody."""

_MOTION_DIM: Final = 6
_DEVICE_LOOK_S: Final = 0.01
"""While the robot is held, a device is looked at so often."""
_SHOW_S: Final = 1.0 / 15.0
"""A held robot is shown so often: no step paces its pictures, and people may move around it."""


@dataclass(frozen=True, kw_only=True)
class SeatConfig:
    """How the robot passes between the person's hand and the policy. None of it is in the paper."""

    silence_s: float = 0.25
    """Time without a sign of the hand after which it counts as gone."""
    hold_steps: int = 2
    """Steps the robot stands still once the hand is gone; a hand that comes back within them was never away."""
    ramp_steps: int = 2
    """Steps over which whoever takes over reaches full speed."""
    after: Literal["hand-back", "hold"] = "hand-back"
    """What follows: the policy goes on, or the robot stays held until the person hands it back."""
    talk_steps: int = WINDOW
    """Steps a command stays in force once said (J of eq. 12)."""

    def __post_init__(self) -> None:
        if not 0.0 < self.silence_s <= 1.0:
            msg = f"SeatConfig.silence_s={self.silence_s}: above 0, at most 1 s is allowed"
            raise HilDaftError(msg)
        for name in ("hold_steps", "ramp_steps", "talk_steps"):
            if getattr(self, name) < 1:
                msg = f"SeatConfig.{name}={getattr(self, name)}: 1 or more is allowed"
                raise HilDaftError(msg)
        if self.after not in ("hand-back", "hold"):
            msg = f"SeatConfig.after={self.after!r}: hand-back, hold are allowed"
            raise HilDaftError(msg)


@final
class BrowserOperator:
    """Implements `types.Operator` and `types.OperatorKeys`; also demonstrates.

    Methods named by what the person does (`drive`, `release`, `say`, `mark`, ...) may be called from any
    thread; those of the two protocols belong to the robot's loop. All actions are in base axes.

    Args:
        jaws_closed: whether the jaws are commanded closed now; read when a hand takes over.
        helper: an operator who stands in while no hand is on the robot, or None.
        device: a device in the person's hand, beside the page, or None. It holds the robot by rules of its own.
        look: called while the robot is held, to keep the picture fresh.
        stop: set by the stop key; when others set it, a robot that is held is released to end its episode.
        stop_reset: called by the stop key, which nobody asks for while the robot drives to its start pose.
        clock: seconds, monotonic; replaceable in tests.
    """

    def __init__(
        self,
        jaws_closed: Callable[[], bool],
        config: SeatConfig | None = None,
        *,
        helper: Operator | None = None,
        device: DeviceOperator | None = None,
        look: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
        stop_reset: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config: Final = config or SeatConfig()
        self._jaws_closed, self._helper, self._look, self._clock = jaws_closed, helper, look, clock
        self.device: Final = device
        """The device in the person's hand."""
        self._stop, self._stop_reset = stop or threading.Event(), stop_reset
        self._changed = threading.Condition()
        self._motion: Float32[np.ndarray, 6] = np.zeros(_MOTION_DIM, dtype=np.float32)
        self._held, self._driven_s, self._heard_s = False, -np.inf, -np.inf
        self._closes: bool | None = None
        self._mark: Mark | None = None
        self._paused = self._demonstrating = False
        self._command, self._talk_left, self._keeps_talking = NULL_COMMAND, 0, False
        self.asks = False
        """Whether the person is asked if the task is done."""
        self.aside = False
        """Whether the person has no part in what happens now."""
        self.helper_on = True
        """Whether the stand-in may act."""
        self._forget_hand()

    def _forget_hand(self) -> None:
        self._hand_steps = self._still_left = self._ramp_left = 0
        self._control: Control = "policy"

    # What the person does.

    def drive(self, motion: Float32[np.ndarray, "6"], closes: bool | None = None) -> None:
        """A sign of the hand: motion in [-1, 1] per axis, base axes; `closes` commands the jaws, None leaves them.

        Raises:
            HilDaftError: the motion is not finite.
        """
        if not np.isfinite(motion).all():
            msg = f"motion={motion.tolist()}: six finite numbers in -1 to 1 are allowed"
            raise HilDaftError(msg)
        with self._changed:
            self._motion = np.clip(motion, -1.0, 1.0).astype(np.float32)
            self._held, self._driven_s = True, self._clock()
            self._heard_s = self._driven_s
            if closes is not None:
                self._closes = closes
            self._changed.notify_all()

    def grip(self, closes: bool) -> None:
        """Commands the jaws; counts as one step of the hand."""
        with self._changed:
            self._closes = closes
            self._changed.notify_all()

    def release(self) -> None:
        """The hand lets go, or the link to it is lost: motion, grip and words end."""
        with self._changed:
            self._held = False
            self._motion = np.zeros(_MOTION_DIM, dtype=np.float32)
            self._closes = None
            self._keeps_talking = False
            self._changed.notify_all()

    def say(self, command: RefinementCommand, *, keep: bool = False) -> None:
        """Words, no sign of the hand; in force for `talk_steps`, or with `keep` until others or the link is silent."""
        with self._changed:
            self._command, self._keeps_talking = command, keep and not command.is_null
            self._talk_left = 0 if command.is_null else self._config.talk_steps
            self._heard_s = self._clock()

    def alive(self) -> None:
        """A sign that the page is still there; none of the hand."""
        with self._changed:
            self._heard_s = self._clock()

    def mark(self, mark: Mark) -> None:
        """Says how the episode under way ends; the newest mark counts, but nothing takes back a stop."""
        with self._changed:
            if self._mark != "stop":
                self._mark = mark
            if mark == "stop":
                self._stop.set()
                self._stop_reset()
            self._changed.notify_all()

    def confirm(self, seconds: float) -> bool:
        """Asks the person whether the task is done, the robot standing still; silence is a yes.

        "Failure" answers "not yet", "success" yes; "again" and "stop" are left for the loop. For the loop.
        """
        end = self._clock() + seconds
        with self._changed:
            if self._mark not in (None, "success"):
                # Said before the question: no answer to it.
                return False
            self.asks = True
            try:
                while self._mark is None and not self._stop.is_set():
                    left_s = end - self._clock()
                    if left_s <= 0:
                        return True
                    self._changed.wait(left_s)
                answer = self._mark
                self._mark = None if answer in ("success", "failure") else answer
                return answer == "success"
            finally:
                self.asks = False

    def pause(self, paused: bool) -> None:
        """Holds the robot until told otherwise."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def hand_back(self) -> None:
        """Ends a hold that followed the hand (`SeatConfig.after` = hold), or a device that was lost."""
        if self.device is not None:
            self.device.excuse()
        with self._changed:
            if self._control == "hold":
                self._still_left, self._hand_steps = 0, 0
                self._ramp_left = self._config.ramp_steps
                self._control = "policy"
            self._changed.notify_all()

    # What is shown.

    @property
    def paused(self) -> bool:
        """Whether the person has paused the robot."""
        return self._paused

    @property
    def stopped(self) -> bool:
        """Whether the run is to end."""
        return self._stop.is_set()

    @property
    def control(self) -> Control:
        """Who moves the robot now."""
        with self._changed:
            if self._paused or self.asks or self._mark == "stop":
                return "hold"
            if self._demonstrating:
                return "human" if self._has_hand() or self._device_has_hand else "hold"
            return self._control

    @property
    def command(self) -> RefinementCommand:
        """The command in force."""
        with self._changed:
            return self._command_now()

    # The loop's side.

    def begin(self, task: str, seed: int) -> None:
        """An episode in which the policy acts; words and marks of the one before are forgotten."""
        if self._helper is not None:
            self._helper.begin(task, seed)
        self._begin(demonstrating=False)

    def begin_demonstration(self, task: str, seed: int) -> None:
        """An episode in which the person acts throughout: without a hand the robot stands and time with it."""
        del task, seed
        self._begin(demonstrating=True)

    @property
    def _device_has_hand(self) -> bool:
        return self.device is not None and self.device.hand == "human"

    def _begin(self, *, demonstrating: bool) -> None:
        if self.device is not None:
            self.device.begin("", 0)
        with self._changed:
            self._demonstrating, self.aside = demonstrating, False
            self._command, self._talk_left, self._keeps_talking = NULL_COMMAND, 0, False
            self._mark = "stop" if self._mark == "stop" else None
            self._closes = None
            self._forget_hand()

    def stand_aside(self, control: Control) -> None:
        """The person has no part in what comes; says who moves the robot instead."""
        with self._changed:
            self._demonstrating, self.aside = False, True
            self._forget_hand()
            self._control = control

    def take_mark(self) -> Mark | None:
        """The mark given since the last call."""
        with self._changed:
            mark, self._mark = self._mark, None
            return mark

    def holds(self) -> bool:
        """Whether the robot must stand still: paused, held after a hand or a lost device, or nobody demonstrates."""
        hand = "policy" if self.device is None else self.device.look()
        with self._changed:
            if self._paused:
                # What happened meanwhile is looked at once before the policy acts on it.
                self._still_left = max(1, self._still_left)
            stays = self._control == "hold" and self._config.after == "hold"
            waits = self._demonstrating or (stays and self._still_left == 0)
            driven = hand == "human" or self._has_hand()
            held = self._paused or ((waits or hand == "held") and not driven)
            if held and hand == "held":
                self._control = "hold"
            if held and self._stop.is_set():
                self._mark = "stop"
            return held

    def idle(self) -> None:
        """Shows a fresh picture and waits for the person; the look is part of the time."""
        end = self._clock() + _SHOW_S
        if self._look is not None:
            self._look()
        with self._changed:
            if self.device is None:
                self._changed.wait(max(0.0, end - self._clock()))
            # A device reports to nobody: it has to be asked.
            while self.device and self.device.look() != "human" and self._clock() < end:
                if self._changed.wait(_DEVICE_LOOK_S):
                    return

    def speak(self) -> RefinementCommand:
        """The command in force before this step's action."""
        helped = NULL_COMMAND
        if self._helper is not None and self.helper_on:
            helped = self._helper.speak()
        with self._changed:
            command = self._command_now()
            self._talk_left = max(0, self._talk_left - 1)
        return helped if command.is_null else command

    def tweak(self, policy_action: Action) -> Tweak | None:
        """The hand's action, a step of the hand-over, or None to let the policy act."""
        # Asked in every step: the stand-in keeps count of them.
        helped = None if self._helper is None else self._helper.tweak(policy_action)
        driven = None if self.device is None else self.device.take()
        with self._changed:
            if driven is not None and (driven.is_correction or not self._has_hand()):
                # The device stands still after a push by itself; the policy then gathers speed.
                self._hand_steps = self._still_left = 0
                self._ramp_left = self._config.ramp_steps
                self._control = "human" if driven.is_correction else "hold"
                return driven
            if self._has_hand():
                return Tweak(self._hand_action())
            if self._hand_steps > 0:
                self._hand_steps, self._still_left = 0, self._config.hold_steps
                self._ramp_left = self._config.ramp_steps
            if self._still_left > 0:
                self._still_left -= 1
                self._control = "hold"
                return Tweak(self._with_jaws(np.zeros(_MOTION_DIM, np.float32)), False)
            if helped is not None and self.helper_on:
                self._control = "helper"
                self._ramp_left = 0
                return helped
            self._control = "policy"
            if self._ramp_left == 0:
                return None
            share = 1.0 - self._ramp_left / (self._config.ramp_steps + 1)
            self._ramp_left -= 1
            slowed = policy_action.astype(np.float32)
            slowed[:_MOTION_DIM] *= np.float32(share)
            return Tweak(slowed, False)

    def demonstrate(self) -> Action:
        """The hand's action of a demonstration; `holds` has waited for a hand."""
        driven = None if self.device is None else self.device.take()
        with self._changed:
            if driven is not None and (driven.is_correction or not self._has_hand()):
                return driven.action
            if self._has_hand():
                return self._hand_action()
            self._hand_steps = 0
            return self._with_jaws(np.zeros(_MOTION_DIM, np.float32))

    def _has_hand(self) -> bool:
        return self._is_driven() or self._closes is not None

    def _is_driven(self) -> bool:
        return self._held and self._clock() - self._driven_s < self._config.silence_s

    def _hand_action(self) -> Action:
        """Full speed is reached over the first steps, in the hand's own direction from the first on."""
        self._hand_steps += 1
        self._control = "human"
        self._ramp_left = self._still_left = 0
        share = min(1.0, self._hand_steps / self._config.ramp_steps)
        motion = self._motion * np.float32(share if self._is_driven() else 0.0)
        action = self._with_jaws(motion)
        if self._closes is not None:
            action[_MOTION_DIM] = 1.0 if self._closes else -1.0
            self._closes = None
        return action

    def _with_jaws(self, motion: Float32[np.ndarray, "6"]) -> Action:
        action = np.zeros(ACTION_DIM, dtype=np.float32)
        action[:_MOTION_DIM] = motion
        action[_MOTION_DIM] = 1.0 if self._jaws_closed() else -1.0
        return action

    def _command_now(self) -> RefinementCommand:
        there = self._clock() - self._heard_s < self._config.silence_s
        if self._talk_left > 0 or (self._keeps_talking and there):
            return self._command
        return NULL_COMMAND
