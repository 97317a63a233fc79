"""Pages of executed notebooks and pictures, in a real browser without network."""

import pytest
from lab import open_browser

from bmnas_core import CellGenotype, Genotype, StepGenotype, draw
from bmnas_core.experiments import run

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
    equation = page.locator("math").nth(1).bounding_box()
    assert equation["height"] > 10 and equation["width"] > 100
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert len(widths) == 8 and min(widths) > 100
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    answer = page.locator("details").first
    folded = answer.locator(":scope > :not(summary)").first
    assert not folded.is_visible()
    answer.locator("summary").click()
    assert answer.bounding_box()["height"] > 40
    page.screenshot(path=notebook_runs / "page.png")


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
