"""Redis at start: what is wrong is named, and nothing of the password is told."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from worker.consumer import connection
from worker.consumer.connection import ping
from worker.demo.servers import free_port
from worker.demo.stack import EmbeddedStack
from worker.errors import QueueUnavailable
from worker.settings import QueueSettings

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def refusal(url: str, **variables: str) -> QueueUnavailable:
    with pytest.raises(QueueUnavailable) as caught:
        await ping(QueueSettings.read({"REDIS_URL": url} | variables))
    assert "hunter2" not in caught.value.message + caught.value.advice
    return caught.value


@asynccontextmanager
async def listening(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(100):
        pass


async def test_a_good_redis_is_found_good(stack: EmbeddedStack) -> None:
    await ping(QueueSettings.read({"REDIS_URL": stack.redis_url}))


async def test_a_refused_port() -> None:
    error = await refusal(f"redis://:hunter2@127.0.0.1:{free_port()}")
    assert "Nothing listens at 127.0.0.1:" in error.message


@pytest.mark.parametrize("credentials", [":hunter2@", "someone:hunter2@", ""])
async def test_a_wrong_or_missing_password(stack: EmbeddedStack, credentials: str) -> None:
    error = await refusal(f"redis://{credentials}127.0.0.1:{stack.redis_port}")
    assert "refused the password" in error.message
    assert "REDIS_URL" in error.advice


async def test_something_that_is_not_redis() -> None:
    async with listening(speak_http) as port:
        error = await refusal(f"redis://127.0.0.1:{port}")
    assert "is not Redis" in error.message


async def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PING_TIMEOUT_S", 0.2)
    async with listening(say_nothing) as port:
        error = await refusal(f"redis://127.0.0.1:{port}")
    assert "did not answer" in error.message


async def test_tls_to_a_port_that_answers_something_else() -> None:
    async with listening(speak_http) as port:
        error = await refusal(f"rediss://127.0.0.1:{port}")
    assert "does not speak TLS" in error.message


async def test_tls_to_a_redis_without_it(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valkey waits for the rest of what looks to it like a very long line."""
    monkeypatch.setattr(connection, "PING_TIMEOUT_S", 0.3)
    error = await refusal(f"rediss://127.0.0.1:{stack.redis_port}")
    assert "did not answer" in error.message
    assert "a Redis without TLS needs redis://" in error.advice


async def test_an_unknown_host() -> None:
    error = await refusal("redis://no-such-host.invalid:6379")
    assert "no-such-host.invalid" in error.message


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


async def speak_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Enough of the protocol for a ping: each command in turn gets a fitting answer."""
    while line := await reader.readline():
        words = [(await reader.readexactly(int((await reader.readline())[1:]) + 2))[:-2]
                 for _ in range(int(line[1:]))]  # fmt: skip
        info = b"redis_version:7.2.0\r\nmaxmemory_policy:noeviction\r\n"
        command = words[0].upper()
        writer.write(
            b"+PONG\r\n" if command == b"PING"
            else b"$%d\r\n%s\r\n" % (len(info), info) if command == b"INFO"
            else b"+OK\r\n"
        )  # fmt: skip
        await writer.drain()


async def test_tls_with_its_authority_without_it_and_insecure(
    certificate: tuple[Path, Path],
) -> None:
    key, cert = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    async with listening(speak_redis, server) as port:
        url = f"rediss://:hunter2@127.0.0.1:{port}"
        error = await refusal(url)
        assert "not trusted" in error.message
        assert "REDIS_SSL_CA_CERTS" in error.advice
        await ping(QueueSettings.read({"REDIS_URL": url, "REDIS_SSL_CA_CERTS": str(cert)}))
        await ping(QueueSettings.read({"REDIS_URL": url, "REDIS_TLS_INSECURE": "true"}))
