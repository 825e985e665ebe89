"""Vendors' code as it was fetched, and a network that is cut."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import worker.demo
from tests.vendor import fabricate
from vendors.fetch import HERE, VendorError, check, read_vendors
from worker.avatar.observe import Observer, assets
from worker.avatar.observe.sam2 import Sam2Masks
from worker.avatar.photo import read_photo
from worker.avatar.types import Observation, Photo, ViewName

SAMPLE = Path(worker.demo.__file__).parent / "sample"
CPU = torch.device("cpu")


def checkout(name: str, *packages: str) -> Path:
    """Give a vendor's checkout at the pinned commit, or skip saying what is missing."""
    (vendor,) = (vendor for vendor in read_vendors() if vendor.name == name)
    try:
        check(vendor, HERE / name)
    except VendorError as error:
        pytest.skip(str(error))
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: run `make test-vendors`")
    return HERE / name


@pytest.fixture(scope="module")
def network_cut() -> Iterator[None]:
    """Let every attempt to reach somebody fail, in this process."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"somebody was called: {arguments[1:] or options}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="module")
def sam2_code() -> Path:
    return checkout("sam2", "torchvision", "hydra", "iopath")


@pytest.fixture(scope="module")
def front() -> Photo:
    return read_photo(SAMPLE / "front.jpg", ViewName.FRONT)


@pytest.fixture(scope="module")
def seen(front: Photo) -> Observation:
    return Observer.load(assets.default_models_dir()).observe(front)


@pytest.fixture(scope="module")
def sam2_random(
    sam2_code: Path, network_cut: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """SAM 2 as an operator has it, code and checkpoint, with random weights."""
    return _sam2_folder(
        tmp_path_factory.mktemp("random"),
        sam2_code,
        fabricate.sam2_network(sam2_code).state_dict(),
    )


@pytest.fixture(scope="module")
def random_masks(sam2_random: Path, network_cut: None) -> Sam2Masks:
    return Sam2Masks.load(sam2_random, CPU, model=fabricate.TINY)


@pytest.fixture(scope="module")
def sam2_taught(
    sam2_code: Path,
    random_masks: Sam2Masks,
    front: Photo,
    seen: Observation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same, whose decoder was taught the sample person's outline."""
    masks = Sam2Masks.load(
        _sam2_folder(
            tmp_path_factory.mktemp("pupil"),
            sam2_code,
            random_masks.predictor.model.state_dict(),
        ),
        CPU,
        model=fabricate.TINY,
    )
    state = fabricate.taught_about(masks, front, seen)
    return _sam2_folder(tmp_path_factory.mktemp("taught"), sam2_code, state)


def _sam2_folder(folder: Path, code: Path, state: dict[str, torch.Tensor]) -> Path:
    (folder / "sam2").symlink_to(code / "sam2")
    (folder / "checkpoints").mkdir()
    torch.save({"model": state}, folder / "checkpoints" / f"{fabricate.TINY}.pt")
    return folder
