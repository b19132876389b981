"""The layers of Octo: image stem, transformer block and attention mask."""

import itertools
from functools import lru_cache
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hildaft.models.products import Linear, attention, linear, linear_gelu

NORM_EPS: Final = 1e-6
"""Epsilon of every LayerNorm and GroupNorm in Octo."""

KERNEL_EPS: Final = 1e-5
"""Added to the standard deviation (not the variance) of a kernel when it is standardised."""


@final
class StandardisedConv(nn.Module):
    """3x3 convolution, stride 2, padding 1 on every side, with its kernel standardised per output channel."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        nn.init.normal_(self.weight, std=1.0)
        self._folded: Tensor | None = None

    def forward(self, image: Float[Tensor, "n c_in s s"]) -> Float[Tensor, "n c_out s2 s2"]:
        """Halves the side of the image."""
        kernel = self.kernel() if self._folded is None else self._folded
        return F.conv2d(image, kernel, self.bias, stride=2, padding=1)

    def kernel(self) -> Float[Tensor, "c_out c_in 3 3"]:
        """The standardised kernel."""
        std, mean = torch.std_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) / (std + KERNEL_EPS)

    def fold(self) -> None:
        """Standardises once and for all: for weights that will not change any more."""
        self._folded = self.kernel().detach()


@final
class SmallStem(nn.Module):
    """Octo's image tokenizer: four standardised convolutions, then one token per 16x16 px patch."""

    def __init__(self, channels: tuple[int, ...], groups: int, dim: int) -> None:
        """`channels` begins with the image's; 6 of them are a current and a goal image."""
        super().__init__()
        self.centre = channels[0] == 6
        pairs = list(itertools.pairwise(channels))
        self.convs = nn.ModuleList(StandardisedConv(a, b) for a, b in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, b, eps=NORM_EPS) for _, b in pairs)
        self.embedding = nn.Conv2d(channels[-1], dim, 1)

    def forward(self, image: Float[Tensor, "n c s s"]) -> Float[Tensor, "n t e"]:
        """Tokens in row-major order of the patches; pixels are in [-1, 1]."""
        x = image
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            if self.centre:
                # An absent goal (all -1) puts a large constant on the maps, and GroupNorm in
                # float32 loses digits to it: take the mean off first.
                grouped = x.unflatten(1, (norm.num_groups, -1))
                x = (grouped - grouped.mean((2, 3, 4), keepdim=True)).flatten(1, 2)
            x = F.relu(norm(x))
        # A convolution of width 1 is a product, which torch makes slowly under the other name.
        cells = x.flatten(2).transpose(1, 2)
        return linear(cells, self.embedding.weight.flatten(1), self.embedding.bias)


@final
class Block(nn.Module):
    """Pre-norm transformer block with biases everywhere and the tanh form of GELU."""

    def __init__(self, width: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.query_key_value = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp_in = Linear(width, mlp_dim)
        self.mlp_out = Linear(mlp_dim, width)

    def forward(
        self, x: Float[Tensor, "b n d"], bias: Float[Tensor, "b2 1 n n"]
    ) -> Float[Tensor, "b n d"]:
        """`bias` is added to the attention logits: 0 where a query may look, very negative elsewhere."""
        x = x + self.attend(self.attention_norm(x), bias)
        return x + self.mlp(x)

    def last(
        self, x: Float[Tensor, "b n d"], bias: Float[Tensor, "b2 1 r n"], count: int
    ) -> Float[Tensor, "b r d"]:
        """What `forward` gives for the last `count` tokens, without computing the others."""
        kept = x[:, -count:] + self.attend(self.attention_norm(x), bias, count)
        return kept + self.mlp(kept)

    def mlp(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The second sub-layer, before the residual sum."""
        inner = self.mlp_in
        return self.mlp_out(linear_gelu(self.mlp_norm(x), inner.weight, inner.bias))

    def attend(
        self, x: Float[Tensor, "b n d"], bias: Float[Tensor, "b2 1 q n"], last: int | None = None
    ) -> Float[Tensor, "b q d"]:
        """Multi-head attention, before the residual sum; `last` keeps that many queries."""
        b, n, d = x.shape
        if last is None:
            split = self.query_key_value(x).view(b, n, 3, self.heads, d // self.heads)
            query, key, value = split.permute(2, 0, 3, 1, 4)
        else:
            weight, shift = self.query_key_value.weight, self.query_key_value.bias
            query = linear(x[:, -last:], weight[:d], shift[:d])
            query = query.view(b, last, self.heads, -1).transpose(1, 2)
            split = linear(x, weight[d:], shift[d:]).view(b, n, 2, self.heads, -1)
            key, value = split.permute(2, 0, 3, 1, 4)
        mixed = attention(query, key, value, bias)
        return self.out(mixed.transpose(1, 2).reshape(b, -1, d))


@lru_cache(maxsize=16)
def attention_rule(
    groups: tuple[tuple[str, int], ...], window: int, language: int, *, correct: bool
) -> Bool[Tensor, "n n"]:
    """Octo's block-causal rule: entry [q, k] says whether query q may look at key k, validity apart.

    The language prefix sees itself; observations see the prefix and observations up to their own step; a readout sees
    what observations see, and itself up to its own step; nothing else sees a readout. With `correct` False the first
    token of every group but a step's first belongs to the group before it, as in version 1.0. Every pass over
    the same groups is given the same tensor: not to be written to.
    """
    counts = torch.tensor([count for _, count in groups])
    token = torch.arange(int(counts.sum()))
    member = torch.searchsorted(counts.cumsum(0), token, right=correct)
    is_readout = torch.tensor([name.startswith("readout") for name, _ in groups])
    group = torch.cat([torch.full((language,), -1), member.repeat(window)])
    readout = torch.cat([torch.zeros(language).bool(), is_readout[member].repeat(window)])
    step = torch.cat([torch.zeros(language), torch.arange(window).repeat_interleave(len(token))])
    query_prefix, key_prefix = group[:, None] < 0, group[None, :] < 0
    not_future = step[None, :] <= step[:, None]
    hidden = readout[None, :] & (group[None, :] != group[:, None])
    return key_prefix | (~query_prefix & not_future & ~hidden)


def attention_bias(
    rule: Bool[Tensor, "n n"], keys: Bool[Tensor, "b n"], dtype: torch.dtype
) -> Float[Tensor, "b 1 n n"]:
    """What to add to the attention logits for the rule and the valid keys.

    A finite fill, not -inf: a query with no valid key then averages over everything, as in the original, and gives no
    NaN.
    """
    allowed = rule.to(keys.device) & keys[:, None, None, :]
    zero = torch.zeros((), dtype=dtype, device=keys.device)
    return torch.where(allowed, zero, torch.finfo(dtype).min)
