"""HIL-ConRFT (Chen et al., 2025) on several tasks: one critic and one set of buffers for all, ConRFT's constants."""

from dataclasses import replace
from typing import Final

from hildaft.algo.config import HILDAFT
from hildaft.algo.training import TrainingConfig

METHOD: Final = replace(
    HILDAFT,
    discount=0.98,
    primary_learning_rate=3e-4,
    primary_average=0.0,
    warmup_bc_weight=1.0,
    warmup_q_weight=0.1,
    online_bc_weight=0.1,
    online_q_weight=1.0,
    bc_form="karras",
    bc_data="all",
    advantage_temperature=0.0,
    tied_noise=0.0,
    reweight_tasks=False,
    target_clip=False,
    calql_actions=10,
    calql_floor_uniform=True,
    refinement_actor=False,
    joint_weight=0.0,
    to_rollouts=True,
)
"""Denoising at all noise levels on every row, the policy's failures too; Q weighs ten times BC online; interventions
enter both buffers. To be run with `pool_tasks`, which makes it flat.
"""

TRAINING: Final = TrainingConfig(batch_size=256, critic_updates=2)
"""128 demonstrations and 128 rollouts per batch of all tasks, two critic updates per actor update."""
