"""The hypernet as a graph and as heatmaps: every candidate with its current weight."""

from __future__ import annotations

import numpy as np

from ..architecture import ArchitectureWeights
from ..genotype import OPERATIONS, Genotype, cell_name, step_name, step_predecessors
from ..search import SearchState
from .canvas import (
    CARD,
    CELL,
    CELL_LINE,
    FIXED,
    GAP,
    INK,
    MUTED,
    PAD,
    ROUND,
    SEARCHED,
    TITLE,
    Canvas,
    DrawError,
    Picture,
    route,
    text_height,
    text_width,
    wrapped,
)
from .genotypes import draw_classifier, draw_features, path_to_cell

#: Heights of an operation in a step and of a step's title; the gaps between a Cell's columns and
#: between the rails above and below its steps.
CHIP, HEAD, COLUMN, RAIL = 22, 20, 54, 9
OTHER = "#7D848C"


def draw_heatmaps(what: SearchState | ArchitectureWeights, *, engine: str = "wasi") -> Picture:
    """α, β and γ of a hypernet as heatmaps of their softmaxes.

    Args:
        what: a state of a search, whose genotype is framed; or the weights alone.
        engine: as in :func:`~bmnas_core.draw.draw`.

    Raises:
        DrawError: for anything else, an unknown engine, or one that is missing or fails.
        BmnasError: for a relaxation or an operation that is not registered.
    """
    if isinstance(what, Genotype):
        raise DrawError(
            "draw_heatmaps: found a Genotype, which has no weights; allowed: a SearchState"
        )
    return _heatmaps(*weights_of(what)).picture(engine)


def weights_of(what) -> tuple[ArchitectureWeights, Genotype | None]:
    """α, β, γ of a state with its genotype; or weights as they are, without one.

    Raises:
        DrawError: for anything else, and for weights that are not finite.
    """
    state = isinstance(what, SearchState)
    weights = what.weights if state else what
    if not isinstance(weights, ArchitectureWeights):
        raise DrawError(
            f"draw: found {type(what).__name__}; allowed: a Genotype, a SearchState or "
            "ArchitectureWeights"
        )
    if not all(np.isfinite(a).all() for a in (weights.alpha, *weights.beta, *weights.gamma)):
        raise DrawError("weights: found NaN or infinity; allowed: finite numbers")
    return weights, what.genotype if state else None


def graph(weights: ArchitectureWeights, chosen: Genotype | None) -> Canvas:
    """The hypernet: edges as wide as their weights, operations as dark as their softmax(γ).

    Nodes are named as in a genotype's graph; operation k of a step is ``c1_s1_op0``, …. Edges of
    ``chosen`` are blue and its operations framed; all other edges are grey.
    """
    canvas = Canvas()
    features, cells = weights.features, len(weights.gamma)
    ids = {name: f"f{i}" for i, name in enumerate(features)}
    turn, _, bottom = draw_features(canvas, features, features)
    entries = [("chosen" if chosen else "searched", {"color": SEARCHED, "penwidth": "3"})]
    entries += [("other", {"color": OTHER, "penwidth": "3"})] if chosen else []
    canvas.legend(0, bottom + 24, entries)
    note = "width of an edge, shade of an\noperation: its current weight"
    canvas.text(
        "note", note, "How to read this", 0, bottom + 54, size=11, color=MUTED, align="left"
    )
    shapes = [_CellShape(weights, i) for i in range(cells)]
    left = turn + 76 + 6 * cells
    right = left + max(shape.width for shape in shapes) + 2 * PAD
    top = -(sum(shape.height for shape in shapes) + GAP * (cells - 1)) / 2
    gaps: dict[str, float] = {}
    for i, shape in enumerate(shapes):
        me, title = f"c{i + 1}", f"Cell {i + 1}"
        down, middle = top + shape.height, left + PAD + text_width(title) / 2
        style = {"style": "rounded,filled", "color": CELL_LINE, "fillcolor": CELL}
        canvas.box(me, title, f"{title}, searched", left, top, right, down, middle, **style)
        cell = chosen.cells[i] if chosen else None
        _draw_mixed_cell(canvas, weights, i, cell, shape, left + PAD, right - PAD, top + TITLE)
        names, *edges = weights.cell_edges(i)
        for port, values in zip("XY", edges, strict=True):
            taken = cell.inputs["XY".index(port)] if cell else None
            end = f"{me}_{port.lower()}"
            for name, p in zip(names, values, strict=True):
                spline = path_to_cell(canvas, ids, name, end, left, turn, gaps)
                style = _weighted(p, not cell or name == taken)
                tip = f"{name} → {title} {port}: {p:.3f}"
                canvas.edge(ids[name], end, tip, spline, True, **style)
        ids[cell_name(i)], gaps[cell_name(i)] = f"{me}_z", down + GAP / 2
        top = down + GAP
    draw_classifier(canvas, cells, right)
    return canvas


class _CellShape:
    """The room that a mixed Cell needs: rails above and below its columns of operations."""

    def __init__(self, weights: ArchitectureWeights, i: int):
        self.steps, operations = weights.gamma[i].shape
        labels = [OPERATIONS[op].label for op in weights.operations]
        self.column = max(text_width(label, 12) for label in labels) + text_width(" .00", 12) + 24
        self.block = HEAD + CHIP * operations + 4
        self.above, self.below = self.steps // 2 + 1, (self.steps + 1) // 2
        self.middle = self.above * RAIL + 4 + self.block / 2
        self.inner = self.block + (self.above + self.below) * RAIL + 8
        self.height = TITLE + self.inner + PAD
        self.width = ROUND + self.steps * (COLUMN + self.column) + COLUMN + ROUND

    def rail(self, source: int) -> float:
        """y of a source's rail, from the top of the Cell's inside.

        Sources X, Y, S1, S2, … are counted from 0. X, S1, S3, … run above the columns and Y, S2,
        … below them, the first ones farthest out.
        """
        outward = RAIL * (source // 2) + RAIL / 2
        return self.inner - outward if source % 2 else outward


def _draw_mixed_cell(canvas, weights, i, cell, shape, left, right, top) -> None:
    """Draw X and Y at the left, a column of operations for each step, and Z at the right.

    An edge to the next column is a single curve; one that passes a column runs along its source's
    rail, above or below the columns.
    """
    me, middle = f"c{i + 1}", top + shape.middle
    ids, x = [f"{me}_x", f"{me}_y"], left + ROUND / 2
    for port, side in zip("XY", (-1, 1), strict=True):
        tip = f"Cell {i + 1}, input {port}"
        y = middle + side * shape.block / 4
        canvas.node(f"{me}_{port.lower()}", port, tip, x, y, ROUND, ROUND, shape="circle")
    columns = [left + ROUND]
    for j in range(shape.steps):
        x = columns[-1] + COLUMN
        _draw_operations(canvas, weights, i, j, cell, x, middle, shape)
        names, *edges = weights.step_edges(i, j)
        for k, values in enumerate(edges):
            taken = cell.steps[j].inputs if cell else ()
            symmetric = cell and OPERATIONS[cell.steps[j].op].symmetric
            end = x, middle + (2 * k - 1) * shape.block / 5
            for source, (name, p) in enumerate(zip(names, values, strict=True)):
                style = _weighted(p, not cell or name == taken[k])
                spline = _path(canvas, ids, source, end, shape, columns, top)
                tip = f"{name} → {step_name(j)}, {('1st', '2nd')[k]} input: {p:.3f}"
                if symmetric:
                    tip += f" ({OPERATIONS[cell.steps[j].op].label}: the order does not count)"
                own = f"{me}_s{j + 1}"
                canvas.edge(ids[source], own, tip, spline, True, key=f"-{k + 1}", **style)
        columns.append(x + shape.column)
        ids.append(f"{me}_s{j + 1}")
    tip = f"Cell {i + 1}, output: the steps' outputs, concatenated and reduced, plus X"
    z = right - ROUND / 2, top + shape.inner / 2
    canvas.node(f"{me}_z", "Z", tip, *z, ROUND, shape.inner)
    for source, (name, own) in enumerate(zip(step_predecessors(shape.steps), ids, strict=True)):
        if name == "Y":
            continue
        last = source == len(ids) - 1
        y = middle if last else top + shape.rail(source)
        start = canvas.right_of(own)
        end = right - ROUND, y
        spline = route(start, end) if last else _along(start, y, end)
        canvas.edge(own, f"{me}_z", f"{name} → Z", spline, False, penwidth="0.8", color=FIXED)


def _draw_operations(canvas, weights, i, j, cell, left, middle, shape) -> None:
    """Draw step j of Cell i as a box of its operations, each with its weight."""
    me, name = f"c{i + 1}_s{j + 1}", step_name(j)
    labels = [OPERATIONS[op].label for op in weights.operations]
    top = middle - shape.block / 2
    tip = f"Cell {i + 1}, step {name}"
    canvas.node(me, "", tip, left + shape.column / 2, middle, shape.column, shape.block)
    x = left + shape.column / 2
    canvas.text(f"{me}_name", name, tip, x, top + HEAD / 2 + 1, size=12)
    for k, (label, p) in enumerate(zip(labels, weights.operation_weights(i)[j], strict=True)):
        y = top + HEAD + CHIP * (k + 0.5)
        picked = bool(cell) and weights.operations[k] == cell.steps[j].op
        style = _shaded(p) | {"fontsize": "12", "style": "filled"}
        style |= {"color": INK if picked else CELL_LINE, "penwidth": "2" if picked else "0.6"}
        text = f"{label} {_number(p)}"
        tip = f"{name} is {label}: {p:.3f}"
        canvas.node(f"{me}_op{k}", text, tip, x, y, shape.column - 12, CHIP - 4, **style)


def _path(canvas, ids, source, end, shape, columns, top) -> list:
    """Control points from a Cell's inner node to a step's input."""
    start = canvas.right_of(ids[source])
    column = max(0, source - 1)  # X and Y share the first one
    if column == len(columns) - 1:
        bend = (start[0] + end[0]) / 2
        return [start, (bend, start[1]), (bend, end[1]), end]
    return _along(start, top + shape.rail(source), (end[0] - COLUMN + 10, None), end)


def _along(start, rail, *ends) -> list:
    """Control points from ``start`` to a rail and along it, to its end or down to a node."""
    reach = COLUMN - 12
    on = start[0] + reach
    up = [start, (start[0] + reach / 2, start[1]), (start[0] + reach / 2, rail), (on, rail)]
    if len(ends) == 1:
        return [*up, (on, rail), (on, rail), ends[0]]
    off, end = ends[0][0], ends[1]
    bend = (off + end[0]) / 2
    level = (off, rail)
    return [*up, (on, rail), level, level, (bend, rail), (bend, end[1]), end]


def _heatmaps(weights: ArchitectureWeights, chosen: Genotype | None) -> Canvas:
    """α, β and γ as grids: a row for each candidate, a column for each decision.

    X and Y share a column if the relaxation gives them the same weights, as the paper's does. What
    is in ``chosen`` is framed.
    """
    canvas = Canvas()
    top = 0.0
    for i, gamma in enumerate(weights.gamma):
        title, cell, right = f"Cell {i + 1}", chosen.cells[i] if chosen else None, 0.0
        canvas.text(f"c{i}", title, title, 0, top, size=13, align="left")
        names, *edges = weights.cell_edges(i)
        grids = [("α, input of the Cell", names, "XY", edges, cell and cell.inputs)]
        for j in range(len(gamma)):
            names, *edges = weights.step_edges(i, j)
            inputs = cell and cell.steps[j].inputs
            grids.append((f"β, input of {step_name(j)}", names, ("1st", "2nd"), edges, inputs))
        steps = [step_name(j) for j in range(len(gamma))]
        picked = cell and [step.op for step in cell.steps]
        columns = list(weights.operation_weights(i))
        grids.append(("γ, operation", weights.operations, steps, columns, picked))
        bottoms = []
        for k, grid in enumerate(grids):
            last = k == len(grids) - 1
            labels = [OPERATIONS[op].label for op in weights.operations] if last else grid[1]
            shared, place = weights.shared and not last, (right, top + 24)
            right, bottom = _draw_grid(canvas, f"c{i}_{k}", title, *place, shared, labels, *grid)
            right += 30
            bottoms.append(bottom)
        top = max(bottoms) + 30
    return canvas


def _draw_grid(canvas, me, cell, left, top, shared, labels, title, rows, columns, values, picked):
    """Draw one heatmap with its title and labels; returns its right and bottom.

    ``picked`` names a row for each column; ``labels`` are what is written at the rows.
    """
    if shared:
        pairs = [(" = ".join(columns), values[0], set(picked or ()))]
    else:
        marks = [{name} for name in picked] if picked else [set()] * len(columns)
        pairs = list(zip(columns, values, marks, strict=True))
    label = max(text_width(wrapped(row), 12) for row in labels)
    width = max(44, *(text_width(name, 12) + 10 for name, _, _ in pairs))
    canvas.text(f"{me}_t", title, f"{cell}: {title}", left, top, size=12, color=MUTED, align="left")
    high = [max(22, text_height(wrapped(row)) + 6) for row in labels]
    for c, (name, column, marked) in enumerate(pairs):
        x = left + label + 8 + width * (c + 0.5)
        canvas.text(f"{me}_c{c}", name, f"{cell}: {title}", x, top + 22, size=12)
        y = top + 34.0
        for r, (row, shown, p) in enumerate(zip(rows, labels, column, strict=True)):
            if c == 0:
                end, middle = left + label, y + high[r] / 2
                text = wrapped(shown)
                canvas.text(f"{me}_r{r}", text, shown, end, middle, size=12, align="right")
            mark = row in marked
            style = {"fontsize": "12", "style": "filled", "color": INK if mark else CARD}
            style |= {"penwidth": "2" if mark else "1"} | _shaded(p)
            tip = f"{cell}, {title}, {name}: {shown} {p:.3f}"
            place = x, y + high[r] / 2, width - 4, high[r] - 4
            canvas.node(f"{me}_{c}_{r}", _number(p), tip, *place, **style)
            y += high[r]
    right = max(left + label + 8 + width * len(pairs), left + text_width(title, 12))
    return right, top + 34 + sum(high)


def _weighted(p: float, chosen: bool) -> dict[str, str]:
    """Style of an edge of weight ``p``."""
    p = min(max(float(p), 0.0), 1.0)
    alpha = round(255 * (0.16 + 0.84 * p**0.7))
    colour = SEARCHED if chosen else OTHER
    return {"color": f"{colour}{alpha:02X}", "penwidth": f"{0.5 + 5.5 * p:.2f}", "arrowsize": "0.5"}


def _shaded(p: float) -> dict[str, str]:
    """Fill and text colour for weight ``p``: from white to the blue of searched edges."""
    p = min(max(float(p), 0.0), 1.0)
    ends = [[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in (CARD, SEARCHED)]
    fill = "".join(f"{round(a + (b - a) * p):02X}" for a, b in zip(*ends, strict=True))
    return {"fillcolor": f"#{fill}", "fontcolor": CARD if p > 0.7 else INK}


def _number(p: float) -> str:
    """A weight in two digits, without the zero before the point."""
    return f"{p:.2f}".removeprefix("0")
