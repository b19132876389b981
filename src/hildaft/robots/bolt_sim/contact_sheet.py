"""Pictures of the bench to look at: a contact sheet over the tasks, and short clips."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hildaft.robots.bolt_sim.env import BoltEnv
from hildaft.types import CONTROL_HZ, Action, SceneState

Frame = UInt8[np.ndarray, "256 512 3"]


def record_frames(
    env: BoltEnv, act: Callable[[SceneState], Action], task: str, seed: int
) -> list[Frame]:
    """Runs one episode with an actor that sees the true state; one frame per observation."""
    env.reset(seed=seed, options={"task": task})
    frames = [env.render()]
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(act(env.scene_state()))
        frames.append(env.render())
    return frames


def write_contact_sheet(path: Path, episodes: Mapping[str, Sequence[Frame]], columns: int) -> None:
    """Writes a PNG: one row per episode, `columns` frames evenly spread over each."""
    rows: list[Frame] = []
    for frames in episodes.values():
        picks = np.linspace(0, len(frames) - 1, columns).round().astype(int)
        rows.append(np.concatenate([frames[pick] for pick in picks], axis=1))
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


def write_clip(path: Path, frames: Sequence[Frame]) -> None:
    """Writes an animated GIF at the control rate."""
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / CONTROL_HZ),
        loop=0,
    )
