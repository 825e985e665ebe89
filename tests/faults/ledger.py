"""What the API has stored, in order: the book that the invariants are checked against."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from tests.fakes.api import FakeApi


@dataclass(frozen=True, slots=True)
class Entry:
    """A status report that the API acted on."""

    at: float
    """Seconds since 1970."""
    status: str
    creates: bool
    """Whether it carried a result, so that `avatar.create` ran."""
    accepted: bool

    @property
    def is_final(self) -> bool:
        """Whether nothing may follow it."""
        return self.status in {"completed", "failed"}


class Ledger:
    """Writes down every report that the fake API stores or refuses to store twice."""

    def __init__(self, api: FakeApi) -> None:
        self.entries: dict[str, list[Entry]] = {}
        self._store = api.store
        api.store = self._record  # type: ignore[method-assign]  # looked over its shoulder

    def _record(self, job_id: str, body: dict[str, Any]) -> Response:
        answer = self._store(job_id, body)
        creates = body["status"] == "completed" and bool(body.get("result"))
        entry = Entry(time.time(), body["status"], creates, answer.status_code < 300)
        self.entries.setdefault(job_id, []).append(entry)
        return answer

    def finals(self, job_id: str) -> list[Entry]:
        """The final reports that were accepted."""
        mine = self.entries.get(job_id, [])
        return [entry for entry in mine if entry.is_final and entry.accepted]
