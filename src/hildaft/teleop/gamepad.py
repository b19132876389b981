"""A gamepad at the robot's machine through Linux' joystick interface, without any library.

The kernel reports changes only, so a stick that is held says nothing: RB must be held as a dead-man while the sticks
move the robot. Layout (the common one of Xbox-like pads): left stick forward and left, right stick up and yaw,
A closes the gripper, B opens it.
"""

import errno
import os
import struct
from pathlib import Path
from typing import Final, final

import numpy as np

from hildaft.teleop.device import Reading
from hildaft.types import HilDaftError

_EVENT: Final = struct.Struct("<IhBB")
"""Time (ms), value, kind, number: `struct js_event` of the kernel."""
_BUTTON, _AXIS, _INITIAL = 1, 2, 0x80
_FULL: Final = 32767.0
_AXES: Final = {1: (0, -1.0), 0: (1, -1.0), 4: (2, -1.0), 3: (5, -1.0)}
"""Stick axis to (index in `device.AXES`, sense): sticks count right and down as positive."""
_CLOSE, _OPEN, _DEAD_MAN = 0, 1, 5


@final
class Gamepad:
    """Implements `device.Device`.

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
        self._axes = np.zeros(6, dtype=np.float32)
        self._down: set[int] = set()
        self._fault = ""
        self._rest = b""

    def read(self) -> Reading:
        """The pad's state now; at rest unless RB is held."""
        self._drain()
        held = _DEAD_MAN in self._down and not self._fault
        return Reading(
            axes=self._axes.copy() if held else np.zeros(6, dtype=np.float32),
            close=held and _CLOSE in self._down,
            open=held and _OPEN in self._down,
            # The kernel's state is the pad's state: it is as old as this call.
            age_s=0.0,
            fault=self._fault,
        )

    def close(self) -> None:
        """Lets go of the device."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

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
                self._take(kind & ~_INITIAL, number, value)

    def _take(self, kind: int, number: int, value: int) -> None:
        if kind == _AXIS and number in _AXES:
            index, sense = _AXES[number]
            self._axes[index] = np.float32(np.clip(sense * value / _FULL, -1.0, 1.0))
        elif kind == _BUTTON and value:
            self._down.add(number)
        elif kind == _BUTTON:
            self._down.discard(number)
