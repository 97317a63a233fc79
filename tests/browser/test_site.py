"""The course's site in a real browser without network: three sizes, light and dark."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe import faults

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.nightly]

SIZES = {"desktop": (1280, 900), "tablet": (820, 1180), "phone": (390, 844)}
PAGES = (
    "docs/index",
    "docs/benchmark",
    "docs/api",
    "notebooks/02_primitive_operations",
    "notebooks/06_evaluation",
    "notebooks/glossary",
)


SITE = "http://site.test"


def answer(route, folder: Path) -> None:
    """The file that a page asks for; there is no server, and nothing else is reached."""
    parts = urlsplit(route.request.url)
    path = folder / parts.path.lstrip("/")
    if parts.netloc != "site.test" or not path.is_file():
        route.abort()
    else:
        route.fulfill(path=path)


@pytest.fixture
def opened(browser, built_site):
    """A function that opens a page of the site; the test fails on any error in the console."""
    errors, contexts = [], []

    def open_page(name: str, size: str = "desktop", scheme: str = "light"):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        context.route("**/*", lambda route: answer(route, built_site))
        page = context.new_page()
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.goto(f"{SITE}/{name}.html")
        page.wait_for_load_state("load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors, errors


@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_the_screen(opened, shots, size):
    for name in PAGES:
        page = opened(name, size)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, name
        page.screenshot(path=shots / f"{name.replace('/', '_')}_{size}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_on_a_page(opened, shots, name, scheme):
    page = opened(name, scheme=scheme)
    page.wait_for_timeout(300)
    page.screenshot(path=shots / f"{name.replace('/', '_')}_{scheme}.png")
    assert faults(page, "main") == []


def test_a_replay_plays_on_the_first_page(opened):
    frame = opened("docs/index").frame_locator("iframe.replay").first
    slider = frame.get_by_role("slider").first
    before = slider.input_value()
    frame.get_by_role("button", name="Play").click()
    frame.locator("body").page.wait_for_timeout(1500)
    assert slider.input_value() != before


def test_the_table_of_the_benchmark_sorts_and_is_searched(opened):
    page = opened("docs/benchmark")
    rows = page.locator("#benchmark-table tbody tr")
    rows.first.wait_for()
    assert "Attention(X, Y)" in rows.first.inner_text()
    head = page.locator(".dt-scroll-head th", has_text="sum: test").first
    head.click()  # ascending: the worst first
    assert float(rows.first.locator("td").nth(5).inner_text()) < 0.3
    page.get_by_label("Search:").fill("Image_3 Audio_3 Attention")
    info = page.locator(".dt-info").inner_text()
    assert "filtered from 1,950" in info and "Image_3" in rows.first.inner_text()


def test_the_search_finds_a_notebook(opened):
    page = opened("search")
    page.goto(f"{SITE}/search.html?q=perturbation")
    page.locator("#search-results li").first.wait_for()
    found = page.locator("#search-results").inner_text()
    assert "Does the search work?" in found


def test_a_term_in_a_notebook_leads_to_its_entry_in_the_glossary(opened):
    page = opened("notebooks/03_cells_and_hypernet")
    page.locator("main a[href='glossary.html#hypernet']").first.click()
    entry = page.locator("section#hypernet")
    entry.wait_for()
    assert "one-shot model" in entry.inner_text()
    assert abs(entry.bounding_box()["y"]) < 300
