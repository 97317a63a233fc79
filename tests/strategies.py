"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import re

from hypothesis import strategies as st

import bmnas_core.ops  # noqa: F401  (fills OPERATIONS)
from bmnas_core.genotype import (
    OPERATIONS,
    CellGenotype,
    Genotype,
    StepGenotype,
    cell_predecessors,
    step_predecessors,
)

#: Names that mean something to DOT, HTML, XML, JSON or a regular expression.
HOSTILE = [
    "<script>alert(1)</script>",
    'a"b\\N\\l',
    "<<b>x</b>>",
    "<b>_1",
    "R&D &lt;_2",
    "{a|<p> b}",
    " two  spaces ",
    "back\\",
    "é日本語🙂_3",
    "X",
    "S1",
    "out",
    "_",
    "]]>--><!--",
    "x" * 90,
]

_printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")


def names() -> st.SearchStrategy[str]:
    """Any legal feature name: a usual one, one of ``HOSTILE``, or any printable text."""
    usual = st.builds(
        "{}_{}".format, st.sampled_from(["Image", "Audio", "Text"]), st.integers(1, 4)
    )
    return (usual | st.sampled_from(HOSTILE) | st.text(_printable, min_size=1, max_size=40)).filter(
        lambda name: name.isprintable() and name.strip() and not re.fullmatch(r"C\d+", name)
    )


@st.composite
def genotypes(draw, features=None, max_cells: int = 4, max_steps: int = 4) -> Genotype:
    """Any legal genotype of up to ``max_cells`` Cells with up to ``max_steps`` steps each.

    Operations are drawn from all that are registered, features are ``features`` or, by default, 2
    to 8 names from :func:`names`.
    """
    if features is None:
        features = draw(st.lists(names(), min_size=2, max_size=8, unique=True))

    def pair(nodes):
        return draw(st.lists(st.sampled_from(nodes), min_size=2, max_size=2, unique=True))

    cells = []
    for i in range(draw(st.integers(1, max_cells))):
        steps = [
            StepGenotype(draw(st.sampled_from(sorted(OPERATIONS))), pair(step_predecessors(j)))
            for j in range(draw(st.integers(1, max_steps)))
        ]
        cells.append(CellGenotype(pair(cell_predecessors(features, i)), steps))
    return Genotype(features, cells)
