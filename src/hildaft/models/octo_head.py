"""Octo's own action head: diffusion over a chunk of actions, conditioned on the readout.

The actors of this project do not use it; it is here so that a published Octo can be run as its authors ship it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.octo_layers import NORM_EPS
from hildaft.models.products import Linear
from hildaft.types import HilDaftError


@dataclass(frozen=True, kw_only=True)
class OctoHeadConfig:
    """Shape of the diffusion head; the defaults are those of octo-small and octo-base."""

    width: int = 384
    """Width of the embedding, the mean of the readout tokens."""
    horizon: int = 4
    """Actions per chunk."""
    action_dim: int = 7
    """Dimensions of an action."""
    time_dim: int = 32
    """Width of the step's Fourier features (even)."""
    hidden: int = 256
    """Width of the residual blocks."""
    blocks: int = 3
    """Residual blocks."""
    steps: int = 20
    """Diffusion steps."""
    max_action: float = 5.0
    """Samples are clipped to this, in normalised action units."""
    layer_norm: bool = True
    """LayerNorm at the entrance of each block."""


@final
class OctoHead(nn.Module):
    """Predicts the noise in a chunk of actions, and samples chunks by undoing it (DDPM)."""

    def __init__(self, config: OctoHeadConfig) -> None:
        super().__init__()
        self.config = config
        flat = config.horizon * config.action_dim
        self.frequencies = nn.Parameter(torch.randn(config.time_dim // 2) * 0.2)
        self.time_in = Linear(config.time_dim, 2 * config.time_dim)
        self.time_out = Linear(2 * config.time_dim, config.time_dim)
        self.first = Linear(config.time_dim + config.width + flat, config.hidden)
        self.blocks = nn.ModuleList(
            ResidualBlock(config.hidden, layer_norm=config.layer_norm) for _ in range(config.blocks)
        )
        self.last = Linear(config.hidden, flat)

    def forward(
        self,
        embedding: Float[Tensor, "*b d"],
        noisy: Float[Tensor, "*b a"],
        step: Int[Tensor, "*b 1"],
    ) -> Float[Tensor, "*b a"]:
        """The noise in a flattened chunk (horizon-major, normalised action units) at a diffusion step."""
        angle = 2 * math.pi * step.to(embedding.dtype) * self.frequencies
        time = torch.cat([angle.cos(), angle.sin()], -1)
        time = self.time_out(F.silu(self.time_in(time)))
        x = self.first(torch.cat([time, embedding, noisy], -1))
        for block in self.blocks:
            x = block(x)
        return self.last(F.silu(x))

    def sample(
        self,
        embedding: Float[Tensor, "b d"],
        start: Float[Tensor, "b a"],
        noise: Float[Tensor, "n b a"],
        action_dim: int | None = None,
    ) -> Float[Tensor, "b h k"]:
        """Chunks of normalised actions from given Gaussian noise.

        Args:
            embedding: mean readout token of the last step of the window.
            start: the sample before the first step.
            noise: what is added at each step, first step first; the last is not added.
            action_dim: dimensions the robot has, where fewer than the head's: the others then hold noise as they did
                in training.
        """
        config = self.config
        betas = noise_schedule(config.steps, embedding.dtype).to(embedding.device)
        alphas = 1 - betas
        alpha_hats = alphas.cumprod(0)
        used = torch.arange(config.horizon * config.action_dim, device=start.device)
        used = used % config.action_dim < (action_dim or config.action_dim)
        x = start
        for step in reversed(range(config.steps)):
            at = torch.full((len(x), 1), step, device=x.device)
            predicted = self(embedding, x, at)
            x = x - (1 - alphas[step]) / (1 - alpha_hats[step]).sqrt() * predicted
            x = x / alphas[step].sqrt()
            z = noise[config.steps - 1 - step]
            if step > 0:
                x = x + betas[step].sqrt() * z
            x = x.clamp(-config.max_action, config.max_action)
            x = torch.where(used, x, (1 - alpha_hats[step]).sqrt() * z)
        return x.unflatten(-1, (config.horizon, config.action_dim))


@final
class ResidualBlock(nn.Module):
    """Pre-norm MLP block, four times as wide inside."""

    def __init__(self, width: int, *, layer_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS) if layer_norm else nn.Identity()
        self.inner = Linear(width, 4 * width)
        self.outer = Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Adds to x what the block makes of it."""
        return x + self.outer(F.silu(self.inner(self.norm(x))))


def noise_schedule(steps: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, " n"]:
    """Betas of the cosine schedule (offset 0.008), at most 0.999."""
    at = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_hats = ((at + 0.008) / 1.008 * math.pi / 2).cos().square()
    betas = 1 - alpha_hats[1:] / alpha_hats[:-1]
    return betas.clamp(0, 0.999).to(dtype)


def unnormalise_action(
    action: Float[np.ndarray, "*b k"],
    statistics: Mapping[str, Any],
    kind: Literal["normal", "bounds"] = "normal",
) -> Float[np.ndarray, "*b m"]:
    """Normalised actions in a data set's own units, by its entry in dataset_statistics.json.

    `normal`: action * std + mean; `bounds`: from [-1, 1] to [p01, p99]; both only where `mask` is true. Dimensions the
    data set does not have are cut off. Raises HilDaftError where a statistic is missing or of another length.
    """
    names = ("mean", "std") if kind == "normal" else ("p01", "p99")
    try:
        low, high = (np.asarray(statistics[name], np.float64) for name in names)
        mask = np.asarray(statistics.get("mask", np.ones(len(low), bool)), bool)
        kept = action[..., : len(mask)].astype(np.float64)
        scaled = kept * high + low if kind == "normal" else (kept + 1) * (high - low) / 2 + low
        return np.where(mask, scaled, kept).astype(action.dtype)
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            f"dataset_statistics: {' and '.join(names)} of equal length are needed to "
            f"un-normalise by {kind!r} ({' '.join(str(error).split())}); pick another data set's"
        )
        raise HilDaftError(msg) from error
