"""Ours without the dual actor: Table I's ablation and Fig. 5's single-actor curve."""

from dataclasses import replace
from typing import Final

from hildaft.algo.config import HILDAFT

METHOD: Final = replace(HILDAFT, refinement_actor=False, tied_noise=0.0, joint_weight=0.0)
"""Per-task critics, eq. 6, 15 and 16 as in ours; no refinement actor, no talk-and-tweak set.

X1 and X3 exist for the refinement actor and are off with it. Interventions are demonstrations to it, as in ours.
"""
