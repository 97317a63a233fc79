"""Pages of executed notebooks and pictures, in a real browser without network."""

import json

import nbformat
import pytest
from lab import open_browser
from saved_runs import GENOTYPE, write_run

from bmnas_core import CellGenotype, Genotype, StepGenotype, collect, draw, write_report
from bmnas_core.experiments import run
from bmnas_core.experiments.page import write_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FEATURES = [f"{modality}_{i}" for modality in ("Image", "Audio") for i in (1, 2, 3)]
AOA = [StepGenotype("attention", ("X", "Y")), StepGenotype("linear_glu", ("X", "S1"))]


@pytest.fixture
def page(chromium):
    """A browser page without network; fails the test on any error in the console."""
    with open_browser(chromium) as browser:
        context = browser.new_context(viewport={"width": 1000, "height": 800}, offline=True)
        page = context.new_page()
        errors = []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(request.url))
        yield page
    assert not errors, errors


def test_the_page_of_a_notebook_needs_no_network_and_shows_equations_and_pictures(
    page, root, notebook_runs
):
    name = "02_primitive_operations"
    out = run(root / "notebooks" / f"{name}.ipynb", {}, notebook_runs / "page", progress=False)
    page.goto((out / f"{name}.html").as_uri())
    equation = page.locator('math[display="block"]').first.bounding_box()
    assert equation["height"] > 10 and equation["width"] > 100
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert len(widths) == 8 and min(widths) > 100
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert page.get_by_text("02.1: no answer yet.").is_visible()
    page.screenshot(path=notebook_runs / "page.png")


@pytest.fixture
def sweeps_page(root, tmp_path):
    """The page of notebook 13, as it is committed, with links of all kinds."""
    nb = nbformat.read(root / "notebooks" / "13_sweeps.ipynb", 4)
    links = (
        "[there](03_cells_and_hypernet.ipynb#a) [gone](no_such.ipynb) [far](https://example.org)"
    )
    nb.cells.append(nbformat.v4.new_markdown_cell(links))
    assert write_page(nb, tmp_path / "page.html", root / "notebooks") == ""
    return (tmp_path / "page.html").as_uri()


def test_links_of_a_page_lead_to_files_that_are_there(page, sweeps_page, root):
    page.goto(sweeps_page)
    assert page.get_by_text("gone", exact=True).get_attribute("href") is None
    assert page.get_by_role("link", name="far").get_attribute("href") == "https://example.org"
    found = page.get_by_role("link", name="there").evaluate("a => a.href")
    assert found == (root / "notebooks" / "03_cells_and_hypernet.ipynb").as_uri() + "#a"


def test_pictures_of_a_page_have_texts_of_their_own(page, sweeps_page):
    page.goto(sweeps_page)
    texts = page.locator("img").evaluate_all("all => all.map(image => image.alt)")
    assert len(texts) == len({*texts}) > 0
    assert all(text.startswith("Picture ") and "in the section “" in text for text in texts)


def test_code_of_a_page_folds_wraps_and_prints(page, sweeps_page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(sweeps_page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    code = page.locator(".bmnas-code pre").first
    assert code.is_visible()
    page.get_by_text("code", exact=True).first.click()
    assert not code.is_visible()
    for folded in (True, False):
        page.get_by_role("button", name="Fold or unfold all code").click()
        shown = page.locator(".bmnas-code pre").evaluate_all(
            "all => all.map(e => e.checkVisibility())"
        )
        assert set(shown) == {not folded}
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Fold or unfold all code").is_visible()
    assert not page.locator(".jp-InputPrompt").first.is_visible() and code.is_visible()


def test_a_page_is_dark_where_the_system_is(page, sweeps_page):
    brightness = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(sweeps_page)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(map(int, colour.strip("rgb()").split(",")[:3]))
    assert brightness["light"] > 600 and brightness["dark"] < 150


def test_a_genotype_is_legible_in_800_pixels(page, notebook_runs):
    genotype = Genotype(
        FEATURES, [CellGenotype(("Image_3", "Audio_3"), AOA), CellGenotype(("C1", "Image_2"), AOA)]
    )
    page.set_content(f'<div style="width:800px">{draw(genotype).svg}</div>')
    svg = page.locator("svg").bounding_box()
    assert svg["width"] <= 800
    texts = page.locator("svg text").all()
    heights = [text.bounding_box()["height"] for text in texts]
    assert min(heights) >= 12
    page.locator("svg").screenshot(path=notebook_runs / "genotype.png")


def test_no_name_in_a_genotype_runs_in_the_browser(page):
    features = ['<img src=x onerror="document.title=1">_1', "<script>document.title=1</script>_2"]
    genotype = Genotype(features, [CellGenotype(tuple(features), AOA)])
    page.set_content(f"<title>safe</title>{draw(genotype).svg}")
    page.wait_for_timeout(200)
    assert page.title() == "safe"
    assert page.locator("svg img, svg script").count() == 0
    assert "<script>" in page.locator("svg").text_content()


@pytest.fixture
def report(tmp_path):
    """The report of ten runs, two settings by five seeds, with names that would run as code."""
    evil = "</script><img src=x onerror=\"document.title='ran'\">"
    for k in range(10):
        write_run(
            tmp_path / "s" / str(k),
            parameters={"relaxation": ("pair", "paper")[k % 2], "how": f"<script>{evil}"},
            seed=k // 2,
            test=0.9 + k / 1000,
            task="<script>document.title='ran'</script>",
            genotype=json.loads(GENOTYPE.to_json()),
            baselines={evil: {"test": 0.3, "params": 20, "seconds": 1.5}},
        )
    write_run(tmp_path / "s" / "bad", parameters={}, status="failed", error=evil)
    return write_report(collect(tmp_path / "s"), tmp_path / "report.html")


def test_the_table_of_a_report_sorts_and_searches_without_network(page, report):
    requests = []
    page.on("request", lambda request: requests.append(request.url[:60]))
    page.goto(report.as_uri())
    rows = page.locator("#all-runs-table tbody tr")
    rows.first.wait_for()
    page.wait_for_function(  # before, there is a row that says that it is loading
        "document.querySelectorAll('#all-runs-table tbody tr').length === 20"
    )
    heads = page.locator("#all-runs thead th")
    names = [name.strip() for name in heads.all_inner_texts()]
    head = heads.nth(names.index("test"))
    head.click()
    head.click()
    best = f"document.querySelector('#all-runs-table tbody tr').cells[{names.index('test')}]"
    page.wait_for_function(f"{best}.innerText === '0.909'", timeout=5000)
    page.get_by_label("Search:").fill("paper img")
    page.wait_for_function(
        "document.querySelectorAll('#all-runs-table tbody tr').length === 5", timeout=5000
    )
    assert {url.partition(":")[0] for url in requests} <= {"file", "blob"}


def test_no_name_in_a_report_runs_in_the_browser(page, report, notebook_runs):
    page.goto(report.as_uri())
    page.locator("#all-runs-table tbody tr").first.wait_for()
    page.wait_for_timeout(300)
    title = "<script>document.title='ran'</script>: 10 runs"
    assert page.title() == title and page.locator("h1").inner_text() == title
    assert page.locator("img").count() == 0
    for summary in page.locator("details > summary").all():
        summary.click()
    page.screenshot(path=notebook_runs / "report.png", full_page=True)
    assert page.title() == title


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280])
def test_a_report_fits_wide_and_narrow_in_light_and_dark(
    page, report, width, scheme, notebook_runs
):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(report.as_uri())
    page.locator("#all-runs-table tbody tr").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        """() => ["body", "#all-runs-table td"].map(
             name => getComputedStyle(document.querySelector(name)).color)"""
    )
    light = [sum(map(int, colour.strip("rgb()").split(","))) > 382 for colour in colours]
    assert light == [scheme == "dark"] * 2  # light text on dark, and the other way round
    page.screenshot(path=notebook_runs / f"report_{width}_{scheme}.png", full_page=True)
