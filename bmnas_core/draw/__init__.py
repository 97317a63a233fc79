"""Architectures and searches as pictures: graphs by graphviz, results by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import check_type
from ..genotype import Genotype
from . import genotypes, hypernets
from .canvas import DrawError, Picture
from .charts import (
    draw_differences,
    draw_frontiers,
    draw_matrices,
    draw_results,
    draw_trajectories,
)
from .curves import draw_curves
from .genotypes import draw_comparison
from .hypernets import draw_heatmaps

if TYPE_CHECKING:
    from ..architecture import ArchitectureWeights
    from ..search import SearchState


def draw(
    what: Genotype | SearchState | ArchitectureWeights,
    *,
    against: Genotype | None = None,
    engine: str = "wasi",
) -> Picture:
    """Draw a genotype, or the hypernet at one step of a search, as a graph.

    Args:
        what: a genotype; or a state of a search, drawn as its hypernet: the larger a weight, the
            wider its edge or the darker its operation; the genotype selected so far has blue edges
            and framed operations. Weights α, β, γ alone are drawn likewise, without a genotype.
        against: another genotype; where ``what`` differs from it, the picture is marked.
        engine: ``"wasi"`` runs graphviz inside this process and needs no program, ``"dot"`` calls
            the ``dot`` program. Both draw the same nodes and edges at the same places.

    Raises:
        DrawError: for anything else, an unknown engine, or one that is missing or fails.
        BmnasError: for a relaxation or an operation that is not registered.
    """
    if isinstance(what, Genotype):
        if against is not None:
            check_type(against, Genotype, "against", DrawError)
        return genotypes.graph(what, against).picture(engine)
    if against is not None:
        raise DrawError("against", f"it beside a {type(what).__name__}", "beside a Genotype")
    return hypernets.graph(*hypernets.weights_of(what)).picture(engine)
