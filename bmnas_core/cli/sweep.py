"""The command that runs a notebook many times."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import experiments
from .common import table


def sweep(
    spec: Annotated[Path, Argument(metavar="SPEC", help="A .yaml file, as above.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the runs.", show_default=False)],
    workers: Annotated[
        int | None, Option(min=1, help="Runs at a time; by default, one per core.")
    ] = None,
    scheduler: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="A dask scheduler, such as tls://10.0.0.1:8786."),
    ] = None,
    insecure: Annotated[
        bool,
        Option(
            "--insecure",
            help="Accept a scheduler without TLS: anyone who reaches it can run code as you.",
        ),
    ] = False,
    dashboard: Annotated[
        bool, Option("--dashboard", help="Serve dask's dashboard, on this machine only.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run a notebook with many sets of parameters, several at a time.

    SPEC names the notebook and what varies:

    \b
      notebook: 00_quickstart.ipynb      # relative to SPEC
      parameters: {epochs: 5}            # the same for all runs
      grid: {rule: \\[sum, same], relaxation: \\[paper, pair]}
      seeds: 5                           # or \\[0, 1, 2]
      filter: rule == "sum" or relaxation == "pair"
      timeout: 600                       # seconds per cell
      time_limit: 3600                   # seconds per run

      random:                            # or sobol: points of a space
        count: 20
        seed: 0
        parameters:
          lr: {log_uniform: \\[1e-4, 1e-1]}
          dropout: {uniform: \\[0, 0.5]}
          C: {integers: \\[8, 64]}
          device: \\[cpu, cuda]
      list:                              # sets of values as written
        - {N: 1, M: 2}
        - {N: 2, M: 1}

    Only notebook is required. Every combination of what grid, random, sobol, list and
    seeds give is a run, with a folder of its own in DIR. The same command again does
    what is missing or failed. The exit status is 1 if a run has no result.
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
    if not failed.all():
        typer.echo(f"all results as a table: bmnas collect {out}")
    if failed.any():
        raise typer.Exit(1)
