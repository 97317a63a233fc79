"""Charts, drawn by matplotlib in the kit's style: results; α, β, γ over a search; matrices."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, product
from textwrap import fill

import numpy as np

from ..genotype import cell_name
from ..metrics import METRICS, Metric, score_text
from .canvas import INK, MODALITIES, MUTED, SEARCHED, DrawError, by_modality, printable
from .curves import LINES, POINTS, STYLES, check_history, evenly
from .hypernets import decisions

NEEDED = (
    "task", "rule", "network", "seeds", "test", "std", "params", "search_seconds", "train_seconds",
)  # fmt: skip
#: Marks of curves, after as many as there are colours.
MARKERS = ("o", "s", "^", "D", "v")
DIFFERENCES = ("panel", "name", "difference", "low", "high")
TRIED = ("task", "rule", "network", "C", "L", "validation", "params", "seconds")
LETTERS = {"alpha": "α", "beta": "β", "gamma": "γ"}
SMALL = 8.5  # points of names and numbers
TITLE = 70  # characters in a line of a panel's title
NAMED = 12  # lines of a panel that have their names beside it, at most
#: Scores that an axis may mark, and the least error that it shows.
MARKS, LEAST_ERROR = (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999), 0.001


def draw_results(table, *, highlight: str = "BM-NAS", ax=None):
    """Networks side by side, best first: test score with its spread, parameters, seconds.

    There is a panel per task, rule, options and metric. Where scores are from 0 to 1 and higher
    ones better, the error is on a log scale to set good networks apart. Scores on validation are
    shown if the table has any, and C and L if they differ.

    Args:
        table: as :func:`bmnas_core.baselines.summarize` returns it.
        highlight: networks whose names begin with it have the colour of what is searched.
        ax: the matplotlib Axes to draw on, one per panel; those of a new figure by default. Names
            and numbers stand to the left and right of them: ``layout="constrained"`` makes room.

    Returns the Axes; an array of them if there are several panels. Raises :class:`DrawError` for a
    table without rows or a column that is needed, or another number of Axes.
    """
    _check_columns(table, NEEDED, "a summary of results")
    panels = _panels(table)
    lengths = [len(rows) + 1.8 for _, rows in panels]
    width = max(9, 6 + 0.075 * max(map(len, table["network"]))) + 0.4 * len(_chosen(table))
    size = width, sum(1.1 + 0.2 * n for n in lengths)
    with _axes(ax, len(panels), nrows=len(panels), height_ratios=lengths, figsize=size) as axes:
        for panel, (title, rows) in zip(axes, panels, strict=True):
            panel.set_title(fill(printable(title), TITLE), parse_math=False)
            _draw_panel(panel, rows, highlight)
    return axes if len(axes) > 1 else axes[0]


def _check_columns(table, needed: Iterable[str], allowed: str) -> None:
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        found = f"no column {missing[0]!r}" if missing else "no rows"
        raise DrawError("draw", found, allowed)


def draw_differences(table, *, ax=None):
    """Paired differences of scores with their intervals, about a line at zero.

    Args:
        table: a row for each difference, with columns ``panel`` and ``name``, what the panel and
            the row are called, ``difference``, ``low`` and ``high``, which may be NaN.
        ax: as in :func:`draw_results`.

    Returns the Axes; an array of them if there are several panels. Raises :class:`DrawError` for a
    table without rows or a column that is needed, or another number of Axes.
    """
    _check_columns(table, DIFFERENCES, "a table of differences")
    panels = list(table.groupby("panel", sort=False))
    lengths = [len(rows) + 1.6 for _, rows in panels]
    size = 8 + 0.075 * max(map(len, table["name"])), sum(0.8 + 0.22 * n for n in lengths)
    with _axes(ax, len(panels), nrows=len(panels), height_ratios=lengths, figsize=size) as axes:
        for panel, (title, rows) in zip(axes, panels, strict=True):
            panel.set_title(fill(printable(title), TITLE), parse_math=False)
            _draw_differences(panel, rows)
    return axes if len(axes) > 1 else axes[0]


def _draw_differences(ax, rows) -> None:
    """Draw one row per difference; those whose interval leaves zero out are in colour."""
    lows, highs = (rows[end].fillna(rows["difference"]) for end in ("low", "high"))
    sure = (rows["low"] > 0) | (rows["high"] < 0)
    colours = [SEARCHED if one else INK for one in sure]
    places = range(len(rows))
    ax.axvline(0, color=MUTED, linewidth=1)
    ax.hlines(places, lows, highs, colors=colours)
    ax.scatter(rows["difference"], places, c=colours, s=26, zorder=3)
    ax.set_yticks(places, list(map(printable, rows["name"])), parse_math=False)
    ax.set_xlabel("difference of scores on test, and its 95 % interval", fontsize=SMALL, loc="left")
    ax.tick_params(labelsize=SMALL)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.margins(x=0.08)
    for place, (_, row) in zip(places, rows.iterrows(), strict=True):
        ax.annotate(
            signed(row["difference"], row["low"], row["high"]), (1, place), (12, 0),
            ("axes fraction", "data"), "offset points", color=colours[place],
            va="center_baseline", fontsize=SMALL, annotation_clip=False,
        )  # fmt: skip


def signed(difference: float, low: float, high: float) -> str:
    """A difference with its interval, if it has one: ``−0.0120 [−0.0310, +0.0070]``.

    The three have the same decimals: two digits of half the interval's width, and at least three
    where all are below 1.
    """
    decimals = 0 if max(abs(difference), abs(low), abs(high)) >= 1 else 3
    if high > low:
        decimals = max(decimals, 1 - math.floor(math.log10((high - low) / 2)))

    def text(x):
        size = f"{abs(x):,.{min(decimals, 9)}f}" if low == low else score_text(abs(x))
        return f"{'+' if x > 0 else '−' if x < 0 else ''}{size}"

    return f"{text(difference)} [{text(low)}, {text(high)}]" if low == low else text(difference)


def draw_frontiers(tried, *, highlight: str = "BM-NAS", networks=None, ax=None):
    """Score on validation against size and against time: a curve for each network, over its widths.

    There are two panels per task, rule and options: parameters, and seconds of search and training.
    A curve has the length L that is best for its network, and for each width the best of the other
    settings; the best of all is filled. The scale is that of :func:`draw_results`, down to five
    times the least error.

    Args:
        tried: as :func:`bmnas_core.baselines.try_settings` returns it.
        highlight: as in :func:`draw_results`.
        networks: which to draw; by default those whose least error is at most three times the
            least of all under the same rule, or all if scores have no error.
        ax: two matplotlib Axes per task and rule; names stand to the right of the second.

    Returns the Axes as an array. Raises :class:`DrawError` for a table without rows, without a
    column that is needed or without one of ``networks``, or another number of Axes.
    """
    missing = [name for name in TRIED if name not in getattr(tried, "columns", ())]
    if missing or not len(tried):
        found = f"no column {missing[0]!r}" if missing else "no rows"
        raise DrawError("draw", found, "a table of settings")
    known = list(dict.fromkeys(tried["network"]))
    for name in networks or ():
        if name not in known:
            raise DrawError("networks", repr(name), ", ".join(known))
    from matplotlib.ticker import EngFormatter, LogLocator

    thousands = EngFormatter(sep="")

    keys = _keys(tried)
    scores = tried.groupby([*keys, "network"], dropna=False)["validation"]
    tried = tried.assign(error=1 - scores.transform("max"))
    near = tried["error"] <= 3 * tried.groupby(keys, dropna=False)["error"].transform("min")
    near |= np.array([not _has_error(metric) for metric in _metrics(tried)])
    tried = tried[tried["network"].isin(networks) if networks else near]
    groups = _panels(tried)
    heights = [max(3.2, 0.9 + 0.19 * rows["network"].nunique()) for _, rows in groups]
    layout = {"nrows": len(groups), "ncols": 2, "height_ratios": heights, "sharey": "row"}
    others = [name for name in known if not name.startswith(highlight)]
    looks = {name: (SEARCHED, "o") for name in known}
    pairs = product(MARKERS, LINES[1:])
    looks |= {name: pair[::-1] for name, pair in zip(others, cycle(pairs), strict=False)}
    with _axes(ax, 2 * len(groups), figsize=(9, sum(heights)), **layout) as axes:
        lines = []
        for (title, rows), *panels in zip(groups, axes[::2], axes[1::2], strict=True):
            panels[0].set_title(printable(title), parse_math=False)
            of_rule, metric = [], _metrics(rows)[0]
            rows = rows.assign(merit=metric.sign * rows["validation"])
            for name, own in rows.groupby("network", sort=False):
                best = own.loc[own["merit"].idxmax()]
                if best["L"] == best["L"]:  # not for what has no positions
                    own = own[own["L"] == best["L"]]
                own = own.loc[own.groupby("C", dropna=False)["merit"].idxmax()]
                colour, marker = looks[name]
                look = {"color": colour, "marker": marker, "label": name, "linewidth": 1.2}
                for panel, column in zip(panels, ("params", "seconds"), strict=True):
                    hollow = {**look, "markerfacecolor": "white", "markersize": 5}
                    (line,) = panel.plot(own[column], own["validation"], **hollow)
                    panel.plot(best[column], best["validation"], **look, markersize=6)
                of_rule.append(line)
            scores = np.concatenate([line.get_ydata() for line in of_rule])
            if _has_error(metric):
                high = scores.max()  # far below it, narrow networks would take the others' room
                low = max(scores.min(), 1 - 5 * (1 - high))
                _scale_scores(panels[0], low, high, high, axis="y")
            for panel, label in zip(panels, ("parameters", "search + training, s"), strict=True):
                panel.set_xscale("log")
                panel.set_xlabel(f"{label} (log scale)", fontsize=SMALL)
                panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
                panel.xaxis.set_major_formatter(  # half a second is 0.5, not 500m
                    lambda value, _: thousands(value) if value >= 1000 else f"{value:g}"
                )
                panel.tick_params(labelsize=SMALL)
                panel.minorticks_off()
            scale = "\n(error on a log scale)" if _has_error(metric) else ""
            panels[0].set_ylabel(f"validation {_score_name(rows)}{scale}", fontsize=SMALL)
            lines.append((panels[1], of_rule))
        axes[0].figure.canvas.figure.draw_without_rendering()  # gives the Axes their heights
        for panel, of_rule in lines:
            _name_ends(panel, of_rule)
    return axes


def draw_trajectories(history, of: str = "alpha", *, at: int | None = None, ax=None):
    """The softmaxes of α, β or γ over a search: a panel per decision, a line per candidate.

    Of many candidates those with the highest peaks are named, and the others are thin. Features
    have the colours of their modalities; Cells are blue.

    Args:
        history: a :class:`~bmnas_core.history.SearchHistory`.
        of: ``"alpha"``, ``"beta"`` or ``"gamma"``.
        at: a step to mark.
        ax: as in :func:`draw_results`; names of candidates stand to the right of the Axes.

    Returns the Axes; an array of them if there are several panels. Raises :class:`DrawError` for
    anything else, or another number of Axes.
    """
    check_history(history, at)
    if of not in LETTERS:
        raise DrawError("of", repr(of), ", ".join(map(repr, LETTERS)))
    from matplotlib.ticker import MaxNLocator

    kept = evenly(len(history), POINTS // 2)  # fewer points than other curves, for many lines
    steps, weights = history.steps[kept], [history[i].weights for i in kept]
    panels = list(_decisions(weights, of))
    looks = {}  # of features, and of Cells
    for k, names in enumerate(by_modality(weights[0].features).values()):
        looks |= dict.fromkeys(names, (MODALITIES[k % len(MODALITIES)][0], "solid"))
    of_cells = cycle(product((SEARCHED, INK), (*STYLES, "dashdot")))
    looks |= {cell_name(i): next(of_cells) for i in range(len(weights[0].gamma))}
    end, top = max(1, int(steps[-1])), max(values.max() for *_, values in panels)
    per_cell = len(panels) // len(weights[0].gamma)
    columns = per_cell if per_cell < 4 else 2
    rows = -(-len(panels) // columns)
    longest = max(len(name) for _, names, _ in panels for name in names)
    most = min(NAMED, max(len(names) for _, names, _ in panels))
    size = max(9, columns * (2 + 0.08 * longest)), rows * max(2, 0.5 + 0.18 * most)
    layout = {"nrows": rows, "ncols": columns, "figsize": size, "sharex": True, "sharey": True}
    with _axes(ax, len(panels), **layout) as axes:
        lines = []
        for panel, (title, names, values) in zip(axes, panels, strict=True):
            few = f" ({NAMED} of {len(names)} named)" if len(names) > NAMED else ""
            panel.set_title(title + few, fontsize="medium")
            panel.set_xlabel("step", fontsize="small")
            panel.tick_params(labelsize="small")
            panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            panel.set(xlim=(0, end), ylim=(0, min(1, 1.1 * top)))
            lines.append(panel.plot(steps, values, "-" if len(steps) > 1 else "o", clip_on=False))
            for k, (line, name) in enumerate(zip(lines[-1], names, strict=True)):
                colour, style = LINES[k % len(LINES)], "solid"
                if of == "alpha":
                    colour, style = looks[name]
                line.set(label=name, color=colour, linestyle=style if len(steps) > 1 else "none")
            if at is not None:
                panel.axvline(min(max(at, 0), end), color=INK, linewidth=1.2, linestyle="--")
            if ax is None:
                panel.label_outer()
        axes[0].figure.canvas.figure.draw_without_rendering()  # gives the Axes their heights
        for panel, own in zip(axes, lines, strict=True):
            own = sorted(own, key=lambda line: -line.get_ydata().max())
            for line in own[NAMED:]:
                line.set(linewidth=0.7, alpha=0.4)
            _name_ends(panel, own[:NAMED])
    return axes if len(axes) > 1 else axes[0]


def draw_matrices(matrices: Mapping, *, shares: Collection[str] = (), height: float = 2.5, ax=None):
    """Matrices side by side, each element as a colour: rows down, columns across.

    Signed elements share one scale, from blue (negative) over white to red. A matrix of shares,
    such as gates or the weights of an attention, has a scale of its own from 0 to its maximum.

    Args:
        matrices: title → matrix (rows, columns), of PyTorch or NumPy, e.g. channels × positions.
        shares: titles of those whose elements are not negative.
        height: of a new figure, in inches.
        ax: as in :func:`draw_results`.

    Returns the Axes; an array of them if there are several matrices. Raises :class:`DrawError` for
    none, for anything that is not a matrix of finite numbers, a title in ``shares`` that no matrix
    has or whose matrix has negative elements, or another number of Axes.
    """
    shown = {name: _as_matrix(name, matrix) for name, matrix in dict(matrices).items()}
    if not shown:
        raise DrawError("matrices", "none", "at least one")
    for name in shares:
        if name not in shown:
            raise DrawError("shares", repr(name), ", ".join(map(repr, shown)))
        if shown[name].min() < 0:
            raise DrawError(f"shares, {name!r}", f"{shown[name].min():g}", "no negative element")
    largest = max((np.abs(shown[name]).max() for name in shown if name not in shares), default=0)
    with _axes(ax, len(shown), ncols=len(shown), figsize=(8.6, height)) as axes:
        signed, image = [], None
        for panel, (name, matrix) in zip(axes, shown.items(), strict=True):
            panel.set_title(printable(name), loc="center", fontsize="medium", parse_math=False)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            if name in shares:
                own = panel.imshow(
                    matrix, cmap="Blues", vmin=0, vmax=matrix.max() or 1, aspect="auto"
                )
                panel.figure.colorbar(own, ax=panel, shrink=0.8)
            else:
                limits = {"vmin": -(largest or 1), "vmax": largest or 1}
                image = panel.imshow(matrix, cmap="RdBu_r", aspect="auto", **limits)
                signed.append(panel)
        if signed:
            image.figure.colorbar(image, ax=signed, shrink=0.8)
    return axes if len(axes) > 1 else axes[0]


def _as_matrix(name: str, matrix) -> np.ndarray:
    """A matrix as numbers of NumPy. Raises DrawError for anything else."""
    place, allowed = f"matrices, {name!r}", "rows and columns of numbers"
    if hasattr(matrix, "detach"):  # of PyTorch, on any device
        matrix = matrix.detach().cpu().double()
    try:
        found = np.asarray(matrix)
    except ValueError:  # rows of several lengths
        raise DrawError(place, f"a {type(matrix).__name__}", allowed) from None
    if found.ndim != 2 or not found.size or found.dtype.kind not in "biuf":
        raise DrawError(place, f"shape {found.shape}, {found.dtype}", allowed)
    if not np.isfinite(found).all():
        raise DrawError(place, "nan or inf", "finite numbers")
    return found.astype(float)


@contextmanager
def _axes(ax, panels: int, **layout):
    """Axes as an array, one per panel, in the kit's style: ``ax``, or those of a new figure."""
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    axes = [one for one in np.asarray(ax, dtype=object).ravel() if isinstance(one, Axes)]
    if ax is not None and len(axes) != panels:
        raise DrawError("ax", f"{len(axes)} Axes", f"{panels}, one per panel")
    # Load the backend first: if it turns interactive mode on in the block, that is undone at the
    # end, and a notebook shows no later figure.
    plt.draw_if_interactive()
    with plt.style.context("bmnas_core.figures"):
        axes = axes or list(plt.subplots(squeeze=False, **layout)[1].flat)
        for unused in axes[panels:]:
            unused.remove()
        yield np.array(axes[:panels])


def _draw_panel(ax, rows, highlight: str) -> None:
    """Draw one row per network: its name, its score as a point with its spread, its numbers."""
    colours = [SEARCHED if name.startswith(highlight) else INK for name in rows["network"]]
    places, scores, spread = range(len(rows)), rows["test"], rows["std"].fillna(0.0)
    ax.hlines(places, scores - spread, scores + spread, colors=colours)
    ax.scatter(scores, places, c=colours, s=26, zorder=3)
    metric, name = _metrics(rows)[0], f"test {_score_name(rows)}"
    scaled = _has_error(metric)
    if scaled:
        _scale_scores(ax, (scores - spread).min(), (scores + spread).max(), scores.max())
    seeds = rows["seeds"].max()
    over = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    scale = " (error on a log scale)" if scaled else ""
    scale = scale or (" (lower is better)" if metric.direction == "min" else "")
    ax.set_xlabel(f"{name}{scale}{over}", fontsize=SMALL, loc="left")
    ax.set_yticks(places, list(map(printable, rows["network"])), parse_math=False)
    for label, colour in zip(ax.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
    ax.tick_params(labelsize=SMALL)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(rows) - 0.4, -1.4)  # the head of the columns is at -1
    pairs = zip(scores, rows["std"], strict=True)
    columns = {
        name: [score_text(m) + ("" if np.isnan(s) else f" ± {_as_exact(s, m)}") for m, s in pairs],
        **_chosen(rows),
        "parameters": [f"{count:,.0f}" for count in rows["params"]],
        "search, s": [_seconds(value) if value else "–" for value in rows["search_seconds"]],
        "training, s": list(map(_seconds, rows["train_seconds"])),
    }
    right = 0.0
    for head, texts in columns.items():
        right += 16 + 0.56 * SMALL * max(map(len, [head, *texts]))
        for y, (text, colour) in enumerate(zip([head, *texts], [MUTED, *colours], strict=True), -1):
            ax.annotate(
                text, (1, y), (right, 0), ("axes fraction", "data"), "offset points", color=colour,
                ha="right", va="center_baseline", fontsize=SMALL, annotation_clip=False,
            )  # fmt: skip


def _keys(table) -> list[str]:
    """Columns that say of which task a row is."""
    return [name for name in ("task", "rule", "options", "metric") if name in table]


def _metrics(rows) -> list[Metric]:
    """The metric of each row; accuracy in a table that names none.

    Of one that is not registered, such as another user's own, the table says the direction.
    """
    names = rows["metric"] if "metric" in rows else ["accuracy"] * len(rows)
    ways = rows["direction"] if "direction" in rows else [None] * len(rows)
    return [
        METRICS[name] if name in METRICS or way is None else Metric(len, direction=way)
        for name, way in zip(names, ways, strict=True)
    ]


def _score_name(rows) -> str:
    """What the axis of a panel calls its scores."""
    name = next(iter(rows["metric"])) if "metric" in rows else "accuracy"
    return "score" if name == "accuracy" else name


def _has_error(metric: Metric) -> bool:
    """Whether scores are from 0 to 1 and the best is 1."""
    return metric.share and metric.direction == "max"


def _panels(table) -> list[tuple]:
    """Title and rows for each task, rule and options of the task."""
    found = []
    keys = [name for name in _keys(table) if name != "metric" or table["metric"].nunique() > 1]
    for (task, rule, *options), rows in table.groupby(keys, sort=False, dropna=False):
        words = [task, f"rule {rule}" if isinstance(rule, str) and rule else "", *options]
        title = ", ".join(word for word in words if isinstance(word, str) and word)
        found.append((title, rows))
    return found


def _chosen(rows) -> dict[str, list[str]]:
    """Columns of what a network was chosen by, if there are any: validation, and C and L."""
    columns = {}
    if "validation" in rows and rows["validation"].notna().any():
        columns["validation"] = list(map(score_text, rows["validation"]))
    if {"C", "L"} <= set(rows) and rows[["C", "L"]].nunique().max() > 1:
        sizes = rows[["C", "L"]].itertuples(index=False)
        columns["C, L"] = [", ".join("–" if x != x else f"{x:.0f}" for x in pair) for pair in sizes]
    return columns


def _scale_scores(ax, low: float, high: float, best: float, axis: str = "x") -> None:
    """Put scores from ``low`` to ``high`` on a scale that halves the error in even steps.

    The axis ends at half the error of the best network, even if another one's spread does not.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = _stretched(low), min(_stretched(high), _stretched(best) + 1)
    room = max(0.05 * (high - low), 0.05)
    low, high = _shrunk([low - room, high + room])
    scale, ticks, limits = (getattr(ax, f"set_{axis}{what}") for what in ("scale", "ticks", "lim"))
    scale("function", functions=(_stretched, _shrunk))
    marks: list[float] = []
    for mark in reversed(MARKS):
        apart = _stretched(marks[-1]) - _stretched(mark) if marks else np.inf
        if low <= mark <= high and apart > (_stretched(high) - _stretched(low)) / 8:
            marks.append(mark)
    if len(marks) > 1:
        ticks(marks, [f"{mark:g}" for mark in marks])
    else:  # as they stand closer at one end, fewer than usual
        getattr(ax, f"{axis}axis").set_major_locator(MaxNLocator(5))
    limits(low, high)


def _stretched(score):
    """Where scores stand on an axis: even steps halve the error, down to the least one shown."""
    return -np.log2(np.maximum(1.0 + LEAST_ERROR - np.asarray(score), LEAST_ERROR / 2))


def _shrunk(place):
    """The score that stands at a place: the inverse of :func:`_stretched`."""
    return 1.0 + LEAST_ERROR - 2.0 ** -np.asarray(place)


def _as_exact(spread: float, score: float) -> str:
    """A spread with as many decimals as its score has."""
    _, _, decimals = score_text(score).partition(".")
    return f"{spread:.{len(decimals)}f}" if decimals.isdigit() else score_text(spread)


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _decisions(weights, of: str) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Title, candidates and their weights over time, (T, candidates), of every decision."""
    for i in range(len(weights[0].gamma)):
        for states in zip(*(decisions(one, i) for one in weights), strict=True):
            letter, step, heads, _, labels, _ = states[0]
            if letter != LETTERS[of]:
                continue
            over_time = np.stack([state[-1] for state in states], axis=1)
            for head, values in zip(heads, over_time, strict=True):
                place = f"{step}, {head} input" if step else head
                yield f"{letter}, Cell {i + 1} {place}", labels, values


def _name_ends(ax, lines) -> None:
    """Name each line at its right end; names move apart where they would overlap."""
    from scipy.optimize import isotonic_regression

    apart = 1.3 * SMALL / (ax.bbox.height * 72 / ax.figure.dpi)  # in heights of the Axes
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = {line: to_axes.transform(line.get_xydata()[-1])[1] for line in lines}
    lines = sorted(lines, key=ends.__getitem__)
    steps = apart * np.arange(len(lines))
    # The least squares that keep the names in order and ``apart``.
    places = isotonic_regression([ends[line] for line in lines] - steps).x
    places = np.clip(places, 0, 1 - steps[-1]) + steps
    for line, place in zip(lines, places, strict=True):
        (x, y), colour = line.get_xydata()[-1], line.get_color()
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5)}
        ax.annotate(
            printable(line.get_label()), (x, y), (1.05, place), "data", "axes fraction",
            arrowprops=leader | {"shrinkA": 0, "shrinkB": 0}, annotation_clip=False,
            color=colour, fontsize=SMALL, va="center", parse_math=False,
        )  # fmt: skip
