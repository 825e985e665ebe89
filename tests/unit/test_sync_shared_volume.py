"""A volume that others write to as well: nothing of theirs is taken for ours, or followed."""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from blake3 import blake3

from models_sync.atomic import replace_file
from models_sync.check import hash_file
from models_sync.errors import FolderElsewhere, TransferStalled, VolumeUnwritable
from models_sync.lanes import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, Lane
from models_sync.lock import LOCK_FILE, VolumeLock, _read
from models_sync.manifest import PART_BYTES, Manifest, ManifestFile
from models_sync.partial import Partial
from models_sync.remote import RemoteObject
from models_sync.settings import VolumeSettings
from models_sync.state import Identity, State, keep_manifest
from models_sync.verify import verify_full, verify_quick
from models_sync.volume import refuse_elsewhere, stale_partials

SIZE = 3 * PART_BYTES + 5
LARGE = RemoteObject("sam3d/a", "sam3d/a", SIZE, "e1")
SMALL = RemoteObject("sam3d/b", "sam3d/b", 5, "e1")


def written(root: Path, remote: RemoteObject, content: bytes, writer: str = "one") -> Identity:
    """Bring a small file as a pull does, up to its name."""
    partial = Partial(root, remote, writer)
    partial.open()
    partial.write(0, memoryview(content), blake3(content).digest())
    partial.flush()
    identity = partial.publish()
    partial.close()
    return identity


def note(state: State, identity: Identity) -> bool:
    return state.note("sam3d/b", etag="e1", sha256="0" * 64, verified=True, identity=identity)


def test_another_pods_file_is_not_recorded_as_ours(tmp_path: Path) -> None:
    """It came between our rename and our record, and has the same size and second."""
    state = State(tmp_path)
    ours = written(tmp_path, SMALL, b"right")
    theirs = written(tmp_path, SMALL, b"wrong", "two")
    os.utime(tmp_path / "sam3d/b", ns=(ours.mtime_ns, ours.mtime_ns))
    assert not note(state, ours)
    assert state.entries() == {}
    assert theirs.inode != ours.inode


def test_a_file_that_lies_as_we_left_it_is_recorded(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert note(state, written(tmp_path, SMALL, b"right"))
    assert state.entries()["sam3d/b"].lies_at(tmp_path / "sam3d/b")


def published(content: bytes) -> RemoteObject:
    file = ManifestFile(
        key="sam3d/b", size=5, sha256="0" * 64, parts=(blake3(content).hexdigest(),)
    )
    return RemoteObject("sam3d/b", "sam3d/b", 5, None, file)


def test_a_file_that_is_replaced_while_it_is_hashed_is_not_recorded(tmp_path: Path) -> None:
    written(tmp_path, SMALL, b"right")
    identity = hash_file(published(b"right"), tmp_path, lambda _: None)
    assert identity is not None
    written(tmp_path, SMALL, b"wrong", "two")
    assert not note(State(tmp_path), identity)


def test_verify_does_not_call_a_file_good_that_is_replaced_while_it_reads(tmp_path: Path) -> None:
    written(tmp_path, SMALL, b"right")
    file = published(b"right").published
    assert file is not None
    keep_manifest(tmp_path, Manifest(files=(file,)).to_bytes(), None)

    def meanwhile(*_: object) -> bool:
        written(tmp_path, SMALL, b"wrong", "two")
        return True

    volume = VolumeSettings(local_root=tmp_path, sources="sam3d")
    with mock.patch("models_sync.verify.parts_match", meanwhile):
        found = verify_full(volume)
    assert [bad.why for bad in found.bad] == ["was replaced while it was read"]
    assert verify_quick(volume)


# ---------------------------------------------------------------- links
@pytest.mark.parametrize("suffix", [".part", ".map"])
def test_a_planted_link_is_not_written_through(suffix: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    root = tmp_path / "volume"
    (root / "sam3d").mkdir(parents=True)
    first = Partial(root, LARGE, "one")
    Path(first._part).with_suffix(suffix).symlink_to(victim)
    with pytest.raises(VolumeUnwritable):
        first.reserve()
    second = Partial(root, LARGE, "two")
    assert second.adopt() == 0
    assert second.landed() == []
    assert victim.read_bytes() == b"theirs"


def test_a_folder_that_leads_out_of_the_volume_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "volume"
    (root / "inside").mkdir(parents=True)
    (root / "linked").symlink_to(tmp_path)
    (root / "near").symlink_to(root / "inside")
    refuse_elsewhere(root, root / "not-there-yet")
    refuse_elsewhere(root, root / "near")
    with pytest.raises(FolderElsewhere):
        refuse_elsewhere(root, root / "linked" / "deeper")


# ---------------------------------------------------------------- adopting, with and without lock
def left_by(root: Path, writer: str, age_s: float) -> Partial:
    partial = Partial(root, LARGE, writer)
    partial.reserve()
    then = time.time() - age_s
    os.utime(partial._part, (then, then))
    return partial


def test_without_the_lock_only_what_is_quiet_is_adopted(tmp_path: Path) -> None:
    left_by(tmp_path, "lives", 1)
    assert Partial(tmp_path, LARGE, "me").adopt(60) == 0
    left_by(tmp_path, "dead", 100)
    assert Partial(tmp_path, LARGE, "me").adopt(60) == SIZE


def test_a_partial_that_vanishes_while_we_look_is_no_error(tmp_path: Path) -> None:
    left_by(tmp_path, "gone", 100)
    with mock.patch.object(Path, "lstat", side_effect=FileNotFoundError):
        assert Partial(tmp_path, LARGE, "me").adopt() == 0


# ---------------------------------------------------------------- the lock file
def test_a_lock_that_a_full_volume_cannot_take_leaves_nothing_behind(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        mock.patch.object(Path, "write_text", side_effect=full),
        mock.patch("models_sync.lock.json.dump", side_effect=full),
        VolumeLock(tmp_path, lambda _: None, threading.Event()) as lock,
    ):
        assert not lock.held
    assert list(tmp_path.iterdir()) == []


def test_a_beat_that_a_slow_disk_held_up_does_not_bring_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pulls next would wait for nobody."""
    beats, go = threading.Event(), threading.Event()

    def slow(path: Path, write: Any) -> None:
        beats.set()
        go.wait()
        replace_file(path, write)

    monkeypatch.setattr("models_sync.lock.replace_file", slow)
    monkeypatch.setattr("models_sync.lock.BEAT_S", 0.0)
    monkeypatch.setattr("models_sync.lock.POLL_S", 0.0)
    with VolumeLock(tmp_path, lambda _: None, threading.Event()) as lock:
        beats.wait()
    assert list(tmp_path.iterdir()) == []
    go.set()
    lock._beater.join()
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_lock_by_who_was_killed_while_taking_it_can_be_pruned(
    tmp_path: Path,
) -> None:
    with mock.patch.object(Path, "unlink"):
        lock = VolumeLock(tmp_path, lambda _: None, threading.Event())
        assert lock._create()
    left = {path.name for path in tmp_path.iterdir()} - {LOCK_FILE}
    assert {path.name for path, _ in stale_partials(tmp_path, 0.0)} == left
    assert len(left) == 1


def test_a_lock_with_text_for_numbers_is_a_damaged_one(tmp_path: Path) -> None:
    with VolumeLock(tmp_path, lambda _: None, threading.Event()):
        good = json.loads((tmp_path / LOCK_FILE).read_text())
        assert _read(tmp_path / LOCK_FILE) is not None
        for name, value in (("rate", "fast"), ("pid", None), ("host", 7), ("eta_s", [])):
            (tmp_path / LOCK_FILE).write_text(json.dumps(good | {name: value}))
            assert _read(tmp_path / LOCK_FILE) is None


# ---------------------------------------------------------------- a line that has become slow
def test_a_line_that_was_cut_is_read_in_small_pieces_again() -> None:
    """Else the next large piece takes as long as the last, and it is cut for ever."""
    boss = mock.MagicMock(stall_s=30.0, stopping=threading.Event())
    lane = Lane(boss)
    lane._chunk_bytes = MAX_CHUNK_BYTES
    span = mock.MagicMock(first=0, stop=1)
    span.file.partial.part_size = span.file.remote.size = PART_BYTES
    with (
        mock.patch.object(lane._wire, "open_range", side_effect=TransferStalled),
        pytest.raises(TransferStalled),
    ):
        lane._fetch(span)
    assert lane._chunk_bytes == MIN_CHUNK_BYTES
