"""How fast the stepper answers in a browser. Prints times, checks nothing.

.venv/bin/python -m pytest tests/benchmarks/test_widget_speed.py -s
"""

from statistics import median

import pytest
from lab import Lab, Notebook, Stepper, open_browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: Milliseconds from a click on a button until the page has painted the result.
CLICK = """
([box, name, done]) => new Promise((answer, fail) => {
  const button = name =>
    [...box.querySelectorAll("button")].find(b => b.innerText.trim() === name);
  const text = () => box.querySelector("[role=status]").innerText;
  const before = text(), start = performance.now();
  const isDone = { redrawn: () => text() !== before && !button("Step").disabled,
                   stopped: () => button("Pause").disabled }[done];
  const poll = () => {
    if (isDone()) requestAnimationFrame(() => setTimeout(() => answer(performance.now() - start)));
    else if (performance.now() - start > 20000) fail(new Error("no answer"));
    else setTimeout(poll, 2);
  };
  button(name).click();
  poll();
})
"""


def test_step_and_pause_in_jupyterlab(root, chromium, tmp_path, capsys):
    lab = Lab(tmp_path, root / "notebooks")
    try:
        with open_browser(chromium) as browser:
            notebook = Notebook(lab, browser, "04_the_search", tmp_path)
            stepper = Stepper(notebook, "stepper = bm.SearchStepper")
            box = stepper.box.element_handle()

            def click(name, done):
                return notebook.page.evaluate(CLICK, [box, name, done])

            steps = [click("Step", "redrawn") for _ in range(25)]
            pauses = []
            for k in range(5):
                stepper.press("Run")
                stepper.wait_beyond(40 + 30 * k)
                pauses.append(click("Pause", "stopped"))
    finally:
        lab.close()
    with capsys.disabled():
        print(
            f"\nStep, click to redraw: median {median(steps):.0f} ms, slowest {max(steps):.0f} ms"
            f"\nPause during Run: median {median(pauses):.0f} ms, slowest {max(pauses):.0f} ms"
        )
