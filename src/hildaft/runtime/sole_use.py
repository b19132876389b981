"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hildaft.types import HilDaftError


@contextmanager
def sole_use(folder: Path, what: str, who: str) -> Generator[None]:
    """Keeps others who ask the same out of a folder, until this block or this process ends, however it ends.

    Args:
        folder: exists.
        what: the folder, in messages.
        who: uses it, in messages.

    Raises:
        HilDaftError: somebody else uses it, or it cannot be written.
    """
    try:
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        msg = f"{what} {folder}: {error.strerror}; mend its permissions, or give another --out"
        raise HilDaftError(msg) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            number = lock.read(20).strip()
            msg = f"{what} {folder}: another {who} uses it (process {number}); stop that one, or give another --out"
            raise HilDaftError(msg) from error
        # Who it is that others find here.
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
