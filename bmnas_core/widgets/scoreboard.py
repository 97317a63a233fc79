"""A scoreboard of trained genotypes, shared by all widgets of a task."""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, count
from threading import Event
from weakref import WeakKeyDictionary

from IPython.display import HTML

from ..errors import BmnasError, check_type, quoted
from ..features import FeatureBank
from ..genotype import OPERATIONS, Genotype
from ..losses import metric_of
from ..metrics import score_text
from ..networks import count_parameters
from ..runtime import as_seed, resolve_device
from ..tasks.task import Task, as_task
from ..train import TrainConfig, network_cost, train
from .base import WORKER, BaseWidget, in_training, ipw, kernel_lock, set_off, tell_all

#: Of a cell of the table: names wrap late, numbers do not.
STYLES = {
    "left": "style='text-align:left;padding:2px 10px;min-width:10em'",
    "right": "style='text-align:right;padding:2px 10px'",
}

_BOARDS: WeakKeyDictionary[Task, Scoreboard] = WeakKeyDictionary()


class TrainingStopped(BmnasError):
    """Ends a training whose widget has no view left."""


@dataclass(frozen=True)
class Entry:
    """One trained genotype and its score on validation, which training did not see.

    ``operations`` are the FLOPs per sample that :func:`~bmnas_core.network_cost` counts.
    """

    name: str
    genotype: Genotype
    score: float
    parameters: int
    operations: int
    seconds: float


class Scoreboard(BaseWidget):
    """Genotypes trained on *train* and scored on *validation*, best first; test is not read.

    Args:
        task: the task they are trained on.
        config: how; its ``data`` is ignored.
        seed, device: of the trainings.
        bank: features computed before; defaults to the task's shared bank in memory.

    Attributes:
        entries: in the order they were trained.

    Raises:
        BmnasError: for anything but a task, a training config and the task's bank.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        bank: FeatureBank | None = None,
    ):
        self.task, self.seed = as_task(task), as_seed(seed)
        self.config = replace(TrainConfig.from_optional(config), data="train")
        self.device, self.bank = resolve_device(device), bank
        if bank is not None:
            FeatureBank.shared(task, self.config.with_defaults(task.config).L, self.device, bank)
        super().__init__()
        self.entries: list[Entry] = []
        self.pinned: set[str] = set()  # names of entries that are listed first
        self._table = ipw.HTML(layout=ipw.Layout(overflow="auto", max_width="100%", min_width="0"))
        self._take_actions(pin=self._pin)
        self.children = [self._table, self._error, self._bridge]
        self._show()

    @classmethod
    def shared(cls, task: Task, board: Scoreboard | None = None, **options) -> Scoreboard:
        """``board``, or by default the one that all widgets of ``task`` share.

        Args:
            options: for the shared scoreboard, if this call is the first to ask for it.

        Raises BmnasError for anything but a scoreboard of this task.
        """
        if board is not None:
            if not isinstance(board, cls) or board.task is not task:
                raise BmnasError("scoreboard", type(board).__name__, "a Scoreboard of this task")
            return board
        if as_task(task) not in _BOARDS:
            _BOARDS[task] = cls(task, **options)
        return _BOARDS[task]

    def add(self, genotype: Genotype, name: str) -> Entry:
        """Train a genotype and enter its score, unless this architecture has an entry already.

        Raises TrainError if the genotype is not the task's, or training fails.
        """
        entry = self.find(genotype) or self._enter(self._trained(genotype, name))
        self._show()
        return entry

    def find(self, genotype: Genotype) -> Entry | None:
        """The entry of this architecture, in whatever order its parts are listed; or None."""
        canonical = check_type(genotype, Genotype, "genotype", BmnasError).canonical()
        return next((e for e in self.entries if e.genotype.canonical() == canonical), None)

    async def add_in_worker(
        self, genotype: Genotype, name: str, stopped: Event, on_progress: Callable[[str], None]
    ) -> str:
        """:meth:`add` without blocking; ends early once ``stopped`` is set. Returns how it went."""
        if known := self.find(genotype):
            self._show(message := f"already in the table: {known.name}")
            return message
        loop = asyncio.get_running_loop()
        epochs = self.config.with_defaults(self.task.config).epochs

        def job():
            if stopped.is_set():
                raise TrainingStopped(f"training of {name} stopped before its first epoch")
            turn = ExitStack()

            def on_epoch(record):
                turn.close()  # a cell that waits may run now
                if stopped.is_set():
                    raise TrainingStopped(f"training of {name} stopped in epoch {record['epoch']}")
                text = f"epoch {record['epoch']} of {epochs}"
                loop.call_soon_threadsafe(on_progress, text)
                text += f", validation {record['validation_score']:.3f}"
                loop.call_soon_threadsafe(self._show, f"training {name}: {text}")
                turn.enter_context(kernel_lock.job())

            with turn:
                turn.enter_context(kernel_lock.job())
                return self._trained(genotype, name, on_epoch)

        self._show(f"training {name} …")
        on_progress("training …")
        message = ""
        try:
            with in_training(name):
                entry = await loop.run_in_executor(WORKER, job)
            entry = self.find(genotype) or self._enter(entry)
            score = f"validation {self.task.metric} {score_text(entry.score)}"
            return f"{entry.name}: {score}, {entry.seconds:.1f} s of training"
        except TrainingStopped as stop:
            message = str(stop)
            return message
        finally:
            self._show(message)

    def _enter(self, entry: Entry) -> Entry:
        """Keep an entry under a name that no other has."""
        taken = {one.name for one in self.entries}
        names = chain([entry.name], (f"{entry.name} ({k})" for k in count(2)))
        self.entries.append(replace(entry, name=next(n for n in names if n not in taken)))
        return self.entries[-1]

    def _trained(self, genotype: Genotype, name: str, on_epoch=None) -> Entry:
        if not isinstance(name, str):
            raise BmnasError("name", quoted(name), "text")
        _, operations = network_cost(genotype, self.task, self.config)
        how = {"seed": self.seed, "device": self.device, "bank": self.bank, "progress": False}
        start = time.perf_counter()
        net, history = train(genotype, self.task, self.config, on_epoch=on_epoch, **how)
        seconds, score = time.perf_counter() - start, history[-1]["validation_score"]
        return Entry(name, genotype, score, count_parameters(net), operations, seconds)

    def named(self, name: str) -> Entry:
        """The entry called ``name``. Raises BmnasError if there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self.entries) or "no entry"
        raise BmnasError("entry", quoted(name), names)

    def _pin(self, name: str) -> None:
        self.pinned ^= {self.named(name).name}
        self._show()

    def pictures(self) -> list:
        return [HTML(re.sub("<button.*?</button>", "", self._table.value))]

    def clear_message(self) -> None:
        """Draw the table anew, without the message below it."""
        self._show()

    def _row_buttons(self, name: str) -> str:
        what = {
            "load": ("Load", "Open it in the editor, or go to the step that derived it"),
            "compare": ("Compare", "Mark what differs from it"),
            "pin": ("Pin", "List it first"),
        }
        at, on = html.escape(name), str(name in self.pinned).lower()
        pressed = {"pin": f' aria-pressed="{on}"'}
        return " ".join(
            f'<button class="bmnas-do" data-do="{do}" data-at="{at}" title="{tip}"'
            f' aria-label="{text} {at}"{pressed.get(do, "")}>{text}</button>'
            for do, (text, tip) in what.items()
        )

    def _show(self, message: str = "") -> None:
        sign = metric_of(self.task).sign
        best = sorted(self.entries, key=lambda entry: -sign * entry.score)
        places = {entry.name: place for place, entry in enumerate(best, 1)}
        best.sort(key=lambda entry: entry.name not in self.pinned)
        heads = f"validation {self.task.metric}", "parameters", "FLOPs", "seconds"
        rows = "".join(
            _row("td", places[e.name], e.name, brief(e.genotype), score_text(e.score),
                 f"{e.parameters:,}", f"{e.operations:,}", f"{e.seconds:.1f}",
                 buttons=self._row_buttons(e.name))
            for e in best
        )  # fmt: skip
        empty = f"<tr><td colspan=8 {STYLES['left']}>nothing trained yet</td></tr>"
        epochs = self.config.with_defaults(self.task.config).epochs
        note = f"{epochs} epochs on train, scored on validation; test is not read"
        self._table.value = (
            f"<div style='line-height:1.5'><b>Scoreboard</b> ({note})<table "
            f"style='border-collapse:collapse'><thead>{_row('th', '', 'name', 'genotype', *heads)}"
            f"</thead><tbody>{rows or empty}</tbody></table>"
            f"<div role='status' style='min-height:1.5em'>{html.escape(message)}</div></div>"
        )
        tell_all(lambda widget: widget.on_scores())
        self._keep_stills()


def _row(tag: str, *cells: object, buttons: str = "") -> str:
    sides = ["right", "left", "left"] + ["right"] * 4
    parts = (
        f"<{tag} {STYLES[side]}>{html.escape(str(cell))}</{tag}>"
        for side, cell in zip(sides, cells, strict=True)
    )
    return f"<tr>{''.join(parts)}<{tag}>{buttons}</{tag}></tr>"


class CandidateWidget(BaseWidget):
    """A widget that shows a genotype and can enter it into its ``scoreboard``.

    Subclasses give it ``_news``, an :class:`ipywidgets.HTML` for how a training went.
    """

    def _candidate(self) -> tuple[Genotype, str]:
        """The genotype that is shown, and what the scoreboard calls it."""
        raise NotImplementedError

    def train(self) -> None:
        """Train the genotype that is shown and enter it into the scoreboard."""
        self.scoreboard.add(*self._candidate())

    def cancel(self) -> None:
        """End the training that this widget has begun, after its epoch."""
        self._stopped.set()

    def _train_buttons(self) -> list[ipw.Button]:
        """Buttons that begin and end a training."""
        tip = "Train the genotype shown, score on validation"
        self._train = self._button("Train this one", tip, self._train_pressed)
        self._cancel = self._button("Cancel", "End the training after this epoch", self.cancel)
        set_off(self._cancel, True)
        return [self._train, self._cancel]

    async def _train_pressed(self) -> None:
        """The same in a worker; meanwhile the button is off and shows the progress."""
        self._error.value = self._news.value = ""
        self._stopped, text = Event(), self._train.description
        show = lambda progress: setattr(self._train, "description", progress)  # noqa: E731
        set_off(self._train, True)
        set_off(self._cancel, False)
        try:
            news = self.scoreboard.add_in_worker(*self._candidate(), self._stopped, show)
            self._news.value = html.escape(await news)
        finally:
            self._train.description = text
            set_off(self._train, False)
            set_off(self._cancel, True)
            self._keep_stills()


def brief(genotype: Genotype) -> str:
    """A genotype in one line: the inputs of each Cell, and its motif or operations."""
    cells = []
    for cell in genotype.cells:
        steps = ", ".join(OPERATIONS[step.op].label for step in cell.steps)
        cells.append(f"({', '.join(cell.inputs)}) {cell.motif or steps}")
    return "; ".join(cells)
