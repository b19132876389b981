"""What was imported into an episode folder: an import that was stopped goes on, and none is done twice."""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Shaped

from hildaft.data.episode_file import checksum_of, read_checksum, serialise_episode
from hildaft.data.episodes import EpisodeStore
from hildaft.types import Episode, HilDaftError

_FILE: Final = "imported.jsonl"


def fingerprint(task: str, *arrays: Shaped[np.ndarray, "..."]) -> str:
    """Identity of an episode by what was done in it, wherever its dataset lies."""
    digest = hashlib.sha256(task.encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def digest_of(*meaning: object) -> str:
    """Identity of what decided how an episode was read: a mapping of ours, its task.

    Fields at their defaults do not count, so that a later version may have more of them.
    """
    text = json.dumps([_plain(value) for value in meaning], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any mapping's field
    if dataclasses.is_dataclass(value):
        given = {f.name: (getattr(value, f.name), f) for f in dataclasses.fields(value)}
        return {name: _plain(v) for name, (v, f) in given.items() if v != _default(f)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:  # noqa: ANN401 - of any field
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One import: the dataset's episode, where it went, and how."""

    episode: str
    """Its fingerprint."""
    number: int
    """It got this number in the store, or a higher one where numbers were taken."""
    crc32: str | None = None
    """Of the file that it became: a number can be another episode's by now. None in ledgers of before."""
    mapping: str = ""
    """`digest_of` the mapping it was read with; empty in ledgers of before."""


@final
class ImportLedger:
    """Lines of fingerprint, store number, checksum and mapping, each durable before its episode is written.

    A line counts where the store holds its file. One without a checksum, of a version that wrote none, counts where
    the store holds its number and no later line took that over.

    Raises:
        HilDaftError: the file is damaged or cannot be written.
    """

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._path = store.folder / _FILE
        lines = self._lines()
        self._known = self._by_checksum([line for line in lines if line.crc32 is not None])
        there = set(store.indices)
        last = {line.number: line for line in lines}
        self._known |= {
            line.episode: line
            for line in last.values()
            if line.crc32 is None and line.number in there
        }

    def has(self, name: str, mapping: str) -> bool:
        """Whether an episode was imported; `mapping` is the digest of the one to import it with.

        Raises:
            HilDaftError: it was, but with another mapping.
        """
        line = self._known.get(name)
        if line is not None and line.mapping not in ("", mapping):
            msg = (
                f"episode folder {self._store.folder}: episode {line.number} was imported into it with another mapping,"
                " or frame rate; what is there stays: import everything into a new folder, with another --out"
            )
            raise HilDaftError(msg)
        return line is not None

    def append(self, name: str, episode: Episode, mapping: str) -> None:
        """Adds an episode to the store under this fingerprint."""
        payload = serialise_episode(episode)
        line = _Line(
            episode=name,
            number=max(self._store.indices, default=-1) + 1,
            crc32=checksum_of(payload),
            mapping=mapping,
        )
        self._write(line)
        stored = self._store.append_bytes(payload, episode.task, episode.source)
        self._known[name] = dataclasses.replace(line, number=stored)

    def _by_checksum(self, lines: list[_Line]) -> dict[str, _Line]:
        """Lines whose file is there; each file is one line's, also where two episodes are equal to the byte."""
        if not lines:
            return {}
        files: dict[str, list[int]] = {}
        for summary in self._store.summaries():
            files.setdefault(read_checksum(summary.path), []).append(summary.index)
        known: dict[str, _Line] = {}
        for line in lines:
            numbers = files.get(line.crc32 or "", [])
            place = next((n for n in numbers if n >= line.number), None)
            if line.episode not in known and place is not None:
                numbers.remove(place)
                known[line.episode] = dataclasses.replace(line, number=place)
        return known

    def _write(self, line: _Line) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(line)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from error

    def _lines(self) -> list[_Line]:
        try:
            text = self._path.read_text(encoding="utf-8")
            whole, cut = text.rpartition("\n")[:2], text.rpartition("\n")[2]
            if cut:
                # Killed while it was written; its episode was not.
                os.truncate(self._path, len("".join(whole).encode()))
            return [_parsed(line) for line in "".join(whole).splitlines()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"import ledger {self._path}: damaged ({error}); move it away to import everything anew"
            raise HilDaftError(msg) from error

    def _unusable(self, error: OSError) -> HilDaftError:
        return HilDaftError(
            f"import ledger {self._path}: {error.strerror}; mend that, then import again: it goes on"
        )


def _parsed(line: str) -> _Line:
    values = json.loads(line)
    crc32 = values.get("crc32")
    return _Line(
        episode=str(values["episode"]),
        number=int(values["number"]),
        crc32=None if crc32 is None else str(crc32),
        mapping=str(values.get("mapping", "")),
    )
