"""How fast the stepper answers in a browser. Prints times and bytes, checks nothing.

.venv/bin/python -m pytest tests/benchmarks/test_widget_speed.py -s
"""

from statistics import median

import pytest
from lab import Lab, Notebook, Stepper, open_browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: Milliseconds from a click on Step until the page has painted another hypernet.
STEP = """
box => new Promise((answer, fail) => {
  const button = [...box.querySelectorAll("button")].find(b => b.innerText.trim() === "Step");
  const shown = () => box.querySelector(".bmnas-step").textContent;
  const before = shown(), start = performance.now();
  const poll = () => {
    if (shown() !== before) {
      requestAnimationFrame(() => setTimeout(() => answer(performance.now() - start)));
    } else if (performance.now() - start > 20000) fail(new Error("no answer"));
    else setTimeout(poll, 2);
  };
  button.click();
  poll();
})
"""
#: Milliseconds from a click on Pause until the steps can be started again.
PAUSE = """
box => new Promise((answer, fail) => {
  const button = name => [...box.querySelectorAll("button")].find(b => b.innerText.trim() === name);
  const start = performance.now();
  const poll = () => {
    if (button("Step").ariaDisabled === "false") answer(performance.now() - start);
    else if (performance.now() - start > 20000) fail(new Error("no answer"));
    else setTimeout(poll, 2);
  };
  button("Pause").click();
  poll();
})
"""
#: Milliseconds from pointing at each field until everything that is lit has its place on the page.
POINT = """
box => [...box.querySelectorAll(".bmnas-hypernet .bmnas-part")].map(part => {
  const start = performance.now();
  part.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  document.body.offsetHeight;
  return performance.now() - start;
})
"""
#: Frames that are painted in a second, over two seconds.
FRAMES = """
async box => {
  const shown = () => box.querySelector(".bmnas-step").textContent;
  let frames = 0, last = shown();
  const start = performance.now();
  while (performance.now() - start < 2000) {
    await new Promise(requestAnimationFrame);
    if (shown() !== last) { frames += 1; last = shown(); }
  }
  return frames / 2;
}
"""
#: Prints the bytes of a frame, and of all that a view is sent when it opens.
BYTES = """
import json
view = stepper._stage
print(len(json.dumps(view._frames[-1])), len(json.dumps(view._last())))
"""


def test_the_stepper_in_jupyterlab(root, chromium, tmp_path, capsys):
    lab = Lab(tmp_path, root / "notebooks")
    try:
        with open_browser(chromium) as browser:
            notebook = Notebook(lab, browser, "04_the_search", tmp_path)
            stepper = Stepper(notebook, "stepper = bm.SearchStepper")
            box, page = stepper.box.element_handle(), notebook.page
            lab.kernel("stepper.reset(N=1, epochs=20)")
            stepper.wait("before the first update")
            steps = []
            for _ in range(25):
                steps.append(page.evaluate(STEP, box))
                page.wait_for_timeout(700)  # until the pictures of the saved notebook are drawn
            points = page.evaluate(POINT, box)
            frames, pauses = [], []
            for _ in range(5):
                stepper.press("Run")
                stepper.wait_beyond(stepper.step + 5)
                frames.append(page.evaluate(FRAMES, box))
                pauses.append(page.evaluate(PAUSE, box))
            frame, all_frames = map(int, lab.kernel(BYTES).split())
    finally:
        lab.close()
    with capsys.disabled():
        for what, times in (
            ("Step, click to graph", steps),
            ("pointing to highlight", points),
            ("Pause during Run", pauses),
        ):
            print(f"\n{what}: median {median(times):.0f} ms, slowest {max(times):.0f} ms", end="")
        print(
            f"\nRun: median {median(frames):.1f} frames a second"
            f"\nbytes of a frame: {frame:,}; of a view that opens: {all_frames:,}"
        )
