"""Are the weights what was published?  Quickly by record, fully by hash, without the bucket."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from models_sync import signing
from models_sync.catalog import CATALOG, required_by
from models_sync.digests import UPLOAD_PART_BYTES, FileChanged, digest
from models_sync.errors import Interrupted, ManifestAbsent, ManifestInvalid, ManifestUntrusted
from models_sync.manifest import PART_BYTES, Manifest, ManifestFile
from models_sync.progress import Phase, Progress
from models_sync.settings import VolumeSettings
from models_sync.state import keep_manifest
from models_sync.verify import how_to_get, verify_full, verify_quick

FILES = {
    "smplx/SMPLX_NEUTRAL.npz": os.urandom(PART_BYTES + 5),
    "smplx/SMPLX_MALE.npz": b"male",
    "smplx/SMPLX_FEMALE.npz": b"female",
    "smplx/extra.txt": b"nobody needs it",
    "pixie/pixie_model.tar": b"weights",
    "sam3d/assets/mhr_model.pt": b"",
}


def settings(root: Path, **changes: Any) -> VolumeSettings:
    values: dict[str, Any] = {"local_root": root, "sources": "smplx,pixie,sam3d"}
    return VolumeSettings(**values | changes)


def entry(root: Path, name: str) -> ManifestFile:
    known = digest(root / name, lambda _: None)
    return ManifestFile(
        key=name,
        size=known.stamp.size,
        sha256=known.sha256,
        parts=known.parts,
        required_by=required_by(name),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A volume with published files and their manifest, none of them verified yet."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    keep_manifest(
        tmp_path, Manifest(files=tuple(entry(tmp_path, name) for name in FILES)).to_bytes(), None
    )
    return tmp_path


def why(found: Any) -> dict[str, str]:
    return {file.path: file.why for file in found}


def test_after_a_full_verification_the_quick_one_is_content(root: Path) -> None:
    assert set(why(verify_quick(settings(root)))) == set(FILES)
    report = verify_full(settings(root))
    assert (set(report.good), report.bad) == (set(FILES), ())
    assert report.recorded
    assert not report.signed
    assert verify_quick(settings(root)) == []


def test_the_quick_one_names_what_is_missing_short_touched_or_of_another_version(
    root: Path,
) -> None:
    verify_full(settings(root))
    (root / "smplx/SMPLX_MALE.npz").unlink()
    (root / "smplx/SMPLX_FEMALE.npz").write_bytes(b"fem")
    os.utime(root / "smplx/SMPLX_NEUTRAL.npz", (1, 1))
    assert why(verify_quick(settings(root))) == {
        "smplx/SMPLX_MALE.npz": "missing",
        "smplx/SMPLX_FEMALE.npz": "has 3 bytes instead of 6",
        "smplx/SMPLX_NEUTRAL.npz": "was touched since it was verified",
    }
    # The same size, another content: only a new manifest tells the quick one.
    (root / "pixie/pixie_model.tar").write_bytes(b"WEIGHTS")
    newer = Manifest(files=(entry(root, "pixie/pixie_model.tar"),)).to_bytes()
    keep_manifest(root, newer, None)
    assert why(verify_quick(settings(root))) == {"pixie/pixie_model.tar": "is another version"}


def test_the_full_one_finds_a_changed_byte_that_size_and_time_hide(root: Path) -> None:
    verify_full(settings(root))
    path = root / "smplx/SMPLX_NEUTRAL.npz"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[PART_BYTES + 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert verify_quick(settings(root)) == [], "that is what quick means"

    bad = verify_full(settings(root)).bad
    assert why(bad) == {"smplx/SMPLX_NEUTRAL.npz": "is damaged, or another version"}
    assert why(verify_quick(settings(root))) == {"smplx/SMPLX_NEUTRAL.npz": "was never verified"}


def test_only_what_the_asked_code_needs_counts(root: Path) -> None:
    verify_full(settings(root))
    (root / "smplx/extra.txt").unlink()
    (root / "pixie/pixie_model.tar").unlink()
    assert verify_quick(settings(root), ["smplx"]) == []
    missing = why(verify_quick(settings(root), ["pixie"]))
    assert set(missing) == {f"pixie/{name}" for name in CATALOG["pixie"].required}


def test_sources_that_are_not_asked_for_do_not_count(root: Path) -> None:
    only_smplx = settings(root, sources="smplx")
    (root / "pixie/pixie_model.tar").unlink()
    verify_full(only_smplx)
    assert verify_quick(only_smplx) == []


def test_without_a_manifest_the_catalogue_says_which_files_there_must_be(tmp_path: Path) -> None:
    asked = settings(tmp_path, sources="sam2,sam3d")
    assert why(verify_quick(asked)) == {
        "sam2/checkpoints/sam2.1_hiera_large.pt": "missing",
        "sam3d/model.ckpt": "missing",
        "sam3d/model_config.yaml": "missing",
        "sam3d/assets/mhr_model.pt": "missing",
    }
    for file in verify_quick(asked):
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"copied there by hand")
    assert verify_quick(asked) == []
    with pytest.raises(ManifestAbsent):
        verify_full(asked)


def test_a_body_that_place_converted_counts_though_the_manifest_names_the_pickle(
    root: Path,
) -> None:
    (root / "smplx/SMPLX_MALE.npz").rename(root / "smplx/SMPLX_MALE.pkl")
    names = [name for name in FILES if name != "smplx/SMPLX_MALE.npz"]
    files = tuple(entry(root, name) for name in [*names, "smplx/SMPLX_MALE.pkl"])
    keep_manifest(root, Manifest(files=files).to_bytes(), None)
    verify_full(settings(root))
    assert why(verify_quick(settings(root), ["smplx"])) == {"smplx/SMPLX_MALE.npz": "missing"}
    (root / "smplx/SMPLX_MALE.npz").write_bytes(b"converted")
    assert verify_quick(settings(root), ["smplx"]) == []


def test_the_manifest_beside_the_files_is_believed_only_when_it_is_signed(
    root: Path, tmp_path: Path
) -> None:
    pair = signing.keygen(tmp_path / "key")
    signed = settings(root, public_key=pair.public_key)
    for check in (verify_quick, verify_full):
        with pytest.raises(ManifestUntrusted):
            check(signed)
    manifest = (root / ".models-sync-manifest.json").read_bytes()
    signature = signing.sign(manifest, signing.load_signing_key(pair.private))
    keep_manifest(root, manifest, signature)
    assert verify_full(signed).signed
    assert verify_quick(signed) == []
    (root / ".models-sync-manifest.json").write_bytes(manifest + b"\n")
    with pytest.raises(ManifestUntrusted):
        verify_quick(signed)


def test_a_manifest_that_cannot_be_read_is_named(root: Path) -> None:
    (root / ".models-sync-manifest.json").write_bytes(b"{")
    with pytest.raises(ManifestInvalid):
        verify_quick(settings(root))


def test_a_volume_that_cannot_be_written_is_verified_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    monkeypatch.setattr(Path, "replace", read_only)
    report = verify_full(settings(root))
    assert set(report.good) == set(FILES)
    assert not report.recorded


def test_progress_is_told_and_a_wish_to_stop_is_heard_within_a_file(root: Path) -> None:
    seen: list[Progress] = []
    verify_full(settings(root), None, seen.append)
    assert seen[-1].phase is Phase.CHECKING
    assert seen[-1].done_bytes == seen[-1].total_bytes == sum(map(len, FILES.values()))

    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Interrupted):
        verify_full(settings(root), None, None, cancel)


def test_what_is_missing_is_said_with_the_way_to_get_it(tmp_path: Path) -> None:
    missing = verify_quick(settings(tmp_path, sources="smplx"))
    said = how_to_get(missing, tmp_path)
    assert "smplx/SMPLX_NEUTRAL.npz (missing)" in said
    assert "models-sync pull" in said
    assert "MODEL_SYNC_ENABLED=true" in said


# ---------------------------------------------------------------- digests
@pytest.mark.parametrize(
    "size", [0, 1, PART_BYTES, PART_BYTES + 1, UPLOAD_PART_BYTES, UPLOAD_PART_BYTES + 1]
)
def test_one_reading_gives_every_digest(tmp_path: Path, size: int) -> None:
    import hashlib

    from blake3 import blake3

    path, content = tmp_path / "file", os.urandom(size)
    path.write_bytes(content)
    read = []
    known = digest(path, read.append)
    assert sum(read) == known.stamp.size == size
    assert known.sha256 == hashlib.sha256(content).hexdigest()
    assert known.parts == tuple(
        blake3(content[start : start + PART_BYTES]).hexdigest()
        for start in range(0, size, PART_BYTES)
    )
    parts = [
        hashlib.md5(content[start : start + UPLOAD_PART_BYTES]).digest()
        for start in range(0, max(size, 1), UPLOAD_PART_BYTES)
    ]
    several = f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"
    assert known.etag == (parts[0].hex() if len(parts) == 1 else several)


def test_a_file_that_changes_while_it_is_read_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(FileChanged):
        digest(path, lambda _: path.write_bytes(b"after it was read"))
