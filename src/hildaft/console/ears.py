"""What a page's microphone heard, turned into words beside the robot's loop."""

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final, final

import numpy as np
from jaxtyping import Int16

from hildaft.teleop.voice import LONGEST_S, SAMPLE_HZ, Heard, hear_recording, missing_voice
from hildaft.types import HilDaftError

MOST_BYTES: Final = int(LONGEST_S * SAMPLE_HZ) * 2


@final
class Ears:
    """Recognises recordings, one at a time, in a process of its own: it takes a core for up to a second.

    Args:
        hear: mono samples at 16 kHz to words.
        missing: why `hear` cannot be used here; "" where it can.
    """

    def __init__(
        self,
        hear: Callable[[Int16[np.ndarray, " n"]], Heard] = hear_recording,
        missing: str | None = None,
    ) -> None:
        self._hear = hear
        self.missing: Final = missing_voice() if missing is None else missing
        self._pool: ProcessPoolExecutor | None = None

    def open(self) -> None:
        """Starts the process while the person still speaks.

        Raises:
            HilDaftError: nothing can be recognised here.
        """
        if self.missing:
            raise HilDaftError(self.missing)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            self._pool.submit(self._hear, np.zeros(0, dtype=np.int16))

    async def hear(self, pcm: bytes) -> Heard:
        """The words of a recording (16-bit little-endian samples); nothing has acted on them.

        Raises:
            HilDaftError: nothing can be recognised here, or the recogniser has died.
        """
        self.open()
        assert self._pool is not None
        samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2").astype(np.int16)
        try:
            return await asyncio.wrap_future(self._pool.submit(self._hear, samples))
        except BrokenProcessPool as error:
            self.close()
            msg = "voice: the recogniser has died; say it once more, or type it"
            raise HilDaftError(msg) from error

    def close(self) -> None:
        """Ends the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
