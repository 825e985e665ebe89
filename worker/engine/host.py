"""What the engine process arranges with Linux; elsewhere these do nothing."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import sys
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From linux/prctl.h."""
OOM_SCORE_ADJ_MAX: Final = 1000
"""From linux/oom.h."""


def end_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, at the latest with it.

    The end of the command pipe says so too, but nobody reads it while native code holds the
    interpreter, and an orphan would keep the GPU.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def be_the_first_to_go() -> None:
    """Have Linux end this process, not the worker, when the container's memory is used up."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ_MAX), encoding="ascii")


def rss_bytes() -> int:
    """Tell this process's resident memory; its highest so far where /proc is not there."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(pages) * resource.getpagesize()
