"""The doctor of the link: certificates in every state, a port, and two clocks."""

import socket
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from hildaft.commands.doctor import doctor
from hildaft.doctor.link import check_certificates, check_learner, check_link
from hildaft.runtime.link.certs import VALID, make_certificate
from hildaft.types import HilDaftError
from link_peers import TOKEN, serving

NOW = datetime.now(timezone.utc)


@pytest.fixture
def folder(tmp_path):
    make_certificate(tmp_path, "learner", ["127.0.0.1", "lab-pc"])
    make_certificate(tmp_path, "arm-1", [])
    return tmp_path


def test_a_good_folder_is_ok_in_every_line(folder, capsys):
    findings = check_certificates(folder, "lab-pc:50551")
    assert {f.level for f in findings} == {"ok"}
    assert len(findings) == 4
    assert check_certificates(folder, "127.0.0.1:50551")[-1].level == "ok"
    assert doctor(["--certs", str(folder)]) == 0
    assert capsys.readouterr().out.count("ok ") == 3


@pytest.mark.parametrize(
    ("now", "level", "words"),
    [
        (NOW + VALID + timedelta(days=1), "fail", "expired on"),
        (NOW + VALID - timedelta(days=9, hours=12), "warn", "expires in 9 days"),
        (NOW - timedelta(days=3), "fail", "valid from"),
    ],
)
def test_time_is_checked_both_ways(folder, now, level, words):
    findings = check_certificates(folder, now=now)
    assert len(findings) == 3
    assert all(f.level == level and words in f.text and f.cure for f in findings)


def test_what_does_not_belong_together_is_found(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make_certificate(other, "arm-1", [])
    (folder / "arm-1.key").write_bytes((other / "arm-1.key").read_bytes())
    assert any("belongs to another certificate" in f.text for f in check_certificates(folder))
    (folder / "arm-1.crt").write_bytes((other / "arm-1.crt").read_bytes())
    assert any("not signed by this ca.crt" in f.text for f in check_certificates(folder))
    (folder / "arm-1.key").chmod(0o644)
    assert any(f.level == "warn" and "chmod 600" in f.cure for f in check_certificates(folder))
    (folder / "arm-1.crt").write_text("-----BEGIN CERTIFICATE-----")
    (folder / "arm-1.key").unlink()
    assert any("damaged" in f.text for f in check_certificates(folder))


def test_a_host_that_is_not_named_says_how_to_name_it(folder, tmp_path):
    last = check_certificates(folder, "10.0.0.7:50551")[-1]
    assert last.level == "fail"
    assert "--hosts 10.0.0.7 lab-pc 127.0.0.1" in last.cure
    (missing,) = check_certificates(tmp_path / "none")
    assert "hildaft certs" in missing.cure


def test_clocks_are_compared_in_the_middle_of_the_call():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for offset, level in ((0.0, "ok"), (-5.0, "warn"), (7200.0, "fail")):
            ticks = iter([1000.0, 1001.0])
            reply = SimpleNamespace(run="ab", stage="warm-up", time_s=1000.5 + offset)
            findings = check_learner(address, lambda r=reply: r, clock=lambda t=ticks: next(t))
            assert findings[-1].level == level
            assert f"{abs(offset):.2f} s" in findings[-1].text
            assert bool(findings[-1].cure) == (level != "ok")

        def refused():
            raise HilDaftError("token: refused")

        assert check_learner(address, refused)[-1].text == "token: refused"
    (away,) = check_learner(address, refused)
    assert away.level == "fail"
    assert "firewall" in away.cure


def test_a_live_learner_says_its_time(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with serving(tmp_path / "episodes") as server:
        address = f"127.0.0.1:{server.port}"
        findings = check_link(address, None, "status", tmp_path / "token")
    assert [f.level for f in findings] == ["ok", "ok", "ok"]
    assert float(findings[-1].text.split(" is ")[1].split()[0]) < 1.0
    (far,) = check_link("10.1.2.3:50551", None, "status", None)
    assert "TLS is needed" in far.text
