"""The command that does many runs of a notebook."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import experiments
from .common import table


def sweep(
    spec: Annotated[Path, Argument(metavar="SPEC", help="A .yaml file, see below.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the runs.", show_default=False)],
    workers: Annotated[
        int | None, Option(min=1, help="Runs at a time; by default, one for each core.")
    ] = None,
    scheduler: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="A dask scheduler, such as tls://10.0.0.1:8786."),
    ] = None,
    insecure: Annotated[
        bool, Option("--insecure", help="Take a scheduler without TLS: others can run code.")
    ] = False,
    dashboard: Annotated[
        bool, Option("--dashboard", help="Serve dask's own page, on this machine only.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run a notebook with many parameters, several at a time.

    SPEC names the notebook and what varies:

    \b
      notebook: 00_quickstart.ipynb      # relative to SPEC
      parameters: {epochs: 5}            # the same for all
      grid: {rule: \\[sum, same], relaxation: \\[paper, pair]}
      seeds: 5                           # or \\[0, 1, 2]
      filter: rule == "sum" or relaxation == "pair"
      timeout: 600                       # seconds a cell
      time_limit: 3600                   # seconds a run

      random:                            # or sobol
        count: 20
        seed: 0
        parameters:
          lr: {log_uniform: \\[1e-4, 1e-1]}
          dropout: {uniform: \\[0, 0.5]}
          C: {integers: \\[8, 64]}
          device: \\[cpu, cuda]
      list:                              # as written
        - {N: 1, M: 2}
        - {N: 2, M: 1}

    All but notebook can be left out. What varies is combined. Each run is a
    folder in DIR. The same command again does what is missing or failed. Exits
    with 1 if a run has no result.
    """
    options = {"scheduler": scheduler, "insecure": insecure, "dashboard": dashboard}
    runs = experiments.sweep(spec, out, workers=workers, progress=not quiet, **options)
    counts = ", ".join(f"{n} {status}" for status, n in runs["status"].value_counts().items())
    typer.echo(f"{out}: {len(runs)} runs: {counts}")
    failed = runs["status"] != "done"
    if (failed | (runs["error"] != "")).any():
        told = runs[failed | (runs["error"] != "")]
        rows = told[["run", "status", "error"]].itertuples(index=False)
        typer.echo(f"\n{table(rows, ('run', 'status', 'error'))}\n")
    typer.echo(f"all results as a table: bmnas collect {out}")
    if failed.any():
        raise typer.Exit(1)
