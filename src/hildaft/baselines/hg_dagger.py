"""HG-DAgger (Kelly et al., 2019): cloning of demonstrations and of what the human did when gating the policy."""

from typing import Final

from hildaft.algo.config import DualActorConfig
from hildaft.baselines import cloning

METHOD: Final[DualActorConfig] = cloning.METHOD
"""Eq. 5 on the demonstrations before, and on demonstrations and interventions together while the robot moves.

The aggregated set is the replay's demonstrations, to which Algorithm 1 adds every intervention; the policy's own
steps are never cloned. The human decides when to take over; the original's doubt threshold, a safety metric that
no decision of the learner depends on, is left out.
"""
