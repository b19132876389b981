"""The optimiser of every network."""

from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor
from torch.optim.adam import adam


@final
class FusedAdam:
    """Adam in one kernel per step, over tensors that are fixed from the start.

    torch's own optimiser object looks all of them up anew at every step, which takes longer than
    the arithmetic of networks this small.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float) -> None:
        self.parameters: Final[list[Tensor]] = list(parameters)
        self._learning_rate = learning_rate
        self._steps = [torch.zeros((), device=p.device) for p in self.parameters]
        self._means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step; gradients come in the order of `parameters`, of the same sizes."""
        adam(
            self.parameters,
            [g.view_as(p) for g, p in zip(gradients, self.parameters, strict=True)],
            self._means,
            self._squares,
            [],
            self._steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Step count and moments of every parameter, by its number; not copies."""
        return {
            f"{row:02}.{name}": tensor
            for row, tensors in enumerate(zip(self._steps, self._means, self._squares, strict=True))
            for name, tensor in zip(("step", "exp_avg", "exp_avg_sq"), tensors, strict=True)
        }
