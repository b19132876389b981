"""Which rows of the replay's tensors a buffer holds, as tensors to draw from."""

from collections import deque
from typing import Final, final

import torch
from jaxtyping import Int
from torch import Tensor

FAIR_ROWS: Final = 256
"""Rows of a buffer from which on a robot counts as much as any other; below, in proportion to its rows."""


@final
class RowIndex:
    """Row numbers of one buffer of every task, as a tensor to draw from.

    Rows lie robot by robot. A uniform number picks the robot by its share and, by what is left, the row: where
    there is one robot this is the plain uniform draw.
    """

    def __init__(self, tasks: int, capacity: int, device: torch.device) -> None:
        self._rows = torch.zeros(tasks, capacity, dtype=torch.int64, device=device)
        self._shares: list[tuple[Tensor, Tensor]] = [
            (torch.tensor([0.0, 1.0], device=device), torch.zeros(2, device=device))
        ] * tasks
        self._edges = torch.zeros(tasks, 2, device=device)
        """Where each robot's share of [0, 1] begins, and the end of the last; then nothing that can be reached."""
        self._starts = torch.zeros(tasks, 2, device=device)
        """Where each robot's rows begin, and the end of the last."""

    def rebuild(self, task: int, rows: deque[int], robots: Int[Tensor, " rows"]) -> None:
        """Takes over a task's rows; `robots` is the number of every row's robot."""
        index = torch.tensor(list(rows), dtype=torch.int64, device=self._rows.device)
        of_robot = robots[index]
        order = torch.argsort(of_robot, stable=True)
        self._rows[task, : len(rows)] = index[order]
        counts = torch.bincount(of_robot)
        counts = counts[counts > 0].float()
        shares = counts.clamp(max=FAIR_ROWS)
        zero = counts.new_zeros(1)
        edges = torch.cat([zero, shares.cumsum(0) / shares.sum()])
        # Rounding may leave it a little lower, and a number above it without a robot.
        edges[-1] = 1.0
        self._shares[task] = (edges, torch.cat([zero, counts.cumsum(0)]))
        pad = torch.nn.utils.rnn.pad_sequence
        self._edges = pad([e for e, _ in self._shares], batch_first=True, padding_value=2.0)
        self._starts = pad([s for _, s in self._shares], batch_first=True)

    def draw(
        self, tasks: Int[Tensor, " k"], count: int, generator: torch.Generator
    ) -> Int[Tensor, "k count"]:
        """Rows of the given tasks, none of which may be empty."""
        share = torch.rand(len(tasks), count, generator=generator, device=self._rows.device)
        edges, starts = self._edges[tasks], self._starts[tasks]
        robot = torch.searchsorted(edges, share, right=True) - 1
        low, high = edges.gather(1, robot), edges.gather(1, robot + 1)
        first = starts.gather(1, robot)
        held = starts.gather(1, robot + 1) - first
        # The product may round up to the count itself.
        within = torch.minimum(((share - low) / (high - low) * held).long(), held.long() - 1)
        return self._rows[tasks.unsqueeze(1), first.long() + within]
