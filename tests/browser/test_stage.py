"""The stage: linked pictures of a search, in Chromium and without a kernel, in a replay."""

import re
from xml.etree import ElementTree

import pytest

from bmnas_core import Search, SearchConfig, SearchHistory, draw, draw_heatmaps, load_task
from bmnas_core.draw.scene import RESOLUTION, fields, numbers

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def history() -> SearchHistory:
    task = load_task("digits", rule="sum")
    search = Search(task, SearchConfig(selection="argmax"), seed=0, device="cpu")
    history = SearchHistory.from_search(search)
    for state in search:
        history.append(state)
        if state.step == 50:
            return history


@pytest.fixture(scope="module")
def replay(history, shots):
    return history.to_html(shots / "replay.html").as_uri()


@pytest.fixture
def page(browser, replay):
    """The replay in a browser without network; fails the test on any error in the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    page, errors, asked = context.new_page(), [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url.partition("#")[0]))
    page.goto(replay)
    page.locator(".bmnas-hypernet svg").wait_for()
    yield page
    assert not errors and {*asked} == {replay}
    context.close()


def frame(page) -> int:
    return int(page.evaluate("document.body.dataset.frame"))


def status(page) -> str:
    return page.get_by_role("status").inner_text()


def part(page, panel: str, name: str):
    """A part of a picture by the end of its id."""
    return page.locator(f'.bmnas-{panel} .bmnas-part[id$="-{name}"]')


def test_it_plays_and_pauses_and_comes_back_to_the_first_picture(page, history, shots):
    graph = page.locator(".bmnas-hypernet svg")
    first = graph.evaluate("e => e.outerHTML")
    assert status(page).startswith("step 0 ")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => Number(document.body.dataset.frame) > 3")
    page.get_by_role("button", name="Pause").click()
    assert status(page).startswith(f"step {history.steps[frame(page)]} ")
    assert graph.evaluate("e => e.outerHTML") != first
    page.screenshot(path=shots / "playing.png")
    page.get_by_label("time").press("Home")
    assert graph.evaluate("e => e.outerHTML") == first
    page.get_by_label("time").press("End")
    assert status(page).startswith(f"step {history.steps[-1]} ")


def test_space_and_arrows_work_wherever_the_focus_is_but_in_fields(page):
    page.locator("h1").click()
    for key, expected in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 50)):
        page.keyboard.press(key)
        assert frame(page) == expected
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    page.wait_for_function("() => Number(document.body.dataset.frame) > 2")
    page.keyboard.press(" ")
    stopped = frame(page)
    page.wait_for_timeout(400)
    assert frame(page) == stopped
    page.get_by_label("speed").focus()
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("speed").input_value() == "20" and frame(page) == stopped


def test_it_loops_and_its_speeds_differ(page):
    page.get_by_label("loop").check()
    page.get_by_label("speed").select_option("fast")
    page.get_by_label("time").press("End")
    page.get_by_label("time").press("ArrowLeft")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => Number(document.body.dataset.frame) < 20")
    page.get_by_role("button", name="Pause").click()


def test_an_address_opens_a_step_and_an_embed_form_has_no_title(browser, replay, shots, page):
    page.goto(f"{replay}#step=20")
    assert status(page).startswith("step 20 ")
    page.get_by_text("Embed in slides").click()
    code = page.get_by_label("HTML to embed").input_value()
    assert "replay.html#step=20&embed" in code and page.locator("h1").is_visible()
    page.goto("about:blank")
    page.goto(f"{replay}#step=7&embed")
    page.locator(".bmnas-hypernet svg").wait_for()
    assert status(page).startswith("step 7 ") and not page.locator("h1").is_visible()
    page.set_viewport_size({"width": 1000, "height": 640})
    page.screenshot(path=shots / "embedded.png")
    assert page.evaluate("document.documentElement.scrollHeight") <= 660


def test_the_numbers_shown_are_those_of_the_history(page, history):
    named = fields(history[0].weights)
    for k in (0, 17, 50):
        page.get_by_label("time").fill(str(k))
        values = [n / RESOLUTION for n in numbers(history[k].weights)]
        texts = page.locator(".bmnas-weights .bmnas-part text:first-of-type").all_text_contents()
        ids = page.locator(".bmnas-weights .bmnas-part").evaluate_all("all => all.map(e => e.id)")
        shown = {place.partition("-")[2]: text for place, text in zip(ids, texts, strict=True)}
        for field, value in zip(named, values, strict=True):
            assert shown[field["heat"]] == f"{value:.2f}".removeprefix("0")


#: Width, colour and opacity of an edge, or fill and frame of an operation or a field, as painted.
PAINTED = """parts => Object.fromEntries(parts.map(part => {
  const [path, polygon] = [part.querySelector("path"), part.querySelector("polygon")];
  const shown = part.classList.contains("edge")
    ? [path.style.strokeWidth, path.style.stroke, path.style.strokeOpacity]
    : [polygon.style.strokeWidth, polygon.style.stroke, "1", polygon.style.fill];
  return [part.id.slice(part.id.indexOf("-") + 1), shown];
}))"""


def drawn(svg: str) -> dict[str, list]:
    """The same of a picture that the kit drew."""
    ns, found = "{http://www.w3.org/2000/svg}", {}
    for group in ElementTree.fromstring(svg).iter(f"{ns}g"):
        part = group.find(f"{ns}path" if group.get("class") == "edge" else f"{ns}polygon")
        if part is not None and group.get("class") in ("edge", "node"):
            names = ("stroke-width", "stroke", "stroke-opacity", "fill")
            values = [part.get(name, "1") for name in names]
            found[group.get("id").partition("-")[2]] = values
    return found


def rgb(colour: str) -> list[int]:
    if colour.startswith("#"):
        return list(bytes.fromhex(colour[1:]))
    return list(map(int, re.findall(r"\d+", colour)))[:3]


def test_what_is_painted_is_what_the_kit_draws(page, history):
    for k in (0, 17, 50):
        page.get_by_label("time").fill(str(k))
        for panel, picture in (("hypernet", draw), ("weights", draw_heatmaps)):
            wanted = drawn(picture(history[k]).svg)
            painted = page.locator(f".bmnas-{panel} .bmnas-part").evaluate_all(PAINTED)
            assert len(painted) == 30
            for name, (width, colour, opacity, *fill) in painted.items():
                expected = wanted[name]
                assert float(width.removesuffix("px")) == pytest.approx(
                    float(expected[0]), abs=0.011
                )
                assert rgb(colour) == pytest.approx(rgb(expected[1]), abs=1)
                assert float(opacity) == pytest.approx(float(expected[2]), abs=0.005)
                assert not fill or rgb(fill[0]) == pytest.approx(rgb(expected[3]), abs=1)


def test_changes_are_those_that_the_genotypes_have(page, history):
    for k in range(1, 30):
        page.get_by_label("time").fill(str(k))
        changes = history[k].genotype.changes_from(history[k - 1].genotype)
        listed = page.locator(".bmnas-changes li").all_inner_texts()
        assert listed == [str(change) for change in changes]
        marked = page.locator(".bmnas-network .bmnas-changed").count()
        assert (marked > 0) == (len(changes) > 0)


def test_pointing_at_a_weight_lights_it_in_all_pictures_and_shows_its_history(page, shots):
    page.get_by_label("time").press("End")
    part(page, "hypernet", "c1_s1_op2").hover()
    for panel, name in (("hypernet", "c1_s1_op2"), ("weights", "c0_3_0_2")):
        assert "bmnas-lit" in part(page, panel, name).get_attribute("class")
    assert page.locator(".bmnas-hypernet .bmnas-lit").count() == 1
    detail = page.locator(".bmnas-point")
    assert "S1 is LinearGLU" in detail.inner_text()
    assert detail.locator("polyline").get_attribute("points").count(" ") > 40
    page.screenshot(path=shots / "pointed.png")
    page.locator("h1").hover()
    assert page.locator(".bmnas-lit").count() == 0


def test_an_edge_has_ten_pixels_to_aim_at(page):
    edge = part(page, "hypernet", "f0-c1_y").locator("path").first
    x, y = edge.evaluate(
        """e => { const p = e.getPointAtLength(20).matrixTransform(e.getScreenCTM());
                  return [p.x, p.y]; }"""
    )
    for off, lit in ((4, True), (-4, True), (8, False)):
        page.mouse.move(x, y + off)
        assert ("Image_1 → Cell 1 Y" in page.locator(".bmnas-point").inner_text()) == lit


def test_a_click_pins_an_operation_and_says_what_it_computes(page):
    operation = part(page, "hypernet", "c1_s2_op1")
    operation.click()
    page.locator("h1").hover()
    detail = page.locator(".bmnas-point")
    assert "softmax(xyᵀ / √C) y" in detail.inner_text() and "32 channels" in detail.inner_text()
    assert operation.get_attribute("aria-pressed") == "true"
    operation.click()
    page.locator("h1").hover()
    assert "Point at an edge" in detail.inner_text()


def test_all_weights_can_be_reached_by_keyboard(page):
    for panel, count in (("hypernet", 12 + 10 + 8), ("weights", 12 + 10 + 8)):
        parts = page.locator(f".bmnas-{panel} .bmnas-part")
        assert parts.count() == count
        parts.first.focus()
        for _ in range(count):
            label = page.evaluate("document.activeElement.getAttribute('aria-label')")
            assert label and page.locator(".bmnas-lit").count() > 0
            page.keyboard.press("ArrowRight")
        assert parts.first.evaluate("e => e === document.activeElement")
    page.keyboard.press("Enter")
    assert parts.first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert parts.first.get_attribute("aria-pressed") == "false"


def test_the_first_step_shows_something_once_differences_are_magnified(page, shots):
    edges = page.locator(".bmnas-hypernet .bmnas-part.edge > path:first-of-type")
    page.get_by_label("time").fill("1")
    page.wait_for_timeout(300)
    widths = "all => all.map(e => parseFloat(e.style.strokeWidth))"
    plain = edges.evaluate_all(widths)
    page.get_by_role("button", name="Magnify").click()
    page.wait_for_timeout(300)
    magnified = edges.evaluate_all(widths)
    of_cell = slice(0, 12)  # the edges to X and Y
    assert max(plain[of_cell]) - min(plain[of_cell]) < 0.1
    assert max(magnified[of_cell]) - min(magnified[of_cell]) > 1
    assert "differences from the mean, ×" in page.locator(".bmnas-hypernet").inner_text()
    assert "▲" in page.locator(".bmnas-weights").inner_text()
    page.screenshot(path=shots / "magnified.png")


def test_the_slider_has_ticks_where_the_genotype_changed(page, history):
    assert page.locator(".bmnas-ticks i").count() == sum(
        a.genotype != b.genotype for a, b in zip(history, history[1:], strict=False)
    )
    texts = page.locator(".bmnas-ticks span").all_inner_texts()
    assert texts[0] == "0" and texts[-1] == "50"


def test_back_to_now_and_a_click_into_a_chart_move_through_time(page):
    page.get_by_label("time").fill("5")
    page.get_by_role("button", name="Last step").click()
    assert frame(page) == 50
    chart = page.locator(".bmnas-curves .bmnas-chart").first
    place = chart.bounding_box()
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + 30)
    assert 15 < frame(page) < 40


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (960, 1000), (1280, 800), (1920, 1080)])
def test_it_can_be_read_on_screens_of_all_sizes(page, size, scheme, shots):
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    page.get_by_label("time").press("End")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 620:
        page.get_by_role("tab", name="Hypernet").click()
    sizes = page.locator(".bmnas-hypernet svg text[font-size='13.00']").evaluate_all(
        "all => all.map(e => parseFloat(e.getAttribute('font-size')) * e.getScreenCTM().a)"
    )
    assert min(sizes) >= 8.5
    page.screenshot(path=shots / f"replay_{width}_{scheme}.png")
