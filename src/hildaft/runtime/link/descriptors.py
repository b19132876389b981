"""How many files and sockets a learner may have open: anybody who reaches its port can take one each."""

import contextlib
import resource
from typing import Final

_WANTED: Final = 4_096
"""Enough for every connection, the stores and the networks' files."""


def raise_file_limit() -> int:
    """Raises this process's limit on open files to what is wanted, where that is allowed; returns how many it gets.

    A higher limit is left as it is, and so is one that may not be raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _WANTED:
        return _WANTED
    most = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
