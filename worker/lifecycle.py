"""The worker's process: start order, readiness, stopping, exit codes.

Start: HTTP (so that the reason for not being ready can be read from the first moment), engine and
queue side by side; jobs are taken only while the engine is usable.  A dependency that is down, a
missing model or a required estimator that does not exist does not end the process: a container
that exits is started again for ever, billed all the while, and says less than `/ready` does.

Exit codes:
    0  stopped by SIGTERM or SIGINT, nothing left behind
    2  the environment is wrong, or WORKER_PORT is taken; nothing was started
    3  the queue's loop ended by itself; start the worker again
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

from worker.consumer.connection import ping
from worker.consumer.worker import LOCK_MS, Consumer
from worker.engine.messages import EngineConfig
from worker.engine.supervisor import COMMAND, Engine, EngineState
from worker.errors import (
    AvatarError,
    LicensedEstimatorMissing,
    QueueUnavailable,
    SettingsError,
)
from worker.http.server import HttpServer
from worker.observability.logs import configure_logging, get_logger
from worker.reporter.client import ApiClient
from worker.runner import JobRunner
from worker.settings import Settings, child_environment
from worker.storage.bucket import Bucket
from worker.storage.outputs import Outputs

log = get_logger("worker")

QUEUE_RETRY_S: Final = 5.0
UNHEALTHY_AFTER_S: Final = LOCK_MS / 1000.0
"""After so long without an answer of Redis every lock is lost, and a restart costs nothing."""


class ExitCode(IntEnum):
    """How the process ends; see the module's docstring."""

    STOPPED = 0
    WRONG_SETTINGS = 2
    QUEUE_LOOP_ENDED = 3


class Worker:
    """All parts of the worker, started and stopped in order.

    Args:
        settings: the environment.
        engine_command: the engine's program; tests give their own.
    """

    def __init__(self, settings: Settings, *, engine_command: Sequence[str] = COMMAND) -> None:
        self.settings = settings
        self._bucket = Bucket(settings.storage)
        self._api = ApiClient(settings.api)
        self.engine = Engine(
            _engine_config(settings),
            environment=_engine_environment(settings),
            on_state=self._engine_changed,
            command=engine_command,
        )
        runner = JobRunner(
            bucket=self._bucket,
            outputs=Outputs(self._bucket, settings.storage.public_base),
            engine=self.engine,
            api=self._api,
            timeout_s=settings.worker.processing_timeout_s,
            publish_inspection=settings.storage.publish_inspection,
        )
        self.consumer = Consumer(settings.queue, runner.run, runner.gave_up)
        self.http = HttpServer(self, settings.worker.port)
        self._stop = asyncio.Event()
        self.stopped = asyncio.Event()
        self._refusal: AvatarError | None = None
        self._queue_trouble: AvatarError | None = QueueUnavailable(
            "Redis was not asked yet.", advice="Wait a moment."
        )

    # ------------------------------------------------------------ life
    async def run(self) -> ExitCode:
        """Work until told to stop.

        Raises:
            SettingsError: WORKER_PORT is taken; nothing was started.
        """
        self.http.start()
        log.info("worker.starting", port=self.http.port, pid=os.getpid())
        for sentence in self.settings.limitations():
            log.warning("worker.limitation", text=sentence)
        try:
            return await self._work()
        finally:
            await self._shut_down()

    def stop(self) -> None:
        """Ask the worker to stop; a second time, to stop without waiting for anything."""
        if self._stop.is_set():
            log.warning("worker.killed")
            os._exit(1)
        log.info("worker.stopping", active_jobs=self.consumer.active_jobs)
        self._stop.set()

    async def _work(self) -> ExitCode:
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        taking = asyncio.create_task(self._take_jobs(), name="take jobs")
        await asyncio.wait({stopped, taking}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            taking.cancel()
            return ExitCode.STOPPED
        stopped.cancel()
        log.error(
            "worker.queue_loop_ended", exc_info=None if taking.cancelled() else taking.exception()
        )
        return ExitCode.QUEUE_LOOP_ENDED

    async def _take_jobs(self) -> None:
        """Bring up engine and queue; returns only when the queue's loop has ended."""
        if self.settings.pipeline.require_real_avatar:
            self._refusal = LicensedEstimatorMissing()
            log.error("worker.refuses_jobs", why=str(self._refusal), advice=self._refusal.advice)
            await asyncio.Event().wait()
        self.engine.start()
        await self._reach_queue()
        loop = await self.consumer.start()
        self._engine_changed(self.engine.state)
        # Shielded: cancelling this task, on SIGTERM, must not tear the loop from its job.
        await asyncio.shield(loop)

    async def _reach_queue(self) -> None:
        """Ask Redis until it answers; tell what is wrong when that changes."""
        told = None
        while True:
            try:
                await ping(self.settings.queue)
            except QueueUnavailable as error:
                self._queue_trouble = error
                if error.message != told:
                    log.warning("queue.unavailable", why=error.message, advice=error.advice)
                    told = error.message
                await asyncio.sleep(QUEUE_RETRY_S)
            else:
                self._queue_trouble = None
                return

    async def _shut_down(self) -> None:
        """Queue first, so that the job that is running is settled; HTTP last."""
        await self.consumer.stop(drain_s=self.settings.worker.drain_s)
        await self.engine.stop()
        await self._api.aclose()
        self._bucket.close()
        await self.http.stop()
        self.stopped.set()
        log.info("worker.stopped")

    def _engine_changed(self, state: EngineState) -> None:
        """Take jobs exactly while the engine can do them."""
        if state in {EngineState.READY, EngineState.BUSY}:
            self.consumer.open()
        else:
            self.consumer.close_gate()

    # ------------------------------------------------------------ what /health and /ready say
    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process should live on: while jobs are taken, Redis must have answered."""
        silence_s = self.consumer.last_round_trip_s if self.consumer.is_taking else 0.0
        alive = silence_s < UNHEALTHY_AFTER_S
        return alive, {
            "status": "ok" if alive else "unhealthy",
            "secondsSinceRedisAnswered": round(silence_s, 1),
        }

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether jobs are taken; if not, the state's name, the reason and what to do."""
        trouble = self._refusal or self.engine.reason or self._queue_trouble
        state = EngineState.SETUP_FAILED if self._refusal else self.engine.state
        ready = trouble is None and not self._stop.is_set() and self.consumer.is_taking
        facts: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            "state": "STOPPING" if self._stop.is_set() else state.value,
            "activeJobs": self.consumer.active_jobs,
        }
        if trouble is not None:
            facts |= {"code": trouble.code, "reason": trouble.message, "advice": trouble.advice}
        elif not ready:
            facts["reason"] = (
                "The worker is stopping."
                if self._stop.is_set()
                else "The engine is loading its models."
            )
        if warnings := self.settings.limitations():
            facts["warnings"] = warnings
        return ready, facts


async def run_worker(settings: Settings, *, engine_command: Sequence[str] = COMMAND) -> int:
    """Run the worker in this process until it is told to stop; what `avatar-worker run` runs.

    Returns:
        The exit code; see the module's docstring.
    """
    configure_logging(settings.secrets())
    worker = Worker(settings, engine_command=engine_command)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    try:
        return int(await worker.run())
    except SettingsError as error:
        log.error("worker.wrong_settings", why=error.message, advice=error.advice)  # noqa: TRY400 - the trace would not help
        return int(ExitCode.WRONG_SETTINGS)


def _engine_config(settings: Settings) -> EngineConfig:
    pipeline = settings.pipeline
    return EngineConfig(
        device=pipeline.device,
        observer_models_dir=str(pipeline.observer_model_dir)
        if pipeline.observer_model_dir
        else None,
        display_pose=pipeline.display_pose,
        apose_arm_down_deg=pipeline.apose_arm_down_deg,
        silhouette_refine=pipeline.silhouette_refine,
        silhouette_torso_erode_px=pipeline.silhouette_torso_erode_px,
        gltfpack_path=pipeline.gltfpack_path,
        require_gltfpack=pipeline.require_gltfpack,
    )


def _engine_environment(settings: Settings) -> dict[str, str]:
    environment = child_environment()
    if settings.pipeline.gpus != "all":
        environment["CUDA_VISIBLE_DEVICES"] = settings.pipeline.gpus.split(",", maxsplit=1)[0]
    # The engine's prints become our log lines at once, not when a buffer is full.
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
