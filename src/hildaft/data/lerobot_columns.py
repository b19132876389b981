"""The columns of an exported dataset: their kinds, their features in info.json, and an episode's values."""

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from PIL import Image

from hildaft.data.episode_builder import decode_jpeg
from hildaft.data.lerobot_format import ACTION, ACTION_NAMES, IMAGE, STATE, pyarrow_library
from hildaft.data.lerobot_video import VideoWriter, video_feature
from hildaft.types import CONTROL_HZ, Episode

STATE_NAMES: Final = ("jaw_opening", "jaws_commanded_closed")
EXTRAS: Final[dict[str, tuple[str, int]]] = {
    "next.reward": ("float32", 1),
    "next.done": ("bool", 1),
    "next.truncated": ("bool", 1),
    "next.success": ("bool", 1),
    "is_intervention": ("bool", 1),
    "refinement_command": ("string", 1),
    "spoken_command": ("string", 1),
    "policy_action": ("float32", 7),
    "human_action": ("float32", 7),
    "displacement_m": ("float32", 3),
    "source": ("string", 1),
    "policy_version": ("int64", 1),
}
"""Columns beyond LeRobot's own. The refinement command is the label of a tweak, the spoken one what was said."""
COUNTERS: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def column_of(values: Any, kind: str, width: int) -> Any:  # noqa: ANN401 - pyarrow
    """A pyarrow array of T cells."""
    pa = pyarrow_library()
    types = {
        "float32": pa.float32(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "string": pa.string(),
    }
    if width == 1:
        return pa.array(values, types[kind])
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, types[kind]), width)


def features_of(images: Mapping[str, bytes], as_video: bool) -> dict[str, dict[str, Any]]:
    """What info.json says of an episode's columns, given one image of each camera."""
    features: dict[str, dict[str, Any]] = {}
    for camera, data in sorted(images.items()):
        with Image.open(io.BytesIO(data)) as image:
            height, width = image.height, image.width
        names = ["height", "width", "channels"]
        as_image = {"dtype": "image", "shape": [height, width, 3], "names": names}
        as_film = video_feature(height, width, int(CONTROL_HZ))
        features[IMAGE + camera] = as_film if as_video else as_image
    features[STATE] = {"dtype": "float32", "shape": [2], "names": list(STATE_NAMES)}
    features[ACTION] = {"dtype": "float32", "shape": [7], "names": list(ACTION_NAMES)}
    for name, (kind, width) in EXTRAS.items():
        names = {7: list(ACTION_NAMES), 3: ["x", "y", "z"]}.get(width)
        features[name] = {"dtype": kind, "shape": [width], "names": names}
    for name in COUNTERS:
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    return features


def final_row(episode: Episode, episode_index: int) -> dict[str, Any]:
    """The observation after the last action."""
    images = {IMAGE + camera: frames[-1] for camera, frames in sorted(episode.images.items())}
    return {"episode_index": episode_index, STATE: episode.proprio[-1].tolist(), **images}


def images_of(final: Mapping[str, Any]) -> dict[str, bytes]:
    """The images of a `final_row`, by camera."""
    return {k.removeprefix(IMAGE): v for k, v in final.items() if k.startswith(IMAGE)}


def add_frames(
    videos: Mapping[str, VideoWriter], episode: Episode, chunk: int, number: int
) -> dict[str, Any]:
    """Appends an episode to its cameras' videos; where it lies in them, for the episodes table."""
    row: dict[str, Any] = {}
    for name, video in videos.items():
        begin = video.frames / CONTROL_HZ
        for data in episode.images[name.removeprefix(IMAGE)][: len(episode)]:
            video.add(decode_jpeg(data))
        row |= {
            f"videos/{name}/chunk_index": chunk,
            f"videos/{name}/file_index": number,
            f"videos/{name}/from_timestamp": begin,
            f"videos/{name}/to_timestamp": video.frames / CONTROL_HZ,
        }
    return row
