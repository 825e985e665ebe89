"""Reports: signed, retried, drained, and never delivered twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import tenacity
from pydantic import SecretStr

from worker.contract import (
    AvatarResultPayload,
    JobStatus,
    Measurements,
    QualityReport,
    StatusUpdate,
)
from worker.errors import ApiUnavailable
from worker.reporter import reports as reports_module
from worker.reporter.client import (
    MAX_ANSWER_BYTES,
    ApiClient,
    ApiMisconfigured,
    ApiTransient,
    JobUnknown,
    _retry_after_s,
)
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


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "_backoff", lambda _state: 0.0)


async def complete(api: Api, *, maybe_reported: bool = False) -> None:
    async with JobReports(api.client(), "j", maybe_reported=maybe_reported) as reports:
        await reports.completed(RESULT)


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


async def test_a_completion_is_sent_once_when_it_arrives() -> None:
    api = Api()
    await complete(api)
    assert [method for method, _ in api.seen] == ["PATCH"]


async def test_an_avatar_without_completed_gets_a_bare_completed() -> None:
    api = Api(status(500), knows(status="processing", avatar={"id": "a"}))
    await complete(api)
    assert [method for method, _ in api.seen] == ["PATCH", "GET", "PATCH"]
    assert api.seen[0][1]["result"]["measurements"] == {"chestCm": 100.0}  # type: ignore[index]
    assert api.seen[2][1] == {"status": "completed", "progress": 100, "error": None}


async def test_what_was_stored_in_spite_of_the_error_is_not_sent_again() -> None:
    api = Api(unreachable, knows(status="completed", avatar={"id": "a"}))
    await complete(api)
    assert [method for method, _ in api.seen] == ["PATCH", "GET"]


async def test_what_was_not_stored_is_sent_again_with_its_result() -> None:
    api = Api(status(503), status(502), knows(status="processing"))
    await complete(api)
    assert [method for method, _ in api.seen] == ["PATCH", "GET", "GET", "PATCH"]
    assert api.seen[3][1]["result"]  # type: ignore[index]


async def test_an_earlier_attempt_may_have_reported() -> None:
    api = Api(knows(status="completed", avatar={"id": "a"}))
    await complete(api, maybe_reported=True)
    assert [method for method, _ in api.seen] == ["GET"]


async def test_an_unknown_job_is_nobodys_and_is_no_error() -> None:
    api = Api(says(404, json={"error": "Job not found"}))
    await complete(api)
    assert len(api.seen) == 1


async def test_an_api_that_stays_down_fails_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "FINAL_REPORT_FOR_S", 0.05)
    api = Api(*[unreachable] * 100_000)
    with pytest.raises(ApiUnavailable):
        await complete(api)


@pytest.mark.parametrize(("asked_s", "waited_s"), [(7.0, 7.0), (3600.0, 30.0), (None, 0.0)])
def test_retry_after_is_honoured_within_a_bound(asked_s: float | None, waited_s: float) -> None:
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    error = ApiTransient("429", retry_after_s=asked_s)
    state.set_exception((type(error), error, None))
    assert reports_module._wait(state) == waited_s


@pytest.mark.parametrize(
    "known", [knows(status="completed"), knows(status="processing", avatar={"id": "a"})]
)
async def test_a_failure_never_overwrites_a_completion(known: Answer) -> None:
    api = Api(known)
    async with JobReports(api.client(), "j", maybe_reported=True) as reports:
        await reports.failed("NO_PERSON: …")
    assert [method for method, _ in api.seen] == ["GET"]


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
    async with JobReports(client, "j", maybe_reported=False) as reports:
        reports.progress(10)
        await inside.wait()
        for percent in (11, 12, 13, 14):  # while the first is on its way
            reports.progress(percent)
        final = asyncio.create_task(reports.completed(RESULT))
        await asyncio.sleep(0)
        assert not final.done(), "the final report overtook progress"
        go_on.set()
        await final
        reports.progress(99)
    assert seen == [("processing", 10), ("completed", 100)]


async def test_marks_go_out_at_once_and_others_at_most_once_a_second() -> None:
    api = Api()
    async with JobReports(api.client(), "j", maybe_reported=False) as reports:
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
        async with JobReports(client, "j", maybe_reported=False) as reports:
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


async def test_progress_that_does_not_arrive_harms_nothing() -> None:
    api = Api(unreachable)
    async with JobReports(api.client(), "j", maybe_reported=False) as reports:
        reports.progress(10)
        await asyncio.sleep(0.02)
        await reports.completed(RESULT)
    assert api.seen[-1][1]["status"] == "completed"  # type: ignore[index]
