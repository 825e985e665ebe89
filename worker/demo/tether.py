"""Run a command that ends when the process which started it does.

`python -I -S tether.py PARENT_PID COMMAND…` asks Linux to kill it with its parent
(PR_SET_PDEATHSIG), then becomes the command.  Without it, a parent that is killed with SIGKILL
would leave its servers behind.  Elsewhere than on Linux the command simply runs.

Linux ties the signal to the *thread* that started the child, so start servers from a thread that
lives as long as they should: the main one.  Only the standard library is imported, so that this
costs 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main(argv: list[str]) -> None:
    """Tie this process to its parent, then replace it with the command."""
    parent_pid, command = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before we asked
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
