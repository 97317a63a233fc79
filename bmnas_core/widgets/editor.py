"""GenotypeEditor: build a genotype with menus that offer only what is legal."""

import html
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, starmap
from pathlib import Path

from IPython.display import HTML

from ..baselines.architectures import fixed_genotype
from ..draw.canvas import text_width
from ..draw.genotypes import graph
from ..draw.hypernets import PORTS
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
from .base import ipw, path_field, picture_box, row, set_off, svg_in_box
from .scoreboard import CandidateWidget, Scoreboard

#: What the menu of motifs says of steps that are none of them.
CUSTOM = "custom"
#: What the menu of comparisons offers besides the scoreboard's entries.
NOTHING, START = "nothing", "the starting genotype"
#: What the legend calls edges that are not fixed: nothing was searched here.
DECIDED = "your own"
#: The step that every new one starts as.
NEW_STEP = StepGenotype("sum", step_predecessors(0))


class GenotypeEditor(CandidateWidget):
    """A genotype with a menu for each of its inputs and operations.

    Every entry of a menu leads to a legal genotype, and every legal genotype of the task can be
    reached: choosing for one input what the other one has swaps the two. In the picture an edge is
    moved by clicking it and then its new source; clicking a step leads to the menu of its
    operation.

    Args:
        task: the task whose features are fused.
        genotype: where to start; by default ConcatFC on the last feature of each modality.
        scoreboard: where trained genotypes are entered; defaults to the task's.
        path: where *Save* writes.

    Attributes:
        genotype: the genotype shown. Setting it redraws everything.

    Raises BmnasError for a genotype with other features than the task's.
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
        self._first = fixed_genotype(task, "ConcatFC") if genotype is None else genotype
        self._shape, self._menus, self._cost = None, ipw.VBox(), ipw.HTML()
        self._picture, self._news, make = picture_box("100%"), ipw.HTML(), self._button
        self._past: list[Genotype] = []  # that Undo goes back to
        self._future: list[Genotype] = []  # that Redo goes on to
        self._edge: tuple | None = None  # the input that is being moved: Cell, input, step
        self._undo_button = make("Undo", "Take the last change back", self.undo, icon="undo")
        self._redo_button = make("Redo", "Make it again", self.redo, icon="repeat")
        tip = "Mark in the picture what differs from a genotype"
        layout, style = ipw.Layout(width="300px"), {"description_width": "initial"}
        self._against = ipw.Dropdown(
            options=[NOTHING], description="compare with", tooltip=tip, layout=layout, style=style
        )
        self._against.observe(lambda _: self._soon(self._draw), "value")
        self._take_actions(part=self._clicked, load=self._load, compare=self._mark_against)
        self._more = make("+ Cell", "Add a Cell", self.add_cell)
        self._fewer = make("− Cell", "Remove the last Cell", self.remove_cell)
        reset = make("Reset", "Go back to the starting genotype", self._reset, icon="refresh")
        save = make("Save", "Write the genotype", self._save_pressed, icon="save")
        self._path = path_field("file", path, "240px")
        line = [self._undo_button, self._redo_button, self._more, self._fewer, reset]
        line += [*self._train_buttons(), save, self._path, self._against]
        bar = ipw.VBox(
            [row(line, grid_gap="2px"), self._cost, self._news, self._error, self._bridge]
        )
        bar.add_class("bmnas-bar")
        self.children = [bar, self._menus, self._picture, self.scoreboard]
        self._genotype = self._first
        self._offer_entries()
        self._reset()
        self._past.clear()
        self._refresh_undo()

    @property
    def genotype(self) -> Genotype:
        return self._genotype

    @genotype.setter
    def genotype(self, genotype: Genotype) -> None:
        cost = network_cost(genotype, self.task, self.scoreboard.config)
        if genotype != self._genotype:
            self._past.append(self._genotype)
            self._future.clear()
        self._take(genotype, *cost)

    def _take(self, genotype: Genotype, parameters: int, operations: int) -> None:
        """Show a genotype, whose network has so many parameters and FLOPs."""
        self._genotype, cells = genotype, len(genotype.cells)
        shape = [len(cell.steps) for cell in genotype.cells], list(OPERATIONS)
        if shape != self._shape:
            self._shape = shape
            self._build_menus()
        self._refresh()
        set_off(self._more, cells == LARGEST)
        set_off(self._fewer, cells == 1)
        self._cost.value = (
            f'<div role="status"><b>{parameters:,}</b> parameters, <b>{operations:,}</b> '
            "FLOPs per sample</div>"
        )
        self._news.value, self._edge = "", None
        self._refresh_undo()
        self._draw()

    def undo(self) -> None:
        """Go back to the genotype before the last change."""
        self._go(self._past, self._future)

    def redo(self) -> None:
        """Make the change again that :meth:`undo` took back."""
        self._go(self._future, self._past)

    def _go(self, there: list[Genotype], here: list[Genotype]) -> None:
        if there:
            here.append(self.genotype)
            genotype = there.pop()
            self._take(genotype, *network_cost(genotype, self.task, self.scoreboard.config))

    def _refresh_undo(self) -> None:
        set_off(self._undo_button, not self._past)
        set_off(self._redo_button, not self._future)

    def save(self, path: str | None = None) -> Path:
        """Write the genotype to ``path``; defaults to the path in the field."""
        return self.genotype.save(self._path.value if path is None else path)

    def pictures(self) -> list:
        return [HTML(self._cost.value), graph(self.genotype, decided=DECIDED).picture()]

    # The picture

    def _draw(self) -> None:
        name = self._against.value
        other = {NOTHING: None, START: self._first}.get(name, NOTHING)
        if other == NOTHING:
            other = self.scoreboard.named(name).genotype
        picture = graph(self.genotype, other, decided=DECIDED).picture()
        title = ""
        if other:
            changes = [str(change) for change in self.genotype.changes_from(other)]
            title = f"{'differs from' if changes else 'the same as'} {name}"
            title += f": {'; '.join(changes)}" if changes else ""
        if self._edge:
            cell, which, step = self._edge
            part = f"{step_name(step)}, {PORTS[which]} input" if step is not None else "XY"[which]
            title = f"Cell {cell + 1} {part}: click its new source"
        self._picture.value = f'<div class="bmnas-graph">{svg_in_box(picture.svg, title)}</div>'
        self._keep_stills()

    def _clicked(self, part: str) -> None:
        """An edge or a node of the picture was clicked: ``"f0-c1_x"``, ``"c1_s1"``."""
        self._error.value = ""
        source, _, target = part.rpartition("-")
        cell, _, node = target.partition("_")
        if source and node:  # an edge into X, Y or a step
            i = int(cell[1:]) - 1
            if node in ("x", "y"):
                self._edge = i, "xy".index(node), None
            else:
                inputs = self._part(i, int(node[1:]) - 1).inputs
                which = inputs.index(self._node_name(source, i))
                self._edge = i, which, int(node[1:]) - 1
            return self._draw()
        if self._edge:
            (i, which, step), self._edge = self._edge, None
            self._draw()
            self.choose_input(self._node_name(part, i), i, which, step)
        elif node.startswith("s"):
            self._operation_menus[int(cell[1:]) - 1, int(node[1:]) - 1].focus()

    def _node_name(self, node: str, i: int) -> str:
        """What Cell i (from 0) and its steps call a node of the picture: ``"Image_1"``, ``"X"``."""
        if node.startswith("f"):
            return self.genotype.features[int(node[1:])]
        cell, _, inner = node.partition("_")
        return cell_name(int(cell[1:]) - 1) if inner == "z" else inner.upper()

    # The scoreboard

    def on_scores(self) -> None:
        self._soon(self._offer_entries)

    def _offer_entries(self) -> None:
        names = [NOTHING, START, *(entry.name for entry in self.scoreboard.entries)]
        if list(self._against.options) != names:
            chosen = self._against.value
            self._against.options = names
            self._against.value = chosen if chosen in names else NOTHING

    def _load(self, name: str) -> None:
        self.genotype = self.scoreboard.named(name).genotype

    def _mark_against(self, name: str) -> None:
        self._offer_entries()
        self._against.value = NOTHING if self._against.value == name else name

    # Edits; Cells, steps and inputs are counted from 0

    def choices(self, cell: int, step: int | None = None) -> list[str]:
        """What the inputs of a Cell, or of one of its steps, may be."""
        features = self.genotype.features
        return [*(cell_predecessors(features, cell) if step is None else step_predecessors(step))]

    def choose_input(self, name: str, cell: int, which: int, step: int | None = None) -> None:
        """Set input ``which``, 0 or 1, to ``name``; if the other input has it, the two swap.

        Raises GenotypeError for a name that is not among :meth:`choices`, and BmnasError for a
        Cell, step or input that does not exist.
        """
        if which not in (0, 1):
            raise BmnasError("which", quoted(which), "0, 1")
        inputs = list(self._part(cell, step).inputs)
        if name == inputs[1 - which]:
            inputs.reverse()
        inputs[which] = name
        self._change(cell, step, inputs=tuple(inputs))

    def choose_operation(self, op: str, cell: int, step: int) -> None:
        """Set the operation of a step. Raises as :meth:`choose_input`."""
        self._change(cell, step, op=op)

    def choose_motif(self, motif: str, cell: int) -> None:
        """Give a Cell the inner steps of ``motif``, a name in ``MOTIFS``."""
        self._part(cell)  # raises for a Cell that does not exist
        if motif not in MOTIFS:
            found = quoted(motif) + near_miss(motif, MOTIFS)
            raise BmnasError("motif", found, ", ".join(MOTIFS))
        self._change(cell, steps=tuple(starmap(StepGenotype, MOTIFS[motif])))

    def add_step(self, cell: int) -> None:
        """Add a step, a Sum of X and Y."""
        self._change(cell, steps=(*self._part(cell).steps, NEW_STEP))

    def remove_step(self, cell: int) -> None:
        """Remove the last step, the one that no other can take."""
        self._change(cell, steps=self._part(cell).steps[:-1])

    def add_cell(self) -> None:
        """Add a Cell, a Sum of the last Cell before it and the last feature."""
        cells, features = self.genotype.cells, self.genotype.features
        new = CellGenotype((cell_name(len(cells) - 1), features[-1]), (NEW_STEP,))
        self.genotype = replace(self.genotype, cells=(*cells, new))

    def remove_cell(self) -> None:
        """Remove the last Cell, the one that no other can take."""
        self.genotype = replace(self.genotype, cells=self.genotype.cells[:-1])

    def _part(self, cell: int, step: int | None = None) -> CellGenotype | StepGenotype:
        """A Cell, or one of its steps. Raises BmnasError for one that does not exist."""
        part = _item("cell", self.genotype.cells, cell)
        return part if step is None else _item("step", part.steps, step)

    def _change(self, cell: int, step: int | None = None, **fields) -> None:
        """Replace fields of a Cell, or of one of its steps."""
        part, cells = self._part(cell), list(self.genotype.cells)
        if step is not None:
            steps = list(part.steps)
            steps[step] = replace(self._part(cell, step), **fields)
            fields = {"steps": tuple(steps)}
        cells[cell] = replace(part, **fields)
        self.genotype = replace(self.genotype, cells=tuple(cells))

    def _reset(self) -> None:
        self.genotype = self._first

    # The menus

    def _build_menus(self) -> None:
        _close(self._menus)
        self._chosen: list[tuple] = []  # menu, what it shows of a genotype
        self._operation_menus: dict[tuple[int, int], ipw.Dropdown] = {}  # by Cell and step
        margin = ipw.Layout(margin="0 0 8px 0")
        cells = range(len(self.genotype.cells))
        self._menus.children = [ipw.VBox([*self._cell_lines(i)], layout=margin) for i in cells]

    def _cell_lines(self, i: int) -> Iterator[ipw.HBox]:
        """Menus of a Cell's inputs and its motif, then a line for each of its steps."""
        n = len(self.genotype.cells[i].steps)
        motif = self._menu(
            [CUSTOM, *(m for m in MOTIFS if all(op in OPERATIONS for op, _ in MOTIFS[m]))],
            lambda g: g.cells[i].motif or CUSTOM,
            lambda name: self._refresh() if name == CUSTOM else self.choose_motif(name, i),
            "170px",
            f"Cell {i + 1}, steps",
        )
        more = self._button("+ step", "Add a step", lambda: self.add_step(i))
        fewer = self._button("− step", "Remove the last step", lambda: self.remove_step(i))
        set_off(more, n == LARGEST)
        set_off(fewer, n == 1)
        x, y = _text("X", "16px"), _text("Y", "16px")
        inputs = x, self._input_menu(i, 0), y, self._input_menu(i, 1)
        name = _text(f"<b>Cell {i + 1}</b>", "58px")
        steps = row([_text("steps", "36px"), motif, more, fewer], flex="0 0 auto")
        yield row([name, *inputs, steps])
        for j in range(n):
            operation = self._menu(
                [(kind.label, op) for op, kind in OPERATIONS.items()],
                lambda g, j=j: g.cells[i].steps[j].op,
                lambda op, j=j: self.choose_operation(op, i, j),
                "120px",
                f"Cell {i + 1} {step_name(j)}, operation",
            )
            self._operation_menus[i, j] = operation
            inputs = self._input_menu(i, 0, j), self._input_menu(i, 1, j)
            name = _text("", "40px"), _text(f"{step_name(j)} =", "44px")
            yield row([*name, operation, _text("of", "18px"), *inputs])

    def _input_menu(self, i: int, k: int, j: int | None = None) -> ipw.Dropdown:
        choices = self.choices(i, j)
        room = round(max(map(text_width, choices))) + 46  # with the menu's arrow
        part = f" {step_name(j)}, {PORTS[k]} input" if j is not None else f", input {'XY'[k]}"
        return self._menu(
            choices,
            lambda g: (g.cells[i] if j is None else g.cells[i].steps[j]).inputs[k],
            lambda name: self.choose_input(name, i, k, j),
            f"{min(max(130, room), 320)}px" if j is None else "70px",
            f"Cell {i + 1}{part}",
        )

    def _menu(self, options: list, shown, choose, width: str, tip: str) -> ipw.Dropdown:
        """A menu that shows ``shown(genotype)`` and calls ``choose`` with the entry picked."""
        layout, value = ipw.Layout(width=width), shown(self.genotype)
        menu = ipw.Dropdown(options=options, value=value, layout=layout, tooltip=tip)

        def picked():
            if menu.value != shown(self.genotype):
                self._error.value = ""
                choose(menu.value)

        menu.observe(lambda _: self._soon(picked), "value")
        self._chosen.append((menu, shown))
        return menu

    def _refresh(self) -> None:
        for menu, shown in self._chosen:
            menu.value = shown(self.genotype)

    def _candidate(self) -> tuple[Genotype, str]:
        taken = {entry.name for entry in self.scoreboard.entries}
        return self.genotype, next(n for k in count(1) if (n := f"edited {k}") not in taken)

    def _save_pressed(self) -> None:
        self._error.value = ""
        path = self.save()
        self._news.value = f"saved in <code>{html.escape(str(path))}</code>"


def _text(text: str, width: str) -> ipw.HTML:
    return ipw.HTML(text, layout=ipw.Layout(width=width))


def _item(name: str, items: tuple, k: int) -> CellGenotype | StepGenotype:
    if not isinstance(k, int) or not 0 <= k < len(items):
        raise BmnasError(name, quoted(k), f"0 to {len(items) - 1}")
    return items[k]


def _close(box: ipw.Box) -> None:
    """Close everything in a box, in the kernel and on the page."""
    children, box.children = box.children, ()
    for child in children:
        if isinstance(child, ipw.Box):
            _close(child)
        child.layout.close()
        child.close()
