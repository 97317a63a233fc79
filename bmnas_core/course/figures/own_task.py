"""Tables and figures of notebook 09, your own task."""

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML, Code

from ...draw import draw
from ...networks import FusionNetwork
from ...source import network_source

#: The row that stands out.
SEARCHED = "BM-NAS"


def side_by_side(network: FusionNetwork) -> HTML:
    """The graph of a network beside its source."""
    graph = draw(network.genotype).svg
    source = Code(network_source(network))._repr_html_()
    look = "font: 10px/1.3 monospace; white-space: pre; margin: 0; overflow-x: auto"
    source = source.replace("<pre", f'<pre style="{look}"', 1)
    return HTML(
        '<div style="display: flex; gap: 16px; align-items: flex-start">'
        f'<div style="flex: 0 0 400px">{graph}</div><div style="min-width: 0">{source}</div></div>'
    )


def as_table(found: Mapping[str, Mapping], caption: str):
    """What :func:`bmnas_core.baselines.compare` returned, best first; a table that shows itself."""
    table = pd.DataFrame(found).T[["test", "params"]].astype(float)
    table = table.sort_values("test", ascending=False)
    styled = table.style.format({"test": "{:.3f}", "params": "{:,.0f}"}).set_caption(caption)
    return styled.apply(_bold, axis="columns")


def _bold(row: pd.Series) -> list[str]:
    """The style of each cell in a row."""
    return ["font-weight: bold" if row.name == SEARCHED else ""] * len(row)
