"""`avatar-worker doctor` on an empty, a broken and a complete set-up; weights are made by us."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vendor import fabricate, fabricate_body, fabricate_pixie, fabricate_sam3d
from tests.vendor.conftest import checkout

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]

MODELS = ("SAM 2", "SAM 3D Body", "PIXIE", "body", "estimators")


async def doctor(
    environment: dict[str, str], *more: str
) -> tuple[int | None, dict[str, dict[str, Any]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "doctor", "--json", *more),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    found = {finding["what"]: finding for finding in json.loads(said)["findings"]}
    return process.returncode, found


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Everything that an operator can bring, code and weights."""
    sam3d_code, dino = checkout("sam-3d-body", "torchvision", "roma"), checkout("dinov3")
    pixie_code, sam2_code = checkout("PIXIE", "kornia"), checkout("sam2", "hydra")
    root = tmp_path_factory.mktemp("models")
    fabricate_body.write_smplx(root / "smplx")
    fabricate_sam3d.write(root / "sam3d", sam3d_code, dino, checkout("MHR"))
    pixie = root / "PIXIE"
    pixie.mkdir()
    (pixie / "pixielib").symlink_to(pixie_code / "pixielib")
    fabricate_pixie.write_small_files(pixie / "data")
    torch.save(fabricate_pixie.states(pixie), pixie / "data" / "pixie_model.tar")
    sam2 = root / "sam2"
    (sam2 / "checkpoints").mkdir(parents=True)
    (sam2 / "sam2").symlink_to(sam2_code / "sam2")
    state = {"model": fabricate.sam2_network(sam2_code, fabricate.LARGE).state_dict()}
    torch.save(state, sam2 / "checkpoints" / f"{fabricate.LARGE}.pt")
    return {
        "SMPLX_MODEL_DIR": str(root / "smplx"),
        "PIXIE_MODEL_DIR": str(pixie),
        "SAM3DBODY_ENABLED": "true",
        "SAM3DBODY_REPO_DIR": str(sam3d_code),
        "SAM3DBODY_CHECKPOINT_PATH": str(root / "sam3d" / "model.ckpt"),
        "SAM3DBODY_MHR_PATH": str(root / "sam3d" / "assets" / "mhr_model.pt"),
        "SAM3DBODY_SEGMENTOR_PATH": str(sam2),
        "REQUIRE_REAL_AVATAR": "true",
        "WORKER_DEVICE": "cpu",
    }


async def test_an_empty_set_up_is_the_free_default_and_good(
    environment: dict[str, str], tmp_path: Path
) -> None:
    nowhere = {
        "SMPLX_MODEL_DIR": str(tmp_path),
        "PIXIE_MODEL_DIR": str(tmp_path),
        "SAM3DBODY_REPO_DIR": str(tmp_path / "sam-3d-body"),
        "SAM3DBODY_SEGMENTOR_PATH": str(tmp_path),
    }
    code, found = await doctor(environment | nowhere)
    assert code == 0, found
    assert "free-body-neutral@" in found["body"]["detail"]
    assert found["estimators"]["detail"] == "asked in this order: none, prior"


@pytest.fixture
def broken(complete: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same, with a download that was cut off, one that never came and a login page."""
    truncated = tmp_path / "model.ckpt"
    truncated.write_bytes(Path(complete["SAM3DBODY_CHECKPOINT_PATH"]).read_bytes()[:1_000_000])
    (tmp_path / "PIXIE" / "data").mkdir(parents=True)
    (tmp_path / "PIXIE" / "data" / "pixie_model.tar").write_bytes(b"\0" * 10_240)
    (tmp_path / "smplx").mkdir()
    (tmp_path / "smplx" / "SMPLX_NEUTRAL.npz").write_text("<html>401</html>")
    return complete | {
        "SAM3DBODY_CHECKPOINT_PATH": str(truncated),
        "PIXIE_MODEL_DIR": str(tmp_path / "PIXIE"),
        "SMPLX_MODEL_DIR": str(tmp_path / "smplx"),
        "SAM3DBODY_SEGMENTOR_PATH": str(tmp_path / "sam2"),
    }


async def test_a_broken_set_up_names_every_file_and_its_fix(
    environment: dict[str, str], broken: dict[str, str]
) -> None:
    code, found = await doctor(environment | broken)
    assert code == 1
    for what, said in (
        ("SAM 3D Body", "ends in the middle"),
        ("PIXIE", "empty tar archive"),
        ("body", "SMPLX_NEUTRAL.npz is no .npz archive"),
    ):
        assert not found[what]["good"], found[what]
        assert said in found[what]["detail"]
        assert found[what]["advice"]
    assert "free outlines" in found["SAM 2"]["detail"]


async def test_a_complete_set_up_is_good_and_loads(
    environment: dict[str, str], complete: dict[str, str]
) -> None:
    code, found = await doctor(environment | complete | {"WORKER_DEVICE": "cpu"}, "--load")
    for what in (*MODELS, "loading", "device", "GPU"):
        assert found[what]["good"], found[what]
    for name in ("sam2.1_hiera_large@", "sam3d-body@", "pixie@", "smplx-female@"):
        assert name in found["loading"]["detail"]
    assert code == 0, {what: one for what, one in found.items() if not one["good"]}
