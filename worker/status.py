"""What the worker says of itself: `/health`, `/ready`, `/v1/ping`, `/v1/status`, `/metrics`.

It only looks; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.consumer.bull import LOCK_MS
from worker.engine.supervisor import EngineState
from worker.http.identity import Identity
from worker.licensed_code import describe, licensed_code
from worker.observability.journal import Journal

if TYPE_CHECKING:
    from worker.lifecycle import Worker

UNHEALTHY_AFTER_S: Final = LOCK_MS / 1000.0
"""After so long without an answer of Redis every lock is lost, and a restart costs nothing.  An
engine that was silent for so long should have been replaced twice."""


class StatusBoard(Collector):
    """Tells of one worker.

    Args:
        worker: of which it tells.
        journal: its jobs.
    """

    def __init__(self, worker: Worker, journal: Journal) -> None:
        self._worker = worker
        self._journal = journal
        self._identity = Identity.of(worker.settings.worker)
        self._vendors = licensed_code(worker.settings.models)
        self._registry: CollectorRegistry = journal.registry
        self._registry.register(self)

    # ------------------------------------------------------------ for orchestrators
    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process should live on; what a new one could not do better keeps it alive.

        While jobs are taken, Redis must have answered.  An engine that is used must beat, and some
        engine must be left that is started again.
        """
        consumer, engine = self._worker.consumer, self._worker.engine
        redis_s = consumer.last_round_trip_s if consumer.is_taking else 0.0
        wrong = None
        if redis_s >= UNHEALTHY_AFTER_S:
            wrong = "Redis does not answer."
        elif engine.silence_s >= UNHEALTHY_AFTER_S:
            wrong = "An engine process is silent and was not replaced."
        elif engine.state is EngineState.DEFUNCT:
            wrong = "No engine process is left, and none will be started."
        facts = {
            "status": "unhealthy" if wrong else "ok",
            "secondsSinceRedisAnswered": round(redis_s, 1),
            "secondsSinceEngineBeat": round(engine.silence_s, 1),
        }
        return wrong is None, facts | ({"reason": wrong} if wrong else {})

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether jobs are taken; if not, the state's name, the reason and what to do."""
        worker = self._worker
        trouble = worker.trouble
        ready = trouble is None and not worker.is_stopping and worker.consumer.is_taking
        facts: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            "state": "STOPPING" if worker.is_stopping else worker.state.value,
            "activeJobs": worker.consumer.active_jobs,
        }
        if trouble is not None:
            facts |= {"code": trouble.code, "reason": trouble.message, "advice": trouble.advice}
        elif not ready:
            if sync := worker.weights.to_wire():
                facts["sync"] = sync
            facts["reason"] = (
                "The worker is stopping." if worker.is_stopping else worker.what_is_awaited
            )
        if warnings := self._warnings():
            facts["warnings"] = warnings
        return ready, facts

    # ------------------------------------------------------------ for people and deployments
    def ping(self) -> dict[str, Any]:
        """Say who this is, as the contract wants it."""
        pool = self._worker.engine
        gpus = [info.device_name for info in pool.infos if info.cuda is not None]
        facts: dict[str, Any] = {
            "status": "ok",
            "version": self._identity.version,
            "identity": self._identity.to_wire(),
            "gpu": bool(gpus),
            "gpuName": gpus[0] if gpus else None,
            "cuda": next((info.cuda for info in pool.infos if info.cuda is not None), None),
            "models": sorted({model for info in pool.infos for model in info.models}),
            "activeJobs": self._worker.consumer.active_jobs,
            "maxConcurrentJobs": pool.size,
        }
        return facts | ({"warnings": warnings} if (warnings := self._warnings()) else {})

    def status(self) -> dict[str, Any]:
        """Say all that the status page shows."""
        ready, facts = self.readiness()
        ping = self.ping()
        settings = self._worker.settings
        _, health = self.health()
        lines = [
            ("queue", f"{settings.queue.prefix}:{settings.queue.queue}"),
            ("Redis last answered", f"{health['secondsSinceRedisAnswered']} s ago"),
            ("API", settings.api.base_url),
            ("bucket", f"{settings.storage.host}/{settings.storage.bucket}"),
            *(
                (f"engine {number}", f"{engine.state.value} · {_device(engine.info)}")
                for number, engine in enumerate(self._worker.engine.engines)
            ),
            ("models", ", ".join(ping["models"]) or "none loaded"),
            ("vendors' code", describe(self._vendors)),
            ("image", ping["identity"]["declaredImageDigest"] or "not declared (IMAGE_DIGEST)"),
        ]
        return {
            "ready": ready,
            "state": facts["state"],
            "reason": facts.get("reason"),
            "advice": facts.get("advice"),
            "version": ping["version"],
            "identity": ping["identity"],
            "warnings": facts.get("warnings", []),
            "running": [attempt.to_wire() for attempt in self._journal.running],
            "ended": [attempt.to_wire() for attempt in self._journal.ended],
            "sync": self._worker.weights.to_wire(),
            "facts": lines,
        }

    def _warnings(self) -> list[str]:
        troubles = self._worker.engine.troubles.items() if self._worker.engine.usable else ()
        return [
            *self._worker.settings.limitations(),
            *(f"Engine {number}: {error}" for number, error in troubles),
            *self._worker.outbox.warnings(),
            *([lacking] if (lacking := self._worker.weights.lacking) else []),
        ]

    # ------------------------------------------------------------ for Prometheus
    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterable[Metric]:
        """Look at what is measured only when somebody asks."""
        pool, consumer = self._worker.engine, self._worker.consumer
        ready, _ = self.readiness()
        yield GaugeMetricFamily("avatar_worker_ready", "1 while jobs are taken.", int(ready))
        yield GaugeMetricFamily(
            "avatar_active_jobs", "Jobs that are being done.", consumer.active_jobs
        )
        sync = self._worker.weights.progress
        yield GaugeMetricFamily(
            "avatar_weights_fetched_bytes", "By the last sync.", sync.done_bytes if sync else 0
        )
        yield GaugeMetricFamily(
            "avatar_weights_wanted_bytes", "By the last sync.", sync.total_bytes if sync else 0
        )
        yield CounterMetricFamily(
            "avatar_job_locks_lost",
            "Locks of running jobs that could not be renewed in time.",
            consumer.locks_lost,
        )
        yield GaugeMetricFamily("avatar_engines", "Engine processes that should be.", pool.size)
        yield GaugeMetricFamily("avatar_engines_usable", "Those that can work.", pool.usable)
        yield GaugeMetricFamily(
            "avatar_redis_silence_seconds",
            "Since Redis last answered.",
            consumer.last_round_trip_s,
        )
        outbox = self._worker.outbox
        yield GaugeMetricFamily(
            "avatar_reports_waiting", "Final reports that the API does not have.", outbox.waiting
        )
        yield GaugeMetricFamily(
            "avatar_reports_parked", "Those that were given up until a person acts.", outbox.parked
        )
        yield CounterMetricFamily(
            "avatar_reports_retried",
            "Deliveries to the API that failed and are tried again.",
            outbox.retried,
        )
        resident = GaugeMetricFamily(
            "avatar_engine_resident_bytes", "Memory of each engine process.", labels=["engine"]
        )
        reserved = GaugeMetricFamily(
            "avatar_engine_cuda_reserved_bytes",
            "CUDA memory that torch holds in each engine process.",
            labels=["engine"],
        )
        for number, engine in enumerate(pool.engines):
            if (memory := engine.memory) is not None:
                resident.add_metric([str(number)], memory.rss_bytes)
                reserved.add_metric([str(number)], memory.cuda_reserved_bytes)
        yield from (resident, reserved)
        build = GaugeMetricFamily(
            "avatar_worker_build_info", "Which code this is.", labels=["version", "commit"]
        )
        build.add_metric([self._identity.version, self._identity.git_commit or ""], 1)
        yield build


def _device(info: Any) -> str:
    return info.device_name if info else "loading"
