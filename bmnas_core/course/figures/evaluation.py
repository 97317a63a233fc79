"""Figures and tables of notebook 06, evaluation."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from ...draw.canvas import INK, MUTED, SEARCHED

#: Colour, mark and style of the lines that several figures share.
LINES = {
    ("BM-NAS", 127): "C0o--", ("BM-NAS", 15): "C0o-", ("MLP of two layers", 127): "C1s--",
    ("MLP of two layers", 15): "C1s-", ("MLP of one layer", 15): "C6v-",
    ("fixed ConcatFC", 15): "C2^-", ("GMU", 15): "C3D-",
}  # fmt: skip
SPEAKERS = {
    "BM-NAS": "C0o", "fixed ConcatFC": "C2^", "GMU": "C3D", "late fusion, averaged": "C1s",
    "Audio alone": "C6v",
}  # fmt: skip


def style_results(table: pd.DataFrame, caption: str = ""):
    """A table of texts, indexed by network, with BM-NAS in bold and its variants in its colour."""

    def highlight(row: pd.Series) -> list[str]:
        look = f"color: {SEARCHED}" if row.name.startswith("BM-NAS") else ""
        return [look + "; font-weight: bold" * (row.name == "BM-NAS")] * len(row)

    styled = table.style.apply(highlight, axis="columns").set_caption(caption)
    return styled.set_table_styles([{"selector": "td", "props": "white-space: nowrap"}])


def draw_mfas(scores: pd.DataFrame, guess: float, temperatures: Sequence[float]):
    """What a small MFAS trains, in order, and the temperature of a whole one. Returns two Axes.

    Args:
        scores: a row for each configuration, with ``layers``, ``validation``, ``name``, and
            ``last``, whether a layer reads the last features of all modalities.
        guess: the score of always giving the most frequent answer.
        temperatures: at each step.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), width_ratios=(1.5, 1))
    for (layers, last), own in scores.groupby(["layers", "last"]):
        colour = f"C{layers - 1}"
        face = colour if last else "white"
        label = f"{layers} layer{'s' * (layers > 1)}, {'last features' if last else 'others'}"
        look = {"color": colour, "markerfacecolor": face, "markersize": 5.5, "label": label}
        left.plot(own.index + 1, own["validation"], "o", **look)
    for _, own in scores.groupby("layers"):
        place = own["validation"].idxmax()
        point, name = (place + 1, own["validation"].max()), own["name"][place]
        left.annotate(name, point, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    left.axhline(guess, color=MUTED, linewidth=1, linestyle="--")
    left.annotate("the most frequent answer for all", (0.02, 0.03), xycoords="axes fraction",
                  fontsize=8, color=MUTED)  # fmt: skip
    left.set(title="A small search", xlabel="configuration, in the order of training")
    left.set_ylabel("validation accuracy")
    left.set_ylim(guess - 0.04, scores["validation"].max() + 0.11)
    left.legend(fontsize=8, loc="upper left", ncols=2, handletextpad=0.2, columnspacing=1)
    right.plot(range(1, len(temperatures) + 1), temperatures, "o-", markersize=4)
    right.set(title="A whole search", xlabel="step", ylabel="temperature", ylim=(0, None))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    return left, right


def draw_behind(panels: Mapping[str, pd.DataFrame], names: Sequence[str]):
    """Points behind BM-NAS with their intervals, a panel for each title. Returns the Axes.

    Args:
        panels: title → table indexed by network, with columns ``mean`` and ``half``, half of the
            interval.
        names: networks from top to bottom.
    """
    size = 8.8, 0.24 * len(names) + 1.5
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True)
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        for y, name in enumerate(names):
            mean, half = points.loc[name]
            colour = SEARCHED if name.startswith("BM-NAS") else INK
            face = colour if abs(mean) > half else "white"
            ax.errorbar(mean, y, xerr=half, fmt="o", color=colour, markerfacecolor=face,
                        markersize=5, linewidth=1.4)  # fmt: skip
        ax.axvline(0, color=SEARCHED, linewidth=1)
        ax.set(title=title, xlim=(-10, 150), ylim=(len(names) - 0.4, -0.6))
        ax.set_xscale("symlog", linthresh=3)
        ax.set(xticks=[-3, 0, 3, 10, 30, 100], xticklabels=["−3", "0", "3", "10", "30", "100"])
        ax.minorticks_off()
        ax.set_xlabel("points behind BM-NAS\n(linear up to 3, log scale beyond)", fontsize=9)
        ax.grid(False, axis="y")
    axes[0].set_yticks(range(len(names)), names, fontsize=9)
    for label in axes[0].get_yticklabels():
        label.set_color(SEARCHED if label.get_text().startswith("BM-NAS") else INK)
    return axes


def draw_training_samples(curves: pd.DataFrame):
    """Accuracy against the number of training samples, on validation and test. Returns two Axes.

    Args:
        curves: indexed by network, epochs and samples; columns (split, "mean") and (split, "std").
    """
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 4.4), sharey=True)
    for ax, split in zip(axes, ("validation", "test"), strict=True):
        for (network, epochs), look in LINES.items():
            curve = curves.loc[network, epochs][split]
            label = f"{network}, {epochs} epochs" if epochs != 15 else network
            ax.plot(curve.index, curve["mean"], look, label=label, markersize=5)
            low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
            ax.fill_between(curve.index, low, high, color=look[:2], alpha=0.15, linewidth=0)
        ax.set(title=f"Accuracy on {split}", xlabel="training samples", yscale="logit")
        ax.set(xticks=[500, 1000, 1500, 2000, 3000], yticks=[0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
        ax.set_ylim(0.07, 0.975)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    axes[0].set_ylabel("accuracy (logit scale)")
    axes[1].set_xlabel("training samples, beside 1,000 of validation")
    axes[1].legend(loc="lower right", fontsize=9, handlelength=3.5)
    return axes


def draw_speakers(scores: Mapping[str, pd.DataFrame]):
    """Test accuracy by the speaker of *test*, a panel for each rule. Returns the Axes.

    Args:
        scores: rule → table of networks (rows) and speakers (columns).
    """
    fig, axes = plt.subplots(1, len(scores), figsize=(8.6, 3.4), sharey=True)
    first = next(iter(scores.values()))
    names = first.loc["BM-NAS"].sort_values().index
    for ax, (rule, table) in zip(axes, scores.items(), strict=True):
        for k, (network, look) in enumerate(SPEAKERS.items()):
            places = [x + 0.14 * (k - 2) for x in range(len(names))]  # side by side
            ax.plot(places, table.loc[network, names], look, label=network, markersize=5)
        ax.set(title=f"rule {rule}", xlabel="speaker of test", ylim=(0, 1.02))
        ax.set_xticks(range(len(names)), names, rotation=20)
        ax.grid(False, axis="x")
    axes[0].set_ylabel("test accuracy")
    axes[1].legend(loc="lower right", fontsize=9)
    return axes
