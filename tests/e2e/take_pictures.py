"""Take the pictures of the pages: `python tests/e2e/take_pictures.py`.

Starts the demo, measures the sample person and writes docs/images/page-{wide,phone}.png, and the
worker's status page while it does so, docs/images/status-page.png.
"""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from worker.demo.run import started_demo

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]


def save(shot: bytes, name: str) -> None:
    """Keep a screenshot, packed as well as PNG can."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").save(IMAGES / name, optimize=True)


def take(browser: Browser, url: str) -> None:
    """Measure the sample person and take both pictures."""
    wide = browser.new_context(viewport={"width": 1440, "height": 960})
    page = wide.new_page()
    page.goto(url)
    page.click("#sample")
    page.wait_for_selector("#stage[data-drawn]", timeout=120_000)
    page.click("[data-turn='0']")
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)
    page.evaluate("scrollTo(0, 0)")
    save(page.screenshot(), "page-wide.png")
    kept = page.evaluate("({...sessionStorage})")
    result = page.url
    wide.close()

    phone = browser.new_context(viewport={"width": 390, "height": 844}, device_scale_factor=2)
    page = phone.new_page()
    page.goto(url)
    page.evaluate("kept => Object.assign(sessionStorage, kept)", kept)
    page.goto(result)
    page.reload()
    page.wait_for_selector("#stage[data-drawn]", timeout=120_000)
    page.click("[data-turn='0']")
    page.wait_for_timeout(800)
    page.evaluate("document.getElementById('stage').scrollIntoView()")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(500)
    save(page.screenshot(), "page-phone.png")
    phone.close()


def take_status(browser: Browser, url: str, status_url: str) -> None:
    """Take the worker's own page while a second job runs."""
    shop = browser.new_page()
    shop.goto(url)
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    page.goto(status_url)
    shop.click("#sample")
    page.get_by_text(re.compile(r"· engine\.\w+ ·")).wait_for()
    save(page.screenshot(), "status-page.png")
    page.close()
    shop.close()


def main() -> None:
    """Run the demo for as long as the pictures take."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with started_demo() as demo, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        take(browser, demo.api.url)
        take_status(browser, demo.api.url, demo.status_url)
        browser.close()


if __name__ == "__main__":
    main()
