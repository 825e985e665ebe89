"""Storage with faults: every one has its name, and nothing half-read passes for a photo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from worker.demo.servers import free_port
from worker.demo.stack import EmbeddedStack
from worker.errors import AvatarError, PhotoNotFound, StorageUnavailable
from worker.settings import StorageSettings
from worker.storage.bucket import Bucket, ObjectTooLarge
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
