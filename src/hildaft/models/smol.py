"""smol-tiny, the second embedded backbone: a vision tower and a small language model read at its cache (eq. 17).

The kind of architecture of SmolVLA (Shukor et al., 2025): image tokens by pixel shuffle, then words, in one prefix that
attends to all of itself; blocks with RMSNorm, rotary positions, grouped key-value heads and a gated MLP. There is no
readout token: h is pooled from the keys and values of the last layer. The tower is convolutional, not a SigLIP, because
a few thousand steps on one core do not train a plain vision transformer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.backbone import (
    NETWORK_IMAGE_SIZE,
    WEIGHTS_FOLDER,
    camera_image,
    content_hash,
    json_record,
    load_frozen,
)
from hildaft.models.pooling import pool_prefix
from hildaft.models.products import Linear
from hildaft.models.words import HashedWords
from hildaft.types import HilDaftError

CELLS: Final = (NETWORK_IMAGE_SIZE // 16) ** 2
"""Image tokens per camera."""


@dataclass(frozen=True, kw_only=True)
class SmolConfig:
    """Shape of smol-tiny."""

    cameras: tuple[str, ...] = ("head", "wrist")
    """Cameras in the order of the prefix, each at 128x128 px."""
    channels: tuple[int, int, int] = (16, 32, 64)
    """Channels of the tower at 64, 32 and 16 px."""
    language_tokens: int = 12
    """Longest instruction, in words."""
    width: int = 128
    """Width of a token."""
    blocks: int = 2
    """Transformer blocks before the layer whose keys and values are pooled."""
    heads: int = 4
    """Attention heads."""
    kv_heads: int = 2
    """Key-value heads; divides `heads`."""
    head_dim: int = 48
    """Width of a head (even); h has 2 * kv_heads * head_dim numbers."""
    mlp_dim: int = 256
    """Hidden width of a gated MLP."""

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            msg = f"smol kv_heads={self.kv_heads}: a divisor of heads={self.heads} is allowed"
            raise HilDaftError(msg)
        if self.head_dim < 2 or self.head_dim % 2:
            msg = f"smol head_dim={self.head_dim}: an even number is allowed"
            raise HilDaftError(msg)


@final
class Tower(nn.Module):
    """One camera's image to 64 tokens: convolutions to 16x16, then each 2x2 cells become one token."""

    def __init__(self, config: SmolConfig) -> None:
        super().__init__()
        c64, c32, c16 = config.channels
        self.to_64 = nn.Conv2d(3, c64, 5, stride=2, padding=2)
        self.to_32 = nn.Conv2d(c64, c32, 3, stride=2, padding=1)
        self.to_16 = nn.Conv2d(c32, c16, 3, stride=2, padding=1)
        self.at_16 = nn.Conv2d(c16, c16, 3, padding=1)
        self.connector = Linear(4 * c16, config.width)
        self.positions = nn.Parameter(torch.randn(CELLS, config.width) * 0.02)

    def forward(self, image: Float[Tensor, "b 3 128 128"]) -> Float[Tensor, "b 64 w"]:
        """Tokens in row-major order; pixels are in [-1, 1]."""
        x = F.relu(self.to_16(F.relu(self.to_32(F.relu(self.to_64(image))))))
        x = x + F.relu(self.at_16(x))
        cells = F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)
        return self.connector(cells) + self.positions


@final
class PrefixBlock(nn.Module):
    """A Llama block over the whole prefix: grouped-query attention with rotary positions, then a gated MLP."""

    def __init__(self, config: SmolConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.attention_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.query = Linear(config.width, config.heads * config.head_dim, bias=False)
        self.cache = CacheLayer(config)
        self.out = Linear(config.heads * config.head_dim, config.width, bias=False)
        self.mlp_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.gate = Linear(config.width, config.mlp_dim, bias=False)
        self.up = Linear(config.width, config.mlp_dim, bias=False)
        self.down = Linear(config.mlp_dim, config.width, bias=False)

    def forward(
        self, x: Float[Tensor, "b t w"], keys_mask: Bool[Tensor, "b 1 1 t"]
    ) -> Float[Tensor, "b t w"]:
        """The tokens after the block; masked ones are not looked at."""
        seen = self.attention_norm(x)
        query = rotate(self.query(seen).unflatten(-1, (self.heads, self.head_dim)))
        key, value = self.cache(seen)
        groups = self.heads // key.shape[2]
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.repeat_interleave(groups, 2).transpose(1, 2),
            value.repeat_interleave(groups, 2).transpose(1, 2),
            attn_mask=keys_mask,
        )
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        seen = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(seen)) * self.up(seen))


@final
class CacheLayer(nn.Module):
    """Keys (rotated) and values of a layer: what a key-value cache holds of it."""

    def __init__(self, config: SmolConfig) -> None:
        super().__init__()
        self.shape = (config.kv_heads, config.head_dim)
        self.key = Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.value = Linear(config.width, config.kv_heads * config.head_dim, bias=False)

    def forward(
        self, x: Float[Tensor, "b t w"]
    ) -> tuple[Float[Tensor, "b t h d"], Float[Tensor, "b t h d"]]:
        """From the normalised tokens."""
        return rotate(self.key(x).unflatten(-1, self.shape)), self.value(x).unflatten(
            -1, self.shape
        )


def rotate(x: Float[Tensor, "b t h d"]) -> Float[Tensor, "b t h d"]:
    """Rotary positions (Su et al., 2021), base 10,000, halves paired as in Llama."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)[:, None] * rates
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


@dataclass(frozen=True, kw_only=True)
class SmolTokens:
    """What a pass over the prefix gives."""

    h: Float[Tensor, "b d"]
    cameras: Mapping[str, Float[Tensor, "b 64 w"]]
    """Image tokens before the last layer, by camera."""


@final
class SmolTiny(nn.Module):
    """The second embedded `Backbone`."""

    def __init__(self, config: SmolConfig | None = None) -> None:
        super().__init__()
        self.config = config or SmolConfig()
        self.towers = nn.ModuleDict({name: Tower(self.config) for name in self.config.cameras})
        self.words = HashedWords(self.config.width, self.config.language_tokens)
        self.blocks = nn.ModuleList(PrefixBlock(self.config) for _ in range(self.config.blocks))
        self.norm = nn.RMSNorm(self.config.width, eps=1e-5)
        self.last = CacheLayer(self.config)

    @property
    def dim(self) -> int:
        """Width of h."""
        return 2 * self.config.kv_heads * self.config.head_dim

    @property
    def hash(self) -> str:
        """Content hash of the weights as they are now, and of the configuration."""
        return content_hash(self.config_record(), self.state_dict())

    def config_record(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return json_record(self.config)

    def embed_instruction(self, text: str) -> Float[Tensor, "l e"]:
        """Embeddings of an instruction's first `language_tokens` words; raises HilDaftError where it has none."""
        return self.words.embed(text)

    def encode(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], instruction: Float[Tensor, "l e"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h of a batch of observations under one embedded instruction (eq. 3)."""
        pixels = {
            name: camera_image(images, name, NETWORK_IMAGE_SIZE) for name in self.config.cameras
        }
        language = instruction.expand(next(iter(pixels.values())).shape[0], -1, -1)
        mask = torch.ones(language.shape[:2], dtype=torch.bool, device=language.device)
        return self.tokens(pixels, language, mask).h

    def tokens(
        self,
        pixels: Mapping[str, Float[Tensor, "b 3 128 128"]],
        language: Float[Tensor, "b l e"],
        mask: Bool[Tensor, "b l"],
    ) -> SmolTokens:
        """One pass over the prefix [cameras, words]; the mask says which words are there."""
        names = self.config.cameras
        parts = [self.towers[name](pixels[name]) for name in names]
        x = torch.cat([*parts, language], 1)
        seen = F.pad(mask, (CELLS * len(names), 0), value=True)
        for block in self.blocks:
            x = block(x, seen[:, None, None])
        keys, values = self.last(self.norm(x))
        image = x[:, : CELLS * len(names)].split(CELLS, 1)
        return SmolTokens(
            h=pool_prefix(keys, values, seen), cameras=dict(zip(names, image, strict=True))
        )


def load_smol_tiny(path: Path = WEIGHTS_FOLDER / "smol_tiny.safetensors") -> SmolTiny:
    """The shipped backbone, frozen; raises HilDaftError for a missing, damaged or foreign file."""
    return load_frozen(path, "smol-tiny", lambda record: SmolTiny(SmolConfig(**record)))
