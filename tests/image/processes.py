"""Wrong starts as processes, without an image: for the tests, and for the page's table.

    python -m tests.image.processes      runs each and writes the table into docs/reference/image.md

No server is needed: what is wrong is found before anybody is asked, or is that nobody answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.faults.page import write
from tests.image.starts import FATAL, WAITING, WRONG_SETTINGS, Start

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "image.md"
TABLE: Final = "starts"
ENDS_S: Final = 30.0
SAYS_S: Final = 60.0
GOOD: Final[Mapping[str, str]] = {
    "REDIS_URL": "redis://127.0.0.1:1",
    "API_BASE_URL": "https://api.example.com",
    "MINIO_ENDPOINT": "https://s3.example.com",
    "MINIO_ACCESS_KEY": "avatar-worker",
    "MINIO_SECRET_KEY": "not-a-real-secret",
}
"""What must be set, pointing at nobody."""


@dataclass(frozen=True)
class Seen:
    """What came of a start.

    Attributes:
        what: `exit code 2`, or what the endpoints answered.
        line: that says why.
        everything: that the process wrote.
    """

    what: str
    line: str
    everything: str


async def look(start: Start) -> Seen:
    """Start a worker wrongly, and wait for its end or for the reason on /ready.

    Raises:
        TimeoutError: neither came.
    """
    return await (_wait_for_the_reason(start) if start.stays_up else _run_to_its_end(start))


async def _run_to_its_end(start: Start) -> Seen:
    with closing(socket.create_server(("", 0))) as taken:
        port = taken.getsockname()[1]
        async with _worker(start, taken_port=port) as process, asyncio.timeout(ENDS_S):
            out, err = await process.communicate()
    text = (out + err).decode().replace(str(port), "8477")  # the same page each time
    return Seen(f"exit code {process.returncode}", line_with(start.says, text), text)


async def _wait_for_the_reason(start: Start) -> Seen:
    with closing(socket.create_server(("", 0))) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with _worker(start, port=port) as process, httpx.AsyncClient(base_url=url) as client:
        reason = ""
        async with asyncio.timeout(SAYS_S):
            while start.says not in reason:
                with suppress(httpx.TransportError):
                    reason = str((await client.get("/ready")).json().get("reason", ""))
                await asyncio.sleep(0.1)
        health = (await client.get("/health")).status_code
        ready = (await client.get("/ready")).status_code
        process.terminate()
        out, err = await process.communicate()
    what = f"up: `/health` {health}, `/ready` {ready}"
    return Seen(what, line_with(start.says, reason), (out + err).decode())


@asynccontextmanager
async def _worker(
    start: Start, *, port: int = 0, taken_port: int = 0
) -> AsyncIterator[asyncio.subprocess.Process]:
    variables = {"PATH": os.defpath, "HOME": str(Path.home()), **GOOD, "WORKER_PORT": str(port)}
    for name, value in start.changes.items():
        if value is None:
            del variables[name]
        else:
            variables[name] = str(taken_port) if value == "TAKEN" else value
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "run"),
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def line_with(part: str, text: str) -> str:
    """Find the line that holds `part`, in plain text or in a log's JSON; empty when none does."""
    for line in text.splitlines():
        with suppress(ValueError):
            line = str(json.loads(line).get("why", line))  # noqa: PLW2901 - the line itself
        if part in line:
            return line.strip()
    return ""


async def table() -> str:
    """Run every wrong start and write what came of it as a table.

    Raises:
        AssertionError: one did not go wrong as it must.
    """
    rows = ["| what is wrong | what comes of it | the line that says so |", "|---|---|---|"]
    for start in (*FATAL, *WAITING):
        seen = await look(start)
        wanted = start.stays_up or seen.what == f"exit code {WRONG_SETTINGS}"
        if not (wanted and seen.line):
            raise AssertionError(f"{start.name}: {seen.what}\n{seen.everything}")
        rows.append(f"| {start.name} | {seen.what} | {_short(seen.line, start.says)} |")
    return "\n".join(rows)


def _short(line: str, part: str) -> str:
    """The sentence with the part; what each variable is for stands on another page."""
    begin = line.index(part)
    end = line.find(". ", begin + len(part))
    sentence = line[: end + 1] if end > 0 else line
    return f"`{sentence}`"


if __name__ == "__main__":
    write(TABLE, asyncio.run(table()), PAGE)
