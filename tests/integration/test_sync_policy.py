"""The read-only user of docs/howto/models.md: reads the sources, and may do nothing else."""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from minio import Minio, S3Error
from minio.versioningconfig import ENABLED, VersioningConfig

from models_sync.access import make_reader, reader_policy, seaweedfs_identity
from models_sync.errors import AdminUnavailable, BucketRefused
from models_sync.publish import publish
from models_sync.settings import PublishSettings, SyncSettings, VolumeSettings
from models_sync.transfer import pull
from tests.seaweed import (
    MODELS_BUCKET,
    MODELS_READER,
    ROOT_USER,
    VERSIONED_BUCKET,
    VERSIONED_READER,
    SeaweedFS,
)
from worker.demo.stack import EmbeddedStack
from worker.demo.users import Credentials

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "models.md"
FILES = {
    "smplx/SMPLX_NEUTRAL.npz": b"a body",
    "pixie/pixie_model.tar": b"weights",
    "sam3d/assets/mhr_model.pt": b"more",
    "sam2/checkpoints/sam2.1_hiera_large.pt": b"and more",
}


@dataclass(frozen=True)
class Served:
    """A server with published weights, its root user and the reader."""

    endpoint: str
    root: Minio
    root_user: Credentials
    reader: Minio
    reader_user: Credentials
    bucket: str

    def settings(self, user: Credentials, folder: Path) -> PublishSettings:
        values: dict[str, Any] = {
            "minio_endpoint": self.endpoint,
            "minio_secure": False,
            "minio_bucket": self.bucket,
            "minio_access_key": user.access_key,
            "minio_secret_key": user.secret_key,
            "local_root": folder,
        }
        return PublishSettings(**values)


def settings_of_root(stack: EmbeddedStack, bucket: str) -> SyncSettings:
    values: dict[str, Any] = {
        "minio_endpoint": stack.s3_endpoint,
        "minio_secure": False,
        "minio_bucket": bucket,
        "minio_access_key": stack.root.access_key,
        "minio_secret_key": stack.root.secret_key,
    }
    return SyncSettings(**values)


@pytest.fixture(scope="module", params=["juicefs", "seaweedfs"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    if request.param == "juicefs":
        stack: EmbeddedStack = request.getfixturevalue("stack")
        bucket = "policy-models"
        made = make_reader(settings_of_root(stack, bucket), "policy-reader")
        assert made.made_bucket
        user = Credentials(made.access_key, made.secret_key)
        served = Served(
            stack.s3_endpoint, stack.minio(stack.root), stack.root, stack.minio(user), user, bucket
        )
    else:
        seaweed: SeaweedFS = request.getfixturevalue("seaweed")
        served = Served(
            *(seaweed.endpoint, seaweed.minio(), ROOT_USER),
            *(seaweed.minio(MODELS_READER), MODELS_READER, MODELS_BUCKET),
        )
        served.root.make_bucket(bucket_name=MODELS_BUCKET)
    folder = tmp_path_factory.mktemp("source")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    publish(served.settings(served.root_user, folder), folder)
    served.root.put_object(served.bucket, "other/secret.txt", io.BytesIO(b"not for it"), 10)
    yield served
    # Later tests of this session look at what the shared server holds.
    for item in served.root.list_objects(served.bucket, recursive=True):
        served.root.remove_object(served.bucket, str(item.object_name))
    served.root.remove_bucket(served.bucket)


def test_the_reader_pulls_everything(served: Served, tmp_path: Path) -> None:
    report = pull(served.settings(served.reader_user, tmp_path))
    assert set(report.fetched) == set(FILES)
    assert report.trust == "manifest, unsigned"


REFUSED: dict[str, Callable[[Minio, str], object]] = {
    "PUT": lambda s3, bucket: s3.put_object(bucket, "smplx/new", io.BytesIO(b"1"), 1),
    "PUT over a file": lambda s3, bucket: s3.put_object(
        bucket, "smplx/SMPLX_NEUTRAL.npz", io.BytesIO(b"1"), 1
    ),
    "PUT of a manifest": lambda s3, bucket: s3.put_object(
        bucket, "manifest.json", io.BytesIO(b"1"), 1
    ),
    "DELETE": lambda s3, bucket: s3.remove_object(bucket, "smplx/SMPLX_NEUTRAL.npz"),
    "GET of another prefix": lambda s3, bucket: s3.get_object(bucket, "other/secret.txt"),
    "listing of another prefix": lambda s3, bucket: list(
        s3.list_objects(bucket, "other/", recursive=True)
    ),
    "listing of the bucket": lambda s3, bucket: list(s3.list_objects(bucket, recursive=True)),
    "listing above a source": lambda s3, bucket: list(s3.list_objects(bucket, "s")),
    "the policy": lambda s3, bucket: s3.get_bucket_policy(bucket),
    "DELETE of the bucket": lambda s3, bucket: s3.remove_bucket(bucket),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_reader_is_refused_everything_else(served: Served, what: str) -> None:
    with pytest.raises(S3Error) as refused:
        REFUSED[what](served.reader, served.bucket)
    assert (refused.value.code, refused.value.response.status) == ("AccessDenied", 403)
    content = served.root.get_object(served.bucket, "smplx/SMPLX_NEUTRAL.npz").read()
    assert content == FILES["smplx/SMPLX_NEUTRAL.npz"]


def test_the_reader_may_read_a_bucket_without_a_manifest(served: Served, tmp_path: Path) -> None:
    """A missing object answers 403 to who may not list there: that must not stop a pull."""
    manifest = served.root.get_object(served.bucket, "manifest.json").read()
    served.root.remove_object(served.bucket, "manifest.json")
    try:
        report = pull(served.settings(served.reader_user, tmp_path))
    finally:
        served.root.put_object(served.bucket, "manifest.json", io.BytesIO(manifest), len(manifest))
    assert (set(report.fetched), report.trust) == (set(FILES), "unverified")


def test_the_reader_gets_the_version_that_was_published(seaweed: SeaweedFS, tmp_path: Path) -> None:
    """In a bucket that keeps versions, the published one is asked for by its id."""
    root, source, bucket = seaweed.minio(), tmp_path / "source", VERSIONED_BUCKET
    root.make_bucket(bucket_name=bucket)
    root.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    path = source / "smplx" / "SMPLX_NEUTRAL.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"published")
    served = Served(
        *(seaweed.endpoint, root, ROOT_USER),
        *(seaweed.minio(VERSIONED_READER), VERSIONED_READER, bucket),
    )
    publish(served.settings(ROOT_USER, tmp_path), source)
    root.put_object(bucket, "smplx/SMPLX_NEUTRAL.npz", io.BytesIO(b"meanwhile"), 9)
    pull(replace(served.settings(VERSIONED_READER, tmp_path), sources="smplx"))
    assert (tmp_path / "smplx" / "SMPLX_NEUTRAL.npz").read_bytes() == b"published"


def test_making_the_reader_again_replaces_its_secret(stack: EmbeddedStack) -> None:
    settings = settings_of_root(stack, "rotated-models")
    first, second = make_reader(settings, "rotated"), make_reader(settings, "rotated")
    assert (first.made_bucket, second.made_bucket) == (True, False)
    assert first.secret_key not in repr(first)

    def lists(secret: str) -> bool:
        client = stack.minio(Credentials("rotated", secret))
        try:
            list(client.list_objects("rotated-models", "smplx/", recursive=True))
        except S3Error:
            return False
        return True

    assert lists(second.secret_key)
    assert not lists(first.secret_key)


def test_a_folder_in_the_bucket_gives_a_policy_for_that_folder() -> None:
    policy = reader_policy(VolumeSettings(prefix="/v2/", sources="smplx,sam2"), "weights")
    assert policy["Statement"][1]["Condition"]["StringLike"]["s3:prefix"] == [
        "v2/smplx",
        "v2/smplx/*",
        "v2/sam2/checkpoints",
        "v2/sam2/checkpoints/*",
    ]
    assert policy["Statement"][2]["Resource"] == [
        "arn:aws:s3:::weights/v2/smplx/*",
        "arn:aws:s3:::weights/v2/sam2/checkpoints/*",
        "arn:aws:s3:::weights/v2/manifest.json",
        "arn:aws:s3:::weights/v2/manifest.json.sig",
    ]


def test_the_documented_policy_is_the_one_that_is_tested() -> None:
    documented = json.loads(re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    assert documented == reader_policy(VolumeSettings(), MODELS_BUCKET)


def test_seaweedfs_reads_the_identity_as_it_is_printed() -> None:
    policy = reader_policy(VolumeSettings(), MODELS_BUCKET)
    identity = seaweedfs_identity(policy, "reader")
    assert json.loads(identity["policies"][0]["content"]) == policy
    keys = identity["identities"][0]["credentials"][0]
    assert keys["accessKey"] == "reader"
    assert len(keys["secretKey"]) >= 32


def test_who_may_not_administer_is_told_what_to_do_instead(
    stack: EmbeddedStack, seaweed: SeaweedFS
) -> None:
    of_stack = settings_of_root(stack, "policy-refused")
    on_weed = replace(
        of_stack,
        minio_endpoint=seaweed.endpoint,
        minio_access_key=ROOT_USER.access_key,
        minio_secret_key=ROOT_USER.secret_key,
    )
    before = seaweed.minio().list_buckets()
    with pytest.raises(AdminUnavailable) as caught:
        make_reader(on_weed)
    assert seaweed.minio().list_buckets() == before, "a call was taken for an object"
    assert ROOT_USER.secret_key not in str(caught.value)
    assert "models-sync policy" in caught.value.advice

    worker = replace(
        of_stack,
        minio_access_key=stack.worker.access_key,
        minio_secret_key=stack.worker.secret_key,
    )
    with pytest.raises((AdminUnavailable, BucketRefused)):
        make_reader(worker)
