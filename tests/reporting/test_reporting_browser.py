"""The page in a real browser: nothing on the console, every chart drawn, every filter changes what is shown."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from synthetic_page import HOSTILE, hostile_rows, page_rows, write_side_files
from synthetic_run import failed_row, write_run
from test_reporting_training_domains import training

from tinytrain_dist.reporting.comparison import comparison_table
from tinytrain_dist.reporting.page import write_page
from tinytrain_dist.reporting.pareto import choices
from tinytrain_dist.reporting.runs import open_run
from tinytrain_dist.reporting.training_page import write_training_page
from tinytrain_dist.reporting.training_stretches import stretches

CHROMIUM = Path(os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHARTS = (
    "devices", "front-energy", "front-time", "front-memory", "spread", "curves", "phases-time", "phases-energy",
    "plans", "fisher",
)  # fmt: skip
TABLES = ("devices-table", "domains-table", "fits-table", "troubles-table")
pytestmark = [
    pytest.mark.slow,  # a browser takes seconds to draw
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


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything: three devices, two domains, curves, potentials, a failure."""
    devices = ("stm32f746", "raspberry-pi-zero-2", "jetson-nano")
    rows = page_rows(num_tasks=8, devices=devices)
    for row in rows:
        if row["method"] == "tinytrain":  # the device's budget decides what is updated, and so the accuracy
            place = devices.index(row["device"])
            row["accuracy_after"] -= 0.02 * (2 - place)
            row |= {"plan_channels": [4 + 8 * place] * 3, "plan_hash": f"plan-{place}"}
    rows.append(failed_row("timeout", "no answer", task_id="bad", method="tinytrain", variant="tinytrain-1"))
    path = write_run(tmp_path_factory.mktemp("page") / "run", rows)
    write_side_files(path, rows)
    return write_page(open_run(path))


class Opened:
    """A page in a tab, with what a reader's console would show and every request that left the file."""

    def __init__(self, browser: Browser, path: Path, *, width: int = 1280) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 800})
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda r: self.complaints.append(r.url) if r.url.startswith("http") else None)
        self.page.goto(path.as_uri())
        self.drawn()

    def drawn(self) -> None:
        self.page.wait_for_selector("body[data-drawn]")

    def shown(self) -> dict[str, str]:
        """What every chart and table shows, as text."""
        charts = {name: f"JSON.stringify(document.getElementById('chart-{name}').data)" for name in CHARTS}
        tables = {name: f"document.getElementById('{name}').innerText" for name in TABLES}
        parts = ", ".join(f"'{name}': {part}" for name, part in (charts | tables).items())
        return dict(self.page.evaluate(f"({{{parts}}})"))

    def close(self) -> None:
        self.page.close()
        assert self.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_without_a_word_or_a_request(browser: Browser, full_page: Path, width: int) -> None:
    tab = Opened(browser, full_page, width=width)
    for name in CHARTS:
        chart = tab.page.locator(f"#chart-{name}")
        marks = chart.locator(".main-svg .trace, .main-svg .bars .point, .main-svg .hm image")
        assert chart.locator(".main-svg").count() > 0 and marks.count() > 0, name
        title = tab.page.locator(f"#title-{name}").inner_text()
        assert len(title.split()) > 5 and title != "Nothing to draw", name
        layout = tab.page.evaluate(f"document.getElementById('chart-{name}').layout")
        titles = [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
        assert any("(" in text for text in titles), name
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.locator("#devices-table tbody tr").count() == 1 + 4 * 3
    tab.close()


def test_each_filter_changes_every_chart_and_table(browser: Browser, full_page: Path) -> None:
    tab = Opened(browser, full_page)
    everything = tab.shown()
    assert set(everything) == {*CHARTS, *TABLES}
    device = tab.page.locator("#filter-device")
    for choose in (
        lambda: device.select_option(label="jetson-nano"),
        lambda: tab.page.locator("#filter-domain").select_option(label="glyphs"),
        lambda: tab.page.get_by_label("tinytrain", exact=True).uncheck(),
    ):
        choose()
        tab.drawn()
        shown = tab.shown()
        assert [name for name in shown if shown[name] == everything[name]] == []
        tab.page.get_by_role("button", name="Show everything").click()
        tab.drawn()
        assert tab.shown() == everything
    tab.close()


def two_networks() -> list[dict[str, Any]]:
    """Two networks; the weaker one starts 20 points lower, and on glyphs so low that no task of the other does."""
    rows = page_rows(num_tasks=8)
    weak = []
    for row in rows:
        if row["method"] != "raw_pixels":
            low = 0.2 + (0.2 if row["domain"] == "glyphs" else 0.0)
            weak.append(row | {"checkpoint": "decaf", "initialization": "random",
                               "accuracy_before": row["accuracy_before"] - low,
                               "accuracy_after": max(0.0, row["accuracy_after"] - low)})  # fmt: skip
    return rows + weak


def test_titles_do_not_mix_networks_and_every_mark_has_its_interval(browser: Browser, tmp_path: Path) -> None:
    rows = two_networks()
    path = write_run(tmp_path / "run", rows)
    write_side_files(path, rows)  # the curves of the weak network; the other's lie 20 points above
    for file in sorted((path / "curves").iterdir()):
        points = pq.read_table(file).to_pylist()
        above = [point | {"checkpoint": "c0ffee", "accuracy": point["accuracy"] + 0.2} for point in points]
        pq.write_table(pa.Table.from_pylist(above), file.with_name(f"strong-{file.name}"))
    tab = Opened(browser, write_page(open_run(path)))
    title = tab.page.locator("#title-spread").inner_text()
    shown = re.fullmatch(r"Before any update \((.*)\) (.*) is the hardest domain \((.*) %\) .* \((.*) %\)", title)
    assert shown is not None and "none" in shown[1], title
    cells = comparison_table(open_run(path), by="domain")
    ours = [row for row in cells if row.method == "none" and row.initialization and row.initialization in shown[1]]
    means = sorted(100 * (row.accuracy_mean or 0.0) for row in ours)
    assert [float(shown[3]), float(shown[4])] == pytest.approx(means, abs=0.06)
    layout, curves = (
        tab.page.evaluate(f"document.getElementById('chart-curves').{part}") for part in ("layout", "data")
    )
    assert not layout.get("shapes")  # the two networks do not start at one accuracy
    assert all(max(curve["error_y"]["array"]) > 0 for curve in curves)
    fisher = tab.page.evaluate("document.getElementById('chart-fisher').data.filter(d => d.type === 'bar')")
    assert len(fisher) == 1 and "mcunet" not in fisher[0]["name"]  # potentials were stored of one network only
    tab.page.close()


def test_what_is_left_out_of_the_failures_is_said(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinytrain_dist.reporting.page_data.MAX_TROUBLES", 1)
    rows = page_rows(num_tasks=4) + [
        failed_row("timeout", "late", task_id=f"bad{i}", task_index=10 + i, method="none", domain=domain)
        for i, domain in enumerate(("signs", "glyphs"))
    ]
    tab = Opened(browser, write_page(open_run(write_run(tmp_path / "run", rows))))
    cut = tab.page.locator("#troubles-cut")
    assert cut.is_visible() and "rarer finding" in cut.inner_text() and "may be too low" in cut.inner_text()
    tab.page.close()


def test_figures_on_the_page_are_those_of_the_tables_of_the_planner(browser: Browser, full_page: Path) -> None:
    rows = comparison_table(open_run(full_page.parent))
    tab = Opened(browser, full_page)
    for name, cost, scale in (("energy", "energy", 1e-3), ("time", "latency", 1e-3), ("memory", "memory", 2**-10)):
        tab.page.evaluate(f"document.getElementById('numbers-front-{name}').open = true")
        tab.page.wait_for_selector(f"#table-front-{name} tbody tr")
        cells = tab.page.locator(f"#table-front-{name} tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        )
        found = {(cell[0], cell[1]): (cell[-1], float(cell[2]), float(cell[3].replace(",", ""))) for cell in cells}
        planned = choices(rows, cost)
        assert len(planned) == 4 * 3 - 2 and any(choice.on_front for choice in planned)
        for choice in planned:
            place, accuracy, value = found[choice.device, choice.label]
            assert place == ("knee" if choice.knee else "front" if choice.on_front else "")
            assert accuracy == pytest.approx(100 * choice.accuracy_mean, abs=0.051)
            assert value == pytest.approx(choice.value * scale, rel=6e-3)
    tab.close()


def test_the_keyboard_reaches_and_works_the_filters(browser: Browser, full_page: Path) -> None:
    tab = Opened(browser, full_page)
    keyboard, active = (
        tab.page.keyboard,
        "document.activeElement.id || document.activeElement.parentElement.innerText.trim()",
    )
    before = tab.shown()
    keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    keyboard.press("Enter")
    reached = []
    for _ in range(8):
        keyboard.press("Tab")
        reached.append(tab.page.evaluate(active))
    assert reached[:3] == ["filter-domain", "filter-device", "filter-reset"]
    assert reached[3:] == ["raw_pixels", "none", "last_layer", "full_train", "tinytrain"]
    keyboard.press("Space")
    tab.drawn()
    assert tab.page.locator("#shown").inner_text() == "Shown: all domains, all devices, 4 methods of 5."
    assert tab.shown() != before
    assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.close()


def test_paper_shows_everything(browser: Browser, full_page: Path) -> None:
    tab = Opened(browser, full_page)
    tab.page.set_viewport_size({"width": 700, "height": 990})
    tab.page.emulate_media(media="print")
    tab.page.wait_for_selector("#numbers-devices[open]")
    tab.drawn()
    assert tab.page.locator("details:not([open])").count() == 0
    cut = "[...document.querySelectorAll('.scroll, .chart, pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert tab.page.evaluate(cut) == 0
    assert tab.page.locator("#shown").is_visible() and tab.page.locator("#table-fisher tbody tr").count() == 6
    tab.page.emulate_media(media="screen")
    tab.page.wait_for_selector("#numbers-devices:not([open])", state="attached")
    tab.close()


def test_hostile_names_do_nothing_but_are_shown(browser: Browser, make_run: MakeRun) -> None:
    tab = Opened(browser, write_page(open_run(make_run(hostile_rows(), run_id=HOSTILE))))
    device = tab.page.locator("#filter-device option").all_inner_texts().index(HOSTILE)
    tab.page.locator("#filter-device").select_option(index=device)
    tab.drawn()
    tab.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    tab.page.wait_for_selector("#table-devices tbody tr")
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.locator("img").count() == 0
    assert tab.page.locator("h1").inner_text() == HOSTILE
    assert "<script>window.hacked" in tab.page.locator("#chart-front-energy").inner_text()
    assert HOSTILE in tab.page.locator("#troubles-table").inner_text()
    tab.close()


@pytest.mark.parametrize(
    "rows",
    [[failed_row(), failed_row(method="tinytrain", device="other")], page_rows(num_tasks=1, methods=("raw_pixels",)),
     page_rows(num_tasks=1, devices=("only",), domains=("signs",))],
    ids=["only failures", "no network", "one task, one device"],
)  # fmt: skip
def test_a_run_with_little_shows_what_there_is(browser: Browser, make_run: MakeRun, rows: list[dict[str, Any]]) -> None:
    tab = Opened(browser, write_page(open_run(make_run(rows))))
    assert tab.page.locator("#devices-table tbody tr").count() >= 1
    assert (
        "NaN" not in tab.page.locator("body").inner_text() and "undefined" not in tab.page.locator("body").inner_text()
    )
    assert "No learning curves were stored" in tab.page.locator("#chart-curves").inner_text()
    tab.close()


def test_the_page_of_a_training_draws_every_chart(browser: Browser, tmp_path: Path) -> None:
    run = training(tmp_path / "training", 130, planned=300)
    tab = Opened(browser, write_training_page(run))
    for name in ("loss", "accuracy", "domains", "learning_rate"):
        assert tab.page.locator(f"#chart-{name} .main-svg .trace").count() > 0, name
    traces = tab.page.evaluate("document.getElementById('chart-domains').data")
    assert [trace["name"] for trace in traces] == ["emoji", "icons"]
    whole, last = (stretch.domains["icons"] for stretch in list(stretches(run))[-2:])
    assert f"{100 * last.mean:.1f} % on icons" in tab.page.locator("#title-domains").inner_text()
    bars = traces[1]["error_y"]
    assert whole.low is not None and whole.high is not None
    assert bars["array"][-2] == pytest.approx(100 * (whole.high - whole.mean), abs=0.01)
    assert bars["arrayminus"][-2] == pytest.approx(100 * (whole.mean - whole.low), abs=0.01)
    assert traces[1]["customdata"][-2:] == [whole.num, last.num] and last.num == 1
    assert bars["array"][-1] == bars["arrayminus"][-1] == 0  # no interval of a single episode
    tab.close()
