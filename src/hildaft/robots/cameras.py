"""Cameras beside a real arm, read by a thread of their own: the newest frame at once, and never an old one unsaid."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hildaft.types import HilDaftError

IMAGE_SIZE: Final = 128
"""Side in px of the views that the policy gets."""
Frame = UInt8[np.ndarray, "h w 3"]
Crop: TypeAlias = tuple[int, int, int, int]
"""Top, left, height and width in pixels that are kept of a frame."""


def require_crop(crop: Crop | None) -> None:
    """Raises HilDaftError where a crop can lie in no frame, however large."""
    if crop is not None and (min(crop[:2]) < 0 or min(crop[2:]) < 1):
        msg = f"cameras.crop={crop}: top and left from 0, height and width from 1 are allowed"
        raise HilDaftError(msg)


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """One camera of a real robot."""

    kind: Literal["opencv", "realsense"] = "opencv"
    """USB cameras through OpenCV, or a RealSense (its own library)."""
    device: str = "0"
    """OpenCV: device number or path. RealSense: serial number."""
    width: int = 640
    """Asked of the camera."""
    height: int = 480
    """Asked of the camera."""
    fps: int = 30
    """Asked of the camera."""
    crop: tuple[int, int, int, int] | None = None
    """Top, left, height and width in pixels that are kept; a centred square where not given."""
    max_age_s: float = 0.25
    """An older frame is a fault: the robot holds."""

    def __post_init__(self) -> None:
        require_crop(self.crop)


@runtime_checkable
class Camera(Protocol):
    """What gives frames."""

    def read(self) -> Frame:
        """The newest frame, RGB; raises HilDaftError where it is too old."""
        ...

    def close(self) -> None:
        """Lets the device go."""
        ...


@final
class ThreadedCamera:
    """Implements `Camera` over a blocking `grab` (RGB, or None where nothing came)."""

    def __init__(
        self,
        name: str,
        grab: Callable[[], Frame | None],
        release: Callable[[], None],
        max_age_s: float,
        first_frame_s: float = 5.0,
    ) -> None:
        self._name, self._grab, self._release = name, grab, release
        self._max_age_s: Final = max_age_s
        self._newest: tuple[float, Frame] | None = None
        self._arrived = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)
        self._thread.start()
        with self._arrived:
            came = self._arrived.wait_for(lambda: self._newest is not None, first_frame_s)
        if not came:
            self.close()
            msg = f"camera {name}: no frame within {first_frame_s:.0f} s; is it plugged in, and free of other programs?"
            raise HilDaftError(msg)

    def read(self) -> Frame:
        """The newest frame; raises HilDaftError where it is too old."""
        with self._arrived:
            newest = self._newest
        assert newest is not None
        age = time.monotonic() - newest[0]
        if age > self._max_age_s:
            msg = (
                f"camera {self._name}: its newest frame is {age:.2f} s old, {self._max_age_s} s is allowed;"
                " check the cable and the light"
            )
            raise HilDaftError(msg)
        return newest[1]

    def close(self) -> None:
        """Ends the thread and lets the device go."""
        self._stopped = True
        self._thread.join(timeout=2.0)
        # A thread that hangs in the driver keeps the device: releasing it under its feet would crash.
        if not self._thread.is_alive():
            self._release()

    def _run(self) -> None:
        while not self._stopped:
            frame = self._grab()
            if frame is None:
                time.sleep(0.01)
                continue
            with self._arrived:
                self._newest = (time.monotonic(), frame)
                self._arrived.notify_all()


def open_camera(name: str, config: CameraConfig) -> Camera:
    """Opens a camera and waits for its first frame.

    Raises:
        HilDaftError: its library is not installed, or it gives no frame.
    """
    match config.kind:
        case "opencv":
            return _open_opencv(name, config)
        case "realsense":
            return _open_realsense(name, config)


def _open_opencv(name: str, config: CameraConfig) -> Camera:
    cv2 = _library("cv2", "opencv-python-headless", name)
    device = int(config.device) if config.device.isdigit() else config.device
    capture: Any = cv2.VideoCapture(device)
    if not capture.isOpened():
        msg = f"camera {name} device={config.device!r}: cannot be opened; `hildaft doctor` lists the cameras found"
        raise HilDaftError(msg)
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
    capture.set(cv2.CAP_PROP_FPS, config.fps)

    def grab() -> Frame | None:
        good, image = capture.read()
        return np.ascontiguousarray(image[:, :, ::-1]) if good else None

    return ThreadedCamera(name, grab, capture.release, config.max_age_s)


def _open_realsense(name: str, config: CameraConfig) -> Camera:
    rs = _library("pyrealsense2", "pyrealsense2", name)
    pipeline, wanted = rs.pipeline(), rs.config()
    wanted.enable_device(config.device)
    wanted.enable_stream(rs.stream.color, config.width, config.height, rs.format.rgb8, config.fps)
    try:
        pipeline.start(wanted)
    except RuntimeError as error:
        msg = f"camera {name} serial={config.device!r}: {error}; `hildaft doctor` lists the cameras found"
        raise HilDaftError(msg) from error

    def grab() -> Frame | None:
        good, frames = pipeline.try_wait_for_frames(200)
        return np.asarray(frames.get_color_frame().get_data()).copy() if good else None

    return ThreadedCamera(name, grab, pipeline.stop, config.max_age_s)


def _library(module: str, package: str, camera: str) -> Any:  # noqa: ANN401 - a module without types
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        msg = f"camera {camera}: {module} is not installed; pip install {package}"
        raise HilDaftError(msg) from error


def square_view(
    frame: UInt8[np.ndarray, "h w 3"], kept: Crop | None, camera: str
) -> UInt8[np.ndarray, "128 128 3"]:
    """The part of a frame that is kept (a centred square for None), at the policy's size.

    Raises:
        HilDaftError: that part leaves the frame; `camera` is whose it is.
    """
    height, width = frame.shape[:2]
    side = min(height, width)
    crop = ((height - side) // 2, (width - side) // 2, side, side) if kept is None else kept
    top, left, tall, wide = crop
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        msg = (
            f"camera {camera} crop={crop}: it leaves the frame, which is {height} high and {width} wide; top + height"
            f" up to {height} and left + width up to {width} are allowed: mend crop in the robot's file"
        )
        raise HilDaftError(msg)
    cut = Image.fromarray(frame[top : top + tall, left : left + wide])
    return np.asarray(cut.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))
