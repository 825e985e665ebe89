"""TLS, as readers speak by default: whose certificate is believed, and connections that end."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from socket import create_server, socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from models_sync.bucket import Bucket
from models_sync.endpoint import Endpoint, authorities
from models_sync.errors import BucketUnreachable, CertificateUntrusted
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.wire import Wire

BODY = b"0123456789"
REMOTE = RemoteObject("sam3d/a", "sam3d/a", len(BODY), None)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + BODY
RANGE = (
    b'HTTP/1.1 206 Partial Content\r\nETag: "e1"\r\nContent-Range: bytes 0-9/10\r\n'
    b"Content-Length: 10\r\n\r\n"
)


def certificate_for(address: str, folder: Path) -> Path:
    """A PEM file of a key and a certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "models")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{address}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextmanager
def answering(
    certificate: Path | None, *answers: bytes
) -> Iterator[tuple[SyncSettings, list[int]]]:
    """A server that gives each connection these answers; its settings, and who connected."""
    came: list[int] = []
    over = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificate)

    def answer(plain: socket) -> None:
        with plain:
            client = context.wrap_socket(plain, server_side=True) if certificate else plain
            with client:
                for one in answers:
                    client.recv(1 << 16)
                    client.sendall(one)
                over.wait()

    def serve() -> None:
        while not over.is_set():
            connected, (_, port) = listening.accept()
            came.append(port)
            try:
                answer(connected)
            except OSError:  # it did not believe us
                continue

    with create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield (
                SyncSettings.load(
                    minio_endpoint=f"127.0.0.1:{address[1]}",
                    minio_access_key="reader",
                    minio_secret_key="secret",
                ),
                came,
            )
        finally:
            over.set()
            with socket() as last:  # which accept waits for
                last.connect(address)
            thread.join()


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The certificate that SSL_CERT_FILE names."""
    path = certificate_for("127.0.0.1", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    authorities.cache_clear()
    yield path
    authorities.cache_clear()


def test_small_objects_and_ranges_come_from_who_is_trusted(trusted: Path) -> None:
    buffer = memoryview(bytearray(len(BODY)))
    with answering(trusted, WHOLE, RANGE + BODY, RANGE + BODY) as (settings, came):
        wire = Wire(Endpoint(settings), stall_s=10.0)
        assert wire.read_small("manifest.json", 100) == BODY
        for _ in range(2):
            with wire.open_range(REMOTE, 0, len(BODY), "e1") as answer:
                assert answer.readinto(buffer) == len(BODY)
                assert bytes(buffer) == BODY
        wire.close()
    assert len(came) == 1


@pytest.mark.parametrize(
    ("address", "is_known", "why"),
    [("127.0.0.1", False, "self-signed"), ("127.0.0.2", True, "IP address mismatch")],
    ids=["another authority", "another name"],
)
def test_a_certificate_that_proves_nothing_is_named_and_not_asked_again(
    address: str, is_known: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = certificate_for(address, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs if is_known else tmp_path / "none.pem"))
    with answering(theirs, WHOLE) as (settings, came):
        with pytest.raises(CertificateUntrusted, match=why):
            Bucket(settings).read_small("manifest.json", 100)
        assert len(came) == 1


def test_who_speaks_no_tls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models_sync.bucket.ATTEMPTS", 1)
    with (
        answering(None, b"HTTP/1.1 400 Bad Request\r\n\r\n") as (settings, _),
        pytest.raises(BucketUnreachable, match="SSL"),
    ):
        Bucket(settings).read_small("manifest.json", 100)


def test_a_read_that_waits_for_the_rest_can_be_ended_by_another_thread(trusted: Path) -> None:
    begun = threading.Event()
    buffer = memoryview(bytearray(len(BODY)))
    with answering(trusted, RANGE + BODY[:3]) as (settings, _):
        wire = Wire(Endpoint(settings), stall_s=60.0)

        def shut() -> None:
            begun.wait()
            wire.shut()

        other = threading.Thread(target=shut)
        other.start()
        with wire.open_range(REMOTE, 0, len(BODY), "e1") as answer:
            begun.set()
            assert answer.readinto(buffer) == 3
        other.join()
        wire.close()
