"""Our episode store as a LeRobotDataset v3.0, a data file at a time: one episode in memory, resumable, no LeRobot.

Images go over as the JPEG bytes they are stored as. `hildaft import` reads the same dataset back without loss, but for
the embeddings, which are made anew.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from hildaft.data.episode_file import EpisodeSummary
from hildaft.data.episodes import EpisodeStore
from hildaft.data.lerobot_columns import (
    COUNTERS,
    EXTRAS,
    STATE_NAMES,
    add_frames,
    column_of,
    features_of,
    final_row,
    images_of,
)
from hildaft.data.lerobot_format import (
    ACTION,
    CHUNK_SIZE,
    DATA,
    EPISODES,
    FINAL,
    IMAGE,
    MAX_FILE_MB,
    OUR_FORMAT,
    OURS,
    STATE,
    VERSION,
    pyarrow_library,
    read_episode_table,
    read_ours,
    read_table,
    write_json,
    write_parquet,
    write_tasks,
)
from hildaft.data.lerobot_resume import require_its_own, require_same_labels, texts_of_tasks
from hildaft.data.lerobot_statistics import (
    STATISTICS,
    Moments,
    gather_moments,
    write_statistics,
)
from hildaft.data.lerobot_video import VIDEO, VideoWriter
from hildaft.types import CONTROL_HZ, ActionScale, Episode, HilDaftError


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the store does not hold: the texts of tasks and commands, and what an action of 1 means."""

    instructions: Mapping[str, str]
    """Instruction by task name; a task without one keeps its name."""
    phrases: tuple[str, ...]
    """Words of each refinement command, by index."""
    action_scale: ActionScale


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export did."""

    episodes: int
    frames: int
    added: int
    """Episodes written by this call; the others were there."""


def export_dataset(
    store: EpisodeStore,
    folder: Path,
    labels: Labels,
    *,
    as_video: bool = False,
    max_file_mb: float = MAX_FILE_MB,
) -> ExportResult:
    """Writes the store's episodes into `folder`, going on where an earlier export stopped.

    With `as_video` the images become H.264, smaller and lossy; without it they stay the JPEG bytes they are.

    Raises:
        HilDaftError: the folder holds another dataset, or another run's, the episodes have no images, or the disk is
            full.
    """
    summaries = store.summaries()
    if not summaries:
        msg = f"episode folder {store.folder}: it is empty; there is nothing to export"
        raise HilDaftError(msg)
    try:
        return _Exporter(store, folder, labels, as_video, max_file_mb).run(summaries)
    except OSError as error:
        msg = f"dataset {folder}: {error.strerror or error}; free space, then export again: it goes on where it stopped"
        raise HilDaftError(msg) from error


@final
class _Exporter:
    def __init__(
        self,
        store: EpisodeStore,
        folder: Path,
        labels: Labels,
        as_video: bool,
        max_file_mb: float,
    ) -> None:
        self._store, self._folder, self._labels = store, folder, labels
        self._as_video, self._max_bytes = as_video, max_file_mb * 1e6
        self._tasks: list[str] = []
        self._task_of: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._features: dict[str, dict[str, Any]] | None = None

    def run(self, summaries: Sequence[EpisodeSummary]) -> ExportResult:
        self._resume()
        done = {int(row["hildaft/store_index"]): row for row in self._rows}
        for summary in summaries:
            if summary.index in done:
                require_its_own(self._folder, done[summary.index], summary)
        fresh = [summary for summary in summaries if summary.index not in done]
        texts = texts_of_tasks(self._rows, fresh, self._labels.instructions)
        self._tasks = list(texts.values())
        self._task_of = {task: index for index, task in enumerate(texts)}
        wanted = [summary.index for summary in fresh]
        for batch in self._batches(wanted):
            self._rows += batch
        self._finish()
        frames = sum(int(row["length"]) for row in self._rows)
        return ExportResult(episodes=len(self._rows), frames=frames, added=len(wanted))

    def _resume(self) -> None:
        """Reads what is already exported; clears what an interrupted export left half done."""
        ours = self._folder / OURS
        if not ours.exists():
            if self._folder.exists() and any(self._folder.iterdir()):
                msg = f"folder {self._folder}: what it holds was not exported by HiL-DAFT; name another folder"
                raise HilDaftError(msg)
            # Marks the folder as ours before anything else, so that a killed export can be gone on with.
            write_json(ours, self._ours())
            return
        require_same_labels(self._folder, read_ours(self._folder), self._ours())
        for leftover in self._folder.rglob(".writing-*"):
            leftover.unlink()
        self._rows = read_episode_table(self._folder)
        used = {(r["data/chunk_index"], r["data/file_index"]) for r in self._rows}
        for kind in (
            "data/*/file-*.parquet",
            "hildaft/final/*/file-*.parquet",
            "videos/*/*/file-*.mp4",
        ):
            for path in self._folder.glob(kind):
                place = (int(path.parent.name[-3:]), int(path.stem[-3:]))
                # A data file whose episodes were never listed: the export was killed in between.
                if place not in used:
                    path.unlink()
        if self._rows:
            # Of the dataset, not of the store: an episode's file can have been set aside since.
            row = self._rows[0]
            place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            final = read_table(self._folder / FINAL.format(**place)).slice(0, 1).to_pylist()[0]
            self._features = features_of(images_of(final), self._as_video)

    def _batches(self, wanted: list[int]) -> Any:  # noqa: ANN401 - an iterator of lists of rows
        """One data file after the other; each is listed in the episodes table as soon as it is whole."""
        position = 0
        while position < len(wanted):
            places = [(r["data/chunk_index"], r["data/file_index"]) for r in self._rows]
            chunk, number = max(places, default=(0, -1))
            number += 1
            if number >= CHUNK_SIZE:
                chunk, number = chunk + 1, 0
            rows, statistics, position = self._write_file(wanted, position, chunk, number)
            sums = STATISTICS.format(file_index=number + chunk * CHUNK_SIZE)
            write_json(self._folder / sums, statistics)
            pa = pyarrow_library()
            path = self._folder / EPISODES.format(chunk_index=chunk, file_index=number)
            write_parquet(path, pa.Table.from_pylist(rows))
            yield rows

    def _write_file(
        self, wanted: list[int], position: int, chunk: int, number: int
    ) -> tuple[list[dict[str, Any]], dict[str, Any], int]:
        pa = pyarrow_library()
        data = self._folder / DATA.format(chunk_index=chunk, file_index=number)
        final_file = self._folder / FINAL.format(chunk_index=chunk, file_index=number)
        data.parent.mkdir(parents=True, exist_ok=True)
        temporary = data.with_name(f".writing-{data.name}")
        rows: list[dict[str, Any]] = []
        finals: list[dict[str, Any]] = []
        moments: dict[str, Moments] = {}
        first = self._rows[-1] if self._rows else None
        frame = int(first["dataset_to_index"]) if first else 0
        episode_index = int(first["episode_index"]) + 1 if first else 0
        videos: dict[str, VideoWriter] = {}
        with contextlib.ExitStack() as stack:
            writer: Any = None
            while position < len(wanted) and (
                not rows or temporary.stat().st_size < self._max_bytes
            ):
                episode = self._store.read(wanted[position])
                self._require_same(episode, wanted[position])
                if self._as_video and not videos:
                    videos = self._open_videos(stack, chunk, number)
                table = self._table(episode, episode_index, frame)
                if writer is None:
                    writer = stack.enter_context(
                        pa.parquet.ParquetWriter(temporary, table.schema, compression="snappy")
                    )
                writer.write_table(table)
                row = self._row(episode, wanted[position], episode_index, frame, chunk, number)
                rows.append(row | add_frames(videos, episode, chunk, number))
                finals.append(final_row(episode, episode_index))
                gather_moments(moments, episode)
                frame, episode_index, position = (
                    frame + len(episode),
                    episode_index + 1,
                    position + 1,
                )
        write_parquet(final_file, pa.Table.from_pylist(finals))
        for camera in videos:
            self._video_path(camera, chunk, number).rename(
                self._folder / VIDEO.format(video_key=camera, chunk_index=chunk, file_index=number)
            )
        temporary.rename(data)
        return rows, {name: m.to_json() for name, m in moments.items()}, position

    def _open_videos(
        self, stack: contextlib.ExitStack, chunk: int, number: int
    ) -> dict[str, VideoWriter]:
        assert self._features is not None
        writers: dict[str, VideoWriter] = {}
        for camera, feature in self._features.items():
            if feature["dtype"] == "video":
                height, width = feature["shape"][:2]
                path = self._video_path(camera, chunk, number)
                writers[camera] = stack.enter_context(
                    VideoWriter(path, height, width, int(CONTROL_HZ))
                )
        return writers

    def _video_path(self, camera: str, chunk: int, number: int) -> Path:
        final = VIDEO.format(video_key=camera, chunk_index=chunk, file_index=number)
        path = self._folder / final
        return path.with_name(f".writing-{path.name}")

    def _require_same(self, episode: Episode, index: int) -> None:
        first = {camera: frames[0] for camera, frames in episode.images.items()}
        found = features_of(first, self._as_video)
        if not episode.images:
            msg = f"episode {index} of {self._store.folder} holds no images; only episodes with images can be exported"
            raise HilDaftError(msg)
        if self._features is None:
            self._features = found
        if found != self._features:
            msg = (
                f"episode {index} of {self._store.folder}: its cameras or image sizes differ from the first episode's;"
                " one dataset holds one kind: export them apart"
            )
            raise HilDaftError(msg)

    def _table(self, episode: Episode, episode_index: int, frame: int) -> Any:  # noqa: ANN401 - pyarrow
        pa = pyarrow_library()
        steps = len(episode)
        phrases = self._labels.phrases
        columns: dict[str, Any] = {}
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        for camera, frames in [] if self._as_video else sorted(episode.images.items()):
            cells = [{"bytes": data, "path": None} for data in frames[:steps]]
            columns[IMAGE + camera] = pa.array(cells, image)
        reached = np.arange(steps) == steps - 1
        values: dict[str, Any] = {
            STATE: episode.proprio[:steps],
            ACTION: episode.executed_action,
            "next.reward": episode.reward,
            "next.done": episode.terminated | episode.truncated,
            "next.truncated": episode.truncated,
            "next.success": reached & episode.success,
            "is_intervention": episode.is_intervention,
            "refinement_command": [phrases[i] for i in episode.refinement],
            "spoken_command": [phrases[i] for i in episode.spoken],
            "policy_action": episode.policy_action,
            "human_action": episode.human_action,
            "displacement_m": episode.displacement_m,
            "source": [episode.source] * steps,
            "policy_version": np.full(steps, episode.policy_version, np.int64),
            "timestamp": np.arange(steps, dtype=np.float32) / np.float32(CONTROL_HZ),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, episode_index),
            "index": np.arange(frame, frame + steps),
            "task_index": np.full(steps, self._task_of[episode.task]),
        }
        kinds = {STATE: ("float32", len(STATE_NAMES)), ACTION: ("float32", 7), **EXTRAS}
        kinds |= {name: ("float32" if name == "timestamp" else "int64", 1) for name in COUNTERS}
        for name, (kind, width) in kinds.items():
            columns[name] = column_of(values[name], kind, width)
        return pa.table(columns)

    def _row(
        self, episode: Episode, index: int, number: int, frame: int, chunk: int, file: int
    ) -> dict[str, Any]:
        return {
            "episode_index": number,
            "tasks": [self._tasks[self._task_of[episode.task]]],
            "length": len(episode),
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": frame,
            "dataset_to_index": frame + len(episode),
            "meta/episodes/chunk_index": chunk,
            "meta/episodes/file_index": file,
            "hildaft/store_index": index,
            "hildaft/task": episode.task,
            "hildaft/robot": episode.robot,
            "hildaft/source": episode.source,
            "hildaft/seed": episode.seed,
            "hildaft/policy_version": episode.policy_version,
            "hildaft/success": episode.success,
        }

    def _ours(self) -> dict[str, Any]:
        scale = self._labels.action_scale
        return {
            "format": OUR_FORMAT,
            "translation_m": scale.translation_m,
            "rotation_rad": scale.rotation_rad,
            "phrases": list(self._labels.phrases),
            "video": self._as_video,
        }

    def _finish(self) -> None:
        """Tasks, statistics, and last of all info.json: a dataset without it is not finished."""
        assert self._features is not None
        write_tasks(self._folder, self._tasks)
        write_statistics(self._folder)
        robots = sorted({str(row["hildaft/robot"]) for row in self._rows})
        info = {
            "codebase_version": VERSION,
            "fps": int(CONTROL_HZ),
            "features": self._features,
            "total_episodes": len(self._rows),
            "total_frames": sum(int(row["length"]) for row in self._rows),
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_SIZE,
            "data_files_size_in_mb": int(MAX_FILE_MB),
            "video_files_size_in_mb": 200,
            "data_path": DATA,
            "video_path": VIDEO if self._as_video else None,
            "robot_type": "hildaft-" + "-".join(robots),
            "splits": {"train": f"0:{len(self._rows)}"},
        }
        write_json(self._folder / "meta" / "info.json", info)
