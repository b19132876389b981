"""What a worker has made and the learner has not yet confirmed: on disk, numbered, checksummed.

Layout of `FOLDER/RUN/`: `journal` holds the steps of the episode under way, one checksummed record each;
`000000000012.safetensors` a finished episode, number 12 of this spool, until the learner confirms it;
`000000000011.acknowledged` says how far the learner has confirmed; `refused/` and `damaged/` keep what could not
be delivered. `FOLDER/identity` names the spool: a new spool is a new worker, so no number is ever given out twice.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, final

import numpy as np

from hildaft.data.episode_builder import EpisodeHead
from hildaft.data.episode_file import Origin, parse_episode, serialise_episode
from hildaft.data.episodes import sync_folder, unused, write_new
from hildaft.data.journal import JournalFile
from hildaft.runtime.link.wire import is_name, require_run_name, require_worker_name
from hildaft.teleop.talk import label_tweaks
from hildaft.types import Episode, HilDaftError

BUDGET_BYTES: Final = 8 << 30
"""Disk a spool may take; about 4,000 episodes of the bench."""
KEEP_FREE_BYTES: Final = 256 << 20
"""Disk that must stay free for everybody else."""

_EPISODE, _ACKNOWLEDGED = ".safetensors", ".acknowledged"
_NUMBER: Final = re.compile(r"\d{12,}")


class SpoolBusyError(Exception):
    """An episode cannot be read just now, such as with too many files open; trying again may help."""


@final
class Spool:
    """Keeps a worker's episodes until they are confirmed; implements the builder's `Journal`. Thread-safe.

    Opening it finishes what a kill interrupted: an online episode under way becomes a shorter one, truncated at
    its last whole step. A torn record at the journal's end is cut off. Both are said through `say`.

    Raises:
        HilDaftError: the folder cannot be used, another process has it open, or the disk is full; what is
            stored stays.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        name: str,
        *,
        say: Callable[[str], None],
        budget_bytes: int = BUDGET_BYTES,
        keep_free_bytes: int = KEEP_FREE_BYTES,
    ) -> None:
        require_worker_name(name)
        require_run_name(run)
        self.folder: Final = folder / run
        self._say, self._budget_bytes, self._keep_free_bytes = say, budget_bytes, keep_free_bytes
        self._lock = threading.RLock()
        self._journal = JournalFile(self.folder / "journal", label_tweaks, say)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim(folder)
            self.worker: Final = f"{name}.{_identity(folder / 'identity')}"
            self._sizes = {
                int(path.stem): path.stat().st_size
                for path in self.folder.glob(f"[0-9]*{_EPISODE}")
            }
            self._last = max((self.acknowledged, *self._sizes, *self._aside()))
            self.recover()
        except OSError as error:
            raise self._unusable(error) from error

    @property
    def acknowledged(self) -> int:
        """The last number the learner has confirmed; 0 before the first."""
        return max((int(p.stem) for p in self.folder.glob(f"*{_ACKNOWLEDGED}")), default=0)

    @property
    def bytes_used(self) -> int:
        """Size of the finished episodes that wait."""
        with self._lock:
            return sum(self._sizes.values())

    @property
    def shortage(self) -> str | None:
        """Why no further episode should be begun; None while there is room."""
        used = self.bytes_used
        if used >= self._budget_bytes:
            return (
                f"spool {self.folder}: {len(self.pending())} episodes ({used >> 20} MiB) wait for the learner, "
                f"{self._budget_bytes >> 20} MiB are allowed; the robot holds until the learner takes them "
                "(raise --spool-gib to go on)"
            )
        free = shutil.disk_usage(self.folder).free
        if free < self._keep_free_bytes:
            return (
                f"spool {self.folder}: {free >> 20} MiB of disk are free, {self._keep_free_bytes >> 20} MiB must stay; "
                "the robot holds until there is room"
            )
        return None

    def pending(self) -> list[int]:
        """Numbers of the finished episodes that wait, ascending."""
        with self._lock:
            return sorted(self._sizes)

    def start_after(self, sequence: int) -> None:
        """Tells how far the learner is: what it holds is dropped here, and numbers go on after it."""
        with self._lock:
            self._last = max(self._last, sequence)
            if sequence > self.acknowledged:
                self.acknowledge(sequence)

    def begin(self, head: EpisodeHead) -> None:
        """Starts the journal of an episode; one that an error left there is finished first."""
        with self._lock:
            self.recover()
            self._journal.begin(head, self._last + 1)

    def append(self, row: Mapping[str, np.ndarray]) -> None:
        """Adds one row to the journal: once this returns, killing the process does not lose it."""
        self._journal.append(row)

    def commit(self, episode: Episode) -> int:
        """Makes a finished episode durable, gives it its number and clears the journal."""
        with self._lock:
            sequence = self._last + 1
            payload = serialise_episode(episode, Origin(worker=self.worker, sequence=sequence))
            try:
                write_new(self._path(sequence), payload)
            except OSError as error:
                raise self._unusable(error) from error
            self._last = sequence
            self._sizes[sequence] = len(payload)
            self.discard()
            return sequence

    def discard(self) -> None:
        """Drops the episode under way, such as a demonstration that failed."""
        with self._lock:
            self._journal.discard()

    def read(self, sequence: int) -> bytes | None:
        """The bytes of an episode that waits; None where there are none (any more).

        A damaged one is set aside and said aloud; one that was confirmed meanwhile is no news.

        Raises:
            SpoolBusyError: it cannot be read now, which says nothing of the episode.
        """
        path = self._path(sequence)
        try:
            payload = path.read_bytes()
            parse_episode(sequence, path, payload)
        except FileNotFoundError:
            self._forget(sequence)
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                msg = f"spool {self.folder}: episode {sequence} cannot be read now ({error.strerror or error})"
                raise SpoolBusyError(msg) from error
            self._set_aside(sequence, "damaged", str(error))
            return None
        except HilDaftError as error:
            self._set_aside(sequence, "damaged", str(error))
            return None
        return payload

    def acknowledge(self, sequence: int) -> None:
        """The learner holds everything up to this number: frees the disk."""
        with self._lock:
            marker = self.folder / f"{sequence:012d}{_ACKNOWLEDGED}"
            try:
                marker.touch()
                sync_folder(self.folder)
                for old in self.folder.glob(f"*{_ACKNOWLEDGED}"):
                    if int(old.stem) < sequence:
                        old.unlink()
                for done in [number for number in self.pending() if number <= sequence]:
                    self._path(done).unlink(missing_ok=True)
                    del self._sizes[done]
            except OSError as error:
                raise self._unusable(error) from error

    def refuse(self, sequence: int, reason: str) -> None:
        """Keeps an episode that the learner will not take apart from the rest, and says so."""
        self._set_aside(sequence, "refused", reason)

    def recover(self) -> None:
        """Finishes the episode whose journal an earlier process, or an error, has left."""
        with self._lock:
            episode = self._interrupted()
            if episode is None:
                self.discard()
            else:
                sequence = self.commit(episode)
                self._say(
                    f"episode {sequence} was interrupted after {len(episode)} steps and is kept as truncated there"
                )

    def _interrupted(self) -> Episode | None:
        left = self._journal.replay()
        # One that was committed already was killed before its journal was cleared.
        if left is None or left.sequence <= self._last:
            return None
        if left.episode.source == "demo" and not left.episode.success:
            self._say("an unfinished demonstration was dropped: only whole ones are demonstrations")
            return None
        return left.episode

    def _set_aside(self, sequence: int, where: str, reason: str) -> None:
        with self._lock:
            # Confirmed meanwhile: the learner holds it, and nothing is left to keep.
            if self._sizes.pop(sequence, None) is None:
                return
            try:
                (self.folder / where).mkdir(exist_ok=True)
                target = unused(self.folder / where / self._path(sequence).name)
                self._path(sequence).rename(target)
            except OSError as error:
                raise self._unusable(error) from error
        self._say(f"episode {sequence} is kept as {target} and not delivered: {reason}")

    def _forget(self, sequence: int) -> None:
        with self._lock:
            gone = self._sizes.pop(sequence, None)
        if gone is not None:
            self._say(
                f"episode {sequence} is gone and not delivered: somebody removed {self._path(sequence)}"
            )

    def _aside(self) -> list[int]:
        """Numbers of the episodes that could not be delivered: they are not given out again."""
        kept = [path for where in ("refused", "damaged") for path in self.folder.glob(f"{where}/*")]
        return [int(match[0]) for path in kept if (match := _NUMBER.match(path.name))]

    def _path(self, sequence: int) -> Path:
        return self.folder / f"{sequence:012d}{_EPISODE}"

    def _claim(self, folder: Path) -> None:
        # Held until the process ends, however it ends.
        self._claimed = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._claimed)
            msg = f"spool {folder}: another worker uses it; stop that one, or name another with --spool"
            raise HilDaftError(msg) from error
        for leftover in self.folder.glob(".writing-*"):
            leftover.unlink()

    def close(self) -> None:
        """Lets go of the folder; what waits stays."""
        with self._lock:
            self._journal.close()
            os.close(self._claimed)

    def _unusable(self, error: OSError) -> HilDaftError:
        return HilDaftError(
            f"spool {self.folder}: {error.strerror or error}; free space or mend its permissions, then start "
            "again (episodes already there are intact)"
        )


def _identity(path: Path) -> str:
    if not path.exists():
        write_new(path, secrets.token_hex(4).encode())
    identity = path.read_text(encoding="ascii", errors="replace")
    if not is_name(identity):
        msg = (
            f"spool identity {path}: {identity[:60]!r} is no name; write what `hildaft status` shows after this "
            "worker's dot into it, or name another folder with --spool"
        )
        raise HilDaftError(msg)
    return identity
