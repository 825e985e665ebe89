"""SAM 3D Body's code, imported and built without reaching for the network, MHR's package or CUDA.

Left to itself it fetches DINOv3's code from GitHub while it is built, takes an empty checkpoint
with a warning, and calls `.cuda()` whatever the device is (docs/reference/vendors.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch

from worker.avatar.vendor_code import (
    Posing,
    import_package,
    import_torchvision,
    import_vendor,
    swapped,
)
from worker.avatar.weights import WeightsFile
from worker.errors import ModelInvalid

VARIABLE: Final = "SAM3DBODY_REPO_DIR"
DINO_HUB: Final = "facebookresearch/dinov3"
_NEEDED: Final = ("MODEL.BACKBONE.TYPE", "MODEL.IMAGE_SIZE", "MODEL.DECODER.DIM", "TRAIN.USE_FP16")
_SMALL_BYTES: Final = 1_000_000


def import_sam3d(folder: Path) -> ModuleType:
    """Import the network's own module, and nothing that draws or downloads.

    Raises:
        ModelMissing, ModelInvalid: as `import_vendor`.
    """
    import_torchvision()
    return import_vendor(folder, "sam_3d_body.models.meta_arch.sam3d_body", variable=VARIABLE)


def read_config(checkpoint: Path, mhr: Path, *, bfloat16: bool) -> tuple[Any, Path]:
    """Read `model_config.yaml`, beside the checkpoint or one folder up, as the vendor looks for it.

    Args:
        checkpoint: SAM3DBODY_CHECKPOINT_PATH.
        mhr: SAM3DBODY_MHR_PATH.
        bfloat16: whether the backbone computes in it; CUDA alone is fast in it.

    Returns:
        A `yacs` node, and where it was read from.

    Raises:
        ModelMissing: it is not there.
        ModelInvalid: it is no configuration of this network.
    """
    places = (
        checkpoint.with_name("model_config.yaml"),
        checkpoint.parent.parent / "model_config.yaml",
    )
    path = next((place for place in places if place.is_file()), places[0])
    file = WeightsFile("SAM 3D Body's configuration", path)
    with file.open() as opened:
        head = opened.read(_SMALL_BYTES)
    if head.lstrip()[:1] in {b"<", b"{"} or len(head) == _SMALL_BYTES or not head.strip():
        raise file.wrong("is no YAML configuration, but perhaps a web page or a service's answer")
    reading = importlib.import_module("sam_3d_body.utils.config")
    try:
        config = reading.get_config(str(path))
        for name in _NEEDED:
            part = config
            for key in name.split("."):
                part = part[key]
    except Exception as error:
        # OmegaConf and yacs raise kinds of their own, and what a file of another kind makes them.
        raise file.wrong(
            f"is no configuration of SAM 3D Body ({type(error).__name__}: {error})"
        ) from error
    config.defrost()
    config.MODEL.MHR_HEAD.MHR_MODEL_PATH = str(mhr)
    config.TRAIN.USE_FP16 = bfloat16
    config.TRAIN.FP16_TYPE = "bfloat16"
    config.freeze()
    return config, path


def config_classes() -> list[type]:
    """What lightning leaves beside the tensors of a checkpoint: the training's configuration.

    Raises:
        ModelMissing: yacs is not installed.
    """
    return [import_package("yacs.config").CfgNode]


def build(code: ModuleType, config: Any, dino_folder: Path, mhr: torch.jit.ScriptModule) -> Any:
    """Build the network with random weights, on the CPU.

    Args:
        code: from `import_sam3d`.
        config: from `read_config`.
        dino_folder: checkout of facebookresearch/dinov3.
        mhr: MHR, read by us.

    Raises:
        ModelMissing: DINOv3's code is not there.
        ModelInvalid: the configuration wants a backbone that DINOv3's code has not.
    """
    backbones = import_vendor(dino_folder, "dinov3.hub.backbones", variable="vendors.toml's dinov3")
    dino = importlib.import_module("sam_3d_body.models.backbones.dinov3")
    head = importlib.import_module("sam_3d_body.models.heads.mhr_head")

    def from_checkout(repository: str, name: str, **options: Any) -> Any:
        if repository != DINO_HUB or not hasattr(backbones, name):
            raise ModelInvalid(f"SAM 3D Body wants {name} of {repository}, which is not pinned.")
        options.pop("source", None)
        return getattr(backbones, name)(**options)

    hub = Posing(torch.hub, load=from_checkout)
    jit = Posing(torch.jit, load=lambda *_, **__: mhr)
    with (
        swapped(dino, torch=Posing(torch, hub=hub)),
        # MHR by its TorchScript, also where its own package is installed.
        swapped(head, torch=Posing(torch, jit=jit), MOMENTUM_ENABLED=False),
    ):
        return code.SAM3DBody(config)


def transforms() -> Any:
    """The vendor's own transforms of a crop, and how it makes a batch of it."""
    return (
        importlib.import_module("sam_3d_body.data.transforms"),
        importlib.import_module("sam_3d_body.data.utils.prepare_batch").prepare_batch,
        import_package("torchvision.transforms").ToTensor,
    )


@contextmanager
def staying_on(device: torch.device) -> Iterator[None]:
    """Keep the vendor's `.cuda()` from leaving a device that is not CUDA."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
        return
    with swapped(torch.Tensor, cuda=lambda tensor, *_, **__: tensor):
        yield
