"""What `avatar-worker doctor` looks at on this machine: GPU, disk, vendors' checkouts.

Nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final

from worker.engine import preflight
from worker.engine_config import beside
from worker.errors import DiskFull, ModelInvalid
from worker.settings import Settings

FREE_GB: Final = 2.0
"""What a job's folder, temporary files and core dumps of CUDA need at least."""
VENDORS: Final = Path(__file__).resolve().parents[1] / "vendors" / "fetch.py"
"""In a checkout; an image has a record instead (`worker.licensed_code`)."""

Check = tuple[str, Callable[[], str]]


def checks(settings: Settings) -> Iterator[Check]:
    """Name what to look at, and how; each check returns what it saw or raises an `AvatarError`."""
    yield "GPU", lambda: _gpu(settings.pipeline.wanted_device)
    yield "disk", lambda: _disk(Path(tempfile.gettempdir()))
    models = settings.models
    code = {
        "PIXIE": models.pixie_dir / "pixielib",
        "sam-3d-body": models.sam3d_repo_dir / "sam_3d_body",
        "dinov3": beside(models.sam3d_repo_dir, "dinov3") / "dinov3",
        "SMPL-Anthropometry": beside(models.sam3d_repo_dir, "SMPL-Anthropometry") / "measure.py",
        "sam2": models.sam3d_segmentor / "sam2",
    }
    if VENDORS.is_file():
        for name, path in code.items():
            yield f"vendor {name}", partial(_vendor, name, path)


def _gpu(device: str) -> str:
    if device == "cpu":
        return "not asked for: WORKER_DEVICE is cpu"
    cuda = preflight.torch_cuda()
    if device == "auto" and cuda is None:
        return "none is used: this torch is built for the CPU"
    if trouble := preflight.look(cuda=cuda):
        raise trouble
    return f"driver and GPU are new enough for torch's CUDA {cuda}"


def _disk(folder: Path) -> str:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < FREE_GB:
        raise DiskFull(f"{folder} has {free_gb:.1f} GB free; {FREE_GB:g} are needed.")
    return f"{free_gb:.0f} GB free in {folder}"


def _vendor(name: str, path: Path) -> str:
    """Hold the checkout that a vendor's code lies in against the pinned commit."""
    if not path.exists():
        return f"not here: {path}"
    folder = path.resolve().parent
    fetch = _fetch_module()
    (vendor,) = (vendor for vendor in fetch.read_vendors() if vendor.name == name)
    try:
        fetch.check(vendor, folder)
    except fetch.VendorError as error:
        raise ModelInvalid(
            f"{name}: {error}", advice="Run `make vendors`, or name the checkout that it made."
        ) from None
    return f"{vendor.commit[:12]}, as pinned, in {folder}"


def _fetch_module() -> ModuleType:
    """`vendors/fetch.py`, which is a program of the checkout and no part of the package."""
    name = "vendors_fetch"
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, VENDORS)
        if found is None or found.loader is None:
            raise ModelInvalid(f"{VENDORS} cannot be read.")
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        found.loader.exec_module(module)
    return sys.modules[name]
