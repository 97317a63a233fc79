"""How a search went, as charts: losses and scores, and the trajectories of α, β and γ.

All functions take a :class:`~bmnas_core.history.SearchHistory`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..genotype import OPERATIONS
from .canvas import CARD, CELL_LINE, INK, MODALITIES, MUTED, SEARCHED, Canvas, DrawError, text_width

#: Colours of lines that are told apart by name: Okabe and Ito's, the blue of searched edges first.
LINES = (SEARCHED, "#D98200", "#007A59", "#A3477F", "#5B6470", "#7D7400")
#: A panel's width and height, the room to its left and below, and the most points of a line.
WIDE, HIGH, LEFT, BELOW, POINTS = 300, 150, 40, 34, 120
SMOOTH = 15
#: Height of a name at the end of a line; how lines look once their colours come round again.
NAME, STYLES = 12.0, ("solid", "dashed", "dotted")
KINDS = ("alpha", "beta", "gamma")


class Line(NamedTuple):
    """One line of a chart: what it is called and how it looks."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: str
    width: float
    style: str = "solid"


def curves(histories: dict, at: int | None) -> Canvas:
    """Losses per step, validation scores per epoch, and when the derived genotype changed."""
    canvas = Canvas()
    (first, *_) = histories.values()
    end = max(10, *(int(history.steps[-1]) for history in histories.values()))
    losses, scores, races = [], [], False
    looks = [
        (LINES[k % len(LINES)], STYLES[k // len(LINES) % len(STYLES)])
        for k in range(len(histories))
    ]
    for (name, history), (colour, style) in zip(histories.items(), looks, strict=True):
        steps = history.steps
        kinds = [("validation batch", "val_loss", colour)]
        if len(histories) == 1:
            kinds.insert(0, ("training batch", "train_loss", MUTED))
        for label, column, shade in kinds:
            known = ~np.isnan(history.column(column))
            x, y = steps[known], history.column(column)[known]
            if len(x):
                losses.append(Line("", x, y, shade + "50", 0.8))
                label = label if len(histories) == 1 else name
                losses.append(Line(label, x, _smoothed(y), shade, 2.0, style))
        known, chosen = ~np.isnan(history.column("val_score")), history.phases == "choice"
        races |= bool(chosen.any())
        for label, own, shade in (("hypernet", ~chosen, colour), ("candidates", chosen, LINES[1])):
            x, y = steps[known & own], history.column("val_score")[known & own]
            if len(histories) > 1:
                label, shade = name, colour
            elif not chosen.any():
                label = ""
            if own.any():
                scores.append(Line(label, x, y, shade, 2.0, style))
    what = "" if len(histories) == 1 else "validation "
    title = f"{what}loss, and its mean of {SMOOTH} steps"
    losses.sort(key=lambda line: line.width)
    named = len(histories) == 1
    _panel(canvas, "loss", LEFT, 0, title, losses, (0, end), at=at, named=named)
    left = 2 * LEFT + WIDE + 24
    ends = "each epoch, then the best candidate" if races else "each epoch"
    title = f"validation {first.about['metric']}, {ends}"
    _panel(
        canvas,
        "score",
        left,
        0,
        title,
        scores,
        (0, end),
        (0, 1),
        at=at,
        dots=True,
        named=named and races,
    )
    top = HIGH + BELOW + 40
    text = "changes of the derived genotype"
    canvas.text("changes", text, text, LEFT, top, size=12, color=INK, align="left")
    for k, ((name, history), (colour, style)) in enumerate(
        zip(histories.items(), looks, strict=True)
    ):
        y = top + 20 + 18 * k
        if not named:
            x = LEFT + WIDE + 14
            canvas.line(f"n{k}", [(x, y), (x + 24, y)], name, colour, 2.4, style=style)
            canvas.text(f"m{k}", name, name, x + 30, y, size=11, color=INK, align="left")
        changes = history.steps[history.changes]
        tip = f"{name}: {len(changes)} changes" if len(histories) > 1 else text
        canvas.line(f"t{k}", [(LEFT, y), (LEFT + WIDE, y)], tip, CELL_LINE, 1)
        for j in _few(len(changes)):
            step = int(changes[j])
            x = LEFT + WIDE * step / max(end, 1)
            tip = f"genotype changed at step {step}"
            canvas.line(f"t{k}_{j}", [(x, y - 6), (x, y + 6)], tip, colour, 1.2)
    return canvas


def _panel(
    canvas, me, left, top, title, lines, xlim, ylim=None, high=HIGH, *, at=None, named=False,
    ends=False, dots=False,
):  # fmt: skip
    """Draw one chart with its axes."""
    ys = np.concatenate([line.y for line in lines] or [np.zeros(1)])
    least, most = ylim or (min(0.0, float(ys.min(initial=0))), float(ys.max(initial=1)) * 1.04)
    span = max(xlim[1] - xlim[0], 1)

    def place(x, y):
        height = high * (1 - (float(y) - least) / ((most - least) or 1))
        return left + WIDE * (float(x) - xlim[0]) / span, top + 24 + height

    canvas.text(f"{me}_t", title, title, left, top + 6, size=12, color=INK, align="left")
    for k, tick in enumerate(ticks(least, most)):
        x, y = place(xlim[0], tick)
        canvas.line(f"{me}_y{k}", [(x, y), (x + WIDE, y)], f"{tick:g}", "#E4E8EC", 0.8)
        label = f"{tick:g}"
        canvas.text(f"{me}_v{k}", label, label, x - 5, y, size=11, color=MUTED, align="right")
    for k, tick in enumerate(ticks(*xlim, whole=True)):
        x, y = place(tick, least)
        label = f"{tick:g}"
        canvas.text(f"{me}_x{k}", label, label, x, y + 10, size=11, color=MUTED)
    x, y = place(xlim[1], least)
    canvas.text(f"{me}_s", "step", "step", x, y + 24, size=11, color=MUTED, align="right")
    for k, (name, x, y, colour, width, look) in enumerate(lines):
        few = _few(len(x))
        points = [place(x[i], y[i]) for i in few]
        if len(points) > 1:
            canvas.line(f"{me}_l{k}", points, name or title, colour, width, style=look)
        if dots or len(points) == 1:
            for i, (px, py) in zip(few, points, strict=True):
                tip = f"{name or title}, step {x[i]}: {y[i]:.3f}"
                style = {"shape": "circle", "style": "filled", "color": CARD, "fillcolor": colour}
                canvas.node(f"{me}_d{k}_{i}", "", tip, px, py, 8, 8, **style)
    if ends:
        _name_ends(canvas, me, lines, place)
    if named:
        x = left
        for k, line in enumerate(line for line in lines if line.name):
            name, y = line.name, top + 24 + high + 24
            canvas.line(f"{me}_n{k}", [(x, y), (x + 16, y)], name, line.color, 2.4)
            canvas.text(f"{me}_m{k}", name, name, x + 21, y, size=11, color=INK, align="left")
            x += 21 + text_width(name, 11) + 18
    if at is not None:
        x, _ = place(min(max(at, xlim[0]), xlim[1]), least)
        ends = [(x, top + 20), (x, top + 24 + high)]
        canvas.line(f"{me}_at", ends, f"step {at}", INK, 1.2, style="dashed")


def _smoothed(y: np.ndarray) -> np.ndarray:
    """The mean of each value and up to ``SMOOTH - 1`` before it."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    end = np.arange(1, len(y) + 1)
    start = np.maximum(end - SMOOTH, 0)
    return (total[end] - total[start]) / (end - start)


def _few(n: int) -> np.ndarray:
    """At most ``POINTS`` of n indices, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int)) if n else range(0)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Three to six round numbers in [low, high]."""
    rough = (high - low) / 4 or 1
    scale = 10 ** math.floor(math.log10(rough))
    step = scale * next(m for m in (1, 2, 5, 10) if m * scale >= rough * 0.999)
    step = max(step, 1) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
