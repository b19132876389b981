"""The simulated person beside the bolt bench. It sees the true state (`view`), never the policy's observation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from hildaft.teleop.oracle import oracle_action, oracle_displacement_m, remaining_steps
from hildaft.teleop.person import OperatorConfig, Person
from hildaft.types import Action, ActionScale, SceneState


@final
class SimulatedOperator(Person):
    """A person who does what the oracle of the bolt bench would."""

    def __init__(
        self,
        view: Callable[[], SceneState],
        scale: ActionScale,
        config: OperatorConfig | None = None,
    ) -> None:
        super().__init__(lambda: _BoltSight(view(), scale), config)


@final
@dataclass(frozen=True, slots=True)
class _BoltSight:
    """A `Sight` of the bolt bench."""

    state: SceneState
    scale: ActionScale
    near_steps: float = 3.0
    least_move_m: float = 0.001

    @property
    def remaining_steps(self) -> float:
        """By the oracle."""
        return remaining_steps(self.state, self.scale)

    @property
    def position_m(self) -> Float64[np.ndarray, "3"]:
        """As it is."""
        return self.state.ee_position_m

    @property
    def bungled(self) -> bool:
        """Closed on nothing."""
        state = self.state
        empty = state.jaw_closed and not state.bolt_held and state.jaw_opening_m < 0.008
        return empty and not self._wants_closed

    @property
    def resting_jaws(self) -> float:
        """As they are."""
        return 1.0 if self.state.jaw_closed else -1.0

    @property
    def _wants_closed(self) -> bool:
        return bool(oracle_action(self.state, self.scale)[6] > 0)

    def skilled_action(self, speed: float) -> Action:
        """The oracle's."""
        return oracle_action(self.state, self.scale, speed)

    def skilled_move_m(self, steps: int) -> Float64[np.ndarray, "3"]:
        """The oracle's."""
        return oracle_displacement_m(self.state, self.scale, steps)

    def slips(self, policy_action: Action) -> bool:
        """Whether the jaws are about to drop the bolt, close on nothing, or miss the moment to close or open."""
        state, wanted = self.state, self._wants_closed
        asked = bool(policy_action[6] > 0)
        drops = state.bolt_held and state.jaw_closed and wanted and not asked
        snaps = not state.jaw_closed and asked and not wanted
        misses = not state.jaw_closed and wanted and not asked
        clings = state.bolt_held and state.jaw_closed and asked and not wanted
        return drops or snaps or misses or clings
