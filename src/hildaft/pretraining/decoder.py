"""Second stage of the image encoder: its decoder alone, on cached trunk outputs.

The trunk costs nearly all the time of a step, while the decoder is what is left under-trained; caching the trunk's
outputs gives the decoder a hundred times more steps for the same time.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hildaft.pretraining.batches import BatchSet
from hildaft.pretraining.networks import EncoderPretraining
from hildaft.pretraining.targets import TARGET_DIM
from hildaft.types import HilDaftError


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """How long and how fast the decoder learns."""

    steps: int = 12_000
    """Gradient steps."""
    batch: int = 256
    """Frames per step."""
    learning_rate: float = 2e-3
    """Start rate; a cosine takes it to 2 %."""
    weight_decay: float = 1e-2
    """Decoupled decay of AdamW; the decoder sees every frame many times."""
    seed: int = 0
    """Order of the frames."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1:
            msg = f"decoder steps={self.steps}, batch={self.batch}: 0 or more, 1 or more is allowed"
            raise HilDaftError(msg)


def train_decoder(network: EncoderPretraining, batches: BatchSet, config: DecoderConfig) -> None:
    """Trains decoder and reading in place, the trunk untouched."""
    model = network.model
    trunk, named, geometry = trunk_outputs(network, batches)
    parameters = [*model.decoder.parameters(), *model.reading.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    rng = np.random.default_rng([config.seed, 2])
    for step in range(config.steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimiser.param_groups[0]["lr"] = config.learning_rate * (0.02 + 0.98 * cosine)
        rows = torch.from_numpy(rng.integers(0, len(trunk), config.batch))
        read = model.features(trunk[rows], named[rows])
        loss = F.smooth_l1_loss(read, geometry[rows], beta=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def trunk_outputs(
    network: EncoderPretraining, batches: BatchSet
) -> tuple[Float[Tensor, "n trunk"], Float[Tensor, "n named"], Float[Tensor, "n 77"]]:
    """Trunk vector, named key points and geometry targets of every frame."""
    model, chunk, total = network.model, 50, len(batches)
    # Filled in place: small results kept between the large arrays of every pass would fragment the heap.
    trunks = torch.empty(total, len(model.config.cameras) * model.trunk_dim)
    named = torch.empty(total, model.named_dim)
    geometry = torch.empty(total, TARGET_DIM)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for first in range(0, total, chunk):
            rows = slice(first, min(first + chunk, total))
            batch = batches.at(np.arange(rows.start, rows.stop), rng)
            trunks[rows], points = model.trunk(batch.pixels)
            named[rows] = model.named(points)
            geometry[rows] = batch.geometry
    return trunks, named, geometry
