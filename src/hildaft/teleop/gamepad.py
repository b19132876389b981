"""A gamepad at the robot's machine through Linux' joystick interface, without any library.

The kernel reports changes only, so a stick that is held says nothing: RB must be held as a dead-man while the sticks
move the robot. Layout (the common one of Xbox-like pads): left stick forward and left, right stick up and yaw,
A closes the gripper, B opens it; Y, X, LB, Start and Back are the keys beside the robot (`KEYS`).
"""

import errno
import fcntl
import os
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, final

import numpy as np

from hildaft.teleop.device import Reading
from hildaft.types import HilDaftError, Press

KEYS: Final[Mapping[str, Press]] = {
    "Y": "success",
    "X": "failure",
    "LB": "again",
    "Start": "pause",
    "Back": "stop",
}
"""Button to key beside the robot. None of them needs the dead-man: a stop must not wait for it."""
_HAND: Final = {"A": "close gripper", "B": "open gripper", "RB": "dead-man"}
BUTTONS: Final[Mapping[str, str]] = {**_HAND, **KEYS, "LB": "re-record"}
"""What every button does, by the name that is printed on it."""

_EVENT: Final = struct.Struct("<IhBB")
"""Time (ms), value, kind, number: `struct js_event` of the kernel."""
_BUTTON, _AXIS, _INITIAL = 1, 2, 0x80
_FULL: Final = 32767.0
_POLL_S: Final = 0.02
"""How often the thread that waits for presses looks."""

_BUTTON_CODES: Final = {
    0x130: "A",
    0x131: "B",
    0x133: "X",
    0x134: "Y",
    0x136: "LB",
    0x137: "RB",
    0x13A: "Back",
    0x13B: "Start",
}
"""BTN_SOUTH, BTN_EAST, BTN_X, BTN_Y, BTN_TL, BTN_TR, BTN_SELECT, BTN_START of linux/input-event-codes.h."""
_XPAD_BUTTONS: Final = {0: "A", 1: "B", 2: "X", 3: "Y", 4: "LB", 5: "RB", 6: "Back", 7: "Start"}
"""The numbers of the kernel's Xbox driver, for a node that does not tell its own."""
_AXIS_CODES: Final = {0x01: (0, -1.0), 0x00: (1, -1.0), 0x04: (2, -1.0), 0x03: (5, -1.0)}
"""ABS_Y, ABS_X, ABS_RY, ABS_RX to (index in `device.AXES`, sense): sticks count right and down as positive."""
_XPAD_AXES: Final = {1: (0, -1.0), 0: (1, -1.0), 4: (2, -1.0), 3: (5, -1.0)}
_GET_BUTTON_CODES: Final = 0x84006A34
"""JSIOCGBTNMAP of linux/joystick.h: 512 codes of 16 bits."""
_GET_AXIS_CODES: Final = 0x80406A32
"""JSIOCGAXMAP: 64 codes of 8 bits."""


def named_buttons(codes: bytes) -> dict[int, str]:
    """Button number to name, from the kernel's map of 16-bit codes."""
    values = enumerate(struct.unpack(f"<{len(codes) // 2}H", codes))
    return {number: _BUTTON_CODES[code] for number, code in values if code in _BUTTON_CODES}


def named_axes(codes: bytes) -> dict[int, tuple[int, float]]:
    """Stick axis number to (index in `device.AXES`, sense), from the kernel's map of 8-bit codes."""
    found: dict[int, tuple[int, float]] = {}
    for number, code in enumerate(codes):
        # Unused places of the map are 0, which is the code of the left stick.
        if code in _AXIS_CODES and _AXIS_CODES[code] not in found.values():
            found[number] = _AXIS_CODES[code]
    return found


@final
class Gamepad:
    """Implements `device.Device` and `device.KeyedDevice`.

    Raises:
        HilDaftError: the device node is missing or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.name: Final = f"gamepad {path}"
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            msg = (
                f"gamepad {path}: {error.strerror}; plug it in, see which one is there with "
                "`hildaft doctor --teleop`, and let your user read it"
            )
            raise HilDaftError(msg) from error
        self._buttons, self._sticks = _layout(self._file)
        self._lock = threading.Lock()
        self._axes = np.zeros(6, dtype=np.float32)
        self._down: set[str] = set()
        self._pressed: deque[Press] = deque()
        self._fault = ""
        self._rest = b""
        self._closed = threading.Event()

    def read(self) -> Reading:
        """The pad's state now; at rest unless RB is held."""
        with self._lock:
            self._drain()
            held = "RB" in self._down and not self._fault
            return Reading(
                axes=self._axes.copy() if held else np.zeros(6, dtype=np.float32),
                close=held and "A" in self._down,
                open=held and "B" in self._down,
                # The kernel's state is the pad's state: it is as old as this call.
                age_s=0.0,
                fault=self._fault,
            )

    @property
    def down(self) -> frozenset[str]:
        """Names of the buttons that are down."""
        with self._lock:
            return frozenset(self._down)

    def presses(self) -> Iterator[Press]:
        """Keys beside the robot as they are pressed, until the pad is closed or lost."""
        while not self._closed.wait(_POLL_S):
            with self._lock:
                self._drain()
                pressed, lost = tuple(self._pressed), bool(self._fault)
                self._pressed.clear()
            yield from pressed
            if lost:
                return

    def close(self) -> None:
        """Lets go of the device."""
        self._closed.set()
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._fault = self._fault or f"{self.name} is closed"

    def _drain(self) -> None:
        while not self._fault:
            try:
                data = os.read(self._file, 64 * _EVENT.size)
            except BlockingIOError:
                return
            except OSError as error:
                why = "unplugged" if error.errno == errno.ENODEV else error.strerror
                self._fault = f"{self.name} is lost: {why}"
                return
            if not data:
                self._fault = f"{self.name} is lost: it has ended"
                return
            data = self._rest + data
            whole = len(data) // _EVENT.size * _EVENT.size
            self._rest = data[whole:]
            for _, value, kind, number in _EVENT.iter_unpack(data[:whole]):
                self._take(kind & ~_INITIAL, number, value, is_news=not kind & _INITIAL)

    def _take(self, kind: int, number: int, value: int, *, is_news: bool) -> None:
        if kind == _AXIS and number in self._sticks:
            index, sense = self._sticks[number]
            self._axes[index] = np.float32(np.clip(sense * value / _FULL, -1.0, 1.0))
        elif kind == _BUTTON and number in self._buttons:
            name = self._buttons[number]
            if not value:
                self._down.discard(name)
            elif name not in self._down:
                self._down.add(name)
                # A button that was down when the pad was opened has not been pressed for us.
                if is_news and name in KEYS:
                    self._pressed.append(KEYS[name])


def _layout(file: int) -> tuple[dict[int, str], dict[int, tuple[int, float]]]:
    """Buttons and sticks by number: the pad's own numbering, the Xbox driver's where it tells none."""
    try:
        buttons = named_buttons(fcntl.ioctl(file, _GET_BUTTON_CODES, bytes(1024)))
        axes = named_axes(fcntl.ioctl(file, _GET_AXIS_CODES, bytes(64)))
    except OSError:
        return dict(_XPAD_BUTTONS), dict(_XPAD_AXES)
    # A joystick of another kind has no button by these names: nothing is guessed for it.
    return buttons, axes
