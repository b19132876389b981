"""Octo in native PyTorch.

Octo Model Team, "Octo: An Open-Source Generalist Robot Policy", 2024 (version 1.5, with the switches of 1.0).
Image tokens, language tokens and readout tokens go through one transformer under a block-causal mask; the output at
the readout token of the last time step is h (eq. 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hildaft.models.octo_layers import (
    NORM_EPS,
    Block,
    SmallStem,
    attention_bias,
    attention_rule,
)
from hildaft.models.products import Linear
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
    """Readout tokens per time step that h is read from."""
    vectors: tuple[tuple[str, int], ...] = ()
    """Observations that are vectors, with their width: one token each, after the cameras (Octo's low-dimensional
    tokenizer, without its bins)."""
    other_readouts: tuple[tuple[str, int], ...] = ()
    """Further readouts by name, with their tokens per step; the first one neither sees them nor is seen."""
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
    others: Mapping[str, Float[Tensor, "b w _ d"]]

    @property
    def h(self) -> Float[Tensor, "b d"]:
        """Mean readout token of the last step: what the actors read (eq. 3)."""
        return self.readout[:, -1].mean(1)


@dataclass(frozen=True)
class Inputs:
    """What one pass runs on, as `Octo.forward` explains it."""

    images: Mapping[str, Float[Tensor, "b w c _ _"]]
    language: Float[Tensor, "b l e"]
    language_mask: Bool[Tensor, "b l"]
    step_mask: Bool[Tensor, "b w"]
    camera_masks: Mapping[str, Bool[Tensor, "b w"]]
    vectors: Mapping[str, Float[Tensor, "b w _"]]


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
            {name: Linear(config.stem_dim, width) for name in self.tokens_of}
        )
        self.positions = nn.ParameterDict(
            {name: small_normal(config.max_horizon, n, width) for name, n in self.tokens_of.items()}
        )
        self.vector_projections = nn.ModuleDict({n: Linear(d, width) for n, d in config.vectors})
        self.vector_positions = nn.ParameterDict(
            {name: small_normal(config.max_horizon, 1, width) for name, _ in config.vectors}
        )
        self.language_projection = Linear(config.language_dim, width)
        self.language_positions = small_normal(config.language_tokens, width)
        self.readout_positions = small_normal(config.max_horizon, config.readouts, width)
        self.other_positions = nn.ParameterDict(
            {name: small_normal(config.max_horizon, n, width) for name, n in config.other_readouts}
        )
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
        camera_masks: Mapping[str, Bool[Tensor, "b w"]] | None = None,
        vectors: Mapping[str, Float[Tensor, "b w _"]] | None = None,
    ) -> OctoTokens:
        """Runs the window (oldest step first).

        Args:
            images: pixels in [-1, 1] by camera, current image then goal image on the channels; a camera that is left
                out leaves the sequence, as in the original.
            language: embedded instruction, at most `language_tokens` long; of length 0 it leaves the sequence.
            language_mask: which language tokens may be looked at.
            step_mask: which steps are real; the cameras of the others may not be looked at.
            camera_masks: which images are real, by camera; all of a camera's where it is not named.
            vectors: observations that are vectors; one that is left out leaves the sequence.
        """
        masks = camera_masks or {}
        inputs = Inputs(images, language, language_mask, step_mask, masks, vectors or {})
        x, bias = self._run(inputs, self.groups(inputs))
        x = self.norm(self.blocks[-1](x, bias))
        return self._split(x, inputs)

    def embed(
        self,
        images: Mapping[str, Float[Tensor, "b w c _ _"]],
        language: Float[Tensor, "b l e"],
        language_mask: Bool[Tensor, "b l"],
        step_mask: Bool[Tensor, "b w"],
        vectors: Mapping[str, Float[Tensor, "b w _"]] | None = None,
    ) -> Float[Tensor, "b d"]:
        """`forward(...).h`, for less: the last block is computed for the readout tokens alone."""
        if self.config.other_readouts and not self.config.correct_attention:
            # Version 1.0's mask lets a readout see the first token of the next one.
            return self(images, language, language_mask, step_mask, vectors=vectors).h
        x, bias = self.trunk(images, language, language_mask, step_mask, vectors)
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
        vectors: Mapping[str, Float[Tensor, "b w _"]] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b 1 n n"]]:
        """All tokens that h depends on before the last block, and the attention bias."""
        inputs = Inputs(images, language, language_mask, step_mask, {}, vectors or {})
        return self._run(inputs, [g for g in self.groups(inputs) if g[0] not in self.others])

    @property
    def others(self) -> dict[str, str]:
        """Group name to name, of the readouts that h is not read from."""
        return {f"readout_{name}": name for name, _ in self.config.other_readouts}

    def groups(self, inputs: Inputs) -> list[tuple[str, int]]:
        """Name and tokens of each group of a time step, in the order of the sequence."""
        present = [(f"obs_{n}", count) for n, count in self.tokens_of.items() if n in inputs.images]
        present += [(f"obs_{n}", 1) for n in self.vector_projections if n in inputs.vectors]
        if self.config.repeat_language and inputs.language.shape[1]:
            present.append(("obs_language", inputs.language.shape[1]))
        others = [(f"readout_{name}", count) for name, count in self.config.other_readouts]
        return [*present, ("readout", self.config.readouts), *others]

    def _run(
        self, inputs: Inputs, groups: list[tuple[str, int]]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b 1 n n"]]:
        b, w = inputs.step_mask.shape
        if w > self.config.max_horizon:
            msg = f"octo window={w}: 1 to max_horizon={self.config.max_horizon} is allowed"
            raise HilDaftError(msg)
        length = inputs.language.shape[1]
        prefix = self.language_projection(inputs.language) + self.language_positions[:length]
        steps: list[Tensor] = []
        valid: list[Tensor] = []
        for group, count in groups:
            tokens, mask = self._step_tokens(group, inputs, prefix)
            steps.append(tokens)
            valid.append(mask.expand(b, w, count))
        x = torch.cat([prefix, torch.cat(steps, 2).flatten(1, 2)], 1)
        keys = torch.cat([inputs.language_mask, torch.cat(valid, 2).flatten(1)], 1)
        rule = attention_rule(tuple(groups), w, length, correct=self.config.correct_attention)
        bias = attention_bias(rule, keys, x.dtype)
        for block in self.blocks[:-1]:
            x = block(x, bias)
        return x, bias

    def _step_tokens(
        self, group: str, inputs: Inputs, prefix: Float[Tensor, "b l d"]
    ) -> tuple[Float[Tensor, "b w n d"], Bool[Tensor, "b w _"]]:
        """Tokens of one group at every step, and which of them are real."""
        step_mask = inputs.step_mask
        b, w = step_mask.shape
        if group == "obs_language":
            repeated = inputs.language_mask[:, None].expand(b, w, -1)
            return prefix[:, None].expand(b, w, -1, -1), repeated
        if group in self.others or group == "readout":
            name = self.others.get(group)
            positions = self.readout_positions if name is None else self.other_positions[name]
            return positions[:w].expand(b, -1, -1, -1), step_mask.new_ones(b, w, 1)
        name = group.removeprefix("obs_")
        if name in self.vector_projections:
            token = self.vector_projections[name](inputs.vectors[name]).unsqueeze(2)
            return token + self.vector_positions[name][:w], step_mask[:, :, None]
        tokens = self.stems[name](inputs.images[name].flatten(0, 1))
        tokens = self.projections[name](tokens).view(b, w, self.tokens_of[name], -1)
        mask = step_mask & inputs.camera_masks.get(name, step_mask)
        return tokens + self.positions[name][:w], mask[:, :, None]

    def _split(self, x: Float[Tensor, "b n d"], inputs: Inputs) -> OctoTokens:
        length, w = inputs.language.shape[1], inputs.step_mask.shape[1]
        groups = self.groups(inputs)
        counts = [count for _, count in groups]
        steps = x[:, length:].unflatten(1, (w, sum(counts))).split(counts, 2)
        by_name = {name: tokens for (name, _), tokens in zip(groups, steps, strict=True)}
        return OctoTokens(
            language=x[:, :length],
            cameras={n: by_name[f"obs_{n}"] for n in self.tokens_of if n in inputs.images},
            readout=by_name["readout"],
            others={name: by_name[group] for group, name in self.others.items()},
        )


def small_normal(*shape: int) -> nn.Parameter:
    """A learned positional embedding at its start value."""
    return nn.Parameter(torch.randn(*shape) * 0.02)
