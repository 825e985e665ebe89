"""Files in their places: linked, copied or found there; never over what someone else put there."""

import errno
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models_sync.errors import (
    PickleRefused,
    PlacementBlocked,
    PlacementMissing,
    VolumeOfAnotherUser,
    VolumeUnwritable,
)
from models_sync.place import How, PlaceReport, place

NOBODY = 65534


@dataclass(frozen=True)
class Places:
    local_root: Path
    pixie_model_dir: Path
    segmentor_path: Path
    sources: tuple[str, ...] = ("smplx", "pixie", "sam3d", "sam2")

    def source_names(self) -> tuple[str, ...]:
        return self.sources


FILES = {
    "pixie/pixie_model.tar": b"weights",
    "pixie/deep/er.npy": b"asset",
    "pixie/SMPLX_to_J14.pkl": pickle.dumps(np.eye(3)),
    "sam2/checkpoints/sam2.1_hiera_large.pt": b"checkpoint",
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name, content in FILES.items():
        path = tmp_path / "volume" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for code in ("PIXIE", "sam2"):
        (tmp_path / "app" / code).mkdir(parents=True)
    return Places(tmp_path / "volume", tmp_path / "app" / "PIXIE", tmp_path / "app" / "sam2")


@pytest.fixture
def tar(places: Places) -> Path:
    return places.pixie_model_dir / "data" / "pixie_model.tar"


def hows(report: PlaceReport) -> set[How]:
    return {file.how for file in report.files}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in folder.rglob("*")
    }


def test_files_are_linked_to_where_vendors_look_and_a_second_run_writes_nothing(
    places: Places, tar: Path, tmp_path: Path
) -> None:
    report = place(places)
    assert len(report.files) == len(FILES)
    assert (hows(report), report.changed) == ({How.LINKED}, True)
    assert tar.is_symlink()
    assert tar.read_bytes() == b"weights"
    assert (tar.parent / "deep" / "er.npy").read_bytes() == b"asset"
    checkpoint = places.segmentor_path / "checkpoints" / "sam2.1_hiera_large.pt"
    assert checkpoint.read_bytes() == b"checkpoint"

    before = everything(tmp_path)
    again = place(places)
    assert (hows(again), again.changed) == ({How.THERE}, False)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_where_links_do_not_work_files_are_copied_and_compared(
    places: Places, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "symlink_to", no_links)
    assert hows(place(places)) == {How.COPIED}
    assert not tar.is_symlink()
    assert tar.read_bytes() == b"weights"

    before = everything(tmp_path)
    assert hows(place(places)) == {How.THERE}
    assert everything(tmp_path) == before


def test_a_copy_of_ours_follows_a_new_version_on_the_volume(places: Places, tar: Path) -> None:
    place(places, copy=True)
    (places.local_root / "pixie/pixie_model.tar").write_bytes(b"newer weights")
    report = place(places, copy=True)
    assert {file.target for file in report.files if file.how is How.COPIED} == {tar}
    assert tar.read_bytes() == b"newer weights"


def test_a_copy_that_reads_back_differently_is_removed(
    places: Places, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(origin: Any, file: Any, _: int) -> None:
        file.write(origin.read()[:-1])

    monkeypatch.setattr("shutil.copyfileobj", torn)
    with pytest.raises(VolumeUnwritable, match="reads back differently"):
        place(places, copy=True)
    assert not tar.exists()


def test_a_real_file_is_never_overwritten(places: Places, tar: Path) -> None:
    tar.parent.mkdir()
    tar.write_bytes(b"someone's own")
    for copy in (False, True):
        with pytest.raises(PlacementBlocked, match=r"pixie_model\.tar is there already"):
            place(places, copy=copy)
    assert tar.read_bytes() == b"someone's own"


def test_a_copy_that_someone_changed_is_no_longer_ours(places: Places, tar: Path) -> None:
    place(places, copy=True)
    tar.write_bytes(b"changed by hand")
    with pytest.raises(PlacementBlocked):
        place(places, copy=True)
    assert tar.read_bytes() == b"changed by hand"


def test_the_same_file_put_there_by_hand_is_in_its_place(places: Places, tar: Path) -> None:
    tar.parent.mkdir()
    tar.write_bytes(b"weights")
    report = place(places)
    assert next(file.how for file in report.files if file.target == tar) is How.THERE
    assert not tar.is_symlink()


def test_a_link_to_elsewhere_is_left_and_a_dead_one_replaced(
    places: Places, tar: Path, tmp_path: Path
) -> None:
    tar.parent.mkdir()
    elsewhere = tmp_path / "mine.tar"
    tar.symlink_to(elsewhere)
    place(places)
    assert tar.read_bytes() == b"weights"

    tar.unlink()
    elsewhere.write_bytes(b"mine")
    tar.symlink_to(elsewhere)
    with pytest.raises(PlacementBlocked, match=r"link to .*mine\.tar"):
        place(places)
    assert tar.readlink() == elsewhere


def test_a_folder_in_the_way_is_left(places: Places, tar: Path) -> None:
    (tar / "inside").mkdir(parents=True)
    with pytest.raises(PlacementBlocked):
        place(places)


def test_a_data_folder_that_is_the_volumes_own_needs_no_links(places: Places) -> None:
    (places.pixie_model_dir / "data").symlink_to(places.local_root / "pixie")
    before = everything(places.local_root)
    assert {
        file.how
        for file in place(places).files
        if file.target.is_relative_to(places.pixie_model_dir)
    } == {How.THERE}
    assert everything(places.local_root) == before


def test_a_vendor_that_is_not_installed_and_an_empty_source_are_told(
    places: Places, tmp_path: Path
) -> None:
    away = Places(tmp_path / "volume", tmp_path / "no" / "PIXIE", tmp_path / "no" / "sam2")
    report = place(away)
    assert report.files == ()
    assert [line.split(":")[0] for line in report.skipped] == [
        "PIXIE_MODEL_DIR",
        "SAM3DBODY_SEGMENTOR_PATH",
    ]
    empty = Places(tmp_path / "empty", places.pixie_model_dir, places.segmentor_path)
    assert len(place(empty).skipped) == 2
    assert not (tmp_path / "empty").exists()


def test_only_sources_that_are_asked_for_are_placed(places: Places) -> None:
    report = place(Places(places.local_root, places.pixie_model_dir, places.segmentor_path, ()))
    assert report == PlaceReport((), (), ())


# ---------------------------------------------------------------- places that cannot be written
@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


AS_NOBODY = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, sys.argv[2])
from models_sync.errors import SyncError
from models_sync.place import place

# After the imports: nobody may not read every interpreter's home.
os.setgid(65534)
os.setuid(65534)
root = Path(sys.argv[1])
places = SimpleNamespace(
    local_root=root / "volume",
    pixie_model_dir=root / "PIXIE",
    segmentor_path=root / "sam2",
    source_names=lambda: ("smplx", "pixie"),
)
try:
    print(json.dumps([file.how for file in place(places).files]))
except SyncError as error:
    print(json.dumps([type(error).__name__, error.message]))
    sys.exit(error.exit_code)
"""


def place_as_nobody(root: Path) -> tuple[int, Any]:
    repository = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(root), repository],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def of_root(open_folder: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of another user")
    (open_folder / "volume" / "pixie").mkdir(parents=True)
    (open_folder / "volume" / "pixie" / "pixie_model.tar").write_bytes(b"weights")
    (open_folder / "PIXIE").mkdir()
    return open_folder


def test_a_folder_of_root_under_another_user_is_named_with_the_command(of_root: Path) -> None:
    code, (name, message) = place_as_nobody(of_root)
    assert (code, name) == (VolumeOfAnotherUser.exit_code, "VolumeOfAnotherUser")
    assert f"chown -R {NOBODY}:{NOBODY} {of_root / 'PIXIE'}" in message


def test_links_that_the_image_holds_are_verified_and_not_written(of_root: Path) -> None:
    data = of_root / "PIXIE" / "data"
    data.mkdir()
    (data / "pixie_model.tar").symlink_to(of_root / "volume/pixie/pixie_model.tar")
    assert place_as_nobody(of_root) == (0, ["there"])


def test_a_folder_of_ours_that_may_not_be_written_misses_a_file(of_root: Path) -> None:
    os.chown(of_root / "PIXIE", NOBODY, NOBODY)
    (of_root / "PIXIE").chmod(0o555)
    code, (name, message) = place_as_nobody(of_root)
    assert (code, name) == (PlacementMissing.exit_code, "PlacementMissing")
    assert "pixie_model.tar is not there" in message


def test_a_read_only_file_system_misses_a_file(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(PlacementMissing, match="read-only"):
        place(places)


def test_a_full_disk_is_named_and_leaves_nothing_behind(
    places: Places, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(VolumeUnwritable, match="No space left"):
        place(places, copy=True)
    assert list(tar.parent.iterdir()) == []


# ---------------------------------------------------------------- pickles
def test_a_pickle_that_vendor_code_would_run_is_not_placed(places: Places) -> None:
    bad = places.local_root / "pixie" / "SMPLX_to_J14.pkl"
    bad.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(PickleRefused, match=r"SMPLX_to_J14\.pkl: .* os\.system"):
        place(places)


@pytest.mark.parametrize(("name", "copy"), [("SMPLX_to_J14.pkl", False), ("a.tar", True)])
def test_a_file_that_may_not_be_read_is_named(
    places: Places, monkeypatch: pytest.MonkeyPatch, name: str, copy: bool
) -> None:
    """Somebody else's, say: who may not read it is told so, not that its place is read-only."""
    file = places.local_root / "pixie" / name
    file.write_bytes(pickle.dumps({}))
    really = Path.open

    def refuse(path: Path, *mode: Any, **more: Any) -> Any:
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, *mode, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VolumeUnwritable) as refused:
        place(places, copy=copy)
    assert type(refused.value) is VolumeUnwritable
    assert refused.value.message == f"{file} cannot be read: Permission denied"


def model(scale: float) -> bytes:
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    return pickle.dumps({name: np.full(3, scale) for name in names}, 2)


def test_an_smplx_pickle_is_converted_once_and_again_when_it_is_replaced(places: Places) -> None:
    source = places.local_root / "smplx" / "SMPLX_NEUTRAL.pkl"
    source.parent.mkdir()
    source.write_bytes(model(1.0))
    target = source.with_suffix(".npz")
    assert [done.target for done in place(places).converted] == [target]
    assert place(places).converted == ()

    source.write_bytes(model(2.0))
    os.utime(source, ns=(1, 1))
    assert [done.target for done in place(places).converted] == [target]
    with np.load(target) as archive:
        assert archive["v_template"][0] == 2.0


def test_a_pickle_that_is_no_body_is_left_alone_and_told(places: Places) -> None:
    """SMPL-X's archive brings some, and they kept the weights from being placed."""
    folder = places.local_root / "smplx"
    folder.mkdir()
    (folder / "MANO_SMPLX_vertex_ids.pkl").write_bytes(pickle.dumps({"left_hand": np.ones(3)}))
    (folder / "SMPLX_MALE.pkl").write_bytes(model(1.0))
    done = place(places)
    assert [made.target.name for made in done.converted] == ["SMPLX_MALE.npz"]
    assert any("MANO_SMPLX_vertex_ids.pkl" in sentence for sentence in done.skipped)
    assert any(file.target.name == "sam2.1_hiera_large.pt" for file in done.files)


def test_an_npz_of_the_operators_is_not_converted_over(places: Places) -> None:
    source = places.local_root / "smplx" / "SMPLX_NEUTRAL.pkl"
    source.parent.mkdir()
    source.write_bytes(model(1.0))
    source.with_suffix(".npz").write_bytes(b"the official one")
    assert place(places).converted == ()
    assert source.with_suffix(".npz").read_bytes() == b"the official one"


def test_a_pickle_that_cannot_be_converted_in_place_says_the_command(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = places.local_root / "smplx" / "SMPLX_NEUTRAL.pkl"
    source.parent.mkdir()
    source.write_bytes(model(1.0))

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(Path, "read_bytes", lambda _: model(1.0))
    with pytest.raises(VolumeUnwritable, match="models-sync convert-smplx"):
        place(places)


def test_a_lost_or_damaged_ledger_only_makes_us_careful(places: Places, tar: Path) -> None:
    place(places, copy=True)
    for damage in ("", "[]", '{"pixie_model.tar": {"made": 3}}'):
        (tar.parent / ".models-sync-made.json").write_text(damage)
        assert hows(place(places, copy=True)) == {How.THERE}
    (places.local_root / "pixie/pixie_model.tar").write_bytes(b"newer weights")
    with pytest.raises(PlacementBlocked):
        place(places, copy=True)
