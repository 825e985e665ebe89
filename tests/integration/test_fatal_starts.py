"""Wrong starts that only a person can mend: one exit code, and a line that names it.

One of each way of ending; `make image-test` tries all of them in the container, and those that
leave the worker up, too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest

from tests.image.starts import FATAL, WRONG_SETTINGS, Start

TRIED = ("REDIS_URL is missing", "a GPU is asked for")
STARTS = [start for start in FATAL if start.name in TRIED]


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.name)
async def test_it_ends_with_2_and_says_why(start: Start, environment: dict[str, str]) -> None:
    with socket.create_server(("", 0)) as taken:
        variables: dict[str, str] = {"PATH": os.defpath} | environment
        for name, value in start.changes.items():
            if value is None:
                del variables[name]
            else:
                variables[name] = str(taken.getsockname()[1]) if value == "TAKEN" else value
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "run"),
            env=variables,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            _, said = await process.communicate()
    text = said.decode()
    assert process.returncode == WRONG_SETTINGS, text
    assert [line for line in text.splitlines() if start.says in line], text
    assert "Traceback" not in text
