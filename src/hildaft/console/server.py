"""The console's web server: one static page, one WebSocket per person, nothing without the token.

Who may come in: requests that carry the token, as a cookie after the first visit. WebSockets are refused unless the
page they come from was served by this server (Origin), and on loopback unless the address asked for is a loopback
name (Host), so that another site's page in the same browser reaches nothing.
"""

import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final, final

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hildaft.console.charts import Charts
from hildaft.console.ears import Ears
from hildaft.console.page import Page
from hildaft.console.station import Stations

COOKIE: Final = "hildaft_console"

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
        await Page(socket, self._stations, self._charts, self._ears).serve()


def _static(name: str) -> Response:
    text = (resources.files("hildaft.console") / "static" / name).read_bytes()
    return Response(text, media_type=_FILES[name])
