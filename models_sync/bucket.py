"""The bucket, as who may only read it sees it: listings and small objects.

minio-py lists.  It is imported when it is asked to: most pulls find a manifest and list nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from models_sync.again import waits_s
from models_sync.endpoint import Endpoint
from models_sync.errors import AnswerStrange, BucketUnreachable, NothingThere
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.wire import Wire

if TYPE_CHECKING:
    from minio import Minio

ATTEMPTS = 3
Answer = TypeVar("Answer")


class Bucket:
    """Read access to the private bucket.  Safe to share between threads."""

    def __init__(self, settings: SyncSettings) -> None:
        self._settings, self._bucket = settings, settings.minio_bucket
        self.endpoint = Endpoint(settings)
        self.where = self.endpoint.where

    @cached_property
    def _client(self) -> Minio:
        from models_sync.library import make_client  # noqa: PLC0415 - see the module

        return make_client(self._settings, read_s=self._settings.stall_s)

    def list(self, prefixes: dict[str, str]) -> Sequence[RemoteObject]:
        """List the files below each of `prefixes` (local prefix → bucket prefix).

        One listing a prefix and no HEAD: a read-only user may do nothing else.

        Raises:
            NothingThere: one of the prefixes holds no file.
        """
        return _ask_again(lambda: self._list(prefixes))

    def read_small(self, key: str, max_bytes: int) -> bytes:
        """Read a small object whole.

        Raises:
            ObjectMissing: it is not there.
            ObjectDamaged: it is larger than `max_bytes`.
        """
        with self.reader() as read:
            return read(key, max_bytes)

    @contextmanager
    def reader(self) -> Iterator[Callable[[str, int], bytes]]:
        """Give `read_small` over one connection, for who reads several."""
        with closing(Wire(self.endpoint, self._settings.stall_s)) as wire:
            yield lambda key, max_bytes: _ask_again(lambda: wire.read_small(key, max_bytes))

    def _list(self, prefixes: dict[str, str]) -> Sequence[RemoteObject]:
        from models_sync.library import named_answers  # noqa: PLC0415 - see the module

        found: list[RemoteObject] = []
        with named_answers(f"{self.where}: "):
            for local, remote in prefixes.items():
                before = len(found)
                for item in self._client.list_objects(self._bucket, remote, recursive=True):
                    if item.object_name is None or item.is_dir:
                        continue
                    found.append(
                        RemoteObject(
                            key=item.object_name,
                            path=local + item.object_name.removeprefix(remote),
                            size=item.size or 0,
                            etag=(item.etag or "").strip('"'),
                        )
                    )
                if len(found) == before:
                    raise NothingThere(f"{self.where} holds nothing below {remote}")
        return found


def _ask_again(ask: Callable[[], Answer]) -> Answer:
    """Ask, and twice more where that may help."""
    waits = waits_s()
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            return ask()
        except AnswerStrange:
            raise
        except BucketUnreachable:
            if not attempts_left:
                raise
        time.sleep(next(waits))
    raise AssertionError("unreachable")
