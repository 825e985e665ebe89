"""What others may have written: endpoints, keys, names, records, an old manifest put back."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from models_sync import signing
from models_sync.bucket import Bucket
from models_sync.endpoint import host_of
from models_sync.errors import (
    FolderElsewhere,
    ManifestOlder,
    SyncSettingsError,
    UnsafeKey,
    VolumeOfAnotherUser,
    VolumeUnwritable,
)
from models_sync.manifest import Manifest, ManifestFile
from models_sync.names import refuse_unsafe
from models_sync.plan import Trust, Wanted, make_plan, read_wanted
from models_sync.prune import PrunePlan, Removable, plan_prune, prune
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.state import STATE_FILE, State, keep_manifest
from models_sync.tuner import MEMORY_BYTES, Tuner
from models_sync.wire import Wire

NOBODY = 65534


def settings(root: Path, **changes: Any) -> SyncSettings:
    values: dict[str, Any] = {
        "local_root": root,
        "sources": "smplx",
        "minio_endpoint": "s3.example.com",
        "minio_access_key": "reader",
        "minio_secret_key": "secret",
    }
    return SyncSettings.load(**values | changes)


# ---------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("endpoint", "host", "secure"),
    [
        ("s3.example.com", "s3.example.com", True),
        (" https://s3.example.com:9000/ ", "s3.example.com:9000", True),
        ("HTTPS://s3.example.com", "s3.example.com", True),
        ("http://minio_1:9000", "minio_1:9000", False),
        ("https://[::1]:9000", "[::1]:9000", True),
    ],
)
def test_only_http_said_in_plain_words_goes_without_tls(
    endpoint: str, host: str, secure: bool, tmp_path: Path
) -> None:
    assert host_of(settings(tmp_path, minio_endpoint=endpoint)) == (host, secure)


@pytest.mark.parametrize(
    "endpoint", ["s3://host", "ftp://host", "https//host", "https:host", "http s://host", "a b", ""]
)
def test_no_other_scheme_is_taken_for_one_without_tls(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(SyncSettingsError, match="must be host or host:port"):
        settings(tmp_path, minio_endpoint=endpoint)


@pytest.mark.parametrize("blank", [" ", "\n", ",", " , "])
def test_a_blank_key_does_not_switch_the_signature_off(blank: str, tmp_path: Path) -> None:
    with pytest.raises(SyncSettingsError, match="MODEL_SYNC_PUBLIC_KEY"):
        settings(tmp_path, public_key=blank)
    with pytest.raises(SyncSettingsError, match="MODEL_SYNC_PUBLIC_KEY"):
        signing.check(b"{}", bytes(64), blank)


def test_a_number_that_was_set_by_hand_is_bound_by_memory_too() -> None:
    assert Tuner(64).look(0, 16 << 20, 0.0) * (16 << 20) <= MEMORY_BYTES
    assert Tuner(64).look(0, 64 << 10, 0.0) == 64


# ---------------------------------------------------------------- names
@pytest.mark.parametrize("char", ["\u0085", "\u009b", "\u202e", "\u2028", "\u200b"])
def test_a_name_with_what_cannot_be_seen_is_refused(char: str) -> None:
    with pytest.raises(UnsafeKey, match="cannot be seen"):
        refuse_unsafe(f"smplx/a{char}b.npz")


def test_a_name_that_no_file_system_takes_is_refused() -> None:
    assert refuse_unsafe("smplx/" + "a" * 255)
    with pytest.raises(UnsafeKey, match="255 bytes"):
        refuse_unsafe("smplx/" + "ä" * 128)


# ---------------------------------------------------------------- records
def outside(tmp_path: Path) -> tuple[Path, Path]:
    """A volume, and somebody's file beside it."""
    volume, theirs = tmp_path / "volume", tmp_path / "outside" / "thesis.pdf"
    theirs.parent.mkdir()
    theirs.write_bytes(b"content")
    volume.mkdir()
    keep_manifest(volume, Manifest(files=()).to_bytes(), None)
    return volume, theirs


def record(volume: Path, name: str, path: Path) -> None:
    found = path.stat()
    entry = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "etag": None, "sha256": None}
    document = {"format": 2, "files": {name: entry | {"verified": True}}}
    (volume / STATE_FILE).write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["../outside/thesis.pdf", "linked/thesis.pdf", "{theirs}"])
def test_prune_removes_nothing_outside_the_volume_whatever_the_records_say(
    name: str, tmp_path: Path
) -> None:
    volume, theirs = outside(tmp_path)
    (volume / "linked").symlink_to(theirs.parent)
    record(volume, name.format(theirs=theirs), theirs)
    plan = plan_prune(settings(volume))
    assert plan.remove == ()
    prune(settings(volume), plan)
    assert theirs.read_bytes() == b"content"
    assert not State(volume).entries()


def test_a_folder_that_became_a_link_since_the_plan_is_not_followed(tmp_path: Path) -> None:
    volume, theirs = outside(tmp_path)
    (volume / "smplx").symlink_to(theirs.parent)
    planned = Removable(volume / "smplx" / theirs.name, 7, "no longer published")
    with pytest.raises(FolderElsewhere):
        prune(settings(volume), PrunePlan((planned,), (), ()))
    assert theirs.exists()


# ---------------------------------------------------------------- the volume
def test_a_folder_that_may_not_be_entered_is_an_error_with_a_name() -> None:
    remote = RemoteObject("smplx/deep/a.npz", "smplx/deep/a.npz", 5, "e1")
    wanted = Wanted((remote,), Trust.UNVERIFIED)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by its user alone
        root = Path(folder)
        root.chmod(0o755)
        (root / "smplx").mkdir(mode=0o700)
        if os.geteuid() != 0:
            (root / "smplx").chmod(0)
            with pytest.raises(VolumeUnwritable):
                make_plan(wanted, root, State(root))
            (root / "smplx").chmod(0o700)
            return
        os.seteuid(NOBODY)
        try:
            with pytest.raises(VolumeOfAnotherUser, match=f"chown -R {NOBODY}"):
                make_plan(wanted, root, State(root))
        finally:
            os.seteuid(0)


# ---------------------------------------------------------------- an old manifest put back
def publication(year: int, pair: signing.KeyPair) -> tuple[bytes, bytes]:
    file = ManifestFile(key="smplx/a.npz", size=0, sha256="0" * 64, parts=())
    raw = Manifest(created=datetime(year, 1, 1, tzinfo=UTC), files=(file,)).to_bytes()
    return raw, signing.sign(raw, signing.load_signing_key(pair.private))


def read(wanted: SyncSettings, manifest: bytes, signature: bytes) -> Wanted:
    bucket = Bucket(wanted)
    answers = {"manifest.json": manifest, "manifest.json.sig": signature}
    with mock.patch.object(Wire, "read_small", lambda _, key, __: answers[key]):
        return read_wanted(bucket, wanted)


def test_an_old_manifest_that_was_put_back_is_refused_unless_it_is_asked_for(
    tmp_path: Path,
) -> None:
    pair = signing.keygen(tmp_path / "key")
    old, new = publication(2025, pair), publication(2026, pair)
    keep_manifest(tmp_path, *new)
    reader = settings(tmp_path, public_key=pair.public_key)
    with pytest.raises(ManifestOlder, match=r"2025-01-01 .* 2026-01-01"):
        read(reader, *old)
    assert read(reader, *new).manifest == new[0]
    assert read(settings(tmp_path, public_key=pair.public_key, allow_older=True), *old)


def test_a_kept_manifest_that_nobody_signed_keeps_none_away(tmp_path: Path) -> None:
    """Whoever may write to the volume could put one of the year 9999 there."""
    pair, other = signing.keygen(tmp_path / "key"), signing.keygen(tmp_path / "other")
    keep_manifest(tmp_path, *publication(9999, other))
    reader = settings(tmp_path, public_key=pair.public_key)
    assert read(reader, *publication(2025, pair)).trust is Trust.SIGNED


# ---------------------------------------------------------------- --json, and a signal
@pytest.mark.parametrize(
    "work",
    ["while not cancel.wait(0.01): pass\n  raise Interrupted", "import time; time.sleep(20)"],
)
def test_json_is_one_object_also_when_work_is_stopped(work: str) -> None:
    code = (
        "from models_sync.console import stoppable\n"
        "from models_sync.errors import Interrupted\n"
        f"with stoppable() as cancel:\n  print('working', flush=True)\n  {work}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGTERM)
        told = [json.loads(line) for line in process.stdout]
    assert process.wait(10) == 143
    assert [one["error"]["code"] for one in told] == ["Interrupted"]
