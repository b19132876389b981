"""From the key-value cache of a language model's prefix to h: how a VLA without a readout token is read (eq. 17)."""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hildaft.types import HilDaftError


def pool_prefix(
    keys: Float[Tensor, "b t h d"], values: Float[Tensor, "b t h d"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, "b f"]:
    """Masked means of the last layer's keys and values over the prefix, one after the other: 2 * h * d numbers.

    H is the number of key-value heads, which is what a cache holds; under grouped-query attention there are fewer of
    them than attention heads. The mask says which tokens are meant: padding never is.

    Paper: Eq. 17.
    """
    weight = mask.to(keys.dtype)[:, :, None, None]
    # A sample without a single token has no mean; it gets zeros.
    count = weight.sum(1).clamp(min=1.0)
    pooled = [((kept * weight).sum(1) / count).flatten(1) for kept in (keys, values)]
    return torch.cat(pooled, 1)


def last_layer(cache: object) -> tuple[Float[Tensor, "b t h d"], Float[Tensor, "b t h d"]]:
    """Keys and values of the last layer as (batch, token, head, dim), from either layout of a cache.

    `transformers` keeps layers of (batch, head, token, dim); LeRobot before 0.5 kept a dict by layer number, of
    (batch, token, head, dim).

    Raises:
        HilDaftError: it is neither.
    """
    layers: Any = getattr(cache, "layers", None)
    if layers:
        keys, values = cast("tuple[Tensor, Tensor]", (layers[-1].keys, layers[-1].values))
        return keys.transpose(1, 2), values.transpose(1, 2)
    if isinstance(cache, dict) and cache:
        by_layer = cast("dict[int, dict[str, Tensor]]", cache)
        last = by_layer[max(by_layer)]
        if {"key_states", "value_states"} <= set(last):
            return last["key_states"], last["value_states"]
    msg = (
        f"key-value cache of type {type(cache).__name__}: one with layers, or a dict of key_states "
        "and value_states by layer, is expected; use LeRobot 0.6"
    )
    raise HilDaftError(msg)
