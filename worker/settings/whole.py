"""The whole environment: all groups, read at once and refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from worker.errors import SettingsError
from worker.settings.base import Group, explain, given_or_own
from worker.settings.connections import ApiSettings, QueueSettings, StorageSettings
from worker.settings.engine import ModelSettings, PipelineSettings
from worker.settings.process import SyncSettings, WorkerSettings

GROUPS: dict[str, type[Group]] = {
    "queue": QueueSettings,
    "api": ApiSettings,
    "storage": StorageSettings,
    "pipeline": PipelineSettings,
    "models": ModelSettings,
    "sync": SyncSettings,
    "worker": WorkerSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole environment, in groups that are handed to the parts that need them."""

    queue: QueueSettings
    api: ApiSettings
    storage: StorageSettings
    pipeline: PipelineSettings
    models: ModelSettings
    sync: SyncSettings
    worker: WorkerSettings

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check everything.

        Args:
            environ: what to read instead of the process's environment.

        Raises:
            SettingsError: naming every variable that is missing or wrong, what it is for and an
                example; never the value of a secret.
        """
        source = given_or_own(environ)
        groups: dict[str, Any] = {}
        wrong: list[str] = []
        for name, group in GROUPS.items():
            try:
                groups[name] = group.read(source)
            except ValidationError as error:
                wrong.extend(explain(group, error))
        if wrong:
            raise SettingsError("\n".join(["The environment is wrong:", *wrong]))
        return cls(**groups)

    def limitations(self) -> list[str]:
        """What the environment asks for and this version cannot do; told at start and on /ready."""
        asked = {
            "PIXIE_USE_TEX=true: PIXIE's texture is not used; skin comes from the photo.": (
                self.models.pixie_use_tex
            ),
            "SAM3DBODY_DETECTOR_PATH is not used: SAM 3D Body is given our box.": (
                self.models.sam3d_detector is not None
            ),
            "SAM3DBODY_FOV_PATH is not used: SAM 3D Body is given our camera.": (
                self.models.sam3d_fov is not None
            ),
            "SAM3DBODY_ENABLED=true has no effect: AVATAR_ESTIMATORS does not name sam3d_body.": (
                self.models.sam3d_enabled and "sam3d_body" not in self.models.estimators
            ),
            "SMPL_ANTHRO_MODEL_EXT has no effect: npz alone is read.": (
                self.models.smpl_anthro_model_ext not in {None, "npz", ".npz"}
            ),
        }
        return [sentence for sentence, is_asked in asked.items() if is_asked]

    def secrets(self) -> frozenset[str]:
        """Every secret value, and the passwords inside URLs, for the log's redaction."""
        found: set[str] = set()
        for name in GROUPS:
            group: Group = getattr(self, name)
            for field in type(group).model_fields:
                value = getattr(group, field)
                if isinstance(value, SecretStr):
                    found.add(value.get_secret_value())
        found.add(urlsplit(self.queue.url.get_secret_value()).password or "")
        return frozenset(secret for secret in found if len(secret) >= 4)
