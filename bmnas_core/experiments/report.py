"""What people read about many runs: tables of text, and one HTML page that needs no network."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from ..config import __version__
from ..draw import draw, draw_differences, draw_results
from ..draw.charts import signed
from ..errors import BmnasError, in_line
from ..genotype import Genotype
from ..storage import atomic_write
from .collect import COSTS, PAGES, as_text, checked_suffix
from .results import LEARNED

if TYPE_CHECKING:
    import pandas as pd

    from .collect import Collection, Run

#: At most: groups of runs with charts, differences in a chart, rows shown of the table at once.
MAX_CHARTS, MAX_ROWS, PAGE_ROWS = 24, 60, 25
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


class Cells(NamedTuple):
    """A table of text: column heads, rows, and how many columns, the last ones, are numbers."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: int


def summary_cells(found: Collection) -> Cells:
    """The summary of :func:`~bmnas_core.experiments.collect`: a row for each group and network."""
    rows = []
    for row in found.summary.to_dict("records"):
        numbers = str(row["seeds"]), mean_and_std(row["test"], row["std"]), interval(row)
        costs = f"{row['params']:,}", _one_decimal(row["seconds"])
        rows.append((*_group_texts(found, row), row["network"], *numbers, *costs))
    head = "network", "seeds", "test", "95 % interval", "parameters", "seconds"
    return Cells((*_group_head(found), *head), rows, 5)


def comparison_cells(found: Collection) -> Cells:
    """The paired differences of :func:`~bmnas_core.experiments.collect`, a row each."""
    rows = []
    for row in found.comparisons.to_dict("records"):
        difference = signed(row["difference"], row["low"], row["high"])
        rows.append((*_group_texts(found, row), compared(row), str(row["seeds"]), difference))
    head = "difference", "seeds", "mean [95 % interval]"
    return Cells((*_group_head(found), *head), rows, 2)


def failed_cells(found: Collection) -> Cells:
    """The runs without a result, a row each."""
    rows = [
        (row["folder"], row["status"], _without_path(row["error"], row["notebook"]) or "–")
        for row in found.failed.to_dict("records")
    ]
    return Cells(("run", "status", "error"), rows, 0)


def _without_path(error: str, notebook: str | None) -> str:
    """What :func:`~bmnas_core.experiments.run` says of a run, without the notebook's path."""
    after = error.partition(f"{notebook} ")[2]
    return after if after.startswith(("failed ", "ran out of time ", "was interrupted ")) else error


def mean_and_std(mean: float, std: float) -> str:
    """``0.9200 ± 0.0283``; without the spread if there is only one run."""
    return f"{mean:.4f} ± {std:.4f}" if std == std else f"{mean:.4f}"


def interval(row: Mapping) -> str:
    """``0.9012 … 0.9388``; a dash if there is only one run."""
    return f"{row['low']:.4f} … {row['high']:.4f}" if row["low"] == row["low"] else "–"


def _one_decimal(value: float) -> str:
    """``1,234.5``; a dash if it is not known."""
    return f"{value:,.1f}" if value == value else "–"


def compared(row: Mapping) -> str:
    """What a difference is of: ``"late fusion − learned by BM-NAS"``, ``"lr 0.1 − 0.01"``."""
    what = "" if row["compared"] == "network" else f"{row['compared']} "
    return f"{what}{row['other']} − {row['base']}"


def write_report(found: Collection, path: str | os.PathLike) -> Path:
    """Write a collection as one HTML page, with everything that it needs inside.

    It has tables, charts, every learned architecture, runs without a result, and provenance. All
    text from files is escaped. Raises :class:`BmnasError` for a suffix other than .html and .htm.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    path = checked_suffix(path, *PAGES)
    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    pages.globals |= {"bold": LEARNED}
    summary, comparisons = found.summary, found.comparisons
    learned = rows_where(summary_cells(found), summary["network"] == LEARNED)
    differences, of_networks = comparison_cells(found), comparisons["compared"] == "network"
    text = pages.get_template("report.html.j2").render(
        title=_title(found),
        facts=_facts(found),
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, bmnas {__version__}",
        failed=failed_cells(found),
        learned=_brief(learned),
        summary=summary_cells(found),
        of_settings=_brief(rows_where(differences, ~of_networks)),
        of_networks=rows_where(differences, of_networks),
        settings_figures=list(_settings_figures(found)),
        group_figures=list(_group_figures(found)),
        left_out=max(0, len(list(_groups(found, summary))) - MAX_CHARTS),
        genotypes=list(_genotypes(found)),
        table=_interactive(found.runs),
        origins=found.origins(),
        differing=found.differing(),
    )
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def _title(found: Collection) -> str:
    tasks = ", ".join(dict.fromkeys(found.runs["task"])) or "no results"
    return f"{tasks}: {len(found.done)} run{'' if len(found.done) == 1 else 's'}"


def _facts(found: Collection) -> list[tuple[str, str]]:
    """What was run, in a few lines."""
    runs, facts = found.runs, []
    names = {"task": "tasks", "rule": "rules", "protocol": "protocols"} | {
        name: name for name in found.settings
    }
    for name, title in {**names, "metric": "metrics", "seed": "seeds"}.items():
        values = [as_text(value) for value in dict.fromkeys(runs[name].dropna())]
        if values:
            more = f" and {len(values) - 12} more" if len(values) > 12 else ""
            facts.append((title, ", ".join(values[:12]) + more))
    if "notebook" in runs and "notebook" not in found.settings:
        facts += [("notebook", ", ".join(dict.fromkeys(runs["notebook"].dropna())))]
    return [(title, text) for title, text in facts if text]


def _group_head(found: Collection) -> tuple[str, ...]:
    return ("task", "rule", *found.settings, "metric")


def _group_texts(found: Collection, row: Mapping) -> tuple[str, ...]:
    """Task, rule or protocol, settings and metric of a row; ``–`` for none."""
    variant = [text for text in map(as_text, (row["rule"], row["protocol"])) if text != "–"]
    settings = (as_text(row[name]) for name in found.settings)
    return row["task"], ", ".join(variant) or "–", *settings, row["metric"]


def _group_title(found: Collection, row: Mapping) -> str:
    """``"digits, rule sum, relaxation pair, accuracy"``."""
    named = {"": row["task"], "rule ": row["rule"], "protocol ": row["protocol"]}
    named |= {f"{name} ": row[name] for name in found.settings} | {" ": row["metric"]}
    return ", ".join(f"{k.lstrip()}{as_text(v)}" for k, v in named.items() if as_text(v) != "–")


def _groups(found: Collection, table) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of each group under its title."""
    for _, rows in table.groupby(found.group, sort=False, dropna=False):
        yield _group_title(found, rows.iloc[0]), rows


def rows_where(cells: Cells, wanted: Iterable[bool]) -> Cells:
    """The rows that are wanted."""
    rows = [row for row, keep in zip(cells.rows, wanted, strict=True) if keep]
    return cells._replace(rows=rows)


def _brief(cells: Cells) -> Cells:
    """Several rows without the columns of text in which all agree."""
    columns = list(zip(*cells.rows, strict=True))
    texts = len(cells.head) - cells.numbers
    kept = [i for i, column in enumerate(columns) if i >= texts or len(set(column)) > 1]
    if len(cells.rows) < 2:
        return cells
    rows = [tuple(row[i] for i in kept) for row in cells.rows]
    return cells._replace(head=tuple(cells.head[i] for i in kept), rows=rows)


def _group_figures(found: Collection) -> Iterator[str]:
    """Charts of the first groups: their networks side by side."""
    for k, (title, rows) in enumerate(_groups(found, found.summary)):
        if k == MAX_CHARTS:
            return
        texts = [f"{name} {as_text(rows.iloc[0][name])}" for name in ("protocol", *found.settings)]
        options = ", ".join(text for text in texts if not text.endswith(" –"))
        rows = rows.assign(
            rule=rows["rule"].astype(object),
            options=options,
            search_seconds=rows["search_seconds"].fillna(0.0),
            train_seconds=rows["train_seconds"].fillna(rows["seconds"]),
        )
        with _as_svg() as svg:
            axes = draw_results(rows, highlight=LEARNED)
            yield svg(axes, f"results-{k}", f"Scores of networks: {title}")


def _settings_figures(found: Collection) -> Iterator[str]:
    """A chart for each setting that is compared: its differences in all groups."""
    table = found.comparisons[found.comparisons["compared"] != "network"]
    for k, (setting, rows) in enumerate(table.groupby("compared", sort=False)):
        more = f" (the first {MAX_ROWS} of {len(rows)})" if len(rows) > MAX_ROWS else ""
        named = [
            {**row, "panel": f"{setting}: {row['metric']}{more}", "name": _name(found, row)}
            for row in rows.head(MAX_ROWS).to_dict("records")
        ]
        with _as_svg() as svg:
            axes = draw_differences(_frame(named))
            yield svg(axes, f"setting-{k}", f"Paired differences between values of {setting}")


def _name(found: Collection, row: Mapping) -> str:
    rest = {**row, row["compared"]: None, "metric": None}
    return f"{_group_title(found, rest)}: {row['other']} − {row['base']}"


def _genotypes(found: Collection) -> Iterator[dict]:
    """Each learned architecture once, the most frequent first, with the runs that found it."""
    table = found.runs[found.runs["network"] == LEARNED].to_dict("records")
    scores = {
        run.folder: (_group_title(found, row), f"{row['seed']} ({row['test']:.4f})")
        for run, row in zip(found.done, table, strict=True)
    }
    finders: dict[str, list[Run]] = {}
    problems: dict[str, list[Run]] = {}
    for run in found.done:
        if run.result.get("genotype") is None:
            continue
        try:
            genotype = Genotype.from_json(json.dumps(run.result["genotype"]), "genotype")
            finders.setdefault(genotype.canonical().to_json(), []).append(run)
        except BmnasError as error:
            problems.setdefault(in_line(error), []).append(run)
    ordered = sorted(finders.items(), key=lambda item: -len(item[1]))
    for k, (_, runs) in enumerate(ordered):
        first = Genotype.from_json(json.dumps(runs[0].result["genotype"]))
        title = f"Architecture {k + 1}"
        svg = _with_own_ids(ElementTree.fromstring(draw(first).svg), f"genotype-{k}", title)
        yield {"title": title, "svg": svg, "found": _finders(runs, scores)}
    for why, runs in problems.items():
        yield {"title": f"Not drawn: {why}", "svg": "", "found": _finders(runs, scores)}


def _finders(runs: list[Run], scores: dict[Path, tuple[str, str]]) -> list[str]:
    """The runs by group: ``"digits, rule sum, accuracy: seed 0 (0.9310), 2 (0.9220)"``."""
    by_group: dict[str, list[str]] = {}
    for run in runs:
        title, seed = scores[run.folder]
        by_group.setdefault(title, []).append(seed)
    return [f"{title}: seed {', '.join(seeds)}" for title, seeds in by_group.items()]


def _interactive(runs) -> str:
    """The table of all runs, less the columns that are the same throughout."""
    named = ("task", "rule", "protocol", "metric", "direction", "device", "notebook")
    alike = [name for name in named if name in runs and runs[name].nunique(dropna=False) < 2]
    heads = {"params": "parameters", "search_seconds": "search, s", "train_seconds": "training, s"}
    shown = runs.drop(columns=alike).round(dict.fromkeys(COSTS[1:], 1)).rename(columns=heads)
    return sortable_table(shown, "all-runs-table", "All runs")


#: The part of a table that scrolls can be reached by keyboard, once the table is there.
FOCUSABLE = """<script>
new MutationObserver(() => {
  for (const part of document.querySelectorAll(".dt-scroll-body:not([tabindex])")) {
    Object.assign(part, { tabIndex: 0, role: "region", ariaLabel: %s });
  }
}).observe(document.body, { childList: true, subtree: true });
</script>"""


def sortable_table(frame, name: str, label: str) -> str:
    """HTML of a table that sorts and searches in the browser, with the scripts for it.

    ``name`` is its id, ``label`` what a screen reader calls it.
    """
    from itables import options, to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    table = to_html_datatable(
        frame,
        connected=False,
        allow_html=False,  # whatever a user's own itables.toml says
        table_id=name,
        classes="display compact nowrap",
        style="width:100%",
        showIndex=False,
        maxBytes=0,
        maxColumns=0,
        pageLength=PAGE_ROWS,
        lengthMenu=[10, PAGE_ROWS, 100, -1],
        scrollX=True,
        text_in_header_can_be_selected=False,  # a click there sorts
        display_logo_when_loading=False,
        layout={"topStart": "pageLength", "topEnd": "search", "bottomStart": "info",
                "bottomEnd": "paging"},
    )  # fmt: skip
    scripts, end, _ = generate_init_offline_itables_html(options.dt_bundle).rpartition("</script>")
    # Without its message for notebooks.
    return scripts + end + table + FOCUSABLE % json.dumps(label)


@contextmanager
def _as_svg():
    """A function from matplotlib's Axes to SVG for a page with others; closes the figure."""
    import matplotlib.pyplot as plt
    import numpy as np

    figures = []

    def svg(axes, prefix: str, title: str) -> str:
        figure = np.ravel(axes)[0].figure
        figures.append(figure)
        with plt.style.context("bmnas_core.figures"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that leave no room for the axes
            buffer = io.BytesIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=nothing)
        return _with_own_ids(ElementTree.fromstring(buffer.getvalue()), prefix, title)

    try:
        yield svg
    finally:
        for figure in figures:
            plt.close(figure)


def _with_own_ids(root: ElementTree.Element, prefix: str, title: str) -> str:
    """SVG with a title and ids that are unique on the page, and without style sheets."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name.endswith("href") and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    # What matplotlib sets in a style sheet, which would apply to the whole page.
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    root.attrib |= {"role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


def _frame(rows: list[dict]):
    import pandas as pd

    return pd.DataFrame(rows)
