"""A scripted person for environments other than the bolt bench: the user's law, with a person's faults.

The law says what a skilled person would do now and how many steps are left. Noise, reaction time, bursts and talk
are those of the simulated operator of the bolt bench.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from hildaft.teleop.simulated_operator import OperatorConfig
from hildaft.teleop.talk import command_from_displacement
from hildaft.types import (
    COMMAND_COUNT,
    NULL_COMMAND,
    Action,
    ActionScale,
    HilDaftError,
    RefinementCommand,
    Tweak,
)

_TALK_SHARE: Final = 0.3
"""A direction is named when it is at least this share of the largest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What a skilled person would do now."""

    action: Action
    """7 numbers in [-1, 1], base axes, at full speed."""
    remaining_steps: float
    """Control steps this law would still need; it must fall as the task gets on."""


@final
class ScriptedOperator:
    """Implements `types.Operator`, and demonstrates, by a law of the true state.

    It corrects when the steps still needed stall or rise, or when the jaws are about to do the contrary of what the
    law wants, and for as long as `OperatorConfig` says.
    """

    def __init__(
        self,
        advise: Callable[[], Advice],
        scale: ActionScale,
        config: OperatorConfig | None = None,
    ) -> None:
        self._advise, self._scale = advise, scale
        self._config: Final = config or OperatorConfig()
        self.begin("", 0)

    def begin(self, task: str, seed: int) -> None:
        """Forgets the last episode; `task` is part of the seed."""
        self._rng = np.random.default_rng([seed, *task.encode()])
        self._error: Float64[np.ndarray, 6] = np.zeros(6)
        self._advice: Advice | None = None
        self._steps = self._human_steps = self._burst = self._pause = 0
        self._delay = -1
        self._length = 0
        self._spoken: RefinementCommand = NULL_COMMAND
        self._spoken_left = 0
        self._forget_progress()

    def _forget_progress(self) -> None:
        self._needed: deque[float] = deque(maxlen=self._config.patience_steps + 1)
        self._least = np.inf

    def demonstrate(self) -> Action:
        """The person's action for the state as it is now, faults included."""
        advice = self._ask()
        if self._pause == 0 and self._rng.random() < self._config.pause_rate:
            self._pause = int(self._rng.integers(1, 4))
        if self._pause > 0:
            self._pause -= 1
            still = np.zeros(7, dtype=np.float32)
            still[6] = advice.action[6]
            return still
        return self._hand(advice)

    def _ask(self) -> Advice:
        advice = self._advise()
        if advice.action.shape != (7,) or not np.isfinite(advice.action).all():
            msg = (
                f"operator: its law gave the action {advice.action!r}; 7 finite numbers are allowed"
            )
            raise HilDaftError(msg)
        return advice

    def _hand(self, advice: Advice) -> Action:
        config, memory = self._config, self._config.noise_memory
        action = np.clip(advice.action, -config.speed, config.speed).astype(np.float32)
        action[6] = advice.action[6]
        self._error = memory * self._error + np.sqrt(1.0 - memory**2) * self._rng.normal(
            0.0, config.noise, 6
        )
        share = config.rest_noise + (1.0 - config.rest_noise) * np.abs(action[:6])
        action[:6] = np.clip(action[:6] + share * self._error, -1.0, 1.0)
        return action

    def _look(self) -> Advice:
        if self._advice is None:
            self._advice = self._ask()
            self._needed.append(self._advice.remaining_steps)
            self._least = min(self._least, self._advice.remaining_steps)
        return self._advice

    def _is_wrong(self) -> bool:
        config, needed = self._config, self._needed[-1]
        full = len(self._needed) == config.patience_steps + 1
        stalls = full and self._needed[0] - needed < config.stall_progress
        drifts = needed - self._least > config.drift_steps
        late = full and needed > config.step_limit - self._steps
        return needed > 1.0 and (stalls or drifts or late)

    def speak(self) -> RefinementCommand:
        """The command in force before this step's action; "[null]" for silence."""
        if self._config.talk == "none":
            return NULL_COMMAND
        advice = self._look()
        if self._spoken_left == 0 and self._burst == 0 and self._is_wrong():
            self._spoken = self._choose_words(advice)
            self._spoken_left = self._config.talk_steps
        if self._spoken_left == 0:
            return NULL_COMMAND
        self._spoken_left -= 1
        return self._spoken

    def _choose_words(self, advice: Advice) -> RefinementCommand:
        if self._config.talk == "random":
            index = int(self._rng.integers(COMMAND_COUNT - 1))
            return RefinementCommand.from_index(index + (index >= NULL_COMMAND.index))
        move = advice.action[:3].astype(np.float64) * self._scale.translation_m
        least = max(1e-4, _TALK_SHARE * float(np.abs(move).max()))
        words = command_from_displacement(move, least)
        return words.opposite if self._config.talk == "opposite" else words

    def tweak(self, policy_action: Action) -> Tweak | None:
        """The correction that replaces `policy_action` now, or None to let the policy act."""
        advice = self._look()
        self._advice = None
        self._steps += 1
        if not self._config.tweaks:
            return None
        if self._burst == 0:
            self._notice(advice, policy_action)
        if self._burst == 0:
            return None
        self._burst -= 1
        self._human_steps += 1
        if self._burst == 0:
            self._forget_progress()
        return Tweak(action=self._hand(advice))

    def _notice(self, advice: Advice, policy_action: Action) -> None:
        """Starts a correction once the reaction time after noticing is over."""
        config = self._config
        self._delay = max(self._delay - 1, 0) if self._delay >= 0 else -1
        if self._delay < 0:
            length = int(self._rng.integers(config.burst_steps[0], config.burst_steps[1] + 1))
            if self._human_steps + length > config.max_share * config.step_limit:
                return
            slips = bool(advice.action[6] > 0) != bool(policy_action[6] > 0)
            if slips and self._rng.random() < config.catch_gripper:
                self._delay = 0
            elif self._spoken_left == 0 and self._is_wrong():
                low, high = config.reaction_steps
                self._delay = int(self._rng.integers(low, high + 1))
            self._length = length
        if self._delay == 0:
            self._burst, self._delay = self._length, -1
