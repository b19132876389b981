"""What the robot's loop shows: pictures and numbers of the newest step, taken where the robot is stepped."""

import io
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, final, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from hildaft.types import Action, ActionScale, Observation, Robot, StepResult

JPEG_QUALITY: Final = 85
"""For looking at; what is stored is encoded by the episode builder."""

Guide: TypeAlias = tuple[tuple[float, ...], ...]
"""Where the end effector is in an image and how it would move there: (u, v), then per base axis (du, dv, nearer),
in image widths per metre; `nearer` is metres towards the camera per metre."""


@runtime_checkable
class Looks(Protocol):
    """A robot that can be looked at without a step."""

    def look(self) -> Observation:
        """The observation of the state as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """The newest step of one robot."""

    number: int = 0
    """Counts pictures, not steps: a held robot is looked at too."""
    taken_s: float = 0.0
    images: Mapping[str, UInt8[np.ndarray, "h w 3"]] = field(default_factory=dict)
    jaw_opening: float = 1.0
    jaws_closed: bool = False
    executed: tuple[float, ...] = ()
    task: str = ""
    episode: int = 0
    """Counts resets."""
    step: int = 0
    """Steps of the episode under way."""
    guides: Mapping[str, Guide] = field(default_factory=dict[str, Guide])


@final
class Feed:
    """Holds the newest frame of one robot and tells whoever subscribed; frames nobody fetched are dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame = Frame()
        self._jpegs: dict[str, bytes] = {}
        self._subscribers: set[Callable[[], None]] = set()

    @property
    def frame(self) -> Frame:
        """The newest frame."""
        return self._frame

    def publish(self, frame: Frame) -> None:
        """Takes a new frame; called by the robot's loop."""
        with self._lock:
            self._frame, self._jpegs = frame, {}
            subscribers = tuple(self._subscribers)
        for subscriber in subscribers:
            subscriber()

    def jpegs(self) -> tuple[Frame, dict[str, bytes]]:
        """The newest frame and its images as JPEG, encoded once for everybody who watches."""
        with self._lock:
            frame, jpegs = self._frame, self._jpegs
        if not jpegs:
            # Outside the lock: the robot's loop must not wait for it.
            jpegs = {name: _encode(image) for name, image in frame.images.items()}
            with self._lock:
                if frame is self._frame:
                    self._jpegs = jpegs
        return frame, jpegs

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Calls `notify` after every frame, from the loop's thread; returns how to end that."""
        with self._lock:
            self._subscribers.add(notify)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers.discard(notify)

        return unsubscribe


@final
class WatchedRobot:
    """Wraps a robot and publishes what it sees and does (implements `types.Robot`).

    Args:
        robot: what is watched.
        feed: where frames go.
        guides: where the end effector is in each image; None where the robot cannot tell.
    """

    def __init__(
        self,
        robot: Robot,
        feed: Feed,
        guides: Callable[[], Mapping[str, Guide]] | None = None,
        view: Looks | None = None,
    ) -> None:
        self._robot: Final = robot
        self._feed: Final = feed
        self._guides, self._view = guides, view
        self._task, self._episode, self._step = "", 0, 0

    @property
    def name(self) -> str:
        """The wrapped robot's name."""
        return self._robot.name

    @property
    def action_scale(self) -> ActionScale:
        """The wrapped robot's action scale."""
        return self._robot.action_scale

    @property
    def jaws_closed(self) -> bool:
        """Whether the jaws are commanded closed, as last seen."""
        return self._feed.frame.jaws_closed

    def reset(self, task: str, seed: int) -> Observation:
        """Resets the robot and shows the start."""
        observation = self._robot.reset(task, seed)
        self._task, self._episode, self._step = task, self._episode + 1, 0
        self._show(observation, None)
        return observation

    def step(self, action: Action) -> StepResult:
        """Steps the robot and shows the result."""
        result = self._robot.step(action)
        self._step += 1
        self._show(result.observation, action)
        return result

    def look(self) -> None:
        """Shows the state as it is, where the robot can be looked at without a step."""
        if self._view is not None:
            self._show(self._view.look(), None)

    def stop(self) -> None:
        """Leaves the arm holding still."""
        self._robot.stop()

    def _show(self, observation: Observation, action: Action | None) -> None:
        opening, closed = observation.proprio.tolist()[:2]
        self._feed.publish(
            Frame(
                number=self._feed.frame.number + 1,
                taken_s=time.time(),
                images={name: image.copy() for name, image in observation.images.items()},
                jaw_opening=opening,
                jaws_closed=closed > 0.5,
                executed=() if action is None else tuple(float(a) for a in action),
                task=self._task,
                episode=self._episode,
                step=self._step,
                guides={} if self._guides is None else self._guides(),
            )
        )


def guide_from(
    uv: Float[np.ndarray, "4 2"], depth_m: Float[np.ndarray, " 4"], reach_m: float
) -> Guide:
    """The guide of one image from the projections of the end effector and of points `reach_m` along +x, +y, +z."""
    moved = (uv[1:] - uv[0]) / reach_m
    nearer = -(depth_m[1:] - depth_m[0]) / reach_m
    axes = np.column_stack([moved, nearer])
    return tuple(uv[0].tolist()), *(tuple(axis) for axis in axes.tolist())


def _encode(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
