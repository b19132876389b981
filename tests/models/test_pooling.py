from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hildaft.models.pooling import last_layer, pool_prefix
from hildaft.types import HilDaftError


def cache_tensors(b=2, t=5, h=3, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, t, h, d, generator=generator) for _ in range(2))


def test_hand_computed_means():
    keys = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]], [[100.0, 100.0]]]])
    mask = torch.tensor([[True, True, False]])
    found = pool_prefix(keys, -10 * keys, mask)
    torch.testing.assert_close(found, torch.tensor([[2.0, 3.0, -20.0, -30.0]]))


@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99)
)
def test_masked_tokens_do_not_count_and_the_order_is_head_then_dim(b, t, h, d, seed):
    keys, values = cache_tensors(b, t, h, d, seed)
    mask = torch.rand(b, t, generator=torch.Generator().manual_seed(seed)) < 0.6
    found = pool_prefix(keys, values, mask)
    assert found.shape == (b, 2 * h * d)
    noisy = keys + 7.0 * (~mask)[:, :, None, None]
    torch.testing.assert_close(pool_prefix(noisy, values, mask), found)
    for row in range(b):
        kept = keys[row, mask[row]]
        expected = kept.mean(0).flatten() if len(kept) else torch.zeros(h * d)
        torch.testing.assert_close(found[row, : h * d], expected)
    together = pool_prefix(keys, values, torch.ones(b, t, dtype=torch.bool))
    torch.testing.assert_close(together[:, h * d :], values.mean(1).flatten(1))


def test_both_layouts_of_a_cache_give_the_same():
    first, last = cache_tensors(seed=1), cache_tensors(seed=2)
    new = SimpleNamespace(
        layers=[
            SimpleNamespace(keys=k.transpose(1, 2), values=v.transpose(1, 2))
            for k, v in (first, last)
        ]
    )
    old = {i: {"key_states": k, "value_states": v} for i, (k, v) in enumerate((first, last))}
    for cache in (new, dict(reversed(old.items()))):
        keys, values = last_layer(cache)
        assert torch.equal(keys, last[0])
        assert torch.equal(values, last[1])


def test_a_cache_of_transformers_is_read():
    from transformers import DynamicCache

    cache, (keys, values) = DynamicCache(), cache_tensors()
    for layer in range(2):
        cache.update((layer + keys).transpose(1, 2), values.transpose(1, 2), layer)
    found = last_layer(cache)
    assert torch.equal(found[0], 1 + keys)
    assert torch.equal(found[1], values)


@pytest.mark.parametrize("cache", [None, {}, {0: {"keys": 1}}, SimpleNamespace(layers=[])])
def test_other_caches_are_named(cache):
    with pytest.raises(HilDaftError, match="key-value cache of type"):
        last_layer(cache)
