"""The doctor says what is there, and what to do about what is not."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from hildaft.commands.link import certs
from hildaft.doctor import machine


def test_every_line_that_is_not_ok_says_what_to_do(tmp_path):
    findings = [machine.check_python(), machine.check_rendering(), *machine.check_disk(tmp_path)]
    findings += [machine.check_clock(), machine.check_cameras(), *machine.check_ports()]
    assert all(f.cure or f.level == "ok" for f in findings)
    assert {"Python", "GL", "disk", "clock", "camera", "port"} == {f.part for f in findings}


def test_a_taken_port_is_a_warning(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(machine, "PORTS", {server.getsockname()[1]: "the console"})
        (finding,) = machine.check_ports()
    assert finding.level == "warn"
    assert "answers" in finding.text


def test_a_frame_is_drawn():
    found = machine.check_rendering()
    assert found.level == "ok"
    assert "128 px in" in found.text


def test_what_cannot_draw_fails_with_the_cure(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    found = machine.check_rendering()
    assert found.level == "fail"
    assert "libegl1" in found.cure


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch, tmp_path):
    def ask(*_, **__):
        return subprocess.CompletedProcess([], 0, stdout="\n", stderr="")

    monkeypatch.setattr(machine.subprocess, "run", ask)
    assert not machine._has_nvidia_gpu(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert machine._has_nvidia_gpu(tmp_path)
    for there, level in ((True, "warn"), (False, "ok")):
        monkeypatch.setattr(machine, "_has_nvidia_gpu", lambda there=there: there)
        (gpu,) = [f for f in machine.check_torch() if f.part == "GPU"]
        assert gpu.level == level
        assert gpu.cure or level == "ok"


def test_a_newer_python_than_was_tried_is_a_warning(monkeypatch):
    assert machine.check_python().level == "ok"
    monkeypatch.setattr(machine.sys, "version_info", (3, 99, 0))
    assert machine.check_python().level == "warn"


def test_a_camera_without_its_library_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine.os, "access", lambda *_: True)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/video0")]))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda _: None)
    assert machine.check_cameras().level == "warn"


def test_a_folder_that_is_yet_to_be_made_is_judged_by_its_parent(tmp_path):
    findings = machine.check_disk(tmp_path / "a" / "b")
    assert str(tmp_path) in findings[0].text
    assert list(tmp_path.iterdir()) == []


def test_no_camera_that_may_not_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/video0")]))
    assert machine.check_cameras().level == "fail"


@pytest.fixture
def plugged_in(tmp_path):
    """A file tree as the kernel lays it out, with a SpaceMouse, a gamepad and two serial ports."""
    hid = tmp_path / "sys/class/hidraw/hidraw3/device"
    pad = tmp_path / "sys/class/input/js0/device"
    for folder in (hid, pad, tmp_path / "dev/input"):
        folder.mkdir(parents=True)
    (hid / "uevent").write_text("HID_ID=0003:0000256F:0000C635\nHID_NAME=SpaceMouse Compact\n")
    (pad / "name").write_text("Pad\n")
    for node in ("hidraw3", "input/js0", "ttyACM0", "ttyUSB1"):
        (tmp_path / "dev" / node).touch()
    return tmp_path


def test_devices_and_serial_ports_are_listed(plugged_in):
    findings = machine.check_devices(plugged_in) + machine.check_serial(plugged_in)
    assert [f.level for f in findings] == ["ok"] * 4
    said = " ".join(f.line() for f in findings)
    for word in ("SpaceMouse Compact", "Pad", "ttyACM0", "ttyUSB1"):
        assert word in said


def test_what_may_not_be_opened_fails_with_the_cure(plugged_in, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    findings = machine.check_devices(plugged_in) + machine.check_serial(plugged_in)
    assert [f.level for f in findings] == ["fail"] * 4
    cures = [f.cure for f in findings]
    assert "--udev" in cures[0]
    assert "input" in cures[1]
    assert all("dialout" in cure for cure in cures[2:])


def test_nothing_plugged_in_is_no_fault(tmp_path):
    findings = machine.check_devices(tmp_path) + machine.check_serial(tmp_path)
    assert [f.level for f in findings] == ["ok", "ok"]


def test_a_folder_of_certificates_is_looked_at_where_there_is_one(tmp_path):
    folder = tmp_path / "certs"
    (nothing,) = machine.check_folder_of_certificates(folder)
    assert (nothing.level, nothing.part) == ("ok", "certs")
    assert certs(["learner", "--hosts", "127.0.0.1", "--out", str(folder)]) == 0
    assert {f.level for f in machine.check_folder_of_certificates(folder)} == {"ok"}
    (folder / "learner.key").unlink()
    assert "warn" in {f.level for f in machine.check_folder_of_certificates(folder)}
