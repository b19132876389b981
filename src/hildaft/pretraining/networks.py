"""The networks in training: each with the heads that only pretraining uses, and its losses."""

from collections.abc import Mapping
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.encoders import ImageEncoderConfig, KeyPointEncoder
from hildaft.models.octo import OctoTokens
from hildaft.models.octo_tiny import OctoTiny
from hildaft.pretraining.batches import SKETCH_DIM, Batch
from hildaft.pretraining.dataset import CAMERAS, KEY_POINTS
from hildaft.pretraining.targets import TARGET_DIM
from hildaft.types import ACTION_DIM

LOSS_WEIGHTS: Final = {
    "geometry": 3.0,
    "skill": 1.0,
    "points": 5.0,
    "cells": 0.05,
    "sketch": 0.1,
}
"""Share of each loss in the sum."""

_BETA: Final = 0.1
_FINE: Final = 0.01
_ROUGH: Final = 0.05
"""Where the key-point loss turns from square to linear, in half images: the image encoder reads to a fraction of a
pixel, patch tokens do not."""


@final
class OctoPretraining(nn.Module):
    """octo-tiny with linear readings of h, a small skill head on h, and key points from its patch tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.model = OctoTiny()
        width = self.model.dim
        self.read_geometry = nn.Linear(width, TARGET_DIM)
        self.read_sketch = nn.Linear(width, SKETCH_DIM)
        self.skill = nn.Sequential(nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, ACTION_DIM))
        self.cells = nn.ModuleDict({c: nn.Linear(width, 3 * len(KEY_POINTS)) for c in CAMERAS})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Geometry, skill, sketch and key-point losses."""
        tokens = self._tokens(batch)
        losses = self.h_losses(
            tokens.h, batch.geometry, batch.sketch, batch.action, batch.has_action
        )
        cameras = {name: patches[:, 0] for name, patches in tokens.cameras.items()}
        return losses | patch_losses(self.cells, cameras, batch)

    def h_losses(
        self,
        h: Float[Tensor, "b d"],
        geometry: Float[Tensor, "b 77"],
        sketch: Float[Tensor, "b 16"],
        action: Float[Tensor, "b 7"],
        has_action: Bool[Tensor, " b"],
    ) -> dict[str, Tensor]:
        """The losses of what is read off h."""
        wrong = F.smooth_l1_loss(self.skill(h), action, beta=_BETA, reduction="none").mean(1)
        rows = has_action.float()
        return {
            "geometry": F.smooth_l1_loss(self.read_geometry(h), geometry, beta=_BETA),
            "skill": (wrong * rows).sum() / rows.sum().clamp(min=1.0),
            "sketch": F.mse_loss(self.read_sketch(h), sketch),
        }

    def geometry(self, batch: Batch) -> Float[Tensor, "b 77"]:
        """The geometry as read from h."""
        return self.read_geometry(self._tokens(batch).h)

    def _tokens(self, batch: Batch) -> OctoTokens:
        words = self.model.words(batch.words)
        return self.model.tokens(batch.pixels, words, batch.word_mask, batch.reading)


@final
class EncoderPretraining(nn.Module):
    """The image encoder: its reading of the geometry, and its named key points."""

    def __init__(self) -> None:
        super().__init__()
        config = ImageEncoderConfig(cameras=tuple(CAMERAS.items()), read=TARGET_DIM)
        self.model = KeyPointEncoder(config)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Geometry and key-point losses."""
        trunk, seen = self.model.trunk(batch.pixels)
        predicted = self.model.features(trunk, self.model.named(seen))
        points, cells = [], []
        count = self.model.config.named_points
        for index, camera in enumerate(CAMERAS):
            wanted, inside = batch.points[:, index], batch.inside[:, index]
            points.append(position_loss(seen[camera].position[:, :count], wanted, inside, _FINE))
            cells.append(cell_loss(seen[camera].logits[:, :count], wanted, inside))
        return {
            "geometry": F.smooth_l1_loss(predicted, batch.geometry, beta=_BETA),
            "points": torch.stack(points).mean(),
            "cells": torch.stack(cells).mean(),
        }

    def geometry(self, batch: Batch) -> Float[Tensor, "b 77"]:
        """The geometry as the encoder reads it."""
        trunk, seen = self.model.trunk(batch.pixels)
        return self.model.features(trunk, self.model.named(seen))


def patch_losses(
    cells: nn.ModuleDict, cameras: Mapping[str, Float[Tensor, "b 64 d"]], batch: Batch
) -> dict[str, Tensor]:
    """Key-point losses of a backbone, read off its patch tokens by one linear layer per camera."""
    points, votes, side = [], [], 8
    for index, camera in enumerate(CAMERAS):
        out = cells[camera](cameras[camera]).unflatten(2, (len(KEY_POINTS), 3))
        logits = out[..., 0].transpose(1, 2)
        centre = grid_centres(side, logits)
        spread = centre[None, :, None] + torch.tanh(out[..., 1:]) * (2.0 / side)
        position = torch.einsum("bkc,bckx->bkx", logits.softmax(-1), spread)
        wanted, seen = batch.points[:, index], batch.inside[:, index]
        points.append(position_loss(position, wanted, seen, _ROUGH))
        votes.append(cell_loss(logits.unflatten(2, (side, side)), wanted, seen))
    return {"points": torch.stack(points).mean(), "cells": torch.stack(votes).mean()}


def grid_centres(side: int, like: Tensor) -> Float[Tensor, "c 2"]:
    """Centres of the cells of a square grid over [-1, 1], row by row, (right, down)."""
    centres = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side * 2 - 1
    return torch.stack([centres.repeat(side), centres.repeat_interleave(side)], -1)


def position_loss(
    position: Float[Tensor, "b k 2"],
    wanted: Float[Tensor, "b k 2"],
    seen: Bool[Tensor, "b k"],
    beta: float,
) -> Float[Tensor, ""]:
    """Smooth L1 over the key points that the camera sees."""
    each = F.smooth_l1_loss(position, wanted, beta=beta, reduction="none").mean(-1)
    return (each * seen).sum() / seen.sum().clamp(min=1)


def cell_loss(
    logits: Float[Tensor, "b k g g"], wanted: Float[Tensor, "b k 2"], seen: Bool[Tensor, "b k"]
) -> Float[Tensor, ""]:
    """Cross-entropy over the cells, the point's weight shared by its four nearest ones (bilinear)."""
    side = logits.shape[-1]
    place = ((wanted.clamp(-1, 1) + 1) / 2 * side - 0.5).clamp(0, side - 1)
    low = place.floor().clamp(max=side - 2)
    share = place - low
    column, row = low.long().unbind(-1)
    log_probability = logits.flatten(2).log_softmax(-1)
    total = torch.zeros_like(share[..., 0])
    for right in (0, 1):
        for down in (0, 1):
            weight_x = share[..., 0] if right else 1 - share[..., 0]
            weight_y = share[..., 1] if down else 1 - share[..., 1]
            cell = (row + down) * side + column + right
            chosen = log_probability.gather(2, cell[..., None])[..., 0]
            total = total - weight_x * weight_y * chosen
    return (total * seen).sum() / seen.sum().clamp(min=1)
