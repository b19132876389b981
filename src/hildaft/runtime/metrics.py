"""Metrics of a run: append-only JSON lines, mirrored into TensorBoard event files."""

import json
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast, final

from tensorboardX import SummaryWriter

from hildaft.types import HilDaftError

FILE_NAME: Final = "metrics.jsonl"
RESUMED: Final = "resumed"
"""Key of the first row of a process that goes on with a run: before it nothing ran for a while."""


@final
class MetricsWriter:
    """Writes `metrics.jsonl` and `tensorboard/` in a run folder; a resumed run appends to both.

    A line torn by a kill is cut off when the file is opened again. Several threads may write.

    Raises:
        HilDaftError: if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _mend(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            self._resumed = self._path.stat().st_size > 0
        except OSError as error:
            raise _unusable(self._path, error) from error
        # The suffix keeps two writers of one second from sharing a file.
        self._board = SummaryWriter(
            str(folder / "tensorboard"), filename_suffix=f".{time.time_ns()}"
        )

    def write(self, step: int, updates: int, metrics: Mapping[str, float]) -> None:
        """Appends one row; `step` counts online transitions, `updates` critic updates."""
        now = time.time()
        # JSON has no NaN; null says as plainly that there was no value.
        values = {name: float(v) if math.isfinite(v) else None for name, v in metrics.items()}
        row = {"step": step, "time": now, "updates": updates, **values}
        with self._lock:
            mark = {RESUMED: True} if self._resumed else {}
            self._resumed = False
            try:
                self._file.write(json.dumps(row | mark) + "\n")
                self._file.flush()
            except OSError as error:
                raise _unusable(self._path, error) from error
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step, walltime=now)

    def close(self) -> None:
        """Flushes and closes both; safe to call more than once."""
        with self._lock:
            self._file.close()
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Rows of a run folder's `metrics.jsonl`, oldest first; empty if there is no such file.

    A torn last line is left out; null values become NaN.

    Raises:
        HilDaftError: if another line is damaged, naming it.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _unusable(path, error) from error
    complete, _, tail = text.rpartition("\n")
    rows = [_parse(path, i, line) for i, line in enumerate(complete.split("\n"), 1) if line]
    return rows + ([_parse(path, 0, tail)] if _is_whole(tail.encode()) else [])


def _parse(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        row = cast(dict[str, Any], json.loads(line))
        return {name: math.nan if v is None else float(v) for name, v in row.items()}
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"metrics file {path} line {number} is damaged: delete that line, the rest is usable"
        raise HilDaftError(msg) from error


def _is_whole(tail: bytes) -> bool:
    try:
        return isinstance(json.loads(tail), dict)
    except ValueError:
        return False


def _mend(path: Path) -> None:
    """Ends a last line that lacks its newline, or cuts it off if a kill has torn it."""
    if not path.exists():
        return
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end == len(data):
        return
    with path.open("r+b") as file:
        if _is_whole(data[end:]):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        else:
            file.truncate(end)


def _unusable(path: Path, error: OSError) -> HilDaftError:
    return HilDaftError(
        f"metrics file {path}: {error.strerror or error}; free space or mend its permissions, "
        "then resume"
    )
