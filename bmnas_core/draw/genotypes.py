"""Genotypes as graphs, in the visual language of Yin et al. 2022.

Each modality is a column of blocks in its own colour; Cells are boxes that hold X, Y, the inner
steps and Z; edges are blue if the search decides them and black if they are fixed. A picture has
its own light background, and one genotype always gives the same bytes.
"""

from __future__ import annotations

from ..genotype import OPERATIONS, CellGenotype, Genotype, cell_name, step_name
from .canvas import (
    BLOCK,
    CELL,
    CELL_LINE,
    FIXED,
    GAP,
    LINE,
    MARKED_EDGE,
    MARKED_NODE,
    MODALITIES,
    PAD,
    PALE,
    ROUND,
    ROW,
    SEARCHED,
    TITLE,
    WRAP,
    Canvas,
    DrawError,
    Picture,
    modality_of,
    route,
    swing,
    text_height,
    text_width,
    wrapped,
)


def graph(genotype: Genotype, against: Genotype | None = None) -> Canvas:
    """A genotype as a graph, with what differs from ``against`` marked.

    Nodes are ``f0``, ``f1``, … (features), ``c1_x``, ``c1_y``, ``c1_s1``, …, ``c1_z`` (Cell 1)
    and ``out`` (classifier); the genotype's own names appear only in labels and tooltips, escaped.
    A step takes its first input on the left; the two are named unless its operation is symmetric.
    For a layout by graphviz, set ``layout`` of the canvas's ``dot`` to ``"dot"``.
    """
    canvas = Canvas()
    right, _ = _draw_genotype(canvas, genotype, against)
    draw_classifier(canvas, len(genotype.cells), right)
    return canvas


def draw_comparison(
    one: Genotype, other: Genotype, names: tuple[str, str] = ("A", "B"), *, engine: str = "wasi"
) -> Picture:
    """Two genotypes side by side, without classifiers; what differs is dashed and vermilion.

    Cells and steps are compared as they are listed. The order of a symmetric operation's inputs
    does not count.

    Raises:
        DrawError: for anything but genotypes and two names, or an engine that is unknown, missing
            or fails.
    """
    for genotype in (one, other):
        if not isinstance(genotype, Genotype):
            raise DrawError(f"draw: found {type(genotype).__name__}; allowed: a Genotype")
    if (
        not isinstance(names, tuple | list)
        or len(names) != 2
        or not all(isinstance(name, str) for name in names)
    ):
        raise DrawError(f"names: found {names!r}; allowed: two strings")
    canvas = Canvas()
    for prefix, genotype, against, name in zip(
        "ab", (one, other), (other, one), names, strict=True
    ):
        canvas.beside(prefix, 40 if prefix == "b" else 0)
        _, top = _draw_genotype(canvas, genotype, against)
        canvas.text("name", name, f"Genotype {name}", 0, top - 16, size=15, align="left")
    return canvas.picture(engine)


def _draw_genotype(canvas: Canvas, genotype: Genotype, against: Genotype | None):
    """Draw a genotype without its classifier; returns its right and top.

    It begins at x = 0 and is centred on y = 0.
    """
    changes = genotype.changes_from(against) if against else ()
    marks = {(change.cell, change.step, change.what) for change in changes}
    ids = {name: f"f{i}" for i, name in enumerate(genotype.features)}
    turn, top, bottom = draw_features(canvas, genotype.features, genotype.used_features)
    canvas.legend(0, bottom + 24, [("searched", {"color": SEARCHED}), ("fixed", {"color": FIXED})])
    if changes:
        canvas.legend(0, bottom + 48, [("differs", MARKED_EDGE)])
    right, cells_top = _draw_cells(canvas, genotype, ids, turn, marks)
    return right, min(top, cells_top)


def draw_features(canvas: Canvas, features: tuple[str, ...], used) -> tuple[float, float, float]:
    """Draw a column per modality; returns their right, top and bottom.

    They begin at x = 0 and are centred on y = 0. Features are the nodes ``f0``, ``f1``, …; those
    that are not ``used`` are pale. The columns are staggered, so that a horizontal line from any
    feature to the right passes between the features of the other columns.
    """
    ids = {name: f"f{i}" for i, name in enumerate(features)}
    columns: dict[str, list[str]] = {}
    for name in features:
        columns.setdefault(modality_of(name), []).append(name)
    titles = ["" if names == [m] else wrapped(m) for m, names in columns.items()]
    block = BLOCK - LINE + max(text_height(wrapped(name)) for name in features)
    pitch = max(block + 18, len(columns) * (block / 2 + 7))
    starts = [pitch * k / len(columns) for k in range(len(columns))]
    depth = max(s + pitch * (len(c) - 1) for s, c in zip(starts, columns.values(), strict=True))
    head = max(PAD, *(text_height(title) + 14 for title in titles if title), 0)
    top = -(head + depth + block + PAD) / 2
    right = 0.0
    for k, (modality, names) in enumerate(columns.items()):
        line, fill = MODALITIES[k % len(MODALITIES)]
        width = max(text_width(text) for text in (titles[k], *map(wrapped, names))) + 22
        left = right + 12 if k else 0.0
        x, right = left + 8 + width / 2, left + width + 16
        style = {"style": "rounded", "color": line, "fontcolor": line}
        canvas.box(f"m{k}", titles[k], f"Modality {modality}", left, top, right, -top, x, **style)
        for i, name in enumerate(names):
            y = top + head + block / 2 + starts[k] + pitch * i
            if name in used:
                tip, style = f"Feature {name}", {"color": line, "fillcolor": fill}
            else:
                tip, style = f"Feature {name}, not used", PALE
            canvas.node(ids[name], wrapped(name), tip, x, y, width, block, **style)
            if i:
                spline = route((x, y - pitch + block / 2), (x, y - block / 2))
                above = names[i - 1]
                canvas.edge(ids[above], ids[name], f"{above} → {name}", spline, searched=False)
    return right, top, -top


def _draw_cells(canvas: Canvas, genotype: Genotype, ids, turn: float, marks: set):
    """Draw the Cells below each other, centred on y = 0; returns their right and top."""
    cells = genotype.cells
    labels = [OPERATIONS[step.op].label for cell in cells for step in cell.steps]
    block = max(text_width(f"S1 {label}") for label in labels) + 20
    titles = [_cell_title(i, cell) for i, cell in enumerate(cells, 1)]
    heights = [TITLE + ROW * (len(cell.steps) + 1) + ROUND + PAD for cell in cells]
    left = turn + 60 + 6 * len(cells)
    first = left + PAD + ROUND + 18 + block / 2
    last = first + _stride(block) * (max(len(cell.steps) for cell in cells) - 1)
    right = last + block / 2 + 26 + ROUND + PAD
    right = max(right, *(left + text_width(title) + 2 * PAD for title in titles))
    start = top = -(sum(heights) + GAP * (len(cells) - 1)) / 2
    gaps: dict[str, float] = {}
    for i, (cell, title, height) in enumerate(zip(cells, titles, heights, strict=True), 1):
        bottom, middle = top + height, left + PAD + text_width(title) / 2
        style = {"style": "rounded,filled", "color": CELL_LINE, "fillcolor": CELL}
        style |= MARKED_NODE if (i, None, "") in marks else {}
        canvas.box(f"c{i}", title, title, left, top, right, bottom, middle, **style)
        _draw_cell(canvas, cell, i, left + PAD, right - PAD, top + TITLE, block, marks)
        for name, port in zip(cell.inputs, "XY", strict=True):
            me = f"c{i}_{port.lower()}"
            spline = path_to_cell(canvas, ids, name, me, left, turn, gaps)
            style = MARKED_EDGE if {(i, None, port), (i, None, "")} & marks else {}
            canvas.edge(ids[name], me, f"{name} → Cell {i} {port}", spline, True, **style)
        ids[cell_name(i - 1)], gaps[cell_name(i - 1)] = f"c{i}_z", bottom + GAP / 2
        top = bottom + GAP
    return right, start


def path_to_cell(canvas: Canvas, ids, name: str, me: str, left: float, turn: float, gaps) -> list:
    """Control points from a feature or an earlier Cell ``name`` to a Cell's input ``me``.

    A feature's edges are horizontal up to x = ``turn`` and then curve to a Cell. An earlier Cell's
    run through the gap below it, at y = ``gaps[name]``, and down a lane of their own to the left
    of all Cells, which begin at x = ``left``.
    """
    end = left + PAD, canvas.places[me][1]
    if name not in gaps:
        return swing(canvas.right_of(ids[name]), turn, end)
    x, y, _, high = canvas.places[ids[name]]
    lane, gap = left - 8 - 6 * list(gaps).index(name), gaps[name]
    return route((x, y + high / 2), (x, gap), (lane, gap), (lane, end[1]), end)


def draw_classifier(canvas: Canvas, cells: int, right: float) -> None:
    """Draw the classifier to the right of the Cells, which end at x = ``right``."""
    outs = [canvas.right_of(f"c{i}_z") for i in range(1, cells + 1)]
    x, y = right + 44, (outs[0][1] + outs[-1][1]) / 2
    width, height = text_width("Classifier") + 22, 20 + 12 * cells
    tip = "Linear classifier on the Cells' outputs, concatenated"
    canvas.node("out", "Classifier", tip, x + width / 2, y, width, height)
    for i, out in enumerate(outs, 1):
        spline = swing(out, right, (x, y + 12 * (i - (cells + 1) / 2)))
        canvas.edge(f"c{i}_z", "out", f"Cell {i} → Classifier", spline, searched=False)


def _cell_title(i: int, cell: CellGenotype) -> str:
    """``Cell 1 (X's source, Y's source) · motif``; without the sources if they are long."""
    sources = f" ({', '.join(cell.inputs)})"
    motif = f" · {cell.motif}" if cell.motif else ""
    return f"Cell {i}{sources if len(sources) <= WRAP else ''}{motif}"


def _draw_cell(canvas: Canvas, cell: CellGenotype, i: int, left, right, top, block, marks) -> None:
    """Draw a Cell's nodes and inner edges between ``left`` and ``right`` from ``top`` down.

    Every node has a row of its own, X, Y, S1, … from the top, and steps follow each other to the
    right. A node's output runs to the right along its row, and from there down into steps or on
    into Z.
    """
    ids = {"X": f"c{i}_x", "Y": f"c{i}_y"}
    y = top + ROUND / 2
    for k, port in enumerate("XY"):
        tip = f"Cell {i}, input {port}"
        centre = left + ROUND / 2, y + ROW * k
        canvas.node(ids[port], port, tip, *centre, ROUND, ROUND, shape="circle")
    for j, step in enumerate(cell.steps, 1):
        me, op = step_name(j - 1), OPERATIONS[step.op]
        ids[me] = f"c{i}_s{j}"
        x = left + ROUND + 18 + block / 2 + _stride(block) * (j - 1)
        y = top + ROUND / 2 + ROW * (j + 1)
        tip = f"Cell {i}, {me}: {op.label}({', '.join(step.inputs)})"
        style = PALE if step.op == "zero" else {}
        new = bool({(i, None, ""), (i, j, "")} & marks)
        if new or (i, j, "operation") in marks:
            style = style | MARKED_NODE
        canvas.node(ids[me], f"{me} {op.label}", tip, x, y, block, BLOCK, **style)
        roles = ("q", "k, v") if step.op == "attention" else ("1st", "2nd")
        for k, (name, role) in enumerate(zip(step.inputs, roles, strict=True)):
            side = 2 * k - 1
            start, rail = canvas.right_of(ids[name])
            end = x + side * _port(block), y - BLOCK / 2
            spline = route((start - 1, rail - 4), (end[0], rail - 4), end)
            label = "" if op.symmetric else role
            at = end[0] + side * (6 + text_width(role) / 2), end[1] - 9
            other = new or (i, j, ("1st input", "2nd input")[k]) in marks
            style = {"label": label, "at": at} | (MARKED_EDGE if other else {})
            canvas.edge(ids[name], ids[me], f"{name} → {me}", spline, True, **style)
    bottom = y + ROUND / 2
    tip = f"Cell {i}, output: the steps' outputs, concatenated and reduced, plus X"
    z = right - ROUND / 2, (top + bottom) / 2
    canvas.node(f"c{i}_z", "Z", tip, *z, ROUND, bottom - top)
    taken = {name for step in cell.steps for name in step.inputs}
    for name in [name for name in ids if name != "Y"]:
        x, y = canvas.right_of(ids[name])
        rail = y + 4 if name in taken else y
        spline = route((x - 1, rail), (right - ROUND, rail))
        canvas.edge(ids[name], f"c{i}_z", f"{name} → Z", spline, searched=False)


def _port(block: float) -> float:
    """Distance of a step's inputs from its middle."""
    return min(20, block / 4)


def _stride(block: float) -> float:
    """Distance from one step to the next: the output of the first can go down into the second."""
    return block / 2 + _port(block) + 20
