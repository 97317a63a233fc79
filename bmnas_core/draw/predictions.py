"""Charts of what one network predicts: confusion matrix, scores of labels, values."""

from collections.abc import Sequence

import numpy as np

from .canvas import INK, MUTED, SEARCHED, DrawError, printable
from .charts import SMALL, _axes

#: Classes up to which each cell of a confusion matrix has its number, and up to which all have
#: their names.
MAX_NUMBERED, MAX_NAMED = 15, 40


def draw_confusion(counts: np.ndarray, names: Sequence[str], *, ax=None):
    """Of each true class, a row, the share of samples that is given to each class, a column.

    Args:
        counts: (classes, classes) numbers of samples.
        names: of the classes.
        ax: the matplotlib Axes to draw on; those of a new figure by default.

    Returns the Axes. Raises :class:`DrawError` for counts of another shape.
    """
    counts, k = np.asarray(counts), len(names)
    if counts.shape != (k, k):
        raise DrawError("counts", f"shape {counts.shape}", f"({k}, {k}), for {k} names")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(9.0, 2.2 + 0.42 * min(k, MAX_NUMBERED))
    with _axes(ax, 1, figsize=(side + 1.2, side)) as (ax,):
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
        bar.set_label("share of the true class", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
        step = -(-k // MAX_NAMED)
        texts = [_shortened(name) for name in names][::step]
        turned = 90 if max(map(len, texts)) > 2 else 0
        ax.set_xticks(range(0, k, step), texts, rotation=turned, fontsize=SMALL, parse_math=False)
        ax.set_yticks(range(0, k, step), texts, fontsize=SMALL, parse_math=False)
        ax.set(xlabel="predicted", ylabel="true")
        ax.tick_params(length=0)
        ax.grid(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        for i, j in np.argwhere(counts > 0) if k <= MAX_NUMBERED else ():
            colour = "white" if shares[i, j] > 0.55 else INK
            ax.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", color=colour, size=SMALL)
    return ax


def draw_label_scores(scores: np.ndarray, names: Sequence[str], *, what: str = "F1", ax=None):
    """A bar for each label of a multi-label task, the best first.

    Args:
        scores: (labels,), from 0 to 1.
        names: of the labels.
        what: what the scores are.
        ax: as in :func:`draw_confusion`.

    Returns the Axes.
    """
    order = np.argsort(scores)
    with _axes(ax, 1, figsize=(7, 1.0 + 0.22 * len(names))) as (ax,):
        ax.barh(range(len(order)), np.asarray(scores)[order], color=SEARCHED, height=0.7)
        texts = [_shortened(names[k]) for k in order]
        ax.set_yticks(range(len(order)), texts, fontsize=SMALL, parse_math=False)
        ax.set(xlim=(0, 1), xlabel=what)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
    return ax


def draw_values(true: np.ndarray, predicted: np.ndarray, names: Sequence[str], *, ax=None):
    """Predicted against true values, a panel for each value, and the line where they are equal.

    Args:
        true, predicted: (n, values).
        names: of the values.
        ax: as in :func:`draw_confusion`, one for each value.

    Returns the Axes; an array of them if there are several values.
    """
    panels = len(names)
    layout = {"ncols": panels, "figsize": (max(4.6, 4.0 * panels), 4.2)}
    with _axes(ax, panels, **layout) as axes:
        for panel, name, x, y in zip(axes, names, true.T, predicted.T, strict=True):
            low, high = min(x.min(), y.min()), max(x.max(), y.max())
            panel.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--")
            panel.scatter(x, y, s=14, color=SEARCHED, alpha=0.6, linewidths=0)
            panel.set(xlabel="true", ylabel="predicted")
            panel.set_title(printable(name) if panels > 1 else "", parse_math=False)
            panel.tick_params(labelsize=SMALL)
    return axes if panels > 1 else axes[0]


def _shortened(name: str, length: int = 24) -> str:
    name = printable(name)
    return name if len(name) <= length else name[: length - 1] + "…"
