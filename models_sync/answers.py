"""What a server's refusals mean: its codes and statuses as errors with names."""

from __future__ import annotations

from http import HTTPStatus

from models_sync.errors import (
    AnswerStrange,
    BucketBusy,
    BucketRefused,
    ClockWrong,
    NothingThere,
    ObjectMissing,
    ObjectReplaced,
    SyncError,
)

_BUSY = {"SlowDown", "SlowDownRead", "ServiceUnavailable", "InternalError", "RequestTimeout"}


def name_refusal(about: str, code: str, message: str, status: int) -> SyncError:
    """An error in the words of S3."""
    said = f"{about}{code}: {message}"
    if code in {"PreconditionFailed", "InvalidRange"}:
        return ObjectReplaced(f"{said}: it was replaced in the bucket meanwhile")
    if code in {"NoSuchKey", "NoSuchVersion"}:
        return ObjectMissing(said)
    if code == "NoSuchBucket":
        return NothingThere(said)
    if code == "RequestTimeTooSkewed":
        return ClockWrong(said)
    if code in _BUSY or _is_busy(status):
        return BucketBusy(said)
    return BucketRefused(said)


def name_answer(about: str, status: int) -> SyncError:
    """An answer that is no S3: of a proxy, a load balancer or a login page."""
    said = f"{about}HTTP {status}, not in the words of S3"
    if _is_busy(status):
        return BucketBusy(said)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return BucketRefused(said)
    if status == HTTPStatus.PRECONDITION_FAILED:
        return ObjectReplaced(said)
    return AnswerStrange(said)


def name_body(about: str, status: int, body: bytes) -> SyncError:
    """An error answer as it came, in the words of S3 or not."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - for who is refused

    try:
        # Of the server that we trust with our key; and a few kB, so that nothing can expand.
        said = ET.fromstring(body)  # noqa: S314
    except ET.ParseError:
        return name_answer(about, status)
    words = {element.tag.rpartition("}")[2]: element.text or "" for element in said}
    if "Code" not in words:
        return name_answer(about, status)
    return name_refusal(about, words["Code"], words.get("Message", ""), status)


def refuse_other_range(
    about: str, status: int, answered: str | None, *, offset: int, size: int, whole: int
) -> None:
    """Pass when the answer is the range of the object that was asked for.

    Raises:
        ObjectReplaced: the object has another size than `whole`.
        AnswerStrange: it is another range, or no range at all.
    """
    span, _, total = (answered or "").partition("/")
    if status == HTTPStatus.PARTIAL_CONTENT and total not in {str(whole), ""}:
        raise ObjectReplaced(f"{about}it has {total} bytes now instead of {whole}")
    asked = f"bytes {offset}-{offset + size - 1}"
    if status != HTTPStatus.PARTIAL_CONTENT or span != asked:
        raise AnswerStrange(
            f"{about}asked for {asked}, the answer is {status} {answered or 'without a range'}"
        )


def _is_busy(status: int) -> bool:
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
