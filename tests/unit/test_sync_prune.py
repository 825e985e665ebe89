"""What can go: what we brought and nobody publishes any more.  Everything else is somebody's."""

import os
from pathlib import Path
from typing import Any

import pytest

from models_sync.errors import ManifestUntrusted
from models_sync.manifest import Manifest, ManifestFile
from models_sync.prune import plan_prune, prune
from models_sync.settings import VolumeSettings
from models_sync.state import State, keep_manifest

PARTIAL = ".models-sync-" + "0123456789abcdef" * 2


def settings(root: Path, **changes: Any) -> VolumeSettings:
    values: dict[str, Any] = {"local_root": root}
    return VolumeSettings(**values | changes)


def write(root: Path, name: str, content: bytes = b"content") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fetched(root: Path, *names: str) -> None:
    """Files as a pull leaves them."""
    state = State(root)
    for name in names:
        write(root, name)
        state.note(name, etag="e", sha256="0" * 64, verified=True)
    state.flush()


def published(root: Path, *names: str) -> None:
    files = tuple(
        ManifestFile(key=name, size=7, sha256="0" * 64, parts=("0" * 64,)) for name in names
    )
    keep_manifest(root, Manifest(files=files).to_bytes(), None)


def names(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".models-sync")
    }


def test_what_is_no_longer_published_goes_and_everything_else_stays(tmp_path: Path) -> None:
    fetched(tmp_path, "smplx/kept.npz", "smplx/old.npz", "pixie/deep/old.tar")
    write(tmp_path, "smplx/of-the-operator.npz")
    write(tmp_path, "photos/holiday.jpg")
    published(tmp_path, "smplx/kept.npz")

    plan = plan_prune(settings(tmp_path))
    assert {str(file.path.relative_to(tmp_path)) for file in plan.remove} == {
        "smplx/old.npz",
        "pixie/deep/old.tar",
    }
    assert plan.total_bytes == 14
    assert len(names(tmp_path)) == 5, "a plan removes nothing"

    prune(settings(tmp_path), plan)
    assert names(tmp_path) == {"smplx/kept.npz", "smplx/of-the-operator.npz", "photos/holiday.jpg"}
    assert not (tmp_path / "pixie").exists()
    assert set(State(tmp_path).entries()) == {"smplx/kept.npz"}
    assert plan_prune(settings(tmp_path)).remove == ()


def test_a_file_that_somebody_changed_since_is_theirs(tmp_path: Path) -> None:
    fetched(tmp_path, "smplx/old.npz", "smplx/same-size.npz", "smplx/linked.npz")
    published(tmp_path)
    write(tmp_path, "smplx/old.npz", b"their own")
    os.utime(write(tmp_path, "smplx/same-size.npz", b"changed"), (1, 1))
    (tmp_path / "smplx/linked.npz").unlink()
    (tmp_path / "smplx/linked.npz").symlink_to(tmp_path / "smplx/old.npz")

    plan = plan_prune(settings(tmp_path))
    assert plan.remove == ()
    assert set(plan.kept) == {"smplx/old.npz", "smplx/same-size.npz", "smplx/linked.npz"}
    prune(settings(tmp_path), plan)
    assert len(names(tmp_path)) == 3


def test_records_of_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    fetched(tmp_path, "smplx/old.npz")
    published(tmp_path)
    (tmp_path / "smplx/old.npz").unlink()
    plan = plan_prune(settings(tmp_path))
    assert (plan.remove, plan.forget) == ((), ("smplx/old.npz",))
    prune(settings(tmp_path), plan)
    assert State(tmp_path).entries() == {}


def test_without_a_manifest_no_file_goes(tmp_path: Path) -> None:
    fetched(tmp_path, "smplx/SMPLX_NEUTRAL.npz")
    assert plan_prune(settings(tmp_path)).remove == ()


def test_a_manifest_that_is_not_trusted_removes_nothing(tmp_path: Path) -> None:
    fetched(tmp_path, "smplx/SMPLX_NEUTRAL.npz")
    published(tmp_path)
    with pytest.raises(ManifestUntrusted):
        plan_prune(settings(tmp_path, public_key="A" * 43 + "="))


def test_only_partial_files_of_ours_that_are_old_go(tmp_path: Path) -> None:
    old = [write(tmp_path, f"smplx/{PARTIAL}.{kind}") for kind in ("part", "map")]
    young = write(tmp_path, f"pixie/{PARTIAL}.part")
    for path in (*old, write(tmp_path, "smplx/download.part")):
        os.utime(path, (1, 1))
    plan = plan_prune(settings(tmp_path))
    assert {file.path for file in plan.remove} == set(old)
    prune(settings(tmp_path), plan)
    assert young.exists()
    assert (tmp_path / "smplx/download.part").exists()


def test_the_volume_itself_is_never_removed(tmp_path: Path) -> None:
    fetched(tmp_path / "root", "old.npz")
    published(tmp_path / "root")
    prune(settings(tmp_path / "root"), plan_prune(settings(tmp_path / "root")))
    assert (tmp_path / "root").is_dir()
