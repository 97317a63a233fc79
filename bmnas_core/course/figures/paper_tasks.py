"""Figures that notebooks 10 to 12 share."""

from collections.abc import Mapping

import matplotlib.pyplot as plt

#: What is not highlighted.
GREY = "#B9C0C8"


def draw_backbones(backbones: Mapping[str, Mapping], metric: str):
    """Validation score of each backbone after each epoch of its training; returns the Axes."""
    if not backbones:
        return None
    _, ax = plt.subplots(figsize=(8.6, 2.6))
    for name, one in backbones.items():
        ax.plot(range(1, len(one["scores"]) + 1), one["scores"], ".-", label=name)
    ax.set(title="Backbones alone", xlabel="epoch", ylabel=f"{metric}, validation", ylim=(0, 1.02))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


def draw_scores(table, title: str, metric: str, highlight: str):
    """A bar for each row of a table with a column ``test``, best on top; returns the Axes."""
    bars = table[::-1]
    colours = ["C0" if name == highlight else GREY for name in bars.index]
    _, ax = plt.subplots(figsize=(8.6, 3.6))
    ax.barh(bars.index, bars["test"], color=colours)
    for y, score in enumerate(bars["test"]):
        ax.text(score + 0.01, y, f"{score:.3f}", va="center")
    ax.set(title=title, xlim=(0, 1.09), xlabel=f"{metric}, test")
    ax.grid(visible=False)
    return ax
