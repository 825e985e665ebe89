"""One container of the image, by docker, or by podman where there is no docker engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

RUN_TIMEOUT_S = 120.0
# crun, podman's own choice, needs cgroups that a build machine may not have; and without these
# limits podman asks for more than such a machine allows.
PODMAN_OPTIONS = (
    *("--ulimit", "nofile=1024:4096"),
    *("--ulimit", "nproc=4096:8192"),
)


class ContainerTrouble(RuntimeError):
    """The container program refused; its own words."""


@cache
def program() -> tuple[str, ...]:
    """The container program that works here.

    Raises:
        ContainerTrouble: there is none.
    """
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "info"], capture_output=True, check=False)
        if asked.returncode == 0:
            return ("docker",)
    if shutil.which("podman"):
        return ("podman", "--runtime", "runc") if shutil.which("runc") else ("podman",)
    raise ContainerTrouble(
        "Neither a docker engine nor podman is here (Debian: apt-get install podman runc)."
    )


def is_podman() -> bool:
    """Whether podman runs the containers."""
    return program()[0] == "podman"


def ask(*arguments: str, timeout_s: float = RUN_TIMEOUT_S) -> str:
    """Run a verb of the container program; return what it says.

    Raises:
        ContainerTrouble: it failed.
    """
    done = subprocess.run(
        [*program(), *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise ContainerTrouble(f"{' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout


def inspect_image(image: str) -> dict[str, Any]:
    """What the program knows of an image."""
    found: dict[str, Any] = json.loads(ask("image", "inspect", image))[0]
    return found


@dataclass(frozen=True)
class Ended:
    """How a container ended.

    Attributes:
        code: its exit code.
        seconds: from the signal, or from its start, to its end.
        said: what it wrote.
    """

    code: int
    seconds: float
    said: str


class Container:
    """A worker's container: read-only root, /tmp in memory, nothing inherited, no capability.

    Args:
        image: its name.
        environment: its variables.
        models: folder that is mounted at /app/models.
        mounts: what else is mounted: folder by its place in the container.
        arguments: of the image's entry point; the image's own when empty.
    """

    def __init__(
        self,
        image: str,
        environment: Mapping[str, str],
        models: Path,
        mounts: Mapping[str, Path] = MappingProxyType({}),
        arguments: Sequence[str] = (),
    ) -> None:
        options = [
            *("--network", "host", "--read-only", "--tmpfs", "/tmp:rw,size=1g,mode=1777"),
            *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--volume", f"{models}:/app/models"),
            *(PODMAN_OPTIONS if is_podman() else ()),
        ]
        for place, folder in mounts.items():
            options += ["--volume", f"{folder}:{place}"]
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        self.id = ask("create", *options, image, *arguments).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ask("rm", "--force", self.id)

    def start(self) -> None:
        """Start it."""
        ask("start", self.id)

    @property
    def started_at(self) -> float:
        """When its process was started, by `time.time()`."""
        text = self._inspect()["State"]["StartedAt"]
        # Nine digits after the point are more than Python 3.11 reads.
        head, _, tail = str(text).partition(".")
        digits = "".join(character for character in tail if character.isdigit())[:6]
        zone = "+00:00" if tail.endswith("Z") else tail[-6:]
        return datetime.fromisoformat(f"{head}.{digits.ljust(6, '0')}{zone}").timestamp()

    def execute(self, *command: str) -> tuple[int, str]:
        """Run a command inside; return its exit code and what it wrote."""
        done = subprocess.run(
            [*program(), "exec", self.id, *command],
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    def health(self) -> str:
        """What the image's HEALTHCHECK says now: `healthy`, or something else."""
        if is_podman():  # its timer is systemd's, so the check is run by hand
            done = subprocess.run(
                [*program(), "healthcheck", "run", self.id],
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
            )
            return "healthy" if done.returncode == 0 else done.stdout + done.stderr
        deadline = time.monotonic() + 40
        while (status := self._inspect()["State"]["Health"]["Status"]) == "starting":
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        return str(status)

    def signal(self, name: str = "TERM") -> Ended:
        """Send a signal and wait for the end."""
        began = time.monotonic()
        ask("kill", "--signal", name, self.id)
        code = int(ask("wait", self.id))
        return Ended(code, time.monotonic() - began, self.said())

    def run_to_its_end(self) -> Ended:
        """Start it, and wait until it ends by itself."""
        began = time.monotonic()
        self.start()
        code = int(ask("wait", self.id))
        return Ended(code, time.monotonic() - began, self.said())

    def said(self) -> str:
        """What it wrote so far."""
        done = subprocess.run(
            [*program(), "logs", self.id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        return done.stdout

    def _inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask("container", "inspect", self.id))[0]
        return found
