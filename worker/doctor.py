"""What `avatar-worker doctor` looks at: everything that a job needs, one finding each.

Checks of models and device import torch, so the command line hands them in; those here read the
environment and ask the services that it names.  `worker.doctor_machine` looks at the machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from worker.consumer.connection import ping
from worker.doctor_machine import checks as machine_checks
from worker.errors import AvatarError, SettingsError, StorageUnavailable
from worker.licensed_code import describe, licensed_code
from worker.reporter.client import ApiClient, JobUnknown
from worker.settings import Settings
from worker.storage.bucket import Bucket
from worker.weights import missing_weights, weights_in_use

PROBE = "doctor-probe"
"""An id and a key that nothing has: an answer of "not there" is a good one."""
LARGEST_SKEW_S: Final = 60.0
"""S3 refuses signatures that are a quarter of an hour off; certificates and leases mind sooner."""
ANONYMOUS_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    what: str
    good: bool
    detail: str
    advice: str = ""


def examine(what: str, check: Callable[[], str]) -> Finding:
    """Run a check that returns what it saw or raises an `AvatarError`."""
    try:
        return Finding(what, good=True, detail=check())
    except AvatarError as error:
        return Finding(what, good=False, detail=str(error), advice=error.advice)
    except Exception as error:  # noqa: BLE001 - one broken check must not hide what the others find
        return Finding(what, good=False, detail=f"the check broke: {type(error).__name__}: {error}")


async def examine_services() -> AsyncIterator[Finding]:
    """Read the environment, then ask Redis, MinIO and the API."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        yield Finding("environment", good=False, detail=error.message, advice=error.advice)
        return
    limits = " ".join(settings.limitations())
    yield Finding("environment", good=True, detail=limits or "every variable is good")
    yield Finding("vendors' code", good=True, detail=describe(licensed_code(settings.models)))
    if weights_in_use(settings):
        yield _weights(settings)
    for what, check in machine_checks(settings):
        yield examine(what, check)
    yield await _ask("queue", lambda: _ask_queue(settings))
    bucket = Bucket(settings.storage)
    try:
        yield (reading := await _ask("storage", lambda: _ask_reading(bucket)))
        if reading.good:
            yield await _ask("storage, writing", lambda: _ask_writing(bucket))
            yield await _ask("storage, strangers", lambda: _ask_as_a_stranger(settings))
            yield await _ask("clock", lambda: _ask_clock(bucket))
    finally:
        bucket.close()
    yield await _ask("API", lambda: _ask_api(settings))


def _weights(settings: Settings) -> Finding:
    try:
        lacking = missing_weights(settings)
    except OSError as error:
        return Finding("weights", good=False, detail=f"they cannot be looked at: {error}")
    return Finding("weights", good=not lacking, detail=lacking or "all that is enabled has its")


async def _ask(what: str, question: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(what, good=True, detail=await question())
    except AvatarError as error:
        return Finding(what, good=False, detail=str(error), advice=error.advice)
    except Exception as error:  # noqa: BLE001 - as in `examine`
        # A client's own words may quote a header with the token.
        return Finding(what, good=False, detail=f"the check broke: {type(error).__name__}")


async def _ask_queue(settings: Settings) -> str:
    await ping(settings.queue)
    return "Redis answers"


async def _ask_reading(bucket: Bucket) -> str:
    # A GET, whose answer tells a missing bucket from a missing object; a HEAD has no body.
    await bucket.read(f"uploads/{PROBE}", max_bytes=1)
    return "MinIO answers, and lets this user look for photos"


async def _ask_writing(bucket: Bucket) -> str:
    key = f"avatars/{PROBE}/probe.txt"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "probe.txt"
        path.write_text("written by avatar-worker doctor\n", encoding="utf-8")
        await bucket.upload(path, key, "text/plain")
    await bucket.delete([key])
    return "MinIO lets this user write outputs, and remove them"


async def _ask_as_a_stranger(settings: Settings) -> str:
    """Nobody without credentials may learn which photos there are."""
    storage = settings.storage
    address = f"{'https' if storage.secure else 'http'}://{storage.host}/{storage.bucket}"
    try:
        async with httpx.AsyncClient(timeout=ANONYMOUS_TIMEOUT_S) as client:
            answer = await client.get(address, params={"list-type": "2", "max-keys": "1"})
    except httpx.HTTPError as error:
        raise StorageUnavailable(
            f"{address} cannot be asked without credentials: {type(error).__name__}"
        ) from error
    if answer.is_success:
        raise StorageUnavailable(
            f"Anyone can list the bucket {storage.bucket}, and with it the names of all photos.",
            advice="Take public listing from its policy: docker/storage-policy.json is what the "
            "worker needs.",
        )
    return f"strangers may not list the bucket ({answer.status_code})"


async def _ask_clock(bucket: Bucket) -> str:
    skew_s = (datetime.now(UTC) - await bucket.server_time()).total_seconds()
    if abs(skew_s) > LARGEST_SKEW_S:
        raise StorageUnavailable(
            f"This machine's clock is {skew_s:+.0f} s off MinIO's; signatures will be refused.",
            advice="Let both hosts take their time by NTP.",
        )
    return f"within {max(1, round(abs(skew_s)))} s of MinIO's"


async def _ask_api(settings: Settings) -> str:
    client = ApiClient(settings.api)
    try:
        with suppress(JobUnknown):
            await client.get(PROBE)
    finally:
        await client.aclose()
    how = "by TLS" if settings.api.base_url.startswith("https://") else "without TLS"
    token = "accepts the token" if settings.api.token else "asks for no token"
    return f"the API answers {how}, and {token}"
