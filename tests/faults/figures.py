"""How long a death costs: SIGTERM until the job waits again, SIGKILL until it runs elsewhere.

Both with the locks of production, so that the second takes a minute; it is measured on several
workers that are killed side by side, each at another moment of its lock's life.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.faults import stages
from tests.faults.page import machine, spread
from tests.faults.site import Job, Site
from worker.consumer.bull import LOCK_MS, STALLED_INTERVAL_MS

SIGTERM_RUNS: Final = 24
SIGKILL_RUNS: Final = 4
SIGKILL_ROUNDS: Final = 2
STAGES: Final = (stages.DOWNLOAD, stages.ENGINE[1], stages.ENGINE[2], stages.PUBLISH)


@dataclass(frozen=True)
class Figures:
    """Seconds, one a run.

    Attributes:
        to_wait: SIGTERM until the job is in `wait`.
        to_exit: SIGTERM until the process has ended.
        elsewhere: SIGKILL until another worker has the job.
    """

    to_wait: list[float]
    to_exit: list[float]
    elsewhere: list[float]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "sigterm_to_wait_s": spread(self.to_wait),
            "sigterm_to_exit_s": spread(self.to_exit),
            "sigkill_to_running_elsewhere_s": spread(self.elsewhere),
            "lock_s": LOCK_MS / 1000,
            "stalled_interval_s": STALLED_INTERVAL_MS / 1000,
        }

    def to_markdown(self) -> str:
        """For the page."""
        lines = [
            (
                f"{machine()} Production's times: lock {LOCK_MS / 1000:g} s, stalled interval "
                f"{STALLED_INTERVAL_MS / 1000:g} s."
            ),
            "",
            "| from | to | runs | p50 | p95 | max |",
            "|---|---|---|---|---|---|",
        ]
        for start, end, values in (
            ("SIGTERM", "the job is in `wait`, at its head", self.to_wait),
            ("SIGTERM", "the process has ended, exit code 0", self.to_exit),
            ("SIGKILL", "another worker has the job", self.elsewhere),
        ):
            s = spread(values)
            lines.append(
                f"| {start} | {end} | {s['runs']} | {s['p50']:.2f} s | {s['p95']:.2f} s "
                f"| {s['max']:.2f} s |"
            )
        return "\n".join(lines)


async def measure() -> Figures:
    """Measure both; takes about four minutes."""
    async with Site(constants={}) as site:
        to_wait, to_exit = [], []
        for number in range(SIGTERM_RUNS):
            waited, ended = await _sigterm(site, STAGES[number % len(STAGES)])
            to_wait.append(waited)
            to_exit.append(ended)
    elsewhere: list[float] = []
    for _ in range(SIGKILL_ROUNDS):
        async with Site(constants={}) as site:
            elsewhere += await _sigkill(site)
    return Figures(to_wait, to_exit, elsewhere)


async def _sigterm(site: Site, stage: stages.Stage) -> tuple[float, float]:
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    began = time.time()
    code, ended_s = await pod.terminate()
    assert code == 0, f"exit code {code}"
    await site.until(lambda: _waiting_since(site, job, began) is not None, 10)
    since = _waiting_since(site, job, began)
    assert since is not None
    point.release()
    await site.one_pod()
    await site.settled(job)
    await site.clear_pods()
    return since - began, ended_s


def _is_active_again(site: Site, job: Job) -> bool:
    return len(site.seen(job.queue_ids[0], "active")) > 1


def _waiting_since(site: Site, job: Job, began: float) -> float | None:
    """When the job was put back, by the event that BullMQ's script writes."""
    # The event's time is in whole milliseconds.
    times = site.seen(job.queue_ids[0], "waiting")
    return next((at for at in times if at >= began - 0.001), None)


async def _sigkill(site: Site) -> list[float]:
    """Kill several workers with a job each; as many others are there to take them up."""
    pods = await site.some_pods(SIGKILL_RUNS)
    jobs = [await site.submit("hold-fit:{gate}") for _ in pods]
    for job in jobs:
        assert job.gate is not None
        await stages.EngineHold(job.gate).wait_reached()
    for _ in pods:
        await site.pod()
    holders = {job.id: (await site.processed_by(job)).rpartition(":")[2] for job in jobs}
    killed: dict[str, float] = {}
    for pod in pods:
        # Locks are renewed every quarter of their life: be everywhere in it.
        await asyncio.sleep(random.uniform(0.0, LOCK_MS / 4000 / SIGKILL_RUNS))
        killed[str(pod.process.pid)] = time.time()
        await pod.kill()
    seconds = []
    for job in jobs:
        began = killed[holders[job.id]]
        await site.until(partial(_is_active_again, site, job), 120)
        seconds.append(site.seen(job.queue_ids[0], "active")[1] - began)
    for job in jobs:
        assert job.gate is not None
        stages.EngineHold(job.gate).release()
    for job in jobs:
        await site.settled(job)
    return seconds
