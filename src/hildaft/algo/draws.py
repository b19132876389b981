"""The random numbers of the updates."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hildaft.algo.crew import Crew
from hildaft.models.consistency import sample_primary_noise


@dataclass(frozen=True)
class Draws:
    """Draws for the whole batch from one generator, and keeps this process's share of its rows."""

    generator: torch.Generator
    crew: Crew

    def noise(self, shape: Sequence[int], rows: int = 1) -> Tensor:
        """Start noise of the primary actor for every place of `shape`, whose axis `rows` is the batch's rows."""
        return self.crew.draw(lambda s: sample_primary_noise(s, self.generator), shape, rows)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """From [0, 1)."""
        device = self.generator.device
        return self.crew.draw(
            lambda s: torch.rand(*s, generator=self.generator, device=device), shape
        )

    def integers(self, below: int, shape: Sequence[int]) -> Tensor:
        """From 0 to `below` - 1."""
        device = self.generator.device
        return self.crew.draw(
            lambda s: torch.randint(below, s, generator=self.generator, device=device), shape
        )
