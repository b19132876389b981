"""The layout of a LeRobotDataset v3.0, and the columns of ours in it. Needs pyarrow; LeRobot itself is not used."""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hildaft.types import HilDaftError

VERSION: Final = "v3.0"
OUR_FORMAT: Final = 1
"""Version of our columns, in hildaft/info.json."""
IMAGE: Final = "observation.images."
STATE: Final = "observation.state"
ACTION: Final = "action"
DATA: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES: Final = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FINAL: Final = "hildaft/final/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
"""The observation after an episode's last action: LeRobot keeps one observation per action, learning needs one more."""
OURS: Final = "hildaft/info.json"
CHUNK_SIZE: Final = 1000
MAX_FILE_MB: Final = 100.0

ACTION_NAMES: Final = (
    "delta_x",
    "delta_y",
    "delta_z",
    "delta_roll",
    "delta_pitch",
    "delta_yaw",
    "gripper",
)


def pyarrow_library() -> Any:  # noqa: ANN401 - pyarrow is only part-typed
    """Pyarrow with its parquet module; raises HilDaftError with the cure where it is not installed."""
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        msg = (
            "LeRobot datasets need pyarrow, which is not installed; pip install 'hildaft[datasets]'"
        )
        raise HilDaftError(msg) from error


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What info.json says, checked."""

    folder: Path
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    episodes: int
    frames: int
    robot_type: str
    data_path: str
    video_path: str
    ours: Mapping[str, Any] | None
    """What our exporter added; None in datasets of others."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the image and video features."""
        return tuple(n for n, f in self.features.items() if f.get("dtype") in ("image", "video"))


def read_info(folder: Path) -> DatasetInfo:
    """Reads info.json.

    Raises:
        HilDaftError: no dataset, a damaged file, or another version of the format.
    """
    path = folder / "meta" / "info.json"
    try:
        info = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        version = str(info["codebase_version"])
        if version != VERSION:
            msg = (
                f"dataset {folder}: format {version!r}, {VERSION!r} is read here; convert it with LeRobot's own"
                " conversion script"
            )
            raise HilDaftError(msg)
        return DatasetInfo(
            folder=folder,
            fps=float(info["fps"]),
            features=info["features"],
            episodes=int(info["total_episodes"]),
            frames=int(info["total_frames"]),
            robot_type=str(info.get("robot_type") or "unknown"),
            data_path=str(info["data_path"]),
            video_path=str(info.get("video_path") or ""),
            ours=read_ours(folder) or None,
        )
    except FileNotFoundError as error:
        msg = f"dataset {folder}: no meta/info.json; give the folder of a LeRobotDataset"
        raise HilDaftError(msg) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"dataset {folder}: meta/info.json is damaged ({type(error).__name__} {error})"
        raise HilDaftError(msg) from error


def read_ours(folder: Path) -> Mapping[str, Any]:
    """What our exporter wrote about the dataset; empty in datasets of others."""
    path = folder / OURS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401 - a pyarrow table
    """A parquet file; raises HilDaftError where it is missing or damaged."""
    pa = pyarrow_library()
    try:
        return pa.parquet.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        msg = f"dataset file {path}: {' '.join(str(error).split())[:200]}"
        raise HilDaftError(msg) from error


def read_episode_table(folder: Path) -> list[dict[str, Any]]:
    """All rows of the episodes table, statistics left out, in order."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        table = read_table(path)
        kept = [name for name in table.column_names if not name.startswith("stats/")]
        rows += table.select(kept).to_pylist()
    return sorted(rows, key=lambda row: int(row["episode_index"]))


def read_tasks(folder: Path) -> dict[int, str]:
    """Task texts by task_index."""
    table = read_table(folder / "meta" / "tasks.parquet")
    names = table.column_names
    text = "task" if "task" in names else "__index_level_0__"
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def write_tasks(folder: Path, tasks: Sequence[str]) -> None:
    """Writes tasks.parquet with the task text as pandas index, as LeRobot reads it."""
    pa = pyarrow_library()
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }
        for name, kind, numpy_type in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    write_parquet(
        folder / "meta" / "tasks.parquet",
        table.replace_schema_metadata({"pandas": json.dumps(pandas)}),
    )


def write_parquet(path: Path, table: Any) -> None:  # noqa: ANN401 - a pyarrow table
    """Writes a table whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}")
    pyarrow_library().parquet.write_table(table, temporary, compression="snappy")
    temporary.rename(path)


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file durably, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
