"""A scripted person for environments other than the bolt bench, by the user's law.

The law says what a skilled person would do now and how many steps are left. Noise, reaction time, bursts and talk
are those of the simulated operator of the bolt bench.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from hildaft.teleop.person import OperatorConfig, Person
from hildaft.types import Action, ActionScale, HilDaftError


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What a skilled person would do now."""

    action: Action
    """7 numbers in [-1, 1], base axes, at full speed."""
    remaining_steps: float
    """Control steps this law would still need; it must fall as the task gets on."""


@final
class ScriptedOperator(Person):
    """A person who does what a law of the true state says.

    It corrects when the steps still needed stall or rise, or when the jaws are about to do the contrary of what the
    law wants, and for as long as `OperatorConfig` says.
    """

    def __init__(
        self,
        advise: Callable[[], Advice],
        scale: ActionScale,
        config: OperatorConfig | None = None,
    ) -> None:
        super().__init__(lambda: _LawSight(_checked(advise()), scale), config)


def _checked(advice: Advice) -> Advice:
    if advice.action.shape != (7,) or not np.isfinite(advice.action).all():
        msg = f"operator: its law gave the action {advice.action!r}; 7 finite numbers are allowed"
        raise HilDaftError(msg)
    return advice


@final
@dataclass(frozen=True, slots=True)
class _LawSight:
    """A `Sight` through a law."""

    advice: Advice
    scale: ActionScale
    near_steps: float = 1.0
    least_move_m: float = 1e-4
    bungled: bool = False
    position_m: None = None

    @property
    def remaining_steps(self) -> float:
        """By the law."""
        return self.advice.remaining_steps

    @property
    def resting_jaws(self) -> float:
        """As the law has them: their state is not known here."""
        return float(self.advice.action[6])

    def skilled_action(self, speed: float) -> Action:
        """The law's, clipped."""
        action = np.clip(self.advice.action, -speed, speed).astype(np.float32)
        action[6] = self.advice.action[6]
        return action

    def skilled_move_m(self, steps: int) -> Float64[np.ndarray, "3"]:
        """One step of it: the law sees no further."""
        del steps
        return self.advice.action[:3].astype(np.float64) * self.scale.translation_m

    def slips(self, policy_action: Action) -> bool:
        """Whether the policy's jaws do the contrary of the law's."""
        return bool(self.advice.action[6] > 0) != bool(policy_action[6] > 0)
