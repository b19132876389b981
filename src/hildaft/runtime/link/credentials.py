"""Who may speak: a token always, and mutual TLS wherever the network is more than this machine."""

import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import grpc

from hildaft.types import HilDaftError

TOKEN_VARIABLE: Final = "HILDAFT_TOKEN"


@final
@dataclass(frozen=True, slots=True)
class ServerTls:
    """The learner's certificate and the CA whose peers it lets in."""

    ca: bytes
    certificate: bytes
    key: bytes

    def grpc(self) -> grpc.ServerCredentials:
        """The same for gRPC; peers without a certificate of the CA are refused in the handshake."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.ca, require_client_auth=True
        )


@final
@dataclass(frozen=True, slots=True)
class ClientTls:
    """A worker's certificate and the CA whose learner it trusts."""

    ca: bytes
    certificate: bytes
    key: bytes

    def grpc(self) -> grpc.ChannelCredentials:
        """The same for gRPC."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def read_tls(folder: Path, name: str) -> tuple[bytes, bytes, bytes]:
    """CA, certificate and key of `name` out of a folder that `hildaft certs` made."""
    paths = (folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")
    try:
        ca, certificate, key = (path.read_bytes() for path in paths)
    except OSError as error:
        msg = f"certificate {error.filename}: {error.strerror}; make it with `hildaft certs {name} --out {folder}`"
        raise HilDaftError(msg) from error
    return ca, certificate, key


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; raises HilDaftError where it is not of that form."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        msg = f"address {address!r}: HOST:PORT is expected, such as 127.0.0.1:50551"
        raise HilDaftError(msg)
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can be reached from this machine alone."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_secure(address: str, tls: object | None) -> None:
    """Raises HilDaftError for an address beyond this machine without TLS."""
    if tls is None and not is_loopback(address):
        msg = (
            f"address {address}: beyond this machine the link needs TLS; make certificates with `hildaft certs` "
            "and name their folder with --certs"
        )
        raise HilDaftError(msg)


def make_token(path: Path) -> str:
    """The token in this file, which is made, readable by its owner alone, where there is none."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        msg = f"token file {path}: {error.strerror}; mend the folder's permissions"
        raise HilDaftError(msg) from error
    return read_token(path)


def read_token(path: Path | None) -> str:
    """The token in a file, or in the environment where no file is named."""
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        where = f"environment variable {TOKEN_VARIABLE}"
    else:
        where = f"token file {path}"
        try:
            token = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{where}: cannot be read ({error}); copy RUN/token of the learner and name it with --token-file"
            raise HilDaftError(msg) from error
    token = token.strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        msg = f"{where}: no token of 16 or more printable characters; copy RUN/token of the learner"
        raise HilDaftError(msg)
    return token
