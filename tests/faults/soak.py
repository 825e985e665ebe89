"""Thousands of jobs of all kinds, a few workers, and a random fault every few seconds.

One worker is never killed, so that what grows in it is seen: memory, sockets, files.  It meets
every other fault: servers that die, freeze or refuse, connections that break, an engine that is
killed under it, a parent that is frozen for longer than its lock.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fakes.api import after_storing, instead_of_storing
from tests.faults import invariants
from tests.faults.invariants import Expected
from tests.faults.page import machine
from tests.faults.pod import Pod
from tests.faults.proxy import Request, Send, answer
from tests.faults.site import Job, Site
from tests.faults.times import LONGER_S
from worker.consumer.cancellation import request_cancel

WORKERS: Final = 3
FAULT_EVERY_S: Final = 5.0
UNDER_WAY: Final = 24
"""So many jobs are in the queue or being done at a time."""
ATTEMPTS: Final = 30
"""Faults come so much faster than in life that three attempts may all meet one."""
WARM_UP: Final = 30
"""Jobs before the first fault; not counted."""
BACKOFF: Final = {"type": "fixed", "delay": 500}
GROWTH_MB: Final = 24.0
"""What the surviving worker's memory may differ by between the first fifth and the end."""
DESCRIPTORS: Final = 8
"""And how many more sockets and files it may have open, idle at the start and idle at the end."""

# Of 100 jobs; the fake engine's words.
KINDS: Final = {"ok": 76, "no-person": 8, "oom-once": 6, "kill-once": 4, "cancel": 4, "twice": 2}


@dataclass
class Report:
    """What a soak gave."""

    jobs: int
    seed: int
    took_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    rss_mb: tuple[float, float] = (0.0, 0.0)
    descriptors: tuple[int, int] = (0, 0)
    refused: int = 0
    """Second creates that the API refused; see `Expected.refused`."""
    own_keys: int = 0
    work_objects: int = 0
    expected: list[Expected] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        facts = {name: value for name, value in vars(self).items() if name != "expected"}
        return facts | {"outcomes": dict(self.outcomes), "faults": dict(self.faults)}

    def to_markdown(self) -> str:
        """For the page."""
        ends = ", ".join(f"{count} {what}" for what, count in sorted(self.outcomes.items()))
        faults = ", ".join(f"{what} {count}×" for what, count in sorted(self.faults.items()))
        before, after = self.rss_mb
        survived = (
            f"resident memory {before:.0f} MB after a fifth of the jobs, {after:.0f} MB at last; "
            f"{self.descriptors[0]} open sockets and files idle before the first fault, "
            f"{self.descriptors[1]} idle after the last"
        )
        twice = (
            f"{self.refused} completions came to the API a second time, from a worker that was "
            "frozen or cut off as it sent, and were refused"
        )
        left = f"{self.own_keys} keys of ours in Redis, {self.work_objects} objects in `work/`"
        lines = [
            f"{machine()} Seed {self.seed}.",
            "",
            f"- {self.jobs} jobs in {self.took_s / 60:.1f} min: {ends}.",
            f"- {len(self.wrong)} broken invariants; {twice}.",
            f"- {sum(self.faults.values())} faults: {faults}.",
            f"- The worker that lived through it: {survived}.",
            f"- Left behind beside cancellations: {left}, no job folder.",
        ]
        return "\n".join(lines)


async def soak(jobs: int, seed: int, console: Console) -> Report:
    """Run it; see the module."""
    report = Report(jobs, seed)
    dice = random.Random(seed)
    async with Site() as site:
        began = time.monotonic()
        survivor, *_ = await site.some_pods(WORKERS)
        # Connections are opened by the first jobs, and kept.
        await asyncio.gather(*(_one_job(site, "ok", report) for _ in range(WARM_UP)))
        idle = _descriptors(survivor)
        chaos = asyncio.create_task(_chaos(site, survivor, dice, report), name="chaos")
        keeper = asyncio.create_task(_keep_workers(site), name="keeper")
        try:
            rss_early = await _do_jobs(site, survivor, dice, report, console)
        finally:
            for task in (chaos, keeper):
                task.cancel()
            await asyncio.gather(chaos, keeper, return_exceptions=True)
        for task in (chaos, keeper):
            if not task.cancelled() and (error := task.exception()) is not None:
                report.wrong.append(f"{task.get_name()} ended: {error!r}")
        await _settle_down(site)
        for expected in report.expected:
            late = await invariants.late_violations(site, expected)
            report.wrong += [f"{expected.job.id}, looked at again: {one}" for one in late]
        report.took_s = round(time.monotonic() - began, 1)
        if not survivor.alive:
            report.wrong.append(f"the worker that nobody kills has ended: {survivor.tail()}")
            return report
        await survivor.until_ready()
        report.refused = len(site.api.refused_twice)
        await _compare(site, survivor, idle, rss_early, report)
    return report


# ---------------------------------------------------------------- jobs
async def _do_jobs(
    site: Site, survivor: Pod, dice: random.Random, report: Report, console: Console
) -> float:
    """Submit, await and check every job; the survivor's memory after the first fifth."""
    room = asyncio.Semaphore(UNDER_WAY)
    kinds = dice.choices([*KINDS], [*KINDS.values()], k=report.jobs)
    rss_early = 0.0
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=console) as bar:
        line = bar.add_task("soak", total=report.jobs, last="")

        async def one(kind: str) -> None:
            try:
                outcome = await _one_job(site, kind, report)
                report.outcomes[outcome] += 1
            except Exception as error:  # noqa: BLE001 - the others go on
                report.wrong.append(f"{kind}: {type(error).__name__}: {error}")
            finally:
                room.release()
                faults = f"{sum(report.faults.values())} faults, {len(report.wrong)} wrong"
                bar.update(line, advance=1, last=faults)
                over = sum(report.outcomes.values())
                if not console.is_terminal and over % 100 == 0:  # where a bar shows nothing
                    console.print(f"{over} of {report.jobs} jobs, {faults}")

        running = []
        for number, kind in enumerate(kinds):
            await room.acquire()
            running.append(asyncio.create_task(one(kind)))
            if number == report.jobs // 5:
                rss_early = _rss_mb(survivor)
        await asyncio.gather(*running)
    return rss_early or _rss_mb(survivor)


async def _one_job(site: Site, kind: str, report: Report) -> str:
    words = {"kill-once": "kill-fit:{gate}", "cancel": "slow-fit", "twice": "ok"}
    job = await _retried(lambda: site.prepare(words.get(kind, kind)))
    copies = 2 if kind == "twice" else 1
    for _ in range(copies):
        await _enqueue(site, job)
    if kind == "cancel":
        await _retried(lambda: request_cancel(site.redis, "bull", site.queue, job.id, "soak"))
    await site.settled(job, 240)
    await site.told(job, 240)
    end = site.settled_by_id[job.queue_ids[0]][0]
    expected = {
        "no-person": Expected(job, outcome="failed", reason="NO_PERSON", put_right=True),
        "cancel": Expected(job, outcome="either", put_right=True, refused=1),
    }.get(kind, Expected(job, put_right=True, refused=1))
    report.expected.append(expected)
    wrong = await _retried(lambda: invariants.violations(site, expected, leftovers=False))
    report.wrong += [f"{kind} {job.id}: {one} ({end.reason[:200]})" for one in wrong]
    return f"{kind} {end.event}"


async def _enqueue(site: Site, job: Job) -> None:
    """Enqueue once, though Redis may be away: the id is ours, so that a second add adds nothing."""
    wanted = f"{job.id}-{len(job.queue_ids)}"
    options = {"jobId": wanted, "attempts": ATTEMPTS, "backoff": BACKOFF}
    await _retried(lambda: site.producer.add(job.payload, **options))
    job.queue_ids.append(wanted)


async def _retried(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask a server that a fault may have taken away, until it is back."""
    for pause_s in itertools.chain([0.2] * 10, [0.5] * 40):
        try:
            return await ask()
        except AssertionError:
            raise
        except Exception:  # noqa: BLE001 - whatever a client raises meanwhile
            await asyncio.sleep(pause_s)
    return await ask()


# ---------------------------------------------------------------- faults
async def _chaos(site: Site, survivor: Pod, dice: random.Random, report: Report) -> None:
    """One fault after another, until cancelled."""
    while True:
        await asyncio.sleep(FAULT_EVERY_S)
        name = dice.choice([*FAULTS])
        others = [pod for pod in site.pods if pod.alive and pod is not survivor]
        any_pod = dice.choice([survivor, *others])
        victim = dice.choice(others) if others else None
        if victim is None and name in {"worker SIGKILL", "worker SIGTERM"}:
            continue
        report.faults[name] += 1
        await FAULTS[name](site, victim if name.startswith("worker") else any_pod)  # type: ignore[arg-type]  # there is one


async def _keep_workers(site: Site) -> None:
    """Start a worker for each that has died, as an orchestrator does."""
    while True:
        await asyncio.sleep(0.2)
        for pod in [pod for pod in site.pods if not pod.alive]:
            site.pods.remove(pod)
            await pod.end()
            pod.lines.clear()
            await site.pod(wait=False)


async def _sigkill(_site: Site, pod: Pod) -> None:
    pod.signal(signal.SIGKILL)


async def _sigterm(_site: Site, pod: Pod) -> None:
    pod.signal(signal.SIGTERM)


async def _kill_engine(_site: Site, pod: Pod) -> None:
    if pod.alive:
        pod.kill_engine()


async def _freeze(_site: Site, pod: Pod) -> None:
    pod.signal(signal.SIGSTOP)
    await asyncio.sleep(LONGER_S)
    pod.signal(signal.SIGCONT)


async def _restart_redis(site: Site, _pod: Pod) -> None:
    await site.restart_redis(0.5)


async def _freeze_redis(site: Site, _pod: Pod) -> None:
    site.stack.valkey.freeze()
    await asyncio.sleep(1.0)
    site.stack.valkey.thaw()


async def _cut_redis(_site: Site, pod: Pod) -> None:
    await pod.redis.cut()


async def _half_open(_site: Site, pod: Pod) -> None:
    pod.redis.freeze()


async def _restart_storage(site: Site, _pod: Pod) -> None:
    await site.restart_storage(0.5)


async def _storage_503(_site: Site, pod: Pod) -> None:
    async def refuse(_request: Request, _send: Send) -> bytes:
        return answer(503, "Slow Down", b"<Error><Code>SlowDown</Code></Error>")

    pod.storage.rule(lambda _: True, refuse, once=False)
    await asyncio.sleep(1.0)
    pod.storage.clear()


async def _cut_storage(_site: Site, pod: Pod) -> None:
    await pod.storage.cut()


async def _api_down(_site: Site, pod: Pod) -> None:
    await pod.api.refuse()
    await asyncio.sleep(3.0)
    await pod.api.start()


async def _api_500(site: Site, _pod: Pod) -> None:
    from starlette.responses import JSONResponse

    site.api.faults += [after_storing(JSONResponse({"error": "fault"}, 500))] * 2


async def _api_503(site: Site, _pod: Pod) -> None:
    site.api.faults += [instead_of_storing(503)] * 3


FAULTS: Final[dict[str, Callable[[Site, Pod], Awaitable[None]]]] = {
    "worker SIGKILL": _sigkill,
    "worker SIGTERM": _sigterm,
    "engine SIGKILL": _kill_engine,
    "parent frozen longer than its lock": _freeze,
    "Redis SIGKILL": _restart_redis,
    "Redis frozen": _freeze_redis,
    "Redis connections cut": _cut_redis,
    "Redis connections half-open": _half_open,
    "MinIO SIGKILL": _restart_storage,
    "MinIO 503": _storage_503,
    "MinIO connections cut": _cut_storage,
    "API down": _api_down,
    "API 500 after storing": _api_500,
    "API 503": _api_503,
}


# ---------------------------------------------------------------- what has grown, what is left
async def _settle_down(site: Site) -> None:
    """Take all faults off, and let what was half-open be noticed."""
    await site.heal()
    for pod in site.pods:
        pod.signal(signal.SIGCONT)
        if pod.alive and not pod.api.is_open:
            await pod.api.start()
        for proxy in pod.proxies:
            proxy.clear()
            proxy.thaw()


async def _compare(
    site: Site, survivor: Pod, idle: int, rss_early_mb: float, report: Report
) -> None:
    deadline = time.monotonic() + 60.0
    while True:
        keys = await invariants.own_keys(site)
        objects = await asyncio.to_thread(invariants.keys_under, site, "work/")
        folders = invariants.job_folders(site)
        descriptors = _descriptors(survivor)
        if not keys and not objects and not folders and descriptors <= idle + DESCRIPTORS:
            break
        if time.monotonic() > deadline:
            report.wrong += [
                f"left behind: {what}" for what in [*keys, *sorted(objects), *folders][:20]
            ]
            break
        await asyncio.sleep(0.5)
    report.own_keys, report.work_objects = len(keys), len(objects)
    report.rss_mb = (rss_early_mb, _rss_mb(survivor))
    report.descriptors = (idle, descriptors)
    if report.rss_mb[1] - report.rss_mb[0] > GROWTH_MB:
        report.wrong.append(f"memory grew from {report.rss_mb[0]:.0f} to {report.rss_mb[1]:.0f} MB")
    if descriptors > idle + DESCRIPTORS:
        report.wrong.append(
            f"open descriptors grew from {idle} to {descriptors}: {_opened(survivor)}"
        )


def _rss_mb(pod: Pod) -> float:
    """Resident memory of the parent process (Linux)."""
    status = Path(f"/proc/{pod.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _descriptors(pod: Pod) -> int:
    return len([*Path(f"/proc/{pod.process.pid}/fd").iterdir()])


def _opened(pod: Pod) -> dict[str, int]:
    """What is open, by kind."""
    links = []
    for entry in Path(f"/proc/{pod.process.pid}/fd").iterdir():
        try:
            links.append(str(entry.readlink()).partition(":")[0])
        except OSError:  # closed meanwhile
            continue
    return dict(Counter(links))
