"""Second stage of octo-tiny: one more block, trained at the readout token alone, on cached tokens.

Finding things in the images takes the stems and the first blocks and nearly all the time of a step; reading them out
into h is what the first stage leaves under-trained. The tokens before the last block are computed once, and a step then
costs a twentieth. The added block starts as the identity.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.octo_layers import Block
from hildaft.models.octo_tiny import OctoTiny
from hildaft.pretraining.batches import SKETCH_DIM, Batch, BatchSet
from hildaft.pretraining.networks import LOSS_WEIGHTS, OctoPretraining
from hildaft.pretraining.targets import TARGET_DIM
from hildaft.types import ACTION_DIM, HilDaftError

_PROJECTION_SEED: Final = 21


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """How long and how fast the added block learns."""

    steps: int = 6_500
    """Gradient steps; 0 leaves the stage and its block out."""
    batch: int = 64
    """Frames per step."""
    learning_rate: float = 1e-3
    """Peak rate; 200 steps of warm-up, then a cosine to 2 %."""
    sketch_weight: float = 0.5
    """Share of the words' loss, heavier than in the first stage: after that a linear reading of h told three unseen
    sentences apart in 92 % of the held-out frames only."""
    weight_decay: float = 1e-2
    """Decoupled decay of AdamW; every frame is seen many times."""
    workers: int = 2
    """Threads that fill the cache."""
    seed: int = 0
    """Order of the frames and draw of the instructions."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("workers", 1)):
            if getattr(self, name) < least:
                msg = f"readout {name}={getattr(self, name)}: {least} or more is allowed"
                raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class TokenCache:
    """Tokens of every frame under one instruction each, and what h has to tell."""

    tokens: Float16[Tensor, "n t d"]
    """Before the added block."""
    keys: Bool[Tensor, "n l"]
    """Which language tokens are real."""
    geometry: Float[Tensor, "n 77"]
    """As in `Batch`, like the next three."""
    sketch: Float[Tensor, "n 16"]
    """`word_sketch` of the instruction."""
    action: Float[Tensor, "n 7"]
    has_action: Bool[Tensor, " n"]


def add_block(network: OctoPretraining) -> OctoPretraining:
    """The same network with one more transformer block, which changes nothing yet."""
    old = network.model
    grown = OctoPretraining()
    grown.model = OctoTiny(replace(old.config, layers=old.config.layers + 1), old.reader)
    grown.load_state_dict(network.state_dict(), strict=False)
    block = cast(Block, grown.model.octo.blocks[-1])
    for layer in (block.out, block.mlp_out):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return grown


def train_readout(network: OctoPretraining, batches: BatchSet, config: ReadoutConfig) -> None:
    """Trains the last block, the last norm and the heads on h in place; the rest is untouched."""
    cache = fill_cache(network, batches, config)
    octo = network.model.octo
    parts = (octo.blocks[-1], octo.norm, network.read_geometry, network.read_sketch, network.skill)
    parameters = [p for part in parts for p in part.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    rng = np.random.default_rng([config.seed, 4])
    for step in range(config.steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        rate = config.learning_rate * (0.02 + 0.98 * cosine) * min(1.0, (step + 1) / 200)
        optimiser.param_groups[0]["lr"] = rate
        rows = torch.from_numpy(rng.integers(0, len(cache.tokens), config.batch))
        loss = _loss(network, cache, rows, config.sketch_weight)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def fill_cache(network: OctoPretraining, batches: BatchSet, config: ReadoutConfig) -> TokenCache:
    """Runs everything before the last block over all frames, each under an instruction of its own."""
    chunk, total = 50, len(batches)
    with torch.no_grad():
        shape = tokens_of(network, batches.at(np.arange(1), np.random.default_rng(0))).shape[1:]
    # Filled in place: small results kept between large passing ones would hold the heap open, 20 GB of it.
    cache = TokenCache(
        tokens=torch.empty(total, *shape, dtype=torch.float16),
        keys=torch.empty(total, network.model.config.language_tokens, dtype=torch.bool),
        geometry=torch.empty(total, TARGET_DIM),
        sketch=torch.empty(total, SKETCH_DIM),
        action=torch.empty(total, ACTION_DIM),
        has_action=torch.empty(total, dtype=torch.bool),
    )

    def fill(first: int) -> None:
        rows = slice(first, min(first + chunk, total))
        rng = np.random.default_rng([config.seed, 3, first])
        with torch.no_grad():
            batch = batches.at(np.arange(rows.start, rows.stop), rng)
            cache.tokens[rows] = tokens_of(network, batch)
            cache.sketch[rows] = word_sketch(network.model, batch)
        cache.keys[rows], cache.geometry[rows] = batch.word_mask, batch.geometry
        cache.action[rows], cache.has_action[rows] = batch.action, batch.has_action

    with ThreadPoolExecutor(config.workers) as pool:
        for _ in pool.map(fill, range(0, total, chunk)):
            pass
    return cache


def tokens_of(network: OctoPretraining, batch: Batch) -> Float16[Tensor, "b t d"]:
    """What the added block is given."""
    return network.model.trunk(batch.pixels, batch.words, batch.word_mask, batch.reading).half()


def word_sketch(model: OctoTiny, batch: Batch) -> Float[Tensor, "b 16"]:
    """A fixed random projection of the summed word embeddings.

    Being linear in what the language tokens hold, it can be learned for all words at once, those never met included;
    the first stage's sketch has to be learned word by word.
    """
    width = model.config.language_dim
    rng = np.random.default_rng(_PROJECTION_SEED)
    projection = rng.standard_normal((width, SKETCH_DIM)) / math.sqrt(width)
    bag = (model.words(batch.words) * batch.word_mask[..., None]).sum(1)
    count = batch.word_mask.sum(1, keepdim=True)
    return (bag / count.sqrt()) @ torch.from_numpy(projection).float()


def _loss(
    network: OctoPretraining, cache: TokenCache, rows: Tensor, sketch_weight: float
) -> Float[Tensor, ""]:
    tokens = cache.tokens[rows].float()
    rest = tokens.shape[1] - cache.keys.shape[1]
    keys = F.pad(cache.keys[rows], (0, rest), value=True)
    bias = torch.zeros(keys.shape).masked_fill(~keys, torch.finfo(torch.float32).min)
    h = network.model.octo.read(tokens, bias[:, None, None])
    losses = network.h_losses(
        h, cache.geometry[rows], cache.sketch[rows], cache.action[rows], cache.has_action[rows]
    )
    weights = LOSS_WEIGHTS | {"sketch": sketch_weight}
    return torch.stack([weights[name] * value for name, value in losses.items()]).sum()
