"""What was imported into an episode folder: an import that was stopped goes on, and none is done twice."""

import hashlib
import json
import os
from typing import Any, Final, final

import numpy as np
from jaxtyping import Shaped

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


@final
class ImportLedger:
    """Lines of fingerprint and store number, each durable before its episode is written.

    A line whose episode was never written is taken over by the next one of the same number.

    Raises:
        HilDaftError: the file is damaged or cannot be written.
    """

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._path = store.folder / _FILE
        by_number: dict[int, str] = {}
        for line in self._lines():
            by_number[int(line["number"])] = str(line["episode"])
        there = set(store.indices)
        self._known = {name for number, name in by_number.items() if number in there}

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def append(self, name: str, episode: Episode) -> None:
        """Adds an episode to the store under this fingerprint."""
        number = max(self._store.indices, default=-1) + 1
        self._write(name, number)
        stored = self._store.append(episode)
        if stored != number:
            # A file that was set aside keeps its number.
            self._write(name, stored)
        self._known.add(name)

    def _write(self, name: str, number: int) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"episode": name, "number": number}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from error

    def _lines(self) -> list[dict[str, Any]]:
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
        except (ValueError, KeyError, TypeError) as error:
            msg = f"import ledger {self._path}: damaged ({error}); move it away to import everything anew"
            raise HilDaftError(msg) from error

    def _unusable(self, error: OSError) -> HilDaftError:
        return HilDaftError(
            f"import ledger {self._path}: {error.strerror}; mend that, then import again: it goes on"
        )


def _parsed(line: str) -> dict[str, Any]:
    values = json.loads(line)
    return {"number": int(values["number"]), "episode": str(values["episode"])}
