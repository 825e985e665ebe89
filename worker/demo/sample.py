"""The sample person: one job through the API as the page does it, and how far off we are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from worker.errors import ApiUnavailable, AvatarError, EngineTimeout, ToolMissing

POLL_SECONDS = 0.1
VIEWS = ("front", "side")


class JobFailed(AvatarError):
    """The sample's job failed; the message is what the shopper would read."""


@dataclass(frozen=True, slots=True)
class SamplePerson:
    """Photos of a person whose measurements are known."""

    front: Path
    side: Path
    declared: Mapping[str, Any]
    """heightCm, weightKg, gender."""
    measurements: Mapping[str, float]
    """True values by the contract's names, cm."""

    @classmethod
    def load(cls, folder: Path) -> SamplePerson:
        """Read `front.jpg`, `side.jpg` and `truth.json`.

        Raises:
            ToolMissing: the sample is not part of this installation.
        """
        front, side, truth = (folder / name for name in ("front.jpg", "side.jpg", "truth.json"))
        if not (front.is_file() and side.is_file() and truth.is_file()):
            raise ToolMissing(
                "The sample person's photos are not there.",
                advice="Run recipes/sample_person from a checkout; it makes them.",
            )
        known: dict[str, Any] = json.loads(truth.read_text(encoding="utf-8"))
        names = ("heightCm", "weightKg", "gender")
        declared: dict[str, Any] = {name: known[name] for name in names if name in known}
        return cls(front, side, declared, known["measurements"])


@dataclass(frozen=True, slots=True)
class SampleOutcome:
    """What came back for the sample."""

    job_id: str
    seconds: float
    """From the first upload to the avatar."""
    measurements: Mapping[str, float]
    quality: Mapping[str, Any]
    iou: Mapping[str, float]
    glb_bytes: int


def run_sample(
    api_url: str, person: SamplePerson, *, on_progress: Callable[[int], None], timeout_s: float
) -> SampleOutcome:
    """Upload, create the job, follow it, and look at what was published.

    Raises:
        ApiUnavailable: the API or the storage refused a request.
        JobFailed: the job failed.
        EngineTimeout: it did not finish in time.
    """
    started = time.monotonic()
    with httpx.Client(base_url=api_url, timeout=30) as client:
        try:
            job: dict[str, Any] = dict(person.declared)
            for view, photo in zip(VIEWS, (person.front, person.side), strict=True):
                job[f"{view}PhotoUrl"] = upload(client, photo)
            created = client.post("/v1/avatar/jobs", json=job)
            job_id: str = created.raise_for_status().json()["jobId"]
            avatar = follow(client, job_id, on_progress, deadline=started + timeout_s)
            seconds = time.monotonic() - started
            links = client.get(f"/v1/avatar/jobs/{job_id}/files").raise_for_status().json()["files"]
            glb = client.get(links["avatar.glb"]).raise_for_status().content
            report = client.get(links["quality_report.json"]).raise_for_status().json()
        except httpx.HTTPError as error:
            raise ApiUnavailable(f"The demo's API or storage refused a request: {error}") from error
    return SampleOutcome(
        job_id=job_id,
        seconds=seconds,
        measurements=avatar["measurements"],
        quality=avatar["qualityReport"],
        iou=report["iou"],
        glb_bytes=len(glb),
    )


def upload(client: httpx.Client, photo: Path) -> str:
    """Store a photo as a shopper's browser does; return the URL that goes into the job."""
    answer = client.post("/v1/uploads/presign", json={"fileName": photo.name})
    where = answer.raise_for_status().json()
    client.put(where["uploadUrl"], content=photo.read_bytes()).raise_for_status()
    url: str = where["fileUrl"]
    return url


def follow(
    client: httpx.Client, job_id: str, on_progress: Callable[[int], None], *, deadline: float
) -> dict[str, Any]:
    """Ask after a job until it has its avatar; return that.

    Raises:
        JobFailed: it failed.
        EngineTimeout: it was not finished by `deadline`, a time of `time.monotonic`.
    """
    while time.monotonic() < deadline:
        job = client.get(f"/v1/avatar/jobs/{job_id}").raise_for_status().json()
        on_progress(job.get("progress") or 0)
        if job["status"] == "failed":
            raise JobFailed(job.get("error") or None)
        if job["status"] == "completed" and "avatar" in job:
            avatar: dict[str, Any] = job["avatar"]
            return avatar
        time.sleep(POLL_SECONDS)
    raise EngineTimeout("The sample's avatar was not finished in time.")


def comparison(outcome: SampleOutcome, person: SamplePerson) -> Table:
    """Measured against true, one row a measure."""
    table = Table(title="The sample person, measured", title_justify="left")
    table.add_column("measure")
    for title in ("measured, cm", "true, cm", "off by, cm"):
        table.add_column(title, justify="right")
    for name, value in outcome.measurements.items():
        true = person.measurements.get(name)
        off = "–" if true is None else f"{value - true:+.1f}"
        shown = "–" if true is None else f"{true:.1f}"
        table.add_row(name.removesuffix("Cm"), f"{value:.1f}", shown, off)
    return table


def summary(outcome: SampleOutcome, person: SamplePerson) -> dict[str, Any]:
    """The same as one JSON object."""
    off = [
        abs(value - person.measurements[name])
        for name, value in outcome.measurements.items()
        if name in person.measurements and name != "heightCm"
    ]
    return {
        "jobId": outcome.job_id,
        "status": "completed",
        "seconds": round(outcome.seconds, 2),
        "measurements": dict(outcome.measurements),
        "truth": dict(person.measurements),
        "meanAbsErrorCm": round(sum(off) / len(off), 2) if off else None,
        "qualityReport": dict(outcome.quality),
        "iou": dict(outcome.iou),
        "glbBytes": outcome.glb_bytes,
    }
