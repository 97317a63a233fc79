"""Where widgets do their work: a thread for searches, one for trainings, the kernel for the rest.

A widget lives in the kernel's event loop and asks a worker thread for one step or epoch at a time,
so that the interface answers in between. While a cell of the notebook runs, the workers wait: they
would draw random numbers from the same generator. Callbacks of other widgets are not minded.
"""

from __future__ import annotations

import asyncio
import html
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import anywidget
import ipywidgets as ipw
import traitlets

from ..errors import BmnasError
from ..progress import is_interactive

#: One thread for steps of searches and one for trainings, so that these do not wait for those.
SEARCHES = ThreadPoolExecutor(1, thread_name_prefix="bmnas-search")
TRAININGS = ThreadPoolExecutor(1, thread_name_prefix="bmnas-training")
_RUNNING: set[asyncio.Task] = set()


class BrowserBridge(anywidget.AnyWidget):
    """What the browser tells of a widget: how often it is on the page, which frame was painted.

    With ``last`` at 0 or more it shows itself as a slider over frames 0 to ``last``. It asks for a
    frame only when the one before is painted, however fast it is dragged.
    """

    _esm = """
    export default {
      render({ model, el }) {
        const slider = document.createElement("input");
        slider.type = "range";
        slider.min = 0;
        slider.style.flex = "1";
        slider.setAttribute("aria-label", "time");
        slider.dataset.lmSuppressShortcuts = "true";  // arrow keys stay here
        slider.onkeydown = event => event.stopPropagation();
        const label = document.createElement("span");
        label.textContent = "time";
        const line = document.createElement("div");
        line.append(label, slider);
        el.append(line);
        let held = false, waiting = false, wanted = null;
        const update = () => {
          const last = model.get("last");
          line.style.cssText = `display: ${last < 0 ? "none" : "flex"}; gap: 8px`;
          slider.max = last;
          if (!held && wanted === null) slider.value = model.get("shown");
        };
        const ask = () => {
          if (waiting || wanted === null) return;
          waiting = true;
          model.send({ show: wanted });
          wanted = null;
        };
        const painted = () => {
          const sent = model.get("sent");
          const tell = () => {
            model.set("painted", sent);
            model.save_changes();
            waiting = false;
            ask();
          };
          document.hidden ? tell() : requestAnimationFrame(() => setTimeout(tell, 0));
        };
        globalThis.bmnasPage ??= String(Math.random());
        const count = by => model.send({ page: globalThis.bmnasPage, views: by });
        slider.oninput = () => { wanted = Number(slider.value); ask(); };
        slider.onpointerdown = () => { held = true; };
        slider.onpointerup = slider.onblur = () => { held = false; update(); };
        model.on("change:last change:shown", update);
        model.on("change:sent", painted);
        update();
        count(1);
        return () => {
          model.off("change:last change:shown", update);
          model.off("change:sent", painted);
          count(-1);
        };
      },
    };
    """
    sent = traitlets.Int(0).tag(sync=True)
    painted = traitlets.Int(0).tag(sync=True)
    last = traitlets.Int(-1).tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)


class BaseWidget(ipw.VBox):
    """Base of the widgets: runs jobs without blocking, shows errors, ends with its last view.

    Clearing the output, running its cell again or deleting the cell ends what runs. Closing the
    whole tab, or interrupting the kernel, does not: Pause does.

    With nobody in front of the notebook (papermill, ``make notebooks``) it does not show itself as
    a widget, but does what :meth:`demonstrate` says and leaves its :meth:`pictures`.
    """

    def __init__(self):
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._error, self._ended = ipw.HTML(), threading.Event()
        self._views: tuple[str | None, int] = None, 0
        self._page = BrowserBridge()
        self._page.on_msg(self._told)
        _mind_running_cells()
        super().__init__()

    def demonstrate(self) -> None:
        """What to do where nobody can press a button."""

    def pictures(self) -> list:
        """What shows the widget's state without a browser: objects that show themselves."""
        return []

    def stop(self) -> None:
        """End what this widget has running; called when its last view is closed."""
        self._ended.set()

    def close(self) -> None:
        if self.children:  # not where making it failed
            self.stop()
        super().close()

    def _ipython_display_(self) -> None:
        if is_interactive():
            raise NotImplementedError  # IPython then asks for the widget itself
        from IPython.display import display

        self.demonstrate()
        for picture in self.pictures():
            display(picture)

    def _told(self, _, content, __) -> None:
        if "views" in content:
            page = content.get("page")
            if page != self._views[0]:  # loaded anew: what it showed before is gone
                self._views = page, 0
            self._views = page, max(0, self._views[1] + content["views"])
            if not self._views[1]:
                self._soon(self.stop)
        if "show" in content:
            self._soon(lambda: self._slid(content["show"]))

    def _slid(self, frame: int) -> None:
        """The slider of the page was moved to ``frame``."""

    def _soon(self, call: Callable[[], object]) -> None:
        """Call in the kernel's event loop, from whatever thread the browser's message came in."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is None or self._loop.is_closed():
            self._loop = here
        if self._loop is None or here is self._loop:
            self._guarded(call)
        else:
            self._loop.call_soon_threadsafe(self._guarded, call)

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            job = call()
        except Exception as error:
            self._fail(error)
            return
        if not asyncio.iscoroutine(job):
            return
        if self._loop is None:
            asyncio.run(self._finish(job))
            return
        task = self._loop.create_task(self._finish(job))
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)

    async def _finish(self, job: Coroutine) -> None:
        try:
            await job
        except Exception as error:
            self._fail(error)

    async def _work(self, call: Callable[[], object], pool: ThreadPoolExecutor = SEARCHES):
        """The result of ``call`` in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(pool, call)

    def _sent(self) -> None:
        self._page.sent += 1

    @property
    def _painted(self) -> bool:
        return self._page.painted >= self._page.sent

    def _fail(self, error: Exception) -> None:
        """Show an error in the widget; of one that is not ours, also where it comes from."""
        text = html.escape(f"{type(error).__name__}: {error}")
        if not isinstance(error, BmnasError):
            where = "".join(traceback.format_exception(error))
            text += f"<details><summary>where</summary><pre>{html.escape(where)}</pre></details>"
        self._error.value = (
            '<div role="alert" style="border-left:4px solid #C44500;padding:4px 10px;'
            f'background:#FBE9E0;color:#1F2328;line-height:1.4">{text}</div>'
        )

    def _clear_error(self) -> None:
        self._error.value = ""


def button(text: str, tip: str, style: str = "", icon: str = "") -> ipw.Button:
    layout = ipw.Layout(width="auto", min_width="76px")
    return ipw.Button(description=text, tooltip=tip, button_style=style, icon=icon, layout=layout)


def path_field(what: str, path: str | os.PathLike, width: str) -> ipw.Text:
    """Where the path of a file or a folder is written. Raises BmnasError for what is none."""
    if not isinstance(path, str | os.PathLike):
        raise BmnasError(f"{what}: found {path!r}; allowed: a path")
    return ipw.Text(os.fspath(path), layout=ipw.Layout(width=width), tooltip=what)


def picture_box(basis: str) -> ipw.HTML:
    """A place for a picture that takes ``basis`` of the width and wraps below where too narrow."""
    return ipw.HTML(layout=ipw.Layout(flex=f"1 1 {basis}", min_width="0", overflow="auto"))


def svg_in_box(title: str, svg: str) -> str:
    """A picture with its heading on a white card, readable on light and dark pages."""
    heading = f"<b>{html.escape(title)}</b><br>" if title else ""
    style = "background:#fff;color:#1F2328;border-radius:6px;padding:6px 8px;margin:3px"
    return f'<div style="{style};line-height:1.4">{heading}{svg}</div>'


class _KernelLock:
    """Lets jobs of the workers and cells of the notebook pass in turns.

    A cell waits until no job is under way, and jobs wait until no cell runs. Threads that a cell
    starts are not held up.
    """

    def __init__(self):
        self._turn, self._cells, self._jobs = threading.Condition(), threading.local(), 0
        self._running = 0

    @contextmanager
    def job(self):
        """Hold while a job draws random numbers."""
        with self._turn:
            self._turn.wait_for(lambda: not self._running)
            self._jobs += 1
        try:
            yield
        finally:
            with self._turn:
                self._jobs -= 1
                self._turn.notify_all()

    @contextmanager
    def open(self):
        """Let jobs pass while the cell that this is called in waits for them."""
        self.leave_cell()
        try:
            yield
        finally:
            self.enter_cell()

    def enter_cell(self, *_) -> None:
        with self._turn:
            self._running += 1
            self._cells.held = getattr(self._cells, "held", 0) + 1
            self._turn.wait_for(lambda: not self._jobs)

    def leave_cell(self, *_) -> None:
        """Give back all that this thread holds: also where a cell began before the widgets did."""
        with self._turn:
            self._running -= getattr(self._cells, "held", 0)
            self._cells.held = 0
            self._turn.notify_all()


kernel_lock = _KernelLock()
_minding = False


def _mind_running_cells() -> None:
    """Have cells and jobs take turns from the cell on that makes the first widget."""
    global _minding
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if _minding or shell is None or not hasattr(shell, "kernel"):
        return
    shell.events.register("pre_run_cell", kernel_lock.enter_cell)
    shell.events.register("post_run_cell", kernel_lock.leave_cell)
    kernel_lock.enter_cell()
    _minding = True


def side_by_side(*widgets: BaseWidget) -> BaseWidget:
    """Widgets beside each other where the page is wide enough, below each other where not.

    Raises:
        BmnasError: for anything but widgets of this kit.
    """
    for widget in widgets:
        if not isinstance(widget, BaseWidget):
            found = type(widget).__name__
            raise BmnasError(f"side_by_side: found {found}; allowed: a SearchStepper, …")
    beside = BaseWidget()
    layout = ipw.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="12px")
    beside.children = [ipw.HBox(list(widgets), layout=layout), beside._error, beside._page]
    beside.demonstrate = lambda: [widget.demonstrate() for widget in widgets]
    beside.pictures = lambda: [shown for widget in widgets for shown in widget.pictures()[:4]]
    return beside
