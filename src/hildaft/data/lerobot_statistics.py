"""Means, deviations and extremes of a dataset, gathered file by file so that an export can go on where it stopped."""

import io
import json
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float64
from PIL import Image

from hildaft.data.lerobot_format import ACTION, IMAGE, STATE, write_json
from hildaft.types import Episode

STATISTICS: Final = "hildaft/statistics-{file_index:03d}.json"
_IMAGE_STRIDE: Final = 8
"""Every eighth pixel each way is enough for a mean and a deviation."""
_JOINS: Final = {"total": np.add, "squares": np.add, "low": np.minimum, "high": np.maximum}


@final
class Moments:
    """Count, sum, sum of squares and extremes of rows, over every file."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = np.zeros(width)
        self.squares = np.zeros(width)
        self.low = np.full(width, np.inf)
        self.high = np.full(width, -np.inf)

    def add(self, rows: Float64[np.ndarray, "n w"]) -> None:
        """Takes rows; those that are not finite (nobody acted) are left out."""
        kept = rows[np.isfinite(rows).all(axis=1)]
        if not len(kept):
            return
        self.count += len(kept)
        self.total += kept.sum(axis=0)
        self.squares += (kept**2).sum(axis=0)
        self.low = np.minimum(self.low, kept.min(axis=0))
        self.high = np.maximum(self.high, kept.max(axis=0))

    def to_json(self) -> dict[str, Any]:
        """What `write_statistics` adds up."""
        finite = np.isfinite(self.low).all()
        low, high = (self.low, self.high) if finite else (self.total, self.total)
        return {
            "count": self.count,
            "total": self.total.tolist(),
            "squares": self.squares.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }


def gather_moments(moments: dict[str, Moments], episode: Episode) -> None:
    """Adds one episode's actions, states, rewards and a sample of its pixels."""
    steps = len(episode)
    values: dict[str, Any] = {
        STATE: episode.proprio[:steps],
        ACTION: episode.executed_action,
        "next.reward": episode.reward[:, None],
    }
    for camera, frames in sorted(episode.images.items()):
        pixels: list[Any] = []
        for data in frames[:: max(1, steps // 4)]:
            with Image.open(io.BytesIO(data)) as image:
                pixels.append(np.asarray(image.convert("RGB"))[::_IMAGE_STRIDE, ::_IMAGE_STRIDE])
        values[IMAGE + camera] = np.concatenate([p.reshape(-1, 3) for p in pixels]) / 255.0
    for name, rows in values.items():
        moments.setdefault(name, Moments(rows.shape[1])).add(rows.astype(np.float64))


def write_statistics(folder: Path) -> None:
    """Writes meta/stats.json, as LeRobot's policies read it, from the sums of all data files."""
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("hildaft/statistics-*.json")):
        part: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for name, new in part.items():
            if not new["count"]:
                continue
            old = merged.setdefault(name, {**new, "count": 0, "total": 0.0, "squares": 0.0})
            old["count"] += new["count"]
            for key, join in _JOINS.items():
                old[key] = join(old[key], new[key])
    statistics: dict[str, dict[str, Any]] = {}
    for name, sums in merged.items():
        mean = np.asarray(sums["total"]) / sums["count"]
        deviation = np.sqrt(np.maximum(np.asarray(sums["squares"]) / sums["count"] - mean**2, 0.0))
        low, high = np.asarray(sums["low"]), np.asarray(sums["high"])
        entry = {"min": low, "max": high, "mean": mean, "std": deviation}
        shape = (3, 1, 1) if name.startswith(IMAGE) else mean.shape
        statistics[name] = {key: value.reshape(shape).tolist() for key, value in entry.items()}
        statistics[name]["count"] = [sums["count"]]
    write_json(folder / "meta" / "stats.json", statistics)
