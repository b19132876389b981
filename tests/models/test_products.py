"""oneDNN's products against torch's own: values, gradients, and every layout they meet."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hildaft.models import products
from hildaft.models.products import Linear, attention, grouped_linear, linear, linear_gelu

pytestmark = pytest.mark.skipif(
    products.ONEDNN is None, reason="this machine multiplies by MKL alone"
)

SIZE = st.integers(1, 24)
SEED = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def every_product_by_onednn() -> Iterator[None]:
    """Small ones too, for the length of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "WORTH", 0)
        yield


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed % 2**32))


def gradients(out: Tensor, inputs: list[Tensor], seed: int) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, inputs, drawn(seed + 9, *out.shape))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@given(SIZE, SIZE, SIZE, st.booleans(), SEED)
def test_linear_is_torchs_in_value_and_gradient(
    rows: int, inputs: int, outputs: int, biased: bool, seed: int
) -> None:
    x, weight = drawn(seed, 2, rows, inputs), drawn(seed + 1, outputs, inputs)
    leaves = [x, weight, *([drawn(seed + 2, outputs)] if biased else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    ours, theirs = linear(*leaves), nn.functional.linear(*leaves)
    assert ours.grad_fn is not None
    assert_close(ours, theirs)
    for own, other in zip(
        gradients(ours, leaves, seed), gradients(theirs, leaves, seed), strict=True
    ):
        assert_close(own, other)


@given(st.integers(1, 5), SIZE, SIZE, SIZE, st.booleans(), SEED)
def test_grouped_linear_is_torchs_in_value_and_gradient(
    groups: int, rows: int, inputs: int, outputs: int, biased: bool, seed: int
) -> None:
    x, weight = drawn(seed, groups, rows, inputs), drawn(seed + 1, groups, inputs, outputs)
    leaves = [x, weight, *([drawn(seed + 2, groups, 1, outputs)] if biased else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    ours = grouped_linear(*leaves)
    theirs = torch.bmm(x, weight) if not biased else torch.baddbmm(leaves[2], x, weight)
    assert_close(ours, theirs)
    for own, other in zip(
        gradients(ours, leaves, seed), gradients(theirs, leaves, seed), strict=True
    ):
        assert_close(own, other)


def test_layouts_with_gaps_are_multiplied_right() -> None:
    wide = drawn(0, 40, 60)
    x = drawn(1, 60, 7).t()[:, 5:35]
    for weight in (wide[::2, 5:35], wide[:, 5:35], wide.t()[5:35].t(), wide[3:4, 5:35]):
        assert_close(linear(x, weight), nn.functional.linear(x, weight))
    x.requires_grad_()
    # The gradient of a sum is one number seen everywhere.
    for multiply in (linear, nn.functional.linear):
        (grad,) = torch.autograd.grad(multiply(x, wide[:, 5:35]).sum(), x)
        assert_close(grad, wide[:, 5:35].sum(0).expand(7, 30))


@given(st.integers(1, 3), SIZE, st.integers(1, 4), SEED)
def test_linear_gelu_is_torchs(rows: int, inputs: int, outputs: int, seed: int) -> None:
    x, weight, bias = (
        drawn(seed, 2, rows, inputs),
        drawn(seed + 1, outputs, inputs),
        drawn(seed, outputs),
    )
    theirs = nn.functional.gelu(nn.functional.linear(x, weight, bias), approximate="tanh")
    assert_close(linear_gelu(x, weight, bias), theirs)
    assert_close(linear_gelu(x.requires_grad_(), weight, bias), theirs)


@given(st.integers(1, 3), st.integers(1, 3), SIZE, SIZE, SIZE, st.booleans(), SEED)
def test_attention_is_torchs(
    batch: int, heads: int, queries: int, keys: int, width: int, shared: bool, seed: int
) -> None:
    query = drawn(seed, batch, heads, queries, width)
    # As a model cuts them out of one product: with gaps.
    key, value = drawn(seed + 1, batch, keys, 2, heads, width).permute(2, 0, 3, 1, 4)
    hidden = drawn(seed + 2, 1 if shared else batch, 1, queries, keys) > 0.8
    # A query that may look nowhere averages over everything, as in Octo.
    bias = hidden.float() * torch.finfo(torch.float32).min
    theirs = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    assert_close(attention(query, key, value, bias), theirs)
    assert_close(attention(query.requires_grad_(), key, value, bias), theirs)


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    x, weight = drawn(0, 5, 6).requires_grad_(), drawn(1, 4, 6)
    (grad,) = torch.autograd.grad(linear(x, weight).sum(), x)
    assert grad.shape == x.shape
    with torch.no_grad():
        assert not linear(x, weight).requires_grad
    assert not linear(x.detach(), weight).requires_grad


def test_other_precisions_are_left_to_torch() -> None:
    x, weight = drawn(0, 30, 6).double(), drawn(1, 4, 6).double()
    assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    x = drawn(0, 5, 6).requires_grad_()
    (grad,) = torch.autograd.grad(linear(x, drawn(1, 4, 6)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_layer_has_the_parameters_of_torchs() -> None:
    torch.manual_seed(0)
    ours = Linear(6, 4)
    torch.manual_seed(0)
    theirs = nn.Linear(6, 4)
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours(drawn(0, 3, 6)), theirs(drawn(0, 3, 6)))
    assert torch.equal(ours.weight, theirs.weight)
