"""Whether a person can take the robot by hand here: devices, permissions, live axes, rate and latency.

`check_teleop` is the whole part; `hildaft doctor --teleop` calls it.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hildaft.teleop.device import AXES, Device, DeviceConfig, DeviceOperator
from hildaft.teleop.gamepad import BUTTONS, Gamepad
from hildaft.teleop.spacemouse import SpaceMouse, load_driver, open_cap
from hildaft.types import CONTROL_HZ, HilDaftError

VENDOR_3DCONNEXION: Final = 0x256F
LOGITECH_3D: Final = frozenset(
    (0xC603, 0xC605, 0xC606, 0xC621, 0xC623, 0xC625, 0xC626, 0xC627, 0xC628, 0xC629, 0xC62B)
)
"""3Dconnexion's devices from the years when Logitech was its name on the bus (vendor 046d)."""

UDEV_FILE: Final = "/etc/udev/rules.d/70-hildaft-spacemouse.rules"
UDEV_RULES: Final = "\n".join(
    (
        "# SpaceMouse for whoever sits at the machine; by cable, then by Bluetooth.",
        'SUBSYSTEM=="hidraw", ATTRS{idVendor}=="256f", MODE="0660", TAG+="uaccess"',
        'SUBSYSTEM=="hidraw", KERNELS=="0005:256F:*", MODE="0660", TAG+="uaccess"',
        *(
            f'SUBSYSTEM=="hidraw", ATTRS{{idVendor}}=="046d", ATTRS{{idProduct}}=="{product:04x}",'
            ' MODE="0660", TAG+="uaccess"'
            for product in sorted(LOGITECH_3D)
        ),
    )
)
"""udev rules; the number in the file's name is below that of the rule which grants "uaccess"."""

_REFRESH_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    ready: bool
    what: str
    do: str = ""
    """What to do about it; "" where there is nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node of this machine."""

    path: Path
    name: str
    may_open: bool
    kind: str
    """spacemouse or gamepad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFigures:
    """What a device did while it was watched; NaN where it never reported."""

    seconds: float
    reports: int
    rate_hz: float
    """Reports per second while it reported: gaps of over 250 ms are left out."""
    interval_p95_ms: float
    age_p50_ms: float
    """Age of the newest report when a 10 Hz loop asked for it, while the device was pushed."""
    age_p95_ms: float
    read_p95_ms: float
    """What asking cost."""
    largest: tuple[float, ...]
    """Largest deflection seen per axis."""
    untouched: tuple[str, ...] = ()
    """Named buttons that were never down, with what they do."""


def find_nodes(root: Path = Path("/")) -> list[Node]:
    """SpaceMice among the raw HID nodes, and joysticks, as the kernel lists them below `root`."""
    nodes: list[Node] = []
    for entry in sorted((root / "sys/class/hidraw").glob("hidraw*")):
        text = _read(entry / "device/uevent")
        ids = re.search(r"HID_ID=[0-9A-F]+:0*([0-9A-F]{4}):0*([0-9A-F]{4})\b", text, re.IGNORECASE)
        if ids is None or not _is_spacemouse(int(ids[1], 16), int(ids[2], 16)):
            continue
        name = re.search(r"HID_NAME=(.*)", text)
        path = root / "dev" / entry.name
        may = os.access(path, os.R_OK | os.W_OK)
        label = name[1].strip() if name else "SpaceMouse"
        nodes.append(Node(path=path, name=label, may_open=may, kind="spacemouse"))
    for entry in sorted((root / "sys/class/input").glob("js*")):
        path = root / "dev/input" / entry.name
        label = _read(entry / "device/name").strip() or "gamepad"
        nodes.append(Node(path=path, name=label, may_open=os.access(path, os.R_OK), kind="gamepad"))
    return nodes


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_spacemouse(vendor: int, product: int) -> bool:
    logitech = vendor == 0x046D and product in LOGITECH_3D
    return vendor == VENDOR_3DCONNEXION or logitech


def look(root: Path = Path("/")) -> list[Finding]:
    """What is installed, plugged in and permitted, and what to do about the rest."""
    findings: list[Finding] = []
    nodes = find_nodes(root)
    mice = [node for node in nodes if node.kind == "spacemouse"]
    try:
        load_driver()
        findings.append(Finding(ready=True, what="SpaceMouse driver (pyspacemouse, hidapi)"))
    except HilDaftError as error:
        what, _, do = str(error).removeprefix("spacemouse: ").rpartition("; ")
        findings.append(Finding(ready=False, what=f"SpaceMouse driver: {what}", do=do))
    if not mice:
        findings.append(Finding(ready=False, what="no SpaceMouse is plugged in"))
    for node in mice:
        do = "" if node.may_open else _rule_advice()
        may = "may be opened" if node.may_open else "may not be opened by this user"
        findings.append(
            Finding(ready=node.may_open, what=f"{node.name} at {node.path} {may}", do=do)
        )
    for node in nodes:
        if node.kind == "gamepad":
            may = "may be read" if node.may_open else "may not be read by this user"
            do = "" if node.may_open else "sudo usermod -aG input $USER, then log in anew"
            findings.append(
                Finding(
                    ready=node.may_open, what=f"gamepad {node.name} at {node.path} {may}", do=do
                )
            )
    return findings


def _rule_advice() -> str:
    return (
        f"hildaft doctor --teleop --udev | sudo tee {UDEV_FILE} && sudo udevadm control --reload"
        " && sudo udevadm trigger, then plug it in again"
    )


def open_found(root: Path = Path("/")) -> Device | None:
    """Opens the first device this user may open: a SpaceMouse, else a gamepad; None where there is none."""
    nodes = [node for node in find_nodes(root) if node.may_open]
    if any(node.kind == "spacemouse" for node in nodes):
        return SpaceMouse(open_cap)
    pads = [node for node in nodes if node.kind == "gamepad"]
    return Gamepad(pads[0].path) if pads else None


def watch(
    device: Device,
    seconds: float,
    console: Console,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> LiveFigures:
    """Shows a device's axes, the action they give, rate and age for some seconds, and sums up."""
    operator = DeviceOperator(device, DeviceConfig(), clock=clock)
    start = due = clock()
    ages: list[float] = []
    costs: list[float] = []
    largest = np.zeros(len(AXES), dtype=np.float32)
    touched: set[str] = set()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while clock() - start < seconds:
            asked = clock()
            reading = device.read()
            costs.append(clock() - asked)
            pushed = bool(np.abs(reading.axes).max() > 0.0)
            down = device.down if isinstance(device, Gamepad) else frozenset[str]()
            touched |= down
            if clock() >= due:
                due += 1.0 / CONTROL_HZ
                if pushed and not reading.fault:
                    ages.append(reading.age_s)
                action = operator.demonstrate()
                picture = _picture(device, reading.axes, action, operator, reading.age_s)
                keys = [_buttons(down)] if isinstance(device, Gamepad) else []
                live.update(Group(picture, *keys))
                live.refresh()
            largest = np.maximum(largest, np.abs(reading.axes))
            wait(_REFRESH_S)
    arrivals = np.array(device.arrivals_s) if isinstance(device, SpaceMouse) else np.zeros(0)
    figures = _figures(clock() - start, arrivals[arrivals >= start], ages, costs, largest)
    if not isinstance(device, Gamepad):
        return figures
    untouched = [f"{name} ({does})" for name, does in BUTTONS.items() if name not in touched]
    return replace(figures, untouched=tuple(untouched))


def _figures(
    seconds: float,
    arrivals: np.ndarray,
    ages: Sequence[float],
    costs: Sequence[float],
    largest: np.ndarray,
) -> LiveFigures:
    gaps = np.diff(arrivals)
    gaps = gaps[gaps < 0.25]
    return LiveFigures(
        seconds=seconds,
        reports=len(arrivals),
        rate_hz=float(1.0 / gaps.mean()) if gaps.size and gaps.mean() > 0 else float("nan"),
        interval_p95_ms=_percentile_ms(gaps.tolist(), 95),
        age_p50_ms=_percentile_ms(ages, 50),
        age_p95_ms=_percentile_ms(ages, 95),
        read_p95_ms=_percentile_ms(costs, 95),
        largest=tuple(round(float(value), 3) for value in largest),
    )


def _percentile_ms(durations_s: Sequence[float], percent: int) -> float:
    return 1e3 * float(np.percentile(durations_s, percent)) if durations_s else float("nan")


def _picture(
    device: Device,
    axes: np.ndarray,
    action: np.ndarray,
    operator: DeviceOperator,
    age_s: float,
) -> Group:
    table = Table(title=device.name, title_justify="left", box=None, padding=(0, 1))
    for column in ("axis", "deflection", "", "action"):
        table.add_column(column)
    in_hand = operator_axes(operator, action)
    for name, value, moved in zip(AXES, axes, in_hand, strict=True):
        table.add_row(name, f"{value:+.2f}", _bar(float(value)), f"{moved:+.2f}")
    age = "no report yet" if np.isinf(age_s) else f"last report {1e3 * age_s:.0f} ms ago"
    jaws = "closes" if action[6] > 0 else "opens"
    line = f"gripper {jaws} · {age}"
    style = "bold red" if operator.fault else "dim"
    return Group(table, Text(operator.fault or line, style=style))


def _buttons(down: frozenset[str]) -> Text:
    """Every button with what it does; those that are down stand out."""
    line = Text()
    for name, does in BUTTONS.items():
        style = "black on cyan" if name in down else "dim"
        line += Text(f" {name} {does} ", style) + Text(" ")
    return line


def operator_axes(operator: DeviceOperator, action: np.ndarray) -> np.ndarray:
    """Translation and rotation of an action as the operator sees them."""
    matrix = operator.frame.matrix
    return np.concatenate([matrix.T @ action[:3], matrix.T @ action[3:6]])


def _bar(value: float, half: int = 12) -> Text:
    filled = min(half, round(abs(value) * half))
    left = " " * (half - filled) + "━" * filled if value < 0 else " " * half
    right = "━" * filled + " " * (half - filled) if value > 0 else " " * half
    return Text(f"{left}┃{right}", style="cyan")


def check_teleop(
    seconds: float = 10.0,
    *,
    root: Path = Path("/"),
    console: Console | None = None,
    device: Device | None = None,
) -> int:
    """Looks, then watches a device; prints what it finds. Returns 0 where a device works, else 1."""
    console = console or Console()
    findings = look(root)
    for finding in findings:
        mark = Text("ok  ", "green") if finding.ready else Text("--  ", "yellow")
        console.print(mark + Text(finding.what))
        if finding.do:
            console.print(Text(f"    do: {finding.do}", "bold"), soft_wrap=True)
    device = device or open_found(root)
    if device is None:
        console.print(Text("no device to watch; the console in the browser needs none"))
        return 1
    try:
        what = (
            "push every axis, RB held, and press every button"
            if isinstance(device, Gamepad)
            else "push every axis and both buttons"
        )
        console.print(Text(f"{what} for {seconds:g} s"))
        figures = watch(device, seconds, console)
        fault = device.read().fault
    finally:
        device.close()
    console.print(Text(summary(figures)))
    if fault:
        console.print(Text(fault, "bold red"))
    return 1 if fault or max(figures.largest) == 0.0 else 0


def summary(figures: LiveFigures) -> str:
    """The figures in words."""
    still = [name for name, value in zip(AXES, figures.largest, strict=True) if value < 0.2]
    if figures.reports:
        lines = [
            f"{figures.reports} reports in {figures.seconds:.1f} s; {figures.rate_hz:.0f} Hz while pushed, "
            f"95 % of gaps below {figures.interval_p95_ms:.0f} ms",
            f"age of a report when a 10 Hz loop asks: median {figures.age_p50_ms:.0f} ms, 95 % below "
            f"{figures.age_p95_ms:.0f} ms; asking costs {figures.read_p95_ms:.2f} ms",
        ]
    else:
        lines = [f"asking it for its state costs {figures.read_p95_ms:.2f} ms"]
    if still:
        lines.append(f"axes that never moved: {', '.join(still)}")
    if figures.untouched:
        lines.append(f"buttons that were never down: {', '.join(figures.untouched)}")
    return "\n".join(lines)
