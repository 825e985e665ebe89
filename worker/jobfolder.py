"""One job's folder: photos in it, the avatar's files in it, and what was saved of it in between.

What the engine has computed is kept in the work store as soon as it is there, so that whoever
takes the job up after us goes on from it.  It is keyed by a fingerprint of everything that it
follows from: code, weights, configuration, photos and request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from worker import tasks
from worker.contract import AvatarJob
from worker.engine.messages import Built, RunJob
from worker.errors import JobHeldElsewhere
from worker.storage.bucket import Bucket
from worker.storage.photos import fetch_photo
from worker.storage.work import OUTPUTS, WorkStore

FRONT_PHOTO: Final = "photo_front"
SIDE_PHOTO: Final = "photo_side"
BUILT: Final = "built.json"
"""The engine's answer, among the finished files in the work store."""
LAST_SAVES_S: Final = 0.8
"""How long an aborted attempt waits for what is on its way to the work store."""


class JobFolder:
    """A temporary folder for one attempt at one job.

    Args:
        job: the request.
        bucket: photos come from it.
        work: keeps what was computed.
        check: asked before anything is kept; raises JobHeldElsewhere.
    """

    def __init__(
        self,
        job: AvatarJob,
        *,
        bucket: Bucket,
        work: WorkStore,
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self._job = job
        self._bucket = bucket
        self._work = work
        self._check = check
        self._fingerprint: str | None = None
        self._resume: tuple[str, ...] = ()
        self.finished: Built | None = None
        """What an earlier attempt had computed to the end, its files in the folder."""
        self._saves: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Make the folder."""
        self._temporary = tempfile.TemporaryDirectory(
            prefix="avatar-job-", ignore_cleanup_errors=True
        )
        self.path = Path(self._temporary.name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let saves that are under way end, for a moment, then remove the folder."""
        await tasks.to_the_end(self._close())

    async def _close(self) -> None:
        if self._saves:
            _, late = await asyncio.wait(self._saves, timeout=LAST_SAVES_S)
            await tasks.end(*late)
        await asyncio.to_thread(self._temporary.cleanup)

    # ------------------------------------------------------------ in
    async def fetch_photos(self) -> None:
        """Read the photos.

        Raises:
            PhotoUrlForeign, PhotoNotFound, PhotoTooLarge, StorageUnavailable: as `fetch_photo`.
        """
        photos = {FRONT_PHOTO: self._job.front_photo_url, SIDE_PHOTO: self._job.side_photo_url}
        await tasks.all_of(
            fetch_photo(self._bucket, url, self.path / name) for name, url in photos.items() if url
        )

    async def restore(self, engine_fingerprint: str | None) -> None:
        """Bring back what an earlier attempt had computed from the same photos, if anything."""
        if engine_fingerprint is None:
            return
        self._fingerprint = await asyncio.to_thread(self._follow_from, engine_fingerprint)
        where = (self._job.job_id, self._fingerprint, self.path)
        if await self._work.load_finished(*where):
            self.finished = await asyncio.to_thread(self._read_built)
        if self.finished is None:
            self._resume = await self._work.load(*where)

    def engine_job(self) -> RunJob:
        """Return the engine's order."""
        return RunJob(
            job_id=self._job.job_id,
            folder=str(self.path),
            front=FRONT_PHOTO,
            side=SIDE_PHOTO if self._job.side_photo_url else None,
            height_m=self._job.height_cm / 100.0,
            weight_kg=self._job.weight_kg,
            gender=self._job.gender,
            resume=self._resume,
        )

    # ------------------------------------------------------------ between
    def checkpoint(self, stage: str, files: tuple[str, ...]) -> None:
        """Save a stage of the engine's; never waits."""
        if self._fingerprint is not None:
            task = asyncio.create_task(self._save(stage, files), name=f"save {stage}")
            self._saves.add(task)
            task.add_done_callback(self._saves.discard)

    async def save_outputs(self, built: Built, names: Collection[str]) -> None:
        """Save the finished files and what the engine said of them, before they are published.

        Whoever publishes this job after us publishes these bytes.
        """
        if self.finished is None:
            kept = built.model_copy(update={"files": tuple(sorted(names))})
            (self.path / BUILT).write_text(kept.model_dump_json())
            await self._save(OUTPUTS, (*kept.files, BUILT))

    def _read_built(self) -> Built | None:
        with contextlib.suppress(OSError, ValidationError):
            built = Built.model_validate_json((self.path / BUILT).read_bytes())
            if all((self.path / name).is_file() for name in built.files):
                return built
        return None

    async def _save(self, stage: str, names: Collection[str]) -> None:
        if self._fingerprint is None:
            return
        with contextlib.suppress(JobHeldElsewhere):
            # A worker that was frozen wakes with what its engine had said; by then the job may be
            # done and its work cleaned.
            await self._check()
            await self._work.save(self._job.job_id, self._fingerprint, stage, self.path, names)

    def _follow_from(self, engine_fingerprint: str) -> str:
        """Hash everything that the result depends on; blocks."""
        photos = [
            hashlib.sha256((self.path / name).read_bytes()).hexdigest()
            for name in (FRONT_PHOTO, SIDE_PHOTO)
            if (self.path / name).is_file()
        ]
        request = [self._job.height_cm, self._job.weight_kg, self._job.gender]
        text = json.dumps([engine_fingerprint, photos, request])
        return hashlib.sha256(text.encode()).hexdigest()[:32]
