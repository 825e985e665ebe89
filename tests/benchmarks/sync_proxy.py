"""A distant server: each connection brings so many bytes a second, each request waits.

Run as a process of its own (`python -m tests.benchmarks.sync_proxy HOST:PORT MB_PER_S DELAY_MS`),
so that it costs the measured client no time of its interpreter.  Prints its port.  Each line on
stdin is answered with the bytes that went from server to client so far.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

CHUNK_BYTES = 256 << 10


class Link:
    """Counts what passed, over all connections."""

    def __init__(self, upstream: tuple[str, int], bytes_per_s: float, delay_s: float) -> None:
        self._upstream, self._bytes_per_s, self._delay_s = upstream, bytes_per_s, delay_s
        self._lock = threading.Lock()
        self.passed_bytes = 0

    def serve(self, listening: socket.socket) -> None:
        """Take connections until the process ends."""
        while True:
            client, _ = listening.accept()
            server = socket.create_connection(self._upstream)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way in ((client, server, self._requests), (server, client, self._answers)):
                threading.Thread(target=self._pump, args=way, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, way: object) -> None:
        try:
            way(source, sink)  # type: ignore[operator]  # one of the two methods below
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    end.close()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        while asked := client.recv(CHUNK_BYTES):
            time.sleep(self._delay_s)
            server.sendall(asked)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        buffer = bytearray(CHUNK_BYTES)
        view = memoryview(buffer)
        free_at = time.monotonic()
        while count := server.recv_into(buffer):
            free_at = max(free_at, time.monotonic() - 0.01) + count / self._bytes_per_s
            client.sendall(view[:count])
            with self._lock:
                self.passed_bytes += count
            if (wait := free_at - time.monotonic()) > 0:
                time.sleep(wait)


def main() -> None:
    """Serve until stdin ends."""
    host, port = sys.argv[1].rsplit(":", 1)
    link = Link((host, int(port)), float(sys.argv[2]) * 1e6, float(sys.argv[3]) / 1000)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201 - read by whoever started us
        threading.Thread(target=link.serve, args=(listening,), daemon=True).start()
        for _ in sys.stdin:
            print(link.passed_bytes, flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
