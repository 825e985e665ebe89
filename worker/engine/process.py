"""The engine process: loads the pipeline once, then builds one avatar after another.

Started by `worker.engine.supervisor` as `python -m worker.engine.process COMMANDS_FD MESSAGES_FD`.
It alone imports `worker.avatar` and, through it, torch; it has no credentials and talks to nobody
but its parent.  When the parent goes away, it ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from worker.engine.messages import (
    Advanced,
    Built,
    EngineConfig,
    Failed,
    Ready,
    RunJob,
    to_engine,
)
from worker.errors import AvatarError, EngineError, OutOfMemory

Advance = Callable[[str, float], None]

ADVANCE_INTERVAL_S = 0.1
"""Progress within a stage is told at most this often; a stage's end always."""


class Builder(Protocol):
    """A loaded pipeline, as this process uses it."""

    def ready(self) -> Ready:
        """Say what was loaded."""

    def build(self, job: RunJob, advance: Advance) -> Built:
        """Build one avatar."""


class PipelineBuilder:
    """`worker.avatar.pipeline` behind this process's messages."""

    def __init__(self, config: EngineConfig) -> None:
        from worker.avatar.pipeline import Pipeline, PipelineConfig  # noqa: PLC0415 - torch

        fields = config.model_dump(exclude={"kind", "observer_models_dir"})
        folder = config.observer_models_dir
        self._pipeline = Pipeline.load(
            PipelineConfig(**fields, observer_models_dir=Path(folder) if folder else None)
        )

    def ready(self) -> Ready:
        """Say what was loaded."""
        return Ready(device_name=self._pipeline.device_name, models=tuple(self._pipeline.models))

    def build(self, job: RunJob, advance: Advance) -> Built:
        """Build one avatar."""
        from worker.avatar.types import AvatarRequest, Gender, Stage  # noqa: PLC0415 - torch

        folder = Path(job.folder)
        request = AvatarRequest(
            front=folder / job.front,
            side=folder / job.side if job.side else None,
            height_m=job.height_m,
            weight_kg=job.weight_kg,
            gender=Gender(job.gender),
        )

        def progress(stage: Stage, fraction: float) -> None:
            advance(stage.value, fraction)

        result = self._pipeline.run(request, folder, progress)
        return Built(
            files=result.files,
            inspection_files=result.inspection_files,
            measurements_cm=dict(result.measurements_cm),
            confidence=result.quality.confidence.value,
            warnings=result.quality.warnings,
            view_iou=dict(result.view_iou),
            stage_seconds=dict(result.stage_seconds),
            sources=dict(result.sources),
        )


def main(
    argv: list[str] | None = None, load: Callable[[EngineConfig], Builder] = PipelineBuilder
) -> None:
    """Serve the parent until it closes the command pipe."""
    commands_fd, messages_fd = (int(word) for word in (argv or sys.argv)[1:3])
    commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with os.fdopen(commands_fd, "rb") as source, os.fdopen(messages_fd, "wb", 0) as messages:
        threading.Thread(target=_receive, args=(source, commands), daemon=True).start()
        _serve(commands, messages, load)


def _receive(source: BinaryIO, commands: queue.SimpleQueue[bytes]) -> None:
    """Pass commands on; end the process at once when the parent is gone, even in mid-job."""
    for line in source:
        commands.put(line)
    os._exit(0)


def _serve(
    commands: queue.SimpleQueue[bytes], messages: BinaryIO, load: Callable[[EngineConfig], Builder]
) -> None:
    config = to_engine.validate_json(commands.get())
    if not isinstance(config, EngineConfig):
        raise TypeError(f"expected the configuration first, not {config.kind}")
    try:
        builder = load(config)
    except Exception as error:  # noqa: BLE001 - whatever a model's loader raises
        messages.write(Failed.from_error(_named(error)).line())
        return
    messages.write(builder.ready().line())
    while True:
        job = to_engine.validate_json(commands.get())
        if not isinstance(job, RunJob):
            raise TypeError(f"expected a job, not {job.kind}")
        try:
            answer: Built | Failed = builder.build(job, _Progress(messages))
        except Exception as error:  # noqa: BLE001 - whatever the job meets, the next one may run
            answer = Failed.from_error(_named(error))
        messages.write(answer.line())


class _Progress:
    """Sends progress, but not more of it than anybody reads."""

    def __init__(self, messages: BinaryIO) -> None:
        self._messages = messages
        self._sent_at = 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if fraction < 1.0 and now - self._sent_at < ADVANCE_INTERVAL_S:
            return
        self._sent_at = now
        self._messages.write(Advanced(stage=stage, fraction=fraction).line())


def _named(error: Exception) -> AvatarError:
    """Give any error one of our names; the traceback goes to the log through stderr."""
    if isinstance(error, AvatarError):
        return error
    traceback.print_exception(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"{type(error).__name__} on the device.")
    return EngineError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
