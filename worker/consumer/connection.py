"""Connections to Redis that notice when they are dead, and a ping that says what is wrong.

Left to itself, redis-py either gives up a blocking read before the server answers it or waits for
ever on a frozen connection, and the BullMQ package hides wrong passwords and refused ports behind
minutes of silent retries.  Measured: `socket_timeout=15` with keepalive and health checks recovers
from a half-open connection in 38 s; without it the worker was dead after 100 s.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.consumer.keys import own_key
from worker.errors import QueueUnavailable
from worker.observability.logs import get_logger

if TYPE_CHECKING:
    from worker.settings import QueueSettings

log = get_logger("worker.consumer")

SOCKET_TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
HEALTH_CHECK_S: Final = 15
PING_TIMEOUT_S: Final = 5.0
OLDEST_REDIS: Final = (6, 2)
"""BullMQ's recommended minimum."""
TESTED_PRODUCERS: Final = ((5, 25), (7,))
"""Releases of Node's bullmq from which, and below which, tests/contract has shown that it works."""
_NOT_FOR_THIS_HOST: Final = {62, 64}
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


def client_name(prefix: str, queue: str, worker_name: str) -> str:
    """Name a connection as Node's `Queue.getWorkers()` looks for it.

    Source: bullmq (npm) `QueueBase.clientName`: `{prefix}:{base64(queue)}:w:{name}`.
    """
    return f"{prefix}:{base64.b64encode(queue.encode()).decode()}:w:{worker_name}"


def connect(settings: QueueSettings, *, name: str | None = None, retries: int = 2) -> Any:
    """Make a client for one purpose; it connects when it is first used.

    Retries are few and short: the loops above this know better when to try again than redis-py,
    whose callers would wait in silence.

    Returns:
        redis.asyncio.Redis; typed as Any because redis-py's own hints do not survive strict mypy.
    """
    url = settings.url.get_secret_value()
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_S,
        "client_name": name,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), retries)
        if retries
        else Retry(NoBackoff(), 0),
        "retry_on_error": [BusyLoadingError, RedisConnectionError, RedisTimeoutError]
        if retries
        else [],
    }
    if url.startswith("rediss://"):
        options["ssl_cert_reqs"] = "none" if settings.tls_insecure else "required"
        options["ssl_check_hostname"] = not settings.tls_insecure
        if settings.ca_certs is not None:
            options["ssl_ca_certs"] = str(settings.ca_certs)
    return redis.from_url(url, **options)


async def ping(settings: QueueSettings) -> None:
    """Make sure that what answers is a Redis that BullMQ can use, with the keys of our queue.

    What works but is not as it should be is told by log.

    Raises:
        QueueUnavailable: saying which of address, port, password, TLS or server is wrong, and
            what to do about it.
    """
    if settings.ca_certs is not None and not settings.ca_certs.is_file():
        raise QueueUnavailable(
            f"REDIS_SSL_CA_CERTS={settings.ca_certs} is not a file.", advice="Correct the path."
        )
    # With a name, as the connection that waits for jobs will have one; not one that Node counts.
    client = connect(settings, name=f"{settings.prefix}:{settings.queue}:ping", retries=0)
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await client.ping()
            server = await client.info("server")
            memory = await client.info("memory")
            producer = await client.hget(f"{settings.prefix}:{settings.queue}:meta", "version")
            await client.exists(own_key(settings.prefix, settings.queue, "cancel"))
    except (RedisError, OSError, ValueError, TimeoutError) as error:
        raise _explain(settings, error) from None
    finally:
        await client.aclose()
    _check_server(server, memory)
    _check_producer(producer)


def _check_server(server: dict[str, Any], memory: dict[str, Any]) -> None:
    version = str(server.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_REDIS:
        log.warning("redis.old", version=version, advice="BullMQ recommends Redis 6.2 or newer.")
    policy = memory.get("maxmemory_policy")
    if policy not in {None, "noeviction"}:
        log.warning(
            "redis.eviction",
            policy=policy,
            advice="Set maxmemory-policy to noeviction: an evicted key is a lost job.",
        )


def _check_producer(version: str | None) -> None:
    """Look at what Node's Queue leaves in the queue's meta: `bullmq:5.25.0`."""
    library, _, number = (version or "").partition(":")
    parts = tuple(int(part) for part in number.split("-")[0].split(".") if part.isdigit())
    oldest, beyond = TESTED_PRODUCERS
    if library == "bullmq" and parts and not oldest <= parts < beyond:
        log.warning(
            "queue.producer_untested",
            version=version,
            advice="This worker is tested with bullmq 5.25 to 6.x for Node; see "
            "docs/reference/bullmq.md.",
        )


def _explain(settings: QueueSettings, error: BaseException) -> QueueUnavailable:
    """Turn redis-py's error into one that names the cause; nothing of the password is in it."""
    parts = urlsplit(settings.url.get_secret_value())
    place = f"{parts.hostname}:{parts.port or 6379}"
    chain = _chain(error)
    text = " ".join(str(link) for link in chain)

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    address = "Check host and port in REDIS_URL."
    maybe_tls = (
        "Check host, port and firewall; a Redis without TLS needs redis://."
        if parts.scheme == "rediss"
        else "Check host, port and firewall; a Redis that wants TLS needs rediss://."
    )
    # The first that holds is the cause: special before general.
    causes: list[tuple[bool, str, str | None]] = [
        (
            is_a(AuthenticationError) or "WRONGPASS" in text or "NOAUTH" in text,
            f"Redis at {place} refused the password.",
            "Check user and password in REDIS_URL; reserved characters are %-encoded.",
        ),
        (
            is_a(NoPermissionError),
            f"Redis at {place} refuses a command or a key to this user: {error}",
            "Give the user of REDIS_URL what docs/reference/bullmq.md lists.",
        ),
        (
            any(getattr(link, "verify_code", 0) in _NOT_FOR_THIS_HOST for link in chain),
            f"The certificate of Redis at {place} was issued for another host: {chain[-1]}",
            "Use the name that it was issued for in REDIS_URL.",
        ),
        (
            is_a(ssl.SSLCertVerificationError),
            f"The certificate of Redis at {place} is not trusted: {chain[-1]}",
            "Set REDIS_SSL_CA_CERTS to the file with its certificate authority.",
        ),
        (
            is_a(ssl.SSLError),
            f"What answers at {place} does not speak TLS.",
            "Use redis:// in REDIS_URL, or the port on which Redis speaks TLS.",
        ),
        (
            is_a(ConnectionRefusedError) or "refused" in text,
            f"Nothing listens at {place}.",
            address,
        ),
        (is_a(InvalidResponse, ValueError), f"What answers at {place} is not Redis.", address),
        (is_a(BusyLoadingError), f"Redis at {place} is still loading its data.", None),
        (
            is_a(TimeoutError, RedisTimeoutError),
            f"Redis at {place} did not answer within {PING_TIMEOUT_S:g} s.",
            maybe_tls,
        ),
        (is_a(ResponseError), f"Redis at {place} answered: {error}", None),
    ]
    for holds, message, advice in causes:
        if holds:
            return QueueUnavailable(message, advice=advice)
    return QueueUnavailable(f"Redis at {place} cannot be reached: {chain[-1]}", advice=maybe_tls)


def _chain(error: BaseException) -> list[BaseException]:
    links = [error]
    while (cause := links[-1].__cause__ or links[-1].__context__) and cause not in links:
        links.append(cause)
    return links
