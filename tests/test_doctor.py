"""The doctor says what is there, and what to do about what is not."""

import socket
from pathlib import Path

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


def test_a_folder_that_is_yet_to_be_made_is_judged_by_its_parent(tmp_path):
    findings = machine.check_disk(tmp_path / "a" / "b")
    assert str(tmp_path) in findings[0].text
    assert list(tmp_path.iterdir()) == []


def test_no_camera_that_may_not_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/video0")]))
    assert machine.check_cameras().level == "fail"
