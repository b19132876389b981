"""Standardisation of the frozen encoders' outputs, fitted once on the demonstrations."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

STD_FLOOR_SHARE = 0.05
"""A dimension's standard deviation counts as at least this share of the median dimension's."""

STANDARD_LIMIT = 5.0
"""Standard deviations a standardised value is limited to. Cameras that the demonstrations never saw, as robot B's, give
values beyond a hundred (docs/LOG.md)."""


@final
class Normalisation(nn.Module):
    """Per-dimension mean and standard deviation of h and of the image features."""

    h_mean: Tensor
    h_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, h: int, features: int) -> None:
        super().__init__()
        self.register_buffer("h_mean", torch.zeros(h))
        self.register_buffer("h_std", torch.ones(h))
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_std", torch.ones(features))

    def fit(self, h: Float[Tensor, "b d"], features: Float[Tensor, "b f"]) -> None:
        """Takes the statistics from rows of data; dimensions that hardly vary are not blown up."""
        for name, values in (("h", h), ("feature", features)):
            std, mean = torch.std_mean(values, dim=0, correction=0)
            floor = max(STD_FLOOR_SHARE * float(std.median()), 1e-6)
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_std").copy_(std.clamp(min=floor))

    def standardise_h(self, h: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Zero mean and unit variance over the demonstrations, within STANDARD_LIMIT."""
        return _standardise(h, self.h_mean, self.h_std)

    def standardise_features(self, features: Float[Tensor, "*b f"]) -> Float[Tensor, "*b f"]:
        """Zero mean and unit variance over the demonstrations, within STANDARD_LIMIT."""
        return _standardise(features, self.feature_mean, self.feature_std)


def _standardise(
    values: Float[Tensor, "*b d"], mean: Float[Tensor, " d"], std: Float[Tensor, " d"]
) -> Float[Tensor, "*b d"]:
    return ((values - mean) / std).clamp(-STANDARD_LIMIT, STANDARD_LIMIT)
