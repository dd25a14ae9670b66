"""The page in a real browser: nothing on the console, charts drawn, hostile names inert, readable on a phone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from test_reporting_page import HOSTILE, hostile_rows

from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.runs import open_run

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"no Chromium at {CHROMIUM} (set CHROMIUM)"),
]
MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as tools:
        found = tools.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield found
        found.close()


def opened(browser: Browser, path: Path, *, width: int) -> tuple[Page, list[str]]:
    """Open the page and collect what a reader's console would show, and every request that left the file."""
    page, complaints = browser.new_page(viewport={"width": width, "height": 800}), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.wait_for_selector("#chart-domains .main-svg", state="attached")
    return page, complaints


@pytest.mark.parametrize("width", [1280, 390])
def test_charts_are_drawn_without_a_word_or_a_request(browser: Browser, make_run: MakeRun, width: int) -> None:
    page, complaints = opened(browser, write_page(open_run(make_run())), width=width)
    assert complaints == []
    assert page.locator("#chart-cost-energy .scatterlayer .trace").count() == 4
    assert page.locator("#chart-domains .boxlayer .trace").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_choosing_a_device_redraws(browser: Browser, make_run: MakeRun) -> None:
    page, complaints = opened(browser, write_page(open_run(make_run())), width=1280)
    tick = "document.querySelector('#chart-cost-latency .scatterlayer .trace path.point').getAttribute('transform')"
    marks = "document.getElementById('chart-cost-latency').data[0].x[0]"
    before = page.evaluate(marks)
    page.select_option("#device", label="stm32f746")
    assert page.evaluate(marks) != before
    assert page.evaluate(tick)
    assert complaints == []
    page.close()


def test_hostile_names_do_nothing_but_are_shown(browser: Browser, make_run: MakeRun) -> None:
    page, complaints = opened(browser, write_page(open_run(make_run(hostile_rows(), run_id=HOSTILE))), width=1280)
    page.select_option("#device", index=0)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert complaints == []
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == HOSTILE
    assert "<script>window.hacked" in page.locator("#chart-cost-energy").inner_text()
    page.close()
