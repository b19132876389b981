"""The small frozen image encoder and the embedding table of the refinement commands.

Critics and the refinement actor read image features, not h. Pooling a feature map would lose where
things are, so the encoder reads key points off its maps: where each peaks and how sharply.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.backbone import (
    WEIGHTS_FOLDER,
    camera_image,
    content_hash,
    json_record,
    load_frozen,
)
from hildaft.models.words import words_of
from hildaft.types import HilDaftError


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """Shape of the image encoder."""

    cameras: tuple[tuple[str, int], ...] = (("head", 256), ("wrist", 128))
    """Cameras it reads, each with the side in px at which it does: 128 or 256."""
    stem_channels: int = 8
    """Channels at 128 px of a camera that is read at 256."""
    channels: tuple[int, int, int, int] = (16, 32, 32, 48)
    """Channels at 64, 32, 16 and 8 px."""
    points: int = 24
    """Key points per camera."""
    named_points: int = 6
    """The first of them, tied to landmarks in pretraining, read once more beside the decoder's output."""
    coarse_channels: int = 12
    """Channels of the 8x8 map that goes to the decoder whole."""
    hidden: int = 256
    """Width of the decoder."""
    blocks: int = 3
    """Gated blocks of the decoder."""
    read: int = 77
    """Width of the features, the geometry in numbers: `pretraining.targets` names them."""

    def __post_init__(self) -> None:
        if not 0 <= self.named_points <= self.points:
            msg = (
                f"image encoder named_points={self.named_points}: 0 to points={self.points} allowed"
            )
            raise HilDaftError(msg)
        if not self.cameras:
            msg = "image encoder cameras=(): at least one camera is allowed; name the robot's"
            raise HilDaftError(msg)
        for name, side in self.cameras:
            if side not in (128, 256):
                msg = f"image encoder cameras: {name} at {side} px: 128 or 256 is allowed"
                raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class KeyPoints:
    """What one camera's key-point maps say."""

    logits: Float[Tensor, "b p g g"]
    """Unnormalised log-probability of the point over the cells of the map."""
    position: Float[Tensor, "b p 2"]
    """Expected x (right) and y (down) in [-1, 1] over the image."""
    sharpness: Float[Tensor, "b p 1"]
    """Sum of squared probabilities: 1 for a single cell, near 0 for a flat map."""


@final
class CameraTrunk(nn.Module):
    """One camera: down to 8x8, back up to 64x64 key-point maps, so that each peak knows its surroundings."""

    def __init__(self, config: ImageEncoderConfig, side: int) -> None:
        super().__init__()
        c64, c32, c16, c8 = config.channels
        c128 = config.stem_channels
        self.to_128 = nn.Conv2d(3, c128, 5, stride=2, padding=2) if side == 256 else None
        self.to_64 = nn.Conv2d(c128 if self.to_128 else 3, c64, 5, stride=2, padding=2)
        self.to_32 = nn.Conv2d(c64, c32, 3, stride=2, padding=1)
        self.at_32 = nn.Conv2d(c32, c32, 3, padding=1)
        self.to_16 = nn.Conv2d(c32, c16, 3, stride=2, padding=1)
        self.at_16 = nn.Conv2d(c16, c16, 3, padding=1)
        self.to_8 = nn.Conv2d(c16, c8, 3, stride=2, padding=1)
        self.at_8 = nn.Conv2d(c8, c8, 3, padding=1)
        self.up_16 = nn.Conv2d(c8, c16, 1)
        self.mix_16 = nn.Conv2d(c16, c16, 3, padding=1)
        self.up_32 = nn.Conv2d(c16, c32, 1)
        self.mix_32 = nn.Conv2d(c32, c32, 3, padding=1)
        self.up_64 = nn.Conv2d(c32, c64, 1)
        self.mix_64 = nn.Conv2d(c64, c64, 3, padding=1)
        self.maps = nn.Conv2d(c64, config.points, 1)
        self.coarse_map = nn.Conv2d(c8, config.coarse_channels, 1)

    def forward(
        self, image: Float[Tensor, "b 3 s s"]
    ) -> tuple[KeyPoints, Float[Tensor, "b coarse"]]:
        """Key points and the flattened coarse map; pixels are in [-1, 1]."""
        at_128 = image if self.to_128 is None else F.relu(self.to_128(image))
        at_64 = F.relu(self.to_64(at_128))
        x = F.relu(self.to_32(at_64))
        at_32 = x + F.relu(self.at_32(x))
        x = F.relu(self.to_16(at_32))
        at_16 = x + F.relu(self.at_16(x))
        x = F.relu(self.to_8(at_16))
        at_8 = x + F.relu(self.at_8(x))
        up = at_16 + F.interpolate(self.up_16(at_8), scale_factor=2.0)
        up = up + F.relu(self.mix_16(up))
        up = at_32 + F.interpolate(self.up_32(up), scale_factor=2.0)
        up = up + F.relu(self.mix_32(up))
        up = at_64 + F.interpolate(self.up_64(up), scale_factor=2.0)
        up = up + F.relu(self.mix_64(up))
        return soft_argmax(self.maps(up)), F.relu(self.coarse_map(at_8)).flatten(1)


def soft_argmax(logits: Float[Tensor, "b p g g"]) -> KeyPoints:
    """Expected position and sharpness of each map."""
    side = logits.shape[-1]
    probability = logits.flatten(2).softmax(-1)
    centres = (torch.arange(side, device=logits.device, dtype=logits.dtype) + 0.5) / side * 2 - 1
    grid = torch.stack([centres.repeat(side), centres.repeat_interleave(side)], -1)
    return KeyPoints(
        logits=logits,
        position=probability @ grid,
        sharpness=probability.square().sum(-1, keepdim=True),
    )


@final
class GatedBlock(nn.Module):
    """A residual block whose hidden units are products of two linear readings.

    Where a point is follows from its pixels by products and quotients (depth times offset). A plain MLP fits those
    so badly that, given true pixels, it erred by three times as many millimetres as this one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pair = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b w"]) -> Float[Tensor, "b w"]:
        """The input plus what the products say."""
        gate, value = self.pair(self.norm(x)).chunk(2, 1)
        return x + self.out(F.silu(gate) * value)


@final
class KeyPointEncoder(nn.Module):
    """The embedded `ImageEncoder`: two trunks, a decoder and what it reads.

    Features are the geometry as read: lengths at three scales, axes, the jaws. A policy learns faster and errs less
    on what is read than on the decoder's own units or the key points (docs/backbone.md).
    """

    def __init__(self, config: ImageEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or ImageEncoderConfig()
        cameras, hidden = len(self.config.cameras), self.config.hidden
        self.trunks = nn.ModuleDict(
            {name: CameraTrunk(self.config, side) for name, side in self.config.cameras}
        )
        # Twice as fast for these few channels; the numbers are the same to rounding.
        self.trunks.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's overloads leave it out
        self.decoder = nn.Sequential(
            nn.Linear(cameras * self.trunk_dim, hidden),
            *(GatedBlock(hidden) for _ in range(self.config.blocks)),
        )
        self.reading = nn.Linear(hidden + self.named_dim, self.config.read)
        self._newest: tuple[Mapping[str, Tensor], tuple[Tensor, dict[str, KeyPoints]]] | None = None

    @property
    def trunk_dim(self) -> int:
        """Width of what one trunk hands to the decoder."""
        return 3 * self.config.points + 64 * self.config.coarse_channels

    @property
    def named_dim(self) -> int:
        """Width of what `named` gives."""
        return 3 * self.config.named_points * len(self.config.cameras)

    @property
    def dim(self) -> int:
        """Width of the feature vector."""
        return self.config.read

    @property
    def hash(self) -> str:
        """Content hash of the weights as they are now, and of the configuration."""
        return content_hash(self.config_record(), self.state_dict())

    def config_record(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return json_record(self.config)

    def encode(self, images: Mapping[str, UInt8[Tensor, "b h w 3"]]) -> Float[Tensor, "b f"]:
        """Features of a batch of observations (RGB, 0-255)."""
        trunk, points = self.look(images)
        return self.features(trunk, self.named(points))

    def look(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]]
    ) -> tuple[Float[Tensor, "b trunk"], dict[str, KeyPoints]]:
        """`trunk` of a batch of observations (RGB, 0-255).

        Asked again for the newest images, it remembers: octo-tiny reads with it what the critics are shown.
        """
        # Looked at once: robots of one page ask from threads of their own.
        newest = self._newest
        if newest is not None and newest[0] is images:
            return newest[1]
        seen = self.trunk(self.pixels(images))
        self._newest = (images, seen)
        return seen

    def pixels(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]]
    ) -> dict[str, Float[Tensor, "b 3 s s"]]:
        """Each camera's image at the side it is read at, in [-1, 1]."""
        return {name: camera_image(images, name, side) for name, side in self.config.cameras}

    def trunk(
        self, pixels: Mapping[str, Float[Tensor, "b 3 s s"]]
    ) -> tuple[Float[Tensor, "b trunk"], dict[str, KeyPoints]]:
        """Everything before the decoder: one vector, and the key points by camera."""
        points: dict[str, KeyPoints] = {}
        parts: list[Tensor] = []
        for name, trunk in self.trunks.items():
            points[name], coarse = trunk(pixels[name].contiguous(memory_format=torch.channels_last))
            parts += [points[name].position.flatten(1), points[name].sharpness.flatten(1), coarse]
        return torch.cat(parts, 1), points

    def features(
        self, trunk: Float[Tensor, "b trunk"], named: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b f"]:
        """The geometry, from the trunk vector and the named key points."""
        return self.reading(torch.cat([self.decoder(trunk), named], 1))

    def named(self, points: Mapping[str, KeyPoints]) -> Float[Tensor, "b n"]:
        """(x, y) of the named key points, then their sharpness, camera after camera."""
        count = self.config.named_points
        parts: list[Tensor] = []
        for name in self.trunks:
            position, sharpness = points[name].position, points[name].sharpness
            parts += [position[:, :count].flatten(1), sharpness[:, :count].flatten(1)]
        return torch.cat(parts, 1)


@final
class UnreadKeyPoints:
    """An `ImageEncoder` for other scenes: all key points and the decoder's units, before the geometry is read.

    What is read is about bolts, a slot and a spot; where there are none it says less than what it is read from.
    """

    def __init__(self, encoder: KeyPointEncoder) -> None:
        self._encoder = encoder

    @property
    def dim(self) -> int:
        """Width of the feature vector."""
        config = self._encoder.config
        return config.hidden + 3 * config.points * len(config.cameras)

    @property
    def hash(self) -> str:
        """Content hash of the same weights, other than that of the geometry read."""
        return content_hash({"unread": self._encoder.hash}, {})

    def encode(self, images: Mapping[str, UInt8[Tensor, "b h w 3"]]) -> Float[Tensor, "b f"]:
        """Features of a batch of observations (RGB, 0-255): the decoder's units, then (x, y, sharpness) by camera."""
        trunk, points = self._encoder.look(images)
        seen = [torch.cat([p.position, p.sharpness], -1).flatten(1) for p in points.values()]
        return torch.cat([self._encoder.decoder(trunk), *seen], 1)


ENCODER_FILE: Final = "image_encoder.safetensors"


@lru_cache(maxsize=1)
def shipped_image_encoder() -> KeyPointEncoder:
    """The shipped image encoder, frozen, the same one for all who ask; raises HilDaftError for an unusable file."""
    return load_image_encoder(WEIGHTS_FOLDER / ENCODER_FILE)


def load_image_encoder(path: Path) -> KeyPointEncoder:
    """An image encoder from its file, frozen; raises HilDaftError for a missing, damaged or foreign one."""
    return load_frozen(
        path, "the image encoder", lambda record: KeyPointEncoder(ImageEncoderConfig(**record))
    )


PHRASE_DIM: Final = 64
"""Width of a phrase embedding."""


def embed_phrases(phrases: Sequence[str]) -> Float[Tensor, "c 64"]:
    """Embeds short command phrases deterministically, one row of length 1 each.

    Every word and every pair of neighbouring words stands for a fixed pseudo-random direction (its SHA-256 seeds
    NumPy's PCG64); a phrase is their normalised sum. Phrases that share words are therefore close, and different
    phrases nearly always distinct. Nothing here was pretrained: the directions carry no meaning of the words, which
    is all a closed table of 27 commands needs. Raises HilDaftError for a phrase without a word.
    """
    rows = [_phrase_direction(phrase) for phrase in phrases]
    return torch.from_numpy(np.stack(rows)).float()


def phrases_hash(phrases: Sequence[str]) -> str:
    """Content hash of an embedding table: of its phrases and of the numbers they give."""
    return content_hash({"phrases": list(phrases)}, {"embedding": embed_phrases(phrases)})


def _phrase_direction(phrase: str) -> np.ndarray:
    words = words_of(phrase)
    if not words:
        msg = f"phrase={phrase!r}: at least one word is allowed; name the command in words"
        raise HilDaftError(msg)
    pairs = [" ".join(pair) for pair in itertools.pairwise(["", *words, ""])]
    total = np.zeros(PHRASE_DIM)
    for part in [*words, *pairs]:
        seed = int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big")
        total += np.random.default_rng(seed).standard_normal(PHRASE_DIM)
    return total / np.linalg.norm(total)
