"""Jobs and avatars in SQLite, with the behaviour of the API's tables that the worker must survive.

An avatar's `job_id` is unique, so storing a second avatar for a job raises, and a status is
written without looking at the one before.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'queued',
    progress INTEGER,
    error TEXT,
    created_at TEXT NOT NULL,
    completed_at TEXT
);
CREATE TABLE IF NOT EXISTS avatars (
    id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE REFERENCES jobs (id),
    user_id TEXT NOT NULL,
    glb_url TEXT NOT NULL,
    measurements TEXT NOT NULL,
    quality_report TEXT NOT NULL,
    created_at TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class StoredAvatar:
    """A row of `avatars`."""

    id: str
    job_id: str
    user_id: str
    glb_url: str
    measurements: Mapping[str, float]
    quality_report: Mapping[str, Any]
    created_at: str

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> Self:
        """Parse the JSON columns."""
        values = dict(row)
        for column in ("measurements", "quality_report"):
            values[column] = json.loads(values[column])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A row of `jobs`, and its avatar when there is one."""

    id: str
    request: Mapping[str, Any]
    """What was put on the queue."""
    status: str
    progress: int | None
    error: str | None
    created_at: str
    completed_at: str | None
    avatar: StoredAvatar | None


class Store:
    """The reference API's database.  Its methods block for less than a millisecond or so.

    Args:
        path: The SQLite file; created when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def create_job(self, job_id: str, request: Mapping[str, Any]) -> None:
        """Keep a job before it is put on the queue."""
        with self._lock:
            self._db.execute(
                "INSERT INTO jobs (id, request, created_at) VALUES (?, ?, ?)",
                (job_id, json.dumps(request), _now()),
            )

    def job(self, job_id: str) -> StoredJob | None:
        """A job by `data.jobId`."""
        with self._lock:
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                return None
            avatar = self._db.execute(
                "SELECT * FROM avatars WHERE job_id = ?", (job_id,)
            ).fetchone()
        values = dict(row)
        values["request"] = json.loads(values["request"])
        return StoredJob(**values, avatar=StoredAvatar.from_row(avatar) if avatar else None)

    def create_avatar(
        self,
        job_id: str,
        *,
        user_id: str,
        glb_url: str,
        measurements: Mapping[str, float],
        quality_report: Mapping[str, Any],
    ) -> None:
        """Keep the result of a job.

        Raises:
            sqlite3.IntegrityError: the job has an avatar already.
        """
        with self._lock:
            self._db.execute(
                "INSERT INTO avatars VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    new_id(),
                    job_id,
                    user_id,
                    glb_url,
                    json.dumps(measurements),
                    json.dumps(quality_report),
                    _now(),
                ),
            )

    def set_status(
        self, job_id: str, status: str, *, progress: int | None, error: str | None
    ) -> None:
        """Write a status over whatever was there; a progress of None keeps the one before."""
        with self._lock:
            self._db.execute(
                "UPDATE jobs SET status = ?, progress = coalesce(?, progress), error = ?,"
                " completed_at = ? WHERE id = ?",
                (status, progress, error, _now() if status == "completed" else None, job_id),
            )

    def current_avatar(self) -> StoredAvatar | None:
        """The avatar that was made last."""
        with self._lock:
            row = self._db.execute("SELECT * FROM avatars ORDER BY rowid DESC LIMIT 1").fetchone()
        return StoredAvatar.from_row(row) if row else None


def new_id() -> str:
    """An id of the form of a cuid, which the API's tables use: `c` and 24 characters."""
    return "c" + secrets.token_hex(12)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
