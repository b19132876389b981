"""A person beside the robot, simulated: demonstrates, corrects, talks, and errs like one.

What a skilled person would do is told by a `Sight` of the robot's true state; this adds the hand, the reaction time
and the words.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float64

from hildaft.teleop.talk import command_from_displacement
from hildaft.types import (
    COMMAND_COUNT,
    NULL_COMMAND,
    Action,
    HilDaftError,
    RefinementCommand,
    Tweak,
)

TalkMode: TypeAlias = Literal["none", "right", "random", "opposite"]

_TALK_SHARE: Final = 0.3
"""A direction is named when it is at least this share of the largest."""
_GUIDED: Final = 5.0
"""Who talks all the way does so for moves longer than this many times the least move that has a name."""
_STRAY_STEPS: Final = 3
_STRAY_SHARE: Final = 0.4
_STRAY_M: Final = 0.0015
_GETS_ON: Final = 1.0
"""The person speaks when over these steps the end effector moved aside of the way a skilled hand would have gone,
or stayed behind on it, by more than this plus this share of that way. To be quicker is no error, and no other way is
one that left more than the last of these steps fewer to go."""


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """How the simulated person behaves. None of it is in the paper, save where a section is named."""

    noise: float = 0.1
    """Standard deviation of the hand's error at full speed, as a share of full scale."""
    rest_noise: float = 0.25
    """Share of that error left in slow, careful motion: a hand errs, axis by axis, in
    proportion to its speed."""
    noise_memory: float = 0.6
    """Correlation of the hand's error from one step to the next, in [0, 1)."""
    speed: float = 0.9
    """Largest share of full scale the person uses, in (0, 1]."""
    pause_rate: float = 0.03
    """Chance per demonstrated step that a pause of 1 to 3 steps begins."""
    button_steps: tuple[int, int] = (1, 3)
    """Fewest and most steps by which the gripper's button is pressed late in a demonstration; the arm goes on. Of a
    prompt person cloning makes 91 %, of this one 44 to 60 (docs/LOG.md). Who corrects is prompt."""
    reaction_steps: tuple[int, int] = (1, 2)
    """Fewest and most steps between noticing and acting."""
    burst_steps: tuple[int, int] = (5, 9)
    """Fewest and most steps of one correction (Sec. V-A speaks of short interventions)."""
    max_share: float = 0.4
    """Largest share of an episode's step limit that may be corrected, in [0, 1]; about 15 % of all steps come of it, as
    in the paper."""
    step_limit: int = 50
    """Steps of an episode (Sec. V-A)."""
    patience_steps: int = 6
    """Steps over which progress is judged."""
    stall_progress: float = 0.8
    """Intervenes when the steps still needed fell by less than this over `patience_steps`."""
    drift_steps: float = 3.0
    """Intervenes when the steps still needed are this far above their least so far."""
    catch_gripper: float = 0.7
    """Chance, each step, of catching a gripper mistake before it happens, in [0, 1]."""
    tweaks: bool = True
    """Whether the person corrects by hand."""
    talk: TalkMode = "none"
    """What the person says when something goes wrong: nothing, the right direction, a random one, or
    the opposite of the right one."""
    talk_always: bool = False
    """Whether the person talks all the way, not only when something goes wrong: the experiment on what words do. Near
    the goal of a move they fall silent."""
    talk_steps: int = 5
    """Most steps a command stays in force (J of eq. 12); taken back once it is done or has become wrong."""

    def __post_init__(self) -> None:
        for name in ("noise", "rest_noise", "pause_rate", "max_share", "catch_gripper"):
            _require(0.0 <= getattr(self, name) <= 1.0, name, getattr(self, name), "0 to 1")
        _require(0.0 <= self.noise_memory < 1.0, "noise_memory", self.noise_memory, "0 to below 1")
        _require(0.0 < self.speed <= 1.0, "speed", self.speed, "above 0, at most 1")
        for name in ("button_steps", "reaction_steps", "burst_steps"):
            low, high = getattr(self, name)
            _require(0 <= low <= high, name, (low, high), "0 <= fewest <= most")
        for name in ("step_limit", "patience_steps", "talk_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        modes = ("none", "right", "random", "opposite")
        _require(self.talk in modes, "talk", self.talk, ", ".join(modes))


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        msg = f"OperatorConfig.{name}={value!r}: {allowed} is allowed"
        raise HilDaftError(msg)


@runtime_checkable
class Sight(Protocol):
    """One look at the robot, by somebody who knows the task."""

    @property
    def remaining_steps(self) -> float:
        """Control steps still needed; falls as the task gets on."""
        ...

    @property
    def near_steps(self) -> float:
        """With no more steps needed than this, the policy is left alone."""
        ...

    @property
    def bungled(self) -> bool:
        """Whether something has gone wrong that the steps still needed do not show."""
        ...

    @property
    def resting_jaws(self) -> float:
        """The jaws' part of an action that leaves everything as it is."""
        ...

    @property
    def position_m(self) -> Float64[np.ndarray, "3"] | None:
        """Where the end effector is, base axes; None where that cannot be told."""
        ...

    @property
    def least_move_m(self) -> float:
        """A move shorter than this has no name."""
        ...

    def skilled_action(self, speed: float) -> Action:
        """What a skilled person would do now, at most at this share of full speed; base axes."""
        ...

    def skilled_move_m(self, steps: int) -> Float64[np.ndarray, "3"]:
        """Where that would take the end effector within so many steps; base axes."""
        ...

    def slips(self, policy_action: Action) -> bool:
        """Whether the jaws are about to err if the policy has its way."""
        ...


class Person:
    """Implements `types.Operator`, and demonstrates.

    Call `begin` at each episode start. Per step call `speak`, then `tweak` (or only the latter), or
    `demonstrate`; all of an episode's randomness comes from the seed given to `begin`.
    """

    def __init__(self, look: Callable[[], Sight], config: OperatorConfig | None = None) -> None:
        self._look = look
        self._config: Final = config or OperatorConfig()
        self.begin("", 0)

    def begin(self, task: str, seed: int) -> None:
        """Forgets the last episode; `task` is part of the seed."""
        self._rng = np.random.default_rng([seed, *task.encode()])
        self._error: Float64[np.ndarray, 6] = np.zeros(6)
        self._seen: Sight | None = None
        self._steps = self._human_steps = self._burst = self._pause = 0
        self._delay = -1
        self._button: int | None = None
        self._length = 0
        self._spoken: RefinementCommand = NULL_COMMAND
        self._spoken_left = 0
        self._places: deque[Float64[np.ndarray, 3]] = deque(maxlen=_STRAY_STEPS + 1)
        self._ways: deque[Float64[np.ndarray, 3]] = deque(maxlen=_STRAY_STEPS + 1)
        self._jaws_closed = False
        self._forget_progress()

    def _forget_progress(self) -> None:
        self._needed: deque[float] = deque(maxlen=self._config.patience_steps + 1)
        self._least = np.inf

    # Demonstrating.

    def demonstrate(self) -> Action:
        """The person's action for the state as it is now, faults included."""
        seen = self._look()
        config = self._config
        if self._pause == 0 and self._rng.random() < config.pause_rate:
            self._pause = int(self._rng.integers(1, 4))
        if self._pause > 0:
            self._pause -= 1
            still = np.zeros(7, dtype=np.float32)
            still[6] = seen.resting_jaws
            return still
        action = self._hand(seen)
        action[6] = self._pressed(float(action[6]), seen)
        return action

    def _pressed(self, wanted: float, seen: Sight) -> float:
        """The jaws' part of a demonstrated action: as wanted, once the button is pressed."""
        if (wanted > 0) == (seen.resting_jaws > 0):
            self._button = None
            return wanted
        if self._button is None:
            low, high = self._config.button_steps
            # A prompt person's randomness stays what it was: no draw where there is no choice.
            self._button = low if low == high else int(self._rng.integers(low, high + 1))
        self._button -= 1
        return wanted if self._button < 0 else seen.resting_jaws

    def _hand(self, seen: Sight) -> Action:
        """The skilled action at the person's speed plus the error of an unsteady hand."""
        config = self._config
        action = seen.skilled_action(config.speed)
        memory = config.noise_memory
        fresh = self._rng.normal(0.0, config.noise, 6)
        self._error = memory * self._error + np.sqrt(1.0 - memory**2) * fresh
        share = config.rest_noise + (1.0 - config.rest_noise) * np.abs(action[:6])
        action[:6] = np.clip(action[:6] + share * self._error, -1.0, 1.0)
        return action

    # Watching.

    def _observe(self) -> Sight:
        """Looks once per step and updates what is known about progress."""
        if self._seen is None:
            self._seen = self._look()
            needed = self._seen.remaining_steps
            self._needed.append(needed)
            self._least = min(self._least, needed)
            if self._config.talk != "none":
                self._follow(self._seen)
        return self._seen

    def _follow(self, seen: Sight) -> None:
        """Remembers where the end effector is, and where a skilled hand would take it in this step."""
        if seen.position_m is None:
            return
        closed = seen.resting_jaws > 0
        if self._jaws_closed != closed:
            # A grip or a release changes where to go; that is no error of the arm's.
            self._places.clear()
            self._ways.clear()
            self._jaws_closed = closed
        self._places.append(seen.position_m)
        self._ways.append(seen.skilled_move_m(1))

    def _is_wrong(self, seen: Sight) -> bool:
        """Whether the policy drifts, stalls, has bungled something or runs out of steps."""
        config, needed = self._config, self._needed[-1]
        full = len(self._needed) == config.patience_steps + 1
        stalls = full and self._needed[0] - needed < config.stall_progress
        drifts = needed - self._least > config.drift_steps
        late = full and needed > config.step_limit - self._steps
        return needed > seen.near_steps and (stalls or drifts or late or seen.bungled)

    def _strays(self) -> bool:
        """Whether the arm is not going where it should: what words mend soonest."""
        if len(self._places) <= _STRAY_STEPS or len(self._needed) <= _STRAY_STEPS:
            return False
        if self._needed[-1 - _STRAY_STEPS] - self._needed[-1] > _GETS_ON:
            return False
        way = np.sum([*self._ways][:_STRAY_STEPS], axis=0)
        far_m = float(np.linalg.norm(way))
        error = self._places[-1] - self._places[0] - way
        ahead = float(error @ way) / max(far_m, 1e-9)
        if ahead > 0.0:
            error = error - ahead * way / max(far_m, 1e-9)
        return float(np.linalg.norm(error)) > _STRAY_M + _STRAY_SHARE * far_m

    # Talking.

    def speak(self) -> RefinementCommand:
        """The command in force before this step's action; "[null]" for silence."""
        if self._config.talk == "none":
            return NULL_COMMAND
        seen = self._observe()
        errs = self._is_wrong(seen) or self._strays() or self._guides(seen)
        if self._spoken_left > 0 and self._is_outdated(seen):
            self._spoken_left = 0
        if self._spoken_left == 0 and self._burst == 0 and errs:
            self._spoken = self._choose_words(seen)
            self._spoken_left = self._config.talk_steps
        if self._spoken_left == 0:
            return NULL_COMMAND
        self._spoken_left -= 1
        return self._spoken

    def _is_outdated(self, seen: Sight) -> bool:
        """Whether the command in force is done or a part of it has become wrong; who talks nonsense stays with it."""
        if self._config.talk != "right":
            return False
        helps = np.array(self._spoken.signs) * seen.skilled_move_m(self._config.talk_steps)
        return bool(helps.min() < -seen.least_move_m or helps.max() < seen.least_move_m)

    def _guides(self, seen: Sight) -> bool:
        move = seen.skilled_move_m(self._config.talk_steps)
        return self._config.talk_always and float(np.abs(move).max()) > _GUIDED * seen.least_move_m

    def _choose_words(self, seen: Sight) -> RefinementCommand:
        if self._config.talk == "random":
            index = int(self._rng.integers(COMMAND_COUNT - 1))
            return RefinementCommand.from_index(index + (index >= NULL_COMMAND.index))
        move = seen.skilled_move_m(self._config.talk_steps)
        least = max(seen.least_move_m, _TALK_SHARE * float(np.abs(move).max()))
        words = command_from_displacement(move, least)
        return words.opposite if self._config.talk == "opposite" else words

    # Correcting.

    def tweak(self, policy_action: Action) -> Tweak | None:
        """The correction that replaces `policy_action` now, or None to let the policy act."""
        seen = self._observe()
        self._seen = None
        self._steps += 1
        if not self._config.tweaks:
            return None
        if self._burst == 0:
            self._notice(seen, policy_action)
        if self._burst == 0:
            return None
        self._burst -= 1
        self._human_steps += 1
        if self._burst == 0:
            self._forget_progress()
        return Tweak(action=self._hand(seen))

    def _notice(self, seen: Sight, policy_action: Action) -> None:
        """Starts a correction once the reaction time after noticing is over."""
        config = self._config
        if self._delay > 0:
            self._delay -= 1
        if self._delay < 0:
            length = int(self._rng.integers(config.burst_steps[0], config.burst_steps[1] + 1))
            if self._human_steps + length > config.max_share * config.step_limit:
                return
            if seen.slips(policy_action) and self._rng.random() < config.catch_gripper:
                self._delay = 0
            # Words come first: the hand waits until they had their time.
            elif self._spoken_left == 0 and self._is_wrong(seen):
                low, high = config.reaction_steps
                self._delay = int(self._rng.integers(low, high + 1))
            self._length = length
        if self._delay == 0:
            self._burst, self._delay = self._length, -1
