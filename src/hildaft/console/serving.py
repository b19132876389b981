"""Opens the console to the network: where it listens, under which conditions, and how it ends."""

import ipaddress
import secrets
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hildaft.console import messages
from hildaft.console.charts import Charts
from hildaft.console.ears import Ears
from hildaft.console.station import Stations
from hildaft.types import HilDaftError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

_START_SECONDS: Final = 20.0
_END_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Where the console listens."""

    host: str = "127.0.0.1"
    """Interface. From another machine prefer a tunnel (ssh -L 8765:127.0.0.1:8765) to opening it here."""
    port: int = 8765
    """0 takes a free one."""
    tls_cert: Path | None = None
    """Certificate chain (PEM): with it and its key other interfaces than the loopback may be used."""
    tls_key: Path | None = None
    """The certificate's private key (PEM)."""
    insecure: bool = False
    """Allow another interface without TLS: whoever shares the network can read the token and move the robot."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            msg = f"console port={self.port}: 0 to 65535 is allowed"
            raise HilDaftError(msg)
        if (self.tls_cert is None) != (self.tls_key is None):
            msg = f"console tls-cert={self.tls_cert}, tls-key={self.tls_key}: both or neither are allowed"
            raise HilDaftError(msg)
        for name, path in (("tls-cert", self.tls_cert), ("tls-key", self.tls_key)):
            if path is not None and not path.is_file():
                msg = f"console {name}={path}: there is no such file; name a PEM file"
                raise HilDaftError(msg)
        if not self.is_loopback and self.tls_cert is None and not self.insecure:
            msg = (
                f"console host={self.host!r}: without TLS only the loopback (127.0.0.1) is allowed; give"
                " --serving.tls-cert and --serving.tls-key, use an SSH tunnel, or add --serving.insecure if everyone"
                " on the network may move the robot"
            )
            raise HilDaftError(msg)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@contextmanager
def serve(
    stations: Stations,
    charts: Charts,
    config: ServingConfig,
    token: str | None = None,
    ears: Ears | None = None,
) -> Generator[str]:
    """Runs the console in a thread of its own and yields its address, token included; ends it afterwards.

    Raises:
        HilDaftError: the interface or port cannot be used, or the extra `console` is not installed.
    """
    try:
        # A run without a console needs no web server, and imports this module all the same.
        import uvicorn

        from hildaft.console.server import ConsoleServer
    except ImportError as error:
        msg = f"console: {error.name} is not installed; pip install 'hildaft[console]'"
        raise HilDaftError(msg) from error
    token = token or secrets.token_urlsafe(24)
    listener = _listen(config)
    port = int(listener.getsockname()[1])
    scheme = "http" if config.tls_cert is None else "https"
    ears = ears or Ears()
    console = ConsoleServer(
        stations,
        charts,
        token,
        loopback_only=config.is_loopback,
        secure=config.tls_cert is not None,
        ears=ears,
    )
    settings = _settings(console.app, config, listener)
    server = uvicorn.Server(settings)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="console", daemon=True
    )
    thread.start()
    try:
        _await_start(server, thread, config)
        host = f"[{config.host}]" if ":" in config.host else config.host
        yield f"{scheme}://{host}:{port}/?token={token}"
    finally:
        server.should_exit = True
        thread.join(_END_SECONDS)
        listener.close()
        ears.close()


def _settings(app: "Starlette", config: ServingConfig, listener: socket.socket) -> "uvicorn.Config":
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=2 * messages.MAX_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        server_header=False,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        timeout_graceful_shutdown=1,
    )
    try:
        settings.load()
    except OSError as error:
        listener.close()
        given = f"tls-cert={config.tls_cert}, tls-key={config.tls_key}"
        msg = f"console {given}: {error}; name a TLS certificate and its key"
        raise HilDaftError(msg) from error
    return settings


def _listen(config: ServingConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        msg = (
            f"console {config.host}:{config.port}: {error.strerror or error}; name another with --serving.port (0 takes"
            " a free one) or --serving.host"
        )
        raise HilDaftError(msg) from error
    return listener


def _await_start(server: "uvicorn.Server", thread: threading.Thread, config: ServingConfig) -> None:
    waited = threading.Event()
    for _ in range(int(_START_SECONDS / 0.02)):
        if server.started:
            return
        if not thread.is_alive():
            break
        waited.wait(0.02)
    msg = f"console {config.host}:{config.port}: the server did not start; try another port"
    raise HilDaftError(msg)
