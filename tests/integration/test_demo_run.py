"""`avatar-worker demo` as a person runs it: the sample once, Ctrl-C, a part that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.contract import Measurements

pytestmark = pytest.mark.timeout(300)
COMMAND = (sys.executable, "-m", "worker", "demo", "--no-open")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


def environment(folder: Path) -> dict[str, str]:
    """Ours, with temporary files in `folder`, so that what is left behind can be seen."""
    return {**os.environ, "TMPDIR": str(folder)}


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of the living processes that were told of `folder`, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder).encode() in told:
            found[int(entry.name)] = command
    return found


@contextmanager
def running_demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, once it has said that it is ready."""
    process = subprocess.Popen(
        COMMAND, env=environment(folder), stderr=subprocess.PIPE, text=True, cwd=folder.parent
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "The worker's log" in line:
                break
        else:
            pytest.fail("the demo did not start:\n" + "".join(said))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "temporary"
    made.mkdir()
    return made


@needs_proc
def test_the_sample_is_measured_once_and_nothing_is_left_behind(folder: Path) -> None:
    done = subprocess.run(
        COMMAND,
        env={**environment(folder), "DEMO_ONCE": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    assert any("waist" in row and "off by" not in row for row in table)
    outcome = json.loads(line)
    names = {field.alias for field in Measurements.model_fields.values()}
    assert set(outcome["measurements"]) == names
    assert set(outcome["truth"]) <= names
    assert outcome["status"] == "completed"
    assert outcome["qualityReport"]["confidence"] in {"high", "medium", "low"}
    assert set(outcome["iou"]) == {"front", "side"}
    assert all(0.8 < iou <= 1 for iou in outcome["iou"].values())
    assert 10_000 < outcome["glbBytes"] <= 2_000_000
    assert processes_of(folder) == {}
    assert list(folder.iterdir()) == []


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_told_to_end_ends_everything(folder: Path, number: signal.Signals) -> None:
    with running_demo(folder) as demo:
        told = processes_of(folder)
        assert len(told) >= 4, told  # the demo, Valkey, the gateway, the worker
        demo.send_signal(number)
        assert demo.wait(timeout=30) == 0
    assert processes_of(folder) == {}
    assert list(folder.iterdir()) == []


@needs_proc
def test_a_worker_that_dies_ends_the_demo_with_its_last_words(folder: Path) -> None:
    with running_demo(folder) as demo:
        [worker] = [pid for pid, line in processes_of(folder).items() if "-m worker run" in line]
        os.kill(worker, signal.SIGKILL)
        _, said = demo.communicate(timeout=30)
        assert demo.returncode == 1
    assert "The worker ended on its own" in said
    assert processes_of(folder) == {}
    assert list(folder.iterdir()) == []
