"""Commands on the data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from .common import table

#: How many problems of a data set are listed; thousands of files may be missing.
SHOWN = 10

app = typer.Typer(help="The data sets: where they are, whether they are right.")
DataSetName = Annotated[
    str, typer.Argument(metavar="TASK", help="A name from `bmnas data list`.", show_default=False)
]


@app.command("list")
def list_all() -> None:
    """List each data set: its name, state, licence, title and place."""
    found = _data_sets().items()
    typer.echo(table((name, d.state, d.license, d.title, d.root) for name, d in found))


@app.command()
def check(task: DataSetName = "") -> None:
    """Check the files of TASK, or of all; exits with 1 if any is missing or not right."""
    wrong = False
    for name, entry in _data_sets(task).items():
        problems = entry.check()
        wrong = wrong or bool(problems)
        lines = problems[:SHOWN] or ["all files are right"]
        if len(problems) > SHOWN:
            lines.append(f"… and {len(problems) - SHOWN:,} more")
        typer.echo("\n".join(f"{name}: {line}" for line in lines))
    if wrong:
        raise typer.Exit(1)


@app.command()
def fetch(task: DataSetName) -> None:
    """Download the files of TASK from where they were published."""
    (entry,) = _data_sets(task).values()
    if entry.embedded:
        typer.echo(f"{task}: embedded, nothing to fetch")
        return
    typer.echo(f"{task}: from {entry.source}")
    entry.fetch()
    typer.echo(f"{task}: in {entry.root}")


def _data_sets(task: str = "") -> Mapping:
    """The data sets by name, or only ``task``."""
    from ..tasks import DATA_SETS

    return {task: DATA_SETS[task]} if task else DATA_SETS
