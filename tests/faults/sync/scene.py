"""A bucket, a volume with an old version on it, and a proxy between them."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from minio import Minio

from models_sync.manifest import MANIFEST_NAME, Manifest, ManifestFile
from models_sync.progress import OnProgress
from models_sync.settings import SyncSettings
from models_sync.transfer import PullReport, pull
from tests.faults.sync.proxy import FaultProxy
from worker.demo.users import Credentials

PART_BYTES = 64 << 10
LARGE, SMALL = "sam3d/model.ckpt", "sam3d/model_config.yaml"
LARGE_BYTES = 6 << 20


@dataclass
class Scene:
    """One volume on one bucket.

    `publish` and `pull` are the two ends; `violations` says what must never be: a file under its
    real name that is neither the old version nor the new one, whole.
    """

    minio: Minio
    user: Credentials
    proxy: FaultProxy
    bucket: str
    prefix: str
    root: Path
    manifest: bool = True
    known: dict[str, set[bytes]] = field(default_factory=dict)
    current: dict[str, bytes] = field(default_factory=dict)

    def publish(self, seed: int, *, manifest: bool | None = None, size: int = LARGE_BYTES) -> None:
        """Put a version of both files into the bucket, and the manifest that names them."""
        rng = random.Random(seed)
        self.current = {LARGE: rng.randbytes(size), SMALL: rng.randbytes(1000)}
        for path, content in self.current.items():
            self.put(path, content)
        if self.manifest if manifest is None else manifest:
            self.put_manifest(self.current)

    def put(self, path: str, content: bytes) -> None:
        self.known.setdefault(path, set()).add(content)
        self.put_bytes(path, content)

    def put_bytes(self, path: str, content: bytes) -> None:
        self.minio.put_object(
            bucket_name=self.bucket,
            object_name=f"{self.prefix}/{path}",
            data=io.BytesIO(content),
            length=len(content),
            part_size=64 << 20,  # one part, so that the ETag is an MD5
        )

    def put_manifest(self, files: dict[str, bytes]) -> None:
        manifest = Manifest(
            files=tuple(
                ManifestFile(
                    key=path,
                    size=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    part_size=PART_BYTES,
                    parts=tuple(
                        blake3(content[start : start + PART_BYTES]).hexdigest()
                        for start in range(0, len(content), PART_BYTES)
                    ),
                )
                for path, content in files.items()
            )
        )
        self.put_bytes(MANIFEST_NAME, manifest.to_bytes())

    def remove(self, path: str) -> None:
        self.minio.remove_object(bucket_name=self.bucket, object_name=f"{self.prefix}/{path}")

    def environment(self, **variables: str) -> dict[str, str]:
        """MODEL_SYNC_* for this scene; patience is short, so that what never heals ends."""
        values = {
            "MINIO_ENDPOINT": self.proxy.endpoint,
            "MINIO_SECURE": "false",
            "MINIO_BUCKET": self.bucket,
            "MINIO_ACCESS_KEY": self.user.access_key,
            "MINIO_SECRET_KEY": self.user.secret_key,
            "PREFIX": self.prefix,
            "SOURCES": "sam3d",
            "LOCAL_ROOT": str(self.root),
            "STALL_S": "0.5",
            "PATIENCE_S": "0.8",
        } | variables
        return {f"MODEL_SYNC_{name}": value for name, value in values.items()}

    def settings(self, **variables: str) -> SyncSettings:
        values = self.environment(**variables)
        return SyncSettings(
            **{name.removeprefix("MODEL_SYNC_").lower(): value for name, value in values.items()}
        )

    def pull(
        self,
        on_progress: OnProgress | None = None,
        cancel: threading.Event | None = None,
        **variables: str,
    ) -> PullReport:
        return pull(self.settings(**variables), on_progress, cancel)

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def is_current(self) -> bool:
        """Whether every file on the volume is the one that was published last."""
        return all(self.read(path) == content for path, content in self.current.items())

    def violations(self) -> list[str]:
        """What must never be, whatever happened."""
        wrong = []
        for path in self.root.rglob("*"):
            name = str(path.relative_to(self.root))
            if path.is_file() and not path.name.startswith(".models-sync"):
                content = path.read_bytes()
                if content not in self.known.get(name, set()):
                    wrong.append(f"{name} has {len(content):,} bytes of no version")
        return wrong

    def leftovers(self) -> list[str]:
        """Partial files, maps and locks."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob(".models-sync*")
            if path.suffix in {".part", ".map", ".lock"}
        )
