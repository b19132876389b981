"""The refinement actor: where to move the noise, given the state and a refinement command."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hildaft.models.products import Linear
from hildaft.types import ACTION_DIM, HilDaftError


@dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """Shape of the refinement actor."""

    projection: int = 64
    """Common width each input is projected to (Sec. IV-A). Not in the paper."""

    hidden: int = 256
    """Width of the two hidden layers of the final MLP. Not in the paper."""

    mean_bound: float = 3.0
    """Bound of |mu| in units of K; unbounded means run out of range. Not in the paper."""

    def __post_init__(self) -> None:
        if self.projection < 1 or self.hidden < 1:
            msg = (
                f"refinement.projection={self.projection}, refinement.hidden={self.hidden}: "
                "both must be >= 1"
            )
            raise HilDaftError(msg)
        if self.mean_bound <= 0.0:
            msg = f"refinement.mean_bound={self.mean_bound}: must be > 0; use 3"
            raise HilDaftError(msg)


@final
class RefinementActor(nn.Module):
    """Features, proprioception and command, each projected by an MLP, concatenated, into an MLP.

    The final MLP's first layer is split into a state part and a command part (exact), so that
    several commands of one state share the former and the 27 commands are projected once for all
    rows.
    """

    commands: Tensor

    def __init__(
        self,
        config: RefinementConfig,
        features: int,
        proprio: int,
        command_table: Float[Tensor, "27 c"],
    ) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.projection, config.hidden
        self.features_in = _projection(features, width)
        self.proprio_in = _projection(proprio, width)
        self.command_in = _projection(command_table.shape[1], width)
        self.state_to_hidden = Linear(2 * width, hidden)
        self.command_to_hidden = Linear(width, hidden, bias=False)
        self.trunk = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.SiLU(),
            Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            Linear(hidden, ACTION_DIM),
        )
        # A small last layer starts every command near the primary mode.
        with torch.no_grad():
            for parameter in self.trunk[-1].parameters():
                parameter.mul_(0.1)
        # An asset both sides own, not a weight: it is neither trained nor published.
        self.register_buffer("commands", command_table.detach().clone(), persistent=False)

    def embed_state(
        self, features: Float[Tensor, "*b f"], proprio: Float[Tensor, "*b p"]
    ) -> Float[Tensor, "*b hidden"]:
        """The state's share of the final MLP's first layer, from standardised features."""
        parts = [self.features_in(features), self.proprio_in(proprio)]
        return self.state_to_hidden(torch.cat(parts, dim=-1))

    def mean(
        self, state: Float[Tensor, "*#b hidden"], command: Int[Tensor, "*#b"]
    ) -> Float[Tensor, "*b 7"]:
        """Mean mu in units of K, within +-mean_bound, for each row's command index.

        Paper: Eq. 7.
        """
        commands = self.command_to_hidden(self.command_in(self.commands))
        bound = self.config.mean_bound
        return bound * torch.tanh(self.trunk(state + F.embedding(command, commands)) / bound)


def _projection(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(Linear(inputs, width), nn.LayerNorm(width), nn.SiLU())
