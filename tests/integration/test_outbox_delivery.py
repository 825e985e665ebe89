"""The outbox on a real Valkey: whatever happens to API and workers, one accepted final report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response

from tests.fakes.api import FakeApi, after_storing, instead_of_storing
from worker.consumer.connection import connect
from worker.consumer.keys import own_key
from worker.contract import (
    AvatarResultPayload,
    JobStatus,
    Measurements,
    QualityReport,
    StatusUpdate,
)
from worker.errors import JobHeldElsewhere, QueueUnavailable
from worker.reporter import outbox as outbox_module
from worker.reporter.client import ApiClient
from worker.reporter.outbox import Outbox
from worker.reporter.reports import JobReports
from worker.settings import Settings

RESULT = AvatarResultPayload(
    glb_url="https://s3/tryfitted/avatars/j/avatar.glb",
    measurements=Measurements(chest_cm=100.0),
    quality_report=QualityReport(confidence="high"),
)
COMPLETED = StatusUpdate(status=JobStatus.COMPLETED, progress=100, result=RESULT)
FAILED = StatusUpdate(status=JobStatus.FAILED, error="NO_PERSON: …")
SLOW_DOWN = {"retry-after": "1"}

MakeOutbox = Callable[..., Outbox]


@pytest.fixture
async def redis(environment: dict[str, str]) -> AsyncIterator[Any]:
    client = connect(Settings.load(environment).queue)
    yield client
    await client.aclose()


@pytest.fixture
async def make(
    environment: dict[str, str], redis: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MakeOutbox]:
    """Makes outboxes of as many workers as a test wants; all are stopped in the end."""
    monkeypatch.setattr(outbox_module, "_backoff", lambda _state: 0.05)
    monkeypatch.setattr(outbox_module, "_slowly", lambda _state: 0.05)
    monkeypatch.setattr(outbox_module, "SETTLING_S", 0.3)
    client = ApiClient(Settings.load(environment).api)
    made: list[Outbox] = []

    def one(**options: Any) -> Outbox:
        owner = f"worker-{len(made)}"
        given = {"prefix": "bull", "queue": queue, "owner": owner, "poll_s": 0.1} | options
        made.append(Outbox(redis, client, **given))
        return made[-1]

    yield one
    for outbox in made:
        await outbox.stop()
    await client.aclose()


@pytest.fixture
def job(api: FakeApi) -> str:
    api.add("j1")
    return "j1"


async def put(outbox: Outbox, job_id: str, update: StatusUpdate, **options: Any) -> None:
    given = {"maybe_reported": False, "guard": None} | options
    await outbox.put(job_id, update, **given)


async def bring(outbox: Outbox, job_id: str, update: StatusUpdate, **options: Any) -> bool:
    outbox.start()
    await put(outbox, job_id, update, **options)
    return await outbox.wait_delivered(job_id, 10)


async def listed(outbox: Outbox, holds: Callable[[Any], bool]) -> Any:
    """Wait until the only entry is as it should be."""
    async with asyncio.timeout(10):
        while True:
            entries = await outbox.entries()
            if len(entries) == 1 and holds(entries[0]):
                return entries[0]
            await asyncio.sleep(0.02)


def requests(api: FakeApi) -> list[str]:
    return [method for method, _, _ in api.requests]


# ---------------------------------------------------------------- what the API may answer
async def test_a_report_is_delivered_once_and_leaves_nothing_behind(
    api: FakeApi, make: MakeOutbox, job: str, redis: Any, queue: str
) -> None:
    outbox = make()
    assert await bring(outbox, job, COMPLETED)
    assert requests(api) == ["PATCH"]
    assert api.jobs[job]["status"] == "completed"
    assert await outbox.entries() == ()
    assert [key async for key in redis.scan_iter(own_key("bull", queue, "outbox", "*"))] == []


@pytest.mark.parametrize(
    "fault",
    [
        after_storing(Response(status_code=500)),
        after_storing(PlainTextResponse("we are back in a minute")),
    ],
    ids=["500", "a proxy's page"],
)
async def test_a_completion_that_was_stored_in_spite_of_the_answer_is_not_sent_again(
    api: FakeApi, make: MakeOutbox, job: str, fault: Any
) -> None:
    api.faults = [fault]
    assert await bring(make(), job, COMPLETED)
    assert requests(api) == ["PATCH", "GET"]
    assert (api.created, api.refused_twice) == ([job], [])


async def test_a_completion_that_times_out_after_it_was_stored_makes_one_avatar(
    api: FakeApi, make: MakeOutbox, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.reporter.client.REQUEST_DEADLINE_S", 0.2)
    over = asyncio.Event()

    async def store_and_hang(stored: FakeApi, job_id: str, body: dict[str, Any]) -> Response:
        answer = stored.store(job_id, body)
        await over.wait()
        return answer

    api.faults = [store_and_hang]
    assert await bring(make(), job, COMPLETED)
    over.set()
    assert requests(api) == ["PATCH", "GET"]
    assert (api.created, api.refused_twice) == ([job], [])


async def test_an_api_that_is_still_at_it_is_given_time_before_it_is_asked(
    api: FakeApi, make: MakeOutbox, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.reporter.client.REQUEST_DEADLINE_S", 0.2)

    async def slow(_api: FakeApi, _job_id: str, _body: dict[str, Any]) -> None:
        await asyncio.sleep(0.3)  # after which it is stored; nobody hears the answer

    api.faults = [slow]
    assert await bring(make(), job, COMPLETED)
    assert requests(api) == ["PATCH", "GET"]
    assert (api.created, api.refused_twice) == ([job], [])


async def test_an_avatar_without_the_status_gets_a_bare_completed(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    def half(stored: FakeApi, job_id: str, body: dict[str, Any]) -> Response:
        stored.jobs[job_id]["avatar"] = {"id": "a1"}  # and dies before the status
        return Response(status_code=502)

    api.faults = [half]
    assert await bring(make(), job, COMPLETED)
    assert requests(api) == ["PATCH", "GET", "PATCH"]
    assert "result" not in api.patches[-1][1]
    assert api.jobs[job]["status"] == "completed"


@pytest.mark.parametrize("code", [500, 503, 408, 429])
async def test_what_was_not_stored_is_sent_again_until_it_is(
    api: FakeApi, make: MakeOutbox, job: str, code: int
) -> None:
    api.faults = [instead_of_storing(code)] * 3
    assert await bring(make(), job, COMPLETED)
    assert requests(api) == ["PATCH"] + ["GET", "PATCH"] * 3
    assert api.created == [job]


async def test_retry_after_is_honoured(api: FakeApi, make: MakeOutbox, job: str) -> None:
    api.faults = [instead_of_storing(429, **SLOW_DOWN)]
    outbox = make()
    outbox.start()
    await put(outbox, job, COMPLETED)
    entry = await listed(outbox, lambda entry: "429" in entry.last_error)
    assert 0.5 < entry.due_in_s <= 2.1
    assert await outbox.wait_delivered(job, 10)


@pytest.mark.parametrize("code", [401, 403])
async def test_a_wrong_token_is_trouble_that_an_operator_ends(
    api: FakeApi, make: MakeOutbox, job: str, code: int
) -> None:
    api.faults = [instead_of_storing(code)] * 2
    outbox = make()
    outbox.start()
    await put(outbox, job, COMPLETED)
    await api.until(lambda: len(api.patches) == 1)
    await listed(outbox, lambda entry: str(code) in entry.last_error)
    (warning,) = outbox.warnings()
    assert "API_TOKEN" in warning
    assert await outbox.wait_delivered(job, 10)
    assert outbox.warnings() == []


async def test_a_job_that_the_api_does_not_know_is_dropped(api: FakeApi, make: MakeOutbox) -> None:
    outbox = make()
    assert await bring(outbox, "unknown", COMPLETED)
    assert requests(api) == ["PATCH"]
    assert await outbox.entries() == ()


async def test_a_404_of_the_proxy_drops_nothing(api: FakeApi, make: MakeOutbox, job: str) -> None:
    api.faults = [lambda *_: PlainTextResponse("404 page not found\n", 404)]
    assert await bring(make(), job, COMPLETED)
    assert api.created == [job]


async def test_a_refusal_parks_the_report_and_an_operator_brings_it_back(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    api.faults = [instead_of_storing(422)]
    outbox = make()
    assert not await bring(outbox, job, COMPLETED)
    entry = await listed(outbox, lambda entry: entry.parked)
    assert (entry.job_id, entry.attempts, entry.status) == (job, 1, "completed")
    assert "422" in entry.last_error
    other = make()  # which learns of it when it first looks
    await other._take(1)
    assert (other.waiting, other.parked) == (0, 1)
    assert "avatar-worker queue" in other.warnings()[0]
    assert not await outbox.retry("another")
    assert await outbox.retry(job)
    assert await outbox.wait_delivered(job, 10)
    assert requests(api) == ["PATCH", "GET", "PATCH"]


async def test_a_report_that_nobody_takes_for_long_is_parked_and_can_be_thrown_away(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    api.faults = [instead_of_storing(503)] * 1000
    outbox = make(keep_for_s=0.3)
    outbox.start()
    await put(outbox, job, COMPLETED)
    entry = await listed(outbox, lambda entry: entry.parked)
    assert entry.attempts > 1
    assert await outbox.remove(job)
    assert not await outbox.remove(job)
    assert await outbox.entries() == ()


async def test_what_another_version_wrote_is_parked_not_lost(
    make: MakeOutbox, job: str, redis: Any, queue: str
) -> None:
    outbox = make()
    await put(outbox, job, COMPLETED)
    key = own_key("bull", queue, "outbox", "entry", job)
    await redis.hset(key, "update", '{"status": "completed", "novelty": 1}')
    outbox.start()
    entry = await listed(outbox, lambda entry: entry.parked)
    assert "novelty" in entry.last_error


# ---------------------------------------------------------------- failures
async def test_a_failure_asks_first_and_is_sent_once(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    api.faults = [after_storing(Response(status_code=500))]
    assert await bring(make(), job, FAILED)
    assert requests(api) == ["GET", "PATCH", "GET"]
    assert api.jobs[job]["error"] == FAILED.error


async def test_a_failure_never_overwrites_an_avatar(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    outbox = make()
    assert await bring(outbox, job, COMPLETED)
    assert await bring(outbox, job, FAILED)
    assert api.jobs[job]["status"] == "completed"
    assert api.statuses(job) == ["completed"]


async def test_a_job_that_failed_and_is_run_again_completes(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    outbox = make()
    assert await bring(outbox, job, FAILED)
    assert await bring(outbox, job, COMPLETED, maybe_reported=True)
    assert api.statuses(job) == ["failed", "completed"]
    assert api.created == [job]


async def test_a_job_that_fails_again_says_why_this_time(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    outbox = make()
    again = FAILED.model_copy(update={"error": "FEET_NOT_VISIBLE: …"})
    assert await bring(outbox, job, FAILED)
    assert await bring(outbox, job, again, maybe_reported=True)
    assert await bring(outbox, job, again, maybe_reported=True)
    assert api.statuses(job) == ["failed", "failed"]
    assert api.jobs[job]["error"] == again.error


async def test_a_completion_takes_the_place_of_a_failure_that_nobody_has_heard_of(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    outbox = make()
    await put(outbox, job, FAILED)
    await put(outbox, job, COMPLETED)
    await put(outbox, job, FAILED)  # and not the other way round
    assert [entry.status for entry in await outbox.entries()] == ["completed"]
    outbox.start()
    assert await outbox.wait_delivered(job, 10)
    assert api.statuses(job) == ["completed"]


async def test_a_completion_follows_a_failure_that_is_on_its_way(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_api: FakeApi, _job_id: str, _body: dict[str, Any]) -> None:
        arrived.set()
        await go_on.wait()

    api.faults = [slow]
    outbox, other = make(), make()
    outbox.start()
    other.start()
    await put(outbox, job, FAILED)
    await arrived.wait()
    await put(other, job, COMPLETED)
    assert await other.wait_delivered(job, 0.3) is False, "it overtook the failure"
    go_on.set()
    assert await other.wait_delivered(job, 10)
    assert api.statuses(job) == ["failed", "completed"]
    assert api.jobs[job]["status"] == "completed"


async def test_a_new_report_brings_a_parked_one_back(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    api.faults = [instead_of_storing(422)]
    outbox = make()
    assert not await bring(outbox, job, COMPLETED)
    assert await bring(outbox, job, FAILED)  # its avatar exists: the completion is what is true
    assert [body["status"] for _, body in api.patches] == ["completed", "completed"]
    assert api.created == [job]


# ---------------------------------------------------------------- several workers
async def test_two_workers_with_one_report_deliver_it_once(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    workers = [make() for _ in range(4)]
    await asyncio.gather(*(bring(worker, job, COMPLETED) for worker in workers))
    assert (api.created, api.refused_twice) == ([job], [])


async def test_the_report_of_a_dead_worker_is_taken_over(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    dead, alive = make(claim_s=0.6), make()
    await put(dead, job, COMPLETED)
    await dead._store.claim("dead:1", claim_s=0.6, entries=1, checks=0)  # and it sends, or not
    api.store(job, COMPLETED.to_wire())
    alive.start()
    assert await alive.wait_delivered(job, 10)
    assert requests(api) == ["GET"], "its successor asks first"
    assert api.created == [job]


async def test_whoever_wakes_after_its_claim_has_no_say(make: MakeOutbox, job: str) -> None:
    outbox = make()
    await put(outbox, job, COMPLETED)
    first = await outbox._store.claim("sleeper:1", claim_s=0.0, entries=1, checks=0)
    second = await outbox._store.claim("other:1", claim_s=60.0, entries=1, checks=0)
    (entry,) = first.entries
    assert await outbox._store.settle(entry, "sleeper:1", "delivered") == "taken over"
    assert len(await outbox.entries()) == 1
    (entry,) = second.entries
    assert await outbox._store.settle(entry, "other:1", "delivered") == "delivered"
    assert await outbox.entries() == ()


async def test_a_worker_that_stops_leaves_its_report_to_others_at_once(
    api: FakeApi, make: MakeOutbox, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "STOP_S", 0.05)
    arrived, over = asyncio.Event(), asyncio.Event()

    async def hang(_api: FakeApi, _job_id: str, _body: dict[str, Any]) -> Response:
        arrived.set()
        await over.wait()
        return Response(status_code=503)

    api.faults = [hang]
    stops, goes_on = make(claim_s=60.0), make()
    stops.start()
    await put(stops, job, COMPLETED)
    await arrived.wait()
    await stops.stop()
    goes_on.start()
    assert await goes_on.wait_delivered(job, 10)
    over.set()
    assert api.created == [job]


async def test_stopping_ends_at_whatever_moment_it_comes(
    api: FakeApi, make: MakeOutbox, queue: str
) -> None:
    # At some of them redis-py swallows the cancellation of what waits for it.
    for number in range(30):
        outbox = make(poll_s=0.001)
        api.add(f"s{number}")
        outbox.start()
        await put(outbox, f"s{number}", FAILED)
        await outbox.wait_delivered(f"s{number}", 0.001 * number)
        async with asyncio.timeout(5):
            await outbox.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "outbox"]


async def test_the_lease_of_another_keeps_a_report_out(
    make: MakeOutbox, job: str, redis: Any, queue: str
) -> None:
    key = own_key("bull", queue, "lease", job)
    await redis.set(key, "other:1", px=60_000)
    outbox = make()
    with pytest.raises(JobHeldElsewhere):
        await put(outbox, job, COMPLETED, guard=(key, "me:1"))
    assert await outbox.entries() == ()
    await put(outbox, job, COMPLETED, guard=(key, "other:1"))
    assert len(await outbox.entries()) == 1


async def test_the_clock_of_a_worker_does_not_matter(
    api: FakeApi, make: MakeOutbox, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert await bring(make(), job, COMPLETED)
    assert api.created == [job]


# ---------------------------------------------------------------- looked at once more
async def test_a_late_processing_of_an_earlier_attempt_is_put_right(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    outbox = make(check_after_s=0.3)
    assert await bring(outbox, job, COMPLETED, maybe_reported=True)
    api.store(job, {"status": "processing", "progress": 40})  # a worker that woke up too late
    await api.until(lambda: api.jobs[job]["status"] == "completed")
    assert requests(api) == ["GET", "PATCH", "GET", "PATCH"]
    assert "result" not in api.patches[-1][1]


async def test_a_failure_that_a_late_processing_overwrote_is_put_right(
    api: FakeApi, make: MakeOutbox, job: str, redis: Any, queue: str
) -> None:
    outbox = make(check_after_s=0.3)
    assert await bring(outbox, job, FAILED, check=True)
    api.store(job, {"status": "processing", "progress": 40})  # the API had it all the time
    await api.until(lambda: api.jobs[job]["status"] == "failed")
    assert api.jobs[job]["error"] == FAILED.error
    assert requests(api) == ["GET", "PATCH", "GET", "PATCH"]
    await outbox.stop()
    assert [key async for key in redis.scan_iter(own_key("bull", queue, "outbox", "*"))] == []


async def test_a_failure_whose_job_is_run_again_is_not_repeated(
    api: FakeApi, make: MakeOutbox, job: str, environment: dict[str, str]
) -> None:
    outbox = make(check_after_s=0.3)
    assert await bring(outbox, job, FAILED, check=True)
    async with (
        api_client(environment) as client,
        JobReports(client, job, maybe_reported=True, outbox=outbox) as reports,
    ):
        reports.progress(10)
        await api.until(lambda: requests(api) == ["GET", "PATCH", "PATCH", "GET"])
        await reports.completed(RESULT)
    assert api.statuses(job) == ["failed", "processing", "completed"]


async def test_a_run_that_begins_while_a_failure_is_looked_at_is_noticed(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    """Asking the API and telling it are not one step."""
    outbox = make(check_after_s=60)
    assert await bring(outbox, job, FAILED, check=True)
    await outbox.begin(job)
    api.store(job, {"status": "processing", "progress": 10})
    await outbox._look_again(job)
    assert api.jobs[job]["status"] == "processing"


async def test_a_run_that_begins_before_the_failure_is_delivered_is_noticed(
    api: FakeApi, make: MakeOutbox, job: str
) -> None:
    outbox = make(check_after_s=60)
    await put(outbox, job, FAILED, check=True)
    await outbox.begin(job)
    outbox.start()
    assert await outbox.wait_delivered(job, 10)
    api.store(job, {"status": "processing", "progress": 10})
    await outbox._look_again(job)
    assert api.jobs[job]["status"] == "processing"


async def test_looking_again_waits_until_the_api_answers_and_then_ends(
    api: FakeApi, make: MakeOutbox, job: str, redis: Any, queue: str
) -> None:
    outbox = make(check_after_s=0.1)
    api.get_faults = [Response(status_code=503)]
    assert await bring(outbox, job, COMPLETED, check=True)
    await api.until(lambda: requests(api) == ["PATCH", "GET", "GET"])
    await outbox.stop()  # which lets it note what it found
    assert not await redis.exists(own_key("bull", queue, "outbox", "checks"))
    assert requests(api) == ["PATCH", "GET", "GET"]


# ---------------------------------------------------------------- as a job uses it
async def test_a_job_completes_when_the_api_knows(
    api: FakeApi, make: MakeOutbox, job: str, environment: dict[str, str]
) -> None:
    outbox = make()
    outbox.start()
    async with api_client(environment) as client:
        reports = JobReports(client, job, maybe_reported=False, outbox=outbox)
        async with reports:
            reports.progress(10)
            await api.until(lambda: api.percents(job) == [10])
            await reports.completed(RESULT)
            assert api.jobs[job]["status"] == "completed"
            reports.progress(95)
    assert api.statuses(job) == ["processing", "completed"]


async def test_an_api_that_is_down_does_not_hold_the_job(
    api: FakeApi,
    make: MakeOutbox,
    job: str,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.reporter.reports.DELIVERY_WAIT_S", 0.1)
    api.faults = [instead_of_storing(503)] * 1000
    outbox = make()
    outbox.start()
    async with api_client(environment) as client:
        async with JobReports(client, job, maybe_reported=False, outbox=outbox) as reports:
            await reports.completed(RESULT)
        assert len(await outbox.entries()) == 1
    api.faults.clear()
    assert await outbox.wait_delivered(job, 10)
    assert api.created == [job]


async def test_a_redis_that_is_gone_has_a_name(
    environment: dict[str, str], api: FakeApi, queue: str
) -> None:
    gone = connect(
        Settings.load(environment | {"REDIS_URL": "redis://127.0.0.1:1/0"}).queue, retries=0
    )
    async with api_client(environment) as client:
        outbox = Outbox(gone, client, prefix="bull", queue=queue, owner="w", poll_s=0.05)
        outbox.start()
        with pytest.raises(QueueUnavailable):
            await put(outbox, "j", COMPLETED)
        assert not await outbox.wait_delivered("j", 0.2)
        await outbox.stop()
    await gone.aclose()


@contextlib.asynccontextmanager
async def api_client(environment: dict[str, str]) -> AsyncIterator[ApiClient]:
    client = ApiClient(Settings.load(environment).api)
    yield client
    await client.aclose()
