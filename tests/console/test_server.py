"""Who may come in, and what a stranger, a second person and a broken page can do: nothing."""

import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
from live import TOKEN, live_console
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from hildaft.console.charts import Charts
from hildaft.console.serving import ServingConfig, serve
from hildaft.types import HilDaftError
from socket_page import Page


@pytest.fixture(scope="module")
def live():
    with live_console() as console:
        yield console


def fetch(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace"), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def test_the_address_opens_the_page_and_leaves_no_token_in_it(live):
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(live.address, timeout=60) as answer:
        assert answer.status == 200
        assert TOKEN not in answer.url
        text = answer.read().decode()
        assert "HiL-DAFT" in text
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    with opener.open(f"{live.origin}/static/console.js", timeout=60) as answer:
        assert "javascript" in answer.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/", "/static/console.js", "/review/spot/head/0.jpg"])
@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong"])
def test_without_the_token_nothing_is_served(live, path, query):
    status, text, _ = fetch(live.origin + path + query)
    assert status == 403
    assert "open the address" in text


@pytest.mark.parametrize("name", ["secret.txt", "..%2Fserver.py", "%2e%2e/server.py"])
def test_no_other_file_is_served(live, name):
    status, text, _ = fetch(f"{live.origin}/static/{name}?token={TOKEN}")
    assert status == 404
    assert "import" not in text


def test_another_name_for_this_machine_is_refused(live):
    status, _, _ = fetch(live.address, Host="evil.example:80")
    assert status == 403


@pytest.mark.parametrize(
    ("token", "origin"),
    [
        ("", None),
        ("wrong", None),
        (TOKEN, "http://evil.example"),
        (TOKEN, "null"),
        (TOKEN, "http://127.0.0.1:1"),
    ],
)
def test_a_stranger_gets_no_socket(live, token, origin):
    with pytest.raises(InvalidStatus, match="403"), Page(live.origin, token, origin=origin):
        pass
    assert not live.station.is_taken


def test_a_client_that_names_no_origin_gets_no_socket(live):
    address = live.origin.replace("http", "ws") + f"/ws?token={TOKEN}"
    with pytest.raises(InvalidStatus, match="403"), connect(address, open_timeout=60):
        pass


def test_one_person_is_in_control_and_the_next_one_watches(live):
    with Page(live.origin, TOKEN) as first:
        first.until("state", in_control=True)
        with Page(live.origin, TOKEN) as second:
            second.until("state", in_control=False, taken=True)
            second.send(type="drive", motion=[1, 0, 0, 0, 0, 0])
            assert "watching" in second.until("refused")["reason"]
            for key in ("stop", "success", "pause"):
                second.send(type="key", key=key)
                assert "watching" in second.until("refused")["reason"]
            second.send(type="text", text="left", act=True)
            assert "watching" in second.until("refused")["reason"]
            second.send(type="seat", change="take")
            assert "somebody else" in second.until("refused")["reason"]
            assert live.station.operator.control == "policy"
            first.send(type="seat", change="leave")
            first.until("state", in_control=False)
            second.send(type="seat", change="take")
            second.until("state", in_control=True)
    live.wait(lambda: not live.station.is_taken)


def test_a_cut_link_frees_the_seat_and_lets_go_of_the_robot(live):
    with Page(live.origin, TOKEN) as page:
        page.until("state", in_control=True)
        page.send(type="drive", motion=[1, 0, 0, 0, 0, 0])
        page.until("state", control="human")
        # No goodbye: the cable is pulled.
        page.socket.socket.shutdown(socket.SHUT_RDWR)
        live.wait(lambda: not live.station.is_taken)
        live.wait(lambda: live.station.operator.control == "policy")


def test_a_real_arm_whose_person_is_lost_is_paused_until_somebody_lets_it_go_on():
    with live_console(pauses_alone=True) as live:
        with Page(live.origin, TOKEN) as page:
            page.until("state", in_control=True)
            # Who leaves the seat leaves the robot to the policy.
            page.send(type="seat", change="leave")
            page.until("state", in_control=False, paused=False)
            page.send(type="seat", change="take")
            page.until("state", in_control=True)
            page.socket.socket.shutdown(socket.SHUT_RDWR)
            live.wait(lambda: not live.station.is_taken)
        assert live.station.operator.paused
        live.wait(lambda: live.robot.stops > 0)
        held = len(live.robot.steps)
        with Page(live.origin, TOKEN) as page:
            page.until("state", in_control=True, paused=True, control="hold")
            assert len(live.robot.steps) == held
            page.send(type="key", key="resume")
            live.wait_steps(3)
            # One who only watched is not missed.
            with Page(live.origin, TOKEN) as watcher:
                watcher.until("state", in_control=False)
            live.wait_steps(3)
            assert not live.station.operator.paused


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"type": "drive"}',
        '{"type": "drive", "motion": [2, 0, 0, 0, 0, 0]}',
        '{"type": "drive", "motion": [NaN, 0, 0, 0, 0, 0]}',
        '{"type": "drive", "motion": ["1", 0, 0, 0, 0, 0]}',
        f'{{"type": "drive", "motion": [{"9" * 400}, 0, 0, 0, 0, 0]}}',
        f'{{"type": "seen", "number": {"9" * 400}}}',
        '{"type": "say", "signs": [0, 0, 7]}',
        '{"type": "key", "key": "explode"}',
        '{"type": "text", "text": ""}',
        '{"type": "select", "robot": "C"}',
        '{"type": "review", "verdict": "keep"}',
        "[" * 4000,
    ],
)
def test_a_broken_message_is_refused_in_one_line_and_the_page_lives_on(live, text):
    live.wait(lambda: not live.station.is_taken)
    with Page(live.origin, TOKEN) as page:
        page.until("state", in_control=True)
        page.socket.send(text)
        assert "\n" not in page.until("refused")["reason"]
        page.send(type="beat", stamp=12.5)
        assert page.until("echo")["stamp"] == 12.5


def flood(page):
    """The server may cut the link before all of it is sent, or after."""
    page.send(type="text", text="x" * 1_000_000, act=False)
    page.until("never")


def test_a_message_without_end_costs_the_sender_the_link(live):
    live.wait(lambda: not live.station.is_taken)
    with Page(live.origin, TOKEN) as page:
        page.until("state", in_control=True)
        with pytest.raises(ConnectionClosed):
            flood(page)
    live.wait(lambda: not live.station.is_taken)


def test_other_interfaces_need_tls_or_a_clear_word():
    with pytest.raises(HilDaftError, match="TLS"):
        ServingConfig(host="0.0.0.0")
    with pytest.raises(HilDaftError, match="TLS"):
        ServingConfig(host="robot.example")
    assert ServingConfig(host="0.0.0.0", insecure=True).host == "0.0.0.0"
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        assert ServingConfig(host=host).is_loopback


def test_files_that_are_not_there_and_ports_that_are_none_are_refused(tmp_path):
    with pytest.raises(HilDaftError, match="both or neither"):
        ServingConfig(tls_cert=tmp_path)
    with pytest.raises(HilDaftError, match="no such file"):
        ServingConfig(tls_cert=tmp_path / "a", tls_key=tmp_path / "b")
    with pytest.raises(HilDaftError, match="port"):
        ServingConfig(port=70_000)


def test_a_port_in_use_is_one_clear_line(live):
    port = int(live.origin.rpartition(":")[2])
    with (
        pytest.raises(HilDaftError, match=r"--serving.port"),
        serve({"spot": live.station}, Charts(), ServingConfig(port=port)),
    ):
        pass


def test_tls_serves_and_a_wrong_key_is_one_clear_line(live, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=str(cert))
    trust.check_hostname = False
    stations = {"spot": live.station}
    config = ServingConfig(port=0, tls_cert=cert, tls_key=key)
    with serve(stations, Charts(), config) as address:
        assert address.startswith("https://")
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trust), urllib.request.HTTPCookieProcessor()
        )
        with opener.open(address, timeout=60) as answer:
            assert "HiL-DAFT" in answer.read().decode()
    key.write_text("no key")
    with pytest.raises(HilDaftError, match="TLS"), serve(stations, Charts(), config):
        pass
