"""A real JupyterLab in Chromium: a notebook run in it, and a SearchStepper as a person sees it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import nbformat
import pytest

TOKEN = "a-token-for-the-tests"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false"},
    "notebook-extension/tracker": {"windowingMode": "none"},
    "docmanager-extension/plugin": {"autosave": False},
}
#: Where JupyterLab shows tracebacks, and what cells print to stderr.
STDERR = '[data-mime-type="application/vnd.jupyter.stderr"]'
#: The pictures of a stepper's stage, by their panels.
PANELS = ("hypernet", "weights", "network")
#: Parameters of the notebooks that the tests replace with quicker ones.
QUICK = {"search_epochs = 7": "search_epochs = 1", "epochs = 15": "epochs = 2"}


#: Cells of a notebook with a stepper of one Cell.
STEPPER_CELLS = (
    "import bmnas_core as bm\n"
    'task = bm.load_task("digits", rule="sum")\n'
    'config = bm.SearchConfig(epochs=7, selection="argmax")',
    'stepper = bm.SearchStepper(bm.Search(task, config, device="cpu"))\nstepper',
)


def write_notebook(path: Path, cells: Iterable[str]) -> None:
    """Write a notebook of code cells."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(nb, path)


@contextmanager
def open_browser(chromium: str):
    """Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-sync"]
        )
        yield browser
        browser.close()


class Lab:
    """A server on a free port of this machine, with copies of notebooks 04 and 05 and the glossary.

    It is JupyterLab's; or Notebook 7's, or Voilà's of one notebook.
    """

    def __init__(self, folder: Path, notebooks: Path, kind: str = "lab", voila: str = ""):
        self.folder, self.kind = folder, kind
        for path in notebooks.glob("0[45]*.ipynb"):
            nb = nbformat.read(path, 4)
            (parameters,) = (c for c in nb.cells if "parameters" in c.metadata.get("tags", ()))
            for slow, quick in QUICK.items():
                parameters.source = re.sub(rf"^{slow}", quick, parameters.source, flags=re.M)
            for cell in nb.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
            nbformat.write(nb, folder / path.name)
        shutil.copy(notebooks / "glossary.md", folder)
        settings = folder / "settings"
        for name, values in SETTINGS.items():
            path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("BMNAS_UNATTENDED", None)
        for name in ("CONFIG", "DATA", "RUNTIME"):
            environment[f"JUPYTER_{name}_DIR"] = str(folder / name.lower())
        environment |= {"JUPYTERLAB_SETTINGS_DIR": str(settings), "IPYTHONDIR": str(folder / "ip")}
        module = {"lab": "jupyterlab", "notebook": "notebook", "voila": "voila"}[kind]
        command = [sys.executable, "-m", module, "--no-browser", f"--port={self.port}"]
        if kind == "voila":
            command += [str(folder / voila), "--Voila.ip=127.0.0.1", f"--Voila.token={TOKEN}"]
        else:
            command += ["--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}"]
            command += [f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
            command += ["--LabApp.expose_app_in_browser=True"] if kind == "lab" else []
            command += ["--allow-root"] if os.getuid() == 0 else []
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                path = "voila/static/voila.js" if self.kind == "voila" else "api"
                urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5).close()
                return
            except HTTPError:
                return  # it answers
            except (URLError, OSError):
                if self.server.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    pytest.fail(f"JupyterLab did not start:\n{self.log.read_text()[-2000:]}")
                time.sleep(0.3)

    def close(self) -> None:
        self.server.terminate()
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()

    def kernel(self, code: str) -> str:
        """Run ``code`` in the kernel started last; returns what it prints."""
        from jupyter_client import BlockingKernelClient

        file = max((self.folder / "runtime").glob("kernel-*.json"), key=os.path.getmtime)
        client = BlockingKernelClient(connection_file=str(file))
        client.load_connection_file()
        client.start_channels()
        try:
            texts: list[str] = []
            client.execute_interactive(
                code,
                timeout=60,
                output_hook=lambda message: texts.append(message["content"].get("text", "")),
            )
            return "".join(texts)
        finally:
            client.stop_channels()


class Notebook:
    """A notebook open in JupyterLab, with all its cells run."""

    def __init__(self, lab: Lab, browser, name: str, shots: Path):
        self.lab, self.shots = lab, shots
        self.errors: list[str] = []
        self.page = browser.new_context(viewport={"width": 1500, "height": 1400}).new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        path = {
            "lab": f"lab/workspaces/{name}/tree/{name}.ipynb",
            "notebook": f"notebooks/{name}.ipynb",
            "voila": "",
        }[lab.kind]
        self.page.goto(f"http://127.0.0.1:{lab.port}/{path}?token={TOKEN}")
        if lab.kind == "voila":  # which runs it by itself
            self.page.locator(".bmnas-root").first.wait_for(timeout=180_000)
            return
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        if lab.kind == "lab":
            self.page.wait_for_function("() => document.body.innerText.includes('| Idle')")
        else:
            self.page.locator(".jp-NotebookKernelStatus, .jp-Toolbar-kernelStatus").first.wait_for()
            time.sleep(3)
        self.menu("Run", "Run All Cells")
        self.page.wait_for_function(
            """stderr => {
                 const every = selector => [...document.querySelectorAll(selector)];
                 return every('.jp-CodeCell .jp-InputPrompt').every(
                     prompt => /\\[\\d+\\]/.test(prompt.innerText))
                   || every(stderr).some(output => output.innerText.includes("Traceback"));
               }""",
            arg=STDERR,
            timeout=180_000,
        )
        for error in self.page.locator(STDERR, has_text="Traceback").all_inner_texts():
            pytest.fail(f"{name}: {error}")

    def _on_console(self, message) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def menu(self, *path: str) -> None:
        bar, entry = path
        self.page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{bar}$")).click()
        self.page.locator(".lm-Menu-item", has_text=re.compile(f"^{entry}")).first.click()

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme: "JupyterLab Dark"."""
        command = "name => jupyterapp.commands.execute('apputils:change-theme', { theme: name })"
        self.page.evaluate(command, name)
        light = "true" if "Light" in name else "false"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")

    def cell(self, text: str):
        """The cell whose code contains ``text``."""
        return self.page.locator(".jp-CodeCell", has_text=text).first

    def shot(self, name: str, locator=None) -> None:
        (locator or self.page).screenshot(path=self.shots / f"{name}.png")


class Stepper:
    """A SearchStepper on the page: what a person sees of it and presses."""

    def __init__(self, notebook: Notebook, cell: str, which: int = 0):
        self.page = notebook.page
        self.cell = notebook.cell(cell) if notebook.lab.kind != "voila" else self.page
        if self.cell is not self.page:
            self.cell.scroll_into_view_if_needed()
        reset = self.cell.locator("button", has_text="Reset").nth(which)
        self.box = reset.locator("xpath=ancestor::*[contains(@class,'bmnas-root')][1]")

    def unfold(self) -> None:
        """Show the settings."""
        if not self.box.get_by_label("relaxation", exact=True).is_visible():
            self.press("Settings")

    def button(self, name: str):
        return self.box.locator("button", has_text=re.compile(rf"^\s*{name}\s*$")).first

    def press(self, name: str) -> None:
        self.button(name).click()

    @property
    def status(self) -> str:
        return self.box.get_by_role("status").first.inner_text()

    @property
    def step(self) -> int:
        return int(re.search(r"step (\d+)", self.status)[1])

    def picture(self, panel: str) -> str:
        """The picture of a panel, whether it is the open tab or not."""
        return self.box.locator(f".bmnas-{panel} svg").first.evaluate("e => e.outerHTML")

    def pictures(self) -> dict[str, str]:
        return {panel: self.picture(panel) for panel in PANELS}

    def open(self, name: str) -> None:
        """Open a tab."""
        self.box.get_by_role("tab", name=name).click()

    def wait(self, text: str) -> None:
        self.box.get_by_role("status").first.get_by_text(text).wait_for()

    def is_on(self, name: str) -> bool:
        return self.button(name).get_attribute("aria-disabled") == "false"

    def wait_until_on(self, name: str, on: bool = True) -> None:
        """Wait until a button can be pressed, or cannot."""
        self.page.wait_for_function(
            "([b, off]) => b.ariaDisabled === off",
            arg=[self.button(name).element_handle(), "false" if on else "true"],
        )

    def wait_beyond(self, step: int) -> None:
        self.page.wait_for_function(
            """([box, step]) => {
                 const status = box.querySelector("[role=status]").innerText;
                 return Number(/step (\\d+)/.exec(status)[1]) > step;
               }""",
            arg=[self.box.element_handle(), step],
        )
