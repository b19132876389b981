"""The link between machines: certificates, the learner's port, and how far the clocks are apart."""

import contextlib
import ipaddress
import socket
import stat
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Literal

from hildaft.doctor.finding import Finding
from hildaft.runtime.link.credentials import ClientTls, is_loopback, read_tls, split_address
from hildaft.types import HilDaftError

_SOON: Final = timedelta(days=30)
_SKEW_S: Final = 2.0
"""Of the clocks: run logs of two machines are compared by the second."""
_BAD_SKEW_S: Final = 3600.0
_CONNECT_S: Final = 3.0


def check_certificates(
    folder: Path, address: str | None = None, now: datetime | None = None
) -> list[Finding]:
    """Every certificate of a folder: whole, in its time, of its CA, with its key, and for the learner's host.

    Args:
        folder: made by `hildaft certs`, or a copy of a part of it.
        address: HOST:PORT that workers call the learner by; its certificate has to name HOST.
        now: replaceable in tests.
    """
    try:
        from cryptography import x509
    except ImportError:
        cure = "pip install cryptography, or look on the learner's machine"
        return [Finding("warn", "certs", f"{folder}: cannot be read here", cure)]
    now = now or datetime.now(timezone.utc)
    paths = sorted(folder.glob("*.crt")) if folder.is_dir() else []
    if not paths or not (folder / "ca.crt").exists():
        cure = f"hildaft certs learner --hosts HOST --out {folder}, or copy ca.crt, NAME.crt and NAME.key there"
        return [Finding("fail", "certs", f"{folder}: no ca.crt in it", cure)]
    found: list[Finding] = []
    loaded: dict[str, Any] = {}
    for path in paths:
        try:
            loaded[path.stem] = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:  # noqa: PERF203 - the others are looked at too
            cure = "make it anew with `hildaft certs`, or copy it again"
            found.append(Finding("fail", "certs", f"{path}: damaged ({error})", cure))
    for name, certificate in loaded.items():
        found += _check_one(folder, name, certificate, loaded.get("ca"), now)
    if address is not None and "learner" in loaded:
        found.append(_check_host(loaded["learner"], split_address(address)[0]))
    return found


def _check_one(
    folder: Path,
    name: str,
    certificate: Any,  # noqa: ANN401 - of an optional library
    ca: Any,  # noqa: ANN401
    now: datetime,
) -> list[Finding]:
    path, again = (
        folder / f"{name}.crt",
        f"move {folder}/{name}.* away and make it anew with `hildaft certs {name}`",
    )
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    found: list[Finding] = []
    if now > ends:
        found.append(Finding("fail", "certs", f"{path}: expired on {ends:%Y-%m-%d}", again))
    elif now < begins:
        cure = f"set this machine's clock, it says {now:%Y-%m-%d %H:%M} UTC"
        found.append(Finding("fail", "certs", f"{path}: valid from {begins:%Y-%m-%d} on", cure))
    elif ends - now < _SOON:
        days = (ends - now).days
        found.append(Finding("warn", "certs", f"{path}: expires in {days} days", again))
    if ca is not None and name != "ca":
        try:
            certificate.verify_directly_issued_by(ca)
        except Exception:  # cryptography raises several kinds
            cure = "copy ca.crt and this certificate from the same folder"
            found.append(Finding("fail", "certs", f"{path}: not signed by this ca.crt", cure))
    found += _check_key(folder / f"{name}.key", certificate, again, needed=name != "ca")
    if not found:
        found.append(Finding("ok", "certs", f"{path}: until {ends:%Y-%m-%d}"))
    return found


def _check_key(path: Path, certificate: Any, again: str, *, needed: bool) -> list[Finding]:  # noqa: ANN401
    from cryptography.hazmat.primitives import serialization

    if not path.exists():
        # A learner's certificate may lie on a robot without its key, and the CA's key never leaves one machine.
        return [Finding("warn", "certs", f"{path}: not here", "only its owner needs it")] * needed
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        return [Finding("fail", "certs", f"{path}: cannot be read ({error})", again)]
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        return [Finding("fail", "certs", f"{path}: belongs to another certificate", again)]
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return [Finding("warn", "certs", f"{path}: others may read it", f"chmod 600 {path}")]
    return []


def _check_host(certificate: Any, host: str) -> Finding:  # noqa: ANN401
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        there: list[str] = []
    else:
        there = [*names.get_values_for_type(x509.DNSName)]
        there += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    with contextlib.suppress(ValueError):
        host = str(ipaddress.ip_address(host))
    if host in there:
        return Finding("ok", "certs", f"the learner's certificate names {host}")
    text = f"the learner's certificate does not name {host}, but {', '.join(there) or 'no host'}"
    return Finding(
        "fail", "certs", text, f"make it anew with --hosts {host} {' '.join(there)}".rstrip()
    )


def check_learner(
    address: str, status: Callable[[], Any], clock: Callable[[], float] = time.time
) -> list[Finding]:
    """Whether the learner's port can be reached, it answers, and its clock agrees with ours.

    Args:
        address: HOST:PORT.
        status: asks the learner for its `StatusReply`; raises HilDaftError.
        clock: Unix time, s; replaceable in tests.
    """
    host, port = split_address(address)
    try:
        with socket.create_connection((host, port), _CONNECT_S):
            pass
    except OSError as error:
        cure = "start `hildaft learner --listen HOST:PORT`, and open the port in the firewall between the machines"
        reason = error.strerror or str(error)
        return [Finding("fail", "learner", f"{address}: cannot be reached ({reason})", cure)]
    found = [Finding("ok", "learner", f"{address}: the port answers")]
    begun = clock()
    try:
        reply = status()
    except HilDaftError as error:
        cure = "look at the certificates above and at --token-file"
        return [*found, Finding("fail", "learner", str(error), cure)]
    ended = clock()
    found.append(Finding("ok", "learner", f"run {reply.run}, {reply.stage}"))
    if not reply.time_s:
        return found
    half, ahead = (ended - begun) / 2, reply.time_s - (begun + ended) / 2
    size = abs(ahead)
    level: Literal["ok", "warn", "fail"] = "ok"
    if size - half > _SKEW_S:
        level = "fail" if size > _BAD_SKEW_S else "warn"
    where = "ahead of" if ahead > 0 else "behind"
    text = f"the learner's is {size:.2f} s {where} ours, give or take {half:.2f} s"
    cure = "" if level == "ok" else "let a time server keep both: timedatectl set-ntp true"
    return [*found, Finding(level, "clock", text, cure)]


def check_link(
    address: str, certs: Path | None, name: str, token_file: Path | None
) -> list[Finding]:
    """Everything about the link to a learner, as the worker of this name would meet it."""
    found = [] if certs is None else check_certificates(certs, address)
    if certs is None and not is_loopback(address):
        cure = "make certificates with `hildaft certs` and name their folder with --certs"
        return [Finding("fail", "certs", f"{address} is beyond this machine: TLS is needed", cure)]

    def status() -> Any:  # noqa: ANN401 - generated class
        from hildaft.runtime.link import link_pb2 as pb
        from hildaft.runtime.link.client import LearnerAwayError, LearnerClient
        from hildaft.runtime.link.credentials import read_token
        from hildaft.runtime.link.wire import SCHEMA_VERSION

        tls = ClientTls(*read_tls(certs, name)) if certs is not None else None
        client = LearnerClient(address, read_token(token_file), tls)
        try:
            return client.call("Status", pb.StatusRequest(schema_version=SCHEMA_VERSION))
        except LearnerAwayError as error:
            msg = f"learner {address}: its port answers, the link does not ({error})"
            raise HilDaftError(msg) from error
        finally:
            client.close()

    return [*found, *check_learner(address, status)]
