"""SearchStepper: a search with buttons, linked pictures and a time slider."""

import asyncio
import html
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from IPython.display import HTML

from ..benchmark import TabularBenchmark
from ..cells import RELAXATIONS
from ..draw import draw, draw_curves, draw_heatmaps
from ..draw.scene import SceneData
from ..errors import BmnasError, check_type, quoted
from ..genotype import LARGEST, Genotype
from ..history import SearchHistory
from ..metrics import score_text
from ..search import Search, SearchConfig
from ..search_state import SearchState
from ..tasks.task import Task
from .base import IN_TRAINING, WORKER, ipw, kernel_lock, path_field, row, set_off
from .sample import flow, menus, preview
from .scoreboard import CandidateWidget, Scoreboard
from .stage import StageView

#: Steps that a stepper makes by itself in a notebook that runs unattended.
UNATTENDED_STEPS = 60
#: Seconds that a step takes at least, and between two frames of a run, at each speed.
SPEEDS = {"slow": (1.0, 0.0), "normal": (0.0, 0.15), "fast": (0.0, 1.0)}
#: Seconds until the next frame is sent if the browser has not painted the one before.
PATIENCE = 2.0


#: Whether a run ends early, given the states at its start and now.
ENDS = {
    "end": lambda _before, _state: False,
    "change": lambda before, state: bool(state.genotype.changes_from(before.genotype)),
    "epoch": lambda _before, state: state.val_score is not None,
}


class SearchStepper(CandidateWidget):
    """A search to step through, run and look back on.

    Buttons do what the methods :meth:`step`, :meth:`run`, :meth:`pause`, :meth:`reset`,
    :meth:`train` and :meth:`save` do. The slider shows any earlier state; the search itself
    continues from its last step. Settings take effect at Reset, which keeps the curves of the run
    before. If the kit has a table of all architectures of the space, the rank of the derived one is
    shown.

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
        self._running, self._follow, self._sent_at = False, True, 0.0
        self._jump = False  # whether the browser is to go to the next state that it is sent
        self._before: SearchState | None = None  # what was shown before the steps began
        self._stepping: Search | None = None  # the search that a worker is stepping
        self._wanted: tuple | None = None  # during a reset: what to do once it is done
        self._build(folder)
        self._begin()

    # What the buttons do

    def step(self, n: int = 1) -> None:
        """Make up to ``n`` steps now, and show the last state. Raises BmnasError during a run."""
        if not isinstance(n, int) or n < 0:
            raise BmnasError("step", quoted(n), "an integer of 0 or more")
        if self._stepping is self.search:
            raise BmnasError("step", "a run in progress", "in a cell after pause()")
        self._before, self._follow, self._jump = self.state, True, True
        for _, state in zip(range(n), self.search, strict=False):
            self._keep(state)
        if self._sample:
            self._flow = flow(self.search, self._sample)
        self._show_last()
        self._keep_stills()

    def run(self, until: str = "end") -> None:
        """Run to the end, or until :meth:`pause`. It begins once the cell has ended.

        ``until="change"`` runs until another genotype is derived, ``"epoch"`` to the end of an
        epoch. Raises BmnasError for anything else.
        """
        if until not in ENDS:
            raise BmnasError("run", quoted(until), ", ".join(ENDS))
        self.begin(until)

    def begin(self, what: str) -> None:
        """Begin what a button does: ``"step"``, ``"ten"`` steps, or a run as in :meth:`run`."""
        most = {"step": 1, "ten": 10}.get(what, self.search.total_steps)
        self._soon(lambda: self._steps(most, ENDS.get(what, ENDS["end"])))

    @property
    def is_running(self) -> bool:
        """Whether steps are being made now."""
        return self._stepping is self.search

    def join(self, group: str, title: ipw.HTML, *, lead: bool, speed: ipw.Dropdown) -> None:
        """Put a title above, and hide the buttons: a shared bar replaces them, a shared slider."""
        for press in (*self._steppers, self._pause, self._speed):
            press.layout.display = "none"
        self._speed = speed
        self._stage.group, self._stage.lead = group, lead
        self.children = [title, *(part for part in self.children if part is not self.scoreboard)]

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
        self._say()

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

    @property
    def about(self) -> dict[str, str]:
        """What the search is of, and its settings by the names of their controls."""
        task, own = self.search.task, self._in_use().items()
        named = {self._controls[name].description: str(value) for name, value in own}
        return {"task": " ".join(filter(None, [task.name, task.variant])), **named}

    def show(self, step: int) -> None:
        """Show the state at ``step``, or the last one kept before it."""
        if not isinstance(step, int):
            raise BmnasError("show", quoted(step), "an integer")
        self._look_at(step, step >= self.history[-1].step)
        self._stage.send({"show": self.state.step})

    def demonstrate(self) -> None:
        steps = max(0, UNATTENDED_STEPS - self.search.step)
        self.step(max(0, steps - 1))
        self.step(min(1, steps))  # by itself, so that it is seen what one step changes

    def pictures(self) -> list:
        state, last = self.state, self._since
        relaxation, seed = html.escape(self.search.config.relaxation), self.search.seed
        changes = state.genotype.changes_from(last.genotype) if last else ()
        said = "the first one"
        if last:
            said = f"{'changed since' if changes else 'the same as at'} step {last.step}"
        lines = "".join(f"<li>{html.escape(str(change))}</li>" for change in changes)
        genotype = draw(state.genotype, against=last and last.genotype)
        head = f"<b>relaxation {relaxation}, seed {seed}</b>"
        return [
            HTML(f"{head}<div>{html.escape(self.status)}</div><b>Hypernet</b>"), draw(state),
            HTML("<b>α, β, γ as weights</b>"), draw_heatmaps(state),
            HTML(f"<b>Derived network</b>: {said}<ul>{lines}</ul>"), genotype,
            HTML("<b>So far</b>"), draw_curves(self.history, at=state.step),
            *(self.scoreboard.pictures() if self.scoreboard.entries else [HTML("")]),
        ]  # fmt: skip

    @property
    def status(self) -> str:
        """Where the search and the slider are, in a line."""
        state, said = self.state, self._stage.said
        parts = [str(state), f"{said['left']} of {said['total']} steps left"]
        if state.step < self.search.step:
            parts.append(f"looking back, the search is at step {self.search.step}")
        if self._table:
            parts.append(f"rank {self._table.rank(state.genotype):,} of {len(self._table):,}")
        return " · ".join([*parts, *filter(None, [said["note"]])])

    # The interface

    def _build(self, folder: str) -> None:
        make, tip = self._button, "One step of the search"
        to_change, to_end = "Run until the derived network changes", "Run to the end of the epoch"
        self._steppers = [
            make("Step", tip, lambda: self.begin("step"), "primary"),
            make("Step ×10", "Ten steps", lambda: self.begin("ten"), "primary"),
            make("To a change", to_change, lambda: self.begin("change")),
            make("To the epoch's end", to_end, lambda: self.begin("epoch")),
            make("Run", "Run to the end", lambda: self.begin("end"), "success", "play"),
        ]
        self._pause = make("Pause", "Stop after this step", self.pause, "warning", "pause")
        self._speed = speed_menu()
        save = make("Save", "Write genotype and history", self._save_pressed, icon="save")
        tip = "Start a new search with these settings"
        self._reset = make("Reset", tip, self._reset_pressed, icon="refresh")
        self._folder = path_field("folder", folder, "120px")

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
            "N": setting(ipw.BoundedIntText, "Cells", "100px", min=1, max=LARGEST),
            "seed": setting(ipw.IntText, "seed", "110px"),
        }
        self._note, self._news, self._stage = ipw.HTML(), ipw.HTML(), StageView()
        self._sample: list[int] | None = None  # rows of validation, one for each modality
        self._flow: dict | None = None  # what it became in the last step, until it is sent
        self._compared = ""  # the entry that the derived network is compared with
        self._take_actions(load=self._load, compare=self._mark_against)
        self._stage.on_msg(self._on_stage)
        self._set_controls()
        buttons = [*self._steppers, self._pause, self._speed, *self._train_buttons()]
        settings = row([*self._controls.values(), self._note], grid_gap="2px")
        settings.layout.display = "none"
        tip, layout = "Settings of the next search, which Reset starts", ipw.Layout(width="auto")
        toggle = ipw.ToggleButton(description="Settings", tooltip=tip, layout=layout)

        def unfold(change):
            settings.layout.display = "" if change.new else "none"

        toggle.observe(unfold, "value")
        buttons += [save, self._folder, self._reset, toggle]
        messages = [self._news, self._error, self._bridge]
        bar = ipw.VBox([row(buttons, grid_gap="2px"), settings, *messages])
        bar.add_class("bmnas-bar")
        self.children = [bar, self._stage, self.scoreboard]
        self.layout.flex, self.layout.min_width = "1 1 400px", "0"

    def _on_stage(self, _, content, __) -> None:
        """What the stage in the browser asks for."""
        if content["do"] == "load":
            self._soon(self._load_stage)
        elif content["do"] == "show":
            self._soon(lambda: self._look_at(content["step"], content["follow"]))
        elif content["do"] == "sample":
            self._soon(lambda: self._choose_sample(content["rows"]))
        elif content["do"] == "painted":
            self._stage.painted = max(self._stage.painted, content["frame"])

    def _steps(self, n: int, done: Callable = ENDS["end"]) -> Coroutine | None:
        """Begin up to n steps in the worker, unless it is stepping already.

        They end early once ``done`` says so of the states at their start and now. If a reset is in
        progress, they begin once it is done.
        """
        if self._wanted is not None:
            self._wanted = n, done
        if self._stepping is self.search or self._wanted is not None:
            return None
        self._error.value = self._news.value = ""
        self._running = self._follow = self._jump = True
        self._stepping, self._before = self.search, self.state
        self._refresh_buttons()
        self._say()
        return self._step_on(self.search, n, done)

    async def _step_on(self, search: Search, n: int, done: Callable) -> None:
        """Make the steps one at a time, and show them as fast as the browser paints."""
        loop = asyncio.get_running_loop()
        step = kernel_lock.job()(self._step_with_sample)  # once no cell runs
        first = self.history[-1]
        try:
            for _ in range(n):
                if not self._running or search is not self.search or not len(search):
                    break
                begun, (least, between) = time.monotonic(), SPEEDS[self._speed.value]
                state, shown = await loop.run_in_executor(WORKER, step, search)
                if search is not self.search:
                    return
                if state is None:  # fewer steps than its length said
                    break
                self._keep(state)
                if isinstance(shown, Exception):
                    self._sample = None
                    with self._alert():
                        raise shown
                self._flow = shown or self._flow
                stage = self._stage
                between = between if stage.painted >= stage.sent else max(between, PATIENCE)
                if time.monotonic() - self._sent_at >= between:
                    self._show_last()
                if done(first, state):
                    break
                while self._running and (left := begun + least - time.monotonic()) > 0:
                    await asyncio.sleep(min(left, 0.05))
        finally:
            if self._stepping is search:
                self._stepping, self._running = None, False
            try:  # draw before the buttons are enabled, so that nobody presses them too early
                if search is self.search:
                    self._show_last()
            finally:
                self._refresh_buttons()
                self._say()
                self._keep_stills()

    def _reset_pressed(self) -> Coroutine | None:
        if self._wanted is not None:
            return None
        self._error.value, self._wanted = "", ()  # at once: what is pressed next is kept
        self.pause()
        return self._reset_in_worker()

    async def _reset_in_worker(self) -> None:
        loop, settings = asyncio.get_running_loop(), self.settings
        try:
            make = kernel_lock.job()(self._new_search)
            search = await loop.run_in_executor(WORKER, make, settings)
        finally:
            wanted, self._wanted = self._wanted, None
            self._refresh_buttons()
        self._take(search)
        if wanted:
            self._soon(lambda: self._steps(*wanted))

    def _new_search(self, settings: dict) -> Search:
        old = self.search
        seed = settings.pop("seed")
        config = SearchConfig.from_dict({**old.config.to_dict(), **settings})
        bank = old.bank if config.L == old.config.L else None
        return Search(old.task, config, seed=seed, device=old.device, bank=bank)

    def _load_stage(self) -> None:
        """A view has opened: send it all that there is."""
        self._stage.load(None if self._follow else self.state.step)
        if self._compared:
            self._stage.compare(self.scoreboard.named(self._compared).genotype, self._compared)

    def _step_with_sample(
        self, search: Search
    ) -> tuple[SearchState | None, dict | Exception | None]:
        """Make a step, and then have the sample that is looked at flow through the hypernet.

        Returns the state, or None at the end; and the sample, None without one, or an error.
        """
        state, rows = next(search, None), self._sample
        if state is None or not rows:
            return state, None
        try:
            return state, flow(search, rows)
        except Exception as error:  # the step is made, whatever became of the sample
            return state, error

    async def _choose_sample(self, rows: list[int]) -> None:
        """Look at a sample, a row of validation for each modality, from now on."""
        self._sample = rows
        search, loop = self.search, asyncio.get_running_loop()
        seen = [preview(search, m, row) for m, row in enumerate(rows)]
        made = await loop.run_in_executor(WORKER, kernel_lock.job()(flow), search, rows)
        if search is self.search and rows == self._sample:
            self._stage.send({"sample": {**made, "seen": seen}})

    def _take(self, search: Search) -> None:
        self.pause()
        self.search, self.history, self._news.value = search, SearchHistory.from_search(search), ""
        self.scoreboard.clear_message()
        self._set_controls()
        self._begin()
        self._keep_stills()

    def _begin(self) -> None:
        """Show a search that is new here."""
        config = self.search.config
        space = config.N, config.M, config.operations
        self._table = TabularBenchmark.covering(self.search.task, *space)
        rank = (self._table.rank, len(self._table)) if self._table else ()
        self.state, self._before, self._since = self.history[0], None, None
        self._follow, self._compared = True, ""
        self._say()
        data = SceneData(self.state, self.history.about, *rank)
        self._stage.begin(data, self.history, menus(self.search))
        if self._sample:
            self._soon(lambda: self._choose_sample(self._sample))
        self._refresh_buttons()

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

    # What it shows

    def _candidate(self) -> tuple[Genotype, str]:
        relaxation, seed = self.search.config.relaxation, self.search.seed
        return self.state.genotype, f"step {self.state.step}, {relaxation}, seed {seed}"

    def _keep(self, state: SearchState) -> None:
        self.history.append(state)
        self._stage.add(state)

    def _look_at(self, step: int, follow: bool) -> None:
        """Note that the state at ``step`` is shown, or the last one, and will be in a run."""
        i = len(self.history) - 1 if follow else self.history.index(step)
        self.state, self._since = self.history[i], self.history[i - 1] if i else None
        self._follow = follow
        self._keep_stills()
        self._say()
        self._refresh_buttons()

    def _show_last(self) -> None:
        """Send the browser what is new. Changes are those since what was shown at the press."""
        if self._follow:
            self.state, self._since = self.history[-1], self._before
        self._stage.flush(self._before.step, self._jump)
        self._jump = False
        self._sent_at = time.monotonic()
        if self._flow:
            self._stage.send({"sample": self._flow})
            self._flow = None
        self._say()

    def _say(self) -> None:
        """Tell the browser what only the kernel knows."""
        best, notes = self.history.best, []
        if best is not None:
            score = score_text(best.val_score)
            notes.append(f"best validation score {score} at step {best.step}")
        if self._stepping is self.search and IN_TRAINING:
            notes.append(f"waiting while {IN_TRAINING[0]} is trained")
        self._stage.said = {
            "left": len(self.search), "total": self.search.total_steps,
            "running": self._stepping is self.search, "note": " · ".join(notes),
        }  # fmt: skip

    def _load(self, name: str) -> None:
        """Show where this search derived an entry of the scoreboard."""
        entry = self.scoreboard.named(name)
        wanted = entry.genotype.canonical()
        for state in self.history:
            if state.genotype.canonical() == wanted:
                return self.show(state.step)
        self._news.value = html.escape(f"{name}: this search has not derived it so far")

    def _mark_against(self, name: str) -> None:
        """Mark in the derived network what differs from an entry, or end that."""
        name = "" if self._compared == name else self.scoreboard.named(name).name
        self._compared = name
        self._stage.compare(self.scoreboard.named(name).genotype if name else None, name)

    def _refresh_buttons(self) -> None:
        resetting = self._wanted is not None
        for press in self._steppers:
            # During a reset a press is kept, see _steps.
            set_off(press, self._stepping is self.search or not (resetting or len(self.search)))
        set_off(self._pause, not self._running)
        set_off(self._reset, resetting)
        changed = self.settings != self._in_use()
        self._note.value = "<i>press Reset to start a search with these</i>" if changed else ""
        if self._within:
            self._within.refresh()


def speed_menu() -> ipw.Dropdown:
    look = {"layout": ipw.Layout(width="120px"), "style": {"description_width": "initial"}}
    return ipw.Dropdown(options=[*SPEEDS], value="normal", description="speed", **look)
