"""Commands on results: many runs in one table, one run repeated."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import experiments
from ..experiments.collect import PAGES, TABLES, checked_suffix
from ..experiments.report import Cells, comparison_cells, failed_cells, rows_where, summary_cells
from .common import out_option, table


def collect(
    folders: Annotated[
        list[Path], Argument(metavar="DIR...", help="Folders of runs, or folders that hold them.")
    ],
    out: Annotated[
        Path | None, out_option("Write a row per run and network, as .csv or .parquet.")
    ] = None,
    report: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write everything as one page, .html.", show_default=False),
    ] = None,
) -> None:
    """Put runs into one table: means over seeds, and paired differences.

    Runs are grouped by every parameter that varies. Differences are paired by seed, with 95 %
    intervals by Student's t. Runs without a result are listed: those that failed, were killed or
    have not ended.
    """
    if out is not None:
        checked_suffix(out, *TABLES)
    if report is not None:
        checked_suffix(report, *PAGES)
    found = experiments.collect(*folders)
    if out is not None:
        found.save(out)
    if report is not None:
        experiments.write_report(found, report)
    of_networks = list(found.comparisons["compared"] == "network")
    differences = comparison_cells(found)
    parts = {
        "": summary_cells(found),
        "Settings, on the same seeds": rows_where(differences, [not one for one in of_networks]),
        "Networks, on the same seeds": rows_where(differences, of_networks),
        "Runs without a result": failed_cells(found),
    }
    texts = [_part(title, cells) for title, cells in parts.items() if cells.rows]
    if differing := found.differing():
        counts = (f"{name} ({len(values)} values)" for name, values in differing.items())
        texts.append(f"The runs differ in: {', '.join(counts)}")
    typer.echo("\n\n".join(texts))


def _part(title: str, cells: Cells) -> str:
    drawn = table(cells.rows, cells.head, numbers=cells.numbers)
    return f"{title}\n{drawn}" if title else drawn


def reproduce(
    run: Annotated[Path, Argument(metavar="RUN", help="The folder of a run.")],
    out: Annotated[
        Path | None,
        Option(metavar="DIR", help="Folder for the second run; by default RUN-reproduced."),
    ] = None,
    within: Annotated[
        float, Option(metavar="SHARE", help="The largest relative difference that is allowed.")
    ] = 0.0,
    timeout: Annotated[
        int | None, Option(metavar="SECONDS", min=1, help="The most that one cell may take.")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Repeat a run and say which numbers of its result are the same.

    Times are not compared. The exit status is 0 if all other numbers are equal to the bit, or
    differ by a share of at most SHARE; otherwise 1.
    """
    found = experiments.reproduce(run, out, within=within, progress=not quiet, timeout=timeout)
    n = len(found.numbers)
    typer.echo(found.folder / "result.json")
    typer.echo(f"{len(found.equal)} of {n} values are equal to the bit.")
    for numbers, what in ((found.near, f"within {within:g}"), (found.different, "different")):
        if numbers:
            rows = [
                (x.place, f"{x.before!r}", f"{x.after!r}", f"{x.difference:.3g}",
                 f"{x.relative:.3g}") for x in numbers
            ]  # fmt: skip
            head = (what, "before", "after", "difference", "relative")
            typer.echo(f"\n{table(rows, head, numbers=4)}")
    if found.origins:
        rows = [(name, *pair) for name, pair in found.origins.items()]
        typer.echo(f"\n{table(rows, ('made with', 'before', 'after'))}")
    if not found.succeeded:
        raise typer.Exit(1)
