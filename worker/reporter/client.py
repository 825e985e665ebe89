"""The API over HTTP: one request at a time, and a named meaning for each answer."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from worker.contract import JobStatus, JobView, StatusUpdate
from worker.errors import ApiUnavailable
from worker.reporter.signing import Signer

if TYPE_CHECKING:
    from worker.settings import ApiSettings

TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
REQUEST_DEADLINE_S: Final = 10.0
"""For a whole request; httpx's timeouts are for each read, and a server may drip for ever."""
MAX_ANSWER_BYTES: Final = 1024 * 1024


class ApiTransient(ApiUnavailable):
    """The API did not answer, or asked to be called again later.

    Attributes:
        retry_after_s: when it wants to be called again, if it said so.
        may_still_act: the request was sent and not answered: the API may be at it yet.
    """

    code = "API_UNAVAILABLE"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, may_still_act: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.may_still_act = may_still_act


class ApiMisconfigured(ApiUnavailable):
    """The API, or what stands before it, does not let this worker in."""

    code = "API_UNAVAILABLE"


class JobUnknown(ApiUnavailable):
    """The API does not know this job: it was deleted, or it belongs to another API."""

    code = "API_UNAVAILABLE"


class ApiClient:
    """Requests to the API, with its token and signature, never following a redirect."""

    def __init__(
        self, settings: ApiSettings, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        headers = {"user-agent": "avatar-worker", "accept": "application/json"}
        if settings.token is not None:
            headers["authorization"] = f"Bearer {settings.token.get_secret_value()}"
        self._signer = Signer(settings.signing_secret) if settings.signing_secret else None
        self._http = httpx.AsyncClient(
            base_url=settings.base_url,
            headers=headers,
            timeout=TIMEOUT,
            # A redirect could lead token and result to another host.
            follow_redirects=False,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def patch(
        self, job_id: str, update: StatusUpdate, *, message_id: str | None = None
    ) -> None:
        """Send a status report once.

        Args:
            job_id: the API's id of the job.
            update: what to send.
            message_id: `webhook-id` when reports are signed; the same for every try at one
                report, and another for every other.

        Raises:
            ApiTransient: worth trying again (network, 5xx, 408, 409, 425, 429, a proxy's page).
            ApiMisconfigured: an operator has to do something first (401, 403, a redirect).
            JobUnknown: the API says 404.
            ApiUnavailable: any other refusal; trying again would not help.
        """
        body = json.dumps(update.to_wire(), allow_nan=False, separators=(",", ":")).encode()
        headers = {"content-type": "application/json"}
        if self._signer is not None:
            headers |= self._signer.headers(message_id or _message_id(job_id, update), body)
        path = f"{_path(job_id)}/status"
        answer = _json(await self._request("PATCH", path, content=body, headers=headers))
        if not isinstance(answer, dict) or answer.get("success") is not True:
            # A proxy's page for maintenance comes with 200 too.
            raise ApiTransient("What answered PATCH with 2xx is not the API of the contract.")

    async def get(self, job_id: str) -> JobView:
        """Ask what the API has of a job.

        Raises:
            ApiTransient, ApiMisconfigured, JobUnknown, ApiUnavailable: as `patch`.
        """
        response = await self._request("GET", _path(job_id))
        try:
            return JobView.model_validate_json(response.content)
        except ValidationError:
            raise ApiTransient("The API's answer to GET is not what the contract says.") from None

    async def _request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                response = await self._bounded(method, path, content=content, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ApiTransient(
                f"The API did not answer: {type(error).__name__}",
                may_still_act=not isinstance(error, _NEVER_SENT),
            ) from None
        if not response.is_success:
            raise _refusal(response, f"The API answered {response.status_code} to {method} {path}")
        return response

    async def _bounded(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request; read no more of the answer than an answer of the API can have."""
        async with self._http.stream(method, path, **more) as response:
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > MAX_ANSWER_BYTES:
                    raise httpx.ReadError("the answer is too long")
        # Its encoding is undone already.
        plain = {k: v for k, v in response.headers.items() if k != "content-encoding"}
        return httpx.Response(
            response.status_code, headers=plain, content=bytes(received), request=response.request
        )


_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _refusal(response: httpx.Response, said: str) -> ApiUnavailable:
    """Say what an answer other than 2xx means."""
    code = response.status_code
    # 409: a sterner API's word for a completion that it has; GET tells.
    if code in {408, 409, 425, 429} or response.is_server_error:
        return ApiTransient(said, retry_after_s=_retry_after_s(response))
    if code == httpx.codes.NOT_FOUND:
        return _not_found(response, said)
    if response.is_redirect:
        return ApiMisconfigured(f"{said}, a redirect; set API_BASE_URL to where it leads.")
    if code in {401, 403}:
        return ApiMisconfigured(f"{said}; check API_TOKEN and API_SIGNING_SECRET.")
    return ApiUnavailable(f"{said}: {response.text[:200]}")


def _not_found(response: httpx.Response, said: str) -> ApiUnavailable:
    """Tell a job that is unknown from an API that is not there.

    While the API's container is replaced, the proxy before it (Traefik, nginx) answers 404 for
    it, in plain text or HTML; and Fastify answers `Route PATCH:/… not found` when API_BASE_URL
    leads to the wrong path.  A final report must not be thrown away for either.
    """
    answer = _json(response)
    if not isinstance(answer, dict):
        return ApiTransient(f"{said}, but not as the API does; is it being replaced?")
    if str(answer.get("message", "")).startswith("Route "):
        return ApiMisconfigured(f"{said}, for want of such a route; check API_BASE_URL.")
    return JobUnknown(said)


def _json(response: httpx.Response) -> object:
    try:
        answer: object = response.json()
    except ValueError:
        return None
    return answer


def _message_id(job_id: str, update: StatusUpdate) -> str:
    terminal = update.status is not JobStatus.PROCESSING
    return f"{job_id}:{update.status.value}" + ("" if terminal else f":{update.progress}")


def _path(job_id: str) -> str:
    return f"/v1/avatar/jobs/{quote(job_id, safe='')}"


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read Retry-After, in seconds or as a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    when = _http_date(value)
    if when is None:
        return None
    # Against the clock that wrote it: ours may have jumped.
    now = _http_date(response.headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (when - now).total_seconds())


def _http_date(value: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)  # "-0000" is UTC all the same
