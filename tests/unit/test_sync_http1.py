"""Answers over an open connection: plain ones are read here, all others by http.client."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models_sync.endpoint import Endpoint
from models_sync.errors import AnswerStrange
from models_sync.http1 import Answer, Caller, PlainAnswer
from models_sync.http_other import NoHttp, OtherAnswer
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.wire import Wire

URL = urlsplit("http://models.test/bucket/a%20b?X-Amz-Expires=3600")
BODY = bytes(range(256)) * 40
PLAIN = (
    b'HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nETag: "e1"\r\n'
    b"Content-Range: bytes 0-%d/%d\r\n%s\r\n"
)


def plain(extra: bytes = b"") -> bytes:
    """A whole answer that carries BODY."""
    return PLAIN % (len(BODY), len(BODY) - 1, len(BODY), extra) + BODY


@contextmanager
def answered(*answers: bytes) -> Iterator[tuple[Caller, socket.socket]]:
    """A caller whose server has sent all its answers already, and the server's end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with theirs, closing(Caller(ours)) as caller:
        for answer in answers:
            theirs.sendall(answer)
        yield caller, theirs


def read(answer: Answer) -> bytes:
    buffer = memoryview(bytearray(2 * len(BODY)))
    count = answer.readinto(buffer)
    assert answer.readinto(buffer[count:]) == 0  # nothing of the next one
    return bytes(buffer[:count])


def test_what_is_asked_for_is_one_request_of_the_signed_url() -> None:
    with answered(plain()) as (caller, server):
        caller.get(URL, {"Range": "bytes=0-9", "If-Match": '"e1"'})
        lines = server.recv(4096).decode().split("\r\n")
    assert lines[0] == "GET /bucket/a%20b?X-Amz-Expires=3600 HTTP/1.1"
    assert set(lines[1:-2]) == {
        "Host: models.test",
        "Range: bytes=0-9",
        'If-Match: "e1"',
        "Accept-Encoding: identity",
    }
    assert lines[-2:] == ["", ""]


def test_one_answer_after_the_other_comes_over_one_connection() -> None:
    with answered(plain(), plain()) as (caller, _):
        for _ in range(2):
            answer = caller.get(URL, {})
            assert isinstance(answer, PlainAnswer)
            assert answer.getheader("ETag") == '"e1"'
            assert answer.getheader("content-range") == f"bytes 0-{len(BODY) - 1}/{len(BODY)}"
            assert answer.getheader("X-Other") is None
            assert not answer.isclosed()
            assert read(answer) == BODY
            assert answer.isclosed()


@pytest.mark.parametrize(
    "extra",
    [
        b"Connection: close\r\n",
        b'ETag: "e2"\r\n',
        b"X-Long: " + b"x" * 9000 + b"\r\n",
    ],
    ids=["that is the last", "with a header twice", "whose head comes in pieces"],
)
def test_an_answer_that_is_not_plain_is_read_by_http_client(extra: bytes) -> None:
    with answered(plain(extra)) as (caller, _):
        answer = caller.get(URL, {})
        assert isinstance(answer, OtherAnswer)
        assert answer.will_close is extra.startswith(b"Connection")
        assert read(answer) == BODY


def test_chunks_are_read_and_the_connection_goes_on() -> None:
    head = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answered(head + b"4\r\n<Err\r\n3\r\nor>\r\n0\r\n\r\n") as (caller, server):
        answer = caller.get(URL, {})
        assert isinstance(answer, OtherAnswer)
        assert answer.status == 404
        assert answer.read(100) == b"<Error>"
        assert answer.isclosed()
        server.sendall(plain())
        assert read(caller.get(URL, {})) == BODY


def test_a_body_that_ends_early_is_short() -> None:
    with answered(plain()[:-1]) as (caller, server):
        answer = caller.get(URL, {})
        server.shutdown(socket.SHUT_WR)
        assert read(answer) == BODY[:-1]
        assert not answer.isclosed()


def test_a_server_that_hangs_up_has_given_no_answer() -> None:
    with answered() as (caller, server):
        server.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            caller.get(URL, {})


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n"],
    ids=["another protocol", "headers without end"],
)
def test_what_is_no_http_is_an_error_of_the_connection(answer: bytes) -> None:
    with answered(answer) as (caller, _), pytest.raises(NoHttp):
        caller.get(URL, {})


def test_chunks_that_end_early_are_an_error_of_the_connection() -> None:
    head = b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answered(head + b"A\r\nhalf") as (caller, server):
        answer = caller.get(URL, {})
        server.shutdown(socket.SHUT_WR)
        with pytest.raises(NoHttp):
            answer.readinto(memoryview(bytearray(10)))


@pytest.mark.parametrize("status", [b"404 Not Found", b"503 Service Unavailable"])
def test_a_refusal_of_a_known_length_is_plain_and_the_connection_goes_on(status: bytes) -> None:
    refusal = b"HTTP/1.1 %s\r\nContent-Length: 7\r\n\r\n<Error>" % status
    with answered(refusal, plain()) as (caller, _):
        answer = caller.get(URL, {})
        assert isinstance(answer, PlainAnswer)
        assert answer.status == int(status[:3])
        assert answer.read(5) == b"<Erro"
        assert not answer.isclosed()
        assert answer.read(100) == b"r>"
        assert answer.isclosed()
        assert read(caller.get(URL, {})) == BODY


def test_an_etag_that_would_add_a_header_is_not_sent(tmp_path: Path) -> None:
    settings = SyncSettings.load(
        local_root=tmp_path,
        minio_endpoint="127.0.0.1:1",
        minio_access_key="reader",
        minio_secret_key="secret",
    )
    remote = RemoteObject("a", "a", 10, 'e1"\r\nX-Other: 1')
    wire = Wire(Endpoint(settings), stall_s=1.0)
    with pytest.raises(AnswerStrange), wire.open_range(remote, 0, 10, remote.etag):
        raise AssertionError
