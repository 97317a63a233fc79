"""Use a widget as a person does: read what it shows, press its buttons, fill in its fields.

Everything goes through the public interface of ipywidgets, so a widget may change its inside. Parts
are found by what a person sees: a button by its text, a field by its label or tip. Of several, the
first one counts. What a stage draws in the browser is known here by what it is sent.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterator

import ipywidgets as ipw

from bmnas_core import SearchStepper
from bmnas_core.widgets.base import BaseWidget, BrowserBridge
from bmnas_core.widgets.stage import StageView


def parts(widget: ipw.Widget, kind: type = ipw.Widget) -> Iterator[ipw.Widget]:
    """All parts of a kind inside a widget, from the top down."""
    for child in getattr(widget, "children", ()):
        if isinstance(child, kind):
            yield child
        yield from parts(child, kind)


# --- buttons, fields, the slider, the page


def button(widget: ipw.Widget, name: str) -> ipw.Button:
    found = (part for part in parts(widget, ipw.Button) if part.description == name)
    return _first(found, f"button {name!r}")


def press(widget: ipw.Widget, name: str) -> None:
    button(widget, name).click()


def is_enabled(widget: ipw.Widget, name: str) -> bool:
    return is_on(button(widget, name))


def is_on(button: ipw.Button) -> bool:
    """Whether a button is shown as one that can be pressed."""
    return "bmnas-off" not in button._dom_classes


def fill(widget: ipw.Widget, name: str, value: object) -> None:
    """Type into a field, pick from a menu or move a slider."""
    fields = (part for part in parts(widget, ipw.DOMWidget) if hasattr(part, "value"))
    found = (part for part in fields if name in (part.description, part.tooltip))
    _first(found, f"field {name!r}").value = value


def slide(widget: BaseWidget, frame: int) -> None:
    """Move the time slider to a state of the history."""
    last = len(widget.history) - 1
    step = int(widget.history.steps[min(max(frame, 0), last)])
    _send(stage(widget), {"do": "show", "step": step, "follow": frame >= last})


def stage(widget: BaseWidget) -> StageView:
    return _first(parts(widget, StageView), "stage")


def scene_data(widget: BaseWidget) -> dict:
    """All that a browser is sent when it opens a view: the search, and the ghost of the last."""
    view = stage(widget)
    return messages(widget, lambda: _send(view, {"do": "load"}))[0]["load"]


def messages(widget: BaseWidget, call: Callable[[], object]) -> list[dict]:
    """What the stage is sent during a call."""
    sent: list[dict] = []
    view = stage(widget)
    view.send, send = sent.append, view.send
    try:
        call()
    finally:
        view.send = send
    return sent


def look_at(widget: BaseWidget, rows: list[int]) -> list[dict]:
    """Look at a sample in the stage: what that is told of it."""
    view = stage(widget)
    return messages(widget, lambda: _send(view, {"do": "sample", "rows": rows}))


def click(widget: BaseWidget, part: str) -> None:
    """Click an edge or a node of an editor's picture."""
    _send(widget._bridge, {"do": "part", "at": part})


def click_row(widget: BaseWidget, do: str, name: str) -> None:
    """Press a button in the scoreboard's row of an entry."""
    mark = f'data-do="{do}" data-at="{html.escape(name)}"'
    assert mark in markup(widget), mark
    _send(widget._bridge, {"do": do, "at": name})


def open_view(widget: BaseWidget, page: str = "one") -> None:
    """Show the widget once more on a page of the browser."""
    _send(_bridge(widget), {"page": page, "views": 1})


def close_view(widget: BaseWidget, page: str = "one") -> None:
    """Remove one of its views from a page."""
    _send(_bridge(widget), {"page": page, "views": -1})


def _bridge(widget: BaseWidget) -> BrowserBridge:
    return _first(parts(widget, BrowserBridge), "bridge")


def _send(part: ipw.Widget, content: dict) -> None:
    """A message as it comes from the browser."""
    data = {"method": "custom", "content": content}
    part.comm.handle_msg({"content": {"data": data}, "buffers": []})


def display(widget: BaseWidget) -> None:
    """What IPython does if a widget is the last value of a cell; the method is its protocol."""
    widget._ipython_display_()


# --- what it shows


def markup(widget: ipw.Widget, mark: str = "") -> str:
    """The HTML that a widget shows, of those parts whose HTML contains ``mark``."""
    texts = [part.value for part in parts(widget, ipw.HTML)]
    texts += [bridge.picture for bridge in parts(widget, BrowserBridge)]
    return "\n".join(text for text in texts if mark in text)


def text(widget: ipw.Widget, mark: str = "") -> str:
    """The same without tags."""
    return plain(markup(widget, mark))


def plain(markup: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", markup))


def error(widget: ipw.Widget) -> str:
    """The error that is shown, or nothing."""
    return text(widget, 'role="alert"')


def status(widget: ipw.Widget) -> str:
    """The line that says how things are."""
    if isinstance(widget, SearchStepper):  # which the browser writes
        return widget.status
    found = (part for part in parts(widget, ipw.HTML) if 'role="status"' in part.value)
    return plain(_first(found, "status").value)


# --- the menus of a GenotypeEditor


class CellRow:
    """What an editor shows of a Cell: menus of its inputs, its motif and its steps; buttons."""

    def __init__(self, box: ipw.Box):
        head, *lines = box.children
        self.box, (*self.inputs, self.motif) = box, parts(head, ipw.Dropdown)
        self.steps = [list(parts(line, ipw.Dropdown)) for line in lines]


def cell_rows(editor: BaseWidget) -> list[CellRow]:
    _, menus, *_ = editor.children
    return [CellRow(box) for box in menus.children]


def options(menu: ipw.Dropdown) -> list:
    """The values that a menu offers."""
    return [option[1] if isinstance(option, tuple) else option for option in menu.options]


# --- waiting


async def until(condition: Callable[[], object], seconds: int = 30) -> None:
    """Let the event loop run until ``condition`` holds."""
    for _ in range(seconds * 200):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"not within {seconds} s")


def _first(found: Iterator, what: str):
    for one in found:
        return one
    raise AssertionError(f"the widget shows no {what}")
