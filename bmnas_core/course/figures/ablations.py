"""Figures and tables of notebook 07, ablations."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from ...draw.canvas import SEARCHED
from .does_it_work import (
    DARK,
    DEFAULT,
    GREY,
    MARK,
    draw_differences,
    highlight_default,
    in_bold,
)

COLUMNS = [("digits", "sum"), ("digits", "same"), ("avmnist", "sum"), ("avmnist", "same")]


def table_of_networks(found: pd.DataFrame, rows: Mapping[str, str], paper: Sequence[str]):
    """Mean ± deviation of networks: a row for each, a column for each task and rule.

    Args:
        found: summary of results, indexed by task, rule and network.
        rows: label → network.
        paper: the paper's score for each row.
    """
    cells = {}
    for label, network in rows.items():
        for column in COLUMNS:
            if (*column, network) in found.index:
                row = found.loc[(*column, network)]
                cells[label, ", ".join(column)] = f"{row['test']:.3f} ± {row['std']:.3f}"
    shown = pd.Series(cells).unstack().reindex([*rows])[[", ".join(c) for c in COLUMNS]]
    return shown.assign(**{"paper: NTU": paper}).fillna("–")


def table_of_variants(summary: pd.DataFrame, order: Sequence[str], compared: pd.DataFrame):
    """Variants of the search by rule; a table that shows itself.

    Args:
        summary: that of :func:`bmnas_core.benchmark.summarize`, with a column ``lost``.
        order: strategies from top to bottom.
        compared: text by strategy and rule, how much more regret than the default search.
    """
    heads = {"worst_rank": "worst rank", "regret": "regret", "lost": "lost", "seconds": "s"}
    formats = {"regret": "{:.2f}", "s": "{:.0f}"}
    parts = {}
    for rule in ("sum", "same"):
        own = summary[summary["rule"] == rule].set_index("strategy").loc[order, [*heads]]
        own = own.rename(columns=heads)
        own.insert(2, "− default", compared.loc[order, rule])
        parts[rule] = own
    wide = pd.concat(parts, axis="columns")
    styled = wide.style.format({column: formats.get(column[1], "{}") for column in wide})
    return styled.apply(in_bold, axis="columns").set_properties(**{"white-space": "nowrap"})


def draw_regrets(results: pd.DataFrame, order: Sequence[str], lost: float = 5):
    """Regret of variants of the search, a dot for each seed and a bar for the mean, by rule.

    Args:
        results: rows with rule, strategy, seed and regret.
        order: strategies from top to bottom.
        lost: with more regret than this a search counts as lost; a line marks it.
    """
    axes = plt.subplots(1, 2, figsize=(8.6, 0.3 * len(order) + 1.2), sharey=True)[1]
    for ax, rule in zip(axes, ("sum", "same"), strict=True):
        of_rule = results[results["rule"] == rule].groupby("strategy")["regret"]
        for y, name in enumerate(order[::-1]):
            regrets, mine = of_rule.get_group(name), name == DEFAULT
            look = {"color": SEARCHED if mine else GREY, "alpha": 0.6, "markersize": 5}
            ax.plot(regrets, [y] * len(regrets), "o", **look)
            bar = {"markersize": 15, "markeredgewidth": 2.5, "color": SEARCHED if mine else DARK}
            ax.plot(regrets.mean(), y, "|", **bar)
        ax.axvline(lost, color="C1", linestyle="dashed", linewidth=1)
        ax.text(lost * 1.1, len(order) - 0.5, "lost →", color=MARK, fontsize=8.5)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks([0, 0.5, 1, 10, 100], ["0", "0.5", "1", "10", "100"])
        ax.set(xlim=(-0.1, 130), ylim=(-0.7, len(order) + 0.1), title=f"rule {rule}")
        ax.set_xlabel("regret in points, log scale above 1", fontsize="medium")
    axes[0].set_yticks(range(len(order)), order[::-1])
    highlight_default(axes[0])
    return axes


def draw_points(table: pd.DataFrame):
    """Paired differences of test accuracy: columns as :func:`draw_differences` has them."""
    return draw_differences(table, "points of test accuracy ahead of the searched network")
