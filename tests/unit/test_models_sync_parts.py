"""The parts of a pull that need no server: lanes' number, ranges, partial files, the volume."""

import errno
import os
import threading
from pathlib import Path
from unittest import mock

import pytest
from blake3 import blake3

from models_sync import blocks, volume
from models_sync.answers import name_body, refuse_other_range
from models_sync.errors import (
    AnswerStrange,
    BucketBusy,
    BucketRefused,
    ClockWrong,
    Interrupted,
    ObjectMissing,
    ObjectReplaced,
    PartialLost,
    SyncError,
    VolumeFull,
)
from models_sync.lock import LOCK_FILE, Holder, VolumeLock
from models_sync.manifest import PART_BYTES
from models_sync.partial import Partial, sweep
from models_sync.progress import Meter, Progress, eta_s
from models_sync.remote import RemoteObject
from models_sync.tuner import MAX_LANES, MEMORY_BYTES, PROBE_EVERY_S, START_LANES, WINDOW_S, Tuner
from models_sync.work import FileInWork, Work

SIZE = 3 * PART_BYTES + 5
FILE = RemoteObject("sam3d/a", "sam3d/a", SIZE, "e1")
NEWER = RemoteObject("sam3d/a", "sam3d/a", SIZE, "e2")


def play(tuner: Tuner, rates: list[float], part_size: int) -> list[int]:
    """What the tuner allows while bytes come at these rates, a window each."""
    now, received, allowed = tuner._window[0], 0.0, []
    for rate in rates:
        now += WINDOW_S
        received += rate * WINDOW_S
        allowed.append(tuner.look(int(received), part_size, now))
    return allowed


def test_more_lanes_come_while_more_help() -> None:
    allowed = play(Tuner(), [100, 200, 400, 800], 64 << 10)
    assert allowed == sorted(allowed)
    assert allowed[-1] > START_LANES


def test_lanes_that_do_not_help_leave_again() -> None:
    assert play(Tuner(), [100, 100], 64 << 10)[-1] == START_LANES


def test_large_parts_never_take_more_memory_than_there_is() -> None:
    allowed = play(Tuner(), [100.0 * 2**step for step in range(12)], 16 << 20)
    assert max(allowed) * (16 << 20) <= MEMORY_BYTES
    assert max(play(Tuner(), [100.0 * 2**step for step in range(12)], 1 << 10)) == MAX_LANES


def test_a_busy_server_is_asked_by_half_as_many_once_in_a_while() -> None:
    tuner = Tuner()
    now = 1000.0
    for _ in range(START_LANES):  # every lane is refused at once
        tuner.on_busy(now)
    assert tuner.target == START_LANES // 2
    tuner.on_busy(now + PROBE_EVERY_S)
    assert tuner.target == START_LANES // 4


def test_a_busy_server_halves_those_that_memory_left() -> None:
    tuner = Tuner()
    there = tuner.look(0, 4 << 20, 0.0)
    assert there < START_LANES
    tuner.on_busy(1000.0)
    assert tuner.look(0, 4 << 20, 1000.0) == there // 2


def test_a_fixed_number_stays() -> None:
    tuner = Tuner(5)
    tuner.on_busy(0)
    assert set(play(tuner, [1, 100, 10_000], 1 << 10)) == {5}


def test_every_part_is_handed_out_once_and_the_last_ranges_are_short(tmp_path: Path) -> None:
    remote = RemoteObject("k", "k", 100 * PART_BYTES, "e")
    file = FileInWork(remote, Partial(tmp_path, remote, "0" * 8))
    file.begin()
    work = Work([file])
    spans = []
    while span := work.take(4):
        spans.append(span)
    parts = [part for span in spans for part in range(span.first, span.stop)]
    assert parts == list(range(100))
    assert spans[0].stop - spans[0].first > spans[-1].stop - spans[-1].first
    work.give_back(file, 7)
    again = work.take(4)
    assert again
    assert (again.first, again.stop, again.local) == (7, 8, False)
    assert work.take(4) is None


def put(partial: Partial, part: int) -> None:
    data = os.urandom(partial.size_of(part))
    partial.write(part, memoryview(data), blake3(data).digest())


def test_another_writer_goes_on_with_what_has_landed(tmp_path: Path) -> None:
    first = Partial(tmp_path, FILE, "a" * 8)
    first.reserve()
    first.open()
    put(first, 2)
    first.close()

    second = Partial(tmp_path, FILE, "b" * 8)
    assert second.adopt() > 0
    assert second.landed() == [2]
    second.open()
    assert second.holds(2, memoryview(bytearray(PART_BYTES)))
    os.pwrite(second._data_descriptor, b"spoilt", 2 * PART_BYTES)
    assert not second.holds(2, memoryview(bytearray(PART_BYTES)))
    second.close()

    first.open()
    first.discard()
    with pytest.raises(PartialLost):
        first.publish()
    first.close()


def test_parts_of_another_version_are_not_gone_on_with(tmp_path: Path) -> None:
    older = Partial(tmp_path, FILE, "a" * 8)
    older.reserve()
    older.open()
    put(older, 0)
    older.close()
    newer = Partial(tmp_path, NEWER, "b" * 8)
    assert newer.adopt() == 0
    assert newer.landed() == []
    (tmp_path / "sam3d/other").write_bytes(b"")
    sweep(tmp_path / "sam3d", {"sam3d/a"})
    assert [path.name for path in (tmp_path / "sam3d").iterdir()] == ["other"]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_blocks_cannot_be_promised_the_file_has_its_size(tmp_path: Path, code: int) -> None:
    def fallocate(*_: object) -> int:
        return -1

    with (tmp_path / "a").open("wb") as file:
        with (
            mock.patch.object(blocks._LIBC, "fallocate", fallocate),
            mock.patch("ctypes.get_errno", return_value=code),
        ):
            assert not blocks.reserve(file.fileno(), 12345)
        assert (tmp_path / "a").stat().st_size == 12345
        assert blocks.reserve(file.fileno(), 23456)
        assert (tmp_path / "a").stat().st_blocks * 512 >= 23456


def test_a_full_disk_is_said_with_numbers(tmp_path: Path) -> None:
    free = volume.free_bytes(tmp_path / "not" / "there")
    volume.refuse_overfull(tmp_path, 0)
    with pytest.raises(VolumeFull, match="bytes free; the files that are missing need"):
        volume.refuse_overfull(tmp_path, 2 * free)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b"<Error><Code>SlowDown</Code></Error>", BucketBusy),
        (500, b"<html>oops", BucketBusy),
        (429, b"", BucketBusy),
        (403, b"<Error><Code>ExpiredToken</Code></Error>", BucketRefused),
        (403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", ClockWrong),
        (403, b"go away", BucketRefused),
        (404, b'<Error xmlns="http://s3"><Code>NoSuchKey</Code></Error>', ObjectMissing),
        (412, b"<Error><Code>PreconditionFailed</Code></Error>", ObjectReplaced),
        (412, b"", ObjectReplaced),
        (302, b"<a href='/login'>", AnswerStrange),
    ],
)
def test_an_error_answer_has_a_name(status: int, body: bytes, error: type[SyncError]) -> None:
    assert type(name_body("here: ", status, body)) is error


def test_only_the_range_that_was_asked_for_passes() -> None:
    refuse_other_range("", 206, "bytes 5-9/20", offset=5, size=5, whole=20)
    with pytest.raises(ObjectReplaced):
        refuse_other_range("", 206, "bytes 5-9/21", offset=5, size=5, whole=20)
    for status, answered in ((206, "bytes 5-8/20"), (206, None), (200, "bytes 5-9/20")):
        with pytest.raises(AnswerStrange):
            refuse_other_range("", status, answered, offset=5, size=5, whole=20)


def test_whoever_waits_for_the_lock_can_be_stopped(tmp_path: Path) -> None:
    cancel = threading.Event()
    seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        seen.append(progress)
        cancel.set()

    with VolumeLock(tmp_path, on_progress, threading.Event()) as held:
        assert held.held
        with pytest.raises(Interrupted), VolumeLock(tmp_path, on_progress, cancel):
            pytest.fail("it did not wait")
    assert str(os.getpid()) in seen[0].waiting_for
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_holder_is_known_to_be_dead_only_where_its_process_id_means_something() -> None:
    me = Holder.me()
    assert not me.is_dead
    from dataclasses import replace

    assert replace(me, started="1").is_dead, "the process id belongs to another process now"
    assert not replace(me, started="1", place="another machine").is_dead


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter(window_s=10)
    assert meter.rate(0, 0.0) == 0
    assert meter.rate(1000, 10.0) == 100
    assert meter.rate(1000, 20.0) == 0
    assert eta_s(500, 100) == 5
    assert eta_s(500, 0) is None
    assert eta_s(0, 0) == 0
