"""Figures of notebook 04, the search: a toy with a weight w and an architecture parameter a."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

#: Where the maps are drawn: values of w and of a.
WEIGHTS, ARCHITECTURES = np.linspace(-0.4, 2.4, 80), np.linspace(-5, 5, 80)
#: Losses whose places are joined by lines.
LEVELS = (0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 3, 4)
DOT = {"color": "white", "markeredgecolor": "#1F2328", "markersize": 9}
FIRST, EXACT = "#E69F00", "#CC79A7"


def draw_maps(
    loss: Callable,
    data: Mapping[str, object],
    *,
    paths: Mapping[str, np.ndarray] | None = None,
    point: tuple[float, float] = (0.0, 0.0),
    titles: Sequence[str] = (),
):
    """The loss as a map over w and a, a panel for each data set; returns the figure.

    Args:
        loss: of (data, w, a), for grids of w and a.
        paths: label → (2, steps) of w and a. The first one is orange, the second white.
        point: (w, a) of a dot.
    """
    figure, axes = plt.subplots(1, len(data), figsize=(8.6, 3.7), sharey=True)
    for ax, (name, split) in zip(axes, data.items(), strict=True):
        picture = _paint(ax, loss, split)
        for (label, path), colour in zip((paths or {}).items(), (FIRST, "white"), strict=False):
            ax.plot(*path, color=colour, linewidth=2.4, label=label)
            ax.plot(*path[:, -1], "s", color=colour, markersize=5)
        ax.plot(*point, "o", **DOT)
        ax.set(title=f"{name} loss", xlabel="weight w")
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
    axes[0].set_ylabel("architecture a:  x2 ↔ x1")
    if paths:
        axes[0].legend(loc="lower left", labelcolor="white", fontsize=8)
    figure.colorbar(picture, ax=axes, label="loss", shrink=0.9)
    return figure


def draw_slopes(loss: Callable, validation, best_weight: Callable, a: float, tilt: float):
    """First order and exact: both directions at (best weight, a), and the loss along a.

    Args:
        loss: as in :func:`draw_maps`.
        best_weight: of a, or of several.
        tilt: derivative of the best weight by a.
    """
    left, right = plt.subplots(1, 2, figsize=(8.6, 3.9))[1]
    _paint(left, loss, validation)
    w, down, curve = best_weight(a), 1.4, best_weight(ARCHITECTURES)
    left.plot(curve, ARCHITECTURES, color="white", label="best weight w*(a)")
    for across, label, colour in ((0, "first order", FIRST), (-down * tilt, "exact", EXACT)):
        look = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.6}
        left.annotate("", (w + across, a - down), (w, a), arrowprops=look)
        left.plot([], [], color=colour, label=label)
    left.plot(w, a, "o", **DOT)
    left.legend(loc="upper left", labelcolor="white", fontsize=8)
    left.set(title="validation loss", xlabel="weight w", ylabel="architecture a:  x2 ↔ x1")
    along, fixed = loss(validation, curve, ARCHITECTURES), loss(validation, w, ARCHITECTURES)
    right.plot(ARCHITECTURES, along, color=EXACT, label="exact: the weight follows, L(w*(a), a)")
    right.plot(ARCHITECTURES, fixed, color=FIRST, label="first order: the weight stays, L(w, a)")
    right.plot(a, loss(validation, w, a), "o", **DOT)
    right.set(title="the same along a", ylabel="validation loss")
    right.set_xlabel("architecture a:  x2 ↔ x1")
    right.legend(fontsize=8)
    return left, right


def _paint(ax, loss: Callable, split):
    """The loss over all w and a as a map, dark where it is low."""
    grid = np.meshgrid(WEIGHTS, ARCHITECTURES)
    height = loss(split, *grid)
    extent = (WEIGHTS[0], WEIGHTS[-1], ARCHITECTURES[0], ARCHITECTURES[-1])
    look = {"vmin": 0, "vmax": 4, "aspect": "auto", "interpolation": "none"}
    picture = ax.imshow(height, origin="lower", extent=extent, **look)
    ax.contour(*grid, height, levels=LEVELS, colors="white", linewidths=0.4, alpha=0.7)
    ax.grid(visible=False)
    return picture
