"""Octo in native PyTorch, and octo-tiny, the small Octo this package ships.

Octo Model Team, "Octo: An Open-Source Generalist Robot Policy", 2024 (version 1.5, with the switches of 1.0).
Image tokens, language tokens and readout tokens go through one transformer under a block-causal mask; the output at
the readout token of the last time step is h (eq. 3).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from hildaft.models.backbone import (
    NETWORK_IMAGE_SIZE,
    WEIGHTS_FOLDER,
    camera_image,
    content_hash,
    load_weights,
)
from hildaft.models.octo_layers import NORM_EPS, Block, SmallStem, StandardisedConv
from hildaft.models.words import bucket_of, words_of
from hildaft.types import HilDaftError


@dataclass(frozen=True, kw_only=True)
class OctoConfig:
    """Shape of an Octo transformer; the defaults are octo-small-1.5."""

    cameras: tuple[tuple[str, int], ...] = (("primary", 256), ("wrist", 128))
    """Cameras in sequence order, each with the side of its square image in px (a multiple of 16)."""
    stem_channels: tuple[int, int, int, int] = (32, 96, 192, 384)
    """Output channels of the four stride-2 convolutions."""
    stem_groups: int = 32
    """Groups of the stem's GroupNorm; divides every entry of `stem_channels`."""
    stem_dim: int = 512
    """Width of an image token as it leaves the stem."""
    goal_images: bool = True
    """Whether the stems take a goal image beside the current one (6 input channels)."""
    language_tokens: int = 16
    """Longest instruction, in tokens."""
    language_dim: int = 768
    """Width of a language token before its projection."""
    repeat_language: bool = True
    """Copies the language tokens into every time step (version 1.5)."""
    correct_attention: bool = True
    """False gives version 1.0's mask, whose token-to-group lookup is off by one."""
    readouts: int = 1
    """Readout tokens per time step."""
    max_horizon: int = 10
    """Time steps with a positional embedding; the longest window."""
    width: int = 384
    """Token width D of the transformer, and width of h."""
    layers: int = 12
    """Transformer blocks."""
    heads: int = 6
    """Attention heads; divides `width`."""
    mlp_dim: int = 1536
    """Hidden width of a block's MLP."""

    def __post_init__(self) -> None:
        for name, size in self.cameras:
            if size < 16 or size % 16:
                msg = f"octo camera {name!r} size={size}: a multiple of 16 is allowed"
                raise HilDaftError(msg)
        if any(channels % self.stem_groups for channels in self.stem_channels):
            msg = (
                f"octo stem_groups={self.stem_groups}: "
                f"a common divisor of {self.stem_channels} is allowed"
            )
            raise HilDaftError(msg)
        if self.heads < 1 or self.width % self.heads:
            msg = f"octo heads={self.heads}: a divisor of width={self.width} is allowed"
            raise HilDaftError(msg)
        for name in ("layers", "mlp_dim", "readouts", "max_horizon", "language_tokens"):
            if getattr(self, name) < 1:
                msg = f"octo {name}={getattr(self, name)}: 1 or more is allowed"
                raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class OctoTokens:
    """Transformer outputs after the last LayerNorm, by group."""

    language: Float[Tensor, "b l d"]
    cameras: Mapping[str, Float[Tensor, "b w n d"]]
    readout: Float[Tensor, "b w r d"]

    @property
    def h(self) -> Float[Tensor, "b d"]:
        """Mean readout token of the last step: what the actors read (eq. 3)."""
        return self.readout[:, -1].mean(1)


@final
class Octo(nn.Module):
    """Octo's transformer: normalised images and embedded language in, output tokens out."""

    def __init__(self, config: OctoConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens_of = {name: (size // 16) ** 2 for name, size in config.cameras}
        channels = (6 if config.goal_images else 3, *config.stem_channels)
        self.stems = nn.ModuleDict(
            {n: SmallStem(channels, config.stem_groups, config.stem_dim) for n in self.tokens_of}
        )
        self.projections = nn.ModuleDict(
            {name: nn.Linear(config.stem_dim, width) for name in self.tokens_of}
        )
        self.positions = nn.ParameterDict(
            {name: small_normal(config.max_horizon, n, width) for name, n in self.tokens_of.items()}
        )
        self.language_projection = nn.Linear(config.language_dim, width)
        self.language_positions = small_normal(config.language_tokens, width)
        self.readout_positions = small_normal(config.max_horizon, config.readouts, width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_dim) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(
        self,
        images: Mapping[str, Float[Tensor, "b w c _ _"]],
        language: Float[Tensor, "b l e"],
        language_mask: Bool[Tensor, "b l"],
        step_mask: Bool[Tensor, "b w"],
    ) -> OctoTokens:
        """Runs the window (oldest step first).

        Args:
            images: pixels in [-1, 1] by camera, current image then goal image on the channels.
            language: embedded instruction, at most `language_tokens` long.
            language_mask: which language tokens may be looked at.
            step_mask: which steps are real; the cameras of the others may not be looked at.
        """
        x, bias = self.trunk(images, language, language_mask, step_mask)
        x = self.norm(self.blocks[-1](x, bias))
        return self._split(x, language.shape[1], step_mask.shape[1])

    def embed(
        self,
        images: Mapping[str, Float[Tensor, "b w c _ _"]],
        language: Float[Tensor, "b l e"],
        language_mask: Bool[Tensor, "b l"],
        step_mask: Bool[Tensor, "b w"],
    ) -> Float[Tensor, "b d"]:
        """`forward(...).h`, for less: the last block is computed for the readout tokens alone."""
        x, bias = self.trunk(images, language, language_mask, step_mask)
        return self.read(x, bias)

    def read(
        self, x: Float[Tensor, "b n d"], bias: Float[Tensor, "b 1 q n"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h from what `trunk` gives."""
        count = self.config.readouts
        block = cast(Block, self.blocks[-1])
        return self.norm(block.last(x, bias[:, :, -count:], count)).mean(1)

    def trunk(
        self,
        images: Mapping[str, Float[Tensor, "b w c _ _"]],
        language: Float[Tensor, "b l e"],
        language_mask: Bool[Tensor, "b l"],
        step_mask: Bool[Tensor, "b w"],
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b 1 n n"]]:
        """All tokens before the last block, and the attention bias."""
        b, w = step_mask.shape
        prefix = self.language_projection(language) + self.language_positions[: language.shape[1]]
        steps: list[Tensor] = []
        valid: list[Tensor] = []
        for name, count in self.tokens_of.items():
            tokens = self.stems[name](images[name].flatten(0, 1))
            tokens = self.projections[name](tokens).view(b, w, count, -1)
            steps.append(tokens + self.positions[name][:w])
            valid.append(step_mask[:, :, None].expand(b, w, count))
        if self.config.repeat_language:
            steps.append(prefix[:, None].expand(b, w, -1, -1))
            valid.append(language_mask[:, None].expand(b, w, -1))
        steps.append(self.readout_positions[:w].expand(b, -1, -1, -1))
        valid.append(step_mask.new_ones(b, w, self.config.readouts))
        x = torch.cat([prefix, torch.cat(steps, 2).flatten(1, 2)], 1)
        keys = torch.cat([language_mask, torch.cat(valid, 2).flatten(1)], 1)
        bias = self.attention_bias(keys, w, language.shape[1], x.dtype)
        for block in self.blocks[:-1]:
            x = block(x, bias)
        return x, bias

    def attention_bias(
        self, keys: Bool[Tensor, "b n"], window: int, language: int, dtype: torch.dtype
    ) -> Float[Tensor, "b 1 n n"]:
        """What to add to the attention logits for the block-causal rule and the valid keys.

        A finite fill, not -inf: a query with no valid key then averages over everything, as in the original, and
        gives no NaN.
        """
        rule = attention_rule(self._group_sizes(language), window, language, self.config)
        allowed = rule.to(keys.device) & keys[:, None, None, :]
        zero = torch.zeros((), dtype=dtype, device=keys.device)
        return torch.where(allowed, zero, torch.finfo(dtype).min)

    def _group_sizes(self, language: int) -> list[tuple[str, int]]:
        sizes = [("observation", count) for count in self.tokens_of.values()]
        if self.config.repeat_language:
            sizes.append(("observation", language))
        return [*sizes, ("readout", self.config.readouts)]

    def _split(self, x: Float[Tensor, "b n d"], language: int, w: int) -> OctoTokens:
        counts = [count for _, count in self._group_sizes(language)]
        steps = x[:, language:].unflatten(1, (w, sum(counts))).split(counts, 2)
        cameras = dict(zip(self.tokens_of, steps[: len(self.tokens_of)], strict=True))
        return OctoTokens(language=x[:, :language], cameras=cameras, readout=steps[-1])


def small_normal(*shape: int) -> nn.Parameter:
    """A learned positional embedding at its start value."""
    return nn.Parameter(torch.randn(*shape) * 0.02)


def attention_rule(
    groups: list[tuple[str, int]], window: int, language: int, config: OctoConfig
) -> Bool[Tensor, "n n"]:
    """Octo's block-causal rule: entry [q, k] says whether query q may look at key k, validity apart.

    The language prefix sees itself; observations see the prefix and observations up to their own step; readouts see
    what observations see, and readouts up to their own step; nothing else sees a readout.
    """
    step_kinds: list[str] = []
    for kind, count in groups:
        first = step_kinds[-1] if step_kinds and not config.correct_attention else kind
        step_kinds += [first, *[kind] * (count - 1)]
    readout = torch.tensor([kind == "readout" for kind in step_kinds])
    is_prefix = torch.cat([torch.ones(language), torch.zeros(window * len(step_kinds))]).bool()
    is_readout = torch.cat([torch.zeros(language).bool(), readout.repeat(window)])
    step = torch.cat([torch.zeros(language), torch.arange(window).repeat_interleave(len(readout))])
    query_prefix, key_prefix = is_prefix[:, None], is_prefix[None, :]
    not_future = step[None, :] <= step[:, None]
    hidden = is_readout[None, :] & ~is_readout[:, None]
    return key_prefix | (~query_prefix & not_future & ~hidden)


OCTO_TINY: Final = OctoConfig(
    cameras=(("head", NETWORK_IMAGE_SIZE), ("wrist", NETWORK_IMAGE_SIZE)),
    stem_channels=(16, 32, 64, 96),
    stem_groups=4,
    stem_dim=96,
    goal_images=False,
    language_tokens=12,
    language_dim=64,
    repeat_language=False,
    max_horizon=1,
    width=128,
    layers=2,
    heads=4,
    mlp_dim=384,
)
"""The embedded backbone: window 1, so that repeating the language within the step would add nothing."""

WORD_BUCKETS: Final = 512
"""Words are hashed into this many learned embeddings."""


@final
class OctoTiny(nn.Module):
    """A small Octo with a hashed-word language input: the embedded `Backbone`.

    Any sentence can be embedded; two words that share a bucket are one word to it.
    """

    def __init__(self, config: OctoConfig = OCTO_TINY) -> None:
        super().__init__()
        self.octo = Octo(config)
        self.words = nn.Embedding(WORD_BUCKETS, config.language_dim)

    @property
    def config(self) -> OctoConfig:
        """Shape of the transformer."""
        return self.octo.config

    @property
    def dim(self) -> int:
        """Width of h."""
        return self.config.width

    @property
    def hash(self) -> str:
        """Content hash of the weights as they are now, and of the configuration."""
        return content_hash(self.config_record(), self.state_dict())

    def config_record(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return json.loads(json.dumps(asdict(self.config)))

    def word_ids(self, text: str) -> Int[Tensor, " l"]:
        """Buckets of the first `language_tokens` words; raises HilDaftError where there is no word."""
        words = words_of(text)[: self.config.language_tokens]
        if not words:
            msg = f"instruction={text!r}: at least one word is allowed; say what to do"
            raise HilDaftError(msg)
        return torch.tensor([bucket_of(word, WORD_BUCKETS) for word in words])

    def embed_instruction(self, text: str) -> Float[Tensor, "l e"]:
        """Word embeddings of an instruction; longer ones are cut after `language_tokens` words."""
        return self.words(self.word_ids(text).to(self.words.weight.device))

    def encode(
        self, images: Mapping[str, UInt8[Tensor, "b h w 3"]], instruction: Float[Tensor, "l e"]
    ) -> Float[Tensor, "b d"]:
        """The embedding h of a batch of observations under one embedded instruction (eq. 3)."""
        pixels = {name: camera_image(images, name, size) for name, size in self.config.cameras}
        count = next(iter(pixels.values())).shape[0]
        language = instruction.expand(count, -1, -1)
        mask = torch.ones(language.shape[:2], dtype=torch.bool, device=language.device)
        window = {name: image.unsqueeze(1) for name, image in pixels.items()}
        return self.octo.embed(window, language, mask, mask.new_ones(count, 1))

    def tokens(
        self,
        pixels: Mapping[str, Float[Tensor, "b 3 s s"]],
        language: Float[Tensor, "b l e"],
        mask: Bool[Tensor, "b l"],
    ) -> OctoTokens:
        """All output tokens for single observations (window 1)."""
        window = {name: image.unsqueeze(1) for name, image in pixels.items()}
        return self.octo(window, language, mask, mask.new_ones(mask.shape[0], 1))

    def trunk(
        self,
        pixels: Mapping[str, Float[Tensor, "b 3 s s"]],
        words: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
    ) -> Float[Tensor, "b n d"]:
        """Tokens of single observations before the last block."""
        window = {name: image.unsqueeze(1) for name, image in pixels.items()}
        return self.octo.trunk(window, self.words(words), mask, mask.new_ones(len(mask), 1))[0]


def load_octo_tiny(path: Path = WEIGHTS_FOLDER / "octo_tiny.safetensors") -> OctoTiny:
    """The shipped backbone, frozen; raises HilDaftError for a missing, damaged or foreign file."""
    record, tensors, _ = load_weights(path)
    try:
        record["cameras"] = tuple((str(name), int(size)) for name, size in record["cameras"])
        record["stem_channels"] = tuple(record["stem_channels"])
        model = OctoTiny(OctoConfig(**record))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        msg = f"weights file {path}: not weights of octo-tiny; pretrain again or reinstall"
        raise HilDaftError(msg) from error
    for module in model.modules():
        if isinstance(module, StandardisedConv):
            # A fifth of the time of a stem at batch 1.
            module.fold()
    return model.requires_grad_(requires_grad=False).eval()
