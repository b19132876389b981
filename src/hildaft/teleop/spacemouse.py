"""A 3Dconnexion SpaceMouse through pyspacemouse (extra `spacemouse`).

Axes follow ROS (REP 103): x forward, y left, z up, rotations by the right hand about them; the driver's default
mixes up roll and pitch. Reports are read as they come by a thread of their own and stamped with their arrival, because
the driver's `read` repeats its last state when nothing came.
"""

import contextlib
import importlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, final, runtime_checkable

import numpy as np

from hildaft.teleop.device import Reading
from hildaft.types import HilDaftError

POLL_S: Final = 0.002
"""Pause between looks for a report; the cap sends one about every 8 ms."""
QUEUE: Final = 64
"""Reports the kernel keeps for a reader."""
STUCK_S: Final = 0.25
"""A look that takes longer means that the driver hangs."""
REOPEN_S: Final = 1.0
"""Pause between attempts to find a device that was lost."""


@runtime_checkable
class CapState(Protocol):
    """What the driver reports: pyspacemouse's `SpaceMouseState`."""

    t: float
    """Time of the last report on the driver's clock; unchanged when nothing came."""
    x: float
    y: float
    z: float
    roll: float
    pitch: float
    yaw: float
    buttons: Sequence[int]


@runtime_checkable
class Cap(Protocol):
    """An open device: pyspacemouse's `SpaceMouseDevice` in the ROS convention."""

    @property
    def name(self) -> str:
        """The model."""
        ...

    def read(self) -> CapState:
        """Takes in at most one report and returns the state after it."""
        ...

    def close(self) -> None:
        """Lets go of the device."""
        ...


def open_cap(name: str | None = None) -> Cap:
    """Opens a connected SpaceMouse; the first one found where none is named.

    Raises:
        HilDaftError: the driver or the system library is missing, no device is there, or it may not be opened.
    """
    driver = load_driver()
    try:
        with contextlib.redirect_stdout(None):
            return driver.open(device=name, axis_convention=driver.AxisConvention.ROS)
    except ValueError as error:
        known = ", ".join(driver.get_device_specs())
        msg = f"spacemouse {name!r} is no known model; one of these is allowed: {known}"
        raise HilDaftError(msg) from error
    except (RuntimeError, OSError, AttributeError) as error:
        msg = (
            f"spacemouse: {error}; plug it in and check it with `hildaft doctor --teleop`, which "
            "names the permission that may be missing"
        )
        raise HilDaftError(msg) from error


def load_driver() -> Any:  # noqa: ANN401 - an optional module without types of its own
    """The pyspacemouse module; raises HilDaftError with what to install."""
    try:
        return importlib.import_module("pyspacemouse")
    except ImportError as error:
        msg = f"spacemouse: {error}; install the driver with: pip install 'hildaft[spacemouse]'"
        raise HilDaftError(msg) from error
    except OSError as error:
        msg = "spacemouse: the system library hidapi is missing; install it, e.g.: sudo apt install libhidapi-hidraw0"
        raise HilDaftError(msg) from error


@final
class SpaceMouse:
    """Implements `device.Device`. Left button closes the gripper, right button opens it.

    A device that is unplugged or whose driver fails is reported as a fault and looked for again.

    Args:
        open_device: opens the device; called again after a loss.
        clock: seconds, monotonic; replaceable in tests.
        threaded: whether a thread looks for reports; where it does not, `poll` must be called.
    """

    def __init__(
        self,
        open_device: Callable[[], Cap] = open_cap,
        *,
        clock: Callable[[], float] = time.monotonic,
        threaded: bool = True,
    ) -> None:
        self._open_device, self._clock = open_device, clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._cap: Cap | None = open_device()
        self.name: Final = self._cap.name
        self._seen_t: float | None = None
        self._newest = Reading(axes=np.zeros(6, dtype=np.float32))
        self._reported_s = -np.inf
        self._looked_s = clock()
        self._lost_s = -np.inf
        self.arrivals_s: Final = deque[float](maxlen=100_000)
        """When each report came, on the clock."""
        self._thread = threading.Thread(target=self._run, name="spacemouse", daemon=True)
        if threaded:
            self._thread.start()

    def read(self) -> Reading:
        """The newest report and its age; a fault where the device is gone or its driver hangs."""
        with self._lock:
            newest, reported_s, looked_s = self._newest, self._reported_s, self._looked_s
        now = self._clock()
        fault = newest.fault
        if not fault and now - looked_s > STUCK_S:
            fault = f"{self.name}: its driver hangs"
        return Reading(
            axes=newest.axes,
            close=newest.close,
            open=newest.open,
            age_s=now - reported_s,
            fault=fault,
        )

    def poll(self) -> None:
        """Takes in every report that waits; finds the device again after a loss."""
        cap = self._cap or self._find()
        if cap is None:
            return
        try:
            for _ in range(QUEUE):
                state = cap.read()
                if self._seen_t == state.t:
                    break
                self._take(state)
        # Drivers raise what they please when a cable is pulled; whatever it is, the robot must stand.
        except Exception as error:
            self._lose(cap, error)
            return
        with self._lock:
            self._looked_s = self._clock()

    def close(self) -> None:
        """Ends the thread and lets go of the device."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)
        if self._cap is not None:
            self._cap.close()
            self._cap = None

    def _run(self) -> None:
        while not self._closed.wait(POLL_S):
            self.poll()

    def _take(self, state: CapState) -> None:
        axes = (state.x, state.y, state.z, state.roll, state.pitch, state.yaw)
        buttons = [*state.buttons, 0, 0]
        first = self._seen_t is None and state.t < 0
        self._seen_t = state.t
        if first:
            # The driver's state before any report.
            return
        with self._lock:
            self._newest = Reading(
                axes=np.clip(np.array(axes, dtype=np.float32), -1.0, 1.0),
                close=bool(buttons[0]),
                open=bool(buttons[1]),
            )
            self._reported_s = self._looked_s = self._clock()
            self.arrivals_s.append(self._reported_s)

    def _lose(self, cap: Cap, error: Exception) -> None:
        with contextlib.suppress(Exception):
            cap.close()
        self._cap, self._seen_t, self._lost_s = None, None, self._clock()
        rest = np.zeros(6, dtype=np.float32)
        with self._lock:
            self._newest = Reading(axes=rest, fault=f"{self.name} is lost: {error}")

    def _find(self) -> Cap | None:
        if self._clock() - self._lost_s < REOPEN_S:
            return None
        try:
            self._cap = self._open_device()
        except HilDaftError:
            self._lost_s = self._clock()
            return None
        with self._lock:
            self._newest = Reading(axes=np.zeros(6, dtype=np.float32))
            self._looked_s = self._clock()
        return self._cap
