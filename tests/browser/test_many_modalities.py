"""Stepper and editor of six modalities, of a regression and of gaps, in JupyterLab in Chromium."""

import json

import pytest
from lab import Lab, Notebook, Stepper, write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIX = """
import numpy as np
import bmnas_core as bm

random, labels = np.random.default_rng(0), np.arange(300) % 3
names = ("Electrocardiogram", "Electroencephalogram", "Accelerometer", "Photoplethysmogram",
         "Questionnaire", "Clinical notes")
shown = random.normal(size=(3, 8))

def values():
    return shown[labels] + random.normal(size=(300, 8))

task = bm.Task.from_features("patients", {n: [values() for _ in range(4)] for n in names}, labels)
"""
VALUES = """
random, n = np.random.default_rng(0), 300
causes = random.normal(size=(n, 4))
y = 60 + 12 * causes[:, 0] + 4 * causes[:, 1]
features = {name: causes + random.normal(size=(n, 4)) for name in ("Scan", "Blood", "Notes")}
present = {"Scan": random.random(n) > 0.3, "Blood": random.random(n) > 0.2}
age = bm.Task.from_features("age", features, y, metric="rmse", present=present)
"""
NOTEBOOK = [
    SIX,
    "stepper = bm.SearchStepper(bm.Search(task, bm.SearchConfig(selection='argmax', C=16), seed=0))"
    "\nstepper",
    "editor = bm.GenotypeEditor(task)\neditor",
    VALUES,
    "of_age = bm.SearchStepper(bm.Search(age, bm.SearchConfig(selection='argmax'), seed=0))"
    "\nof_age",
]


@pytest.fixture(scope="module")
def notebook(root, tmp_path_factory, browser, shots):
    lab = Lab(tmp_path_factory.mktemp("lab"), root / "notebooks")
    write_notebook(lab.folder / "many.ipynb", NOTEBOOK)
    notebook = Notebook(lab, browser, "many", shots)
    notebook.page.set_viewport_size({"width": 1300, "height": 4200})
    yield notebook
    lab.close()
    assert not notebook.errors, notebook.errors


#: What of the texts of a widget's pictures is shown smaller than 8 pixels, or beyond the widget.
MISFITS = """box => {
  const out = box.getBoundingClientRect();
  const texts = [...box.querySelectorAll("svg text")];
  const shown = texts.filter(text => text.checkVisibility() && /[^▲▼]/.test(text.textContent));
  return shown.map(text => {
    const place = text.getBoundingClientRect(), svg = text.ownerSVGElement;
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const size = scale * parseFloat(text.getAttribute("font-size"));
    const fits = size >= 8 && place.left >= out.left && place.right <= out.right + 1;
    return fits ? null : `${text.textContent} ${size} ${place.left} ${place.right}`;
  }).filter(text => text);
}"""
#: Menus whose entry is wider than they are.
CUT = """box => [...box.querySelectorAll("select")].filter(menu => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.font = getComputedStyle(menu).font;
  const widths = [...menu.options].map(option => canvas.measureText(option.text).width);
  return Math.max(...widths) + 24 > menu.clientWidth;
}).map(menu => menu.value)"""


def test_a_stepper_of_six_modalities_can_be_read(notebook):
    stepper = Stepper(notebook, "stepper = bm.SearchStepper")
    stepper.press("Step ×10")
    stepper.wait("step 10 ")
    notebook.shot("six-stepper", stepper.box)
    assert stepper.box.evaluate(MISFITS) == []
    stepper.press("Train this one")
    board = stepper.box.get_by_text("Scoreboard").locator("xpath=ancestor::*[table][1]")
    board.get_by_role("cell", name="step 10, pair, seed 0", exact=True).wait_for()
    notebook.shot("six-scoreboard", board)
    assert stepper.box.evaluate("box => box.scrollWidth <= box.clientWidth + 1")


def test_an_editor_of_six_modalities_can_be_read(notebook):
    cell = notebook.cell("editor = bm.GenotypeEditor")
    cell.scroll_into_view_if_needed()
    box = cell.locator(".jp-OutputArea-output .widget-vbox").first
    notebook.shot("six-editor", box)
    assert box.evaluate(MISFITS) == [] and box.evaluate(CUT) == []
    first = cell.locator('select[aria-label="Cell 1, input X"]')
    offered = first.evaluate("s => [...s.options].map(o => o.text.replaceAll('\\xa0', ' '))")
    features = json.loads(
        notebook.lab.kernel("import json; print(json.dumps(editor.genotype.features))")
    )
    assert offered == features and len(features) == 24
    first.select_option("Photoplethysmogram_3")
    cell.locator("svg text").get_by_text("Photoplethysmogram_3", exact=True).first.wait_for()
    expected = "print(editor.genotype.cells[0].inputs[0])"
    assert notebook.lab.kernel(expected).strip() == "Photoplethysmogram_3"


def test_a_stepper_of_a_regression_with_gaps_ranks_the_lowest_error_first(notebook):
    stepper = Stepper(notebook, "of_age = bm.SearchStepper")
    for steps in (10, 50):
        for step in range(stepper.step + 10, steps + 1, 10):
            stepper.press("Step ×10")
            stepper.wait(f"step {step} ")
        stepper.press("Train this one")
        board = stepper.box.get_by_text("Scoreboard").locator("xpath=ancestor::*[table][1]")
        board.get_by_role("cell", name=f"step {steps}, pair, seed 0", exact=True).wait_for()
    notebook.shot("regression-stepper", stepper.box)
    assert stepper.box.evaluate(MISFITS) == []
    rows = board.get_by_role("row").all()[1:]
    scores = [float(row.get_by_role("cell").nth(3).inner_text()) for row in rows]
    assert scores == sorted(scores) and min(scores) > 1
    assert "validation rmse" in board.inner_text()
