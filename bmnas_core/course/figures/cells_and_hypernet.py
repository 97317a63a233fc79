"""Figures of notebook 03, cells and the hypernet."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

#: Networks of the table of positions → what it calls them.
NETWORKS = {
    "fixed Sum": "Sum",
    "fixed ConcatFC": "ConcatFC",
    "fixed two-head attention": "two-head attention",
    "fixed attention on attention": "attention on attention",
    "BM-NAS": "BM-NAS",
    "MLP of two layers": "MLP on all positions as one vector",
}


def draw_gaps(factors: Sequence[float], gaps: Sequence[float]):
    """Differences between a mixed and a discrete Cell, one for each factor; returns the Axes."""
    _, ax = plt.subplots(figsize=(8.6, 2.9))
    ax.plot([f"{factor:g}" for factor in factors], gaps, marker="o")
    ax.set(title="From mixed to discrete", xlabel="factor on β and γ", ylim=(-0.02, None))
    ax.set_ylabel("mean |difference of Z|")
    return ax


def draw_edge_weights(weights: Mapping[str, Sequence[Tensor]], names: Sequence[str]):
    """Weights of P edges, two tensors (P,) for X and for Y, a panel for each relaxation."""
    axes = plt.subplots(1, len(weights), figsize=(8.6, 2.8), sharey=True, squeeze=False)[1][0]
    places = np.arange(len(names))
    for ax, (relaxation, both) in zip(axes, weights.items(), strict=True):
        for side, label, own in zip((-0.2, 0.2), ("for X", "for Y"), both, strict=True):
            ax.bar(places + side, own.detach(), 0.38, label=label)
        ax.set_xticks(places, names, fontsize="small")
        ax.set(title=relaxation, ylim=(0, 1.1))
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("weight of the edge")
    axes[-1].legend(loc="upper right")
    return axes


def table_of_positions(tried: pd.DataFrame):
    """Validation accuracy by rule, C and L, a row for each network; a table that shows itself.

    ``tried`` is what :func:`bmnas_core.baselines.read_tried` reads.
    """
    shown = tried[tried["network"].isin(NETWORKS) & (tried["max_lr"] == 1e-3) & (tried["C"] <= 128)]
    shown = shown.astype({"C": int, "L": int})
    wide = shown.pivot(index="network", columns=["rule", "C", "L"], values="validation")
    wide = wide.loc[[*NETWORKS], ["sum", "same"]].rename(index=NETWORKS)
    wide = wide.sort_index(axis="columns", level=["rule", "C", "L"], ascending=[False, True, True])
    return wide.style.format("{:.3f}").set_caption("AV-MNIST: accuracy on validation, one seed")
