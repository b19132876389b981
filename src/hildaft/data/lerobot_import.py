"""Reads a LeRobotDataset v3.0 episode by episode in bounded memory; what its columns mean is for the caller to say."""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from hildaft.data.lerobot_format import (
    FINAL,
    DatasetInfo,
    pyarrow_library,
    read_episode_table,
    read_info,
    read_table,
    read_tasks,
)
from hildaft.data.lerobot_video import VideoFrames
from hildaft.types import HilDaftError

_BATCH_ROWS: Final = 64


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """One episode as the dataset has it."""

    index: int
    task: str
    """Its task text."""
    columns: Mapping[str, Shaped[np.ndarray, "..."]]
    """Every column but the images, T rows each."""
    images: Mapping[str, Sequence[bytes | UInt8[np.ndarray, "h w 3"]]]
    """By feature name: encoded images, or frames of a video that are decoded as they are asked for; T each."""
    meta: Mapping[str, Any]
    """Its row of the episodes table."""
    final_images: Mapping[str, bytes]
    """The observation after the last action, where we exported it; else empty."""
    final_state: Shaped[np.ndarray, "..."] | None

    def __len__(self) -> int:
        return int(self.meta["length"])


def iterate_raw(
    folder: Path, skips: Callable[[RawEpisode], bool] = lambda _: False
) -> Iterator[RawEpisode]:
    """The episodes in order, one in memory at a time.

    Args:
        folder: of the dataset.
        skips: asked of each episode before one of its images is decoded.

    Raises:
        HilDaftError: the dataset is damaged, not whole, of another version, or holds videos and PyAV is not installed.
    """
    info = read_info(folder)
    rows = {int(row["episode_index"]): row for row in read_episode_table(folder)}
    if len(rows) != info.episodes:
        msg = (
            f"dataset {folder}: meta/info.json says total_episodes={info.episodes}, the episodes table has {len(rows)};"
            " the download, or export, is not whole: do it again"
        )
        raise HilDaftError(msg)
    tasks = read_tasks(folder)
    files: dict[tuple[int, int], set[int]] = {}
    for index, row in rows.items():
        files.setdefault((row["data/chunk_index"], row["data/file_index"]), set()).add(index)
    for (chunk, number), missing in sorted(files.items()):
        path = folder / info.data_path.format(chunk_index=chunk, file_index=number)
        finals = _finals(folder, chunk, number)
        for index, table in _episodes_of(path):
            if index not in rows or table.num_rows != int(rows[index]["length"]):
                msg = (
                    f"dataset {folder}: episode {index} has {table.num_rows} rows in {path.name},"
                    " not what the episodes table says; the download is not whole"
                )
                raise HilDaftError(msg)
            missing.discard(index)
            raw = _raw(info, index, table, rows[index], tasks, finals.get(index, {}))
            if not skips(raw):
                yield raw
        if missing:
            msg = (
                f"dataset {folder}: episode {min(missing)} is not in {path.name}, where the episodes table has it;"
                " the download is not whole: do it again, then import again"
            )
            raise HilDaftError(msg)


def _episodes_of(path: Path) -> Iterator[tuple[int, Any]]:
    """Tables of one episode each; rows of an episode lie together."""
    pa = pyarrow_library()
    held: list[Any] = []
    current = -1
    try:
        for batch in pa.parquet.ParquetFile(path).iter_batches(_BATCH_ROWS):
            numbers = np.asarray(batch.column("episode_index"))
            edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
            for start, stop in itertools.pairwise(edges):
                if held and numbers[start] != current:
                    yield current, pa.Table.from_batches(held)
                    held = []
                current = int(numbers[start])
                held.append(batch.slice(int(start), int(stop - start)))
    except (OSError, KeyError, pa.ArrowException) as error:
        msg = f"dataset file {path}: {' '.join(str(error).split())[:200]}"
        raise HilDaftError(msg) from error
    if held:
        yield current, pa.Table.from_batches(held)


def _finals(folder: Path, chunk: int, number: int) -> dict[int, dict[str, Any]]:
    path = folder / FINAL.format(chunk_index=chunk, file_index=number)
    if not path.exists():
        return {}
    return {int(row["episode_index"]): row for row in read_table(path).to_pylist()}


def _raw(
    info: DatasetInfo,
    index: int,
    table: Any,  # noqa: ANN401 - a pyarrow table
    row: Mapping[str, Any],
    tasks: Mapping[int, str],
    final: Mapping[str, Any],
) -> RawEpisode:
    columns: dict[str, Any] = {}
    images: dict[str, Sequence[Any]] = {}
    for name in table.column_names:
        if name in info.cameras:
            cells = table[name].to_pylist()
            images[name] = [_encoded(info.folder, cell) for cell in cells]
        else:
            columns[name] = np.asarray(table[name].to_pylist())
    for name, feature in info.features.items():
        if feature.get("dtype") == "video":
            images[name] = _video_frames(info, name, row, table.num_rows)
    cameras = {n: v for n, v in final.items() if isinstance(v, bytes)}
    state = final.get("observation.state")
    return RawEpisode(
        index=index,
        task=tasks[int(columns["task_index"][0])],
        columns=columns,
        images=images,
        meta=row,
        final_images=cameras,
        final_state=None if state is None else np.asarray(state, dtype=np.float32),
    )


def _encoded(folder: Path, cell: Mapping[str, Any]) -> bytes:
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    path = (folder / str(cell["path"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        msg = f"dataset {folder}: image path {cell['path']!r} leads out of the dataset"
        raise HilDaftError(msg)
    return path.read_bytes()


def _video_frames(info: DatasetInfo, name: str, row: Mapping[str, Any], frames: int) -> VideoFrames:
    path = info.folder / info.video_path.format(
        video_key=name,
        chunk_index=row[f"videos/{name}/chunk_index"],
        file_index=row[f"videos/{name}/file_index"],
    )
    return VideoFrames(path, float(row[f"videos/{name}/from_timestamp"]), info.fps, frames)


def decode(image: bytes | UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image of a `RawEpisode` as RGB."""
    if isinstance(image, np.ndarray):
        return image
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))
