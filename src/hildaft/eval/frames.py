"""Frame strips: a rollout as a row of pictures per camera, from the stored JPEGs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.episodes import EpisodeStore
from hildaft.types import Episode

FRAMES: Final = 10
"""Pictures per strip, evenly spaced from the first to the last observation."""

_CELL, _GAP, _MARK = 128, 3, 5
_PAPER: Final = (251, 250, 247)
_AMBER: Final = (208, 131, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One rollout as a picture."""

    moment: str
    """"first", "middle" or "last" of the task's rollouts."""
    index: int
    """Number in the episode store."""
    success: bool
    steps: int
    interventions: int
    jpeg: bytes


def task_strips(store: EpisodeStore, task: str) -> list[Strip]:
    """Strips of the first, a middle and the last online rollout of a task; fewer if there are."""
    indices = [s.index for s in store.summaries() if s.task == task and s.source == "online"]
    moments = {"first": 0, "middle": len(indices) // 2, "last": len(indices) - 1}
    chosen = {indices[at]: name for name, at in reversed(moments.items()) if indices}
    strips: list[Strip] = []
    for index, moment in sorted(chosen.items()):
        episode = store.read(index)
        if episode.images:
            strips.append(
                Strip(
                    moment=moment,
                    index=index,
                    success=episode.success,
                    steps=len(episode),
                    interventions=int(episode.is_intervention.sum()),
                    jpeg=draw_strip(episode),
                )
            )
    return strips


def draw_strip(episode: Episode, frames: int = FRAMES) -> bytes:
    """JPEG with one row per camera; an amber bar over frames in which the human acted."""
    chosen = _evenly(len(episode) + 1, frames)
    cameras = sorted(episode.images)
    width = len(chosen) * (_CELL + _GAP) - _GAP
    height = len(cameras) * (_CELL + _GAP) - _GAP + _MARK + 1
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, step in enumerate(chosen):
        left = column * (_CELL + _GAP)
        # The last observation follows the last action, so it shares that step's mark.
        if episode.is_intervention[min(step, len(episode) - 1)]:
            pen.rectangle((left, 0, left + _CELL - 1, _MARK - 1), fill=_AMBER)
        for row, camera in enumerate(cameras):
            picture = Image.fromarray(decode_jpeg(episode.images[camera][step]))
            top = _MARK + 1 + row * (_CELL + _GAP)
            sheet.paste(picture.resize((_CELL, _CELL), Image.Resampling.LANCZOS), (left, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=84)
    return buffer.getvalue()


def _evenly(count: int, wanted: int) -> Sequence[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, min(wanted, count)).round()})
