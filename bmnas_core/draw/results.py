"""Results of many networks beside each other: score with its spread, size and cost."""

from __future__ import annotations

import math

from .canvas import CELL_LINE, INK, LINE, MUTED, SEARCHED, Canvas, text_width
from .curves import ticks

#: Height of a row, width of the chart and of a column of numbers, and the gap between panels.
HIGH, WIDE, NUMBER, BETWEEN = 20, 260, 78, 40
#: Width of the column of scores, and the least gap between two marks of the axis.
SCORE, APART = 100, 24
#: What the axis may mark, and the least error it tells apart.
MARKS, LEAST = (0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995), 0.001
COLUMNS = (
    ("parameters", "params"),
    ("search, s", "search_seconds"),
    ("training, s", "train_seconds"),
)


def results(table, highlight: str) -> Canvas:
    """A panel for every task and rule, a row for every network, best first."""
    canvas, top = Canvas(), 0.0
    left = max(text_width(name, 12) for name in table["network"]) + 14
    for k, ((task, rule), rows) in enumerate(table.groupby(["task", "rule"], sort=False)):
        top = _panel(canvas, f"p{k}", left, top, f"{task}, rule {rule}", rows, highlight) + BETWEEN
    return canvas


def stretched(score: float) -> float:
    """Where a score stands: even steps halve the error, so that good networks lie apart."""
    return -math.log2(max(1.0 - score, LEAST))


def _panel(canvas, me, left, top, title, rows, highlight) -> float:
    spread = rows["std"].fillna(0.0)
    low, high = float((rows["test"] - spread).min()), float((rows["test"] + spread).max())
    room = max(stretched(high) - stretched(low), 0.02) * 0.05
    begin, end = stretched(low) - room, stretched(high) + room

    def place(value: float) -> float:
        return left + WIDE * (stretched(value) - begin) / (end - begin)

    seeds = int(rows["seeds"].max())
    first = top + 44
    bottom = first + HIGH * len(rows) - HIGH / 2
    over = "" if seeds == 1 else f", mean ± std of {seeds} seeds"
    canvas.text(f"{me}_t", title, title, 0, top, size=14, align="left")
    what = f"test score (error on a log scale){over}"
    canvas.text(f"{me}_w", what, what, left, top + 20, size=11, color=MUTED, align="left")
    right = left + WIDE + SCORE
    for c, (name, _) in enumerate(COLUMNS):
        x = right + NUMBER * (c + 1)
        canvas.text(f"{me}_c{c}", name, name, x, top + 20, size=11, color=MUTED, align="right")
    for t, value in enumerate(_marks(low, high, place)):
        x = place(value)
        canvas.line(f"{me}_g{t}", [(x, first - 12), (x, bottom)], f"{value:g}", CELL_LINE, 0.8)
        canvas.text(f"{me}_x{t}", f"{value:g}", f"{value:g}", x, bottom + 12, size=11, color=MUTED)
    for r, row in enumerate(rows.itertuples()):
        y = first + HIGH * r
        own = row.network.startswith(highlight)
        color = SEARCHED if own else INK
        deviation = 0.0 if math.isnan(row.std) else row.std
        tip = f"{row.network}: {row.test:.4f}" + (f" ± {deviation:.4f}" if deviation else "")
        name = f"{me}_r{r}"
        plain = {"shape": "plaintext", "style": "", "fontsize": "12", "fontcolor": color}
        box = (left - 10) / 2, y, left - 10, LINE
        canvas.node(f"{name}n", row.network, tip, *box, lines="r", **plain)
        score = f"{row.test:.3f}" + (f" ± {deviation:.3f}" if seeds > 1 else "")
        canvas.text(f"{name}t", score, tip, right, y, size=12, color=color, align="right")
        ends = [(place(row.test - deviation), y), (place(row.test + deviation), y)]
        if ends[0] != ends[1]:
            canvas.line(f"{name}s", ends, tip, color, 2.0)
        style = {"shape": "circle", "style": "filled", "fillcolor": color, "color": color}
        canvas.node(f"{name}d", "", tip, place(row.test), y, 8, 8, **style)
        for c, (_, column) in enumerate(COLUMNS):
            value = getattr(row, column)
            text = f"{value:,.0f}" if column == "params" or value >= 100 else f"{value:.1f}"
            if column == "search_seconds" and value == 0:
                text = "–"
            x = right + NUMBER * (c + 1)
            canvas.text(
                f"{name}c{c}", text, f"{tip}, {text}", x, y, size=12, color=color, align="right"
            )
    return bottom + 20


def _marks(low: float, high: float, place) -> list[float]:
    """What the axis marks between two scores, best first where there is no room for all."""
    marks: list[float] = []
    for value in reversed(MARKS):
        if low <= value <= high and not any(abs(place(value) - place(m)) < APART for m in marks):
            marks.append(value)
    return marks if len(marks) > 1 else ticks(low, high)
