"""The hypernet as a graph and as heatmaps: every candidate with its current weight."""

from __future__ import annotations

import numpy as np

from ..architecture import ArchitectureWeights
from ..genotype import OPERATIONS, Genotype, StepGenotype, step_name, step_predecessors
from ..search import SearchState
from . import canvas as c
from .genotypes import Graph

#: Heights of an operation in a step and of a step's title; the gaps between a Cell's columns and
#: between the rails above and below its steps.
CHIP, HEAD, COLUMN, RAIL = 22, 20, 54, 9
OTHER = "#7D848C"
PORTS = "1st", "2nd"


def draw_heatmaps(what: SearchState | ArchitectureWeights, *, engine: str = "wasi") -> c.Picture:
    """α, β and γ of a hypernet as heatmaps of their softmaxes.

    Args:
        what: a state of a search, whose genotype is framed; or the weights alone.
        engine: as in :func:`~bmnas_core.draw.draw`.

    Raises:
        DrawError: for anything else, an unknown engine, or one that is missing or fails.
        BmnasError: for a relaxation or an operation that is not registered.
    """
    if isinstance(what, Genotype):
        raise c.DrawError(
            "draw_heatmaps: found a Genotype, which has no weights; allowed: a SearchState"
        )
    return _heatmaps(*weights_of(what)).picture(engine)


def weights_of(what) -> tuple[ArchitectureWeights, Genotype | None]:
    """α, β, γ of a state with its genotype; or weights as they are, without one.

    Raises DrawError for anything else, and for weights that are not finite.
    """
    state = isinstance(what, SearchState)
    weights = what.weights if state else what
    if not isinstance(weights, ArchitectureWeights):
        raise c.DrawError(
            f"draw: found {type(what).__name__}; allowed: a Genotype, a SearchState or "
            "ArchitectureWeights"
        )
    if not all(np.isfinite(a).all() for a in (weights.alpha, *weights.beta, *weights.gamma)):
        raise c.DrawError("weights: found NaN or infinity; allowed: finite numbers")
    return weights, what.genotype if state else None


def graph(weights: ArchitectureWeights, chosen: Genotype | None) -> Graph:
    """The hypernet: edges as wide as their weights, operations as dark as their softmax(γ).

    Nodes are named as in a genotype's graph; operation k of a step is ``c1_s1_op0``, …. Edges of
    ``chosen`` are blue and its operations framed; all other edges are grey.
    """
    canvas, count = _HypernetGraph(weights), len(weights.gamma)
    bottom = canvas.features(weights.features, weights.features)
    entries = [("chosen" if chosen else "searched", {"color": c.SEARCHED, "penwidth": "3"})]
    entries += [("other", {"color": OTHER, "penwidth": "3"})] if chosen else []
    canvas.legend(0, bottom + 24, entries)
    note, tip = "width of an edge, shade of an\noperation: its current weight", "How to read this"
    canvas.text("note", note, 0, bottom + 54, tip=tip, size=11, color=c.MUTED, align="left")
    left = canvas.turn + 76 + 6 * count
    right = left + canvas.cell_width + 2 * c.PAD
    cells = chosen.cells if chosen else [None] * count
    for i, top, bottom in canvas.cells(left, right, [c.TITLE + canvas.inner + c.PAD] * count):
        cell = cells[i - 1]
        canvas.cell(i, f"Cell {i}", f"Cell {i}, searched", top, bottom)
        canvas.mixed_cell(i, cell.steps if cell else [None] * canvas.steps, top + c.TITLE)
        names, *edges = weights.cell_edges(i - 1)
        for k, values in enumerate(edges):
            for name, p in zip(names, values, strict=True):
                style = _weighted(p, not cell or name == cell.inputs[k])
                canvas.input_edge(name, i, "XY"[k], f": {p:.3f}", **style)
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
        above, below = self.steps // 2 + 1, (self.steps + 1) // 2
        self.middle = above * RAIL + 4 + self.block / 2
        self.inner = self.block + (above + below) * RAIL + 8
        self.cell_width = c.ROUND + self.steps * (COLUMN + self.column) + COLUMN + c.ROUND

    def mixed_cell(self, i: int, chosen: list[StepGenotype | None], top: float) -> None:
        """Draw X and Y at the left, a column of operations for each step, and Z at the right.

        An edge to the next column is a single curve; one that passes a column runs along its
        source's rail.
        """
        middle = top + self.middle
        self.ports(i, middle - self.block / 4, middle + self.block / 4)
        ids, ends = [f"c{i}_x", f"c{i}_y"], [self.left + c.PAD + c.ROUND]
        for j, step in enumerate(chosen):
            me, x = f"c{i}_s{j + 1}", ends[-1] + COLUMN
            self.operations(i, j, step, x, middle)
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
            ends.append(x + self.column)
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

    def rail(self, source: int) -> float:
        """y of a source's rail, from the top of the Cell's inside.

        Sources X, Y, S1, S2, … are counted from 0. X, S1, S3, … run above the columns and Y, S2,
        … below them, the first ones farthest out.
        """
        outward = RAIL * (source // 2) + RAIL / 2
        return self.inner - outward if source % 2 else outward

    def operations(self, i: int, j: int, chosen: StepGenotype | None, left, middle) -> None:
        """Draw step j (from 0) of Cell i as a box of its operations, each with its weight."""
        me, name, weights = f"c{i}_s{j + 1}", step_name(j), self.weights.operation_weights(i - 1)[j]
        x, top, tip = left + self.column / 2, middle - self.block / 2, f"Cell {i}, step {name}"
        self.node(me, "", tip, x, middle, self.column, self.block)
        self.text(f"{me}_name", name, x, top + HEAD / 2 + 1, tip=tip, size=12)
        for k, (op, p) in enumerate(zip(self.weights.operations, weights, strict=True)):
            framed = chosen is not None and chosen.op == op
            style = _shaded(p, framed, c.CELL_LINE, "0.6")
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


def _heatmaps(weights: ArchitectureWeights, chosen: Genotype | None) -> c.Canvas:
    """α, β and γ as grids: a row for each candidate, a column for each decision.

    X and Y share a column if the relaxation gives them the same weights, as the paper's does. What
    is in ``chosen`` is framed.
    """

    def columns(heads, values, picked) -> list[tuple]:
        marks = [{name} for name in picked] if picked else [()] * len(heads)
        return list(zip(heads, values, marks, strict=True))

    def inputs(title, heads, edges, picked) -> tuple:
        names, *values = edges
        both = [(" = ".join(heads), values[0], picked or ())]
        return title, names, names, both if weights.shared else columns(heads, values, picked)

    canvas, top = c.Canvas(), 0.0
    labels = [OPERATIONS[op].label for op in weights.operations]
    for i, gamma in enumerate(weights.gamma):
        title, cell, right, bottom = f"Cell {i + 1}", chosen and chosen.cells[i], 0.0, 0.0
        canvas.text(f"c{i}", title, 0, top, align="left")
        grids = [inputs("α, input of the Cell", "XY", weights.cell_edges(i), cell and cell.inputs)]
        steps = [step_name(j) for j in range(len(gamma))]
        for j, step in enumerate(steps):
            edges, picked = weights.step_edges(i, j), cell and cell.steps[j].inputs
            grids.append(inputs(f"β, input of {step}", PORTS, edges, picked))
        picked = cell and [step.op for step in cell.steps]
        gammas = columns(steps, weights.operation_weights(i), picked)
        grids.append(("γ, operation", weights.operations, labels, gammas))
        for k, grid in enumerate(grids):
            right, low = _draw_grid(canvas, f"c{i}_{k}", title, right, top + 24, *grid)
            right, bottom = right + 30, max(bottom, low)
        top = bottom + 30
    return canvas


def _draw_grid(canvas, me, cell, left, top, title, rows, labels, columns) -> tuple[float, float]:
    """Draw one heatmap with its title and labels; returns its right and bottom.

    ``columns`` are heads, weights and what is framed of the ``rows``, which are named ``labels``.
    """
    texts = list(map(c.wrapped, labels))
    label = max(c.text_width(text, 12) for text in texts)
    width = max(44, *(c.text_width(head, 12) + 10 for head, *_ in columns))
    tip, style = f"{cell}: {title}", {"size": 12, "align": "left"}
    canvas.text(f"{me}_t", title, left, top, tip=tip, color=c.MUTED, **style)
    heights = [max(22, c.text_height(text) + 6) for text in texts]
    for k, (head, values, framed) in enumerate(columns):
        x, y = left + label + 8 + width * (k + 0.5), top + 34.0
        canvas.text(f"{me}_c{k}", head, x, top + 22, tip=tip, size=12)
        for r, (row, p, height) in enumerate(zip(rows, values, heights, strict=True)):
            middle = y + height / 2
            if k == 0:
                style = {"tip": labels[r], "size": 12, "align": "right"}
                canvas.text(f"{me}_r{r}", texts[r], left + label, middle, **style)
            style = _shaded(p, row in framed, c.CARD, "1")
            note = f"{cell}, {title}, {head}: {labels[r]} {p:.3f}"
            place = x, middle, width - 4, height - 4
            canvas.node(f"{me}_{k}_{r}", _number(p), note, *place, **style)
            y += height
    right = max(left + label + 8 + width * len(columns), left + c.text_width(title, 12))
    return right, top + 34 + sum(heights)


def _weighted(p: float, chosen: bool) -> dict[str, str]:
    """Style of an edge of weight ``p``."""
    p = min(max(float(p), 0.0), 1.0)
    alpha, colour = round(255 * (0.16 + 0.84 * p**0.7)), c.SEARCHED if chosen else OTHER
    return {"color": f"{colour}{alpha:02X}", "penwidth": f"{0.5 + 5.5 * p:.2f}", "arrowsize": "0.5"}


def _shaded(p: float, framed: bool, line: str, width: str) -> dict[str, str]:
    """Style of a box for weight ``p``: filled from white to the blue of searched edges."""
    p = min(max(float(p), 0.0), 1.0)
    ends = [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in (c.CARD, c.SEARCHED)]
    fill = "".join(f"{round(a + (b - a) * p):02X}" for a, b in zip(*ends, strict=True))
    style = {"color": c.INK, "penwidth": "2"} if framed else {"color": line, "penwidth": width}
    style |= {"fillcolor": f"#{fill}", "fontcolor": c.CARD if p > 0.7 else c.INK}
    return style | {"fontsize": "12", "style": "filled"}


def _number(p: float) -> str:
    """A weight in two digits, without the zero before the point."""
    return f"{p:.2f}".removeprefix("0")
