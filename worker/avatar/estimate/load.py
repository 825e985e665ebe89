"""Which estimators are enabled, and loading them: all that are, or the worker is not ready."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from worker.avatar.estimate.chain import EstimatorChain
from worker.avatar.estimate.protocol import Estimator
from worker.errors import LicensedEstimatorMissing

SAM3D_BODY: Final = "sam3d_body"
PIXIE: Final = "pixie"
ORDER: Final = (SAM3D_BODY, PIXIE)
"""SAM 3D Body first: where an operator enables it by hand, it is what they mean."""
PIXIE_WEIGHTS: Final = Path("data") / "pixie_model.tar"


@dataclass(frozen=True, slots=True)
class EstimatorConfig:
    """What the operator decides about estimators; the worker's settings, by their names."""

    order: tuple[str, ...] = ORDER
    """AVATAR_ESTIMATORS."""
    required: bool = False
    """REQUIRE_REAL_AVATAR."""
    pixie_dir: str | None = None
    """PIXIE_MODEL_DIR; PIXIE is enabled when its weights lie there."""
    sam3d_enabled: bool = False
    """SAM3DBODY_ENABLED."""
    sam3d_repo_dir: str | None = None
    sam3d_checkpoint: str | None = None
    sam3d_mhr: str | None = None
    sam3d_use_mask: bool = True

    def enabled(self) -> tuple[str, ...]:
        """The enabled ones, in the declared order."""
        on = {
            SAM3D_BODY: self.sam3d_enabled,
            PIXIE: self.pixie_dir is not None and (Path(self.pixie_dir) / PIXIE_WEIGHTS).is_file(),
        }
        return tuple(name for name in self.order if on.get(name, False))

    def weights(self) -> list[Path]:
        """The files whose weights the enabled ones put on the device."""
        files = {
            SAM3D_BODY: [Path(self.sam3d_checkpoint or "")],
            PIXIE: [Path(self.pixie_dir or "") / PIXIE_WEIGHTS],
        }
        return [path for name in self.enabled() for path in files[name]]

    def code(self) -> list[Path]:
        """The folders of the vendors' code that the enabled ones run."""
        sam3d = Path(self.sam3d_repo_dir or "")
        folders = {
            SAM3D_BODY: [sam3d / "sam_3d_body", sam3d.parent / "dinov3" / "dinov3"],
            PIXIE: [Path(self.pixie_dir or "") / "pixielib"],
        }
        return [path for name in self.enabled() for path in folders[name]]

    def why_none(self) -> str:
        """Say, for each in the declared order, why it is not enabled."""
        why = {
            SAM3D_BODY: "SAM3DBODY_ENABLED is false",
            PIXIE: f"{Path(self.pixie_dir or 'PIXIE_MODEL_DIR') / PIXIE_WEIGHTS} is missing",
        }
        said = "; ".join(f"{name}: {why[name]}" for name in self.order)
        return f"AVATAR_ESTIMATORS names {said or 'none'}"


def load_estimators(config: EstimatorConfig, device: torch.device) -> EstimatorChain:
    """Load and try every enabled estimator, once.

    Raises:
        LicensedEstimatorMissing: one is required and none is enabled.
        ModelMissing, ModelInvalid: an enabled one cannot be used; the file is named.
    """
    names = config.enabled()
    if config.required and not names:
        raise LicensedEstimatorMissing(f"{LicensedEstimatorMissing().message} {config.why_none()}.")
    return EstimatorChain(tuple(_load(config, names, device)), config.required)


def _load(
    config: EstimatorConfig, names: Iterable[str], device: torch.device
) -> Iterable[Estimator]:
    # Their imports are the adapters' own: who enables none needs none of their packages.
    for name in names:
        if name == SAM3D_BODY:
            from worker.avatar.estimate.sam3d_body import Sam3dBody  # noqa: PLC0415 - see above

            yield Sam3dBody.load(
                Path(config.sam3d_repo_dir or ""),
                Path(config.sam3d_checkpoint or ""),
                Path(config.sam3d_mhr or ""),
                device,
                use_mask=config.sam3d_use_mask,
            )
        else:
            from worker.avatar.estimate.pixie import Pixie  # noqa: PLC0415 - see above

            yield Pixie.load(Path(config.pixie_dir or ""), device)
