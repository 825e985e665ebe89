"""What a person or a log reads, and how work is stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from models_sync import cli, errors
from models_sync.console import _LogLines, sentence, size_text, time_text
from models_sync.meter import WorkMeter
from models_sync.progress import Phase, Progress


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (999_999, "1 MB"), (31e9, "31.0 GB")],
)
def test_sizes_are_in_decimal_units(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (4800, "80 min"), (8000, "2 h 13 min")],
)
def test_times_are_as_exact_as_anyone_wants_to_know(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(Phase.PLANNING), "planning"),
        (
            Progress(Phase.FETCHING, 12_400_000_000, 31_000_000_000, 3, 12, 210e6, 88.6),
            "fetching 12.4/31.0 GB, 3 of 12 files, 210 MB/s, 89 s left",
        ),
        (
            Progress(Phase.FETCHING, 0, 31_000_000_000, 0, 12),
            "fetching 0.0/31.0 GB, 0 of 12 files",
        ),
        (
            Progress(Phase.WAITING, 1_000_000, 2_000_000, 1, 2, 5e5, 2.0, "pod-7"),
            "waiting 1/2 MB, 1 of 2 files, 500 kB/s, 2 s left, by pod-7",
        ),
        (Progress(Phase.DONE, 5, 5, 2, 2, 0.0, 0.0), "done 5/5 B, 2 of 2 files"),
    ],
)
def test_progress_is_one_sentence(progress: Progress, text: str) -> None:
    assert sentence(progress) == text


def test_a_log_gets_a_line_each_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("models_sync.console.time.monotonic", lambda: now[0])
    lines = _LogLines()
    for second in range(31):
        now[0] = float(second)
        lines(Progress(Phase.FETCHING, second, 31, 0, 1))
    assert capsys.readouterr().err.splitlines() == [
        f"models-sync: fetching {second}/31 B, 0 of 1 files" for second in (10, 20, 30)
    ]


def test_progress_of_threads_is_told_a_few_times_a_second_and_at_the_end() -> None:
    seen: list[Progress] = []
    meter = WorkMeter(seen.append, None)
    meter.begin(Phase.UPLOADING, [1000, 24])
    for _ in range(1024):
        meter.advance(1)
    assert (seen[0].done_bytes, seen[-1].done_bytes) == (1, 1024)
    assert len(seen) < 20
    assert seen[-1].total_bytes == 1024
    assert seen[-1].eta_s == 0.0


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_work_that_hears_nothing_is_ended_within_two_seconds_whoever_reads(
    words: list[str],
) -> None:
    script = (
        "import time; from models_sync.console import stoppable\n"
        "with stoppable():\n"
        "    print('working', flush=True)\n"
        "    time.sleep(60)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr:
        with process.stdout:
            assert process.stdout.readline() == "working\n"
        asked_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
        assert time.monotonic() - asked_at < 2.0
        assert process.stderr.read() == "Stopped; what has arrived is kept. Run again to go on.\n"


ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from models_sync.cli import main; main()"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pull", "--help"], 0, "--json"),
        (["pull", "--jsn"], 2, "No such option"),
        (["pull", "--json", "smplx"], 2, "unexpected extra argument"),
        (["pul"], 2, "No such command"),
    ],
)
def test_a_pull_with_other_words_is_explained(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["pull", "plan"])
def test_nobody_who_reads_is_no_traceback(verb: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [*COMMAND, verb, "--json"],
            env={"PATH": os.defpath},  # no variable of ours: an error is printed
            cwd=ROOT,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


def test_control_c_before_the_work_begins_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["models-sync", "pull"])
    monkeypatch.setattr("models_sync.cli_pull.pull", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


def test_every_error_says_what_to_do_next() -> None:
    for code, kinds in errors.exit_codes().items():
        assert 0 < code < 256
        for kind in kinds:
            assert (kind.__doc__ or "").splitlines()[0].endswith(".")
            assert kind.advice.endswith("."), kind
            assert kind().message
