"""Make the film and the pictures of the stepper in the README, in a real JupyterLab in Chromium.

python assets/figures/build_film.py        # needs the extras dev and tasks, and Chromium; 2 min
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conftest import system_program  # noqa: E402
from lab import (  # noqa: E402
    STEPPER_CELLS,
    Lab,
    Notebook,
    Stepper,
    open_browser,
    write_notebook,
)

#: Size of the film in pixels, colours, and milliseconds of a frame while something moves.
WIDTH, HEIGHT, COLOURS, MOVING = 1000, 640, 128, 200
#: A pointer that is in the picture: a browser without a screen shows none.
POINTER = """() => {
  const dot = document.createElement("div");
  dot.id = "pointer";
  dot.style.cssText = "position:fixed;z-index:99;width:16px;height:16px;margin:-8px;"
    + "border-radius:50%;background:rgba(196,69,0,.55);border:2px solid #C44500;left:-30px;top:0;"
    + "pointer-events:none";
  (document.fullscreenElement ?? document.body).append(dot);
  document.addEventListener("mousemove", event => {
    dot.style.left = `${event.clientX}px`; dot.style.top = `${event.clientY}px`;
  }, true);
}"""


class Film:
    """Frames of a page with how long each is shown; those that are alike are one."""

    def __init__(self, page):
        self.page, self.frames, self.times = page, [], []

    def shoot(self, milliseconds: int = MOVING) -> None:
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if self.frames and image.tobytes() == self.frames[-1].tobytes():
            self.times[-1] += milliseconds
        else:
            self.frames.append(image)
            self.times.append(milliseconds)

    def move(self, locator, stay: int = 600) -> None:
        """Move the pointer to the middle of a part of the page, and stay there."""
        place = locator.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        self.page.mouse.move(x, y, steps=4)
        self.page.wait_for_timeout(300)
        self.shoot(stay)

    def press(self, locator, stay: int = 900) -> None:
        self.move(locator, 300)
        self.page.mouse.down()
        self.page.mouse.up()
        for _ in range(2):
            self.page.wait_for_timeout(150)
            self.shoot()
        self.page.wait_for_timeout(400)
        self.shoot(stay)

    def save(self, path: Path) -> None:
        some = self.frames[:: max(1, len(self.frames) // 6)]  # from which the colours are taken
        sheet = Image.new("RGB", (WIDTH, HEIGHT * len(some)))
        for k, frame in enumerate(some):
            sheet.paste(frame, (0, HEIGHT * k))
        palette = sheet.quantize(COLOURS)
        frames = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames
        ]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=self.times,
            loop=0,
            optimize=True,
        )
        seconds, size = sum(self.times) / 1000, path.stat().st_size / 1e6
        print(f"{path.name}: {seconds:.0f} s, {len(frames)} frames, {size:.2f} MB")


def play(notebook: Notebook) -> None:
    """The film: Step, what changes, the derived network, its rank."""
    page, stepper = notebook.page, Stepper(notebook, "bm.SearchStepper")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    stepper.box.get_by_role("button", name="full screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    page.evaluate(POINTER)
    page.wait_for_timeout(800)
    film = Film(page)
    film.shoot(1000)
    for _ in range(2):
        film.press(stepper.button("Step"), 1000)
    film.press(stepper.box.get_by_role("button", name="Magnify"), 1200)
    film.press(stepper.box.get_by_role("button", name="Magnify"), 300)
    film.press(stepper.button("To a change"), 1000)
    stepper.press("Run")
    film.move(stepper.box.get_by_role("tab", name="Rank"), 200)
    for _ in range(12):
        page.wait_for_timeout(350)
        film.shoot(250)
    page.mouse.down()
    page.mouse.up()
    for _ in range(8):
        page.wait_for_timeout(350)
        film.shoot(250)
    if stepper.is_on("Pause"):
        stepper.press("Pause")
    page.wait_for_timeout(500)
    film.shoot(1500)
    film.move(stepper.box.locator('.bmnas-hypernet [id$="-c1_s1_op2"]'), 1600)
    film.press(stepper.box.get_by_role("tab", name="Derived network"), 2200)
    film.save(HERE / "stepper.gif")
    stepper.box.get_by_role("button", name="full screen").click()


def pictures(notebook: Notebook) -> None:
    """Three pictures: the stepper on a large screen, a sample, and the editor."""
    page, stepper = notebook.page, Stepper(notebook, "bm.SearchStepper")
    page.evaluate("document.getElementById('pointer').remove()")
    page.set_viewport_size({"width": 1680, "height": 960})
    page.wait_for_timeout(500)
    stepper.box.evaluate("e => e.scrollIntoView({ block: 'start' })")
    stepper.press("Reset")
    stepper.wait("before the first update")
    for step in (10, 20, 30):
        stepper.press("Step ×10")
        stepper.wait(f"step {step} ")
    page.wait_for_timeout(600)
    stepper.box.locator('.bmnas-hypernet [id$="-c1_s2_op2"]').hover()
    page.wait_for_timeout(400)
    stepper.box.screenshot(path=HERE / "stepper.png")
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.wait_for_timeout(500)
    stepper.open("Sample")
    page.wait_for_timeout(1200)
    stepper.press("Step ×10")
    page.wait_for_timeout(2000)
    stepper.box.screenshot(path=HERE / "sample.png")
    editor = notebook.cell("bm.GenotypeEditor").locator(".bmnas-root").first
    editor.scroll_into_view_if_needed()
    editor.get_by_role("button", name="+ Cell").click()
    editor.get_by_label("compare with").select_option("the starting genotype")
    editor.locator('[data-at="f2-c1_x"]').focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(800)
    editor.screenshot(path=HERE / "editor.png")


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    editor = "editor = bm.GenotypeEditor(task)\neditor"
    write_notebook(folder / "film.ipynb", [*STEPPER_CELLS, editor])
    lab = Lab(folder, ROOT / "notebooks")
    chromium = system_program("chromium", "chromium-browser", "google-chrome")
    try:
        with open_browser(chromium) as browser:
            notebook = Notebook(lab, browser, "film", folder)
            play(notebook)
            pictures(notebook)
    finally:
        lab.close()


if __name__ == "__main__":
    main()
