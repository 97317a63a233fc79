"""The hypernet as a graph and as heatmaps: every candidate with its current weight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from ..errors import check_type
from ..genotype import OPERATIONS, CellGenotype, Genotype, step_name, step_predecessors
from . import canvas as c
from .genotypes import Graph

if TYPE_CHECKING:
    from ..architecture import ArchitectureWeights
    from ..search import SearchState

#: Heights of an operation in a step and of a step's title; the gaps between a Cell's columns and
#: between the rails above and below its steps.
CHIP, HEAD, COLUMN, RAIL = 22, 20, 54, 9
OTHER = "#7D848C"
#: If α has more rows than this, those of all Cells share theirs in one heatmap; then the other
#: heatmaps of several Cells stand beside each other, up to a width.
ROWS, WIDEST = 32, 960
PORTS = "1st", "2nd"


def draw_heatmaps(what: SearchState | ArchitectureWeights, *, engine: str = "wasi") -> c.Picture:
    """α, β and γ of a hypernet as heatmaps of their softmaxes: a column for each decision.

    X and Y share a column if the relaxation gives them the same weights, as the paper's does. With
    many features, α of all Cells is one heatmap.

    Args:
        what: a state of a search, whose genotype is framed; or the weights alone.
        engine: as in :func:`~bmnas_core.draw.draw`.

    Raises as :func:`~bmnas_core.draw.draw`.
    """
    if isinstance(what, Genotype):
        raise c.DrawError("draw_heatmaps", "a Genotype, which has no weights", "a SearchState")
    weights, chosen = weights_of(what)
    canvas, top, cells = c.Canvas(), 0.0, range(len(weights.gamma))
    joint = sum(len(weights.cell_edges(i)[0]) for i in cells) > ROWS
    if joint:
        top = 30 + _draw_inputs(canvas, [next(_grids(weights, chosen, i)) for i in cells])
    left, below = 0.0, top
    for i in cells:
        title, right, bottom = f"Cell {i + 1}", left, 0.0
        canvas.text(f"c{i}", title, left, top, align="l")
        for k, grid in enumerate(_grids(weights, chosen, i)):
            if joint and not k:
                continue
            right, low = _draw_grid(canvas, f"c{i}_{k}", right, top + 24, title, *grid)
            right, bottom = right + 30, max(bottom, low)
        below = max(below, bottom + 30)
        left = right + 30 if joint and 2 * right - left <= WIDEST else 0.0
        top = top if left else below
    return canvas.picture(engine)


def _grids(weights: ArchitectureWeights, chosen: Genotype | None, i: int) -> Iterator[tuple]:
    """The heatmaps of Cell i (from 0): title, names and labels of rows, columns.

    A column is its head, its weights, and the rows that ``chosen`` takes.
    """
    picks = repeat(())
    if chosen:
        cell = chosen.cells[i]
        picks = cell.inputs, *(s.inputs for s in cell.steps), [s.op for s in cell.steps]
    for decision, picked in zip(decisions(weights, i), picks, strict=False):
        letter, step, heads, names, labels, values = decision
        framed = [{name} for name in picked] or [()] * len(heads)
        if weights.shared and letter != "γ":
            heads, values, framed = [" = ".join(heads)], values[:1], [picked]
        asked = "operation" if letter == "γ" else f"input of {step or 'the Cell'}"
        yield f"{letter}, {asked}", names, labels, list(zip(heads, values, framed, strict=True))


def weights_of(what) -> tuple[ArchitectureWeights, Genotype | None]:
    """α, β, γ of a state with its genotype; or weights as they are, without one.

    Raises DrawError for anything else, and for weights that are not finite.
    """
    from ..architecture import ArchitectureWeights
    from ..search import SearchState

    weights, chosen = what, None
    if isinstance(what, SearchState):
        weights, chosen = what.weights, what.genotype
    allowed = "a Genotype, a SearchState or ArchitectureWeights"
    check_type(weights, ArchitectureWeights, "draw", c.DrawError, allowed)
    if not all(np.isfinite(a).all() for a in (weights.alpha, *weights.beta, *weights.gamma)):
        raise c.DrawError("weights", "NaN or infinity", "finite numbers")
    return weights, chosen


def decisions(weights: ArchitectureWeights, i: int) -> Iterator[tuple]:
    """What Cell i (from 0) decides: its inputs by α, those of each step by β, operations by γ.

    Yields the Greek letter; the step of a β; a head for each decision; names and labels of the
    candidates; and their weights, (decisions, candidates).
    """
    names, *edges = weights.cell_edges(i)
    yield "α", None, "XY", names, names, edges
    operations = weights.operation_weights(i)
    steps = [step_name(j) for j in range(len(operations))]
    for j, step in enumerate(steps):
        names, *edges = weights.step_edges(i, j)
        yield "β", step, PORTS, names, names, edges
    labels = [OPERATIONS[op].label for op in weights.operations]
    yield "γ", None, steps, weights.operations, labels, operations


def graph(weights: ArchitectureWeights, chosen: Genotype | None) -> Graph:
    """The hypernet: edges as wide as their weights, operations as dark as their softmax(γ).

    Nodes are named as in a genotype's graph; operation k of a step is ``c1_s1_op0``, …. Edges of
    ``chosen`` are blue and its operations framed; all other edges are grey.
    """
    canvas, count = _HypernetGraph(weights), len(weights.gamma)
    heights = [c.TITLE + canvas.inner + c.PAD] * count
    bottom = canvas.foot(canvas.features(weights.features, weights.features), heights)
    colours = {"chosen": c.SEARCHED, "other": OTHER} if chosen else {"searched": c.SEARCHED}
    canvas.legend(0, bottom + 24, colours, penwidth="3")
    note, tip = "width of an edge, shade of an\noperation: its current weight", "How to read this"
    canvas.text("note", note, 0, bottom + 54, tip=tip, size=11, color=c.MUTED, align="l")
    left = canvas.turn + 76 + 6 * count
    right = left + canvas.cell_width + 2 * c.PAD
    cells = chosen.cells if chosen else [None] * count
    titles = [f"Cell {i + 1}" for i in range(count)]
    for i, top in canvas.cells(left, right, titles, heights, ", searched"):
        canvas.mixed_cell(i, cells[i - 1], top + c.TITLE)
    canvas.classifier()
    return canvas


class _HypernetGraph(Graph):
    """A mixed Cell has a column of operations for each step; rails run above and below them."""

    def __init__(self, weights: ArchitectureWeights):
        super().__init__()
        self.weights = weights
        self.steps, operations = weights.gamma[0].shape
        self.labels = [OPERATIONS[op].label for op in weights.operations]
        width = max(c.text_width(label, 12) for label in self.labels)
        self.column = width + c.text_width(" .00", 12) + 24
        self.block = HEAD + CHIP * operations + 4
        self.middle = (self.steps // 2 + 1) * RAIL + 4 + self.block / 2
        self.inner = self.block + (self.steps + 1) * RAIL + 8
        self.cell_width = c.ROUND + self.steps * (COLUMN + self.column) + COLUMN + c.ROUND

    def mixed_cell(self, i: int, chosen: CellGenotype | None, top: float) -> None:
        """Draw X and Y at the left, a column of operations for each step, and Z at the right.

        An edge to the next column is a single curve; one that passes a column runs along its
        source's rail.
        """
        middle = top + self.middle
        self.ports(i, middle - self.block / 4, middle + self.block / 4)
        ids, x = [f"c{i}_x", f"c{i}_y"], self.left + c.PAD + c.ROUND + COLUMN
        for j in range(self.steps):
            me, step = f"c{i}_s{j + 1}", chosen and chosen.steps[j]
            self.operations(i, j, step and step.op, x, middle)
            names, *edges = self.weights.step_edges(i - 1, j)
            op = OPERATIONS[step.op] if step else None
            note = f" ({op.label}: the order does not count)" if op and op.symmetric else ""
            for k, values in enumerate(edges):
                end = x, middle + (2 * k - 1) * self.block / 5
                for source, (name, p) in enumerate(zip(names, values, strict=True)):
                    start = self.right_of(ids[source])
                    if max(0, source - 1) == j:  # X and Y share the first column
                        bend = (start[0] + end[0]) / 2
                        spline = [start, (bend, start[1]), (bend, end[1]), end]
                    else:
                        spline = _along(start, top + self.rail(source), end)
                    style = _weighted(p, not step or name == step.inputs[k])
                    tip = f"{name} → {step_name(j)}, {PORTS[k]} input: {p:.3f}{note}"
                    self.edge(ids[source], me, tip, spline, True, key=f"-{k + 1}", **style)
            x += self.column + COLUMN
            ids.append(me)
        self.output(i, top + self.inner / 2, self.inner)
        for source, (name, own) in enumerate(zip(step_predecessors(self.steps), ids, strict=True)):
            if name == "Y":
                continue
            last = source == len(ids) - 1
            end = self.right - c.PAD - c.ROUND, middle if last else top + self.rail(source)
            start = self.right_of(own)
            spline = c.route(start, end) if last else _along(start, end[1], end)
            self.edge(own, f"c{i}_z", f"{name} → Z", spline, False, penwidth="0.8")
        names, *edges = self.weights.cell_edges(i - 1)
        for k, values in enumerate(edges):
            for name, p in zip(names, values, strict=True):
                style = _weighted(p, not chosen or name == chosen.inputs[k])
                self.input_edge(name, i, "XY"[k], f": {p:.3f}", **style)

    def rail(self, source: int) -> float:
        """y of a source's rail, from the top of the Cell's inside.

        Sources X, Y, S1, S2, … are counted from 0. X, S1, S3, … run above the columns and Y, S2,
        … below them, the first ones farthest out.
        """
        outward = RAIL * (source // 2) + RAIL / 2
        return self.inner - outward if source % 2 else outward

    def operations(self, i: int, j: int, chosen: str | None, left: float, middle: float) -> None:
        """Draw step j (from 0) of Cell i as a box of its operations, each with its weight."""
        me, name, weights = f"c{i}_s{j + 1}", step_name(j), self.weights.operation_weights(i - 1)[j]
        x, top, tip = left + self.column / 2, middle - self.block / 2, f"Cell {i}, step {name}"
        self.node(me, "", tip, x, middle, self.column, self.block)
        self.text(f"{me}_name", name, x, top + HEAD / 2 + 1, tip=tip, size=12)
        for k, (op, p) in enumerate(zip(self.weights.operations, weights, strict=True)):
            style = _shaded(p, op == chosen, c.CELL_LINE, "0.6")
            text, tip = f"{self.labels[k]} {_number(p)}", f"{name} is {self.labels[k]}: {p:.3f}"
            place = x, top + HEAD + CHIP * (k + 0.5), self.column - 12, CHIP - 4
            self.node(f"{me}_op{k}", text, tip, *place, **style)


def _along(start, rail: float, end) -> list:
    """Control points to a rail and along it, and from there, if ``end`` is not on it, down."""
    on, half = start[0] + COLUMN - 12, start[0] + (COLUMN - 12) / 2
    up = [start, (half, start[1]), (half, rail), (on, rail), (on, rail)]
    if end[1] == rail:
        return [*up, (on, rail), end]
    off = end[0] - COLUMN + 10
    bend = (off + end[0]) / 2
    return [*up, (off, rail), (off, rail), (bend, rail), (bend, end[1]), end]


def _draw_inputs(canvas, grids: list[tuple]) -> float:
    """Draw α of all Cells as one heatmap; returns its bottom."""
    *_, (title, _, labels, _) = grids  # the last Cell has the rows of all others
    texts, y = list(map(c.wrapped, labels)), 58.0
    right = label = max(c.text_width(text, 12) for text in texts)
    canvas.text("inputs", f"{title}s", 0, 0, size=12, color=c.MUTED, align="l")
    for r, (text, name) in enumerate(zip(texts, labels, strict=True)):
        height = _row_height(text)
        style = {"tip": name, "size": 12, "align": "r"}
        canvas.text(f"c0_0_r{r}", text, label, y + height / 2, **style)
        y += height
    for i, grid in enumerate(grids):
        me, cell = f"c{i}_0", f"Cell {i + 1}"
        right, _ = _draw_grid(canvas, me, right + 12, 24, cell, *grid, named=False)
    return y


def _draw_grid(
    canvas, me, left, top, cell, title, rows, labels, columns, named=True
) -> tuple[float, float]:
    """Draw one heatmap with its title and labels; returns its right and bottom.

    ``columns`` are heads, weights and what is framed of the ``rows``, which are named ``labels``.
    Unless ``named``, labels are elsewhere, and the title is the Cell's.
    """
    texts = list(map(c.wrapped, labels))
    label = max(c.text_width(text, 12) for text in texts) if named else -8.0
    width = max(44, *(c.text_width(head, 12) + 10 for head, *_ in columns))
    tip, style = f"{cell}: {title}", {"size": 12, "align": "l"}
    above = {"color": c.MUTED} if named else {}
    canvas.text(f"{me}_t", title if named else cell, left, top, tip=tip, **above, **style)
    heights = list(map(_row_height, texts))
    for k, (head, values, framed) in enumerate(columns):
        x, y = left + label + 8 + width * (k + 0.5), top + 34.0
        canvas.text(f"{me}_c{k}", head, x, top + 22, tip=tip, size=12)
        for r, (row, p, height) in enumerate(zip(rows, values, heights, strict=True)):
            middle = y + height / 2
            if k == 0 and named:
                style = {"tip": labels[r], "size": 12, "align": "r"}
                canvas.text(f"{me}_r{r}", texts[r], left + label, middle, **style)
            style = _shaded(p, row in framed, c.CARD, "1")
            note = f"{cell}, {title}, {head}: {labels[r]} {p:.3f}"
            size = width - 4, height - 4
            canvas.node(f"{me}_{k}_{r}", _number(p), note, x, middle, *size, **style)
            y += height
    right = max(left + label + 8 + width * len(columns), left + c.text_width(title, 12) * named)
    return right, top + 34 + sum(heights)


def _row_height(text: str) -> float:
    return max(22, c.text_height(text) + 6)


def _weighted(p: float, chosen: bool) -> dict[str, str]:
    """Style of an edge of weight ``p``."""
    p = min(max(float(p), 0.0), 1.0)
    alpha, colour = round(255 * (0.16 + 0.84 * p**0.7)), c.SEARCHED if chosen else OTHER
    return {"color": f"{colour}{alpha:02X}", "penwidth": f"{0.5 + 5.5 * p:.2f}", "arrowsize": "0.5"}


def _shaded(p: float, framed: bool, line: str, width: str) -> dict[str, str]:
    """Style of a box for weight ``p``: filled from white to the blue of searched edges."""
    p = min(max(float(p), 0.0), 1.0)
    ends = [bytes.fromhex(colour[1:]) for colour in (c.CARD, c.SEARCHED)]
    fill = "".join(f"{round(a + (b - a) * p):02X}" for a, b in zip(*ends, strict=True))
    style = {"color": c.INK, "penwidth": "2"} if framed else {"color": line, "penwidth": width}
    style |= {"fillcolor": f"#{fill}", "fontcolor": c.CARD if p > 0.7 else c.INK}
    return style | {"fontsize": "12", "style": "filled"}


def _number(p: float) -> str:
    """A weight in two digits, without the zero before the point."""
    return f"{p:.2f}".removeprefix("0")
