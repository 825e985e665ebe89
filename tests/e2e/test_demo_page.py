"""The page in a real browser, on the real stack with the real worker behind it."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from worker.demo.page import SAMPLE
from worker.demo.run import Demo, started_demo
from worker.demo.sample import SamplePerson

pytestmark = pytest.mark.timeout(300)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
RESULT_MS = 120_000
ROUNDING_PX = 16
"""The view's corners are round."""
WIDE, PHONE, SMALL_PHONE = (1440, 900), (390, 844), (360, 640)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with started_demo() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "chromium is missing: `make test` installs it"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield launched
        launched.close()


class Visit:
    """A page, and what the browser said and asked for while it was open."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str | None] = set()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        page.on("requestfailed", lambda asked: self.complaints.append(f"failed: {asked.url}"))
        page.on("request", lambda asked: self._note(asked.url))
        page.goto(url)

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"}:
            self.hosts.add(parts.hostname)

    def put(self, view: str, file: Path) -> None:
        self.page.set_input_files(f"input[name={view}]", file)

    def wait_for_body(self) -> None:
        self.page.wait_for_selector("#stage[data-drawn]", timeout=RESULT_MS)

    def rows(self) -> dict[str, list[str]]:
        """The table's cells by the contract's names."""
        found: dict[str, list[str]] = self.page.eval_on_selector_all(
            "#table-body tr",
            "rows => Object.fromEntries(rows.map(row => [row.dataset.key,"
            " [...row.querySelectorAll('td')].map(cell => cell.textContent)]))",
        )
        return found

    def overflow_px(self) -> int:
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wide


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    yield Visit(context.new_page(), demo.api.url)
    context.close()


def canvas_pixels(page: Page) -> NDArray[np.int64]:
    """What the 3D view shows, (H, W, 3), standing still and without the buttons over it."""
    page.click("[data-turn='0']")
    page.evaluate("document.querySelector('.viewer-bar').style.visibility = 'hidden'")
    page.wait_for_timeout(300)  # the turn's last frames
    shot = page.locator(".viewer").screenshot()
    page.evaluate("document.querySelector('.viewer-bar').style.visibility = ''")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.int64)


def runs(row: NDArray[np.bool_]) -> list[int]:
    """Lengths of the stretches of True that are longer than a few pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(int)))
    return [int(n) for n in edges[1::2] - edges[::2] if n > 3]


def assert_shows_an_upright_body(pixels: NDArray[np.int64]) -> None:
    pixels = pixels[ROUNDING_PX:-ROUNDING_PX, ROUNDING_PX:-ROUNDING_PX]
    background = pixels[:, :1]  # a vertical gradient, so each row has its own
    body = np.abs(pixels - background).sum(axis=2) > 30
    assert 0.03 < body.mean() < 0.6
    colours = pixels[body]
    assert 60 < colours.mean() < 240  # neither black nor burnt out
    assert colours.std(axis=0).min() > 8  # shaded, not one flat colour
    rows = np.flatnonzero(body.sum(axis=1) > 5)
    top, bottom = rows[0], rows[-1]
    height = bottom - top
    assert height > 0.55 * len(body)  # whole, and as large as fits
    assert top > 0
    assert bottom < len(body) - 1  # not clipped

    def width_at(share: float) -> list[int]:
        return runs(body[top + int(share * height)])

    head, legs = width_at(0.05), width_at(0.75)
    assert len(head) == 1  # one head above …
    assert len(legs) == 2  # … two legs below
    assert head[0] < 0.2 * height
    spans = body.any(axis=0).nonzero()[0]
    assert spans[-1] - spans[0] > 0.4 * height  # the arms stand out


def test_a_photo_becomes_a_measured_body_on_the_page(visit: Visit) -> None:
    page = visit.page
    sample = SamplePerson.load(SAMPLE)
    visit.put("front", sample.front)
    visit.put("side", sample.side)
    expect(page.locator(".drop .preview:visible")).to_have_count(2)
    page.fill("input[name=heightCm]", str(sample.declared["heightCm"]))
    page.evaluate(
        """() => {
          window.seen = [];
          const bar = document.getElementById("bar");
          new MutationObserver(() => window.seen.push(Number(bar.ariaValueNow)))
            .observe(bar, { attributes: true, attributeFilter: ["aria-valuenow"] });
        }"""
    )
    page.click("#submit")
    expect(page.locator("#bar")).to_be_visible()
    visit.wait_for_body()

    seen: list[int] = page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert len(set(seen)) >= 4
    assert seen[-1] == 100

    assert_shows_an_upright_body(canvas_pixels(page))

    rows = visit.rows()
    assert len(rows) >= 15
    assert float(rows["heightCm"][0]) == pytest.approx(sample.declared["heightCm"], abs=0.1)
    for name, (shown, *more) in rows.items():
        assert not more  # a person's own photos: no truth to compare with
        assert 10 < float(shown) < 220, name
    expect(page.locator("#confidence")).to_have_text(re.compile("confidence"))

    expect(page.locator("#outline-list img.drawn")).to_have_count(2)
    for drawn in page.locator("#outline-list img.drawn").all():
        assert drawn.evaluate("async image => { await image.decode(); return image.naturalWidth }")
    assert visit.hosts == {"127.0.0.1"}
    assert visit.complaints == []


def test_the_sample_person_is_one_click_away_and_says_how_far_off_we_are(visit: Visit) -> None:
    visit.page.click("#sample")
    visit.wait_for_body()
    truth = SamplePerson.load(SAMPLE).measurements
    rows = visit.rows()
    for name, (measured, true, off) in rows.items():
        assert float(true) == pytest.approx(truth[name], abs=0.051)
        difference = float(measured) - float(true)
        assert float(off.replace("−", "-").replace("±", "")) == pytest.approx(difference, abs=0.11)
    expect(visit.page.locator("#off-by")).to_contain_text("on average")

    centimetres = float(rows["waistCm"][0])
    visit.page.check("input[value=imperial]", force=True)
    assert float(visit.rows()["waistCm"][0]) == pytest.approx(centimetres / 2.54, abs=0.06)

    visit.page.reload()  # the address keeps the result
    visit.wait_for_body()
    assert float(visit.rows()["waistCm"][0]) == pytest.approx(centimetres, abs=0.01)
    for width, height in (WIDE, PHONE, SMALL_PHONE):
        visit.page.set_viewport_size({"width": width, "height": height})
        assert visit.overflow_px() <= 0, f"something is cut off at {width} px"
        assert_shows_an_upright_body(canvas_pixels(visit.page))


def test_a_photo_that_is_no_picture_is_explained_and_can_be_replaced(
    visit: Visit, tmp_path: Path
) -> None:
    page = visit.page
    broken = tmp_path / "broken.jpg"  # passes a look at its first bytes, and no further
    broken.write_bytes(b"\xff\xd8\xff\xe0" + b"not a picture at all " * 500)
    visit.put("front", broken)
    page.fill("input[name=heightCm]", "178")
    page.click("#submit")
    advice = page.locator("#error-advice")
    expect(advice).to_be_visible(timeout=RESULT_MS)
    expect(advice).to_have_text(re.compile(r"^[A-Z].*photo.*\.$"))
    expect(page.locator("#error-code")).to_have_text(re.compile("^PHOTO_"))
    page.click("#retry")
    expect(page.locator(".when-start")).to_be_visible()
    expect(page.locator("#submit")).to_be_enabled()
    assert page.locator("input[name=heightCm]").input_value() == "178"


def test_what_cannot_work_is_said_before_anything_is_sent(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    problem = page.locator("#front-problem")
    page.click("#submit")
    expect(problem).to_have_text("Please add a photo from the front.")
    for name, data, words in (
        ("empty.jpg", b"", "This file is empty"),
        ("notes.jpg", b"just some text, whatever its name says", "not a photo that we can read"),
        ("huge.jpg", b"\xff\xd8\xff" + bytes(26 * 1024 * 1024), "larger than 25 MB"),
    ):
        file = tmp_path / name
        file.write_bytes(data)
        visit.put("front", file)
        expect(problem).to_contain_text(words)
        expect(page.locator(".drop .preview:visible")).to_have_count(0)
    visit.put("front", SamplePerson.load(SAMPLE).front)
    expect(problem).to_have_text("")
    for height in ("", "12", "abc"):
        page.fill("input[name=heightCm]", height)
        page.click("#submit")
        expect(page.locator("#height-problem")).to_contain_text("height")
    page.fill("input[name=heightCm]", "178")
    page.check("input[value=imperial]", force=True)
    assert page.locator("input[name=heightFt]").input_value() == "5"
    assert page.locator("input[name=heightIn]").input_value() == "10.1"
    expect(page.locator("#stage")).to_have_attribute("data-state", "start")
