"""Links that carry less than the robot shows: what the person asks for comes through, and pictures do not pile up."""

import contextlib
import fcntl
import json
import socket
import struct
import termios
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from live import TOKEN
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.uri import parse_uri

from hildaft.console.charts import Charts
from hildaft.console.feed import Feed, Frame
from hildaft.console.page import SILENCE_SECONDS
from hildaft.console.serving import ServingConfig, serve
from hildaft.console.station import Station
from hildaft.teleop.browser import BrowserOperator
from hildaft.teleop.phrases import parse_phrase
from hildaft.teleop.talk import OperatorFrame
from link_peers import wait_until
from socket_page import Page

NOISE = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
"""About a megabyte once encoded: more than the system keeps for a link."""


class Desk:
    """A station without a robot: pictures come when the test wants them."""

    def __init__(self, image):
        self.feed, self.image = Feed(), image
        self.operator = BrowserOperator(lambda: False)
        frame = OperatorFrame()
        self.station = Station(
            "spot", "policy", self.feed, self.operator, frame, parse_phrase, {"reach": "reach"}
        )
        self.show()

    def show(self):
        number = self.feed.frame.number + 1
        self.feed.publish(Frame(number=number, images={"head": self.image}))


@contextlib.contextmanager
def desk_console(image):
    desk = Desk(image)
    with serve({"spot": desk.station}, Charts(), ServingConfig(port=0), TOKEN) as address:
        yield desk, address.partition("/?")[0]


class DeafPage:
    """A page whose link can be stopped up: from then on it sends, and reads nothing."""

    def __init__(self, origin):
        given = urlsplit(origin)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30.0)
        self.socket.connect((given.hostname, given.port))
        address = parse_uri(f"ws://{given.netloc}/ws?token={TOKEN}")
        self.protocol = ClientProtocol(address, origin=origin, max_size=None)
        self.protocol.send_request(self.protocol.connect())
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()

    def flush(self):
        self.socket.sendall(b"".join(self.protocol.data_to_send()))

    def send(self, **message):
        self.protocol.send_text(json.dumps(message).encode())
        self.flush()

    def sit(self):
        """Reads until the page knows that it is in control."""
        while True:
            self.protocol.receive_data(self.socket.recv(65536))
            for event in self.protocol.events_received():
                if getattr(event, "opcode", None) is not Opcode.TEXT:
                    continue
                message = json.loads(event.data)
                if message["type"] == "state":
                    self.send(type="seen", number=message["number"])
                    if message["in_control"]:
                        return

    def waiting(self):
        """Bytes that have come and were not read."""
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, b"\0" * 4))[0]

    def stop_up(self, desk):
        """The page reads nothing more while the robot goes on being shown, until nothing more can come."""
        before, same = -1, 0
        while same < 10:
            desk.show()
            self.send(type="beat", stamp=1.0)
            time.sleep(0.02)
            now = self.waiting()
            before, same = now, same + 1 if now == before and now > 0 else 0


@pytest.mark.parametrize("key", ["pause", "stop"])
def test_a_page_that_takes_nothing_is_obeyed_all_the_same(key, monkeypatch):
    # A busy machine may take long over the pictures; the seat is the next test's matter.
    monkeypatch.setattr("hildaft.console.page.SILENCE_SECONDS", 60.0)
    with desk_console(NOISE) as (desk, origin), DeafPage(origin) as page:
        page.sit()
        page.stop_up(desk)
        page.send(type="key", key=key)
        wait_until(lambda: desk.operator.paused or desk.operator.stopped, 15.0)
        assert desk.station.is_taken


def test_a_page_that_takes_nothing_loses_its_seat_though_it_goes_on_sending():
    with desk_console(NOISE) as (desk, origin), DeafPage(origin) as page:
        page.sit()
        began = time.monotonic()

        def is_free():
            with contextlib.suppress(OSError):
                page.send(type="beat", stamp=1.0)
            desk.show()
            return not desk.station.is_taken

        page.send(type="drive", motion=[1, 0, 0, 0, 0, 0])
        wait_until(is_free, SILENCE_SECONDS + 10.0)
        assert time.monotonic() - began > SILENCE_SECONDS / 2
        # Whoever comes next finds the seat free.
        with Page(origin, TOKEN) as other:
            other.until("state", in_control=True)


def test_a_slow_page_gets_the_newest_picture_next_and_not_those_it_missed():
    with desk_console(np.zeros((16, 16, 3), np.uint8)) as (desk, origin):
        desk.show()
        with Page(origin, TOKEN) as page:
            numbers, states = [], []

            def take():
                data = page.socket.recv(timeout=60)
                if isinstance(data, bytes):
                    numbers.append(struct.unpack_from(">BBI", data)[2])
                elif json.loads(data)["type"] == "state":
                    states.append(json.loads(data)["number"])

            while len(states) < 2:
                take()
            assert numbers == [2]
            for _ in range(20):
                desk.show()
            page.send(type="beat", stamp=1.0)
            page.send(type="seen", number=states[-1])
            while len(states) < 3:
                take()
            assert numbers == [2, 22]


def test_a_state_that_was_never_sent_is_not_seen():
    with (
        desk_console(np.zeros((16, 16, 3), np.uint8)) as (_, origin),
        Page(origin, TOKEN) as page,
    ):
        page.send(type="seen", number=10**6)
        assert "number=1000000" in page.until("refused")["reason"]
