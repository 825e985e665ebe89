"""Writing past the page cache: the same bytes, whatever the file system takes of it."""

import errno
import os
from pathlib import Path
from unittest import mock

import pytest
from blake3 import blake3

from models_sync import direct
from models_sync.direct import BLOCK_BYTES, aligned_buffer, open_direct, write_direct
from models_sync.errors import VolumeFull
from models_sync.manifest import PART_BYTES
from models_sync.partial import DIRECT_BYTES, Partial
from models_sync.remote import RemoteObject

SIZE = 2 * PART_BYTES + BLOCK_BYTES + 5
FILE = RemoteObject("sam3d/a", "sam3d/a", SIZE, "e1")
PWRITE, OPEN = os.pwrite, os.open


def bring(root: Path, *, wanted: bool = True) -> tuple[Partial, bytes]:
    """Write a whole file part by part from one buffer, as a lane does."""
    partial, content = Partial(root, FILE, "a" * 8, direct=wanted), os.urandom(SIZE)
    partial.reserve()
    partial.open()
    buffer = aligned_buffer(PART_BYTES)
    for part in range(partial.parts):
        data = buffer[: partial.size_of(part)]
        data[:] = content[part * PART_BYTES :][: len(data)]
        partial.write(part, data, blake3(data).digest())
    return partial, content


def test_whole_blocks_and_the_end_that_is_none_make_the_file(tmp_path: Path) -> None:
    partial, content = bring(tmp_path)
    partial.flush()
    partial.publish()
    partial.close()
    assert (tmp_path / FILE.path).read_bytes() == content


@pytest.mark.parametrize("size", [DIRECT_BYTES - 1, DIRECT_BYTES, DIRECT_BYTES + 5])
def test_a_file_of_one_part_goes_past_the_cache_when_it_is_large(tmp_path: Path, size: int) -> None:
    remote = RemoteObject("sam3d/one", "sam3d/one", size, "e1")
    partial, content = Partial(tmp_path, remote, "a" * 8), os.urandom(size)
    with mock.patch("models_sync.partial.open_direct", side_effect=open_direct) as opened:
        partial.open()
    buffer = aligned_buffer(size)
    buffer[:] = content
    partial.write(0, buffer, blake3(content).digest())
    partial.flush()
    partial.publish()
    partial.close()
    assert (tmp_path / "sam3d/one").read_bytes() == content
    assert opened.called == (size >= DIRECT_BYTES)
    assert [path.name for path in (tmp_path / "sam3d").iterdir()] == ["one"]


def test_a_part_is_read_back_as_it_was_written_last(tmp_path: Path) -> None:
    partial, content = bring(tmp_path)
    seen = memoryview(bytearray(PART_BYTES))
    assert partial.holds(1, seen)  # its pages are in the cache now
    assert seen == content[PART_BYTES : 2 * PART_BYTES]
    other = aligned_buffer(PART_BYTES)
    other[:] = os.urandom(PART_BYTES)
    partial.write(1, other, blake3(other).digest())
    assert partial.holds(1, seen)
    assert seen == other
    partial.close()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_where_the_volume_refuses_the_page_cache_is_used(tmp_path: Path, code: int) -> None:
    def no_open(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(code, os.strerror(code))
        return OPEN(path, flags, *mode)

    with mock.patch("os.open", no_open):
        partial, content = bring(tmp_path / "open")
    partial.publish()
    partial.close()
    assert (tmp_path / "open" / FILE.path).read_bytes() == content

    refused: list[int] = []

    def no_write(descriptor: int, data: memoryview, offset: int) -> int:
        if descriptor in opened:
            refused.append(offset)
            raise OSError(code, os.strerror(code))
        return PWRITE(descriptor, data, offset)

    opened: list[int] = []

    def remember(path: Path) -> int:
        opened.append(open_direct(path))
        return opened[-1]

    with (
        mock.patch("models_sync.partial.open_direct", remember),
        mock.patch("os.pwrite", no_write),
    ):
        partial, content = bring(tmp_path / "write")
    partial.publish()
    partial.close()
    assert (tmp_path / "write" / FILE.path).read_bytes() == content
    assert len(refused) in {0, partial.parts}  # none where the open was refused already


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with mock.patch("models_sync.partial.open_direct", side_effect=AssertionError):
        partial, content = bring(tmp_path, wanted=False)
    partial.publish()
    partial.close()
    assert (tmp_path / FILE.path).read_bytes() == content


def test_a_disk_that_fills_in_the_middle_of_a_part_is_named(tmp_path: Path) -> None:
    written: list[int] = []

    def some(_: int, data: memoryview, offset: int) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(offset)
        return BLOCK_BYTES

    with mock.patch("os.pwrite", some), pytest.raises(VolumeFull):
        bring(tmp_path)
    assert written == [0]


def test_less_than_a_block_is_left_to_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    descriptor = direct.open_direct(path)
    assert write_direct(descriptor, aligned_buffer(BLOCK_BYTES)[:-1], 0) == 0
    if descriptor >= 0:
        os.close(descriptor)
    assert path.stat().st_size == 0
