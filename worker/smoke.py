"""`avatar-worker smoke URL`: is the worker that runs there alive, ready, the right one, and able?

It asks as an operator would, from outside: `/health`, `/ready`, `/v1/ping`, and on request one job
of the sample person, which takes the shopper's way through the API.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import httpx

from worker.demo.page import SAMPLE
from worker.demo.sample import SamplePerson, follow, upload
from worker.doctor import Finding
from worker.errors import AvatarError

ANSWER_S: Final = 10.0
POLL_S: Final = 1.0
SHORTEST_COMMIT: Final = 7
"""Digits of a commit's name that tell it from others, as git abbreviates it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the worker should be; None where anything will do.

    Attributes:
        commit: GIT_COMMIT of its image, whole or its first seven digits or more.
        digest: IMAGE_DIGEST that it was deployed with.
        gpu: whether it computes on one.
    """

    commit: str | None = None
    digest: str | None = None
    gpu: bool = False


def probe(
    url: str, token: str | None, expected: Expected, *, wait_s: float = 0.0
) -> Iterator[Finding]:
    """Ask a running worker everything that is asked of it.

    Args:
        url: where it answers.
        token: its WORKER_TOKEN.
        expected: what it should be.
        wait_s: how long it may take to become ready.
    """
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S) as client:
        deadline = time.monotonic() + wait_s
        yield _health(client, deadline)
        yield _ready(client, deadline)
        answer = _ask(client, "/v1/ping")
        if isinstance(answer, Finding):
            yield answer
            return
        facts = answer[1]
        yield Finding(
            "/v1/ping",
            good=True,
            detail=f"version {facts.get('version')}, {facts.get('gpuName') or 'CPU'}, "
            f"{facts.get('activeJobs')} of {facts.get('maxConcurrentJobs')} jobs",
        )
        yield from _identity(facts, expected)


def canary(api_url: str, timeout_s: float) -> Finding:
    """Send the sample person through the API, the queue, the worker and the storage.

    Args:
        api_url: API_BASE_URL.
        timeout_s: how long it may take.
    """
    person = SamplePerson.load(SAMPLE)
    began = time.monotonic()
    try:
        with httpx.Client(base_url=api_url, timeout=ANSWER_S) as client:
            job: dict[str, Any] = dict(person.declared)
            job["frontPhotoUrl"] = upload(client, person.front)
            job["sidePhotoUrl"] = upload(client, person.side)
            created = client.post("/v1/avatar/jobs", json=job).raise_for_status().json()
            job_id = str(created["jobId"])
            avatar = follow(client, job_id, lambda _: None, deadline=began + timeout_s)
    except httpx.HTTPError as error:
        return Finding("canary", good=False, detail=str(error), advice="Is that the API's address?")
    except AvatarError as error:
        return Finding("canary", good=False, detail=str(error), advice=error.advice)
    measures = avatar["measurements"]
    off = [
        abs(measures[name] - true)
        for name, true in person.measurements.items()
        if name in measures and name != "heightCm"
    ]
    if not off:
        return Finding("canary", good=False, detail=f"{job_id} came back without measurements")
    return Finding(
        "canary",
        good=True,
        detail=f"{job_id} in {time.monotonic() - began:.1f} s, {len(off)} measurements, "
        f"off by {sum(off) / len(off):.1f} cm on average, {avatar['glbUrl']}",
    )


# ---------------------------------------------------------------- the questions
def _health(client: httpx.Client, deadline: float) -> Finding:
    """The process may just be starting, so this waits too."""
    answer = _until(client, "/health", deadline)
    if isinstance(answer, Finding):
        return answer
    code, facts = answer
    why = facts.get("reason") or f"Redis answered {facts.get('secondsSinceRedisAnswered')} s ago"
    return Finding("/health", good=code == httpx.codes.OK, detail=f"{facts['status']}, {why}")


def _ready(client: httpx.Client, deadline: float) -> Finding:
    answer = _until(client, "/ready", deadline)
    if isinstance(answer, Finding):
        return answer
    code, facts = answer
    if code == httpx.codes.OK:
        return Finding("/ready", good=True, detail="takes jobs")
    return Finding(
        "/ready",
        good=False,
        detail=f"{facts.get('state')}: {facts.get('reason', 'it does not say why')}",
        advice=facts.get("advice", ""),
    )


def _identity(facts: dict[str, Any], expected: Expected) -> Iterator[Finding]:
    identity = facts["identity"]
    if expected.commit:
        runs = identity.get("gitCommit") or ""
        right = len(expected.commit) >= SHORTEST_COMMIT and runs.startswith(expected.commit)
        yield Finding(
            "commit",
            good=right,
            detail=f"{runs or 'unknown'} runs, {expected.commit} is expected",
            advice=""
            if right
            else "The pod still runs another image: deploy by digest, then restart the pod.",
        )
    if expected.digest:
        declared = identity.get("declaredImageDigest") or "none"
        yield Finding(
            "image digest",
            good=declared == expected.digest,
            detail=f"{declared} is declared, {expected.digest} is expected",
            advice="" if declared == expected.digest else "Set IMAGE_DIGEST beside the image.",
        )
    if expected.gpu:
        has_gpu = bool(facts.get("gpu"))
        yield Finding(
            "GPU",
            good=has_gpu,
            detail=f"{facts.get('gpuName')}, CUDA {facts.get('cuda')}" if has_gpu else "none",
            advice="" if has_gpu else "Look at the driver: docs/howto/runpod.md, no GPU.",
        )


def _until(
    client: httpx.Client, path: str, deadline: float
) -> tuple[int, dict[str, Any]] | Finding:
    """Ask until it answers 200, or until the deadline; return the last answer."""
    while True:
        answer = _ask(client, path)
        is_good = not isinstance(answer, Finding) and answer[0] == httpx.codes.OK
        if is_good or time.monotonic() >= deadline:
            return answer
        time.sleep(POLL_S)


_REFUSALS: Final[dict[int, str]] = {
    401: "Give its WORKER_TOKEN, by --token or in the environment.",
    403: "The worker has no WORKER_TOKEN: set one in its environment and start it again.",
}


def _ask(client: httpx.Client, path: str) -> tuple[int, dict[str, Any]] | Finding:
    """Return status and facts, or the finding that it did not answer as a worker does."""
    try:
        answer = client.get(path)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return Finding(
            path,
            good=False,
            detail=f"{client.base_url} does not answer: {str(error) or type(error).__name__}",
            advice="Check the address, the exposed port, and that the pod runs.",
        )
    facts: Any = None
    with suppress(ValueError):
        facts = answer.json()
    if answer.status_code in _REFUSALS:
        return Finding(
            path,
            good=False,
            detail=f"{answer.status_code}",
            advice=_REFUSALS[answer.status_code],
        )
    if not isinstance(facts, dict) or "status" not in facts:
        return Finding(
            path,
            good=False,
            detail=f"{answer.status_code}, and it is no worker that says so",
            advice="RunPod's proxy answers like this until the pod listens: wait, or check the "
            "port.",
        )
    return answer.status_code, facts
