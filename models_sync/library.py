"""minio-py: clients whose calls end, and its errors by our names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3 import exceptions as http

from models_sync.answers import name_answer, name_refusal
from models_sync.endpoint import CONNECT_S, REGION, authorities, host_of
from models_sync.errors import (
    BucketUnreachable,
    HostUnknown,
    SyncError,
    TransferCut,
    TransferStalled,
)
from models_sync.settings import SyncSettings

MAX_CONNECTIONS = 64


def make_client(
    settings: SyncSettings, *, read_s: float, retries: urllib3.Retry | bool = False
) -> Minio:
    """A client whose calls end: 5 s to connect, `read_s` without a byte.

    It repeats nothing by itself.
    """
    endpoint, secure = host_of(settings)
    return Minio(
        endpoint,
        access_key=settings.minio_access_key,
        secret_key=settings.minio_secret_key,
        secure=secure,
        region=REGION,
        http_client=make_pool(secure=secure, read_s=read_s, retries=retries),
    )


def make_pool(
    *, secure: bool, read_s: float, retries: urllib3.Retry | bool = False
) -> urllib3.PoolManager:
    """Connections of `make_client`."""
    pool: dict[str, Any] = {"ssl_context": authorities()} if secure else {}
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_S, read=read_s),
        maxsize=MAX_CONNECTIONS,
        retries=retries,
        **pool,
    )


@contextmanager
def named_answers(about: str) -> Iterator[None]:
    """Turn what minio-py raises into errors with names."""
    try:
        yield
    except S3Error as error:
        raise name_refusal(
            about, error.code or "", error.message or "", error.response.status
        ) from error
    except (InvalidResponseError, ServerError) as error:
        # minio-py keeps one of the two to itself, and there is no other way to it.
        status: int = getattr(error, "_code", 0) or getattr(error, "status_code", 0)
        raise name_answer(about, status) from error
    except http.HTTPError as error:
        raise _name_failure(about, error) from error


def _name_failure(about: str, error: http.HTTPError) -> SyncError:
    said = f"{about}{error}"
    if isinstance(error, http.NameResolutionError):
        return HostUnknown(said)
    if isinstance(error, http.ConnectTimeoutError | http.NewConnectionError):
        return BucketUnreachable(said)
    if isinstance(error, http.TimeoutError):
        return TransferStalled(said)
    if isinstance(error, http.ProtocolError):
        return TransferCut(said)
    return BucketUnreachable(said)
