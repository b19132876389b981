"""Plain behaviour cloning: eq. 5 on the demonstrations, nothing else, no robot time."""

from dataclasses import replace
from typing import Final

from hildaft.algo.config import HILDAFT
from hildaft.algo.training import TrainingConfig

METHOD: Final = replace(
    HILDAFT,
    warmup_q_weight=0.0,
    online_q_weight=0.0,
    bc_data="demos",
    advantage_temperature=0.0,
    tied_noise=0.0,
    joint_weight=0.0,
    refinement_actor=False,
)
"""Our primary actor, optimiser and averaging, with eq. 5 as its only loss.

Without a refinement actor nobody steers by the noise, so X1, which ties noise and action, is off.
"""

_OTHERS: Final = TrainingConfig()
TRAINING: Final = TrainingConfig(
    warmup_updates=_OTHERS.warmup_updates + _OTHERS.online_transitions, online_transitions=0
)
"""As many gradient steps as the others make in both stages, all of them offline."""
