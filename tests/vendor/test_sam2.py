"""SAM 2's own code, unmocked, on weights that we made, with the network cut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vendor import fabricate
from worker.avatar.config import PipelineConfig
from worker.avatar.observe.sam2 import DISAGREES, Sam2Masks
from worker.avatar.pipeline import Pipeline
from worker.avatar.types import AvatarRequest, Observation, Photo
from worker.errors import ModelInvalid, ModelMissing

# A photo takes the tiny network 3 s on a free core and half a minute on a busy one.
pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]

CPU = torch.device("cpu")


def overlap(a: Observation, b: Observation) -> float:
    one, other = a.mask > 0.5, b.mask > 0.5
    return float((one & other).sum() / (one | other).sum())


def test_an_outline_of_somebody_else_does_not_replace_the_free_one(
    random_masks: Sam2Masks, front: Photo, seen: Observation
) -> None:
    refined = random_masks.refine(front, seen)
    assert refined.warnings == (*seen.warnings, DISAGREES)
    assert refined.source == seen.source
    assert refined.mask is seen.mask


def test_an_outline_of_the_person_makes_the_avatar_and_is_named_as_its_source(
    sam2_taught: Path, front: Photo, seen: Observation, tmp_path: Path
) -> None:
    config = PipelineConfig(device="cpu", sam2_dir=str(sam2_taught), sam2_model=fabricate.TINY)
    pipeline = Pipeline.load(config)
    assert pipeline.fingerprint != Pipeline.load(PipelineConfig(device="cpu")).fingerprint
    (named,) = (model for model in pipeline.models if model.startswith(fabricate.TINY))
    refined = pipeline._observe(front)
    # It was taught this outline for a minute only, at a quarter of the resolution.
    assert 0.75 < overlap(refined, seen) < 1
    assert refined.warnings == seen.warnings
    assert refined.mask.shape == seen.mask.shape
    assert refined.mask.dtype == np.float32
    assert 0 <= refined.mask.min() < refined.mask.max() <= 1
    np.testing.assert_allclose(refined.box, seen.box, atol=0.1 * seen.mask.shape[0])
    sample = Path(__file__).parents[2] / "worker" / "demo" / "sample" / "front.jpg"
    result = pipeline.run(AvatarRequest(sample, 1.7), tmp_path, lambda _stage, _done: None)
    assert result.sources["observer"] == [f"{seen.source}+{named}"]
    assert result.measurements_cm["heightCm"] == pytest.approx(170)


def test_the_checkout_is_imported_even_from_its_parent_folder(sam2_code: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from worker.avatar.vendor_code import import_torchvision, import_vendor\n"
        "import_torchvision()\n"
        f"module = import_vendor(Path({str(sam2_code)!r}), 'sam2.build_sam', variable='X')\n"
        "import sys\n"
        f"assert {str(sam2_code)!r} not in sys.path\n"
        "print(module.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=sam2_code.parent,
        env={"PYTHONPATH": str(sam2_code.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sam2_code / "sam2" / "build_sam.py")


def change(folder: Path, into: Path, edit: str) -> Path:
    """Copy a SAM 2 folder and edit its checkpoint."""
    name = f"checkpoints/{fabricate.TINY}.pt"
    state = torch.load(folder / name, weights_only=True)["model"]
    first = next(iter(state))
    if edit == "missing":
        del state[first]
    elif edit == "another model":
        state = {"conv.weight": torch.zeros(3, 3)}
    elif edit == "exploding":
        state = {key: tensor * 1e30 for key, tensor in state.items()}
    (into / "checkpoints").mkdir()
    (into / "sam2").symlink_to((folder / "sam2").resolve())
    torch.save({"model": state}, into / name)
    return into


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("missing", "1 missing"),
        ("another model", "not one tensor fits, it is another model's"),
        ("exploding", "no finite numbers"),
    ],
)
def test_weights_that_are_not_this_networks_are_refused_by_name(
    sam2_random: Path, tmp_path: Path, edit: str, said: str
) -> None:
    folder = change(sam2_random, tmp_path, edit)
    with pytest.raises(ModelInvalid, match=said) as refused:
        Sam2Masks.load(folder, CPU, model=fabricate.TINY)
    assert f"{fabricate.TINY}.pt" in refused.value.message


def test_the_operators_default_checkpoint_is_named_when_it_is_missing(sam2_random: Path) -> None:
    with pytest.raises(ModelMissing, match=r"checkpoints/sam2\.1_hiera_large\.pt"):
        Sam2Masks.load(sam2_random, CPU)
