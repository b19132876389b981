"""The console's page without a browser: its WebSocket."""

import json
import time

from websockets.sync.client import connect


class Page:
    """A page without a browser."""

    def __init__(self, base, token, origin=None, *, beats=False):
        self.beats = beats
        address = base.replace("http", "ws") + (f"/ws?token={token}" if token else "/ws")
        self.connection = connect(address, origin=origin or base, open_timeout=60)

    def __enter__(self):
        self.socket = self.connection.__enter__()
        return self

    def __exit__(self, *error):
        self.connection.__exit__(*error)

    def send(self, **message):
        self.socket.send(json.dumps(message))

    def until(self, kind, seconds=60, **wanted):
        """The first message of a kind whose fields are as wanted."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = self.socket.recv(timeout=60)
            if isinstance(data, str):
                message = json.loads(data)
                if message["type"] == "state":
                    self.send(type="seen", number=message["number"])
                    if self.beats:
                        self.send(type="beat", stamp=0.0)
                if message["type"] == kind and all(
                    message[name] == value for name, value in wanted.items()
                ):
                    return message
        msg = f"no {kind} message with {wanted}; the last one was {message}"
        raise AssertionError(msg)
