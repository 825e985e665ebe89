"""Storage with faults: every one has its name, and nothing half-read passes for a photo."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from worker.demo.servers import free_port
from worker.demo.stack import EmbeddedStack
from worker.errors import AvatarError, DiskFull, PhotoNotFound, StorageUnavailable
from worker.settings import StorageSettings
from worker.storage.bucket import ATTEMPTS, Bucket, ObjectTooLarge
from worker.storage.photos import fetch_photo

KEY = "avatars/storage-test/file"


@asynccontextmanager
async def bucket(stack: EmbeddedStack, **variables: str) -> AsyncIterator[Bucket]:
    opened = Bucket(StorageSettings.read(stack.worker_environment() | variables))
    try:
        yield opened
    finally:
        opened.close()


async def refusal(stack: EmbeddedStack, path: Path, **variables: str) -> AvatarError:
    async with bucket(stack, **variables) as opened:
        with pytest.raises(StorageUnavailable) as caught:
            await opened.download(KEY, path, max_bytes=1000)
    assert caught.value.retryable
    return caught.value


async def test_what_is_stored_is_read_back_and_described(
    stack: EmbeddedStack, tmp_path: Path
) -> None:
    source, copy = tmp_path / "a.json", tmp_path / "b.json"
    source.write_bytes(b"x" * 700)
    async with bucket(stack) as opened:
        stored = await opened.upload(source, KEY, "application/json")
        assert await opened.stat(KEY) == stored
        assert stored.size == 700
        assert await opened.download(KEY, copy, max_bytes=700)
        assert copy.read_bytes() == source.read_bytes()
        assert await opened.read(KEY, max_bytes=700) == source.read_bytes()
        for read in (opened.download(KEY, copy, max_bytes=699), opened.read(KEY, max_bytes=699)):
            with pytest.raises(ObjectTooLarge):
                await read
    found = stack.minio(stack.api).stat_object(bucket_name=stack.bucket, object_name=KEY)
    assert found.content_type == "application/json"


async def test_what_is_not_there_is_none(stack: EmbeddedStack, tmp_path: Path) -> None:
    async with bucket(stack) as opened:
        assert await opened.stat("avatars/none") is None
        assert await opened.read("avatars/none", max_bytes=10) is None
        assert not await opened.download("uploads/none", tmp_path / "x", max_bytes=10)


async def test_refusals_say_what_to_check(stack: EmbeddedStack, tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert "MINIO_SECRET_KEY" in (await refusal(stack, path, MINIO_SECRET_KEY="wrong-one")).advice
    assert "MINIO_ACCESS_KEY" in (await refusal(stack, path, MINIO_ACCESS_KEY="nobody")).advice
    async with bucket(stack) as opened:
        (tmp_path / "f").write_bytes(b"x")
        with pytest.raises(StorageUnavailable, match="AccessDenied") as caught:
            await opened.upload(tmp_path / "f", "uploads/not-ours", "image/png")
    assert "s3:PutObject" in caught.value.advice


async def test_a_server_that_is_not_there(stack: EmbeddedStack, tmp_path: Path) -> None:
    error = await refusal(stack, tmp_path / "x", MINIO_ENDPOINT=f"127.0.0.1:{free_port()}")
    assert "did not answer" in error.message


async def test_a_body_that_ends_early_is_an_error(stack: EmbeddedStack, tmp_path: Path) -> None:
    async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\netag: x\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(cut_off, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal(stack, tmp_path / "x", MINIO_ENDPOINT=f"127.0.0.1:{port}")
    assert "did not answer" in error.message


async def test_a_server_that_is_overloaded_is_asked_again(
    stack: EmbeddedStack, tmp_path: Path
) -> None:
    answers = [
        b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ]

    async def overloaded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers.pop(0))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(overloaded, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with bucket(stack, MINIO_ENDPOINT=f"127.0.0.1:{port}") as opened:
            assert await opened.download(KEY, tmp_path / "x", max_bytes=10)
    assert (tmp_path / "x").read_bytes() == b"ok"


@pytest.mark.parametrize("name", ["../x.jpg", "a/./b.jpg", "%2e%2e/x.jpg"])
async def test_a_key_that_no_object_can_have_is_a_photo_that_is_not_there(
    stack: EmbeddedStack, tmp_path: Path, name: str
) -> None:
    url = f"{stack.s3_url}/{stack.bucket}/uploads/{name}"
    async with bucket(stack) as opened:
        with pytest.raises(PhotoNotFound):
            await fetch_photo(opened, url, tmp_path / "photo")


# ---------------------------------------------------------------- slow, silent, gone, given up
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BIG_BYTES = 16 * 1024 * 1024
"""More than the buffers between two sockets of one machine take."""


@asynccontextmanager
async def bucket_on(stack: EmbeddedStack, serve: Serve) -> AsyncIterator[Bucket]:
    """A bucket on a server of the test's own; its connections are closed in the end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, as it may
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with bucket(stack, MINIO_ENDPOINT=f"127.0.0.1:{port}") as opened:
            yield opened


async def until_no_call_is_left() -> None:
    """Wait for the threads of calls that were given up."""
    calls = [thread for thread in threading.enumerate() if thread.name == "storage"]
    for thread in calls:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "avatar.glb"
    path.write_bytes(b"x" * BIG_BYTES)
    return path


async def test_a_silent_server_costs_a_bounded_time(
    stack: EmbeddedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.storage.transport.READ_TIMEOUT_S", 0.1)
    requests = 0

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.read()

    async with bucket_on(stack, silent) as opened:
        began = time.monotonic()
        with pytest.raises(StorageUnavailable):
            await opened.download(KEY, tmp_path / "x", max_bytes=10)
        assert time.monotonic() - began < 5
    assert requests == ATTEMPTS


async def test_a_server_that_drips_costs_a_bounded_time_and_ends_its_thread(
    stack: EmbeddedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.storage.bucket.OPERATION_S", 0.5)
    monkeypatch.setattr("worker.storage.bucket.CHUNK_BYTES", 1)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with bucket_on(stack, drip) as opened:
        with pytest.raises(StorageUnavailable, match=r"not done within 0\.5 s"):
            await opened.download(KEY, tmp_path / "x", max_bytes=10_000)
        await until_no_call_is_left()


async def test_an_upload_may_take_longer_than_any_one_wait_for_the_server(
    stack: EmbeddedStack, big_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.storage.transport.CONNECT_TIMEOUT_S", 0.5)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = BIG_BYTES
        while left:
            left -= len(await reader.read(min(left, 256 * 1024)))
            await asyncio.sleep(0.015)
        writer.write(b'HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 0\r\n\r\n')
        await writer.drain()

    async with bucket_on(stack, slow) as opened:
        began = time.monotonic()
        stored = await opened.upload(big_file, KEY, "model/gltf-binary")
        assert time.monotonic() - began > 0.5
    assert (stored.size, stored.etag) == (BIG_BYTES, "e")


async def test_a_server_that_dies_in_the_middle_of_an_upload_is_tried_again_then_named(
    stack: EmbeddedStack, big_file: Path
) -> None:
    requests = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readexactly(100_000)
        writer.transport.abort()

    async with bucket_on(stack, die) as opened:
        with pytest.raises(StorageUnavailable):
            await opened.upload(big_file, KEY, "model/gltf-binary")
    assert requests == ATTEMPTS


async def test_an_upload_that_is_given_up_stops_in_the_middle_and_is_not_tried_again(
    stack: EmbeddedStack, big_file: Path
) -> None:
    arrived, go_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    requests = received = 0

    async def stall(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal requests, received
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await go_on.wait()
        try:
            while data := await reader.read(1 << 20):
                received += len(data)
        finally:
            over.set()

    async with bucket_on(stack, stall) as opened:
        uploading = asyncio.create_task(opened.upload(big_file, KEY, "model/gltf-binary"))
        await arrived.wait()
        uploading.cancel()
        began = time.monotonic()
        await asyncio.wait({uploading})
        assert time.monotonic() - began < 1, "the caller waited for the server"
        assert uploading.cancelled()
        go_on.set()
        await over.wait()
        await until_no_call_is_left()
    assert requests == 1
    assert received < BIG_BYTES, "the body was sent to its end"


async def test_calls_that_wait_for_their_turn_are_given_up_without_a_request(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.storage.bucket.THREADS", 1)
    arrived, over = asyncio.Event(), asyncio.Event()
    requests = 0

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await over.wait()
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with bucket_on(stack, hold) as opened:
        asking = [asyncio.create_task(opened.stat(KEY)) for _ in range(5)]
        await arrived.wait()
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        over.set()
        await until_no_call_is_left()
    assert requests == 1


async def test_a_full_disk_is_not_mistaken_for_a_server_that_is_down(stack: EmbeddedStack) -> None:
    path = stack.data_dir / "some-file"
    path.write_bytes(b"x" * 100_000)
    async with bucket(stack) as opened:
        await opened.upload(path, KEY, "image/png")
        with pytest.raises(DiskFull) as caught:
            await opened.download(KEY, Path("/dev/full"), max_bytes=200_000)
    assert caught.value.retryable
    assert "TMPDIR" in caught.value.advice


async def test_an_explanation_that_ends_early_is_no_puzzle(
    stack: EmbeddedStack, tmp_path: Path
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\ncontent-length: 8\r\n\r\n"
            b"<Error><"
        )
        await writer.drain()

    async with bucket_on(stack, half) as opened:
        with pytest.raises(StorageUnavailable):
            await opened.download(KEY, tmp_path / "x", max_bytes=10)
