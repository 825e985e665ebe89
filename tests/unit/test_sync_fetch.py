"""A fetch that fails lets go of all its files: a worker tries again for days."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from models_sync import fetch
from models_sync.bucket import Bucket
from models_sync.errors import BucketRefused, TransferCut, VolumeFull, VolumeUnwritable
from models_sync.fetch import Fetch
from models_sync.manifest import PART_BYTES
from models_sync.partial import Partial
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.state import State
from models_sync.wire import Wire

EMPTY = RemoteObject("sam3d/empty", "sam3d/empty", 0, "e0")
SMALL = RemoteObject("sam3d/small", "sam3d/small", 5, "e1")
LARGE = RemoteObject("sam3d/large", "sam3d/large", 2 * PART_BYTES, "e2")


def fetch_of(root: Path, *files: RemoteObject) -> Fetch:
    settings = SyncSettings.load(
        local_root=root,
        minio_endpoint="127.0.0.1:1",
        minio_access_key="reader",
        minio_secret_key="secret",
    )
    return Fetch(
        settings,
        Bucket(settings),
        State(root),
        files,
        writer="a" * 8,
        adopt=True,
        on_progress=lambda _: None,
        cancel=threading.Event(),
    )


def open_below(root: Path) -> list[str]:
    """What this process has open below `root`."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(root))]


def test_a_lane_that_outlives_a_failed_fetch_keeps_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, go = threading.Event(), threading.Event()

    @contextmanager
    def ask(_: Wire, remote: RemoteObject, *__: Any) -> Iterator[None]:
        if remote is LARGE:
            waits.set()
            go.wait()
            raise TransferCut
        waits.wait()
        raise BucketRefused
        yield

    monkeypatch.setattr(Wire, "open_range", ask)
    monkeypatch.setattr(fetch, "STOP_S", 0.0)
    before = set(threading.enumerate())
    with pytest.raises(BucketRefused):
        fetch_of(tmp_path, SMALL, LARGE).run()
    assert open_below(tmp_path), "the lane that waits may still write"
    go.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert open_below(tmp_path) == []


def test_what_was_opened_before_there_was_no_room_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Partial, "reserve", mock.Mock(side_effect=VolumeFull))
    with pytest.raises(VolumeFull):
        fetch_of(tmp_path, EMPTY, LARGE).run()
    assert open_below(tmp_path) == []


def test_a_file_whose_map_cannot_be_opened_is_closed(tmp_path: Path) -> None:
    partial = Partial(tmp_path, LARGE, "a" * 8)
    Path(partial._map).mkdir(parents=True)
    with pytest.raises(VolumeUnwritable):
        partial.open()
    assert open_below(tmp_path) == []
