"""Redis at start: what is wrong is named, and nothing of the password is told."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import bullmq
import pytest
import redis.asyncio as redis
from pydantic import ValidationError

from tests.consuming import Doer, consuming
from tests.fakes.passage import passage_to
from worker.consumer import connection
from worker.consumer.cancellation import request_cancel
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


def serving(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


async def test_tls_with_its_authority_without_it_and_insecure(
    certificate: tuple[Path, Path], stack: EmbeddedStack
) -> None:
    """The embedded Valkey is built without TLS, so TLS ends just before it."""
    cert = str(certificate[1])
    async with passage_to(stack.redis_port, serving(certificate)) as passage:
        url = _moved(stack.redis_url, passage.port).replace("redis://", "rediss://")
        error = await refusal(url)
        assert "not trusted" in error.message
        assert "REDIS_SSL_CA_CERTS" in error.advice
        await ping(QueueSettings.read({"REDIS_URL": url, "REDIS_SSL_CA_CERTS": cert}))
        await ping(QueueSettings.read({"REDIS_URL": url, "REDIS_TLS_INSECURE": "true"}))

        other = url.replace("127.0.0.1", "localhost")
        error = await refusal(other, REDIS_SSL_CA_CERTS=cert)
        assert "issued for another host" in error.message

        error = await refusal(_moved(stack.redis_url, passage.port))
        assert "a Redis that wants TLS needs rediss://" in error.advice


async def test_authorities_that_are_not_there(stack: EmbeddedStack) -> None:
    error = await refusal(stack.redis_url, REDIS_SSL_CA_CERTS="/no/such/file.pem")
    assert "REDIS_SSL_CA_CERTS=/no/such/file.pem is not a file" in error.message


# ---------------------------------------------------------------- users
PASSWORD = "p@ss/w:rd#1?[%]"
RULES = (
    *("~bull:{queue}:*", "~bull:{queue}-worker:*"),
    *("+@read", "+@write", "+@scripting", "+@connection", "+@transaction"),
    *("-@dangerous", "+info", "+time", "+client|list"),
)
"""What docs/reference/bullmq.md tells an operator to grant."""


@pytest.fixture
async def user(stack: EmbeddedStack, queue: str) -> AsyncIterator[tuple[str, redis.Redis]]:
    """A user with no more than the rules above; its URL, and root's client."""
    root = redis.from_url(stack.redis_url, decode_responses=True)
    rules = [rule.format(queue=queue) for rule in RULES]
    await root.execute_command(
        *("ACL", "SETUSER", "avatar", "reset", "on", f">{PASSWORD}", "resetchannels", *rules)
    )
    credentials = f"avatar:{quote(PASSWORD, safe='')}"
    yield f"redis://{credentials}@127.0.0.1:{stack.redis_port}", root
    await root.execute_command("ACL", "DELUSER", "avatar")
    await root.aclose()


async def test_a_user_with_the_documented_rights_can_do_jobs_over_tls(
    user: tuple[str, redis.Redis],
    certificate: tuple[Path, Path],
    stack: EmbeddedStack,
    queue: str,
) -> None:
    url, _ = user
    doer = Doer()
    producer = bullmq.Queue(queue, {"connection": stack.redis_url})
    async with passage_to(stack.redis_port, serving(certificate)) as passage:
        settings = QueueSettings.read(
            {
                "REDIS_URL": _moved(url, passage.port).replace("redis://", "rediss://"),
                "REDIS_SSL_CA_CERTS": str(certificate[1]),
                "AVATAR_QUEUE": queue,
            }
        )
        await ping(settings)
        async with consuming(settings, doer, concurrency=2):
            for do in ("tell", "break once", "wait"):
                data = {"jobId": "c1", "do": do}
                await producer.add("avatar_build", data, {"attempts": 2})
            await doer.until(lambda: len(doer.finished) == 2)  # the last is put back
    try:
        counts = await producer.getJobCounts("completed", "waiting", "failed")
        assert {state for state, number in counts.items() if number} == {"completed", "waiting"}
    finally:
        await producer.close()


async def test_a_user_without_the_queues_keys(
    user: tuple[str, redis.Redis], queue: str, stack: EmbeddedStack
) -> None:
    url, root = user
    error = await refusal(url, AVATAR_QUEUE=f"{queue}-another")
    assert "refuses a command or a key to this user" in error.message
    assert PASSWORD not in error.message
    await root.execute_command("ACL", "SETUSER", "avatar", "-client|setname")
    error = await refusal(url, AVATAR_QUEUE=queue)
    assert "client|setname" in error.message
    error = await refusal(f"redis://nobody:hunter2@127.0.0.1:{stack.redis_port}")
    assert "refused the password" in error.message


@pytest.mark.parametrize(
    "password", ["p@ss", "pa/ss", "pa?ss", "pa#ss", "pa[ss", "100%", "p ss", "a@b:c"]
)
def test_a_password_that_is_not_percent_encoded_is_named_before_anything_is_started(
    password: str,
) -> None:
    with pytest.raises(ValidationError, match="percent-encoded") as caught:
        QueueSettings.read({"REDIS_URL": f"redis://:{password}@redis.example.com:6379"})
    assert password not in str(caught.value)


def test_options_in_the_url_are_refused() -> None:
    """redis-py hands them to its connections, which fail on those that they do not know."""
    with pytest.raises(ValidationError, match="options after"):
        QueueSettings.read({"REDIS_URL": "redis://redis.example.com:6379/0?family=0"})


async def test_another_prefix_and_database(stack: EmbeddedStack, queue: str) -> None:
    url = re.sub(r"/0$", "/3", stack.redis_url)
    settings = QueueSettings.read(
        {"REDIS_URL": url, "AVATAR_QUEUE": queue, "BULLMQ_PREFIX": "{shop}:eu"}
    )
    producer = bullmq.Queue(queue, {"connection": url, "prefix": "{shop}:eu"})
    doer = Doer()
    async with consuming(settings, doer):
        await producer.add("avatar_build", {"jobId": "c1", "do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        await request_cancel(producer.client, "{shop}:eu", queue, "c1", "")
        await doer.until(lambda: bool(doer.told))
    keys = [key async for key in producer.client.scan_iter(f"*{queue}*")]
    assert keys
    assert all(key.startswith("{shop}:eu:") for key in keys)
    await producer.close()


# ---------------------------------------------------------------- who put the jobs there
@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ("bullmq:5.25.0", False),
        ("bullmq:5.81.5", False),
        ("bullmq:6.7.0-rc.1", False),
        (None, False),
        ("taskforce:1", False),
        ("bullmq:5.24.9", True),
        ("bullmq:4.18.2", True),
        ("bullmq:7.0.0", True),
    ],
)
async def test_a_producer_that_was_not_tested_is_told_at_start(
    version: str | None,
    warned: bool,
    stack: EmbeddedStack,
    queue: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if version is not None:
        async with redis.from_url(stack.redis_url) as client:
            await client.hset(f"bull:{queue}:meta", "version", version)
    await ping(QueueSettings.read({"REDIS_URL": stack.redis_url, "AVATAR_QUEUE": queue}))
    assert ("queue.producer_untested" in capsys.readouterr().out) is warned


def _moved(url: str, port: int) -> str:
    """The same server by another port."""
    return re.sub(r":\d+(/\d+)?$", f":{port}", url)
