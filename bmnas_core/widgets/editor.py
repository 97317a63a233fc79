"""GenotypeEditor: build a genotype with menus that offer only what is legal."""

from __future__ import annotations

import html
from dataclasses import replace
from itertools import count
from pathlib import Path

from ..baselines.architectures import fixed_genotype
from ..draw import draw
from ..errors import BmnasError, near_miss, quoted
from ..genotype import (
    LARGEST,
    MOTIFS,
    OPERATIONS,
    CellGenotype,
    Genotype,
    StepGenotype,
    cell_name,
    cell_predecessors,
    step_name,
    step_predecessors,
)
from ..tasks.task import Task, as_task
from ..train import network_cost
from .base import BaseWidget, button, ipw, path_field, picture_box, svg_in_box
from .scoreboard import Scoreboard, train_with

#: What the menu of motifs says of steps that are none of them.
CUSTOM = "custom"
#: The step that every new one starts as.
NEW_STEP = StepGenotype("sum", step_predecessors(0))


class GenotypeEditor(BaseWidget):
    """A genotype with a menu for each of its inputs and operations.

    Every entry of a menu leads to a legal genotype, and every legal genotype of the task can be
    reached: choosing for one input what the other one has swaps the two.

    Args:
        task: the task whose features are fused.
        genotype: where to start; by default ConcatFC on the last feature of each modality.
        scoreboard: where trained genotypes are entered; defaults to the task's.
        path: where *Save* writes.

    Attributes:
        genotype: the genotype shown. Setting it redraws everything.

    Raises:
        BmnasError: for a genotype with other features than the task's.
    """

    def __init__(
        self,
        task: Task,
        genotype: Genotype | None = None,
        *,
        scoreboard: Scoreboard | None = None,
        path: str = "runs/edited/genotype.json",
    ):
        super().__init__()
        self.task, self.scoreboard = as_task(task), Scoreboard.shared(task, scoreboard)
        self._shape = None
        self._first = fixed_genotype(task, "ConcatFC") if genotype is None else genotype
        self._build(path)
        self.genotype = self._first

    @property
    def genotype(self) -> Genotype:
        return self._genotype

    @genotype.setter
    def genotype(self, genotype: Genotype) -> None:
        cost = network_cost(genotype, self.task, self.scoreboard.config)
        self._genotype = genotype
        shape = [len(cell.steps) for cell in genotype.cells], list(OPERATIONS)
        if shape != self._shape:
            self._shape = shape
            self._build_menus()
        self._refresh(*cost)

    def train(self) -> None:
        """Train the genotype and enter it into the scoreboard."""
        self.scoreboard.add(self.genotype, self._name())

    def save(self, path: str | None = None) -> Path:
        """Write the genotype to ``path``; defaults to the path in the field."""
        return self.genotype.save(self._path.value if path is None else path)

    def pictures(self) -> list:
        from IPython.display import HTML

        return [HTML(self._cost.value), draw(self.genotype)]

    # Edits; Cells, steps and inputs are counted from 0

    def choices(self, cell: int, step: int | None = None) -> list[str]:
        """What the inputs of a Cell, or of one of its steps, may be."""
        if step is None:
            return list(cell_predecessors(self.genotype.features, cell))
        return list(step_predecessors(step))

    def choose_input(self, name: str, cell: int, which: int, step: int | None = None) -> None:
        """Set input ``which``, 0 or 1, to ``name``; if the other input has it, the two swap.

        Raises:
            GenotypeError: for a name that is not among :meth:`choices`.
            BmnasError: for a Cell, step or input that does not exist.
        """
        if which not in (0, 1):
            raise BmnasError(f"which: found {quoted(which)}; allowed: 0, 1")
        self._check(cell, step)
        part = self.genotype.cells[cell] if step is None else self._step(cell, step)
        inputs = list(part.inputs)
        if name == inputs[1 - which]:
            inputs.reverse()
        inputs[which] = name
        part = replace(part, inputs=tuple(inputs))
        self._put(part, cell) if step is None else self._put_step(part, cell, step)

    def choose_operation(self, op: str, cell: int, step: int) -> None:
        """Set the operation of a step. Raises as :meth:`choose_input`."""
        self._check(cell, step)
        self._put_step(replace(self._step(cell, step), op=op), cell, step)

    def choose_motif(self, motif: str, cell: int) -> None:
        """Give a Cell the inner steps of ``motif``, a name in ``MOTIFS``."""
        self._check(cell)
        if motif not in MOTIFS:
            found = quoted(motif) + near_miss(motif, MOTIFS)
            raise BmnasError(f"motif: found {found}; allowed: {', '.join(MOTIFS)}")
        steps = tuple(StepGenotype(op, inputs) for op, inputs in MOTIFS[motif])
        self._put(replace(self.genotype.cells[cell], steps=steps), cell)

    def add_step(self, cell: int) -> None:
        """Add a step, a Sum of X and Y."""
        self._check(cell)
        part = self.genotype.cells[cell]
        self._put(replace(part, steps=(*part.steps, NEW_STEP)), cell)

    def remove_step(self, cell: int) -> None:
        """Remove the last step, the one that no other can take."""
        self._check(cell)
        part = self.genotype.cells[cell]
        self._put(replace(part, steps=part.steps[:-1]), cell)

    def add_cell(self) -> None:
        """Add a Cell, a Sum of the last Cell before it and the last feature."""
        cells, features = self.genotype.cells, self.genotype.features
        new = CellGenotype((cell_name(len(cells) - 1), features[-1]), (NEW_STEP,))
        self.genotype = Genotype(features, (*cells, new))

    def remove_cell(self) -> None:
        """Remove the last Cell, the one that no other can take."""
        self.genotype = Genotype(self.genotype.features, self.genotype.cells[:-1])

    def _check(self, cell: int, step: int | None = None) -> None:
        cells = self.genotype.cells
        if not isinstance(cell, int) or not 0 <= cell < len(cells):
            raise BmnasError(f"cell: found {quoted(cell)}; allowed: 0 to {len(cells) - 1}")
        steps = cells[cell].steps
        if step is not None and (not isinstance(step, int) or not 0 <= step < len(steps)):
            raise BmnasError(f"step: found {quoted(step)}; allowed: 0 to {len(steps) - 1}")

    def _step(self, cell: int, step: int) -> StepGenotype:
        return self.genotype.cells[cell].steps[step]

    def _put_step(self, part: StepGenotype, cell: int, step: int) -> None:
        steps = list(self.genotype.cells[cell].steps)
        steps[step] = part
        self._put(replace(self.genotype.cells[cell], steps=tuple(steps)), cell)

    def _put(self, part: CellGenotype, cell: int) -> None:
        cells = list(self.genotype.cells)
        cells[cell] = part
        self.genotype = Genotype(self.genotype.features, tuple(cells))

    # The interface

    def _build(self, path: str) -> None:
        self._menus, self._picture, self._cost = ipw.VBox(), picture_box("100%"), ipw.HTML()
        self._news = ipw.HTML()
        self._more = button("+ Cell", "Add a Cell")
        self._fewer = button("− Cell", "Remove the last Cell")
        reset = button("Reset", "Go back to the first genotype", icon="refresh")
        self._train = button("Train this one", "Train it and score it on validation")
        save = button("Save", "Write the genotype", icon="save")
        self._path = path_field("file", path, "240px")
        row = ipw.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px")
        buttons = [self._more, self._fewer, reset, self._train, save, self._path]
        self.children = [
            self._menus,
            ipw.HBox(buttons, layout=row),
            self._error,
            self._cost,
            self._picture,
            self._news,
            self.scoreboard,
            self._bridge,
        ]
        for press, call in (
            (self._more, self.add_cell),
            (self._fewer, self.remove_cell),
            (reset, lambda: setattr(self, "genotype", self._first)),
            (self._train, self._train_pressed),
            (save, self._save_pressed),
        ):
            press.on_click(lambda _, call=call: self._soon(call))

    def _build_menus(self) -> None:
        """A row of menus for each Cell: its inputs, its motif, its steps."""
        _close(self._menus)
        self._chosen: list[tuple] = []  # menu, what it shows of a genotype
        rows = []
        for i, cell in enumerate(self.genotype.cells):
            head = [self._text(f"<b>Cell {i + 1}</b>", "58px")]
            for k, port in enumerate(step_predecessors(0)):
                head += [self._text(port, "16px"), self._input_menu(i, k)]
            motif = self._menu(
                [CUSTOM, *(m for m in MOTIFS if all(op in OPERATIONS for op, _ in MOTIFS[m]))],
                lambda g, i=i: g.cells[i].motif or CUSTOM,
                lambda name, i=i: self._refresh() if name == CUSTOM else self.choose_motif(name, i),
                "170px",
            )
            more = button("+ step", "Add a step")
            fewer = button("− step", "Remove the last step")
            more.on_click(lambda _, i=i: self._soon(lambda: self.add_step(i)))
            fewer.on_click(lambda _, i=i: self._soon(lambda: self.remove_step(i)))
            fewer.disabled = len(cell.steps) == 1
            more.disabled = len(cell.steps) == LARGEST
            head += [self._text("steps", "36px"), motif, more, fewer]
            lines = [self._line(head)]
            for j in range(len(cell.steps)):
                operation = self._menu(
                    [(kind.label, op) for op, kind in OPERATIONS.items()],
                    lambda g, i=i, j=j: g.cells[i].steps[j].op,
                    lambda op, i=i, j=j: self.choose_operation(op, i, j),
                    "120px",
                )
                menus = [self._input_menu(i, k, j) for k in (0, 1)]
                name, of = self._text(f"{step_name(j)} =", "44px"), self._text("of", "18px")
                lines.append(self._line([self._text("", "40px"), name, operation, of, *menus]))
            rows.append(ipw.VBox(lines, layout=ipw.Layout(margin="0 0 8px 0")))
        self._menus.children = rows

    def _input_menu(self, i: int, k: int, j: int | None = None) -> ipw.Dropdown:
        def shown(g):
            part = g.cells[i] if j is None else g.cells[i].steps[j]
            return part.inputs[k]

        width = "130px" if j is None else "70px"
        choose = lambda name: self.choose_input(name, i, k, j)  # noqa: E731
        return self._menu(self.choices(i, j), shown, choose, width)

    def _menu(self, options: list, shown, choose, width: str) -> ipw.Dropdown:
        """A menu that shows ``shown(genotype)`` and calls ``choose`` with the entry picked."""
        menu = ipw.Dropdown(
            options=options, value=shown(self.genotype), layout=ipw.Layout(width=width)
        )

        def picked():
            if menu.value != shown(self.genotype):
                self._clear_error()
                choose(menu.value)

        menu.observe(lambda _: self._soon(picked), "value")
        self._chosen.append((menu, shown))
        return menu

    @staticmethod
    def _text(text: str, width: str) -> ipw.HTML:
        return ipw.HTML(text, layout=ipw.Layout(width=width))

    @staticmethod
    def _line(items: list) -> ipw.HBox:
        return ipw.HBox(items, layout=ipw.Layout(flex_flow="row wrap", align_items="center"))

    def _refresh(self, parameters: int | None = None, operations: int | None = None) -> None:
        for menu, shown in self._chosen:
            menu.value = shown(self.genotype)
        self._more.disabled = len(self.genotype.cells) == LARGEST
        self._fewer.disabled = len(self.genotype.cells) == 1
        if parameters is None:
            return
        self._cost.value = (
            f'<div role="status"><b>{parameters:,}</b> parameters, <b>{operations:,}</b> '
            "FLOPs per sample</div>"
        )
        self._picture.value = svg_in_box("", draw(self.genotype).svg)
        self._news.value = ""

    def _name(self) -> str:
        taken = {entry.name for entry in self.scoreboard.entries}
        return next(name for k in count(1) if (name := f"edited {k}") not in taken)

    async def _train_pressed(self) -> None:
        self._clear_error()
        await train_with(self._train, self, self.genotype, self._name())

    def _save_pressed(self) -> None:
        self._clear_error()
        path = self.save()
        self._news.value = f"saved in <code>{html.escape(str(path))}</code>"


def _close(box: ipw.Box) -> None:
    """Close everything in a box, in the kernel and on the page."""
    children, box.children = box.children, ()
    for child in children:
        if isinstance(child, ipw.Box):
            _close(child)
        child.layout.close()
        child.close()
