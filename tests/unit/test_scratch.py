"""What a killed process leaves behind is removed by the next; what a living one needs stays."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from worker.scratch import scratch

HOLDER = """
import sys, tempfile
from pathlib import Path
from worker.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    tempfile.mkstemp(prefix="photo-")
    print(folder, flush=True)
    sys.stdin.read()
"""


def start(base: Path) -> tuple[subprocess.Popen[bytes], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().decode().strip())


def end(process: subprocess.Popen[bytes], number: signal.Signals | None = None) -> None:
    if number is not None:
        process.send_signal(number)
    process.communicate()


def test_temporary_files_lie_in_it_and_go_with_it(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with scratch(tmp_path) as folder:
        assert Path(tempfile.mkdtemp()).parent == folder
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() == before


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path) -> None:
    process, folder = start(tmp_path)
    end(process, signal.SIGKILL)
    assert any(path.name.startswith("photo-") for path in folder.iterdir())
    with scratch(tmp_path):
        assert not folder.exists()


def test_a_living_process_keeps_its_files(tmp_path: Path) -> None:
    process, folder = start(tmp_path)
    with scratch(tmp_path):
        assert folder.is_dir()
    assert folder.is_dir()
    end(process)
    assert not folder.exists()


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    strange = tmp_path / "avatar-scratch-strange"
    strange.mkdir()
    (strange / ".lock").symlink_to("/etc/hostname")  # O_NOFOLLOW refuses it
    (tmp_path / "else").mkdir()
    with scratch(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["avatar-scratch-strange", "else"]


def test_what_a_process_was_killed_while_removing_is_removed(tmp_path: Path) -> None:
    half = tmp_path / "avatar-scratch-half"
    half.mkdir()
    (half / "photo-1").write_bytes(b"x")
    with scratch(tmp_path):
        assert not half.exists()
