"""Photos in: from the URL in the job to a file in the job's folder.

The URL only names an object.  Its host is never contacted: the API joins the public address of
the bucket and the raw file name without encoding, so the key is everything after `/<bucket>/` in
the raw string, `?`, `#` and `%` included; if no such object exists, the same percent-decoded once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote

from worker.errors import PhotoNotFound, PhotoTooLarge, PhotoUrlForeign
from worker.storage.bucket import Bucket, ObjectTooLarge

MAX_PHOTO_BYTES: Final = 25 * 1024 * 1024


def photo_keys(url: str, bucket: str) -> tuple[str, ...]:
    """Return the keys that `url` can mean, in the order in which they are tried.

    Raises:
        PhotoUrlForeign: the URL does not point into the bucket.
    """
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not separator or scheme.lower() not in {"http", "https"} or not host or not slash:
        raise PhotoUrlForeign("The photo's address is not an http(s) URL.")
    _, found, key = f"/{path}".partition(f"/{bucket}/")
    if not found or not key:
        raise PhotoUrlForeign(f"The photo's address does not point into the bucket {bucket}.")
    decoded = unquote(key)
    return (key,) if decoded == key else (key, decoded)


async def fetch_photo(bucket: Bucket, url: str, path: Path) -> None:
    """Read the photo that `url` names into `path`.

    Raises:
        PhotoUrlForeign: the URL does not point into the bucket.
        PhotoNotFound: no such object.
        PhotoTooLarge: more than 25 MB.
        StorageUnavailable: MinIO did not answer.
    """
    for key in photo_keys(url, bucket.name):
        if not {".", ".."}.isdisjoint(key.split("/")):
            continue  # S3 clients refuse such a key, so nothing can have been stored under it
        try:
            if await bucket.download(key, path, max_bytes=MAX_PHOTO_BYTES):
                return
        except ObjectTooLarge:
            raise PhotoTooLarge from None
    raise PhotoNotFound
