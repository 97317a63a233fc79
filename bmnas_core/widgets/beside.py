"""side_by_side: several widgets beside each other; of searches, with one bar and one slider."""

from __future__ import annotations

import html

import ipywidgets as ipw

from ..errors import BmnasError, check_type
from .base import BaseWidget, row, set_off
from .stepper import SearchStepper, speed_menu


class SideBySide(BaseWidget):
    """Widgets beside each other, or below each other on a narrow page.

    If all are steppers, one bar makes the steps of all, one slider moves all to the same step, and
    what they share, such as the open tab or a scoreboard, is there once. Above each stands what
    differs: its task, relaxation, seed or whatever else can be set.
    """

    def __init__(self, *widgets: BaseWidget):
        for widget in widgets:
            check_type(widget, BaseWidget, "side_by_side", BmnasError, "widgets of this kit")
        super().__init__()
        self._widgets = widgets
        for widget in widgets:
            widget._within = self
        line = row(widgets, align_items="stretch", grid_gap="12px")
        self._steppers = widgets if all(isinstance(w, SearchStepper) for w in widgets) else ()
        if len(self._steppers) < 2:
            self.children = [line, self._error, self._bridge]
            return
        make = self._button
        self._starts = [
            make("Step", "One step of each search", lambda: self._each("step"), "primary"),
            make("Step ×10", "Ten steps of each", lambda: self._each("ten"), "primary"),
            make(
                "To the epoch's end",
                "Run each to the end of its epoch",
                lambda: self._each("epoch"),
            ),
            make("Run", "Run all to the end", lambda: self._each("end"), "success", "play"),
        ]
        self._pause = make("Pause", "Stop after this step", self.pause, "warning", "pause")
        self._speed = speed_menu()
        bar = row(
            [*self._starts, self._pause, self._speed, self._error, self._bridge], grid_gap="2px"
        )
        bar.add_class("bmnas-bar")
        boards = list(dict.fromkeys(stepper.scoreboard for stepper in self._steppers))
        self._titles = [ipw.HTML() for _ in self._steppers]
        for k, stepper in enumerate(self._steppers):
            stepper.join(self._bridge.mark, self._titles[k], lead=k == 0, speed=self._speed)
        self._take_actions(load=self._forward("load"), compare=self._forward("compare"))
        self.children = [bar, line, *boards]
        self.refresh()

    def _each(self, what: str) -> None:
        for stepper in self._steppers:
            if len(stepper.search):
                stepper.begin(what)

    def _forward(self, do: str):
        def call(at: str) -> None:
            for stepper in self._steppers:
                stepper._actions[do](at)

        return call

    def refresh(self) -> None:
        if len(self._steppers) < 2 or not self.children:
            return
        running = any(stepper.is_running for stepper in self._steppers)
        left = any(len(stepper.search) for stepper in self._steppers)
        for press in self._starts:
            set_off(press, running or not left)
        set_off(self._pause, not running)
        about = [stepper.about for stepper in self._steppers]
        differs = [name for name in about[0] if len({one[name] for one in about}) > 1]
        for title, one in zip(self._titles, about, strict=True):
            said = ", ".join(f"{name} {one[name]}" for name in differs or ["relaxation", "seed"])
            title.value = f"<b>{html.escape(said)}</b>"

    def pause(self) -> None:
        for stepper in self._steppers:
            stepper.pause()

    def stop(self) -> None:
        for widget in self._widgets:
            widget.stop()

    def demonstrate(self) -> None:
        for widget in self._widgets:
            widget.demonstrate()

    def pictures(self) -> list:
        return [picture for widget in self._widgets for picture in widget.pictures()[:4]]


side_by_side = SideBySide
