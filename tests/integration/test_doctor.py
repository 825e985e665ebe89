"""`avatar-worker doctor` against the real servers, right and wrong."""

import asyncio
import os
import sys
from pathlib import Path

import pytest


async def doctor(environment: dict[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "doctor"),
        env=os.environ | environment | {"COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_everything_that_is_right_is_called_good(environment: dict[str, str]) -> None:
    code, said = await doctor(environment)
    assert code == 0, said
    for what in ("pose models", "body", "device", "environment", "queue", "storage", "API"):
        assert f"good {what}:" in said


@pytest.mark.parametrize(
    ("variable", "value", "finding"),
    [
        ("MINIO_SECRET_KEY", "not-the-secret", "storage"),
        ("MINIO_BUCKET", "no-such-bucket", "storage"),
        ("OBSERVER_MODEL_DIR", "/no/such/folder", "pose models"),
        ("REDIS_SSL_CA_CERTS", "/no/such/file.pem", "queue"),
        ("REDIS_URL", "redis://127.0.0.1:1", "queue"),
        ("API_BASE_URL", "http://127.0.0.1:1", "API"),
        ("API_BASE_URL", "http://api.example.com", "environment"),
    ],
)
async def test_what_is_wrong_is_named_and_secrets_are_not(
    environment: dict[str, str], variable: str, value: str, finding: str
) -> None:
    code, said = await doctor(environment | {variable: value})
    assert code == 1, said
    assert f"bad  {finding}:" in said
    assert "Traceback" not in said
    assert "not-the-secret" not in said


async def test_what_is_enabled_and_has_no_weights_names_each_file(
    environment: dict[str, str], tmp_path: Path
) -> None:
    variables = {"SAM3DBODY_ENABLED": "true", "MODEL_SYNC_LOCAL_ROOT": str(tmp_path)}
    code, said = await doctor(environment | variables)
    assert code == 1, said
    assert "bad  weights:" in said
    for name in ("sam3d/model.ckpt", "sam3d/assets/mhr_model.pt", "sam2.1_hiera_large.pt"):
        assert name in said
    assert "smplx" not in said.partition("bad  weights:")[2]
    assert "models-sync pull" in said
