"""Take the picture of Bull Board with this worker and its job in it.

`python tests/e2e/take_bull_board.py` starts the demo, measures the sample person, and writes
docs/images/bull-board.png while the job runs.  Bull Board is installed for it (17 MB, npm).
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from worker.demo.run import Demo, started_demo

BOARD = Path(__file__).parent / "bull_board"
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "bull-board.png"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
QUEUE = "avatar_build"
WIDTH, GAP, BACKGROUND = 1280, 24, (243, 244, 246)
"""Pixels, and the page's grey."""


@contextmanager
def board(redis_url: str) -> Iterator[str]:
    """Run Bull Board; its address."""
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=BOARD, check=True
    )
    process = subprocess.Popen(
        ["node", "board.mjs", redis_url, "bull", QUEUE], cwd=BOARD, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def shoot(demo: Demo, url: str, person: Page, watcher: Page) -> Image.Image:
    """Start the sample's job; the running job above, the workers of its queue below."""
    person.goto(demo.api.url)
    person.click("#sample")
    with redis.Redis.from_url(demo.stack.redis_url, decode_responses=True) as client:
        while not (ids := client.lrange(f"bull:{QUEUE}:active", 0, 0)):
            person.wait_for_timeout(50)
        while int(client.hget(f"bull:{QUEUE}:{ids[0]}", "progress") or 0) < 20:
            person.wait_for_timeout(50)
    watcher.goto(f"{url}queue/{QUEUE}?status=active")
    watcher.get_by_text("Process started at").wait_for()
    job = watcher.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": 560})
    # Else the corners of the rounded dialog are black.
    watcher.add_style_tag(content="[class*=overlay], [class*=backdrop] {background: #f3f4f6}")
    watcher.get_by_label("Queue info").click()
    dialog = watcher.get_by_role("dialog")
    dialog.get_by_text("Overview").click()
    dialog.get_by_text("Connected workers").click()
    watcher.wait_for_timeout(600)  # the panels slide
    return stacked(job, dialog.screenshot())


def stacked(*shots: bytes) -> Image.Image:
    """One picture above the other, centred."""
    pictures = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    whole = Image.new("RGB", (WIDTH, sum(one.height + GAP for one in pictures)), BACKGROUND)
    top = 0
    for one in pictures:
        whole.paste(one, ((WIDTH - one.width) // 2, top))
        top += one.height + GAP
    return whole


def main() -> None:
    """Run demo and board for as long as the picture takes."""
    with (
        started_demo() as demo,
        board(demo.stack.redis_url) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        view = browser.new_context(viewport={"width": WIDTH, "height": 720})
        shot = shoot(demo, url, view.new_page(), view.new_page())
        browser.close()
    shot.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
