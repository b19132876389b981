"""The steps of an episode under way on disk, so that killing the process loses none. NumPy only.

One file of checksummed records: what is known before the first step, then the observations, each with the step before.
"""

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import dacite
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from hildaft.data.episode_builder import EpisodeBuilder, EpisodeHead, Labeller
from hildaft.data.episodes import unused
from hildaft.types import Episode, HilDaftError

_MAGIC: Final = b"HDJ1"
_FRAME: Final = struct.Struct("<4sII")


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupted:
    """An episode that an earlier process, or an error, has left in the journal."""

    head: EpisodeHead
    sequence: int
    """The number its writer gave it."""
    episode: Episode
    """Truncated at the last whole step, unless it had ended by then."""


@final
class JournalFile:
    """One episode at a time in one file; implements `episode_builder.Journal`. For one thread of one process.

    Raises:
        HilDaftError: the file cannot be written or read; what is stored stays.
    """

    def __init__(self, path: Path, label: Labeller, say: Callable[[str], None]) -> None:
        self.path: Final = path
        self._label, self._say = label, say
        self._open = False

    def begin(self, head: EpisodeHead, sequence: int = 0) -> None:
        """Starts an episode; whatever stands there is overwritten."""
        self.close()
        with self._usable():
            self._file = self.path.open("wb", buffering=0)
        self._open = True
        self._record(json.dumps({"sequence": sequence, **asdict(head)}).encode())

    def append(self, row: Mapping[str, np.ndarray]) -> None:
        """Adds one row: once this returns, killing the process does not lose it."""
        self._record(save_safetensors({k: np.ascontiguousarray(v) for k, v in row.items()}))

    def discard(self) -> None:
        """The episode under way is stored elsewhere, or of no use."""
        self.close()
        with self._usable():
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of the file; what stands there stays."""
        if self._open:
            self._file.close()
            self._open = False

    def replay(self) -> Interrupted | None:
        """The episode in the file, or None where no whole step is; one that cannot be understood is set aside."""
        if not self.path.exists():
            return None
        with self._usable():
            data = self.path.read_bytes()
        records = list(_records(data))
        whole = sum(_FRAME.size + len(record) for record in records)
        if whole < len(data):
            self._say(
                f"journal {self.path}: {len(data) - whole} damaged bytes at its end were cut off, "
                f"{max(0, len(records) - 2)} whole steps kept"
            )
        if len(records) < 3:
            return None
        try:
            return self._rebuild(records)
        except (ValueError, KeyError, TypeError, SafetensorError, dacite.DaciteError) as error:
            aside = unused(self.path.parent / "damaged" / self.path.name)
            with self._usable():
                aside.parent.mkdir(exist_ok=True)
                shutil.copy(self.path, aside)
            self._say(f"journal {self.path} cannot be understood ({error}); it is kept as {aside}")
            return None

    def _rebuild(self, records: list[bytes]) -> Interrupted:
        fields = cast(dict[str, Any], json.loads(records[0]))
        sequence = int(fields.pop("sequence"))
        head = dacite.from_dict(EpisodeHead, fields, dacite.Config(strict=True))
        builder = EpisodeBuilder(
            task=head.task,
            source=head.source,
            robot=head.robot,
            seed=head.seed,
            policy_version=head.policy_version,
            encoder_hash=head.encoder_hash,
            action_scale=head.action_scale,
        )
        for record in records[1:]:
            builder.restore(load_safetensors(record))
        builder.truncate()
        return Interrupted(head=head, sequence=sequence, episode=builder.build(self._label))

    def _record(self, payload: bytes) -> None:
        frame = _FRAME.pack(_MAGIC, len(payload), zlib.crc32(payload))
        # Unbuffered: a kill tears the record at most at its end, where the checksum shows it.
        left = memoryview(frame + payload)
        with self._usable():
            while left:
                # A disk that is almost full takes a part, without an error.
                left = left[self._file.write(left) :]

    @contextmanager
    def _usable(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            msg = (
                f"journal {self.path}: {error.strerror or error}; free space or mend its permissions, then start "
                "again (episodes already there are intact)"
            )
            raise HilDaftError(msg) from error


def _records(data: bytes) -> Iterator[bytes]:
    """Whole records from the start on, up to the first that is torn or damaged."""
    at = 0
    while at + _FRAME.size <= len(data):
        magic, length, crc = _FRAME.unpack_from(data, at)
        payload = data[at + _FRAME.size : at + _FRAME.size + length]
        if magic != _MAGIC or len(payload) != length or zlib.crc32(payload) != crc:
            return
        yield payload
        at += _FRAME.size + length
