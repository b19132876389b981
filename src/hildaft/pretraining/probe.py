"""How well the geometry is read off held-out frames, in millimetres, near contact and beyond."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hildaft.pretraining.batches import Batch, BatchSet, FrameSet
from hildaft.pretraining.targets import VECTORS, lengths, lengths_from_targets

_BATCH = 50


@runtime_checkable
class GeometryReader(Protocol):
    """A network whose h or features are read by one linear layer."""

    def geometry(self, batch: Batch) -> Float[Tensor, "b 77"]:
        """Predicted `geometry_targets`."""
        ...


def probe(
    reader: GeometryReader, batches: BatchSet, frames: FrameSet
) -> dict[str, dict[str, float]]:
    """Median and 90th percentile error (mm) by quantity, over held-out frames.

    Errors are lengths of 3-D error vectors, except *across*: the component across the slot alone. Rows named "still"
    count only frames on robot A without jitter of cameras and colours, which is what a run on the bench sees.
    """
    predicted: list[np.ndarray] = []
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for first in range(0, len(frames), _BATCH):
            rows = np.arange(first, min(first + _BATCH, len(frames)))
            predicted.append(reader.geometry(batches.at(rows, rng)).numpy())
    true = lengths(frames.labels) * 1000
    error = lengths_from_targets(np.concatenate(predicted)) * 1000 - true
    return table_of(true, error, frames.labels)


def table_of(
    true: Float[np.ndarray, "n 22"],
    error: Float[np.ndarray, "n 22"],
    labels: Mapping[str, np.ndarray],
) -> dict[str, dict[str, float]]:
    """The table of `probe` from true lengths and their errors, both in mm."""

    def vector(values: np.ndarray, name: str) -> np.ndarray:
        index = 3 * VECTORS.index(name)
        return values[:, index : index + 3]

    still = ~(labels["jitter"] | labels["elsewhere"])
    axis = labels["bolt_rotation"][:, 2, 2]
    far = {name: np.linalg.norm(vector(true, name), axis=1) for name in VECTORS}
    off = {name: np.linalg.norm(vector(error, name), axis=1) for name in VECTORS}
    across = np.abs(
        np.einsum("ni,ni->n", vector(error, "slot_mouth_to_head"), labels["slot_rotation"][:, :, 0])
    )
    level = np.linalg.norm(vector(error, "tcp_to_tail")[:, :2], axis=1)
    lying = (np.abs(axis) < 0.3) & ~labels["held"] & (far["tcp_to_tail"] < 30)
    standing = (axis > 0.98) & ~labels["held"] & (far["tcp_to_tail"] < 45)
    by_slot, by_spot = far["slot_mouth_to_head"], far["spot_to_head"]
    rows: dict[str, tuple[np.ndarray, Bool[np.ndarray, " n"]]] = {
        "tail from TCP, < 30 mm": (off["tcp_to_tail"], far["tcp_to_tail"] < 30),
        "lying tail, level, < 30 mm": (level, lying),
        "standing tail, level, < 45 mm": (level, standing),
        "head across slot, < 80 mm": (across, by_slot < 80),
        "head from slot, < 30 mm": (off["slot_mouth_to_head"], by_slot < 30),
        "head from slot, 30-80 mm": (off["slot_mouth_to_head"], (by_slot >= 30) & (by_slot < 80)),
        "slot from TCP, 60-200 mm": (
            off["tcp_to_slot_mouth"],
            (far["tcp_to_slot_mouth"] >= 60) & (far["tcp_to_slot_mouth"] < 200),
        ),
        "head from spot, < 30 mm": (off["spot_to_head"], by_spot < 30),
        "head from spot, 30-100 mm": (off["spot_to_head"], (by_spot >= 30) & (by_spot < 100)),
        "height of TCP, < 60 mm": (np.abs(error[:, -1]), true[:, -1] < 60),
    }
    table: dict[str, dict[str, float]] = {}
    for name, (values, mask) in rows.items():
        table[name] = _summary(values[mask])
        table[f"{name}, still"] = _summary(values[mask & still])
    return table


def _summary(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    if not len(values):
        return {"frames": 0.0, "median_mm": float("nan"), "p90_mm": float("nan")}
    median, high = np.quantile(values, [0.5, 0.9])
    return {
        "frames": float(len(values)),
        "median_mm": round(float(median), 2),
        "p90_mm": round(float(high), 2),
    }
