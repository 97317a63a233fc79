"""SearchStepper: a search with buttons and a time slider."""

import asyncio
import html
import os
import time
from collections.abc import Coroutine
from pathlib import Path

from IPython.display import HTML

from ..cells import RELAXATIONS
from ..draw import draw, draw_curves, draw_heatmaps
from ..draw.hypernets import fit_beside
from ..errors import BmnasError, check_type, quoted
from ..genotype import Genotype
from ..history import SearchHistory
from ..metrics import score_text
from ..search import Search, SearchConfig
from ..search_state import SearchState
from ..tasks.task import Task
from .base import (
    IN_TRAINING,
    WORKER,
    ipw,
    kernel_lock,
    path_field,
    picture_box,
    row,
    set_off,
    svg_in_box,
)
from .scoreboard import CandidateWidget, Scoreboard

#: Steps that a stepper makes by itself in a notebook that runs unattended.
UNATTENDED_STEPS = 60
#: Seconds between two frames of a run, and at most until the browser has painted one.
FRAME, PATIENCE = 0.2, 2.0


class SearchStepper(CandidateWidget):
    """A search to step through, run and look back on.

    Buttons do what the methods :meth:`step`, :meth:`run`, :meth:`pause`, :meth:`reset`,
    :meth:`train` and :meth:`save` do. The slider shows any earlier state; the search itself
    continues from its last step. Settings take effect at Reset.

    Args:
        search: a search at any step; or a task, which is searched with its defaults.
        scoreboard: where trained genotypes are entered; defaults to the task's.
        folder: where *Save* writes.

    Attributes:
        search: the search; Reset replaces it.
        history: its states since it was given or reset.
        state: the one that is shown.
    """

    def __init__(
        self,
        search: Search | Task,
        *,
        scoreboard: Scoreboard | None = None,
        folder: str = "runs/stepper",
    ):
        search = Search(search) if isinstance(search, Task) else search
        check_type(search, Search, "SearchStepper", BmnasError, "a Search or a Task")
        super().__init__()
        self.search, self.history = search, SearchHistory.from_search(search)
        bank = search.bank if search.config.L == search.task.config.L else None
        task, device = search.task, str(search.device)
        self.scoreboard = Scoreboard.shared(task, scoreboard, device=device, bank=bank)
        self._running, self._follow, self._drawn_at = False, True, 0.0
        self._before: SearchState | None = None  # what was shown before the steps began
        self._stepping: Search | None = None  # the search that a worker is stepping
        self._wanted: int | None = None  # during a reset: steps to make once it is done
        self._build(folder)
        self._show(0)

    # What the buttons do

    def step(self, n: int = 1) -> None:
        """Make up to ``n`` steps now, and show the last state. Raises BmnasError during a run."""
        if not isinstance(n, int) or n < 0:
            raise BmnasError("step", quoted(n), "an integer of 0 or more")
        if self._stepping is self.search:
            raise BmnasError("step", "a run in progress", "in a cell after pause()")
        self._before = self.state
        for _, state in zip(range(n), self.search, strict=False):
            self.history.append(state)
        self._show(len(self.history) - 1, self._before)
        self._keep_stills()

    def run(self) -> None:
        """Run to the end, or until :meth:`pause`. It begins once the cell has ended."""
        self._soon(lambda: self._steps(self.search.total_steps))

    async def finished(self) -> None:
        """Wait in a cell until a run has ended: ``await stepper.finished()``."""
        with kernel_lock.open():
            while self._stepping is self.search:
                await asyncio.sleep(0.02)

    def pause(self) -> None:
        """Stop a run after the current step."""
        self._running = False
        self._refresh_buttons()

    def stop(self) -> None:
        super().stop()
        self.pause()

    def on_training(self) -> None:
        if self.children:  # else __init__ is not done
            self._show_status()

    def reset(self, **settings) -> None:
        """Start a new search with :attr:`settings`, or those given here by name.

        They are ``seed`` and fields of :class:`~bmnas_core.SearchConfig`. Raises ConfigError for
        others, or values that are not allowed; the old search stays.
        """
        self._take(self._new_search({**self.settings, **settings}))

    def save(self, folder: str | None = None) -> Path:
        """Write ``genotype.json`` and ``genotype.svg`` of the state shown, and the whole history.

        Returns the folder, which defaults to the path in the field.
        """
        folder = self._folder.value if folder is None else folder
        if not isinstance(folder, str | os.PathLike) or not str(folder):
            raise BmnasError("save", f"folder {quoted(folder)}", "the path of a folder")
        folder, genotype = Path(folder), self.state.genotype
        picture = draw(genotype)
        genotype.save(folder / "genotype.json")
        picture.save(folder / "genotype.svg")
        self.history.save(folder / "history.safetensors")
        return folder

    @property
    def settings(self) -> dict:
        """The values of the controls by name: what Reset starts a search with."""
        return {name: control.value for name, control in self._controls.items()}

    def show(self, step: int) -> None:
        """Show the state at ``step``, or the last one kept before it."""
        if not isinstance(step, int):
            raise BmnasError("show", quoted(step), "an integer")
        self._show(self.history.index(step))

    def demonstrate(self) -> None:
        steps = max(0, UNATTENDED_STEPS - self.search.step)
        self.step(max(0, steps - 1))
        self.step(min(1, steps))  # by itself, so that it is seen what one step changes

    def pictures(self) -> list:
        relaxation, seed = html.escape(self.search.config.relaxation), self.search.seed
        heads = (
            f"<b>relaxation {relaxation}, seed {seed}</b>{self._status.value}<b>Hypernet</b>",
            "<b>α, β, γ as probabilities</b>",
            "<b>Genotype at this step</b>: " + self._changes.value,
            "<b>So far</b>",
        )
        found = [one for pair in zip(map(HTML, heads), self._drawn, strict=True) for one in pair]
        return [*found, *(self.scoreboard.pictures() if self.scoreboard.entries else ())]

    # The interface

    def _build(self, folder: str) -> None:
        make, tip = self._button, "One update of the weights, one of α, β, γ"
        self._steppers = [
            make("Step", tip, lambda: self._steps(1), "primary"),
            make("Step ×10", "Ten steps", lambda: self._steps(10), "primary"),
            make("Run", "Run to the end", self.run, "success", "play"),
        ]
        self._pause = make("Pause", "Stop after this step", self.pause, "warning", "pause")
        save = make("Save", "Write genotype and history", self._save_pressed, icon="save")
        tip = "Start a new search with these settings"
        self._reset = make("Reset", tip, self._reset_pressed, icon="refresh")
        self._folder = path_field("folder", folder, "170px")

        def setting(kind, description, width, **options):
            layout, style = ipw.Layout(width=width), {"description_width": "initial"}
            control = kind(description=description, layout=layout, style=style, **options)
            control.observe(lambda _: self._soon(self._refresh_buttons), "value")
            return control

        self._controls = {
            "relaxation": setting(ipw.Dropdown, "relaxation", "170px"),
            "schedule": setting(ipw.Dropdown, "schedule", "150px", options=["batch", "epoch"]),
            "max_lr": setting(ipw.FloatText, "rate of weights", "180px", step=0.001),
            "arch_lr": setting(ipw.FloatText, "rate of α, β, γ", "180px", step=0.001),
            "seed": setting(ipw.IntText, "seed", "110px"),
        }
        self._note, self._status, self._changes = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self._news, genotype, heatmaps = ipw.HTML(), ipw.HTML(), picture_box("440px")
        hypernet, curves = picture_box("100%"), picture_box("100%")
        self._boxes = hypernet, heatmaps, genotype, curves
        self._set_controls()
        genotype = ipw.VBox([genotype, self._changes], layout=ipw.Layout(min_width="0"))
        self._halves = genotype, heatmaps
        pictures = hypernet, row([genotype, heatmaps], align_items=None), curves
        buttons = [*self._steppers, self._pause, *self._train_buttons(), save, self._folder]
        settings = [*self._controls.values(), self._reset, self._note]
        rows = [row(items, grid_gap="2px") for items in (buttons, settings)]
        above = [*rows, self._bridge, self._status, self._error]
        self.children = [*above, *pictures, self._news, self.scoreboard]
        self.layout.flex, self.layout.min_width = "1 1 400px", "0"

    def _steps(self, n: int) -> Coroutine | None:
        """Begin up to n steps in the worker, unless it is stepping already.

        If a reset is in progress, they begin once it is done.
        """
        if self._wanted is not None:
            self._wanted = n
        if self._stepping is self.search or self._wanted is not None:
            return None
        self._error.value = ""
        self._running = self._follow = True
        self._stepping, self._before = self.search, self.state
        self._refresh_buttons()
        self._show_status()
        return self._step_on(self.search, n)

    async def _step_on(self, search: Search, n: int) -> None:
        """Make the steps one at a time, and show them as fast as the browser paints."""
        loop, step = asyncio.get_running_loop(), kernel_lock.job()(next)  # once no cell runs
        try:
            for _ in range(n):
                if not self._running or search is not self.search or not len(search):
                    break
                state = await loop.run_in_executor(WORKER, step, search)
                if search is not self.search:
                    return
                self.history.append(state)
                painted = self._bridge.painted >= self._bridge.sent
                if not self._follow:
                    self._show_status()
                elif time.monotonic() - self._drawn_at > (FRAME if painted else PATIENCE):
                    self._show(len(self.history) - 1, self._before)
        finally:
            if self._stepping is search:
                self._stepping, self._running = None, False
            try:  # draw before the buttons are enabled, so that nobody presses them too early
                if search is self.search and self._follow and self.state.step < search.step:
                    self._show(len(self.history) - 1, self._before)
            finally:
                self._refresh_buttons()
                self._keep_stills()

    async def _reset_pressed(self) -> None:
        if self._wanted is not None:
            return
        self._error.value, self._wanted = "", 0
        self.pause()
        loop, settings = asyncio.get_running_loop(), self.settings
        try:
            search = await loop.run_in_executor(WORKER, self._new_search, settings)
        finally:
            wanted, self._wanted = self._wanted, None
            self._refresh_buttons()
        self._take(search)
        if wanted:
            self._soon(lambda: self._steps(wanted))

    def _new_search(self, settings: dict) -> Search:
        old = self.search
        seed = settings.pop("seed")
        config = SearchConfig.from_dict({**old.config.to_dict(), **settings})
        bank = old.bank if config.L == old.config.L else None
        return Search(old.task, config, seed=seed, device=old.device, bank=bank)

    def _take(self, search: Search) -> None:
        self.pause()
        self.search, self.history, self._news.value = search, SearchHistory.from_search(search), ""
        self.scoreboard.clear_message()
        self._set_controls()
        self._show(0)

    def _set_controls(self) -> None:
        """Set the controls to the search's settings."""
        self._controls["relaxation"].options = list(RELAXATIONS)
        for name, value in self._in_use().items():
            self._controls[name].value = value

    def _in_use(self) -> dict:
        """The search's own :attr:`settings`."""
        search, config = self.search, self.search.config
        return {k: getattr(search if k == "seed" else config, k) for k in self._controls}

    def _save_pressed(self) -> None:
        self._error.value = ""
        folder = self.save()
        self._news.value = (
            f"saved the genotype of step {self.state.step} and the history in "
            f"<code>{html.escape(str(folder))}</code>"
        )

    def _on_slider(self, frame: int) -> None:
        frame = min(max(frame, 0), len(self.history) - 1)
        self._follow = frame == len(self.history) - 1
        self._show(frame)

    # What it shows

    def _candidate(self) -> tuple[Genotype, str]:
        relaxation, seed = self.search.config.relaxation, self.search.seed
        return self.state.genotype, f"step {self.state.step}, {relaxation}, seed {seed}"

    def _show(self, i: int, before: SearchState | None = None) -> None:
        """Draw state i of the history and move the slider there.

        Changes are those since ``before``, by default since the state before i.
        """
        state, last = self.history[i], before or (self.history[i - 1] if i else None)
        changes = state.genotype.changes_from(last.genotype) if last else ()
        genotype = draw(state.genotype, against=last and last.genotype)
        curves = draw_curves(self.history, at=state.step)
        self.state, self._drawn = state, [draw(state), draw_heatmaps(state), genotype, curves]
        marked = "Genotype at this step" + (", changes marked" if changes else "")
        least = "440px" if fit_beside(*self._drawn[:2]) else "640px"
        for half in self._halves:
            half.layout.flex = f"1 1 {least}"
        titles = "Hypernet", "α, β, γ as probabilities", marked, "So far"
        for box, picture, title in zip(self._boxes, self._drawn, titles, strict=True):
            box.value = svg_in_box(picture.svg, title)
        lines = "".join(f"<li>{html.escape(str(change))}</li>" for change in changes)
        what = "the first genotype"
        if last:
            what = f"{'changed since' if changes else 'same genotype as at'} step {last.step}"
            what += ":" if changes else ""
        self._changes.value = (
            f'<div style="line-height:1.35;padding:0 10px">{what}'
            f'<ul style="margin:0;padding-left:20px">{lines}</ul></div>'
        )
        self._show_status()
        self._refresh_buttons()
        self._drawn_at = time.monotonic()
        self._bridge.sent += 1

    def _show_status(self) -> None:
        """Show where the search and the slider are."""
        state, best = self.state, self.history.best
        text = f"<b>{html.escape(str(state))}</b>"
        text += f" · {len(self.search)} of {self.search.total_steps} steps left"
        if state.step < self.search.step:
            text += f" · <b>looking back</b>, the search is at step {self.search.step}"
        if best is not None:
            text += f" · best validation score {score_text(best.val_score)} at step {best.step}"
        if self._stepping is self.search and IN_TRAINING:
            text += f" · <b>waiting</b> while {html.escape(IN_TRAINING[0])} is trained"
        style = "line-height:1.4;min-height:2.8em"
        self._status.value = f'<div role="status" style="{style}">{text}</div>'
        with self._bridge.hold_sync():
            self._bridge.last = len(self.history) - 1
            self._bridge.shown = self.history.index(state.step)

    def _refresh_buttons(self) -> None:
        resetting = self._wanted is not None
        for press in self._steppers:
            set_off(press, self._stepping is self.search or resetting or not len(self.search))
        set_off(self._pause, not self._running)
        set_off(self._reset, resetting)
        changed = self.settings != self._in_use()
        self._note.value = "<i>press Reset to start a search with these</i>" if changed else ""
