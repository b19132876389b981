import io
import math
import os
import struct
from dataclasses import dataclass, field

import numpy as np
import pytest
from rich.console import Console

from hildaft.commands.doctor import doctor
from hildaft.doctor.teleop import (
    UDEV_RULES,
    check_teleop,
    find_nodes,
    look,
    summary,
    watch,
)
from hildaft.teleop.device import Reading
from hildaft.teleop.gamepad import Gamepad
from hildaft.teleop.spacemouse import SpaceMouse
from hildaft.types import HilDaftError


def plug(root, name: str, uevent: str, mode: int = 0o600) -> None:
    sysfs = root / "sys/class/hidraw" / name / "device"
    sysfs.mkdir(parents=True)
    (sysfs / "uevent").write_text(uevent)
    node = root / "dev" / name
    node.parent.mkdir(exist_ok=True)
    node.touch()
    node.chmod(mode)


@pytest.fixture
def machine(tmp_path):
    plug(tmp_path, "hidraw0", "DRIVER=hid-generic\nHID_ID=0003:0000046D:0000C077\nHID_NAME=Mouse\n")
    plug(
        tmp_path,
        "hidraw1",
        "HID_ID=0003:0000256F:0000C635\nHID_NAME=3Dconnexion SpaceMouse Compact\n",
    )
    plug(tmp_path, "hidraw2", "HID_ID=0003:0000046D:0000C626\nHID_NAME=SpaceNavigator\n")
    pad = tmp_path / "sys/class/input/js0/device"
    pad.mkdir(parents=True)
    (pad / "name").write_text("Pad\n")
    return tmp_path


def test_space_mice_are_told_from_other_mice(machine) -> None:
    assert [(n.path.name, n.kind) for n in find_nodes(machine)] == [
        ("hidraw1", "spacemouse"),
        ("hidraw2", "spacemouse"),
        ("js0", "gamepad"),
    ]


def test_a_missing_permission_comes_with_the_rule_to_install(machine, monkeypatch) -> None:
    # The tests may run as root, who may open everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    told = [finding for finding in look(machine) if "hidraw1" in finding.what]
    assert [finding.ready for finding in told] == [False]
    assert "udev" in told[0].do
    assert 'ATTRS{idVendor}=="256f"' in UDEV_RULES
    assert 'ATTRS{idProduct}=="c626"' in UDEV_RULES


def test_an_empty_machine_says_so_and_ends_with_1(tmp_path) -> None:
    out = io.StringIO()
    assert check_teleop(0.1, root=tmp_path, console=Console(file=out, width=120)) == 1
    assert "no SpaceMouse is plugged in" in out.getvalue()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class State:
    t: float
    x: float
    y: float = 0.0
    z: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    buttons: list[int] = field(default_factory=lambda: [0, 0])


class Cap:
    """Pushed forward by 0.7, reporting at 125 Hz."""

    name = "FakeMouse"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def read(self) -> State:
        return State(t=math.floor(self.clock() * 125) / 125, x=0.7)

    def close(self) -> None:
        pass


def test_live_axes_rate_and_age_are_measured() -> None:
    clock = Clock()
    mouse = SpaceMouse(lambda: Cap(clock), clock=clock, threaded=False)

    def wait(seconds: float) -> None:
        until = clock() + seconds
        while clock() < until:
            clock.wait(0.004)
            mouse.poll()

    out = io.StringIO()
    figures = watch(mouse, 2.0, Console(file=out, width=80), clock=clock, wait=wait)
    assert figures.rate_hz == pytest.approx(125, rel=0.05)
    assert figures.largest == (0.7, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert 0.0 <= figures.age_p95_ms <= 9.0
    assert "125 Hz" in summary(figures)
    assert "never moved: left" in summary(figures)


def test_a_gamepads_buttons_are_shown_with_what_they_do(tmp_path) -> None:
    node = tmp_path / "js0"
    os.mkfifo(node)
    kernel = os.open(node, os.O_RDWR | os.O_NONBLOCK)
    out, clock = io.StringIO(), Clock()
    os.write(kernel, struct.pack("<IhBB", 0, 1, 1, 3) + struct.pack("<IhBB", 0, 1, 1, 5))
    pad = Gamepad(node)
    try:
        figures = watch(pad, 0.2, Console(file=out, width=160), clock=clock, wait=clock.wait)
    finally:
        pad.close()
        os.close(kernel)
    for words in (
        "Y success",
        "X failure",
        "LB re-record",
        "Start pause",
        "Back stop",
        "RB dead-man",
    ):
        assert words in out.getvalue()
    told = summary(figures)
    assert "never down: A (close gripper), B (open gripper), X (failure)" in told
    assert "Y (success)" not in told


class Broken:
    name = "broken"

    def read(self) -> Reading:
        return Reading(axes=np.zeros(6, dtype=np.float32), fault="broken is lost")

    def close(self) -> None:
        self.closed = True


def test_a_lost_device_is_named_closed_and_ends_with_1(tmp_path) -> None:
    out, device = io.StringIO(), Broken()
    console = Console(file=out, width=120)
    assert check_teleop(0.12, root=tmp_path, console=console, device=device) == 1
    assert "broken is lost" in out.getvalue()
    assert device.closed


def test_the_command(capsys, unchecked_calls) -> None:
    assert doctor(["--teleop", "--udev"]) == 0
    assert capsys.readouterr().out.strip() == UDEV_RULES
    with pytest.raises(HilDaftError, match="seconds"):
        doctor(["--teleop", "--seconds", "-1"])
