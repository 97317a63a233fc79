"""What all widgets share: worker threads, the browser's messages, errors, and their parts.

A widget lives in the kernel's event loop and asks a worker thread for one step or one training at a
time, so that the interface answers in between. There is one worker: steps and trainings of a kernel
take turns. While a cell of the notebook runs, the worker waits, because both draw from the same
random generator. Other widgets' callbacks are not synchronised.
"""

from __future__ import annotations

import asyncio
import html
import os
import signal
import threading
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4
from weakref import WeakSet

import anywidget
import ipywidgets as ipw
import traitlets
from IPython.display import HTML

from ..draw import Picture
from ..errors import BmnasError
from ..progress import is_interactive, notebook_shell

#: The thread for steps of searches and for trainings.
WORKER = ThreadPoolExecutor(1, thread_name_prefix="bmnas")
#: What buttons are marked with that must not be pressed now; they keep the keyboard's focus.
OFF = "bmnas-off"
#: The names of trainings that the worker does or will do.
IN_TRAINING: list[str] = []
#: Seconds after the last change, until a saved notebook's pictures are drawn anew.
QUIET = 0.4
_RUNNING: set[asyncio.Task] = set()
#: Widgets that are there, which an interrupt of the kernel stops.
_WIDGETS: WeakSet[BaseWidget] = WeakSet()


#: Beside pictures in a widget's place, JupyterLab's error that the widget is gone says nothing new.
_NO_MODEL = (
    "<style>.jp-OutputArea-child:has([data-bmnas-still]) ~ .jp-OutputArea-child "
    "> .jp-OutputArea-output.jupyter-widgets:not(:has(*)) { display: none }</style>"
)


class BrowserBridge(anywidget.AnyWidget):
    """Reports from the browser: how many views of a widget there are, that something was pressed.

    It also keeps keys in its widget and the bar in view, says if the kernel is busy or gone, and
    hides what a saved notebook shows in the widget's place, the outputs from the one with ``mark``
    on.
    """

    _esm = Path(__file__).with_name("bridge.js")
    _css = Path(__file__).with_name("bridge.css")
    pong = traitlets.Int(0).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    mark = traitlets.Unicode().tag(sync=True)
    #: HTML that replaces the last one only when all of it can be painted.
    picture = traitlets.Unicode().tag(sync=True)
    #: What buttons in a widget's HTML may ask for, such as ``<button data-do="pin" data-at="2">``.
    does = traitlets.List(traitlets.Unicode()).tag(sync=True)


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
        self._bridge = BrowserBridge(mark=uuid4().hex[:12])
        self._bridge.on_msg(self._on_message)
        self._stills = 0  # how many outputs a saved notebook shows in the widget's place
        self._keeping: asyncio.TimerHandle | None = None  # of these, soon
        self._within: BaseWidget | None = None  # whose part this widget is
        self._actions: dict[str, Callable[[str], object]] = {}
        _take_turns_with_cells()
        _WIDGETS.add(self)
        super().__init__()
        self.add_class("bmnas-root")

    def demonstrate(self) -> None:
        """What to do in a notebook that runs unattended."""

    def pictures(self) -> list:
        """The widget's state for a notebook without widgets: objects that IPython displays."""
        return []

    def refresh(self) -> None:
        """Something has changed of a widget that is a part of this one."""

    def stop(self) -> None:
        """Stop what this widget has running; called when its last view is closed."""
        self._stopped.set()

    def on_training(self) -> None:
        """A training has begun or ended, of this or another widget."""

    def on_scores(self) -> None:
        """The table of a scoreboard has changed."""

    def close(self) -> None:
        if self.children:  # none if __init__ failed
            self.stop()
        super().close()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if is_interactive():
            self._show_stills(display)
            raise NotImplementedError  # IPython then asks for the widget itself
        self.demonstrate()
        for picture in self.pictures():
            if not isinstance(picture, HTML) or picture.data:
                display(picture)

    def _show_stills(self, show: Callable) -> None:
        """Display, or display anew, what a saved notebook shows without a kernel."""
        mark = self._bridge.mark
        note = "As it was when this notebook was saved. To use it, run this cell again."
        head = HTML(f'{_NO_MODEL}<div data-bmnas-still="{mark}"><i>{note}</i></div>')
        stills = [head, *self.pictures()]
        self._stills = len(stills)
        for k, still in enumerate(stills):
            if not isinstance(still, Picture):
                show(still, display_id=f"{mark}-{k}")
                continue
            # JupyterLab shows no SVG of a notebook that is not trusted.
            data = {"image/svg+xml": still.svg, "image/png": b64encode(still.png()).decode()}
            show(data, raw=True, display_id=f"{mark}-{k}")

    def _keep_stills(self) -> None:
        """Have the saved notebook show the widget as it is now, or the one it is in.

        In an event loop it is done once nothing has changed for a while, as pictures take time.
        """
        if self._within:
            self._within._keep_stills()
        if not self._stills:
            return
        if self._keeping:
            self._keeping.cancel()
        if self._loop:
            self._keeping = self._loop.call_later(QUIET, self._guarded, self._update_stills)
        else:
            self._update_stills()

    def _update_stills(self) -> None:
        from IPython.display import update_display

        self._show_stills(update_display)

    def _on_message(self, _, content, __) -> None:
        if "ping" in content:  # perhaps in a thread beside a running cell
            with self._bridge.hold_sync():
                self._bridge.pong, self._bridge.busy = content["ping"], kernel_lock.in_cell
        if "do" in content:
            self._soon(lambda: self._actions[content["do"]](content["at"]))
        if "views" in content:
            page = content.get("page")
            before = self._views[1] if page == self._views[0] else 0  # a reloaded page has none
            self._views = page, max(0, before + content["views"])
            if not self._views[1]:
                self._soon(self.stop)

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

    def _take_actions(self, **actions: Callable[[str], object]) -> None:
        """Call ``actions[do](at)`` when a button in the HTML of this widget or a part is pressed.

        A part that has an action of that name takes it.
        """
        self._actions |= actions
        self._bridge.does = [*self._actions]

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


def is_off(button: ipw.Button) -> bool:
    """Whether a button is marked as one that must not be pressed."""
    return OFF in button._dom_classes


def set_off(button: ipw.Button, off: bool) -> None:
    """Mark a button, or take its mark off."""
    if off != is_off(button):
        button.add_class(OFF) if off else button.remove_class(OFF)


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

    @property
    def in_cell(self) -> bool:
        """Whether a cell runs at this moment."""
        return bool(self._cells)

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
        shell.events.register("pre_run_cell", _tell_busy)
        shell.events.register("post_run_cell", kernel_lock.leave_cell)
        shell.events.register("post_run_cell", _take_interrupts)
        kernel_lock.enter_cell()


def _tell_busy(*_) -> None:
    """Tell the browser that a cell runs, in case that something was pressed just before."""
    for widget in list(_WIDGETS):
        widget._bridge.busy = True


def _take_interrupts(result) -> None:
    """Have an interrupt stop what widgets run: one of the cell that ended, and later ones.

    While a cell runs, the kernel has a handler of its own, which ends the cell; it puts the one
    before back when it is done.
    """
    for widget in list(_WIDGETS):
        widget._bridge.busy = False
    if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
        stop_all()
    if (loop := _running_loop()) and threading.current_thread() is threading.main_thread():

        def interrupted(*_):
            loop.call_soon_threadsafe(stop_all)

        loop.call_later(0.1, signal.signal, signal.SIGINT, interrupted)


@contextmanager
def in_training(name: str):
    """Have all widgets know that the worker trains, or will train, ``name``."""
    IN_TRAINING.append(name)
    tell_all(lambda widget: widget.on_training())
    try:
        yield
    finally:
        IN_TRAINING.remove(name)
        tell_all(lambda widget: widget.on_training())


def stop_all() -> None:
    """Stop the runs and trainings of all widgets of this kernel."""
    tell_all(lambda widget: widget.stop())


def tell_all(call: Callable[[BaseWidget], object]) -> None:
    """Call something of all widgets of this kernel, but for those that are not made yet."""
    for widget in list(_WIDGETS):
        if widget.children:
            call(widget)
