"""Single-precision matrix products at the rate the processor has.

For these torch calls MKL, which on a processor that is not Intel's leaves half of the AVX-512 units idle; oneDNN, which
every torch for x86 brings along for its convolutions, uses them all. The results differ in rounding only.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.nn import functional as F

_Gradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]

WORTH: Final = 1 << 21
"""Multiply-adds from which a product repays the 9 us by which a call of oneDNN takes longer than one of MKL."""


def _onednn() -> Callable[..., Tensor] | None:
    """The product of oneDNN, where it is there and has something to win; torch has no public name for it."""
    if not torch.backends.mkldnn.is_available():
        return None
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None if operator is None else operator.default


ONEDNN: Final = _onednn()
"""None where torch's own products are the best there are."""


@final
class Linear(nn.Linear):
    """`nn.Linear` by `linear`: same parameters, same names."""

    def forward(self, input: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The product, plus the bias where there is one."""
        return linear(input, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*b i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "*b o"]:
    """`torch.nn.functional.linear`."""
    if not _pays(x, x.numel() * len(weight)):
        return F.linear(x, weight, bias)
    if _tracked(x, weight, bias):
        return _Product.apply(x, weight, bias)
    return _product(x, weight, bias)


def grouped_linear(
    x: Float[Tensor, "g b i"],
    weight: Float[Tensor, "g i o"],
    bias: Float[Tensor, "g 1 o"] | None = None,
) -> Float[Tensor, "g b o"]:
    """`torch.bmm(x, weight) + bias`: one product per group; groups of a few rows go to MKL together."""
    _, rows, inputs = x.shape
    if not _pays(x, rows * inputs * weight.shape[2]):
        return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
    if _tracked(x, weight, bias):
        return _GroupedProduct.apply(x, weight, bias)
    return _grouped_product(x, weight, bias)


def linear_gelu(
    x: Float[Tensor, "*b i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]
) -> Float[Tensor, "*b o"]:
    """`linear`, then the tanh form of GELU; without a gradient in one pass, where torch's own GELU takes long."""
    if ONEDNN is None or not _pays(x, x.numel() * len(weight)) or _tracked(x, weight, bias):
        return F.gelu(linear(x, weight, bias), approximate="tanh")
    return ONEDNN(x, _dense(weight), bias, "gelu", [], "tanh")


def attention(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    bias: Float[Tensor, "#b 1 q k"],
) -> Float[Tensor, "b h q d"]:
    """`scaled_dot_product_attention`; without a gradient the products go head by head, where they are large."""
    _, _, queries, width = query.shape
    if not _pays(query, queries * width * key.shape[2]) or _tracked(query, key, value, bias):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    scale = width**-0.5
    mixed: list[Tensor] = []
    for *heads, one_bias in zip(
        query, key, value, bias.expand(len(query), -1, -1, -1), strict=True
    ):
        for q, k, v in zip(*heads, strict=True):
            weight = torch.softmax(_product(q, k).mul_(scale).add_(one_bias[0]), dim=-1)
            mixed.append(_product(weight, v.t()))
    return torch.stack(mixed).unflatten(0, query.shape[:2])


@final
class _Product(torch.autograd.Function):
    """`linear` with its gradients, each of which is a product again."""

    @staticmethod
    def forward(ctx: BackwardCFunction, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    # The decorator's stub makes the first parameter positional only.
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: BackwardCFunction, *grad_outputs: Tensor
    ) -> _Gradients:
        (grad,) = grad_outputs
        (x, weight), (of_x, of_weight, of_bias) = _kept(ctx)
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if of_x else None,
            _product(rows.t(), x.flatten(0, -2).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


@final
class _GroupedProduct(torch.autograd.Function):
    """`grouped_linear` with its gradients."""

    @staticmethod
    def forward(ctx: BackwardCFunction, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _grouped_product(x, weight, bias)

    @staticmethod
    @once_differentiable
    # The decorator's stub makes the first parameter positional only.
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: BackwardCFunction, *grad_outputs: Tensor
    ) -> _Gradients:
        (grad,) = grad_outputs
        (x, weight), (of_x, of_weight, of_bias) = _kept(ctx)
        return (
            _grouped_product(grad, weight.transpose(1, 2)) if of_x else None,
            _grouped_product(x.transpose(1, 2), grad) if of_weight else None,
            grad.sum(1, keepdim=True) if of_bias else None,
        )


def _kept(ctx: BackwardCFunction) -> tuple[tuple[Tensor, ...], tuple[bool, ...]]:
    """The saved tensors, and of which inputs the gradient is wanted; torch's stubs give both one element."""
    return ctx.saved_tensors, ctx.needs_input_grad


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    assert ONEDNN is not None
    return ONEDNN(x, _dense(weight), bias, "none", [], "")


def _grouped_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    shifts = [None] * len(x) if bias is None else bias.squeeze(1).unbind()
    groups = zip(x.unbind(), weight.transpose(1, 2).unbind(), shifts, strict=True)
    return torch.stack([_product(*group) for group in groups])


def _dense(weight: Tensor) -> Tensor:
    """Without gaps between its rows or between its columns, as oneDNN wants it."""
    if weight.is_contiguous() or weight.t().is_contiguous():
        return weight
    return weight.contiguous()


def _pays(x: Tensor, multiply_adds: int) -> bool:
    if ONEDNN is None or multiply_adds < WORTH:
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32


def _tracked(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
