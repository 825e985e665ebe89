"""What a job has already computed, kept so that whoever takes it up goes on from there.

One zip object a stage, `work/<jobId>/<fingerprint>/<stage>.zip`; the fingerprint stands for the
code, the weights and the settings that computed it, so that nothing is resumed by a worker that
would have computed something else.  The stage `outputs` holds the finished files, with which
`worker.storage.outputs` repairs a published avatar.

All of it is an economy: a stage that is missing, damaged or not to be had is computed anew.  It
holds masks and keypoints of a person, so it goes when the job is done, or by age.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from worker.errors import StorageUnavailable
from worker.observability.logs import get_logger
from worker.storage.bucket import Bucket, ListedObject, ObjectTooLarge

log = get_logger("worker.storage")

PREFIX: Final = "work/"
OUTPUTS: Final = "outputs"
"""The stage of the finished files."""
CLEAN_LATER_S: Final = 90.0
"""By then a request of a worker that lost its job has arrived or was given up."""
MAX_STAGE_BYTES: Final = 64 * 1024 * 1024
"""Of a stage, packed as well as unpacked; measured stages are below 5 MB."""
MAX_MEMBERS: Final = 64
MAX_STAGES: Final = 16
MAX_SWEPT: Final = 200
"""Objects that one sweep deletes, so that it never takes long."""
MAX_LISTED: Final = 20_000

_WORD = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""A file's name: no folder, nothing hidden."""


class WorkStore:
    """The folder `work/` of the bucket.

    Args:
        bucket: the worker's bucket.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._to_clean: dict[str, float] = {}
        """Jobs to forget, and from when on, by the monotonic clock."""

    async def save(
        self, job_id: str, fingerprint: str, stage: str, folder: Path, names: Collection[str]
    ) -> None:
        """Keep files of the job's folder.  Never raises: the job goes on without.

        Args:
            job_id: the API's id of the job.
            fingerprint: of what computed them; a word.
            stage: a word, such as `observe`.
            folder: where the files lie.
            names: which files.
        """
        key = f"{PREFIX}{job_id}/{_word(fingerprint)}/{_word(stage)}.zip"
        try:
            with tempfile.TemporaryDirectory(prefix="avatar-work-") as name:
                packed = Path(name, "stage.zip")
                await asyncio.to_thread(_pack, packed, folder, sorted(names))
                await self._bucket.upload(packed, key, "application/zip")
        except Exception as error:  # noqa: BLE001 - it is an economy, whatever happens to it
            log.warning("work.not_saved", stage=stage, why=str(error) or repr(error))

    async def load(self, job_id: str, fingerprint: str, folder: Path) -> tuple[str, ...]:
        """Bring back what was computed, except the finished files.  Never raises.

        Files that lie in the folder already are not touched: a stage that would is left out.

        Returns:
            The stages whose files now lie in the folder.
        """
        prefix = f"{PREFIX}{job_id}/{_word(fingerprint)}/"
        there = set(await asyncio.to_thread(os.listdir, folder))
        restored = []
        for item in await self._found(prefix):
            stage = item.key.removeprefix(prefix).removesuffix(".zip")
            if stage == OUTPUTS or not _WORD.fullmatch(stage):
                continue
            if await self._restore(item.key, folder, taken=there):
                restored.append(stage)
        return tuple(restored)

    async def load_finished(self, job_id: str, fingerprint: str, folder: Path) -> bool:
        """Bring back the finished files that an earlier attempt was about to publish.

        Publishing the same bytes again is what makes it harmless when an upload of that attempt
        still arrives.  Never raises.

        Returns:
            Whether they now lie in the folder.
        """
        key = f"{PREFIX}{job_id}/{_word(fingerprint)}/{OUTPUTS}.zip"
        if not any(item.key == key for item in await self._found(key)):
            return False
        there = set(await asyncio.to_thread(os.listdir, folder))
        return await self._restore(key, folder, taken=there)

    async def load_outputs(self, job_id: str, folder: Path, wanted: Mapping[str, str]) -> bool:
        """Bring back finished files, whichever worker computed them.  Never raises.

        Args:
            job_id: the API's id of the job.
            folder: an empty folder.
            wanted: SHA-256 by file name; only an archive with exactly these contents will do.

        Returns:
            Whether the files now lie in the folder.
        """
        for item in await self._found(f"{PREFIX}{job_id}/"):
            if item.key.endswith(f"/{OUTPUTS}.zip") and await self._restore(
                item.key, folder, wanted=wanted
            ):
                return True
        return False

    async def clean(self, job_id: str) -> None:
        """Forget a job.  Never raises: what stays is tried again, and swept by age."""
        try:
            found = await self._bucket.list(f"{PREFIX}{job_id}/", at_most=MAX_SWEPT)
            if found:
                await self._bucket.delete([item.key for item in found])
        except StorageUnavailable as error:
            log.warning("work.not_cleaned", why=error.message)
            self.clean_later(job_id, 0.0)

    def clean_later(self, job_id: str, after_s: float = CLEAN_LATER_S) -> None:
        """Forget a job once more: what a worker that lost it had on its way arrives until then."""
        if len(self._to_clean) < MAX_SWEPT:
            self._to_clean[job_id] = time.monotonic() + after_s

    async def clean_again(self) -> None:
        """Forget the jobs whose time has come.  Never raises."""
        now = time.monotonic()
        for job_id in [job_id for job_id, due in self._to_clean.items() if due <= now]:
            del self._to_clean[job_id]
            await self.clean(job_id)

    async def sweep(self, older_than_s: float) -> int:
        """Delete what nobody came back for.

        Args:
            older_than_s: age by MinIO's own clock, so that a wrong clock here harms nothing.

        Returns:
            How many objects were deleted; at most MAX_SWEPT, so call it again now and then.

        Raises:
            StorageUnavailable: MinIO did not answer, or refused.
        """
        limit = await self._bucket.server_time() - timedelta(seconds=older_than_s)
        found = await self._bucket.list(PREFIX, at_most=MAX_LISTED)
        old = [item.key for item in found if item.modified_at < limit][:MAX_SWEPT]
        if old:
            await self._bucket.delete(old)
            log.info("work.swept", objects=len(old), older_than_s=older_than_s)
        return len(old)

    # ------------------------------------------------------------
    async def _found(self, prefix: str) -> tuple[ListedObject, ...]:
        try:
            return await self._bucket.list(prefix, at_most=MAX_STAGES)
        except StorageUnavailable as error:
            log.warning("work.not_found", why=error.message)
            return ()

    async def _restore(
        self,
        key: str,
        folder: Path,
        *,
        taken: Collection[str] = (),
        wanted: Mapping[str, str] | None = None,
    ) -> bool:
        """Unpack a stage beside the folder first: it is there whole or not at all."""
        try:
            with tempfile.TemporaryDirectory(prefix="avatar-work-") as name:
                packed, files = Path(name, "stage.zip"), Path(name, "files")
                if not await self._bucket.download(key, packed, max_bytes=MAX_STAGE_BYTES):
                    return False
                await asyncio.to_thread(_unpack, packed, files, taken)
                await asyncio.to_thread(_compare, files, wanted or {})
                await asyncio.to_thread(_move, files, folder)
        except _DAMAGE as error:
            log.warning("work.damaged", key=key, why=str(error) or repr(error))
        except Exception as error:  # noqa: BLE001 - it is an economy, whatever happens to it
            log.warning("work.not_restored", key=key, why=str(error) or repr(error))
        else:
            return True
        return False


class _Damaged(Exception):
    """An archive that is not one of ours."""


_DAMAGE = (_Damaged, ObjectTooLarge, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} is no word that can be part of a key")
    return text


def _pack(packed: Path, folder: Path, names: Collection[str]) -> None:
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            archive.write(folder / name, name)


def _unpack(packed: Path, files: Path, taken: Collection[str]) -> None:
    """Unpack, trusting nothing that the archive says of itself but its checksums."""
    files.mkdir()
    left = MAX_STAGE_BYTES
    with zipfile.ZipFile(packed) as archive:
        members = archive.infolist()
        if not 0 < len(members) <= MAX_MEMBERS:
            raise _Damaged(f"{len(members)} files")
        for member in members:
            name = member.filename
            if not _NAME.fullmatch(name) or name in taken or (files / name).exists():
                raise _Damaged(f"a file named {name!r}")
            left -= member.file_size
            if left < 0:
                raise _Damaged("too much to unpack")
            # No more than `file_size` bytes come out, and the checksum of what does is compared.
            with archive.open(member) as source, (files / name).open("xb") as target:
                shutil.copyfileobj(source, target)


def _compare(files: Path, wanted: Mapping[str, str]) -> None:
    for name, digest in wanted.items():
        if not (files / name).is_file() or sha256(files / name) != digest:
            raise _Damaged(f"{name} is not the one that is wanted")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move(files: Path, folder: Path) -> None:
    for path in files.iterdir():
        shutil.move(path, folder / path.name)
