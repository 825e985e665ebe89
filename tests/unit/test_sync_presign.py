"""URLs of our own signing are minio-py's: for odd names, versions and any endpoint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from minio import Minio
from minio.credentials import Credentials
from minio.signer import sign_v4_s3

from models_sync.presign import PATTERN_KEY, SIGNED_FOR_S, Presigner

ACCESS_KEY, SECRET_KEY, REGION = "reader+/=1", "s3cr3t/+of the bucket", "us-east-1"
KEYS = ("sam3d/model.ckpt", "a b/c+d=e&f?g#h%20", "übung/~tilde/(1)*'!@:,;$", "日本/語.bin", "x//y")


def presigner_of(client: Minio, now: datetime) -> Presigner:
    pattern = client.get_presigned_url("GET", "models", PATTERN_KEY)
    return Presigner(pattern, ACCESS_KEY, SECRET_KEY, REGION, now=lambda: now)


@pytest.fixture(params=["127.0.0.1:9000", "minio.example.org", "s3.amazonaws.com"])
def client(request: pytest.FixtureRequest) -> Minio:
    secure = not request.param.startswith("127.")
    return Minio(request.param, ACCESS_KEY, SECRET_KEY, secure=secure, region=REGION)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("version_id", [None, "null", "3/L4+kq=x"])
def test_a_url_is_the_one_that_minio_py_signs(
    client: Minio, key: str, version_id: str | None
) -> None:
    now = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
    theirs = client.get_presigned_url(
        "GET",
        "models",
        key,
        expires=timedelta(seconds=SIGNED_FOR_S),
        version_id=version_id,
        request_date=now,
    )
    ours = presigner_of(client, now).sign(key, version_id).geturl()
    # The order of parameters is nobody's business; minio-py has the version first.
    assert sorted(ours.split("?")[1].split("&")) == sorted(theirs.split("?")[1].split("&"))
    assert ours.split("?")[0] == theirs.split("?")[0]


@pytest.mark.parametrize("key", KEYS)
def test_headers_are_those_that_minio_py_signs(client: Minio, key: str) -> None:
    now = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
    url, headers = presigner_of(client, now).authorize(key)
    unsigned = {name: value for name, value in headers.items() if name != "Authorization"}
    theirs = sign_v4_s3(
        method="GET",
        url=url,
        region=REGION,
        headers=unsigned | {"Host": url.netloc},
        credentials=Credentials(ACCESS_KEY, SECRET_KEY),
        content_sha256=unsigned["x-amz-content-sha256"],
        date=now,
    )
    assert headers["Authorization"] == theirs["Authorization"]
    assert url.geturl() == presigner_of(client, now).sign(key).geturl().partition("?")[0]


def test_a_new_day_has_a_new_key(client: Minio) -> None:
    now = datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
    clock = iter([now, now + timedelta(seconds=1)])
    pattern = client.get_presigned_url("GET", "models", PATTERN_KEY)
    ours = Presigner(pattern, ACCESS_KEY, SECRET_KEY, REGION, now=lambda: next(clock))
    ours.sign("a")
    tomorrow = now + timedelta(seconds=1)
    theirs = client.get_presigned_url(
        "GET", "models", "a", expires=timedelta(seconds=SIGNED_FOR_S), request_date=tomorrow
    )
    assert ours.sign("a").geturl() == theirs


def test_the_secret_is_in_no_url(client: Minio) -> None:
    url = presigner_of(client, datetime.now(UTC)).sign("a")
    assert SECRET_KEY not in url.geturl()
    assert parse_qs(url.query)["X-Amz-Expires"] == [str(SIGNED_FOR_S)]
