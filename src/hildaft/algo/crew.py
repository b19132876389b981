"""Several processes that are one learner, as `torchrun` starts them: each takes its share of every batch.

Every process holds the networks and the whole replay buffer and draws the same rows and the same noise. It computes the
gradient of its share; the mean over the processes is that of the whole batch, and every process takes the same
step. Process 0 alone knows robots and files; the others do as it tells.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Final, TypeVar, final

import torch
from torch import Tensor, distributed

from hildaft.data.replay import Batch, TalkTweakBatch
from hildaft.types import HilDaftError

_MEET: Final = timedelta(minutes=5)
"""Until all processes have started."""
_PATIENCE: Final = timedelta(days=30)
"""Nobody speaks while workers are awaited; a process that has died is noticed by its closed connection."""

Shared = TypeVar("Shared", Batch, TalkTweakBatch)


class Order(IntEnum):
    """What process 0 tells the others."""

    CONFIG = 0
    EPISODE = 1
    NORMALISE = 2
    STATE = 3
    WARM_UP = 4
    ONLINE = 5
    STOP = 6


@final
class Crew:
    """The processes of one learner; one process alone where nothing else is said.

    A context manager: process 0 sends the others home at its end.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, group: distributed.ProcessGroup | None = None
    ) -> None:
        self.rank: Final = rank
        """This process's number; 0 leads."""
        self.size: Final = size
        """Number of processes."""
        self._group = group

    @staticmethod
    def from_environment() -> "Crew":
        """The crew that `torchrun` has started this process in, or this process alone.

        Raises:
            HilDaftError: the processes do not find one another.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return Crew()
        with_cuda = torch.cuda.is_available()
        if with_cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        try:
            backend = "cpu:gloo,cuda:nccl" if with_cuda else "gloo"
            distributed.init_process_group(backend, timeout=_MEET)
            group = distributed.new_group(timeout=_PATIENCE, backend=backend)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            msg = f"WORLD_SIZE={size}: the learner's processes do not find one another ({reason}); start by torchrun"
            raise HilDaftError(msg) from error
        assert isinstance(group, distributed.ProcessGroup)
        return Crew(distributed.get_rank(), size, group)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.size > 1:
            with contextlib.suppress(HilDaftError):
                self.tell(Order.STOP)
            distributed.destroy_process_group()

    def share(self, batch: Shared) -> Shared:
        """This process's rows: every size-th one, so that demos and rollouts are shared alike."""
        if self.size == 1:
            return batch
        shared = {
            item.name: rows[:, self.rank :: self.size]
            for item in dataclasses.fields(batch)
            if isinstance(rows := getattr(batch, item.name), Tensor) and rows.dim() > 1
        }
        return dataclasses.replace(batch, **shared)

    def draw(
        self, sample: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int], rows: int = 1
    ) -> Tensor:
        """What `sample` draws for the whole batch, of which the rows (an axis of `shape`) are this process's."""
        if self.size == 1:
            return sample(tuple(shape))
        whole = [n * self.size if axis == rows else n for axis, n in enumerate(shape)]
        mine = torch.arange(self.rank, whole[rows], self.size)
        drawn = sample(tuple(whole))
        return drawn.index_select(rows, mine.to(drawn.device))

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes, without gradient where there are several."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        with self._together():
            distributed.all_reduce(total, group=self._group)
        return total / self.size

    def average(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The whole batch's gradients, from those of every process's share."""
        if self.size == 1:
            return gradients
        # One exchange, not one per tensor.
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]

    def tell(self, order: Order, payload: Callable[[], bytes] = bytes) -> None:
        """Process 0's word to the others; nothing where there are none, or from another process."""
        if self.size == 1 or self.rank > 0:
            return
        data = payload()
        self._spread(torch.tensor([int(order), len(data)]))
        if data:
            self._spread(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def hear(self) -> tuple[Order, bytes]:
        """The next word of process 0.

        Raises:
            HilDaftError: it is gone.
        """
        head = torch.zeros(2, dtype=torch.int64)
        self._spread(head)
        content = torch.empty(int(head[1]), dtype=torch.uint8)
        if len(content):
            self._spread(content)
        return Order(int(head[0])), content.numpy().tobytes()

    def _spread(self, content: Tensor) -> None:
        with self._together():
            distributed.broadcast(content, src=0, group=self._group)

    @contextlib.contextmanager
    def _together(self) -> Generator[None]:
        try:
            yield
        except RuntimeError as error:
            msg = (
                f"learner process {self.rank} of {self.size}: another one is gone "
                f"({str(error).splitlines()[0][:120]}); start all again with --resume"
            )
            raise HilDaftError(msg) from error
