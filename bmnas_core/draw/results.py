"""Results of many networks beside each other: score with its spread, size and cost."""

from __future__ import annotations

import math

from .picture import CELL_LINE, INK, LINE, MUTED, SEARCHED, Sheet, text_width
from .traces import ticks

#: Height of a row, width of the chart and of a column of numbers, and the gap between panels.
HIGH, WIDE, NUMBER, BETWEEN = 20, 260, 78, 40
COLUMNS = (
    ("parameters", "params"),
    ("search, s", "search_seconds"),
    ("training, s", "train_seconds"),
)


def results(table, highlight: str) -> Sheet:
    """A panel for every task and rule, a row for every network, best first."""
    sheet, top = Sheet(), 0.0
    left = max(text_width(name, 12) for name in table["network"]) + 14
    for k, ((task, rule), rows) in enumerate(table.groupby(["task", "rule"], sort=False)):
        top = _panel(sheet, f"p{k}", left, top, f"{task}, rule {rule}", rows, highlight) + BETWEEN
    return sheet


def _panel(sheet, me, left, top, title, rows, highlight) -> float:
    spread = rows["std"].fillna(0.0)
    low, high = float((rows["test"] - spread).min()), float((rows["test"] + spread).max())
    room = max(high - low, 0.01) * 0.05
    low, high = max(0.0, low - room), min(1.0, high + room)

    def place(value: float) -> float:
        return left + WIDE * (value - low) / (high - low)

    seeds = int(rows["seeds"].max())
    first = top + 44
    bottom = first + HIGH * len(rows) - HIGH / 2
    over = "" if seeds == 1 else f", mean and standard deviation over {seeds} seeds"
    sheet.text(f"{me}_t", title, title, 0, top, size=14, align="left")
    what = f"test score{over}"
    sheet.text(f"{me}_w", what, what, left, top + 20, size=11, color=MUTED, align="left")
    for c, (name, _) in enumerate(COLUMNS):
        x = left + WIDE + 20 + NUMBER * (c + 1)
        sheet.text(f"{me}_c{c}", name, name, x, top + 20, size=11, color=MUTED, align="right")
    for t, value in enumerate(ticks(low, high)):
        x = place(value)
        sheet.line(f"{me}_g{t}", [(x, first - 12), (x, bottom)], f"{value:g}", CELL_LINE, 0.8)
        sheet.text(f"{me}_x{t}", f"{value:g}", f"{value:g}", x, bottom + 12, size=11, color=MUTED)
    for r, row in enumerate(rows.itertuples()):
        y = first + HIGH * r
        own = row.network.startswith(highlight)
        color = SEARCHED if own else INK
        deviation = 0.0 if math.isnan(row.std) else row.std
        tip = f"{row.network}: {row.test:.4f}" + (f" ± {deviation:.4f}" if deviation else "")
        name = f"{me}_r{r}"
        plain = {"shape": "plaintext", "style": "", "fontsize": "12", "fontcolor": color}
        box = (left - 10) / 2, y, left - 10, LINE
        sheet.node(f"{name}n", row.network, tip, *box, lines="r", **plain)
        ends = [
            (place(max(low, row.test - deviation)), y),
            (place(min(high, row.test + deviation)), y),
        ]
        if ends[0] != ends[1]:
            sheet.line(f"{name}s", ends, tip, color, 2.0)
        style = {"shape": "circle", "style": "filled", "fillcolor": color, "color": color}
        sheet.node(f"{name}d", "", tip, place(row.test), y, 8, 8, **style)
        for c, (_, column) in enumerate(COLUMNS):
            value = getattr(row, column)
            text = f"{value:,.0f}" if column == "params" or value >= 100 else f"{value:.1f}"
            if column == "search_seconds" and value == 0:
                text = "–"
            x = left + WIDE + 20 + NUMBER * (c + 1)
            sheet.text(
                f"{name}c{c}", text, f"{tip}, {text}", x, y, size=12, color=color, align="right"
            )
    return bottom + 20
