"""The embedded stack: ready, locked down, restartable, and gone without a trace."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from minio.error import S3Error

from worker.demo.servers import Server
from worker.demo.stack import EmbeddedStack
from worker.demo.users import Credentials
from worker.errors import QueueUnavailable


@pytest.fixture(scope="module")
def stack() -> Iterator[EmbeddedStack]:
    with EmbeddedStack() as running:
        yield running


def put(stack: EmbeddedStack, user: Credentials, key: str, data: bytes = b"x") -> None:
    stack.minio(user).put_object(
        bucket_name=stack.bucket, object_name=key, data=io.BytesIO(data), length=len(data)
    )


def get(stack: EmbeddedStack, user: Credentials, key: str) -> bytes:
    response = stack.minio(user).get_object(bucket_name=stack.bucket, object_name=key)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()


def refusal(code: str) -> object:
    return pytest.raises(S3Error, match=f"code: {code}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_queue_wants_its_password(stack: EmbeddedStack) -> None:
    with redis.Redis.from_url(stack.redis_url) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    with (
        redis.Redis(port=stack.redis_port) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_the_worker_reads_uploads_and_writes_avatars_and_nothing_else(
    stack: EmbeddedStack,
) -> None:
    put(stack, stack.api, "uploads/a #1?.jpg", b"photo")
    assert get(stack, stack.worker, "uploads/a #1?.jpg") == b"photo"
    put(stack, stack.worker, "avatars/j/result.json", b"{}")
    assert get(stack, stack.api, "avatars/j/result.json") == b"{}"
    for user, key in (
        (stack.worker, "uploads/b.jpg"),
        (stack.worker, "elsewhere/b.jpg"),
        (stack.api, "avatars/j/avatar.glb"),
    ):
        with refusal("AccessDenied"):
            put(stack, user, key)
    put(stack, stack.root, "elsewhere/secret")
    for user in (stack.worker, stack.api):
        with refusal("AccessDenied"):
            get(stack, user, "elsewhere/secret")
        with refusal("AccessDenied"):
            list(stack.minio(user).list_objects(bucket_name=stack.bucket))


def test_a_missing_object_is_told_from_a_forbidden_one(stack: EmbeddedStack) -> None:
    with refusal("NoSuchKey"):
        get(stack, stack.worker, "uploads/never")
    with refusal("NoSuchKey"):
        get(stack, stack.worker, "avatars/never/result.json")


def test_a_killed_server_comes_back_on_its_port(stack: EmbeddedStack) -> None:
    put(stack, stack.api, "uploads/kept.jpg", b"kept")
    for server in (stack.valkey, stack.gateway):
        before = server.pid
        server.kill()
        assert not server.running
        server.start()
        assert server.pid not in {None, before}
    with redis.Redis.from_url(stack.redis_url) as client:
        assert client.ping()
    assert get(stack, stack.worker, "uploads/kept.jpg") == b"kept"


def test_leaving_the_block_ends_the_servers_and_removes_the_folder() -> None:
    with EmbeddedStack() as stack:
        folder, pids = stack.data_dir, (stack.valkey.pid, stack.gateway.pid)
        assert all(pids)
        assert folder.is_dir()
    assert not folder.exists()
    assert not any(alive(pid) for pid in pids if pid)


def test_a_data_folder_is_found_again(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path / "kept") as stack:
        put(stack, stack.api, "uploads/again.jpg", b"again")
        with redis.Redis.from_url(stack.redis_url) as client:
            client.set("job", "1")
        environment = stack.worker_environment()
    with EmbeddedStack(tmp_path / "kept") as stack:
        assert get(stack, stack.worker, "uploads/again.jpg") == b"again"
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.get("job") == b"1"
        assert stack.worker_environment()["MINIO_SECRET_KEY"] == environment["MINIO_SECRET_KEY"]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_servers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import pathlib, time
        from worker.demo.stack import EmbeddedStack
        stack = EmbeddedStack(pathlib.Path({str(tmp_path / "data")!r})).start()
        print(stack.valkey.pid, stack.gateway.pid, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a server outlived its parent"
        time.sleep(0.02)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = Server(
        "Broken",
        ["/bin/sh", "-c", "echo no such luck; exit 3"],
        ready=lambda: False,
        log=tmp_path / "broken.log",
        env={},
        error=QueueUnavailable,
    )
    with pytest.raises(QueueUnavailable, match="no such luck"):
        server.start()
