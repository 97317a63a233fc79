"""axe-core finds nothing serious in what the kit shows, in light and dark."""

import json

import nbformat
import pytest
from axe import faults
from lab import STEPPER_CELLS, Lab, Notebook, Stepper, write_notebook
from saved_runs import GENOTYPE, write_run

from bmnas_core import Search, SearchConfig, SearchHistory, collect, load_task, write_report
from bmnas_core.experiments.page import write_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCHEMES = pytest.mark.parametrize(
    "scheme", ["light", pytest.param("dark", marks=pytest.mark.nightly)]
)


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def notebook(root, tmp_path_factory, shots, browser):
    folder = tmp_path_factory.mktemp("lab")
    editor = "editor = bm.GenotypeEditor(task)\neditor"
    write_notebook(folder / "stage.ipynb", [*STEPPER_CELLS, editor])
    lab = Lab(folder, root / "notebooks")
    notebook = Notebook(lab, browser, "stage", shots)
    yield notebook
    lab.close()
    assert not notebook.errors, notebook.errors


@SCHEMES
def test_a_stepper_and_an_editor(notebook, scheme):
    notebook.theme(f"JupyterLab {scheme.title()}")
    notebook.page.set_viewport_size({"width": 1280, "height": 1000})
    stepper = Stepper(notebook, "bm.SearchStepper")
    stepper.unfold()
    step = stepper.step
    stepper.press("Step ×10")
    stepper.wait_beyond(step)
    stepper.wait_until_on("Step")
    stepper.press("Train this one")
    stepper.box.get_by_text("validation accuracy 0.").first.wait_for()
    for tab in ("Derived network", "α, β, γ", "Curves", "Rank", "Sample"):
        stepper.open(tab)
        if tab == "Sample":
            stepper.box.get_by_text("Prediction at step").wait_for()
        notebook.page.wait_for_timeout(300)
        assert faults(notebook.page, ".bmnas-root") == []
    notebook.shot(f"stepper-{scheme}", stepper.box)
    editor = notebook.cell("bm.GenotypeEditor")
    editor.scroll_into_view_if_needed()
    notebook.shot(f"editor-{scheme}", editor)
    notebook.theme("JupyterLab Light")


@SCHEMES
def test_a_replay(page, scheme, tmp_path):
    task = load_task("digits", rule="sum")
    search = Search(task, SearchConfig(selection="argmax"), seed=0, device="cpu")
    history = SearchHistory.from_search(search)
    for _ in range(12):
        history.append(next(search))
    page.emulate_media(color_scheme=scheme)
    page.goto(history.to_html(tmp_path / "replay.html").as_uri())
    page.locator(".bmnas-hypernet svg").wait_for()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(200)
        assert faults(page) == []


@pytest.fixture(scope="module")
def run_page(root, notebook_runs):
    name = "02_primitive_operations"
    nb = nbformat.read(root / "notebooks" / f"{name}.ipynb", 4)
    path = notebook_runs / f"{name}.html"
    assert write_page(nb, path, root / "notebooks") == ""
    return path.as_uri()


@SCHEMES
def test_the_page_of_a_run(page, run_page, scheme, notebook_runs):
    page.emulate_media(color_scheme=scheme)
    page.goto(run_page)
    page.screenshot(path=notebook_runs / f"run_page_{scheme}.png")
    assert faults(page) == []


@SCHEMES
def test_a_report(page, scheme, tmp_path):
    for k in range(4):
        write_run(
            tmp_path / "s" / str(k),
            parameters={"relaxation": ("pair", "paper")[k % 2]},
            seed=k // 2,
            test=0.9 + k / 1000,
            genotype=json.loads(GENOTYPE.to_json()),
        )
    page.emulate_media(color_scheme=scheme)
    page.goto(write_report(collect(tmp_path / "s"), tmp_path / "report.html").as_uri())
    page.locator("#all-runs-table tbody tr").first.wait_for()
    assert faults(page) == []
