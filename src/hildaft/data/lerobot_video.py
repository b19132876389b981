"""Images of a dataset as videos: written frame by frame, read frame by frame, never a whole episode in memory."""

import importlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, final, overload

import numpy as np
from jaxtyping import UInt8

from hildaft.types import HilDaftError

VIDEO: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_KEY_EVERY: Final = 2
"""Frames between key frames, as LeRobot has it: training jumps to single frames."""
_QUALITY: Final = 20
"""Constant rate factor of H.264; 23 is the usual, smaller is better."""

Frame = UInt8[np.ndarray, "h w 3"]


def av_library(folder: Path) -> Any:  # noqa: ANN401 - PyAV is only part-typed
    """PyAV; raises HilDaftError with the cure where it is not installed."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        msg = f"dataset {folder}: its images are videos; pip install 'hildaft[video]' for them"
        raise HilDaftError(msg) from error


def video_feature(height: int, width: int, fps: int) -> dict[str, Any]:
    """A camera's entry in info.json."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


@final
class VideoWriter:
    """One camera's frames of one data file, as H.264.

    Raises:
        HilDaftError: PyAV is missing, or the size is odd, which the codec cannot have.
    """

    def __init__(self, path: Path, height: int, width: int, fps: int) -> None:
        av = av_library(path.parent)
        if height % 2 or width % 2:
            msg = f"video {path.name}: {width} x {height} px; even numbers are allowed, export it as images instead"
            raise HilDaftError(msg)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._av, self._fps = av, fps
        self._container: Any = av.open(str(path), "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=fps)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        # One thread and no scene cuts: the same frames give the same bytes.
        self._stream.codec_context.thread_count = 1
        self._stream.options = {"crf": str(_QUALITY), "g": str(_KEY_EVERY), "sc_threshold": "0"}
        self.frames = 0
        """Frames written so far."""

    def add(self, frame: Frame) -> None:
        """Appends one frame, RGB."""
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.frames, Fraction(1, self._fps)
        self.frames += 1
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Writes what the encoder still holds."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class VideoFrames(Sequence[Frame]):
    """One episode's frames out of a video that holds many, decoded as they are asked for, best in order.

    Raises:
        HilDaftError: PyAV is missing; from reading, that the file is damaged or cut short.
    """

    def __init__(self, path: Path, start_s: float, fps: float, count: int) -> None:
        self._path, self._fps, self._count = path, fps, count
        # Half a frame earlier: stamps are rounded.
        self._start_s: Final = start_s - 0.5 / fps
        self._av = av_library(path.parent)
        self._frames: Iterator[Frame] | None = None
        self._next = 0
        self._last: Frame | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        index = index + self._count if index < 0 else index
        if not 0 <= index < self._count:
            raise IndexError(index)
        if self._last is not None and index == self._next - 1:
            return self._last
        if self._frames is None or index < self._next:
            self._frames, self._next = self._decode(), 0
        while self._next <= index:
            frame = next(self._frames, None)
            if frame is None:
                msg = (
                    f"dataset file {self._path}: {self._next} of {self._count} frames from {self._start_s:.2f} s on;"
                    " the file is cut short"
                )
                raise HilDaftError(msg)
            self._last = frame
            self._next += 1
        assert self._last is not None
        return self._last

    def _decode(self) -> Iterator[Frame]:
        try:
            with self._av.open(str(self._path)) as container:
                stream = container.streams.video[0]
                container.seek(max(0, int(self._start_s / stream.time_base)), stream=stream)
                for frame in container.decode(stream):
                    if frame.time >= self._start_s:
                        yield frame.to_ndarray(format="rgb24")
        except (OSError, self._av.FFmpegError) as error:
            msg = f"dataset file {self._path}: {' '.join(str(error).split())[:200]}"
            raise HilDaftError(msg) from error
