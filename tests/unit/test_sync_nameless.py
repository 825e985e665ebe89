"""A small file has no name until it is whole, where the volume has such files."""

import errno
import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest

from models_sync import nameless
from models_sync.partial import Partial
from models_sync.remote import RemoteObject
from models_sync.state import Identity

CONTENT = b"weights" * 1000
REMOTE = RemoteObject("sam3d/a", "sam3d/a", len(CONTENT), "etag")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if not nameless.are_possible(tmp_path):
        pytest.skip("this file system has no files without a name")
    assert list(tmp_path.iterdir()) == []
    return tmp_path


def written(root: Path) -> Partial:
    partial = Partial(root, REMOTE, "a" * 8, nameless=True)
    partial.open()
    partial.write(0, memoryview(CONTENT), b"")
    partial.flush()
    return partial


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "sam3d").iterdir())


def test_it_has_its_name_at_once_and_no_other_before(root: Path) -> None:
    partial = written(root)
    assert names(root) == []
    assert partial.digest("md5") == hashlib.md5(CONTENT).hexdigest()
    identity = partial.publish()
    partial.close()
    assert names(root) == ["a"]
    assert (root / "sam3d/a").read_bytes() == CONTENT
    assert Identity.of(root / "sam3d/a") == identity


def test_it_takes_the_place_of_an_older_one(root: Path) -> None:
    partial = written(root)
    (root / "sam3d/a").write_bytes(b"older")
    identity = partial.publish()
    partial.close()
    assert names(root) == ["a"]
    assert (root / "sam3d/a").read_bytes() == CONTENT
    assert Identity.of(root / "sam3d/a") == identity


def test_one_that_is_given_up_leaves_nothing(root: Path) -> None:
    partial = written(root)
    partial.close()
    partial.discard()
    assert names(root) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EISDIR])
def test_a_folder_without_such_files_takes_named_ones(tmp_path: Path, code: int) -> None:
    really = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(code, os.strerror(code))
        return really(path, flags, mode)

    (tmp_path / "sam3d").mkdir()
    with mock.patch("os.open", refuse):
        assert not nameless.are_possible(tmp_path)
        partial = written(tmp_path)
    assert [name.endswith(".part") for name in names(tmp_path)] == [True]
    partial.publish()
    partial.close()
    assert names(tmp_path) == ["a"]


def test_where_a_name_changes_which_file_it_is_there_are_none(root: Path) -> None:
    """Else each small file would be taken for another process's, and no pull would end well."""
    really = nameless.give_name

    def copies(descriptor: int, path: str) -> None:
        really(descriptor, f"{path}.first")
        Path(path).write_bytes(Path(f"{path}.first").read_bytes())
        Path(f"{path}.first").unlink()

    with mock.patch.object(nameless, "give_name", copies):
        assert not nameless.are_possible(root)
    assert list(root.iterdir()) == []


def test_where_no_name_can_be_given_later_there_are_none(tmp_path: Path) -> None:
    with mock.patch("os.link", side_effect=PermissionError(errno.EPERM, "not here")):
        assert not nameless.are_possible(tmp_path)
    assert not nameless.are_possible(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
