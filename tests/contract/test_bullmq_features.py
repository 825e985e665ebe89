"""What Node's worker does with a queue's features, this one does too, seen from Node's client.

Each test runs with Node's oldest supported release, the latest 5.x and the latest 6.x.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NodeClient
from tests.consuming import Doer, consuming, eventually
from worker.consumer import bull, retries
from worker.consumer import worker as consumer_module
from worker.consumer.bull import BullWorker
from worker.settings import QueueSettings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in less time: nothing below depends on how long these are."""
    monkeypatch.setattr(retries, "BACKOFF", {"type": "exponential", "delay": 20})
    monkeypatch.setattr(bull, "LONGEST_POLL_S", 0.1)
    monkeypatch.setattr(bull, "STALLED_INTERVAL_MS", 60)
    monkeypatch.setattr(consumer_module, "HELD_DELAY_MS", 50)


async def add(node: NodeClient, queue: str, do: str = "ok", n: int = 0, **opts: Any) -> str:
    added: str = await node("add", queue, data={"jobId": f"c{n}", "do": do, "n": n}, opts=opts)
    return added


async def wait(node: NodeClient, queue: str, *ids: str) -> list[dict[str, Any]]:
    return [await node("wait", queue, id=one, ttlMs=15_000) for one in ids]


async def counts(node: NodeClient, queue: str) -> dict[str, int]:
    found: dict[str, int] = await node("counts", queue)
    return {state: number for state, number in found.items() if number}


async def test_progress_notes_and_the_workers_name_are_seen(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    await node("open", queue)
    async with consuming(settings, doer):
        job = await add(node, queue, "tell", keepLogs=2)
        assert (await wait(node, queue, job))[0]["returnvalue"] == {"attempt": 1, "n": 0}
        (seen_worker,) = await node("workers", queue)
    seen = await node("seen", queue, id=job)
    assert [event["event"] for event in seen] == [
        *("waiting", "active", "progress", "progress", "progress", "completed"),
    ]
    assert [event["data"] for event in seen if event["event"] == "progress"] == [10, 50, 100]
    logs = await node("queue", queue, method="getJobLogs", args=[job])
    assert logs == {"logs": ["reached 50 %", "reached 100 %"], "count": 2}
    # As a Node worker with a name leaves it.
    name = await node("field", queue, id=job, name="processedBy")
    assert seen_worker["rawname"].endswith(f":w:{name}")


async def test_priority_delay_and_lifo_decide_the_order(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    async with consuming(settings, doer, taking=False) as consumer:
        for n, options in (
            (1, {}),
            (2, {}),
            (3, {"lifo": True}),
            (4, {"priority": 9}),
            (5, {"priority": 2}),
            (6, {"delay": 600}),
        ):
            last = await add(node, queue, n=n, **options)
        consumer.open()
        await wait(node, queue, last)
    # Waiting before prioritised: so it is in Node's worker.
    assert doer.finished == [3, 1, 2, 5, 4, 6]


@pytest.mark.parametrize(
    "policy",
    [
        ({}, 3, [20, 40]),
        ({"attempts": 2}, 2, [0]),
        ({"attempts": 3, "backoff": 30}, 3, [30, 30]),
        ({"attempts": 3, "backoff": {"type": "fixed", "delay": 30}}, 3, [30, 30]),
        ({"attempts": 4, "backoff": {"type": "exponential", "delay": 15}}, 4, [15, 30, 60]),
        ({"attempts": 3, "backoff": {"type": "of our own", "delay": 25}}, 3, [25, 50]),
        ({"backoff": {"type": "fixed", "delay": 30}}, 3, [30, 30]),
    ],
    ids=["none", "attempts", "number", "fixed", "exponential", "custom", "backoff only"],
)
async def test_attempts_and_backoff(
    node: NodeClient,
    settings: QueueSettings,
    queue: str,
    doer: Doer,
    policy: tuple[dict[str, Any], int, list[int]],
) -> None:
    opts, attempts, waits_ms = policy
    await node("open", queue)
    async with consuming(settings, doer):
        job = await add(node, queue, "break", **opts)
        (failed,) = await wait(node, queue, job)
    assert failed["error"].startswith("STORAGE_UNAVAILABLE: ")
    assert [(one.attempt, one.attempts) for one in doer.taken] == [
        (number, attempts) for number in range(1, attempts + 1)
    ]
    assert (await node("job", queue, id=job))["attemptsMade"] == attempts
    seen = await node("seen", queue, id=job)
    assert [event["event"] for event in seen].count("active") == attempts
    # The end of each pause, as BullMQ noted it; the attempt before it ended a little earlier.
    pauses = [event for event in seen if event["event"] == "delayed"]
    assert len(pauses) == len([wait_ms for wait_ms in waits_ms if wait_ms])


async def test_backoff_with_jitter_stays_in_its_bounds() -> None:
    backoff = {"type": "exponential", "delay": 1000, "jitter": 0.5}
    drawn = {retries.backoff_delay_ms(backoff, 3) for _ in range(200)}
    assert 2000 <= min(drawn) < max(drawn) <= 4000


@pytest.mark.parametrize(
    "case",
    [
        ({"attempts": 2.0, "backoff": 10.5}, 2),
        ({"attempts": 2, "backoff": {"type": "exponential"}}, 2),
        ({"attempts": 2, "backoff": {"type": "fixed", "delay": None}}, 2),
        ({"attempts": -1, "backoff": 10}, 3),
        ({"attempts": 2, "stackTraceLimit": 0}, 2),
        ({"attempts": 2, "stackTraceLimit": 1, "removeOnFail": {"age": 3600}}, 2),
    ],
    ids=["floats", "no delay", "null", "negative", "no traces", "one trace"],
)
async def test_odd_options_leave_no_job_behind(
    node: NodeClient,
    settings: QueueSettings,
    queue: str,
    doer: Doer,
    case: tuple[dict[str, Any], int],
) -> None:
    """The package raises on some of them while it settles the job, which then stays active."""
    opts, attempts = case
    async with consuming(settings, doer):
        job = await add(node, queue, "break", **opts)
        (failed,) = await wait(node, queue, job)
    assert failed["error"].startswith("STORAGE_UNAVAILABLE: ")
    assert len(doer.taken) == attempts


async def test_an_error_of_the_input_fails_at_once_whatever_attempts_are_left(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    async with consuming(settings, doer):
        job = await add(node, queue, "refuse", attempts=5)
        (failed,) = await wait(node, queue, job)
    assert failed["error"].startswith("NO_PERSON: Please stand")
    assert len(doer.taken) == 1
    assert doer.told == []  # the handler failed it and knows


async def test_what_is_kept_and_removed_is_the_producers_choice(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    async with consuming(settings, doer):
        await add(node, queue, n=1, removeOnComplete=True)
        await add(node, queue, "refuse", n=2, removeOnFail=True)
        for n in (3, 4, 5):
            await add(node, queue, n=n, removeOnComplete={"count": 2})
        for n in (6, 7):
            await add(node, queue, "refuse", n=n, removeOnFail=1)
        await doer.until(lambda: len(doer.taken) == 7)
        await eventually(
            lambda: counts(node, queue), lambda found: found == {"completed": 2, "failed": 1}
        )


async def test_a_deduplicated_job_runs_once_and_may_come_again(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    same = {"deduplication": {"id": "one"}}
    async with consuming(settings, doer, taking=False) as consumer:
        first = await add(node, queue, n=1, **same)
        assert await add(node, queue, n=2, **same) == first
        consumer.open()
        await wait(node, queue, first)
        again = await add(node, queue, n=3, **same)
        assert again != first
        await wait(node, queue, again)
    assert doer.finished == [1, 3]


async def test_global_concurrency_holds_over_workers_and_slots(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    await node("queue", queue, method="setGlobalConcurrency", args=[1])
    async with consuming(settings, doer, concurrency=2), consuming(settings, doer):
        ids = [await add(node, queue, "tell", n=n) for n in range(6)]
        await wait(node, queue, *ids)
    assert doer.most_at_once == 1
    assert sorted(doer.finished) == [0, 1, 2, 3, 4, 5]


async def test_several_slots_do_several_jobs_and_are_one_worker(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    async with consuming(settings, doer, concurrency=3) as consumer:
        ids = [await add(node, queue, "wait", n=n) for n in range(4)]
        await doer.until(lambda: doer.at_once == 3)
        assert consumer.active_jobs == 3
        assert await node("queue", queue, method="getWorkersCount") == 1
        assert await counts(node, queue) == {"active": 3, "waiting": 1}
        doer.let_go.set()
        await wait(node, queue, *ids)
    assert doer.most_at_once == 3


async def test_slots_come_and_go_while_jobs_run(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    """As many as there are usable engines; a job in hand is left alone."""
    async with consuming(settings, doer, concurrency=2) as consumer:
        ids = [await add(node, queue, "wait", n=n) for n in range(2)]
        ids += [await add(node, queue, "wait longer", n=n) for n in range(2, 4)]
        await doer.until(lambda: doer.at_once == 2)
        consumer.open(1)
        doer.let_go.set()
        await doer.until(lambda: len(doer.taken) == 3)
        with pytest.raises(TimeoutError):
            await doer.until(lambda: len(doer.taken) > 3, timeout_s=0.4)
        consumer.open(5)  # while the one is still busy
        await doer.until(lambda: doer.at_once == 2)
        doer.let_go_later.set()
        await wait(node, queue, *ids)
    assert doer.most_at_once == 2


async def test_a_paused_queue_gives_nothing_and_keeps_everything(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    async with consuming(settings, doer):
        await node("pause", queue)
        job = await add(node, queue, n=1)
        soon = await add(node, queue, n=2, delay=50)
        first = await add(node, queue, n=3, priority=1)
        with pytest.raises(TimeoutError):
            await doer.until(lambda: bool(doer.taken), timeout_s=0.4)
        await node("resume", queue)
        await wait(node, queue, job, soon, first)
    assert sorted(doer.finished) == [1, 2, 3]


async def test_a_child_of_a_flow_gives_its_value_or_its_failure_to_its_parent(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    parents = f"{queue}-parents"

    def family(do: str, **opts: Any) -> dict[str, Any]:
        child = {"name": "c", "queueName": queue, "data": {"do": do, "n": 7}, "opts": opts}
        return {"name": "p", "queueName": parents, "data": {}, "children": [child]}

    await node("open", parents)
    await node("work", parents)
    try:
        async with consuming(settings, doer):
            good = await node("flow", queue, tree=family("ok"))
            (done,) = await wait(node, parents, good["id"])
            assert list(done["returnvalue"].values()) == [{"attempt": 1, "n": 7}]
            # The parent's own worker fails it, at the request that is left in the job; 5.25.0
            # does not know that request and runs the parent, nor has it continueParentOnFailure.
            knows = node.flavour != "bullmq5min"
            for options, expected in (
                ({"failParentOnFailure": True}, "failed" if knows else "completed"),
                ({"ignoreDependencyOnFailure": True}, "completed"),
                ({"removeDependencyOnFailure": True}, "completed"),
                *([({"continueParentOnFailure": True}, "completed")] if knows else []),
            ):
                bad = await node("flow", queue, tree=family("refuse", **options))
                await wait(node, parents, bad["id"])
                state = (await node("job", parents, id=bad["id"]))["state"]
                assert state == expected, options
    finally:
        await node("rest", queue)


async def test_a_job_held_elsewhere_is_put_off_and_burns_no_attempt(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    await node("open", queue)
    async with consuming(settings, doer):
        job = await add(node, queue, "held once", attempts=1)
        (done,) = await wait(node, queue, job)
    assert done["returnvalue"]["attempt"] == 1
    assert [one.starts for one in doer.taken] == [1, 2]
    seen = [event["event"] for event in await node("seen", queue, id=job)]
    assert seen == ["waiting", "active", "delayed", "waiting", "active", "completed"]


async def test_what_stopping_puts_back_is_first_again_and_unburned(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    async with consuming(settings, doer, concurrency=2):
        plain = await add(node, queue, "wait", n=1)
        await doer.until(lambda: doer.at_once == 1)
        urgent = await add(node, queue, "wait", n=2, priority=5)
        await doer.until(lambda: doer.at_once == 2)
        later = [await add(node, queue, n=3), await add(node, queue, n=4, priority=5)]
    assert [data["n"] for data in doer.aborted] == [1, 2]
    assert (await node("job", queue, id=plain))["attemptsMade"] == 0
    doer.taken.clear()
    doer.let_go.set()
    async with consuming(settings, doer):
        await wait(node, queue, plain, urgent, *later)
    assert [one.data["n"] for one in doer.taken] == [1, 3, 2, 4]
    assert {one.attempt for one in doer.taken} == {1}


async def test_the_documentations_way_to_cancel_works(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "bullmq.md").read_text()
    (code,) = re.findall(r"```js\n(.*?)```", page, flags=re.DOTALL)
    async with consuming(settings, doer):
        job = await add(node, queue, "wait", n=1, attempts=3)
        await doer.until(lambda: doer.at_once == 1)
        code = code.replace("avatar_build-worker", f"{queue}-worker")
        await node("snippet", queue, code=code, jobId="c1")
        (failed,) = await wait(node, queue, job)
    assert failed["error"] == "CANCELLED: The job was cancelled: The customer closed the page."
    assert (await node("job", queue, id=job))["attemptsMade"] == 1
    assert len(doer.told) == 1


# ---------------------------------------------------------------- while the queue is paused
async def take_and_die(settings: QueueSettings) -> None:
    """Take a job as a worker does, and do nothing more about it."""

    async def never(*_args: Any) -> Any:
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bull, "LOCK_MS", 150)
        victim = BullWorker(settings, never, never)
    victim.set_slots(1)
    try:
        job = await victim.moveToActive("a worker that died")
        assert job is not None
    finally:
        await victim.close(force=True)


@pytest.mark.parametrize("how", ["retry", "delayed retry", "requeue", "stall", "put off"])
async def test_nothing_is_lost_that_is_settled_while_the_queue_is_paused(
    node: NodeClient,
    settings: QueueSettings,
    queue: str,
    doer: Doer,
    how: str,
) -> None:
    """One version of the package was seen to lose jobs here; 2.26.0 is not one of them."""
    await node("open", queue)
    do, opts = {
        "retry": ("break once", {"attempts": 2}),
        "delayed retry": ("break once", {"attempts": 2, "backoff": 50}),
        "requeue": ("wait", {}),
        "stall": ("ok", {}),
        "put off": ("held once", {}),
    }[how]

    if how == "stall":
        job = await add(node, queue, do, n=1, **opts)
        await take_and_die(settings)
        waiting = [await add(node, queue, n=n) for n in (2, 3)]
        await node("pause", queue)
        async with consuming(settings, doer):
            await eventually(
                lambda: node("seen", queue, id=job),
                lambda seen: "stalled" in [event["event"] for event in seen],
            )
            late = await add(node, queue, n=4)
            await node("resume", queue)
            await wait(node, queue, job, *waiting, late)
    else:
        async with consuming(settings, doer) as consumer:
            original, go_on = doer._do, asyncio.Event()

            async def held_until_paused(delivery: Any) -> Any:
                await go_on.wait()
                return await original(delivery)

            doer._do = held_until_paused  # type: ignore[method-assign]  # for this test only
            job = await add(node, queue, do, n=1, **opts)
            await doer.until(lambda: len(doer.taken) == 1)
            waiting = [await add(node, queue, n=n) for n in (2, 3)]
            await node("pause", queue)
            if how == "requeue":
                await consumer.stop()
            go_on.set()
            await doer.until(lambda: doer.at_once == 0)
        late = await add(node, queue, n=4)
        await node("resume", queue)
        doer.let_go.set()
        async with consuming(settings, doer):
            await wait(node, queue, job, *waiting, late)

    assert sorted(doer.finished) == [1, 2, 3, 4]
    assert await counts(node, queue) == {"completed": 4}


async def test_a_job_whose_worker_died_is_done_by_another_and_counted_as_node_counts_it(
    node: NodeClient,
    settings: QueueSettings,
    queue: str,
    doer: Doer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bull, "MAX_STALLED_COUNT", 1)
    await node("open", queue)
    job = await add(node, queue, n=1, attempts=1)
    await take_and_die(settings)
    async with consuming(settings, doer):
        (done,) = await wait(node, queue, job)
        assert done["returnvalue"] == {"attempt": 1, "n": 1}
        assert doer.taken[0].starts == 2
    # And once too often: failed, with the reason that Node gives, and told before.
    job = await add(node, queue, n=2)
    await take_and_die(settings)
    async with consuming(settings, doer, taking=False) as consumer:
        await eventually(
            lambda: node("seen", queue, id=job),
            lambda seen: "stalled" in [event["event"] for event in seen],
        )
        await take_and_die(settings)
        consumer.open()
        (failed,) = await wait(node, queue, job)
    assert failed["error"] == "job stalled more than allowable limit"
    assert [str(error) for _, error in doer.told] == [
        "ENGINE_ERROR: job stalled more than allowable limit"
    ]
    assert doer.finished == [1]


async def test_the_producers_trace_arrives(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    trace = '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    # 5.25.0 calls it telemetryMetadata; all of them store it as `tm`.
    option = "telemetryMetadata" if node.flavour == "bullmq5min" else "telemetry"
    value = trace if node.flavour == "bullmq5min" else {"metadata": trace}
    async with consuming(settings, doer):
        traced = await add(node, queue, n=1, **{option: value})
        plain = await add(node, queue, n=2)
        await wait(node, queue, traced, plain)
    assert [one.trace for one in doer.taken] == [trace, None]


async def test_a_global_rate_limit_is_kept(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    if node.flavour == "bullmq5min":
        pytest.skip("5.25.0 has no such method")
    await node("queue", queue, method="setGlobalRateLimit", args=[1, 300])
    async with consuming(settings, doer, taking=False) as consumer:
        ids = [await add(node, queue, n=n) for n in range(3)]
        consumer.open()
        await wait(node, queue, *ids)
    began = [await node("field", queue, id=one, name="processedOn") for one in ids]
    assert began[2] - began[0] >= 600 - 5  # two windows; two clocks


async def test_a_job_scheduler_runs_once_only(
    node: NodeClient, settings: QueueSettings, queue: str, doer: Doer
) -> None:
    """A gap of the package: Node's worker adds the next job.  If this fails, the gap is closed."""
    template = {"name": "avatar_build", "data": {"n": 1}}
    async with consuming(settings, doer):
        every = {"every": 200}
        await node("queue", queue, method="upsertJobScheduler", args=["s", every, template])
        await doer.until(lambda: len(doer.finished) == 1)
        with pytest.raises(TimeoutError):
            await doer.until(lambda: len(doer.taken) == 2, timeout_s=0.6)
