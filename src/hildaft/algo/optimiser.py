"""The optimiser of every network."""

import torch
from torch import nn


def fused_adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Fused Adam whose moments exist from the start.

    So the names in its state never depend on whether a first update has happened.
    """
    optimiser = torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
    for parameter in module.parameters():
        optimiser.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimiser
