"""Every row of the fault table on the MinIO gateway, and what a table cannot say."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from minio import Minio

from models_sync import fetch as fetch_module
from models_sync.errors import Interrupted, ObjectDamaged, ObjectReplaced, VolumeReadOnly
from models_sync.fetch import Fetch
from models_sync.lock import VolumeLock
from models_sync.partial import Partial
from models_sync.state import STATE_FILE, Identity, State
from models_sync.transfer import pull
from models_sync.verify import verify_quick
from tests.faults.sync.cells import TABLE, Cell, run
from tests.faults.sync.plays import PLAYS
from tests.faults.sync.proxy import FaultProxy
from tests.faults.sync.scene import Scene
from worker.demo.stack import EmbeddedStack

BUCKET = "sync-faults"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def minio(stack: EmbeddedStack) -> Minio:
    client = stack.minio(stack.root)
    if not client.bucket_exists(bucket_name=BUCKET):
        client.make_bucket(bucket_name=BUCKET)
    return client


@pytest.fixture
def scene(stack: EmbeddedStack, minio: Minio, tmp_path: Path) -> Iterator[Scene]:
    with FaultProxy(stack.s3_endpoint) as proxy:
        yield Scene(minio, stack.root, proxy, BUCKET, f"run-{next(_numbers)}", tmp_path / "models")


QUICK = [cell for cell in TABLE if not cell.is_slow]
"""The others wait until patience ends: `make faults` has the time."""


@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: cell.name)
def test_a_fault_ends_as_the_table_says(cell: Cell, scene: Scene) -> None:
    assert run(cell, scene) == []


@pytest.mark.parametrize("name", PLAYS)
def test_processes_that_die_or_meet_leave_the_right_files(name: str, scene: Scene) -> None:
    assert PLAYS[name](scene) == []


# ---------------------------------------------------------------- what no proxy can do
def test_a_small_file_that_is_damaged_without_a_manifest_has_the_right_name(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, manifest=False, size=1000)
    monkeypatch.setattr(Partial, "digest", lambda *_: "0" * 32)
    with pytest.raises(ObjectDamaged) as raised:
        pull(scene.settings())
    assert type(raised.value) is ObjectDamaged


def test_a_volume_that_cannot_be_written_and_has_everything_is_complete(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, manifest=True, size=1000)
    pull(scene.settings())
    (scene.root / STATE_FILE).unlink()
    monkeypatch.setattr(State, "flush", mock.Mock(side_effect=VolumeReadOnly))
    found = pull(scene.settings())
    assert found.fetched == []
    assert found.adopted


def test_a_wish_to_stop_between_two_rounds_is_heard_as_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, manifest=True, size=1000)
    cancel = threading.Event()

    def replaced(_: Fetch) -> None:
        cancel.set()
        raise ObjectReplaced

    monkeypatch.setattr(Fetch, "run", replaced)
    with pytest.raises(Interrupted):
        pull(scene.settings(), None, cancel)


def test_what_another_brought_between_our_plan_and_our_turn_is_not_fetched_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, manifest=True, size=1000)
    enter = VolumeLock.__enter__

    def after_another(lock: VolumeLock) -> VolumeLock:
        with monkeypatch.context() as patch:
            patch.setattr(VolumeLock, "__enter__", enter)
            assert pull(scene.settings()).fetched
        return enter(lock)

    monkeypatch.setattr(VolumeLock, "__enter__", after_another)
    assert pull(scene.settings()).fetched == []


def test_a_file_that_another_pod_put_over_ours_is_planned_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a lock that works, and with another manifest: its bytes are not called verified."""
    scene.publish(1, manifest=True, size=1000)
    publish, theirs = Partial.publish, []

    def and_then_another(partial: Partial) -> Identity:
        identity = publish(partial)
        if not theirs:
            theirs.append(partial.final)
            size = partial.final.stat().st_size
            partial.final.unlink()
            partial.final.write_bytes(bytes(size))
            os.utime(partial.final, ns=(identity.mtime_ns, identity.mtime_ns))
        return identity

    monkeypatch.setattr(Partial, "publish", and_then_another)
    pull(scene.settings())
    assert scene.is_current()
    assert verify_quick(scene.settings()) == []


def test_a_full_volume_goes_on_with_what_lies_there(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no lock either."""
    scene.publish(1, manifest=True)
    monkeypatch.setattr(fetch_module, "QUIET_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Fetch, "_watch", mock.Mock(side_effect=Interrupted))
        with pytest.raises(Interrupted):
            pull(scene.settings())
    reserved = sum(path.stat().st_blocks * 512 for path in scene.root.rglob("*.part"))
    assert reserved
    no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(VolumeLock, "_create", mock.Mock(side_effect=no_room))
    small = 1 << 20  # for what is too small to be gone on with
    monkeypatch.setattr("models_sync.volume.free_bytes", lambda _: small)
    pull(scene.settings())
    assert scene.is_current()
