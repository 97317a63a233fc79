"""The widgets as a student meets them: notebooks 04 and 05 in JupyterLab in Chromium."""

import json
import re
import time

import pytest
from lab import Lab, Notebook, Stepper

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab(root, tmp_path_factory, chromium):
    lab = Lab(tmp_path_factory.mktemp("lab"), root / "notebooks")
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def search(lab, browser, shots):
    """Notebook 04."""
    yield (notebook := Notebook(lab, browser, "04_the_search", shots))
    assert not notebook.errors, notebook.errors


STEPPER = "stepper = bm.SearchStepper"
#: Prints the scoreboard's entries in the kernel.
ENTRIES = """
import json
board = stepper.scoreboard.entries
print(json.dumps([{"name": entry.name, "score": entry.score} for entry in board]))
"""


@pytest.fixture
def stepper(search):
    stepper = Stepper(search, STEPPER)
    if stepper.is_on("Pause"):
        stepper.press("Pause")
    stepper.unfold()
    for name, value in (("relaxation", "pair"), ("schedule", "batch")):
        set_menu(search, stepper, name, value)
    set_rate(search, stepper, "0.01")
    before = search.lab.kernel("print(id(stepper.search))")
    stepper.press("Reset")
    until(lambda: search.lab.kernel("print(id(stepper.search))") != before)
    stepper.wait("before the first update")
    return stepper


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def set_rate(search, stepper, rate: str) -> None:
    """Type a rate and wait until the kernel has it: a click may overtake it in a busy kernel."""
    field = stepper.box.get_by_label("rate of α, β, γ")
    field.fill(rate)
    field.blur()
    until(lambda: float(search.lab.kernel("print(stepper.settings['arch_lr'])")) == float(rate))


def set_menu(search, stepper, name: str, value: str) -> None:
    """Choose from a menu and wait, as :func:`set_rate` does."""
    stepper.box.get_by_label(name, exact=True).select_option(value)
    until(lambda: search.lab.kernel(f"print(stepper.settings[{name!r}])").strip() == value)


def test_a_step_changes_the_counter_the_hypernet_and_the_heatmaps(search, stepper):
    before = stepper.pictures()
    search.shot("step-0", stepper.box)
    stepper.press("Step")
    stepper.wait("step 1 ")
    after = stepper.pictures()
    assert all(before[panel] != after[panel] for panel in ("hypernet", "weights"))
    assert "training loss" in stepper.status and "328 of 329 steps left" in stepper.status
    stepper.press("Step ×10")
    stepper.wait("step 11 ")
    search.shot("step-11", stepper.box)


def test_run_runs_and_pause_stops_it(search, stepper):
    stepper.press("Run")
    stepper.wait_beyond(20)
    assert not stepper.is_on("Step")
    search.shot("running", stepper.box)
    stepper.press("Pause")
    stepper.wait_until_on("Step")
    stopped = stepper.step
    assert 20 < stopped < 329
    time.sleep(1)
    assert stepper.step == stopped == int(search.lab.kernel("print(stepper.search.step)"))
    search.shot("paused", stepper.box)


def test_the_slider_dragged_back_shows_an_earlier_state_and_the_search_goes_on(search, stepper):
    seen = {}
    for step in range(1, 5):
        stepper.press("Step")
        stepper.wait(f"step {step} ")
        seen[step] = stepper.pictures()
    stepper.press("Step ×10")
    stepper.wait("step 14 ")
    slider = stepper.box.get_by_label("time").first
    place = slider.bounding_box()
    x, y = place["x"] + place["width"] - 8, place["y"] + place["height"] / 2
    stepper.page.mouse.move(x, y)
    stepper.page.mouse.down()
    stepper.page.mouse.move(place["x"] + place["width"] / 2, y, steps=8)
    stepper.page.mouse.move(place["x"] + 8 + (place["width"] - 16) * 3 / 14, y, steps=8)
    stepper.page.mouse.up()
    stepper.wait("step 3 ")
    assert "looking back" in stepper.status and "is at step 14" in stepper.status
    search.shot("looking-back", stepper.box)
    shown = stepper.pictures()
    assert shown == seen[3]
    slider.press("ArrowRight")
    stepper.wait("step 4 ")
    stepper.press("Step")
    stepper.wait("step 15 ")


def test_train_this_one_enters_the_score_into_the_scoreboard(search, stepper):
    stepper.press("Step ×10")
    stepper.wait("step 10 ")
    stepper.press("Train this one")
    board = stepper.box.get_by_text("Scoreboard").locator("xpath=ancestor::*[table][1]")
    board.get_by_role("cell", name="step 10, pair, seed 0", exact=True).wait_for()
    shown = board.get_by_role("row").nth(1).get_by_role("cell").nth(3).inner_text()
    (entry,) = json.loads(search.lab.kernel(ENTRIES))
    assert entry["name"] == "step 10, pair, seed 0" and f"{entry['score']:.3f}" == shown
    assert entry["score"] > 0.3
    search.shot("scoreboard", stepper.box)


def test_reset_takes_the_settings_and_an_illegal_one_is_shown_as_an_error(search, stepper):
    stepper.press("Step")
    stepper.wait("step 1 ")
    set_rate(search, stepper, "-1")
    stepper.press("Reset")
    alert = stepper.box.get_by_role("alert")
    alert.get_by_text("SearchConfig.arch_lr: found -1.0; allowed: above 0.0").wait_for()
    search.shot("error", stepper.box)
    stepper.press("Step")
    stepper.wait("step 2 ")
    assert alert.count() == 0
    set_rate(search, stepper, "0.02")
    set_menu(search, stepper, "relaxation", "paper")
    set_menu(search, stepper, "schedule", "epoch")
    stepper.press("Reset")
    stepper.wait("before the first update")
    stepper.press("Step")
    stepper.wait("step 1 ")
    assert "validation loss" not in stepper.status
    assert "X = Y" in stepper.picture("weights")
    config = json.loads(search.lab.kernel("print(stepper.search.config.to_json())"))
    assert (config["relaxation"], config["schedule"]) == ("paper", "epoch")
    assert config["arch_lr"] == 0.02


def test_with_one_cell_the_rank_is_shown_and_the_run_before_stays_as_a_ghost(search, stepper):
    assert stepper.box.get_by_role("tab", name="Rank").count() == 0
    stepper.press("Step ×10")
    stepper.wait("step 10 ")
    stepper.box.get_by_label("Cells", exact=True).fill("1")
    stepper.box.get_by_label("Cells", exact=True).blur()
    until(lambda: search.lab.kernel("print(stepper.settings['N'])").strip() == "1")
    stepper.press("Reset")
    stepper.wait("rank ")
    stepper.press("Step")
    stepper.wait("step 1 ")
    rank = re.search(r"rank ([\d,]+) of 1,950", stepper.status)[1]
    table = "print(f'{stepper._table.rank(stepper.state.genotype):,}')"
    assert search.lab.kernel(table).strip() == rank
    stepper.open("Rank")
    assert stepper.box.locator(".bmnas-rank polyline").count() == 1
    stepper.press("Reset")
    stepper.wait("before the first update")
    stepper.press("Step ×10")
    stepper.wait("step 10 ")
    stepper.open("Curves")
    assert stepper.box.locator(".bmnas-curves").get_by_text("previous search").count() == 2
    search.shot("ghost", stepper.box)
    search.lab.kernel("stepper.reset(N=2)")


def test_an_error_in_the_search_appears_in_the_widget_and_leaves_it_usable(search, stepper):
    search.lab.kernel("stepper.search.hypernet.alpha.data.fill_(float('nan'))")
    stepper.press("Step")
    stepper.box.get_by_role("alert").get_by_text("not finite").wait_for()
    stepper.press("Reset")
    stepper.wait("before the first update")
    stepper.press("Step")
    stepper.wait("step 1 ")
    assert stepper.box.get_by_role("alert").count() == 0


def test_save_writes_genotype_and_history(search, stepper, lab):
    from bmnas_core import Genotype, SearchHistory

    stepper.press("Step")
    stepper.wait("step 1 ")
    stepper.press("Save")
    stepper.box.get_by_text("saved the genotype of step 1").wait_for()
    folder = lab.folder / "runs" / "stepper"
    history = SearchHistory.load(folder / "history.safetensors")
    assert history.steps.tolist() == [0, 1]
    assert Genotype.load(folder / "genotype.json") == history[1].genotype


def test_a_sample_can_be_seen_and_heard_and_its_prediction_before_and_after_a_step(search, stepper):
    stepper.open("Sample")
    panel = stepper.box.locator(".bmnas-sample")
    panel.get_by_text("Prediction at step 0").wait_for()
    for name in ("Image", "Audio"):
        picture = panel.get_by_role("img", name=f"{name}, as the network sees it")
        assert picture.evaluate("image => image.naturalWidth") >= 16
    sound = panel.locator("audio")
    seconds = sound.evaluate(
        """s => new Promise(done => {
             const tell = () => s.duration && done(s.duration);
             s.ondurationchange = tell;
             tell();
           })"""
    )
    assert 0.5 < seconds < 0.7
    cells = int(search.lab.kernel("print(stepper.search.config.N)"))
    assert panel.locator(".bmnas-node").count() == 6 + 5 * cells
    assert panel.get_by_text("was 0.").count() == 0
    stepper.press("Step")
    panel.get_by_text("Prediction at step 1").wait_for()
    assert panel.get_by_text("was 0.").count() >= 5
    before = panel.locator("img").first.get_attribute("src")
    panel.get_by_label("Image to look at").select_option(index=12)
    until(lambda: panel.locator("img").first.get_attribute("src") != before)
    assert panel.get_by_text("✓ true class").is_visible()
    search.shot("sample", stepper.box)
    stepper.box.locator('.bmnas-hypernet [id$="-c1_s1_op1"]').click()
    detail = stepper.box.locator(".bmnas-point")
    assert "This sample" in detail.inner_text() and detail.locator("canvas").count() == 3
    stepper.box.locator('.bmnas-hypernet [id$="-c1_s1_op1"]').click()
    stepper.open("Derived network")


def test_two_steppers_run_side_by_side_each_as_if_alone(search):
    pair = [Stepper(search, "bm.side_by_side", which) for which in (0, 1)]
    both = pair[0].box.locator("xpath=ancestor::*[contains(@class,'bmnas-root')][1]")
    bar = both.locator(".bmnas-bar").first
    left, right = (stepper.box.bounding_box() for stepper in pair)
    assert left["x"] + left["width"] <= right["x"] + 1 and abs(left["y"] - right["y"]) < 5
    assert both.get_by_text("Scoreboard").count() == 1
    for name in ("paper", "pair"):
        assert both.get_by_text(f"relaxation {name}", exact=True).is_visible()
    sliders = both.get_by_label("time")
    assert [slider.is_visible() for slider in sliders.all()] == [True, False]
    bar.get_by_role("button", name="Run").click()
    for stepper in pair:
        stepper.wait_beyond(10)
    bar.get_by_role("button", name="Pause").click()
    search.page.wait_for_function(
        "bar => [...bar.querySelectorAll('button')].every(b => "
        "b.innerText.trim() !== 'Run' || b.ariaDisabled === 'false')",
        arg=bar.element_handle(),
    )
    sliders.first.fill("7")
    for stepper in pair:
        stepper.wait("step 7 ")
    pair[0].open("Curves")
    assert pair[1].box.get_by_role("tab", name="Curves").get_attribute("aria-selected") == "true"
    search.shot("side-by-side", search.cell("bm.side_by_side"))
    same_alone = """
same = []
for stepper_ in both:
    old = stepper_.search
    again = bm.Search(task, old.config, seed=old.seed, device=old.device)
    history = bm.SearchHistory.from_search(again)
    for state in again:
        history.append(state)
        if again.step == old.step:
            break
    same.append(history == stepper_.history)
print(same)
"""
    assert search.lab.kernel(same_alone).strip() == "[True, True]"


def test_a_moved_slider_redraws_the_maps(search):
    cell = search.cell("bm.interactive(stand_at")
    cell.scroll_into_view_if_needed()
    box = cell.locator(".bmnas-root").first
    box.locator("svg").first.wait_for()
    before = box.locator("svg").first.evaluate("e => e.outerHTML")
    # Whether the picture, and each image in it, was there whenever the browser painted.
    whole = search.page.evaluate_handle(
        """box => {
             const seen = { frames: 0, gaps: 0, heights: new Set() };
             const look = () => {
               const shown = [...box.querySelectorAll("svg")].filter(s => s.checkVisibility({
                 visibilityProperty: true }));
               seen.frames += 1;
               seen.gaps += shown.length === 1 ? 0 : 1;
               seen.heights.add(Math.round(shown[0]?.getBoundingClientRect().height ?? 0));
               requestAnimationFrame(look);
             };
             look();
             return seen;
           }""",
        box.element_handle(),
    )
    handle = cell.locator(".noUi-handle").first
    for _ in range(5):
        handle.press("ArrowRight")
    search.page.wait_for_function(
        "([box, before]) => box.querySelector('svg').outerHTML !== before",
        arg=[box.element_handle(), before],
    )
    seen = whole.evaluate("seen => ({...seen, heights: [...seen.heights]})")
    assert seen["frames"] > 5 and seen["gaps"] == 0 and len(seen["heights"]) == 1
    search.shot("interactive", cell)


def test_clearing_the_output_stops_the_run(search):
    stepper = Stepper(search, STEPPER)
    stepper.press("Reset")
    stepper.wait("before the first update")
    stepper.press("Run")
    stepper.wait_until_on("Pause")
    stepper.cell.locator(".jp-InputArea").first.click()
    search.menu("Edit", "Clear Cell Output")
    time.sleep(1)
    step = int(search.lab.kernel("print(stepper.search.step)"))
    time.sleep(1.5)
    assert int(search.lab.kernel("print(stepper.search.step)")) == step < 329
    search.menu("Run", "Run Selected Cell")
    stepper.button("Reset").wait_for()


@pytest.fixture(scope="module")
def genotypes(lab, browser, shots):
    """Notebook 05."""
    yield (notebook := Notebook(lab, browser, "05_genotypes", shots))
    assert not notebook.errors, notebook.errors


def test_the_editor_follows_every_menu(genotypes):
    from bmnas_core import Genotype

    cell = genotypes.cell("editor = bm.GenotypeEditor").locator(".widget-vbox").first
    cell.scroll_into_view_if_needed()

    def now() -> Genotype:
        return Genotype.from_json(genotypes.lab.kernel("print(editor.genotype.to_json())"))

    def press(name):
        cell.locator("button", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$")).first.click()

    def wait_for(text):
        cell.locator("svg text").get_by_text(text, exact=True).first.wait_for()

    press("Reset")
    wait_for("Cell 1 (Image_3, Audio_3) · attention on attention")
    _, x, y, motif, op1, a1, b1, *_ = cell.locator("select").all()
    offered = x.evaluate("s => [...s.options].map(o => o.text)")
    assert offered == list(now().features)
    assert b1.evaluate("s => [...s.options].map(o => o.text)") == ["X", "Y"]
    parameters = cell.get_by_text(" parameters, ").inner_text()
    x.select_option("Audio_3")  # Y has it: the two swap
    wait_for("Cell 1 (Audio_3, Image_3) · attention on attention")
    chosen = [menu.evaluate("s => s.selectedOptions[0].text") for menu in (x, y)]
    assert chosen == ["Audio_3", "Image_3"] and now().cells[0].inputs == ("Audio_3", "Image_3")
    press("+ Cell")
    wait_for("Cell 2 (C1, Audio_3) · Sum")
    assert cell.get_by_text(" parameters, ").inner_text() != parameters
    second = cell.locator('select[aria-label="Cell 2, input X"]')
    assert second.evaluate("s => [...s.options].map(o => o.text)") == [*offered, "C1"]
    press("+ step")
    wait_for("S3 Sum")
    motif = cell.locator('select[aria-label="Cell 1, steps"]')
    motif.select_option("two-head attention")
    wait_for("Cell 1 (Audio_3, Image_3) · two-head attention")
    genotypes.shot("editor", cell)
    press("Train this one")
    cell.get_by_role("cell", name="edited 2", exact=True).wait_for()
    genotypes.shot("editor-trained", cell)
    assert [len(c.steps) for c in now().cells] == [2, 1]


def test_an_edge_of_the_editors_picture_is_moved_by_mouse_and_by_keyboard(genotypes):
    cell = genotypes.cell("editor = bm.GenotypeEditor").locator(".bmnas-root").first
    cell.locator("button", has_text=re.compile(r"^\s*Reset\s*$")).first.click()
    graph = cell.locator(".bmnas-graph")
    title = graph.locator("svg text")
    title.get_by_text("Cell 1 (Image_3, Audio_3)").wait_for()

    def part(name):
        return graph.locator(f'[data-at="{name}"]')

    assert graph.locator("svg text").get_by_text("your own").is_visible()
    edge = part("f2-c1_x").locator("path.bmnas-aim")
    x, y = edge.evaluate(
        """e => { const p = e.getPointAtLength(30).matrixTransform(e.getScreenCTM());
                  return [p.x, p.y]; }"""
    )
    genotypes.page.mouse.click(x, y)
    graph.get_by_text("Cell 1 X: click its new source").wait_for()
    part("f0").click()
    title.get_by_text("Cell 1 (Image_1, Audio_3)").wait_for()
    part("f5-c1_y").focus()
    genotypes.page.keyboard.press("Enter")
    graph.get_by_text("Cell 1 Y: click its new source").wait_for()
    part("f4").focus()
    genotypes.page.keyboard.press("Enter")
    title.get_by_text("Cell 1 (Image_1, Audio_2)").wait_for()
    part("c1_s1").click()
    genotypes.page.wait_for_function("document.activeElement.ariaLabel === 'Cell 1 S1, operation'")
    cell.get_by_role("button", name="Undo").click()
    title.get_by_text("Cell 1 (Image_1, Audio_3)").wait_for()
    cell.get_by_label("compare with").select_option("the starting genotype")
    graph.get_by_text("differs from the starting genotype").wait_for()
    genotypes.shot("editor-compared", cell)
    cell.get_by_label("compare with").select_option("nothing")
    names = cell.locator("select").evaluate_all(
        "all => all.map(s => s.ariaLabel || s.labels[0]?.innerText || '')"
    )
    assert all(names) and len({*names}) == len(names)


def test_a_term_leads_to_its_entry_in_the_glossary(genotypes):
    page = genotypes.page
    page.locator(".jp-MarkdownCell a", has_text=re.compile("^genotype$")).first.click()
    entry = page.locator(".jp-MarkdownViewer h2[data-jupyter-id='genotype']")
    until(lambda: entry.evaluate("e => e.getBoundingClientRect().top") < 400)
    assert entry.is_visible()
    genotypes.shot("glossary")
