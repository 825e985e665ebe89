"""Valkey and a server of MinIO's API as wheels bring them: real parts, no Docker, no root use.

    with EmbeddedStack() as stack:
        redis.Redis.from_url(stack.redis_url).ping()
        stack.minio(stack.worker).get_object(stack.bucket, "uploads/…")

The gateway's root user creates the bucket and two users and is not used again: the worker may
read `uploads/*` and read and write `avatars/*` and `work/*`; the API may read and write
`uploads/*` and read `avatars/*`.  Neither may do anything else.
"""

from __future__ import annotations

import atexit
import http.client
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import S3Error

from worker.demo.binaries import juicefs_binary, valkey_binary
from worker.demo.servers import Server, free_port
from worker.demo.users import Credentials, StackSecrets, policy
from worker.errors import DependencyError, QueueUnavailable, StorageUnavailable

HOST = "127.0.0.1"
REGION = "us-east-1"
"""MinIO's own default; naming it saves the SDK a call."""
PORT_ATTEMPTS = 3
"""A free port can be taken between finding and using it."""


class EmbeddedStack:
    """Valkey and MinIO's API on free loopback ports, for as long as the `with` block lasts.

    Enter it from the main thread (see `tether.py`).  `async with` does the same, blocking the
    loop for the second that it takes.

    Args:
        data_dir: Where data is kept and found again; a temporary folder, removed at the end,
            when not given.
        bucket: MINIO_BUCKET.

    Attributes:
        valkey: The queue's server; tests may kill, freeze and restart it.
        gateway: The storage's server; likewise.

    Raises:
        ToolMissing: the `demo` extra is not installed.
        QueueUnavailable, StorageUnavailable: a server did not become ready.
    """

    valkey: Server
    gateway: Server

    def __init__(self, data_dir: Path | None = None, *, bucket: str = "tryfitted") -> None:
        self.bucket = bucket
        self.keeps_data = data_dir is not None
        self._given_dir = data_dir
        self._dir: Path | None = None
        self._users_are_made = False

    # -- what clients need ------------------------------------------------------------------
    @property
    def data_dir(self) -> Path:
        """Where everything of this stack lies."""
        if self._dir is None:
            raise DependencyError("The embedded stack is not running.")
        return self._dir

    @property
    def redis_url(self) -> str:
        """REDIS_URL, password included (URL-safe characters only)."""
        return f"redis://:{self._secrets.redis_password}@{HOST}:{self.redis_port}/0"

    @property
    def s3_endpoint(self) -> str:
        """MINIO_ENDPOINT, `host:port`."""
        return f"{HOST}:{self.s3_port}"

    @property
    def s3_url(self) -> str:
        """The S3 server with its scheme."""
        return f"http://{self.s3_endpoint}"

    @property
    def root(self) -> Credentials:
        """The S3 server's root user; for setting up, never for a service."""
        return self._secrets.root

    @property
    def worker(self) -> Credentials:
        """Reads `uploads/*`, reads and writes `avatars/*` and `work/*`."""
        return self._secrets.worker

    @property
    def api(self) -> Credentials:
        """Reads and writes `uploads/*`, reads `avatars/*`."""
        return self._secrets.api

    def minio(self, user: Credentials) -> Minio:
        """A client acting as `user`."""
        return Minio(
            endpoint=self.s3_endpoint,
            access_key=user.access_key,
            secret_key=user.secret_key,
            secure=False,
            region=REGION,
        )

    def worker_environment(self) -> dict[str, str]:
        """The contract's variables for a worker of this stack; API_BASE_URL is not ours."""
        return {
            "REDIS_URL": self.redis_url,
            "MINIO_ENDPOINT": self.s3_endpoint,
            "MINIO_SECURE": "false",
            "MINIO_ACCESS_KEY": self.worker.access_key,
            "MINIO_SECRET_KEY": self.worker.secret_key,
            "MINIO_BUCKET": self.bucket,
        }

    # -- life -------------------------------------------------------------------------------
    def start(self) -> Self:
        """Start both servers and set up bucket and users; undone when it raises."""
        if self._given_dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="avatar-worker-"))
        else:
            self._dir = self._given_dir.resolve()
            self._dir.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        try:
            self._secrets = StackSecrets.kept_in(self.data_dir / "secrets.json")
            self._start_valkey()
            self._start_gateway()
            self._set_up_storage()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End both servers and remove temporary data.  Calling it again does nothing."""
        atexit.unregister(self.stop)
        for server in (getattr(self, "gateway", None), getattr(self, "valkey", None)):
            if server is not None:
                # Throwaway data needs no orderly end, and the gateway takes 2 s for one.
                server.stop() if self.keeps_data else server.kill()
        if self._dir is not None and not self.keeps_data:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- servers ----------------------------------------------------------------------------
    def _start_valkey(self) -> None:
        folder = self.data_dir / "valkey"
        folder.mkdir(exist_ok=True)
        # The password goes in by file: a command line can be read by every user of the machine.
        config = folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(f"requirepass {self._secrets.redis_password}\n")
        for attempt in range(PORT_ATTEMPTS):
            self.redis_port = free_port()
            options = {
                "bind": HOST,
                "port": str(self.redis_port),
                "dir": str(folder),
                "save": "",
                # BullMQ needs it: an evicted key is a lost job.
                "maxmemory-policy": "noeviction",
                "appendonly": "yes" if self.keeps_data else "no",
            }
            self.valkey = Server(
                "Valkey",
                [
                    str(valkey_binary()),
                    str(config),
                    *(part for name, value in options.items() for part in (f"--{name}", value)),
                ],
                ready=self._valkey_answers,
                log=self.data_dir / "valkey.log",
                env={},
                error=QueueUnavailable,
            )
            if _started(self.valkey, last=attempt == PORT_ATTEMPTS - 1):
                return

    def _valkey_answers(self) -> bool:
        with redis.Redis.from_url(self.redis_url, socket_timeout=1) as client:
            return bool(client.ping())

    def _start_gateway(self) -> None:
        folder = self.data_dir / "storage"
        folder.mkdir(exist_ok=True)
        meta_url = f"sqlite3://{folder / 'meta.db'}"
        env = {"HOME": str(folder), "PATH": os.defpath}
        juicefs = [str(juicefs_binary()), "--no-agent", "--no-color"]
        if not (folder / "meta.db").exists():
            _run(
                [
                    *(*juicefs, "format", "--storage", "file", "--bucket", f"{folder}/data"),
                    *("--trash-days", "0", meta_url, "demo"),
                ],
                env=env,
            )
        for attempt in range(PORT_ATTEMPTS):
            self.s3_port = free_port()
            self.gateway = Server(
                "The S3 gateway",
                [
                    *(*juicefs, "gateway", "--multi-buckets", "--keep-etag"),
                    *("--object-meta", "--object-tag", "--no-usage-report", "--no-banner"),
                    *("--cache-dir", f"{folder}/cache", "--cache-size", "0"),
                    *("--metrics", f"{HOST}:{free_port()}", meta_url, self.s3_endpoint),
                ],
                ready=self._gateway_answers,
                log=self.data_dir / "storage.log",
                env={
                    **env,
                    "MINIO_ROOT_USER": self.root.access_key,
                    "MINIO_ROOT_PASSWORD": self.root.secret_key,
                },
                error=StorageUnavailable,
            )
            if _started(self.gateway, last=attempt == PORT_ATTEMPTS - 1):
                return

    def _gateway_answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.s3_port, timeout=1)
        try:
            connection.request("GET", "/minio/health/live")
            alive = connection.getresponse().status == http.client.OK
        finally:
            connection.close()
        # A restarted gateway is alive before it has read its users again.
        return alive and (not self._users_are_made or all(map(self._is_known, self._users)))

    @property
    def _users(self) -> tuple[Credentials, Credentials]:
        return (self.worker, self.api)

    def _is_known(self, user: Credentials) -> bool:
        try:
            self.minio(user).stat_object(bucket_name=self.bucket, object_name="uploads/none")
        except S3Error as error:
            return error.code == "NoSuchKey"
        return True

    def _set_up_storage(self) -> None:
        client = self.minio(self.root)
        if not client.bucket_exists(bucket_name=self.bucket):
            client.make_bucket(bucket_name=self.bucket)
        admin = MinioAdmin(
            endpoint=self.s3_endpoint,
            credentials=StaticProvider(self.root.access_key, self.root.secret_key),
            secure=False,
        )
        for user, allowed in (
            (self.worker, policy(self.bucket, read=("uploads",), write=("avatars", "work"))),
            (self.api, policy(self.bucket, read=("avatars",), write=("uploads",))),
        ):
            admin.user_add(user.access_key, user.secret_key)
            admin.policy_add(user.access_key, policy=allowed)
            admin.policy_set(user.access_key, user=user.access_key)
        self._users_are_made = True


def _started(server: Server, *, last: bool) -> bool:
    """Whether the server became ready; its error is raised only on the last attempt."""
    try:
        server.start()
    except DependencyError:
        server.kill()
        if last:
            raise
        return False
    return True


def _run(command: list[str], *, env: Mapping[str, str]) -> None:
    done = subprocess.run(  # noqa: S603  # the command is ours, no shell
        command, env=dict(env), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise StorageUnavailable(f"`{Path(command[0]).name}` failed:\n{done.stderr[-2000:]}")
