"""Figures of notebook 13, sweeps."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from ...draw.canvas import INK, SEARCHED

GREY = "#9AA4AE"


def draw_scores(scores: pd.DataFrame, metric: str):
    """A line for each seed, and mean ± deviation of each setting: (seeds, 2 settings)."""
    ax = plt.subplots(figsize=(8.6, 3.2))[1]
    for row in scores.to_numpy():
        ax.plot([0, 1], row, "o-", color=GREY, linewidth=1, markersize=5)
    for place, column, colour in zip((-0.15, 1.15), scores, (SEARCHED, INK), strict=True):
        mean, deviation = scores[column].mean(), scores[column].std()
        ax.errorbar(place, mean, deviation, fmt="s", color=colour, capsize=4)
        align = "right" if place < 0 else "left"
        side = place + (0.05 if place > 0 else -0.05)
        text = f"{mean:.3f} ± {deviation:.3f}"
        ax.text(side, mean, text, color=colour, ha=align, va="center")
    ax.set(title="Each seed, and mean ± standard deviation", ylabel=f"{metric} on test")
    ax.set(xlim=(-0.8, 1.8), xticks=[0, 1], xticklabels=list(scores))
    ax.grid(axis="x", visible=False)
    return ax


def draw_interval(differences: pd.Series, low: float, high: float, title: str):
    """One difference for each seed, (seeds,), beside their mean with its 95 % interval."""
    ax = plt.subplots(figsize=(8.6, 2.8))[1]
    places, end = range(len(differences)), len(differences) + 0.5
    ax.axhline(0, color=GREY, linewidth=1)
    ax.plot(places, differences, "o", color=INK)
    mean = differences.mean()
    colour = SEARCHED if low > 0 or high < 0 else INK
    ax.errorbar(end, mean, [[mean - low], [high - mean]], fmt="s", color=colour, capsize=4)
    names = [f"seed {seed}" for seed in differences.index]
    ax.set_xticks([*places, end], [*names, "mean and\n95 % interval"])
    ax.set(title=title, ylabel="difference on test", xlim=(-0.5, end + 0.7))
    ax.grid(axis="x", visible=False)
    return ax


def draw_coverage(counts: Sequence[int], shares: Mapping[str, Sequence[float]]):
    """How often intervals contain the true mean: a line for each kind, (numbers of seeds,)."""
    ax = plt.subplots(figsize=(8.6, 2.8))[1]
    ax.axhline(0.95, color=GREY, linewidth=1)
    for (name, own), colour in zip(shares.items(), (INK, SEARCHED), strict=True):
        ax.plot(counts, own, "o-", label=name, color=colour)
    ax.annotate("promised: 95 %", (max(counts), 0.95), (0, 9), textcoords="offset points",
                ha="right", color=GREY)  # fmt: skip
    ax.set(title="How often the interval contains the true mean", xlabel="seeds")
    ax.set(ylabel="share of sweeps", ylim=(0.68, 1), xticks=list(counts))
    ax.legend(loc="lower right")
    return ax
