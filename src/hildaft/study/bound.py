"""Processes that end with the one that started them, even where that one is killed."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

_PR_SET_PDEATHSIG = 1


def start_bound(command: Sequence[str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts a process whose standard output and error go to `output`.

    On Linux it is told to end when this process dies, however that comes about: a learner that outlived its fleet
    would write beside the next one.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
