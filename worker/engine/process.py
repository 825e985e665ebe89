"""The engine process: loads the pipeline once, then builds one avatar after another.

Started by `worker.engine.child` as `python -m worker.engine.process COMMANDS_FD MESSAGES_FD`.
It alone imports `worker.avatar` and, through it, torch; it has no credentials and talks to nobody
but its parent.  When the parent goes away, it ends.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from worker.engine import faults, host
from worker.engine.messages import (
    HEARTBEAT_INTERVAL_S,
    Advanced,
    Beat,
    Built,
    Checkpointed,
    EngineConfig,
    Failed,
    FromEngine,
    Ready,
    RunJob,
    to_engine,
)

ADVANCE_INTERVAL_S = 0.1
"""Progress within a stage is told at most this often; a stage's beginning and end always."""
EXIT_GPU_LOST = 75
"""After a lost CUDA context; an orderly exit would wait in the driver's destructors."""

Advance = Callable[[str, float], None]
Checkpoint = Callable[[str, tuple[str, ...]], None]


class Builder(Protocol):
    """A loaded pipeline, as this process uses it."""

    def ready(self) -> Ready:
        """Say what was loaded."""

    def build(self, job: RunJob, advance: Advance, checkpoint: Checkpoint) -> Built:
        """Build one avatar."""

    def cuda_reserved_bytes(self) -> int:
        """Say how much CUDA memory is held between jobs."""

    def release_memory(self) -> None:
        """Give back what is cached."""


class PipelineBuilder:
    """`worker.avatar.pipeline` behind this process's messages."""

    def __init__(self, config: EngineConfig) -> None:
        from worker.avatar.config import PipelineConfig  # noqa: PLC0415 - torch
        from worker.avatar.estimate.load import EstimatorConfig  # noqa: PLC0415 - torch
        from worker.avatar.pipeline import Pipeline  # noqa: PLC0415 - torch

        fields = config.model_dump(exclude={"kind", "observer_models_dir", "estimators"})
        folder = config.observer_models_dir
        self._pipeline = Pipeline.load(
            PipelineConfig(
                **fields,
                observer_models_dir=Path(folder) if folder else None,
                estimators=EstimatorConfig(**config.estimators.model_dump()),
            )
        )

    def ready(self) -> Ready:
        """Say what was loaded."""
        return Ready(
            device_name=self._pipeline.device_name,
            cuda=self._pipeline.cuda_version,
            models=tuple(self._pipeline.models),
            licensed=tuple(self._pipeline.licensed),
            fingerprint=self._pipeline.fingerprint,
        )

    def build(self, job: RunJob, advance: Advance, checkpoint: Checkpoint) -> Built:
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

        def keep(stage: Stage, files: tuple[str, ...]) -> None:
            checkpoint(stage.value, files)

        result = self._pipeline.run(
            request,
            folder,
            progress,
            checkpoint=keep,
            resume=job.resume,
            economy=job.economy,
        )
        return Built(
            files=result.files,
            inspection_files=result.inspection_files,
            measurements_cm=dict(result.measurements_cm),
            measurement_intervals_cm=dict(result.measurement_intervals_cm),
            confidence=result.quality.confidence.value,
            warnings=result.quality.warnings,
            view_iou=dict(result.view_iou),
            stage_seconds=dict(result.stage_seconds),
            sources=dict(result.sources),
        )

    def cuda_reserved_bytes(self) -> int:
        """Say how much CUDA memory is held between jobs."""
        return self._pipeline.cuda_reserved_bytes()

    def release_memory(self) -> None:
        """Give back what is cached."""
        self._pipeline.release_memory()


def main(
    argv: list[str] | None = None, load: Callable[[EngineConfig], Builder] = PipelineBuilder
) -> None:
    """Serve the parent until it closes the command pipe."""
    host.end_with_parent()
    host.be_the_first_to_go()
    # A segfault, and the parent before it kills us for hanging, leave the Python stacks in the log.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    commands_fd, messages_fd = (int(word) for word in (argv or sys.argv)[1:3])
    commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with os.fdopen(commands_fd, "rb") as source, os.fdopen(messages_fd, "wb", 0) as messages:
        threading.Thread(target=_receive, args=(source, commands), daemon=True).start()
        _Service(commands, _Voice(messages)).run(load)


def _receive(source: BinaryIO, commands: queue.SimpleQueue[bytes]) -> None:
    """Pass commands on; end the process at once when the parent is gone, even in mid-job."""
    for line in source:
        commands.put(line)
    os._exit(0)


class _Voice:
    """Writes messages; two threads do, so each goes out whole."""

    def __init__(self, messages: BinaryIO) -> None:
        self._messages = messages
        self._lock = threading.Lock()

    def __call__(self, message: FromEngine) -> None:
        with self._lock:
            view = memoryview(message.line())
            while view:  # a pipe without a buffer may take a part
                view = view[self._messages.write(view) :]


class _Service:
    """Loads, says so, and builds what it is told to."""

    def __init__(self, commands: queue.SimpleQueue[bytes], tell: _Voice) -> None:
        self._commands = commands
        self._tell = tell
        self._cuda_reserved_bytes = 0

    def run(self, load: Callable[[EngineConfig], Builder]) -> None:
        config = to_engine.validate_json(self._commands.get())
        if not isinstance(config, EngineConfig):
            raise TypeError(f"expected the configuration first, not {config.kind}")
        try:
            builder = load(config)
            ready = builder.ready()
        except Exception as error:  # noqa: BLE001 - whatever a model's loader raises
            self._tell(Failed.from_error(faults.name(error)[0]))
            return
        self._tell(ready)
        threading.Thread(target=self._beat, name="heart", daemon=True).start()
        while True:
            job = to_engine.validate_json(self._commands.get())
            if not isinstance(job, RunJob):
                raise TypeError(f"expected a job, not {job.kind}")
            answer = self._attempt(builder, job)
            if isinstance(answer, Failed) and answer.leaving:
                self._tell(answer)
                os._exit(EXIT_GPU_LOST)
            self._cuda_reserved_bytes = builder.cuda_reserved_bytes()
            self._tell(self._signs())
            self._tell(answer)

    def _attempt(self, builder: Builder, job: RunJob) -> Built | Failed:
        if job.economy:  # the traceback of the first run, which held its tensors, is gone
            gc.collect()
            builder.release_memory()
        try:
            return builder.build(job, _Progress(self._tell), self._checkpoint)
        except Exception as error:  # noqa: BLE001 - whatever the job meets, the next one may run
            named, leaving = faults.name(error)
            return Failed.from_error(named, leaving=leaving)

    def _checkpoint(self, stage: str, files: tuple[str, ...]) -> None:
        self._tell(Checkpointed(stage=stage, files=files))

    def _beat(self) -> None:
        """Say that the interpreter runs, whatever the main thread computes."""
        while True:
            time.sleep(HEARTBEAT_INTERVAL_S)
            self._tell(self._signs())

    def _signs(self) -> Beat:
        return Beat(rss_bytes=host.rss_bytes(), cuda_reserved_bytes=self._cuda_reserved_bytes)


class _Progress:
    """Sends progress, but not more of it than anybody reads."""

    def __init__(self, tell: _Voice) -> None:
        self._tell = tell
        self._sent_at = 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if 0.0 < fraction < 1.0 and now - self._sent_at < ADVANCE_INTERVAL_S:
            return
        self._sent_at = now
        self._tell(Advanced(stage=stage, fraction=fraction))


if __name__ == "__main__":
    main()
