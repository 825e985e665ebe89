import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models_sync.bucket import RemoteObject
from models_sync.cli import main
from models_sync.errors import SyncSettingsError, UnsafeKey
from models_sync.plan import State, make_plan
from models_sync.settings import SyncSettings


def remote(path: str, content: bytes = b"12345", etag: str = "e1") -> RemoteObject:
    return RemoteObject(key=path, path=path, size=len(content), etag=etag)


def test_a_plan_says_why_each_file_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "smplx").mkdir()
    for name, content in {
        "ok": b"12345",
        "short": b"1",
        "old": b"12345",
        "stray": b"12345",
    }.items():
        (tmp_path / "smplx" / name).write_bytes(content)
    state = State(tmp_path)
    for name, etag in {"ok": "e1", "short": "e1", "old": "e0"}.items():
        state.record(f"smplx/{name}", etag)

    names = ("ok", "short", "old", "stray", "new")
    plan = make_plan([remote(f"smplx/{name}") for name in names], tmp_path, State(tmp_path))

    assert [item.path for item in plan.present] == ["smplx/ok"]
    assert {item.remote.path: item.reason for item in plan.fetch} == {
        "smplx/short": "has 1 bytes instead of 5",
        "smplx/old": "replaced in the bucket",
        "smplx/stray": "of unknown origin",
        "smplx/new": "missing",
    }
    assert plan.total_bytes == 20


@pytest.mark.parametrize(
    "path", ["smplx/../../etc/passwd", "/etc/passwd", "smplx/a\nb", "smplx//a", "smplx\\a", "a/"]
)
def test_a_name_that_is_no_plain_relative_path_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeKey):
        make_plan([remote(path)], tmp_path, State(tmp_path))


def test_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeKey, match="differ only in case"):
        make_plan([remote("smplx/A.npz"), remote("smplx/a.npz")], tmp_path, State(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_broken_state_file_only_costs_work(content: str, tmp_path: Path) -> None:
    (tmp_path / ".models-sync.json").write_text(content)
    state = State(tmp_path)
    assert state.etag("smplx/a") is None
    state.record("smplx/a", "e1")
    assert json.loads((tmp_path / ".models-sync.json").read_text()) == {"smplx/a": "e1"}


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


def test_two_writers_of_the_state_do_not_meet(tmp_path: Path) -> None:
    states = [State(tmp_path), State(tmp_path)]

    def record(number: int) -> None:
        for file in range(40):
            states[number].record(f"{number}/{file}", "e")

    with ThreadPoolExecutor() as pool:
        list(pool.map(record, (0, 1)))
    assert State(tmp_path).etag("0/39") or State(tmp_path).etag("1/39")
    assert [path.name for path in tmp_path.iterdir()] == [".models-sync.json"]
