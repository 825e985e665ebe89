"""What `avatar-worker doctor` looks at: everything that a job needs, one finding each.

Checks of models and device import torch, so the command line hands them in; those here read the
environment and ask the services that it names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from worker.consumer.connection import ping
from worker.errors import AvatarError, SettingsError
from worker.licensed_code import describe, licensed_code
from worker.reporter.client import ApiClient, JobUnknown
from worker.settings import Settings
from worker.storage.bucket import Bucket
from worker.weights import missing_weights, weights_in_use

PROBE = "doctor-probe"
"""An id and a key that nothing has: an answer of "not there" is a good one."""


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
        lacking = missing_weights(settings)
        yield Finding("weights", good=not lacking, detail=lacking or "all that is enabled has its")
    yield await _ask("queue", lambda: ping(settings.queue), "Redis answers")
    yield await _ask(
        "storage",
        lambda: _ask_storage(settings),
        "MinIO answers, and lets this user look for photos",
    )
    yield await _ask("API", lambda: _ask_api(settings), "the API answers")


async def _ask(what: str, question: Callable[[], Awaitable[None]], good: str) -> Finding:
    try:
        await question()
    except AvatarError as error:
        return Finding(what, good=False, detail=str(error), advice=error.advice)
    return Finding(what, good=True, detail=good)


async def _ask_storage(settings: Settings) -> None:
    bucket = Bucket(settings.storage)
    try:
        # A GET, whose answer tells a missing bucket from a missing object; a HEAD has no body.
        await bucket.read(f"uploads/{PROBE}", max_bytes=1)
    finally:
        bucket.close()


async def _ask_api(settings: Settings) -> None:
    client = ApiClient(settings.api)
    try:
        with suppress(JobUnknown):
            await client.get(PROBE)
    finally:
        await client.aclose()
