"""Curves of a search: losses, scores and changes of the genotype.

On the canvas of the graphs, not matplotlib's: the stepper redraws them at every step, and a replay
keeps them as frames.
"""

import math
from collections import namedtuple
from collections.abc import Mapping
from itertools import cycle, product

import numpy as np

from ..metrics import score_text
from .canvas import CARD, CELL_LINE, INK, MUTED, SEARCHED, Canvas, DrawError, Picture, text_width

#: Colours of lines that have names: Okabe and Ito's, the blue of searched edges first.
LINES = (SEARCHED, "#D98200", "#007A59", "#A3477F", "#5B6470", "#7D7400")
STYLES = ("solid", "dashed", "dotted")  # the first until the colours repeat
#: A panel's width and height, the room to its left and below, and the most points of a line.
WIDE, HIGH, LEFT, BELOW, POINTS = 300, 150, 40, 34, 120
SMOOTH = 15


#: One line of a panel; without a name, it is not in the legend.
Line = namedtuple("Line", "name x y colour width style", defaults=("solid",))


def draw_curves(history, *, at: int | None = None, engine: str = "wasi") -> Picture:
    """Losses per step, validation scores per epoch, and when the derived genotype changed.

    Args:
        history: a :class:`~bmnas_core.history.SearchHistory`, or several by name in one picture.
        at: a step to mark.
        engine: as in :func:`~bmnas_core.draw.draw`.

    Raises :class:`DrawError` for anything else, or an engine that is unknown, missing or fails.
    """
    histories = history if isinstance(history, Mapping) else {"": history}
    if not histories:
        raise DrawError("draw", "no history", "at least one")
    for name, one in histories.items():
        if not isinstance(name, str):
            raise DrawError("draw", f"a history named {name!r}", "text")
        check_history(one, at)
    canvas, alone = Canvas(), len(histories) == 1
    end = max(10, *(int(one.steps[-1]) for one in histories.values()))
    batches, means, scores, selects = [], [], [], False
    styles = cycle(product(STYLES, LINES))
    rows = [(*item, *style) for item, style in zip(histories.items(), styles, strict=False)]
    for name, one, style, colour in rows:
        steps, score, selecting = one.steps, one.column("val_score"), one.phases == "selection"
        kinds = [("validation batch", one.column("val_loss"), colour)]
        if alone:
            kinds.insert(0, ("training batch", one.column("train_loss"), MUTED))
        for label, loss, shade in kinds:
            x, y = steps[~np.isnan(loss)], loss[~np.isnan(loss)]
            if len(x):
                batches.append(Line("", x, y, shade + "50", 0.8))
                means.append(Line(label if alone else name, x, _smoothed(y), shade, 2.0, style))
        selects |= bool(selecting.any())
        kinds = [("hypernet", ~selecting, colour)]
        kinds += [("candidates", selecting, LINES[1] if alone else colour)]
        for label, own, shade in kinds:
            label, known = label if selects else "", own & ~np.isnan(score)
            if own.any():
                x, y = steps[known], score[known]
                scores.append(Line(label if alone else name, x, y, shade, 2.0, style))
    title = f"{'' if alone else 'validation '}loss, and its mean of {SMOOTH} steps"
    _panel(canvas, "loss", LEFT, title, batches + means, end, at=at, named=alone)
    ends = "each epoch, then the best candidate" if selects else "each epoch"
    title, left = f"validation {rows[0][1].about['metric']}, {ends}", 2 * LEFT + WIDE + 24
    named, limits = alone and selects, rows[0][1].about.get("limits", [0, 1])
    limits = limits if None not in limits else _range([line.y for line in scores])
    _panel(canvas, "score", left, title, scores, end, limits, at=at, named=named, dots=True)
    top, text = HIGH + BELOW + 40, "changes of the derived genotype"
    canvas.text("changes", text, LEFT, top, size=12, align="l")
    for k, (name, one, style, colour) in enumerate(rows):
        y = top + 20 + 18 * k
        if not alone:
            x = LEFT + WIDE + 14
            canvas.line(f"n{k}", [(x, y), (x + 24, y)], name, colour, 2.4, style=style)
            canvas.text(f"m{k}", name, x + 30, y, size=11, align="l")
        changes = one.steps[one.changes]
        tip = text if alone else f"{name}: {len(changes)} changes"
        canvas.line(f"t{k}", [(LEFT, y), (LEFT + WIDE, y)], tip, CELL_LINE, 1)
        for j in evenly(len(changes)):
            x, tip = LEFT + WIDE * changes[j] / end, f"genotype changed at step {changes[j]}"
            canvas.line(f"t{k}_{j}", [(x, y - 6), (x, y + 6)], tip, colour, 1.2)
    return canvas.picture(engine)


def check_history(history, at: int | None) -> None:
    """Raise DrawError unless ``history`` is one with states and ``at`` is a step or None."""
    if not all(hasattr(history, name) for name in ("steps", "column", "changes", "about")):
        raise DrawError("draw", type(history).__name__, "a SearchHistory")
    if not len(history):
        raise DrawError("draw", "a history without states", "at least one state")
    if at is not None and not isinstance(at, int):
        raise DrawError("at", repr(at), "an integer, a step")


def _panel(canvas, me, left, title, lines, end, ylim=None, *, at=None, named=False, dots=False):
    """Draw lines over steps 0 to ``end`` with their axes, from x = ``left`` to the right."""
    ys = np.concatenate([[0.0, 1.0], *(line.y for line in lines)])
    least, most = ylim or (float(ys.min()), float(ys.max()) * 1.04)

    def place(x, y):
        height = HIGH * (1 - (float(y) - least) / ((most - least) or 1))
        return left + WIDE * float(x) / end, 24 + height

    canvas.text(f"{me}_t", title, left, 6, size=12, align="l")
    for k, tick in enumerate(_ticks(least, most)):
        (x, y), label = place(0, tick), f"{tick:g}"
        canvas.line(f"{me}_y{k}", [(x, y), (x + WIDE, y)], label, "#E4E8EC", 0.8)
        canvas.text(f"{me}_v{k}", label, x - 5, y, size=11, color=MUTED, align="r")
    for k, tick in enumerate(_ticks(0, end, whole=True)):
        x, y = place(tick, least)
        canvas.text(f"{me}_x{k}", f"{tick:g}", x, y + 10, size=11, color=MUTED)
    x, y = place(end, least)
    canvas.text(f"{me}_s", "step", x, y + 24, size=11, color=MUTED, align="r")
    for k, (name, x, y, colour, width, style) in enumerate(lines):
        kept = evenly(len(x))
        points = [place(x[i], y[i]) for i in kept]
        if len(points) > 1:
            canvas.line(f"{me}_l{k}", points, name or title, colour, width, style=style)
        if dots or len(points) == 1:
            for i, (px, py) in zip(kept, points, strict=True):
                tip = f"{name or title}, step {x[i]}: {score_text(y[i])}"
                dot = {"shape": "circle", "style": "filled", "color": CARD, "fillcolor": colour}
                canvas.node(f"{me}_d{k}_{i}", "", tip, px, py, 8, 8, **dot)
    x, y = left, 48 + HIGH
    for k, line in enumerate(line for line in lines if named and line.name):
        canvas.line(f"{me}_n{k}", [(x, y), (x + 16, y)], line.name, line.colour, 2.4)
        canvas.text(f"{me}_m{k}", line.name, x + 21, y, size=11, align="l")
        x += 21 + text_width(line.name, 11) + 18
    if at is not None:
        x, _ = place(min(max(at, 0), end), least)
        ends = [(x, 20), (x, 24 + HIGH)]
        canvas.line(f"{me}_at", ends, f"step {at}", INK, 1.2, style="dashed")


def _range(ys: list[np.ndarray]) -> tuple[float, float]:
    """The least and the largest of all values, with a little room; 0 and 1 without any."""
    values = np.concatenate([*ys, []])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    room = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return float(low - room), float(high + room)


def _smoothed(y: np.ndarray) -> np.ndarray:
    """The mean of each value and up to ``SMOOTH - 1`` before it."""
    count = np.minimum(np.arange(len(y)) + 1, SMOOTH)
    return np.convolve(y, np.ones(SMOOTH))[: len(y)] / count


def evenly(n: int, most: int = POINTS) -> np.ndarray:
    """At most ``most`` of n indices, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Three to six round numbers in [low, high]."""
    rough = (high - low) / 4 or 1
    scale = 10 ** math.floor(math.log10(rough))
    step = scale * next(m for m in (1, 2, 5, 10) if m * scale >= rough * 0.999)
    step = max(step, 1) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
