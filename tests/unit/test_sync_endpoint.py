"""Where the bucket answers, what it costs to find out, and small objects by our own lines."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from models_sync.bucket import Bucket
from models_sync.endpoint import Endpoint
from models_sync.errors import (
    AnswerStrange,
    BucketBusy,
    BucketRefused,
    ClockWrong,
    HostUnknown,
    ObjectDamaged,
    ObjectMissing,
    SyncError,
    TransferCut,
)
from models_sync.library import make_client
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings

ERROR = "<Error><Code>{}</Code><Message>no</Message></Error>"


def settings(endpoint: str, **given: Any) -> SyncSettings:
    keys = {"minio_access_key": "reader", "minio_secret_key": "secret", "minio_bucket": "models"}
    return SyncSettings.load(minio_endpoint=endpoint, **keys | given)


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:9000",
        "http://minio.example.org",
        "https://minio.example.org:9443/",
        "http://minio.example.org:80",
        "https://minio.example.org:443",
        "http://minio.example.org:443",
        "[::1]:9000",
        "s3.amazonaws.com",
        "s3.eu-west-1.amazonaws.com",
        "oss-eu-central-1.aliyuncs.com",
    ],
)
def test_an_object_is_asked_for_where_minio_py_asks_for_it(endpoint: str) -> None:
    configured = settings(endpoint)
    ours = Endpoint(configured).sign(RemoteObject("a/b", "a/b", 10, None)).geturl()
    theirs = make_client(configured, read_s=1.0).get_presigned_url("GET", "models", "a/b")
    assert ours.partition("?")[0] == theirs.partition("?")[0]


def test_a_pull_imports_neither_minio_py_nor_tenacity() -> None:
    code = (
        "import sys, models_sync.cli, models_sync.transfer as transfer\n"
        "from models_sync.settings import SyncSettings\n"
        "transfer.Bucket(SyncSettings.load(minio_endpoint='h', minio_access_key='a',"
        " minio_secret_key='b'))\n"
        "print({'minio', 'urllib3', 'tenacity', 'certifi', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@contextmanager
def serving(
    *answers: tuple[int, bytes] | tuple[int, bytes, int], keeps_open: bool = True
) -> Iterator[tuple[Bucket, list[str]]]:
    """A server that gives these answers one after the other; its bucket, and what was asked.

    An answer with a third number announces so many bytes and hangs up after those that it has.
    """
    asked: list[str] = []
    left = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(f"{self.path} from {self.client_address[1]}")
            answer = next(left, None)
            if answer is None:
                self.close_connection = True
                return
            status, body, *announced = answer
            self.send_response(status)
            self.send_header("Content-Length", str(*announced or [len(body)]))
            if not keeps_open:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection |= bool(announced)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Bucket(settings(f"http://127.0.0.1:{server.server_port}")), asked
        finally:
            server.shutdown()
            thread.join()


def test_small_objects_come_over_one_connection() -> None:
    with (
        serving((200, b"one"), (404, ERROR.format("NoSuchKey").encode()), (200, b"")) as (
            bucket,
            asked,
        ),
        bucket.reader() as read,
    ):
        assert read("v 1/manifest.json", 3) == b"one"
        with pytest.raises(ObjectMissing):
            read("missing", 3)
        assert read("empty", 0) == b""
    paths, ports = zip(*(line.split(" from ") for line in asked), strict=True)
    assert paths == ("/models/v%201/manifest.json", "/models/missing", "/models/empty")
    assert len(set(ports)) == 1


def test_a_small_object_that_is_large_is_not_read() -> None:
    with serving((200, b"four")) as (bucket, _), pytest.raises(ObjectDamaged):
        bucket.read_small("a", 3)


@pytest.mark.parametrize("keeps_open", [True, False], ids=["plain", "read by http.client"])
def test_a_small_object_that_is_cut_off_is_asked_for_again(
    keeps_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a manifest is not damaged, and half a signature is no forgery."""
    monkeypatch.setattr("models_sync.again.FIRST_S", 0.01)
    cut = (200, b"ha", 4)
    with serving(cut, (200, b"half"), keeps_open=keeps_open) as (bucket, asked):
        assert bucket.read_small("a", 4) == b"half"
        assert len(asked) == 2
    with (
        serving(cut, cut, cut, keeps_open=keeps_open) as (bucket, _),
        pytest.raises(TransferCut, match="2 bytes early"),
    ):
        bucket.read_small("a", 4)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, ERROR.format("AccessDenied"), BucketRefused),
        (403, ERROR.format("RequestTimeTooSkewed"), ClockWrong),
        (403, "", BucketRefused),
        (404, "<html>not here</html>", AnswerStrange),
        (301, "", AnswerStrange),
        (206, "part", AnswerStrange),
        (204, "", AnswerStrange),
    ],
)
def test_a_refusal_has_its_name_at_once(status: int, body: str, kind: type[SyncError]) -> None:
    with serving((status, body.encode())) as (bucket, asked), pytest.raises(kind) as refused:
        bucket.read_small("a", 3)
    assert type(refused.value) is kind
    assert len(asked) == 1


def test_who_is_busy_is_asked_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models_sync.again.FIRST_S", 0.01)
    busy = (503, ERROR.format("SlowDown").encode())
    with serving(busy, busy, (200, b"yes")) as (bucket, _):
        assert bucket.read_small("a", 3) == b"yes"
    with serving(busy, busy, busy) as (bucket, asked), pytest.raises(BucketBusy):
        bucket.read_small("a", 3)
    assert len(asked) == 3


def test_no_server_has_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models_sync.again.FIRST_S", 0.01)
    with pytest.raises(HostUnknown):
        Bucket(settings("http://no-such-host.invalid")).read_small("a", 3)
    with serving() as (bucket, _), pytest.raises(TransferCut):  # it has no answer to give
        bucket.read_small("a", 3)
