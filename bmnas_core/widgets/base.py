"""What all widgets share: worker threads, the browser's messages, errors, and their parts.

A widget lives in the kernel's event loop and asks a worker thread for one step or epoch at a time,
so that the interface answers in between. While a cell of the notebook runs, the workers wait,
because both draw from the same random generator. Other widgets' callbacks are not synchronised.
"""

import asyncio
import html
import os
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import anywidget
import ipywidgets as ipw
import traitlets

from ..errors import BmnasError, check_type
from ..progress import is_interactive, notebook_shell

#: One thread for steps of searches and one for trainings, so that neither waits for the other.
SEARCHES = ThreadPoolExecutor(1, thread_name_prefix="bmnas-search")
TRAININGS = ThreadPoolExecutor(1, thread_name_prefix="bmnas-training")
_RUNNING: set[asyncio.Task] = set()


class BrowserBridge(anywidget.AnyWidget):
    """Reports from the browser: how many views of a widget there are, which frame is painted.

    If ``last`` is 0 or more, it is a slider over frames 0 to ``last``. However fast it is dragged,
    it asks for a frame only once the one before is painted.
    """

    _esm = Path(__file__).with_name("bridge.js")
    sent = traitlets.Int(0).tag(sync=True)
    painted = traitlets.Int(0).tag(sync=True)
    last = traitlets.Int(-1).tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)


class BaseWidget(ipw.VBox):
    """Base of the widgets: runs jobs without blocking, shows errors, stops with its last view.

    Clearing the output, running its cell again or deleting the cell stops what runs. Closing the
    whole tab, or interrupting the kernel, does not; Pause does.

    In a notebook that runs unattended (papermill, ``make notebooks``) it does not show itself as a
    widget, but calls :meth:`demonstrate` and leaves its :meth:`pictures`.
    """

    def __init__(self):
        self._loop = _running_loop()
        self._error, self._stopped = ipw.HTML(), threading.Event()
        self._views: tuple[str | None, int] = None, 0  # the page, and how many are on it
        self._bridge = BrowserBridge()
        self._bridge.on_msg(self._on_message)
        _take_turns_with_cells()
        super().__init__()

    def demonstrate(self) -> None:
        """What to do in a notebook that runs unattended."""

    def pictures(self) -> list:
        """The widget's state for a notebook without widgets: objects that IPython displays."""
        return []

    def stop(self) -> None:
        """Stop what this widget has running; called when its last view is closed."""
        self._stopped.set()

    def close(self) -> None:
        if self.children:  # none if __init__ failed
            self.stop()
        super().close()

    def _ipython_display_(self) -> None:
        if is_interactive():
            raise NotImplementedError  # IPython then asks for the widget itself
        from IPython.display import display

        self.demonstrate()
        for picture in self.pictures():
            display(picture)

    def _on_message(self, _, content, __) -> None:
        if "views" in content:
            page = content.get("page")
            before = self._views[1] if page == self._views[0] else 0  # a reloaded page has none
            self._views = page, max(0, before + content["views"])
            if not self._views[1]:
                self._soon(self.stop)
        if "show" in content:
            self._soon(lambda: self._on_slider(content["show"]))

    def _on_slider(self, frame: int) -> None:
        """The slider was moved to ``frame``."""

    def _soon(self, call: Callable[[], object]) -> None:
        """Call in the kernel's event loop, whatever thread the browser's message came in."""
        here = _running_loop()
        if self._loop is None or self._loop.is_closed():
            self._loop = here
        if here is self._loop:
            self._guarded(call)
        else:
            self._loop.call_soon_threadsafe(self._guarded, call)

    def _guarded(self, call: Callable[[], object]) -> None:
        """Call, and run what that returns if it is a coroutine. An error of either is shown."""

        async def finish():
            with self._alert():
                await job

        with self._alert():
            job = call()
            if asyncio.iscoroutine(job) and self._loop is None:
                asyncio.run(finish())
            elif asyncio.iscoroutine(job):
                task = self._loop.create_task(finish())
                _RUNNING.add(task)
                task.add_done_callback(_RUNNING.discard)

    @contextmanager
    def _alert(self):
        """Show an error in the widget, with a traceback unless it is one of ours."""
        try:
            yield
        except Exception as error:
            text = html.escape(f"{type(error).__name__}: {error}")
            if not isinstance(error, BmnasError):
                where = html.escape("".join(traceback.format_exception(error)))
                text += f"<details><summary>where</summary><pre>{where}</pre></details>"
            self._error.value = (
                '<div role="alert" style="border-left:4px solid #C44500;padding:4px 10px;'
                f'background:#FBE9E0;color:#1F2328;line-height:1.4">{text}</div>'
            )

    def _button(self, text: str, tip: str, call: Callable, style="", icon="") -> ipw.Button:
        """A button; an error of ``call`` is shown, and if it is a coroutine, it is run."""
        look = {"button_style": style, "icon": icon}
        layout = ipw.Layout(width="auto", min_width="76px")
        press = ipw.Button(description=text, tooltip=tip, layout=layout, **look)
        press.on_click(lambda _: self._soon(call))
        return press


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def row(items: Iterable[ipw.Widget], align_items: str | None = "center", **layout) -> ipw.HBox:
    """Widgets beside each other, in several lines if need be."""
    layout = ipw.Layout(flex_flow="row wrap", align_items=align_items, **layout)
    return ipw.HBox(list(items), layout=layout)


def path_field(what: str, path: str | os.PathLike, width: str) -> ipw.Text:
    """A field for the path of a file or folder. Raises BmnasError if ``path`` is not a path."""
    if not isinstance(path, str | os.PathLike):
        raise BmnasError(what, repr(path), "a path")
    return ipw.Text(os.fspath(path), layout=ipw.Layout(width=width), tooltip=what)


def picture_box(basis: str) -> ipw.HTML:
    """A place for a picture: ``basis`` wide, moved to the next line if that is too narrow."""
    return ipw.HTML(layout=ipw.Layout(flex=f"1 1 {basis}", min_width="0", overflow="auto"))


def svg_in_box(svg: str, title: str = "") -> str:
    """A picture under its heading on a white card, readable on light and dark pages."""
    heading = f"<b>{html.escape(title)}</b><br>" if title else ""
    style = "background:#fff;color:#1F2328;border-radius:6px;padding:6px 8px;margin:3px"
    return f'<div style="{style};line-height:1.4">{heading}{svg}</div>'


class KernelLock:
    """Lets jobs of the workers and cells of the notebook take turns.

    A cell waits until no job runs, and jobs wait until no cell runs. Threads that a cell starts do
    not wait.
    """

    def __init__(self):
        self._changed, self._jobs = threading.Condition(), 0
        self._cells: set[int] = set()  # threads that run one

    @contextmanager
    def job(self):
        """Held while a job draws random numbers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._cells)
            self._jobs += 1
        try:
            yield
        finally:
            with self._changed:
                self._jobs -= 1
                self._changed.notify_all()

    @contextmanager
    def open(self):
        """Let jobs run while the cell that calls this waits for them."""
        in_cell = self.leave_cell()
        try:
            yield
        finally:
            if in_cell:
                self.enter_cell()

    def enter_cell(self, *_) -> None:
        with self._changed:
            self._cells.add(threading.get_ident())
            self._changed.wait_for(lambda: not self._jobs)

    def leave_cell(self, *_) -> bool:
        """Leave the cell that this thread runs; returns whether there was one."""
        with self._changed:
            there = threading.get_ident() in self._cells
            self._cells.discard(threading.get_ident())
            self._changed.notify_all()
        return there


kernel_lock = KernelLock()


@cache
def _take_turns_with_cells() -> None:
    """Have cells and jobs take turns, from the cell on that makes the first widget."""
    if shell := notebook_shell():
        shell.events.register("pre_run_cell", kernel_lock.enter_cell)
        shell.events.register("post_run_cell", kernel_lock.leave_cell)
        kernel_lock.enter_cell()


def side_by_side(*widgets: BaseWidget) -> BaseWidget:
    """Widgets beside each other, or below each other on a narrow page.

    Raises BmnasError for anything but widgets of this kit.
    """
    for widget in widgets:
        check_type(widget, BaseWidget, "side_by_side", BmnasError, "widgets of this kit")
    beside = BaseWidget()
    line = row(widgets, align_items="flex-start", grid_gap="12px")
    beside.children = [line, beside._error, beside._bridge]
    beside.demonstrate = lambda: [widget.demonstrate() for widget in widgets]
    beside.pictures = lambda: [picture for widget in widgets for picture in widget.pictures()[:4]]
    return beside
