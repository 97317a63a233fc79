"""Architectures and searches as pictures, all in one visual language."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..architecture import ArchitectureWeights
from ..cells import RELAXATIONS
from ..genotype import OPERATIONS, Genotype
from ..search import SearchState
from . import curves as charts
from . import genotypes, hypernets
from . import results as tables
from .canvas import DrawError, Picture
from .genotypes import draw_comparison

__all__ = [
    "DrawError",
    "Picture",
    "draw",
    "draw_comparison",
    "draw_curves",
    "draw_heatmaps",
    "draw_results",
    "draw_trajectories",
]


def draw(
    what: Genotype | SearchState | ArchitectureWeights,
    *,
    against: Genotype | None = None,
    engine: str = "wasi",
) -> Picture:
    """A genotype, or the hypernet at one step of a search, as a graph.

    Args:
        what: a genotype; or a state of a search, drawn as its hypernet: edges as wide as they
            weigh, operations as dark, and what would be derived now in blue and framed; or the
            weights α, β, γ alone, drawn likewise without the latter.
        against: a genotype that ``what``, one too, is compared with: what differs is marked.
        engine: ``"wasi"`` runs graphviz inside this process and needs no program, ``"dot"`` calls
            the ``dot`` program. Both draw the same nodes and edges at the same places.

    Raises:
        DrawError: for anything else, an unknown engine, or one that is missing or fails.
    """
    if isinstance(what, Genotype):
        if not isinstance(against, Genotype | None):
            raise DrawError(f"against: found {type(against).__name__}; allowed: a Genotype")
        return genotypes.graph(what, against).picture(engine)
    if against is not None:
        raise DrawError(
            f"against: found it beside a {type(what).__name__}; allowed: beside a Genotype"
        )
    return hypernets.graph(*_weights_of(what)).picture(engine)


def draw_heatmaps(what: SearchState | ArchitectureWeights, *, engine: str = "wasi") -> Picture:
    """α, β and γ of a hypernet as heatmaps of their softmaxes.

    Args:
        what: a state of a search, in which what would be derived now is framed; or the weights
            alone.

    Raises:
        DrawError: as :func:`draw`.
    """
    if isinstance(what, Genotype):
        raise DrawError(
            "draw_heatmaps: found a Genotype, which has no weights; allowed: a SearchState"
        )
    return hypernets.heatmaps(*_weights_of(what)).picture(engine)


def draw_curves(history, *, at: int | None = None, engine: str = "wasi") -> Picture:
    """Losses, validation scores and changes of the derived genotype over a search.

    Args:
        history: a :class:`~bmnas_core.history.SearchHistory`; or several by name, drawn over each other.
        at: a step to mark.

    Raises:
        DrawError: for anything else, or an engine that is unknown, missing or fails.
    """
    several = history if isinstance(history, Mapping) else {"": history}
    if not several:
        raise DrawError("draw: found no history; allowed: one up")
    for name in several:
        if not isinstance(name, str):
            raise DrawError(f"draw: found a history named {name!r}; allowed: text")
    for one in several.values():
        _check_history(one, at)
    return charts.curves(dict(several), at).picture(engine)


def draw_trajectories(
    history, of: str = "alpha", *, at: int | None = None, engine: str = "wasi"
) -> Picture:
    """The softmaxes of α, β or γ over a search, a chart for every choice.

    Args:
        history: a :class:`~bmnas_core.history.SearchHistory`.
        of: ``"alpha"``, ``"beta"`` or ``"gamma"``.
        at: a step to mark.

    Raises:
        DrawError: for anything else, or an engine that is unknown, missing or fails.
    """
    _check_history(history, at)
    return charts.trajectories(history, of, at).picture(engine)


def draw_results(table, *, highlight: str = "BM-NAS", engine: str = "wasi") -> Picture:
    """Networks beside each other, best first: test score with its spread, parameters, seconds.

    Args:
        table: as :func:`bmnas_core.baselines.summary` returns it.
        highlight: how the names of networks begin that are shown in the colour of what is searched.

    Raises:
        DrawError: for a table without rows or columns that are needed.
    """
    needed = ("task", "rule", "network", "seeds", "test", "std", "params")
    needed += ("search_seconds", "train_seconds")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        found = f"no column {missing[0]!r}" if missing else "no rows"
        raise DrawError(f"draw: found {found}; allowed: a summary of results")
    return tables.results(table, highlight).picture(engine)


def _check_history(history, at) -> None:
    if not all(hasattr(history, name) for name in ("steps", "column", "changes", "about")):
        raise DrawError(f"draw: found {type(history).__name__}; allowed: a SearchHistory")
    if not len(history):
        raise DrawError("draw: found a history without states; allowed: one state up")
    if at is not None and not isinstance(at, int):
        raise DrawError(f"at: found {at!r}; allowed: an int, a step")


def _weights_of(what) -> tuple[ArchitectureWeights, Genotype | None]:
    weights = what.weights if isinstance(what, SearchState) else what
    if isinstance(weights, ArchitectureWeights):
        if weights.relaxation not in RELAXATIONS:
            known = ", ".join(map(repr, RELAXATIONS))
            raise DrawError(f"relaxation: found {weights.relaxation!r}; allowed: {known}")
        for op in weights.operations:
            if op not in OPERATIONS:
                known = ", ".join(map(repr, OPERATIONS))
                raise DrawError(f"operation: found {op!r}; allowed: {known}")
        arrays = [weights.alpha, *weights.beta, *weights.gamma]
        if not all(np.isfinite(array).all() for array in arrays):
            raise DrawError("weights: found NaN or infinity; allowed: finite numbers")
        return weights, what.genotype if isinstance(what, SearchState) else None
    raise DrawError(
        f"draw: found {type(what).__name__}; allowed: a Genotype, a SearchState or "
        "ArchitectureWeights"
    )
