"""Charts of matplotlib, in the kit's style sheet: results of networks, and α, β, γ over a search."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..genotype import OPERATIONS, step_name
from .canvas import INK, MODALITIES, MUTED, SEARCHED, DrawError, modality_of, printable
from .curves import LINES, check_history, evenly, ticks

STYLE, SMALL = "bmnas_core.figures", 8.5  # the style sheet; points of names and numbers
#: The scores that an axis may mark, their least distance in axis widths, and the least error shown.
MARKS, APART = (0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995), 0.09
LEAST_ERROR = 0.001


def draw_results(table, *, highlight: str = "BM-NAS", ax=None):
    """Networks side by side, best first: test score with its spread, parameters, seconds.

    There is one panel per task and rule. The error is on a log scale, so that good networks stand
    apart.

    Args:
        table: as :func:`bmnas_core.baselines.summarize` returns it.
        highlight: networks whose names begin with it have the colour of what is searched.
        ax: the matplotlib Axes to draw on, one per panel; those of a new figure by default. Names
            and numbers stand to the left and right of them: ``layout="constrained"`` makes room.

    Returns:
        The Axes of the panel; if there are several, an array of them, from the top down.

    Raises:
        DrawError: for a table without rows or a column that is needed, or another number of Axes.
    """
    needed = ("task", "rule", "network", "seeds", "test", "std", "params")
    needed += ("search_seconds", "train_seconds")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        found = f"no column {missing[0]!r}" if missing else "no rows"
        raise DrawError(f"draw: found {found}; allowed: a summary of results")
    import matplotlib.pyplot as plt

    panels = list(table.groupby(["task", "rule"], sort=False, dropna=False))
    lengths = [len(rows) + 4 for _, rows in panels]
    size = max(9, 6 + 0.075 * max(map(len, table["network"]))), 0.21 * sum(lengths)
    with plt.style.context(STYLE):
        axes = _axes(ax, len(panels), nrows=len(panels), height_ratios=lengths, figsize=size)
        for panel, ((task, rule), rows) in zip(axes, panels, strict=True):
            title = f"{task}, rule {rule}" if isinstance(rule, str) else task
            panel.set_title(printable(title), parse_math=False)
            _draw_panel(panel, rows, highlight)
    return axes if len(axes) > 1 else axes[0]


def draw_trajectories(history, of: str = "alpha", *, at: int | None = None, ax=None):
    """The softmaxes of α, β or γ over a search: a panel per decision, a line per candidate.

    Args:
        history: a :class:`~bmnas_core.history.SearchHistory`.
        of: ``"alpha"``, ``"beta"`` or ``"gamma"``.
        at: a step to mark.
        ax: the matplotlib Axes to draw on, one per panel; those of a new figure by default. Names
            of candidates stand to the right of them: ``layout="constrained"`` makes room.

    Returns:
        The Axes of the panel; if there are several, an array of them, in the order of the Cells.

    Raises:
        DrawError: for anything else, or another number of Axes.
    """
    check_history(history, at)
    if of not in ("alpha", "beta", "gamma"):
        raise DrawError(f"of: found {of!r}; allowed: 'alpha', 'beta', 'gamma'")
    import matplotlib.pyplot as plt

    kept = evenly(len(history))
    steps, weights = history.steps[kept], [history[i].weights for i in kept]
    panels = list(_decisions(weights, of))
    features = weights[0].features if of == "alpha" else ()
    modalities = list(dict.fromkeys(map(modality_of, features)))
    colours = {
        name: MODALITIES[modalities.index(modality_of(name)) % len(MODALITIES)][0]
        for name in features
    }
    per_cell = len(panels) // len(weights[0].gamma)
    columns = per_cell if per_cell < 4 else 2
    rows = -(-len(panels) // columns)
    longest = max(len(name) for _, names, _ in panels for name in names)
    most = max(len(names) for _, names, _ in panels)
    width, height = max(4.5, 9 / columns, 2 + 0.08 * longest), max(2.0, 0.5 + 0.16 * most)
    layout = {"nrows": rows, "ncols": columns, "sharex": True, "sharey": True}
    end, top = max(1, int(steps[-1])), max(values.max() for *_, values in panels)
    with plt.style.context(STYLE):
        axes = _axes(ax, len(panels), figsize=(width * columns, height * rows), **layout)
        for panel, (title, names, values) in zip(axes, panels, strict=True):
            panel.set_title(title)
            panel.set(xlabel="step", xlim=(0, end), ylim=(0, min(1, 1.1 * top)))
            for k, name in enumerate(names):
                colour = colours.get(name, LINES[k % len(LINES)])
                style = {"color": colour, "label": name, "marker": "" if len(steps) > 1 else "o"}
                panel.plot(steps, values[:, k], clip_on=False, **style)
            if at is not None:
                panel.axvline(min(max(at, 0), end), color=INK, linewidth=1.2, linestyle="--")
            if ax is None:
                panel.label_outer()
        axes[0].figure.canvas.figure.draw_without_rendering()  # gives the Axes their heights
        for panel, (_, names, _) in zip(axes, panels, strict=True):
            _name_ends(panel, panel.get_lines()[: len(names)])
    return axes if len(axes) > 1 else axes[0]


def _axes(ax, panels: int, **layout) -> np.ndarray:
    """``ax`` as an array of one Axes per panel; those of a new figure by default."""
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        axes = plt.subplots(squeeze=False, **layout)[1].ravel()
        for unused in axes[panels:]:
            unused.remove()
        return axes[:panels]
    axes = np.asarray(ax, dtype=object).ravel()
    other = [type(one).__name__ for one in axes if not isinstance(one, Axes)]
    if other or len(axes) != panels:
        found = other[0] if other else f"{len(axes)} Axes"
        raise DrawError(f"ax: found {found}; allowed: {panels} Axes, one per panel")
    return axes


def _stretched(score):
    """Where scores stand on an axis: even steps halve the error."""
    return -np.log2(np.maximum(1.0 - np.asarray(score), LEAST_ERROR))


def _shrunk(place):
    """The score that stands at a place: the inverse of :func:`_stretched`."""
    return 1.0 - 2.0 ** -np.asarray(place)


def _draw_panel(ax, rows, highlight: str) -> None:
    """Draw one row per network: its name, its score as a point with its spread, its numbers."""
    count, seeds, spread = len(rows), rows["seeds"].max(), rows["std"].fillna(0.0)
    colours = [SEARCHED if name.startswith(highlight) else INK for name in rows["network"]]
    low, high = _stretched([(rows["test"] - spread).min(), (rows["test"] + spread).max()])
    room = 0.05 * max(high - low, 0.02)
    ax.set_xscale("function", functions=(_stretched, _shrunk))
    ax.set(xlim=_shrunk([low - room, high + room]), ylim=(count - 0.4, -1.4))
    marks: list[float] = []
    for mark in reversed(MARKS):  # where there is no room for all, the better scores are marked
        place = _stretched(mark)
        apart = all(abs(place - _stretched(m)) > APART * (high - low) for m in marks)
        if low <= place <= high and apart:
            marks.append(mark)
    marks = marks if len(marks) > 1 else ticks(*_shrunk([low, high]))
    ax.set_xticks(marks, [f"{mark:g}" for mark in marks], fontsize=SMALL)
    ax.minorticks_off()
    over = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    ax.set_xlabel(f"test score (error on a log scale){over}", fontsize=SMALL)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    names = list(map(printable, rows["network"]))
    ax.set_yticks(range(count), names, parse_math=False, fontsize=SMALL)
    ax.tick_params(axis="y", length=0)
    for label, colour in zip(ax.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
    ax.hlines(range(count), rows["test"] - spread, rows["test"] + spread, colors=colours)
    ax.scatter(rows["test"], range(count), c=colours, s=26, zorder=3)
    scores = [f"{test:.3f}" + (f" ± {std:.3f}" if seeds > 1 else "")
              for test, std in zip(rows["test"], spread, strict=True)]  # fmt: skip
    columns = {
        "test score": scores,
        "parameters": [f"{value:,.0f}" for value in rows["params"]],
        "search, s": [_seconds(value) if value else "–" for value in rows["search_seconds"]],
        "training, s": list(map(_seconds, rows["train_seconds"])),
    }
    right = 0.0
    for head, texts in columns.items():
        right += 14 + 0.6 * SMALL * max(map(len, [head, *texts]))
        for y, (text, colour) in enumerate(zip([head, *texts], [MUTED, *colours], strict=True), -1):
            ax.annotate(
                text, (1, y), (right, 0), ("axes fraction", "data"), "offset points",
                ha="right", va="center", color=colour, fontsize=SMALL, annotation_clip=False,
            )  # fmt: skip


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _decisions(weights, of: str) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Title, candidates and their weights over time, (T, candidates), of every decision."""
    first = weights[0]
    for i, gamma in enumerate(first.gamma):
        cell, steps = f"Cell {i + 1}", list(map(step_name, range(len(gamma))))
        if of == "alpha":
            edges = np.stack([w.cell_edges(i)[1:] for w in weights], axis=1)
            for port, values in zip("XY", edges, strict=True):
                yield f"α, {cell} {port}", first.cell_edges(i)[0], values
        for j, step in enumerate(steps):
            if of == "beta":
                edges = np.stack([w.step_edges(i, j)[1:] for w in weights], axis=1)
                for which, values in zip(("1st", "2nd"), edges, strict=True):
                    yield f"β, {cell} {step}, {which} input", first.step_edges(i, j)[0], values
            elif of == "gamma":
                values = np.stack([w.operation_weights(i)[j] for w in weights])
                labels = [OPERATIONS[op].label for op in first.operations]
                yield f"γ, {cell} {step}", labels, values


def _name_ends(ax, lines) -> None:
    """Name each line at its right end; names move apart where they would overlap."""
    low, high = ax.get_ylim()
    apart = 1.3 * SMALL * (high - low) / (ax.bbox.height * 72 / ax.figure.dpi)
    lines = sorted(lines, key=lambda line: line.get_ydata()[-1])
    places = [line.get_ydata()[-1] for line in lines]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + apart)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], high)
        high = places[k] - apart
    for line, place in zip(lines, places, strict=True):
        (x, y), colour = line.get_xydata()[-1], line.get_color()
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5)}
        ax.annotate(
            printable(line.get_label()), (x, y), (1.05, place), "data", ax.get_yaxis_transform(),
            arrowprops=leader | {"shrinkA": 0, "shrinkB": 0}, annotation_clip=False,
            color=colour, fontsize=SMALL, va="center", parse_math=False,
        )  # fmt: skip
