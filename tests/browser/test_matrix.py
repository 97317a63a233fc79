"""The stepper on screens of all sizes, in light and dark; in Notebook 7 and in Voilà."""

import pytest
from axe import faults
from lab import STEPPER_CELLS, Lab, Notebook, Stepper, write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: What is on one screen where nothing is scrolled; on a narrow one a tab at a time.
BAR, PICTURES = (".bmnas-bar", ".bmnas-head"), (".bmnas-hypernet svg", ".bmnas-network svg")
SIZES = {"laptop": (1280, 800), "desktop": (1920, 1080), "half": (960, 1080)}


def open_notebook(kind, root, folder, browser, shots):
    write_notebook(folder / "stage.ipynb", STEPPER_CELLS)
    lab = Lab(folder, root / "notebooks", kind, "stage.ipynb")
    return Notebook(lab, browser, "stage", shots)


@pytest.fixture(scope="module")
def notebook(root, tmp_path_factory, browser, shots):
    notebook = open_notebook("lab", root, tmp_path_factory.mktemp("lab"), browser, shots)
    yield notebook
    notebook.lab.close()
    assert not notebook.errors, notebook.errors


def afresh(notebook, size: tuple[int, int]) -> Stepper:
    """The stepper before its first step, at the top of a screen of this size."""
    width, height = size
    notebook.page.set_viewport_size({"width": width, "height": height})
    stepper = Stepper(notebook, "bm.SearchStepper")
    if stepper.is_on("Pause"):
        stepper.press("Pause")
        stepper.wait_until_on("Step")
    stepper.press("Reset")
    stepper.wait("before the first update")
    if stepper.box.get_by_role("tab", name="Derived network").count():
        stepper.open("Derived network")
    stepper.box.evaluate("e => e.scrollIntoView({ block: 'start' })")
    notebook.page.wait_for_timeout(500)
    return stepper


def states(stepper: Stepper, shot) -> None:
    """Bring the stepper into each state that a class may see, and take pictures."""
    page = stepper.page
    shot("start")
    stepper.press("Step")
    stepper.wait("step 1 ")
    stepper.box.get_by_role("button", name="Magnify").click()
    page.wait_for_timeout(300)
    shot("first-step-magnified")
    stepper.box.get_by_role("button", name="Magnify").click()
    stepper.press("Run")
    stepper.wait_beyond(40)
    shot("running")
    stepper.press("Pause")
    stepper.wait_until_on("Step")
    stepper.box.get_by_label("time").first.fill("20")
    stepper.wait("looking back")
    shot("looking-back")
    stepper.box.get_by_role("button", name="Back to now").click()
    if stepper.box.get_by_role("tab", name="Hypernet").count():
        stepper.open("Hypernet")
    stepper.box.locator(".bmnas-hypernet .bmnas-part.node").nth(2).hover()
    page.wait_for_timeout(200)
    shot("pointed")
    stepper.open("Rank")
    shot("rank")


def test_on_a_laptop_all_that_belongs_together_is_on_one_screen(notebook):
    stepper = afresh(notebook, SIZES["laptop"])
    stepper.press("Step")
    stepper.wait("step 1 ")
    check_together(stepper)
    notebook.shot("laptop")


def check_together(stepper: Stepper) -> None:
    height = stepper.page.viewport_size["height"]
    narrow = stepper.box.get_by_role("tab", name="Hypernet").count() > 0
    for part in (*BAR, *PICTURES[narrow:]):
        place = stepper.box.locator(part).first.bounding_box()
        assert place["y"] >= 0 and place["y"] + place["height"] <= height, part
        assert place["height"] > 20, part


def test_the_bar_stays_in_view_when_the_page_is_scrolled(notebook):
    stepper = afresh(notebook, (1280, 600))
    top = stepper.box.bounding_box()["y"]
    stepper.box.locator(".bmnas-network").hover()
    notebook.page.mouse.wheel(0, 300)
    notebook.page.wait_for_timeout(300)
    assert stepper.box.bounding_box()["y"] < top - 100
    place = stepper.box.locator(".bmnas-bar").bounding_box()
    assert place["y"] >= 60 and place["y"] < top + 10
    assert stepper.box.locator(".bmnas-head").bounding_box()["y"] >= place["y"]
    stepper.press("Step")
    stepper.wait("step 1 ")


def test_full_screen_shows_the_stepper_alone(notebook):
    stepper = afresh(notebook, SIZES["laptop"])
    stepper.box.get_by_role("button", name="full screen").click()
    notebook.page.wait_for_function("document.fullscreenElement !== null")
    notebook.page.wait_for_timeout(400)
    check_together(stepper)
    assert stepper.box.bounding_box()["width"] > 1250
    notebook.shot("full-screen")
    stepper.box.get_by_role("button", name="full screen").click()
    notebook.page.wait_for_function("document.fullscreenElement === null")


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", ["Light", "Dark"])
@pytest.mark.parametrize("screen", SIZES)
def test_each_state_on_each_screen(notebook, screen, scheme):
    notebook.theme(f"JupyterLab {scheme}")
    stepper = afresh(notebook, SIZES[screen])
    check_together(stepper)
    states(stepper, lambda state: notebook.shot(f"{screen}-{scheme.lower()}-{state}"))
    assert stepper.box.evaluate("box => box.scrollWidth <= box.clientWidth + 1")
    notebook.theme("JupyterLab Light")


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["notebook", "voila"])
def test_it_works_in_notebook_7_and_in_voila(kind, root, tmp_path, browser, shots):
    notebook = open_notebook(kind, root, tmp_path, browser, shots)
    try:
        notebook.page.set_viewport_size({"width": 1280, "height": 800})
        stepper = Stepper(notebook, "bm.SearchStepper")
        stepper.press("Step")
        stepper.wait("step 1 ")
        stepper.press("Run")
        stepper.wait_beyond(12)
        stepper.press("Pause")
        stepper.wait_until_on("Step")
        stepper.box.get_by_label("time").first.fill("3")
        stepper.wait("step 3 ")
        stepper.press("Train this one")
        stepper.box.get_by_text("validation accuracy 0.").first.wait_for()
        notebook.page.keyboard.press("x")
        stepper.box.evaluate("e => e.scrollIntoView({ block: 'start' })")
        assert faults(notebook.page, ".bmnas-root") == []
        notebook.shot(kind)
    finally:
        notebook.lab.close()
