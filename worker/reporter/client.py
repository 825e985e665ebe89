"""The API over HTTP: one request at a time, and a named meaning for each answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from worker.contract import JobStatus, JobView, StatusUpdate
from worker.errors import ApiUnavailable
from worker.reporter.signing import Signer

if TYPE_CHECKING:
    from worker.settings import ApiSettings

TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)


class ApiTransient(ApiUnavailable):
    """The API did not answer, or asked to be called again later."""

    code = "API_UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


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

    async def patch(self, job_id: str, update: StatusUpdate) -> None:
        """Send a status report once.

        Raises:
            ApiTransient: worth trying again (network, 5xx, 408, 425, 429).
            JobUnknown: 404.
            ApiUnavailable: any other refusal; trying again would not help.
        """
        body = json.dumps(update.to_wire(), allow_nan=False, separators=(",", ":")).encode()
        headers = {"content-type": "application/json"}
        if self._signer is not None:
            terminal = update.status is not JobStatus.PROCESSING
            mark = "" if terminal else f":{update.progress}"
            headers |= self._signer.headers(f"{job_id}:{update.status.value}{mark}", body)
        await self._request("PATCH", f"{_path(job_id)}/status", content=body, headers=headers)

    async def get(self, job_id: str) -> JobView:
        """Ask what the API has of a job.

        Raises:
            ApiTransient, JobUnknown, ApiUnavailable: as `patch`.
        """
        response = await self._request("GET", _path(job_id))
        try:
            return JobView.model_validate_json(response.content)
        except ValidationError:
            raise ApiUnavailable("The API's answer to GET is not what the contract says.") from None

    async def _request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise ApiTransient(f"The API did not answer: {type(error).__name__}") from None
        if response.is_success:
            return response
        said = f"The API answered {response.status_code} to {method} {path}"
        if response.status_code in {408, 425, 429} or response.is_server_error:
            raise ApiTransient(said, retry_after_s=_retry_after_s(response))
        if response.status_code == httpx.codes.NOT_FOUND:
            raise JobUnknown(said)
        if response.is_redirect:
            raise ApiUnavailable(f"{said}, a redirect; set API_BASE_URL to where it leads.")
        if response.status_code in {401, 403}:
            raise ApiUnavailable(f"{said}; check API_TOKEN and API_SIGNING_SECRET.")
        raise ApiUnavailable(f"{said}: {response.text[:200]}")


def _path(job_id: str) -> str:
    return f"/v1/avatar/jobs/{quote(job_id, safe='')}"


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read Retry-After, in seconds or as a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
