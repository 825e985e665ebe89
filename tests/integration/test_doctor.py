"""`avatar-worker doctor` against the real servers, right and wrong."""

import asyncio
import json
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


async def as_json(environment: dict[str, str]) -> tuple[int | None, dict[str, dict[str, object]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "doctor", "--json"),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    answer = json.loads(said)
    assert answer["good"] is (process.returncode == 0)
    return process.returncode, {one["what"]: one for one in answer["findings"]}


async def test_a_program_reads_one_object_with_every_finding(environment: dict[str, str]) -> None:
    code, found = await as_json(environment)
    assert code == 0
    for what in (
        *("pose models", "body", "SAM 2", "SAM 3D Body", "PIXIE", "estimators", "device"),
        *("environment", "GPU", "disk", "queue", "storage", "storage, writing"),
        *("storage, strangers", "clock", "API"),
    ):
        assert found[what]["good"], found[what]
    assert "SAM3DBODY_ENABLED" in str(found["SAM 3D Body"]["detail"])


async def test_wrong_weights_of_what_is_enabled_are_named_with_the_fix(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "pixie" / "data").mkdir(parents=True)
    page = tmp_path / "pixie" / "data" / "pixie_model.tar"
    page.write_text("<!DOCTYPE html><html>Please sign in</html>")
    (tmp_path / "sam3d").mkdir()
    variables = {
        "PIXIE_MODEL_DIR": str(tmp_path / "pixie"),
        "SAM3DBODY_ENABLED": "true",
        "SAM3DBODY_CHECKPOINT_PATH": str(tmp_path / "sam3d" / "model.ckpt"),
        "SMPLX_MODEL_DIR": str(tmp_path / "smplx"),
    }
    code, found = await as_json(environment | variables)
    assert code == 1
    assert f"{page} (PIXIE) is a web page" in str(found["PIXIE"]["detail"])
    assert "Delete" in str(found["PIXIE"]["advice"])
    assert "model.ckpt (SAM 3D Body) is missing" in str(found["SAM 3D Body"]["detail"])
    assert found["body"]["good"]
    assert "SMPLX_NEUTRAL.npz" in str(found["body"]["detail"])


async def test_a_required_estimator_that_nothing_enables_is_bad(
    environment: dict[str, str], tmp_path: Path
) -> None:
    variables = {"REQUIRE_REAL_AVATAR": "true", "PIXIE_MODEL_DIR": str(tmp_path)}
    code, found = await as_json(environment | variables)
    assert code == 1
    assert "no licensed estimator is ready" in str(found["estimators"]["detail"])
    assert "pixie_model.tar" in str(found["estimators"]["detail"])
