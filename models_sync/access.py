"""Who may read the weights: a policy in S3's words, and a read-only user where the server lets us.

Users and policies are no part of S3.  MinIO's own server, and JuiceFS' gateway, which is made of
it, take them over MinIO's administration API; SeaweedFS reads them from its configuration file.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import urllib3
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, S3Error

from models_sync.bucket import Bucket
from models_sync.endpoint import REGION, host_of
from models_sync.errors import (
    AdminUnavailable,
    BucketRefused,
    BucketUnreachable,
    NothingThere,
)
from models_sync.library import make_pool
from models_sync.manifest import MANIFEST_NAME, SIGNATURE_NAME
from models_sync.settings import SyncSettings, VolumeSettings
from models_sync.store import Store

DEFAULT_USER = "models-reader"


@dataclass(frozen=True, slots=True)
class Reader:
    """A user that may read the weights and do nothing else."""

    access_key: str
    secret_key: str = field(repr=False)
    made_bucket: bool
    """Whether the bucket had to be made."""


def reader_policy(settings: VolumeSettings, bucket: str) -> dict[str, Any]:
    """The policy of a read-only user, for the sources that the settings name.

    It allows the calls that `pull` makes: list below each source, get objects there and the
    manifest.  Tested on both servers; see docs/howto/models.md.
    """
    arn = f"arn:aws:s3:::{bucket}"
    folders = [prefix.rstrip("/") for prefix in settings.wanted_prefixes().values()]
    manifest = [settings.bucket_root + name for name in (MANIFEST_NAME, SIGNATURE_NAME)]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:GetBucketLocation"], "Resource": [arn]},
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [arn],
                "Condition": {
                    "StringLike": {
                        "s3:prefix": [form for name in folders for form in (name, f"{name}/*")]
                    }
                },
            },
            {
                "Effect": "Allow",
                # In a bucket that keeps versions, the published one is asked for by its id.
                "Action": ["s3:GetObject", "s3:GetObjectVersion"],
                "Resource": [
                    *(f"{arn}/{name}/*" for name in folders),
                    *(f"{arn}/{name}" for name in manifest),
                ],
            },
        ],
    }


def seaweedfs_identity(policy: Mapping[str, Any], user: str) -> dict[str, Any]:
    """What SeaweedFS' s3.json needs for a user with `policy`; the secret is new."""
    keys = {"accessKey": user, "secretKey": secrets.token_urlsafe(24)}
    return {
        "identities": [{"name": user, "credentials": [keys], "policyNames": [user]}],
        "policies": [{"name": user, "content": json.dumps(policy)}],
    }


def make_reader(settings: SyncSettings, user: str = DEFAULT_USER) -> Reader:
    """Make the bucket, the policy and a user with a new secret; again, to replace the secret.

    Args:
        settings: with the keys of a user who may administer the server.
        user: its access key, and the policy's name.

    Raises:
        AdminUnavailable: the server does not take these calls, or not from this user.
        BucketRefused, BucketUnreachable: the server.
    """
    store = Store(settings)
    secret = secrets.token_urlsafe(24)
    endpoint, secure = host_of(settings)
    admin = MinioAdmin(
        endpoint=endpoint,
        credentials=StaticProvider(
            settings.minio_access_key,
            settings.minio_secret_key,
        ),
        region=REGION,
        secure=secure,
        http_client=make_pool(secure=secure, read_s=settings.stall_s),
    )
    try:
        # A question first: a server without these calls may take what follows for objects.
        admin.policy_list()
        made_bucket = store.make_bucket()
        admin.policy_add(user, policy=reader_policy(settings, settings.minio_bucket))
        admin.user_add(user, secret)
        # Not attach_policy: JuiceFS' gateway answers it with 426 (Upgrade Required).
        admin.policy_set(user, user=user)
    except (MinioAdminException, S3Error, ValueError) as error:
        raise AdminUnavailable(f"{store.where}: {_said(error)}") from error
    except urllib3.exceptions.HTTPError as error:
        raise BucketUnreachable(f"{store.where}: {error}") from error
    _try_to_read(settings, user, secret)
    return Reader(user, secret, made_bucket)


def _try_to_read(settings: SyncSettings, user: str, secret: str) -> None:
    """Be the new user once.

    Raises:
        AdminUnavailable: the server took every call, and yet the user may not read.
    """
    bucket = Bucket(replace(settings, minio_access_key=user, minio_secret_key=secret))
    try:
        with suppress(NothingThere):
            bucket.list(settings.wanted_prefixes())
    except BucketRefused as error:
        raise AdminUnavailable(f"{user} was made and may not read: {error.message}") from error


def _said(error: Exception) -> str:
    """The server's sentence, without the headers that may come with it."""
    text = " ".join(str(error).split())
    return text[:200]
