"""Metrics of a run: append-only JSON lines, mirrored into TensorBoard event files."""

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast, final

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from hildaft.types import HilDaftError

FILE_NAME: Final = "metrics.jsonl"
RESUMED: Final = "resumed"
"""Key of the first row of a process that goes on with a run: before it nothing ran for a while."""
_MIRROR_S: Final = 30.0
"""Time between two syncs of the event file."""
# A class that protobuf makes at run time: no type checker sees it.
_event: Final[Any] = getattr(event_pb2, "Event")  # noqa: B009


@final
class MetricsWriter:
    """Writes `metrics.jsonl` and `tensorboard/` in a run folder; a resumed run appends to both.

    A line torn by a kill is cut off when the file is opened again. Several threads may write.

    Args:
        folder: the run folder.
        say: told once when the mirror cannot be written any more; the rows go on.

    Raises:
        HilDaftError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _mend(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            self._resumed = self._path.stat().st_size > 0
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._mirror = _Mirror(folder / "tensorboard", say)

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
            self._mirror.write(step, now, values)

    def close(self) -> None:
        """Closes both; safe to call more than once. Never raises: a row that was not written has been an error."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._file.close()
            self._mirror.close()


@final
class _Mirror:
    """The event files. Written in the caller's thread: tensorboardX's own, once it fails, would block its callers."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._events: EventsWriter | None = None
        self._synced_s = time.monotonic()
        try:
            folder.mkdir(exist_ok=True)
            # The suffix keeps two writers of one second from sharing a file.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        except OSError as error:
            self._give_up(error)

    def write(self, step: int, wall_s: float, values: Mapping[str, float | None]) -> None:
        if self._events is None:
            return
        try:
            for name, value in values.items():
                if value is not None:
                    event = _event(summary=scalar(name, value), step=step, wall_time=wall_s)
                    self._events.write_event(event)
            if time.monotonic() - self._synced_s > _MIRROR_S:
                self._synced_s = time.monotonic()
                self._events.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._events is not None:
                self._events.close()
        self._events = None

    def _give_up(self, error: OSError) -> None:
        self.close()
        self._say(
            f"{self._folder}: {error.strerror or error}; TensorBoard shows no more of this run, {FILE_NAME} does"
        )


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
