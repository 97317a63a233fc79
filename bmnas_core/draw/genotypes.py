"""Genotypes as graphs, in the visual language of Yin et al. 2022.

Each modality is a box of blocks in its own colour; Cells are boxes that hold X, Y, the inner
steps and Z; edges are blue if the search decides them and black if they are fixed. A picture has
its own light background, and one genotype always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import check_type
from ..genotype import OPERATIONS, CellGenotype, Genotype, cell_name, step_name
from . import canvas as c

#: The widest that modalities may be beside each other; wider ones stand below each other. Two
#: genotypes that are compared likewise.
BESIDE, COMPARED = 380, 1250


def graph(
    genotype: Genotype, against: Genotype | None = None, *, decided: str = "searched"
) -> Graph:
    """A genotype as a graph, with what differs from ``against`` marked.

    Edges that are not fixed are called ``decided``.

    Nodes are ``f0``, ``f1``, … (features), ``c1_x``, ``c1_y``, ``c1_s1``, …, ``c1_z`` (Cell 1)
    and ``out`` (classifier); the genotype's own names appear only in labels and tooltips, escaped.
    A step takes its first input on the left; the two are named unless its operation is symmetric.
    For a layout by graphviz, set ``layout`` of the canvas's ``dot`` to ``"dot"``.
    """
    canvas = Graph()
    canvas.decided = decided
    _draw_genotype(canvas, genotype, against)
    canvas.classifier()
    return canvas


def draw_comparison(
    one: Genotype, other: Genotype, names: tuple[str, str] = ("A", "B"), *, engine: str = "wasi"
) -> c.Picture:
    """Two genotypes side by side, without classifiers; what differs is dashed and vermilion.

    Wide ones are drawn below each other.
    Cells and steps are compared as they are listed. The order of a symmetric operation's inputs
    does not count. Raises :class:`DrawError` for anything but genotypes and two names, or an engine
    that is unknown, missing or fails.
    """
    for genotype in (one, other):
        check_type(genotype, Genotype, "draw", c.DrawError)
    if not isinstance(names, tuple | list) or [isinstance(n, str) for n in names] != [True, True]:
        raise c.DrawError("names", repr(names), "two strings")
    canvas, first, second = Graph(), Graph(), Graph()
    _draw_genotype(first, one, other)
    top = _draw_genotype(second, other, one)
    place = max(first.width, c.text_width(names[0], 15) + 2) + 40, 0.0
    if first.width + 40 + second.width > COMPARED:
        place = 0.0, first.bottom + 60 - top
    sides = ("a", (0.0, 0.0), one, other), ("b", place, other, one)
    for (prefix, origin, *pair), name in zip(sides, names, strict=True):
        canvas.move(prefix, *origin)
        top = _draw_genotype(canvas, *pair)
        canvas.text("name", name, 0, top - 16, tip=f"Genotype {name}", size=15, align="l")
    return canvas.picture(engine)


class Graph(c.Canvas):
    """What genotypes and hypernets share: features, boxes of Cells, and the classifier.

    ``ids`` are the nodes of features and Cells by name. Features' edges are horizontal up to
    x = ``turn``; Cells reach from x = ``left`` to ``right`` and begin at y = ``top``; the gap below
    Cell C1 has its middle at y = ``gaps["C1"]``. Cells are counted from 1. ``stacked`` says whether
    modalities stand below each other.
    """

    def features(self, names: tuple[str, ...], used) -> float:
        """Draw a box per modality from x = 0, centred on y = 0; returns the lowest one's bottom.

        Those that are not ``used`` are pale. A horizontal line from any feature to the right
        passes no other feature.
        """
        self.ids, self.gaps = {name: f"f{i}" for i, name in enumerate(names)}, {}
        columns = c.by_modality(names)
        titles = ["" if own == [m] else c.wrapped(m) for m, own in columns.items()]
        texts = [
            (title, *map(c.wrapped, own))
            for title, own in zip(titles, columns.values(), strict=True)
        ]
        widths = [max(map(c.text_width, own)) + 22 for own in texts]
        block = c.BLOCK - c.LINE + max(c.text_height(c.wrapped(name)) for name in names)
        self.stacked = sum(widths) + 28 * len(widths) - 12 > BESIDE
        place = _below_each_other if self.stacked else _beside_each_other
        boxes, pitch = place(titles, list(map(len, columns.values())), widths, block)
        self.turn = max(right for _, _, right, *_ in boxes)
        for k, (modality, own) in enumerate(columns.items()):
            line, fill = c.MODALITIES[k % len(c.MODALITIES)]
            left, top, right, bottom, first = boxes[k]
            x, width, tip = (left + right) / 2, right - left - 16, f"Modality {modality}"
            style = {"style": "rounded", "color": line, "fontcolor": line}
            self.box(f"m{k}", titles[k], tip, left, top, right, bottom, x, **style)
            for i, name in enumerate(own):
                y = first + pitch * i
                style = {"color": line, "fillcolor": fill} if name in used else c.PALE
                tip = f"Feature {name}" + ("" if name in used else ", not used")
                self.node(self.ids[name], c.wrapped(name), tip, x, y, width, block, **style)
                if i:
                    above = own[i - 1]
                    spline = c.route((x, y - pitch + block / 2), (x, y - block / 2))
                    self.edge(self.ids[above], self.ids[name], f"{above} → {name}", spline, False)
        return boxes[-1][3]

    def foot(self, edge: float, heights: list[float]) -> float:
        """The y below which nothing stands that the legend could cover.

        ``edge`` is the features' bottom, ``heights`` are the Cells'. Beside stacked modalities
        edges run as far down as the Cells.
        """
        return max(edge, -_top(heights)) if self.stacked else edge

    def cells(self, left, right, titles, heights, note="", new=()) -> Iterator[tuple[int, float]]:
        """Draw Cells' boxes below each other, around y = 0; yield the number and top of each.

        Their tips are the titles with ``note``. Those in ``new`` are marked.
        """
        self.left, self.right = left, right
        self.top = top = _top(heights)
        for i, (title, height) in enumerate(zip(titles, heights, strict=True)):
            bottom, middle = top + height, left + c.PAD + c.text_width(title) / 2
            style = {"style": "rounded,filled", "color": c.CELL_LINE, "fillcolor": c.CELL}
            style |= c.MARKED_NODE if i + 1 in new else {}
            self.box(f"c{i + 1}", title, title + note, left, top, right, bottom, middle, **style)
            yield i + 1, top
            self.ids[cell_name(i)], self.gaps[cell_name(i)] = f"c{i + 1}_z", bottom + c.GAP / 2
            top = bottom + c.GAP

    def ports(self, i: int, *ys: float) -> None:
        """Draw X and Y of Cell i."""
        x = self.left + c.PAD + c.ROUND / 2
        for port, y in zip("XY", ys, strict=True):
            tip = f"Cell {i}, input {port}"
            self.node(f"c{i}_{port.lower()}", port, tip, x, y, c.ROUND, c.ROUND, shape="circle")

    def output(self, i: int, y: float, height: float) -> None:
        """Draw Z of Cell i."""
        tip = f"Cell {i}, output: the steps' outputs, concatenated and reduced, plus X"
        self.node(f"c{i}_z", "Z", tip, self.right - c.PAD - c.ROUND / 2, y, c.ROUND, height)

    def input_edge(self, name: str, i: int, port: str, tip: str = "", **style) -> None:
        """Draw the edge from a feature or an earlier Cell ``name`` to X or Y of Cell i.

        A feature's is horizontal up to ``turn`` and then curves to the Cell. An earlier Cell's
        runs through the gap below it and down a lane of its own to the left of all Cells.
        """
        me = f"c{i}_{port.lower()}"
        start, end = self.ids[name], (self.left + c.PAD, self.places[me][1])
        if name in self.gaps:
            x, y, _, height = self.places[start]
            lane, gap = self.left - 8 - 6 * list(self.gaps).index(name), self.gaps[name]
            spline = c.route((x, y + height / 2), (x, gap), (lane, gap), (lane, end[1]), end)
        else:
            spline = c.swing(self.right_of(start), self.turn, end)
        self.edge(start, me, f"{name} → Cell {i} {port}{tip}", spline, True, **style)

    def classifier(self) -> None:
        """Draw the classifier to the right of the Cells."""
        cells = len(self.gaps)
        outs = [self.right_of(f"c{i}_z") for i in range(1, cells + 1)]
        x, y = self.right + 44, (outs[0][1] + outs[-1][1]) / 2
        width, height = c.text_width("Classifier") + 22, 20 + 12 * cells
        tip = "Linear classifier on the Cells' outputs, concatenated"
        self.node("out", "Classifier", tip, x + width / 2, y, width, height)
        for i, out in enumerate(outs, 1):
            spline = c.swing(out, self.right, (x, y + 12 * (i - (cells + 1) / 2)))
            self.edge(f"c{i}_z", "out", f"Cell {i} → Classifier", spline, searched=False)


#: Left, top, right and bottom of a modality's box, and the middle of its first feature.
Box = tuple[float, float, float, float, float]


def _beside_each_other(titles, counts, widths, block) -> tuple[list[Box], float]:
    """Boxes of modalities with so many features each, and how far apart the features are.

    The features are staggered, so that one's line to the right passes between those of the others.
    """
    pitch = max(block + 18, len(counts) * (block / 2 + 7))
    starts = [pitch * k / len(counts) for k in range(len(counts))]
    depth = max(start + pitch * (n - 1) for start, n in zip(starts, counts, strict=True))
    head = max(map(_head, titles))
    top, right, boxes = -(head + depth + block + c.PAD) / 2, -12.0, []
    for start, width in zip(starts, widths, strict=True):
        left, right = right + 12, right + 28 + width
        boxes.append((left, top, right, -top, top + head + block / 2 + start))
    return boxes, pitch


def _below_each_other(titles, counts, widths, block) -> tuple[list[Box], float]:
    """The same in one column."""
    pitch, right, gap = block + 14, max(widths) + 16, 12
    heights = [
        _head(title) + block + pitch * (n - 1) + c.PAD
        for title, n in zip(titles, counts, strict=True)
    ]
    top, boxes = -(sum(heights) + gap * (len(heights) - 1)) / 2, []
    for title, height in zip(titles, heights, strict=True):
        boxes.append((0.0, top, right, top + height, top + _head(title) + block / 2))
        top += height + gap
    return boxes, pitch


def _head(title: str) -> float:
    """The room above the features of a modality."""
    return c.text_height(title) + 14 if title else c.PAD


def _draw_genotype(canvas: Graph, genotype: Genotype, against: Genotype | None) -> float:
    """Draw a genotype without its classifier, from x = 0, centred on y = 0; returns its top."""
    changes = genotype.changes_from(against) if against else ()
    marks = {(change.cell, change.step, change.what) for change in changes}
    edge, cells = canvas.features(genotype.features, genotype.used_features), genotype.cells
    heights = [c.TITLE + c.ROW * (len(cell.steps) + 1) + c.ROUND + c.PAD for cell in cells]
    foot = canvas.foot(edge, heights)
    canvas.legend(0, foot + 24, {canvas.decided: c.SEARCHED, "fixed": c.FIXED})
    if changes:
        canvas.legend(0, foot + 48, {"differs": c.MARK}, **c.MARKED_EDGE)
    labels = [OPERATIONS[step.op].label for cell in cells for step in cell.steps]
    block = max(c.text_width(f"S1 {label}") for label in labels) + 20
    left, most = canvas.turn + 60 + 6 * len(cells), max(len(cell.steps) for cell in cells)
    left += 60 if canvas.stacked else 0  # edges go farther up and down
    first, reach = left + c.PAD + c.ROUND + 18 + block / 2, min(20, block / 4)
    xs = [first + (block / 2 + reach + 20) * j for j in range(most)]  # outputs have room to turn
    right = xs[-1] + block / 2 + 26 + c.ROUND + c.PAD
    room = right - left - 2 * c.PAD
    titles = [_cell_title(i, cell, room) for i, cell in enumerate(cells, 1)]
    right = max(right, *(left + c.text_width(title) + 2 * c.PAD for title in titles))
    new = {i for i in range(1, len(cells) + 1) if (i, None, "") in marks}
    for i, top in canvas.cells(left, right, titles, heights, new=new):
        _draw_cell(canvas, cells[i - 1], i, top + c.TITLE, block, reach, xs, marks)
        for name, port in zip(cells[i - 1].inputs, "XY", strict=True):
            style = c.MARKED_EDGE if i in new or (i, None, port) in marks else {}
            canvas.input_edge(name, i, port, **style)
    return min(-edge, canvas.top)


def _top(heights: list[float]) -> float:
    """The top of Cells of these heights, around y = 0."""
    return -(sum(heights) + c.GAP * (len(heights) - 1)) / 2


def _cell_title(i: int, cell: CellGenotype, room: float) -> str:
    """``Cell 1 (X's source, Y's source) · motif``; without the sources if they are long.

    They are not if the title fits into ``room`` with them.
    """
    sources = f" ({', '.join(cell.inputs)})"
    motif = f" · {cell.motif}" if cell.motif else ""
    title = f"Cell {i}{sources}{motif}"
    fits = len(sources) <= c.WRAP or c.text_width(title) <= room
    return title if fits else f"Cell {i}{motif}"


def _draw_cell(canvas, cell: CellGenotype, i: int, top, block, reach, xs, marks) -> None:
    """Draw a Cell's nodes and inner edges from ``top`` down.

    Every node has a row of its own, X, Y, S1, … from the top, and steps follow each other to the
    right, with their middles at ``xs`` and their inputs ``reach`` beside these. A node's output
    runs to the right along its row, and from there down into steps or on into Z.
    """
    ids, rail = {"X": f"c{i}_x", "Y": f"c{i}_y"}, top + c.ROUND / 2
    canvas.ports(i, rail, rail + c.ROW)
    for j, (step, x) in enumerate(zip(cell.steps, xs, strict=False), 1):
        me, op, y = step_name(j - 1), OPERATIONS[step.op], rail + c.ROW * (j + 1)
        ids[me] = f"c{i}_s{j}"
        tip = f"Cell {i}, {me}: {op.label}({', '.join(step.inputs)})"
        new = bool({(i, None, ""), (i, j, "")} & marks)
        style = dict(c.PALE) if step.op == "zero" else {}
        style |= c.MARKED_NODE if new or (i, j, "operation") in marks else {}
        canvas.node(ids[me], f"{me} {op.label}", tip, x, y, block, c.BLOCK, **style)
        roles = ("q", "k, v") if step.op == "attention" else ("1st", "2nd")
        for k, (name, role) in enumerate(zip(step.inputs, roles, strict=True)):
            side, (start, row) = 2 * k - 1, canvas.right_of(ids[name])
            end, low = x + side * reach, y - c.BLOCK / 2
            spline = c.route((start - 1, row - 4), (end, row - 4), (end, low))
            at = end + side * (6 + c.text_width(role) / 2), low - 9
            style = {"label": "" if op.symmetric else role, "at": at}
            other = new or (i, j, ("1st input", "2nd input")[k]) in marks
            style |= c.MARKED_EDGE if other else {}
            canvas.edge(ids[name], ids[me], f"{name} → {me}", spline, True, **style)
    bottom = y + c.ROUND / 2
    canvas.output(i, (top + bottom) / 2, bottom - top)
    taken = {name for step in cell.steps for name in step.inputs}
    for name in [name for name in ids if name != "Y"]:
        x, y = canvas.right_of(ids[name])
        row = y + 4 if name in taken else y
        spline = c.route((x - 1, row), (canvas.right - c.PAD - c.ROUND, row))
        canvas.edge(ids[name], f"c{i}_z", f"{name} → Z", spline, searched=False)
