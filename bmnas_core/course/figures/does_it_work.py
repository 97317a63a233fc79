"""Figures of notebook 08, does the search work?"""

from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ...benchmark import TabularBenchmark
from ...draw.canvas import SEARCHED
from ...genotype import Genotype

GREY, DARK, MARK = "#9AA4AE", "#5A6570", "#9C6500"
DEFAULT = "default search"
COLOURS = {"both modalities": SEARCHED, "one modality": GREY}


def leaders(benchmark: TabularBenchmark, k: int = 5):
    """The k best architectures, as a table that shows itself."""
    first = benchmark.table.head(k)
    shown = first.assign(steps=first["genotype"].map(_in_words))
    columns = ["steps", "validation", "test", "runs", "parameters"]
    formats = {"validation": "{:.4f}", "test": "{:.4f}", "parameters": "{:,}"}
    styled = shown[columns].style.format(formats).format_index(lambda row: row + 1)
    return styled.set_properties(subset=["steps"], **{"text-align": "left"})


def _in_words(genotype: Genotype) -> str:
    (cell,) = genotype.cells
    steps = (f"{step.op}({', '.join(step.inputs)})" for step in cell.steps)
    return f"X = {cell.inputs[0]}, Y = {cell.inputs[1]}: {'; '.join(steps)}"


def table_of_strategies(summary: pd.DataFrame, rule: str):
    """Ranks, regret, τ and seconds of each strategy; a table that shows itself.

    ``summary`` is that of :func:`bmnas_core.benchmark.summarize`.
    """
    columns = {
        "strategy": ("strategy", "{}"), "median_rank": ("median rank", "{:g}"),
        "worst_rank": ("worst", "{:g}"), "median_percentile": ("median, top %", "{:.1f}"),
        "worst_percentile": ("worst, top %", "{:.1f}"), "regret": ("regret, points", "{:.2f}"),
        "tau": ("τ", "{:.2f}"), "seconds": ("seconds", "{:.0f}"),
    }  # fmt: skip
    shown = summary.loc[summary["rule"] == rule, [*columns]]
    styled = shown.rename(columns={name: head for name, (head, _) in columns.items()}).style
    styled = styled.hide(axis="index").set_caption(f"rule {rule}")
    styled = styled.apply(in_bold, axis="columns").set_properties(
        subset=["strategy"], **{"text-align": "left"}
    )
    return styled.format(dict(columns.values()), na_rep="–")


def in_bold(row: pd.Series) -> list[str]:
    """The style of each cell in a row: bold for the default search."""
    mine = DEFAULT in (row.name, row.get("strategy"))
    return ["font-weight: bold" if mine else ""] * len(row)


def table_on_two_cells(table: pd.DataFrame):
    """What strategies found under voice, a row for each; a table that shows itself."""
    formats = ("{:.1f}", "{:.1f}", "{:.3f}", "{:.3f}", "{:.0f}", "{:.0f}", "{:.0f}")
    styled = table.style.apply(in_bold, axis="columns")
    return styled.format(dict(zip(table.columns, formats, strict=True)), na_rep="–")


def draw_space(tables: Mapping[str, pd.DataFrame]):
    """Each architecture as a dot, a row for each pair of features; a panel for each rule."""
    order = tables["sum"].groupby("pair")["test"].mean().sort_values().index
    random, axes = np.random.default_rng(0), _two_panels(4.6, sharey=True)
    for ax, (rule, table) in zip(axes, tables.items(), strict=True):
        for y, pair in enumerate(order):
            scores = table.loc[table["pair"] == pair, "test"]
            where = y + random.uniform(-0.28, 0.28, len(scores))
            look = {"color": _colour(pair), "markersize": 3, "rasterized": True}
            ax.plot(scores, where, ".", **look)
        best = table.iloc[0]
        place = best["test"], order.get_loc(best["pair"])
        ax.plot(*place, "o", markersize=9, markerfacecolor="none", color="C5")
        _name(ax, "rank 1", place, (0, 9), ha="center", color="C5")
        ax.set(title=f"rule {rule}", xlabel="mean test accuracy", xlim=(0, 1))
        ax.set_ylim(-0.6, len(order) - 0.1)
    axes[0].set_yticks(range(len(order)), order)
    _legend(axes[0], loc="lower right")
    return axes


def draw_noise(spreads: Mapping[str, pd.Series]):
    """Histograms: points of single networks from the mean of their architecture, by rule."""
    axes = _two_panels(2.6, sharex=True, sharey=True)
    for ax, (rule, spread) in zip(axes, spreads.items(), strict=True):
        ax.hist(spread, bins=np.linspace(-2.5, 2.5, 41), color=GREY)
        ax.set(title=f"rule {rule}, the hundred best")
        ax.set_xlabel("percentage points from the architecture's mean")
    axes[0].set_ylabel("networks")
    return axes


def draw_ranks(results: pd.DataFrame, sizes: Mapping[str, int]):
    """Ranks that strategies reached, a dot for each seed and a bar for the median, by rule."""
    names = results.groupby("strategy")["regret"].mean().sort_values(ascending=False).index
    random = np.random.default_rng(0)
    axes = _two_panels(0.34 * len(names) + 1.2, sharey=True)
    for ax, (rule, size) in zip(axes, sizes.items(), strict=True):
        for y, name in enumerate(names):
            mine = results.loc[
                (results["strategy"] == name) & (results["rule"] == rule), "rank"
            ].to_numpy()
            if len(mine):
                where = y + random.uniform(-0.2, 0.2, len(mine))
                colour = SEARCHED if name == DEFAULT else GREY
                ax.plot(mine, where, "o", color=colour, markersize=4, alpha=0.7)
                bar = {"markersize": 14, "markeredgewidth": 2.5}
                ax.plot(np.median(mine), y, "|", color=SEARCHED if name == DEFAULT else DARK, **bar)
        for share in (0.01, 0.05):
            ax.axvline(share * size, color="C1", linestyle="dashed", linewidth=1)
            ax.text(share * size, len(names) - 0.4, f"{share:.0%}", color=MARK, ha="center")
        ax.set(xscale="log", xlim=(0.9, size), ylim=(-0.6, len(names) - 0.1))
        ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        ax.set_xlabel("rank on test, log scale")
        ax.set_title(f"rule {rule}", pad=14)
    axes[0].set_yticks(range(len(names)), names)
    highlight_default(axes[0])
    return axes


def draw_differences(table: pd.DataFrame, label: str):
    """Paired differences with their intervals, a panel beside the other; without 0 they are blue.

    Args:
        table: a row for each difference: panel, name, difference, low, high.
        label: what the axes call the differences.
    """
    panels = table["panel"].nunique()
    size = (8.6, 1.3 + 0.3 * len(table) / panels)
    figure, axes = plt.subplots(1, panels, figsize=size, sharey=True, squeeze=False)
    for ax, (title, rows) in zip(axes[0], table.groupby("panel", sort=False), strict=True):
        places = range(len(rows))
        sure = (rows["low"] > 0) | (rows["high"] < 0)
        colours = [SEARCHED if one else DARK for one in sure]
        ax.axvline(0, color=GREY, linewidth=1)
        ax.hlines(places, rows["low"], rows["high"], colors=colours)
        ax.scatter(rows["difference"], places, c=colours, s=26, zorder=3)
        ax.set_title(title, fontsize="medium")
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.margins(x=0.12)
        ax.set_yticks(places, rows["name"])
    figure.supxlabel(label, fontsize="medium", x=0.62)
    return axes[0]


def draw_pairs(panels: Mapping[str, tuple[pd.Series, str]], worth: pd.Series, named: Collection):
    """Pairs of features as dots: a rating by the search against the best test score of the pair.

    Args:
        panels: title → ratings by pair, and what the axis calls them.
        worth: best test score by pair.
        named: pairs whose dots are named.
    """
    size = (8.6, 3.6) if len(panels) > 1 else (5.2, 3.6)
    axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)[1][0]
    for ax, (title, (ratings, label)) in zip(axes, panels.items(), strict=True):
        for pair, rating in ratings.items():
            ax.plot(rating, worth[pair], "o", color=_colour(pair), markersize=5)
        places = {pair: (ratings[pair], worth[pair]) for pair in named if pair in ratings.index}
        _name_dots(ax, places)
        ax.set(title=title, xlabel=label)
        ax.margins(0.12)
    axes[0].set_ylabel("best test accuracy of the pair")
    _legend(axes[-1], loc="lower right")
    return axes


def _name_dots(ax, places: Mapping[str, tuple[float, float]]) -> None:
    """Name dots to their left, with lines; the first with both modalities above, others below."""
    above = True
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        mixed = _colour(name) == SEARCHED
        offset = (-14, 11) if mixed and above else (-14, -19)
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
        _name(ax, name, place, offset, ha="right", color=DARK, arrowprops=line)
        above = above and not mixed


def draw_top(benchmarks: Mapping[str, TabularBenchmark], most: int = 350, reach: float = 0.035):
    """Validation against test of the architectures that are among the best on either, by rule."""
    axes = _two_panels(3.8)
    for ax, (rule, benchmark) in zip(axes, benchmarks.items(), strict=True):
        ranks = benchmark.table[["validation", "test"]].rank(ascending=False)
        top = benchmark.table[ranks.min(axis="columns") <= most]
        near = top[top["test"] > top["test"].max() - reach]
        ax.plot(near["validation"], near["test"], ".", color=GREY, markersize=4, rasterized=True)
        for split, colour in (("validation", "C1"), ("test", SEARCHED)):
            genotype = benchmark.best(split)
            best = benchmark.look_up(genotype)
            label = f"best on {split}: rank {benchmark.rank(genotype)} on test"
            ax.plot(best["validation"], best["test"], "o", color=colour, label=label)
        ax.set(title=f"rule {rule}", xlabel="mean validation accuracy")
        ax.set_ylim(top=top["test"].max() + 0.35 * reach)
        ax.legend(loc="upper left", fontsize="small")
    axes[0].set_ylabel("mean test accuracy")
    return axes


def draw_sample(voice: TabularBenchmark, on_two: pd.DataFrame, found: np.ndarray, seconds: float):
    """The sample of two Cells, best first, and random search in it with the time of searches.

    Args:
        voice: the benchmark with the sample.
        on_two: what strategies found, with percentile, test and seconds.
        found: (orders, n) test score of what random search has after 1 to n trainings.
        seconds: of one training.
    """
    left, right = _two_panels(3.6, sharey=True)
    shares = np.arange(1, len(voice) + 1) / len(voice) * 100
    left.plot(shares, voice.table["test"], color=DARK, label="random sample")
    for name, look in {"without tuning": "C5x", DEFAULT: "C0o"}.items():
        mine = on_two[on_two["strategy"] == name]
        left.plot(mine["percentile"].clip(lower=0.1), mine["test"], look, label=name)
    left.set(xscale="log", title="The sample, best first", ylabel="mean test accuracy")
    left.set_xlabel("architectures that are better, %, log scale")
    left.legend(loc="lower left")
    times, default = seconds * np.arange(1, found.shape[1] + 1), on_two["strategy"] == DEFAULT
    right.fill_between(times, *np.quantile(found, (0.1, 0.9), axis=0), color=GREY, alpha=0.4)
    median = np.median(found, axis=0)
    right.plot(times, median, color=DARK, label="random search: median, 10–90 %")
    right.plot(*on_two.loc[default, ["seconds", "test"]].to_numpy().T, "C0o", label=DEFAULT)
    right.set(xscale="log", title="Random search in the same time")
    right.set_xlabel("seconds on one core, log scale")
    right.legend(loc="lower right")
    for ax in (left, right):
        ax.xaxis.set_major_formatter("{x:g}")
    return left, right


def _two_panels(height: float, **shared):
    return plt.subplots(1, 2, figsize=(8.6, height), **shared)[1]


def _colour(pair: str) -> str:
    return COLOURS["both modalities" if "Image" in pair and "Audio" in pair else "one modality"]


def _legend(ax, **where) -> None:
    for label, colour in COLOURS.items():
        ax.plot([], [], "o", color=colour, markersize=5, label=label)
    ax.legend(**where)


def _name(ax, text: str, place: tuple[float, float], offset: tuple[float, float], **look) -> None:
    ax.annotate(text, place, offset, textcoords="offset points", fontsize=8.5, **look)


def highlight_default(ax) -> None:
    """Give the default search's name beside an Axes its colour."""
    for label in ax.get_yticklabels():
        if label.get_text() == DEFAULT:
            label.set(color=SEARCHED, fontweight="bold")
