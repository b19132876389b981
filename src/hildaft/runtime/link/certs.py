"""A private certificate authority: one CA, one certificate per learner and robot."""

import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hildaft.runtime.link.wire import require_worker_name
from hildaft.types import HilDaftError

VALID: Final = timedelta(days=825)
"""Long enough for a project, short enough that a lost key does not open the link for ever."""


def make_certificate(folder: Path, name: str, hosts: Sequence[str]) -> list[Path]:
    """Makes `NAME.crt` and `NAME.key` in `folder`, and `ca.crt` and `ca.key` where there is no CA yet.

    Args:
        folder: made where it is missing.
        name: of the worker, which has to join under it; or "learner".
        hosts: names and addresses that a learner is reached by; none for a worker.

    Raises:
        HilDaftError: a certificate of this name exists, or the folder cannot be used.
    """
    require_worker_name(name)
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if name == "ca" or certificate.exists() or key.exists():
        msg = f"certificate {certificate}: exists already, or is the CA's; take another name, or move it away"
        raise HilDaftError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = [] if (folder / "ca.crt").exists() else _make_ca(folder)
        ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        own_key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, ca.subject, own_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        _write_private(key, own_key)
        signed = builder.sign(ca_key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        msg = f"certificate folder {folder}: {error.strerror or error}; name another with --out"
        raise HilDaftError(msg) from error
    except ValueError as error:
        msg = f"certificate folder {folder}: ca.crt or ca.key is damaged ({error}); move the folder away"
        raise HilDaftError(msg) from error
    return [*made, certificate, key]


def _make_ca(folder: Path) -> list[Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HiL-DAFT private CA")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder("HiL-DAFT private CA", name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    _write_private(folder / "ca.key", key)
    path = folder / "ca.crt"
    signed = builder.sign(key, hashes.SHA256())
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return [path, folder / "ca.key"]


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A robot's clock may be behind by some hours.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
