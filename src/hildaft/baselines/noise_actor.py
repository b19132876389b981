"""DSRL's actor, which chooses the noise a frozen policy starts from, and what it takes to act and to look back."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hildaft.algo.actors import Actors, check_tensors
from hildaft.data.replay import Dims
from hildaft.models.consistency import ConsistencyHead, sample_primary_noise
from hildaft.types import ACTION_DIM

LOG_STD_RANGE = (-5.0, 1.0)
INVERSION_STEPS = 8
INVERSION_DAMPING = 1e-3
"""Added to the squared response: noise that hardly moves the action stays near 0."""
_PROBE = 1e-2


@final
class NoiseActor(nn.Module):
    """A Gaussian squashed by tanh, per state; it reads what the policy reads, and no words."""

    steers: Tensor

    def __init__(self, hidden: int, bound: float, dims: Dims) -> None:
        super().__init__()
        self.bound = bound
        self.trunk = nn.Sequential(
            nn.Linear(dims.h + dims.features + dims.proprio, hidden),
            nn.LayerNorm(hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.Tanh(),
            nn.Linear(hidden, 2 * ACTION_DIM),
        )
        # A small last layer starts with noise that hardly depends on the state.
        with torch.no_grad():
            for parameter in self.trunk[-1].parameters():
                parameter.mul_(0.1)
        self.register_buffer("steers", torch.tensor(False))
        """False until the first online update: the policy then acts from plain N(0, I)."""

    def sample(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "*b 7"], Float[Tensor, "*b"]]:
        """Noise in units of the bound, and its log-density, with gradient."""
        mean, log_std = self._distribution(h, features, proprio)
        drawn = sample_primary_noise(tuple(mean.shape[:-1]), generator)
        raw = mean + log_std.exp() * drawn
        # log(1 - tanh(x)^2), without the cancellation.
        squash = 2.0 * (0.6931471805599453 - raw - nn.functional.softplus(-2.0 * raw))
        normal = -0.5 * drawn.square() - log_std - 0.9189385332046727
        return raw.tanh(), (normal - squash).sum(dim=-1)

    def steer(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """The noise to act from, in units of K, for a sample of N(0, I)."""
        mean, log_std = self._distribution(h, features, proprio)
        chosen = self.bound * torch.tanh(mean + log_std.exp() * noise)
        return torch.where(self.steers, chosen, noise)

    def _distribution(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
    ) -> tuple[Float[Tensor, "*b 7"], Float[Tensor, "*b 7"]]:
        mean, log_std = self.trunk(torch.cat([h, features, proprio], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


@final
class SteeredActors(nn.Module):
    """`Actors` whose noise the noise actor chooses: what is published to a worker and acts there."""

    def __init__(self, actors: Actors, noise: NoiseActor) -> None:
        super().__init__()
        self.normalisation = actors.normalisation
        self.primary = actors.primary
        self.refinement = actors.refinement
        self.noise = noise
        # Not submodules: their parts already are.
        self.standardise, self.embed_standard = actors.standardise, actors.embed_standard
        self.embed_primary = actors.embed_primary

    def primary_action(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """An unclipped action from a sample of N(0, I)."""
        seen = self.standardise(h, features)
        chosen = self.noise.steer(*seen, proprio, noise)
        return self.primary.act(self.embed_standard(*seen, proprio), chosen)

    def refined_action(
        self,
        h: Float[Tensor, "*b d"],
        features: Float[Tensor, "*b f"],
        proprio: Float[Tensor, "*b p"],
        command: Int[Tensor, "*b"],
        noise: Float[Tensor, "*b 7"],
    ) -> Float[Tensor, "*b 7"]:
        """The same action: it has no ear for commands."""
        del command
        return self.primary_action(h, features, proprio, noise)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over what `Dsrl.weights` returned, in place.

        Raises:
            HilDaftError: a name is missing or unknown, or a shape differs; nothing is changed then.
        """
        own = self.state_dict()
        check_tensors("weights", own, weights)
        for name, tensor in own.items():
            tensor.copy_(weights[name])


@torch.no_grad()
def invert_noise(
    head: ConsistencyHead,
    state: Float[Tensor, "*b hidden"],
    action: Float[Tensor, "*b 7"],
    bound: float,
) -> Float[Tensor, "*b 7"]:
    """Noise within +-bound (units of K) from which the head acts as closely to `action` as it can.

    Damped Gauss-Newton from 0. Of several that lead to one action the smallest is found, which the environment cannot
    tell from the one that was drawn; for a human's action out of reach the result is the nearest in reach.
    """
    noise = torch.zeros_like(action)
    probes = _PROBE * torch.eye(ACTION_DIM, device=action.device)
    damping = INVERSION_DAMPING * torch.eye(ACTION_DIM, device=action.device)
    for _ in range(INVERSION_STEPS):
        now = head.act(state, noise)
        moved = head.act(state.unsqueeze(-2), noise.unsqueeze(-2) + probes)
        jacobian = (moved - now.unsqueeze(-2)).mT / _PROBE
        residual = (action - now).unsqueeze(-1)
        normal = jacobian.mT @ jacobian + damping
        step = torch.linalg.solve(normal, jacobian.mT @ residual).squeeze(-1)
        noise = (noise + step).clamp(-bound, bound)
    return noise
