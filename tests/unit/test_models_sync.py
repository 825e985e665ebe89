"""What `models-sync` decides without a bucket: names, plans, state, settings."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from blake3 import blake3

from models_sync.atomic import partial_name
from models_sync.cli import main
from models_sync.errors import ManifestInvalid, SyncSettingsError, UnsafeKey
from models_sync.manifest import Manifest, ManifestFile
from models_sync.names import is_own_leftover, refuse_collisions, refuse_unsafe
from models_sync.plan import Trust, Wanted, make_plan
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.state import STATE_FILE, State


def remote(path: str, content: bytes = b"12345", etag: str = "e1") -> RemoteObject:
    return RemoteObject(key=path, path=path, size=len(content), etag=etag)


def published(path: str, content: bytes = b"12345") -> RemoteObject:
    file = ManifestFile(
        key=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=(blake3(content).hexdigest(),),
    )
    return RemoteObject(key=path, path=path, size=len(content), etag=None, published=file)


def wanted(*files: RemoteObject) -> Wanted:
    return Wanted(files, Trust.MANIFEST if files[0].published else Trust.UNVERIFIED)


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_a_plan_without_a_manifest_goes_by_size_and_etag(tmp_path: Path) -> None:
    names = ("ok", "short", "old", "stray", "new")
    put(tmp_path, {f"smplx/{name}": b"12345" for name in names if name != "new"})
    (tmp_path / "smplx/short").write_bytes(b"1")
    state = State(tmp_path)
    for name, etag in {"ok": "e1", "short": "e1", "old": "e0"}.items():
        state.note(f"smplx/{name}", etag=etag, sha256=None, verified=False)
    state.flush()

    plan = make_plan(
        wanted(*(remote(f"smplx/{name}") for name in names)), tmp_path, State(tmp_path)
    )

    assert [item.path for item in plan.present] == ["smplx/ok"]
    assert {item.remote.path: item.reason for item in plan.fetch} == {
        "smplx/short": "has 1 bytes instead of 5",
        "smplx/old": "replaced in the bucket",
        "smplx/stray": "of unknown origin",
        "smplx/new": "missing",
    }
    assert not plan.check, "an ETag that is no MD5 tells nothing about a file"
    assert plan.total_bytes == 20
    assert plan.as_dict()["verified"] == "unverified"


def test_a_plan_with_a_manifest_hashes_here_before_it_fetches(tmp_path: Path) -> None:
    names = ("ok", "anew", "unsure", "touched", "stray")
    put(tmp_path, {f"smplx/{name}": b"12345" for name in names})
    file = published("smplx/ok").published
    assert file
    state = State(tmp_path)
    for name in names[:-1]:
        state.note(
            f"smplx/{name}",
            etag="e1",
            sha256="0" * 64 if name == "anew" else file.sha256,
            verified=name != "unsure",
        )
    os.utime(tmp_path / "smplx/touched", ns=(0, 0))

    plan = make_plan(wanted(*(published(f"smplx/{name}") for name in names)), tmp_path, state)

    assert [item.path for item in plan.present] == ["smplx/ok"]
    assert not plan.fetch
    assert {item.remote.path: item.reason for item in plan.check} == {
        "smplx/anew": "published anew",
        "smplx/unsure": "not verified yet",
        "smplx/touched": "touched since it was fetched",
        "smplx/stray": "of unknown origin",
    }


@pytest.mark.parametrize(
    "path",
    [
        "smplx/../../etc/passwd",
        "../a",
        "..",
        ".",
        "",
        "a/.",
        "/etc/passwd",
        "smplx/a\nb",
        "smplx//a",
        "smplx\\a",
        "a/",
        ".models-sync.json",
        "smplx/.models-sync-0.part",
    ],
)
def test_a_name_that_is_no_plain_relative_path_is_refused(path: str) -> None:
    with pytest.raises(UnsafeKey):
        refuse_unsafe(path)


def test_what_a_killed_write_leaves_is_known_by_its_name() -> None:
    assert is_own_leftover(partial_name(Path("smplx/a.npz")).name)
    assert not is_own_leftover(STATE_FILE)
    assert not is_own_leftover("a.npz.part")


@pytest.mark.parametrize("path", ["a", "smplx/..a", "smplx/a b (1).npz", "smplx/.hidden", "ä/ö"])
def test_a_plain_name_passes(path: str) -> None:
    assert refuse_unsafe(path) == path


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["smplx/A.npz", "smplx/a.npz"], "differ only in case"),
        (["smplx/a.npz", "SMPLX/b.npz"], "differ only in case"),
        (["smplx/a", "smplx/a/b"], "is a file and a folder"),
    ],
)
def test_names_that_cannot_lie_side_by_side_are_refused(paths: list[str], words: str) -> None:
    with pytest.raises(UnsafeKey, match=words):
        refuse_collisions(paths)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"smplx/a": "e1"}', '{"format": 2, "files": {"a": {"size": 1}}}']
)
def test_a_broken_state_file_only_costs_work(content: str, tmp_path: Path) -> None:
    (tmp_path / ".models-sync.json").write_text(content)
    put(tmp_path, {"smplx/a": b"12345"})
    state = State(tmp_path)
    assert state.entries() == {}
    state.note("smplx/a", etag="e1", sha256=None, verified=False)
    state.flush()
    entry = State(tmp_path).entry("smplx/a")
    assert entry
    assert entry.etag == "e1"
    assert entry.lies_at(tmp_path / "smplx/a")


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    file = published("smplx/a").published
    assert file
    manifest = Manifest(files=(file,))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"key": "../a"}, UnsafeKey),
        ({"size": 5 << 20}, ManifestInvalid),
        ({"size": -1}, ManifestInvalid),
        ({"sha256": "xyz"}, ManifestInvalid),
        ({"part_size": 1 << 30}, ManifestInvalid),
    ],
)
def test_a_manifest_that_says_impossible_things_is_refused(
    change: dict[str, object], error: type[Exception]
) -> None:
    file = published("smplx/a").published
    assert file
    document = json.loads(Manifest(files=(file,)).to_bytes())
    document["files"][0] |= change
    with pytest.raises(error):
        Manifest.from_bytes(json.dumps(document).encode())


def test_a_manifest_names_each_file_once() -> None:
    file = published("smplx/a").published
    assert file
    document = json.loads(Manifest(files=(file,)).to_bytes())
    document["files"] *= 2
    with pytest.raises(ManifestInvalid, match="named twice"):
        Manifest.from_bytes(json.dumps(document).encode())


def test_a_missing_variable_is_named_with_its_use_and_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["models-sync", "plan"])
    for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.delenv(f"MODEL_SYNC_MINIO_{name}", raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == SyncSettingsError.exit_code
    said = capsys.readouterr().err
    assert "MODEL_SYNC_MINIO_ENDPOINT" in said
    assert "s3.shop.eu" in said
    assert "Traceback" not in said


def test_a_secret_is_in_no_repr_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SYNC_MINIO_ENDPOINT", "s3.test")
    monkeypatch.setenv("MODEL_SYNC_MINIO_ACCESS_KEY", "reader")
    monkeypatch.setenv("MODEL_SYNC_MINIO_SECRET_KEY", "hunter2-secret")
    assert "hunter2" not in repr(SyncSettings.load())
    monkeypatch.setenv("MODEL_SYNC_SOURCES", "smplx,flame")
    with pytest.raises(SyncSettingsError, match="flame") as caught:
        SyncSettings.load()
    assert "hunter2" not in str(caught.value)


def test_keys_and_names_are_trimmed_as_the_workers_are() -> None:
    """A secret that comes from a file ends in a new line, which would end a header."""
    read = SyncSettings.load(
        minio_endpoint="s3.test\n",
        minio_access_key="reader\n",
        minio_secret_key=" a+b/c= \n",
        minio_bucket="models ",
        prefix=" production\n",
    )
    assert (read.minio_access_key, read.minio_secret_key) == ("reader", "a+b/c=")
    assert (read.minio_endpoint, read.minio_bucket) == ("s3.test", "models")
    assert read.bucket_root == "production/"


@pytest.mark.parametrize("wrong", [" ", "\n", "two\nlines"])
@pytest.mark.parametrize("name", ["minio_access_key", "minio_secret_key", "minio_bucket"])
def test_a_key_that_is_none_is_named_and_not_shown(name: str, wrong: str) -> None:
    given = {"minio_endpoint": "s3.test", "minio_access_key": "a", "minio_secret_key": "b"}
    with pytest.raises(SyncSettingsError) as refused:
        SyncSettings.load(**given | {name: wrong})
    assert f"MODEL_SYNC_{name.upper()}: " in refused.value.message
    assert "two" not in refused.value.message


def test_sources_become_prefixes_below_the_configured_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_SYNC_MINIO_ENDPOINT", "s3.test")
    monkeypatch.setenv("MODEL_SYNC_MINIO_ACCESS_KEY", "reader")
    monkeypatch.setenv("MODEL_SYNC_MINIO_SECRET_KEY", "x")
    monkeypatch.setenv("MODEL_SYNC_SOURCES", "smplx, sam2")
    monkeypatch.setenv("MODEL_SYNC_PREFIX", "/v1/")
    assert SyncSettings.load().wanted_prefixes() == {
        "smplx/": "v1/smplx/",
        "sam2/checkpoints/": "v1/sam2/checkpoints/",
    }


def test_two_writers_of_the_state_do_not_lose_each_other(tmp_path: Path) -> None:
    put(tmp_path, {f"{number}/{file}": b"x" for number in (0, 1) for file in range(20)})
    states = [State(tmp_path), State(tmp_path)]
    for file in range(20):
        for number, state in enumerate(states):
            state.note(f"{number}/{file}", etag="e", sha256=None, verified=False)
            state.flush()
    assert len(State(tmp_path).entries()) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [".models-sync.json", "0", "1"]


def test_what_is_forgotten_stays_forgotten(tmp_path: Path) -> None:
    put(tmp_path, {"a": b"x", "b": b"x"})
    state = State(tmp_path)
    for name in ("a", "b"):
        state.note(name, etag="e", sha256=None, verified=False)
    state.flush()
    state.forget(["a"])
    state.flush()
    assert set(State(tmp_path).entries()) == {"b"}
