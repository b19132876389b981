"""The console's web server: one static page, one WebSocket per person, nothing without the token.

Who may come in: requests that carry the token, as a cookie after the first visit. WebSockets are refused unless the
page they come from was served by this server (Origin), and on loopback unless the address asked for is a loopback
name (Host), so that another site's page in the same browser reaches nothing.
"""

import asyncio
import contextlib
import secrets
import struct
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, final

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hildaft.console import messages
from hildaft.console.charts import Charts
from hildaft.console.ears import MOST_BYTES, Ears
from hildaft.console.station import Station, Stations, base_motion
from hildaft.teleop.voice import Heard
from hildaft.types import HilDaftError

COOKIE: Final = "hildaft_console"
STATE_SECONDS: Final = 0.2
"""Longest time between two states: the page takes a longer silence for a lost link."""
CHART_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 5.0
"""A page unheard for so long has lost its seat; the hand is gone long before."""

_FILES: Final = {
    "index.html": "text/html",
    "console.css": "text/css",
    "console.js": "text/javascript",
    "hand.js": "text/javascript",
    "pictures.js": "text/javascript",
    "charts.js": "text/javascript",
    "microphone.js": "text/javascript",
    "recorder.js": "text/javascript",
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


@final
class ConsoleServer:
    """Serves stations and charts to whoever has the token.

    Args:
        stations: the robots, by name; the first is shown first.
        charts: what the run has measured.
        token: the secret of the printed address.
        loopback_only: refuse requests for any host name but the loopback's.
        secure: served over TLS.
        ears: recognise what is said on the page.
    """

    def __init__(
        self,
        stations: Stations,
        charts: Charts,
        token: str,
        *,
        loopback_only: bool = True,
        secure: bool = False,
        ears: Ears | None = None,
    ) -> None:
        self._ears = ears or Ears()
        self._stations, self._charts = stations, charts
        self._token, self._loopback_only, self._secure = token, loopback_only, secure
        page = self._guarded(self._page)
        self.app: Final = Starlette(
            routes=[
                Route("/", page),
                Route("/static/{name}", self._guarded(self._file)),
                Route("/review/{robot}/{camera}/{step:int}.jpg", self._guarded(self._review_image)),
                WebSocketRoute("/ws", self._connect),
            ]
        )

    # Who may come in.

    def _known_host(self, connection: HTTPConnection) -> bool:
        host = connection.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return not self._loopback_only or name in _LOOPBACK

    def _has_token(self, connection: HTTPConnection) -> bool:
        given = connection.query_params.get("token") or connection.cookies.get(
            self._cookie(connection)
        )
        return given is not None and secrets.compare_digest(given.encode(), self._token.encode())

    def _cookie(self, connection: HTTPConnection) -> str:
        # Cookies do not know ports: two consoles on one machine would overwrite each other's.
        return f"{COOKIE}_{connection.url.port or 0}"

    def _same_origin(self, connection: HTTPConnection) -> bool:
        scheme = "https" if self._secure else "http"
        return (
            connection.headers.get("origin") == f"{scheme}://{connection.headers.get('host', '')}"
        )

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not self._known_host(request) or not self._has_token(request):
                return PlainTextResponse(
                    "HiL-DAFT console: open the address that `hildaft` printed, with its token.\n",
                    status_code=403,
                    headers=_HEADERS,
                )
            response = await answer(request)
            response.headers.update(_HEADERS)
            return response

        return guarded

    # What is served.

    async def _page(self, request: Request) -> Response:
        if "token" in request.query_params:
            # Out of the address bar, the history and screenshots.
            response: Response = RedirectResponse("/", status_code=303)
            response.set_cookie(
                self._cookie(request),
                self._token,
                httponly=True,
                samesite="strict",
                secure=self._secure,
            )
            return response
        return _static("index.html")

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _static(name) if name in _FILES else PlainTextResponse("no such file", 404)

    async def _review_image(self, request: Request) -> Response:
        values = request.path_params
        station = self._stations.get(values["robot"])
        episode = None if station is None else station.under_review
        frames = () if episode is None else episode.images.get(values["camera"], ())
        if not 0 <= values["step"] < len(frames):
            return PlainTextResponse("no such picture", 404)
        return Response(frames[values["step"]], media_type="image/jpeg")

    async def _connect(self, socket: WebSocket) -> None:
        if not (self._known_host(socket) and self._has_token(socket) and self._same_origin(socket)):
            await socket.close(1008)
            return
        await socket.accept()
        person = _Person(socket, self._stations, self._charts, self._ears)
        await person.serve()


def _static(name: str) -> Response:
    text = (resources.files("hildaft.console") / "static" / name).read_bytes()
    return Response(text, media_type=_FILES[name])


@final
class _Person:
    """One page: the robot it looks at, and whether it is in control of it."""

    def __init__(self, socket: WebSocket, stations: Stations, charts: Charts, ears: Ears) -> None:
        self._ears = ears
        self._sound: bytearray | None = None
        self._recognising: asyncio.Task[None] | None = None
        self._socket, self._stations, self._charts = socket, stations, charts
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._look_at(next(iter(stations.values())))
        self._shown = -1

    def _look_at(self, station: Station) -> None:
        self._station = station
        self._shown = -1
        self._unsubscribe = station.feed.subscribe(self._notify)
        # Whoever comes first is in control; the others watch until they take it.
        station.sit_down(self)

    def _notify(self) -> None:
        self._loop.call_soon_threadsafe(self._news.set)

    def _leave(self) -> None:
        self._unsubscribe()
        self._station.stand_up(self)

    async def serve(self) -> None:
        """Talks with the page until it is gone; whatever ends it, the robot is released first."""
        await self._socket.send_json(
            {
                "type": "hello",
                "version": messages.VERSION,
                "robots": list(self._stations),
                "voice": self._ears.missing,
            }
        )
        speaking = asyncio.create_task(self._speak())
        try:
            await self._listen()
        except (WebSocketDisconnect, asyncio.TimeoutError, RuntimeError):
            pass
        finally:
            self._leave()
            speaking.cancel()
            if self._recognising is not None:
                self._recognising.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            # `receive_text` gives up once a picture could not be sent; what a page that has closed said before, such
            # as its verdict, still counts.
            event = await asyncio.wait_for(self._socket.receive(), SILENCE_SECONDS)
            if event["type"] == "websocket.disconnect":
                return
            try:
                if event.get("bytes") is not None:
                    self._take_sound(event["bytes"])
                else:
                    await self._obey(messages.parse_message(event.get("text") or ""))
            except HilDaftError as error:
                await self._say({"type": "refused", "reason": str(error)})

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
            await self._hear(messages.Sentence(text=heard.text, act=False), heard)
        except HilDaftError as error:
            await self._say({"type": "refused", "reason": str(error)})

    async def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.send_json(message)

    async def _speak(self) -> None:
        charts_shown, charts_due = -1, 0.0
        while True:
            others = {name: station.showing for name, station in self._stations.items()}
            await self._socket.send_json({**self._station.state(self), "robots": others})
            await self._show_pictures()
            now = self._loop.time()
            if now >= charts_due and self._charts.version != charts_shown:
                charts_shown, charts_due = self._charts.version, now + CHART_SECONDS
                await self._socket.send_json({"type": "charts", **self._charts.to_json()})
            try:
                await asyncio.wait_for(self._news.wait(), STATE_SECONDS)
            except asyncio.TimeoutError:
                continue
            self._news.clear()

    async def _show_pictures(self) -> None:
        # A slow page gets the newest frame next, not the ones it missed.
        # In a thread: the hand's messages must not wait for the encoder.
        frame, jpegs = await asyncio.to_thread(self._station.feed.jpegs)
        if frame.number == self._shown:
            return
        self._shown = frame.number
        for camera, jpeg in jpegs.items():
            name = camera.encode()
            head = struct.pack(">BBI", messages.VERSION, len(name), frame.number) + name
            await self._socket.send_bytes(head + jpeg)

    # What the page asks for.

    async def _obey(self, message: messages.Message) -> None:
        station = self._station
        match message:
            case messages.Beat(stamp_ms=stamp):
                if station.sits(self):
                    station.operator.alive()
                await self._say({"type": "echo", "stamp": stamp})
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
                await self._hear(sentence)
                return
            case _:
                station.require_seat(self)
                await self._act(station, message)
        self._news.set()

    async def _act(self, station: Station, message: messages.Message) -> None:
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
                await self._hear(sentence)
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

    async def _hear(self, sentence: messages.Sentence, spoken: Heard | None = None) -> None:
        """Shows what a sentence means, and acts on it when asked to; asks where it is not understood."""
        said = self._station.understand(sentence.text) if spoken is None else spoken.command
        answer: dict[str, Any] = {
            "type": "heard",
            "text": sentence.text,
            "acted": False,
            "spoken": spoken is not None,
        }
        if said is None:
            await self._say({**answer, "said": None, "words": None})
            return
        command = self._station.frame.to_base(said)
        if sentence.act:
            self._station.operator.say(command)
        await self._say(
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
        self._leave()
        self._look_at(self._stations[robot])
        self._news.set()


def _press(station: Station, key: messages.Key) -> None:
    operator = station.operator
    if key in ("pause", "resume"):
        operator.pause(key == "pause")
    elif key == "hand-back":
        operator.hand_back()
    else:
        operator.mark(key)
