"""Reports: signed, retried, drained, and never delivered twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from worker.contract import (
    AvatarResultPayload,
    JobStatus,
    Measurements,
    QualityReport,
    StatusUpdate,
)
from worker.errors import ApiUnavailable
from worker.reporter import outbox as outbox_module
from worker.reporter.client import (
    MAX_ANSWER_BYTES,
    ApiClient,
    ApiMisconfigured,
    ApiTransient,
    JobUnknown,
    _retry_after_s,
)
from worker.reporter.delivery import BARE_COMPLETED, Delivered, deliver
from worker.reporter.reports import JobReports
from worker.reporter.signing import Signer
from worker.settings import ApiSettings

RESULT = AvatarResultPayload(
    glb_url="https://s3/tryfitted/avatars/j/avatar.glb",
    measurements=Measurements(chest_cm=100.0),
    quality_report=QualityReport(confidence="high"),
)

Answer = Callable[[httpx.Request], httpx.Response]


class Api:
    """Answers from a script; when it is over, as an API that is well."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.seen: list[tuple[str, dict[str, Any] | None]] = []
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.seen.append((request.method, body))
        self.requests.append(request)
        if self.script:
            return self.script.pop(0)(request)
        return httpx.Response(200, json={"success": True, "jobId": "j"})

    def client(self, **environment: str) -> ApiClient:
        settings = ApiSettings.read({"API_BASE_URL": "https://api.example.com"} | environment)
        return ApiClient(settings, transport=httpx.MockTransport(self))


def status(code: int, **headers: str) -> Answer:
    return lambda _request: httpx.Response(code, headers=headers)


def says(code: int, **body: Any) -> Answer:
    return lambda _request: httpx.Response(code, **body)


def knows(**job: Any) -> Answer:
    return lambda _request: httpx.Response(200, json={"jobId": "j", "createdAt": "x"} | job)


def unreachable(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def silent(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("no answer")


class Handed:
    """An outbox that notes what it is handed, and delivers at once."""

    def __init__(self) -> None:
        self.reports: list[tuple[StatusUpdate, bool]] = []

    async def begin(self, _job_id: str) -> None:
        pass

    async def put(self, _job_id: str, update: StatusUpdate, *, check: bool, **_more: Any) -> None:
        self.reports.append((update, check))

    async def wait_delivered(self, _job_id: str, _timeout_s: float) -> bool:
        return True


def reports_of(client: ApiClient, outbox: Handed | None = None) -> JobReports:
    handed: Any = outbox or Handed()
    return JobReports(client, "j", maybe_reported=False, outbox=handed)


def test_signatures_are_those_of_the_published_example() -> None:
    # The worked example of the Standard Webhooks specification and its reference libraries.
    signer = Signer(SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    headers = signer.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', timestamp_s=1614265330
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


async def test_token_and_signature_go_with_the_report() -> None:
    api = Api()
    client = api.client(
        API_TOKEN="the-token", API_SIGNING_SECRET="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    )
    await client.patch("j", StatusUpdate(status=JobStatus.COMPLETED, progress=100))
    (request,) = api.requests
    assert request.url.path == "/v1/avatar/jobs/j/status"
    assert request.headers["authorization"] == "Bearer the-token"
    assert request.headers["webhook-id"] == "j:completed"
    expected = Signer(SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).headers(
        "j:completed", request.content, timestamp_s=int(request.headers["webhook-timestamp"])
    )
    assert request.headers["webhook-signature"] == expected["webhook-signature"]
    assert hashlib.sha256(request.content).digest()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(500), ApiTransient),
        (status(503), ApiTransient),
        (status(429), ApiTransient),
        (status(408), ApiTransient),
        (unreachable, ApiTransient),
        (status(409), ApiTransient),
        (says(200, text="<h1>Back in a minute</h1>"), ApiTransient),
        (says(200, json={"success": False}), ApiTransient),
        (says(200, text="x" * (MAX_ANSWER_BYTES + 1)), ApiTransient),
        (says(404, json={"error": "Job not found"}), JobUnknown),
        (says(404, text="404 page not found"), ApiTransient),
        (says(404, json={"message": "Route PATCH:/v1/… not found"}), ApiMisconfigured),
        (status(400), ApiUnavailable),
        (status(401), ApiMisconfigured),
        (status(403), ApiMisconfigured),
        (status(302, location="https://elsewhere.example.com"), ApiMisconfigured),
    ],
)
async def test_each_answer_has_its_meaning(answer: Answer, error: type[ApiUnavailable]) -> None:
    api = Api(answer)
    with pytest.raises(ApiUnavailable) as caught:
        await api.client().patch("j", StatusUpdate(status=JobStatus.PROCESSING, progress=10))
    assert type(caught.value) is error
    assert caught.value.code == "API_UNAVAILABLE"
    assert len(api.requests) == 1, "a redirect was followed"


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    def wait(value: str) -> float | None:
        return _retry_after_s(httpx.Response(429, headers={"retry-after": value}))

    assert wait("7") == 7
    assert wait("soon") is None
    seconds = wait(format_datetime(datetime.now(UTC) + timedelta(seconds=60)))
    assert seconds is not None
    assert 55 < seconds <= 60


def test_a_date_in_retry_after_is_read_by_the_clock_of_the_server() -> None:
    answer = httpx.Response(
        429,
        headers={
            "date": "Mon, 05 Jan 1998 10:00:00 GMT",
            "retry-after": "Mon, 05 Jan 1998 10:00:30 GMT",
        },
    )
    assert _retry_after_s(answer) == 30


# ---------------------------------------------------------------- one delivery
COMPLETED = StatusUpdate(status=JobStatus.COMPLETED, progress=100, result=RESULT)
FAILED = StatusUpdate(status=JobStatus.FAILED, error="NO_PERSON: …")
AVATAR = {"id": "a"}


async def test_a_first_completion_is_sent_without_asking() -> None:
    api = Api()
    how = await deliver(api.client(), "j", COMPLETED, ask_first=False, message_id="m")
    assert how is Delivered.SENT
    assert api.seen == [("PATCH", COMPLETED.to_wire())]


@pytest.mark.parametrize(
    ("known", "how", "then_sent"),
    [
        (knows(status="processing"), Delivered.SENT, [COMPLETED]),
        (knows(status="failed", error="…"), Delivered.SENT, [COMPLETED]),
        (knows(status="completed", avatar=AVATAR), Delivered.KNOWN, []),
        # Somebody has removed the avatar since, and does not want it back.
        (knows(status="completed"), Delivered.KNOWN, []),
        (knows(status="processing", avatar=AVATAR), Delivered.PUT_RIGHT, [BARE_COMPLETED]),
        (knows(status="failed", avatar=AVATAR), Delivered.PUT_RIGHT, [BARE_COMPLETED]),
    ],
)
async def test_a_completion_that_may_have_arrived_brings_only_what_is_missing(
    known: Answer, how: Delivered, then_sent: list[StatusUpdate]
) -> None:
    api = Api(known)
    assert await deliver(api.client(), "j", COMPLETED, ask_first=True, message_id="m") is how
    assert api.seen == [("GET", None), *(("PATCH", update.to_wire()) for update in then_sent)]


@pytest.mark.parametrize(
    ("known", "was_sent", "how"),
    [
        (knows(status="processing"), False, Delivered.SENT),
        (knows(status="processing"), True, Delivered.SENT),
        (knows(status="failed", error=FAILED.error), False, Delivered.SENT),
        (knows(status="failed", error=FAILED.error), True, Delivered.KNOWN),
        (knows(status="failed"), True, Delivered.KNOWN),  # an API that does not say why
        (knows(status="failed", error="OUT_OF_MEMORY: …"), True, Delivered.SENT),
        (knows(status="processing", avatar=AVATAR), False, Delivered.OVERRULED),
        (knows(status="completed"), False, Delivered.OVERRULED),
    ],
)
async def test_a_failure_always_asks_first_and_never_overwrites_a_completion(
    known: Answer, was_sent: bool, how: Delivered
) -> None:
    api = Api(known)
    assert await deliver(api.client(), "j", FAILED, ask_first=was_sent, message_id="m") is how
    sent = [("PATCH", FAILED.to_wire())] if how is Delivered.SENT else []
    assert api.seen == [("GET", None), *sent]


async def test_tries_at_one_report_are_one_message_and_a_bare_one_is_another() -> None:
    api = Api(status(500), knows(status="processing"), status(500), knows(avatar=AVATAR, status=""))
    client = api.client(API_SIGNING_SECRET="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    for ask_first in (False, True, True):
        with contextlib.suppress(ApiTransient):
            await deliver(client, "j", COMPLETED, ask_first=ask_first, message_id="m")
    sent = [request for request in api.requests if request.method == "PATCH"]
    assert [request.headers["webhook-id"] for request in sent] == ["m", "m", "m:bare"]


@pytest.mark.parametrize(
    ("error", "least_s", "most_s"),
    [
        (ApiTransient("429", retry_after_s=7.0), 7, 8),
        (ApiTransient("503", retry_after_s=1e9), 3600, 3601),
        (ApiTransient("503"), 0.2, 60),
        (ApiTransient("silence", may_still_act=True), 3.2, 63),
        (ApiMisconfigured("401"), 45, 75),
    ],
)
@pytest.mark.parametrize("attempts", [1, 5, 100_000])
def test_how_long_a_report_waits(
    error: ApiUnavailable, attempts: int, least_s: float, most_s: float
) -> None:
    assert least_s <= outbox_module._wait_s(error, attempts) <= most_s


# ---------------------------------------------------------------- a job's reports
async def test_progress_is_latest_wins_and_drained_before_the_final_report() -> None:
    inside = asyncio.Event()
    go_on = asyncio.Event()
    seen: list[tuple[str, int | None]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if body["progress"] == 10:
            inside.set()
            await go_on.wait()
        seen.append((body["status"], body["progress"]))
        return httpx.Response(200, json={"success": True, "jobId": "j"})

    settings = ApiSettings.read({"API_BASE_URL": "https://api.example.com"})
    client = ApiClient(settings, transport=httpx.MockTransport(answer))
    outbox = Handed()
    async with reports_of(client, outbox) as reports:
        reports.progress(10)
        await inside.wait()
        for percent in (11, 12, 13, 14):  # while the first is on its way
            reports.progress(percent)
        final = asyncio.create_task(reports.completed(RESULT))
        await asyncio.sleep(0)
        assert not outbox.reports, "the final report overtook progress"
        go_on.set()
        await final
        reports.progress(99)
    assert seen == [("processing", 10)]
    assert outbox.reports == [(COMPLETED, False)]


async def test_marks_go_out_at_once_and_others_at_most_once_a_second() -> None:
    api = Api()
    async with reports_of(api.client()) as reports:
        for percent in (10, 11, 12, 20):
            reports.progress(percent)
            await asyncio.sleep(0.02)
    assert [body["progress"] for _, body in api.seen if body] == [10, 20]


async def test_a_job_that_is_taken_away_does_not_wait_for_an_api_that_hangs() -> None:
    inside = asyncio.Event()

    async def hang(_request: httpx.Request) -> httpx.Response:
        inside.set()
        await asyncio.Event().wait()
        raise AssertionError

    settings = ApiSettings.read({"API_BASE_URL": "https://api.example.com"})
    client = ApiClient(settings, transport=httpx.MockTransport(hang))

    async def work() -> None:
        async with reports_of(client) as reports:
            reports.progress(10)
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await inside.wait()
    working.cancel()
    async with asyncio.timeout(1):
        await asyncio.wait({working})
    assert working.cancelled()


async def test_a_request_has_a_deadline_even_when_the_answer_drips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.reporter.client.REQUEST_DEADLINE_S", 0.1)

    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.01)

    api = Api(lambda _request: httpx.Response(200, stream=Drip()))
    with pytest.raises(ApiTransient, match="TimeoutError"):
        await api.client().patch("j", StatusUpdate(status=JobStatus.PROCESSING, progress=10))


@pytest.mark.parametrize(
    ("answer", "check"), [(unreachable, False), (status(503), False), (silent, True)]
)
async def test_progress_that_does_not_arrive_harms_nothing(answer: Answer, check: bool) -> None:
    api, outbox = Api(answer), Handed()
    async with reports_of(api.client(), outbox) as reports:
        reports.progress(10)
        await asyncio.sleep(0.02)
        await reports.completed(RESULT)
    # Unanswered, it may still overwrite the status: then it is looked at once more.
    assert outbox.reports == [(COMPLETED, check)]
