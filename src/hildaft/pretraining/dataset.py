"""The frames a backbone is pretrained on: random still scenes, both cameras, true geometry, on disk."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Int, UInt8

from hildaft.robots.bolt_sim.model import HEAD_SIZE, WRIST_SIZE
from hildaft.robots.bolt_sim.random_benches import draw_look
from hildaft.robots.bolt_sim.random_scenes import LANDMARKS, landmarks, place_random_scene
from hildaft.robots.bolt_sim.scene import MAX_BOLTS, BoltScene
from hildaft.types import HilDaftError

CAMERAS: Final = {"head": HEAD_SIZE, "wrist": WRIST_SIZE}
"""Cameras in the order of the label arrays, and the side of their images in px."""

KEY_POINTS: Final = ("head", "tail", "slot_mouth", "slot_end", "spot", "tcp")
"""Points whose pixels are labelled, in the order of the label arrays."""

_BENCH_FRAMES: Final = 8
"""Frames on one random bench: a scene takes longer to build than a frame."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What is rendered."""

    frames: int = 80_000
    """Training frames."""
    held_out: int = 2_000
    """Frames of the same kind, kept for the probe."""
    jitter_share: float = 0.1
    """Share of robot A's frames with disturbed cameras, colours and light."""
    bench_share: float = 0.2
    """Share of the frames on other benches: mounting, cameras and all colours drawn at random."""
    seed: int = 0
    """Frame i depends on (seed, i) alone."""
    shard_frames: int = 1_000
    """Frames per folder of the cache, which is rendered whole or again; both counts are multiples of it."""
    workers: int = 2
    """Processes that render."""

    def __post_init__(self) -> None:
        for name in ("shard_frames", "workers"):
            if getattr(self, name) < 1:
                msg = f"dataset {name}={getattr(self, name)}: 1 or more is allowed"
                raise HilDaftError(msg)
        for name in ("frames", "held_out"):
            value = getattr(self, name)
            if value < 1 or value % self.shard_frames:
                msg = f"dataset {name}={value}: a multiple of shard_frames={self.shard_frames} is allowed"
                raise HilDaftError(msg)
        for name in ("jitter_share", "bench_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                msg = f"dataset {name}={getattr(self, name)}: 0 to 1 is allowed"
                raise HilDaftError(msg)


@final
class Frames:
    """Shards opened as one set; images stay on disk and are read through the page cache."""

    def __init__(self, folders: list[Path]) -> None:
        """Opens finished shards; raises HilDaftError for an unreadable one."""
        try:
            self._images = [
                {camera: np.load(folder / f"{camera}.npy", mmap_mode="r") for camera in CAMERAS}
                for folder in folders
            ]
            parts = [dict(np.load(folder / "labels.npz")) for folder in folders]
            self._shard_frames = len(self._images[0][next(iter(CAMERAS))])
        except (OSError, ValueError) as error:
            msg = f"frames cache: {error}; delete the damaged shard and run again"
            raise HilDaftError(msg) from error
        self.labels: Mapping[str, np.ndarray] = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }

    def __len__(self) -> int:
        return len(self.labels["ee_position"])

    def images(self, rows: Int[np.ndarray, " b"]) -> dict[str, UInt8[np.ndarray, "b s s 3"]]:
        """Images of some frames, by camera."""
        shard, within = np.divmod(rows, self._shard_frames)
        pairs = list(zip(shard.tolist(), within.tolist(), strict=True))
        return {
            camera: np.stack([self._images[s][camera][i] for s, i in pairs]) for camera in CAMERAS
        }


def build_frames(cache: Path, config: DatasetConfig) -> tuple[Frames, Frames]:
    """Renders what is missing from the cache and opens (training, held-out) frames.

    The same configuration finds its shards again, so an interrupted run goes on.
    """
    train, held_out = shard_folders(cache, config)
    jobs = [(folder, config) for folder in [*held_out, *train] if not folder.is_dir()]
    if jobs:
        cache.mkdir(parents=True, exist_ok=True)
        # Rendering threads of their own would fight over the cores that the workers fill.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
            for _ in pool.imap_unordered(_write_shard, jobs):
                pass
    return Frames(train), Frames(held_out)


def shard_folders(cache: Path, config: DatasetConfig) -> tuple[list[Path], list[Path]]:
    """Folders of the (training, held-out) shards; the training ones come first in frame order."""
    stem = f"seed{config.seed}-jitter{config.jitter_share:g}-benches{config.bench_share:g}-of{config.shard_frames}"
    total = (config.frames + config.held_out) // config.shard_frames
    held_out = config.held_out // config.shard_frames
    # Held-out shards are numbered from the start, so that more training frames leave them as they are.
    folders = [cache / f"{stem}-{index:04d}" for index in range(total)]
    return folders[held_out:], folders[:held_out]


def _write_shard(job: tuple[Path, DatasetConfig]) -> None:
    folder, config = job
    count = config.shard_frames
    first = int(folder.name.rsplit("-", 1)[1]) * count
    images = {c: np.empty((count, s, s, 3), np.uint8) for c, s in CAMERAS.items()}
    rows: list[dict[str, np.ndarray]] = []
    for index, (scene, rng, elsewhere) in enumerate(_scenes(config, first)):
        rendered, labels = draw_frame(scene, rng, config.jitter_share)
        rows.append(labels | {"elsewhere": np.array(elsewhere)})
        for camera in CAMERAS:
            images[camera][index] = rendered[camera]
    partial = folder.with_name(folder.name + f".part{os.getpid()}")
    partial.mkdir()
    for camera in CAMERAS:
        np.save(partial / f"{camera}.npy", images[camera])
    labels = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(partial / "labels.npz", **labels)  # pyright: ignore[reportArgumentType] - no label is called allow_pickle
    partial.rename(folder)


def _scenes(
    config: DatasetConfig, first: int
) -> Iterator[tuple[BoltScene, np.random.Generator, bool]]:
    """Scene and generator of each frame of a shard, and whether it is on another bench than A."""
    count = config.shard_frames
    elsewhere = min(count, round(config.bench_share * count / _BENCH_FRAMES) * _BENCH_FRAMES)
    for start in [*range(0, elsewhere, _BENCH_FRAMES), elsewhere]:
        foreign = start < elsewhere
        rng = np.random.default_rng([config.seed, first + start, 1])
        scene = BoltScene(draw_look(rng) if foreign else "A", MAX_BOLTS)
        for index in range(start, min(start + _BENCH_FRAMES, count) if foreign else count):
            yield scene, np.random.default_rng([config.seed, first + index]), foreign
        scene.close()


def draw_frame(
    scene: BoltScene, rng: np.random.Generator, jitter_share: float
) -> tuple[dict[str, UInt8[np.ndarray, "s s 3"]], dict[str, np.ndarray]]:
    """One random scene: its images and its labels (m, base axes; key points in 0..1 of the image)."""
    jitter = bool(rng.random() < jitter_share)
    state = place_random_scene(scene, rng, jitter=jitter)
    points = dict(zip(LANDMARKS, landmarks(state), strict=True)) | {"tcp": state.ee_position_m}
    seen = scene.project(np.stack([points[name] for name in KEY_POINTS]))
    labels = {
        "ee_position": state.ee_position_m,
        "ee_rotation": state.ee_rotation,
        "jaw_opening": np.array(state.jaw_opening_m),
        "bolt_position": state.bolt_position_m,
        "bolt_rotation": state.bolt_rotation,
        "slot_position": state.slot_position_m,
        "slot_rotation": state.slot_rotation,
        "spot_position": state.spot_position_m,
        "landmarks": np.stack([points[name] for name in LANDMARKS]),
        "pixels": np.stack([seen[camera].uv for camera in CAMERAS]),
    }
    flags = {
        "jaw_closed": np.array(state.jaw_closed),
        "held": np.array(state.bolt_held),
        "jitter": np.array(jitter),
        "inside": np.stack([seen[camera].inside for camera in CAMERAS]),
    }
    return scene.render(), {k: v.astype(np.float32) for k, v in labels.items()} | flags
