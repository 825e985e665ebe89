"""One server process: a free port, a readiness check, restarts on the same port, an end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from worker.demo import tether
from worker.errors import AvatarError, DependencyError

START_SECONDS = 20.0
"""Valkey needs 0.2 s and the gateway 0.5 s on an idle machine; this is for a busy one."""
STOP_SECONDS = 5.0
LOG_TAIL_BYTES = 2000


def free_port() -> int:
    """A TCP port on the loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server that is ours: started, watched until ready, restarted, ended.

    The process leads its own session, so that Ctrl-C in a terminal reaches us alone and we end
    it in order; and it is tethered to us, so that it ends even when we are killed.

    Args:
        name: For messages and for the log file's name.
        command: Absolute path of the program, and its arguments.
        ready: Called until it returns True; an exception means "not yet", an `AvatarError`
            "never".
        log: Where stdout and stderr are appended.
        env: The whole environment of the process; nothing is inherited.
        error: What is raised when the server does not become ready.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        log: Path,
        env: Mapping[str, str],
        error: type[AvatarError] = DependencyError,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._ready = ready
        self._env = dict(env)
        self._error = error
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout_s: float = START_SECONDS) -> None:
        """Start the process and wait until it is ready.

        Raises:
            DependencyError: (or the error given) it ended or was not ready in time.
        """
        self.spawn()
        self.wait_ready(timeout_s=timeout_s)

    def spawn(self) -> None:
        """Start the process without waiting."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the command is ours, no shell
                [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )

    def wait_ready(self, *, timeout_s: float = START_SECONDS, poll_s: float = 0.02) -> None:
        """Wait until the readiness check passes, asking every `poll_s`; see `start`."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if not self.running:
                raise self._error(f"{self.name} ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise self._error(
                    f"{self.name} was not ready after {timeout_s:.0f} s:\n{self.log_tail()}"
                )
            time.sleep(poll_s)

    def _is_ready(self) -> bool:
        try:
            return self._ready()
        except AvatarError:  # the check knows that it never will be
            self.kill()
            raise
        except Exception:  # noqa: BLE001  # whatever a client raises, it means "not yet"
            return False

    def stop(self, *, timeout_s: float = STOP_SECONDS) -> int | None:
        """Ask the process to end (SIGTERM), then kill its group; the exit code, if it ran."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        return self.kill()

    def kill(self) -> int | None:
        """Kill the process and all that it started, now."""
        self._signal(signal.SIGKILL)
        if self._process is None:
            return None
        code = self._process.wait()
        self._process = None
        return code

    def freeze(self) -> None:
        """Stop the process from answering (SIGSTOP); a half-dead server, for tests."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def log_tail(self) -> str:
        """The last lines that the server wrote."""
        if not self.log.exists():
            return "(it wrote nothing)"
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
