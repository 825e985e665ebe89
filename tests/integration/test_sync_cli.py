"""`models-sync` as a process: every verb, its JSON, its exit code, and signals."""

import json
import os
import pickle
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from models_sync import errors
from models_sync.cli import main
from worker.demo.stack import EmbeddedStack

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "models.md"
COMMAND = [sys.executable, "-c", "from models_sync.cli import main; main()"]
FILES = {
    "smplx/SMPLX_NEUTRAL.npz": os.urandom(100_000),
    "pixie/pixie_model.tar": b"weights",
    "sam2/checkpoints/sam2.1_hiera_large.pt": b"checkpoint",
}
_number = iter(range(1000))


@dataclass(frozen=True)
class Done:
    """How a verb ended and what it wrote."""

    code: int
    out: str
    err: str


class Shell:
    """Runs verbs with one environment, in this process: a new one takes a second each time."""

    def __init__(
        self,
        stack: EmbeddedStack,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.folder, self.volume = folder, folder / "volume"
        bucket = f"cli-{next(_number)}"
        stack.minio(stack.root).make_bucket(bucket_name=bucket)
        for code in ("PIXIE", "sam2"):
            (folder / code).mkdir()
        for name, content in FILES.items():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes(content)
        self.environment = {
            "MODEL_SYNC_MINIO_ENDPOINT": stack.s3_url,
            "MODEL_SYNC_MINIO_BUCKET": bucket,
            "MODEL_SYNC_MINIO_ACCESS_KEY": stack.root.access_key,
            "MODEL_SYNC_MINIO_SECRET_KEY": stack.root.secret_key,
            "MODEL_SYNC_LOCAL_ROOT": str(self.volume),
            "MODEL_SYNC_SOURCES": "smplx,pixie,sam2",
            "PIXIE_MODEL_DIR": str(folder / "PIXIE"),
            "SAM3DBODY_SEGMENTOR_PATH": str(folder / "sam2"),
        }

    def run(self, *words: str, **changes: str) -> Done:
        with self._monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["models-sync", *words])
            for name, value in (self.environment | changes).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        written = self._capsys.readouterr()
        return Done(int(ended.value.code or 0), written.out, written.err)

    def json(self, *words: str, **changes: str) -> Any:
        done = self.run(*words, "--json", **changes)
        assert done.code == 0, done.err
        return json.loads(done.out)


@pytest.fixture
def shell(
    stack: EmbeddedStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    return Shell(stack, tmp_path, monkeypatch, capsys)


def test_from_an_empty_bucket_to_files_in_their_places(shell: Shell, tmp_path: Path) -> None:
    """The whole of docs/howto/models.md, as an operator does it."""
    made = shell.run("keygen", str(tmp_path / "models-sync.key")).out
    # As an env file has it: what follows the sign is the value, to the end of the line.
    keys = dict(re.findall(r"^(MODEL_SYNC_\w+)=(.*)$", made, re.MULTILINE))
    assert set(keys) == {"MODEL_SYNC_SIGNING_KEY", "MODEL_SYNC_PUBLIC_KEY"}

    said = shell.run("publish", str(shell.folder / "source"), **keys)
    assert (said.code, "the manifest is signed" in said.out) == (0, True), said.err
    assert "smplx/SMPLX_MALE.npz" in said.err, "what is missing is said"

    reader = dict(re.findall(r"(MODEL_SYNC_\w+)=(\S+)", shell.run("make-reader").out))
    assert reader["MODEL_SYNC_MINIO_ACCESS_KEY"] == "models-reader"
    environment = reader | {"MODEL_SYNC_PUBLIC_KEY": keys["MODEL_SYNC_PUBLIC_KEY"]}

    planned = shell.json("plan", **environment)
    assert {item["path"] for item in planned["fetch"]} == set(FILES)
    assert planned["howLong"]["readBytes"] == planned["totalBytes"], "less than a second's worth"
    assert 0 < planned["howLong"]["seconds"] < 10
    assert not shell.volume.exists(), "a plan writes nothing"
    assert "read and thrown away" in shell.run("plan", **environment).out
    assert shell.json("plan", "--no-measure", **environment)["howLong"] is None
    pulled = shell.json("pull", **environment)
    assert (set(pulled["fetched"]), pulled["verified"]) == (set(FILES), "signed manifest")
    assert shell.json("verify", **environment) == {"bad": []}
    assert shell.json("verify", "--full", **environment) == {"bad": []}

    placed = shell.json("place", **environment)
    assert {file["how"] for file in placed["files"]} == {"linked"}
    assert (tmp_path / "PIXIE/data/pixie_model.tar").read_bytes() == b"weights"
    assert {file["how"] for file in shell.json("place", **environment)["files"]} == {"there"}

    assert shell.json("publish", str(shell.folder / "source"), **keys)["uploaded"] == []
    assert shell.json("prune", "--dry-run", **environment)["remove"] == []


def test_verify_names_what_is_wrong_and_ends_with_its_code(shell: Shell) -> None:
    shell.json("publish", str(shell.folder / "source"))
    shell.json("pull")
    (shell.volume / "smplx/SMPLX_NEUTRAL.npz").write_bytes(b"cut off")
    for words in (["verify"], ["verify", "--full"], ["verify", "--bucket"]):
        done = shell.run(*words, "--json")
        assert done.code == errors.WeightsIncomplete.exit_code
        found = json.loads(done.out)
        assert found["bad"][0]["path"] == "smplx/SMPLX_NEUTRAL.npz"
        assert found["error"]["code"] == "WeightsIncomplete"
        assert "smplx/SMPLX_NEUTRAL.npz (has 7 bytes instead of 100,000)" in done.err


def test_verify_against_the_bucket_takes_files_that_were_copied_by_hand(shell: Shell) -> None:
    shell.json("publish", str(shell.folder / "source"))
    for name, content in FILES.items():
        (shell.volume / name).parent.mkdir(parents=True, exist_ok=True)
        (shell.volume / name).write_bytes(content)
    no_manifest = shell.run("verify", "--full")
    assert no_manifest.code == errors.ManifestAbsent.exit_code
    assert "verify --bucket" in no_manifest.err
    assert shell.json("verify", "--bucket") == {"bad": []}
    assert shell.json("verify") == {"bad": []}
    assert shell.json("pull")["fetched"] == []


def test_prune_asks_and_removes_only_when_it_is_told_to(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shell.folder / "source"
    shell.json("publish", str(source))
    shell.json("pull")
    (source / "pixie/pixie_model.tar").unlink()
    (source / "pixie/other.tar").write_bytes(b"x")
    shell.json("publish", str(source), "--mirror")
    shell.json("pull")
    old = shell.volume / "pixie/pixie_model.tar"

    asked = shell.run("prune")
    assert (asked.code, "--yes" in asked.err) == (2, True)
    assert [Path(file["path"]) for file in shell.json("prune", "--dry-run")["remove"]] == [old]
    assert old.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", mock.Mock(side_effect=PermissionError(13, "not yours")))
        failed = shell.run("prune", "--yes", "--json")
    assert "removed" not in json.loads(failed.out), "one object, and no word of what was not done"
    assert failed.code == 7
    assert shell.json("prune", "--yes")["removed"]
    assert not old.exists()
    assert (shell.volume / "pixie/other.tar").exists()


def test_convert_smplx_writes_numbers_and_refuses_a_pickle_that_runs(shell: Shell) -> None:
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    good = shell.folder / "SMPLX_NEUTRAL.pkl"
    good.write_bytes(pickle.dumps({name: np.ones((2, 3)) for name in names} | {"name": "x"}, 2))
    done = shell.json("convert-smplx", str(good))
    assert (done["arrays"]["f"], done["leftOut"]) == ([2, 3], ["name"])
    again = shell.run("convert-smplx", str(good))
    assert again.code == errors.PlacementBlocked.exit_code
    assert shell.run("convert-smplx", str(good), "--force").code == 0

    bad = shell.folder / "SMPLX_MALE.pkl"
    bad.write_bytes(b"cos\nsystem\n(S'touch " + str(shell.folder / "ran").encode() + b"'\ntR.")
    refused = shell.run("convert-smplx", str(bad))
    assert refused.code == errors.PickleRefused.exit_code
    assert "os.system" in refused.err
    assert not (shell.folder / "ran").exists()


def test_place_and_verify_need_no_variable_of_the_bucket(shell: Shell) -> None:
    environment = {name: "" for name in shell.environment if "_MINIO_" in name}
    assert shell.run("place", **environment).code == 0
    done = shell.run("verify", **environment)
    assert done.code == errors.WeightsIncomplete.exit_code
    assert "smplx/SMPLX_NEUTRAL.npz (missing)" in done.err


@pytest.mark.parametrize(
    ("words", "changes", "kind", "said"),
    [
        (["publish", "/nowhere"], {}, errors.SourceUnusable, "/nowhere"),
        (["publish", "."], {"MODEL_SYNC_SIGNING_KEY": "/no.key"}, errors.SourceUnusable, "smplx/"),
        (["publish", ".", "--licence", "flame=MIT"], {}, errors.SyncSettingsError, "flame"),
        (["pull"], {"MODEL_SYNC_PUBLIC_KEY": "abc"}, errors.SyncError, "MODEL_SYNC_PUBLIC_KEY"),
        (["pull"], {"MODEL_SYNC_MINIO_SECRET_KEY": "wrong"}, errors.BucketRefused, "Signature"),
        (["make-reader"], {"MODEL_SYNC_MINIO_SECRET_KEY": "wrong"}, errors.AdminUnavailable, ""),
        (["convert-smplx", "/no.pkl"], {}, errors.NotABodyModel, "/no.pkl"),
    ],
)
def test_every_error_has_a_name_advice_and_an_exit_code(
    shell: Shell, words: list[str], changes: dict[str, str], kind: type[errors.SyncError], said: str
) -> None:
    done = shell.run(*words, **changes)
    name, _, message = done.err.partition(": ")
    raised = getattr(errors, name)
    assert issubclass(raised, kind), done.err
    assert done.code == raised.exit_code
    assert said in message
    assert raised.advice.split()[0] in message
    assert shell.environment["MODEL_SYNC_MINIO_SECRET_KEY"] not in done.err + done.out


# ---------------------------------------------------------------- progress and signals
def slow_environment(shell: Shell) -> dict[str, str]:
    """Enough to publish that a signal finds it under way."""
    large = shell.folder / "source" / "sam2/checkpoints/large.pt"
    with large.open("wb") as file:
        file.truncate(3_000_000_000)  # a hole: nothing is written
    return os.environ | shell.environment


def test_sigterm_ends_the_work_in_under_two_seconds(shell: Shell) -> None:
    ready, told = os.pipe()
    script = (
        "import os, sys; from models_sync import console\n"
        "console.LOG_EVERY_S = 0.1\n"
        "from models_sync.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "publish", str(shell.folder / "source")],
        env=slow_environment(shell),
        stderr=told,
        stdout=subprocess.DEVNULL,
    )
    os.close(told)
    with os.fdopen(ready) as lines:
        assert re.match(r"models-sync: checking \d", lines.readline())
        asked_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
        assert time.monotonic() - asked_at < 2.0
        assert "Run again" in lines.read()


def test_a_person_at_a_terminal_sees_a_bar_with_rate_and_time_left(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "publish", str(shell.folder / "source")],
        env=slow_environment(shell) | {"TERM": "xterm", "COLUMNS": "160"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    seen, deadline = "", time.monotonic() + 20
    pattern = re.compile(r"checking 0\.\d/3\.0 GB, \d of \d files, \d+ [kM]B/s, \d+ s left")
    while not pattern.search(seen) and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.5)[0]:
            seen += os.read(ours, 65536).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    reader = threading.Thread(target=_drain, args=(ours,))
    reader.start()
    assert process.wait(10) == 130
    reader.join()
    assert pattern.search(seen), seen[-500:]


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # the other side is closed
        os.close(descriptor)


# ---------------------------------------------------------------- what is documented
def test_every_exit_code_is_documented() -> None:
    documented = dict(re.findall(r"^\| (\d+) \| (.*?) \|", PAGE.read_text(), re.MULTILINE))
    known = {
        str(code): ", ".join(f"`{kind.__name__}`" for kind in kinds)
        for code, kinds in errors.exit_codes().items()
    }
    assert {code: documented.get(code) for code in known} == known


def test_every_verb_explains_itself(shell: Shell) -> None:
    listed = shell.run("--help").out
    for verb in (
        *("plan", "pull", "verify", "publish", "prune", "place", "convert-smplx"),
        *("keygen", "policy", "make-reader", "exit-codes"),
    ):
        assert verb in listed
        assert f"models-sync {verb}" in PAGE.read_text(), f"{verb} is on no page"


def test_nothing_heavy_is_imported_to_find_that_there_is_nothing_to_do() -> None:
    script = (
        "import sys; import models_sync.cli, models_sync.transfer\n"
        "print([name for name in ('numpy', 'rich.progress', 'torch', 'models_sync.publish')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_pull_imports_nothing_that_it_does_not_need(shell: Shell) -> None:
    """Each of them takes 2 to 80 ms of processor before the first byte is asked for."""
    shell.json("publish", str(shell.folder / "source"))
    others = {
        *("argparse", "asyncio", "concurrent.futures", "ctypes", "email", "http.client", "logging"),
        *("minio", "numpy", "pydantic", "rich", "subprocess", "typer", "uuid"),
    }
    script = (
        "import sys; from models_sync.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    print(*({others} & {{*sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "pull"],
        env=os.environ | shell.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said, imported = done.stdout.split("\n", 1)
    assert said.startswith("3 files")
    assert imported.split() == []
