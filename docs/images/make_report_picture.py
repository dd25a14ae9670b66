"""Make the README's picture from the page of a run: one device's front and the accuracy per domain.

Run: ``python docs/images/make_report_picture.py RUN PICTURE [DEVICE]``. Needs Playwright and a Chromium (``CHROMIUM``
or on the PATH). DEVICE is by default ``raspberry_pi_zero_2``.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.runs import open_run

CHARTS = ("front-energy", "spread")
WIDTH = 900


def main() -> int:
    """Draw the charts of the page below each other."""
    run, picture = Path(sys.argv[1]), Path(sys.argv[2])
    device = sys.argv[3] if len(sys.argv) > 3 else "raspberry_pi_zero_2"
    page = write_page(open_run(run))
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    parts = []
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
        tab.goto(page.as_uri())
        tab.wait_for_selector("body[data-drawn]")
        tab.select_option("#filter-device", label=device)
        tab.wait_for_selector("body[data-drawn]")
        tab.evaluate("document.getElementById('filters').style.position = 'static'")  # it would lie over the charts
        for name in CHARTS:
            place = picture.with_suffix(f".{name}.png")
            tab.locator(f"figure:has(#chart-{name})").screenshot(path=place)
            parts.append(Image.open(place).convert("RGB"))
            place.unlink()
        browser.close()
    whole = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), "white")
    for place, part in enumerate(parts):
        whole.paste(part, (0, sum(p.height for p in parts[:place])))
    whole.quantize(64).save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
