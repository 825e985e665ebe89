"""What a connection takes ahead of us is bounded: it is lost when we are killed."""

from __future__ import annotations

import socket
from pathlib import Path

from models_sync import wire
from models_sync.endpoint import Endpoint
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings


def test_a_server_cannot_be_far_ahead_of_us_where_the_system_can_bound_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = SyncSettings.load(
            local_root=tmp_path,
            minio_endpoint=f"127.0.0.1:{listening.getsockname()[1]}",
            minio_secure=False,
            minio_access_key="reader",
            minio_secret_key="secret",
        )
        line = wire.Wire(Endpoint(settings), stall_s=1.0)
        url = Endpoint(settings).sign(RemoteObject("a/b", "a/b", 10, None))
        with line._connect(url, "") as connection:
            granted = connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wire.AHEAD_BYTES)
        possible = asked.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if possible >= wire.AHEAD_BYTES:
        assert wire.AHEAD_BYTES <= granted <= 2 * wire.AHEAD_BYTES
    else:  # 200 KiB for good would be worse: it is left to the kernel
        assert granted > possible or granted == socket.socket().getsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF
        )
