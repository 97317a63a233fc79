"""A scoreboard of trained genotypes, shared by all widgets of a task."""

from __future__ import annotations

import asyncio
import html
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ..errors import BmnasError
from ..features import FeatureBank
from ..genotype import OPERATIONS, Genotype
from ..networks import count_parameters
from ..runtime import as_seed, resolve_device
from ..tasks.task import Task, as_task
from ..train import TrainConfig, network_cost, train
from .base import TRAININGS, BaseWidget, ipw, kernel_lock

_BOARDS: weakref.WeakKeyDictionary[Task, Scoreboard] = weakref.WeakKeyDictionary()


class Stopped(BmnasError):
    """A training that was broken off because nobody looks any more."""


@dataclass(frozen=True)
class Entry:
    """One trained genotype: ``score`` on validation, which training did not see.

    ``operations`` are the FLOPs of one sample, multiplications and additions, as
    :func:`~bmnas_core.network_cost` counts them.
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
        task: what they are trained on.
        config: how; ``data`` is ``"train"`` whatever it says.
        seed, device: of the trainings.
        bank: features computed before.

    Attributes:
        entries: in the order they were trained.

    Raises:
        BmnasError: for anything but a task, its settings and its bank.
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
        values = TrainConfig.from_optional(config).to_dict() | {"data": "train"}
        self.task, self.config, self.seed = as_task(task), TrainConfig(**values), as_seed(seed)
        self.device, self.bank = resolve_device(device), bank
        if bank is not None:
            FeatureBank.shared(task, self.config.with_defaults(task.config).L, self.device, bank)
        super().__init__()
        self.entries: list[Entry] = []
        self._table = ipw.HTML()
        self.children = [self._table, self._error, self._page]
        self._show()

    @classmethod
    def shared(cls, task: Task, board: Scoreboard | None = None, **options) -> Scoreboard:
        """The scoreboard that all widgets of ``task`` share; made with ``options`` if need be.

        Where a ``board`` is given, it is taken instead.

        Raises:
            BmnasError: for a board that is none, or another task's.
        """
        if board is not None:
            if not isinstance(board, cls) or board.task is not task:
                found = type(board).__name__
                raise BmnasError(f"scoreboard: found {found}; allowed: a Scoreboard of this task")
            return board
        if as_task(task) not in _BOARDS:
            _BOARDS[task] = cls(task, **options)
        return _BOARDS[task]

    def add(self, genotype: Genotype, name: str) -> Entry:
        """Train a genotype and enter its score; one that stands there already is not trained anew.

        Raises:
            TrainError: if the genotype is not the task's, or training goes astray.
        """
        known = self.find(genotype)
        if known is None:
            known = self._enter(self._trained(genotype, name))
        self._show()
        return known

    def find(self, genotype: Genotype) -> Entry | None:
        """The entry of this architecture, whatever order its parts are listed in."""
        if not isinstance(genotype, Genotype):
            found = type(genotype).__name__
            raise BmnasError(f"genotype: found {found}; allowed: a Genotype")
        canonical = genotype.canonical()
        return next((e for e in self.entries if e.genotype.canonical() == canonical), None)

    async def add_in_worker(
        self, genotype: Genotype, name: str, ended: threading.Event, tell: Callable[[str], None]
    ) -> None:
        """:meth:`add` without blocking. ``tell`` hears how far it is, ``ended`` breaks it off."""
        loop, epochs = (
            asyncio.get_running_loop(),
            self.config.with_defaults(self.task.config).epochs,
        )

        def on_epoch(record):
            if ended.is_set():
                raise Stopped(f"training of {name}: broken off in epoch {record['epoch']}")
            text = f"epoch {record['epoch']} of {epochs}"
            loop.call_soon_threadsafe(tell, text)
            text += f", validation {record['validation_score']:.3f}"
            loop.call_soon_threadsafe(self._show, f"training {name}: {text}")

        def job():
            if ended.is_set():
                raise Stopped(f"training of {name}: broken off before it began")
            turn = ExitStack()
            turn.enter_context(kernel_lock.job())

            def between(record):
                turn.close()  # a cell that waits may run now
                on_epoch(record)
                turn.enter_context(kernel_lock.job())

            with turn:
                return self._trained(genotype, name, between)

        if (known := self.find(genotype)) is not None:
            self._show(f"in the table already: {known.name}")
            return
        self._show(f"training {name} …")
        tell("training …")
        news = ""
        try:
            entry = await self._work(job, TRAININGS)
            if self.find(genotype) is None:
                self._enter(entry)
        except Stopped as stopped:
            news = str(stopped)
        finally:
            self._show(news)

    def forget_news(self) -> None:
        """Without the line below the table."""
        self._show()

    def _enter(self, entry: Entry) -> Entry:
        """Keep an entry, under a name that no other one has."""
        taken, name, k = {e.name for e in self.entries}, entry.name, 1
        while entry.name in taken:
            k += 1
            entry = replace(entry, name=f"{name} ({k})")
        self.entries.append(entry)
        return entry

    def _trained(self, genotype: Genotype, name: str, on_epoch=None) -> Entry:
        if not isinstance(name, str):
            raise BmnasError(f"name: found {name!r}; allowed: text")
        _, operations = network_cost(genotype, self.task, self.config)
        start = time.perf_counter()
        net, history = train(
            genotype,
            self.task,
            self.config,
            seed=self.seed,
            device=self.device,
            bank=self.bank,
            progress=False,
            on_epoch=on_epoch,
        )
        seconds = time.perf_counter() - start
        score = history[-1]["validation_score"]
        return Entry(name, genotype, score, count_parameters(net), operations, seconds)

    def pictures(self) -> list:
        from IPython.display import HTML

        return [HTML(self._table.value)]

    def _show(self, news: str = "") -> None:
        ranked = sorted(self.entries, key=lambda entry: -entry.score)
        rows = "".join(
            f"<tr><td>{k}</td><td style='text-align:left'>{html.escape(entry.name)}</td>"
            f"<td style='text-align:left'>{html.escape(brief(entry.genotype))}</td>"
            f"<td>{entry.score:.3f}</td><td>{entry.parameters:,}</td>"
            f"<td>{entry.operations:,}</td><td>{entry.seconds:.1f}</td></tr>"
            for k, entry in enumerate(ranked, 1)
        )
        left, right = (f"text-align:{side};padding:2px 10px" for side in ("left", "right"))
        metric = html.escape(self.task.metric)
        heads = f"<th style='{right}'></th><th style='{left}'>trained</th>"
        heads += f"<th style='{left}'>what it is</th>"
        for head in (f"validation {metric}", "parameters", "FLOPs", "seconds"):
            heads += f"<th style='{right}'>{head}</th>"
        rows = rows.replace("<td>", f"<td style='{right}'>")
        rows = rows.replace("<td style='text-align:left'>", f"<td style='{left}'>")
        if not rows:
            rows = f"<tr><td colspan=7 style='{left}'>nothing trained yet</td></tr>"
        epochs = self.config.with_defaults(self.task.config).epochs
        note = f"{epochs} epochs on train, scored on validation; test stays closed"
        self._table.value = (
            f"<div style='line-height:1.5'><b>Scoreboard</b> ({note})<table "
            f"style='border-collapse:collapse'><thead><tr>{heads}</tr></thead><tbody>{rows}"
            f"</tbody></table><div role='status' style='min-height:1.5em'>{html.escape(news)}"
            "</div></div>"
        )


async def train_with(press: ipw.Button, widget: BaseWidget, genotype: Genotype, name: str) -> None:
    """Train from a button of ``widget``: it says how far that is, and works again afterwards."""
    widget._ended, text = threading.Event(), press.description
    press.disabled = True
    try:
        await widget.scoreboard.add_in_worker(
            genotype, name, widget._ended, lambda news: setattr(press, "description", news)
        )
    finally:
        press.disabled, press.description = False, text


def brief(genotype: Genotype) -> str:
    """A genotype in one line: for each Cell its inputs and its motif or operations."""
    cells = []
    for cell in genotype.cells:
        steps = ", ".join(OPERATIONS[step.op].label for step in cell.steps)
        cells.append(f"({', '.join(cell.inputs)}) {cell.motif or steps}")
    return "; ".join(cells)
