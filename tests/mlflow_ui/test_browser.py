"""What a user sees: MLflow's UI on a study, view by view, and the HTML report, in a real browser."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error

from lrscale.files import safe_name
from lrscale.mlflow_ui.publish import STUDY_COLOUR
from lrscale.mlflow_ui.saved_views import SUMMARY
from lrscale.report.figures.card import WIDTH_OVER_HEIGHT
from lrscale.report.figures.palette import colours, shades
from lrscale.report.html import as_html
from lrscale.tracking.schema import SAVED_VIEW
from lrscale.tracking.store import Store
from tests.browser import Visit, chromium, columns, rows, served, visit
from tests.program import here
from tests.redraw import RESULTS, answer_of

PICTURE = "document.querySelector('.rc-image img')"
"""The first picture of a page of charts."""
SHOTS = Path(os.environ.get("LRSCALE_SCREENSHOTS", "studies/screenshots")).resolve()
"""Where pictures of every page are kept; a folder that git ignores."""
SIZES = (1, 16, 256)
NAME = "quickstart batch_size=1,16,256"
PALETTE = colours(SIZES)
SCALES = ("1", "0.0001", "1e-08", "1e-12")
CUT = """[...document.querySelectorAll('.scroll')]
  .filter(e => e.offsetWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"""
"""The parts of a page that are wider than their place."""
USUAL = ["objective", "lr", "batch_size", "reduction", "lrscale.outcome", "steps"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a small study, experiment 1, and a small probe, experiment 2."""
    folder = tmp_path_factory.mktemp("browser")
    here(folder, "run", "-m", "sweeps=quickstart", "batch_size=1,16,256", "hydra.sweeper.n_trials=20")  # a variant: NAME
    here(folder, "run", "-m", "sweeps=homogeneity", "probe.optimizer=sgd,adam")
    return folder


@pytest.fixture(scope="module")
def link(study: Path) -> Iterator[str]:
    with served(study, NAME) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def keep(seen: Visit, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    seen.page.screenshot(path=str(SHOTS / f"{name}.png"))
    seen.page.close()


def colour(name: str) -> str:
    found = re.search(r" b(\d+) ", name)
    assert found is not None
    return PALETTE[int(found.group(1))]


def rgb(text: str) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", text)[:3])


def test_the_link_opens_the_summary_with_note_law_and_drawn_curves(browser: Browser, link: str) -> None:
    assert f"viewStateShareKey={SUMMARY}&compareRunsMode=CHART" in link
    seen = visit(browser, link, SUMMARY, charts=True, size={"width": 1440, "height": 900})
    page = seen.page
    page.get_by_text("lr_sum∗ = lr_mean∗ x c^-1 exactly", exact=False).first.wait_for()
    title = page.get_by_text("The law", exact=True)
    title.wait_for()
    assert title.evaluate("e => e.scrollWidth <= e.clientWidth")  # it is not cut
    page.wait_for_function(f"{PICTURE}?.naturalWidth > 600")
    left, top, width, square = page.evaluate(f"(r => [r.x, r.y, r.width, r.height])({PICTURE}.getBoundingClientRect())")
    bottom = page.evaluate(f"{PICTURE}.closest('[class*=rc-image]').getBoundingClientRect().y") + square / WIDTH_OVER_HEIGHT
    assert width > 600 and left > 0 and top > 0 and bottom < 830  # the figure is at the top of its square, and above the slider
    names = [name for name, _ in rows(page)]
    assert names[0] == f"study {NAME}"
    assert [name.rpartition(" ")[0] for name in names[1:]] == [f"{r} b{b}" for r in ("mean", "sum") for b in SIZES]
    page.screenshot(path=str(SHOTS / "law.png"))
    page.get_by_text("Objective against log10 lr, by reduction").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('path.js-line').length >= 8")
    drawn = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map("
        "e => [...new Set([...e.querySelectorAll('path.js-line')].map(l => l.style.stroke))])"
    )
    assert [sorted(map(rgb, lines)) for lines in drawn[:2]] == [sorted([STUDY_COLOUR, *PALETTE.values()])] * 2
    titles = page.locator(".js-plotly-plot").first.evaluate("e => e.innerHTML")
    assert "log10 lr" in titles and "objective under mean" in page.content()
    seen.check()
    keep(seen, "summary")


def test_the_notes_figure_is_shown_when_it_is_unfolded(browser: Browser, link: str) -> None:
    seen = visit(browser, link, SUMMARY)
    seen.page.locator("[data-component-id='mlflow.experiment.metadata_editor.expand_button']").click()
    seen.page.locator("img[src*='get-artifact']").first.wait_for(state="visible")
    seen.page.wait_for_function("document.querySelector(\"img[src*='get-artifact']\").naturalWidth > 600")
    links = seen.page.locator("a[href*='viewStateShareKey=lrscale-']")
    assert {re.sub(".*viewStateShareKey=", "", str(a.get_attribute("href"))).split("&")[0] for a in links.all()} >= {
        "lrscale-summary", "lrscale-best", "lrscale-trials-sum", "lrscale-trials-mean", "lrscale-diverged", "lrscale-all"
    }  # fmt: skip
    seen.check()
    keep(seen, "note")


def test_a_bare_experiment_opens_without_its_runs_and_the_first_word_of_the_note_leads_to_them(
    browser: Browser, link: str
) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    seen = Visit(page, link.partition("/#")[0])
    page.goto(f"{seen.base}/#/experiments/1")
    page.wait_for_url("**/overview/usage?workflowType=genai")  # no tag changes it: the address or the browser's storage does
    page.get_by_role("button", name="Got it").click()
    page.screenshot(path=str(SHOTS / "bare.png"))
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Summary:").click()
    opened.value.get_by_text("The law", exact=True).wait_for()
    opened.value.get_by_role("link", name=f"study {NAME}").first.wait_for()
    assert seen.outside == []
    page.context.close()


@pytest.mark.parametrize(
    ("view", "first", "order"),
    [
        ("lrscale-best", ["lr_best", "lr_low", "lr_high", "lr_theory"], None),
        ("lrscale-trials-sum", [], "objective"),
        ("lrscale-trials-mean", [], "objective"),
        ("lrscale-diverged", [], "log10_lr"),
        ("lrscale-all", [], "log10_lr"),
    ],
)
def test_each_view_opens_with_its_columns_order_and_colours(
    browser: Browser, link: str, study: Path, view: str, first: list[str], order: str | None
) -> None:
    seen = visit(browser, link, view)
    shown = columns(seen.page)
    absent = {"lrscale-diverged": "objective", "lrscale-best": "lrscale.outcome"}.get(view)  # none of its runs has it
    usual = [name for name in USUAL if name != absent]
    assert shown[: len(first)] == first and [name for name in shown if name in USUAL] == usual
    found = rows(seen.page)
    fewest = 2 if view == "lrscale-diverged" else 6
    assert len(found) >= fewest and all(each == colour(name) for name, each in found)
    store = Store.existing(f"sqlite:///{study}/mlflow.db")
    metrics = {run.info.run_name: run.data.metrics for run in store._runs("1", "tags.`lrscale.kind` = 'trial'")}
    names = [name for name, _ in found]
    if order is not None:
        values = [metrics[name][order] for name in names if order in metrics[name]]
        assert values == sorted(values) and len(values) >= fewest
    if view == "lrscale-diverged":
        assert all(metrics[name]["diverged"] > 0 for name in names)
    if "trials" in view:
        assert {name.split()[0] for name in names} == {view.rpartition("-")[2]}
    seen.check()
    keep(seen, view)


def test_the_menu_lists_the_views_in_order(browser: Browser, link: str) -> None:
    seen = visit(browser, link, "lrscale-all")
    seen.page.get_by_test_id("saved-views-trigger").click()
    seen.page.get_by_test_id("saved-views-item-lrscale-summary").wait_for()
    names = [item.inner_text().split(" (")[0] for item in seen.page.locator("[data-testid^=saved-views-item]").all()]
    assert names == [
        "1 · Study summary", "2 · Best trial of each cell", "3 · Trials with sum, best first",
        "4 · Trials with mean, best first", "5 · Diverged trials", "6 · First 16 trials of each cell",
    ]  # fmt: skip
    seen.page.close()


def test_a_view_whose_tag_is_gone_does_not_open(browser: Browser, link: str, study: Path) -> None:
    store = Store.existing(f"sqlite:///{study}/mlflow.db")
    tag = SAVED_VIEW + "lrscale-best"
    kept = store.experiment_tags("1")[tag]
    store.client.delete_experiment_tag("1", tag)
    try:
        with pytest.raises(Error, match=r"ag-row"):
            visit(browser, link, "lrscale-best", wait=4000)
    finally:
        store.tag_experiment("1", {tag: kept})
    visit(browser, link, "lrscale-best").page.close()


def test_a_probe_opens_at_its_answer_and_curves_and_not_without_its_tag(browser: Browser, link: str, study: Path) -> None:
    link = link.replace("/experiments/1/", "/experiments/2/")
    seen = visit(browser, link, SUMMARY, charts=True)
    page = seen.page
    page.get_by_text("The first update answers as the update rule says", exact=False).first.wait_for()
    page.get_by_text("Measured, expected against log10 probe.size").wait_for()
    page.get_by_text("Measured, expected against log10 probe.size").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 2")
    page.wait_for_function("document.querySelectorAll('path.js-line').length >= 8")
    strokes = {rgb(text) for text in page.evaluate("[...document.querySelectorAll('path.js-line')].map(e => e.style.stroke)")}
    assert strokes == set(shades(["sgd", "adam"]).values())
    assert [name for name, _ in rows(page)][1:] == [f"{name} size{size}" for name in ("sgd", "adam") for size in SCALES]
    seen.check()
    keep(seen, "probe")
    store = Store.existing(f"sqlite:///{study}/mlflow.db")
    kept = store.experiment_tags("2")[SAVED_VIEW + SUMMARY]
    store.client.delete_experiment_tag("2", SAVED_VIEW + SUMMARY)
    try:
        with pytest.raises(Error, match=r"ag-row"):
            visit(browser, link, SUMMARY, charts=True, wait=4000)
    finally:
        store.tag_experiment("2", {SAVED_VIEW + SUMMARY: kept})


def test_a_trials_page_tells_its_config_and_its_optuna_trial(browser: Browser, link: str, study: Path) -> None:
    store = Store.existing(f"sqlite:///{study}/mlflow.db")
    run = next(store._runs("1", "tags.`lrscale.summary` = 'yes' and tags.`lrscale.kind` = 'trial'"))
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    seen = Visit(page, link.partition("/#")[0])
    page.goto(f"{seen.base}/#/experiments/1/runs/{run.info.run_id}?workflowType=machine_learning")
    page.get_by_text(f"trial {int(run.data.metrics['trial'])} of the study").wait_for()
    page.get_by_text("Show more").first.click()
    page.get_by_text("drop_last").first.wait_for()
    page.get_by_text(f"study {NAME}").first.wait_for()
    seen.check()
    keep(seen, "trial")


def test_the_report_is_accessible_in_light_dark_and_on_a_phone(browser: Browser, study: Path) -> None:
    report = study / "studies" / safe_name(NAME) / "report.html"
    looks: list[tuple[Literal["light", "dark"], int]] = [("light", 1200), ("dark", 1200), ("light", 390)]
    for scheme, width in looks:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        seen = Visit(page, report.as_uri())
        page.goto(report.as_uri())
        page.wait_for_selector("path.js-line", state="attached")
        page.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
        broken = Axe().run(page).response["violations"]
        assert [v["id"] for v in broken if v["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == [] and report.stat().st_size < 800_000
        inverted = page.evaluate("[...document.images].map(i => getComputedStyle(i).filter.includes('invert'))")
        assert set(inverted) == {scheme == "dark"}
        assert all(page.evaluate("[...document.images].map(i => i.naturalWidth > 0 && i.alt.length > 20)"))
        seen.check()
        keep(seen, f"report-{scheme}-{width}")


def test_a_long_probe_reads_on_a_phone_and_prints_whole(browser: Browser, tmp_path: Path) -> None:
    answer = answer_of("gradient_scale")
    file = tmp_path / "report.html"
    file.write_text(as_html(answer, {"quantities": {"svg": (RESULTS / "gradient_scale" / "figure.svg").read_bytes()}}))
    page = browser.new_page(viewport={"width": 390, "height": 844})
    seen = Visit(page, file.as_uri())
    page.goto(file.as_uri())
    page.wait_for_function("[...document.images].every(image => image.naturalWidth > 0)")
    sizes = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
    assert sizes[0] < 6000 and sizes[1] <= 390 and page.evaluate(CUT) == []
    is_open = "[...document.querySelectorAll('details')].map(table => table.open)"
    assert page.evaluate(is_open) == [True, True, False]
    for event, opened in (("beforeprint", [True, True, True]), ("afterprint", [True, True, False])):
        page.evaluate(f"dispatchEvent(new Event('{event}'))")
        assert page.evaluate(is_open) == opened
    seen.check()
    keep(seen, "report-probe-390")
