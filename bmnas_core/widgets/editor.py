"""GenotypeEditor: build a genotype by menus that offer only what is legal."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

from ..baselines.architectures import fixed_genotype
from ..draw import draw
from ..errors import BmnasError
from ..genotype import LARGEST, MOTIFS, OPERATIONS, CellGenotype, Genotype, StepGenotype
from ..tasks.task import Task, as_task
from ..train import network_cost
from .base import BaseWidget, button, ipw, path_field, picture_box, svg_in_box
from .scoreboard import Scoreboard, train_with

OWN = "its own"


class GenotypeEditor(BaseWidget):
    """A genotype with a menu for each of its choices.

    Every choice offered leads to a legal genotype, and every legal genotype of the task can be
    reached: choosing for one input what the other one takes swaps the two.

    Args:
        task: whose features are fused.
        genotype: where to start; a ConcatFC Cell on the last features where None.
        scoreboard: where trained genotypes go; the task's own where None.
        path: where *Save* writes.

    Attributes:
        genotype: what stands there now. Setting it redraws everything.

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
        shape = [len(cell.steps) for cell in genotype.cells]
        shape = shape, list(OPERATIONS)
        if shape != self._shape:
            self._shape = shape
            self._build_menus()
        self._refresh(*cost)

    def train(self) -> None:
        """Train the genotype and enter it into the scoreboard."""
        self.scoreboard.add(self.genotype, self._name())

    def save(self, path: str | None = None) -> Path:
        """Write the genotype to ``path``, the one in the field where None."""
        return self.genotype.save(self._path.value if path is None else path)

    def pictures(self) -> list:
        from IPython.display import HTML

        return [HTML(self._cost.value), draw(self.genotype)]

    # The choices

    def choices(self, cell: int, step: int | None = None) -> list[str]:
        """What the inputs of a Cell, or of one of its steps, may be. Counted from 0."""
        if step is None:
            return [*self.genotype.features, *(f"C{k + 1}" for k in range(cell))]
        return ["X", "Y", *(f"S{k + 1}" for k in range(step))]

    def choose_input(self, name: str, cell: int, which: int, step: int | None = None) -> None:
        """Make ``name`` input ``which``, 0 or 1; where it is the other one, the two swap.

        Raises:
            GenotypeError: for a name that is not among :meth:`choices`.
            BmnasError: for a Cell or a step that is not there.
        """
        if which not in (0, 1):
            raise BmnasError(f"which: found {which!r}; allowed: 0, 1")
        self._there(cell, step)
        part = self.genotype.cells[cell] if step is None else self._step(cell, step)
        inputs = list(part.inputs)
        if name == inputs[1 - which]:
            inputs.reverse()
        inputs[which] = name
        part = replace(part, inputs=tuple(inputs))
        self._put(part, cell) if step is None else self._put_step(part, cell, step)

    def choose_operation(self, op: str, cell: int, step: int) -> None:
        """Make ``op`` what a step does. Raises as :meth:`choose_input`."""
        self._there(cell, step)
        self._put_step(replace(self._step(cell, step), op=op), cell, step)

    def choose_motif(self, motif: str, cell: int) -> None:
        """Give a Cell the inner steps of a known one, a name in ``MOTIFS``."""
        self._there(cell)
        if motif not in MOTIFS:
            raise BmnasError(f"motif: found {motif!r}; allowed: {', '.join(MOTIFS)}")
        steps = tuple(StepGenotype(op, inputs) for op, inputs in MOTIFS[motif])
        self._put(replace(self.genotype.cells[cell], steps=steps), cell)

    def add_step(self, cell: int) -> None:
        """One more step, a Sum of X and Y."""
        self._there(cell)
        part = self.genotype.cells[cell]
        self._put(replace(part, steps=(*part.steps, StepGenotype("sum", ("X", "Y")))), cell)

    def remove_step(self, cell: int) -> None:
        """Without the last step, which no other can take."""
        self._there(cell)
        part = self.genotype.cells[cell]
        self._put(replace(part, steps=part.steps[:-1]), cell)

    def add_cell(self) -> None:
        """One more Cell, a Sum of the last Cell before it and the last feature."""
        inputs = f"C{len(self.genotype.cells)}", self.genotype.features[-1]
        cell = CellGenotype(inputs, (StepGenotype("sum", ("X", "Y")),))
        self.genotype = Genotype(self.genotype.features, (*self.genotype.cells, cell))

    def remove_cell(self) -> None:
        """Without the last Cell, which no other can take."""
        self.genotype = Genotype(self.genotype.features, self.genotype.cells[:-1])

    def _there(self, cell: int, step: int | None = None) -> None:
        cells = self.genotype.cells
        if not isinstance(cell, int) or not 0 <= cell < len(cells):
            raise BmnasError(f"cell: found {cell!r}; allowed: 0 to {len(cells) - 1}")
        steps = cells[cell].steps
        if step is not None and (not isinstance(step, int) or not 0 <= step < len(steps)):
            raise BmnasError(f"step: found {step!r}; allowed: 0 to {len(steps) - 1}")

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
        self._more = button("+ Cell", "One more Cell")
        self._fewer = button("− Cell", "Without the last Cell")
        self._again = button("Reset", "The genotype to begin with", icon="refresh")
        self._train = button("Train this one", "Train it, score on validation")
        self._save = button("Save", "Write the genotype", icon="save")
        self._path = path_field("file", path, "240px")
        row = ipw.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px")
        buttons = [self._more, self._fewer, self._again, self._train, self._save, self._path]
        self.children = [
            self._menus,
            ipw.HBox(buttons, layout=row),
            self._error,
            self._cost,
            self._picture,
            self._news,
            self.scoreboard,
            self._page,
        ]
        for press, call in (
            (self._more, self.add_cell),
            (self._fewer, self.remove_cell),
            (self._again, lambda: setattr(self, "genotype", self._first)),
            (self._train, self._train_pressed),
            (self._save, self._save_pressed),
        ):
            press.on_click(lambda _, call=call: self._soon(call))

    def _build_menus(self) -> None:
        """A row of menus for each Cell: its inputs, its motif, its steps."""
        _close(self._menus)
        self._chosen: list[tuple] = []  # menu, what it shows of a genotype
        rows = []
        for i, cell in enumerate(self.genotype.cells):
            head = [self._text(f"<b>Cell {i + 1}</b>", "58px")]
            for k, port in enumerate("XY"):
                head += [self._text(port, "16px"), self._input_menu(i, k)]
            motif = self._menu(
                [OWN, *(m for m in MOTIFS if all(op in OPERATIONS for op, _ in MOTIFS[m]))],
                lambda g, i=i: g.cells[i].motif or OWN,
                lambda name, i=i: self.choose_motif(name, i) if name != OWN else self._refresh(),
                "170px",
            )
            more, fewer = button("+ step", "One more step"), button("− step", "Without the last")
            more.on_click(lambda _, i=i: self._soon(lambda: self.add_step(i)))
            fewer.on_click(lambda _, i=i: self._soon(lambda: self.remove_step(i)))
            fewer.disabled = len(cell.steps) == 1
            more.disabled = len(cell.steps) == LARGEST
            head += [self._text("steps as in", "74px"), motif, more, fewer]
            lines = [self._line(head)]
            for j in range(len(cell.steps)):
                operation = self._menu(
                    [(kind.label, op) for op, kind in OPERATIONS.items()],
                    lambda g, i=i, j=j: g.cells[i].steps[j].op,
                    lambda op, i=i, j=j: self.choose_operation(op, i, j),
                    "120px",
                )
                menus = [self._input_menu(i, k, j) for k in (0, 1)]
                name = self._text(f"S{j + 1} =", "44px")
                of = self._text("of", "18px")
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
        """A menu that shows ``shown(genotype)`` and calls ``choose`` with what is picked."""
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
            "FLOPs a sample</div>"
        )
        self._picture.value = svg_in_box("", draw(self.genotype).svg)
        self._news.value = ""

    def _name(self) -> str:
        taken = {entry.name for entry in self.scoreboard.entries}
        k = 1
        while f"edited {k}" in taken:
            k += 1
        return f"edited {k}"

    async def _train_pressed(self) -> None:
        self._clear_error()
        await train_with(self._train, self, self.genotype, self._name())

    def _save_pressed(self) -> None:
        self._clear_error()
        path = self.save()
        self._news.value = f"saved in <code>{html.escape(str(path))}</code>"


def _close(box: ipw.Box) -> None:
    """Close all that is in a box, in the kernel and on the page."""
    children, box.children = box.children, ()
    for child in children:
        if isinstance(child, ipw.Box):
            _close(child)
        child.layout.close()
        child.close()
