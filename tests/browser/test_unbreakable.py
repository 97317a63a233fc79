"""What keys, trainings, busy cells, interrupts and restarts must not break, in JupyterLab."""

import json
import re
import time

import nbformat
import pytest
from lab import STEPPER_CELLS, Lab, Notebook, Stepper, write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

UNBROKEN = """
search = bm.Search(task, stepper.search.config, seed=stepper.search.seed, device="cpu")
history = bm.SearchHistory.from_search(search)
while search.step < stepper.search.step:
    history.append(next(search))
print(history == stepper.history)
"""


#: Makes trainings long enough to be ended.
LONG = """
from dataclasses import replace
stepper.scoreboard.config = replace(stepper.scoreboard.config, epochs=500)
"""
#: Ends whatever the test before has left, and begins anew.
AFRESH = """
stepper.pause(); stepper.cancel(); stepper.reset()
stepper.scoreboard.config = bm.TrainConfig(data="train")
stepper.scoreboard.entries.clear()
"""


@pytest.fixture(scope="module")
def notebook(root, tmp_path_factory, shots, browser):
    folder = tmp_path_factory.mktemp("lab")
    busy = "import time\ntime.sleep(6)  # a busy cell"
    write_notebook(folder / "unbreakable.ipynb", [*STEPPER_CELLS, busy])
    lab = Lab(folder, root / "notebooks")
    notebook = Notebook(lab, browser, "unbreakable", shots)
    notebook.page.set_default_timeout(40_000)
    yield notebook
    lab.close()


@pytest.fixture
def stepper(notebook):
    """A new search, whatever the test before has left."""
    stepper = Stepper(notebook, "bm.SearchStepper")
    stepper.unfold()
    notebook.lab.kernel(AFRESH)
    stepper.wait("before the first update")
    return stepper


def cells(page) -> list[str]:
    return page.locator(".jp-CodeCell .jp-InputArea").all_inner_texts()


def active(page) -> int:
    return page.evaluate(
        "[...document.querySelectorAll('.jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    )


@pytest.mark.parametrize("control", ["relaxation", "seed", "folder", "Step", "time"])
def test_keys_on_a_control_stay_there(notebook, stepper, control):
    page, before = notebook.page, cells(notebook.page)
    kinds = {"Step": stepper.button("Step"), "time": stepper.box.get_by_label("time").first}
    kinds["folder"] = stepper.box.locator("input[title=folder], [title=folder] input").first
    place = kinds.get(control) or stepper.box.get_by_label(control, exact=True)
    place.focus()
    at = active(page)
    for key in ("x", "a", "b", "d", "d", "z", "m", "ArrowDown", "ArrowUp", "j", "k"):
        page.keyboard.press(key)
    time.sleep(0.3)
    assert cells(page) == before and active(page) == at


def test_the_focus_stays_on_the_button_that_was_pressed(notebook, stepper):
    button = stepper.button("Step")
    button.focus()
    for step in (1, 2, 3):
        notebook.page.keyboard.press("Enter")
        stepper.wait(f"step {step} ")
        assert button.evaluate("b => document.activeElement === b")


def test_a_training_during_a_run_is_waited_for_and_changes_nothing(notebook, stepper):
    for _ in range(3):
        stepper.press("Run")
        stepper.wait_beyond(stepper.step + 2)
        notebook.lab.kernel("stepper.scoreboard.entries.clear()")  # nothing is trained twice
        stepper.press("Train this one")
        stepper.wait("waiting while")
        stepper.page.wait_for_function(
            "b => b.innerText.trim() === 'Train this one' && b.ariaDisabled === 'false'",
            arg=stepper.box.locator(
                "button", has_text=re.compile(r"^\s*(Train|epoch|training)")
            ).first.element_handle(),
        )
        stepper.wait_beyond(stepper.step + 2)
        stepper.press("Pause")
        time.sleep(0.5)
        assert stepper.box.get_by_role("alert").count() == 0
    assert notebook.lab.kernel(UNBROKEN).strip() == "True"


def test_a_training_can_be_cancelled(notebook, stepper):
    stepper.press("Step ×10")
    stepper.wait("step 10 ")
    before = notebook.lab.kernel("print(len(stepper.scoreboard.entries))")
    notebook.lab.kernel(LONG)
    stepper.press("Train this one")
    stepper.box.get_by_text(re.compile(r"training step 10.*epoch \d+ of 500")).wait_for()
    stepper.press("Cancel")
    stepper.box.get_by_text(re.compile("training of step 10.* stopped in epoch")).first.wait_for()
    assert notebook.lab.kernel("print(len(stepper.scoreboard.entries))") == before


def test_who_presses_while_a_cell_runs_is_told_at_once(notebook, stepper):
    notebook.cell("a busy cell").locator(".jp-InputArea").first.click()
    notebook.page.keyboard.press("Escape")
    notebook.menu("Run", "Run Selected Cell and Do not Advance|Run Selected Cell")
    note = stepper.box.get_by_text("A cell is running")
    stepper.press("Step")
    note.wait_for()
    assert stepper.step == 0  # said before the cell is done
    notebook.shot("busy", stepper.box)
    stepper.wait("step 1 ")
    note.wait_for(state="hidden")


def test_an_interrupt_of_the_kernel_stops_a_run_and_a_training(notebook, stepper):
    stepper.press("Run")
    stepper.wait_beyond(3)
    notebook.menu("Kernel", "Interrupt Kernel")
    stepper.wait_until_on("Step")
    stopped = stepper.step
    time.sleep(1)
    assert stepper.step == stopped < 329
    notebook.lab.kernel(LONG)
    stepper.press("Train this one")
    stepper.box.get_by_text(re.compile(r"training step \d+.*epoch \d+ of 500")).wait_for()
    notebook.menu("Kernel", "Interrupt Kernel")
    stepper.box.get_by_text(re.compile(r"training of step \d+.* stopped in epoch")).first.wait_for()


def test_changes_are_those_since_what_was_shown_before(notebook, stepper):
    stepper.press("Step")
    stepper.wait("step 1 ")
    stepper.press("Step ×10")
    stepper.wait("step 11 ")
    stepper.box.get_by_text(re.compile("(changed since step 1:|the same as at step 1$)")).wait_for()


def saved(notebook) -> dict:
    """The outputs of the stepper's cell in the file."""
    notebook.menu("File", "Save Notebook")
    time.sleep(1)
    nb = nbformat.read(notebook.lab.folder / "unbreakable.ipynb", 4)
    return nb


def test_a_saved_notebook_shows_the_widget_as_it_was(notebook, stepper):
    stepper.press("Step ×10")
    stepper.wait("step 10 ")
    time.sleep(0.5)
    outputs = saved(notebook).cells[1].outputs
    texts = json.dumps(outputs)
    assert "As it was when this notebook was saved" in texts and "step 10 " in texts
    pictures = [o for o in outputs if "image/svg+xml" in o.get("data", {})]
    assert len(pictures) == 4
    visible = stepper.cell.get_by_text("As it was when this notebook was saved")
    assert not visible.is_visible()


def test_a_tab_opened_again_finds_its_running_search(notebook, stepper):
    stepper.box.get_by_label("speed").select_option("slow")
    stepper.press("Run")
    stepper.wait_beyond(1)
    saved(notebook)
    notebook.page.reload()
    notebook.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    again = Stepper(notebook, "bm.SearchStepper")
    again.box.locator(".bmnas-hypernet svg").wait_for()
    assert again.is_on("Pause")
    again.wait_beyond(again.step)
    again.press("Pause")
    again.wait_until_on("Step")
    again.box.get_by_label("time").first.fill("0")
    again.wait("before the first update")
    again.box.get_by_label("speed").select_option("normal")


def test_after_a_restart_it_is_said_what_to_do(notebook, stepper):
    notebook.menu("Kernel", "Restart Kernel…")
    notebook.page.locator(".jp-Dialog button.jp-mod-accept").click()
    stepper.box.get_by_text("Kernel restarted: run this cell again.").wait_for()
    notebook.shot("restarted", stepper.box)
    assert stepper.button("Step").get_attribute("aria-disabled") == "true"


def test_a_notebook_opened_again_shows_pictures_in_place_of_a_widget_that_is_gone(notebook):
    saved(notebook)
    page = notebook.page
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    cell = notebook.cell("bm.SearchStepper")
    cell.get_by_text("As it was when this notebook was saved").wait_for()
    assert cell.locator(".jp-RenderedSVG").count() == 4
    notebook.shot("opened-again", cell)
    assert not cell.get_by_text("Error displaying widget").is_visible()


def test_a_notebook_that_is_not_trusted_shows_pictures_too(notebook):
    path = notebook.lab.folder / "unbreakable.ipynb"
    nb = nbformat.read(path, 4)
    nb.cells[0].source += "  # changed elsewhere"  # so that its signature is gone
    nbformat.write(nb, path)
    page = notebook.page
    page.goto("about:blank")
    page.goto(f"http://127.0.0.1:{notebook.lab.port}/lab/tree/unbreakable.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    cell = notebook.cell("bm.SearchStepper")
    cell.locator(".jp-RenderedImage img").first.wait_for()
    widths = cell.locator(".jp-RenderedImage img").evaluate_all(
        "all => all.map(i => i.naturalWidth)"
    )
    assert len(widths) == 4 and min(widths) > 300
    assert cell.locator(".jp-RenderedSVG").count() == 0
    notebook.shot("untrusted", cell)
