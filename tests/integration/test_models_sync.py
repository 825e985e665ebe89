"""`models-sync` against the real S3 server, as the read-only user that the docs describe."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from minio import Minio, MinioAdmin, S3Error
from minio.credentials import StaticProvider

from worker.demo.stack import EmbeddedStack
from worker.demo.users import Credentials

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "tryfitted-models"
READER = Credentials("models-reader", "models-reader-secret")
FILES = {
    "smplx/SMPLX_NEUTRAL.npz": os.urandom(300_000),
    "sam2/checkpoints/sam2.1_hiera_large.pt": os.urandom(2_000_000),
    "sam3d/assets/mhr_model.pt": b"",
    "pixie/a b.txt": b"a name with a space",
}


@pytest.fixture(scope="module")
def bucket(stack: EmbeddedStack) -> Minio:
    root = stack.minio(stack.root)
    root.make_bucket(bucket_name=BUCKET)
    for key, content in {**FILES, "other/secret.txt": b"not for the reader"}.items():
        root.put_object(
            bucket_name=BUCKET, object_name=key, data=io.BytesIO(content), length=len(content)
        )
    admin = MinioAdmin(
        endpoint=stack.s3_endpoint,
        credentials=StaticProvider(stack.root.access_key, stack.root.secret_key),
        secure=False,
    )
    page = (ROOT / "docs" / "howto" / "models.md").read_text()
    policy = json.loads(re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)[0])
    admin.user_add(READER.access_key, READER.secret_key)
    admin.policy_add(READER.access_key, policy=policy)
    admin.policy_set(READER.access_key, user=READER.access_key)
    return root


@pytest.fixture
def environment(stack: EmbeddedStack, bucket: Minio, tmp_path: Path) -> dict[str, str]:
    return {
        "MODEL_SYNC_MINIO_ENDPOINT": stack.s3_endpoint,
        "MODEL_SYNC_MINIO_SECURE": "false",
        "MODEL_SYNC_MINIO_BUCKET": BUCKET,
        "MODEL_SYNC_MINIO_ACCESS_KEY": READER.access_key,
        "MODEL_SYNC_MINIO_SECRET_KEY": READER.secret_key,
        "MODEL_SYNC_LOCAL_ROOT": str(tmp_path / "models"),
    }


def models_sync(verb: str, environment: dict[str, str]) -> tuple[int, Any, str]:
    command = "from models_sync.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, verb, "--json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_missing_weights_arrive_whole_and_a_second_pull_fetches_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code, planned, said = models_sync("plan", environment)
    assert code == 0, said
    assert {item["path"] for item in planned["fetch"]} == set(FILES)
    assert not (tmp_path / "models").exists(), "a plan writes nothing"

    assert models_sync("pull", environment)[0] == 0
    for path, content in FILES.items():
        assert (tmp_path / "models" / path).read_bytes() == content
    assert not list((tmp_path / "models").rglob("*.part"))

    code, again, _ = models_sync("pull", environment)
    assert (code, again["fetched"], again["verified"]) == (0, [], "unverified")


def test_a_file_that_was_damaged_or_replaced_is_fetched_again(
    environment: dict[str, str], bucket: Minio, tmp_path: Path
) -> None:
    models_sync("pull", environment)
    (tmp_path / "models" / "smplx/SMPLX_NEUTRAL.npz").write_bytes(b"cut off")
    key, fresh = "pixie/a b.txt", b"Another version"
    bucket.put_object(
        bucket_name=BUCKET, object_name=key, data=io.BytesIO(fresh), length=len(fresh)
    )
    try:
        _, pulled, _ = models_sync("pull", environment)
        assert set(pulled["fetched"]) == {key, "smplx/SMPLX_NEUTRAL.npz"}
        assert (tmp_path / "models" / key).read_bytes() == fresh
    finally:
        bucket.put_object(
            bucket_name=BUCKET, object_name=key, data=io.BytesIO(FILES[key]), length=len(FILES[key])
        )


def test_the_documented_policy_lets_the_reader_read_its_prefixes_and_nothing_else(
    stack: EmbeddedStack, bucket: Minio
) -> None:
    reader = stack.minio(READER)
    assert list(reader.list_objects(bucket_name=BUCKET, prefix="smplx/", recursive=True))

    def refused(call: Any) -> bool:
        try:
            call()
        except S3Error as error:
            return error.code == "AccessDenied"
        return False

    one = io.BytesIO(b"1")
    assert refused(lambda: reader.put_object(BUCKET, "smplx/new", one, 1))
    assert refused(lambda: reader.remove_object(BUCKET, "smplx/SMPLX_NEUTRAL.npz"))
    assert refused(lambda: reader.get_object(BUCKET, "other/secret.txt"))
    assert refused(lambda: list(reader.list_objects(BUCKET, recursive=True)))


@pytest.mark.parametrize(
    ("variable", "value", "code", "words"),
    [
        ("MODEL_SYNC_MINIO_SECRET_KEY", "wrong-secret", 3, "BucketRefused"),
        ("MODEL_SYNC_MINIO_ENDPOINT", "127.0.0.1:1", 4, "BucketUnreachable"),
        ("MODEL_SYNC_LOCAL_ROOT", "/proc/models", 7, "VolumeUnwritable"),
        ("MODEL_SYNC_PREFIX", "no-such-folder", 3, "BucketRefused"),
        ("MODEL_SYNC_SOURCES", " , ", 2, "names no source"),
        ("MODEL_SYNC_MINIO_ENDPOINT", "s3.example.com/path", 2, "host or host:port"),
    ],
)
def test_what_goes_wrong_has_a_name_advice_and_an_exit_code(
    environment: dict[str, str], variable: str, value: str, code: int, words: str
) -> None:
    ended, _, said = models_sync("pull", environment | {variable: value})
    assert (ended, words in said) == (code, True), said
    assert "Traceback" not in said
    assert "wrong-secret" not in said
