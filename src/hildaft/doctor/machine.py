"""Python, torch, rendering, disk, clock, ports, cameras, devices and certificates of this machine."""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from hildaft.doctor.finding import Finding

PORTS: Final = {8765: "the console", 50551: "the learner", 5000: "a SERL robot server"}
_FREE_GB: Final = 5.0
_WRITE_MB: Final = 32
_SLOW_MB_S: Final = 20.0
_SYNC_S: Final = 0.2
_NEWEST_TRIED: Final = (3, 13)
_DRAW: Final = """
import time
from hildaft.robots.bolt_sim.gl import Offscreen, choose_gl, mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom size='.2'/>"
    "<camera pos='0 -1 0' xyaxes='1 0 0 0 0 1'/></worldbody></mujoco>"
)
data, screen = mujoco.MjData(model), Offscreen(model, 128)
mujoco.mj_forward(model, data)
screen.render(data, 0, 128)
begun = time.perf_counter()
drawn = int(screen.render(data, 0, 128).std() > 1.0)
took_ms = 1e3 * (time.perf_counter() - begun)
from OpenGL import GL
print(choose_gl(), drawn, f"{took_ms:.1f}", GL.glGetString(GL.GL_RENDERER).decode())
"""
"""What a process of its own draws: a ball, twice, the first time warming up."""


def check_machine(folder: Path, certs: Path = Path("certs")) -> list[Finding]:
    """Everything that can be told at a glance; nothing is opened or moved.

    Args:
        folder: where runs are written.
        certs: certificates are looked at where this folder exists.
    """
    return [
        check_python(),
        *check_torch(),
        check_rendering(),
        *check_disk(folder),
        check_clock(),
        *check_ports(),
        check_cameras(),
        *check_devices(),
        *check_serial(),
        *check_folder_of_certificates(certs),
    ]


def check_python() -> Finding:
    """The interpreter's version."""
    newest = ".".join(map(str, _NEWEST_TRIED))
    text = f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores"
    if sys.version_info[:2] > _NEWEST_TRIED:
        cure = f"never tried on newer than {newest}; where something fails, use that"
        return Finding("warn", "Python", text, cure)
    return Finding("ok", "Python", text)


def check_torch() -> list[Finding]:
    """torch, its threads, and a GPU: asked of a process of its own, because a broken driver may end it."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        cure = (
            "pip install 'hildaft[learn]' where networks run; a robot's own computer may do without"
        )
        return [Finding("warn", "torch", "not installed", cure)]
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return [
            Finding("fail", "torch", "does not import within 120 s", "is the machine overloaded?")
        ]
    if asked.returncode != 0:
        reason = (asked.stderr.strip().splitlines() or ["it crashed"])[-1]
        return [
            Finding("fail", "torch", f"{version} does not import ({reason})", "reinstall torch")
        ]
    found, gpu = [Finding("ok", "torch", version)], asked.stdout.strip()
    if gpu:
        return [*found, Finding("ok", "GPU", gpu)]
    if _has_nvidia_gpu():
        text = f"there is one, and torch {version} does not see it: training would run on the CPU"
        cure = (
            "look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES; a `+cpu` torch has to be exchanged for a CUDA"
            " build (pytorch.org)"
        )
        found.append(Finding("warn", "GPU", text, cure))
    else:
        text = "no GPU: training runs on the CPU, about 20 minutes for `hildaft demo`"
        found.append(Finding("ok", "GPU", text))
    if os.environ.get("OMP_NUM_THREADS") not in ("1", None):
        cure = "leave OMP_NUM_THREADS unset or at 1: these networks are small"
        found.append(Finding("warn", "threads", os.environ["OMP_NUM_THREADS"], cure))
    return found


def _has_nvidia_gpu(root: Path = Path("/")) -> bool:
    return any(root.glob("dev/nvidia[0-9]*")) or any(root.glob("proc/driver/nvidia/gpus/*"))


def check_rendering() -> Finding:
    """Draws a frame off screen as the bolt bench does, in a process of its own: a broken driver may end it."""
    cure = "apt-get install libegl1 libopengl0 libgl1-mesa-dri, or libosmesa6 and MUJOCO_GL=osmesa"
    if importlib.util.find_spec("mujoco") is None:
        advice = "pip install 'hildaft[sim]' where something is simulated; a real arm needs none"
        return Finding("warn", "GL", "MuJoCo is not installed: nothing is drawn here", advice)
    try:
        drawn = subprocess.run(
            [sys.executable, "-c", _DRAW], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("fail", "GL", "nothing is drawn within 60 s", cure)
    if drawn.returncode != 0:
        reason = (drawn.stderr.strip().splitlines() or [f"exit code {drawn.returncode}"])[-1]
        return Finding("fail", "GL", f"cannot draw off screen ({reason})", cure)
    name, shown, took_ms, renderer = drawn.stdout.strip().split(maxsplit=3)
    text = f"{name}, {renderer}: 128 px in {took_ms} ms"
    if not int(shown):
        return Finding("fail", "GL", f"{text}, but the picture is empty", cure)
    return Finding("ok", "GL", text)


def check_disk(folder: Path) -> list[Finding]:
    """Free space, and how fast a file is written and made durable."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    cure = "free space, or name another folder with --out"
    level = "ok" if free >= _FREE_GB else "warn" if free > 1 else "fail"
    found = [
        Finding(level, "disk", f"{free:.1f} GB free at {place}", "" if level == "ok" else cure)
    ]
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            begun = time.monotonic()
            for _ in range(_WRITE_MB):
                file.write(bytes(1_000_000))
            file.flush()
            written = time.monotonic()
            os.fsync(file.fileno())
            synced = time.monotonic()
    except OSError as error:
        return [*found, Finding("fail", "disk", f"{place}: {error.strerror}", cure)]
    rate, sync = _WRITE_MB / (synced - begun), synced - written
    slow = rate < _SLOW_MB_S or sync > _SYNC_S * _WRITE_MB
    text = f"{rate:.0f} MB/s durable"
    advice = "an episode is made durable before the next one: use a local disk, no network share"
    return [*found, Finding("warn" if slow else "ok", "disk", text, advice if slow else "")]


def check_clock() -> Finding:
    """Whether the clock is kept by a time server: certificates and runs of several machines need it."""
    asked = None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            ["timedatectl", "show", "-p", "NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if asked is None or asked.returncode != 0:
        return Finding(
            "warn",
            "clock",
            f"{now}; cannot tell whether a time server keeps it",
            "`hildaft doctor --learner HOST:PORT` measures how far it is from a learner's",
        )
    if asked.stdout.strip() != "yes":
        return Finding(
            "warn", "clock", f"{now}; no time server keeps it", "timedatectl set-ntp true"
        )
    return Finding("ok", "clock", f"{now}, kept by a time server")


def check_ports() -> list[Finding]:
    """Whether the ports are free that the programs listen on by default."""
    found: list[Finding] = []
    for port, use in PORTS.items():
        with socket.socket() as trial:
            trial.settimeout(0.2)
            taken = trial.connect_ex(("127.0.0.1", port)) == 0
        text = f"{port} ({use}) {'answers' if taken else 'is free'}"
        cure = f"where that is not {use} itself, end the program or choose another port"
        found.append(Finding("warn" if taken else "ok", "port", text, cure if taken else ""))
    return found


def check_cameras() -> Finding:
    """Video devices and whether this user may read them."""
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("ok", "camera", "none at /dev/video*; simulation needs none")
    shut = [d.name for d in devices if not os.access(d, os.R_OK)]
    if shut:
        cure = "usermod -aG video USER, then log in again"
        return Finding("fail", "camera", f"{', '.join(shut)}: not readable", cure)
    names = ", ".join(device.name for device in devices)
    if importlib.util.find_spec("cv2") is None:
        cure = "pip install 'hildaft[cameras]' to read them; RealSense: pip install pyrealsense2"
        return Finding("warn", "camera", f"{names}; OpenCV is not installed", cure)
    return Finding("ok", "camera", names)


def check_devices(root: Path = Path("/")) -> list[Finding]:
    """What a person could hold in their hand, and whether this user may open it; `root` is replaceable in tests."""
    from hildaft.doctor.teleop import find_nodes

    nodes = find_nodes(root)
    if not nodes:
        text = "no SpaceMouse or gamepad; the console in the browser needs none"
        return [Finding("ok", "device", text)]
    found: list[Finding] = []
    for node in nodes:
        text = f"{node.name} at {node.path}"
        if node.may_open:
            found.append(Finding("ok", "device", text))
            continue
        mouse = node.kind == "spacemouse"
        cure = (
            "`hildaft doctor --udev` prints the rule"
            if mouse
            else "usermod -aG input USER, then log in again"
        )
        found.append(Finding("fail", "device", f"{text}: may not be opened by this user", cure))
    return found


def check_serial(root: Path = Path("/")) -> list[Finding]:
    """Serial ports, by which arms with servo motors are driven, and whether this user may open them."""
    ports = sorted(p for kind in ("ttyACM", "ttyUSB") for p in (root / "dev").glob(f"{kind}*"))
    if not ports:
        text = "none at /dev/ttyACM*, /dev/ttyUSB*; only arms with servo motors need one"
        return [Finding("ok", "serial", text)]
    found: list[Finding] = []
    for port in ports:
        if os.access(port, os.R_OK | os.W_OK):
            found.append(Finding("ok", "serial", str(port)))
        else:
            cure = "usermod -aG dialout USER, then log in again"
            text = f"{port}: may not be opened by this user"
            found.append(Finding("fail", "serial", text, cure))
    return found


def check_folder_of_certificates(folder: Path) -> list[Finding]:
    """The certificates of a folder, where there is one: only a link beyond this machine needs any."""
    if not folder.exists():
        text = f"no folder {folder} here; needed only where a link leaves this machine"
        return [Finding("ok", "certs", text)]
    from hildaft.doctor.link import check_certificates

    return check_certificates(folder)
