"""The page in headless Chromium: it opens from disk, asks for nothing else, and runs no word from outside."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reported

from raybench.analysis.decide import decide
from raybench.report.page import page

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"NOT TESTED: no Chromium at {CHROMIUM}; apt install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs as files, each also without its policy."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {"small": reported.small_run, "hostile": reported.hostile_run, "rows": reported.hostile_rows_run}
    for name, run in ((name, make()) for name, make in runs.items()):
        findings, manifest = run
        decision = decide(findings.trials, manifest["criteria"], manifest["report"]["payload"])
        html = page(findings, decision, manifest)
        (folder / f"{name}.html").write_text(html, "utf-8")
        bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html, count=1)
        assert bare != html
        (folder / f"{name}-bare.html").write_text(bare, "utf-8")
    return folder


class Visit:
    """A page opened from disk, with everything it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.path = path
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def asked_only_for_itself(self) -> bool:
        return self.requests == [self.path.as_uri()]


def test_every_chart_comes_alive_without_a_complaint_or_a_request(browser: Any, pages: Path) -> None:
    with Visit(browser, pages / "small.html") as visit:
        visit.page.evaluate("raybenchEnlivenAll()")
        charts = visit.page.locator(".chart").count()
        assert charts == 15
        assert visit.page.locator(".chart > div svg").count() == charts
        assert visit.page.locator(".chart > svg").count() == 0
        assert visit.complaints == []
        assert visit.asked_only_for_itself()


def test_without_scripts_the_verdict_and_the_drawings_are_there(browser: Any, pages: Path) -> None:
    with Visit(browser, pages / "small.html", java_script_enabled=False) as visit:
        assert "concurrency 4" in visit.page.locator("p.verdict").first.inner_text()
        assert visit.page.locator(".chart > svg").count() == 15
        assert not visit.page.locator("#theme").is_visible()
        assert visit.asked_only_for_itself()


@pytest.mark.parametrize("name", ["hostile", "hostile-bare", "rows", "rows-bare"])
def test_hostile_words_do_not_run_with_or_without_the_policy(browser: Any, pages: Path, name: str) -> None:
    with Visit(browser, pages / f"{name}.html") as visit:
        visit.page.evaluate("raybenchEnlivenAll()")
        assert visit.page.locator(".chart > div svg").count() == visit.page.locator(".chart").count() > 0
        for mark in visit.page.locator(".chart [aria-roledescription]").all()[:60]:
            mark.dispatch_event("pointerover")
            mark.dispatch_event("pointermove")
        visit.page.evaluate("document.querySelectorAll('details').forEach(function (d) { d.open = true; })")
        assert visit.page.evaluate("typeof window.pwned") == "undefined"
        assert visit.page.locator("img").count() == 0
        assert visit.page.locator("script").count() == visit.page.locator(".chart").count() + 2
        assert visit.complaints == []
        assert visit.asked_only_for_itself()


def test_the_policy_stops_a_script_that_got_in_all_the_same(browser: Any, pages: Path) -> None:
    with Visit(browser, pages / "small.html") as visit:
        intruder = "const e = document.createElement('script'); e.text = 'window.pwned = 1'; document.body.append(e);"
        visit.page.evaluate(f"() => {{ {intruder} }}")
        assert visit.page.evaluate("typeof window.pwned") == "undefined"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(browser: Any, pages: Path, scheme: str) -> None:
    size = {"width": 390, "height": 844}
    with Visit(browser, pages / "small.html", viewport=size, color_scheme=scheme) as visit:
        visit.page.evaluate("raybenchEnlivenAll()")
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_theme_follows_the_reader_and_paper_is_white(browser: Any, pages: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with Visit(browser, pages / "small.html", color_scheme="dark") as visit:
        assert visit.page.evaluate(ground) == "rgb(15, 19, 24)"
        visit.page.locator("#theme").click()
        assert visit.page.evaluate(ground) == "rgb(246, 247, 249)"
        visit.page.locator("#theme").click()
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_the_sliders_move_the_winner(browser: Any, pages: Path) -> None:
    with Visit(browser, pages / "small.html") as visit:
        visit.page.evaluate("raybenchEnlivenAll()")
        said = visit.page.locator("#price svg text", has_text="cheapest inside").first
        before = said.text_content()
        slider = visit.page.locator("#bind-price input[type=range]").nth(1)
        slider.evaluate("e => { e.value = 500; e.dispatchEvent(new Event('input', {bubbles: true})); }")
        visit.page.locator("#bind-price input[type=range]").first.evaluate(
            "e => { e.value = 1.1; e.dispatchEvent(new Event('input', {bubbles: true})); }"
        )
        visit.page.wait_for_function(
            "before => ![...document.querySelectorAll('#price svg text')].some(t => t.textContent === before)",
            arg=before,
            timeout=3000,
        )


def test_the_trials_can_be_downloaded_under_the_policy_and_read_without_scripts(browser: Any, pages: Path) -> None:
    with Visit(browser, pages / "small.html") as visit:
        visit.page.locator("summary", has_text="as CSV").click()
        with visit.page.expect_download() as download:
            visit.page.locator("#csv").click()
        text = Path(download.value.path()).read_text("utf-8")
        assert download.value.suggested_filename == "trials.csv"
        assert text.startswith("trial_id,")
        assert len(text.splitlines()) == 17
        assert visit.complaints == []
    with Visit(browser, pages / "small.html", java_script_enabled=False) as visit:
        assert visit.page.locator("#trials").text_content() == text
        assert not visit.page.locator("#csv").is_visible()


def test_the_menu_of_trials_changes_what_is_drawn_over_time(browser: Any, pages: Path) -> None:
    with Visit(browser, pages / "small.html") as visit:
        visit.page.evaluate("raybenchEnlivenAll()")
        menu = visit.page.locator("#bind-over_time select")
        assert menu.locator("option").count() == 8
        steps = (
            "[...document.querySelectorAll('#over_time svg .mark-line path')].map(p => p.getAttribute('d')).join()"
        )
        before = visit.page.evaluate(steps)
        menu.select_option(index=1)
        visit.page.wait_for_function(f"before => {steps} !== before", arg=before, timeout=3000)
