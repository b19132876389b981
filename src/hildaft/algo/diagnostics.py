"""Does the policy listen? Measures of the refinement mode on held-out states."""

import torch
from torch import Tensor

from hildaft.algo.actors import Actors
from hildaft.data.replay import States
from hildaft.models.consistency import sample_primary_noise
from hildaft.types import NULL_COMMAND, ActionScale, RefinementCommand

OBEYED_MM = 0.05
"""A commanded axis counts as obeyed from this displacement per step."""

SPREAD_SAMPLES = 16
"""Noise samples per state for the spread."""

_SINGLE_AXIS = tuple(
    (
        axis,
        sign,
        RefinementCommand(
            (sign if axis == 0 else 0, sign if axis == 1 else 0, sign if axis == 2 else 0)
        ),
    )
    for axis in range(3)
    for sign in (1, -1)
)


@torch.no_grad()
def measure_listening(
    actors: Actors, states: States, scale: ActionScale, *, bypass_null: bool
) -> dict[str, float]:
    """Obedience, size, null drift and spread of unclipped actions.

    Compared actions share their noise.

    - `obedience`: share of (state, single-axis command) pairs that move the commanded axis the
      commanded way by more than OBEYED_MM, relative to no command.
    - `size_mm`: the mean of that displacement per step.
    - `null_drift_mm`: mean distance between "[null]" through the refinement actor and the primary
      mode.
    - `spread_mm`: standard deviation of the primary mode's translation over the noise, mean over
      axes.
    """
    rows = len(states.h)
    # Its own generator: measuring must not change training.
    generator = torch.Generator(states.h.device).manual_seed(0)
    noise = sample_primary_noise((rows,), generator)

    def refined_mm(command: RefinementCommand) -> Tensor:
        index = torch.full((rows,), command.index, device=states.h.device)
        action = actors.refined_action(states.h, states.features, states.proprio, index, noise)
        return 1000.0 * scale.translation_m * action[:, :3]

    def primary_mm(noise: Tensor) -> Tensor:
        action = actors.primary_action(states.h, states.features, states.proprio, noise)
        return 1000.0 * scale.translation_m * action[:, :3]

    primary, null = primary_mm(noise), refined_mm(NULL_COMMAND)
    silent = primary if bypass_null else null
    moved = torch.stack(
        [sign * (refined_mm(command) - silent)[:, axis] for axis, sign, command in _SINGLE_AXIS]
    )
    samples = torch.stack(
        [primary_mm(sample_primary_noise((rows,), generator)) for _ in range(SPREAD_SAMPLES)]
    )
    return {
        "obedience": (moved > OBEYED_MM).float().mean().item(),
        "size_mm": moved.mean().item(),
        "null_drift_mm": (null - primary).norm(dim=-1).mean().item(),
        "spread_mm": samples.std(dim=0).mean().item(),
    }
