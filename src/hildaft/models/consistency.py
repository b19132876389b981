"""The primary actor: a consistency head that turns noise into an action in one step."""

import copy
import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hildaft.models.products import Linear, linear
from hildaft.types import ACTION_DIM, HilDaftError

TIME_CHANNELS = 16
"""Width of the noise level's embedding, as in ConRFT."""


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """Shape of the head and of its noise schedule."""

    noise_scale: float = 80.0
    """K of eq. 1, the largest sigma; action units. Not in the paper; 80 as in ConRFT."""

    sigma_min: float = 0.002
    """Noise level at which the head is the identity; action units. From Karras et al."""

    sigma_data: float = 0.5
    """Standard deviation of actions the parametrisation expects. From Karras et al."""

    rho: float = 7.0
    """Curvature of the noise schedule. From Karras et al."""

    scales: int = 40
    """Number of noise levels between noise_scale and sigma_min. From ConRFT."""

    hidden: int = 256
    """Width of the two hidden layers. From ConRFT."""

    reads_features: bool = True
    """Whether the image features stand beside h in the input. Differs from the paper (primary_reads_features):
    the embedded backbone's h alone resolves about 3 mm where its image encoder resolves 1 mm; off means h alone."""

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.noise_scale:
            msg = (
                f"primary.noise_scale={self.noise_scale}: must exceed sigma_min="
                f"{self.sigma_min} > 0; use 80 (ConRFT)"
            )
            raise HilDaftError(msg)
        if self.sigma_data <= 0.0 or self.rho <= 0.0:
            msg = f"primary.sigma_data={self.sigma_data}, primary.rho={self.rho}: both must be > 0"
            raise HilDaftError(msg)
        if self.scales < 2 or self.hidden < 1:
            msg = (
                f"primary.scales={self.scales}, primary.hidden={self.hidden}: "
                "scales must be >= 2 and hidden >= 1"
            )
            raise HilDaftError(msg)


def sample_primary_noise(
    shape: tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "*b 7"]:
    """Draws w/K ~ N(0, I), one row per entry of `shape`; noise is carried in units of K everywhere.

    Paper: Eq. 1.
    """
    return torch.randn(*shape, ACTION_DIM, generator=generator, device=generator.device)


def steer_noise(
    noise: Float[Tensor, "*#b 7"], mean: Float[Tensor, "*#b 7"]
) -> Float[Tensor, "*b 7"]:
    """Moves a sample of eq. 1 to the refinement actor's mean; both in units of K.

    Paper: Eq. 2.
    """
    return noise + mean


@final
class ConsistencyHead(nn.Module):
    """MLP in Karras' parametrisation over (h, proprioception, noisy action, noise level).

    The first layer is split into a state part and a noise part, so that many actions of one state
    share the state part; the result is that of one linear layer over the concatenation. Actions are
    not clipped here: clipping would stop their gradient, so it happens where an action meets a
    robot or a critic.
    """

    sigmas: Tensor
    frequencies: Tensor
    top_phase: Tensor

    def __init__(self, config: ConsistencyConfig, h: int, proprio: int) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.state_in = Linear(h + proprio, hidden)
        self.noise_in = Linear(ACTION_DIM, hidden, bias=False)
        self.time = nn.Sequential(
            Linear(TIME_CHANNELS, 2 * TIME_CHANNELS),
            nn.Tanh(),
            Linear(2 * TIME_CHANNELS, hidden, bias=False),
        )
        self.trunk = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.SiLU(),
            Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            Linear(hidden, ACTION_DIM),
        )
        half = torch.arange(TIME_CHANNELS // 2, dtype=torch.float32)
        frequencies = torch.exp(-math.log(10_000.0) * half / (TIME_CHANNELS // 2 - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        sigmas = karras_sigmas(config)
        self.register_buffer("sigmas", sigmas, persistent=False)
        # What depends on the noise level alone is computed once for the one that acts, sigma = K.
        self.register_buffer("top_phase", self._phase(sigmas[:1]), persistent=False)
        c_skip, c_out, c_in = karras_coefficients(sigmas[:1].double(), config)
        self._top_coefficients = c_skip.item(), c_out.item(), c_in.item()

    def embed_state(
        self, h: Float[Tensor, "*b d"], proprio: Float[Tensor, "*b p"]
    ) -> Float[Tensor, "*b hidden"]:
        """The state's share of the first layer, from standardised h."""
        return self.state_in(torch.cat([h, proprio], dim=-1))

    def act(
        self, state: Float[Tensor, "*#b hidden"], noise: Float[Tensor, "*#b 7"]
    ) -> Float[Tensor, "*b 7"]:
        """One step from noise at sigma = K (`noise` in units of K) to an unclipped action."""
        c_skip, c_out, c_in = self._top_coefficients
        scale = self.config.noise_scale
        time = self.time(self.top_phase).squeeze(0)
        hidden = state + linear(noise * (scale * c_in), self.noise_in.weight, time)
        return (scale * c_skip) * noise + c_out * self.trunk(hidden)

    def denoise(
        self,
        state: Float[Tensor, "*#b hidden"],
        noisy_action: Float[Tensor, "*#b 7"],
        sigma: Float[Tensor, "*#s"],
    ) -> Float[Tensor, "*b 7"]:
        """The action a noisy one stems from, at any noise level; the identity at sigma_min."""
        c_skip, c_out, c_in = karras_coefficients(sigma.unsqueeze(-1), self.config)
        hidden = state + self.noise_in(c_in * noisy_action) + self.time(self._phase(sigma))
        return c_skip * noisy_action + c_out * self.trunk(hidden)

    def _phase(self, sigma: Float[Tensor, "*s"]) -> Float[Tensor, "*s channels"]:
        phase = (250.0 * sigma.log()).unsqueeze(-1) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def held(head: ConsistencyHead) -> ConsistencyHead:
    """The same weights without gradients; they follow every later step of `head`."""
    twin = copy.deepcopy(head).requires_grad_(requires_grad=False)
    for own, followed in zip(twin.parameters(), head.parameters(), strict=True):
        own.data = followed.data
    return twin


def karras_sigmas(config: ConsistencyConfig) -> Float[Tensor, " scales"]:
    """Noise levels from noise_scale down to sigma_min (Karras et al., eq. 5); action units."""
    ramp = torch.linspace(0.0, 1.0, config.scales, dtype=torch.float64)
    high, low = config.noise_scale ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    return ((high + ramp * (low - high)) ** config.rho).float()


def karras_coefficients(
    sigma: Float[Tensor, "*s"], config: ConsistencyConfig
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """c_skip, c_out and c_in of consistency models (Song et al., appendix C)."""
    data, offset = config.sigma_data, sigma - config.sigma_min
    scale = (sigma.square() + data**2).rsqrt()
    return data**2 / (offset.square() + data**2), offset * data * scale, scale
