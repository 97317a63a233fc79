"""Figures of notebook 02, primitive operations."""

import inspect
from textwrap import dedent

from ...draw import draw_matrices


def print_source(*functions):
    """Print the code of functions, one below the other, as it stands in the kit."""
    print("\n".join(dedent(inspect.getsource(function)) for function in functions))


def draw_features(features, *, shares=()):
    """Matrices (C, L) side by side, by title; those in ``shares`` from 0. Returns their Axes."""
    axes = draw_matrices(features, shares=shares, height=2.6)
    axes[0].set_ylabel("channel")
    for ax in axes:
        ax.set_xlabel("position")
    return axes


def draw_attention(y, weights, output):
    """y (C, L), the weights (L, L) of queries (down) and keys, the output (C, L). Returns Axes."""
    shown = {"y": y, "attention weights": weights, "Attention(x, y)": output}
    axes = draw_matrices(shown, shares=["attention weights"], height=2.9)
    axes[0].set(xlabel="position", ylabel="channel")
    axes[1].set(xlabel="position of y (key)", ylabel="position of x (query)")
    axes[2].set(xlabel="position", ylabel="channel")
    return axes
