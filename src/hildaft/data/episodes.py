"""The durable episode store: one self-checking file per episode, written whole or not at all.

NumPy only, so that the worker beside a robot can write what the learner reads.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from hildaft.data.episode_file import (
    FILE_NAME,
    EpisodeSummary,
    index_of,
    read_episode,
    read_summary,
    refuse,
    serialise_episode,
)
from hildaft.types import Episode, HilDaftError, Source

_TEMPORARY: Final = ".writing-"
_DAMAGED: Final = "damaged"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeProblem:
    """A file of the store that cannot be read, and why."""

    path: Path
    reason: str


class StoreBusyError(HilDaftError):
    """Nothing is wrong with the store: this process, or the machine, has too many files open just now."""


@final
class EpisodeStore:
    """A folder of episode files `000123-<task>-<source>.safetensors`, numbered from 0.

    Every method lists the folder anew, so another process sees what a writer has finished.
    Several processes may append: a lock file serialises them.

    Raises:
        HilDaftError: from every method, for a file that is damaged, foreign or newer than this
            version, and for a folder that cannot be read or written. What is stored stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error
        # Read-only media can hold no lock, and no half-written file that would need clearing.
        if os.access(folder, os.W_OK):
            with self._locked():
                self._clear_leftovers()

    def __len__(self) -> int:
        return len(self._scan())

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the stored episodes, ascending; a gap is left where a file was set aside."""
        return tuple(self._scan())

    def append(self, episode: Episode) -> int:
        """Writes one episode durably and returns its number; after an error all is as before."""
        return self.append_bytes(serialise_episode(episode), episode.task, episode.source)

    def append_bytes(self, payload: bytes, task: str, source: Source) -> int:
        """Writes an episode file that was serialised, and checked, elsewhere; otherwise as `append`."""
        with self._locked():
            index = self._next_index()
            label = re.sub(r"[^A-Za-z0-9_.]+", "_", task) or "_"
            path = self.folder / f"{index:06d}-{label}-{source}.safetensors"
            try:
                write_new(path, payload)
            except OSError as error:
                raise _unusable(self.folder, error) from error
        return index

    def read(self, index: int) -> Episode:
        """The episode of this number, checked against its checksum."""
        files = self._scan()
        if index not in files:
            msg = (
                f"episode index={index} is not in {self.folder}: {_span(files)}; pick one of these"
            )
            raise HilDaftError(msg)
        return read_episode(files[index])

    def iterate(self, since: int = 0) -> Iterator[tuple[int, Episode]]:
        """Numbers and episodes from number `since` on, ascending, as the folder is at the start."""
        for index, path in self._scan().items():
            if index >= since:
                yield index, read_episode(path)

    def summaries(self, since: int = 0) -> list[EpisodeSummary]:
        """The headers from number `since` on; array contents are not read or checked."""
        return [read_summary(i, path) for i, path in self._scan().items() if i >= since]

    def verify(self) -> list[EpisodeProblem]:
        """Reads everything and lists the files that cannot be used; none if all is whole."""
        problems: list[EpisodeProblem] = []
        seen: set[int] = set()
        for path in self._paths():
            with _collecting(problems, path):
                index = index_of(path)
                if index in seen:
                    raise refuse(path, f"number {index} is taken twice")
                seen.add(index)
                read_episode(path)
        return problems

    def set_aside(self, path: Path) -> Path:
        """Moves a file of this folder into `damaged/` and returns its new place."""
        target = self.folder / _DAMAGED / path.name
        with self._locked():
            try:
                target.parent.mkdir(exist_ok=True)
                if target.exists():
                    msg = f"{target} exists already: move it elsewhere, then try again"
                    raise HilDaftError(msg)
                path.rename(target)
                sync_folder(target.parent)
                sync_folder(self.folder)
            except OSError as error:
                raise _unusable(self.folder, error) from error
        return target

    def _paths(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            raise _unusable(self.folder, error) from error
        return [
            self.folder / name
            for name in names
            if name.endswith(".safetensors") and not name.startswith(_TEMPORARY)
        ]

    def _scan(self) -> dict[int, Path]:
        files: dict[int, Path] = {}
        for path in self._paths():
            index = index_of(path)
            if index in files:
                raise refuse(path, f"number {index} is taken by {files[index].name} too")
            files[index] = path
        return dict(sorted(files.items()))

    def _next_index(self) -> int:
        # Numbers of files set aside are not given out again: a number names one episode.
        aside = self.folder / _DAMAGED
        try:
            used = os.listdir(aside) if aside.is_dir() else []
        except OSError as error:
            raise _unusable(aside, error) from error
        used += [path.name for path in self._paths()]
        numbers = [int(match[1]) for name in used if (match := FILE_NAME.fullmatch(name))]
        return max(numbers, default=-1) + 1

    def _clear_leftovers(self) -> None:
        # Temporary files exist only under the lock, which a killed writer has lost.
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        try:
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _collecting(problems: list[EpisodeProblem], path: Path) -> Generator[None]:
    try:
        yield
    except HilDaftError as error:
        problems.append(EpisodeProblem(path=path, reason=str(error)))


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: a rename is, only once its folder has been synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes) -> None:
    """Makes a file that is not there yet, durably and whole; after an OSError there is none."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError:
        # The renamed one too: where the folder could not be synced, the caller will make it again.
        for leftover in (temporary, path):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
        raise


def unused(path: Path) -> Path:
    """This path; where something stands there already, one beside it with a number."""
    numbers = itertools.count(1)
    free = path
    while free.exists():
        free = path.with_name(f"{path.stem}-{next(numbers)}{path.suffix}")
    return free


def _span(files: Mapping[int, Path]) -> str:
    return f"it holds numbers {min(files)} to {max(files)}" if files else "it is empty"


def _unusable(folder: Path, error: OSError) -> HilDaftError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StoreBusyError(
            f"episode folder {folder}: {error.strerror}; raise the limit with `ulimit -n` where this stays "
            "(episodes already stored are intact)"
        )
    return HilDaftError(
        f"episode folder {folder}: {error.strerror or error}; free space or mend its permissions, "
        "then start again (episodes already stored are intact)"
    )
