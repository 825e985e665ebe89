"""Wrong starts that only a person can mend: one exit code, and a line that names it.

One of each way of ending.  `python -m tests.image.processes` tries all of them and writes the
page's table; `make image-test` tries them in the container.
"""

from __future__ import annotations

import asyncio

from tests.image.processes import PAGE, look
from tests.image.starts import FATAL, WAITING, WRONG_SETTINGS, Start

TRIED = (
    "several at once, all of them named",
    "no such source of weights",
    "a GPU is asked for",
    "licensed estimators are asked for, and there is no GPU",
    "WORKER_PORT is taken",
)
STARTS = [start for start in FATAL if start.name in TRIED]


async def test_each_ends_with_2_and_says_why() -> None:
    async def one(start: Start) -> None:
        seen = await look(start)
        assert seen.what == f"exit code {WRONG_SETTINGS}", seen.everything
        assert seen.line, seen.everything
        assert "Traceback" not in seen.everything

    assert len(STARTS) == len(TRIED)
    await asyncio.gather(*map(one, STARTS))


def test_the_page_has_each_of_them() -> None:
    text = PAGE.read_text()
    rows = [f"| {start.name} | exit code {WRONG_SETTINGS} |" for start in FATAL]
    rows += [f"| {start.name} | up: `/health` 200, `/ready` 503 |" for start in WAITING]
    assert [row for row in rows if row not in text] == []
