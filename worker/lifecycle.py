"""The worker's process: start order, readiness, stopping, exit codes.

Start: HTTP (so that the reason for not being ready can be read from the first moment), engines and
queue side by side; jobs are taken only while an engine is usable.  A dependency that is down, a
missing model or a required estimator that is not there does not end the process: a container
that exits is started again for ever, billed all the while, and says less than `/ready` does.

Stop, within three seconds: no further job is taken, running ones are put back, reports that are on
their way arrive or are left to other workers, HTTP last.

Exit codes:
    0  stopped by SIGTERM or SIGINT, nothing left behind
    2  the environment is wrong, or WORKER_PORT is taken; nothing was started
    3  the queue's loop ended by itself; start the worker again
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import tempfile
import uuid
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from redis.exceptions import RedisError

from worker import tasks
from worker.consumer.connection import connect, ping
from worker.consumer.marks import JobMarks
from worker.consumer.worker import Consumer
from worker.engine import preflight
from worker.engine.devices import child_environments
from worker.engine.limits import EngineLimits
from worker.engine.pool import EnginePool
from worker.engine.supervisor import COMMAND, EngineState
from worker.engine_config import engine_config
from worker.errors import (
    AvatarError,
    QueueUnavailable,
    SettingsError,
)
from worker.http.identity import Identity
from worker.http.server import HttpServer
from worker.licensed_code import describe as describe_code
from worker.licensed_code import licensed_code
from worker.observability.journal import Journal
from worker.observability.logs import configure_logging, get_logger
from worker.observability.tracing import otlp_tracer
from worker.pod import PodStopper
from worker.reporter.client import ApiClient
from worker.reporter.outbox import Outbox
from worker.runner import JobRunner
from worker.scratch import scratch
from worker.settings import Settings, child_environment
from worker.status import StatusBoard
from worker.storage.bucket import Bucket
from worker.storage.outputs import Outputs
from worker.storage.work import WorkStore
from worker.weights import Weights, describe, refusal

log = get_logger("worker")

QUEUE_RETRY_S: Final = 5.0
LICENSED_RETRY_S: Final = 30.0
CLOSE_S: Final = 0.3
CLEAN_AGAIN_S: Final = 5.0
SWEEP_EVERY_S: Final = 6 * 3600.0
WORK_KEPT_S: Final = 48 * 3600.0
"""What was computed of a job that nobody finished is removed after this."""


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

    Raises:
        SettingsError: WORKER_GPUS names a GPU that is not there.
    """

    def __init__(self, settings: Settings, *, engine_command: Sequence[str] = COMMAND) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        prefix, queue = settings.queue.prefix, settings.queue.queue
        self.weights = Weights(settings, on_change=self._open_or_close)
        self._redis = connect(settings.queue)
        self._bucket = Bucket(settings.storage)
        self._api = ApiClient(settings.api)
        self._tracer = otlp_tracer(
            settings.worker.otlp_endpoint, version=Identity.of(settings.worker).version
        )
        self._journal = Journal()
        self._work_store = WorkStore(self._bucket)
        self.outbox = Outbox(self._redis, self._api, prefix=prefix, queue=queue, owner=self.name)
        self.engine = EnginePool(
            engine_config(settings.pipeline, settings.models),
            environments=_engine_environments(settings),
            on_state=lambda _state: self._open_or_close(),
            command=engine_command,
            limits=EngineLimits.for_jobs_of(settings.worker.processing_timeout_s),
        )
        runner = JobRunner(
            bucket=self._bucket,
            outputs=Outputs(self._bucket, settings.storage.public_base, work=self._work_store),
            work=self._work_store,
            engine=self.engine,
            api=self._api,
            outbox=self.outbox,
            marks=JobMarks(self._redis, prefix=prefix, queue=queue, holder=self.name),
            timeout_s=settings.worker.processing_timeout_s,
            publish_inspection=settings.storage.publish_inspection,
            journal=self._journal,
            tracer=self._tracer,
        )
        self.consumer = Consumer(
            settings.queue, runner.run, runner.gave_up, concurrency=self.engine.size
        )
        self.told = StatusBoard(self, self._journal)
        self.http = HttpServer(self.told, settings.worker.port, token=settings.worker.token)
        self._stop = asyncio.Event()
        self.stopped = asyncio.Event()
        self._refusal: AvatarError | None = None
        self._gpu_trouble: AvatarError | None = None
        self._queue_trouble: AvatarError | None = None

    # ------------------------------------------------------------ life
    async def run(self) -> ExitCode:
        """Work until told to stop.

        Raises:
            SettingsError: WORKER_PORT is taken; nothing was started.
        """
        self.http.start()
        log.info(
            "worker.starting",
            port=self.http.port,
            pid=os.getpid(),
            vendors=describe_code(licensed_code(self.settings.models)),
        )
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
        tidying = asyncio.create_task(self._tidy(), name="tidy")
        stopping_pod = asyncio.create_task(self._stop_unfit_pod(), name="stop unfit pod")
        await asyncio.wait({stopped, taking}, return_when=asyncio.FIRST_COMPLETED)
        await tasks.end(tidying, stopping_pod)
        if stopped.done():
            await tasks.end(taking)
            return ExitCode.STOPPED
        stopped.cancel()
        log.error(
            "worker.queue_loop_ended", exc_info=None if taking.cancelled() else taking.exception()
        )
        return ExitCode.QUEUE_LOOP_ENDED

    async def _take_jobs(self) -> None:
        """Bring up engines and queue; returns only when the queue's loop has ended."""
        device = self.settings.pipeline.wanted_device
        if self.settings.worker.runpod_pod_id and device != "cpu":
            self._gpu_trouble = await asyncio.to_thread(missing_gpu, device)
            if self._gpu_trouble:
                why, advice = self._gpu_trouble.message, self._gpu_trouble.advice
                log.error("worker.no_gpu", why=why, advice=advice)
                await asyncio.Event().wait()
        if self.settings.pipeline.require_real_avatar:
            await self._await_licensed()
        await asyncio.gather(self._reach_queue(), self._load_engine())
        self.outbox.start()
        loop = await self._start_taking()
        self._open_or_close()
        # Shielded: cancelling this task, on SIGTERM, must not tear the loop from its job.
        await asyncio.shield(loop)

    async def _load_engine(self) -> None:
        """Start engines when the weights are there: what lies on the volume decides what they load.

        One that started beside the sync would find an empty folder and fit the free body for good.
        """
        if self.weights.is_complete:  # nothing is synced: what is lacking can be said meanwhile
            self.engine.start()
            await self.weights.bring()
        else:
            await self.weights.bring()
            self.engine.start()

    async def _await_licensed(self) -> None:
        """Wait, saying why, until a licensed estimator is enabled; the engine then verifies it."""
        await self.weights.bring()
        while (why := refusal(self.settings)) is not None:
            if self._refusal is None or self._refusal.message != why.message:
                log.error("worker.refuses_jobs", why=str(why), advice=why.advice)
            self._refusal = why
            await asyncio.sleep(LICENSED_RETRY_S)
        self._refusal = None

    async def _start_taking(self) -> asyncio.Task[None]:
        while True:
            try:
                return await self.consumer.start()
            except (RedisError, OSError) as error:  # it went while the weights came
                log.warning("queue.lost", why=f"{type(error).__name__}: {error}")
                await asyncio.sleep(1.0)
                await self._reach_queue()

    async def _stop_unfit_pod(self) -> None:
        """Have RunPod stop a pod that cannot compute, when nobody has come to look."""
        mine = self.settings.worker
        stopper = PodStopper(
            mine.runpod_pod_id, mine.runpod_api_key, after_s=mine.unfit_stop_minutes * 60
        )
        await stopper.watch(lambda: self._gpu_trouble or self.engine.unfit)

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

    async def _tidy(self) -> None:
        """Remove what was kept of jobs that are over, or that nobody finished.

        Several workers may do it at once.
        """
        swept_at = -math.inf
        while True:
            await self._work_store.clean_again()
            if (now := asyncio.get_running_loop().time()) - swept_at >= SWEEP_EVERY_S:
                swept_at = now
                try:
                    await self._work_store.sweep(WORK_KEPT_S)
                except AvatarError as error:
                    log.warning("work.not_swept", why=error.message)
            await asyncio.sleep(CLEAN_AGAIN_S)

    async def _shut_down(self) -> None:
        """Queue first, so that the job that is running is settled; HTTP last."""
        self.weights.stop()
        await self.consumer.stop(drain_s=self.settings.worker.drain_s)
        await asyncio.gather(
            self.outbox.stop(), self.engine.stop(), asyncio.to_thread(self._tracer.close)
        )
        for close in (self._api.aclose, self._redis.aclose):
            # A connection that is dead can neither be closed in order nor be waited for.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await close()
        self._bucket.close()
        await self.http.stop()
        self.stopped.set()
        log.info("worker.stopped")

    def _open_or_close(self) -> None:
        """Take jobs exactly while some engine can do them, with all weights verified."""
        if self.engine.usable and self.weights.is_complete:
            self.consumer.open(self.engine.usable)
        else:
            self.consumer.close_gate()

    # ------------------------------------------------------------ what others may know
    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    @property
    def state(self) -> EngineState:
        """The engines' state; SETUP_FAILED when jobs are refused, STARTING while weights come."""
        if self._refusal or self._gpu_trouble or self.weights.trouble:
            return EngineState.SETUP_FAILED
        return self.engine.state if self.weights.is_complete else EngineState.STARTING

    @property
    def trouble(self) -> AvatarError | None:
        """Why no jobs are taken; None while they are, or while the start goes on."""
        return (
            self._refusal
            or self._gpu_trouble
            or self.weights.trouble
            or self.engine.reason
            or self.engine.set_up_trouble
            or self._queue_trouble
        )

    @property
    def what_is_awaited(self) -> str:
        """What the start is waiting for, in a sentence."""
        if not self.weights.is_complete:
            return describe(self.weights.progress)
        if not self.engine.usable:
            return "The engine is loading its models."
        return "Redis is being asked."


async def run_worker(settings: Settings, *, engine_command: Sequence[str] = COMMAND) -> int:
    """Run the worker in this process until it is told to stop; what `avatar-worker run` runs.

    Returns:
        The exit code; see the module's docstring.
    """
    configure_logging(settings.secrets())
    try:
        _demand_gpu(settings)
        with scratch():
            worker = Worker(settings, engine_command=engine_command)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, worker.stop)
            return int(await worker.run())
    except SettingsError as error:
        log.error("worker.wrong_settings", why=error.message, advice=error.advice)  # noqa: TRY400 - the trace would not help
        return int(ExitCode.WRONG_SETTINGS)


def missing_gpu(device: str) -> AvatarError | None:
    """Say why the GPU that `device` asks for cannot be used; auto asks only if torch has CUDA."""
    cuda = preflight.torch_cuda()
    return None if device == "auto" and cuda is None else preflight.look(cuda=cuda)


def _demand_gpu(settings: Settings) -> None:
    """Refuse to start without the GPU that is demanded; on RunPod the worker stays up to say so.

    Raises:
        SettingsError: with what is wrong with driver or GPU.
    """
    pipeline = settings.pipeline
    if pipeline.wanted_device != "cuda" or settings.worker.runpod_pod_id:
        return
    if trouble := missing_gpu("cuda"):
        why = "" if pipeline.device == "cuda" else ", and REQUIRE_REAL_AVATAR refuses the CPU"
        raise SettingsError(
            f"WORKER_DEVICE is {pipeline.device}{why}: {trouble.message}", advice=trouble.advice
        )


def _engine_environments(settings: Settings) -> list[dict[str, str]]:
    # The engine's prints become our log lines at once, not when a buffer is full.
    base = child_environment() | {"PYTHONUNBUFFERED": "1", "TMPDIR": tempfile.gettempdir()}
    return child_environments(base, settings.pipeline.wanted_device, settings.pipeline.gpus)
