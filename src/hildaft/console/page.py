"""One page as the server sees it: what it asks for is done at once, what it is sent waits until it can take it."""

import asyncio
import contextlib
import struct
from collections import deque
from typing import Any, Final, final

from starlette.websockets import WebSocket, WebSocketDisconnect

from hildaft.console import messages
from hildaft.console.charts import Charts
from hildaft.console.ears import MOST_BYTES, Ears
from hildaft.console.station import Station, Stations, base_motion
from hildaft.teleop.voice import Heard
from hildaft.types import HilDaftError

STATE_SECONDS: Final = 0.2
"""Longest time between two states: the page takes a longer silence for a lost link."""
CHART_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 5.0
"""A page that says or takes nothing for so long has lost its seat; the hand is gone long before."""
STATES_AHEAD: Final = 2
"""States, each with its pictures, on their way at most: a slow page gets the newest next, not those it missed."""
ANSWERS: Final = 32
"""Answers that wait at most; of more the newest are kept."""


@final
class Page:
    """One page: the robot it looks at, and whether it is in control of it."""

    def __init__(self, socket: WebSocket, stations: Stations, charts: Charts, ears: Ears) -> None:
        self._ears = ears
        self._sound: bytearray | None = None
        self._recognising: asyncio.Task[None] | None = None
        self._socket, self._stations, self._charts = socket, stations, charts
        self._loop = asyncio.get_running_loop()
        self._news, self._is_stale = asyncio.Event(), True
        hello = {
            "type": "hello",
            "version": messages.VERSION,
            "robots": list(stations),
            "voice": ears.missing,
        }
        self._answers = deque([hello], maxlen=ANSWERS)
        self._stamp_ms: float | None = None
        # States sent and seen, and when the page last saw one or had nothing to see.
        self._sent, self._seen, self._seen_s = 0, 0, self._loop.time()
        self._charts_shown, self._charts_due = -1, 0.0
        self._look_at(next(iter(stations.values())))

    def _look_at(self, station: Station) -> None:
        self._station = station
        self._shown = -1
        self._unsubscribe = station.feed.subscribe(self._notify)
        # Whoever comes first is in control; the others watch until they take it.
        station.sit_down(self)

    def _notify(self) -> None:
        self._loop.call_soon_threadsafe(self._refresh)

    def _refresh(self) -> None:
        self._is_stale = True
        self._news.set()

    async def serve(self) -> None:
        """Talks with the page until it is gone, silent or deaf; whatever ends it, the robot is released first."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._speak())]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                with contextlib.suppress(WebSocketDisconnect, asyncio.TimeoutError, RuntimeError):
                    task.result()
        finally:
            self._unsubscribe()
            self._station.lose(self)
            if self._recognising is not None:
                tasks.append(self._recognising)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Obeys, and never sends: what a slow page asks for must not wait for what it has yet to take."""
        while True:
            # `receive_text` gives up once a picture could not be sent; what a page that has closed said before, such
            # as its verdict, still counts.
            event = await asyncio.wait_for(self._socket.receive(), SILENCE_SECONDS)
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            try:
                if event.get("bytes") is not None:
                    self._take_sound(event["bytes"])
                else:
                    self._obey(messages.parse_message(event.get("text") or ""))
            except HilDaftError as error:
                self._say({"type": "refused", "reason": str(error)})

    def _take_sound(self, data: bytes) -> None:
        """Keeps what the microphone hears; what comes after the longest sentence is dropped."""
        if self._sound is None:
            msg = "sound without the push-to-talk button: hold it, then speak"
            raise HilDaftError(msg)
        self._sound += data[: MOST_BYTES - len(self._sound)]

    def _listen_to(self, on: bool) -> None:
        if on:
            self._ears.open()
            self._sound = bytearray()
            return
        sound, self._sound = self._sound, None
        if sound is not None:
            # Beside the messages: the hand's signs must not wait for it.
            self._recognising = asyncio.create_task(self._recognise(bytes(sound)))

    async def _recognise(self, sound: bytes) -> None:
        """Shows what was said; it acts when the page sends it back as text."""
        try:
            heard = await self._ears.hear(sound)
            self._hear(messages.Sentence(text=heard.text, act=False), heard)
        except HilDaftError as error:
            self._say({"type": "refused", "reason": str(error)})

    def _say(self, message: dict[str, Any]) -> None:
        self._answers.append(message)
        self._news.set()

    async def _speak(self) -> None:
        """Sends until the link is gone; raises asyncio.TimeoutError where the page takes nothing."""
        state_due = 0.0
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                self._news.clear()
                now = self._loop.time()
                if self._sent == self._seen:
                    self._seen_s = now
                elif now - self._seen_s > SILENCE_SECONDS:
                    raise asyncio.TimeoutError
                await self._answer()
                is_due = self._is_stale or now >= state_due
                if is_due and self._sent - self._seen < STATES_AHEAD:
                    state_due = now + STATE_SECONDS
                    await self._show()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), STATE_SECONDS)

    async def _send(self, message: dict[str, Any] | bytes) -> None:
        """Raises asyncio.TimeoutError where the page has taken nothing for `SILENCE_SECONDS`."""
        is_picture = isinstance(message, bytes)
        socket = self._socket
        sending = socket.send_bytes(message) if is_picture else socket.send_json(message)
        await asyncio.wait_for(sending, self._seen_s + SILENCE_SECONDS - self._loop.time())

    async def _answer(self) -> None:
        while self._answers:
            await self._send(self._answers.popleft())
        if self._stamp_ms is not None:
            stamp, self._stamp_ms = self._stamp_ms, None
            await self._send({"type": "echo", "stamp": stamp})

    async def _show(self) -> None:
        """The newest pictures, and after them the state: a page that has seen it has the pictures too."""
        self._is_stale, station = False, self._station
        # In a thread: the hand's messages must not wait for the encoder.
        frame, jpegs = await asyncio.to_thread(station.feed.jpegs)
        if station is self._station and frame.number != self._shown:
            self._shown = frame.number
            for camera, jpeg in jpegs.items():
                name = camera.encode()
                head = struct.pack(">BBI", messages.VERSION, len(name), frame.number) + name
                await self._send(head + jpeg)
        now = self._loop.time()
        if now >= self._charts_due and self._charts.version != self._charts_shown:
            self._charts_shown, self._charts_due = self._charts.version, now + CHART_SECONDS
            await self._send({"type": "charts", **self._charts.to_json()})
        others = {name: station.showing for name, station in self._stations.items()}
        self._sent += 1
        await self._send({**self._station.state(self), "robots": others, "number": self._sent})

    # What the page asks for.

    def _obey(self, message: messages.Message) -> None:
        station = self._station
        match message:
            case messages.Beat(stamp_ms=stamp):
                if station.sits(self):
                    station.operator.alive()
                self._stamp_ms = stamp
                self._news.set()
                return
            case messages.Seen(number=number):
                self._note_seen(number)
                return
            case messages.Select(robot=robot):
                self._select(robot)
                return
            case messages.Seat(change="take"):
                if not station.sit_down(self):
                    msg = "somebody else is in control: you can watch until they leave the seat"
                    raise HilDaftError(msg)
            case messages.Seat():
                station.stand_up(self)
            case messages.Sentence(act=False) as sentence:
                self._hear(sentence)
                return
            case _:
                station.require_seat(self)
                self._act(station, message)
        self._refresh()

    def _note_seen(self, number: int) -> None:
        if number > self._sent:
            msg = f"number={number}: no state after {self._sent} was sent"
            raise HilDaftError(msg)
        if number > self._seen:
            self._seen, self._seen_s = number, self._loop.time()
            self._news.set()

    def _act(self, station: Station, message: messages.Message) -> None:
        """What only the person in control may do."""
        operator = station.operator
        match message:
            case messages.Drive(motion=motion):
                operator.drive(base_motion(station.frame, motion))
            case messages.Release():
                operator.release()
            case messages.Grip(closes=closes):
                operator.grip(closes)
            case messages.Say(said=said, keep=keep):
                operator.say(station.frame.to_base(said), keep=keep)
            case messages.Sentence() as sentence:
                self._hear(sentence)
            case messages.Listen(on=on):
                self._listen_to(on)
            case messages.Press(key=key):
                _press(station, key)
            case messages.Review(verdict=verdict):
                station.judge(verdict)
            case messages.Helper(on=on):
                operator.helper_on = on
            case _:
                pass

    def _hear(self, sentence: messages.Sentence, spoken: Heard | None = None) -> None:
        """Shows what a sentence means, and acts on it when asked to; asks where it is not understood."""
        said = self._station.understand(sentence.text) if spoken is None else spoken.command
        answer: dict[str, Any] = {
            "type": "heard",
            "text": sentence.text,
            "acted": False,
            "spoken": spoken is not None,
        }
        if said is None:
            self._say({**answer, "said": None, "words": None})
            return
        command = self._station.frame.to_base(said)
        if sentence.act:
            self._station.operator.say(command)
        self._say(
            {
                **answer,
                "acted": sentence.act,
                "said": list(said.signs),
                "command": list(command.signs),
                "words": self._station.frame.words(command),
            }
        )

    def _select(self, robot: str) -> None:
        if robot not in self._stations:
            msg = f"robot={robot!r}: {', '.join(self._stations)} are allowed"
            raise HilDaftError(msg)
        self._unsubscribe()
        self._station.stand_up(self)
        self._look_at(self._stations[robot])
        self._refresh()


def _press(station: Station, key: messages.Key) -> None:
    operator = station.operator
    if key in ("pause", "resume"):
        operator.pause(key == "pause")
    elif key == "hand-back":
        operator.hand_back()
    else:
        operator.mark(key)
