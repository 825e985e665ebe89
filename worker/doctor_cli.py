"""`avatar-worker doctor`: what is asked, in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from worker.doctor import Finding, examine, examine_services
from worker.errors import SettingsError
from worker.settings import ModelSettings, PipelineSettings

if TYPE_CHECKING:
    from worker.avatar.config import PipelineConfig


async def look(models_dir: Path | None, tell: Callable[[Finding], None], *, load: bool) -> None:
    """Look at everything, and tell each finding as soon as it is there.

    Args:
        models_dir: of the free pose models; None: as the environment says.
        tell: called with each finding.
        load: also load every enabled model.
    """
    from worker.avatar import checkup

    config = _pipeline_config(models_dir)
    for what, check in checkup.checks(config):
        tell(examine(what, check))
    if load:
        tell(examine("loading", lambda: checkup.load(config)))
    async for finding in examine_services():
        tell(finding)


def _pipeline_config(models_dir: Path | None) -> PipelineConfig:
    """What the engine would be told, as far as the environment says; else the free default."""
    from worker.avatar.config import PipelineConfig
    from worker.avatar.estimate.load import EstimatorConfig
    from worker.engine_config import engine_config

    try:
        # These two groups alone: without Redis and MinIO, models can be looked at all the same.
        told = engine_config(PipelineSettings.load(), ModelSettings.load())
    except SettingsError:  # `examine_services` says what is wrong
        return PipelineConfig(observer_models_dir=models_dir)
    fields = told.model_dump(exclude={"kind", "observer_models_dir", "estimators"})
    folder = models_dir or (Path(told.observer_models_dir) if told.observer_models_dir else None)
    estimators = EstimatorConfig(**told.estimators.model_dump())
    return PipelineConfig(**fields, observer_models_dir=folder, estimators=estimators)
