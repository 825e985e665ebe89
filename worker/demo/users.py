"""Who may use the embedded servers, and what for."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the S3 server."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StackSecrets:
    """What must stay the same when a data folder is used again."""

    redis_password: str = field(repr=False)
    root: Credentials
    worker: Credentials
    api: Credentials

    @classmethod
    def fresh(cls) -> Self:
        """New random secrets."""

        def user(name: str) -> Credentials:
            return Credentials(name, secrets.token_urlsafe(24))

        return cls(secrets.token_urlsafe(24), user("demo-root"), user("worker"), user("api"))

    @classmethod
    def kept_in(cls, path: Path) -> Self:
        """Those of an earlier run, or fresh ones that are now kept (mode 600)."""
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text())
            users = {name: Credentials(**kept[name]) for name in ("root", "worker", "api")}
            return cls(kept["redis_password"], **users)
        made = cls.fresh()
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(made)))
        return made


def policy(bucket: str, *, read: tuple[str, ...], write: tuple[str, ...]) -> dict[str, Any]:
    """An S3 policy that gives `read` prefixes for reading and `write` prefixes for both."""
    arn = f"arn:aws:s3:::{bucket}"
    prefixes = [form for name in (*read, *write) for form in (name, f"{name}/*")]

    def allow(actions: list[str], resources: list[str], **more: object) -> dict[str, Any]:
        return {"Effect": "Allow", "Action": actions, "Resource": resources, **more}

    return {
        "Version": "2012-10-17",
        "Statement": [
            allow(["s3:GetBucketLocation"], [arn]),
            allow(["s3:ListBucket"], [arn], Condition={"StringLike": {"s3:prefix": prefixes}}),
            allow(["s3:GetObject"], [f"{arn}/{name}/*" for name in (*read, *write)]),
            allow(
                [
                    *("s3:PutObject", "s3:DeleteObject"),
                    *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
                ],
                [f"{arn}/{name}/*" for name in write],
            ),
        ],
    }
