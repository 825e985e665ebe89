"""The users of docker/redis in a real server: jobs get done, and nothing else can be."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bullmq
import pytest
import redis

from tests.conftest import NODE_FLAVOURS, NodeClient, StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker.consumer.cancellation import cancel_key
from worker.demo.binaries import valkey_binary
from worker.demo.servers import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
MAKE_USERS = ROOT / "docker" / "redis" / "make-users.sh"
QUEUE = "avatar_build"
FORBIDDEN = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("SHUTDOWN", "NOSAVE"),
    ("CLIENT", "KILL", "ID", "1"),
    ("SWAPDB", "0", "1"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"),
    ("PUBLISH", "a-channel", "x"),
    ("GET", "session:of-somebody"),
    ("SET", "session:of-somebody", "x"),
    ("DEL", "bull:another_queue:wait"),
    ("EVAL", "return redis.call('GET', 'session:of-somebody')", "0"),
    ("EVAL", "return redis.call('FLUSHALL')", "0"),
)


@dataclass(frozen=True)
class Guarded:
    """A server that only lets in the users of the file."""

    port: int
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        return f"redis://{user}:{self.passwords[user]}@127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("acl")
    made = subprocess.run([MAKE_USERS], capture_output=True, text=True, check=True)
    passwords = dict(line.split() for line in made.stderr.splitlines())
    users = folder / "users.acl"
    users.write_text(made.stdout)
    place = Guarded(free_port(), passwords)

    def answers() -> bool:
        with redis.Redis.from_url(place.url("operator")) as client:
            return bool(client.ping())

    server = Server(
        "Valkey with users",
        [
            *(str(valkey_binary()), "--port", str(place.port), "--bind", "127.0.0.1"),
            *("--aclfile", str(users), "--save", "", "--maxmemory-policy", "noeviction"),
        ],
        ready=answers,
        log=folder / "valkey.log",
        env={},
    )
    server.start()
    yield place
    server.kill()


async def test_a_job_of_the_apis_user_is_done_by_the_workers_user(
    guarded: Guarded, start_worker: StartWorker, producer: Producer, api: FakeApi
) -> None:
    variables = {"REDIS_URL": guarded.url("avatar-worker"), "AVATAR_QUEUE": QUEUE}
    queue = bullmq.Queue(QUEUE, {"connection": guarded.url("avatar-api")})
    try:
        async with start_worker(**variables) as worker:
            await until_ready(worker)
            done = producer.payload("ok")
            await queue.add("avatar_build", done, {})
            await api.until(lambda: "completed" in api.statuses(done["jobId"]), 20)

            # What takes a retry, and the delayed set with it.
            retried = producer.payload("oom-once")
            await queue.add("avatar_build", retried, {"attempts": 2, "backoff": 10})
            await api.until(lambda: "completed" in api.statuses(retried["jobId"]), 20)

            cancelled = producer.payload("slow")
            await queue.client.set(
                cancel_key("bull", QUEUE, cancelled["jobId"]), "changed my mind", ex=60
            )
            await queue.add("avatar_build", cancelled, {})
            await api.until(lambda: "failed" in api.statuses(cancelled["jobId"]), 20)
    finally:
        await queue.close()


async def test_nodes_client_adds_a_job_and_waits_for_it_as_the_apis_user(
    guarded: Guarded, start_worker: StartWorker, producer: Producer, api: FakeApi
) -> None:
    api_side = type("ApiSide", (), {"redis_url": guarded.url("avatar-api")})()
    variables = {"REDIS_URL": guarded.url("avatar-worker"), "AVATAR_QUEUE": QUEUE}
    async with start_worker(**variables) as worker:
        await until_ready(worker)
        for flavour in NODE_FLAVOURS:
            node = NodeClient(flavour, api_side)
            try:
                await node("open", QUEUE)
                job_id = await node("add", QUEUE, data=producer.payload("ok"))
                waited = await node("wait", QUEUE, id=job_id, ttlMs=15_000)
                workers = await node("workers", QUEUE)
            finally:
                await asyncio.to_thread(node.close)
            assert waited
            assert workers


@pytest.mark.parametrize("user", ["avatar-worker", "avatar-api"])
@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_nothing_else_can_be_done(guarded: Guarded, user: str, command: tuple[str, ...]) -> None:
    with (
        redis.Redis.from_url(guarded.url(user)) as client,
        pytest.raises(redis.ResponseError, match=r"(?i)permission|can't (run|access)"),
    ):
        client.execute_command(*command)


def test_the_apis_user_cannot_read_what_the_worker_keeps(guarded: Guarded) -> None:
    with (
        redis.Redis.from_url(guarded.url("avatar-api")) as client,
        pytest.raises(redis.ResponseError),
    ):
        client.get(f"bull:{QUEUE}-worker:outbox")


def test_nobody_gets_in_without_a_password(guarded: Guarded) -> None:
    with (
        redis.Redis(port=guarded.port) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_the_protected_mode_of_a_plain_redis_does_not_close_it_to_other_machines(
    guarded: Guarded,
) -> None:
    """It refuses whoever is not on the loopback while `default`, off or not, needs no password."""
    with redis.Redis.from_url(guarded.url("operator")) as client:
        flags = client.acl_getuser("default")["flags"]
    assert "off" in flags
    assert "nopass" not in flags
