"""What a person or a log sees of running work, and how a wish to stop reaches it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from models_sync.errors import Interrupted, SyncError
from models_sync.progress import OnProgress, Phase, Progress

LOG_EVERY_S = 10.0
GRACE_S = 1.5
"""How long work may take to stop: RunPod's SIGKILL comes 5 s after SIGTERM, and an upload that
waits for the network hears nothing.  Being killed at any moment loses nothing that was whole."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STOPPED = "Stopped; what has arrived is kept. Run again to go on."


def size_text(count: float) -> str:
    """`12.4 GB`: decimal units, as disks and networks are sold."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def time_text(seconds: float) -> str:
    """`4 min`, `50 s`, `1 h 20 min`: as exact as anyone wants to know."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def sentence(progress: Progress) -> str:
    """`fetching 12.4/31.0 GB, 3 of 12 files, 210 MB/s, 4 min left`: a log line, a health page."""
    if progress.phase is Phase.PLANNING or not progress.files_total:
        return str(progress.phase)
    parts = [
        f"{progress.phase} {_of(progress.done_bytes, progress.total_bytes)}",
        f"{progress.files} of {progress.files_total} files",
    ]
    if progress.rate > 0:
        parts.append(f"{size_text(progress.rate)}/s")
    if progress.eta_s is not None and progress.phase is not Phase.DONE:
        parts.append(f"{time_text(progress.eta_s)} left")
    if progress.waiting_for:
        parts.append(f"by {progress.waiting_for}")
    return ", ".join(parts)


def _of(done: int, total: int) -> str:
    """`12.4/31.0 GB`: one unit for both."""
    whole = size_text(total)
    unit = whole.rpartition(" ")[2]
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    return f"{done / scale:.{1 if unit == 'GB' else 0}f}/{whole}"


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set; the process ends within two seconds of it.

    A second signal ends it at once.

    Raises:
        SystemExit: the work gave in to a signal: 143 for SIGTERM, 130 for SIGINT.
    """
    cancel, said = threading.Event(), threading.Event()
    received: list[int] = []

    def give_up(code: int) -> None:
        if not said.is_set():
            if wants_json():
                _write(1, json.dumps(as_object(Interrupted())))
            _write(2, _STOPPED)
        os._exit(code)

    def stop(number: int, _: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        cancel.set()
        deadline = threading.Timer(GRACE_S, give_up, (128 + number,))
        deadline.daemon = True
        deadline.start()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield cancel
    except Interrupted as error:
        said.set()
        if wants_json():
            print_json(as_object(error))
        say(_STOPPED, err=True)
        raise SystemExit(128 + received[0] if received else error.exit_code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown() -> Iterator[OnProgress]:
    """Show progress on stderr: a bar while a person watches, else a line each ten seconds."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _LogLines()


class _LogLines:
    """A line each ten seconds, from whichever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_s = time.monotonic() + LOG_EVERY_S

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if time.monotonic() < self._next_s:
                return
            self._next_s = time.monotonic() + LOG_EVERY_S
            say(f"models-sync: {sentence(progress)}", err=True)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    # Here, because a pull on a server needs none of it.
    from rich.console import Console  # noqa: PLC0415 - it costs 50 ms and 3 MB
    from rich.progress import BarColumn, TextColumn  # noqa: PLC0415 - as above
    from rich.progress import Progress as Bars  # noqa: PLC0415 - as above

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        console=Console(stderr=True),
        refresh_per_second=5,
        transient=True,
    ) as bars:
        task = bars.add_task("planning", total=None)

        def show(progress: Progress) -> None:
            bars.update(
                task,
                description=sentence(progress),
                completed=progress.done_bytes,
                total=progress.total_bytes or None,
            )

        yield show


def report(error: SyncError, *, as_json: bool) -> None:
    """Say an error as a sentence and what to do; with `--json`, as an object on stdout too."""
    if as_json:
        print_json(as_object(error))
    say(f"{type(error).__name__}: {error.message}\n{error.advice}", err=True)


def as_object(error: SyncError) -> dict[str, object]:
    """An error as `--json` has it."""
    problem = {"code": type(error).__name__, "message": error.message, "advice": error.advice}
    return {"error": problem}


def wants_json() -> bool:
    """Whether this process was called with `--json`: one object on stdout, whatever happens."""
    return "--json" in sys.argv


def say(text: str, *, err: bool = False) -> None:
    """Print a line at once, on stdout or stderr."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def _write(descriptor: int, line: str) -> None:
    """Write a line past buffers, whose lock the work may hold, whether or not anyone reads it."""
    with suppress(OSError):
        os.write(descriptor, f"{line}\n".encode())


def print_json(value: object) -> None:
    """Print the one object of `--json`."""
    say(json.dumps(value))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table for a person, lines with tabs for a program; nothing when it is empty."""
    if not rows:
        return
    if not sys.stdout.isatty():  # for a pipe: nothing is cut off
        for row in rows:
            say("\t".join(row))
        return
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
