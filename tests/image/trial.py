"""What is tried on the image, and what came of it."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from tests.image.container import Container, inspect_image
from tests.image.starts import FATAL, WAITING, WRONG_SETTINGS, Start
from worker.demo.api import ApiConfig, create_api
from worker.demo.page import SAMPLE
from worker.demo.sample import SamplePerson, run_sample, summary
from worker.demo.serve import ApiServer
from worker.demo.servers import free_port
from worker.demo.stack import EmbeddedStack
from worker.demo.store import Store

MB: Final = 1e6
CPU_IMAGE_MB: Final = 1600
CUDA_IMAGE_MB: Final = 6500
HEALTH_S: Final = 1.0
READY_S: Final = 8.0
STOP_S: Final = 3.0
WAIT_S: Final = 60.0
"""How long we wait for what must come; the figures have limits of their own."""
FIND_SECRETS: Final = (
    "import os; print([n for n in ('/etc/pip.conf', '/run/secrets') "
    "if os.path.exists(n) and (os.path.isdir(n) and os.listdir(n) or os.path.getsize(n))])"
)
CPU_SECONDS: Final = (
    "import glob, os; print(sum(int(t) for f in glob.glob('/proc/[0-9]*/stat') "
    "for t in open(f).read().rpartition(')')[2].split()[11:13]) / os.sysconf('SC_CLK_TCK'))"
)
PIXIE_DATA: Final = "/app/src/pipeline/PIXIE/data"
"""A link to the volume in the image; an operator may mount a folder there instead."""
FIND_VENDORS: Final = """
import json, pathlib
from worker.avatar.vendor_code import import_vendor
built = json.load(open("/app/vendors.json"))
for vendor in built:
    assert any(pathlib.Path(vendor["folder"]).iterdir()), vendor
    if vendor["name"] == "sam2":
        import_vendor(pathlib.Path(vendor["folder"]), "sam2.build_sam", variable="")
print(", ".join(vendor["name"] for vendor in built))
"""
FIND_NONCOMMERCIAL: Final = """
import importlib.util, json, pathlib
found = [name for name in ("smplx", "pixielib") if importlib.util.find_spec(name)]
found += [v["licence"] for v in json.load(open("/app/vendors.json")) if "MPI" in v["licence"]]
found += [str(p) for p in pathlib.Path("/app", "src").rglob("*.py")]
print(found)
"""
FIND_FILES: Final = (
    "import os; print([f for _, _, files in os.walk('/tmp') for f in files if f != '.lock'])"
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was looked at.
        seen: what came of it.
        wanted: what it should be.
        good: whether it is.
    """

    what: str
    seen: str
    wanted: str
    good: bool


class Trial:
    """Tries an image against real servers.

    Args:
        image: its name.
        api: the API's URL.
        environment: a worker's good variables.
        models: an empty folder that the image's user may write to.
        mounted: a folder with a file `marker`, to be mounted inside.
        commit: that it should have been built from.
        starts: how often the start is timed; the shortest counts, since others use the machine.
    """

    def __init__(
        self,
        image: str,
        api: str,
        environment: Mapping[str, str],
        models: Path,
        mounted: Path,
        *,
        commit: str,
        starts: int,
    ) -> None:
        self._image = image
        self._wanted = commit
        self._starts = starts
        self._api = api
        self._environment = environment
        self._models = models
        self._mounted = mounted
        self.rows: list[Row] = []
        self.job: dict[str, Any] = {}

    def run(self) -> None:
        """Try everything."""
        self._look_at_the_image()
        self._time_starts()
        self._work_in_it()
        for start in FATAL:
            self._refuse(start)
        for start in WAITING:
            self._stay_up(start)

    # ------------------------------------------------------------ the image
    def _look_at_the_image(self) -> None:
        facts = inspect_image(self._image)
        variables = dict(entry.split("=", 1) for entry in facts["Config"]["Env"])
        labels = facts["Config"]["Labels"] or {}
        self._commit = labels.get("org.opencontainers.image.revision", "")
        self._is_cpu = labels.get("avatar-worker.torch") == "cpu"
        self._may_be_public = labels.get("avatar-worker.with-noncommercial") == "0"
        limit = CPU_IMAGE_MB if self._is_cpu else CUDA_IMAGE_MB
        size = facts["Size"] / MB
        self._note("size", f"{size:.0f} MB", f"≤ {limit} MB", size <= limit)
        user = facts["Config"]["User"]
        self._note("user of the image", user, "not root", user not in {"", "0", "root"})
        self._note(
            "commit of image, variable",
            f"{self._commit[:12]}, {variables.get('GIT_COMMIT', '')[:12]}",
            f"both {self._wanted[:12]}",
            self._commit == self._wanted == variables.get("GIT_COMMIT"),
        )

    # ------------------------------------------------------------ a working container
    def _time_starts(self) -> None:
        """Start and stop it idle, several times."""
        health, ready, stop = [], [], []
        for _ in range(self._starts):
            with self._worker() as (container, client):
                container.start()
                health_at, ready_at = _answered(client, "/health"), _answered(client, "/ready")
                health.append(health_at - container.started_at)
                ready.append(ready_at - container.started_at)
                stop.append(container.signal().seconds)
        self._times("start to /health", health, HEALTH_S)
        self._times("start to /ready", ready, READY_S)
        self._times("SIGTERM to the end, idle", stop, STOP_S)

    def _work_in_it(self) -> None:
        token = secrets.token_urlsafe(12)
        mounts = {PIXIE_DATA: self._mounted}
        with self._worker(mounts, WORKER_TOKEN=token) as (container, client):
            container.start()
            _answered(client, "/ready")
            _, spent = container.execute("python", "-c", CPU_SECONDS)
            # What the start costs on a machine that others use too.
            self._times("CPU time of the start", [float(spent)], READY_S)
            self._look_inside(container)
            health = container.health()
            self._note("HEALTHCHECK", health, "healthy", health == "healthy")
            self._identity(client, token)
            self._sample(container)
            ended = container.signal()
            self._times("SIGTERM to the end", [ended.seconds], STOP_S)
            self._note("its exit code", str(ended.code), "0", ended.code == 0)

    @contextmanager
    def _worker(
        self, mounts: Mapping[str, Path] = MappingProxyType({}), **variables: str
    ) -> Iterator[tuple[Container, httpx.Client]]:
        port = free_port()
        environment = self._environment | {"WORKER_PORT": str(port)} | variables
        with (
            Container(self._image, environment, self._models, mounts) as container,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client,
        ):
            yield container, client

    def _look_inside(self, container: Container) -> None:
        _, user = container.execute("python", "-c", "import os; print(os.getuid(), os.getgid())")
        self._note("runs as", user, "not 0", bool(user) and "0" not in user.split())
        for path, writable in (
            ("/app", False), ("/opt/venv", False), ("/tmp", True), ("/app/models", True)
        ):  # fmt: skip
            code, _ = container.execute(
                "python", "-c", f"import tempfile as t; t.TemporaryFile(dir='{path}')"
            )
            seen = "writable" if code == 0 else "read-only"
            wanted = "writable" if writable else "read-only"
            self._note(path, seen, wanted, seen == wanted)
        code = "from shutil import which; print([n for n in ('cc', 'gcc', 'make') if which(n)])"
        _, found = container.execute("python", "-c", code)
        self._note("compilers", found, "[]", found == "[]")
        _, seen = container.execute("python", "-c", f"import os; print(os.listdir('{PIXIE_DATA}'))")
        self._note("PIXIE/data, mounted", seen, "['marker']", seen == "['marker']")
        self._look_at_vendors(container)
        _, left = container.execute("python", "-c", FIND_SECRETS)
        self._note("build secrets left", left, "[]", left == "[]")
        children = "import subprocess, sys; sys.exit(subprocess.call(['pip', 'check']))"
        code, said = container.execute("python", "-c", children)
        self._note("pip check", "good" if code == 0 else said[-200:], "good", code == 0)

    def _look_at_vendors(self, container: Container) -> None:
        """Every vendor's code is where the record says; SAM 2's can be imported, if it is there."""
        code, said = container.execute("python", "-c", FIND_VENDORS)
        self._note("vendors' code", said[-80:] or "none", "there, at its pins", code == 0)
        if self._may_be_public:
            _, found = container.execute("python", "-c", FIND_NONCOMMERCIAL)
            self._note("non-commercial code", found[-200:], "[]", found == "[]")

    def _identity(self, client: httpx.Client, token: str) -> None:
        code = client.get("/v1/ping").status_code
        self._note("/v1/ping without a token", str(code), "401", code == httpx.codes.UNAUTHORIZED)
        answer = client.get("/v1/ping", headers={"authorization": f"Bearer {token}"})
        commit = answer.json()["identity"]["gitCommit"] or ""
        self._note(
            "/v1/ping tells the commit", commit[:12], self._commit[:12], commit == self._commit
        )

    def _sample(self, container: Container) -> None:
        person = SamplePerson.load(SAMPLE)
        outcome = run_sample(self._api, person, on_progress=lambda _: None, timeout_s=300)
        self.job = summary(outcome, person)
        error = self.job["meanAbsErrorCm"]
        self._note(
            "the sample person", f"{outcome.seconds:.1f} s, off by {error} cm", "≤ 3 cm", error <= 3
        )
        # Nothing of the job may stay where another could read it.
        _, left = container.execute("python", "-c", FIND_FILES)
        self._note("left in /tmp after the job", left, "[]", left == "[]")

    # ------------------------------------------------------------ starts that go wrong
    def _refuse(self, start: Start) -> None:
        with (
            _taken_port() as taken,
            Container(self._image, self._changed(start, taken), self._models) as container,
        ):
            ended = container.run_to_its_end()
        lines = ended.said.strip().splitlines()
        clear = start.says in ended.said and "Traceback" not in ended.said
        self._note(
            start.name,
            f"code {ended.code}: {_line_with(lines, start.says)}",
            f"code {WRONG_SETTINGS} and the reason",
            ended.code == WRONG_SETTINGS and clear,
        )

    def _stay_up(self, start: Start) -> None:
        if start.with_cuda and not self._is_cpu:
            start = replace(start, says=start.with_cuda)
        port = free_port()
        with (
            Container(self._image, self._changed(start, port), self._models) as container,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client,
        ):
            container.start()
            reason = _reason(client, start.says)
            answers = _answers(client)
        self._note(
            start.name,
            f"{answers}: {reason}"[:100],
            "up, not ready, with the reason",
            answers == "/health 200, /ready 503" and start.says in reason,
        )

    def _changed(self, start: Start, port: int) -> dict[str, str]:
        changed = dict(self._environment) | {"WORKER_PORT": str(port if start.stays_up else 0)}
        for name, value in start.changes.items():
            if value is None:
                changed.pop(name, None)
            else:
                changed[name] = str(port) if value == "TAKEN" else value
        return changed

    # ------------------------------------------------------------ notes
    def _times(self, what: str, seconds: list[float], limit: float) -> None:
        each = ", ".join(f"{one:.2f}" for one in seconds)
        self._note(what, f"{each} s", f"≤ {limit:g} s", min(seconds) <= limit)

    def _note(self, what: str, seen: str, wanted: str, good: bool) -> None:
        self.rows.append(Row(what, seen, wanted, bool(good)))


@contextmanager
def prepared(image: str, folder: Path, *, commit: str, starts: int) -> Iterator[Trial]:
    """A trial with its servers: the embedded stack and the demo's API.

    Args:
        image: what is tried.
        folder: an empty one, for the models' volume and the API's data.
        commit: that it should have been built from.
        starts: how often the start is timed.
    """
    models = folder / "models"
    models.mkdir()
    models.chmod(0o777)  # the image's user is nobody here
    mounted = folder / "mounted"
    mounted.mkdir()
    (mounted / "marker").touch()
    token = secrets.token_urlsafe(16)
    with EmbeddedStack() as stack:
        store = Store(folder / "api.sqlite")
        config = ApiConfig(
            redis_url=stack.redis_url,
            storage=stack.minio(stack.api),
            bucket=stack.bucket,
            public_base_url=stack.s3_url,
            token=token,
        )
        with ApiServer(create_api(config, store)) as api:
            environment = stack.worker_environment() | {
                "API_BASE_URL": api.url,
                "API_TOKEN": token,
                "OMP_NUM_THREADS": "2",
            }
            yield Trial(image, api.url, environment, models, mounted, commit=commit, starts=starts)
        store.close()


def _answered(client: httpx.Client, path: str) -> float:
    """Ask until it is 200; return when that was."""
    deadline = time.time() + WAIT_S
    while time.time() < deadline:
        with suppress(httpx.TransportError):
            if client.get(path).is_success:
                return time.time()
        time.sleep(0.01)
    raise TimeoutError(f"{path} was not 200 within {WAIT_S:g} s.")


def _reason(client: httpx.Client, awaited: str) -> str:
    """Read the reason on /ready until it has a part, or for as long as we wait."""
    reason = ""
    deadline = time.time() + WAIT_S
    while awaited not in reason and time.time() < deadline:
        with suppress(httpx.TransportError):
            reason = str(client.get("/ready").json().get("reason", ""))
        time.sleep(0.1)
    return reason


def _answers(client: httpx.Client) -> str:
    try:
        return ", ".join(f"{path} {client.get(path).status_code}" for path in ("/health", "/ready"))
    except httpx.TransportError as error:
        return f"it does not answer ({error})"


@contextmanager
def _taken_port() -> Iterator[int]:
    with socket.create_server(("", 0)) as taken:
        yield taken.getsockname()[1]


def _line_with(lines: list[str], part: str) -> str:
    return next((line.strip() for line in lines if part in line), lines[-1] if lines else "")[:90]
