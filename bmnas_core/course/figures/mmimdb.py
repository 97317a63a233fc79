"""Figures of notebook 10, MM-IMDB."""

from collections.abc import Mapping, Sequence
from math import log

import matplotlib.pyplot as plt
from torch import Tensor

from ...draw.canvas import INK, MUTED


def draw_posters(posters: Sequence[Tensor], labels: Tensor, genres: Sequence[str]) -> None:
    """Posters, (H, W, 3) in 0 … 1, under the genres of their films; labels: (films, genres)."""
    _, axes = plt.subplots(1, len(posters), figsize=(8.6, 3.0))
    for ax, poster, own in zip(axes, posters, labels, strict=True):
        ax.imshow(poster)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        names = [genre for genre, has in zip(genres, own, strict=True) if has]
        ax.set_title("\n".join(names), fontsize=8, loc="center")


def draw_genre_counts(panels: Mapping[str, Mapping[str, int]]):
    """Films of each genre, a panel a title, with one order of genres; returns the Axes."""
    _, axes = plt.subplots(1, len(panels), figsize=(8.6, 4.6), sharey=True)
    for ax, (title, counts) in zip(axes, panels.items(), strict=True):
        ax.barh(list(counts), list(counts.values()))
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("films")
        ax.grid(axis="y", visible=False)
        for y, n in enumerate(counts.values()):
            ax.text(n, y, f" {n:,}", va="center", fontsize=8, color=INK if n else MUTED)
        ax.margins(x=0.16)
    axes[0].tick_params(axis="y", labelsize=9)
    axes[0].invert_yaxis()
    return axes


def draw_thresholds(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], used: float):
    """Score of each network at each threshold, and the one that is ``used``; returns the Axes."""
    _, ax = plt.subplots(figsize=(8.6, 3.2))
    for name, (thresholds, scores) in curves.items():
        ax.plot(thresholds, scores, label=name)
    ax.axvline(used, ymax=0.86, color=MUTED, linestyle="--", linewidth=1.2)
    ax.text(used + 0.01, 0.03, f"the task's, {used:g}", color=MUTED, fontsize=9)
    ax.set(title="What the threshold does", xlabel="threshold of the probability")
    ax.set(ylabel="weighted F1, validation", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(ncols=3, loc="upper center")
    return ax


def draw_genre_scores(films: Sequence[int], scores: Sequence[float], genres: Sequence[str]):
    """F1 of each genre against the training films that it has; returns the Axes."""
    _, ax = plt.subplots(figsize=(8.6, 3.6))
    ax.scatter(films, scores, s=28)
    placed = []
    for y, x, name in sorted(zip(scores, films, genres, strict=True), reverse=True):
        near = any(abs(y - v) < 0.06 and abs(log(x / u)) < 0.3 for u, v in placed)
        below = {"xytext": (5, -11 if near else 3), "textcoords": "offset points"}
        ax.annotate(name, (x, y), fontsize=8.5, **below)
        placed.append((x, y))
    ax.set(title="Rare genres and common ones", ylim=(0, 1.05), ylabel="F1, validation")
    ax.set(xscale="log", xlabel="films of the genre in training, log scale")
    ticks = [n for n in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if n < 2 * max(films)]
    ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
    ax.minorticks_off()
    ax.margins(x=0.1)
    return ax
